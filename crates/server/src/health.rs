//! `/healthz`, `/readyz` and `/metrics`: all of the ops listener, and beside the admin API on its listeners.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use api::Readiness;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use registry::Registry;
use rustix::fs::{Access, StatVfsMountFlags};
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::data_dir::names;
use crate::metrics::{self, Metrics};
use crate::state::AppState;

/// Whoever asks within this time gets the last answer: probes must not become load.
const KEPT: Duration = Duration::from_secs(1);
/// A database that does not answer within this time is not ready.
const DATABASE_TIME: Duration = Duration::from_secs(5);
const OK: &str = "ok";

/// The three routes.
pub fn router(app: &AppState) -> Router {
    let state = Health {
        registry: app.registry.clone(),
        metrics: app.metrics.clone(),
        store: app.config.data_dir.join(names::BLOBS).into(),
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
    store: Arc<std::path::Path>,
    last: Arc<Mutex<Option<(Instant, Readiness)>>>,
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
        if let Some((at, readiness)) = &*last
            && at.elapsed() < KEPT
        {
            return readiness.clone();
        }
        let checks = BTreeMap::from([
            ("database".to_owned(), self.database().await.to_owned()),
            ("store".to_owned(), self.store().await.to_owned()),
        ]);
        let readiness = Readiness { ready: checks.values().all(|state| state == OK), checks };
        *last = Some((Instant::now(), readiness.clone()));
        readiness
    }

    /// Writes a row that no one reads, and removes it.
    async fn database(&self) -> &'static str {
        let db = self.registry.db();
        let probe = async {
            db.reserve_idempotency("system", "readiness", b"").await?;
            db.release_idempotency("system", "readiness").await
        };
        match tokio::time::timeout(DATABASE_TIME, probe).await {
            Ok(Ok(())) => OK,
            Ok(Err(meta::Error::ReadOnly)) => "read_only",
            Ok(Err(meta::Error::Full)) => "full",
            Ok(Err(meta::Error::Busy)) => "busy",
            Ok(Err(meta::Error::Unavailable { .. })) => "unavailable",
            Err(_) if db.engine() == meta::Engine::Postgres => "unavailable",
            Err(_) => "busy",
            Ok(Err(error)) => {
                tracing::warn!(error = crate::logs::chain(&error), "the database is not ready");
                "failed"
            }
        }
    }

    async fn store(&self) -> &'static str {
        let path = self.store.clone();
        let registry = self.registry.clone();
        let look = move || match store(&path) {
            OK if registry.blobs().admit().is_err() => "full",
            state => state,
        };
        tokio::task::spawn_blocking(look).await.unwrap_or("failed")
    }
}

fn store(path: &std::path::Path) -> &'static str {
    let Ok(disk) = rustix::fs::statvfs(path) else { return "unavailable" };
    if disk.f_flag.contains(StatVfsMountFlags::RDONLY) {
        return "read_only";
    }
    match rustix::fs::access(path, Access::WRITE_OK | Access::EXEC_OK) {
        Ok(()) => OK,
        Err(rustix::io::Errno::ROFS) => "read_only",
        Err(_) => "unavailable",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_that_is_not_there_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(store(dir.path()), OK);
        assert_eq!(store(&dir.path().join("gone")), "unavailable");
    }
}
