//! The list of tags.

use axum::response::Response;
use http::StatusCode;
use oci::Tag;
use policy::Access;
use registry::list;
use serde_json::json;

use super::error::Failure;
use super::{Call, pages, respond};

pub(super) async fn list(call: &Call<'_>, access: &Access) -> Result<Response, Failure> {
    let limit = pages::limit(call.query.n.as_deref(), pages::MAX_PAGE)?;
    let page = list::tags(&call.state.registry, access, call.query.last.as_deref(), limit).await?;
    let name = access.repository().as_str();
    let tags: Vec<&str> = page.items.iter().map(Tag::as_str).collect();
    let mut response = respond::json(StatusCode::OK, &json!({ "name": name, "tags": tags }));
    let last = tags.last().copied().filter(|_| page.more);
    pages::set_link(response.headers_mut(), &format!("/v2/{name}/tags/list"), last, limit);
    Ok(response)
}
