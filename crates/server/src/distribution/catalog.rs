//! The catalog: the repositories that the caller may list.

use axum::response::Response;
use http::StatusCode;
use oci::RepositoryName;
use policy::CatalogAccess;
use registry::list;
use serde::Serialize;

use super::error::Failure;
use super::{Call, pages, respond};

/// The longest name, quoted, and a comma.
const ENTRY: usize = 260;

#[derive(Serialize)]
struct Repositories<'a> {
    repositories: &'a [&'a str],
}

pub(super) async fn list(call: &Call<'_>, access: &CatalogAccess) -> Result<Response, Failure> {
    let limit = pages::limit(call.query.n.as_deref(), list::CATALOG_MAX)?.unwrap_or(list::CATALOG_DEFAULT);
    let room = list::reserve(&call.state.registry, access.caller(), ENTRY * limit).await?;
    let page = list::catalog(&call.state.registry, access, call.query.last.as_deref(), Some(limit)).await?;
    let names: Vec<&str> = page.items.iter().map(RepositoryName::as_str).collect();
    let body = serde_json::to_vec(&Repositories { repositories: &names }).map_err(registry::Error::internal)?;
    let mut response = respond::bytes(StatusCode::OK, "application/json", room.hold(body));
    let last = names.last().copied().filter(|_| page.more);
    pages::set_link(response.headers_mut(), "/v2/_catalog", last, Some(limit));
    Ok(response)
}
