//! A transaction, and the only way to run a statement.

use std::future::Future;
use std::pin::Pin;

use oci::Timestamp;

use crate::db::Engine;
use crate::error::Error;
use crate::lock::Lock;
use crate::postgres::PostgresTx;
use crate::sqlite::SqliteTx;
use crate::value::{Cell, Column, Value};

/// What a transaction's body returns: a future that borrows the transaction.
pub type TxFuture<'t, T> = Pin<Box<dyn Future<Output = Result<T, Error>> + Send + 't>>;

/// A transaction of one of the engines.
///
/// Statements are written once for all engines: standard SQL with `$1`, `$2`… numbered in the order of their first use,
/// flags as 0 and 1, conditions in the select list inside `CASE`. Two texts only where engines must differ. On SQLite a
/// statement finishes before its future returns, so the body of a transaction never waits there. On PostgreSQL each is an
/// exchange with the server.
#[derive(Debug)]
pub enum Tx {
    /// SQLite: the connection of the writer, or of a reader.
    Sqlite(SqliteTx),
    /// PostgreSQL: a connection of the pool.
    Postgres(PostgresTx),
}

impl Tx {
    /// The database's time, the same throughout the transaction.
    pub fn now(&self) -> Timestamp {
        match self {
            Self::Sqlite(tx) => tx.now(),
            Self::Postgres(tx) => tx.now(),
        }
    }

    /// Whose it is.
    pub(crate) fn engine(&self) -> Engine {
        match self {
            Self::Sqlite(_) => Engine::Sqlite,
            Self::Postgres(_) => Engine::Postgres,
        }
    }

    /// Undoes everything that the transaction wrote when its body returns, although it returns a value: for outcomes
    /// such as a refused tag, which are no errors.
    pub fn abandon(&mut self) {
        match self {
            Self::Sqlite(tx) => tx.abandon(),
            Self::Postgres(tx) => tx.abandon(),
        }
    }

    /// The error with which a body asks to be run again from the start: another transaction came in between two of its
    /// statements. SQLite has one writer, so there it cannot be, and the caller gets the error.
    pub(crate) fn again(&mut self) -> Error {
        match self {
            Self::Sqlite(_) => Error::Busy,
            Self::Postgres(tx) => tx.again(),
        }
    }

    /// Takes a lock to the end of the transaction, before its next statement. SQLite has one writer.
    pub(crate) fn lock(&mut self, lock: &Lock<'_>) {
        if let Self::Postgres(tx) = self {
            tx.lock(lock);
        }
    }

    /// Says that the transaction goes on to write events.
    pub(crate) fn announce_events(&mut self) {
        if let Self::Postgres(tx) = self {
            tx.announce_events();
        }
    }

    /// The end of a SELECT whose rows are locked: waits for others who have locked them, and sees what they have committed.
    pub(crate) fn for_update(&self) -> &'static str {
        match self {
            Self::Sqlite(_) => "",
            Self::Postgres(_) => " FOR UPDATE",
        }
    }

    /// Locks the rows that a SELECT finds for each of these rows of values: what follows sees what others have committed
    /// about them. SQLite has one writer.
    pub(crate) async fn lock_each(&mut self, select: &str, rows: &[Vec<Value<'_>>]) -> Result<(), Error> {
        match self {
            Self::Sqlite(_) => Ok(()),
            Self::Postgres(tx) => tx.execute_each(&format!("{select} FOR UPDATE"), rows).await.map(drop),
        }
    }

    /// The end of a SELECT whose rows are locked, without those that others have locked.
    pub(crate) fn for_update_skipping(&self) -> &'static str {
        match self {
            Self::Sqlite(_) => "",
            Self::Postgres(_) => " FOR UPDATE SKIP LOCKED",
        }
    }

    /// Runs a statement once for each of these rows of values; how many rows each changed or found.
    pub(crate) async fn execute_each(&mut self, sql: &str, rows: &[Vec<Value<'_>>]) -> Result<Vec<u64>, Error> {
        match self {
            Self::Sqlite(tx) => rows.iter().map(|values| tx.execute(sql, values)).collect(),
            Self::Postgres(tx) => tx.execute_each(sql, rows).await,
        }
    }

    /// Runs a SELECT once for each of these rows of values; how many rows each found.
    pub(crate) async fn find_each(&mut self, sql: &str, rows: &[Vec<Value<'_>>]) -> Result<Vec<u64>, Error> {
        match self {
            Self::Sqlite(tx) => rows.iter().map(|values| Ok(tx.query(sql, values, |_| Ok(()))?.len() as u64)).collect(),
            Self::Postgres(tx) => tx.execute_each(sql, rows).await,
        }
    }

    /// Runs a statement; the number of rows that it changed.
    pub async fn execute(&mut self, sql: &str, values: &[Value<'_>]) -> Result<u64, Error> {
        match self {
            Self::Sqlite(tx) => tx.execute(sql, values),
            Self::Postgres(tx) => tx.execute(sql, values).await,
        }
    }

    /// Runs a statement that returns rows, to its end.
    pub async fn query<T>(
        &mut self,
        sql: &str,
        values: &[Value<'_>],
        map: impl FnMut(&Row<'_>) -> Result<T, Error> + Send,
    ) -> Result<Vec<T>, Error> {
        match self {
            Self::Sqlite(tx) => tx.query(sql, values, map),
            Self::Postgres(tx) => tx.query(sql, values, map).await,
        }
    }

    /// Runs a statement that returns at most one row.
    pub async fn optional<T>(
        &mut self,
        sql: &str,
        values: &[Value<'_>],
        map: impl FnMut(&Row<'_>) -> Result<T, Error> + Send,
    ) -> Result<Option<T>, Error> {
        match self {
            Self::Sqlite(tx) => Ok(tx.query(sql, values, map)?.pop()),
            Self::Postgres(tx) => Ok(tx.query(sql, values, map).await?.pop()),
        }
    }

    /// Runs a statement that returns exactly one row.
    pub async fn one<T>(
        &mut self,
        sql: &str,
        values: &[Value<'_>],
        map: impl FnMut(&Row<'_>) -> Result<T, Error> + Send,
    ) -> Result<T, Error> {
        self.optional(sql, values, map).await?.ok_or_else(|| Error::corrupt("a row that must be there is missing"))
    }
}

/// A row of a result.
pub enum Row<'r> {
    /// Of SQLite.
    Sqlite(&'r rusqlite::Row<'r>),
    /// Of PostgreSQL.
    Postgres(&'r tokio_postgres::Row),
}

impl Row<'_> {
    /// The column at this place, from 0.
    pub fn get<T: Column>(&self, place: usize) -> Result<T, Error> {
        use rusqlite::types::ValueRef;
        match self {
            Self::Sqlite(row) => {
                let value = row.get_ref(place).map_err(|error| Error::sqlite("reading a column", error))?;
                T::read(match value {
                    ValueRef::Null => Cell::Null,
                    ValueRef::Integer(value) => Cell::Int(value),
                    ValueRef::Text(text) => Cell::Text(
                        std::str::from_utf8(text).map_err(|_| Error::corrupt("a row holds text that is not UTF-8"))?,
                    ),
                    ValueRef::Blob(bytes) => Cell::Bytes(bytes),
                    ValueRef::Real(_) => return Err(Error::corrupt("a row holds a fraction")),
                })
            }
            Self::Postgres(row) => T::read(row.try_get(place).map_err(|error| Error::db("reading a column", error))?),
        }
    }
}
