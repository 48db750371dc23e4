//! The audit trail, for administrators.

use meta::{EventFilter, EventRow};
use policy::AdminAccess;

use crate::{Error, Registry};

/// The newest events first, before the one with the id `before`.
pub async fn newest(
    r: &Registry,
    _: &AdminAccess,
    filter: &EventFilter,
    before: Option<i64>,
    limit: usize,
) -> Result<Vec<EventRow>, Error> {
    Ok(r.db().events_before(filter, before, limit).await?)
}

/// Events in the order in which they were written, after the one with the id `after`.
pub async fn oldest(
    r: &Registry,
    _: &AdminAccess,
    filter: &EventFilter,
    after: Option<i64>,
    limit: usize,
) -> Result<Vec<EventRow>, Error> {
    Ok(r.db().events(filter, after, limit).await?)
}
