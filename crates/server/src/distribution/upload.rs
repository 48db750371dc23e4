//! Upload sessions, uploads in one request, and mounts.

use axum::response::Response;
use futures_util::StreamExt;
use http::header::{CONTENT_RANGE, LOCATION, RANGE};
use http::{HeaderMap, StatusCode};
use oci::{Algorithm, ContentRange, Digest, Error, ErrorCode, RepositoryName};
use policy::{Access, Need};
use registry::push::{self, Position, Upload, UploadId};

use super::body::RequestBody;
use super::error::Failure;
use super::route::RouteError;
use super::{Call, respond};

/// Where an upload goes on. It carries the offset that the next bytes have, so that a request which is sent twice is
/// refused instead of appended twice (Q22). Relative, so that it is right behind every proxy (Q23).
pub(super) fn location(repository: &str, id: &UploadId, offset: u64) -> String {
    format!("/v2/{repository}/blobs/uploads/{id}?state={offset}")
}

/// What an upload has: `0-<last byte>`, and `0-0` for nothing (Q16).
pub(super) fn range(offset: u64) -> String {
    format!("0-{}", offset.saturating_sub(1))
}

pub(super) async fn start(call: &Call<'_>, access: &Access, body: RequestBody) -> Result<Response, Failure> {
    let r = &call.state.registry;
    if let Some(digest) = &call.query.mount {
        let digest = Digest::parse(digest)?;
        if mount(call, access, &digest).await? {
            return Ok(created(access.repository(), &digest));
        }
    } else if let Some(digest) = &call.query.digest {
        let digest = Digest::parse(digest)?;
        let (length, still) = (body.length(), call.still(access, Need::Push));
        let digest = push::monolithic(r, access, &digest, length, counted(call, body), &still).await?;
        return Ok(created(access.repository(), &digest));
    }
    let algorithm = call.query.digest_algorithm.as_deref().map(Algorithm::parse).transpose()?;
    let upload = push::start(r, access, algorithm).await?;
    Ok(session(StatusCode::ACCEPTED, access, &upload))
}

/// Whether the blob is in the target now. A source that does not exist, is malformed or may not be read is the same as one
/// that does not have it (Q13).
async fn mount(call: &Call<'_>, access: &Access, digest: &Digest) -> Result<bool, Failure> {
    let (r, still) = (&call.state.registry, call.still(access, Need::Push));
    match call.query.from.as_deref().filter(|from| !from.is_empty()) {
        None => Ok(push::mount_from_anywhere(r, &still, digest).await?),
        Some(from) => match RepositoryName::parse(from) {
            Ok(from) => Ok(push::mount(r, &still, &from, digest).await?),
            Err(_) => Ok(false),
        },
    }
}

pub(super) async fn append(
    call: &Call<'_>,
    access: &Access,
    id: &UploadId,
    body: RequestBody,
) -> Result<Response, Failure> {
    let position = position(call, &body)?;
    let upload = push::append(&call.state.registry, access, id, position, counted(call, body)).await?;
    Ok(session(StatusCode::ACCEPTED, access, &upload))
}

pub(super) async fn finish(
    call: &Call<'_>,
    access: &Access,
    id: &UploadId,
    body: RequestBody,
) -> Result<Response, Failure> {
    let digest = call.query.digest.as_deref().ok_or_else(|| {
        Error::new(ErrorCode::DigestInvalid, "the request that closes an upload needs the parameter digest")
    })?;
    let digest = Digest::parse(digest)?;
    let (position, still) = (position(call, &body)?, call.still(access, Need::Push));
    let r = &call.state.registry;
    let digest = push::finish(r, access, id, position, &digest, counted(call, body), &still).await?;
    Ok(created(access.repository(), &digest))
}

pub(super) async fn status(call: &Call<'_>, access: &Access, id: &UploadId) -> Result<Response, Failure> {
    let upload = push::status(&call.state.registry, access, id).await?;
    Ok(session(StatusCode::NO_CONTENT, access, &upload))
}

pub(super) async fn cancel(call: &Call<'_>, access: &Access, id: &UploadId) -> Result<Response, Failure> {
    push::cancel(&call.state.registry, access, id).await?;
    let mut response = respond::empty(StatusCode::NO_CONTENT);
    respond::set(response.headers_mut(), respond::DOCKER_UPLOAD_UUID, id.as_str());
    Ok(response)
}

/// Where the bytes of this request go, by its URL and headers.
fn position(call: &Call<'_>, body: &RequestBody) -> Result<Position, Failure> {
    // A state that we did not give out belongs to no session.
    let offset = match &call.query.state {
        Some(state) => Some(state.parse().map_err(|_| RouteError::UploadUnknown)?),
        None => None,
    };
    Ok(Position { offset, range: content_range(&call.parts.headers)?, length: body.length() })
}

fn content_range(headers: &HeaderMap) -> Result<Option<ContentRange>, Failure> {
    let mut values = headers.get_all(CONTENT_RANGE).iter();
    let (first, second) = (values.next(), values.next());
    let invalid =
        || Failure::Malformed(Error::new(ErrorCode::RangeInvalid, "an upload has one Content-Range: <first>-<last>"));
    match first {
        None => Ok(None),
        Some(_) if second.is_some() => Err(invalid()),
        Some(value) => {
            let text = value.to_str().map_err(|_| invalid())?;
            ContentRange::parse(text).map(Some).map_err(Failure::Malformed)
        }
    }
}

/// The body as the registry takes it, counted.
fn counted(call: &Call<'_>, body: RequestBody) -> registry::Body {
    let (received, active) = (call.state.metrics.blob_bytes_in(), call.state.metrics.upload());
    Box::pin(body.inspect(move |piece| {
        let _active = &active;
        if let Ok(bytes) = piece {
            received.inc_by(bytes.len() as u64);
        }
    }))
}

/// A blob that is in the repository now.
fn created(repository: &RepositoryName, digest: &Digest) -> Response {
    let mut response = respond::empty(StatusCode::CREATED);
    let headers = response.headers_mut();
    respond::set(headers, LOCATION, format!("/v2/{repository}/blobs/{digest}"));
    respond::set(headers, respond::DOCKER_CONTENT_DIGEST, digest.as_str());
    response
}

/// How far a session is.
fn session(status: StatusCode, access: &Access, upload: &Upload) -> Response {
    let mut response = respond::empty(status);
    let headers = response.headers_mut();
    respond::set(headers, LOCATION, location(access.repository().as_str(), &upload.id, upload.offset));
    respond::set(headers, RANGE, range(upload.offset));
    respond::set(headers, respond::DOCKER_UPLOAD_UUID, upload.id.as_str());
    response
}
