//! What a database operation can fail with.

use std::sync::Arc;

/// Why an operation failed. Outcomes that a caller expects (an unknown tag, a full quota) are values, not errors.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The change contradicts a row that is there, for example a name that is taken.
    #[error("{what} is already there")]
    Conflict {
        /// What is there already.
        what: String,
    },
    /// The rules by which it was decided that the actor may do this are not the store's any more. Nothing was changed;
    /// decide again.
    #[error("the rules have changed since it was decided by them")]
    Outdated,
    /// Another process holds the database, or too many changes wait. Nothing was changed; try again later.
    #[error("the database is busy")]
    Busy,
    /// The database is damaged, or is not one of ours.
    #[error("the database is damaged: {what}")]
    Corrupt {
        /// What was found.
        what: String,
    },
    /// A newer version of the program wrote the schema. Nothing was changed.
    #[error("the database has format {found}, this program reads formats up to {supported}")]
    NewerFormat {
        /// The number of the newest migration that was applied.
        found: i64,
        /// The newest that this program knows.
        supported: i64,
    },
    /// The disk is full. Nothing was changed.
    #[error("the disk of the database is full")]
    Full,
    /// The database cannot be written: its disk is read-only, or a sync failed and nothing is written until the program
    /// has been started again.
    #[error("the database is read-only")]
    ReadOnly,
    /// The database does not answer as it should: it cannot be reached, its disk fails to read or to open, or it has not answered
    /// in time. Nothing was changed; try again later.
    #[error("the database is not available for {doing}")]
    Unavailable {
        /// What was being done.
        doing: &'static str,
        /// The error of the engine.
        #[source]
        source: Arc<dyn std::error::Error + Send + Sync>,
    },
    /// The commit failed on the way to the disk, was cut off with its connection, or has not been answered in time: the change
    /// may be there, may come, or may turn out to be there after a crash.
    #[error("it is not known whether the change reached the disk")]
    Unsure {
        /// The error of the engine.
        #[source]
        source: Arc<dyn std::error::Error + Send + Sync>,
    },
    /// This engine has nothing of the kind.
    #[error("{what} is not for this kind of database")]
    NotForEngine {
        /// What was asked for.
        what: &'static str,
    },
    /// A copy into the database has begun and not ended.
    #[error("the database is being filled by a copy that has not ended")]
    BeingFilled,
    /// Any other failure.
    #[error("the database failed while {doing}")]
    Db {
        /// What was being done.
        doing: &'static str,
        /// The error of the engine.
        #[source]
        source: Arc<dyn std::error::Error + Send + Sync>,
    },
}

impl Error {
    /// Whether the change is surely not there, now and after a crash, so that it may be tried again.
    pub fn is_certainly_aborted(&self) -> bool {
        !matches!(self, Self::Unsure { .. })
    }

    pub(crate) fn db(doing: &'static str, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Db { doing, source: Arc::from(source.into()) }
    }

    pub(crate) fn unavailable(
        doing: &'static str,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self::Unavailable { doing, source: Arc::from(source.into()) }
    }

    /// No answer within this time.
    pub(crate) fn late(doing: &'static str, time: std::time::Duration) -> Self {
        Self::unavailable(doing, format!("no answer within {} s", time.as_secs_f32()))
    }

    pub(crate) fn unsure(why: impl Into<String>) -> Self {
        Self::Unsure { source: Arc::from(Box::<dyn std::error::Error + Send + Sync>::from(why.into())) }
    }

    pub(crate) fn corrupt(what: impl Into<String>) -> Self {
        Self::Corrupt { what: what.into() }
    }

    pub(crate) fn conflict(what: impl Into<String>) -> Self {
        Self::Conflict { what: what.into() }
    }

    /// An error of SQLite, sorted into what the caller can do about it.
    pub(crate) fn sqlite(doing: &'static str, error: rusqlite::Error) -> Self {
        use rusqlite::ffi::ErrorCode;
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::Busy,
            Some(ErrorCode::DiskFull) => Self::Full,
            Some(ErrorCode::ReadOnly) => Self::ReadOnly,
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Self::corrupt(error.to_string()),
            Some(ErrorCode::SystemIoFailure | ErrorCode::CannotOpen | ErrorCode::FileLockingProtocolFailed) => {
                Self::unavailable(doing, error)
            }
            Some(ErrorCode::ConstraintViolation) => Self::conflict("a row with this key"),
            _ => Self::db(doing, error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_failed_sync_is_uncertain() {
        let source: Arc<dyn std::error::Error + Send + Sync> = Arc::from(Box::from("fsync"));
        assert!(!Error::Unsure { source: source.clone() }.is_certainly_aborted());
        for error in [Error::Busy, Error::Full, Error::ReadOnly, Error::Db { doing: "writing", source }] {
            assert!(error.is_certainly_aborted());
        }
        let error = Error::db("reading", "the reason");
        assert_eq!(error.to_string(), "the database failed while reading");
        assert_eq!(std::error::Error::source(&error).unwrap().to_string(), "the reason");
    }
}
