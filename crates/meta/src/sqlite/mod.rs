//! The SQLite engine: one file, one writer thread, several readers.
//!
//! WAL and syncs. Every commit appends frames to the write-ahead log. A commit under `synchronous=FULL` then syncs the
//! log, and because a sync covers the whole file, it also makes every earlier commit durable, those under `NORMAL`
//! included. Recovery replays the log up to the first damaged frame, so what a power cut leaves is always a prefix of
//! the commits: a session row may be lost, but never a durable commit that came after it. A checkpoint syncs the log
//! before it copies pages and the database file after, under both settings.

mod connection;
mod group;
mod migrate;
mod readers;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use oci::{Clock, Timestamp};
use rusqlite::Connection;

use connection::Access;
pub(crate) use connection::SqliteTx;
pub(crate) use writer::Durability;

use crate::db::{Checkpoint, MakeRoom, Options};
use crate::error::Error;
use crate::stats::Stats;
use crate::tx::{Tx, TxFuture};

/// A log longer than this (in pages of 4 KiB: 64 MiB) is cut even if readers must be waited for.
const LONG_LOG: i64 = 16 * 1024;

/// An open SQLite database.
pub(crate) struct Sqlite {
    path: PathBuf,
    access: Access,
    readers: Arc<readers::Readers>,
    /// None where nothing is written.
    writer: Option<writer::Writer>,
    statements: Arc<AtomicU64>,
    make_room: MakeRoom,
}

impl Sqlite {
    /// Opens the file, creates it when it is missing, and brings its schema up to date; also the id of the store. Blocks.
    pub(crate) fn open(
        path: &Path,
        clock: &Clock,
        new_store_id: &str,
        options: &Options,
    ) -> Result<(Self, String), Error> {
        if options.read_only {
            return Self::open_to_read(path, clock, options);
        }
        connection::create_file(path)?;
        let mut writing = connection::open_writer(path, options.busy_timeout)?;
        let store_id = migrate::migrate(&mut writing, clock, new_store_id)?;
        if !options.for_copy && migrate::is_being_filled(&writing)? {
            return Err(Error::BeingFilled);
        }
        connection::sync_directory(path)?;
        let statements = Arc::new(AtomicU64::new(0));
        let sqlite = Self {
            path: path.to_owned(),
            access: Access::Shared,
            readers: Arc::new(readers::Readers::new(path, Access::Shared, clock.clone(), options, statements.clone())),
            writer: Some(writer::Writer::start(writing, clock.clone(), options, statements.clone())?),
            statements,
            make_room: options.make_room.clone(),
        };
        Ok((sqlite, store_id))
    }

    /// Opens a file that is there, with a schema that needs no migration, and changes nothing in it.
    fn open_to_read(path: &Path, clock: &Clock, options: &Options) -> Result<(Self, String), Error> {
        let access = connection::access_to_read(path)?;
        let store_id = migrate::check(&connection::open_reader(path, access, options.busy_timeout)?)?;
        let statements = Arc::new(AtomicU64::new(0));
        let readers = Arc::new(readers::Readers::new(path, access, clock.clone(), options, statements.clone()));
        let make_room = options.make_room.clone();
        Ok((Self { path: path.to_owned(), access, readers, writer: None, statements, make_room }, store_id))
    }

    /// Runs a transaction on the writer thread and returns when it is committed, durably if so asked.
    pub(crate) async fn write<T, F>(&self, durability: Durability, work: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: for<'t> FnOnce(&'t mut Tx) -> TxFuture<'t, T> + Send + 'static,
    {
        match &self.writer {
            Some(writer) => writer.run(durability, work).await,
            None => Err(Error::ReadOnly),
        }
    }

    /// Runs a read-only transaction on one snapshot.
    pub(crate) async fn read<T, F>(&self, work: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: for<'t> FnOnce(&'t mut Tx) -> TxFuture<'t, T> + Send + 'static,
    {
        self.readers.run(work).await
    }

    /// Copies the log into the database file. Writers go on meanwhile.
    pub(crate) async fn checkpoint(&self) -> Result<Checkpoint, Error> {
        let Some(writer) = &self.writer else { return Err(Error::ReadOnly) };
        let (path, failed) = (self.path.clone(), writer.failed());
        blocking(move || {
            let connection = connection::open_writer(&path, Duration::from_millis(500))?;
            let run = |mode: &str| {
                connection
                    .query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], |row| {
                        Ok(Checkpoint { log_pages: row.get(1)?, copied_pages: row.get(2)? })
                    })
                    .map_err(|error| {
                        if writer::is_failed_sync(&error) {
                            failed.store(true, Ordering::Relaxed);
                            tracing::error!(%error, "the log could not be synced; nothing is written until the next start");
                        }
                        Error::sqlite("copying the log", error)
                    })
            };
            let done = run("PASSIVE")?;
            if done.log_pages > LONG_LOG { run("RESTART") } else { Ok(done) }
        })
        .await
    }

    /// Writes a copy of one snapshot to `destination`, which must not exist. Writers go on meanwhile.
    pub(crate) async fn backup_to(&self, destination: &Path) -> Result<(), Error> {
        let (path, access, destination) = (self.path.clone(), self.access, destination.to_owned());
        blocking(move || connection::backup(&path, access, &destination)).await
    }

    /// What SQLite finds wrong with the file; empty when it is sound.
    pub(crate) async fn integrity_check(&self) -> Result<Vec<String>, Error> {
        let (path, access) = (self.path.clone(), self.access);
        let check =
            move || connection::integrity_check(&connection::open_reader(&path, access, Duration::from_secs(5))?);
        blocking(check).await
    }

    /// Ends the writer after what it has been given, and closes every connection.
    pub(crate) async fn close(&self) -> Result<(), Error> {
        // Whoever closes last copies the log and removes it, which a reader cannot. On a full disk it stays: what it takes is
        // there for the next start.
        let make_room = self.make_room.clone();
        let tight = blocking(move || Ok((make_room.0)())).await?;
        if tight && let Some(writer) = &self.writer {
            writer.close().await;
        }
        let readers = self.readers.clone();
        blocking(move || {
            readers.close();
            Ok(())
        })
        .await?;
        if let Some(writer) = &self.writer {
            writer.close().await;
        }
        Ok(())
    }

    pub(crate) fn stats(&self) -> Stats {
        let stats = self.writer.as_ref().map_or_else(Stats::default, writer::Writer::stats);
        Stats { statements: self.statements.load(Ordering::Relaxed), ..stats }
    }
}

/// Runs blocking work on the runtime's blocking pool.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Error> + Send + 'static) -> Result<T, Error> {
    tokio::task::spawn_blocking(work).await.map_err(|error| Error::db("running in the blocking pool", error))?
}

/// Runs the body of a transaction. On SQLite its future is ready at the first poll; one that is not waits for something
/// that is no statement, which would hold the writer, and is refused.
fn run_now<T>(tx: &mut Tx, work: impl for<'t> FnOnce(&'t mut Tx) -> TxFuture<'t, T>) -> Result<T, Error> {
    use futures_util::FutureExt;
    let run = std::panic::AssertUnwindSafe(|| work(tx).now_or_never());
    match std::panic::catch_unwind(run) {
        Ok(Some(result)) => result,
        Ok(None) => Err(Error::db("running a transaction", "its body waits for something else than a statement")),
        Err(_) => Err(Error::db("running a transaction", "its body panicked")),
    }
}

/// The raw connection under a transaction and its clock.
fn tx_of(connection: Connection, clock: Clock, statements: Arc<AtomicU64>) -> Tx {
    Tx::Sqlite(SqliteTx::new(connection, clock, Timestamp::default(), statements))
}

/// What is under a transaction of this engine.
fn raw(tx: &Tx) -> &SqliteTx {
    match tx {
        Tx::Sqlite(tx) => tx,
        Tx::Postgres(_) => unreachable!("the transactions of this engine are its own"),
    }
}

fn raw_mut(tx: &mut Tx) -> &mut SqliteTx {
    match tx {
        Tx::Sqlite(tx) => tx,
        Tx::Postgres(_) => unreachable!("the transactions of this engine are its own"),
    }
}
