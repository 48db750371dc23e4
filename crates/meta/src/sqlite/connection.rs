//! Connections: opening, settings, statements, and work on the file as a whole.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use oci::{Clock, Timestamp};
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, OpenFlags, ToSql};

use crate::error::Error;
use crate::tx::Row;
use crate::value::Value;

/// How a durable commit is synced. The feature `no-sync` exists to show that the power-cut test notices its absence.
pub(super) const SYNCED: &str = if cfg!(feature = "no-sync") { "OFF" } else { "FULL" };
/// How a commit of session rows is written: no sync of its own.
pub(super) const UNSYNCED: &str = if cfg!(feature = "no-sync") { "OFF" } else { "NORMAL" };

/// Pages of the log after which a commit copies it itself: 64 MiB. A task does that long before.
pub(super) const CHECKPOINT_AFTER: u32 = 16_384;
/// The same on a disk that is all but full: 256 KiB, so that the log is written over instead of growing.
pub(super) const SHORT_LOG: u32 = 64;

/// More than the number of statements there are.
const CACHED_STATEMENTS: usize = 256;

/// Creates the file for its owner only; SQLite gives the files beside it the same mode.
pub(super) fn create_file(path: &Path) -> Result<(), Error> {
    std::fs::OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path).map(drop).map_err(
        |error| match error.kind() {
            std::io::ErrorKind::ReadOnlyFilesystem => Error::ReadOnly,
            std::io::ErrorKind::StorageFull => Error::Full,
            _ => Error::db("creating the database file", error),
        },
    )
}

/// Makes the names of the database and its log durable.
pub(super) fn sync_directory(path: &Path) -> Result<(), Error> {
    if cfg!(feature = "no-sync") {
        return Ok(());
    }
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    std::fs::File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(|error| Error::db("syncing the directory of the database", error))
}

/// A connection that may write. The log is normally copied by a task; this one does it itself only beyond 64 MiB.
pub(super) fn open_writer(path: &Path, busy_timeout: Duration) -> Result<Connection, Error> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection =
        Connection::open_with_flags(path, flags).map_err(|error| Error::sqlite("opening the database", error))?;
    settle(&connection, busy_timeout)?;
    become_wal(&connection, busy_timeout)?;
    connection
        .execute_batch(&format!(
            "PRAGMA synchronous = {SYNCED}; PRAGMA wal_autocheckpoint = {CHECKPOINT_AFTER}; PRAGMA journal_size_limit = 67108864;"
        ))
        .map_err(|error| Error::sqlite("setting up the database", error))?;
    Ok(connection)
}

/// How a file is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// As others may write: with locks, and the files of the log beside it.
    Shared,
    /// As it stands, without a file beside it: nobody writes, and there is no log.
    Immutable,
}

/// How a file can be read without writing to it. SQLite keeps an index of the log beside the file; where that cannot be
/// made, only a file whose log is all copied can be read.
pub(super) fn access_to_read(path: &Path) -> Result<Access, Error> {
    std::fs::File::open(path).map_err(|error| Error::db("opening the database", error))?;
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if rustix::fs::access(directory, rustix::fs::Access::WRITE_OK).is_ok() {
        return Ok(Access::Shared);
    }
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    match std::fs::metadata(&log) {
        Ok(log) if log.len() > 0 => {
            let what = "its directory cannot be written, and its log holds changes that are not in the file: start it once \
                        where it can be written";
            Err(Error::db("opening the database to read it", what))
        }
        _ => Ok(Access::Immutable),
    }
}

/// A connection that cannot write.
pub(super) fn open_reader(path: &Path, access: Access, busy_timeout: Duration) -> Result<Connection, Error> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let opened = match access {
        Access::Shared => Connection::open_with_flags(path, flags),
        Access::Immutable => Connection::open_with_flags(immutable(path), flags | OpenFlags::SQLITE_OPEN_URI),
    };
    let connection = opened.map_err(|error| Error::sqlite("opening the database", error))?;
    settle(&connection, busy_timeout)?;
    Ok(connection)
}

/// The file as a URI that says that nobody changes it.
fn immutable(path: &Path) -> OsString {
    let mut uri = b"file:".to_vec();
    for byte in path.as_os_str().as_bytes() {
        if byte.is_ascii_alphanumeric() || b"/-_.~".contains(byte) {
            uri.push(*byte);
        } else {
            uri.extend(format!("%{byte:02X}").bytes());
        }
    }
    uri.extend(b"?immutable=1");
    OsString::from_vec(uri)
}

fn settle(connection: &Connection, busy_timeout: Duration) -> Result<(), Error> {
    connection.set_prepared_statement_cache_capacity(CACHED_STATEMENTS);
    connection
        .busy_timeout(busy_timeout)
        .and_then(|()| {
            connection.execute_batch(
                "PRAGMA foreign_keys = ON; PRAGMA temp_store = MEMORY; PRAGMA trusted_schema = OFF;
                 PRAGMA cell_size_check = ON; PRAGMA cache_size = -4096;",
            )
        })
        .map_err(|error| Error::sqlite("setting up the database", error))
}

/// The change to WAL needs the file for itself and does not wait on its own, so two starters try in turns.
fn become_wal(connection: &Connection, patience: Duration) -> Result<(), Error> {
    const PAUSE: Duration = Duration::from_millis(10);
    let mut waited = Duration::ZERO;
    loop {
        match connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get::<_, String>(0)) {
            Ok(mode) if mode.eq_ignore_ascii_case("wal") => return Ok(()),
            Ok(mode) => return Err(Error::db("setting up the database", format!("its journal mode stays {mode}"))),
            Err(error) => match Error::sqlite("setting up the database", error) {
                Error::Busy if waited < patience => {
                    std::thread::sleep(PAUSE);
                    waited += PAUSE;
                }
                other => return Err(other),
            },
        }
    }
}

/// A copy of one snapshot, made in one step so that writers cannot make it start again, then checked and synced.
pub(super) fn backup(source: &Path, access: Access, destination: &Path) -> Result<(), Error> {
    let failed = |error| Error::sqlite("copying the database", error);
    let source = open_reader(source, access, Duration::from_secs(30))?;
    let file = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(destination)
        .map_err(|error| Error::db("creating the copy of the database", error))?;
    let mut copy = Connection::open(destination).map_err(failed)?;
    copy.execute_batch("PRAGMA synchronous = OFF").map_err(failed)?;
    let backup = rusqlite::backup::Backup::new(&source, &mut copy).map_err(failed)?;
    if backup.step(-1).map_err(failed)? != rusqlite::backup::StepResult::Done {
        return Err(Error::Busy);
    }
    drop(backup);
    copy.pragma_update_and_check(None, "journal_mode", "DELETE", |_| Ok(())).map_err(failed)?;
    if let Some(problem) = integrity_check(&copy)?.into_iter().next() {
        return Err(Error::corrupt(problem));
    }
    copy.close().map_err(|(_, error)| failed(error))?;
    if !cfg!(feature = "no-sync") {
        file.sync_all().map_err(|error| Error::db("syncing the copy of the database", error))?;
    }
    sync_directory(destination)
}

pub(super) fn integrity_check(connection: &Connection) -> Result<Vec<String>, Error> {
    let check = || -> rusqlite::Result<Vec<String>> {
        let mut problems: Vec<String> = connection
            .prepare("PRAGMA integrity_check(100)")?
            .query_map([], |row| row.get(0))?
            .collect::<rusqlite::Result<_>>()?;
        problems.retain(|line| line != "ok");
        let mut dangling = connection.prepare("PRAGMA foreign_key_check")?;
        let mut rows = dangling.query([])?;
        while let Some(row) = rows.next()? {
            let (table, parent): (String, String) = (row.get(0)?, row.get(2)?);
            problems.push(format!("a row of {table} names a row of {parent} that is missing"));
        }
        Ok(problems)
    };
    match check().map_err(|error| Error::sqlite("checking the database", error)) {
        Err(Error::Corrupt { what }) => Ok(vec![what]),
        other => other,
    }
}

/// A connection with what a transaction knows beside it.
#[derive(Debug)]
pub struct SqliteTx {
    pub(super) connection: Connection,
    clock: ClockOf,
    now: Timestamp,
    abandoned: bool,
    statements: Arc<AtomicU64>,
}

struct ClockOf(Clock);

impl std::fmt::Debug for ClockOf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Clock")
    }
}

impl SqliteTx {
    pub(super) fn new(connection: Connection, clock: Clock, now: Timestamp, statements: Arc<AtomicU64>) -> Self {
        Self { connection, clock: ClockOf(clock), now, abandoned: false, statements }
    }

    /// Begins anew: reads the clock, forgets that the last one was abandoned.
    pub(super) fn renew(&mut self) {
        self.now = (self.clock.0)();
        self.abandoned = false;
    }

    pub(super) fn is_abandoned(&self) -> bool {
        self.abandoned
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.now
    }

    pub(crate) fn abandon(&mut self) {
        self.abandoned = true;
    }

    pub(crate) fn execute(&mut self, sql: &str, values: &[Value<'_>]) -> Result<u64, Error> {
        let failed = |error| Error::sqlite("changing rows", error);
        self.statements.fetch_add(1, Ordering::Relaxed);
        let mut statement = self.connection.prepare_cached(sql).map_err(failed)?;
        bind(&mut statement, sql, values)?;
        statement.raw_execute().map(|rows| rows as u64).map_err(failed)
    }

    pub(crate) fn query<T>(
        &mut self,
        sql: &str,
        values: &[Value<'_>],
        mut map: impl FnMut(&Row<'_>) -> Result<T, Error>,
    ) -> Result<Vec<T>, Error> {
        let failed = |error| Error::sqlite("reading rows", error);
        self.statements.fetch_add(1, Ordering::Relaxed);
        let mut statement = self.connection.prepare_cached(sql).map_err(failed)?;
        bind(&mut statement, sql, values)?;
        let mut rows = statement.raw_query();
        let mut found = Vec::new();
        while let Some(row) = rows.next().map_err(failed)? {
            found.push(map(&Row::Sqlite(row))?);
        }
        Ok(found)
    }

    /// Runs a statement without parameters and rows, such as `COMMIT`.
    pub(super) fn control(&self, sql: &str) -> rusqlite::Result<()> {
        self.connection.prepare_cached(sql)?.raw_execute().map(drop)
    }
}

/// SQLite numbers `$1`, `$2`… by their first use, whatever the digits say, so both must agree.
fn bind(statement: &mut rusqlite::CachedStatement<'_>, sql: &str, values: &[Value<'_>]) -> Result<(), Error> {
    #[cfg(test)]
    crate::tests::plans::saw(sql);
    if cfg!(debug_assertions) {
        let names: Vec<_> = (1..=statement.parameter_count()).map(|n| statement.parameter_name(n)).collect();
        let right = names.len() == values.len()
            && names.iter().enumerate().all(|(n, name)| *name == Some(format!("${}", n + 1).as_str()));
        if !right {
            return Err(Error::db("binding parameters", format!("{names:?} for {} values in: {sql}", values.len())));
        }
    }
    for (place, value) in values.iter().enumerate() {
        statement
            .raw_bind_parameter(place + 1, Bound(value))
            .map_err(|error| Error::sqlite("binding parameters", error))?;
    }
    Ok(())
}

struct Bound<'a>(&'a Value<'a>);

impl ToSql for Bound<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self.0 {
            Value::Null => ValueRef::Null,
            Value::Int(value) => ValueRef::Integer(*value),
            Value::Text(text) => ValueRef::Text(text.as_bytes()),
            Value::Bytes(bytes) => ValueRef::Blob(bytes),
            Value::Digest(digest) => ValueRef::Blob(digest.as_slice()),
        }))
    }
}
