//! A transaction, and the only way to run a statement.

use std::future::Future;
use std::pin::Pin;

use oci::Timestamp;

use crate::error::Error;
use crate::sqlite::SqliteTx;
use crate::value::{Cell, Column, Value};

/// What a transaction's body returns: a future that borrows the transaction.
pub type TxFuture<'t, T> = Pin<Box<dyn Future<Output = Result<T, Error>> + Send + 't>>;

/// A transaction of one of the engines.
///
/// Statements are written once for all engines: standard SQL with `$1`, `$2`… numbered in the order of their first use,
/// flags as 0 and 1, conditions in the select list inside `CASE`. Two texts only where engines must differ. On SQLite a
/// statement finishes before its future returns, so the body of a transaction never waits there.
#[derive(Debug)]
pub enum Tx {
    /// SQLite: the connection of the writer, or of a reader.
    Sqlite(SqliteTx),
}

impl Tx {
    /// The database's time, the same throughout the transaction.
    pub fn now(&self) -> Timestamp {
        match self {
            Self::Sqlite(tx) => tx.now(),
        }
    }

    /// Undoes everything that the transaction wrote when its body returns, although it returns a value: for outcomes
    /// such as a refused tag, which are no errors.
    pub fn abandon(&mut self) {
        match self {
            Self::Sqlite(tx) => tx.abandon(),
        }
    }

    /// Runs a statement; the number of rows that it changed.
    pub async fn execute(&mut self, sql: &str, values: &[Value<'_>]) -> Result<u64, Error> {
        match self {
            Self::Sqlite(tx) => tx.execute(sql, values),
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
        }
    }
}
