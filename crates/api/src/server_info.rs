//! About the server.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::Time;

/// What runs where.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ServerInfo {
    /// The version of the server.
    pub version: String,
    /// The id of its store.
    pub store: String,
    /// The server's time.
    pub time: Time,
    /// When it started.
    pub started_at: Time,
    /// The URLs by which clients may name it.
    pub public_urls: Vec<String>,
    /// `sqlite` or `postgres`.
    pub database: String,
    /// `fs`.
    pub storage: String,
    /// `read-write` or `read-only` (`server.mode`).
    pub mode: String,
    /// Free bytes in the store; null when that cannot be told.
    pub free_bytes: Option<u64>,
}

/// Whether the server can serve; the answer of `/readyz`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Readiness {
    /// All checks are `ok`.
    pub ready: bool,
    /// The state of each part: `ok` or what is the matter.
    pub checks: BTreeMap<String, String>,
    /// `read-only` where `server.mode` is: then it is ready to serve pulls. Absent otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
}

/// A background task of the server.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Task {
    /// Its name.
    #[schema(examples("gc"))]
    pub name: String,
    /// Whether it is at work.
    pub running: bool,
    /// How often it ran since the start.
    pub runs: u64,
    /// When it began last.
    pub last_started_at: Option<Time>,
    /// When it ended last.
    pub last_finished_at: Option<Time>,
    /// Why it failed last; null when it did not.
    pub last_error: Option<String>,
    /// What came of the last run, in a few words.
    pub last_result: Option<String>,
}

/// Who the server takes the caller for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Whoami {
    /// `user:NAME`, or `socket` for the owner of the data directory.
    pub subject: String,
    /// May use this API.
    pub administrator: bool,
    /// `basic`, `token` or `socket`.
    pub credential: String,
}
