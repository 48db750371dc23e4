//! Workers that push, move and delete until they are told to stop, and wait while there is no server.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, bail, ensure};
use testkit::client::Login;
use testkit::{Client, Rng, Server};

use super::model::Repository;
use super::worker::Worker;

/// How a server goes away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Its process ends: what it wrote is there, upload sessions included, and no request is answered with an error.
    Kill,
    /// Its disk stops: only what was synced is there, and requests in flight may be answered with an error.
    PowerCut,
    /// Its database goes away and comes back while the server runs: requests in flight are answered 503 with a time to come
    /// back, and sessions go on, but those of the last moments, whose rows are not synced.
    Database,
}

/// What the workers did.
#[derive(Debug, Default)]
pub struct Totals {
    /// Requests that were acknowledged.
    pub acknowledged: AtomicU64,
    /// Requests that ended with the connection.
    pub cut: AtomicU64,
    /// Uploads that went on after a restart.
    pub resumed: AtomicU64,
}

/// What workers and their master share.
pub(super) struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    in_flight: AtomicUsize,
    doomed: AtomicBool,
    /// What the workers did.
    pub totals: Totals,
    /// How the server goes away.
    pub end: End,
}

#[derive(Default)]
struct State {
    /// Where the server is; `None` while there is none.
    address: Option<SocketAddr>,
    /// Goes up each time that the workers are let loose.
    round: u64,
    waiting: usize,
    stop: bool,
    trouble: Option<String>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a round after this one; its number and the server's address, `None` at the end.
    fn next_round(&self, after: u64) -> Option<(u64, SocketAddr)> {
        let mut state = self.lock();
        state.waiting += 1;
        self.changed.notify_all();
        loop {
            match state.address {
                _ if state.stop || state.trouble.is_some() => return None,
                Some(address) if state.round > after => {
                    state.waiting -= 1;
                    return Some((state.round, address));
                }
                _ => state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }

    /// Sends a request while the master may count it.
    pub fn flying<T>(&self, request: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        self.in_flight.fetch_add(1, Ordering::SeqCst);
        let result = request();
        self.in_flight.fetch_sub(1, Ordering::SeqCst);
        let result = match self.doomed.load(Ordering::SeqCst) {
            true => Err(io::Error::other("answered while the power failed")),
            false => result,
        };
        let count = if result.is_ok() { &self.totals.acknowledged } else { &self.totals.cut };
        count.fetch_add(1, Ordering::Relaxed);
        result
    }

    fn fail(&self, trouble: String) {
        let mut state = self.lock();
        state.trouble.get_or_insert(trouble);
        self.changed.notify_all();
    }
}

/// A number of workers on one server.
pub struct Traffic {
    shared: Arc<Shared>,
    repositories: Vec<Arc<Mutex<Repository>>>,
    threads: Vec<JoinHandle<()>>,
    looker: Client,
}

impl Traffic {
    /// Workers for this server, which wait for [`Traffic::resume`]. The user `crash` is made, who may do everything.
    pub fn new(server: &Server, rng: &mut Rng, workers: usize, end: End) -> Result<Self> {
        server.add_user("crash", "a long password")?;
        server.grant("user:crash", "maintainer", "crash/**")?;
        let login = Login::Bearer("crash".to_owned(), "a long password".to_owned());
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            changed: Condvar::new(),
            in_flight: AtomicUsize::new(0),
            doomed: AtomicBool::new(false),
            totals: Totals::default(),
            end,
        });
        // The same contents come up in every repository.
        let pool: Arc<Vec<Arc<Vec<u8>>>> = Arc::new((0..16).map(|_| Arc::new(new_content(rng))).collect());
        let mut repositories = Vec::new();
        let mut threads = Vec::new();
        for number in 0..workers {
            let repository = Arc::new(Mutex::new(Repository::new(format!("crash/w{number}"))));
            repositories.push(Arc::clone(&repository));
            let mut worker = Worker::new(server.client(login.clone()), rng.fork(), Arc::clone(&pool), workers);
            let shared = Arc::clone(&shared);
            threads.push(std::thread::spawn(move || {
                let mut round = 0;
                while let Some((next, address)) = shared.next_round(round) {
                    round = next;
                    worker.client.move_to(address);
                    let mut repository = repository.lock().unwrap_or_else(PoisonError::into_inner);
                    if let Err(trouble) = worker.work(&shared, &mut repository) {
                        return shared.fail(format!("{}: {trouble:#}", repository.name));
                    }
                }
            }));
        }
        Ok(Self { shared, repositories, threads, looker: server.client(login) })
    }

    /// Lets the workers loose on the server.
    pub fn resume(&self, server: &Server) {
        let mut state = self.shared.lock();
        state.address = Some(server.address());
        state.round += 1;
        self.shared.doomed.store(false, Ordering::SeqCst);
        self.shared.changed.notify_all();
    }

    /// Waits until a request is in flight; whether one came within a second.
    pub fn wait_for_flight(&self) -> bool {
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(1) {
            if self.shared.in_flight.load(Ordering::SeqCst) > 0 {
                return true;
            }
            std::hint::spin_loop();
        }
        false
    }

    /// From now on an answer promises nothing: the power is about to fail. A kernel whose file system is shut down goes
    /// on running, which no machine without power does, and a sync that is caught in the middle may return as if it had
    /// succeeded (XFS unpins an inode whose log it has just dropped, and then finds nothing left to force).
    pub fn doom(&self) {
        self.shared.doomed.store(true, Ordering::SeqCst);
    }

    /// Waits until all workers have noticed that the server is gone.
    pub fn settle(&self) -> Result<()> {
        let start = Instant::now();
        let mut state = self.shared.lock();
        state.address = None;
        while state.waiting < self.threads.len() {
            if let Some(trouble) = &state.trouble {
                bail!("{trouble}");
            }
            ensure!(start.elapsed() < Duration::from_secs(90), "a worker does not notice that the server is gone");
            let (next, _) = self
                .shared
                .changed
                .wait_timeout(state, Duration::from_millis(100))
                .map_err(|_| anyhow!("a worker panicked"))?;
            state = next;
        }
        match &state.trouble {
            Some(trouble) => bail!("{trouble}"),
            None => Ok(()),
        }
    }

    /// Compares every repository with the server, while the workers wait.
    pub fn look(&mut self, server: &Server, kept: Duration) -> Result<()> {
        self.looker.move_to(server.address());
        for repository in &self.repositories {
            let mut repository = repository.lock().map_err(|_| anyhow!("a worker panicked"))?;
            repository.look(&mut self.looker, kept)?;
        }
        Ok(())
    }

    /// What the workers did so far.
    pub fn totals(&self) -> &Totals {
        &self.shared.totals
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.shared.lock().stop = true;
        self.shared.changed.notify_all();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// Half of the contents are small enough to live in the database, the rest become files.
pub(super) fn new_content(rng: &mut Rng) -> Vec<u8> {
    let length = if rng.chance(50) { rng.below(16 << 10) } else { rng.below(600 << 10) };
    rng.bytes(usize::try_from(length).unwrap_or(0) + 1)
}
