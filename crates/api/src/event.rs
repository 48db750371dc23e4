//! The audit trail.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::Time;

/// Something that happened. Changes are written in the transaction of the change.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Event {
    /// Its number.
    pub id: i64,
    /// When.
    pub time: Time,
    /// What: `manifest.push`, `tag.move`, `user.add`, `denied`, …
    #[schema(examples("tag.move"))]
    pub action: String,
    /// `ok`, `failed` or `denied`.
    pub outcome: String,
    /// Who: `user:NAME`, `robot:NAME`, `anonymous`, `socket` (the owner of the data directory) or `system` (the server).
    pub subject: String,
    /// With what: `basic`, `token:ID`, `socket` or empty.
    pub credential: String,
    /// From which address.
    pub source: String,
    /// The request's id, as in the log and in `X-Request-Id`.
    pub request_id: String,
    /// In which repository.
    pub repository: Option<String>,
    /// By which tag, or which name or id for changes of accounts.
    pub reference: Option<String>,
    /// The digest that it is about.
    pub digest: Option<String>,
    /// What else belongs to the action.
    #[schema(value_type = Object)]
    pub detail: serde_json::Value,
}

/// The order of a list of events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// From the newest back.
    #[default]
    Newest,
    /// From the oldest on. `next` is never null in this order: what happens later is found with it.
    Oldest,
}

/// Which events are listed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct EventQuery {
    /// At most this many items: 1 to 1000, default 100.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// `next` of the page before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
    /// Not before this time.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(value_type = Option<String>, format = DateTime)]
    pub since: Option<Time>,
    /// Only of this subject: `user:NAME`, `robot:NAME`, `anonymous`, `socket`, `system`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// Only of this action.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub action: Option<String>,
    /// Only in this repository.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repository: Option<String>,
    /// `newest` (default) or `oldest` first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(inline)]
    pub order: Option<Order>,
}
