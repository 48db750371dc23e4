//! Rows: schema, migrations and every SQL statement.
//!
//! [`Db`] is the seam: a closed enum of engines, SQLite now, PostgreSQL next, under one suite (`conformance`). Each file
//! holds the statements of one group of tables, written once for both engines.
//!
//! Two rules keep online collection safe. Whoever adds a reference to a blob first touches its row in the same
//! transaction, where the last touch is older than a quarter of the grace, so that the database orders a push against
//! the collection of the same row. And a key of the blob store is never used again, so that removing the bytes of an
//! old key can never hit a fresh upload of the same digest.

mod actor;
mod blob;
mod check;
#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
mod copy;
mod db;
mod error;
mod event;
mod gc;
mod grant;
mod hold;
mod idempotency;
mod link;
mod lock;
mod manifest;
mod migrations;
mod postgres;
mod referrer;
mod repository;
mod robot;
mod serving;
mod signing_key;
mod sqlite;
mod stats;
mod subject;
mod tag;
mod tx;
mod upload;
mod user;
mod value;

#[cfg(test)]
mod tests;

pub use actor::Actor;
pub use blob::{BlobRow, DeleteBlob, Finish, Location, NewBlob};
pub use check::{BlobCheck, EdgeCheck, LinkCheck, ManifestCheck, TagCheck, UploadCheck};
pub use copy::{Copied, copy};
pub use db::{Checkpoint, Db, Engine, FORMAT, MIN_READER, MakeRoom, Options};
pub use error::Error;
pub use event::{Action, EventFilter, EventRow, NewEvent, Outcome};
pub use gc::{GarbageRow, GcPlan, GcStep};
pub use grant::{CreateGrant, GrantRow, NewGrant};
pub use hold::HoldRow;
pub use idempotency::Reserve;
pub use manifest::{
    DeleteManifest, Edge, EdgeKind, ManifestRow, ManifestStat, NewManifest, PushManifest, TagChange, TagJudge,
    TagRight, TagVerb,
};
pub use postgres::{Authorities, PostgresOptions, PostgresUrl, PostgresUrlError};
pub use referrer::{REFERRERS_TEXT, ReferrerRow};
pub use repository::{RepositoryDetails, RepositoryRow};
pub use robot::{NewRobot, OlderSecrets, RobotRow, SecretRow};
pub use serving::{Server, TakeStore};
pub use signing_key::{NewSigningKey, SigningKeyRow};
pub use stats::{GROUP_SIZE_BOUNDS, Stats};
pub use subject::{CredentialRow, RulesRows, SubjectKind, SubjectRow};
pub use tag::{DeleteTag, TagRow};
pub use upload::{CreateUpload, Lease, UploadRow};
pub use user::{NewUser, RemoveUser, UpdateUser, UserRow};
