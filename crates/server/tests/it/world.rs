//! The whole router in this process: a real database and a real store in a folder of its own, no sockets.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use axum::body::Body;
use axum::http::{HeaderMap, Method, Request};
use base64::Engine as _;
use bytes::Bytes;
use http_body_util::BodyExt;
use oci::{Algorithm, Hasher, Timestamp};
use serde_json::{Value, json};
use server::auth::{Auth, Setup, TokenKey, TokenKeys};
use server::config::{Config, Environment, Flags, Mode};
use server::serve::registry_settings;
use server::state::{AppState, Listener, Peer, RequestId, RulesHandle};
use testdb::{Database, Engine, engine};
use tower::ServiceExt;

/// What most requests name as their host.
pub const HOST: &str = "localhost:5000";
/// The user with the role maintainer on everything, by whom requests are made where nothing else is said.
pub const MAINTAINER: &str = "maint";

/// A server without its listeners.
pub struct World {
    pub state: AppState,
    router: axum::Router,
    now: Arc<AtomicI64>,
    folder: tempfile::TempDir,
    database: Option<Database>,
}

/// An answer, read to its end.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// A request to be made.
pub struct Call<'a> {
    world: &'a World,
    request: axum::http::request::Builder,
    body: Body,
    address: &'static str,
    authorization: Option<String>,
    host: Option<&'static str>,
}

impl World {
    /// With default settings.
    pub async fn new() -> Self {
        Self::with(&[]).await
    }

    /// With these settings, as variables of the environment name them.
    pub async fn with(settings: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut variables: BTreeMap<String, String> =
            settings.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        variables.insert("PORTCULLIS_CONFIG".to_owned(), folder.path().join("portcullis.toml").display().to_string());
        // The test's own process, which nothing confines.
        variables.entry("PORTCULLIS_SANDBOX__MODE".to_owned()).or_insert_with(|| "off".to_owned());
        std::fs::write(folder.path().join("portcullis.toml"), "").unwrap();
        let flags = Flags { data_dir: Some(folder.path().join("data")), ..Flags::default() };
        let config = server::config::load(&flags, &Environment(variables)).unwrap();
        Self::build(config, folder).await
    }

    async fn build(config: Config, folder: tempfile::TempDir) -> Self {
        let now = Arc::new(AtomicI64::new(1_800_000_000_000));
        let clock_now = now.clone();
        let clock: oci::Clock = Arc::new(move || Timestamp(clock_now.load(Ordering::Relaxed)));
        let seed = AtomicI64::new(1);
        let random: oci::Random = Arc::new(move |bytes: &mut [u8]| {
            let number = seed.fetch_add(1, Ordering::Relaxed).to_be_bytes();
            let hash = Hasher::digest(Algorithm::Sha512, &number);
            for (byte, pair) in bytes.iter_mut().zip(hash.hex().as_bytes().chunks(2)) {
                *byte = u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
            }
        });
        let database = database();
        let db = open_database(folder.path(), database.as_ref(), clock.clone(), random.clone()).await;
        std::fs::create_dir(folder.path().join("blobs")).unwrap();
        let store = blobs::Blobs::open_fs(&folder.path().join("blobs")).unwrap();
        let store_id = db.store_id().to_owned();
        let registry = registry::Registry::new(db, store, registry_settings(&config), clock.clone(), random.clone());
        let rules = RulesHandle::open(registry.db().clone()).await.unwrap();
        let setup = Setup::new(&config, &registry, &rules, &clock, &random);
        let auth = Auth::new(setup, TokenKeys::new(&store_id, TokenKey::new("k1", &[7; 32]), Vec::new()));
        let metrics = server::metrics::Metrics::new();
        let (config, trouble) = (Arc::new(config), server::trouble::Trouble::default());
        let state = AppState { registry, auth, rules, config, metrics, trouble, clock };
        let router = server::main_router::router(state.clone());
        let world = Self { state, router, now, folder, database };
        world.user(MAINTAINER).await;
        world.grant(&format!("user:{MAINTAINER}"), "maintainer", "**").await;
        world
    }

    /// Goes on in this mode (`server.mode`), as after a restart. The admin API has to be made anew.
    pub fn set_mode(&mut self, mode: Mode) {
        let mut config = Config::clone(&self.state.config);
        config.server.mode = mode;
        self.state.config = Arc::new(config);
        self.router = server::main_router::router(self.state.clone());
    }

    /// Adds a user, whose password is [`password`].
    pub async fn user(&self, name: &str) {
        let hash = self.state.auth.hash_password(&password(name)).await.unwrap();
        let user = meta::NewUser { name: name.to_owned(), administrator: false, password_hash: Some(hash) };
        self.db().create_user(user, &meta::Actor::system("test")).await.unwrap();
        self.reload().await;
    }

    /// Adds a robot that lives for an hour, and gives its secret.
    pub async fn robot(&self, namespace: &str, own: &str) -> String {
        let secret = format!("secret of {namespace}.{own}");
        let robot = meta::NewRobot {
            name: format!("{namespace}.{own}"),
            namespace: namespace.to_owned(),
            expires_at: Timestamp(self.now.load(Ordering::Relaxed) + 3_600_000),
            secret_hash: registry::accounts::hash_secret(&secret).to_string(),
        };
        self.db().create_robot(robot, &meta::Actor::system("test")).await.unwrap();
        self.reload().await;
        secret
    }

    /// Grants a role, or verbs, to `user:NAME`, `robot:NAME` or `anonymous`.
    pub async fn grant(&self, subject: &str, what: &str, pattern: &str) {
        self.grant_tags(subject, what, pattern, &[]).await;
    }

    /// As [`World::grant`], for these tags only.
    pub async fn grant_tags(&self, subject: &str, what: &str, pattern: &str, tags: &[&str]) {
        let row = match subject.split_once(':') {
            Some((_, name)) => Some(self.db().credentials(name).await.unwrap().unwrap().subject.id),
            None => None,
        };
        let role = policy::Role::parse(what).ok();
        let grant = meta::NewGrant {
            subject: row,
            role: role.map(|role| role.as_str().to_owned()),
            verbs: role.map_or_else(|| what.to_owned(), |role| role.verbs().to_string()),
            repository: pattern.to_owned(),
            tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
            expires_at: None,
            reason: None,
        };
        self.db().create_grant(grant, &meta::Actor::system("test")).await.unwrap();
        self.reload().await;
    }

    /// Takes all grants of a user away.
    pub async fn revoke(&self, user: &str) {
        let id = self.db().credentials(user).await.unwrap().unwrap().subject.id;
        self.db().remove_grants_of(Some(id), &meta::Actor::system("test")).await.unwrap();
        self.reload().await;
    }

    /// After a change of the accounts that was made in the database.
    pub async fn reload(&self) {
        self.state.rules.reload().await.unwrap();
    }

    pub fn db(&self) -> &meta::Db {
        self.state.registry.db()
    }

    /// Where its files are.
    pub fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }

    /// Collects garbage.
    pub async fn collect(&self, grace: std::time::Duration) -> registry::gc::Report {
        let by = registry::Authority::DataDirectory;
        registry::gc::run(&self.state.registry, by, grace, &|_| {}).await.unwrap()
    }

    /// The files of the blob store.
    pub fn files(&self) -> Vec<std::path::PathBuf> {
        let entries = |folder: &std::path::Path| -> Vec<_> {
            std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect()
        };
        let folders = entries(&self.folder().join("blobs"));
        folders.iter().filter(|folder| folder.is_dir()).flat_map(|folder| entries(folder)).collect()
    }

    /// Where its rows are, when they are not in the folder.
    pub fn database(&self) -> Option<&Database> {
        self.database.as_ref()
    }

    /// Lets this many seconds pass.
    pub fn pass(&self, seconds: i64) {
        self.now.fetch_add(seconds * 1000, Ordering::Relaxed);
    }

    /// The time of day in milliseconds, to be moved by a test.
    pub fn clock_handle(&self) -> Arc<AtomicI64> {
        self.now.clone()
    }

    /// A request by the maintainer.
    pub fn call(&self, method: &str, target: &str) -> Call<'_> {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        Call {
            world: self,
            request: Request::builder().method(method).uri(target),
            body: Body::empty(),
            address: "127.0.0.1:40000",
            authorization: Some(basic(MAINTAINER, &password(MAINTAINER))),
            host: Some(HOST),
        }
    }

    pub async fn get(&self, target: &str) -> Answer {
        self.call("GET", target).send().await
    }

    pub async fn head(&self, target: &str) -> Answer {
        self.call("HEAD", target).send().await
    }

    pub async fn delete(&self, target: &str) -> Answer {
        self.call("DELETE", target).send().await
    }

    pub async fn post(&self, target: &str) -> Answer {
        self.call("POST", target).send().await
    }

    pub async fn put(&self, target: &str, body: impl Into<Body>) -> Answer {
        self.call("PUT", target).body(body).send().await
    }

    pub async fn patch(&self, target: &str, body: impl Into<Body>) -> Answer {
        self.call("PATCH", target).body(body).send().await
    }

    /// Pushes a blob and gives its digest.
    pub async fn blob(&self, repository: &str, bytes: &[u8]) -> String {
        let digest = sha256(bytes);
        let target = format!("/v2/{repository}/blobs/uploads/?digest={digest}");
        let answer = self.call("POST", &target).body(bytes.to_vec()).send().await;
        assert_eq!(answer.status, 201, "{}", answer.text());
        digest
    }

    /// Pushes a manifest by this reference and gives its digest.
    pub async fn manifest(&self, repository: &str, reference: &str, manifest: &Value) -> String {
        let bytes = manifest.to_string().into_bytes();
        let digest = sha256(&bytes);
        let answer = self.put_manifest(repository, reference, manifest).await;
        assert_eq!(answer.status, 201, "{}", answer.text());
        digest
    }

    pub async fn put_manifest(&self, repository: &str, reference: &str, manifest: &Value) -> Answer {
        let media_type = manifest["mediaType"].as_str().unwrap_or(OCI_MANIFEST).to_owned();
        self.call("PUT", &format!("/v2/{repository}/manifests/{reference}"))
            .header("content-type", &media_type)
            .body(manifest.to_string())
            .send()
            .await
    }

    /// Pushes an image of one layer and gives the digests of manifest, config and layer.
    pub async fn image(&self, repository: &str, tag: &str, layer: &[u8]) -> [String; 3] {
        let config = self.blob(repository, format!("{{\"of\":\"{tag}\"}}").as_bytes()).await;
        let config_size = format!("{{\"of\":\"{tag}\"}}").len();
        let blob = self.blob(repository, layer).await;
        let manifest = image(&[(&config, config_size), (&blob, layer.len())]);
        [self.manifest(repository, tag, &manifest).await, config, blob]
    }

    /// A token of the token service for this user with these scopes.
    pub async fn token(&self, user: &str, scopes: &[&str]) -> String {
        let query: Vec<String> = scopes.iter().map(|scope| format!("scope={scope}")).collect();
        let answer = self.call("GET", &format!("/token?{}", query.join("&"))).user(user).send().await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()["token"].as_str().unwrap().to_owned()
    }

    /// A token for nobody.
    pub async fn anonymous_token(&self, scopes: &[&str]) -> String {
        let query: Vec<String> = scopes.iter().map(|scope| format!("scope={scope}")).collect();
        let answer = self.call("GET", &format!("/token?{}", query.join("&"))).nobody().send().await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()["token"].as_str().unwrap().to_owned()
    }
}

/// An empty database of the engine that the run is about; `None` on SQLite, where it is a file.
pub fn database() -> Option<Database> {
    match engine() {
        Engine::Sqlite => None,
        Engine::Postgres => Some(Database::create().unwrap()),
    }
}

async fn open_database(
    folder: &std::path::Path,
    database: Option<&Database>,
    clock: oci::Clock,
    random: oci::Random,
) -> meta::Db {
    match database {
        None => meta::Db::open_sqlite(&folder.join("meta.db"), clock, random).unwrap(),
        Some(database) => {
            let options = meta::PostgresOptions::new(meta::PostgresUrl::parse(database.url()).unwrap());
            meta::Db::open_postgres(&options, clock, random).await.unwrap()
        }
    }
}

/// Descriptors of a config and of layers.
pub fn image(parts: &[(&str, usize)]) -> Value {
    let descriptor = |media_type: &str, (digest, size): &(&str, usize)| json!({ "mediaType": media_type, "digest": digest, "size": size });
    let layers: Vec<Value> =
        parts[1..].iter().map(|part| descriptor("application/vnd.oci.image.layer.v1.tar+gzip", part)).collect();
    json!({
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": descriptor("application/vnd.oci.image.config.v1+json", &parts[0]),
        "layers": layers,
    })
}

pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
pub const NOTHING: &str = "sha256:0000000000000000000000000000000000000000000000000000000000000000";

pub fn sha256(bytes: &[u8]) -> String {
    Hasher::digest(Algorithm::Sha256, bytes).to_string()
}

pub fn sha512(bytes: &[u8]) -> String {
    Hasher::digest(Algorithm::Sha512, bytes).to_string()
}

/// The password of a user of the tests.
pub fn password(user: &str) -> String {
    format!("password of {user}")
}

pub fn basic(name: &str, secret: &str) -> String {
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("{name}:{secret}")))
}

impl Call<'_> {
    /// By this user instead.
    pub fn user(self, name: &str) -> Self {
        self.authorization(&basic(name, &password(name)))
    }

    pub fn authorization(mut self, value: &str) -> Self {
        self.authorization = Some(value.to_owned());
        self
    }

    pub fn bearer(self, token: &str) -> Self {
        self.authorization(&format!("Bearer {token}"))
    }

    /// Without credentials.
    pub fn nobody(mut self) -> Self {
        self.authorization = None;
        self
    }

    pub fn host(mut self, host: Option<&'static str>) -> Self {
        self.host = host;
        self
    }

    pub fn from(mut self, address: &'static str) -> Self {
        self.address = address;
        self
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.request = self.request.header(name, value);
        self
    }

    pub fn body(mut self, body: impl Into<Body>) -> Self {
        self.body = body.into();
        self
    }

    /// A body in these pieces, whose length is not said.
    pub fn chunked(mut self, pieces: Vec<Result<Bytes, std::io::Error>>) -> Self {
        self.body = Body::from_stream(futures_util::stream::iter(pieces));
        self
    }

    pub async fn send(self) -> Answer {
        let mut request = self.request;
        if let Some(value) = self.authorization {
            request = request.header("authorization", value);
        }
        if let Some(host) = self.host {
            request = request.header("host", host);
        }
        // What a real connection would have said.
        if let Some(length) = http_body::Body::size_hint(&self.body).exact()
            && length > 0
            && !request.headers_ref().is_some_and(|headers| headers.contains_key("content-length"))
        {
            request = request.header("content-length", length);
        }
        let mut request = request.body(self.body).unwrap();
        let peer = Peer { addr: Some(self.address.parse().unwrap()), tls: false, listener: Listener::Main };
        request.extensions_mut().insert(peer);
        request.extensions_mut().insert(RequestId("request-1".to_owned()));
        let response = self.world.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Answer { status: parts.status.as_u16(), headers: parts.headers, body }
    }
}

impl Answer {
    /// The value of a header; empty when it is not there, joined when it is there more than once.
    pub fn header(&self, name: &str) -> String {
        let values = self.headers.get_all(name).iter().map(|value| value.to_str().unwrap());
        values.collect::<Vec<_>>().join(" & ")
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap_or("(binary)")
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    /// The code of the first error of the body.
    pub fn code(&self) -> String {
        self.json()["errors"][0]["code"].as_str().unwrap_or_default().to_owned()
    }

    /// Status and code: what most tests compare.
    pub fn told(&self) -> (u16, String) {
        (self.status, self.code())
    }

    /// The whole answer as text, with what is random masked.
    pub fn show(&self) -> String {
        let mut lines: Vec<String> =
            self.headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
        lines.sort();
        let text = format!("{}\n{}\n\n{}", self.status, lines.join("\n"), self.text());
        mask(&text)
    }
}

/// Upload ids masked.
fn mask(text: &str) -> String {
    let is_id = |part: &str| {
        part.len() == 36 && part.chars().all(|c| c.is_ascii_hexdigit() || c == '-') && part.matches('-').count() == 4
    };
    let mut masked = String::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        match rest.get(..36) {
            Some(part) if is_id(part) => {
                masked.push_str("<id>");
                rest = &rest[36..];
            }
            _ => {
                masked.push(first);
                rest = &rest[first.len_utf8()..];
            }
        }
    }
    masked.trim_end().to_owned()
}
