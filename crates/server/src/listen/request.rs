//! What is done around every request, whatever router it goes to: its id, its log line, headers that every answer has,
//! and the end of a handler that panics.

use std::any::Any;
use std::io;
use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures_util::FutureExt as _;
use http::{HeaderName, HeaderValue, Method, Request, StatusCode, Version, header};
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use oci::Random;
use tokio::time::Instant;
use tower::ServiceExt as _;

use super::activity::{Activity, Expired};
use super::connection::Service;
use crate::auth::client_address;
use crate::metrics::Held;
use crate::state::{Listener, Note, Peer, RequestId};

pub(super) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Refused requests that get a log line of their own within a second; the others are counted.
const REFUSALS_LOGGED: u32 = 100;

tokio::task_local! {
    static REQUEST_ID: RequestId;
}

/// The id of the request that this task is working on, for log lines.
pub fn current_request_id() -> Option<String> {
    REQUEST_ID.try_with(|id| id.0.clone()).ok()
}

/// Handles one request.
pub(super) async fn handle(
    service: Arc<Service>,
    peer: Peer,
    activity: Arc<Activity>,
    request: Request<Incoming>,
) -> Response<Answer> {
    activity.request_began();
    let ended = InFlight(activity.clone());
    let id = request_id(request.headers().get_all(X_REQUEST_ID), &service.random);
    let note = Note::default();
    let mut record = Record {
        started: Instant::now(),
        method: request.method().clone(),
        path: request.uri().path().to_owned(),
        status: StatusCode::OK,
        sent: 0,
        version: request.version(),
        client: peer
            .addr
            .map(|addr| client_address(addr.ip().to_canonical(), request.headers(), &service.server.plain_from)),
        peer,
        id: id.clone(),
        note: note.clone(),
        service: service.clone(),
    };
    let upload = is_upload(&record.method, &record.path).then(|| service.metrics.upload());
    let mut request = request.map(|body| Received::body(body, activity.clone(), upload));
    request.extensions_mut().insert(peer);
    request.extensions_mut().insert(id.clone());
    request.extensions_mut().insert(note);
    let answered = AssertUnwindSafe(Box::pin(service.router.clone().oneshot(request))).catch_unwind();
    let mut response = match REQUEST_ID.scope(id.clone(), answered).await {
        Ok(Ok(response)) => response,
        Ok(Err(never)) => match never {},
        Err(panic) => {
            tracing::error!(request_id = id.0, panic = panic_text(&*panic), "a handler panicked");
            if record.route().is_none() {
                let status = StatusCode::INTERNAL_SERVER_ERROR;
                service.metrics.request("panic", &record.method, status, record.started.elapsed());
            }
            failure(peer.listener)
        }
    };
    let headers = response.headers_mut();
    if let Ok(value) = HeaderValue::from_str(&id.0) {
        headers.insert(X_REQUEST_ID, value);
    }
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    record.status = response.status();
    if let Some(route) = record.route() {
        service.metrics.request(route, &record.method, record.status, record.started.elapsed());
    }
    response.map(|body| Answer { body, waits: false, activity, record, _ended: ended })
}

/// The client's own id if it is one that can stand in a log and in a header, else a new one.
fn request_id(given: http::header::GetAll<'_, HeaderValue>, random: &Random) -> RequestId {
    let mut given = given.iter();
    if let (Some(value), None) = (given.next(), given.next())
        && let Ok(text) = value.to_str()
        && (8..=64).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    {
        return RequestId(text.to_owned());
    }
    new_request_id(random)
}

/// A random id.
pub(super) fn new_request_id(random: &Random) -> RequestId {
    let mut bytes = [0; 16];
    random(&mut bytes);
    RequestId(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn is_upload(method: &Method, path: &str) -> bool {
    matches!(*method, Method::POST | Method::PATCH | Method::PUT) && path.contains("/blobs/uploads/")
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("of unknown kind")
}

/// An answer of the listener's own, in the form of the API that lives there.
pub(super) fn error_body(listener: Listener, status: StatusCode, message: &str) -> Vec<u8> {
    match listener {
        Listener::Main | Listener::Ops => {
            let code = match status.is_server_error() && status != StatusCode::HTTP_VERSION_NOT_SUPPORTED {
                true => oci::ErrorCode::Unknown,
                false => oci::ErrorCode::Unsupported,
            };
            oci::error_body(&[oci::ErrorEntry { code, message: message.to_owned(), detail: None }])
        }
        Listener::Admin | Listener::Socket => {
            let code = if status.is_server_error() { "internal" } else { "invalid_request" };
            let error = serde_json::json!({"error": {"code": code, "message": message, "help": "", "details": {}}});
            error.to_string().into_bytes()
        }
    }
}

fn failure(listener: Listener) -> Response {
    let status = StatusCode::INTERNAL_SERVER_ERROR;
    let message = "the server failed; its log says why, under the id in X-Request-Id";
    let mut response = Response::new(Body::from(error_body(listener, status, message)));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// A request in flight.
struct InFlight(Arc<Activity>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.request_ended();
    }
}

/// The body of a request, which knows when it is waited for.
struct Received {
    body: Incoming,
    activity: Arc<Activity>,
    awaited: bool,
    ended: bool,
    _upload: Option<Held>,
}

impl Received {
    fn body(body: Incoming, activity: Arc<Activity>, upload: Option<Held>) -> Body {
        if body.is_end_stream() {
            return Body::empty();
        }
        Body::new(Self { body, activity, awaited: false, ended: false, _upload: upload })
    }

    fn came(&mut self) {
        if std::mem::take(&mut self.awaited) {
            self.activity.body_came();
        }
    }
}

impl http_body::Body for Received {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let this = &mut *self;
        let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(cx) else {
            if let Some(why) = this.activity.is_expired(cx.waker()) {
                this.came();
                let (kind, text) = match why {
                    Expired::Progress => (io::ErrorKind::TimedOut, "the body came more slowly than limits.progress"),
                    Expired::Stop => (io::ErrorKind::ConnectionAborted, "the server is stopping"),
                };
                return Poll::Ready(Some(Err(io::Error::new(kind, text))));
            }
            if !this.awaited {
                this.awaited = true;
                this.activity.body_awaited();
            }
            return Poll::Pending;
        };
        this.came();
        this.ended = frame.is_none() || this.body.is_end_stream();
        Poll::Ready(frame.map(|frame| frame.map_err(io::Error::other)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Received {
    fn drop(&mut self) {
        self.came();
        if !self.ended && !self.body.is_end_stream() {
            self.activity.body_left();
        }
    }
}

/// The body of an answer, which knows when a piece of it waits for the client. Its end is the end of the request.
pub(super) struct Answer {
    body: Body,
    waits: bool,
    activity: Arc<Activity>,
    record: Record,
    _ended: InFlight,
}

impl Answer {
    fn taken(&mut self) {
        if std::mem::take(&mut self.waits) {
            self.activity.answer_taken();
        }
    }
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = &mut *self;
        this.taken();
        let frame = ready!(Pin::new(&mut this.body).poll_frame(cx));
        if let Some(Ok(frame)) = &frame {
            this.record.sent += frame.data_ref().map_or(0, |data| data.len() as u64);
            this.waits = true;
            this.activity.answer_waits();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.taken();
        self.record.log();
    }
}

/// What the log says about a request when it has ended.
struct Record {
    started: Instant,
    method: Method,
    path: String,
    status: StatusCode,
    sent: u64,
    version: Version,
    /// Where it comes from, as far as the peer may say so; `None` of the socket.
    client: Option<IpAddr>,
    peer: Peer,
    id: RequestId,
    note: Note,
    service: Arc<Service>,
}

impl Record {
    /// The label of the metric; the routers of `/v2` and of the admin API count their requests themselves.
    fn route(&self) -> Option<&'static str> {
        match (self.peer.listener, self.path.as_str()) {
            (Listener::Main, _) => None,
            (_, "/healthz") => Some("healthz"),
            (_, "/readyz") => Some("readyz"),
            (_, "/metrics") => Some("metrics"),
            (Listener::Ops, _) => Some("unknown"),
            (Listener::Admin | Listener::Socket, _) => None,
        }
    }

    fn log(&self) {
        if self.status.is_client_error() && !self.service.refusals.may_log() {
            return;
        }
        let peer = self.peer.addr.map_or_else(|| "local".to_owned(), |addr| addr.ip().to_canonical().to_string());
        let path: String = self.path.chars().take(512).collect();
        let ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let (method, status) = (self.method.as_str(), self.status.as_u16());
        let subject = self.note.subject().unwrap_or("-");
        let client = self.client.map_or_else(|| "local".to_owned(), |client| client.to_string());
        let (listener, request_id) = (self.peer.listener.as_str(), self.id.0.as_str());
        let (bytes, protocol) = (self.sent, protocol(self.version));
        if matches!(self.path.as_str(), "/healthz" | "/readyz" | "/metrics") {
            tracing::debug!(method, path, status, bytes, ms, client, peer, protocol, listener, request_id, "request");
        } else {
            tracing::info!(
                method, path, status, bytes, ms, subject, client, peer, protocol, listener, request_id, "request"
            );
        }
    }
}

/// The version of HTTP as people write it.
fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_2 => "HTTP/2",
        Version::HTTP_11 => "HTTP/1.1",
        Version::HTTP_10 => "HTTP/1.0",
        _ => "other",
    }
}

/// Bounds the log lines that refused requests can cause.
#[derive(Debug, Default)]
pub(super) struct Refusals(Mutex<Second>);

#[derive(Debug, Default)]
struct Second {
    began: Option<Instant>,
    logged: u32,
    left_out: u64,
}

impl Refusals {
    /// Whether this one may have a line of its own.
    pub(super) fn may_log(&self) -> bool {
        let mut second = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if second.began.is_none_or(|began| now.duration_since(began).as_secs() >= 1) {
            let left_out = second.left_out;
            *second = Second { began: Some(now), logged: 0, left_out: 0 };
            if left_out > 0 {
                tracing::warn!(count = left_out, "refused requests were not logged one by one");
            }
        }
        let may = second.logged < REFUSALS_LOGGED;
        if may {
            second.logged += 1;
        } else {
            second.left_out += 1;
        }
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_ids_are_taken_over_only_if_they_are_harmless() {
        let random: Random = Arc::new(|bytes| bytes.fill(7));
        let id = |values: &[&str]| {
            let mut headers = http::HeaderMap::new();
            for value in values {
                headers.append(X_REQUEST_ID, HeaderValue::from_bytes(value.as_bytes()).unwrap());
            }
            request_id(headers.get_all(X_REQUEST_ID), &random).0
        };
        let new = "07".repeat(16);
        assert_eq!(id(&["abc-DEF-123"]), "abc-DEF-123");
        let long = "a".repeat(65);
        for values in [
            &[][..],
            &["short"],
            &["has space 1"],
            &["semi;colon;"],
            &[long.as_str()],
            &["abcdefgh", "abcdefgh"],
            &["é2345678"],
        ] {
            assert_eq!(id(values), new, "{values:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn i16_refused_requests_do_not_fill_the_log() {
        let refusals = Refusals::default();
        let logged = (0..1000).filter(|_| refusals.may_log()).count();
        assert_eq!(logged, 100);
        tokio::time::advance(std::time::Duration::from_secs(1)).await;
        assert!(refusals.may_log());
    }
}
