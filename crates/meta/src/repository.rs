//! Repositories: a surrogate id, of which the name is an attribute.

use oci::{RepositoryName, Timestamp};

use crate::actor::Actor;
use crate::db::Db;
use crate::error::Error;
use crate::event::{self, Action, NewEvent};
use crate::lock::Hold;
use crate::subject;
use crate::tx::Tx;
use crate::value::limit as rows;

/// The domain of every repository until domains can be created.
const FIRST_DOMAIN: i64 = 0;

/// The row of a repository that is not deleted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RepositoryId {
    pub(crate) id: i64,
    pub(crate) domain: i64,
}

/// A repository in a list for administrators.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RepositoryRow {
    /// Its name.
    pub name: RepositoryName,
    /// When the first push to it ended.
    pub created_at: Timestamp,
    /// By whom: [`Actor::name`].
    pub created_by: String,
}

/// What an administrator sees of a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RepositoryDetails {
    /// Its name.
    pub name: RepositoryName,
    /// When the first push to it ended.
    pub created_at: Timestamp,
    /// By whom: [`Actor::name`].
    pub created_by: String,
    /// Open tags.
    pub tags: u64,
    /// Live manifests.
    pub manifests: u64,
    /// Live blobs.
    pub blobs: u64,
    /// The sum of the sizes of its blobs, each counted once, whoever else has them too.
    pub bytes: u64,
}

pub(crate) async fn find(tx: &mut Tx, name: &RepositoryName) -> Result<Option<RepositoryId>, Error> {
    tx.optional("SELECT id, domain FROM repository WHERE name = $1 AND deleted_at IS NULL", &[name.into()], |row| {
        Ok(RepositoryId { id: row.get(0)?, domain: row.get(1)? })
    })
    .await
}

/// The repository, created if it is not there. It is not deleted meanwhile, because of [`crate::lock::Lock::Repository`].
pub(crate) async fn ensure(tx: &mut Tx, name: &RepositoryName, actor: &Actor) -> Result<RepositoryId, Error> {
    if let Some(found) = find(tx, name).await? {
        return Ok(found);
    }
    tx.execute(
        "INSERT INTO repository (domain, name, created_at, created_by) VALUES ($1, $2, $3, $4)
         ON CONFLICT (name) WHERE deleted_at IS NULL DO NOTHING",
        &[FIRST_DOMAIN.into(), name.into(), tx.now().into(), (&actor.name).into()],
    )
    .await?;
    match find(tx, name).await? {
        Some(found) => Ok(found),
        None => Err(tx.again()),
    }
}

impl Db {
    /// Whether anything was ever pushed to the repository since it was last deleted.
    pub async fn repository_exists(&self, name: &RepositoryName) -> Result<bool, Error> {
        let name = name.clone();
        self.read_single(move |tx| Box::pin(async move { Ok(find(tx, &name).await?.is_some()) })).await
    }

    /// Names in byte order, after `last`, that lie in one of `ranges` (from, up to but without), which are in order and
    /// do not overlap. The caller's patterns decide about each name; a range is only where to look.
    pub async fn repositories(
        &self,
        ranges: &[(String, Option<String>)],
        last: Option<&str>,
        limit: usize,
    ) -> Result<Vec<RepositoryName>, Error> {
        let (ranges, last) = (ranges.to_vec(), last.unwrap_or_default().to_owned());
        self.read(move |tx| {
            Box::pin(async move {
                let mut found = Vec::new();
                for (start, end) in &ranges {
                    if found.len() >= limit {
                        break;
                    }
                    found.append(&mut names(tx, start, end.as_deref(), &last, limit - found.len()).await?);
                }
                Ok(found)
            })
        })
        .await
    }

    /// All repositories in byte order of their names, after `last`.
    pub async fn repository_rows(&self, last: Option<&str>, limit: usize) -> Result<Vec<RepositoryRow>, Error> {
        let last = last.unwrap_or_default().to_owned();
        self.read_single(move |tx| {
            Box::pin(async move {
                tx.query(
                    "SELECT name, created_at, created_by FROM repository
                     WHERE deleted_at IS NULL AND name > $1 ORDER BY name LIMIT $2",
                    &[(&last).into(), rows(limit).into()],
                    |row| Ok(RepositoryRow { name: row.get(0)?, created_at: row.get(1)?, created_by: row.get(2)? }),
                )
                .await
            })
        })
        .await
    }

    /// The numbers that an administrator sees; counts rows of this repository. `None`: no such repository.
    pub async fn repository_details(&self, name: &RepositoryName) -> Result<Option<RepositoryDetails>, Error> {
        let name = name.clone();
        self.read(move |tx| Box::pin(async move { details(tx, name).await })).await
    }

    /// Deletes a repository and all that is in it: from now on it does not exist, and a push creates a new one. What
    /// hung on it is closed by [`Db::gc_repositories`], so that this stays short. `false`: no such repository.
    pub async fn delete_repository(&self, name: &RepositoryName, actor: &Actor) -> Result<bool, Error> {
        let (name, actor) = (name.clone(), actor.clone());
        self.write(move |tx| {
            Box::pin(async move {
                subject::check_decision(tx, &actor, &name, Hold::Exclusive).await?;
                let changed = tx
                    .execute(
                        "UPDATE repository SET deleted_at = $1, deleted_by = $2 WHERE name = $3 AND deleted_at IS NULL",
                        &[tx.now().into(), (&actor.name).into(), (&name).into()],
                    )
                    .await?;
                if changed == 0 {
                    return Ok(false);
                }
                event::append(tx, &NewEvent::new(Action::RepositoryDelete, &actor).repository(&name)).await?;
                Ok(true)
            })
        })
        .await
    }
}

async fn names(
    tx: &mut Tx,
    start: &str,
    end: Option<&str>,
    last: &str,
    limit: usize,
) -> Result<Vec<RepositoryName>, Error> {
    let name = |row: &crate::tx::Row<'_>| row.get(0);
    match end {
        Some(end) => {
            tx.query(
                "SELECT name FROM repository
                 WHERE deleted_at IS NULL AND name >= $1 AND name > $2 AND name < $3 ORDER BY name LIMIT $4",
                &[start.into(), last.into(), end.into(), rows(limit).into()],
                name,
            )
            .await
        }
        None => {
            tx.query(
                "SELECT name FROM repository
                 WHERE deleted_at IS NULL AND name >= $1 AND name > $2 ORDER BY name LIMIT $3",
                &[start.into(), last.into(), rows(limit).into()],
                name,
            )
            .await
        }
    }
}

async fn details(tx: &mut Tx, name: RepositoryName) -> Result<Option<RepositoryDetails>, Error> {
    let found = tx
        .optional(
            "SELECT id, created_at, created_by FROM repository WHERE name = $1 AND deleted_at IS NULL",
            &[(&name).into()],
            |row| Ok((row.get::<i64>(0)?, row.get(1)?, row.get(2)?)),
        )
        .await?;
    let Some((id, created_at, created_by)) = found else { return Ok(None) };
    let tags = tx
        .one("SELECT COUNT(*) FROM tag WHERE repository_id = $1 AND closed_at IS NULL", &[id.into()], |row| row.get(0))
        .await?;
    let manifests = tx
        .one("SELECT COUNT(*) FROM manifest WHERE repository_id = $1 AND state = 'live'", &[id.into()], |row| {
            row.get(0)
        })
        .await?;
    let (blobs, bytes) = tx
        .one(
            "SELECT COUNT(*), CAST(COALESCE(SUM(b.size), 0) AS BIGINT)
             FROM link l JOIN blob b ON b.domain = l.domain AND b.digest = l.digest
             WHERE l.repository_id = $1 AND l.state = 'live'",
            &[id.into()],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )
        .await?;
    Ok(Some(RepositoryDetails { name, created_at, created_by, tags, manifests, blobs, bytes }))
}
