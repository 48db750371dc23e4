//! Collection, by rows and online. Every step takes at most `limit` objects in one short transaction; call it again
//! while it says `more`.
//!
//! In order: expired sessions ([`Db::expire_uploads`]); what hangs on deleted repositories; manifests that were deleted
//! longer than the grace ago; links without an edge that were not touched for the grace; blobs without a link that were
//! not touched for the grace, whose keys become rows of `garbage`; then, by the caller, the bytes under these keys
//! ([`Db::garbage`], [`Db::forget_garbage`]), unless a hold runs.
//!
//! Candidates are found by the marks `referenced` and `linked` (partial indexes, so that a run costs what there is to
//! collect, not what there is), but the edges and links themselves decide. What another transaction has locked is passed
//! over: it is in use, or another collection has it.

use std::collections::{BTreeSet, HashMap};

use oci::{Digest, RepositoryName, Tag, Timestamp};

use crate::actor::Actor;
use crate::db::Db;
use crate::error::Error;
use crate::event::{self, Action, NewEvent};
use crate::repository::RepositoryId;
use crate::tx::{Row, Tx};
use crate::value::{Value, limit as rows, size};
use crate::{manifest, tag};

/// What a step did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GcStep {
    /// How many objects it took.
    pub removed: u64,
    /// The sum of their sizes, where they have one.
    pub bytes: u64,
    /// Whether there may be more: the limit was reached.
    pub more: bool,
}

/// What a run would take, counted on one state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GcPlan {
    /// Expired sessions.
    pub uploads: u64,
    /// Deleted repositories that still have something to be closed.
    pub repositories: u64,
    /// Deleted manifests past the grace.
    pub manifests: u64,
    /// Links past the grace.
    pub links: u64,
    /// Blobs past the grace, those included that lose their last link in the same run.
    pub blobs: u64,
    /// The sum of the sizes of these blobs.
    pub bytes: u64,
    /// Keys whose bytes are waiting to be removed already.
    pub garbage: u64,
}

/// A key of the blob store whose bytes nothing needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GarbageRow {
    /// The cursor of the list.
    pub id: i64,
    /// The key.
    pub key: String,
    /// How many bytes, if known.
    pub size: Option<u64>,
    /// When it became garbage.
    pub added_at: Timestamp,
}

pub(crate) async fn add_garbage(tx: &mut Tx, key: &str, bytes: Option<u64>) -> Result<(), Error> {
    tx.execute(
        "INSERT INTO garbage (location, size, added_at) VALUES ($1, $2, $3) ON CONFLICT (location) DO NOTHING",
        &[key.into(), bytes.map(size).into(), tx.now().into()],
    )
    .await
    .map(drop)
}

pub(crate) async fn is_garbage(tx: &mut Tx, key: &str) -> Result<bool, Error> {
    tx.optional("SELECT 1 FROM garbage WHERE location = $1", &[key.into()], |_| Ok(()))
        .await
        .map(|found| found.is_some())
}

impl Db {
    /// Closes tags, manifests and links of deleted repositories; their graces begin now. Events `tag.delete` and
    /// `manifest.delete`. Synced.
    pub async fn gc_repositories(&self, limit: usize, actor: &Actor) -> Result<GcStep, Error> {
        let actor = actor.clone();
        self.write(move |tx| Box::pin(async move { empty_repository(tx, limit, &actor).await })).await
    }

    /// Removes manifests that were deleted at or before `cutoff`, and their bodies where no repository has them. Events
    /// `gc.deleted`. Synced.
    pub async fn gc_manifests(&self, cutoff: Timestamp, limit: usize, actor: &Actor) -> Result<GcStep, Error> {
        let actor = actor.clone();
        self.write(move |tx| Box::pin(async move { manifests(tx, cutoff, limit, &actor).await })).await
    }

    /// Removes links that no edge needs, or that were deleted, and that were not touched since `cutoff`. Events
    /// `gc.deleted`. Synced.
    pub async fn gc_links(&self, cutoff: Timestamp, limit: usize, actor: &Actor) -> Result<GcStep, Error> {
        let actor = actor.clone();
        self.write(move |tx| Box::pin(async move { links(tx, cutoff, limit, &actor).await })).await
    }

    /// Removes blobs that no repository has and that were not touched since `cutoff`. Their keys become garbage in the
    /// same transaction, so that the bytes go after the rows. Events `gc.deleted`. Synced.
    pub async fn gc_blobs(&self, cutoff: Timestamp, limit: usize, actor: &Actor) -> Result<GcStep, Error> {
        let actor = actor.clone();
        self.write(move |tx| Box::pin(async move { blobs(tx, cutoff, limit, &actor).await })).await
    }

    /// Keys whose bytes may be removed, the oldest first, after the row with the id `after`.
    pub async fn garbage(&self, after: Option<i64>, limit: usize) -> Result<Vec<GarbageRow>, Error> {
        self.read_single(move |tx| {
            Box::pin(async move {
                tx.query(
                    "SELECT id, location, size, added_at FROM garbage WHERE id > $1 ORDER BY id LIMIT $2",
                    &[after.unwrap_or(i64::MIN).into(), rows(limit).into()],
                    |row| {
                        Ok(GarbageRow { id: row.get(0)?, key: row.get(1)?, size: row.get(2)?, added_at: row.get(3)? })
                    },
                )
                .await
            })
        })
        .await
    }

    /// Forgets keys whose bytes are removed. Unsynced: a row that comes back names bytes that are gone, which is fine.
    pub async fn forget_garbage(&self, keys: &[String]) -> Result<(), Error> {
        let mut keys = keys.to_vec();
        keys.sort_unstable();
        self.write_unsynced(move |tx| {
            Box::pin(async move {
                let rows: Vec<Vec<Value<'_>>> = keys.iter().map(|key| vec![key.into()]).collect();
                tx.execute_each("DELETE FROM garbage WHERE location = $1", &rows).await.map(drop)
            })
        })
        .await
    }

    /// Of these keys, those that no row knows: neither of a blob nor of an upload nor of garbage.
    pub async fn unknown_keys(&self, keys: &[String]) -> Result<Vec<String>, Error> {
        let keys = keys.to_vec();
        self.read(move |tx| {
            Box::pin(async move {
                let mut unknown = Vec::new();
                for key in keys {
                    let known = tx
                        .optional(
                            "SELECT 1 FROM blob WHERE location = $1
                             UNION ALL SELECT 1 FROM upload WHERE location = $1
                             UNION ALL SELECT 1 FROM garbage WHERE location = $1",
                            &[(&key).into()],
                            |_| Ok(()),
                        )
                        .await?;
                    if known.is_none() {
                        unknown.push(key);
                    }
                }
                Ok(unknown)
            })
        })
        .await
    }

    /// What a run would take at `now`: `cutoff` as for the steps, `upload_cutoff` as for [`Db::expire_uploads`]. Changes
    /// nothing. Counts all candidates. What [`Db::gc_repositories`] would close is among them when its grace, which begins
    /// then, is none.
    pub async fn gc_plan(&self, now: Timestamp, cutoff: Timestamp, upload_cutoff: Timestamp) -> Result<GcPlan, Error> {
        let closing = i64::from(cutoff >= now);
        self.read(move |tx| Box::pin(async move { plan(tx, cutoff, upload_cutoff, closing).await })).await
    }
}

/// Closes a bounded part of one deleted repository.
async fn empty_repository(tx: &mut Tx, limit: usize, actor: &Actor) -> Result<GcStep, Error> {
    let sql = format!(
        "SELECT id, domain, name FROM repository WHERE deleted_at IS NOT NULL AND emptied_at IS NULL
         ORDER BY id LIMIT 1{}",
        tx.for_update_skipping()
    );
    let found = tx
        .optional(&sql, &[], |row| {
            Ok((RepositoryId { id: row.get(0)?, domain: row.get(1)? }, row.get::<RepositoryName>(2)?))
        })
        .await?;
    let Some((repository, name)) = found else { return Ok(GcStep::default()) };
    let mut left = limit;
    let tags = tx
        .query(
            "SELECT name, digest FROM tag WHERE repository_id = $1 AND closed_at IS NULL ORDER BY name LIMIT $2",
            &[repository.id.into(), rows(left).into()],
            |row| Ok((row.get::<Tag>(0)?, row.get::<Digest>(1)?)),
        )
        .await?;
    let mut events = Vec::new();
    for (tag, digest) in &tags {
        tag::close(tx, repository, tag, None, actor).await?;
        let event = NewEvent::new(Action::TagDelete, actor).repository(&name).reference(tag.as_str());
        events.push(event.digest(digest));
    }
    left -= tags.len().min(left);
    let manifests = tx
        .query(
            "SELECT id, digest FROM manifest WHERE repository_id = $1 AND state <> 'deleted' ORDER BY digest LIMIT $2",
            &[repository.id.into(), rows(left).into()],
            |row| Ok((row.get::<i64>(0)?, row.get::<Digest>(1)?)),
        )
        .await?;
    let ids: Vec<i64> = manifests.iter().map(|(id, _)| *id).collect();
    manifest::remove_rows(tx, repository, &ids).await?;
    let deleted = |digest| NewEvent::new(Action::ManifestDelete, actor).repository(&name).digest(digest);
    events.extend(manifests.iter().map(|(_, digest)| deleted(digest)));
    event::append_all(tx, &events).await?;
    left -= manifests.len().min(left);
    let links = tx
        .execute(
            "UPDATE link SET state = 'deleted', referenced = 0, touched_at = $1
             WHERE repository_id = $2 AND digest IN (
                 SELECT digest FROM link WHERE repository_id = $2 AND state <> 'deleted' ORDER BY digest LIMIT $3)",
            &[tx.now().into(), repository.id.into(), rows(left).into()],
        )
        .await?;
    left -= usize::try_from(links).unwrap_or(left).min(left);
    if left > 0 {
        tx.execute("UPDATE repository SET emptied_at = $1 WHERE id = $2", &[tx.now().into(), repository.id.into()])
            .await?;
    }
    Ok(GcStep { removed: (limit - left) as u64, bytes: 0, more: true })
}

struct Removed {
    repository: i64,
    domain: i64,
    digest: Digest,
    bytes: u64,
}

async fn manifests(tx: &mut Tx, cutoff: Timestamp, limit: usize, actor: &Actor) -> Result<GcStep, Error> {
    let sql = format!(
        "SELECT repository_id, domain, digest, size, id FROM manifest WHERE state = 'deleted' AND state_at <= $1
         ORDER BY state_at LIMIT $2{}",
        tx.for_update_skipping()
    );
    let found =
        tx.query(&sql, &[cutoff.into(), rows(limit).into()], |row| Ok((removed_row(row)?, row.get::<i64>(4)?))).await?;
    let ids: Vec<Vec<Value<'_>>> = found.iter().map(|(_, id)| vec![(*id).into()]).collect();
    tx.execute_each("DELETE FROM manifest WHERE id = $1", &ids).await?;
    let removed: Vec<Removed> = found.into_iter().map(|(row, _)| row).collect();
    let bodies = keys_of(&removed);
    tx.lock_each("SELECT 1 FROM manifest_body WHERE domain = $1 AND digest = $2", &bodies).await?;
    tx.execute_each(
        "DELETE FROM manifest_body WHERE domain = $1 AND digest = $2
           AND NOT EXISTS (SELECT 1 FROM manifest WHERE domain = $1 AND digest = $2)",
        &bodies,
    )
    .await?;
    tell(tx, "manifest", &removed, actor).await?;
    Ok(step(&removed, limit))
}

async fn links(tx: &mut Tx, cutoff: Timestamp, limit: usize, actor: &Actor) -> Result<GcStep, Error> {
    let sql = format!(
        "SELECT l.repository_id, l.domain, l.digest, 0 FROM link l
         WHERE l.referenced = 0 AND l.touched_at <= $1
           AND (l.state = 'deleted' OR NOT EXISTS (
               SELECT 1 FROM edge e WHERE e.repository_id = l.repository_id AND e.target = l.digest))
         ORDER BY l.touched_at LIMIT $2{}",
        tx.for_update_skipping()
    );
    let removed = tx.query(&sql, &[cutoff.into(), rows(limit).into()], removed_row).await?;
    let links: Vec<Vec<Value<'_>>> =
        removed.iter().map(|row| vec![row.repository.into(), (&row.digest).into()]).collect();
    tx.execute_each("DELETE FROM link WHERE repository_id = $1 AND digest = $2", &links).await?;
    let blobs = keys_of(&removed);
    tx.lock_each("SELECT 1 FROM blob WHERE domain = $1 AND digest = $2", &blobs).await?;
    tx.execute_each(
        "UPDATE blob SET linked = 0 WHERE domain = $1 AND digest = $2
           AND NOT EXISTS (SELECT 1 FROM link WHERE domain = $1 AND digest = $2)",
        &blobs,
    )
    .await?;
    tell(tx, "link", &removed, actor).await?;
    Ok(step(&removed, limit))
}

async fn blobs(tx: &mut Tx, cutoff: Timestamp, limit: usize, actor: &Actor) -> Result<GcStep, Error> {
    let sql = format!(
        "SELECT 0, b.domain, b.digest, b.size, b.location FROM blob b
         WHERE b.linked = 0 AND b.touched_at <= $1
           AND NOT EXISTS (SELECT 1 FROM link l WHERE l.domain = b.domain AND l.digest = b.digest)
         ORDER BY b.touched_at LIMIT $2{}",
        tx.for_update_skipping()
    );
    let found = tx
        .query(&sql, &[cutoff.into(), rows(limit).into()], |row| Ok((removed_row(row)?, row.get::<Option<String>>(4)?)))
        .await?;
    for (row, key) in &found {
        if let Some(key) = key {
            add_garbage(tx, key, Some(row.bytes)).await?;
        }
    }
    let removed: Vec<Removed> = found.into_iter().map(|(row, _)| row).collect();
    let blobs = keys_of(&removed);
    tx.execute_each("DELETE FROM blob WHERE domain = $1 AND digest = $2", &blobs).await?;
    tx.execute_each("DELETE FROM blob_body WHERE domain = $1 AND digest = $2", &blobs).await?;
    tell(tx, "blob", &removed, actor).await?;
    Ok(step(&removed, limit))
}

/// Domain and digest of each, once, in order, so that two who lock them cannot wait for each other.
fn keys_of(removed: &[Removed]) -> Vec<Vec<Value<'_>>> {
    let keys: BTreeSet<(i64, &Digest)> = removed.iter().map(|row| (row.domain, &row.digest)).collect();
    keys.into_iter().map(|(domain, digest)| vec![domain.into(), digest.into()]).collect()
}

fn removed_row(row: &Row<'_>) -> Result<Removed, Error> {
    Ok(Removed { repository: row.get(0)?, domain: row.get(1)?, digest: row.get(2)?, bytes: row.get(3)? })
}

fn step(removed: &[Removed], limit: usize) -> GcStep {
    GcStep {
        removed: removed.len() as u64,
        bytes: removed.iter().map(|row| row.bytes).sum(),
        more: removed.len() >= limit,
    }
}

/// Writes an event for each; those of a repository name it.
async fn tell(tx: &mut Tx, kind: &str, removed: &[Removed], actor: &Actor) -> Result<(), Error> {
    let mut names: HashMap<i64, Option<String>> = HashMap::new();
    let mut events = Vec::with_capacity(removed.len());
    for row in removed {
        let name = match names.get(&row.repository) {
            Some(name) => name.clone(),
            None => {
                let name = tx
                    .optional("SELECT name FROM repository WHERE id = $1", &[row.repository.into()], |row| row.get(0))
                    .await?;
                names.insert(row.repository, name.clone());
                name
            }
        };
        let mut event = NewEvent::new(Action::GcDeleted, actor).digest(&row.digest);
        event.repository = name;
        events.push(event.detail(serde_json::json!({ "kind": kind })));
    }
    event::append_all(tx, &events).await
}

/// `closing` is 1 when what is in deleted repositories counts as deleted at or before `cutoff`, else 0.
async fn plan(tx: &mut Tx, cutoff: Timestamp, upload_cutoff: Timestamp, closing: i64) -> Result<GcPlan, Error> {
    async fn count(tx: &mut Tx, sql: &str, values: &[Value<'_>]) -> Result<u64, Error> {
        tx.one(sql, values, |row| row.get(0)).await
    }
    let (blobs, bytes) = tx
        .one(
            "WITH doomed AS (
                 SELECT l.repository_id, l.domain, l.digest FROM link l
                 WHERE l.referenced = 0 AND l.touched_at <= $1
                   AND (l.state = 'deleted' OR NOT EXISTS (
                       SELECT 1 FROM edge e WHERE e.repository_id = l.repository_id AND e.target = l.digest))
                 UNION ALL SELECT l.repository_id, l.domain, l.digest FROM repository r CROSS JOIN link l
                 WHERE $2 = 1 AND r.deleted_at IS NOT NULL AND r.emptied_at IS NULL AND l.repository_id = r.id),
             found AS (
                 SELECT domain, digest FROM doomed
                 UNION ALL SELECT domain, digest FROM blob WHERE linked = 0 AND touched_at <= $1),
             candidate AS (SELECT DISTINCT domain, digest FROM found)
             SELECT COUNT(*), CAST(COALESCE(SUM(b.size), 0) AS BIGINT)
             FROM candidate c JOIN blob b ON b.domain = c.domain AND b.digest = c.digest
             WHERE b.touched_at <= $1 AND NOT EXISTS (
                 SELECT 1 FROM link l WHERE l.domain = b.domain AND l.digest = b.digest
                   AND NOT (l.referenced = 0 AND l.touched_at <= $1
                            AND (l.state = 'deleted' OR NOT EXISTS (
                                SELECT 1 FROM edge e WHERE e.repository_id = l.repository_id AND e.target = l.digest)))
                   AND NOT ($2 = 1 AND EXISTS (
                       SELECT 1 FROM repository r
                       WHERE r.id = l.repository_id AND r.deleted_at IS NOT NULL AND r.emptied_at IS NULL)))",
            &[cutoff.into(), closing.into()],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )
        .await?;
    Ok(GcPlan {
        uploads: count(
            tx,
            "SELECT COUNT(*) FROM upload WHERE touched_at <= $1 AND (lease_holder IS NULL OR lease_until <= $2)",
            &[upload_cutoff.into(), tx.now().into()],
        )
        .await?,
        repositories: count(
            tx,
            "SELECT COUNT(*) FROM repository WHERE deleted_at IS NOT NULL AND emptied_at IS NULL",
            &[],
        )
        .await?,
        manifests: count(
            tx,
            "SELECT (SELECT COUNT(*) FROM manifest WHERE state = 'deleted' AND state_at <= $1)
                 + (SELECT COUNT(*) FROM repository r CROSS JOIN manifest m
                    WHERE $2 = 1 AND r.deleted_at IS NOT NULL AND r.emptied_at IS NULL AND m.repository_id = r.id
                      AND NOT (m.state = 'deleted' AND m.state_at <= $1))",
            &[cutoff.into(), closing.into()],
        )
        .await?,
        links: count(
            tx,
            "SELECT (SELECT COUNT(*) FROM link l WHERE l.referenced = 0 AND l.touched_at <= $1
                    AND (l.state = 'deleted' OR NOT EXISTS (
                        SELECT 1 FROM edge e WHERE e.repository_id = l.repository_id AND e.target = l.digest)))
                 + (SELECT COUNT(*) FROM repository r CROSS JOIN link l
                    WHERE $2 = 1 AND r.deleted_at IS NOT NULL AND r.emptied_at IS NULL AND l.repository_id = r.id
                      AND NOT (l.referenced = 0 AND l.touched_at <= $1
                          AND (l.state = 'deleted' OR NOT EXISTS (
                              SELECT 1 FROM edge e WHERE e.repository_id = l.repository_id AND e.target = l.digest))))",
            &[cutoff.into(), closing.into()],
        )
        .await?,
        blobs,
        bytes,
        garbage: count(tx, "SELECT COUNT(*) FROM garbage", &[]).await?,
    })
}
