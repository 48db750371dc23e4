//! Manifests: read, push, delete.

use std::io;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::header::{
    CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, IF_MATCH,
    IF_NONE_MATCH, LOCATION, WARNING, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, HeaderValue, StatusCode};
use oci::conditional::Precondition;
use oci::{Digest, ErrorCode, Reference, Tag, conditional};
use registry::manifest::{Target, push, reserve};
use registry::{Reservation, Right, delete, pull};

use super::blob::conditional_answer;
use super::body::RequestBody;
use super::error::Failure;
use super::{Call, Still, respond};

/// A manifest has to arrive within this time, and so much more for its length: memory is set aside for it meanwhile.
const TIME_TO_SEND: Duration = Duration::from_secs(30);
/// Bytes a second.
const RATE: usize = 32 << 10;

/// Tags that one push may set.
const MAX_TAGS: usize = 64;

pub(super) async fn head(call: &Call<'_>, right: &dyn Right, reference: &Reference) -> Result<Response, Failure> {
    let info = pull::manifest_head(&call.state.registry, right, reference).await?;
    if let Some(response) = conditional_answer(&call.parts.headers, &info.digest)? {
        return Ok(response);
    }
    let mut response = respond::empty(StatusCode::OK);
    describe(response.headers_mut(), reference, &info.digest, &info.media_type, info.size);
    Ok(response)
}

pub(super) async fn get(call: &Call<'_>, right: &dyn Right, reference: &Reference) -> Result<Response, Failure> {
    let manifest = pull::manifest(&call.state.registry, right, reference).await?;
    if let Some(response) = conditional_answer(&call.parts.headers, &manifest.digest)? {
        return Ok(response);
    }
    let mut response = respond::empty(StatusCode::OK);
    let size = manifest.bytes.len() as u64;
    describe(response.headers_mut(), reference, &manifest.digest, &manifest.media_type, size);
    *response.body_mut() = Body::from(manifest.bytes);
    Ok(response)
}

pub(super) async fn put(
    call: &Call<'_>,
    still: &Still<'_>,
    reference: &Reference,
    body: RequestBody,
) -> Result<Response, Failure> {
    if call.query.tags.len() > MAX_TAGS {
        return Err(Failure::TooLong("more tags in one push than are accepted"));
    }
    let tags = call.query.tags.iter().map(|tag| Tag::parse(tag)).collect::<Result<Vec<_>, _>>()?;
    let headers = &call.parts.headers;
    let content_type = headers.get(CONTENT_TYPE).map(|value| {
        value
            .to_str()
            .map_err(|_| oci::Error::new(ErrorCode::ManifestInvalid, "the Content-Type header is not a media type"))
    });
    let content_type = content_type.transpose()?;
    let limit = call.state.registry.settings().manifest_limit;
    // Kept to the end: the memory is in use until the transaction is done.
    let (bytes, _reservation) = receive(call, body, limit).await?;
    let named = !tags.is_empty();
    let target = Target { reference: reference.clone(), tags, precondition: precondition(&call.parts.headers) };
    let pushed =
        push(&call.state.registry, still, target, content_type, bytes).await.map_err(|error| refused(error, still))?;
    let mut response = respond::empty(StatusCode::CREATED);
    let headers = response.headers_mut();
    respond::set(headers, LOCATION, format!("/v2/{}/manifests/{}", still.name, pushed.digest));
    respond::set(headers, respond::DOCKER_CONTENT_DIGEST, pushed.digest.as_str());
    if let Some(subject) = &pushed.subject {
        respond::set(headers, respond::OCI_SUBJECT, subject.as_str());
    }
    let lines = pushed.tags.iter().filter(|_| named).map(|tag| (respond::OCI_TAG, tag.as_str().to_owned()));
    let warnings = oci::warning_values(pushed.warnings.iter().map(String::as_str));
    for (name, value) in lines.chain(warnings.into_iter().map(|value| (WARNING, value))) {
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.append(name, value);
        }
    }
    Ok(response)
}

/// The body, when there is memory for it. Who was given the memory of a large one has to send it in time.
async fn receive(call: &Call<'_>, body: RequestBody, limit: usize) -> Result<(Bytes, Reservation), Failure> {
    let length = body.length().and_then(|length| usize::try_from(length).ok()).unwrap_or(limit);
    if length > limit {
        return Err(Failure::TooLarge(limit as u64));
    }
    let reservation = reserve(&call.state.registry, &call.caller, length).await?;
    let time = TIME_TO_SEND + Duration::from_secs((length / RATE) as u64);
    match tokio::time::timeout(time, body.read(limit)).await {
        Ok(bytes) => Ok((bytes?, reservation)),
        Err(_) => {
            let why = format!("the body did not arrive within {} seconds: send it again", time.as_secs());
            Err(Failure::Cut(io::Error::new(io::ErrorKind::TimedOut, why)))
        }
    }
}

/// What a change asks of what is there now. A line that is not text names nothing.
fn precondition(headers: &HeaderMap) -> Precondition {
    let lines = |name| {
        let values = headers.get_all(&name).iter().map(|value| value.to_str().unwrap_or_default().to_owned());
        headers.contains_key(&name).then(|| values.collect())
    };
    Precondition { if_match: lines(IF_MATCH), if_none_match: lines(IF_NONE_MATCH) }
}

pub(super) async fn delete(call: &Call<'_>, still: &Still<'_>, reference: &Reference) -> Result<Response, Failure> {
    let precondition = precondition(&call.parts.headers);
    delete::manifest_if(&call.state.registry, still, reference, &precondition)
        .await
        .map_err(|error| refused(error, still))?;
    Ok(respond::empty(StatusCode::ACCEPTED))
}

/// A refusal of the transaction, with the words of the other refusals. A manifest over the size that the parser takes
/// is 413 as well, where the setting allows more.
fn refused(error: registry::Error, still: &Still<'_>) -> Failure {
    match error {
        registry::Error::Oci(error) if error.code == ErrorCode::SizeInvalid => {
            Failure::TooLarge(oci::Manifest::MAX_BYTES as u64)
        }
        registry::Error::TagDenied { tag, verb } => match still.decide() {
            Ok(access) => Failure::TagDenied { verb, reason: access.denial(verb, Some(&tag)) },
            Err(refusal) => refusal.into(),
        },
        other => other.into(),
    }
}

fn describe(headers: &mut HeaderMap, reference: &Reference, digest: &Digest, media_type: &str, size: u64) {
    guard(headers);
    respond::set(headers, CONTENT_TYPE, media_type);
    headers.insert(CONTENT_LENGTH, HeaderValue::from(size));
    respond::set(headers, ETAG, conditional::etag(digest));
    respond::set(headers, respond::DOCKER_CONTENT_DIGEST, digest.as_str());
    if let Reference::Tag(_) = reference {
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    }
}

/// What keeps a browser from running what somebody pushed.
pub(super) fn guard(headers: &mut HeaderMap) {
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(CONTENT_DISPOSITION, HeaderValue::from_static("attachment"));
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'none'; sandbox"));
}
