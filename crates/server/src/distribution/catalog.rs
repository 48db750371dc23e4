//! The catalog: the repositories that the caller may list.

use axum::response::Response;
use http::StatusCode;
use oci::RepositoryName;
use policy::CatalogAccess;
use registry::list;
use serde_json::json;

use super::error::Failure;
use super::{Call, pages, respond};

pub(super) async fn list(call: &Call<'_>, access: &CatalogAccess) -> Result<Response, Failure> {
    let limit = pages::limit(call.query.n.as_deref(), list::CATALOG_MAX)?.unwrap_or(list::CATALOG_DEFAULT);
    let page = list::catalog(&call.state.registry, access, call.query.last.as_deref(), Some(limit)).await?;
    let names: Vec<&str> = page.items.iter().map(RepositoryName::as_str).collect();
    let mut response = respond::json(StatusCode::OK, &json!({ "repositories": names }));
    let last = names.last().copied().filter(|_| page.more);
    pages::set_link(response.headers_mut(), "/v2/_catalog", last, Some(limit));
    Ok(response)
}
