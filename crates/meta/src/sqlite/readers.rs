//! Read-only connections, used from the blocking pool.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use oci::Clock;
use tokio::sync::Semaphore;

use super::{Access, blocking, connection, raw, raw_mut, run_now, tx_of};
use crate::db::Options;
use crate::error::Error;
use crate::tx::{Tx, TxFuture};

/// How long a request waits for a reader before it is told that the database is busy.
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) struct Readers {
    path: PathBuf,
    access: Access,
    clock: Clock,
    busy_timeout: Duration,
    timeout: Duration,
    permits: Arc<Semaphore>,
    /// Reads that nobody waits for any more and that have not ended: the disk does not answer.
    late: Arc<AtomicUsize>,
    /// The idle ones; opened when first needed, the last used is used next because its cache is warm.
    idle: Mutex<Vec<Tx>>,
    statements: Arc<AtomicU64>,
}

impl Readers {
    pub(super) fn new(
        path: &Path,
        access: Access,
        clock: Clock,
        options: &Options,
        statements: Arc<AtomicU64>,
    ) -> Self {
        Self {
            path: path.to_owned(),
            access,
            clock,
            busy_timeout: options.busy_timeout,
            timeout: options.timeout,
            permits: Arc::new(Semaphore::new(options.readers.max(1))),
            late: Arc::default(),
            idle: Mutex::new(Vec::new()),
            statements,
        }
    }

    pub(super) async fn run<T, F>(self: &Arc<Self>, work: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: for<'t> FnOnce(&'t mut Tx) -> TxFuture<'t, T> + Send + 'static,
    {
        // While the disk is silent, nobody queues for those who wait for it already.
        let patience = if self.late.load(Ordering::Relaxed) > 0 { Duration::ZERO } else { PATIENCE };
        let permit = match tokio::time::timeout(patience, self.permits.clone().acquire_owned()).await {
            Ok(Ok(permit)) => permit,
            Ok(Err(_)) => return Err(Error::db("reading", "the database was closed")),
            Err(_) => return Err(Error::Busy),
        };
        let (readers, ended) = (self.clone(), Arc::new(Ended::default()));
        let on_thread = ended.clone();
        // The permit goes with the work: a caller that goes away does not end it.
        let read = blocking(move || {
            let result = readers.run_blocking(work);
            on_thread.end(&readers.late);
            drop(permit);
            result
        });
        match tokio::time::timeout(self.timeout, read).await {
            Ok(result) => result,
            Err(_) => {
                ended.give_up(&self.late);
                Err(Error::late("reading", self.timeout))
            }
        }
    }

    fn run_blocking<T, F>(&self, work: F) -> Result<T, Error>
    where
        F: for<'t> FnOnce(&'t mut Tx) -> TxFuture<'t, T>,
    {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut tx = match idle {
            Some(tx) => tx,
            None => {
                let connection = connection::open_reader(&self.path, self.access, self.busy_timeout)?;
                tx_of(connection, self.clock.clone(), self.statements.clone())
            }
        };
        let result = snapshot(&mut tx, work);
        // A connection whose transaction could not be ended is not used again.
        if raw(&tx).connection.is_autocommit() && !self.permits.is_closed() {
            self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(tx);
        }
        result
    }

    pub(super) fn close(&self) {
        self.permits.close();
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

/// Whether a read has ended or was given up, whichever came first.
#[derive(Default)]
struct Ended(AtomicBool);

impl Ended {
    fn end(&self, late: &AtomicUsize) {
        if self.0.swap(true, Ordering::AcqRel) {
            late.fetch_sub(1, Ordering::Relaxed);
        }
    }

    fn give_up(&self, late: &AtomicUsize) {
        late.fetch_add(1, Ordering::Relaxed);
        if self.0.swap(true, Ordering::AcqRel) {
            late.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// All statements of `work` see the same state.
fn snapshot<T>(tx: &mut Tx, work: impl for<'t> FnOnce(&'t mut Tx) -> TxFuture<'t, T>) -> Result<T, Error> {
    let failed = |error| Error::sqlite("reading", error);
    raw_mut(tx).renew();
    raw(tx).control("BEGIN").map_err(failed)?;
    let result = run_now(tx, work);
    // Some errors, those of the disk among them, make SQLite end the transaction on its own.
    if !raw(tx).connection.is_autocommit() {
        let ended = raw(tx).control("ROLLBACK").map_err(failed);
        return result.and_then(|value| ended.map(|()| value));
    }
    result
}
