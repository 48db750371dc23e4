//! The one place where a failure of the distribution API becomes an answer.

use std::error::Error as StdError;
use std::time::Duration;

use axum::response::Response;
use http::header::{ALLOW, LOCATION, RANGE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, StatusCode};
use oci::{ErrorCode, ErrorEntry};
use policy::{Refusal, Verb};
use registry::push::UploadId;
use serde_json::json;

use super::query::QueryError;
use super::respond;
use super::route::RouteError;
use super::upload;
use crate::auth::{AuthError, Challenge};

/// Whoever may not see a repository reads this, and so does who may see it but finds it missing.
const NAME_UNKNOWN: &str = "there is no such repository, or you may not see it";

/// Who pushes to a server in maintenance reads this.
const READ_ONLY_MODE: &str = "the registry is read-only for maintenance: pulls go on, push again later";

/// Why a request was not carried out.
#[derive(Debug)]
pub enum Failure {
    /// The path or the method.
    Route(RouteError),
    /// The query.
    Query(QueryError),
    /// Another part of the request.
    Invalid(oci::Error),
    /// Another part of the request, to be answered with 400 whatever its code's status is.
    Malformed(oci::Error),
    /// The `Host` is not one of this registry's names (421), is missing or there are two (400).
    Host(StatusCode),
    /// More in one request than is accepted: 414.
    TooLong(&'static str),
    /// A body larger than this many bytes: 413.
    TooLarge(u64),
    /// A precondition failed: 412.
    Precondition,
    /// A range that cannot be given of so many bytes: 416.
    Range(u64),
    /// The client's body is not one that can be taken.
    Body(String),
    /// The client's body could not be read to its end.
    Cut(std::io::Error),
    /// The credentials.
    Auth(AuthError),
    /// The rights.
    Refused(Refusal),
    /// The rights on a tag, about which the operation decides.
    TagDenied {
        /// What is missing.
        verb: Verb,
        /// What it is needed for, and what would grant it.
        reason: String,
    },
    /// Nothing is changed by a server in this mode: 405, with the methods that it takes there.
    ReadOnlyMode(&'static str),
    /// The operation.
    Registry(registry::Error),
}

impl From<RouteError> for Failure {
    fn from(error: RouteError) -> Self {
        Self::Route(error)
    }
}

impl From<QueryError> for Failure {
    fn from(error: QueryError) -> Self {
        Self::Query(error)
    }
}

impl From<oci::Error> for Failure {
    fn from(error: oci::Error) -> Self {
        Self::Invalid(error)
    }
}

impl From<AuthError> for Failure {
    fn from(error: AuthError) -> Self {
        Self::Auth(error)
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<registry::Error> for Failure {
    fn from(error: registry::Error) -> Self {
        match error {
            registry::Error::Oci(error) => Self::Invalid(error),
            registry::Error::Refused(refusal) => Self::Refused(refusal),
            registry::Error::PreconditionFailed => Self::Precondition,
            other => Self::Registry(other),
        }
    }
}

/// What an answer needs to know of the request.
pub struct Asked<'a> {
    /// How to challenge, for the host that was asked.
    pub challenge: Challenge,
    /// The request's id.
    pub request_id: &'a str,
    /// The repository as it stands in the path, for `Location`.
    pub repository: Option<&'a str>,
    /// Whether it sends to an upload that the client knows and can go on with.
    pub upload: bool,
    /// The scope that the request would need, for who has shown credentials that are not valid.
    pub scope: Option<String>,
}

/// The status of a code, where nothing more is known (the specification's list, and `distribution` for its own codes).
pub fn status(code: ErrorCode) -> StatusCode {
    match code {
        ErrorCode::BlobUnknown | ErrorCode::BlobUploadUnknown | ErrorCode::ManifestUnknown | ErrorCode::NameUnknown => {
            StatusCode::NOT_FOUND
        }
        ErrorCode::BlobUploadInvalid
        | ErrorCode::DigestInvalid
        | ErrorCode::ManifestBlobUnknown
        | ErrorCode::ManifestInvalid
        | ErrorCode::NameInvalid
        | ErrorCode::SizeInvalid
        | ErrorCode::TagInvalid
        | ErrorCode::PaginationNumberInvalid => StatusCode::BAD_REQUEST,
        ErrorCode::Unauthorized => StatusCode::UNAUTHORIZED,
        ErrorCode::Denied => StatusCode::FORBIDDEN,
        ErrorCode::Unsupported => StatusCode::METHOD_NOT_ALLOWED,
        ErrorCode::TooManyRequests => StatusCode::TOO_MANY_REQUESTS,
        ErrorCode::RangeInvalid => StatusCode::RANGE_NOT_SATISFIABLE,
        ErrorCode::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        ErrorCode::Unknown => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// The answer to a failure. Internal errors are logged here, once, with everything that caused them.
pub fn answer(failure: Failure, asked: &Asked<'_>) -> Response {
    match failure {
        Failure::Route(error) => route(error),
        Failure::Query(QueryError::Invalid(error)) | Failure::Invalid(error) => one(error.code, &error.message),
        Failure::Malformed(error) => with_status(StatusCode::BAD_REQUEST, error.code, &error.message),
        Failure::Query(QueryError::TooLong) => too_long("too many query parameters"),
        Failure::TooLong(message) => too_long(message),
        Failure::TooLarge(limit) => {
            let message = format!("the body is larger than the limit of {limit} bytes");
            with_status(StatusCode::PAYLOAD_TOO_LARGE, ErrorCode::SizeInvalid, &message)
        }
        Failure::Host(status) => with_status(
            status,
            ErrorCode::Unsupported,
            "the Host header must hold exactly one name, and one of those in server.public_urls",
        ),
        Failure::Precondition => {
            with_status(StatusCode::PRECONDITION_FAILED, ErrorCode::Unsupported, "the precondition does not hold")
        }
        Failure::Range(size) => {
            let mut response = one(ErrorCode::RangeInvalid, &format!("none of the ranges is within {size} bytes"));
            respond::set(response.headers_mut(), http::header::CONTENT_RANGE, format!("bytes */{size}"));
            response
        }
        Failure::Body(message) => one(ErrorCode::BlobUploadInvalid, &message),
        Failure::Cut(error) => cut(&error),
        Failure::Auth(error) => auth(error, asked),
        Failure::Refused(refusal) => refused(refusal, asked),
        Failure::TagDenied { reason, .. } => one(ErrorCode::Denied, &reason),
        Failure::ReadOnlyMode(allow) => {
            let mut response = one(ErrorCode::Unsupported, READ_ONLY_MODE);
            response.headers_mut().insert(ALLOW, HeaderValue::from_static(allow));
            response
        }
        Failure::Registry(error) => operation(error, asked),
    }
}

fn route(error: RouteError) -> Response {
    match error {
        RouteError::NotFound => with_status(StatusCode::NOT_FOUND, ErrorCode::Unsupported, "there is no such endpoint"),
        RouteError::Method(allow) => {
            let mut response = one(ErrorCode::Unsupported, &format!("this endpoint takes {allow}"));
            response.headers_mut().insert(ALLOW, HeaderValue::from_static(allow));
            response
        }
        RouteError::UploadUnknown => upload_unknown(),
        RouteError::Invalid(error) => one(error.code, &error.message),
    }
}

fn auth(error: AuthError, asked: &Asked<'_>) -> Response {
    match error {
        AuthError::Ambiguous(why) => with_status(StatusCode::BAD_REQUEST, ErrorCode::Unauthorized, why),
        AuthError::RejectedBasic => challenge(asked, asked.scope.as_deref(), None, "the name or the secret is wrong"),
        AuthError::RejectedToken => {
            challenge(asked, asked.scope.as_deref(), Some("invalid_token"), "the token is not valid, or not any more")
        }
        AuthError::Throttled { wait } => {
            retry(one(ErrorCode::TooManyRequests, "too many wrong logins from here: wait"), wait)
        }
        AuthError::Busy { wait } => {
            retry(one(ErrorCode::Unavailable, "too many logins are being checked: try again"), wait)
        }
        AuthError::Store(error) => operation(error, asked),
        AuthError::Internal(error) => match registry::Error::by_cause(error) {
            registry::Error::Internal(error) => internal(error.as_ref(), asked),
            other => {
                tracing::warn!(request_id = asked.request_id, error = %chain(&other), "a login could not be checked");
                operation(other, asked)
            }
        },
    }
}

fn refused(refusal: Refusal, asked: &Asked<'_>) -> Response {
    match refusal {
        Refusal::Challenge { scope, error } => {
            let message = match error {
                None => "log in first",
                Some("insufficient_scope") => "the token does not cover this: ask for one with this scope",
                Some(_) => "the token is not valid, or not any more",
            };
            challenge(asked, scope.as_deref(), error, message)
        }
        Refusal::Denied { reason } => one(ErrorCode::Denied, &reason),
        Refusal::Hidden => one(ErrorCode::NameUnknown, NAME_UNKNOWN),
    }
}

/// 401 with how to do better.
pub fn challenge(asked: &Asked<'_>, scope: Option<&str>, error: Option<&str>, message: &str) -> Response {
    let mut response = one(ErrorCode::Unauthorized, message);
    respond::set(response.headers_mut(), WWW_AUTHENTICATE, asked.challenge.header(scope, error));
    response
}

fn operation(error: registry::Error, asked: &Asked<'_>) -> Response {
    use registry::Error;
    match error {
        Error::Oci(error) => one(error.code, &error.message),
        Error::Refused(refusal) => refused(refusal, asked),
        Error::NameUnknown => one(ErrorCode::NameUnknown, NAME_UNKNOWN),
        Error::BlobUnknown(digest) => one(ErrorCode::BlobUnknown, &format!("there is no blob {digest} here")),
        Error::ManifestUnknown(reference) => {
            one(ErrorCode::ManifestUnknown, &format!("there is no manifest {reference} here"))
        }
        Error::UploadUnknown => upload_unknown(),
        Error::OutOfRange { id, offset } => {
            out_of_range(&format!("the upload goes on at byte {offset}"), &id, offset, asked)
        }
        Error::UploadBusy { id, offset } => {
            out_of_range("another request is writing to this upload: try again when it is done", &id, offset, asked)
        }
        Error::PreconditionFailed => answer(Failure::Precondition, asked),
        Error::MissingBlobs(digests) => {
            let errors = digests.iter().map(|digest| ErrorEntry {
                code: ErrorCode::ManifestBlobUnknown,
                message: format!("the manifest needs {digest}, which is not in this repository: push it first"),
                detail: Some(json!({ "digest": digest.as_str() })),
            });
            errors_with(StatusCode::BAD_REQUEST, &errors.collect::<Vec<_>>())
        }
        Error::DigestMismatch { expected, actual } => {
            one(ErrorCode::DigestInvalid, &format!("the bytes have the digest {actual}, not {expected}"))
        }
        Error::SizeMismatch { expected, actual } => {
            one(ErrorCode::SizeInvalid, &format!("{expected} bytes were announced and {actual} came"))
        }
        Error::TooLarge { limit } => {
            let message = format!("larger than the limit of {limit} bytes");
            with_status(StatusCode::PAYLOAD_TOO_LARGE, ErrorCode::SizeInvalid, &message)
        }
        Error::BlobInUse { digest, manifest } => {
            one(ErrorCode::Unsupported, &format!("the manifest {manifest} needs {digest}: delete the manifest first"))
        }
        Error::TagDenied { tag, verb } => {
            one(ErrorCode::Denied, &format!("this needs the verb {verb} for the tag {tag}"))
        }
        Error::TooManyUploads { limit } => {
            let message = format!("you have {limit} unfinished uploads already: finish or cancel some");
            // A push that is alive ends an upload within seconds, and clients such as regclient wait as long as they are told.
            retry(one(ErrorCode::TooManyRequests, &message), Duration::from_secs(10))
        }
        Error::Full(_) => {
            let message = match asked.upload {
                true => "the registry's disk is full: the status of the upload tells what of it is kept",
                false => "the registry's disk is full",
            };
            let response = with_status(StatusCode::INSUFFICIENT_STORAGE, ErrorCode::Unavailable, message);
            retry(response, Duration::from_secs(60))
        }
        Error::ReadOnly(_) => {
            retry(one(ErrorCode::Unavailable, "the registry cannot write now"), Duration::from_secs(30))
        }
        Error::Unavailable { retry_after_s, source } => {
            let message = match source {
                Some(_) => "the registry cannot reach its store or its database: try again",
                None => "the registry is busy: try again",
            };
            retry(one(ErrorCode::Unavailable, message), Duration::from_secs(retry_after_s.into()))
        }
        Error::Unsure(_) => {
            let message = "it is not known whether this was done: send it again, which does no harm";
            retry(one(ErrorCode::Unavailable, message), Duration::from_secs(5))
        }
        Error::Outdated => retry(one(ErrorCode::Unavailable, "rights are changing: try again"), Duration::from_secs(1)),
        Error::ClientGone(error) => cut(&error),
        Error::Conflict { what } => with_status(StatusCode::CONFLICT, ErrorCode::Unsupported, &what),
        Error::Damaged { digest, source } => {
            let cause = source.map_or_else(String::new, |source| chain(source.as_ref()));
            tracing::error!(request_id = asked.request_id, %digest, cause, "the stored copy is damaged");
            internal_answer(asked)
        }
        Error::Internal(error) => internal(error.as_ref(), asked),
    }
}

/// A body that ended too early: the client's doing, or the listener's, which says why in the error.
fn cut(error: &std::io::Error) -> Response {
    match error.kind() {
        std::io::ErrorKind::TimedOut => {
            with_status(StatusCode::REQUEST_TIMEOUT, ErrorCode::BlobUploadInvalid, &error.to_string())
        }
        std::io::ErrorKind::ConnectionAborted => {
            retry(one(ErrorCode::Unavailable, &error.to_string()), Duration::from_secs(5))
        }
        _ => one(ErrorCode::BlobUploadInvalid, &format!("the body ended too early: {error}")),
    }
}

/// Where an upload goes on.
fn out_of_range(message: &str, id: &UploadId, offset: u64, asked: &Asked<'_>) -> Response {
    let mut response = one(ErrorCode::RangeInvalid, message);
    let headers = response.headers_mut();
    respond::set(headers, LOCATION, upload::location(asked.repository.unwrap_or_default(), id, offset));
    respond::set(headers, RANGE, upload::range(offset));
    respond::set(headers, respond::DOCKER_UPLOAD_UUID, id.to_string());
    response
}

fn upload_unknown() -> Response {
    one(ErrorCode::BlobUploadUnknown, "there is no such upload, or it is not yours: start again")
}

fn too_long(message: &str) -> Response {
    with_status(StatusCode::URI_TOO_LONG, ErrorCode::Unsupported, message)
}

fn internal(error: &(dyn StdError + 'static), asked: &Asked<'_>) -> Response {
    tracing::error!(request_id = asked.request_id, error = %chain(error), "request failed");
    internal_answer(asked)
}

fn internal_answer(asked: &Asked<'_>) -> Response {
    one(ErrorCode::Unknown, &format!("internal error: the server's log has more under {}", asked.request_id))
}

/// An error with everything that caused it.
fn chain(error: &(dyn StdError + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}

fn retry(mut response: Response, wait: Duration) -> Response {
    // Rounded up: who comes at that second must be let in.
    let seconds = wait.as_millis().div_ceil(1000).max(1);
    respond::set(response.headers_mut(), RETRY_AFTER, seconds.to_string());
    response
}

/// An answer with one error, and its code's status.
pub fn one(code: ErrorCode, message: &str) -> Response {
    with_status(status(code), code, message)
}

/// An answer with one error and another status than its code's.
pub fn with_status(status: StatusCode, code: ErrorCode, message: &str) -> Response {
    errors_with(status, &[ErrorEntry { code, message: message.to_owned(), detail: None }])
}

fn errors_with(status: StatusCode, errors: &[ErrorEntry]) -> Response {
    respond::bytes(status, "application/json", oci::error_body(errors))
}

#[cfg(test)]
mod tests;
