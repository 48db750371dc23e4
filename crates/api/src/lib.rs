//! Request and response types of the admin API, `/api/v1/…`, shared by the server and the command line.
//!
//! Requests refuse unknown fields; answers may gain fields, so a client ignores what it does not know. Lists are
//! [`Page`]s, errors are [`ErrorBody`]s with a code of the closed list [`ErrorCode`]. Times are RFC 3339 in UTC,
//! lifetimes are text such as `90d`.
//!
//! An administrator sees names, sizes and times of everything here, and never the bytes of an image: those need a grant
//! of `pull`, like anybody's.

mod error;
mod event;
mod grant;
mod job;
mod lifetime;
mod page;
mod repository;
mod robot;
mod route;
mod server_info;
mod session;
mod time;
mod user;

pub use error::{ErrorBody, ErrorCode, ErrorDetail};
pub use event::{Event, EventQuery, Order};
pub use grant::{CreateGrant, Grant, GrantQuery, RemoveGrantsQuery, Removed};
pub use job::{
    BackupReport, Checked, CollectionCounts, Finding, FsckReport, GcReport, Job, JobKind, JobState, PlanQuery, Report,
    Severity, StartBackup, StartFsck, StartGc, VerifyBackup,
};
pub use lifetime::{Lifetime, LifetimeError};
pub use page::{ListQuery, Page};
pub use repository::{Repository, RepositoryDetail, Tag};
pub use robot::{CreateRobot, CreatedRobot, Robot, RotateRobot, Secret, UpdateRobot};
pub use route::{Method, Route, path};
pub use server_info::{Readiness, ServerInfo, Task, Whoami};
pub use session::{RefreshSession, Session};
pub use time::Time;
pub use user::{ChangePassword, ChangedPassword, CreateUser, CreatedUser, UpdateUser, User};

/// The header that makes a POST safe to send again: 1 to 128 visible ASCII characters, kept for 24 hours, per caller.
/// The same key with the same body gets the first answer (without its secrets, which are never stored); with another
/// body it gets `idempotency_key_reused`.
pub const IDEMPOTENCY_KEY: &str = "Idempotency-Key";

/// The longest request body in bytes; more is answered with `too_large`.
pub const BODY_LIMIT: usize = 64 * 1024;
