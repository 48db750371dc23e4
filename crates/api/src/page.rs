//! Lists.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// One page of a list.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Page<T> {
    /// What is on this page, in the list's order.
    pub items: Vec<T>,
    /// Hand this back as `cursor` to get the next page; null on the last one. Its content means nothing to a client.
    pub next: Option<String>,
}

impl<T> Page<T> {
    /// The most items on one page; a larger `limit` is cut to it.
    pub const MAX: u32 = 1000;
    /// The number of items when `limit` is not given.
    pub const DEFAULT: u32 = 100;

    /// The same page of other items.
    pub fn map<U>(self, f: impl FnMut(T) -> U) -> Page<U> {
        Page { items: self.items.into_iter().map(f).collect(), next: self.next }
    }
}

/// Where a list goes on and how far.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListQuery {
    /// At most this many items: 1 to 1000, default 100.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// `next` of the page before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}
