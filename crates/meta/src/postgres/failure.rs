//! PostgreSQL's errors, sorted into what the caller can do about them.

use std::sync::Arc;

use tokio_postgres::error::Severity;

use crate::error::Error;

/// Whether the same transaction may well succeed when it is run again at once: a deadlock, a conflict of snapshots.
pub(super) fn is_worth_another_try(error: &tokio_postgres::Error) -> bool {
    matches!(code(error), Some("40001" | "40P01"))
}

/// Whether the connection is gone, or of no use any more.
pub(super) fn ends_connection(error: &tokio_postgres::Error) -> bool {
    error.as_db_error().is_none_or(|error| error.parsed_severity() != Some(Severity::Error))
}

/// Whether a COMMIT that failed like this has certainly done nothing. An error of which the connection dies may have come
/// after the commit was written, while the server was waiting for a standby.
pub(super) fn is_surely_aborted(error: &tokio_postgres::Error) -> bool {
    !ends_connection(error)
}

/// What the caller can do about it.
pub(super) fn sort(doing: &'static str, error: tokio_postgres::Error) -> Error {
    let Some(code) = code(&error) else {
        return Error::Unavailable { doing, source: Arc::new(error) };
    };
    match code {
        // Deadlock, conflict of snapshots, a lock that was not free, a statement that took too long.
        "40001" | "40P01" | "55P03" | "57014" => Error::Busy,
        "53100" => Error::Full,
        "22012" => Error::unavailable("a change", "another server has taken the store"),
        "25006" => Error::ReadOnly,
        "XX001" | "XX002" => Error::corrupt(error.as_db_error().map_or_else(String::new, |e| e.message().to_owned())),
        code if code.starts_with("23") => Error::conflict("a row with this key"),
        // The connection (pgbouncer's own errors too), the server's end, too many connections, a transaction cut for idling.
        code if ["08", "57P", "533", "25P03"].iter().any(|class| code.starts_with(class)) => {
            Error::Unavailable { doing, source: Arc::new(error) }
        }
        _ if ends_connection(&error) => Error::Unavailable { doing, source: Arc::new(error) },
        _ => Error::db(doing, error),
    }
}

fn code(error: &tokio_postgres::Error) -> Option<&str> {
    error.as_db_error().map(|error| error.code().code())
}
