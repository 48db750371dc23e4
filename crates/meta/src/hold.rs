//! Holds: while one runs, no bytes are removed from the blob store, because a backup is linking them.

use std::time::Duration;

use oci::Timestamp;

use crate::db::Db;
use crate::error::Error;

/// A hold that has not run out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HoldRow {
    /// Its id.
    pub id: String,
    /// What it is for, as a user may read it.
    pub purpose: String,
    /// When it was taken.
    pub created_at: Timestamp,
    /// When it ends, unless renewed.
    pub expires_at: Timestamp,
}

impl Db {
    /// Takes a hold under a new id. From when this returns, collection removes no bytes. Unsynced: who holds dies of a
    /// power cut too.
    pub async fn take_hold(&self, id: &str, purpose: &str, duration: Duration) -> Result<(), Error> {
        let (id, purpose) = (id.to_owned(), purpose.to_owned());
        self.write_unsynced(move |tx| {
            Box::pin(async move {
                let now = tx.now();
                tx.execute("DELETE FROM hold WHERE expires_at <= $1", &[now.into()]).await?;
                tx.execute(
                    "INSERT INTO hold (id, purpose, created_at, expires_at) VALUES ($1, $2, $3, $4)",
                    &[(&id).into(), (&purpose).into(), now.into(), now.plus(duration).into()],
                )
                .await
                .map(drop)
            })
        })
        .await
    }

    /// Prolongs a hold. `false`: it has run out, and bytes may be gone. Unsynced.
    pub async fn renew_hold(&self, id: &str, duration: Duration) -> Result<bool, Error> {
        let id = id.to_owned();
        self.write_unsynced(move |tx| {
            Box::pin(async move {
                let now = tx.now();
                let renewed = tx
                    .execute(
                        "UPDATE hold SET expires_at = $1 WHERE id = $2 AND expires_at > $3",
                        &[now.plus(duration).into(), (&id).into(), now.into()],
                    )
                    .await?;
                Ok(renewed > 0)
            })
        })
        .await
    }

    /// Ends a hold. Unsynced.
    pub async fn release_hold(&self, id: &str) -> Result<(), Error> {
        let id = id.to_owned();
        self.write_unsynced(move |tx| {
            Box::pin(async move { tx.execute("DELETE FROM hold WHERE id = $1", &[(&id).into()]).await.map(drop) })
        })
        .await
    }

    /// The hold that ends last, if one runs.
    pub async fn active_hold(&self) -> Result<Option<HoldRow>, Error> {
        self.read_single(|tx| {
            Box::pin(async move {
                tx.optional(
                    "SELECT id, purpose, created_at, expires_at FROM hold
                     WHERE expires_at > $1 ORDER BY expires_at DESC LIMIT 1",
                    &[tx.now().into()],
                    |row| {
                        Ok(HoldRow {
                            id: row.get(0)?,
                            purpose: row.get(1)?,
                            created_at: row.get(2)?,
                            expires_at: row.get(3)?,
                        })
                    },
                )
                .await
            })
        })
        .await
    }
}
