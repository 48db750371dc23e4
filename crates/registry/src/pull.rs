//! Reading manifests and blobs.

use std::time::Duration;

use blobs::{Key, OpenFile, Source};
use bytes::Bytes;
use meta::{BlobRow, Location};
use oci::{Digest, Hasher, Reference};
use policy::{Access, Verb};

use crate::right::Decisions;
use crate::room::SMALL;
use crate::{Error, Registry, Right, unknown};

/// A manifest, its bytes verified.
#[derive(Clone, Debug)]
pub struct Manifest {
    /// The digest it was pushed under.
    pub digest: Digest,
    /// The type it was pushed with.
    pub media_type: String,
    /// Exactly what was pushed.
    pub bytes: Bytes,
}

/// What a HEAD of a manifest tells.
#[derive(Clone, Debug)]
pub struct ManifestInfo {
    /// The digest it was pushed under.
    pub digest: Digest,
    /// The type it was pushed with.
    pub media_type: String,
    /// Its length in bytes.
    pub size: u64,
}

/// What a HEAD of a blob tells.
#[derive(Clone, Debug)]
pub struct BlobInfo {
    /// The digest that was asked for.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
}

/// A blob open for reading.
#[derive(Clone, Debug)]
pub struct Blob {
    /// The digest that was asked for.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
    /// Its bytes.
    pub source: Source,
}

/// The manifest under `reference`. Its bytes are hashed before they are given out. Waits, some seconds at most, while much
/// else is being sent: then [`Error::Unavailable`].
pub async fn manifest(r: &Registry, right: &dyn Right, reference: &Reference) -> Result<Manifest, Error> {
    let mut decisions = Decisions::on(right);
    loop {
        let access = decisions.next().await?;
        match manifest_by(r, &access, reference).await {
            Err(Error::Outdated) => {}
            done => return done,
        }
    }
}

async fn manifest_by(r: &Registry, access: &Access, reference: &Reference) -> Result<Manifest, Error> {
    let (who, room) = (access.caller().identity, &r.rooms().pulled);
    let row = read_manifest(r, access, reference, SMALL as u64).await?;
    let (row, bytes, reservation) = match row.bytes {
        Some(ref bytes) => {
            let (bytes, reservation) = (bytes.clone(), room.reserve(who, bytes.len()).await?);
            (row, bytes, reservation)
        }
        None => {
            // Room first, then the bytes: by digest, since a tag may move meanwhile.
            let reservation = room.reserve(who, usize::try_from(row.size).unwrap_or(usize::MAX)).await?;
            let row = read_manifest(r, access, &Reference::Digest(row.digest), row.size).await?;
            let damaged = || Error::Damaged {
                digest: row.digest.clone(),
                source: Some(format!("the row says {} bytes and holds others", row.size).into()),
            };
            let bytes = row.bytes.clone().ok_or_else(damaged)?;
            (row, bytes, reservation)
        }
    };
    let (algorithm, hashed) = (row.digest.algorithm(), bytes.clone());
    let actual = match bytes.len() > SMALL {
        true => {
            let hash = tokio::task::spawn_blocking(move || Hasher::digest(algorithm, &hashed));
            hash.await.map_err(Error::internal)?
        }
        false => Hasher::digest(algorithm, &hashed),
    };
    if actual != row.digest {
        let source = format!("the row holds {actual}").into();
        return Err(Error::Damaged { digest: row.digest, source: Some(source) });
    }
    Ok(Manifest { digest: row.digest, media_type: row.media_type, bytes: reservation.hold(bytes) })
}

async fn read_manifest(
    r: &Registry,
    access: &Access,
    reference: &Reference,
    longest: u64,
) -> Result<meta::ManifestRow, Error> {
    let (repository, decided) = (access.repository(), access.epoch());
    let row = match reference {
        Reference::Tag(tag) => r.db().manifest_by_tag(repository, tag, longest, decided).await?,
        Reference::Digest(digest) => r.db().manifest_by_digest(repository, digest, longest, decided).await?,
    };
    match row {
        Some(row) => Ok(row),
        None => unknown(r, access, Error::ManifestUnknown(reference.clone())).await,
    }
}

/// What the manifest under `reference` is, without reading it.
pub async fn manifest_head(r: &Registry, right: &dyn Right, reference: &Reference) -> Result<ManifestInfo, Error> {
    let mut decisions = Decisions::on(right);
    loop {
        let access = decisions.next().await?;
        let (repository, decided) = (access.repository(), access.epoch());
        let row = match reference {
            Reference::Tag(tag) => r.db().stat_manifest_by_tag(repository, tag, decided).await,
            Reference::Digest(digest) => r.db().stat_manifest_by_digest(repository, digest, decided).await,
        };
        return match row {
            Err(meta::Error::Outdated) => continue,
            Err(error) => Err(error.into()),
            Ok(Some(row)) => Ok(ManifestInfo { digest: row.digest, media_type: row.media_type, size: row.size }),
            Ok(None) => unknown(r, &access, Error::ManifestUnknown(reference.clone())).await,
        };
    }
}

/// Whether the blob is in the repository. A stored copy that is damaged counts as absent for those who may push, so
/// that they send it again, which heals it.
pub async fn blob_head(r: &Registry, right: &dyn Right, digest: &Digest) -> Result<BlobInfo, Error> {
    let mut decisions = Decisions::on(right);
    loop {
        let access = decisions.next().await?;
        return match look_up(r, &access, digest, Trust::Recorded).await {
            Err(Error::Outdated) => continue,
            Ok(blob) => Ok(BlobInfo { digest: blob.digest, size: blob.size }),
            Err(error @ Error::Damaged { .. }) if access.holds(Verb::Push) => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "a damaged blob is answered as absent to a pusher"
                );
                Err(Error::BlobUnknown(digest.clone()))
            }
            Err(error) => Err(error),
        };
    }
}

/// Opens the blob for reading.
///
/// Until a manifest of the repository names it, it is there only for those who may push. To those a 200 is a promise
/// that it will still be there when they push the manifest, so it is touched first.
pub async fn blob(r: &Registry, right: &dyn Right, digest: &Digest) -> Result<Blob, Error> {
    let trust = if r.settings().verify_reads { Trust::Nothing } else { Trust::Recorded };
    let mut decisions = Decisions::on(right);
    loop {
        let access = decisions.next().await?;
        match look_up(r, &access, digest, trust).await {
            Err(Error::Outdated) => {}
            done => return done,
        }
    }
}

/// What is taken for granted of a file.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Trust {
    /// That a file of the recorded length and time holds the bytes that were verified when it was written.
    Recorded,
    /// Nothing: it is hashed.
    Nothing,
}

async fn look_up(r: &Registry, access: &Access, digest: &Digest, trust: Trust) -> Result<Blob, Error> {
    let mut damage: Option<Error> = None;
    // Twice: between the query and the opening, a push of the same bytes may have put them elsewhere.
    for _ in 0..2 {
        let Some(row) = find(r, access, digest).await? else {
            return unknown(r, access, Error::BlobUnknown(digest.clone())).await;
        };
        touch(r, access, digest, &row).await?;
        match open(r, digest, &row, trust).await {
            Ok(source) => return Ok(Blob { digest: digest.clone(), size: row.size, source }),
            Err(error @ Error::Damaged { .. }) => damage = Some(error),
            Err(error) => return Err(error),
        }
    }
    Err(damage.unwrap_or_else(|| Error::BlobUnknown(digest.clone())))
}

/// Whether the bytes that this repository has of a blob are those that were pushed, as far as opening tells; a blob that it
/// does not have is none of the matter.
pub(crate) async fn is_sound(r: &Registry, repository: &oci::RepositoryName, digest: &Digest) -> Result<bool, Error> {
    let Some(row) = r.db().blob(repository, digest, None).await? else { return Ok(true) };
    match open(r, digest, &row, Trust::Recorded).await {
        Ok(_) => Ok(true),
        Err(error @ Error::Damaged { .. }) => {
            tracing::error!(error = &error as &dyn std::error::Error, "a damaged blob is not mounted");
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

/// The row of a blob that this caller may read.
async fn find(r: &Registry, access: &Access, digest: &Digest) -> Result<Option<BlobRow>, Error> {
    match r.db().blob(access.repository(), digest, access.epoch()).await? {
        Some(row) if row.accepted || access.holds(Verb::Push) => Ok(Some(row)),
        // Everybody knows these bytes, and clients name them without having pushed them.
        None if oci::is_empty_json(digest) && r.db().names_blob(access.repository(), digest).await? => {
            Ok(Some(BlobRow {
                size: oci::EMPTY_JSON.len() as u64,
                location: Location::Inline(Bytes::from_static(oci::EMPTY_JSON)),
                accepted: true,
                touched_at: r.now(),
                repository_id: 0,
            }))
        }
        _ => Ok(None),
    }
}

async fn touch(r: &Registry, access: &Access, digest: &Digest, row: &BlobRow) -> Result<(), Error> {
    let quarter: Duration = r.settings().gc_grace / 4;
    if !row.accepted && access.holds(Verb::Push) && row.touched_at < r.now().minus(quarter) {
        r.db().touch_blob(access.repository(), digest).await?;
    }
    Ok(())
}

/// No file has this modification time, so a blob of which it is recorded is hashed whenever it is opened.
const DISTRUSTED: i64 = 0;

/// Remembers that the file holds other bytes, although nothing that can be seen from outside says so: from now on it is found
/// damaged without being read for it, is absent for who may push it again, and is healed by that.
pub(crate) async fn distrust(r: &Registry, digest: &Digest, key: &Key) {
    if let Err(error) = r.db().record_mtime(digest, key.as_str(), DISTRUSTED).await {
        tracing::warn!(%digest, error = &error as &dyn std::error::Error, "a damaged blob could not be marked");
    }
}

/// The bytes of a row: its length is right, and so is its digest where anything speaks against it.
async fn open(r: &Registry, digest: &Digest, row: &BlobRow, trust: Trust) -> Result<Source, Error> {
    let damaged = |source: crate::BoxError| Error::Damaged { digest: digest.clone(), source: Some(source) };
    let (key, recorded) = match &row.location {
        Location::Inline(bytes) => {
            let actual = Hasher::digest(digest.algorithm(), bytes);
            return match actual == *digest {
                true => Ok(Source::Inline(bytes.clone())),
                false => Err(damaged(format!("the row holds {actual}").into())),
            };
        }
        Location::File { key, mtime_ns } => (key, *mtime_ns),
    };
    let key = Key::parse(key).ok_or_else(|| damaged(format!("the row names the file '{key}'").into()))?;
    let OpenFile { file, size, mtime_ns } = match r.blobs().open(&key, row.size).await {
        Ok(open) => open,
        Err(error @ (blobs::Error::NotFound { .. } | blobs::Error::Damaged { .. })) => {
            return Err(damaged(Box::new(error)));
        }
        Err(error) => return Err(error.into()),
    };
    if mtime_ns != recorded || trust == Trust::Nothing {
        let (_, actual) = r.blobs().hash(&key, &[digest.algorithm()]).await?;
        if actual.first() != Some(digest) {
            if mtime_ns == recorded {
                distrust(r, digest, &key).await;
            }
            return Err(damaged(format!("the file {key} holds other bytes").into()));
        }
        if mtime_ns != recorded {
            // The bytes are right, whether that can be remembered or not.
            if let Err(error) = r.db().record_mtime(digest, key.as_str(), mtime_ns).await {
                tracing::debug!(%digest, error = &error as &dyn std::error::Error, "a time could not be recorded");
            }
        }
    }
    Ok(Source::File { file, offset: 0, length: size })
}
