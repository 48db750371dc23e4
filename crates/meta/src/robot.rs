//! Robots: programs that log in with a secret, which is shown once and kept as a hash.

use oci::Timestamp;

use crate::actor::Actor;
use crate::db::Db;
use crate::error::Error;
use crate::event::{self, Action, NewEvent};
use crate::subject::{self, SubjectKind};
use crate::tx::{Row, Tx};
use crate::value::limit as rows;

/// How many secrets of a robot are valid at the same time: the new one and the one it replaces.
const SECRETS: i64 = 2;

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

impl Db {
    /// Creates a robot with its first secret; [`Error::Conflict`] when the name is taken. Event `robot.add`. Synced.
    pub async fn create_robot(&self, robot: NewRobot, actor: &Actor) -> Result<RobotRow, Error> {
        let actor = actor.clone();
        self.write(move |tx| {
            Box::pin(async move {
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

    /// Adds a secret and removes the oldest, so that at most two are left. `None`: no such robot. Event `robot.rotate`.
    /// Synced.
    pub async fn rotate_robot(
        &self,
        name: &str,
        secret_hash: &str,
        secret_expires_at: Option<Timestamp>,
        actor: &Actor,
    ) -> Result<Option<RobotRow>, Error> {
        let (name, hash, actor) = (name.to_owned(), secret_hash.to_owned(), actor.clone());
        self.write(move |tx| {
            Box::pin(async move {
                let Some(id) = subject::find(tx, SubjectKind::Robot, &name).await? else { return Ok(None) };
                add_secret(tx, id, &hash, secret_expires_at).await?;
                tx.execute(
                    "DELETE FROM secret WHERE subject_id = $1 AND id NOT IN (
                         SELECT id FROM secret WHERE subject_id = $1 ORDER BY id DESC LIMIT $2)",
                    &[id.into(), SECRETS.into()],
                )
                .await?;
                tx.execute("UPDATE subject SET epoch = epoch + 1 WHERE id = $1", &[id.into()]).await?;
                subject::change_policy(tx).await?;
                event::append(tx, &NewEvent::new(Action::RobotRotate, &actor).reference(&name)).await?;
                find(tx, &name).await
            })
        })
        .await
    }

    /// Makes a robot able to do nothing, at once. `false`: no such robot. Event `robot.disable`. Synced.
    pub async fn disable_robot(&self, name: &str, actor: &Actor) -> Result<bool, Error> {
        self.set_disabled(SubjectKind::Robot, name, true, Action::RobotDisable, actor).await
    }

    /// Undoes [`Db::disable_robot`]. `false`: no such robot. Event `robot.enable`. Synced.
    pub async fn enable_robot(&self, name: &str, actor: &Actor) -> Result<bool, Error> {
        self.set_disabled(SubjectKind::Robot, name, false, Action::RobotEnable, actor).await
    }

    /// Removes a robot, its secrets and its grants; what it pushed stays. `false`: no such robot. Event `robot.remove`.
    /// Synced.
    pub async fn remove_robot(&self, name: &str, actor: &Actor) -> Result<bool, Error> {
        self.remove_subject(SubjectKind::Robot, name, Action::RobotRemove, actor).await
    }
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
