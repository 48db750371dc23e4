//! What an answer that is not a success looks like.

use serde::{Deserialize, Serialize};
use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

/// The body of every answer of 400 and above.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ErrorBody {
    /// The error.
    pub error: ErrorDetail,
}

/// What went wrong and what to do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ErrorDetail {
    /// For programs.
    pub code: ErrorCode,
    /// What is wrong, for people.
    pub message: String,
    /// The next step, for people; empty when there is none.
    #[serde(default)]
    pub help: String,
    /// What the code's documentation promises; an empty object otherwise.
    #[serde(default)]
    #[schema(value_type = Object)]
    pub details: serde_json::Map<String, serde_json::Value>,
}

impl ErrorBody {
    /// An error without details.
    pub fn new(code: ErrorCode, message: impl Into<String>, help: impl Into<String>) -> Self {
        Self {
            error: ErrorDetail { code, message: message.into(), help: help.into(), details: serde_json::Map::new() },
        }
    }

    /// The same with one more detail.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl Into<serde_json::Value>) -> Self {
        self.error.details.insert(key.to_owned(), value.into());
        self
    }
}

/// One small table for the enum, its text, its status and its place in the reference.
macro_rules! codes {
    ($($(#[doc = $doc:literal])+ $variant:ident = $text:literal, $status:literal;)+) => {
        /// Codes of errors: a closed list. A client that meets a code it does not know reads it as `unknown` and goes by
        /// the status.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum ErrorCode {
            $($(#[doc = $doc])+ #[serde(rename = $text)] $variant,)+
            /// A code that this version does not know.
            #[serde(other, rename = "unknown")]
            Unknown,
        }

        impl ErrorCode {
            /// Every code that the server answers with.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// The code as it stands in a body.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ Self::Unknown => "unknown" }
            }

            /// The status that it comes with.
            pub fn status(self) -> u16 {
                match self { $(Self::$variant => $status,)+ Self::Unknown => 500 }
            }

            /// When it is answered: one or more sentences for the reference.
            pub fn meaning(self) -> &'static str {
                match self {
                    $(Self::$variant => concat!($($doc, "\n"),+).trim_ascii(),)+
                    Self::Unknown => "A code that this version does not know.",
                }
            }
        }
    };
}

codes! {
    /// The request is malformed: not JSON, a field that does not exist, a value of the wrong kind.
    InvalidRequest = "invalid_request", 400;
    /// The `Idempotency-Key` is empty, longer than 128 characters or holds others than visible ASCII.
    InvalidIdempotencyKey = "invalid_idempotency_key", 400;
    /// The cursor is not one that this list gave out.
    InvalidCursor = "invalid_cursor", 400;
    /// No credentials, or none that are valid. The answer carries `WWW-Authenticate`.
    Unauthorized = "unauthorized", 401;
    /// The caller is known and is not an administrator.
    Denied = "denied", 403;
    /// The request carries an `Origin` of another site.
    CrossSite = "cross_site", 403;
    /// There is no such address.
    RouteNotFound = "route_not_found", 404;
    /// There is no user of that name.
    UserNotFound = "user_not_found", 404;
    /// There is no robot of that name.
    RobotNotFound = "robot_not_found", 404;
    /// There is no grant of that id.
    GrantNotFound = "grant_not_found", 404;
    /// The subject of the grant does not exist.
    SubjectNotFound = "subject_not_found", 404;
    /// There is no repository of that name.
    RepositoryNotFound = "repository_not_found", 404;
    /// The repository has no such tag.
    TagNotFound = "tag_not_found", 404;
    /// There is no job of that id; only the newest of each kind since the start of the server are kept.
    JobNotFound = "job_not_found", 404;
    /// The address exists and does not take this method; `Allow` lists those that it takes.
    MethodNotAllowed = "method_not_allowed", 405;
    /// The server runs with `server.mode = "read-only"` and changes nothing; `Allow` lists what it takes there.
    ReadOnly = "read_only", 405;
    /// A user or a robot has that name already.
    NameTaken = "name_taken", 409;
    /// The same grant is there already; `details.id` is its id.
    GrantExists = "grant_exists", 409;
    /// The change would leave no administrator who can log in.
    LastAdministrator = "last_administrator", 409;
    /// A job of this kind is running; `details.id` is its id.
    JobRunning = "job_running", 409;
    /// The `Idempotency-Key` was used for another request, or that request is still running.
    IdempotencyKeyReused = "idempotency_key_reused", 409;
    /// Somebody else changed the same thing at the same time: try again.
    Conflict = "conflict", 409;
    /// The body is larger than 64 KiB.
    TooLarge = "too_large", 413;
    /// The body is not `application/json`.
    UnsupportedMediaType = "unsupported_media_type", 415;
    /// A name of a user, a robot, a namespace or a repository is malformed.
    InvalidName = "invalid_name", 422;
    /// The password is empty, or longer than 1024 bytes.
    InvalidPassword = "invalid_password", 422;
    /// The subject is not `user:NAME`, `robot:NAME` or `anonymous`.
    InvalidSubject = "invalid_subject", 422;
    /// A verb or a role is not known, none was given, or the subject cannot have it.
    InvalidVerbs = "invalid_verbs", 422;
    /// A pattern of repositories or of tags is malformed.
    InvalidPattern = "invalid_pattern", 422;
    /// An expiry is in the past, too far ahead, or given twice.
    InvalidExpiry = "invalid_expiry", 422;
    /// The directory of a backup is not an absolute path, or is there already and not empty.
    InvalidDirectory = "invalid_directory", 422;
    /// Another value that is well formed and cannot be.
    InvalidValue = "invalid_value", 422;
    /// Too many failed logins from this source or for this account; `Retry-After` says when to come back.
    TooManyRequests = "too_many_requests", 429;
    /// The server failed; its log has the reason under the request id.
    Internal = "internal", 500;
    /// The database or the store is away, read only or busy; `Retry-After` says when to come back.
    Unavailable = "unavailable", 503;
    /// The disk is full.
    Full = "full", 507;
}

impl PartialSchema for ErrorCode {
    fn schema() -> RefOr<Schema> {
        let line = |code: &Self| {
            let meaning = code.meaning().lines().map(str::trim).collect::<Vec<_>>().join(" ");
            format!("- `{}` ({}): {meaning}", code.as_str(), code.status())
        };
        let lines: Vec<String> = Self::ALL.iter().map(line).collect();
        ObjectBuilder::new()
            .schema_type(Type::String)
            .enum_values(Some(Self::ALL.iter().map(|code| code.as_str())))
            .description(Some(format!("A closed list:\n{}", lines.join("\n"))))
            .into()
    }
}

impl ToSchema for ErrorCode {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_stable_text() {
        for code in ErrorCode::ALL {
            let json = serde_json::to_string(code).unwrap();
            assert_eq!(json, format!("\"{}\"", code.as_str()));
            assert_eq!(serde_json::from_str::<ErrorCode>(&json).unwrap(), *code);
            assert!((400..600).contains(&code.status()) && code.meaning().ends_with('.'), "{code:?}");
        }
        assert_eq!(serde_json::from_str::<ErrorCode>("\"from_the_future\"").unwrap(), ErrorCode::Unknown);
    }

    #[test]
    fn body() {
        let body = ErrorBody::new(ErrorCode::GrantExists, "there already", "").with("id", 7);
        assert_eq!(
            serde_json::to_string(&body).unwrap(),
            r#"{"error":{"code":"grant_exists","message":"there already","help":"","details":{"id":7}}}"#
        );
    }
}
