//! Upload sessions. All of it is unsynced: after a power cut a client starts its upload again.

use std::time::Duration;

use bytes::Bytes;
use oci::{Algorithm, RepositoryName, Timestamp};

use crate::db::Db;
use crate::error::Error;
use crate::lock::Lock;
use crate::tx::{Row, Tx};
use crate::value::{Value, limit as rows, size};

/// An upload session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UploadRow {
    /// Its id, a UUID as text.
    pub id: String,
    /// The repository that it was opened in; it may not exist yet.
    pub repository: RepositoryName,
    /// The subject that opened it.
    pub owner: i64,
    /// How many bytes were received and saved.
    pub offset: u64,
    /// The algorithm that the client announced.
    pub algorithm: Option<Algorithm>,
    /// The exported states of the hashes over these bytes.
    pub states: Vec<Vec<u8>>,
    /// The bytes themselves, while they are few.
    pub inline: Option<Bytes>,
    /// The key of the file that holds them, when they are more.
    pub key: Option<String>,
    /// When it was opened.
    pub created_at: Timestamp,
    /// When it was last used.
    pub touched_at: Timestamp,
}

/// The end of [`Db::create_upload`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CreateUpload {
    /// The session is open.
    Created,
    /// Its owner has as many sessions as the limit allows.
    TooMany,
}

/// The end of [`Db::lease_upload`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lease {
    /// The session is the caller's until the lease ends.
    Taken(UploadRow),
    /// Another request is using it.
    Busy(UploadRow),
    /// There is no such session of this owner in this repository.
    Gone,
}

impl Db {
    /// Opens a session at offset 0. `id` must be new. Unsynced.
    pub async fn create_upload(
        &self,
        id: &str,
        repository: &RepositoryName,
        owner: i64,
        algorithm: Option<Algorithm>,
        limit_per_owner: u32,
    ) -> Result<CreateUpload, Error> {
        let (id, repository) = (id.to_owned(), repository.clone());
        self.write_unsynced(move |tx| {
            Box::pin(async move {
                tx.lock(&Lock::Uploads(owner));
                let open = tx
                    .one(
                        "SELECT COUNT(*) FROM (SELECT 1 FROM upload WHERE owner = $1 LIMIT $2) AS few",
                        &[owner.into(), i64::from(limit_per_owner).into()],
                        |row| row.get::<u64>(0),
                    )
                    .await?;
                if open >= u64::from(limit_per_owner) {
                    return Ok(CreateUpload::TooMany);
                }
                tx.execute(
                    "INSERT INTO upload (id, repository, owner, received, algorithm, states, created_at, touched_at)
                     VALUES ($1, $2, $3, 0, $4, $5, $6, $6)",
                    &[
                        (&id).into(),
                        (&repository).into(),
                        owner.into(),
                        algorithm.map(Algorithm::as_str).into(),
                        (&[] as &[u8]).into(),
                        tx.now().into(),
                    ],
                )
                .await?;
                Ok(CreateUpload::Created)
            })
        })
        .await
    }

    /// The session, whoever uses it at the moment; `None` unless it is of this owner in this repository.
    pub async fn upload(&self, repository: &RepositoryName, id: &str, owner: i64) -> Result<Option<UploadRow>, Error> {
        let (repository, id) = (repository.clone(), id.to_owned());
        self.read_single(move |tx| Box::pin(async move { find(tx, &repository, &id, owner).await })).await
    }

    /// Takes the session for `holder` (an id of the request) for so long, unless another holder's lease is running.
    /// Unsynced.
    pub async fn lease_upload(
        &self,
        repository: &RepositoryName,
        id: &str,
        owner: i64,
        holder: &str,
        duration: Duration,
    ) -> Result<Lease, Error> {
        let (repository, id, holder) = (repository.clone(), id.to_owned(), holder.to_owned());
        self.write_unsynced(move |tx| {
            Box::pin(async move {
                let now = tx.now();
                let taken = tx
                    .execute(
                        "UPDATE upload SET lease_holder = $1, lease_until = $2, touched_at = $3
                         WHERE id = $4 AND repository = $5 AND owner = $6
                           AND (lease_holder IS NULL OR lease_holder = $1 OR lease_until <= $3)",
                        &[
                            (&holder).into(),
                            now.plus(duration).into(),
                            now.into(),
                            (&id).into(),
                            (&repository).into(),
                            owner.into(),
                        ],
                    )
                    .await?;
                Ok(match (find(tx, &repository, &id, owner).await?, taken) {
                    (None, _) => Lease::Gone,
                    (Some(row), 0) => Lease::Busy(row),
                    (Some(row), _) => Lease::Taken(row),
                })
            })
        })
        .await
    }

    /// Prolongs a lease while a body streams. `false`: it is not this holder's any more. Unsynced.
    pub async fn renew_upload(&self, id: &str, holder: &str, duration: Duration) -> Result<bool, Error> {
        let (id, holder) = (id.to_owned(), holder.to_owned());
        self.write_unsynced(move |tx| {
            Box::pin(async move {
                let now = tx.now();
                let renewed = tx
                    .execute(
                        "UPDATE upload SET lease_until = $1, touched_at = $2 WHERE id = $3 AND lease_holder = $4",
                        &[now.plus(duration).into(), now.into(), (&id).into(), (&holder).into()],
                    )
                    .await?;
                Ok(renewed > 0)
            })
        })
        .await
    }

    /// Names the file before it is created, so that no file is unknown. `false`: the lease is lost. Unsynced.
    pub async fn name_upload_key(&self, id: &str, holder: &str, key: &str) -> Result<bool, Error> {
        let (id, holder, key) = (id.to_owned(), holder.to_owned(), key.to_owned());
        self.write_unsynced(move |tx| {
            Box::pin(async move {
                let named = tx
                    .execute(
                        "UPDATE upload SET location = $1 WHERE id = $2 AND lease_holder = $3",
                        &[(&key).into(), (&id).into(), (&holder).into()],
                    )
                    .await?;
                Ok(named > 0)
            })
        })
        .await
    }

    /// Saves how far the session has come and gives the lease back. `offset` bytes are received and on the disk; `states`
    /// are the exported hashes over them; they lie in `inline` while they are few, else in the file `key`. `false`: the
    /// lease is lost, and nothing was saved. Unsynced.
    pub async fn save_upload(
        &self,
        id: &str,
        holder: &str,
        offset: u64,
        states: Vec<Vec<u8>>,
        inline: Option<Bytes>,
        key: Option<String>,
    ) -> Result<bool, Error> {
        let (id, holder) = (id.to_owned(), holder.to_owned());
        self.write_unsynced(move |tx| {
            Box::pin(async move {
                let states = join(&states);
                let saved = tx
                    .execute(
                        "UPDATE upload SET received = $1, states = $2, head = $3, location = $4, touched_at = $5,
                                lease_holder = NULL, lease_until = NULL
                         WHERE id = $6 AND lease_holder = $7",
                        &[
                            size(offset).into(),
                            states.as_slice().into(),
                            inline.as_ref().into(),
                            key.as_ref().into(),
                            tx.now().into(),
                            (&id).into(),
                            (&holder).into(),
                        ],
                    )
                    .await?;
                Ok(saved > 0)
            })
        })
        .await
    }

    /// Gives the lease back and leaves the session as it was. Unsynced.
    pub async fn release_upload(&self, id: &str, holder: &str) -> Result<(), Error> {
        let (id, holder) = (id.to_owned(), holder.to_owned());
        self.write_unsynced(move |tx| {
            Box::pin(async move {
                tx.execute(
                    "UPDATE upload SET lease_holder = NULL, lease_until = NULL WHERE id = $1 AND lease_holder = $2",
                    &[(&id).into(), (&holder).into()],
                )
                .await
                .map(drop)
            })
        })
        .await
    }

    /// Ends a session, even one that is in use; its file becomes garbage. `false`: there is none. Unsynced.
    pub async fn cancel_upload(&self, repository: &RepositoryName, id: &str, owner: i64) -> Result<bool, Error> {
        let (repository, id) = (repository.clone(), id.to_owned());
        self.write_unsynced(move |tx| {
            Box::pin(async move {
                let keys = tx
                    .query(
                        "DELETE FROM upload WHERE id = $1 AND repository = $2 AND owner = $3 RETURNING location, received",
                        &[(&id).into(), (&repository).into(), owner.into()],
                        |row| Ok((row.get::<Option<String>>(0)?, row.get::<u64>(1)?)),
                    )
                    .await?;
                let found = !keys.is_empty();
                discard(tx, keys).await?;
                Ok(found)
            })
        })
        .await
    }

    /// Ends every lease: at the start of the only server, when no request can hold one. Unsynced.
    pub async fn clear_leases(&self) -> Result<(), Error> {
        self.write_unsynced(move |tx| {
            Box::pin(async move {
                tx.execute(
                    "UPDATE upload SET lease_holder = NULL, lease_until = NULL WHERE lease_holder IS NOT NULL",
                    &[],
                )
                .await
                .map(drop)
            })
        })
        .await
    }

    /// Ends at most `limit` sessions that nobody used since `cutoff` and nobody is using; their files become garbage.
    /// How many were ended. Unsynced.
    pub async fn expire_uploads(&self, cutoff: Timestamp, limit: usize) -> Result<u64, Error> {
        self.write_unsynced(move |tx| {
            Box::pin(async move {
                let sql = format!(
                    "SELECT id, location, received FROM upload
                     WHERE touched_at <= $1 AND (lease_holder IS NULL OR lease_until <= $2)
                     ORDER BY touched_at LIMIT $3{}",
                    tx.for_update_skipping()
                );
                let ended = tx
                    .query(&sql, &[cutoff.into(), tx.now().into(), rows(limit).into()], |row| {
                        Ok((row.get::<String>(0)?, (row.get::<Option<String>>(1)?, row.get::<u64>(2)?)))
                    })
                    .await?;
                let ids: Vec<Vec<Value<'_>>> = ended.iter().map(|(id, _)| vec![id.into()]).collect();
                tx.execute_each("DELETE FROM upload WHERE id = $1", &ids).await?;
                let number = ended.len() as u64;
                discard(tx, ended.into_iter().map(|(_, key)| key).collect()).await?;
                Ok(number)
            })
        })
        .await
    }

    /// How many sessions are open: for metrics, counts the rows.
    pub async fn count_uploads(&self) -> Result<u64, Error> {
        self.read_single(|tx| {
            Box::pin(async move { tx.one("SELECT COUNT(*) FROM upload", &[], |row| row.get(0)).await })
        })
        .await
    }
}

/// Ends every session of an owner, even those in use; their files become garbage.
pub(crate) async fn end_all(tx: &mut Tx, owner: i64) -> Result<(), Error> {
    let keys = tx
        .query("DELETE FROM upload WHERE owner = $1 RETURNING location, received", &[owner.into()], |row| {
            Ok((row.get::<Option<String>>(0)?, row.get::<u64>(1)?))
        })
        .await?;
    discard(tx, keys).await
}

async fn discard(tx: &mut Tx, keys: Vec<(Option<String>, u64)>) -> Result<(), Error> {
    for (key, received) in keys {
        if let Some(key) = key {
            crate::gc::add_garbage(tx, &key, Some(received)).await?;
        }
    }
    Ok(())
}

pub(crate) const COLUMNS: &str =
    "id, repository, owner, received, algorithm, states, head, location, created_at, touched_at";

async fn find(tx: &mut Tx, repository: &RepositoryName, id: &str, owner: i64) -> Result<Option<UploadRow>, Error> {
    tx.optional(
        &format!("SELECT {COLUMNS} FROM upload WHERE id = $1 AND repository = $2 AND owner = $3"),
        &[id.into(), repository.into(), owner.into()],
        upload,
    )
    .await
}

pub(crate) fn upload(row: &Row<'_>) -> Result<UploadRow, Error> {
    Ok(UploadRow {
        id: row.get(0)?,
        repository: row.get(1)?,
        owner: row.get(2)?,
        offset: row.get(3)?,
        algorithm: row.get(4)?,
        states: split(&row.get::<Bytes>(5)?)?,
        inline: row.get(6)?,
        key: row.get(7)?,
        created_at: row.get(8)?,
        touched_at: row.get(9)?,
    })
}

/// The states one after the other, each behind its length in four bytes.
fn join(states: &[Vec<u8>]) -> Vec<u8> {
    let mut joined = Vec::new();
    for state in states {
        joined.extend_from_slice(&u32::try_from(state.len()).unwrap_or(u32::MAX).to_be_bytes());
        joined.extend_from_slice(state);
    }
    joined
}

fn split(mut joined: &[u8]) -> Result<Vec<Vec<u8>>, Error> {
    let mut states = Vec::new();
    while let Some((length, rest)) = joined.split_first_chunk::<4>() {
        let (state, rest) = usize::try_from(u32::from_be_bytes(*length))
            .ok()
            .and_then(|length| rest.split_at_checked(length))
            .ok_or_else(|| Error::corrupt("an upload holds half a hash state"))?;
        states.push(state.to_vec());
        joined = rest;
    }
    if joined.is_empty() { Ok(states) } else { Err(Error::corrupt("an upload holds half a hash state")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_survive() {
        for states in [vec![], vec![vec![]], vec![vec![1; 106], vec![2; 210]]] {
            assert_eq!(split(&join(&states)).unwrap(), states);
        }
        for bad in [&[0][..], &[0, 0, 0, 2, 1], &[255, 255, 255, 255]] {
            assert!(split(bad).is_err());
        }
    }
}
