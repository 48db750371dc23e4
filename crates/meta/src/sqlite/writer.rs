//! The writer thread: takes every waiting transaction into one commit.
//!
//! While one commit is synced, the next transactions gather in the queue; they share the next sync. Each runs in a
//! savepoint of its own, so that one that fails takes nothing with it. Session rows are committed apart and first: they
//! need no sync and should not wait for one. One thread for both kinds, because SQLite has one writer at a time anyway,
//! and a second connection would have to wait for the first by polling.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use oci::Clock;
use rusqlite::Connection;
use tokio::sync::mpsc::{self, Receiver, Sender};

use super::group::{Job, Transaction};
use super::{blocking, connection, raw, raw_mut, tx_of};
use crate::db::{MakeRoom, Options};
use crate::error::Error;
use crate::stats::{GROUP_SIZE_BOUNDS, Stats};
use crate::tx::{Tx, TxFuture};

/// How many transactions may wait; the next callers wait for a place.
const QUEUE: usize = 1024;
/// How many transactions share one commit at most, so that a group stays short.
const GROUP: usize = 256;
/// How long a caller waits for a place in the queue before it is told that the database is busy.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a transaction's commit must survive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Durability {
    /// A power cut, from the moment that the caller has its answer.
    Synced,
    /// A crash of the program; a power cut may undo it, never in part.
    Unsynced,
}

struct Waiting {
    durability: Durability,
    job: Box<dyn Job>,
}

pub(super) struct Writer {
    queue: Mutex<Option<Sender<Waiting>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    timeout: Duration,
    failed: Arc<AtomicBool>,
    /// Groups that have ended.
    progress: Arc<AtomicU64>,
    /// The progress at which a caller gave up waiting. While no group has ended since, the disk is silent.
    silent_at: AtomicU64,
    stats: Arc<Mutex<Stats>>,
}

impl Writer {
    pub(super) fn start(
        connection: Connection,
        clock: Clock,
        options: &Options,
        statements: Arc<AtomicU64>,
    ) -> Result<Self, Error> {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let stats = Arc::new(Mutex::new(Stats::default()));
        let (progress, failed) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let mut state = State {
            tx: tx_of(connection, clock, statements),
            synced: None,
            failed: failed.clone(),
            stats: stats.clone(),
            left: VecDeque::new(),
            make_room: options.make_room.clone(),
            tight: false,
            progress: progress.clone(),
        };
        let thread = std::thread::Builder::new()
            .name("meta-writer".to_owned())
            .spawn(move || state.serve(receiver))
            .map_err(|error| Error::db("starting the writer thread", error))?;
        Ok(Self {
            queue: Mutex::new(Some(sender)),
            thread: Mutex::new(Some(thread)),
            timeout: options.timeout,
            failed,
            progress,
            silent_at: AtomicU64::new(u64::MAX),
            stats,
        })
    }

    pub(super) async fn run<T, F>(&self, durability: Durability, work: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: for<'t> FnOnce(&'t mut Tx) -> TxFuture<'t, T> + Send + 'static,
    {
        let closed = || Error::db("writing", "the database was closed");
        if self.silent_at.load(Ordering::Relaxed) == self.progress.load(Ordering::Relaxed) {
            return Err(Error::unavailable("writing", "an earlier change has not been answered yet"));
        }
        let queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner).clone().ok_or_else(closed)?;
        let (job, answer) = Transaction::new(work);
        let waiting = Waiting { durability, job: Box::new(job) };
        match tokio::time::timeout(PATIENCE, queue.send(waiting)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Err(closed()),
            Err(_) => return Err(Error::Busy),
        }
        drop(queue);
        match tokio::time::timeout(self.timeout, answer).await {
            Ok(answer) => answer.map_err(|_| closed())?,
            Err(_) => {
                // The group that it is in, or waits behind, has not ended, and raises the count when it does.
                self.silent_at.store(self.progress.load(Ordering::Relaxed), Ordering::Relaxed);
                let source = Arc::new(Error::late("writing", self.timeout));
                Err(Error::Unsure { source })
            }
        }
    }

    /// Lets the thread finish what it was given, and waits for its end.
    pub(super) async fn close(&self) {
        drop(self.queue.lock().unwrap_or_else(PoisonError::into_inner).take());
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            let joined =
                blocking(move || thread.join().map_err(|_| Error::db("ending the writer thread", "it panicked")));
            if let Err(error) = joined.await {
                tracing::error!(error = %error, "the writer thread did not end as it should");
            }
        }
    }

    /// When set, no write is accepted until the program has been started again.
    pub(super) fn failed(&self) -> Arc<AtomicBool> {
        self.failed.clone()
    }

    pub(super) fn stats(&self) -> Stats {
        *self.stats.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the thread owns.
struct State {
    tx: Tx,
    /// The kind of commit that the connection is set to.
    synced: Option<Durability>,
    /// A sync failed. The kernel may have dropped pages that it could not write, so a later sync that succeeds would
    /// prove nothing: no write is accepted until the program has been started again.
    failed: Arc<AtomicBool>,
    stats: Arc<Mutex<Stats>>,
    /// Taken from the queue and not yet run.
    left: VecDeque<Waiting>,
    make_room: MakeRoom,
    /// The disk was all but full at the last commit.
    tight: bool,
    progress: Arc<AtomicU64>,
}

impl State {
    fn serve(&mut self, mut queue: Receiver<Waiting>) {
        loop {
            if self.left.is_empty() {
                match queue.blocking_recv() {
                    Some(waiting) => self.left.push_back(waiting),
                    None => return,
                }
            }
            while self.left.len() < GROUP {
                match queue.try_recv() {
                    Ok(waiting) => self.left.push_back(waiting),
                    Err(_) => break,
                }
            }
            let (unsynced, synced): (Vec<_>, Vec<_>) =
                self.left.drain(..).partition(|waiting| waiting.durability == Durability::Unsynced);
            self.group(Durability::Unsynced, unsynced);
            self.group(Durability::Synced, synced);
        }
    }

    /// Commits a group and answers its callers.
    fn group(&mut self, durability: Durability, waiting: Vec<Waiting>) {
        if waiting.is_empty() {
            return;
        }
        let mut done = Vec::with_capacity(waiting.len());
        let mut waiting = waiting.into_iter();
        let result = self.begin(durability).and_then(|before| {
            let mut kept = false;
            for Waiting { mut job, .. } in waiting.by_ref() {
                let fate = self.savepoint(job.as_mut());
                done.push(job);
                kept |= fate?;
            }
            self.end(kept, before)
        });
        match &result {
            Ok(kept) => self.count(durability, done.len(), *kept),
            Err(error) => {
                self.roll_back();
                self.lock_stats().failed_commits += 1;
                tracing::warn!(error = %error, transactions = done.len(), "a commit failed");
            }
        }
        let failure = result.err();
        let began = !done.is_empty();
        for job in done {
            job.answer(failure.as_ref());
        }
        // Those behind a member that made the engine give up have not been run; they get their own commit.
        if began {
            self.left.extend(waiting);
        } else {
            waiting.for_each(|Waiting { job, .. }| job.answer(failure.as_ref()));
        }
        self.progress.fetch_add(1, Ordering::Relaxed);
    }

    /// Begins a transaction; the number of changes so far.
    fn begin(&mut self, durability: Durability) -> Result<u64, Error> {
        if self.failed.load(Ordering::Relaxed) {
            return Err(Error::ReadOnly);
        }
        let tight = (self.make_room.0)();
        let tx = raw(&self.tx);
        let failed = |error| Error::sqlite("beginning a transaction", error);
        if self.tight != tight {
            let pages = if tight { connection::SHORT_LOG } else { connection::CHECKPOINT_AFTER };
            tx.connection.execute_batch(&format!("PRAGMA wal_autocheckpoint = {pages}")).map_err(failed)?;
            self.tight = tight;
        }
        if self.synced != Some(durability) {
            let level = match durability {
                Durability::Synced => connection::SYNCED,
                Durability::Unsynced => connection::UNSYNCED,
            };
            tx.connection.execute_batch(&format!("PRAGMA synchronous = {level}")).map_err(failed)?;
            self.synced = Some(durability);
        }
        tx.control("BEGIN IMMEDIATE").map_err(failed)?;
        Ok(tx.connection.total_changes())
    }

    /// Runs one transaction; whether it wrote something that is kept. An error is the end of the whole group.
    fn savepoint(&mut self, job: &mut dyn Job) -> Result<bool, Error> {
        let failed = |error| Error::sqlite("running a transaction", error);
        {
            let tx = raw_mut(&mut self.tx);
            tx.renew();
            tx.control("SAVEPOINT member").map_err(failed)?;
        }
        let result = job.run(&mut self.tx);
        let tx = raw(&self.tx);
        if tx.connection.is_autocommit() {
            // Some errors, a full disk among them, make SQLite roll back the whole transaction on its own.
            let unknown = || Error::db("running a transaction", "the engine rolled it back");
            return Err(result.err().unwrap_or_else(unknown));
        }
        let keep = result.is_ok() && !tx.is_abandoned();
        if !keep {
            tx.control("ROLLBACK TO member").map_err(failed)?;
        }
        tx.control("RELEASE member").map_err(failed)?;
        Ok(keep)
    }

    /// Commits, unless nothing is kept or nothing was changed since `before`; whether it did.
    fn end(&mut self, kept: bool, before: u64) -> Result<bool, Error> {
        let tx = raw(&self.tx);
        let kept = kept && tx.connection.total_changes() > before;
        let Err(error) = tx.control(if kept { "COMMIT" } else { "ROLLBACK" }) else { return Ok(kept) };
        if kept && error.sqlite_error_code() == Some(rusqlite::ffi::ErrorCode::SystemIoFailure) {
            // A write that failed is written again by the next commit. What a sync that failed has lost is not.
            if is_failed_sync(&error) {
                self.failed.store(true, Ordering::Relaxed);
                tracing::error!(error = %error, "a commit could not be synced; nothing is written until the next start");
            }
            return Err(Error::Unsure { source: Arc::new(error) });
        }
        Err(Error::sqlite("committing", error))
    }

    fn roll_back(&mut self) {
        let tx = raw(&self.tx);
        if !tx.connection.is_autocommit()
            && let Err(error) = tx.control("ROLLBACK")
        {
            self.failed.store(true, Ordering::Relaxed);
            tracing::error!(error = %error, "a transaction could not be rolled back; nothing is written until the next start");
        }
    }

    fn count(&self, durability: Durability, members: usize, kept: bool) {
        let mut stats = self.lock_stats();
        let members = members as u64;
        stats.transactions += members;
        match durability {
            _ if !kept => {}
            Durability::Unsynced => stats.unsynced_commits += 1,
            Durability::Synced => {
                stats.synced_commits += 1;
                stats.synced_transactions += members;
                let bucket = GROUP_SIZE_BOUNDS.partition_point(|bound| *bound < members);
                if let Some(count) = stats.group_sizes.get_mut(bucket) {
                    *count += 1;
                }
            }
        }
    }

    fn lock_stats(&self) -> std::sync::MutexGuard<'_, Stats> {
        self.stats.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether what was written may be lost although a later sync succeeds.
pub(super) fn is_failed_sync(error: &rusqlite::Error) -> bool {
    use rusqlite::ffi::{SQLITE_IOERR_DIR_FSYNC, SQLITE_IOERR_FSYNC};
    let code = error.sqlite_error().map(|error| error.extended_code);
    matches!(code, Some(SQLITE_IOERR_FSYNC | SQLITE_IOERR_DIR_FSYNC))
}

#[cfg(test)]
mod tests;
