//! Keys of the server, wrapped by its key-encryption key: the rows never hold a key in the clear.

use bytes::Bytes;
use oci::Timestamp;

use crate::actor::Actor;
use crate::db::Db;
use crate::error::Error;
use crate::event::{self, Action, NewEvent};

/// A key to be kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewSigningKey {
    /// Its id, which tokens name.
    pub id: String,
    /// What it is for, for example `token`.
    pub purpose: String,
    /// The key, wrapped.
    pub wrapped: Bytes,
}

/// A key that is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SigningKeyRow {
    /// Its id.
    pub id: String,
    /// What it is for.
    pub purpose: String,
    /// The key, wrapped.
    pub wrapped: Bytes,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it stopped being used for new signatures.
    pub retired_at: Option<Timestamp>,
}

impl Db {
    /// Keeps a key. Event `key.rotated`. Synced.
    pub async fn add_signing_key(&self, key: NewSigningKey, actor: &Actor) -> Result<(), Error> {
        let actor = actor.clone();
        self.write(move |tx| {
            Box::pin(async move {
                tx.execute(
                    "INSERT INTO signing_key (id, purpose, wrapped, created_at) VALUES ($1, $2, $3, $4)",
                    &[(&key.id).into(), (&key.purpose).into(), (&key.wrapped).into(), tx.now().into()],
                )
                .await?;
                let event = NewEvent::new(Action::KeyRotated, &actor).reference(&key.id);
                event::append(tx, &event.detail(serde_json::json!({ "purpose": key.purpose }))).await
            })
        })
        .await
    }

    /// All keys, the oldest first. They are few.
    pub async fn signing_keys(&self) -> Result<Vec<SigningKeyRow>, Error> {
        self.read_single(|tx| {
            Box::pin(async move {
                tx.query(
                    "SELECT id, purpose, wrapped, created_at, retired_at FROM signing_key ORDER BY created_at, id",
                    &[],
                    |row| {
                        Ok(SigningKeyRow {
                            id: row.get(0)?,
                            purpose: row.get(1)?,
                            wrapped: row.get(2)?,
                            created_at: row.get(3)?,
                            retired_at: row.get(4)?,
                        })
                    },
                )
                .await
            })
        })
        .await
    }

    /// Marks a key as no longer used for new signatures. `false`: there is none, or it was. Synced.
    pub async fn retire_signing_key(&self, id: &str, actor: &Actor) -> Result<bool, Error> {
        let (id, actor) = (id.to_owned(), actor.clone());
        self.write(move |tx| {
            Box::pin(async move {
                let retired = tx
                    .execute(
                        "UPDATE signing_key SET retired_at = $1 WHERE id = $2 AND retired_at IS NULL",
                        &[tx.now().into(), (&id).into()],
                    )
                    .await?;
                if retired == 0 {
                    return Ok(false);
                }
                let event = NewEvent::new(Action::KeyRotated, &actor).reference(&id);
                event::append(tx, &event.detail(serde_json::json!({ "retired": true }))).await?;
                Ok(true)
            })
        })
        .await
    }
}
