//! Blobs: where their bytes lie, and which repository may give them out.

use bytes::Bytes;
use oci::{Digest, RepositoryName, Timestamp};

use crate::actor::Actor;
use crate::db::Db;
use crate::error::Error;
use crate::event::{self, Action, NewEvent};
use crate::lock::Hold;
use crate::tx::{Row, Tx};
use crate::value::{limit as rows, size};
use crate::{gc, link, repository, subject};

/// Where the bytes of a blob lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// Here, in a row.
    Inline(Bytes),
    /// In the blob store.
    File {
        /// Its key there, never used before for another blob.
        key: String,
        /// The modification time of the file when its bytes were last verified, in nanoseconds since 1970.
        mtime_ns: i64,
    },
}

/// A blob whose bytes were received in full, verified and synced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewBlob {
    /// The digest of the bytes.
    pub digest: Digest,
    /// How many they are.
    pub size: u64,
    /// Where they lie.
    pub location: Location,
}

/// The end of [`Db::finish_upload`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// The repository has the blob.
    Done,
    /// The session is gone or another request has it; nothing was changed.
    UploadGone,
}

/// A blob as a repository has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlobRow {
    /// How many bytes.
    pub size: u64,
    /// Where they lie.
    pub location: Location,
    /// Whether a live manifest of the repository names it. Until then only who may push may read it.
    pub accepted: bool,
    /// The older of the last touches of the blob and of its link.
    pub touched_at: Timestamp,
    /// The repository's row.
    pub repository_id: i64,
}

/// The end of [`Db::delete_blob`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeleteBlob {
    /// The repository has it no more.
    Done,
    /// The repository does not have it.
    Unknown,
    /// This manifest of the repository needs it.
    InUse(Digest),
}

impl Db {
    /// Ends an upload: the session goes, the repository (created when missing) has the blob, and `blob`'s location
    /// becomes the one of its digest everywhere, because these bytes have just been verified; the bytes that were there
    /// before become garbage. The same work whether the digest was known or not. Event `blob.push`. Synced.
    ///
    /// `upload` is the session and the holder of its lease; `None` for bytes that came without one.
    pub async fn finish_upload(
        &self,
        repository: &RepositoryName,
        upload: Option<(&str, &str)>,
        blob: NewBlob,
        actor: &Actor,
    ) -> Result<Finish, Error> {
        let upload = upload.map(|(id, holder)| (id.to_owned(), holder.to_owned()));
        let (name, actor) = (repository.clone(), actor.clone());
        self.write(move |tx| {
            Box::pin(async move {
                subject::check_decision(tx, &actor, &name, Hold::Shared).await?;
                if let Some((id, holder)) = &upload
                    && !end_session(tx, id, holder, &blob.location).await?
                {
                    tx.abandon();
                    return Ok(Finish::UploadGone);
                }
                let repository = repository::ensure(tx, &name, &actor).await?;
                link::add(tx, repository, &blob.digest, &actor).await?;
                place(tx, repository.domain, &blob).await?;
                let event = NewEvent::new(Action::BlobPush, &actor).repository(&name).digest(&blob.digest);
                event::append(tx, &event.detail(serde_json::json!({ "size": blob.size }))).await?;
                Ok(Finish::Done)
            })
        })
        .await
    }

    /// The blob, if this repository has it: one query.
    ///
    /// Its file may be replaced by a fresher copy and collected at any moment; who finds the file missing asks again.
    ///
    /// `decided` is the epoch of the rules by which it was decided that the caller may ask: [`Error::Outdated`] where it is not
    /// the store's any more. `None` where no rules were asked.
    pub async fn blob(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        decided: Option<i64>,
    ) -> Result<Option<BlobRow>, Error> {
        let (repository, digest) = (repository.clone(), digest.clone());
        self.read_single(move |tx| {
            Box::pin(async move {
                tx.one(
                    "SELECT s.policy_epoch, b.size, b.location, b.mtime_ns, body.bytes, l.touched_at, b.touched_at, r.id,
                            CASE WHEN EXISTS (
                                SELECT 1 FROM edge e JOIN manifest m ON m.id = e.manifest_id
                                WHERE e.repository_id = r.id AND e.target = $1 AND m.state = 'live')
                            THEN 1 ELSE 0 END
                     FROM store s
                     LEFT JOIN repository r ON r.name = $2 AND r.deleted_at IS NULL
                     LEFT JOIN link l ON l.repository_id = r.id AND l.digest = $1 AND l.state = 'live'
                     LEFT JOIN blob b ON b.domain = l.domain AND b.digest = l.digest AND b.state = 'live'
                     LEFT JOIN blob_body body ON body.domain = b.domain AND body.digest = b.digest
                     WHERE s.id = 1",
                    &[(&digest).into(), (&repository).into()],
                    |row| {
                        subject::check_epoch(row.get(0)?, decided)?;
                        if row.get::<Option<u64>>(1)?.is_none() { Ok(None) } else { blob_row(row).map(Some) }
                    },
                )
                .await
            })
        })
        .await
    }

    /// Whether a live manifest of the repository names the digest, whether it is there or not.
    pub async fn names_blob(&self, repository: &RepositoryName, digest: &Digest) -> Result<bool, Error> {
        let (name, digest) = (repository.clone(), digest.clone());
        self.read(move |tx| {
            Box::pin(async move {
                let Some(repository) = repository::find(tx, &name).await? else { return Ok(false) };
                Ok(live_manifest_of(tx, repository.id, &digest).await?.is_some())
            })
        })
        .await
    }

    /// Touches the blob and its link, because a client was told that they are there and may name them in a manifest.
    /// Unsynced.
    pub async fn touch_blob(&self, repository: &RepositoryName, digest: &Digest) -> Result<(), Error> {
        let (repository, digest) = (repository.clone(), digest.clone());
        self.write_unsynced(move |tx| {
            Box::pin(async move {
                if let Some(repository) = repository::find(tx, &repository).await? {
                    let now = tx.now();
                    link::touch(tx, repository, &digest, now).await?;
                }
                Ok(())
            })
        })
        .await
    }

    /// Keeps the new modification time of a file whose bytes were verified again. Unsynced.
    pub async fn record_mtime(&self, digest: &Digest, key: &str, mtime_ns: i64) -> Result<(), Error> {
        let (digest, key) = (digest.clone(), key.to_owned());
        self.write_unsynced(move |tx| {
            Box::pin(async move {
                tx.execute(
                    "UPDATE blob SET mtime_ns = $1 WHERE location = $2 AND digest = $3",
                    &[mtime_ns.into(), (&key).into(), (&digest).into()],
                )
                .await
                .map(drop)
            })
        })
        .await
    }

    /// The repositories that have the blob, the newest link first, at most `limit`: where an anonymous mount may look.
    pub async fn linking_repositories(&self, digest: &Digest, limit: usize) -> Result<Vec<RepositoryName>, Error> {
        let digest = digest.clone();
        self.read_single(move |tx| {
            Box::pin(async move {
                tx.query(
                    "SELECT r.name
                     FROM link l JOIN repository r ON r.id = l.repository_id AND r.deleted_at IS NULL
                     WHERE l.domain = 0 AND l.digest = $1 AND l.state = 'live'
                     ORDER BY l.first_seen DESC LIMIT $2",
                    &[(&digest).into(), rows(limit).into()],
                    |row| row.get(0),
                )
                .await
            })
        })
        .await
    }

    /// Gives `target` (created when missing) the blob that `source` has. With `require_accepted` a live manifest of
    /// `source` must name it: for callers who may not push there. `false`: it is not there; nothing was changed. Event
    /// `blob.mount`. Synced.
    pub async fn mount_blob(
        &self,
        target: &RepositoryName,
        source: &RepositoryName,
        digest: &Digest,
        require_accepted: bool,
        actor: &Actor,
    ) -> Result<bool, Error> {
        let (target, source) = (target.clone(), source.clone());
        let (digest, actor) = (digest.clone(), actor.clone());
        self.write(move |tx| {
            Box::pin(async move {
                subject::check_decision(tx, &actor, &target, Hold::Shared).await?;
                let Some(from) = repository::find(tx, &source).await? else { return Ok(false) };
                if !link::is_live(tx, from, &digest).await?
                    || require_accepted && live_manifest_of(tx, from.id, &digest).await?.is_none()
                {
                    return Ok(false);
                }
                let repository = repository::ensure(tx, &target, &actor).await?;
                link::add(tx, repository, &digest, &actor).await?;
                if !mark_linked(tx, repository.domain, &digest).await? {
                    // Collection came first.
                    tx.abandon();
                    return Ok(false);
                }
                let event = NewEvent::new(Action::BlobMount, &actor).repository(&target).digest(&digest);
                event::append(tx, &event.detail(serde_json::json!({ "from": source.as_str() }))).await?;
                Ok(true)
            })
        })
        .await
    }

    /// Takes the blob from the repository, unless one of its manifests needs it. Other repositories keep it; its bytes
    /// go when none has had it for the grace. Event `blob.delete`. Synced.
    pub async fn delete_blob(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        actor: &Actor,
    ) -> Result<DeleteBlob, Error> {
        let (name, digest, actor) = (repository.clone(), digest.clone(), actor.clone());
        self.write(move |tx| {
            Box::pin(async move {
                subject::check_decision(tx, &actor, &name, Hold::Exclusive).await?;
                let Some(repository) = repository::find(tx, &name).await? else { return Ok(DeleteBlob::Unknown) };
                if !link::is_live(tx, repository, &digest).await? {
                    return Ok(DeleteBlob::Unknown);
                }
                if let Some(manifest) = manifest_of(tx, repository.id, &digest).await? {
                    return Ok(DeleteBlob::InUse(manifest));
                }
                let now = tx.now();
                tx.execute(
                    "UPDATE link SET state = 'deleted', touched_at = $1, referenced = 0
                     WHERE repository_id = $2 AND digest = $3",
                    &[now.into(), repository.id.into(), (&digest).into()],
                )
                .await?;
                link::touch_blob(tx, repository.domain, &digest, now).await?;
                event::append(tx, &NewEvent::new(Action::BlobDelete, &actor).repository(&name).digest(&digest)).await?;
                Ok(DeleteBlob::Done)
            })
        })
        .await
    }
}

fn blob_row(row: &Row<'_>) -> Result<BlobRow, Error> {
    let location = match (row.get::<Option<String>>(2)?, row.get::<Option<Bytes>>(4)?) {
        (Some(key), _) => Location::File { key, mtime_ns: row.get::<Option<i64>>(3)?.unwrap_or_default() },
        (None, Some(bytes)) => Location::Inline(bytes),
        (None, None) => return Err(Error::corrupt("the bytes of a small blob are missing")),
    };
    Ok(BlobRow {
        size: row.get(1)?,
        location,
        accepted: row.get(8)?,
        touched_at: row.get::<Timestamp>(5)?.min(row.get(6)?),
        repository_id: row.get(7)?,
    })
}

/// Removes the session if the lease is still the holder's. Its file becomes garbage unless it is the blob's.
async fn end_session(tx: &mut Tx, id: &str, holder: &str, location: &Location) -> Result<bool, Error> {
    let ended = tx
        .optional(
            "DELETE FROM upload WHERE id = $1 AND lease_holder = $2 RETURNING location, received",
            &[id.into(), holder.into()],
            |row| Ok((row.get::<Option<String>>(0)?, row.get::<u64>(1)?)),
        )
        .await?;
    let Some((key, received)) = ended else { return Ok(false) };
    if let Some(key) = key {
        let kept = matches!(location, Location::File { key: kept, .. } if *kept == key);
        if !kept {
            gc::add_garbage(tx, &key, Some(received)).await?;
        }
    }
    Ok(true)
}

/// Makes `blob`'s bytes those of its digest.
async fn place(tx: &mut Tx, domain: i64, blob: &NewBlob) -> Result<(), Error> {
    let (storage, key, mtime_ns) = match &blob.location {
        Location::Inline(_) => ("inline", None, None),
        Location::File { key, mtime_ns } => ("file", Some(key), Some(*mtime_ns)),
    };
    if let Some(key) = key
        && gc::is_garbage(tx, key).await?
    {
        return Err(Error::conflict(format!("the key {key}, which was given up,")));
    }
    let inserted = tx
        .execute(
            "INSERT INTO blob (domain, digest, size, storage, location, mtime_ns, state, created_at, touched_at, linked)
             VALUES ($1, $2, $3, $4, $5, $6, 'live', $7, $7, 1)
             ON CONFLICT (domain, digest) DO NOTHING",
            &[
                domain.into(),
                (&blob.digest).into(),
                size(blob.size).into(),
                storage.into(),
                key.into(),
                mtime_ns.into(),
                tx.now().into(),
            ],
        )
        .await?;
    if inserted == 0 {
        replace(tx, domain, blob, storage, key, mtime_ns).await?;
    }
    match &blob.location {
        Location::Inline(bytes) => {
            tx.execute(
                "INSERT INTO blob_body (domain, digest, bytes) VALUES ($1, $2, $3)
                 ON CONFLICT (domain, digest) DO UPDATE SET bytes = excluded.bytes",
                &[domain.into(), (&blob.digest).into(), bytes.into()],
            )
            .await?;
        }
        Location::File { .. } if inserted == 0 => {
            tx.execute(
                "DELETE FROM blob_body WHERE domain = $1 AND digest = $2",
                &[domain.into(), (&blob.digest).into()],
            )
            .await?;
        }
        Location::File { .. } => {}
    }
    Ok(())
}

async fn replace(
    tx: &mut Tx,
    domain: i64,
    blob: &NewBlob,
    storage: &str,
    key: Option<&String>,
    mtime_ns: Option<i64>,
) -> Result<(), Error> {
    // Locked, so that where several write at once, each old key becomes garbage.
    let sql = format!("SELECT location, size FROM blob WHERE domain = $1 AND digest = $2{}", tx.for_update());
    let old = tx
        .optional(&sql, &[domain.into(), (&blob.digest).into()], |row| {
            Ok((row.get::<Option<String>>(0)?, row.get::<u64>(1)?))
        })
        .await?;
    // Collected in between.
    let Some((old_key, old_size)) = old else { return Err(tx.again()) };
    tx.execute(
        "UPDATE blob SET size = $1, storage = $2, location = $3, mtime_ns = $4, touched_at = $5, linked = 1,
                state = CASE WHEN state = 'quarantined' THEN state ELSE 'live' END
         WHERE domain = $6 AND digest = $7",
        &[
            size(blob.size).into(),
            storage.into(),
            key.into(),
            mtime_ns.into(),
            tx.now().into(),
            domain.into(),
            (&blob.digest).into(),
        ],
    )
    .await?;
    match old_key {
        Some(old_key) if key != Some(&old_key) => gc::add_garbage(tx, &old_key, Some(old_size)).await,
        _ => Ok(()),
    }
}

/// Touches the blob and marks it as linked, whatever it was marked as: the row is locked, which orders this and collection.
/// `false`: it is not there.
async fn mark_linked(tx: &mut Tx, domain: i64, digest: &Digest) -> Result<bool, Error> {
    tx.execute(
        "UPDATE blob SET linked = 1, touched_at = $1 WHERE domain = $2 AND digest = $3",
        &[tx.now().into(), domain.into(), digest.into()],
    )
    .await
    .map(|marked| marked > 0)
}

/// A live manifest of the repository that names the blob.
async fn live_manifest_of(tx: &mut Tx, repository: i64, digest: &Digest) -> Result<Option<Digest>, Error> {
    tx.optional(
        "SELECT m.digest FROM edge e JOIN manifest m ON m.id = e.manifest_id
         WHERE e.repository_id = $1 AND e.target = $2 AND m.state = 'live' LIMIT 1",
        &[repository.into(), digest.into()],
        |row| row.get(0),
    )
    .await
}

/// A manifest of the repository, live or in quarantine, that names the blob.
async fn manifest_of(tx: &mut Tx, repository: i64, digest: &Digest) -> Result<Option<Digest>, Error> {
    tx.optional(
        "SELECT m.digest FROM edge e JOIN manifest m ON m.id = e.manifest_id
         WHERE e.repository_id = $1 AND e.target = $2 LIMIT 1",
        &[repository.into(), digest.into()],
        |row| row.get(0),
    )
    .await
}
