//! Grants.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::{Lifetime, Time};

/// Verbs for a subject on the repositories that match a pattern.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Grant {
    /// Its id.
    pub id: i64,
    /// `user:NAME`, `robot:NAME` or `anonymous`.
    #[schema(examples("user:alice"))]
    pub subject: String,
    /// The role that it was given as: `reader`, `writer` or `maintainer`; null when single verbs were given.
    pub role: Option<String>,
    /// The verbs, those of the role written out: `pull`, `list`, `push`, `tag-create`, `tag-move`, `tag-delete`, `delete`.
    pub verbs: Vec<String>,
    /// The pattern: `payments/api`, `*` for any run of characters within one component, `**` for one or more components
    /// at the end.
    #[schema(examples("payments/**"))]
    pub repository: String,
    /// Tag patterns that bind writes and reads by tag; empty for all tags.
    pub tags: Vec<String>,
    /// From then on it does not count; null for never.
    pub expires_at: Option<Time>,
    /// Why it was given; null when nobody said.
    pub reason: Option<String>,
    /// Who gave it.
    #[schema(examples("user:admin"))]
    pub created_by: String,
    /// When it was given.
    pub created_at: Time,
}

/// Gives a grant. Either `role` or `verbs`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateGrant {
    /// `user:NAME`, `robot:NAME` or `anonymous` (which can be given `pull` and `list` only).
    pub subject: String,
    /// `reader`, `writer` or `maintainer`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// Single verbs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verbs: Option<Vec<String>>,
    /// The pattern of repositories.
    pub repository: String,
    /// Patterns of tags, at most 64; empty for all.
    #[serde(default)]
    pub tags: Vec<String>,
    /// How long it counts; for ever when neither this nor `expires_at` is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_in: Option<Lifetime>,
    /// When it expires, instead of `expires_in`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Time>,
    /// Why, at most 500 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Which grants are listed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct GrantQuery {
    /// At most this many items: 1 to 1000, default 100.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// `next` of the page before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
    /// Only those of this subject.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
}

/// Which grants are removed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct RemoveGrantsQuery {
    /// All those of this subject.
    pub subject: String,
}

/// How many rows were removed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Removed {
    /// Their number; 0 is no error.
    pub removed: u64,
}
