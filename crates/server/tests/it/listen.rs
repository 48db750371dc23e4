//! Connections, seen from the other end of a raw socket: what libraries hide.

mod http1;
mod http2;
mod tls;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::routing::{any, get, post};
use futures_util::StreamExt as _;
use server::config::{Config, Environment, Flags};
use server::listen::{self, Bound, Context, Phase, Serving, Tls};
use server::metrics::Metrics;
use server::state::{Listener, Peer, RequestId};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::watch;

/// A listener with handlers of its own.
pub struct Served {
    pub address: SocketAddr,
    pub metrics: Metrics,
    phase: watch::Sender<Phase>,
    serving: Serving,
}

pub fn config(settings: &[(&str, &str)]) -> Config {
    let variables = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let flags = Flags { data_dir: Some("/nonexistent/data".into()), ..Flags::default() };
    server::config::load(&flags, &Environment(variables)).unwrap()
}

fn router() -> Router {
    async fn echo(request: Request) -> Result<Bytes, String> {
        axum::body::to_bytes(request.into_body(), 64 << 20).await.map_err(|error| format!("the body failed: {error}"))
    }
    async fn who(request: Request) -> String {
        let peer = request.extensions().get::<Peer>().unwrap();
        let id = request.extensions().get::<RequestId>().unwrap();
        format!("{} {} {} {}", request.method(), request.uri(), peer.tls, id.0)
    }
    async fn endless() -> Body {
        let pieces = futures_util::stream::repeat(Bytes::from(vec![7; 256 << 10]));
        Body::from_stream(pieces.map(Ok::<_, std::io::Error>))
    }
    async fn slow() -> &'static str {
        tokio::time::sleep(Duration::from_millis(400)).await;
        "slow"
    }
    Router::new()
        .route("/", any(who))
        .route("/echo", post(echo).put(echo))
        .route("/refuse", any(|| async { (http::StatusCode::UNAUTHORIZED, "no") }))
        .route("/endless", get(endless))
        .route("/slow", get(slow))
        .route(
            "/panic",
            get(|| async {
                if true {
                    panic!("for the test")
                }
            }),
        )
}

impl Served {
    pub async fn new(settings: &[(&str, &str)]) -> Self {
        Self::with(config(settings), None).await
    }

    pub async fn with(config: Config, tls: Option<Arc<Tls>>) -> Self {
        let bound = Bound::tcp(Listener::Main, "server.listen", ([127, 0, 0, 1], 0).into()).unwrap();
        let address = bound.address().unwrap();
        let metrics = Metrics::new();
        let random = server::clock::system_random();
        let context = Context { config: Arc::new(config), tls, metrics: metrics.clone(), random };
        let (phase, seen) = watch::channel(Phase::Run);
        Self { address, metrics, phase, serving: listen::serve(bound, router(), &context, seen) }
    }

    pub async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Sends these bytes and reads to the end; a client that keeps its side open.
    pub async fn raw(&self, bytes: impl AsRef<[u8]>) -> String {
        let mut stream = self.connect().await;
        stream.write_all(bytes.as_ref()).await.unwrap();
        read_to_end(&mut stream).await
    }

    fn closed(&self, reason: &str) -> u64 {
        let line = format!("portcullis_connections_closed_total{{reason=\"{reason}\"}} ");
        let text = self.metrics.text();
        text.lines().find_map(|l| l.strip_prefix(&line)).map_or(0, |count| count.parse().unwrap())
    }
}

/// What comes until the end, as text; a reset is the end too, and marked.
async fn read_to_end(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut bytes)).await;
    let end = match read.expect("the connection ends") {
        Ok(_) => "",
        Err(_) => "<reset>",
    };
    format!("{}{end}", String::from_utf8_lossy(&bytes))
}

/// The first answer, up to the end of its head.
async fn read_head(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\r\n\r\n") {
        let byte = tokio::time::timeout(Duration::from_secs(10), stream.read_u8()).await.expect("an answer comes");
        bytes.push(byte.unwrap_or_else(|error| panic!("{error} after {}", String::from_utf8_lossy(&bytes))));
    }
    String::from_utf8(bytes).unwrap()
}

fn request(line: &str, headers: &str) -> String {
    format!("{line} HTTP/1.1\r\nHost: localhost:5000\r\n{headers}\r\n")
}

#[tokio::test]
async fn every_answer_has_an_id_and_forbids_guessing_types() {
    let served = Served::new(&[]).await;
    let close = "Connection: close\r\n";
    for (head, status) in [
        (request("GET /", close), "200 OK"),
        (request("GET /nowhere", close), "404 Not Found"),
        (request("BREW /", close), "200 OK"),
        (request("GET /panic", close), "500 Internal Server Error"),
        ("GET / HTTP/1.1\r\n\r\n".to_owned(), "400 Bad Request"),
        (request("GET /", &format!("A: {}\r\n", "a".repeat(40_000))), "431 Request Header Fields Too Large"),
        (request(&format!("GET /{}", "a".repeat(70_000)), ""), "414 URI Too Long"),
    ] {
        let answer = served.raw(&head).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{answer}");
        let lower = answer.to_ascii_lowercase();
        assert!(lower.contains("\r\nx-content-type-options: nosniff\r\n"), "{answer}");
        let id = lower.split("x-request-id: ").nth(1).unwrap().split("\r\n").next().unwrap();
        assert!(id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit()), "{answer}");
    }
    let given = served.raw(request("GET /x?y", "X-Request-Id: my-own-id-1\r\nConnection: close\r\n")).await;
    assert!(given.contains("x-request-id: my-own-id-1\r\n"), "{given}");
    let seen = served.raw(request("GET /?y", "X-Request-Id: my-own-id-2\r\nConnection: close\r\n")).await;
    assert!(seen.ends_with("GET /?y false my-own-id-2"), "{seen}");
}

// security: F-01
#[tokio::test]
async fn f01_what_can_be_read_in_two_ways_is_refused_and_nothing_after_it_is_believed() {
    let served = Served::new(&[]).await;
    let smuggled = request("GET /smuggled", "");
    for headers in [
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        "Content-Length: 3\r\nContent-Length: 5\r\n",
        "Transfer-Encoding: chunked, identity\r\n",
        "Transfer-Encoding: identity\r\n",
        "Transfer-Encoding : chunked\r\n",
        "Content-Length: 0\r\n folded: yes\r\n",
        "A: b\nC: d\r\n",
        "Host: evil.example\r\n",
    ] {
        let answer = served.raw(format!("{}0\r\n\r\n{smuggled}", request("POST /echo", headers))).await;
        assert!(answer.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{headers:?}: {answer}");
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{headers:?}: {answer}");
        assert!(answer.to_ascii_lowercase().contains("connection: close"), "{answer}");
    }
    assert_eq!(served.closed("malformed"), 9);
    for chunks in ["fffffffffffffffff\r\n", "5\nhello\r\n0\r\n\r\n", "-1\r\n", "5\r\nhelloX\r\n0\r\n\r\n"] {
        let head = request("POST /echo", "Transfer-Encoding: chunked\r\n");
        let answer = served.raw(format!("{head}{chunks}{smuggled}")).await;
        assert!(answer.contains("the body failed"), "{chunks:?}: {answer}");
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{chunks:?}: {answer}");
    }
}

#[tokio::test]
async fn q86_requests_in_a_row_and_in_one_piece_are_all_answered() {
    let served = Served::new(&[]).await;
    let chunked =
        format!("{}3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n", request("PUT /echo", "Transfer-Encoding: chunked\r\n"));
    let sized = format!("{}abcde", request("PUT /echo", "Content-Length: 5\r\n"));
    let all = [chunked.as_str(), &sized, &request("GET /slow", ""), &sized, &request("GET /", "Connection: close\r\n")];
    let answer = served.raw(all.concat()).await;
    assert_eq!(answer.matches("HTTP/1.1 200 OK").count(), 5, "{answer}");
    assert_eq!(answer.matches("abcde").count(), 3, "{answer}");
    let bad_end = [sized.as_str(), &request("GET /", "Host: two\r\n")].concat();
    let answer = served.raw(bad_end).await;
    assert!(answer.contains("HTTP/1.1 400"), "{answer}");
}

// security: I-02
#[tokio::test]
async fn i02_slow_heads_and_idle_connections_are_closed() {
    let settings = [("PORTCULLIS_LIMITS__HEADER_TIME", "400ms"), ("PORTCULLIS_LIMITS__IDLE", "800ms")];
    let served = Served::new(&settings).await;
    let mut silent = served.connect().await;
    let mut trickle = served.connect().await;
    let mut kept = served.connect().await;
    kept.write_all(request("GET /", "").as_bytes()).await.unwrap();
    read_head(&mut kept).await;
    let began = Instant::now();
    let good = async {
        // Others are served meanwhile, and a request may take longer than any of these limits.
        let answer = served.raw(request("GET /slow", "Connection: close\r\n")).await;
        assert!(answer.ends_with("slow"), "{answer}");
    };
    let slow = async {
        for byte in b"GET / HTTP/1.1\r\nHost: localhost" {
            if trickle.write_all(&[*byte]).await.is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(40)).await;
        }
        read_to_end(&mut trickle).await
    };
    let ((), silent, slow) = tokio::join!(good, read_to_end(&mut silent), slow);
    assert_eq!(silent, "", "nothing was asked, so nothing is answered");
    assert!(slow.starts_with("HTTP/1.1 408 Request Timeout\r\n"), "{slow}");
    read_to_end(&mut kept).await;
    assert!(began.elapsed() > Duration::from_millis(700) && began.elapsed() < Duration::from_secs(5));
    assert_eq!((served.closed("header_time"), served.closed("idle")), (2, 1));
}

// security: I-03
#[tokio::test]
async fn i03_slow_bodies_and_slow_readers_are_cut_by_progress_and_steady_ones_are_not() {
    let settings = [("PORTCULLIS_LIMITS__PROGRESS", "1KiB"), ("PORTCULLIS_LIMITS__PROGRESS_TIME", "800ms")];
    let served = Served::new(&settings).await;
    let slow = async {
        let mut stream = served.connect().await;
        stream.write_all(request("PUT /echo", "Content-Length: 100000\r\n").as_bytes()).await.unwrap();
        let (mut reader, mut writer) = stream.split();
        let write = async {
            while writer.write_all(b"x").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        let mut answer = vec![0; 4096];
        let read = tokio::time::timeout(Duration::from_secs(10), reader.read(&mut answer));
        let length = tokio::select! { length = read => length.unwrap().unwrap(), () = write => 0 };
        String::from_utf8_lossy(&answer[..length]).into_owned()
    };
    let steady = async {
        let mut stream = served.connect().await;
        let head = request("PUT /echo", "Content-Length: 6000\r\nConnection: close\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        for _ in 0..20 {
            stream.write_all(&[b'y'; 300]).await.unwrap();
            tokio::time::sleep(Duration::from_millis(120)).await;
        }
        read_to_end(&mut stream).await
    };
    let stuck = async {
        let mut stream = served.connect().await;
        stream.write_all(request("GET /endless", "").as_bytes()).await.unwrap();
        let began = Instant::now();
        while served.closed("progress") == 0 || stream.peek(&mut [0]).await.is_ok() && began.elapsed().as_secs() < 10 {
            tokio::time::sleep(Duration::from_millis(50)).await;
            if served.metrics.text().contains("portcullis_connections{listener=\"main\"} 0") {
                break;
            }
        }
        read_to_end(&mut stream).await
    };
    let (slow, steady, stuck) = tokio::join!(slow, steady, stuck);
    assert!(slow.contains("the body failed"), "the handler could answer: {slow}");
    assert!(steady.starts_with("HTTP/1.1 200 OK") && steady.matches('y').count() >= 6000, "{}", steady.len());
    assert!(stuck.ends_with("<reset>"), "{}", stuck.len());
    assert_eq!(served.closed("progress"), 2);
}

#[tokio::test]
async fn q85_an_early_answer_is_seen_by_a_client_that_sends_first_and_reads_then() {
    let served = Served::new(&[]).await;
    let body = vec![b'x'; 16 << 20];
    for headers in [format!("Content-Length: {}\r\n", body.len()), "Transfer-Encoding: chunked\r\n".to_owned()] {
        let mut stream = served.connect().await;
        stream.write_all(request("PUT /refuse", &headers).as_bytes()).await.unwrap();
        if headers.starts_with('T') {
            stream.write_all(format!("{:x}\r\n", body.len()).as_bytes()).await.unwrap();
        }
        stream.write_all(&body).await.expect("what is sent is taken in");
        let answer = read_to_end(&mut stream).await;
        assert!(answer.starts_with("HTTP/1.1 401 ") && !answer.contains("<reset>"), "{answer}");
    }
    // A head that is refused, with more behind it.
    let head = request("PUT /echo", "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n");
    let mut stream = served.connect().await;
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&body).await.expect("what is sent is taken in");
    let answer = read_to_end(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 400 ") && !answer.contains("<reset>"), "{answer}");
}

#[tokio::test]
async fn q34_a_client_that_asks_before_it_sends_is_answered_at_once() {
    let served = Served::new(&[]).await;
    let expect = "Content-Length: 5\r\nExpect: 100-continue\r\n";
    let mut stream = served.connect().await;
    stream.write_all(request("PUT /echo", expect).as_bytes()).await.unwrap();
    assert!(read_head(&mut stream).await.starts_with("HTTP/1.1 100 Continue\r\n"));
    stream.write_all(b"hello").await.unwrap();
    assert!(read_head(&mut stream).await.starts_with("HTTP/1.1 200 OK\r\n"));
    let mut stream = served.connect().await;
    stream.write_all(request("PUT /refuse", expect).as_bytes()).await.unwrap();
    assert!(read_head(&mut stream).await.starts_with("HTTP/1.1 401 "), "no 100 before a refusal");
}

// security: F-11
#[tokio::test]
async fn f11_clients_that_go_away_leave_nothing_behind() {
    let served = Served::new(&[]).await;
    for round in 0..60 {
        let mut stream = served.connect().await;
        let head = match round % 4 {
            0 => "GET /endl".to_owned(),
            1 => request("GET /endless", ""),
            2 => request("PUT /echo", "Content-Length: 100\r\n"),
            _ => String::new(),
        };
        stream.write_all(head.as_bytes()).await.unwrap();
        if round % 8 < 4 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
    let none = "portcullis_connections{listener=\"main\"} 0";
    let began = Instant::now();
    while !served.metrics.text().contains(none) && began.elapsed() < Duration::from_secs(10) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(served.metrics.text().contains(none), "{}", served.metrics.text());
}

#[tokio::test]
async fn i02_when_there_are_too_many_the_one_that_waited_longest_makes_room() {
    let served = Served::new(&[("PORTCULLIS_LIMITS__CONNECTIONS", "4")]).await;
    let mut waiting = Vec::new();
    for _ in 0..4 {
        waiting.push(served.connect().await);
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let answer = served.raw(request("GET /slow", "Connection: close\r\n")).await;
    assert!(answer.ends_with("slow"), "{answer}");
    assert_eq!(read_to_end(&mut waiting[0]).await, "");
    assert_eq!(served.closed("limit"), 1);
    // All busy: the next one waits its turn and is served.
    let busy: Vec<_> = (0..6).map(|_| served.raw(request("GET /slow", "Connection: close\r\n"))).collect();
    for answer in futures_util::future::join_all(busy).await {
        assert!(answer.ends_with("slow"), "{answer}");
    }
}

#[tokio::test]
async fn n10_draining_lets_requests_finish_and_closes_what_waits() {
    let mut served = Served::new(&[]).await;
    let mut idle = served.connect().await;
    idle.write_all(request("GET /", "").as_bytes()).await.unwrap();
    read_head(&mut idle).await;
    let mut fresh = served.connect().await;
    let mut half = served.connect().await;
    half.write_all(b"GET / HTTP/1.1\r\nHo").await.unwrap();
    let mut busy = served.connect().await;
    busy.write_all(request("GET /slow", "").as_bytes()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    served.phase.send_replace(Phase::Drain);
    let began = Instant::now();
    let waiting = async { tokio::join!(read_to_end(&mut idle), read_to_end(&mut fresh), read_to_end(&mut half)) };
    let (answer, _) = tokio::join!(read_to_end(&mut busy), waiting);
    assert!(answer.ends_with("slow") && answer.to_ascii_lowercase().contains("connection: close"), "{answer}");
    served.serving.ended().await;
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    assert!(TcpStream::connect(served.address).await.is_err(), "nothing is accepted any more");
}

#[tokio::test]
async fn n10_what_does_not_finish_is_ended_so_that_the_handler_can_answer() {
    let mut served = Served::new(&[]).await;
    let mut upload = served.connect().await;
    upload.write_all(request("PUT /echo", "Content-Length: 100\r\n").as_bytes()).await.unwrap();
    let mut download = served.connect().await;
    download.write_all(request("GET /endless", "").as_bytes()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    served.phase.send_replace(Phase::Drain);
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(served.serving.connections(), 2);
    served.phase.send_replace(Phase::Cut);
    assert!(read_to_end(&mut upload).await.contains("the body failed"));
    tokio::time::timeout(Duration::from_secs(5), served.serving.ended()).await.unwrap();
}

#[tokio::test]
async fn the_socket_is_for_its_owner() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("admin.sock");
    std::fs::write(&path, "left over").unwrap();
    let bound = Bound::unix(&path).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
    let context = Context {
        config: Arc::new(config(&[])),
        tls: None,
        metrics: Metrics::new(),
        random: server::clock::system_random(),
    };
    let (_phase, seen) = watch::channel(Phase::Run);
    let _serving = listen::serve(bound, router(), &context, seen);
    let mut stream = tokio::net::UnixStream::connect(&path).await.unwrap();
    stream.write_all(request("GET /", "Connection: close\r\n").as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    let long = dir.path().join("x".repeat(120));
    assert_eq!(Bound::unix(&long).unwrap_err().code(), "data_dir_damaged");
}
