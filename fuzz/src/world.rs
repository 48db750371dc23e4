//! The whole router in this process, with a database and a store of its own in a folder that goes with it.
//!
//! The folder is a copy of one that was made once: a store with one robot, which may do everything below `team/` and
//! nothing elsewhere.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use axum::Router;
use axum::body::Body;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderMap, Request};
use http_body_util::BodyExt;
use oci::Timestamp;
use server::auth::{Auth, Setup, TokenKey, TokenKeys};
use server::config::{Environment, Flags};
use server::serve::registry_settings;
use server::state::{AppState, Listener, Peer, RequestId, RulesHandle};
use tokio::runtime::Runtime;
use tower::ServiceExt;

/// The name of the registry.
pub const HOST: &str = "localhost:5000";
/// The robot.
pub const ROBOT: &str = "team.robot";
/// Its secret.
pub const SECRET: &str = "secret";

/// The header by which it logs in.
pub fn basic() -> String {
    format!("Basic {}", STANDARD.encode(format!("{ROBOT}:{SECRET}")))
}

/// The time at which every world begins.
const NOW: i64 = 1_800_000_000_000;

/// A server without its listeners.
pub struct World {
    runtime: Runtime,
    open: Option<Open>,
    now: Arc<AtomicI64>,
    // Last, so that everything in it is closed.
    folder: tempfile::TempDir,
}

struct Open {
    state: AppState,
    router: Router,
    admin: Router,
}

/// An answer, read to its end.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// After so many inputs a world is replaced, so that what they leave behind is never much.
const INPUTS: usize = 64;

thread_local! {
    static SHARED: RefCell<Option<(World, usize)>> = const { RefCell::new(None) };
}

impl World {
    /// Runs an input in a world that it shares with others, with a number that is its own there.
    pub fn with(run: impl FnOnce(&mut Self, usize)) {
        // Taken out meanwhile: what is left by an input that failed is dropped.
        let (mut world, number) = SHARED.take().unwrap_or_else(|| (Self::new(), 0));
        run(&mut world, number);
        if number + 1 < INPUTS {
            SHARED.set(Some((world, number + 1)));
        }
    }

    /// A new one.
    fn new() -> Self {
        static MADE: OnceLock<tempfile::TempDir> = OnceLock::new();
        let made = MADE.get_or_init(|| {
            let mut world = Self::empty();
            world.runtime.block_on(world.open.as_ref().unwrap().add_robot());
            world.close();
            world.folder
        });
        let folder = tempfile::tempdir().unwrap();
        for entry in std::fs::read_dir(made.path()).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_file() {
                std::fs::copy(entry.path(), folder.path().join(entry.file_name())).unwrap();
            }
        }
        Self::in_folder(folder)
    }

    fn empty() -> Self {
        Self::in_folder(tempfile::tempdir().unwrap())
    }

    fn in_folder(folder: tempfile::TempDir) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let now = Arc::new(AtomicI64::new(NOW));
        let open = runtime.block_on(Open::new(folder.path(), &now));
        Self { runtime, open: Some(open), now, folder }
    }

    fn close(&mut self) {
        if let Some(open) = self.open.take() {
            let db = open.state.registry.db().clone();
            drop(open);
            self.runtime.block_on(db.close()).unwrap();
        }
    }

    /// Ends the server, with or without an orderly end of its database, and starts it again.
    pub fn restart(&mut self, orderly: bool) {
        if orderly {
            self.close();
        }
        self.open = None;
        self.open = Some(self.runtime.block_on(Open::new(self.folder.path(), &self.now)));
    }

    /// Lets time pass.
    pub fn pass(&self, seconds: i64) {
        self.now.fetch_add(seconds * 1000, Ordering::Relaxed);
    }

    /// The answer of the main listener.
    pub fn ask(&self, request: Request<Body>) -> Answer {
        let open = self.open.as_ref().unwrap();
        let peer = Peer { addr: Some(([127, 0, 0, 1], 40000).into()), tls: false, listener: Listener::Main };
        self.runtime.block_on(answer(open.router.clone(), request, peer))
    }

    /// The answer of the socket of the admin API.
    pub fn ask_admin(&self, request: Request<Body>) -> Answer {
        let open = self.open.as_ref().unwrap();
        let peer = Peer { addr: None, tls: false, listener: Listener::Socket };
        self.runtime.block_on(answer(open.admin.clone(), request, peer))
    }

    /// What `fsck` finds.
    pub fn findings(&self) -> Vec<registry::fsck::Finding> {
        let registry = &self.open.as_ref().unwrap().state.registry;
        let check = registry::fsck::check(registry, registry::Authority::DataDirectory, &|_| {});
        self.runtime.block_on(check).unwrap().findings
    }
}

async fn answer(router: Router, mut request: Request<Body>, peer: Peer) -> Answer {
    request.extensions_mut().insert(peer);
    request.extensions_mut().insert(RequestId("request-1".to_owned()));
    let Ok(response) = router.oneshot(request).await;
    let (parts, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    Answer { status: parts.status.as_u16(), headers: parts.headers, body }
}

impl Open {
    async fn new(folder: &Path, now: &Arc<AtomicI64>) -> Self {
        let flags = Flags { config: None, data_dir: Some(folder.join("data")), ..Flags::default() };
        let config = server::config::load(&flags, &Environment(BTreeMap::new())).unwrap();
        let clock_now = now.clone();
        let clock: oci::Clock = Arc::new(move || Timestamp(clock_now.load(Ordering::Relaxed)));
        let random = random();
        let db = meta::Db::open_sqlite(&folder.join("meta.db"), clock.clone(), random.clone()).unwrap();
        let blobs = folder.join("blobs");
        std::fs::create_dir_all(&blobs).unwrap();
        let store = blobs::Blobs::open_fs(&blobs).unwrap();
        let store_id = db.store_id().to_owned();
        let registry = registry::Registry::new(db, store, registry_settings(&config), clock.clone(), random.clone());
        let rules = RulesHandle::open(registry.db().clone()).await.unwrap();
        // A wrong login is no reason to answer the next input differently.
        let setup = Setup {
            failed_logins: u32::MAX,
            backoff: std::time::Duration::ZERO,
            ..Setup::new(&config, &registry, &rules, &clock, &random)
        };
        let auth = Auth::new(setup, TokenKeys::new(&store_id, TokenKey::new("k1", &[7; 32]), Vec::new()));
        let metrics = server::metrics::Metrics::new();
        let (config, trouble) = (Arc::new(config), server::trouble::Trouble::default());
        let state = AppState { registry, auth, rules, config, metrics, trouble, clock };
        let router = server::main_router::router(state.clone());
        let admin = server::admin::router(state.clone(), random, Arc::new(Vec::new));
        Self { state, router, admin }
    }

    async fn add_robot(&self) {
        let (db, actor) = (self.state.registry.db(), meta::Actor::system("fuzz"));
        let robot = meta::NewRobot {
            name: ROBOT.to_owned(),
            namespace: "team".to_owned(),
            expires_at: Timestamp(NOW + 1_000_000_000_000),
            secret_hash: registry::accounts::hash_secret(SECRET).to_string(),
        };
        db.create_robot(robot, &actor).await.unwrap();
        let id = db.credentials(ROBOT).await.unwrap().unwrap().subject.id;
        let role = policy::Role::parse("maintainer").unwrap();
        let grant = meta::NewGrant {
            subject: Some(id),
            role: Some(role.as_str().to_owned()),
            verbs: role.verbs().to_string(),
            repository: "team/**".to_owned(),
            tags: Vec::new(),
            expires_at: None,
            reason: None,
        };
        db.create_grant(grant, &actor).await.unwrap();
    }
}

/// Numbers that differ, the same in each run but for their order among threads.
fn random() -> oci::Random {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    Arc::new(|bytes: &mut [u8]| {
        let number = NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes();
        let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA512, &number);
        bytes.iter_mut().zip(hash.as_ref()).for_each(|(byte, random)| *byte = *random);
    })
}

impl Answer {
    /// A header that is there at most once; empty when it is not.
    pub fn header(&self, name: &str) -> &str {
        let mut values = self.headers.get_all(name).iter();
        let first = values.next().map_or("", |value| value.to_str().unwrap());
        assert!(values.next().is_none(), "{name} comes twice");
        first
    }

    /// The body as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// The code of the first error; empty where there is none.
    pub fn code(&self) -> String {
        self.json()["errors"][0]["code"].as_str().unwrap_or_default().to_owned()
    }

    /// What holds for every answer of the main listener.
    pub fn check(&self, head: bool) {
        assert!(self.status < 500 || self.status == 503, "{self:?}");
        if head || matches!(self.status, 204 | 304) {
            assert!(self.body.is_empty(), "{self:?}");
        }
        let length = self.header("content-length");
        if !length.is_empty() && !head && self.status != 304 {
            assert_eq!(length.parse(), Ok(self.body.len()), "{self:?}");
        }
        if self.status >= 400 && !head {
            assert!(self.body.len() <= oci::MAX_ERROR_BODY && !self.code().is_empty(), "{self:?}");
            assert_eq!(self.header("content-type"), "application/json");
            assert!(!self.json()["errors"][0]["message"].as_str().unwrap_or_default().is_empty(), "{self:?}");
        }
        if self.status == 401 {
            assert!(!self.header("www-authenticate").is_empty());
        }
        assert!(!self.header("location").contains("//"), "{self:?}");
    }
}
