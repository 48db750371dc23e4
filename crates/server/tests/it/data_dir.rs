//! A server in this process and its data directory: the first start, the next ones, and the offline commands.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use base64::Engine as _;
use server::bootstrap::FirstPassword;
use server::clock::{system_clock, system_random};
use server::config::{Config, Environment, Flags};
use server::serve::Running;
use server::{Error, offline};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// A folder for a data directory, and its database where that is not a file in it.
struct Place(tempfile::TempDir, Option<testdb::Database>);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap(), crate::world::database())
    }

    fn data(&self) -> PathBuf {
        self.0.path().join("data")
    }

    fn config(&self, settings: &[(&str, &str)]) -> Config {
        let fixed = [("PORTCULLIS_ADMIN__LISTEN", "127.0.0.1:0"), ("PORTCULLIS_OPS__LISTEN", "127.0.0.1:0")];
        let url = self.1.as_ref().map(|database| ("PORTCULLIS_DATABASE__URL", database.url()));
        let variables: BTreeMap<_, _> = fixed
            .iter()
            .chain(&url)
            .chain(settings)
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        let flags = Flags { data_dir: Some(self.data()), listen: Some("127.0.0.1:0".to_owned()), ..Flags::default() };
        server::config::load(&flags, &Environment(variables)).unwrap()
    }

    async fn start_with(&self, settings: &[(&str, &str)]) -> Result<Running, Error> {
        Running::start(self.config(settings), system_clock(), system_random()).await
    }

    async fn start(&self) -> Running {
        self.start_with(&[]).await.unwrap()
    }
}

async fn stop(running: Running) {
    running.stop(std::future::pending()).await.unwrap();
}

/// The status of a request to the listener of this name.
async fn status(running: &Running, listener: &str, path: &str, login: Option<(&str, &str)>) -> u16 {
    answer(running, listener, path, login).await.split(' ').nth(1).unwrap().parse().unwrap()
}

async fn answer(running: &Running, listener: &str, path: &str, login: Option<(&str, &str)>) -> String {
    let address = running.addresses()[listener];
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let mut head = format!("GET {path} HTTP/1.1\r\nHost: localhost:{}\r\nConnection: close\r\n", address.port());
    if let Some((name, password)) = login {
        let pair = base64::engine::general_purpose::STANDARD.encode(format!("{name}:{password}"));
        head.push_str(&format!("Authorization: Basic {pair}\r\n"));
    }
    stream.write_all(format!("{head}\r\n").as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

// security: A-02
#[tokio::test]
async fn the_first_start_makes_everything_and_the_next_one_keeps_it() {
    let place = Place::new();
    let running = place.start().await;
    let FirstPassword::Generated { password, file } = running.first_password().clone() else {
        panic!("{:?}", running.first_password());
    };
    assert_eq!(file, place.data().join("initial-password"));
    assert_eq!(fs::read_to_string(&file).unwrap(), format!("{password}\n"));
    let database = place.1.is_none().then_some("meta.db");
    for name in ["format.json", "keys/kek", "initial-password", "addresses.json", "admin.sock", "portcullis.lock"]
        .into_iter()
        .chain(database)
    {
        assert_eq!(mode(&place.data().join(name)) & 0o077, 0, "{name}");
    }
    let addresses: BTreeMap<String, String> =
        serde_json::from_str(&fs::read_to_string(place.data().join("addresses.json")).unwrap()).unwrap();
    assert_eq!(addresses["main"], running.addresses()["main"].to_string());
    assert_eq!(addresses.keys().collect::<Vec<_>>(), ["admin", "main", "ops"]);
    let format: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(place.data().join("format.json")).unwrap()).unwrap();
    assert_eq!((&format["format"], &format["min_reader"]), (&meta::FORMAT.into(), &meta::MIN_READER.into()));
    assert_eq!(status(&running, "main", "/v2/", Some(("admin", &password))).await, 200);
    assert_eq!(status(&running, "main", "/v2/", Some(("admin", "wrong"))).await, 401);
    stop(running).await;
    assert!(!place.data().join("addresses.json").exists() && !place.data().join("admin.sock").exists());
    let kek = fs::read(place.data().join("keys/kek")).unwrap();
    let running = place.start().await;
    assert_eq!(running.first_password(), &FirstPassword::None);
    assert_eq!(status(&running, "main", "/v2/", Some(("admin", &password))).await, 200);
    assert_eq!(fs::read(place.data().join("keys/kek")).unwrap(), kek);
    stop(running).await;
}

#[tokio::test]
async fn health_is_where_it_belongs_and_nowhere_else() {
    let place = Place::new();
    let running = place.start().await;
    for (listener, path, expected) in [
        ("main", "/healthz", 200),
        ("main", "/readyz", 404),
        ("main", "/metrics", 404),
        ("main", "/api/v1/users", 404),
        ("ops", "/healthz", 200),
        ("ops", "/readyz", 200),
        ("ops", "/metrics", 200),
        ("ops", "/v2/", 404),
        ("ops", "/api/v1/users", 404),
        ("admin", "/healthz", 200),
        ("admin", "/readyz", 200),
        ("admin", "/metrics", 200),
        ("admin", "/v2/", 404),
        ("admin", "/api/v1/users", 401),
    ] {
        assert_eq!(status(&running, listener, path, None).await, expected, "{listener} {path}");
    }
    let ready = answer(&running, "ops", "/readyz", None).await;
    assert!(ready.ends_with(r#"{"ready":true,"checks":{"database":"ok","store":"ok"}}"#), "{ready}");
    let metrics = answer(&running, "ops", "/metrics", None).await;
    for name in [
        "portcullis_http_requests_total{route=",
        "portcullis_http_requests_total{route=\"admin\",method=\"GET\",code=\"401\"} 1",
        "portcullis_http_requests_total{route=\"healthz\",method=\"GET\",code=\"200\"} 3",
        "portcullis_http_request_seconds_bucket{",
        "portcullis_uploads_active 0",
        "portcullis_store_free_bytes ",
        "portcullis_gc_deleted_bytes_total 0",
        "portcullis_writer_group_size_bucket{le=\"1.0\"}",
        "portcullis_writer_group_size_bucket{le=\"+Inf\"}",
    ] {
        assert!(metrics.contains(&format!("\n{name}")), "{name}\n{metrics}");
    }
    // The store is gone: told at once, and not to everybody.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    fs::rename(place.data().join("blobs"), place.data().join("away")).unwrap();
    let ready = answer(&running, "ops", "/readyz", None).await;
    assert!(ready.starts_with("HTTP/1.1 503 ") && ready.contains(r#""store":"unavailable""#), "{ready}");
    fs::rename(place.data().join("away"), place.data().join("blobs")).unwrap();
    stop(running).await;
}

#[tokio::test]
async fn a_given_password_is_used_once_and_an_empty_one_is_refused() {
    let place = Place::new();
    let file = place.0.path().join("password");
    let setting = [("PORTCULLIS_BOOTSTRAP__PASSWORD_FILE", file.to_str().unwrap())];
    fs::write(&file, "\n").unwrap();
    assert_eq!(place.start_with(&setting).await.err().unwrap().exit_code(), 6);
    fs::write(&file, "correct horse\n").unwrap();
    let running = place.start_with(&setting).await.unwrap();
    assert_eq!(running.first_password(), &FirstPassword::Given);
    assert!(!place.data().join("initial-password").exists());
    assert_eq!(status(&running, "main", "/v2/", Some(("admin", "correct horse"))).await, 200);
    stop(running).await;
    fs::remove_file(&file).unwrap();
    stop(place.start_with(&setting).await.unwrap()).await;
}

// security: P-06
#[tokio::test]
async fn p06_two_servers_do_not_share_a_directory() {
    let place = Place::new();
    let first = place.start().await;
    let began = Instant::now();
    let error = place.start_with(&[]).await.err().unwrap();
    assert_eq!((error.exit_code(), error.code()), (7, "data_dir_locked"));
    assert!(error.to_string().contains(&format!("process {}", std::process::id())), "{error}");
    assert!(began.elapsed() < Duration::from_secs(5));
    let offline = offline::fsck(&place.config(&[]), false, &|_| {}).await.unwrap_err();
    assert_eq!(offline.exit_code(), 7);
    assert_eq!(status(&first, "main", "/healthz", None).await, 200);
    stop(first).await;
}

// security: A-02
#[tokio::test]
async fn a02_m06_what_is_unsafe_is_refused_before_anything_is_made() {
    let place = Place::new();
    for setting in [("PORTCULLIS_ADMIN__LISTEN", "0.0.0.0:0"), ("PORTCULLIS_OPS__LISTEN", "[::]:0")] {
        let error = place.start_with(&[setting]).await.err().unwrap();
        assert_eq!(error.exit_code(), 6, "{error}");
        assert!(!place.data().exists());
    }
    stop(place.start().await).await;
    let database = place.1.is_none().then_some(("meta.db", 0o640));
    for (name, bad) in [("", 0o755), ("keys/kek", 0o644), ("keys", 0o755), ("blobs", 0o711)].into_iter().chain(database)
    {
        let path = place.data().join(name);
        let good = mode(&path);
        fs::set_permissions(&path, fs::Permissions::from_mode(bad)).unwrap();
        let error = place.start_with(&[]).await.err().unwrap();
        assert_eq!(error.exit_code(), 6, "{name}: {error}");
        assert!(error.help().unwrap().starts_with("chmod "), "{name}");
        fs::set_permissions(&path, fs::Permissions::from_mode(good)).unwrap();
    }
    stop(place.start().await).await;
}

#[tokio::test]
async fn the_key_that_opens_the_others_is_not_made_anew() {
    let place = Place::new();
    stop(place.start().await).await;
    fs::remove_file(place.data().join("keys/kek")).unwrap();
    let error = place.start_with(&[]).await.err().unwrap();
    assert!(error.to_string().contains("kek is missing"), "{error}");
    assert!(!place.data().join("keys/kek").exists());
}

#[tokio::test]
async fn fsck_offline_reports_what_does_not_belong_there() {
    let place = Place::new();
    let nothing = offline::fsck(&place.config(&[]), false, &|_| {}).await.unwrap_err();
    assert_eq!(nothing.code(), "data_dir_damaged");
    assert!(!place.data().exists(), "looking makes nothing");
    stop(place.start().await).await;
    let clean = offline::fsck(&place.config(&[]), false, &|_| {}).await.unwrap();
    assert!(clean.findings.is_empty(), "{:?}", clean.findings);
    fs::write(place.data().join("notes.txt"), "").unwrap();
    let noted = offline::fsck(&place.config(&[]), false, &|_| {}).await.unwrap();
    assert_eq!(noted.findings.len(), 1);
    assert!(noted.findings[0].message.contains("notes.txt") && noted.findings[0].severity == api::Severity::Note);
}

#[tokio::test]
async fn a_restored_backup_starts_with_a_new_key_and_the_old_accounts() {
    let place = Place::new();
    let file = place.0.path().join("password");
    fs::write(&file, "correct horse").unwrap();
    let setting = [("PORTCULLIS_BOOTSTRAP__PASSWORD_FILE", file.to_str().unwrap())];
    let running = place.start_with(&setting).await.unwrap();
    let backup = place.0.path().join("backup");
    let registry = running.state().registry.clone();
    let by = registry::Authority::DataDirectory;
    registry::backup::create(&registry, by, &place.data(), &backup, &|_| {}).await.unwrap();
    stop(running).await;
    let other = Place::new();
    let report = offline::restore(&other.config(&[]), &backup, &|_| {}).await.unwrap();
    assert!(report.verified && report.findings.is_empty());
    assert_eq!(mode(&other.data()), 0o700);
    let running = other.start().await;
    assert_eq!(running.first_password(), &FirstPassword::None);
    assert_eq!(status(&running, "main", "/v2/", Some(("admin", "correct horse"))).await, 200);
    stop(running).await;
    let again = offline::restore(&other.config(&[]), &backup, &|_| {}).await.unwrap_err();
    assert_eq!(again.exit_code(), 1, "not over something that is there: {again}");
}

#[tokio::test]
async fn n10_what_does_not_finish_in_time_is_ended_and_the_server_stops_in_order() {
    let place = Place::new();
    let running = place.start_with(&[("PORTCULLIS_SERVER__DRAIN_TIMEOUT", "300ms")]).await.unwrap();
    let mut clients = Vec::new();
    for head in [
        "POST /token HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nhalf",
        "GET /v2/ HTTP/1.1\r\nHost: loc",
        "",
    ] {
        let mut stream = tokio::net::TcpStream::connect(running.addresses()["main"]).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        clients.push(stream);
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    let began = Instant::now();
    stop(running).await;
    assert!(
        began.elapsed() > Duration::from_millis(250) && began.elapsed() < Duration::from_secs(4),
        "{:?}",
        began.elapsed()
    );
    assert!(!place.data().join("addresses.json").exists(), "it was closed in order");
    stop(place.start().await).await;
}

#[tokio::test]
async fn n10_a_second_signal_waits_for_nothing() {
    let place = Place::new();
    let running = place.start().await;
    let mut stream = tokio::net::TcpStream::connect(running.addresses()["main"]).await.unwrap();
    stream.write_all(b"POST /token HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n").await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    let began = Instant::now();
    running.stop(tokio::time::sleep(Duration::from_millis(300))).await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
}
