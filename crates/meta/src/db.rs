//! The seam: which engine keeps the rows.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use oci::{Clock, Random};

use crate::error::Error;
use crate::postgres::{Postgres, PostgresOptions};
use crate::sqlite::{Durability, Sqlite};
use crate::stats::Stats;
use crate::tx::{Tx, TxFuture};

/// The format of the schema that this program writes: the number of its newest migration.
pub const FORMAT: i64 = crate::migrations::NEWEST;

/// The oldest format that a program must know to read what this one writes.
pub const MIN_READER: i64 = 1;

/// How a database is opened.
#[derive(Clone, Debug)]
pub struct Options {
    /// How long a write waits for another process that holds the database before it fails with [`Error::Busy`].
    pub busy_timeout: Duration,
    /// How many reads run at the same time; at least 1.
    pub readers: usize,
    /// How long a caller waits for the disk before it is told that the database is not available. What was handed over goes
    /// on.
    pub timeout: Duration,
    /// Called before each commit.
    pub make_room: MakeRoom,
    /// Opens what is there and changes nothing: every write fails with [`Error::ReadOnly`], and so does opening a database
    /// whose schema is older than this program's. Where the directory cannot be written, a log that was not copied (of a
    /// program that was killed) cannot be read, and opening fails.
    pub read_only: bool,
    /// Whether a database is accepted that a copy has begun to fill and not ended: for that copy.
    pub for_copy: bool,
}

/// What makes room on the disk before a commit, if there is something to give up for it, and says whether the disk is all but
/// full: then the log is kept short. Called on the thread of the writer, so it has to be quick. Transactions are run once
/// only, so the room has to be there before they begin.
#[derive(Clone)]
pub struct MakeRoom(pub Arc<dyn Fn() -> bool + Send + Sync>);

impl Default for MakeRoom {
    fn default() -> Self {
        Self(Arc::new(|| false))
    }
}

impl std::fmt::Debug for MakeRoom {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MakeRoom")
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            busy_timeout: Duration::from_secs(5),
            readers: 8,
            timeout: Duration::from_secs(60),
            make_room: MakeRoom::default(),
            read_only: false,
            for_copy: false,
        }
    }
}

/// What a checkpoint did, in pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Pages in the log.
    pub log_pages: i64,
    /// Of these, copied into the database file by now.
    pub copied_pages: i64,
}

/// An open database. Clones share it.
///
/// Every function that changes rows is one transaction: done in full or not at all, and durable when it returns, unless
/// its documentation says *unsynced* (a power cut may undo it, never in part and never after a later durable one). A
/// caller that drops the future does not stop a change that was already handed over.
#[derive(Clone)]
pub struct Db(Arc<Inner>);

struct Inner {
    engine: Open,
    store_id: String,
    touch_after_ms: AtomicU64,
    read_only: bool,
}

/// The engines.
enum Open {
    Sqlite(Sqlite),
    Postgres(Postgres),
}

/// Which engine keeps the rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// A file, which one process has for itself.
    Sqlite,
    /// A server, which several processes may share: nothing is decided from memory.
    Postgres,
}

impl std::fmt::Debug for Db {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Db").field("store_id", &self.0.store_id).finish_non_exhaustive()
    }
}

impl Db {
    /// Opens the SQLite file, creates it when it is missing, and brings its schema up to date. Blocks: call it before
    /// the server starts, or from the blocking pool. The directory must exist; the file is made for its owner only.
    pub fn open_sqlite(path: &Path, clock: Clock, random: Random) -> Result<Self, Error> {
        Self::open_sqlite_with(path, clock, random, &Options::default())
    }

    /// [`Db::open_sqlite`] with other options.
    pub fn open_sqlite_with(path: &Path, clock: Clock, random: Random, options: &Options) -> Result<Self, Error> {
        let (sqlite, store_id) = Sqlite::open(path, &clock, &new_store_id(&random), options)?;
        Ok(Self::over(Open::Sqlite(sqlite), store_id, options.read_only))
    }

    fn over(engine: Open, store_id: String, read_only: bool) -> Self {
        Self(Arc::new(Inner { engine, store_id, touch_after_ms: AtomicU64::new(6 * 60 * 60 * 1000), read_only }))
    }

    /// Connects to a PostgreSQL database and brings its schema up to date.
    ///
    /// # Errors
    /// [`Error::Unavailable`] while it cannot be reached; [`Error::Corrupt`] when it holds tables of another program.
    pub async fn open_postgres(options: &PostgresOptions, clock: Clock, random: Random) -> Result<Self, Error> {
        let id = new_store_id(&random);
        let (postgres, store_id) = Box::pin(Postgres::open(options, clock, random, &id)).await?;
        Ok(Self::over(Open::Postgres(postgres), store_id, options.read_only))
    }

    /// Which engine keeps the rows.
    pub fn engine(&self) -> Engine {
        match &self.0.engine {
            Open::Sqlite(_) => Engine::Sqlite,
            Open::Postgres(_) => Engine::Postgres,
        }
    }

    /// The identity of the store (a UUID), the same as in the data directory, given when the database was created.
    pub fn store_id(&self) -> &str {
        &self.0.store_id
    }

    /// Whether it was opened to be read only ([`Options::read_only`]).
    pub fn is_read_only(&self) -> bool {
        self.0.read_only
    }

    /// Sets how old the last touch of a blob must be for a new reference to write another: a quarter of the grace of the
    /// collection (6 hours before this is called), so that a popular base layer is not a hot row.
    pub fn set_touch_after(&self, age: Duration) {
        self.0.touch_after_ms.store(u64::try_from(age.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    pub(crate) fn touch_after(&self) -> Duration {
        Duration::from_millis(self.0.touch_after_ms.load(Ordering::Relaxed))
    }

    /// Copies what commits have appended to the log into the database file. A task calls this every few seconds, so
    /// that no commit has to. Writers and readers go on meanwhile. Nothing to be done on PostgreSQL.
    pub async fn checkpoint(&self) -> Result<Checkpoint, Error> {
        if self.0.read_only {
            return Err(Error::ReadOnly);
        }
        match &self.0.engine {
            Open::Sqlite(sqlite) => sqlite.checkpoint().await,
            Open::Postgres(_) => Ok(Checkpoint { log_pages: 0, copied_pages: 0 }),
        }
    }

    /// Writes a copy of one state of the database to `path`, which must not exist, checks and syncs it. Writers and
    /// readers go on meanwhile. It is a file of SQLite whatever the engine is.
    pub async fn backup_to(&self, path: &Path) -> Result<(), Error> {
        match &self.0.engine {
            Open::Sqlite(sqlite) => sqlite.backup_to(path).await,
            Open::Postgres(postgres) => self.rows_to(path, postgres.clock(), postgres.random()).await,
        }
    }

    async fn rows_to(&self, path: &Path, clock: &Clock, random: &Random) -> Result<(), Error> {
        let scratch = path.with_extension("filling");
        let copied = async {
            crate::copy::to_file(self, &scratch, clock, random).await?;
            let (file, clock, random) = (scratch.clone(), clock.clone(), random.clone());
            let opened = tokio::task::spawn_blocking(move || Self::open_sqlite(&file, clock, random)).await;
            let copy = opened.map_err(|error| Error::db("opening the copy of the database", error))??;
            let written = match &copy.0.engine {
                Open::Sqlite(sqlite) => sqlite.backup_to(path).await,
                Open::Postgres(_) => Ok(()),
            };
            written.and(copy.close().await)
        };
        let copied = copied.await;
        copied.and(crate::copy::remove_file(&scratch))
    }

    /// What the engine finds wrong with its own file, at most about a hundred sentences; empty when it is sound. On PostgreSQL,
    /// whose files are its server's matter, what is wrong with indexes and constraints.
    pub async fn integrity_check(&self) -> Result<Vec<String>, Error> {
        match &self.0.engine {
            Open::Sqlite(sqlite) => sqlite.integrity_check().await,
            Open::Postgres(postgres) => postgres.integrity_check().await,
        }
    }

    /// Finishes the changes that were handed over and closes the database. Other clones get errors from now on.
    pub async fn close(self) -> Result<(), Error> {
        match &self.0.engine {
            Open::Sqlite(sqlite) => sqlite.close().await,
            Open::Postgres(postgres) => {
                postgres.close();
                Ok(())
            }
        }
    }

    /// Counts of the writer since the database was opened.
    pub fn stats(&self) -> Stats {
        match &self.0.engine {
            Open::Sqlite(sqlite) => sqlite.stats(),
            Open::Postgres(postgres) => postgres.stats(),
        }
    }

    /// Runs a transaction whose commit is durable when this returns. PostgreSQL may run the body several times, each time anew.
    pub(crate) async fn write<T, F>(&self, work: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: for<'t> FnOnce(&'t mut Tx) -> TxFuture<'t, T> + Clone + Send + 'static,
    {
        if self.0.read_only {
            return Err(Error::ReadOnly);
        }
        match &self.0.engine {
            Open::Sqlite(sqlite) => sqlite.write(Durability::Synced, work).await,
            Open::Postgres(postgres) => postgres.write(Durability::Synced, work).boxed().await,
        }
    }

    /// Runs a durable transaction about who serves the store, whoever does.
    pub(crate) async fn write_unfenced<T, F>(&self, work: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: for<'t> FnOnce(&'t mut Tx) -> TxFuture<'t, T> + Clone + Send + 'static,
    {
        match &self.0.engine {
            Open::Postgres(postgres) if !self.0.read_only => postgres.write_unfenced(work).boxed().await,
            _ => self.write(work).await,
        }
    }

    /// From now on no change is committed but while this session holds the store: others fail with [`Error::Unavailable`]. A file
    /// of SQLite has one server in any case.
    pub fn fence(&self, session: &str) {
        if let Open::Postgres(postgres) = &self.0.engine {
            postgres.fence(session);
        }
    }

    /// Runs a transaction that a power cut may undo.
    pub(crate) async fn write_unsynced<T, F>(&self, work: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: for<'t> FnOnce(&'t mut Tx) -> TxFuture<'t, T> + Clone + Send + 'static,
    {
        if self.0.read_only {
            return Err(Error::ReadOnly);
        }
        match &self.0.engine {
            Open::Sqlite(sqlite) => sqlite.write(Durability::Unsynced, work).await,
            Open::Postgres(postgres) => postgres.write(Durability::Unsynced, work).boxed().await,
        }
    }

    /// Runs a transaction that only reads; all its statements see the same state.
    pub(crate) async fn read<T, F>(&self, work: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: for<'t> FnOnce(&'t mut Tx) -> TxFuture<'t, T> + Clone + Send + 'static,
    {
        match &self.0.engine {
            Open::Sqlite(sqlite) => sqlite.read(work).await,
            Open::Postgres(postgres) => postgres.read(work).boxed().await,
        }
    }

    /// Runs one statement that reads. A second one fails on PostgreSQL, where this is one exchange with the server.
    pub(crate) async fn read_single<T, F>(&self, work: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: for<'t> FnOnce(&'t mut Tx) -> TxFuture<'t, T> + Clone + Send + 'static,
    {
        match &self.0.engine {
            Open::Sqlite(sqlite) => sqlite.read(work).await,
            Open::Postgres(postgres) => postgres.read_single(work).boxed().await,
        }
    }
}

/// A random UUID (RFC 9562, version 4).
fn new_store_id(random: &Random) -> String {
    let mut bytes = [0; 16];
    random(&mut bytes);
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}
