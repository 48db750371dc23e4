//! `/api/v1/events`: the audit trail.

use api::{Event, EventQuery, Order, Page};
use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use meta::{Action, EventFilter, EventRow};

use super::extract::{Admin, Params, limit, number};
use super::{AdminState, Failure, answer};

/// Lists events.
pub async fn list(
    State(state): State<AdminState>,
    Admin(access): Admin,
    Params(query): Params<EventQuery>,
) -> Result<Response, Failure> {
    let (limit, cursor) = (limit(query.limit)?, number(query.cursor.as_deref())?);
    let filter = EventFilter {
        since: query.since.map(|time| time.0),
        until: None,
        subject: query.subject,
        action: query.action.as_deref().map(action).transpose()?,
        repository: query.repository,
    };
    let order = query.order.unwrap_or_default();
    let registry = &state.app.registry;
    let rows = match order {
        Order::Newest => registry::events::newest(registry, &access, &filter, cursor, limit).await?,
        Order::Oldest => registry::events::oldest(registry, &access, &filter, cursor, limit).await?,
    };
    // In this order the end of the list is where the next events come: whoever follows asks again from there.
    let next = match order {
        Order::Newest if rows.len() < limit => None,
        Order::Newest => rows.last().map(|row| row.id),
        Order::Oldest => rows.last().map(|row| row.id).or(cursor).or(Some(0)),
    };
    let page = Page { next: next.map(|id| id.to_string()), items: rows.into_iter().map(show).collect() };
    Ok(answer(StatusCode::OK, &page))
}

fn action(text: &str) -> Result<Action, Failure> {
    Action::parse(text).ok_or_else(|| {
        let known: Vec<&str> = Action::ALL.iter().map(|action| action.as_str()).collect();
        Failure::request(format!("there is no such action; there are {}", known.join(", ")))
    })
}

fn show(row: EventRow) -> Event {
    let detail = row.detail.and_then(|text| serde_json::from_str(&text).ok());
    Event {
        id: row.id,
        time: row.time.into(),
        action: row.action,
        outcome: row.outcome,
        subject: row.subject,
        credential: row.credential,
        source: row.source,
        request_id: row.request_id,
        repository: row.repository,
        reference: row.reference,
        digest: row.digest.map(|digest| digest.to_string()),
        detail: detail.unwrap_or_else(|| serde_json::Value::Object(serde_json::Map::new())),
    }
}
