//! The PostgreSQL engine: a pool of connections, straight to the server or through pgbouncer in transaction mode.
//!
//! Nothing is kept in a session: statements are unnamed, locks end with their transaction, settings are `SET LOCAL`. Changes
//! run under READ COMMITTED with the locks of [`crate::lock`]; reads of several statements see one state. A transaction whose
//! connection was lost before COMMIT, or that was in the way of another, has certainly done nothing and is run again, a few
//! times; one that was lost during COMMIT is [`Error::Unsure`].

mod connect;
mod count;
mod failure;
mod integrity;
mod migrate;
mod transaction;
mod types;
mod url;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use deadpool::managed::{Object, Pool, PoolError};
use oci::{Clock, Random};

pub use transaction::PostgresTx;
pub use url::{Authorities, PostgresUrl, PostgresUrlError};

use crate::error::Error;
use crate::sqlite::Durability;
use crate::stats::Stats;
use crate::tx::{Tx, TxFuture};
use connect::Manager;
use count::Counts;
use transaction::{Kind, Retry};

/// How often a transaction is run that others are in the way of.
const ATTEMPTS: u32 = 6;
/// The first pause before it is run again, doubled each time.
const PAUSE: Duration = Duration::from_millis(4);
/// How often a transaction is run whose connection is lost: of a pool after a restart of the server, several may be dead.
const LOST: u32 = 3;

/// How a PostgreSQL database is opened.
#[derive(Clone, Debug)]
pub struct PostgresOptions {
    /// Where it is.
    pub url: PostgresUrl,
    /// How many connections are open at most; at least 1.
    pub connections: usize,
    /// How long a connection may take to be made, its name to be looked up included.
    pub connect_timeout: Duration,
    /// How long a request waits for one of the connections before it fails with [`Error::Busy`].
    pub pool_timeout: Duration,
    /// How long one statement may take; also how long it waits for a lock.
    pub statement_timeout: Duration,
    /// Whether a database is accepted that a copy has begun to fill and not ended: for that copy.
    pub for_copy: bool,
    /// Changes nothing: every write fails with [`Error::ReadOnly`], and so does opening a database whose schema is older than
    /// this program's.
    pub read_only: bool,
}

impl PostgresOptions {
    /// The usual settings for this address.
    pub fn new(url: PostgresUrl) -> Self {
        Self {
            url,
            connections: 16,
            connect_timeout: Duration::from_secs(5),
            pool_timeout: Duration::from_secs(10),
            statement_timeout: Duration::from_secs(30),
            for_copy: false,
            read_only: false,
        }
    }
}

/// An open PostgreSQL database. Clones share it.
#[derive(Clone)]
pub(crate) struct Postgres {
    pool: Pool<Manager>,
    clock: Clock,
    random: Random,
    statement_timeout: Duration,
    counts: Arc<Counts>,
    /// The session that has to hold the store for a change to be committed.
    fence: Arc<OnceLock<String>>,
}

impl Postgres {
    /// Connects and brings the schema up to date; also the id of the store.
    pub(crate) async fn open(
        options: &PostgresOptions,
        clock: Clock,
        random: Random,
        new_store_id: &str,
    ) -> Result<(Self, String), Error> {
        let pool = Pool::builder(Manager::new(options)?)
            .max_size(options.connections.max(1))
            .wait_timeout(Some(options.pool_timeout))
            .runtime(deadpool::Runtime::Tokio1)
            .build()
            .map_err(|error| Error::db("setting up the connections", error))?;
        let counts = Arc::new(Counts::default());
        let postgres =
            Self { pool, clock, random, statement_timeout: options.statement_timeout, counts, fence: Arc::default() };
        let store_id = migrate::migrate(&postgres, new_store_id, options).await?;
        Ok((postgres, store_id))
    }

    pub(crate) fn clock(&self) -> &Clock {
        &self.clock
    }

    pub(crate) fn random(&self) -> &Random {
        &self.random
    }

    /// Runs a transaction and returns when it is committed. It goes on when the caller goes away.
    pub(crate) async fn write<T, F>(&self, durability: Durability, work: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: for<'t> FnOnce(&'t mut Tx) -> TxFuture<'t, T> + Clone + Send + 'static,
    {
        let kind = match durability {
            Durability::Synced => Kind::Synced,
            Durability::Unsynced => Kind::Unsynced,
        };
        self.write_as(kind, work).await
    }

    /// As a synced [`Postgres::write`], whoever holds the store.
    pub(crate) async fn write_unfenced<T, F>(&self, work: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: for<'t> FnOnce(&'t mut Tx) -> TxFuture<'t, T> + Clone + Send + 'static,
    {
        self.write_as(Kind::Unfenced, work).await
    }

    async fn write_as<T, F>(&self, kind: Kind, work: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: for<'t> FnOnce(&'t mut Tx) -> TxFuture<'t, T> + Clone + Send + 'static,
    {
        let postgres = self.clone();
        let task = tokio::spawn(async move { postgres.run(kind, work).await });
        task.await.map_err(|error| Error::db("running a transaction", error))?
    }

    /// From now on changes are committed only while this session holds the store. The first call counts.
    pub(crate) fn fence(&self, session: &str) {
        let _ = self.fence.set(session.to_owned());
    }

    /// Runs several statements that read, on one state.
    pub(crate) async fn read<T, F>(&self, work: F) -> Result<T, Error>
    where
        F: for<'t> FnOnce(&'t mut Tx) -> TxFuture<'t, T> + Clone,
    {
        self.run(Kind::Snapshot, work).await
    }

    /// Runs one statement that reads: one round trip.
    pub(crate) async fn read_single<T, F>(&self, work: F) -> Result<T, Error>
    where
        F: for<'t> FnOnce(&'t mut Tx) -> TxFuture<'t, T> + Clone,
    {
        self.run(Kind::Single, work).await
    }

    async fn run<T, F>(&self, kind: Kind, work: F) -> Result<T, Error>
    where
        F: for<'t> FnOnce(&'t mut Tx) -> TxFuture<'t, T> + Clone,
    {
        let (mut attempts, mut lost) = (1, 1);
        loop {
            let (result, retry) = self.attempt(kind, work.clone()).await;
            match retry {
                Some(Retry::Contention) if matches!(result, Err(Error::Busy)) && attempts < ATTEMPTS => {
                    tokio::time::sleep(self.pause(attempts)).await;
                    attempts += 1;
                }
                Some(Retry::Lost) if matches!(result, Err(Error::Unavailable { .. })) && lost < LOST => lost += 1,
                _ => return result,
            }
            self.counts.retries.add(1);
        }
    }

    async fn attempt<T>(
        &self,
        kind: Kind,
        work: impl for<'t> FnOnce(&'t mut Tx) -> TxFuture<'t, T>,
    ) -> (Result<T, Error>, Option<Retry>) {
        let connection = match self.connection().await {
            Ok(connection) => connection,
            Err(error) => return (Err(error), None),
        };
        let now = (self.clock)();
        let fence = self.fence.get().map(String::as_str);
        let tx = PostgresTx::new(connection, kind, now, self.statement_timeout, self.counts.clone(), fence);
        let mut tx = Tx::Postgres(tx);
        let result = work(&mut tx).await;
        let Tx::Postgres(tx) = tx else { return (result, None) };
        let end = tx.end(result.is_ok()).await;
        self.count(kind, &end.committed);
        let result = match (result, end.committed) {
            (Ok(value), Ok(_)) => Ok(value),
            (Ok(_), Err(error)) | (Err(error), _) => Err(error),
        };
        (result, end.retry)
    }

    async fn connection(&self) -> Result<Object<Manager>, Error> {
        self.pool.get().await.map_err(|error| match error {
            PoolError::Backend(error) => error,
            PoolError::Timeout(_) => Error::Busy,
            PoolError::Closed => Error::db("reaching the database", "the database was closed"),
            error => Error::unavailable("a statement", error.to_string()),
        })
    }

    /// Doubled each time, and never the same for two that were in each other's way.
    fn pause(&self, attempts: u32) -> Duration {
        let mut byte = [0];
        (self.random)(&mut byte);
        let longest = PAUSE * 2u32.saturating_pow(attempts);
        longest / 2 + longest / 2 * u32::from(byte[0]) / 255
    }

    fn count(&self, kind: Kind, committed: &Result<bool, Error>) {
        match (kind, committed) {
            (Kind::Single | Kind::Snapshot, _) => return,
            (Kind::Synced | Kind::Unfenced, Ok(true)) => self.counts.synced.add(1),
            (Kind::Unsynced, Ok(true)) => self.counts.unsynced.add(1),
            (_, Ok(false)) => {}
            (_, Err(_)) => self.counts.failed.add(1),
        }
        self.counts.transactions.add(1);
    }

    pub(crate) async fn integrity_check(&self) -> Result<Vec<String>, Error> {
        integrity::check(self).await
    }

    /// Closes the connections once they are idle; nobody gets one any more.
    pub(crate) fn close(&self) {
        self.pool.close();
    }

    pub(crate) fn stats(&self) -> Stats {
        self.counts.stats()
    }
}

/// Runs one command on a connection of its own: for tests, which create databases.
#[cfg(test)]
pub(crate) async fn command(url: &PostgresUrl, sql: &str) -> Result<(), Error> {
    use deadpool::managed::Manager as _;
    let connection = Manager::new(&PostgresOptions::new(url.clone()))?.create().await?;
    connection.client.batch_execute(sql).await.map_err(|error| Error::db("running a command", error))
}

/// The plans of statements, on a connection of its own: for tests.
#[cfg(test)]
pub(crate) async fn explain(
    url: &PostgresUrl,
    statements: &[(&str, Vec<crate::value::Value<'_>>)],
) -> Result<Vec<String>, Error> {
    use deadpool::managed::Manager as _;
    let connection = Manager::new(&PostgresOptions::new(url.clone()))?.create().await?;
    let mut plans = Vec::new();
    for (sql, values) in statements {
        let typed: Vec<(&(dyn tokio_postgres::types::ToSql + Sync), _)> =
            values.iter().map(|value| (value as _, value.postgres_type())).collect();
        let rows = connection.client.query_typed(&format!("EXPLAIN {sql}"), &typed).await;
        let rows = rows.map_err(|error| Error::db("explaining a statement", format!("{error:?} in {sql}")))?;
        plans.push(rows.iter().map(|row| row.get::<_, String>(0)).collect::<Vec<_>>().join("\n"));
    }
    Ok(plans)
}
