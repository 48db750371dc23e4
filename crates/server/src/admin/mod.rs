//! The admin API, `/api/v1/…`, on the admin listener and on the socket in the data directory.
//!
//! A request passes `same_site`, then `admit`, which makes the [`policy::AdminAccess`] that every operation takes, then
//! `idempotency`, and reaches a handler that parses, calls one operation of `registry`, and shows its result. After each
//! change the rules are built anew before the answer goes out, so the change holds for whatever is asked next.

mod admit;
mod events;
mod extract;
mod failure;
mod grants;
mod idempotency;
mod jobs;
mod maintenance;
mod openapi;
mod repositories;
mod robots;
mod server_info;
mod session;
mod users;

use std::sync::Arc;
use std::time::Instant;

use api::{ErrorCode, Route};
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, delete, get, patch, post};
use axum::{Router, http::Uri};
use oci::{Random, Timestamp};

pub use failure::Failure;
use failure::answer;
use jobs::Jobs;
pub(crate) use maintenance::{backup_report, fsck_report};

use crate::state::AppState;

/// The OpenAPI document as it is checked in at `docs/reference/openapi.json`.
pub use openapi::document;

/// What the handlers share.
#[derive(Clone)]
struct AdminState {
    app: AppState,
    jobs: Jobs,
    random: Random,
    tasks: TaskList,
    started_at: Timestamp,
}

/// Tells how the background tasks are.
pub type TaskList = Arc<dyn Fn() -> Vec<api::Task> + Send + Sync>;

/// The router of the admin API. Build it once and give it to both listeners: jobs belong to it. The health routes, which
/// these listeners answer too, are not in it.
pub fn router(app: AppState, random: Random, tasks: TaskList) -> Router {
    let state = AdminState {
        jobs: Jobs::new(app.clock.clone(), random.clone()),
        random,
        tasks,
        started_at: (app.clock)(),
        app,
    };
    let mut guarded = Router::new();
    for route in Route::ALL.iter().copied().filter(|route| *route != Route::SessionRefresh) {
        let refused = state.app.config.is_read_only() && route.is_change();
        guarded = guarded.route(route.path(), if refused { refusal(route) } else { handler(route) });
    }
    let guarded = guarded
        .route_layer(from_fn_with_state(state.clone(), idempotency::once))
        .route_layer(from_fn_with_state(state.clone(), admit::admit));
    // The refresh token in its body is its credential.
    let open = Router::new().route(Route::SessionRefresh.path(), handler(Route::SessionRefresh));
    guarded
        .merge(open)
        .fallback(no_route)
        .method_not_allowed_fallback(no_method)
        .layer(from_fn(admit::same_site))
        .layer(from_fn_with_state(state.clone(), measure))
        .with_state(state)
}

/// Which handler serves a route. A route without one does not compile.
fn handler(route: Route) -> MethodRouter<AdminState> {
    match route {
        Route::OpenApi => get(openapi::serve),
        Route::Whoami => get(session::whoami),
        Route::SessionCreate => post(session::create),
        Route::SessionRefresh => post(session::refresh),
        Route::UserList => get(users::list),
        Route::UserCreate => post(users::create),
        Route::UserShow => get(users::get),
        Route::UserUpdate => patch(users::update),
        Route::UserRemove => delete(users::remove),
        Route::UserPassword => post(users::password),
        Route::RobotList => get(robots::list),
        Route::RobotCreate => post(robots::create),
        Route::RobotShow => get(robots::get),
        Route::RobotUpdate => patch(robots::update),
        Route::RobotRemove => delete(robots::remove),
        Route::RobotRotate => post(robots::rotate),
        Route::GrantList => get(grants::list),
        Route::GrantCreate => post(grants::create),
        Route::GrantRemoveBySubject => delete(grants::remove_by_subject),
        Route::GrantShow => get(grants::get),
        Route::GrantRemove => delete(grants::remove),
        Route::RepositoryList => get(repositories::list),
        Route::RepositoryShow => get(repositories::get),
        Route::RepositoryRemove => delete(repositories::remove),
        Route::TagList => get(repositories::tags),
        Route::TagRemove => delete(repositories::remove_tag),
        Route::EventList => get(events::list),
        Route::GcPlan => get(maintenance::gc_plan),
        Route::GcRun => post(maintenance::gc_run),
        Route::BackupCreate => post(maintenance::backup_create),
        Route::BackupVerify => post(maintenance::backup_verify),
        Route::FsckRun => post(maintenance::fsck_run),
        Route::JobList => get(maintenance::jobs),
        Route::JobShow => get(maintenance::job),
        Route::TaskList => get(server_info::tasks),
        Route::ServerShow => get(server_info::show),
    }
}

/// Stands in for the handler of a change while the server is read-only. Behind `admit`, like the handler.
fn refusal(route: Route) -> MethodRouter<AdminState> {
    let taken = |other: &&Route| other.path() == route.path() && !other.is_change();
    let mut methods: Vec<&str> = Route::ALL.iter().filter(taken).map(|other| other.method().as_str()).collect();
    if methods.contains(&"GET") {
        methods.push("HEAD");
    }
    let allow = methods.join(", ");
    let refuse = move || std::future::ready(Failure::read_only_mode(&allow));
    match route.method() {
        api::Method::Get => get(refuse),
        api::Method::Post => post(refuse),
        api::Method::Patch => patch(refuse),
        api::Method::Delete => delete(refuse),
    }
}

/// Counts each request, under one name for all of the API.
async fn measure(State(state): State<AdminState>, request: Request, next: Next) -> Response {
    let (started, method) = (Instant::now(), request.method().clone());
    let response = next.run(request).await;
    state.app.metrics.request("admin", &method, response.status(), started.elapsed());
    response
}

async fn no_route(uri: Uri) -> impl IntoResponse {
    let help = "the document /api/v1/openapi.json lists all addresses";
    Failure::new(ErrorCode::RouteNotFound, format!("there is no {}", uri.path()), help)
}

async fn no_method() -> impl IntoResponse {
    Failure::new(ErrorCode::MethodNotAllowed, "this address does not take that method", "see the header Allow")
}

impl AdminState {
    /// Builds the rules anew from the database.
    async fn reload(&self) -> Result<(), Failure> {
        Ok(self.app.rules.reload().await?)
    }

    /// The file with the first password goes when that password goes.
    async fn password_changed(&self, name: &str) {
        if name != registry::accounts::FIRST_USER {
            return;
        }
        let path = self.app.config.data_dir.join("initial-password");
        match tokio::fs::remove_file(&path).await {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "cannot remove the file of the first password")
            }
        }
    }
}
