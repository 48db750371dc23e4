//! `/api/v1/server` and `/api/v1/tasks`.

use api::{Page, ServerInfo};
use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use meta::Engine;

use super::extract::Admin;
use super::{AdminState, answer};

/// What runs where.
pub async fn show(State(state): State<AdminState>, Admin(_): Admin) -> Response {
    let registry = &state.app.registry;
    let info = ServerInfo {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        store: registry.db().store_id().to_owned(),
        time: (state.app.clock)().into(),
        started_at: state.started_at.into(),
        public_urls: state.app.config.server.urls().iter().map(ToString::to_string).collect(),
        database: match registry.db().engine() {
            Engine::Sqlite => "sqlite",
            Engine::Postgres => "postgres",
        }
        .to_owned(),
        storage: "fs".to_owned(),
        mode: state.app.config.server.mode.as_str().to_owned(),
        free_bytes: registry.blobs().free_bytes().ok(),
    };
    answer(StatusCode::OK, &info)
}

/// The background tasks.
pub async fn tasks(State(state): State<AdminState>, Admin(_): Admin) -> Response {
    answer(StatusCode::OK, &Page { items: (state.tasks)(), next: None })
}
