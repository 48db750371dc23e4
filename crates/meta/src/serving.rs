//! Which server serves the store. A local store belongs to one: another on the same database would find its rows, and not
//! its blobs.

use std::time::Duration;

use oci::Timestamp;

use crate::db::Db;
use crate::error::Error;
use crate::lock::{Hold, Lock};
use crate::tx::Tx;

/// A server as it is written down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Its data directory, the same after a restart.
    pub holder: String,
    /// Its process, another after a restart.
    pub session: String,
    /// Process and host, for people.
    pub label: String,
}

/// The end of [`Db::take_store`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TakeStore {
    /// The store is the server's until its time is over.
    Taken,
    /// Another server has it.
    Held {
        /// Its label.
        label: String,
        /// When its time is over, unless it is prolonged.
        until: Timestamp,
    },
}

impl Db {
    /// Takes the store for a server, for so long. A process before this one on the same data directory is gone, as the lock of
    /// the directory says, so its time is not waited for. Another server loses it when its time is `gone`: the caller has seen
    /// no other for a whole `duration`, by its own clock, since clocks of two machines need not agree.
    pub async fn take_store(
        &self,
        server: &Server,
        duration: Duration,
        gone: Option<Timestamp>,
    ) -> Result<TakeStore, Error> {
        let server = server.clone();
        self.write_unfenced(move |tx| {
            Box::pin(async move {
                // Asked first without the lock, for which every change of the server that has the store would wait.
                let held = holder(tx, &server, gone).await?;
                if held != TakeStore::Taken {
                    return Ok(held);
                }
                tx.lock(&Lock::Store(Hold::Exclusive));
                let held = holder(tx, &server, gone).await?;
                if held == TakeStore::Taken {
                    tx.execute(
                        "UPDATE store SET served_by = $1, served_from = $2, served_session = $3, served_until = $4
                         WHERE id = 1",
                        &[
                            (&server.holder).into(),
                            (&server.label).into(),
                            (&server.session).into(),
                            tx.now().plus(duration).into(),
                        ],
                    )
                    .await?;
                }
                Ok(held)
            })
        })
        .await
    }

    /// Prolongs the time of the server with this session. `false`: another has the store now.
    pub async fn keep_store(&self, session: &str, duration: Duration) -> Result<bool, Error> {
        let session = session.to_owned();
        self.write_unfenced(move |tx| {
            Box::pin(async move {
                let until = tx.now().plus(duration);
                let sql = "UPDATE store SET served_until = $1 WHERE id = 1 AND served_session = $2";
                Ok(tx.execute(sql, &[until.into(), (&session).into()]).await? > 0)
            })
        })
        .await
    }

    /// Gives the store back, if it is that of this session still.
    pub async fn leave_store(&self, session: &str) -> Result<(), Error> {
        let session = session.to_owned();
        self.write_unfenced(move |tx| {
            Box::pin(async move {
                let sql =
                    "UPDATE store SET served_by = NULL, served_from = NULL, served_session = NULL, served_until = NULL
                           WHERE id = 1 AND served_session = $1";
                tx.execute(sql, &[(&session).into()]).await.map(drop)
            })
        })
        .await
    }
}

/// Who keeps the server from taking the store; [`TakeStore::Taken`] when nobody does.
async fn holder(tx: &mut Tx, server: &Server, gone: Option<Timestamp>) -> Result<TakeStore, Error> {
    tx.one(
        "SELECT COALESCE(served_by, ''), COALESCE(served_from, ''), served_until FROM store WHERE id = 1",
        &[],
        |row| {
            let (by, label, until) = (row.get::<String>(0)?, row.get(1)?, row.get::<Option<Timestamp>>(2)?);
            Ok(match until {
                Some(until) if by != server.holder && Some(until) != gone => TakeStore::Held { label, until },
                _ => TakeStore::Taken,
            })
        },
    )
    .await
}
