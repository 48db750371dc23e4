//! Links: which repository has which blob. Statements only; the operations are in `blob.rs` and `manifest`.

use std::collections::BTreeSet;

use oci::{Digest, Timestamp};

use crate::actor::Actor;
use crate::error::Error;
use crate::repository::RepositoryId;
use crate::tx::Tx;
use crate::value::Value;

/// Links a blob, which is there, to the repository; a link that was deleted lives again, one in quarantine stays there.
pub(crate) async fn add(tx: &mut Tx, repository: RepositoryId, digest: &Digest, actor: &Actor) -> Result<(), Error> {
    tx.execute(
        "INSERT INTO link (repository_id, digest, domain, state, first_seen, pushed_by, pushed_from, touched_at,
                           referenced)
         VALUES ($1, $2, $3, 'live', $4, $5, $6, $4,
                 CASE WHEN EXISTS (SELECT 1 FROM edge WHERE repository_id = $1 AND target = $2) THEN 1 ELSE 0 END)
         ON CONFLICT (repository_id, digest) DO UPDATE SET
             touched_at = excluded.touched_at,
             referenced = excluded.referenced,
             first_seen = CASE WHEN link.state = 'deleted' THEN excluded.first_seen ELSE link.first_seen END,
             pushed_by = CASE WHEN link.state = 'deleted' THEN excluded.pushed_by ELSE link.pushed_by END,
             pushed_from = CASE WHEN link.state = 'deleted' THEN excluded.pushed_from ELSE link.pushed_from END,
             state = CASE WHEN link.state = 'deleted' THEN excluded.state ELSE link.state END",
        &[
            repository.id.into(),
            digest.into(),
            repository.domain.into(),
            tx.now().into(),
            (&actor.name).into(),
            (&actor.source).into(),
        ],
    )
    .await
    .map(drop)
}

const IS_LIVE: &str = "SELECT 1 FROM link WHERE repository_id = $1 AND digest = $2 AND state = 'live'";

/// Whether the repository has the blob. Who holds the repository's lock can rely on it: a link goes only by a change that
/// holds it too, or by collection, which takes none that is referenced or was just touched.
pub(crate) async fn is_live(tx: &mut Tx, repository: RepositoryId, digest: &Digest) -> Result<bool, Error> {
    tx.optional(IS_LIVE, &[repository.id.into(), digest.into()], |_| Ok(())).await.map(|found| found.is_some())
}

/// Those of the blobs that the repository does not have, in their order.
pub(crate) async fn missing(tx: &mut Tx, repository: RepositoryId, digests: &[&Digest]) -> Result<Vec<Digest>, Error> {
    let rows: Vec<Vec<Value<'_>>> = digests.iter().map(|digest| vec![repository.id.into(), (*digest).into()]).collect();
    let found = tx.find_each(IS_LIVE, &rows).await?;
    Ok(digests.iter().zip(found).filter(|(_, found)| *found == 0).map(|(digest, _)| (*digest).clone()).collect())
}

/// Touches links and then blobs where the last touch is before `threshold`, and marks the links as referenced. Called before
/// edges are added. The set is in order, so that two pushes cannot wait for each other.
pub(crate) async fn touch_for_edges(
    tx: &mut Tx,
    repository: RepositoryId,
    digests: &BTreeSet<&Digest>,
    threshold: Timestamp,
) -> Result<(), Error> {
    let now = tx.now();
    let rows: Vec<Vec<Value<'_>>> = digests
        .iter()
        .map(|digest| vec![now.into(), repository.id.into(), (*digest).into(), threshold.into()])
        .collect();
    tx.execute_each(
        "UPDATE link SET touched_at = $1, referenced = 1
         WHERE repository_id = $2 AND digest = $3 AND state <> 'deleted' AND (touched_at < $4 OR referenced = 0)",
        &rows,
    )
    .await?;
    touch_blobs(tx, repository.domain, digests, threshold).await
}

/// Touches a link and its blob where the last touch is before `threshold`.
pub(crate) async fn touch(
    tx: &mut Tx,
    repository: RepositoryId,
    digest: &Digest,
    threshold: Timestamp,
) -> Result<(), Error> {
    tx.execute(
        "UPDATE link SET touched_at = $1 WHERE repository_id = $2 AND digest = $3 AND touched_at < $4",
        &[tx.now().into(), repository.id.into(), digest.into(), threshold.into()],
    )
    .await?;
    touch_blob(tx, repository.domain, digest, threshold).await
}

/// Touches links and then blobs after edges were removed, so that they have a full grace from their last reference, and works
/// out the marks anew.
pub(crate) async fn touch_after_edges(
    tx: &mut Tx,
    repository: RepositoryId,
    digests: &BTreeSet<&Digest>,
) -> Result<(), Error> {
    let now = tx.now();
    let rows: Vec<Vec<Value<'_>>> =
        digests.iter().map(|digest| vec![now.into(), repository.id.into(), (*digest).into()]).collect();
    tx.execute_each(
        "UPDATE link SET touched_at = $1,
                referenced = CASE WHEN EXISTS (SELECT 1 FROM edge WHERE repository_id = $2 AND target = $3)
                             THEN 1 ELSE 0 END
         WHERE repository_id = $2 AND digest = $3 AND state <> 'deleted'",
        &rows,
    )
    .await?;
    touch_blobs(tx, repository.domain, digests, now).await
}

pub(crate) async fn touch_blob(tx: &mut Tx, domain: i64, digest: &Digest, threshold: Timestamp) -> Result<(), Error> {
    touch_blobs(tx, domain, &BTreeSet::from([digest]), threshold).await
}

async fn touch_blobs(tx: &mut Tx, domain: i64, digests: &BTreeSet<&Digest>, threshold: Timestamp) -> Result<(), Error> {
    let now = tx.now();
    let rows: Vec<Vec<Value<'_>>> =
        digests.iter().map(|digest| vec![now.into(), domain.into(), (*digest).into(), threshold.into()]).collect();
    tx.execute_each("UPDATE blob SET touched_at = $1 WHERE domain = $2 AND digest = $3 AND touched_at < $4", &rows)
        .await
        .map(drop)
}
