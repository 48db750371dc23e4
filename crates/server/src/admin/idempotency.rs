//! `Idempotency-Key`: a POST that is sent again is done once.

use std::time::Duration;

use api::{ErrorCode, IDEMPOTENCY_KEY};
use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use meta::Reserve;
use oci::{Algorithm, Hasher};
use policy::AdminAccess;

use super::failure::raw_answer;
use super::{AdminState, Failure, extract};

/// How long an answer is kept.
const KEPT: Duration = Duration::from_secs(24 * 60 * 60);
/// How many old answers are forgotten with each new key.
const FORGET: usize = 100;
const LONGEST: usize = 128;
/// Fields of answers that are shown once and never stored.
const SECRETS: [&str; 2] = ["password", "secret"];

/// Does a POST with a key once; others pass. Sessions pass too: their answer is all secret.
pub async fn once(State(state): State<AdminState>, request: Request, next: Next) -> Response {
    // In read-only mode there is nowhere to remember it, and nothing left that would be done twice: of each kind of job one
    // runs at a time, and a second backup finds its folder taken.
    if state.app.config.is_read_only() {
        return next.run(request).await;
    }
    let keyed = request.method() == Method::POST && request.uri().path() != api::Route::SessionCreate.path();
    if !keyed || !request.headers().contains_key(IDEMPOTENCY_KEY) {
        return next.run(request).await;
    }
    run(&state, request, next).await.unwrap_or_else(IntoResponse::into_response)
}

async fn run(state: &AdminState, request: Request, next: Next) -> Result<Response, Failure> {
    let (parts, body) = request.into_parts();
    let key = key(&parts.headers)?;
    let access = parts.extensions.get::<AdminAccess>().ok_or_else(|| Failure::internal("not admitted"))?;
    let owner = access.label();
    let body = extract::read(body).await?;
    let target = parts.uri.path_and_query().map_or("/", |target| target.as_str());
    let hash = hash(&[parts.method.as_str().as_bytes(), target.as_bytes(), &body]);
    let db = state.app.registry.db();
    db.expire_idempotency((state.app.clock)().minus(KEPT), FORGET).await?;
    match db.reserve_idempotency(&owner, &key, &hash).await? {
        Reserve::New => {}
        Reserve::Done { status, answer } => {
            let status = StatusCode::from_u16(status).map_err(Failure::internal)?;
            return Ok(raw_answer(status, answer.to_vec()));
        }
        Reserve::Running => return Err(taken("the request with this Idempotency-Key is running, or was interrupted")),
        Reserve::Mismatch => return Err(taken("this Idempotency-Key was used for another request")),
    }
    let response = next.run(Request::from_parts(parts, Body::from(body))).await;
    let (parts, body) = response.into_parts();
    let answer = axum::body::to_bytes(body, usize::MAX).await.map_err(Failure::internal)?;
    // What changed nothing may be sent again under the same key, corrected or not.
    if parts.status.is_success() {
        db.complete_idempotency(&owner, &key, parts.status.as_u16(), without_secrets(&answer)).await?;
    } else {
        db.release_idempotency(&owner, &key).await?;
    }
    Ok(Response::from_parts(parts, Body::from(answer)))
}

fn key(headers: &HeaderMap) -> Result<String, Failure> {
    let mut values = headers.get_all(IDEMPOTENCY_KEY).iter();
    let text = values.next().and_then(|value| value.to_str().ok()).unwrap_or_default();
    let valid = (1..=LONGEST).contains(&text.len()) && text.bytes().all(|c| c.is_ascii_graphic());
    if valid && values.next().is_none() {
        return Ok(text.to_owned());
    }
    let message = format!("{IDEMPOTENCY_KEY} takes 1 to {LONGEST} visible ASCII characters, once");
    Err(Failure::new(ErrorCode::InvalidIdempotencyKey, message, "a UUID is a good key"))
}

fn taken(message: &str) -> Failure {
    Failure::new(ErrorCode::IdempotencyKeyReused, message, "look whether it was done, then use a new key")
}

/// Of all parts, each with its length, so that they cannot pass for one another.
fn hash(parts: &[&[u8]]) -> Vec<u8> {
    let mut hasher = Hasher::new(Algorithm::Sha256);
    for part in parts {
        hasher.update(&(part.len() as u64).to_be_bytes());
        hasher.update(part);
    }
    hasher.finish().hex().as_bytes().to_vec()
}

fn without_secrets(answer: &Bytes) -> Bytes {
    let Ok(serde_json::Value::Object(mut object)) = serde_json::from_slice(answer) else { return answer.clone() };
    for field in SECRETS {
        if let Some(value) = object.get_mut(field) {
            *value = serde_json::Value::Null;
        }
    }
    Bytes::from(serde_json::Value::Object(object).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys() {
        let read = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(IDEMPOTENCY_KEY, value.parse().unwrap());
            }
            key(&headers).ok()
        };
        assert_eq!(read(&["a"]).as_deref(), Some("a"));
        assert_eq!(read(&[&"k".repeat(128)]).unwrap().len(), 128);
        for bad in [&["a", "b"][..], &[""], &["a b"], &[&"k".repeat(129)]] {
            assert_eq!(read(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn secrets_are_not_stored() {
        let stored = without_secrets(&Bytes::from_static(br#"{"name":"a","password":"p","secret":"s"}"#));
        assert_eq!(&stored[..], br#"{"name":"a","password":null,"secret":null}"#);
    }

    #[test]
    fn parts_do_not_run_together() {
        assert_ne!(hash(&[b"ab", b"c"]), hash(&[b"a", b"bc"]));
    }
}
