//! Robots: programs that log in with a secret, which is shown once and kept as a hash.

use oci::Timestamp;

use crate::actor::Actor;
use crate::db::Db;
use crate::error::Error;
use crate::event::{self, Action, NewEvent};
use crate::subject::{self, SubjectKind};
use crate::tx::{Row, Tx};
use crate::value::limit as rows;

/// How many secrets of a robot stay beside a new one: the one that it is to replace.
const OLDER_SECRETS: i64 = 1;

/// A robot to be created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewRobot {
    /// The login name, not one of a user or robot: the namespace with dots, a dot, its own name.
    pub name: String,
    /// The namespace.
    pub namespace: String,
    /// From when on it may do nothing.
    pub expires_at: Timestamp,
    /// The hash of its first secret.
    pub secret_hash: String,
}

/// A robot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RobotRow {
    /// Its row.
    pub id: i64,
    /// The login name.
    pub name: String,
    /// The namespace.
    pub namespace: String,
    /// Whether it may do nothing.
    pub disabled: bool,
    /// Changes with its secrets and with disabling.
    pub epoch: i64,
    /// When it was created.
    pub created_at: Timestamp,
    /// From when on it may do nothing.
    pub expires_at: Option<Timestamp>,
    /// When it last logged in, to the accuracy of the task that keeps it.
    pub last_login_at: Option<Timestamp>,
    /// Its secrets, the oldest first.
    pub secrets: Vec<SecretRow>,
}

/// A secret of a robot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretRow {
    /// Its row.
    pub id: i64,
    /// The hash.
    pub hash: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// From when on it opens nothing; none for as long as the robot.
    pub expires_at: Option<Timestamp>,
}

/// What becomes of a robot's secrets when it gets a new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OlderSecrets {
    /// The newest stays, so that the machine can be given the new one at leisure.
    KeepNewest,
    /// All end at once.
    End,
}

impl Db {
    /// Creates a robot with its first secret; [`Error::Conflict`] when the name is taken. Event `robot.add`. Synced.
    pub async fn create_robot(&self, robot: NewRobot, actor: &Actor) -> Result<RobotRow, Error> {
        let actor = actor.clone();
        self.write(move |tx| {
            Box::pin(async move {
                subject::begin_change(tx);
                let created = tx
                    .execute(
                        "INSERT INTO subject (name, kind, namespace, administrator, disabled, epoch, created_at, expires_at)
                         VALUES ($1, 'robot', $2, 0, 0, 1, $3, $4) ON CONFLICT (name) DO NOTHING",
                        &[(&robot.name).into(), (&robot.namespace).into(), tx.now().into(), robot.expires_at.into()],
                    )
                    .await?;
                if created == 0 {
                    return Err(Error::conflict(format!("a user or robot named '{}'", robot.name)));
                }
                let Some(id) = subject::find(tx, SubjectKind::Robot, &robot.name).await? else {
                    return Err(Error::corrupt("a robot that was just created is missing"));
                };
                add_secret(tx, id, &robot.secret_hash, None).await?;
                subject::change_policy(tx).await?;
                let event = NewEvent::new(Action::RobotAdd, &actor).reference(&robot.name);
                let detail = serde_json::json!({ "expires_at": robot.expires_at.to_string() });
                event::append(tx, &event.detail(detail)).await?;
                find(tx, &robot.name).await?.ok_or_else(|| Error::corrupt("a robot that was just created is missing"))
            })
        })
        .await
    }

    /// Robots in the order of their names, after `after`.
    pub async fn robots(&self, after: Option<&str>, limit: usize) -> Result<Vec<RobotRow>, Error> {
        let after = after.unwrap_or_default().to_owned();
        self.read(move |tx| {
            Box::pin(async move {
                let mut robots = tx
                    .query(
                        "SELECT id, name, namespace, disabled, epoch, created_at, expires_at, last_login_at
                         FROM subject WHERE kind = 'robot' AND name > $1 ORDER BY name LIMIT $2",
                        &[(&after).into(), rows(limit).into()],
                        robot,
                    )
                    .await?;
                for robot in &mut robots {
                    robot.secrets = secrets(tx, robot.id).await?;
                }
                Ok(robots)
            })
        })
        .await
    }

    /// The robot of this name.
    pub async fn robot(&self, name: &str) -> Result<Option<RobotRow>, Error> {
        let name = name.to_owned();
        self.read(move |tx| Box::pin(async move { find(tx, &name).await })).await
    }

    /// Adds a secret, and moves the robot's expiry if one is given; the older secrets keep the old one. At most two are
    /// left. Where one is removed, tokens that were issued before end. `None`: no such robot. Event `robot.rotate`.
    /// Synced.
    pub async fn rotate_robot(
        &self,
        name: &str,
        secret_hash: &str,
        older: OlderSecrets,
        expires_at: Option<Timestamp>,
        actor: &Actor,
    ) -> Result<Option<RobotRow>, Error> {
        let (name, hash, actor) = (name.to_owned(), secret_hash.to_owned(), actor.clone());
        self.write(move |tx| {
            Box::pin(async move {
                subject::begin_change(tx);
                let Some(robot) = find(tx, &name).await? else { return Ok(None) };
                let stay = match older {
                    OlderSecrets::KeepNewest => OLDER_SECRETS,
                    OlderSecrets::End => 0,
                };
                let removed = tx
                    .execute(
                        "DELETE FROM secret WHERE subject_id = $1 AND id NOT IN (
                             SELECT id FROM secret WHERE subject_id = $1 ORDER BY id DESC LIMIT $2)",
                        &[robot.id.into(), stay.into()],
                    )
                    .await?;
                if let Some(expires_at) = expires_at {
                    set_expiry(tx, &robot, expires_at).await?;
                }
                add_secret(tx, robot.id, &hash, None).await?;
                if removed > 0 {
                    tx.execute("UPDATE subject SET epoch = epoch + 1 WHERE id = $1", &[robot.id.into()]).await?;
                }
                subject::change_policy(tx).await?;
                let event = NewEvent::new(Action::RobotRotate, &actor).reference(&name);
                let expires_at = expires_at.or(robot.expires_at).map(|at| at.to_string());
                let detail = serde_json::json!({ "expires_at": expires_at, "secrets_removed": removed });
                event::append(tx, &event.detail(detail)).await?;
                find(tx, &name).await
            })
        })
        .await
    }

    /// Makes a robot able to do nothing, or undoes that, at once. `None`: no such robot. Event `robot.disable` or
    /// `robot.enable`, if that changes anything. Synced.
    pub async fn update_robot(&self, name: &str, disabled: bool, actor: &Actor) -> Result<Option<RobotRow>, Error> {
        let (name, actor) = (name.to_owned(), actor.clone());
        self.write(move |tx| {
            Box::pin(async move {
                subject::begin_change(tx);
                let Some(id) = subject::find(tx, SubjectKind::Robot, &name).await? else { return Ok(None) };
                if subject::set_disabled(tx, id, disabled).await? {
                    let action = if disabled { Action::RobotDisable } else { Action::RobotEnable };
                    event::append(tx, &NewEvent::new(action, &actor).reference(&name)).await?;
                }
                find(tx, &name).await
            })
        })
        .await
    }

    /// Removes a robot, its secrets and its grants; what it pushed stays. `false`: no such robot. Event `robot.remove`.
    /// Synced.
    pub async fn remove_robot(&self, name: &str, actor: &Actor) -> Result<bool, Error> {
        let (name, actor) = (name.to_owned(), actor.clone());
        self.write(move |tx| {
            Box::pin(async move {
                subject::begin_change(tx);
                let Some(id) = subject::find(tx, SubjectKind::Robot, &name).await? else { return Ok(false) };
                subject::remove(tx, id).await?;
                event::append(tx, &NewEvent::new(Action::RobotRemove, &actor).reference(&name)).await?;
                Ok(true)
            })
        })
        .await
    }
}

/// Moves the expiry of a robot. Its secrets stay valid no longer than they were.
async fn set_expiry(tx: &mut Tx, robot: &RobotRow, expires_at: Timestamp) -> Result<(), Error> {
    tx.execute(
        "UPDATE secret SET expires_at = $1 WHERE subject_id = $2 AND expires_at IS NULL",
        &[robot.expires_at.into(), robot.id.into()],
    )
    .await?;
    tx.execute("UPDATE subject SET expires_at = $1 WHERE id = $2", &[expires_at.into(), robot.id.into()]).await?;
    Ok(())
}

async fn add_secret(tx: &mut Tx, subject: i64, hash: &str, expires_at: Option<Timestamp>) -> Result<(), Error> {
    tx.execute(
        "INSERT INTO secret (subject_id, hash, created_at, expires_at) VALUES ($1, $2, $3, $4)",
        &[subject.into(), hash.into(), tx.now().into(), expires_at.into()],
    )
    .await
    .map(drop)
}

/// The secrets of a subject, the oldest first.
pub(crate) async fn secrets(tx: &mut Tx, subject: i64) -> Result<Vec<SecretRow>, Error> {
    tx.query(
        "SELECT id, hash, created_at, expires_at FROM secret WHERE subject_id = $1 ORDER BY id",
        &[subject.into()],
        |row| Ok(SecretRow { id: row.get(0)?, hash: row.get(1)?, created_at: row.get(2)?, expires_at: row.get(3)? }),
    )
    .await
}

async fn find(tx: &mut Tx, name: &str) -> Result<Option<RobotRow>, Error> {
    let found = tx
        .optional(
            "SELECT id, name, namespace, disabled, epoch, created_at, expires_at, last_login_at
             FROM subject WHERE name = $1 AND kind = 'robot'",
            &[name.into()],
            robot,
        )
        .await?;
    let Some(mut found) = found else { return Ok(None) };
    found.secrets = secrets(tx, found.id).await?;
    Ok(Some(found))
}

fn robot(row: &Row<'_>) -> Result<RobotRow, Error> {
    Ok(RobotRow {
        id: row.get(0)?,
        name: row.get(1)?,
        namespace: row.get(2)?,
        disabled: row.get(3)?,
        epoch: row.get(4)?,
        created_at: row.get(5)?,
        expires_at: row.get(6)?,
        last_login_at: row.get(7)?,
        secrets: Vec::new(),
    })
}
