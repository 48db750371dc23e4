//! Work that outlives a request: collection, backup, checks. A job is started with POST, which answers 202 at once, and
//! is watched with GET until its state is no longer `running`. One of each kind runs at a time. Jobs live in memory.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::{Lifetime, Time};

/// What a job does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum JobKind {
    /// Garbage collection.
    Gc,
    /// Makes a backup, or verifies one.
    Backup,
    /// Compares rows and store.
    Fsck,
}

/// How far a job is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum JobState {
    /// At work.
    Running,
    /// Ended; `report` is there.
    Done,
    /// Ended; `error` says why.
    Failed,
}

/// A job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Job {
    /// Its id.
    pub id: String,
    /// What it does.
    pub kind: JobKind,
    /// How far it is.
    pub state: JobState,
    /// Who started it.
    pub started_by: String,
    /// When it began.
    pub started_at: Time,
    /// When it ended.
    pub finished_at: Option<Time>,
    /// What came of it; while it is running, how far it is.
    pub report: Option<Report>,
    /// Why it failed.
    pub error: Option<String>,
}

/// What came of a job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Report {
    /// Of a collection.
    Gc(GcReport),
    /// Of a backup, or of verifying one.
    Backup(BackupReport),
    /// Of a check.
    Fsck(FsckReport),
}

/// What collection would remove, or has removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CollectionCounts {
    /// Upload sessions that nobody finished.
    pub uploads: u64,
    /// Deleted manifests.
    pub manifests: u64,
    /// Blobs that no manifest of their repository names.
    pub links: u64,
    /// Blobs that no repository holds.
    pub blobs: u64,
    /// Files in the store.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// What a collection removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GcReport {
    /// What was removed.
    #[serde(flatten)]
    pub removed: CollectionCounts,
    /// A backup was under way, so bytes were left for the next run.
    #[serde(default)]
    pub held: bool,
    /// How long it took.
    pub duration_ms: u64,
}

/// Starts a collection.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct StartGc {
    /// Instead of the setting `gc.grace`. `0` can take blobs from under a push that is running: for tests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grace: Option<Lifetime>,
}

/// What a plan assumes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct PlanQuery {
    /// Instead of the setting `gc.grace`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(value_type = Option<String>)]
    pub grace: Option<Lifetime>,
}

/// Starts a backup.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct StartBackup {
    /// An absolute path on the server; absent or empty.
    pub directory: String,
    /// Read everything back afterwards.
    #[serde(default)]
    pub verify: bool,
}

/// Starts verifying a backup.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct VerifyBackup {
    /// An absolute path on the server.
    pub directory: String,
}

/// What a backup holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BackupReport {
    /// Where it is.
    pub directory: String,
    /// Files of blobs in it; smaller blobs are in the database.
    pub blobs: u64,
    /// Their bytes, and those of the database.
    pub bytes: u64,
    /// Whether each blob was read and compared with its digest.
    pub verified: bool,
    /// What is wrong: blobs whose bytes were missing or damaged when the backup was made. Empty when all is well.
    pub findings: Vec<Finding>,
    /// How long it took.
    pub duration_ms: u64,
}

/// Starts a check of rows against store, both ways.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct StartFsck {
    /// Mend what can be mended without losing anything.
    #[serde(default)]
    pub repair: bool,
}

/// What a check found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FsckReport {
    /// How much was looked at.
    pub checked: Checked,
    /// What was found: the first 10,000.
    pub findings: Vec<Finding>,
    /// How many findings are not listed.
    #[serde(default)]
    pub omitted: u64,
    /// How long it took.
    pub duration_ms: u64,
}

/// How much was looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Checked {
    /// Blobs, read and hashed.
    pub blobs: u64,
    /// Manifests, parsed and hashed.
    pub manifests: u64,
    /// Tags.
    pub tags: u64,
    /// Links from repositories to blobs.
    pub links: u64,
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Good to know; nothing is wrong.
    Note,
    /// Something is not in order, but nothing that was acknowledged is affected.
    Warning,
    /// Something that was acknowledged is damaged or missing.
    Error,
}

/// One thing that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Finding {
    /// For programs.
    #[schema(examples("blob_damaged"))]
    pub code: String,
    /// How bad.
    pub severity: Severity,
    /// For people.
    pub message: String,
    /// The digest that it is about.
    pub digest: Option<String>,
    /// The repository that it is about.
    pub repository: Option<String>,
    /// It was mended.
    #[serde(default)]
    pub repaired: bool,
}
