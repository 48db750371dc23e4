//! Collection: what nothing references, and has not been touched for the grace, goes. Online, in small steps.
//!
//! First the rows, each step one short transaction, then the bytes: a row never names bytes that are gone. Bytes are
//! removed under keys that are never used again, so a push of the same digest is not hit. While a backup holds the
//! store, no bytes go.

use std::time::Duration;

use blobs::{Entry, Key};
use meta::GcStep;
use oci::Timestamp;
use serde::Serialize;

use crate::{Authority, Error, Registry};

/// How many objects a step takes.
const STEP: usize = 200;

/// What a run did, so far or in all; of a plan, what it would do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Manifests that were deleted longer than the grace ago, now gone for good.
    pub deleted_manifests: u64,
    /// Blobs that were taken out of a repository in which no manifest named them.
    pub deleted_links: u64,
    /// Blobs that no repository had.
    pub deleted_blobs: u64,
    /// The sum of their sizes, and of the orphan files'.
    pub deleted_bytes: u64,
    /// Upload sessions that nobody went on with.
    pub expired_uploads: u64,
    /// Files that no row knew.
    pub orphan_files: u64,
    /// Whether a backup was under way, so that the bytes were left for the next run.
    pub held: bool,
}

/// What a run would do now. Changes nothing.
pub async fn plan(r: &Registry, grace: Duration) -> Result<Report, Error> {
    let now = r.now();
    let plan = r.db().gc_plan(now, now.minus(grace), now.minus(r.settings().upload_idle)).await?;
    let mut report = Report {
        deleted_manifests: plan.manifests,
        deleted_links: plan.links,
        deleted_blobs: plan.blobs,
        deleted_bytes: plan.bytes,
        expired_uploads: plan.uploads,
        orphan_files: 0,
        held: r.db().active_hold().await?.is_some(),
    };
    for prefix in 0..=u8::MAX {
        for orphan in orphans(r, prefix, now.minus(grace)).await? {
            report.orphan_files += 1;
            report.deleted_bytes += orphan.size;
        }
    }
    Ok(report)
}

/// Collects what was not touched for `grace`. Runs one at a time; a second call waits for the first. Stopped at any
/// point, the next run goes on. `progress` is called after each step.
pub async fn run(
    r: &Registry,
    by: Authority<'_>,
    grace: Duration,
    progress: &(dyn Fn(&Report) + Send + Sync),
) -> Result<Report, Error> {
    let _alone = r.0.collecting.lock().await;
    let mut report = Report::default();
    rows(r, by, grace, &mut report, progress).await?;
    bytes(r, r.now().minus(grace), &mut report, progress).await?;
    Ok(report)
}

async fn rows(
    r: &Registry,
    by: Authority<'_>,
    grace: Duration,
    report: &mut Report,
    progress: &(dyn Fn(&Report) + Send + Sync),
) -> Result<(), Error> {
    let (db, actor) = (r.db(), by.actor());
    let idle = r.now().minus(r.settings().upload_idle);
    loop {
        let expired = db.expire_uploads(idle, STEP).await?;
        report.expired_uploads += expired;
        progress(report);
        if expired < STEP as u64 {
            break;
        }
    }
    while db.gc_repositories(STEP, &actor).await?.more {}
    let cutoff = r.now().minus(grace);
    loop {
        let GcStep { removed, more, .. } = db.gc_manifests(cutoff, STEP, &actor).await?;
        report.deleted_manifests += removed;
        progress(report);
        if !more {
            break;
        }
    }
    loop {
        let GcStep { removed, more, .. } = db.gc_links(cutoff, STEP, &actor).await?;
        report.deleted_links += removed;
        progress(report);
        if !more {
            break;
        }
    }
    loop {
        let GcStep { removed, bytes, more } = db.gc_blobs(cutoff, STEP, &actor).await?;
        report.deleted_blobs += removed;
        report.deleted_bytes += bytes;
        progress(report);
        if !more {
            return Ok(());
        }
    }
}

async fn bytes(
    r: &Registry,
    cutoff: Timestamp,
    report: &mut Report,
    progress: &(dyn Fn(&Report) + Send + Sync),
) -> Result<(), Error> {
    let (mut after, mut failed) = (None, None);
    loop {
        if held(r, report).await? {
            return Ok(());
        }
        let garbage = r.db().garbage(after, STEP).await?;
        let mut keys = Vec::with_capacity(garbage.len());
        for row in &garbage {
            match Key::parse(&row.key) {
                Some(key) => {
                    // One file that cannot be removed keeps none of the others.
                    if let Err(error) = r.blobs().delete(&key).await {
                        failed.get_or_insert(error);
                        continue;
                    }
                }
                None => tracing::error!(key = row.key, "a row of garbage names no key of the store"),
            }
            keys.push(row.key.clone());
        }
        r.db().forget_garbage(&keys).await?;
        progress(report);
        after = garbage.last().map(|row| row.id);
        if garbage.len() < STEP {
            break;
        }
    }
    for prefix in 0..=u8::MAX {
        for orphan in orphans(r, prefix, cutoff).await? {
            if held(r, report).await? {
                return Ok(());
            }
            if let Some(key) = &orphan.key {
                r.blobs().delete(key).await?;
                report.orphan_files += 1;
                report.deleted_bytes += orphan.size;
            }
        }
        progress(report);
    }
    failed.map_or(Ok(()), |error| Err(error.into()))
}

async fn held(r: &Registry, report: &mut Report) -> Result<bool, Error> {
    report.held = r.db().active_hold().await?.is_some();
    Ok(report.held)
}

/// Files in one folder of the store that no row knows, not written since `cutoff`. Such a file is left where a power
/// cut took the row of a session, which is not synced.
///
/// A row names its key before the file comes to be, and a key is never used again: what no row knows after the folder
/// was read, no row will ever know.
pub(crate) async fn orphans(r: &Registry, prefix: u8, cutoff: Timestamp) -> Result<Vec<Entry>, Error> {
    let mut entries = r.blobs().list_prefix(prefix).await?;
    entries.retain(|entry| entry.key.is_some() && entry.mtime <= cutoff);
    let mut orphans = Vec::new();
    for page in entries.chunks(STEP) {
        let keys: Vec<String> =
            page.iter().filter_map(|entry| entry.key.as_ref()).map(|key| key.as_str().to_owned()).collect();
        let unknown = r.db().unknown_keys(&keys).await?;
        let is_unknown =
            |entry: &&Entry| entry.key.as_ref().is_some_and(|key| unknown.iter().any(|k| k == key.as_str()));
        orphans.extend(page.iter().filter(is_unknown).cloned());
    }
    Ok(orphans)
}
