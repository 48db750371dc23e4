//! A server in read-only mode on a data directory that another one has left.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use api::Route;
use axum::body::Body;
use axum::http::Request;
use http_body_util::BodyExt as _;
use oci::{Algorithm, Hasher};
use serde_json::{Value, json};
use server::bootstrap::FirstPassword;
use server::clock::{system_clock, system_random};
use server::config::{Environment, Flags};
use server::serve::Running;
use server::state::{Listener, Peer, RequestId};
use server::{Error, offline};
use tower::ServiceExt as _;

use crate::admin::Admin;
use crate::world::{basic, sha256};

const READ_ONLY: (&str, &str) = ("PORTCULLIS_SERVER__MODE", "read-only");
/// Beyond what the database keeps itself.
const LAYER: &[u8] = &[7; 40_000];

struct Place(tempfile::TempDir);

impl Place {
    fn data(&self) -> PathBuf {
        self.0.path().join("data")
    }

    fn config(&self, settings: &[(&str, &str)]) -> server::config::Config {
        // The test's own process, which nothing confines.
        let settings = settings.iter().chain(&[("PORTCULLIS_SANDBOX__MODE", "off")]);
        let variables: BTreeMap<_, _> = settings.map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        let flags = Flags {
            data_dir: Some(self.data()),
            listen: Some("127.0.0.1:0".to_owned()),
            admin_listen: Some("off".to_owned()),
            ..Flags::default()
        };
        server::config::load(&flags, &Environment(variables)).unwrap()
    }

    async fn start(&self, settings: &[(&str, &str)]) -> Result<Running, Error> {
        Running::start(self.config(settings), system_clock(), system_random()).await
    }
}

async fn stop(running: Running) {
    running.stop(std::future::pending()).await.unwrap();
}

/// A request by the first administrator, to the router behind the main listener.
async fn ask(running: &Running, password: &str, method: &str, target: &str, body: &[u8]) -> (u16, Vec<u8>) {
    let address = running.addresses()["main"];
    let request = Request::builder()
        .method(method)
        .uri(target)
        .header("host", format!("localhost:{}", address.port()))
        .header("authorization", basic("admin", password))
        .header("content-type", "application/vnd.oci.image.manifest.v1+json")
        .extension(Peer { addr: Some("127.0.0.1:40000".parse().unwrap()), tls: false, listener: Listener::Main })
        .extension(RequestId("request-3".to_owned()))
        .body(Body::from(body.to_vec()))
        .unwrap();
    let answer = server::main_router::router(running.state().clone()).oneshot(request).await.unwrap();
    let status = answer.status().as_u16();
    (status, answer.into_body().collect().await.unwrap().to_bytes().to_vec())
}

/// Pushes an image of one layer.
async fn push(running: &Running, password: &str) {
    for bytes in [b"{}".as_slice(), LAYER] {
        let target = format!("/v2/team/app/blobs/uploads/?digest={}", sha256(bytes));
        assert_eq!(ask(running, password, "POST", &target, bytes).await.0, 201);
    }
    let manifest = crate::world::image(&[(&sha256(b"{}"), 2), (&sha256(LAYER), LAYER.len())]).to_string();
    let (status, body) = ask(running, password, "PUT", "/v2/team/app/manifests/v1", manifest.as_bytes()).await;
    assert_eq!(status, 201, "{}", String::from_utf8_lossy(&body));
}

/// Every file below the directory but the lock's, with its time and its content's hash. Of the log and its index, which SQLite
/// makes beside a database that it reads, only that they hold nothing.
fn content(root: &Path) -> BTreeMap<PathBuf, (std::time::SystemTime, String)> {
    let mut all = BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            if path.is_dir() {
                folders.push(path);
            } else if name == "meta.db-wal" {
                assert_eq!(fs::metadata(&path).unwrap().len(), 0, "a log was written");
            } else if !matches!(name.as_str(), "portcullis.lock" | "meta.db-shm") {
                let hash = Hasher::digest(Algorithm::Sha256, &fs::read(&path).unwrap()).to_string();
                all.insert(path.clone(), (fs::metadata(&path).unwrap().modified().unwrap(), hash));
            }
        }
    }
    all
}

// security: O-06
#[tokio::test]
async fn nothing_is_changed_and_everything_can_be_pulled() {
    let place = Place(tempfile::tempdir().unwrap());
    let running = place.start(&[]).await.unwrap();
    let FirstPassword::Generated { password, .. } = running.first_password().clone() else { panic!("no password") };
    push(&running, &password).await;
    stop(running).await;
    let log = place.data().join("meta.db-wal");
    assert!(!log.exists(), "a clean end leaves a log of {} bytes", fs::metadata(log).unwrap().len());
    let before = content(&place.data());

    let running = place.start(&[READ_ONLY]).await.unwrap();
    assert!(running.state().registry.db().is_read_only());
    assert_eq!(ask(&running, &password, "GET", "/v2/team/app/manifests/v1", b"").await.0, 200);
    let blob = ask(&running, &password, "GET", &format!("/v2/team/app/blobs/{}", sha256(LAYER)), b"").await;
    assert_eq!((blob.0, blob.1.as_slice()), (200, LAYER));
    for target in ["/v2/", "/v2/_catalog", "/v2/team/app/tags/list", "/token?scope=repository:team/app:pull"] {
        assert_eq!(ask(&running, &password, "GET", target, b"").await.0, 200, "{target}");
    }
    for (method, target) in [
        ("POST", "/v2/team/app/blobs/uploads/"),
        ("PUT", "/v2/team/app/manifests/v2"),
        ("DELETE", "/v2/team/app/manifests/v1"),
    ] {
        assert_eq!(ask(&running, &password, method, target, b"{}").await.0, 405, "{method} {target}");
    }
    assert_eq!(ask(&running, "wrong", "GET", "/v2/", b"").await.0, 401);
    let health = server::health::router(running.state());
    let ready = health.clone().oneshot(Request::get("/readyz").body(Body::empty()).unwrap()).await.unwrap();
    let ready: Value = serde_json::from_slice(&ready.into_body().collect().await.unwrap().to_bytes()).unwrap();
    assert_eq!(ready, json!({ "ready": true, "mode": "read-only", "checks": { "database": "ok", "store": "ok" } }));
    let metrics = health.oneshot(Request::get("/metrics").body(Body::empty()).unwrap()).await.unwrap();
    let metrics = metrics.into_body().collect().await.unwrap().to_bytes();
    assert!(String::from_utf8_lossy(&metrics).contains("\nportcullis_read_only 1\n"));

    // What an administrator may do still, and that it needs no row.
    let admin = Admin::of_state(running.state());
    let folder = place.0.path().join("backup");
    let backup = admin.job(Route::BackupCreate, json!({ "directory": folder, "verify": true })).await;
    assert_eq!(backup["state"], "done", "{backup:#}");
    let keyed = admin.ask(Route::FsckRun, &[]).header("idempotency-key", "k1").body(json!({})).send().await;
    keyed.expect(202);
    admin.rest().await;
    let check = admin.job(Route::FsckRun, json!({})).await;
    assert_eq!((&check["state"], &check["report"]["findings"]), (&json!("done"), &json!([])), "{check:#}");
    admin.ask(Route::GcPlan, &[]).send().await.expect(200);
    admin.ask(Route::EventList, &[]).send().await.expect(200);
    // Even what no route asks for.
    let refused = running.state().registry.db().clear_leases().await;
    assert!(matches!(refused, Err(meta::Error::ReadOnly)), "{refused:?}");
    stop(running).await;
    assert_eq!(content(&place.data()), before);

    // The next one in the other mode goes on as if nothing had been.
    let running = place.start(&[]).await.unwrap();
    push(&running, &password).await;
    stop(running).await;
}

#[tokio::test]
async fn what_a_killed_server_left_in_the_log_is_served() {
    let place = Place(tempfile::tempdir().unwrap());
    let running = place.start(&[]).await.unwrap();
    let FirstPassword::Generated { password, .. } = running.first_password().clone() else { panic!("no password") };
    push(&running, &password).await;
    // As it lies there while a server is at work.
    let copy = Place(tempfile::tempdir().unwrap());
    let copied = std::process::Command::new("cp").arg("-a").arg(place.data()).arg(copy.data()).status().unwrap();
    assert!(copied.success());
    assert!(fs::metadata(copy.data().join("meta.db-wal")).unwrap().len() > 0);
    stop(running).await;
    let running = copy.start(&[READ_ONLY]).await.unwrap();
    assert_eq!(ask(&running, &password, "GET", "/v2/team/app/manifests/v1", b"").await.0, 200);
    stop(running).await;
}

#[tokio::test]
async fn nothing_is_made_where_nothing_is() {
    let place = Place(tempfile::tempdir().unwrap());
    let error = place.start(&[READ_ONLY]).await.err().unwrap();
    assert_eq!(error.exit_code(), 6, "{error}");
    assert!(error.help().unwrap().contains("read-write"));
    assert!(!place.data().exists());
    stop(place.start(&[]).await.unwrap()).await;
    let refused = offline::fsck(&place.config(&[READ_ONLY]), true, &|_| {}).await.unwrap_err();
    assert_eq!(refused.exit_code(), 6, "{refused}");
    let report = offline::fsck(&place.config(&[READ_ONLY]), false, &|_| {}).await.unwrap();
    assert!(report.findings.is_empty(), "{report:?}");
}
