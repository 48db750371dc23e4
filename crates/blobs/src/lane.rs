//! The way to the disk: how many system calls may be under way, and how long somebody waits for one.
//!
//! A disk that does not answer keeps the threads that ask it. They are few, those who wait are told after a time, and
//! while it lasts nobody waits for a thread. What was begun goes on by itself when the disk answers again.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::Error;

/// Calls under way: fewer than the threads of the runtime's blocking pool, which the database and the hashing of passwords
/// need as well.
const THREADS: usize = 128;
/// How long somebody waits for a thread while the disk is only slow.
const PATIENCE: Duration = Duration::from_secs(10);
/// A disk as slow as this is waited for: bytes a second.
const SLOWEST: u64 = 1 << 20;
/// Unless it is set: how long somebody waits for a call.
const TIMEOUT: Duration = Duration::from_secs(60);

/// The way to one disk. Clones are the same.
#[derive(Clone, Debug)]
pub(crate) struct Lane(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    threads: Arc<Semaphore>,
    timeout: Mutex<Duration>,
    /// Calls that nobody waits for any more and that have not returned.
    late: AtomicUsize,
}

/// A call under way.
#[derive(Debug)]
pub(crate) struct Call<T> {
    op: &'static str,
    lane: Lane,
    timeout: Duration,
    ended: Arc<AtomicBool>,
    handle: tokio::task::JoinHandle<T>,
}

/// What a call has while it is under way.
struct OnThread {
    lane: Lane,
    ended: Arc<AtomicBool>,
    _thread: OwnedSemaphorePermit,
}

impl Drop for OnThread {
    fn drop(&mut self) {
        if self.ended.swap(true, Ordering::AcqRel) {
            self.lane.0.late.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Default for Lane {
    fn default() -> Self {
        Self(Arc::new(Inner {
            threads: Arc::new(Semaphore::new(THREADS)),
            timeout: Mutex::new(TIMEOUT),
            late: AtomicUsize::new(0),
        }))
    }
}

impl Lane {
    pub(crate) fn set_timeout(&self, timeout: Duration) {
        *self.0.timeout.lock().unwrap_or_else(PoisonError::into_inner) = timeout;
    }

    fn timeout(&self) -> Duration {
        *self.0.timeout.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does blocking work on a thread of the pool made for it.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        op: &'static str,
        work: impl FnOnce() -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        self.begin(op, 0, work).await?.wait().await?
    }

    /// Begins blocking work after which so many bytes are on the disk.
    pub(crate) async fn begin<T: Send + 'static>(
        &self,
        op: &'static str,
        bytes: u64,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<Call<T>, Error> {
        let thread = self.thread(op).await?;
        let (lane, ended) = (self.clone(), Arc::new(AtomicBool::new(false)));
        let on_thread = OnThread { lane: lane.clone(), ended: ended.clone(), _thread: thread };
        let handle = tokio::task::spawn_blocking(move || {
            let result = work();
            drop(on_thread);
            result
        });
        let timeout = self.timeout().saturating_add(Duration::from_secs(bytes / SLOWEST));
        Ok(Call { op, lane, timeout, ended, handle })
    }

    async fn thread(&self, op: &'static str) -> Result<OwnedSemaphorePermit, Error> {
        let silent = self.0.late.load(Ordering::Relaxed) > 0;
        let patience = if silent { Duration::ZERO } else { PATIENCE.min(self.timeout()) };
        match tokio::time::timeout(patience, self.0.threads.clone().acquire_owned()).await {
            Ok(thread) => thread.map_err(|_| Error::Stopped),
            Err(_) => Err(Error::Silent { op }),
        }
    }
}

impl<T> Call<T> {
    /// Waits for its end. [`Error::Silent`] when the disk does not answer in time. Safe to be cancelled and called again.
    pub(crate) async fn wait(&mut self) -> Result<T, Error> {
        if let Ok(result) = tokio::time::timeout(self.timeout, &mut self.handle).await {
            return result.map_err(|_| Error::Stopped);
        }
        let late = &self.lane.0.late;
        late.fetch_add(1, Ordering::Relaxed);
        if self.ended.swap(true, Ordering::AcqRel) {
            late.fetch_sub(1, Ordering::Relaxed);
        }
        Err(Error::Silent { op: self.op })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_silent_disk_keeps_few_threads_and_nobody() {
        let lane = Lane::default();
        lane.set_timeout(Duration::from_millis(50));
        let (release, held) = std::sync::mpsc::channel::<()>();
        let held = Arc::new(Mutex::new(held));
        let hang = || {
            let held = held.clone();
            move || {
                let _ = held.lock().unwrap_or_else(PoisonError::into_inner).recv();
                Ok::<(), Error>(())
            }
        };
        let mut calls = Vec::new();
        for _ in 0..THREADS {
            calls.push(lane.begin("read", 0, hang()).await.unwrap());
        }
        assert!(matches!(calls[0].wait().await, Err(Error::Silent { op: "read" })));
        let start = std::time::Instant::now();
        assert!(matches!(lane.run("read", || Ok(())).await, Err(Error::Silent { .. })));
        assert!(start.elapsed() < Duration::from_millis(40), "at once, since the disk is known to be silent");
        for mut call in calls.drain(1..) {
            assert!(call.wait().await.is_err());
        }
        assert_eq!(lane.0.late.load(Ordering::Relaxed), THREADS);
        drop(release);
        while lane.run("read", || Ok(7)).await.is_err() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        while lane.0.late.load(Ordering::Relaxed) > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(lane.0.threads.available_permits(), THREADS);
    }

    #[tokio::test]
    async fn a_slow_disk_is_waited_for() {
        let lane = Lane::default();
        let slow = || {
            std::thread::sleep(Duration::from_millis(20));
            Ok(1)
        };
        assert_eq!(lane.run("read", slow).await.unwrap(), 1);
        assert_eq!(lane.0.late.load(Ordering::Relaxed), 0);
        let stopped = lane.run::<()>("read", || panic!("for the test")).await;
        assert!(matches!(stopped, Err(Error::Stopped)));
        assert_eq!(lane.0.threads.available_permits(), THREADS);
    }
}
