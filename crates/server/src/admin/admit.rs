//! Who is let in: before a handler runs, and before the body is read.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::header::{HOST, ORIGIN};
use http::{HeaderMap, Uri};
use policy::{AdminAccess, Caller, Credential, Identity, Refusal, authorize_admin};

use super::{AdminState, Failure};
use crate::state::{Listener, Note, Peer, RequestId};

/// Decides about the request and leaves the decision in its extensions, where handlers find it.
pub async fn admit(State(state): State<AdminState>, request: Request, next: Next) -> Response {
    let (mut parts, body) = request.into_parts();
    let current = state.app.rules.current().await.map_err(Failure::from);
    let (rules, caller) = match current {
        Ok(rules) => match who(&state, &parts).await {
            Ok(caller) => (rules, caller),
            Err(failure) => return failure.into_response(),
        },
        Err(failure) => return failure.into_response(),
    };
    match authorize_admin(&rules, &caller, (state.app.clock)()) {
        Ok(access) => {
            parts.extensions.insert::<AdminAccess>(access);
            next.run(Request::from_parts(parts, body)).await
        }
        Err(refusal) => {
            record(&state, &caller, &refusal, &parts);
            Failure::from(refusal).into_response()
        }
    }
}

/// Known subjects that are refused are recorded, as everywhere.
fn record(state: &AdminState, caller: &Caller, refusal: &Refusal, parts: &http::request::Parts) {
    let (Identity::Subject(id), Refusal::Denied { .. }) = (caller.identity, refusal) else { return };
    if let Some(subject) = state.app.rules.load().subject(id) {
        let what = format!("admin {} {}", parts.method, parts.uri.path());
        state.app.auth.journal().denied(caller, subject, None, &what);
    }
}

/// Refuses what a page of another site makes a browser send. The API has no pages, so no origin is its own but that of its
/// address; CORS is not spoken.
pub async fn same_site(request: Request, next: Next) -> Response {
    if is_cross_site(request.headers(), request.uri()) {
        let help = "this API is not for web pages of other sites";
        return Failure::new(api::ErrorCode::CrossSite, "the request comes from another site", help).into_response();
    }
    next.run(request).await
}

/// The socket needs no login: its listener has seen that the peer is the owner of the data directory.
async fn who(state: &AdminState, parts: &http::request::Parts) -> Result<Arc<Caller>, Failure> {
    let by_socket = parts.extensions.get::<Peer>().is_some_and(|peer| peer.listener == Listener::Socket);
    if !by_socket {
        return Ok(state.app.auth.identify_admin(parts).await?);
    }
    if let Some(note) = parts.extensions.get::<Note>() {
        note.set_subject("socket");
    }
    Ok(Arc::new(Caller {
        identity: Identity::Anonymous,
        credential: Credential::Socket,
        credential_id: "socket".to_owned(),
        source: "local".to_owned(),
        request_id: parts.extensions.get::<RequestId>().map_or_else(String::new, |id| id.0.clone()),
    }))
}

fn is_cross_site(headers: &HeaderMap, uri: &Uri) -> bool {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    if matches!(text(http::HeaderName::from_static("sec-fetch-site")), Some("cross-site" | "same-site")) {
        return true;
    }
    if !headers.contains_key(ORIGIN) {
        return false;
    }
    let host = uri.authority().map(|authority| authority.as_str()).or_else(|| text(HOST));
    let origin = text(ORIGIN).and_then(|origin| origin.split_once("://"));
    match (origin, host) {
        (Some((_, origin)), Some(host)) => !origin.eq_ignore_ascii_case(host),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_site_is_told_by_its_origin() {
        let cross = |headers: &[(&'static str, &'static str)]| {
            let mut map = HeaderMap::new();
            for (name, value) in headers {
                map.append(*name, value.parse().unwrap());
            }
            is_cross_site(&map, &Uri::from_static("/api/v1/users"))
        };
        assert!(!cross(&[("host", "localhost:5001")]));
        assert!(!cross(&[("host", "localhost:5001"), ("origin", "http://localhost:5001")]));
        for origin in ["null", "http://evil.example", "http://localhost:5002", "http://localhost:5001.evil.example", ""]
        {
            assert!(cross(&[("host", "localhost:5001"), ("origin", origin)]), "{origin}");
        }
        assert!(cross(&[("host", "localhost:5001"), ("sec-fetch-site", "cross-site")]));
        assert!(cross(&[("origin", "http://localhost:5001")]), "without a host nothing is the same");
    }
}
