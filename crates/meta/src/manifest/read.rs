//! Reading manifests: one query each, live ones only.
//!
//! `decided` is the epoch of the rules by which it was decided that the caller may ask, which the same query compares:
//! [`Error::Outdated`] where it is not the store's any more. `None` where no rules were asked.

use bytes::Bytes;
use oci::{Digest, RepositoryName, Tag};

use crate::db::Db;
use crate::error::Error;
use crate::subject;
use crate::tx::Row;
use crate::value::size;

/// A manifest as it is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestRow {
    /// Its digest, as it was pushed.
    pub digest: Digest,
    /// Its media type, as it was pushed to this repository.
    pub media_type: String,
    /// How many bytes.
    pub size: u64,
    /// Exactly as pushed, unless they are longer than was asked for.
    pub bytes: Option<Bytes>,
}

/// What a HEAD request asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestStat {
    /// Its digest, as it was pushed.
    pub digest: Digest,
    /// Its media type, as it was pushed to this repository.
    pub media_type: String,
    /// How many bytes.
    pub size: u64,
}

impl Db {
    /// The manifest that the tag points to, with its bytes if they are not more than `longest`.
    pub async fn manifest_by_tag(
        &self,
        repository: &RepositoryName,
        tag: &Tag,
        longest: u64,
        decided: Option<i64>,
    ) -> Result<Option<ManifestRow>, Error> {
        let (repository, tag) = (repository.clone(), tag.clone());
        self.read_single(move |tx| {
            Box::pin(async move {
                tx.one(
                    "SELECT s.policy_epoch, m.digest, m.media_type, m.size, CASE WHEN m.size <= $1 THEN body.bytes END
                     FROM store s
                     LEFT JOIN repository r ON r.name = $2 AND r.deleted_at IS NULL
                     LEFT JOIN tag t ON t.repository_id = r.id AND t.name = $3 AND t.closed_at IS NULL AND t.state = 'live'
                     LEFT JOIN manifest m ON m.repository_id = r.id AND m.digest = t.digest AND m.state = 'live'
                     LEFT JOIN manifest_body body ON body.domain = m.domain AND body.digest = m.digest
                     WHERE s.id = 1",
                    &[size(longest).into(), (&repository).into(), (&tag).into()],
                    |row| found(row, decided, manifest),
                )
                .await
            })
        })
        .await
    }

    /// The manifest with this digest, with its bytes if they are not more than `longest`.
    pub async fn manifest_by_digest(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        longest: u64,
        decided: Option<i64>,
    ) -> Result<Option<ManifestRow>, Error> {
        let (repository, digest) = (repository.clone(), digest.clone());
        self.read_single(move |tx| {
            Box::pin(async move {
                tx.one(
                    "SELECT s.policy_epoch, m.digest, m.media_type, m.size, CASE WHEN m.size <= $1 THEN body.bytes END
                     FROM store s
                     LEFT JOIN repository r ON r.name = $2 AND r.deleted_at IS NULL
                     LEFT JOIN manifest m ON m.repository_id = r.id AND m.digest = $3 AND m.state = 'live'
                     LEFT JOIN manifest_body body ON body.domain = m.domain AND body.digest = m.digest
                     WHERE s.id = 1",
                    &[size(longest).into(), (&repository).into(), (&digest).into()],
                    |row| found(row, decided, manifest),
                )
                .await
            })
        })
        .await
    }

    /// [`Db::manifest_by_tag`] without the bytes.
    pub async fn stat_manifest_by_tag(
        &self,
        repository: &RepositoryName,
        tag: &Tag,
        decided: Option<i64>,
    ) -> Result<Option<ManifestStat>, Error> {
        let (repository, tag) = (repository.clone(), tag.clone());
        self.read_single(move |tx| {
            Box::pin(async move {
                tx.one(
                    "SELECT s.policy_epoch, m.digest, m.media_type, m.size
                     FROM store s
                     LEFT JOIN repository r ON r.name = $1 AND r.deleted_at IS NULL
                     LEFT JOIN tag t ON t.repository_id = r.id AND t.name = $2 AND t.closed_at IS NULL AND t.state = 'live'
                     LEFT JOIN manifest m ON m.repository_id = r.id AND m.digest = t.digest AND m.state = 'live'
                     WHERE s.id = 1",
                    &[(&repository).into(), (&tag).into()],
                    |row| found(row, decided, stat),
                )
                .await
            })
        })
        .await
    }

    /// [`Db::manifest_by_digest`] without the bytes.
    pub async fn stat_manifest_by_digest(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        decided: Option<i64>,
    ) -> Result<Option<ManifestStat>, Error> {
        let (repository, digest) = (repository.clone(), digest.clone());
        self.read_single(move |tx| {
            Box::pin(async move {
                tx.one(
                    "SELECT s.policy_epoch, m.digest, m.media_type, m.size
                     FROM store s
                     LEFT JOIN repository r ON r.name = $1 AND r.deleted_at IS NULL
                     LEFT JOIN manifest m ON m.repository_id = r.id AND m.digest = $2 AND m.state = 'live'
                     WHERE s.id = 1",
                    &[(&repository).into(), (&digest).into()],
                    |row| found(row, decided, stat),
                )
                .await
            })
        })
        .await
    }
}

/// What the row holds, behind the epoch, if it holds anything.
fn found<T>(
    row: &Row<'_>,
    decided: Option<i64>,
    read: impl FnOnce(&Row<'_>) -> Result<T, Error>,
) -> Result<Option<T>, Error> {
    subject::check_epoch(row.get(0)?, decided)?;
    if row.get::<Option<Digest>>(1)?.is_none() { Ok(None) } else { read(row).map(Some) }
}

fn manifest(row: &Row<'_>) -> Result<ManifestRow, Error> {
    Ok(ManifestRow { digest: row.get(1)?, media_type: row.get(2)?, size: row.get(3)?, bytes: row.get(4)? })
}

fn stat(row: &Row<'_>) -> Result<ManifestStat, Error> {
    Ok(ManifestStat { digest: row.get(1)?, media_type: row.get(2)?, size: row.get(3)? })
}
