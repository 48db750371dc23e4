//! Answers and their bodies.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use axum::response::Response;
use blobs::{ReadFile, Source};
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use http_body::{Frame, SizeHint};
use prometheus_client::metrics::counter::Counter;

/// `Docker-Content-Digest`.
pub const DOCKER_CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");
/// `Docker-Upload-UUID`.
pub const DOCKER_UPLOAD_UUID: HeaderName = HeaderName::from_static("docker-upload-uuid");
/// `OCI-Subject`.
pub const OCI_SUBJECT: HeaderName = HeaderName::from_static("oci-subject");
/// `OCI-Tag`.
pub const OCI_TAG: HeaderName = HeaderName::from_static("oci-tag");
/// `OCI-Filters-Applied`.
pub const OCI_FILTERS_APPLIED: HeaderName = HeaderName::from_static("oci-filters-applied");

/// How much is read from the store at once, and the only part of a blob that is held in memory.
const CHUNK: u64 = 256 * 1024;

/// How much of a body that nobody wants is taken in, so that the client reads the answer instead of seeing a reset.
const DRAIN: usize = 1024 * 1024;
const DRAIN_TIME: Duration = Duration::from_secs(5);

/// An answer without a body. Its length is said to be 0, where an answer of this status has one at all.
pub fn empty(status: StatusCode) -> Response {
    let mut response = Response::new(Body::new(Nothing));
    *response.status_mut() = status;
    if status != StatusCode::NO_CONTENT && status != StatusCode::NOT_MODIFIED {
        response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
    }
    response
}

/// No body, of no length: an empty one would be given a `Content-Length`, which 204 must not have and which would be
/// wrong with 304 and with the answer to HEAD.
pub struct Nothing;

impl http_body::Body for Nothing {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        Poll::Ready(None)
    }

    fn is_end_stream(&self) -> bool {
        true
    }
}

/// An answer with these bytes.
pub fn bytes(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Response {
    let body = body.into();
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
    *response.body_mut() = Body::from(body);
    response
}

/// An answer in JSON.
pub fn json(status: StatusCode, value: &serde_json::Value) -> Response {
    bytes(status, "application/json", value.to_string().into_bytes())
}

/// Sets a header whose value we made; what would not fit in a header is left out.
pub fn set(headers: &mut HeaderMap, name: HeaderName, value: impl AsRef<[u8]>) {
    if let Ok(value) = HeaderValue::from_bytes(value.as_ref()) {
        headers.insert(name, value);
    }
}

/// Takes in a bounded part of a body beside the answer that does not need it. A body that the client holds back until it
/// is told to go on (`Expect: 100-continue`) must not be passed: reading would tell it to.
pub fn drain(mut stream: BodyDataStream) {
    let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
    runtime.spawn(tokio::time::timeout(DRAIN_TIME, async move {
        let mut taken = 0;
        while let Some(Ok(piece)) = stream.next().await {
            taken += piece.len();
            if taken > DRAIN {
                break;
            }
        }
    }));
}

/// A part of an answer's body.
pub enum Piece {
    /// Bytes in memory.
    Bytes(Bytes),
    /// Bytes of the store.
    Source(Source),
}

/// A body made of pieces, read from the store as the client takes it: one chunk at a time, nothing any more once the
/// connection is gone. A read that fails, or a file that has become shorter, ends the connection, never the body.
pub struct Pieces {
    queue: VecDeque<Piece>,
    reading: Option<BoxFuture<'static, io::Result<Bytes>>>,
    left: u64,
    sent: Counter,
}

impl Pieces {
    /// A body of these pieces, whose bytes are counted as they are sent.
    pub fn new(pieces: impl IntoIterator<Item = Piece>, sent: Counter) -> Self {
        let queue: VecDeque<Piece> = pieces.into_iter().collect();
        let left = queue.iter().map(Piece::length).sum();
        Self { queue, reading: None, left, sent }
    }

    /// How many bytes it has.
    pub fn length(&self) -> u64 {
        self.left
    }

    /// Bytes that are at hand, or `None` after having begun to read; `Some(None)` at the end.
    fn next(&mut self) -> Option<Option<Bytes>> {
        match self.queue.pop_front() {
            None => Some(None),
            Some(Piece::Bytes(bytes) | Piece::Source(Source::Inline(bytes))) => Some(Some(bytes)),
            Some(Piece::Source(Source::File { length: 0, .. })) => Some(Some(Bytes::new())),
            Some(Piece::Source(Source::File { file, offset, length })) => {
                let now = length.min(CHUNK);
                if length > now {
                    let rest = Source::File { file: file.clone(), offset: offset + now, length: length - now };
                    self.queue.push_front(Piece::Source(rest));
                }
                self.reading = Some(read(file, offset, now));
                None
            }
        }
    }
}

impl Piece {
    fn length(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Source(source) => source.length(),
        }
    }
}

fn read(file: ReadFile, offset: u64, length: u64) -> BoxFuture<'static, io::Result<Bytes>> {
    Box::pin(async move {
        let result = blobs::read_chunk(&file, offset, length).await;
        if let Err(error) = &result {
            tracing::error!(offset, length, %error, "reading a blob that is being served");
        }
        result
    })
}

impl http_body::Body for Pieces {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        loop {
            let bytes = if let Some(reading) = &mut self.reading {
                let result = ready!(reading.as_mut().poll(cx));
                self.reading = None;
                match result {
                    Ok(bytes) => bytes,
                    Err(error) => {
                        self.queue.clear();
                        return Poll::Ready(Some(Err(error)));
                    }
                }
            } else {
                match self.next() {
                    None => continue,
                    Some(None) => return Poll::Ready(None),
                    Some(Some(bytes)) if bytes.is_empty() => continue,
                    Some(Some(bytes)) => bytes,
                }
            };
            let length = bytes.len() as u64;
            self.left = self.left.saturating_sub(length);
            self.sent.inc_by(length);
            return Poll::Ready(Some(Ok(Frame::data(bytes))));
        }
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    fn file_of(bytes: &[u8]) -> ReadFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        file.reopen().unwrap().into()
    }

    #[tokio::test]
    async fn pieces_in_their_order_chunk_by_chunk() {
        let bytes: Vec<u8> = (0..=255).cycle().take(600 * 1024).collect();
        let file = file_of(&bytes);
        let source = |offset, length| Piece::Source(Source::File { file: file.clone(), offset, length });
        let sent = Counter::default();
        let mut body = Pieces::new(
            [
                Piece::Bytes(Bytes::from_static(b"head")),
                source(10, 0),
                source(1, 600 * 1024 - 1),
                Piece::Source(Source::Inline(Bytes::from_static(b"tail"))),
            ],
            sent.clone(),
        );
        assert_eq!(body.length(), 600 * 1024 + 7);
        let mut whole = Vec::new();
        while let Some(frame) = body.frame().await {
            let data = frame.unwrap().into_data().unwrap();
            assert!(data.len() as u64 <= CHUNK);
            whole.extend_from_slice(&data);
        }
        assert_eq!(whole, [&b"head"[..], &bytes[1..], b"tail"].concat());
        assert_eq!(sent.get(), whole.len() as u64);
    }

    #[tokio::test]
    async fn a_file_that_became_shorter_is_an_error_and_no_end() {
        let source = Source::File { file: file_of(b"0123"), offset: 0, length: 10 };
        let mut body = Pieces::new([Piece::Source(source)], Counter::default());
        assert!(body.frame().await.unwrap().is_err());
        assert!(body.frame().await.is_none());
    }
}
