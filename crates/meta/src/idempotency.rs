//! Idempotency keys of the admin API: a request that is sent twice is done once.

use bytes::Bytes;
use oci::Timestamp;

use crate::db::Db;
use crate::error::Error;
use crate::value::limit as rows;

/// The end of [`Db::reserve_idempotency`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reserve {
    /// The key is new: do the request, then complete or release it.
    New,
    /// The same request is being done, or was interrupted.
    Running,
    /// The same request was done and had this answer.
    Done {
        /// Its HTTP status.
        status: u16,
        /// Its body; may hold a secret that was shown once, so it is kept no longer than keys are.
        answer: Bytes,
    },
    /// The key was used for another request.
    Mismatch,
}

impl Db {
    /// Reserves a key of `owner` for the request with this hash. Unsynced: the change that follows makes it durable.
    pub async fn reserve_idempotency(&self, owner: &str, key: &str, request_hash: &[u8]) -> Result<Reserve, Error> {
        let (owner, key, hash) = (owner.to_owned(), key.to_owned(), request_hash.to_vec());
        self.write_unsynced(move |tx| {
            Box::pin(async move {
                let reserved = tx
                    .execute(
                        "INSERT INTO idempotency (owner, key, request_hash, created_at) VALUES ($1, $2, $3, $4)
                         ON CONFLICT (owner, key) DO NOTHING",
                        &[(&owner).into(), (&key).into(), hash.as_slice().into(), tx.now().into()],
                    )
                    .await?;
                if reserved > 0 {
                    return Ok(Reserve::New);
                }
                let found = tx
                    .optional(
                        "SELECT request_hash, status, answer FROM idempotency WHERE owner = $1 AND key = $2",
                        &[(&owner).into(), (&key).into()],
                        |row| Ok((row.get::<Bytes>(0)?, row.get::<Option<i64>>(1)?, row.get::<Option<Bytes>>(2)?)),
                    )
                    .await?;
                // Given back in between.
                let Some((other, status, answer)) = found else { return Err(tx.again()) };
                Ok(match status {
                    _ if other != hash => Reserve::Mismatch,
                    None => Reserve::Running,
                    Some(status) => Reserve::Done {
                        status: u16::try_from(status).map_err(|_| Error::corrupt("a status that is none"))?,
                        answer: answer.unwrap_or_default(),
                    },
                })
            })
        })
        .await
    }

    /// Keeps the answer of a request that was done. Synced.
    pub async fn complete_idempotency(&self, owner: &str, key: &str, status: u16, answer: Bytes) -> Result<(), Error> {
        let (owner, key) = (owner.to_owned(), key.to_owned());
        self.write(move |tx| {
            Box::pin(async move {
                tx.execute(
                    "UPDATE idempotency SET status = $1, answer = $2 WHERE owner = $3 AND key = $4",
                    &[i64::from(status).into(), (&answer).into(), (&owner).into(), (&key).into()],
                )
                .await
                .map(drop)
            })
        })
        .await
    }

    /// Gives a key back after a request that changed nothing. Unsynced.
    pub async fn release_idempotency(&self, owner: &str, key: &str) -> Result<(), Error> {
        let (owner, key) = (owner.to_owned(), key.to_owned());
        self.write_unsynced(move |tx| {
            Box::pin(async move {
                tx.execute(
                    "DELETE FROM idempotency WHERE owner = $1 AND key = $2 AND status IS NULL",
                    &[(&owner).into(), (&key).into()],
                )
                .await
                .map(drop)
            })
        })
        .await
    }

    /// Forgets at most `limit` keys reserved at or before `cutoff`; how many. Unsynced.
    pub async fn expire_idempotency(&self, cutoff: Timestamp, limit: usize) -> Result<u64, Error> {
        self.write_unsynced(move |tx| {
            Box::pin(async move {
                tx.execute(
                    "DELETE FROM idempotency WHERE (owner, key) IN (
                         SELECT owner, key FROM idempotency WHERE created_at <= $1 ORDER BY created_at LIMIT $2)",
                    &[cutoff.into(), rows(limit).into()],
                )
                .await
            })
        })
        .await
    }
}
