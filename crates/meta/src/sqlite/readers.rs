//! Read-only connections, used from the blocking pool.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use oci::Clock;
use tokio::sync::Semaphore;

use super::{Access, blocking, connection, run_now, tx_of};
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
    permits: Arc<Semaphore>,
    /// The idle ones; opened when first needed, the last used is used next because its cache is warm.
    idle: Mutex<Vec<Tx>>,
}

impl Readers {
    pub(super) fn new(path: &Path, access: Access, clock: Clock, options: &Options) -> Self {
        Self {
            path: path.to_owned(),
            access,
            clock,
            busy_timeout: options.busy_timeout,
            permits: Arc::new(Semaphore::new(options.readers.max(1))),
            idle: Mutex::new(Vec::new()),
        }
    }

    pub(super) async fn run<T, F>(self: &Arc<Self>, work: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: for<'t> FnOnce(&'t mut Tx) -> TxFuture<'t, T> + Send + 'static,
    {
        let permit = match tokio::time::timeout(PATIENCE, self.permits.clone().acquire_owned()).await {
            Ok(Ok(permit)) => permit,
            Ok(Err(_)) => return Err(Error::db("reading", "the database was closed")),
            Err(_) => return Err(Error::Busy),
        };
        let readers = self.clone();
        // The permit goes with the work: a caller that goes away does not end it.
        blocking(move || {
            let result = readers.run_blocking(work);
            drop(permit);
            result
        })
        .await
    }

    fn run_blocking<T, F>(&self, work: F) -> Result<T, Error>
    where
        F: for<'t> FnOnce(&'t mut Tx) -> TxFuture<'t, T>,
    {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut tx = match idle {
            Some(tx) => tx,
            None => tx_of(connection::open_reader(&self.path, self.access, self.busy_timeout)?, self.clock.clone()),
        };
        let result = snapshot(&mut tx, work);
        // A connection whose transaction could not be ended is not used again.
        let Tx::Sqlite(sqlite) = &tx;
        if sqlite.connection.is_autocommit() && !self.permits.is_closed() {
            self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(tx);
        }
        result
    }

    pub(super) fn close(&self) {
        self.permits.close();
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

/// All statements of `work` see the same state.
fn snapshot<T>(tx: &mut Tx, work: impl for<'t> FnOnce(&'t mut Tx) -> TxFuture<'t, T>) -> Result<T, Error> {
    let failed = |error| Error::sqlite("reading", error);
    {
        let Tx::Sqlite(sqlite) = &mut *tx;
        sqlite.renew();
        sqlite.control("BEGIN").map_err(failed)?;
    }
    let result = run_now(tx, work);
    let Tx::Sqlite(sqlite) = tx;
    sqlite.control("ROLLBACK").map_err(failed)?;
    result
}
