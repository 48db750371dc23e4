//! Blobs: read, in ranges too, and delete.

use axum::body::Body;
use axum::response::Response;
use blobs::Source;
use bytes::Bytes;
use http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, IF_MATCH, IF_NONE_MATCH, IF_RANGE,
    RANGE,
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use oci::{ByteRange, Digest, Ranges, conditional};
use registry::{Right, delete, pull};

use super::error::Failure;
use super::respond::{self, Piece, Pieces};
use super::{Call, manifest};

const OCTET_STREAM: HeaderValue = HeaderValue::from_static("application/octet-stream");

pub(super) async fn head(call: &Call<'_>, right: &dyn Right, digest: &Digest) -> Result<Response, Failure> {
    let info = pull::blob_head(&call.state.registry, right, digest).await?;
    if let Some(response) = conditional_answer(&call.parts.headers, &info.digest)? {
        return Ok(response);
    }
    let mut response = respond::empty(StatusCode::OK);
    describe(response.headers_mut(), &info.digest);
    response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(info.size));
    Ok(response)
}

pub(super) async fn get(call: &Call<'_>, right: &dyn Right, digest: &Digest) -> Result<Response, Failure> {
    let headers = &call.parts.headers;
    if headers.contains_key(IF_MATCH) || headers.contains_key(IF_NONE_MATCH) {
        let info = pull::blob_head(&call.state.registry, right, digest).await?;
        if let Some(response) = conditional_answer(headers, &info.digest)? {
            return Ok(response);
        }
    }
    let blob = pull::blob(&call.state.registry, right, digest).await?;
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let applies = conditional::range_applies(text(IF_RANGE), &blob.digest);
    let ranges = oci::parse_range(text(RANGE).filter(|_| applies), blob.size).map_err(Failure::Malformed)?;
    let (status, pieces, content_type, content_range) = match ranges {
        Ranges::Whole => (StatusCode::OK, vec![Piece::Source(blob.source)], OCTET_STREAM, None),
        Ranges::NotSatisfiable => return Err(Failure::Range(blob.size)),
        Ranges::Single(range) => {
            let piece = Piece::Source(slice(&blob.source, range));
            (StatusCode::PARTIAL_CONTENT, vec![piece], OCTET_STREAM, Some(range.content_range(blob.size)))
        }
        Ranges::Multiple(ranges) => {
            let (pieces, content_type) = multipart(&blob, &ranges);
            (StatusCode::PARTIAL_CONTENT, pieces, content_type, None)
        }
    };
    let body = Pieces::new(pieces, call.state.metrics.blob_bytes_out());
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    describe(headers, &blob.digest);
    headers.insert(CONTENT_TYPE, content_type);
    headers.insert(CONTENT_LENGTH, HeaderValue::from(body.length()));
    if let Some(value) = content_range {
        respond::set(headers, CONTENT_RANGE, value);
    }
    *response.body_mut() = Body::new(body);
    Ok(response)
}

pub(super) async fn delete(call: &Call<'_>, right: &dyn Right, digest: &Digest) -> Result<Response, Failure> {
    delete::blob(&call.state.registry, right, digest).await?;
    Ok(respond::empty(StatusCode::ACCEPTED))
}

/// 304 or 412, where the request's conditions ask for it.
pub(super) fn conditional_answer(headers: &HeaderMap, digest: &Digest) -> Result<Option<Response>, Failure> {
    let values = |name| headers.get_all(name).iter().filter_map(|value: &HeaderValue| value.to_str().ok());
    if headers.contains_key(IF_MATCH) && !conditional::none_match(values(IF_MATCH), digest) {
        return Err(Failure::Precondition);
    }
    if !conditional::none_match(values(IF_NONE_MATCH), digest) {
        return Ok(None);
    }
    let mut response = respond::empty(StatusCode::NOT_MODIFIED);
    let headers = response.headers_mut();
    respond::set(headers, ETAG, conditional::etag(digest));
    respond::set(headers, respond::DOCKER_CONTENT_DIGEST, digest.as_str());
    Ok(Some(response))
}

/// The headers of every answer with a blob. A browser must neither guess a type nor run anything (F-10).
fn describe(headers: &mut HeaderMap, digest: &Digest) {
    manifest::guard(headers);
    headers.insert(CONTENT_TYPE, OCTET_STREAM);
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("max-age=31536000"));
    respond::set(headers, ETAG, conditional::etag(digest));
    respond::set(headers, respond::DOCKER_CONTENT_DIGEST, digest.as_str());
}

fn slice(source: &Source, range: ByteRange) -> Source {
    source.slice(range.start..range.end + 1)
}

/// `multipart/byteranges` (RFC 9110, 14.6), parts in the order of the request. The boundary is letters and digits only
/// (Q64), and no content can hold it: it is of the content's own hash.
fn multipart(blob: &pull::Blob, ranges: &[ByteRange]) -> (Vec<Piece>, HeaderValue) {
    let boundary = &blob.digest.hex()[..60];
    let mut pieces = Vec::with_capacity(ranges.len() * 2 + 1);
    for (i, range) in ranges.iter().enumerate() {
        let head = format!(
            "{}--{boundary}\r\nContent-Type: application/octet-stream\r\nContent-Range: {}\r\n\r\n",
            if i == 0 { "" } else { "\r\n" },
            range.content_range(blob.size),
        );
        pieces.push(Piece::Bytes(Bytes::from(head)));
        pieces.push(Piece::Source(slice(&blob.source, *range)));
    }
    pieces.push(Piece::Bytes(Bytes::from(format!("\r\n--{boundary}--\r\n"))));
    let content_type = format!("multipart/byteranges; boundary={boundary}");
    (pieces, HeaderValue::try_from(content_type).unwrap_or(OCTET_STREAM))
}
