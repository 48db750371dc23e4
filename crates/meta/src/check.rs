//! Everything that is in the rows, page by page, for the check of rows against store; and what mends the rows. The
//! findings themselves are the caller's. Each page is one state; between two pages rows may change, so a finding must
//! be looked at twice.

use bytes::Bytes;
use oci::{Digest, RepositoryName, Tag, Timestamp};

use crate::actor::Actor;
use crate::blob::Location;
use crate::db::Db;
use crate::error::Error;
use crate::event::{self, Action, NewEvent};
use crate::lock::{Hold, Lock};
use crate::manifest::{Edge, EdgeKind};
use crate::upload::{self, UploadRow};
use crate::value::{after as key_after, limit as rows};

/// A blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlobCheck {
    /// Its digest: the cursor.
    pub digest: Digest,
    /// How many bytes it should have.
    pub size: u64,
    /// Where they lie; none when they should lie in a row that is missing.
    pub location: Option<Location>,
    /// When it was last touched.
    pub touched_at: Timestamp,
    /// Whether a link names it.
    pub linked: bool,
    /// Whether its mark says so too.
    pub mark_agrees: bool,
}

/// A link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkCheck {
    /// The repository's row: the first half of the cursor.
    pub repository_id: i64,
    /// Its name, which may be deleted.
    pub repository: RepositoryName,
    /// The digest: the second half of the cursor.
    pub digest: Digest,
    /// `live`, `quarantined` or `deleted`.
    pub state: String,
    /// Whether the blob's row is there.
    pub has_blob: bool,
    /// Whether its mark agrees with the edges (a deleted link is marked as unreferenced).
    pub mark_agrees: bool,
}

/// A manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestCheck {
    /// Its row: the cursor.
    pub id: i64,
    /// The repository's name, which may be deleted.
    pub repository: RepositoryName,
    /// Its digest.
    pub digest: Digest,
    /// `live`, `quarantined` or `deleted`.
    pub state: String,
    /// Its media type.
    pub media_type: String,
    /// How many bytes it should have.
    pub size: u64,
    /// What it refers to.
    pub subject: Option<Digest>,
    /// Its bytes; none when the body is missing.
    pub bytes: Option<Bytes>,
    /// Its edges, in the order of their targets.
    pub edges: Vec<Edge>,
}

/// An edge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EdgeCheck {
    /// The manifest's row: the first third of the cursor.
    pub manifest_id: i64,
    /// The repository's name.
    pub repository: RepositoryName,
    /// The digest of the manifest.
    pub manifest: Digest,
    /// What it names: the second third.
    pub target: Digest,
    /// As what: the last third.
    pub kind: EdgeKind,
    /// Whether the repository has a live blob of this digest.
    pub has_blob: bool,
    /// Whether the repository has a live manifest of this digest.
    pub has_manifest: bool,
}

/// An open tag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TagCheck {
    /// Its row: the cursor.
    pub id: i64,
    /// The repository's name.
    pub repository: RepositoryName,
    /// Its name.
    pub tag: Tag,
    /// What it points to.
    pub digest: Digest,
    /// Whether the repository has a manifest of this digest that is not deleted.
    pub has_manifest: bool,
}

/// An upload session.
pub type UploadCheck = UploadRow;

impl Db {
    /// Blobs in the order of their digests, with the bytes of small ones.
    pub async fn check_blobs(&self, after: Option<&Digest>, limit: usize) -> Result<Vec<BlobCheck>, Error> {
        let after = after.cloned();
        self.read_single(move |tx| {
            Box::pin(async move {
                tx.query(
                    "SELECT page.digest, page.size, page.location, page.mtime_ns, body.bytes, page.touched_at, page.linked,
                            CASE WHEN EXISTS (SELECT 1 FROM link l WHERE l.domain = page.domain AND l.digest = page.digest)
                            THEN 1 ELSE 0 END
                     FROM (SELECT * FROM blob WHERE domain = 0 AND digest > $1 ORDER BY digest LIMIT $2) AS page
                     LEFT JOIN blob_body body ON body.domain = page.domain AND body.digest = page.digest
                     ORDER BY page.digest",
                    &[key_after(after.as_ref()), rows(limit).into()],
                    |row| {
                        let linked: bool = row.get(7)?;
                        Ok(BlobCheck {
                            digest: row.get(0)?,
                            size: row.get(1)?,
                            location: match row.get::<Option<String>>(2)? {
                                Some(key) => {
                                    let mtime_ns = row.get::<Option<i64>>(3)?.unwrap_or_default();
                                    Some(Location::File { key, mtime_ns })
                                }
                                None => row.get::<Option<Bytes>>(4)?.map(Location::Inline),
                            },
                            touched_at: row.get(5)?,
                            linked,
                            mark_agrees: row.get::<bool>(6)? == linked,
                        })
                    },
                )
                .await
            })
        })
        .await
    }

    /// Links in the order of repository and digest.
    pub async fn check_links(&self, after: Option<(i64, &Digest)>, limit: usize) -> Result<Vec<LinkCheck>, Error> {
        let (repository, after) = after.map_or((i64::MIN, None), |(id, digest)| (id, Some(digest.clone())));
        self.read_single(move |tx| {
            Box::pin(async move {
                tx.query(
                    "SELECT page.repository_id, r.name, page.digest, page.state, page.referenced,
                            CASE WHEN EXISTS (SELECT 1 FROM blob b WHERE b.domain = page.domain AND b.digest = page.digest)
                            THEN 1 ELSE 0 END,
                            CASE WHEN page.state <> 'deleted' AND EXISTS (
                                SELECT 1 FROM edge e WHERE e.repository_id = page.repository_id AND e.target = page.digest)
                            THEN 1 ELSE 0 END
                     FROM (SELECT * FROM link WHERE (repository_id, digest) > ($1, $2)
                           ORDER BY repository_id, digest LIMIT $3) AS page
                     JOIN repository r ON r.id = page.repository_id
                     ORDER BY page.repository_id, page.digest",
                    &[repository.into(), key_after(after.as_ref()), rows(limit).into()],
                    |row| {
                        Ok(LinkCheck {
                            repository_id: row.get(0)?,
                            repository: row.get(1)?,
                            digest: row.get(2)?,
                            state: row.get(3)?,
                            has_blob: row.get(5)?,
                            mark_agrees: row.get::<bool>(4)? == row.get::<bool>(6)?,
                        })
                    },
                )
                .await
            })
        })
        .await
    }

    /// Manifests in the order of their rows, with bytes and edges: up to 4 MiB each, so ask for few.
    pub async fn check_manifests(&self, after: Option<i64>, limit: usize) -> Result<Vec<ManifestCheck>, Error> {
        self.read(move |tx| {
            Box::pin(async move {
                let mut page = tx
                    .query(
                        "SELECT page.id, r.name, page.digest, page.state, page.media_type, page.size, page.subject, body.bytes
                         FROM (SELECT * FROM manifest WHERE id > $1 ORDER BY id LIMIT $2) AS page
                         JOIN repository r ON r.id = page.repository_id
                         LEFT JOIN manifest_body body ON body.domain = page.domain AND body.digest = page.digest
                         ORDER BY page.id",
                        &[after.unwrap_or(i64::MIN).into(), rows(limit).into()],
                        |row| {
                            Ok(ManifestCheck {
                                id: row.get(0)?,
                                repository: row.get(1)?,
                                digest: row.get(2)?,
                                state: row.get(3)?,
                                media_type: row.get(4)?,
                                size: row.get(5)?,
                                subject: row.get(6)?,
                                bytes: row.get(7)?,
                                edges: Vec::new(),
                            })
                        },
                    )
                    .await?;
                for manifest in &mut page {
                    manifest.edges = crate::manifest::edges(tx, manifest.id).await?;
                }
                Ok(page)
            })
        })
        .await
    }

    /// Edges of live manifests, a manifest at a time: those of the manifests after `after`, for at most `limit` of them.
    pub async fn check_edges(&self, after: Option<i64>, limit: usize) -> Result<Vec<EdgeCheck>, Error> {
        self.read_single(move |tx| {
            Box::pin(async move {
                tx.query(
                    "SELECT page.id, r.name, page.digest, e.target, e.kind,
                            CASE WHEN EXISTS (
                                SELECT 1 FROM link l
                                WHERE l.repository_id = e.repository_id AND l.digest = e.target AND l.state = 'live')
                            THEN 1 ELSE 0 END,
                            CASE WHEN EXISTS (
                                SELECT 1 FROM manifest c
                                WHERE c.repository_id = e.repository_id AND c.digest = e.target AND c.state = 'live')
                            THEN 1 ELSE 0 END
                     FROM (SELECT id, repository_id, digest FROM manifest WHERE id > $1 ORDER BY id LIMIT $2) AS page
                     JOIN repository r ON r.id = page.repository_id
                     JOIN edge e ON e.manifest_id = page.id
                     ORDER BY page.id, e.target, e.kind",
                    &[after.unwrap_or(i64::MIN).into(), rows(limit).into()],
                    |row| {
                        Ok(EdgeCheck {
                            manifest_id: row.get(0)?,
                            repository: row.get(1)?,
                            manifest: row.get(2)?,
                            target: row.get(3)?,
                            kind: EdgeKind::parse(&row.get::<String>(4)?)?,
                            has_blob: row.get(5)?,
                            has_manifest: row.get(6)?,
                        })
                    },
                )
                .await
            })
        })
        .await
    }

    /// Open tags in the order of their rows.
    pub async fn check_tags(&self, after: Option<i64>, limit: usize) -> Result<Vec<TagCheck>, Error> {
        self.read_single(move |tx| {
            Box::pin(async move {
                tx.query(
                    "SELECT page.id, r.name, page.name, page.digest,
                            CASE WHEN EXISTS (
                                SELECT 1 FROM manifest m
                                WHERE m.repository_id = page.repository_id AND m.digest = page.digest
                                  AND m.state <> 'deleted')
                            THEN 1 ELSE 0 END
                     FROM (SELECT * FROM tag WHERE id > $1 AND closed_at IS NULL ORDER BY id LIMIT $2) AS page
                     JOIN repository r ON r.id = page.repository_id
                     ORDER BY page.id",
                    &[after.unwrap_or(i64::MIN).into(), rows(limit).into()],
                    |row| {
                        Ok(TagCheck {
                            id: row.get(0)?,
                            repository: row.get(1)?,
                            tag: row.get(2)?,
                            digest: row.get(3)?,
                            has_manifest: row.get(4)?,
                        })
                    },
                )
                .await
            })
        })
        .await
    }

    /// Upload sessions in the order of their ids.
    pub async fn check_uploads(&self, after: Option<&str>, limit: usize) -> Result<Vec<UploadCheck>, Error> {
        let after = after.unwrap_or_default().to_owned();
        self.read_single(move |tx| {
            Box::pin(async move {
                tx.query(
                    &format!("SELECT {} FROM upload WHERE id > $1 ORDER BY id LIMIT $2", upload::COLUMNS),
                    &[(&after).into(), rows(limit).into()],
                    upload::upload,
                )
                .await
            })
        })
        .await
    }

    /// Works out the mark of a blob anew. Synced.
    pub async fn repair_blob_mark(&self, digest: &Digest) -> Result<(), Error> {
        let digest = digest.clone();
        self.write(move |tx| {
            Box::pin(async move {
                let rows = [vec![(&digest).into()]];
                tx.lock_each("SELECT 1 FROM blob WHERE domain = 0 AND digest = $1", &rows).await?;
                tx.execute(
                    "UPDATE blob SET linked =
                         CASE WHEN EXISTS (SELECT 1 FROM link l WHERE l.domain = blob.domain AND l.digest = blob.digest)
                         THEN 1 ELSE 0 END
                     WHERE domain = 0 AND digest = $1",
                    &[(&digest).into()],
                )
                .await
                .map(drop)
            })
        })
        .await
    }

    /// Works out the mark of a link anew. Synced.
    pub async fn repair_link_mark(&self, repository_id: i64, digest: &Digest) -> Result<(), Error> {
        let digest = digest.clone();
        self.write(move |tx| {
            Box::pin(async move {
                let name = tx
                    .optional("SELECT name FROM repository WHERE id = $1", &[repository_id.into()], |row| row.get(0))
                    .await?;
                let Some(name) = name else { return Ok(()) };
                tx.lock(&Lock::Repository(&name, Hold::Exclusive));
                tx.execute(
                    "UPDATE link SET referenced =
                         CASE WHEN state <> 'deleted' AND EXISTS (
                             SELECT 1 FROM edge e WHERE e.repository_id = link.repository_id AND e.target = link.digest)
                         THEN 1 ELSE 0 END
                     WHERE repository_id = $1 AND digest = $2",
                    &[repository_id.into(), (&digest).into()],
                )
                .await
                .map(drop)
            })
        })
        .await
    }

    /// Forgets a blob whose bytes are lost, with all its links, so that clients see that it is missing and push it
    /// again. Only if it still lies at `key` (none for inline). `false`: it does not. Event `blob.delete`. Synced.
    pub async fn forget_lost_blob(&self, digest: &Digest, key: Option<&str>, actor: &Actor) -> Result<bool, Error> {
        let (digest, key, actor) = (digest.clone(), key.map(ToOwned::to_owned), actor.clone());
        self.write(move |tx| {
            Box::pin(async move {
                // Links before blobs, as everywhere; once more for those that came before the blob was locked.
                let unlink = "DELETE FROM link WHERE domain = 0 AND digest = $1";
                tx.execute(unlink, &[(&digest).into()]).await?;
                let removed = tx
                    .query(
                        "DELETE FROM blob WHERE domain = 0 AND digest = $1 AND location IS NOT DISTINCT FROM $2
                         RETURNING size",
                        &[(&digest).into(), key.as_ref().into()],
                        |row| row.get::<u64>(0),
                    )
                    .await?;
                let Some(size) = removed.first() else {
                    tx.abandon();
                    return Ok(false);
                };
                tx.execute(unlink, &[(&digest).into()]).await?;
                tx.execute("DELETE FROM blob_body WHERE domain = 0 AND digest = $1", &[(&digest).into()]).await?;
                if let Some(key) = &key {
                    crate::gc::add_garbage(tx, key, Some(*size)).await?;
                }
                let event = NewEvent::new(Action::BlobDelete, &actor).digest(&digest);
                event::append(tx, &event.detail(serde_json::json!({ "why": "its bytes were lost" }))).await?;
                Ok(true)
            })
        })
        .await
    }
}
