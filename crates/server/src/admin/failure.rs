//! The one place where a failure of the admin API becomes an answer.

use std::error::Error as StdError;
use std::time::Duration;

use api::{ErrorBody, ErrorCode};
use axum::response::{IntoResponse, Response};
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderName, HeaderValue, StatusCode};
use policy::Refusal;
use registry::BoxError;
use registry::accounts::{self, Invalid, Missing};

use crate::auth::AuthError;

const BASIC: &str = "Basic realm=\"portcullis admin\", charset=\"UTF-8\"";
const BEARER: &str = "Bearer realm=\"portcullis admin\", error=\"invalid_token\"";
const LOG_IN: &str = "log in as an administrator with `portcullis login URL`, or use the socket on the server";

/// Why a request was not carried out.
#[derive(Debug)]
pub struct Failure {
    body: Box<ErrorBody>,
    header: Option<(HeaderName, HeaderValue)>,
    source: Option<BoxError>,
}

impl Failure {
    /// A failure with this code, and what to do about it.
    pub fn new(code: ErrorCode, message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { body: Box::new(ErrorBody::new(code, message, help)), header: None, source: None }
    }

    /// A malformed request.
    pub fn request(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::InvalidRequest, message, "the document /api/v1/openapi.json describes every request")
    }

    /// A failure of the server, which is logged and not shown.
    pub fn internal(source: impl Into<BoxError>) -> Self {
        let help = "the server's log has the reason under the id in X-Request-Id";
        Self { source: Some(source.into()), ..Self::new(ErrorCode::Internal, "the server failed", help) }
    }

    /// The same with one more detail.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl Into<serde_json::Value>) -> Self {
        self.body = Box::new(self.body.with(key, value));
        self
    }

    fn header(mut self, name: HeaderName, value: &str) -> Self {
        self.header = HeaderValue::from_str(value).ok().map(|value| (name, value));
        self
    }

    fn later(code: ErrorCode, message: &str, wait: Duration) -> Self {
        let seconds = wait.as_secs().max(1);
        Self::new(code, message, format!("try again in {seconds} s")).header(RETRY_AFTER, &seconds.to_string())
    }

    fn full() -> Self {
        Self::new(ErrorCode::Full, "the disk is full", "free some space where the data directory is")
    }

    fn unsure(source: impl Into<BoxError>) -> Self {
        let message = "it is not known whether the change reached the disk: look before you try again";
        Self { source: Some(source.into()), ..Self::later(ErrorCode::Unavailable, message, Duration::from_secs(5)) }
    }

    /// A change, asked of a server in read-only mode.
    pub fn read_only_mode(allow: &str) -> Self {
        let help = "start the server with server.mode = \"read-write\" when the maintenance is over";
        Self::new(ErrorCode::ReadOnly, "the server is in read-only mode and changes nothing", help).header(ALLOW, allow)
    }

    fn read_only() -> Self {
        let help = "see the server's log; it writes again after it has been started anew";
        Self::new(ErrorCode::Unavailable, "the database is read-only", help)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let code = self.body.error.code;
        if let Some(source) = &self.source {
            tracing::error!(error = %chain(source.as_ref()), code = code.as_str(), "an admin request failed");
        }
        let status = StatusCode::from_u16(code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = answer(status, &self.body);
        if let Some((name, value)) = self.header {
            response.headers_mut().insert(name, value);
        }
        response
    }
}

/// An answer in JSON. None may be kept by a cache: some hold secrets.
pub fn answer(status: StatusCode, value: &impl serde::Serialize) -> Response {
    let (status, bytes) = match serde_json::to_vec(value) {
        Ok(bytes) => (status, bytes),
        Err(error) => {
            tracing::error!(%error, "an answer cannot be written as JSON");
            (StatusCode::INTERNAL_SERVER_ERROR, Vec::new())
        }
    };
    raw_answer(status, bytes)
}

/// An answer of JSON text.
pub fn raw_answer(status: StatusCode, bytes: Vec<u8>) -> Response {
    let headers = [(CONTENT_TYPE, "application/json"), (CACHE_CONTROL, "no-store")];
    (status, headers, bytes).into_response()
}

/// An error and all that caused it, in one line.
pub fn chain(error: &(dyn StdError + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

impl From<AuthError> for Failure {
    fn from(error: AuthError) -> Self {
        match error {
            AuthError::Ambiguous(message) => Self::request(message),
            AuthError::RejectedBasic => Self::new(ErrorCode::Unauthorized, "the name or the password is wrong", LOG_IN)
                .header(WWW_AUTHENTICATE, BASIC),
            AuthError::RejectedToken => {
                Self::new(ErrorCode::Unauthorized, "the token is not valid here, or not any more", LOG_IN)
                    .header(WWW_AUTHENTICATE, BEARER)
            }
            AuthError::Throttled { wait } => Self::later(ErrorCode::TooManyRequests, "too many failed logins", wait),
            AuthError::Busy { wait } => {
                Self::later(ErrorCode::Unavailable, "too many logins are being checked at present", wait)
            }
            AuthError::Store(error) => error.into(),
            AuthError::Internal(source) => registry::Error::by_cause(source).into(),
        }
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Challenge { error: None, .. } => {
                Self::new(ErrorCode::Unauthorized, "this needs a login", LOG_IN).header(WWW_AUTHENTICATE, BASIC)
            }
            Refusal::Challenge { error: Some(_), .. } => AuthError::RejectedToken.into(),
            Refusal::Denied { reason } => {
                Self::new(ErrorCode::Denied, reason, "an administrator has the right to use this API")
            }
            Refusal::Hidden => Self::new(ErrorCode::RepositoryNotFound, "there is no such repository", ""),
        }
    }
}

impl From<accounts::Error> for Failure {
    fn from(error: accounts::Error) -> Self {
        let message = error.to_string();
        match error {
            accounts::Error::Invalid(invalid) => Self::new(invalid_code(&invalid), message, ""),
            accounts::Error::NotFound { what } => {
                let (code, help) = match what {
                    Missing::User(_) => (ErrorCode::UserNotFound, "`portcullis user list` shows those that exist"),
                    Missing::Robot(_) => (ErrorCode::RobotNotFound, "`portcullis robot list` shows those that exist"),
                    Missing::Grant(_) => (ErrorCode::GrantNotFound, "`portcullis grant list` shows those that exist"),
                    Missing::Subject(_) => (ErrorCode::SubjectNotFound, "add the user or the robot first"),
                };
                Self::new(code, message, help)
            }
            accounts::Error::NameTaken { .. } => {
                Self::new(ErrorCode::NameTaken, message, "users and robots share one set of names; choose another one")
            }
            accounts::Error::GrantExists { id } => {
                let help = "remove that one first if its expiry or reason is to change";
                Self::new(ErrorCode::GrantExists, message, help).with("id", id)
            }
            accounts::Error::LastAdministrator { .. } => {
                let help = "make another user an administrator first: `portcullis user add NAME --admin`";
                Self::new(ErrorCode::LastAdministrator, message, help)
            }
            accounts::Error::Meta(error) => error.into(),
        }
    }
}

fn invalid_code(invalid: &Invalid) -> ErrorCode {
    match invalid {
        Invalid::Name(_) => ErrorCode::InvalidName,
        Invalid::Password(_) => ErrorCode::InvalidPassword,
        Invalid::Subject(_) => ErrorCode::InvalidSubject,
        Invalid::Verbs(_) => ErrorCode::InvalidVerbs,
        Invalid::Pattern(_) => ErrorCode::InvalidPattern,
        Invalid::Expiry(_) => ErrorCode::InvalidExpiry,
        Invalid::Value(_) => ErrorCode::InvalidValue,
    }
}

impl From<meta::Error> for Failure {
    fn from(error: meta::Error) -> Self {
        match error {
            meta::Error::Conflict { .. } => {
                Self::new(ErrorCode::Conflict, error.to_string(), "look again and try again")
            }
            meta::Error::Busy => Self::later(ErrorCode::Unavailable, "the database is busy", Duration::from_secs(1)),
            meta::Error::Full => Self::full(),
            meta::Error::ReadOnly => Self::read_only(),
            meta::Error::Unavailable { .. } => registry::Error::from(error).into(),
            meta::Error::Unsure { .. } => Self::unsure(error),
            other => Self::internal(other),
        }
    }
}

impl From<registry::Error> for Failure {
    fn from(error: registry::Error) -> Self {
        use registry::Error as E;
        match error {
            E::NameUnknown => Self::new(
                ErrorCode::RepositoryNotFound,
                "there is no such repository",
                "`portcullis repo list` shows those that exist",
            ),
            E::ManifestUnknown(reference) => Self::new(
                ErrorCode::TagNotFound,
                format!("there is no {reference} in this repository"),
                "`portcullis tag list REPOSITORY` shows those that exist",
            ),
            E::Refused(refusal) => refusal.into(),
            E::Full(_) => Self::full(),
            E::ReadOnly(_) => Self::read_only(),
            E::Unsure(source) => Self::unsure(source),
            E::Unavailable { retry_after_s, source } => {
                let wait = Duration::from_secs(retry_after_s.into());
                Self { source, ..Self::later(ErrorCode::Unavailable, "the store does not answer at present", wait) }
            }
            E::Conflict { what } => Self::new(ErrorCode::Conflict, what, "look again and try again"),
            E::Oci(error) => Self::new(ErrorCode::InvalidName, error.message, ""),
            other => Self::internal(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    async fn read(failure: Failure) -> (u16, ErrorCode, http::HeaderMap) {
        let response = failure.into_response();
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        let body: ErrorBody = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(parts.headers[CACHE_CONTROL], "no-store");
        (parts.status.as_u16(), body.error.code, parts.headers)
    }

    #[tokio::test]
    async fn each_failure_has_its_status_and_code() {
        let missing = |what| Failure::from(accounts::Error::NotFound { what });
        let invalid = |invalid: Invalid| Failure::from(accounts::Error::Invalid(invalid));
        for (failure, status, code) in [
            (missing(Missing::User("a".into())), 404, ErrorCode::UserNotFound),
            (missing(Missing::Robot("a".into())), 404, ErrorCode::RobotNotFound),
            (missing(Missing::Grant(1)), 404, ErrorCode::GrantNotFound),
            (missing(Missing::Subject("user:a".into())), 404, ErrorCode::SubjectNotFound),
            (accounts::Error::NameTaken { name: "a".into() }.into(), 409, ErrorCode::NameTaken),
            (accounts::Error::GrantExists { id: 1 }.into(), 409, ErrorCode::GrantExists),
            (accounts::Error::LastAdministrator { name: "a".into() }.into(), 409, ErrorCode::LastAdministrator),
            (invalid(Invalid::Name(String::new())), 422, ErrorCode::InvalidName),
            (invalid(Invalid::Password("")), 422, ErrorCode::InvalidPassword),
            (invalid(Invalid::Subject(String::new())), 422, ErrorCode::InvalidSubject),
            (invalid(Invalid::Verbs(String::new())), 422, ErrorCode::InvalidVerbs),
            (invalid(Invalid::Pattern(String::new())), 422, ErrorCode::InvalidPattern),
            (invalid(Invalid::Expiry("")), 422, ErrorCode::InvalidExpiry),
            (invalid(Invalid::Value("")), 422, ErrorCode::InvalidValue),
            (meta::Error::Busy.into(), 503, ErrorCode::Unavailable),
            (meta::Error::Full.into(), 507, ErrorCode::Full),
            (meta::Error::ReadOnly.into(), 503, ErrorCode::Unavailable),
            (meta::Error::Conflict { what: "x".into() }.into(), 409, ErrorCode::Conflict),
            (registry::Error::NameUnknown.into(), 404, ErrorCode::RepositoryNotFound),
            (registry::Error::Full("".into()).into(), 507, ErrorCode::Full),
            (Refusal::Denied { reason: "no".into() }.into(), 403, ErrorCode::Denied),
            (Refusal::Challenge { scope: None, error: None }.into(), 401, ErrorCode::Unauthorized),
            (AuthError::RejectedToken.into(), 401, ErrorCode::Unauthorized),
            (Failure::internal("secret detail"), 500, ErrorCode::Internal),
        ] {
            let (got, body, headers) = read(failure).await;
            assert_eq!((got, body), (status, code));
            assert_eq!(headers.contains_key(WWW_AUTHENTICATE), status == 401);
        }
        let throttled = AuthError::Throttled { wait: Duration::from_millis(1) };
        let (status, code, headers) = read(throttled.into()).await;
        assert_eq!((status, code, headers[RETRY_AFTER].to_str().unwrap()), (429, ErrorCode::TooManyRequests, "1"));
    }

    #[tokio::test]
    async fn what_went_wrong_inside_is_not_shown() {
        let response = Failure::internal("the table of secrets").into_response();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        assert!(!String::from_utf8(bytes.to_vec()).unwrap().contains("secrets"));
    }
}
