//! Subjects: users and robots under one set of names, and what rights are computed from.

use oci::{RepositoryName, Timestamp};

use crate::actor::Actor;
use crate::db::Db;
use crate::error::Error;
use crate::grant::{self, GrantRow};
use crate::lock::{Hold, Lock};
use crate::robot::{self, SecretRow};
use crate::tx::{Row, Tx};
use crate::upload;

/// What kind of subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SubjectKind {
    /// A person, with a password.
    User,
    /// A program, with secrets.
    Robot,
}

impl SubjectKind {
    /// The name in rows and in front of a subject's name: `user`, `robot`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Robot => "robot",
        }
    }

    fn parse(text: &str) -> Result<Self, Error> {
        match text {
            "user" => Ok(Self::User),
            "robot" => Ok(Self::Robot),
            _ => Err(Error::corrupt(format!("a subject of the unknown kind '{text}'"))),
        }
    }
}

/// A subject as rights are computed from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubjectRow {
    /// Its row; never used again after it was removed.
    pub id: i64,
    /// Its login name.
    pub name: String,
    /// User or robot.
    pub kind: SubjectKind,
    /// Whether it may use the admin API.
    pub administrator: bool,
    /// Whether it may do nothing.
    pub disabled: bool,
    /// Changes with every change of its credentials.
    pub epoch: i64,
    /// From when on it may do nothing.
    pub expires_at: Option<Timestamp>,
}

/// Everything that rights are computed from, on one state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RulesRows {
    /// Rises with every change of the rest.
    pub epoch: i64,
    /// All subjects.
    pub subjects: Vec<SubjectRow>,
    /// All grants.
    pub grants: Vec<GrantRow>,
}

/// What a login is checked against.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CredentialRow {
    /// The subject.
    pub subject: SubjectRow,
    /// The hash of a user's password.
    pub password_hash: Option<String>,
    /// A robot's secrets, the oldest first.
    pub secrets: Vec<SecretRow>,
}

impl Db {
    /// All subjects, in the order of their rows.
    pub async fn subjects(&self) -> Result<Vec<SubjectRow>, Error> {
        self.read_single(|tx| Box::pin(async move { all(tx).await })).await
    }

    /// All grants, in the order of their rows.
    pub async fn grants(&self) -> Result<Vec<GrantRow>, Error> {
        self.read_single(|tx| Box::pin(async move { grant::all(tx).await })).await
    }

    /// A number that rises with every change of subjects and grants.
    pub async fn policy_epoch(&self) -> Result<i64, Error> {
        self.read_single(|tx| Box::pin(async move { epoch(tx).await })).await
    }

    /// Subjects, grants and epoch, on one state.
    pub async fn rules(&self) -> Result<RulesRows, Error> {
        self.read(|tx| {
            Box::pin(async move {
                Ok(RulesRows { epoch: epoch(tx).await?, subjects: all(tx).await?, grants: grant::all(tx).await? })
            })
        })
        .await
    }

    /// What a login under this name is checked against.
    pub async fn credentials(&self, name: &str) -> Result<Option<CredentialRow>, Error> {
        let name = name.to_owned();
        self.read(move |tx| {
            Box::pin(async move {
                let found = tx
                    .optional(
                        "SELECT id, name, kind, administrator, disabled, epoch, expires_at, password_hash
                         FROM subject WHERE name = $1",
                        &[(&name).into()],
                        |row| Ok((subject(row)?, row.get(7)?)),
                    )
                    .await?;
                let Some((subject, password_hash)) = found else { return Ok(None) };
                let secrets = robot::secrets(tx, subject.id).await?;
                Ok(Some(CredentialRow { subject, password_hash, secrets }))
            })
        })
        .await
    }

    /// Keeps when subjects last logged in; earlier than what is kept is ignored. Unsynced.
    pub async fn set_last_login(&self, mut logins: Vec<(i64, Timestamp)>) -> Result<(), Error> {
        // In order, so that two who do this cannot wait for each other.
        logins.sort_unstable();
        self.write_unsynced(move |tx| {
            Box::pin(async move {
                for (id, at) in logins {
                    tx.execute(
                        "UPDATE subject SET last_login_at = $1
                         WHERE id = $2 AND (last_login_at IS NULL OR last_login_at < $1)",
                        &[at.into(), id.into()],
                    )
                    .await?;
                }
                Ok(())
            })
        })
        .await
    }
}

/// Says that rights have changed. Part of every transaction that changes subjects or grants.
pub(crate) async fn change_policy(tx: &mut Tx) -> Result<(), Error> {
    tx.execute("UPDATE store SET policy_epoch = policy_epoch + 1 WHERE id = 1", &[]).await.map(drop)
}

/// Called first by every transaction that changes subjects or grants: one at a time, and none while a change is under way
/// that was decided by the rules of now.
pub(crate) fn begin_change(tx: &mut Tx) {
    tx.lock(&Lock::Policy(Hold::Exclusive));
}

/// Called first by every transaction that changes a repository. Fails with [`Error::Outdated`] if rights have changed since
/// it was decided that the actor may; they do not change before the transaction ends.
pub(crate) async fn check_decision(
    tx: &mut Tx,
    actor: &Actor,
    repository: &RepositoryName,
    hold: Hold,
) -> Result<(), Error> {
    if actor.policy_epoch.is_some() {
        tx.lock(&Lock::Policy(Hold::Shared));
    }
    tx.lock(&Lock::Repository(repository, hold));
    match actor.policy_epoch {
        Some(decided) if epoch(tx).await? != decided => Err(Error::Outdated),
        _ => Ok(()),
    }
}

/// Fails with [`Error::Outdated`] where the store's epoch, read in the same statement as what was asked for, is not the one of
/// the rules by which it was decided that the caller may ask.
pub(crate) fn check_epoch(epoch: i64, decided: Option<i64>) -> Result<(), Error> {
    if decided.is_none_or(|decided| decided == epoch) { Ok(()) } else { Err(Error::Outdated) }
}

/// The row of a subject of this kind and name.
pub(crate) async fn find(tx: &mut Tx, kind: SubjectKind, name: &str) -> Result<Option<i64>, Error> {
    tx.optional("SELECT id FROM subject WHERE name = $1 AND kind = $2", &[name.into(), kind.as_str().into()], |row| {
        row.get(0)
    })
    .await
}

/// Disables or enables a subject, with a new credential epoch; disabling ends its uploads. `false`: it is so already.
pub(crate) async fn set_disabled(tx: &mut Tx, id: i64, disabled: bool) -> Result<bool, Error> {
    let changed = tx
        .execute(
            "UPDATE subject SET disabled = $1, epoch = epoch + 1 WHERE id = $2 AND disabled <> $1",
            &[disabled.into(), id.into()],
        )
        .await?;
    if changed > 0 {
        change_policy(tx).await?;
        if disabled {
            upload::end_all(tx, id).await?;
        }
    }
    Ok(changed > 0)
}

/// Removes a subject with its secrets, its grants and its uploads.
pub(crate) async fn remove(tx: &mut Tx, id: i64) -> Result<(), Error> {
    tx.execute("DELETE FROM access_grant WHERE subject_id = $1", &[id.into()]).await?;
    tx.execute("DELETE FROM secret WHERE subject_id = $1", &[id.into()]).await?;
    upload::end_all(tx, id).await?;
    tx.execute("DELETE FROM subject WHERE id = $1", &[id.into()]).await?;
    change_policy(tx).await
}

async fn epoch(tx: &mut Tx) -> Result<i64, Error> {
    tx.one("SELECT policy_epoch FROM store WHERE id = 1", &[], |row| row.get(0)).await
}

async fn all(tx: &mut Tx) -> Result<Vec<SubjectRow>, Error> {
    tx.query(
        "SELECT id, name, kind, administrator, disabled, epoch, expires_at FROM subject WHERE id > 0 ORDER BY id",
        &[],
        subject,
    )
    .await
}

fn subject(row: &Row<'_>) -> Result<SubjectRow, Error> {
    Ok(SubjectRow {
        id: row.get(0)?,
        name: row.get(1)?,
        kind: SubjectKind::parse(&row.get::<String>(2)?)?,
        administrator: row.get(3)?,
        disabled: row.get(4)?,
        epoch: row.get(5)?,
        expires_at: row.get(6)?,
    })
}
