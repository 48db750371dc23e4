//! `/healthz`, `/readyz` and `/metrics`: all of the ops listener, and beside the admin API on its listeners.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use api::Readiness;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use registry::Registry;
use rustix::fs::Access;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::config::Mode;
use crate::data_dir::names;
use crate::metrics::{self, Metrics};
use crate::state::AppState;

/// Whoever asks within this time gets the last answer: probes must not become load.
const KEPT: Duration = Duration::from_secs(1);
/// A database or a store that does not answer within this time is not ready.
const ANSWER_TIME: Duration = Duration::from_secs(5);
const OK: &str = "ok";

/// The three routes.
pub fn router(app: &AppState) -> Router {
    let state = Health {
        registry: app.registry.clone(),
        metrics: app.metrics.clone(),
        store: app.config.data_dir.join(names::BLOBS).into(),
        mode: app.config.server.mode,
        last: Arc::default(),
    };
    Router::new()
        .route("/healthz", get(alive))
        .route("/readyz", get(ready))
        .route("/metrics", get(show_metrics))
        .with_state(state)
}

#[derive(Clone)]
struct Health {
    registry: Registry,
    metrics: Metrics,
    store: Arc<Path>,
    mode: Mode,
    last: Arc<Mutex<Last>>,
}

/// What was found last, and a look at the store that has not ended.
#[derive(Default)]
struct Last {
    found: Option<(Instant, Readiness)>,
    look: Option<JoinHandle<&'static str>>,
}

async fn alive() -> &'static str {
    "ok\n"
}

async fn ready(State(health): State<Health>) -> Response {
    let readiness = health.readiness().await;
    let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, [(header::CACHE_CONTROL, "no-store")], Json(readiness)).into_response()
}

async fn show_metrics(State(health): State<Health>) -> Response {
    ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], health.metrics.text()).into_response()
}

impl Health {
    /// What is the matter with each part. One looks at a time, the others wait for what it finds.
    async fn readiness(&self) -> Readiness {
        let mut last = self.last.lock().await;
        if let Some((at, readiness)) = &last.found
            && at.elapsed() < KEPT
        {
            return readiness.clone();
        }
        let checks = BTreeMap::from([
            ("database".to_owned(), self.database().await.to_owned()),
            ("store".to_owned(), self.store(&mut last.look).await.to_owned()),
        ]);
        let mode = (self.mode == Mode::ReadOnly).then(|| self.mode.as_str().to_owned());
        let readiness = Readiness { ready: checks.values().all(|state| state == OK), checks, mode };
        last.found = Some((Instant::now(), readiness.clone()));
        readiness
    }

    /// Writes a row that no one reads, and removes it; where nothing is written, reads one.
    async fn database(&self) -> &'static str {
        let db = self.registry.db();
        let probe = async {
            if self.mode == Mode::ReadOnly {
                return db.policy_epoch().await.map(drop);
            }
            db.reserve_idempotency("system", "readiness", b"").await?;
            db.release_idempotency("system", "readiness").await
        };
        match tokio::time::timeout(ANSWER_TIME, probe).await {
            Ok(Ok(())) => OK,
            Ok(Err(meta::Error::ReadOnly)) => "read_only",
            Ok(Err(meta::Error::Full)) => "full",
            Ok(Err(meta::Error::Busy)) => "busy",
            Ok(Err(meta::Error::Unavailable { .. } | meta::Error::Unsure { .. })) => "unavailable",
            Err(_) if db.engine() == meta::Engine::Postgres => "unavailable",
            Err(_) => "busy",
            Ok(Err(error)) => {
                tracing::warn!(error = crate::logs::chain(&error), "the database is not ready");
                "failed"
            }
        }
    }

    /// One look at a time: on a disk that is silent each would keep a thread.
    async fn store(&self, look: &mut Option<JoinHandle<&'static str>>) -> &'static str {
        let (registry, mode, path) = (self.registry.clone(), self.mode, self.store.clone());
        let looking = look.get_or_insert_with(|| match mode {
            Mode::ReadOnly => tokio::task::spawn_blocking(move || readable(&path)),
            Mode::ReadWrite => tokio::spawn(async move { state(registry.blobs().ready().await) }),
        });
        match tokio::time::timeout(ANSWER_TIME, &mut *looking).await {
            Ok(found) => {
                *look = None;
                found.unwrap_or("failed")
            }
            Err(_) => "silent",
        }
    }
}

fn readable(path: &Path) -> &'static str {
    match rustix::fs::access(path, Access::READ_OK | Access::EXEC_OK) {
        Ok(()) => OK,
        Err(_) => "unavailable",
    }
}

fn state(ready: Result<(), blobs::Error>) -> &'static str {
    match ready {
        Ok(()) => OK,
        Err(blobs::Error::Full { .. }) => "full",
        Err(blobs::Error::ReadOnly { .. }) => "read_only",
        Err(blobs::Error::Silent { .. }) => "silent",
        Err(_) => "unavailable",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_store_that_is_not_there_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("blobs");
        std::fs::create_dir(&root).unwrap();
        let store = blobs::Blobs::open_fs(&root).unwrap();
        assert_eq!(state(store.ready().await), OK);
        std::fs::remove_dir_all(&root).unwrap();
        assert_eq!(state(store.ready().await), "unavailable");
        assert_eq!((readable(dir.path()), readable(&root)), (OK, "unavailable"));
    }
}
