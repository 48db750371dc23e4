//! Brings the schema of a SQLite file up to date.

use oci::Clock;
use rusqlite::{Connection, TransactionBehavior, params};

use crate::error::Error;
use crate::migrations::{MIGRATIONS, Migration, checksum_of};

/// Says that a SQLite file is ours (`PRAGMA application_id`): "PCUL" in ASCII.
const APPLICATION_ID: i64 = 0x5043_554c;

/// Brings the schema up to date, all or nothing. A second starter waits for the first and then finds nothing to do.
///
/// Returns the id of the store: `new_store_id` when the database is new.
pub(super) fn migrate(connection: &mut Connection, clock: &Clock, new_store_id: &str) -> Result<String, Error> {
    migrate_with(connection, clock, new_store_id, MIGRATIONS)
}

fn migrate_with(
    connection: &mut Connection,
    clock: &Clock,
    new_store_id: &str,
    migrations: &[Migration],
) -> Result<String, Error> {
    let failed = |error| Error::sqlite("bringing the schema up to date", error);
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
    check_owner(&transaction)?;
    let applied = applied(&transaction)?;
    crate::migrations::check(&applied, migrations)?;
    let now = clock().0;
    for migration in migrations.iter().skip(applied.len()) {
        transaction.execute_batch(&translate(migration.sql)).map_err(failed)?;
        transaction
            .execute(
                "INSERT INTO schema_migration (number, name, checksum, applied_at) VALUES ($1, $2, $3, $4)",
                params![migration.number, migration.name, checksum_of(migration), now],
            )
            .map_err(failed)?;
        if migration.number == 1 {
            transaction
                .execute(
                    "INSERT INTO store (id, store_id, policy_epoch, created_at) VALUES (1, $1, 1, $2)",
                    params![new_store_id, now],
                )
                .map_err(failed)?;
        }
    }
    let store_id = transaction.query_row("SELECT store_id FROM store", [], |row| row.get(0)).map_err(failed)?;
    transaction.commit().map_err(failed)?;
    Ok(store_id)
}

/// The id of the store in a file whose schema is this program's; changes nothing.
pub(super) fn check(connection: &Connection) -> Result<String, Error> {
    let failed = |error| Error::sqlite("reading the schema", error);
    let id: i64 = connection.pragma_query_value(None, "application_id", |row| row.get(0)).map_err(failed)?;
    if id != APPLICATION_ID {
        return Err(Error::corrupt("the file is a database of another program, or empty"));
    }
    let applied = applied(connection)?;
    crate::migrations::check(&applied, MIGRATIONS)?;
    if applied.len() < MIGRATIONS.len() {
        let what =
            "its schema is older than this program: start it once in mode read-write, which brings it up to date";
        return Err(Error::db("opening the database to read it", what));
    }
    connection.query_row("SELECT store_id FROM store", [], |row| row.get(0)).map_err(failed)
}

/// Whether a copy from another database has begun to fill this one and not ended.
pub(super) fn is_being_filled(connection: &Connection) -> Result<bool, Error> {
    connection
        .query_row("SELECT filled_from IS NOT NULL FROM store", [], |row| row.get(0))
        .map_err(|error| Error::sqlite("reading the schema", error))
}

/// Refuses a file that another program made, before anything is written to it.
fn check_owner(connection: &Connection) -> Result<(), Error> {
    let failed = |error| Error::sqlite("reading the schema", error);
    let id: i64 = connection.pragma_query_value(None, "application_id", |row| row.get(0)).map_err(failed)?;
    if id == APPLICATION_ID {
        return Ok(());
    }
    let tables: i64 =
        connection.query_row("SELECT COUNT(*) FROM sqlite_schema", [], |row| row.get(0)).map_err(failed)?;
    if id != 0 || tables != 0 {
        return Err(Error::corrupt("the file is a database of another program"));
    }
    connection
        .execute_batch(&format!(
            "PRAGMA application_id = {APPLICATION_ID};
             CREATE TABLE schema_migration (
                 number INTEGER PRIMARY KEY,
                 name TEXT NOT NULL,
                 checksum TEXT NOT NULL,
                 applied_at INTEGER NOT NULL
             ) STRICT;"
        ))
        .map_err(failed)
}

fn applied(connection: &Connection) -> Result<Vec<(i64, String, String)>, Error> {
    let read = || -> rusqlite::Result<Vec<(i64, String, String)>> {
        connection
            .prepare("SELECT number, name, checksum FROM schema_migration ORDER BY number")?
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
            .collect::<rusqlite::Result<_>>()
    };
    read().map_err(|error| Error::sqlite("reading the schema", error))
}

/// The words that SQLite spells otherwise. AUTOINCREMENT, because an id must not come back after its row is gone.
fn translate(sql: &str) -> String {
    sql.replace("BIGINT GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY", "INTEGER PRIMARY KEY AUTOINCREMENT")
        .replace("BIGINT", "INTEGER")
        .replace("BYTEA", "BLOB")
        .replace(" COLLATE \"C\"", "")
        .replace("\n); -- keyed", "\n) STRICT, WITHOUT ROWID;")
        .replace("\n);", "\n) STRICT;")
}

#[cfg(test)]
mod tests;
