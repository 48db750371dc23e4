//! The body of a request.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::{Body, BodyDataStream};
use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt};
use http::header::{CONTENT_LENGTH, EXPECT};
use http::request::Parts;

use super::error::Failure;
use super::respond;

/// A body that may be left unread. What is left of it when it is dropped is taken in, within bounds, beside the answer:
/// a client that is still sending would otherwise see its connection reset instead of the answer (Q85).
pub struct RequestBody {
    stream: Option<BodyDataStream>,
    /// The client waits to be told to send (`Expect: 100-continue`), and nothing has told it yet.
    held: bool,
    length: Option<u64>,
}

impl RequestBody {
    /// The body of this request.
    pub fn new(parts: &Parts, body: Body) -> Self {
        let length = parts.headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
        Self { held: parts.headers.contains_key(EXPECT), stream: Some(body.into_data_stream()), length }
    }

    /// `Content-Length`.
    pub fn length(&self) -> Option<u64> {
        self.length
    }

    /// All of it, if it is not longer than this.
    pub async fn read(mut self, limit: usize) -> Result<Bytes, Failure> {
        let too_large = || Failure::TooLarge(limit as u64);
        if self.length.is_some_and(|length| length > limit as u64) {
            return Err(too_large());
        }
        // At once, where it is said: growing copies, and what does not come is never resident.
        let mut whole = BytesMut::with_capacity(self.length.and_then(|length| length.try_into().ok()).unwrap_or(0));
        while let Some(piece) = self.next().await {
            let piece = piece.map_err(Failure::Cut)?;
            if whole.len() + piece.len() > limit {
                return Err(too_large());
            }
            whole.extend_from_slice(&piece);
        }
        Ok(whole.freeze())
    }
}

impl Stream for RequestBody {
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.held = false;
        let Some(stream) = &mut self.stream else { return Poll::Ready(None) };
        let next = futures_util::ready!(stream.poll_next_unpin(cx));
        if !matches!(next, Some(Ok(_))) {
            self.stream = None;
        }
        Poll::Ready(next.map(|piece| piece.map_err(io_error)))
    }
}

/// The listener's own error, which says why a body was cut off.
pub fn io_error(error: axum::Error) -> io::Error {
    error.into_inner().downcast::<io::Error>().map_or_else(io::Error::other, |error| *error)
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        if let Some(stream) = self.stream.take().filter(|_| !self.held && self.length != Some(0)) {
            respond::drain(stream);
        }
    }
}
