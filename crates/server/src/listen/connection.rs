//! One connection, from its first byte to the last.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use bytes::Bytes;
use http::{Request, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use oci::Random;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::Instant;

use super::Phase;
use super::activity::{Activity, Expired, Verdict, Watch};
use super::framing::Refusal;
use super::request::{Answer, Refusals, error_body, handle, new_request_id};
use super::socket::{Protocol, Socket, Transport, sniff};
use super::table::{Place, Table};
use super::tls::Tls;
use crate::config::{LimitsConfig, ServerConfig};
use crate::metrics::{Closed, Metrics};
use crate::state::{Listener, Peer};

/// What a handler gets to keep what it has and answer, after its body was ended.
const LAST_WORDS: Duration = Duration::from_secs(5);
/// While the server stops, a request whose head has begun gets this long to be one.
const LAST_HEAD: Duration = Duration::from_millis(500);
/// For this long what the client still sends is taken in after the last answer: closing a socket with unread bytes resets
/// it, and the client would not see its answer (Q85).
const LINGER_TIME: Duration = Duration::from_secs(5);
/// The first byte of a TLS record with a handshake.
const TLS_HANDSHAKE: u8 = 0x16;
/// Reads of bodies: large enough to be cheap, small enough for hundreds at a time in little memory.
const READ_BUFFER: usize = 128 << 10;
const STREAM_WINDOW: u32 = 512 << 10;
const CONNECTION_WINDOW: u32 = 1 << 20;
const STREAMS: u32 = 128;

/// What all connections of one listener share.
pub(super) struct Service {
    pub router: Router,
    pub listener: Listener,
    pub limits: LimitsConfig,
    pub server: ServerConfig,
    pub tls: Option<Arc<Tls>>,
    pub table: Table,
    pub metrics: Metrics,
    pub random: Random,
    pub refusals: Refusals,
}

/// A connection of which it is known what is spoken.
struct Opened {
    transport: Transport,
    tls: bool,
    protocol: Protocol,
    prefix: Bytes,
}

/// How the driving of a connection ended.
enum End {
    /// The library is done with it.
    Done,
    /// Close it with this answer.
    Refuse(Refusal),
    /// Close it with a reset.
    Abort,
}

/// Serves one connection to its end. `place` is given back at the end.
pub(super) async fn serve(
    service: Arc<Service>,
    transport: Transport,
    addr: Option<SocketAddr>,
    place: Place,
    mut phase: watch::Receiver<Phase>,
) {
    let _counted = service.metrics.connection(service.listener);
    let activity = place.activity().clone();
    let opened = tokio::select! {
        opened = tokio::time::timeout(service.limits.header_time, open(&service, transport, addr, &activity)) => opened,
        () = activity.evicted() => return service.metrics.connection_closed(Closed::Limit),
        _ = phase.wait_for(|phase| *phase != Phase::Run) => return,
    };
    let opened = match opened {
        Ok(Ok(opened)) => opened,
        Ok(Err(None)) => return,
        Ok(Err(Some(reason))) => return service.metrics.connection_closed(reason),
        Err(_) => return service.metrics.connection_closed(Closed::HeaderTime),
    };
    let peer = Peer { addr, tls: opened.tls, listener: service.listener };
    let header = service.limits.header.as_usize();
    let limit = (opened.protocol == Protocol::Http1).then_some(header);
    let socket = Socket::new(opened.transport, activity.clone(), opened.prefix, limit);
    let driver =
        Driver { service: service.clone(), activity: activity.clone(), socket: socket.clone(), phase: phase.clone() };
    let handler = Handler { service: service.clone(), peer, activity: activity.clone() };
    let io = TokioIo::new(socket.clone());
    let end = match opened.protocol {
        Protocol::Http1 => {
            let connection = Box::pin(http1_builder(header).serve_connection(io, handler));
            driver.drive(connection, false, |connection| connection.graceful_shutdown()).await
        }
        Protocol::Http2 => {
            let connection = Box::pin(http2_builder(header).serve_connection(io, handler));
            driver.drive(connection, true, |connection| connection.graceful_shutdown()).await
        }
    };
    let refusal = match end {
        End::Done => socket.refusal(),
        End::Refuse(refusal) => Some(refusal),
        End::Abort => {
            socket.abort_on_close();
            return;
        }
    };
    let last = refusal.map(|refusal| refuse(&service, peer, refusal));
    let more_may_come = last.is_some() || activity.has_unread();
    let linger = match (opened.protocol, *phase.borrow()) {
        (Protocol::Http1, Phase::Run) if more_may_come => LINGER_TIME,
        (Protocol::Http1, Phase::Drain | Phase::Cut) if more_may_come => LINGER_TIME / 5,
        _ => Duration::ZERO,
    };
    socket.close(last, linger).await;
}

/// TLS, if it is to be, and the version of HTTP. `Err(None)`: the client went away.
async fn open(
    service: &Service,
    transport: Transport,
    addr: Option<SocketAddr>,
    activity: &Activity,
) -> Result<Opened, Option<Closed>> {
    let gone = |_: io::Error| None;
    let (mut transport, tls) = match (transport, &service.tls) {
        (Transport::Tcp(stream), Some(tls)) => {
            let plain = addr.is_some_and(|addr| service.server.may_speak_plain(addr.ip()));
            if plain && first_byte(&stream).await.map_err(gone)? != TLS_HANDSHAKE {
                (Transport::Tcp(stream), false)
            } else {
                let stream = tls.acceptor().accept(stream).await.map_err(|error| {
                    tracing::debug!(%error, "a TLS handshake failed");
                    Some(Closed::Handshake)
                })?;
                (Transport::Tls(Box::new(stream)), true)
            }
        }
        (transport, _) => (transport, false),
    };
    let (protocol, prefix) = match &transport {
        Transport::Tls(stream) if stream.get_ref().1.alpn_protocol() == Some(b"h2") => (Protocol::Http2, Bytes::new()),
        Transport::Tls(_) => (Protocol::Http1, Bytes::new()),
        Transport::Tcp(_) | Transport::Unix(_) => sniff(&mut transport, activity).await.map_err(gone)?,
    };
    Ok(Opened { transport, tls, protocol, prefix })
}

async fn first_byte(stream: &TcpStream) -> io::Result<u8> {
    let mut byte = [0];
    match stream.peek(&mut byte).await? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(byte[0]),
    }
}

/// Deadlines and the size of heads are kept by [`Driver`] and [`Socket`], which can tell a head from an idle connection;
/// the library's own are the second line.
fn http1_builder(header: usize) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        // Who has asked and closes its side still waits for the answer; who is gone is found out by writing it.
        .half_close(true)
        .header_read_timeout(None)
        .max_header_size(header + 1024)
        .max_buf_size(READ_BUFFER.max(header + 1024));
    builder
}

fn http2_builder(header: usize) -> http2::Builder<TokioExecutor> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(u32::try_from(header).unwrap_or(u32::MAX))
        .max_pending_accept_reset_streams(20)
        .max_local_error_reset_streams(128)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(256 << 10)
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(20));
    builder
}

struct Driver {
    service: Arc<Service>,
    activity: Arc<Activity>,
    socket: Socket,
    phase: watch::Receiver<Phase>,
}

impl Driver {
    /// Runs the library's connection, looks now and then what it is doing, and ends it when it has to.
    async fn drive<C>(mut self, mut connection: Pin<Box<C>>, http2: bool, goodbye: impl Fn(Pin<&mut C>)) -> End
    where
        C: Future<Output = hyper::Result<()>>,
    {
        let mut watch = Watch::new(self.service.limits.clone(), &self.activity);
        let mut looks = tokio::time::interval(watch.interval());
        let mut seen = Phase::Run;
        let mut evicted = false;
        let mut deadline: Option<Instant> = None;
        let mut last_head: Option<Instant> = None;
        loop {
            tokio::select! {
                _ = connection.as_mut() => return End::Done,
                now = looks.tick() => {
                    let verdict = watch.look(&self.activity, http2);
                    if let (Some(reason), None) = (verdict.reason(), deadline) {
                        self.service.metrics.connection_closed(reason);
                    }
                    match verdict {
                        Verdict::Fine => {}
                        Verdict::Idle => {
                            goodbye(connection.as_mut());
                            deadline = Some(deadline.unwrap_or(now + Duration::from_secs(1)));
                        }
                        Verdict::Head => return if http2 { End::Done } else { End::Refuse(HEAD_TOO_SLOW) },
                        Verdict::Body => {
                            self.activity.expire(Expired::Progress);
                            goodbye(connection.as_mut());
                            deadline = Some(deadline.unwrap_or(now + LAST_WORDS));
                        }
                        Verdict::Answer => return End::Abort,
                    }
                }
                now = until(deadline.into_iter().chain(last_head).min()) => {
                    if deadline.is_some_and(|at| now >= at) {
                        return End::Abort;
                    }
                    if self.activity.waiting_since().is_some() {
                        return End::Done;
                    }
                    // It became a request, and the library knows that it is the last one.
                    last_head = None;
                }
                () = self.activity.evicted(), if !evicted => {
                    evicted = true;
                    self.service.metrics.connection_closed(Closed::Limit);
                    if self.is_waiting(http2) {
                        return End::Done;
                    }
                    goodbye(connection.as_mut());
                }
                phase = next_phase(&mut self.phase, seen) => {
                    seen = phase;
                    last_head = Some(Instant::now() + LAST_HEAD);
                    if phase == Phase::Drain && self.is_waiting(http2) {
                        return End::Done;
                    }
                    goodbye(connection.as_mut());
                    if phase == Phase::Cut {
                        self.activity.expire(Expired::Stop);
                        deadline = Some(Instant::now() + Duration::from_secs(1));
                    }
                }
            }
        }
    }

    /// Whether nothing of a request has come and nothing of an answer is to be sent. HTTP/2 says goodbye by itself.
    fn is_waiting(&self, http2: bool) -> bool {
        !http2 && self.activity.waiting_since().is_some() && !self.socket.in_head()
    }
}

const HEAD_TOO_SLOW: Refusal = Refusal {
    status: StatusCode::REQUEST_TIMEOUT,
    reason: "the head of the request took longer than limits.header_time",
};

/// Resolves at this time, with it; without one, never.
async fn until(time: Option<Instant>) -> Instant {
    match time {
        Some(time) => {
            tokio::time::sleep_until(time).await;
            time
        }
        None => std::future::pending().await,
    }
}

/// The next phase after `seen`; never resolves once there can be none.
async fn next_phase(phase: &mut watch::Receiver<Phase>, seen: Phase) -> Phase {
    let next = phase.wait_for(|phase| *phase > seen).await.map(|phase| *phase);
    match next {
        Ok(next) => next,
        // The listener is gone: the process is about to end.
        Err(_) => std::future::pending().await,
    }
}

/// Turns the library's requests into ours.
struct Handler {
    service: Arc<Service>,
    peer: Peer,
    activity: Arc<Activity>,
}

impl hyper::service::Service<Request<Incoming>> for Handler {
    type Response = http::Response<Answer>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let (service, activity, peer) = (self.service.clone(), self.activity.clone(), self.peer);
        Box::pin(async move { Ok(handle(service, peer, activity, request).await) })
    }
}

/// The answer to a head that never reached a handler, as it goes on the wire. Also counts and logs it.
fn refuse(service: &Service, peer: Peer, refusal: Refusal) -> Vec<u8> {
    let id = new_request_id(&service.random);
    if refusal.status != StatusCode::REQUEST_TIMEOUT {
        service.metrics.connection_closed(Closed::Malformed);
    }
    if service.refusals.may_log() {
        let peer = peer.addr.map_or_else(|| "local".to_owned(), |addr| addr.ip().to_canonical().to_string());
        let (status, reason) = (refusal.status.as_u16(), refusal.reason);
        let listener = service.listener.as_str();
        tracing::info!(status, reason, peer, listener, request_id = id.0, "refused a request");
    }
    let body = error_body(service.listener, refusal.status, refusal.reason);
    let version = match service.listener {
        Listener::Main => "Docker-Distribution-Api-Version: registry/2.0\r\n",
        Listener::Admin | Listener::Ops | Listener::Socket => "",
    };
    let mut answer = format!(
        "HTTP/1.1 {}\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n{version}X-Request-Id: {}\r\n\
         X-Content-Type-Options: nosniff\r\n\r\n",
        refusal.status,
        body.len(),
        id.0,
    )
    .into_bytes();
    answer.extend_from_slice(&body);
    answer
}
