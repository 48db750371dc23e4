//! Reading manifests: one query each, live ones only.

use bytes::Bytes;
use oci::{Digest, RepositoryName, Tag};

use crate::db::Db;
use crate::error::Error;
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
    ) -> Result<Option<ManifestRow>, Error> {
        let (repository, tag) = (repository.clone(), tag.clone());
        self.read(move |tx| {
            Box::pin(async move {
                tx.optional(
                    "SELECT m.digest, m.media_type, m.size, CASE WHEN m.size <= $1 THEN body.bytes END
                     FROM repository r
                     JOIN tag t ON t.repository_id = r.id AND t.name = $2 AND t.closed_at IS NULL AND t.state = 'live'
                     JOIN manifest m ON m.repository_id = r.id AND m.digest = t.digest AND m.state = 'live'
                     JOIN manifest_body body ON body.domain = m.domain AND body.digest = m.digest
                     WHERE r.name = $3 AND r.deleted_at IS NULL",
                    &[size(longest).into(), (&tag).into(), (&repository).into()],
                    manifest,
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
    ) -> Result<Option<ManifestRow>, Error> {
        let (repository, digest) = (repository.clone(), digest.clone());
        self.read(move |tx| {
            Box::pin(async move {
                tx.optional(
                    "SELECT m.digest, m.media_type, m.size, CASE WHEN m.size <= $1 THEN body.bytes END
                     FROM repository r
                     JOIN manifest m ON m.repository_id = r.id AND m.digest = $2 AND m.state = 'live'
                     JOIN manifest_body body ON body.domain = m.domain AND body.digest = m.digest
                     WHERE r.name = $3 AND r.deleted_at IS NULL",
                    &[size(longest).into(), (&digest).into(), (&repository).into()],
                    manifest,
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
    ) -> Result<Option<ManifestStat>, Error> {
        let (repository, tag) = (repository.clone(), tag.clone());
        self.read(move |tx| {
            Box::pin(async move {
                tx.optional(
                    "SELECT m.digest, m.media_type, m.size
                     FROM repository r
                     JOIN tag t ON t.repository_id = r.id AND t.name = $1 AND t.closed_at IS NULL AND t.state = 'live'
                     JOIN manifest m ON m.repository_id = r.id AND m.digest = t.digest AND m.state = 'live'
                     WHERE r.name = $2 AND r.deleted_at IS NULL",
                    &[(&tag).into(), (&repository).into()],
                    stat,
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
    ) -> Result<Option<ManifestStat>, Error> {
        let (repository, digest) = (repository.clone(), digest.clone());
        self.read(move |tx| {
            Box::pin(async move {
                tx.optional(
                    "SELECT m.digest, m.media_type, m.size
                     FROM repository r
                     JOIN manifest m ON m.repository_id = r.id AND m.digest = $1 AND m.state = 'live'
                     WHERE r.name = $2 AND r.deleted_at IS NULL",
                    &[(&digest).into(), (&repository).into()],
                    stat,
                )
                .await
            })
        })
        .await
    }
}

fn manifest(row: &Row<'_>) -> Result<ManifestRow, Error> {
    Ok(ManifestRow { digest: row.get(0)?, media_type: row.get(1)?, size: row.get(2)?, bytes: row.get(3)? })
}

fn stat(row: &Row<'_>) -> Result<ManifestStat, Error> {
    Ok(ManifestStat { digest: row.get(0)?, media_type: row.get(1)?, size: row.get(2)? })
}
