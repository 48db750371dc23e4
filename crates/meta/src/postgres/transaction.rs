//! One transaction on one connection, and how its statements travel.
//!
//! Only unnamed statements in one round trip, with the types of their parameters, and no state of the session: so it works
//! behind pgbouncer in transaction mode. BEGIN, its settings and locks travel together with the statement that follows them.

use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use deadpool::managed::Object;
use futures_util::future::{join, join_all};
use oci::Timestamp;
use tokio::time::error::Elapsed;
use tokio_postgres::Client;
use tokio_postgres::types::{ToSql, Type};

use super::connect::Manager;
use super::count::Counts;
use super::failure;
use crate::error::Error;
use crate::lock::{Hold, Lock};
use crate::tx::Row;
use crate::value::Value;

/// So many statements at most are under way at once.
const PIPELINE: usize = 128;

/// What a transaction is begun as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// One statement that reads, on its own.
    Single,
    /// Several statements that read one state.
    Snapshot,
    /// Changes, durable once committed.
    Synced,
    /// Changes that a crash of the server may undo.
    Unsynced,
    /// A durable change of who serves the store, which asks nobody.
    Unfenced,
}

/// A transaction.
pub struct PostgresTx {
    connection: Option<Object<Manager>>,
    kind: Kind,
    now: Timestamp,
    timeout: Duration,
    counts: Arc<Counts>,
    /// What goes with the next statement: BEGIN, settings, locks.
    ahead: String,
    /// Something was sent.
    used: bool,
    abandoned: bool,
    /// Worth another try from the start.
    retry: Option<Retry>,
    /// The first error of a statement: after it the server takes no other, and COMMIT would roll back.
    failed: Option<Error>,
    /// Events of this transaction hold back those who follow them.
    announced: bool,
}

impl std::fmt::Debug for PostgresTx {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PostgresTx").field("kind", &self.kind).finish_non_exhaustive()
    }
}

/// Why a transaction that has certainly done nothing is worth another try from the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Retry {
    /// Others were in its way: a deadlock, or a row that came or went in between.
    Contention,
    /// The connection was lost: it may have been dead for long.
    Lost,
}

/// The end of a transaction.
pub(super) struct End {
    /// Whether something was committed.
    pub(super) committed: Result<bool, Error>,
    pub(super) retry: Option<Retry>,
}

/// Runs one statement on its own.
async fn execute_on(client: &Client, sql: &str, values: &[Value<'_>]) -> Result<u64, tokio_postgres::Error> {
    #[cfg(test)]
    crate::tests::plans::saw_with(sql, values);
    client.execute_typed(sql, &typed(values)).await
}

async fn query_on(
    client: &Client,
    sql: &str,
    values: &[Value<'_>],
) -> Result<Vec<tokio_postgres::Row>, tokio_postgres::Error> {
    #[cfg(test)]
    crate::tests::plans::saw_with(sql, values);
    client.query_typed(sql, &typed(values)).await
}

fn typed<'a>(values: &'a [Value<'_>]) -> Vec<(&'a (dyn ToSql + Sync), Type)> {
    values.iter().map(|value| (value as &(dyn ToSql + Sync), value.postgres_type())).collect()
}

/// Sent before what is awaited together with it.
async fn ahead_of(client: &Client, ahead: &str) -> Result<(), tokio_postgres::Error> {
    if ahead.is_empty() { Ok(()) } else { client.batch_execute(ahead).await }
}

impl PostgresTx {
    pub(super) fn new(
        connection: Object<Manager>,
        kind: Kind,
        now: Timestamp,
        timeout: Duration,
        counts: Arc<Counts>,
        fence: Option<&str>,
    ) -> Self {
        let mut tx = Self {
            connection: Some(connection),
            kind,
            now,
            timeout,
            counts,
            ahead: String::new(),
            used: false,
            abandoned: false,
            retry: None,
            failed: None,
            announced: false,
        };
        tx.begin();
        if let Some(session) = fence
            && matches!(kind, Kind::Synced | Kind::Unsynced)
        {
            tx.fence(session);
        }
        tx
    }

    /// A frozen client must not hold locks for ever, so the server has a time limit too; a little later than ours.
    fn begin(&mut self) {
        let mode = match self.kind {
            Kind::Single => return,
            Kind::Snapshot => "REPEATABLE READ, READ ONLY",
            Kind::Synced | Kind::Unsynced | Kind::Unfenced => "READ COMMITTED, READ WRITE",
        };
        let limit = self.timeout.as_millis() + 1000;
        let _ = write!(
            self.ahead,
            "BEGIN ISOLATION LEVEL {mode}; SET LOCAL statement_timeout = {limit}; \
             SET LOCAL idle_in_transaction_session_timeout = {limit};"
        );
        match self.kind {
            Kind::Single | Kind::Snapshot => {}
            // Acknowledged means durable, whatever the role's own setting is; a stronger one stays.
            Kind::Synced | Kind::Unfenced if !cfg!(feature = "no-sync") => self.ahead.push_str(
                "SELECT set_config('synchronous_commit', 'on', true) WHERE current_setting('synchronous_commit') = 'off';",
            ),
            Kind::Synced | Kind::Unsynced | Kind::Unfenced => self.ahead.push_str("SET LOCAL synchronous_commit = off;"),
        }
    }

    /// Nothing is changed once another server has taken the store: until the commit nobody can, and where somebody has, the
    /// division fails ([`failure::sort`] knows its code, which nothing else of ours has).
    fn fence(&mut self, session: &str) {
        self.lock(&Lock::Store(Hold::Shared));
        let session = session.replace('\'', "''");
        let _ = write!(self.ahead, "SELECT 1 / COUNT(*) FROM store WHERE id = 1 AND served_session = '{session}';");
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.now
    }

    pub(crate) fn abandon(&mut self) {
        self.abandoned = true;
    }

    /// The error with which a body asks to be run again from the start.
    pub(crate) fn again(&mut self) -> Error {
        self.retry = Some(Retry::Contention);
        Error::Busy
    }

    /// Takes a lock before the next statement, which sees what its last holder has committed.
    pub(crate) fn lock(&mut self, lock: &Lock<'_>) {
        let function = if lock.is_shared() { "pg_advisory_xact_lock_shared" } else { "pg_advisory_xact_lock" };
        let _ = write!(self.ahead, "SELECT {function}({});", lock.key());
    }

    /// Says that events follow, with ids above the last one of now.
    pub(crate) fn announce_events(&mut self) {
        if !std::mem::replace(&mut self.announced, true) {
            let _ = write!(
                self.ahead,
                "SELECT pg_advisory_xact_lock_shared({} + CASE WHEN is_called THEN last_value ELSE last_value - 1 END) \
                 FROM event_id_seq;",
                Lock::EVENTS,
            );
        }
    }

    pub(crate) async fn execute(&mut self, sql: &str, values: &[Value<'_>]) -> Result<u64, Error> {
        let counts = self.send(sql, &[values]).await?;
        Ok(counts.first().copied().unwrap_or_default())
    }

    /// Runs a statement for each of these rows of values, all under way at once; how many rows each changed or found.
    pub(crate) async fn execute_each(&mut self, sql: &str, rows: &[Vec<Value<'_>>]) -> Result<Vec<u64>, Error> {
        let mut all = Vec::with_capacity(rows.len());
        for chunk in rows.chunks(PIPELINE) {
            let chunk: Vec<&[Value<'_>]> = chunk.iter().map(Vec::as_slice).collect();
            all.append(&mut self.send(sql, &chunk).await?);
        }
        Ok(all)
    }

    async fn send(&mut self, sql: &str, rows: &[&[Value<'_>]]) -> Result<Vec<u64>, Error> {
        let ahead = self.ready(sql, rows.len())?;
        let client = &self.connection()?.client;
        let statements = join_all(rows.iter().map(|values| execute_on(client, sql, values)));
        let run = async {
            let (first, done) = join(ahead_of(client, &ahead), statements).await;
            first?;
            done.into_iter().collect::<Result<Vec<u64>, tokio_postgres::Error>>()
        };
        let result = tokio::time::timeout(self.timeout, run).await;
        self.settle(result, "changing rows")
    }

    pub(crate) async fn query<T>(
        &mut self,
        sql: &str,
        values: &[Value<'_>],
        mut map: impl FnMut(&Row<'_>) -> Result<T, Error>,
    ) -> Result<Vec<T>, Error> {
        let ahead = self.ready(sql, 1)?;
        let client = &self.connection()?.client;
        let run = async {
            let (first, rows) = join(ahead_of(client, &ahead), query_on(client, sql, values)).await;
            first?;
            rows
        };
        let result = tokio::time::timeout(self.timeout, run).await;
        let rows = self.settle(result, "reading rows")?;
        rows.iter().map(|row| map(&Row::Postgres(row))).collect()
    }

    /// What has to travel ahead of the next statement, if the transaction may run one.
    fn ready(&mut self, sql: &str, statements: usize) -> Result<String, Error> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        if self.kind == Kind::Single && self.used {
            return Err(Error::db("reading rows", format!("a second statement where one was announced: {sql}")));
        }
        self.used = true;
        self.counts.statements.add(statements);
        self.counts.round_trips.add(1);
        Ok(std::mem::take(&mut self.ahead))
    }

    fn connection(&self) -> Result<&Object<Manager>, Error> {
        self.connection.as_ref().ok_or_else(|| Error::unavailable("a statement", "the connection was cut"))
    }

    /// Sorts the outcome of an exchange. After one that did not come to its end the connection is of no use any more.
    fn settle<T>(
        &mut self,
        result: Result<Result<T, tokio_postgres::Error>, Elapsed>,
        doing: &'static str,
    ) -> Result<T, Error> {
        let error = match result {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(error)) => {
                self.note(&error);
                failure::sort(doing, error)
            }
            Err(_) => {
                self.cut();
                Error::unavailable(
                    "a statement",
                    format!("a statement was not answered within {} ms", self.timeout.as_millis()),
                )
            }
        };
        self.failed = Some(error.clone());
        Err(error)
    }

    fn note(&mut self, error: &tokio_postgres::Error) {
        if failure::is_worth_another_try(error) {
            self.retry = Some(Retry::Contention);
        }
        if failure::ends_connection(error) {
            self.retry = Some(Retry::Lost);
            self.cut();
        }
    }

    /// Takes the connection out of the pool for good.
    fn cut(&mut self) {
        if let Some(connection) = self.connection.take() {
            Object::take(connection).cut();
        }
    }

    /// Runs statements without parameters, one after the other.
    pub(super) async fn batch(&mut self, sql: &str) -> Result<(), Error> {
        let ahead = self.ready(sql, 1)?;
        let client = &self.connection()?.client;
        let run = async {
            let (first, done) = join(ahead_of(client, &ahead), client.batch_execute(sql)).await;
            first.and(done)
        };
        let result = tokio::time::timeout(self.timeout, run).await;
        self.settle(result, "changing the schema")
    }

    /// Commits where the body succeeded, else rolls back, and gives the connection back to the pool.
    pub(super) async fn end(mut self, succeeded: bool) -> End {
        let committed = self.finish(succeeded).await;
        // Now it is as it was. One that is not was cut.
        drop(self.connection.take());
        End { committed, retry: self.retry }
    }

    async fn finish(&mut self, succeeded: bool) -> Result<bool, Error> {
        let in_transaction = self.kind != Kind::Single && self.used;
        if !in_transaction {
            return self.failed.take().map_or(Ok(false), Err);
        }
        if self.failed.is_some() || !succeeded || self.abandoned || self.kind == Kind::Snapshot {
            self.roll_back().await;
            return self.failed.take().map_or(Ok(false), Err);
        }
        self.counts.round_trips.add(1);
        let run = self.connection()?.client.batch_execute("COMMIT");
        match tokio::time::timeout(self.timeout, run).await {
            Ok(Ok(())) => Ok(true),
            Ok(Err(error)) if failure::is_surely_aborted(&error) => {
                self.note(&error);
                Err(failure::sort("committing", error))
            }
            Ok(Err(error)) => {
                self.cut();
                Err(Error::Unsure { source: Arc::new(error) })
            }
            Err(_) => {
                self.cut();
                let why = format!("COMMIT was not answered within {} ms", self.timeout.as_millis());
                Err(Error::unsure(why))
            }
        }
    }

    /// A connection on which that fails is cut, which rolls back as well.
    async fn roll_back(&mut self) {
        let Some(connection) = &self.connection else { return };
        self.counts.round_trips.add(1);
        let run = connection.client.batch_execute("ROLLBACK");
        if !matches!(tokio::time::timeout(self.timeout, run).await, Ok(Ok(()))) {
            self.cut();
        }
    }
}

/// A transaction that is dropped in the middle leaves a connection that is in the middle of something.
impl Drop for PostgresTx {
    fn drop(&mut self) {
        self.cut();
    }
}
