//! The main listener's requests: `/v2`, `/token`, `/healthz`, and nothing else.

use std::time::Instant;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use http::request::Parts;
use http::{HeaderValue, Method, StatusCode};
use oci::ErrorCode;

use crate::auth::service;
use crate::distribution::{self, API_VERSION, API_VERSION_VALUE, error, respond};
use crate::state::{AppState, RequestId};

/// The router. Paths are taken as they came, percent-encoding and all: `distribution` parses them itself.
pub fn router(state: AppState) -> Router {
    Router::new().fallback(serve).with_state(state)
}

async fn serve(State(state): State<AppState>, request: Request) -> Response {
    let started = Instant::now();
    let (parts, body) = request.into_parts();
    let (route, mut response) = route(&state, &parts, body).await;
    if parts.method == Method::HEAD {
        *response.body_mut() = Body::new(respond::Nothing);
    }
    state.metrics.request(route, &parts.method, response.status(), started.elapsed());
    response
}

async fn route(state: &AppState, parts: &Parts, body: Body) -> (&'static str, Response) {
    let path = parts.uri.path();
    if path == "/v2" || path.starts_with("/v2/") {
        return distribution::serve(state, parts, body).await;
    }
    match path {
        "/token" => {
            let mut response = service::serve(&state.auth, parts, body).await;
            response.headers_mut().insert(API_VERSION, API_VERSION_VALUE);
            ("token", response)
        }
        "/healthz" => ("healthz", alive(&parts.method)),
        path if distribution::is_confusing(path) => {
            let message = "the path is not canonical: the API begins with /v2/";
            ("invalid", error::one(ErrorCode::NameInvalid, message))
        }
        _ => ("unknown", error::with_status(StatusCode::NOT_FOUND, ErrorCode::Unsupported, "there is nothing here")),
    }
}

/// Whether the process answers. Load balancers ask by whatever name they have, so the `Host` does not matter.
fn alive(method: &Method) -> Response {
    match *method {
        Method::GET | Method::HEAD => respond::bytes(StatusCode::OK, "text/plain; charset=utf-8", b"ok\n".to_vec()),
        _ => {
            let mut response =
                error::with_status(StatusCode::METHOD_NOT_ALLOWED, ErrorCode::Unsupported, "this takes GET, HEAD");
            response.headers_mut().insert(http::header::ALLOW, HeaderValue::from_static("GET, HEAD"));
            response
        }
    }
}

/// The id that the listener gave this request; empty where there was none.
pub(crate) fn request_id(parts: &Parts) -> &str {
    parts.extensions.get::<RequestId>().map_or("", |id| id.0.as_str())
}
