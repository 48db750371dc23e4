//! HTTP/2 as bytes.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::Served;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// `GET /` of `localhost`, in the static table's words.
fn get() -> Vec<u8> {
    [&[0x82, 0x86, 0x84, 0x41, 9][..], b"localhost"].concat()
}

async fn connect(served: &Served) -> TcpStream {
    let mut stream = served.connect().await;
    stream.write_all(PREFACE).await.unwrap();
    stream.write_all(&frame(SETTINGS, 0, 0, &[])).await.unwrap();
    stream
}

/// Kinds and payloads of the frames that come, to the end or for two seconds.
async fn frames(stream: &mut TcpStream) -> Vec<(u8, Vec<u8>)> {
    let mut bytes = Vec::new();
    let _ = tokio::time::timeout(Duration::from_secs(2), stream.read_to_end(&mut bytes)).await;
    let mut rest = bytes.as_slice();
    let mut frames = Vec::new();
    while rest.len() >= 9 {
        let length = u32::from_be_bytes([0, rest[0], rest[1], rest[2]]) as usize;
        let Some(payload) = rest.get(9..9 + length) else { break };
        frames.push((rest[3], payload.to_vec()));
        rest = &rest[9 + length..];
    }
    frames
}

#[tokio::test]
async fn q86_http2_without_negotiation_is_spoken() {
    let served = Served::new(&[]).await;
    let mut stream = connect(&served).await;
    stream.write_all(&frame(HEADERS, END_STREAM | END_HEADERS, 1, &get())).await.unwrap();
    let frames = frames(&mut stream).await;
    let data: Vec<u8> =
        frames.iter().filter(|(kind, _)| *kind == DATA).flat_map(|(_, payload)| payload.clone()).collect();
    assert!(String::from_utf8(data).unwrap().starts_with("GET http://localhost/ false "), "{frames:?}");
}

// security: I-10
#[tokio::test]
async fn i10_streams_that_are_opened_and_reset_end_the_connection() {
    let served = Served::new(&[]).await;
    let mut stream = connect(&served).await;
    let mut flood = Vec::new();
    for id in (1..20_001).step_by(2) {
        flood.extend(frame(HEADERS, END_STREAM | END_HEADERS, id, &get()));
        flood.extend(frame(RST_STREAM, 0, id, &8_u32.to_be_bytes()));
    }
    // The server may be gone before all of it is sent.
    let _ = stream.write_all(&flood).await;
    let answer = frames(&mut stream).await;
    assert!(answer.iter().any(|(kind, _)| *kind == GOAWAY), "{:?}", answer.iter().map(|f| f.0).collect::<Vec<_>>());
    let mut other = connect(&served).await;
    other.write_all(&frame(HEADERS, END_STREAM | END_HEADERS, 1, &get())).await.unwrap();
    assert!(frames(&mut other).await.iter().any(|(kind, _)| *kind == DATA), "others are served");
}

// security: I-11
#[tokio::test]
async fn i11_headers_that_never_end_end_the_connection() {
    let served = Served::new(&[]).await;
    let mut stream = connect(&served).await;
    stream.write_all(&frame(HEADERS, END_STREAM, 1, &get())).await.unwrap();
    // A header that is not indexed, again and again.
    let more = [&[0, 1, b'a', 127, 127][..], &[b'b'; 254]].concat();
    let mut sent = 0;
    while sent < 8 << 20 {
        let next = frame(CONTINUATION, 0, 1, &more);
        if stream.write_all(&next).await.is_err() {
            break;
        }
        sent += next.len();
    }
    let mut rest = Vec::new();
    let ended = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut rest)).await;
    assert!(sent < 8 << 20 || ended.is_ok(), "closed");
}

#[tokio::test]
async fn i02_a_connection_without_requests_is_closed_politely() {
    let settings = [("PORTCULLIS_LIMITS__HEADER_TIME", "300ms"), ("PORTCULLIS_LIMITS__IDLE", "300ms")];
    let served = Served::new(&settings).await;
    let mut never = connect(&served).await;
    frames(&mut never).await;
    let mut idle = connect(&served).await;
    idle.write_all(&frame(HEADERS, END_STREAM | END_HEADERS, 1, &get())).await.unwrap();
    let answer = frames(&mut idle).await;
    assert!(answer.iter().any(|(kind, _)| *kind == GOAWAY), "{answer:?}");
    assert_eq!((served.closed("header_time"), served.closed("idle")), (1, 1));
}

/// A stream whose window is closed holds what was read for it, and nobody may hold that for ever.
// security: I-03
#[tokio::test]
async fn i03_an_answer_for_which_the_window_stays_closed_ends_the_connection() {
    let settings = [("PORTCULLIS_LIMITS__PROGRESS", "1KiB"), ("PORTCULLIS_LIMITS__PROGRESS_TIME", "800ms")];
    let served = Served::new(&settings).await;
    let mut stream = served.connect().await;
    stream.write_all(PREFACE).await.unwrap();
    // SETTINGS_INITIAL_WINDOW_SIZE 0
    stream.write_all(&frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0])).await.unwrap();
    let endless = [&[0x82, 0x86, 0x04, 8][..], b"/endless", &[0x41, 9], b"localhost"].concat();
    stream.write_all(&frame(HEADERS, END_STREAM | END_HEADERS, 1, &endless)).await.unwrap();
    let mut bytes = Vec::new();
    let ended = tokio::time::timeout(Duration::from_secs(15), stream.read_to_end(&mut bytes)).await;
    assert!(ended.is_ok(), "the connection ends");
    assert_eq!(served.closed("progress"), 1);
}

/// A body of which one byte comes now and then.
// security: I-03
#[tokio::test]
async fn i03_a_body_that_hardly_moves_ends() {
    let settings = [("PORTCULLIS_LIMITS__PROGRESS", "1KiB"), ("PORTCULLIS_LIMITS__PROGRESS_TIME", "800ms")];
    let served = Served::new(&settings).await;
    let mut stream = connect(&served).await;
    let put = [&[0x02, 3][..], b"PUT", &[0x86, 0x04, 5], b"/echo", &[0x41, 9], b"localhost"].concat();
    stream.write_all(&frame(HEADERS, END_HEADERS, 1, &put)).await.unwrap();
    let (mut reader, mut writer) = stream.split();
    let trickle = async {
        while writer.write_all(&frame(DATA, 0, 1, b"x")).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        std::future::pending::<()>().await;
    };
    let mut bytes = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(15), reader.read_to_end(&mut bytes));
    tokio::select! { () = trickle => {}, read = read => assert!(read.is_ok(), "the connection ends") }
    assert!(String::from_utf8_lossy(&bytes).contains("the body failed"), "the handler could answer");
}
