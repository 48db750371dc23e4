//! From a configuration to a running server, and to its end.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use blobs::Blobs;
use meta::{Action, Actor, NewEvent};
use oci::{Clock, Random};
use registry::{Registry, Settings};
use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use crate::auth::{Auth, Setup, TokenKey, TokenKeys};
use crate::bootstrap::{FirstPassword, announce, first_user};
use crate::clock::{system_clock, system_random};
use crate::config::Config;
use crate::data_dir::{DataDir, names, remove, replace};
use crate::database::Lease;
use crate::error::Error;
use crate::keys::{Kek, needs_kek, token_keys};
use crate::listen::{self, Bound, Phase, Serving, Tls, socket_path};
use crate::metrics::Metrics;
use crate::space::Space;
use crate::state::{AppState, Listener, RulesHandle};
use crate::tasks::{self, Tasks};
use crate::trouble::Trouble;
use crate::{admin, database, health, logs, main_router, sandbox};

/// After `server.drain_timeout`: for handlers to keep what they have.
const CUT_TIME: Duration = Duration::from_secs(3);
/// After the last answer: for work that outlived its request.
const LEAVE_TIME: Duration = Duration::from_secs(1);

/// Serves until SIGTERM or SIGINT, on a runtime of its own. A second signal ends it at once.
///
/// # Errors
/// Why the server did not start.
pub fn run(config: Config) -> Result<(), Error> {
    config.refuse_unsafe()?;
    // Files that are made from here on are ours alone.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    let _log =
        logs::start(&config.log, system_clock()).map_err(|source| Error::System { action: "start the log", source })?;
    raise_descriptors(config.limits.connections);
    if config.is_read_only() {
        DataDir::holds_registry(&config.data_dir)?;
    } else {
        DataDir::make(&config.data_dir)?;
    }
    // Asked while the files that tell of quotas can still be read.
    let workers = std::thread::available_parallelism().map_or(2, usize::from);
    sandbox::confine(&config)?.tell();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(workers)
        .enable_all()
        .thread_name("portcullis")
        .build()
        .map_err(|source| Error::System { action: "start the threads of the server", source })?;
    let result = runtime.block_on(serve(config));
    // What is still reading or writing a file is not waited for: whatever was acknowledged is on the disk.
    runtime.shutdown_timeout(LEAVE_TIME);
    result
}

/// Serves on the runtime.
async fn serve(config: Config) -> Result<(), Error> {
    let mut signals = Signals::new()?;
    let running = tokio::select! {
        running = Running::start(config, system_clock(), system_random()) => running?,
        // It may wait for a database that does not come.
        () = signals.next() => {
            tracing::info!(target: logs::ALWAYS, "stopped before it was ready");
            return Ok(());
        }
    };
    running.announce()?;
    let lost = tokio::select! {
        () = signals.next() => false,
        () = running.lost() => true,
    };
    tracing::info!(target: logs::ALWAYS, "stopping");
    notify(&[NotifyState::Stopping]);
    // Without the store nothing can be finished.
    let patience = if lost { Duration::ZERO } else { running.state.config.server.drain_timeout };
    running.stop_within(patience, signals.next()).await?;
    match lost {
        true => Err(Error::Served { holder: "another server, which has taken it from this one".to_owned() }),
        false => Ok(()),
    }
}

/// Takes as many file descriptors as the system gives: shells and service managers hand out few.
fn raise_descriptors(connections: u32) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    // Without leave to raise it, the limit stays as it is.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    // A connection with its file, and what database and store hold open.
    let wanted = u64::from(connections) * 2 + 256;
    if let Some(have) = getrlimit(Resource::Nofile).current
        && have < wanted
    {
        tracing::warn!(have, wanted, "the limit of open files is lower than limits.connections can need (ulimit -n)");
    }
}

/// SIGTERM and SIGINT.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    /// Caught, or a limit on the size of files would end the process instead of one request.
    _file_size: Signal,
}

impl Signals {
    fn new() -> Result<Self, Error> {
        let wrong = |source| Error::System { action: "listen to signals", source };
        Ok(Self {
            terminate: signal(SignalKind::terminate()).map_err(wrong)?,
            interrupt: signal(SignalKind::interrupt()).map_err(wrong)?,
            _file_size: signal(SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw())).map_err(wrong)?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

fn notify(state: &[NotifyState<'_>]) {
    // Without a service manager, or with one that has gone, there is nobody to tell.
    let _ = sd_notify::notify(state);
}

/// A server at work.
pub struct Running {
    data: DataDir,
    /// Whether files can be made in it.
    writable: bool,
    lease: Option<Lease>,
    state: AppState,
    first: FirstPassword,
    tasks: Tasks,
    phase: watch::Sender<Phase>,
    serving: Vec<Serving>,
    addresses: BTreeMap<&'static str, SocketAddr>,
}

impl Running {
    /// Starts a server. Checks what is unsafe before anything is made.
    ///
    /// # Errors
    /// Why it did not start; nothing listens then.
    pub async fn start(mut config: Config, clock: Clock, random: Random) -> Result<Self, Error> {
        config.refuse_unsafe()?;
        let tls = config.server.tls.as_ref().map(Tls::load).transpose()?.map(Arc::new);
        let data = open_data_dir(&config, clock.clone()).await?;
        // Before anything is written: on a full disk even a socket may not find room.
        Space::of(&config).make_room();
        // In read-only mode the directory may be one where neither a socket nor the addresses can be.
        let writable = !config.is_read_only() || data.is_writable();
        if writable {
            remove(&data.path(names::ADDRESSES))?;
        }
        let bound = bind(&config, writable.then_some(data.root()))?;
        let addresses: BTreeMap<_, _> =
            bound.iter().filter_map(|bound| Some((bound.listener().as_str(), bound.address()?))).collect();
        if let Some(main) = addresses.get(Listener::Main.as_str()) {
            config.server.listen = *main;
        }
        let (state, lease) = build(config, &data, &clock, &random).await?;
        let first = first_user(&state, &data).await?;
        let tasks = start_tasks(&state, tls.clone());
        if let Some(lease) = &lease {
            tasks.start(lease.task());
        }
        let (phase, _) = watch::channel(Phase::Run);
        let context = listen::Context {
            config: state.config.clone(),
            tls,
            metrics: state.metrics.clone(),
            random: random.clone(),
        };
        let listed = tasks.clone();
        let admin = admin::router(state.clone(), random, Arc::new(move || listed.list())).merge(health::router(&state));
        let serving = bound
            .into_iter()
            .map(|bound| {
                let router: Router = match bound.listener() {
                    Listener::Main => main_router::router(state.clone()),
                    Listener::Ops => health::router(&state),
                    Listener::Admin | Listener::Socket => admin.clone(),
                };
                listen::serve(bound, router, &context, phase.subscribe())
            })
            .collect();
        event(&state, Action::Start).await?;
        let running = Self { data, writable, lease, state, first, tasks, phase, serving, addresses };
        running.write_addresses()?;
        Ok(running)
    }

    /// Where it listens, by the listener's name.
    pub fn addresses(&self) -> &BTreeMap<&'static str, SocketAddr> {
        &self.addresses
    }

    /// What the handlers share.
    pub fn state(&self) -> &AppState {
        &self.state
    }

    /// Returns when another server has taken the store; never where none can.
    async fn lost(&self) {
        match &self.lease {
            Some(lease) => lease.lost().await,
            None => std::future::pending().await,
        }
    }

    /// Where the first password went.
    pub fn first_password(&self) -> &FirstPassword {
        &self.first
    }

    fn write_addresses(&self) -> Result<(), Error> {
        if !self.writable {
            return Ok(());
        }
        Space::of(&self.state.config).make_room();
        let addresses: BTreeMap<_, _> =
            self.addresses.iter().map(|(name, address)| (name, address.to_string())).collect();
        replace(&self.data.path(names::ADDRESSES), &serde_json::to_vec(&addresses).unwrap_or_default())
    }

    /// Says that it is ready, and at the first start how to get in.
    fn announce(&self) -> Result<(), Error> {
        announce(&self.first, &self.state)?;
        let config = &self.state.config;
        if config.server.public_urls.is_empty() && !config.server.listen.ip().is_loopback() {
            tracing::warn!(
                "server.public_urls is not set: clients that use a name instead of the address are answered 421"
            );
        }
        if config.is_read_only() {
            tracing::warn!(
                target: logs::ALWAYS,
                writable = self.writable,
                "read-only mode: pushes and changes are answered 405, nothing is collected, and the audit trail goes to this log"
            );
            if !self.writable {
                tracing::warn!(
                    "the data directory cannot be written: there is no admin.sock in it, so commands need --server URL"
                );
            }
        }
        let address =
            |listener: Listener| self.addresses.get(listener.as_str()).map_or("off".to_owned(), ToString::to_string);
        tracing::info!(
            target: logs::ALWAYS,
            main = address(Listener::Main),
            admin = address(Listener::Admin),
            ops = address(Listener::Ops),
            tls = config.server.tls.is_some(),
            mode = config.server.mode.as_str(),
            database = %config.database.url,
            data_dir = %config.data_dir.display(),
            version = env!("CARGO_PKG_VERSION"),
            "ready"
        );
        notify(&[NotifyState::Ready]);
        Ok(())
    }

    /// Stops accepting, lets requests in flight finish within `server.drain_timeout`, then lets handlers keep what they
    /// have, and closes everything. When `at_once` resolves before that, nothing is waited for any more: what was
    /// acknowledged is on the disk in any case.
    ///
    /// # Errors
    /// When the database cannot be closed.
    pub async fn stop(self, at_once: impl Future<Output = ()>) -> Result<(), Error> {
        let patience = self.state.config.server.drain_timeout;
        self.stop_within(patience, at_once).await
    }

    async fn stop_within(mut self, patience: Duration, at_once: impl Future<Output = ()>) -> Result<(), Error> {
        self.phase.send_replace(Phase::Drain);
        let drain = async {
            if tokio::time::timeout(patience, ended(&mut self.serving)).await.is_err() {
                let left: usize = self.serving.iter().map(Serving::connections).sum();
                tracing::warn!(connections = left, "the time to drain is over: ending what is left");
                self.phase.send_replace(Phase::Cut);
                // What does not end now ends with the process.
                let _ = tokio::time::timeout(CUT_TIME, ended(&mut self.serving)).await;
            }
            self.tasks.stop().await;
            self.close().await
        };
        tokio::select! {
            closed = drain => closed?,
            () = at_once => tracing::warn!("stopped at once by a second signal"),
        }
        tracing::info!(target: logs::ALWAYS, "stopped");
        Ok(())
    }

    async fn close(&self) -> Result<(), Error> {
        let db = self.state.registry.db();
        let failed = |error: meta::Error| Error::database(self.data.root(), error);
        // On a full disk they are lost, which is no reason not to close the database.
        let told = async {
            self.state.auth.journal().flush_all(db).await.map_err(failed)?;
            event(&self.state, Action::Stop).await
        };
        if let Err(error) = told.await {
            tracing::error!(error = logs::chain(&error), "the last events could not be written");
        }
        if let Some(lease) = &self.lease {
            lease.leave().await;
        }
        db.clone().close().await.map_err(failed)?;
        let space = Space::of(&self.state.config);
        if let Err(error) =
            blocking(move || space.take_all().map_err(|error| Error::operation("reserving", error))).await
        {
            tracing::warn!(%error, "no space is reserved for the next start");
        }
        if !self.writable {
            return Ok(());
        }
        remove(&self.data.path(names::ADDRESSES))?;
        remove(&socket_path(self.data.root()))
    }
}

async fn ended(serving: &mut [Serving]) {
    for listener in serving {
        listener.ended().await;
    }
}

/// Opens and locks the data directory; waits for the lock on a thread of its own.
async fn open_data_dir(config: &Config, clock: Clock) -> Result<DataDir, Error> {
    let (path, read_only) = (config.data_dir.clone(), config.is_read_only());
    blocking(move || if read_only { DataDir::open_to_read(&path, &clock) } else { DataDir::open(&path, &clock) }).await
}

/// Blocking work of the start.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(Error::operation("starting", error)),
    }
}

/// `data_dir`: where the socket is to be, if it can be anywhere.
fn bind(config: &Config, data_dir: Option<&Path>) -> Result<Vec<Bound>, Error> {
    let mut bound = vec![Bound::tcp(Listener::Main, "server.listen", config.server.listen)?];
    if let Some(address) = config.admin.listen {
        bound.push(Bound::tcp(Listener::Admin, "admin.listen", address)?);
    }
    if let Some(address) = config.ops.listen {
        bound.push(Bound::tcp(Listener::Ops, "ops.listen", address)?);
    }
    if let Some(data_dir) = data_dir {
        bound.push(Bound::unix(&socket_path(data_dir))?);
    }
    Ok(bound)
}

/// Opens database and store of a locked data directory. A database that is away is waited for at most `patience`.
pub(crate) async fn open_registry(
    config: &Config,
    data: &DataDir,
    clock: &Clock,
    random: &Random,
    patience: Duration,
) -> Result<Registry, Error> {
    let (blobs, at_root) = (data.make_dir(names::BLOBS)?, data.root().to_owned());
    let (space, reserve, timeout) = (Space::of(config), config.storage.reserve.0, config.storage.timeout);
    let store = blocking(move || {
        space.make_room();
        let store = Blobs::open_fs(&blobs).and_then(|store| store.keep_free(reserve, &at_root).map(|()| store));
        let store = store.map_err(|error| Error::operation("opening the store", error))?;
        store.set_timeout(timeout);
        Ok(store)
    })
    .await?;
    let db = database::open(config, data, clock, random, patience).await?;
    Ok(Registry::new(db, store, registry_settings(config), clock.clone(), random.clone()))
}

/// The settings of the operations.
pub fn registry_settings(config: &Config) -> Settings {
    Settings {
        sparse_images: config.content.sparse_images,
        manifest_limit: config.limits.manifest.as_usize(),
        uploads_per_subject: config.limits.uploads_per_subject,
        upload_idle: config.upload.idle,
        gc_grace: config.gc.grace,
        verify_reads: config.storage.verify_reads,
    }
}

async fn build(
    config: Config,
    data: &DataDir,
    clock: &Clock,
    random: &Random,
) -> Result<(AppState, Option<Lease>), Error> {
    let registry = open_registry(&config, data, clock, random, config.database.start_timeout).await?;
    let db = registry.db();
    let lease = if config.is_read_only() { None } else { Lease::take(db, data, random).await? };
    if !config.is_read_only() {
        // Leases of the process before this one; the lock says that it is gone.
        db.clear_leases().await.map_err(|error| Error::database(data.root(), error))?;
    }
    let may_make = !config.is_read_only() && !needs_kek(db).await?;
    let kek = Kek::open(data, config.keys.kek_file.as_deref(), may_make, random)?;
    let mut keys = token_keys(db, &kek, random).await?.into_iter().map(|key| TokenKey::new(&key.id, &key.secret));
    let Some(signing) = keys.next() else {
        let help = "restore it from a backup".to_owned();
        return Err(Error::DataDir { what: "the database holds no signing key".to_owned(), help });
    };
    let keys = TokenKeys::new(db.store_id(), signing, keys.collect());
    let rules = RulesHandle::open(db.clone()).await?;
    let metrics = Metrics::new();
    metrics.watch_writer(db.clone());
    metrics.read_only(config.is_read_only());
    let auth = Auth::new(Setup::new(&config, &registry, &rules, clock, random), keys);
    let (config, trouble) = (Arc::new(config), Trouble::default());
    Ok((AppState { registry, auth, rules, config, metrics, trouble, clock: clock.clone() }, lease))
}

fn start_tasks(state: &AppState, tls: Option<Arc<Tls>>) -> Tasks {
    let all = Tasks::new(state.clock.clone());
    let (registry, metrics, gc) = (&state.registry, &state.metrics, &state.config.gc);
    if let Ok(free) = registry.blobs().free_bytes() {
        metrics.store_free(free);
    }
    let read_only = state.config.is_read_only();
    if !read_only {
        all.start(tasks::collection(registry.clone(), gc.interval, gc.grace, metrics.clone()));
        all.start(tasks::checkpoint(registry.clone()));
        all.start(tasks::idempotency(registry.clone(), state.clock.clone()));
    }
    let space = Space::of(&state.config);
    if let Err(error) = space.take() {
        tracing::warn!(%error, "no space is reserved for a full disk");
    }
    all.start(tasks::free_space(registry.clone(), space, metrics.clone()));
    all.start(tasks::journal(state.auth.clone(), registry.clone()));
    if let Some(tls) = tls {
        all.start(tasks::certificates(tls));
    }
    all
}

async fn event(state: &AppState, action: Action) -> Result<(), Error> {
    let detail = serde_json::json!({ "version": env!("CARGO_PKG_VERSION") });
    let event = NewEvent::new(action, &Actor::system(action.as_str())).detail(detail);
    if state.config.is_read_only() {
        logs::event(&event);
        return Ok(());
    }
    let written = state.registry.db().append_events(vec![event]).await;
    written.map_err(|error| Error::database(&state.config.data_dir, error))
}
