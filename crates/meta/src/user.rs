//! Users.

use oci::Timestamp;

use crate::actor::Actor;
use crate::db::Db;
use crate::error::Error;
use crate::event::{self, Action, NewEvent};
use crate::grant::{self, NewGrant};
use crate::subject::{self, SubjectKind};
use crate::tx::{Row, Tx};
use crate::value::limit as rows;

/// A user to be created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewUser {
    /// The login name, not one of a user or robot.
    pub name: String,
    /// Whether it may use the admin API.
    pub administrator: bool,
    /// The hash of the password; without one it cannot log in.
    pub password_hash: Option<String>,
}

/// A user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserRow {
    /// Its row.
    pub id: i64,
    /// The login name.
    pub name: String,
    /// Whether it may use the admin API.
    pub administrator: bool,
    /// Whether it may do nothing.
    pub disabled: bool,
    /// The hash of the password.
    pub password_hash: Option<String>,
    /// Changes with the password and with disabling.
    pub epoch: i64,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it last logged in, to the accuracy of the task that keeps it.
    pub last_login_at: Option<Timestamp>,
}

/// The end of [`Db::update_user`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UpdateUser {
    /// It is so now.
    Done(UserRow),
    /// No such user.
    Unknown,
    /// Nothing was changed: nobody would be left who can log in to the admin API.
    LastAdministrator,
}

/// The end of [`Db::remove_user`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RemoveUser {
    /// It is gone.
    Done,
    /// No such user.
    Unknown,
    /// Nothing was changed: nobody would be left who can log in to the admin API.
    LastAdministrator,
}

impl Db {
    /// Creates a user; [`Error::Conflict`] when the name is taken. Event `user.add`. Synced.
    pub async fn create_user(&self, user: NewUser, actor: &Actor) -> Result<UserRow, Error> {
        let actor = actor.clone();
        self.write(move |tx| {
            Box::pin(async move {
                subject::begin_change(tx);
                create(tx, &user, &actor).await
            })
        })
        .await
    }

    /// Creates the first user with a grant (whose `subject` is replaced by it), if there is no user at all. Events
    /// `user.add` and `grant.add`. Synced.
    pub async fn create_first_user(
        &self,
        user: NewUser,
        grant: NewGrant,
        actor: &Actor,
    ) -> Result<Option<UserRow>, Error> {
        let actor = actor.clone();
        self.write(move |tx| {
            Box::pin(async move {
                subject::begin_change(tx);
                let other =
                    tx.optional("SELECT 1 FROM subject WHERE kind = $1 LIMIT 1", &["user".into()], |_| Ok(())).await?;
                if other.is_some() {
                    return Ok(None);
                }
                let user = create(tx, &user, &actor).await?;
                grant::add(tx, &NewGrant { subject: Some(user.id), ..grant }, &actor).await?;
                Ok(Some(user))
            })
        })
        .await
    }

    /// Users in the order of their names, after `after`.
    pub async fn users(&self, after: Option<&str>, limit: usize) -> Result<Vec<UserRow>, Error> {
        let after = after.unwrap_or_default().to_owned();
        self.read_single(move |tx| {
            Box::pin(async move {
                tx.query(
                    "SELECT id, name, administrator, disabled, password_hash, epoch, created_at, last_login_at
                     FROM subject WHERE kind = 'user' AND name > $1 ORDER BY name LIMIT $2",
                    &[(&after).into(), rows(limit).into()],
                    user,
                )
                .await
            })
        })
        .await
    }

    /// The user of this name.
    pub async fn user(&self, name: &str) -> Result<Option<UserRow>, Error> {
        let name = name.to_owned();
        self.read_single(move |tx| Box::pin(async move { find(tx, &name).await })).await
    }

    /// Gives a user another password, which ends what the old one opened. `false`: no such user. Event
    /// `user.password`. Synced.
    pub async fn set_user_password(&self, name: &str, password_hash: &str, actor: &Actor) -> Result<bool, Error> {
        let (name, hash, actor) = (name.to_owned(), password_hash.to_owned(), actor.clone());
        self.write(move |tx| {
            Box::pin(async move {
                subject::begin_change(tx);
                let changed = tx
                    .execute(
                        "UPDATE subject SET password_hash = $1, epoch = epoch + 1 WHERE name = $2 AND kind = 'user'",
                        &[(&hash).into(), (&name).into()],
                    )
                    .await?;
                if changed > 0 {
                    subject::change_policy(tx).await?;
                    event::append(tx, &NewEvent::new(Action::UserPassword, &actor).reference(&name)).await?;
                }
                Ok(changed > 0)
            })
        })
        .await
    }

    /// Makes a user an administrator or not, and able to do nothing or not, in one change; what is `None` stays. Events
    /// `user.administrator`, `user.disable`, `user.enable`, of what changes. Synced.
    pub async fn update_user(
        &self,
        name: &str,
        administrator: Option<bool>,
        disabled: Option<bool>,
        actor: &Actor,
    ) -> Result<UpdateUser, Error> {
        let (name, actor) = (name.to_owned(), actor.clone());
        self.write(move |tx| {
            Box::pin(async move {
                subject::begin_change(tx);
                let Some(id) = subject::find(tx, SubjectKind::User, &name).await? else {
                    return Ok(UpdateUser::Unknown);
                };
                if (administrator == Some(false) || disabled == Some(true)) && is_last_administrator(tx, id).await? {
                    return Ok(UpdateUser::LastAdministrator);
                }
                if let Some(administrator) = administrator {
                    set_administrator(tx, id, &name, administrator, &actor).await?;
                }
                if let Some(disabled) = disabled
                    && subject::set_disabled(tx, id, disabled).await?
                {
                    let action = if disabled { Action::UserDisable } else { Action::UserEnable };
                    event::append(tx, &NewEvent::new(action, &actor).reference(&name)).await?;
                }
                Ok(find(tx, &name).await?.map_or(UpdateUser::Unknown, UpdateUser::Done))
            })
        })
        .await
    }

    /// Removes a user and its grants; what it pushed stays. Event `user.remove`. Synced.
    pub async fn remove_user(&self, name: &str, actor: &Actor) -> Result<RemoveUser, Error> {
        let (name, actor) = (name.to_owned(), actor.clone());
        self.write(move |tx| {
            Box::pin(async move {
                subject::begin_change(tx);
                let Some(id) = subject::find(tx, SubjectKind::User, &name).await? else {
                    return Ok(RemoveUser::Unknown);
                };
                if is_last_administrator(tx, id).await? {
                    return Ok(RemoveUser::LastAdministrator);
                }
                subject::remove(tx, id).await?;
                event::append(tx, &NewEvent::new(Action::UserRemove, &actor).reference(&name)).await?;
                Ok(RemoveUser::Done)
            })
        })
        .await
    }
}

/// Whether this is the only user who may use the admin API and can log in. Asked in the transaction of the change.
async fn is_last_administrator(tx: &mut Tx, id: i64) -> Result<bool, Error> {
    let counts = "kind = 'user' AND administrator = 1 AND disabled = 0 AND password_hash IS NOT NULL";
    let one =
        tx.optional(&format!("SELECT 1 FROM subject WHERE {counts} AND id = $1"), &[id.into()], |_| Ok(())).await?;
    let other = tx
        .optional(&format!("SELECT 1 FROM subject WHERE {counts} AND id <> $1 LIMIT 1"), &[id.into()], |_| Ok(()))
        .await?;
    Ok(one.is_some() && other.is_none())
}

async fn set_administrator(tx: &mut Tx, id: i64, name: &str, administrator: bool, actor: &Actor) -> Result<(), Error> {
    let changed = tx
        .execute(
            "UPDATE subject SET administrator = $1 WHERE id = $2 AND administrator <> $1",
            &[administrator.into(), id.into()],
        )
        .await?;
    if changed == 0 {
        return Ok(());
    }
    subject::change_policy(tx).await?;
    let event = NewEvent::new(Action::UserAdministrator, actor).reference(name);
    event::append(tx, &event.detail(serde_json::json!({ "administrator": administrator }))).await
}

async fn create(tx: &mut Tx, new: &NewUser, actor: &Actor) -> Result<UserRow, Error> {
    let created = tx
        .execute(
            "INSERT INTO subject (name, kind, administrator, disabled, password_hash, epoch, created_at)
             VALUES ($1, 'user', $2, 0, $3, 1, $4) ON CONFLICT (name) DO NOTHING",
            &[(&new.name).into(), new.administrator.into(), new.password_hash.as_ref().into(), tx.now().into()],
        )
        .await?;
    if created == 0 {
        return Err(Error::conflict(format!("a user or robot named '{}'", new.name)));
    }
    subject::change_policy(tx).await?;
    let event = NewEvent::new(Action::UserAdd, actor).reference(&new.name);
    event::append(tx, &event.detail(serde_json::json!({ "administrator": new.administrator }))).await?;
    find(tx, &new.name).await?.ok_or_else(|| Error::corrupt("a user that was just created is missing"))
}

async fn find(tx: &mut Tx, name: &str) -> Result<Option<UserRow>, Error> {
    tx.optional(
        "SELECT id, name, administrator, disabled, password_hash, epoch, created_at, last_login_at
         FROM subject WHERE name = $1 AND kind = 'user'",
        &[name.into()],
        user,
    )
    .await
}

fn user(row: &Row<'_>) -> Result<UserRow, Error> {
    Ok(UserRow {
        id: row.get(0)?,
        name: row.get(1)?,
        administrator: row.get(2)?,
        disabled: row.get(3)?,
        password_hash: row.get(4)?,
        epoch: row.get(5)?,
        created_at: row.get(6)?,
        last_login_at: row.get(7)?,
    })
}
