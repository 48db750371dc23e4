//! What refers to a manifest.

use axum::response::Response;
use bytes::Bytes;
use http::header::LINK;
use http::{HeaderValue, StatusCode};
use oci::{Digest, ReferrersPage, link};
use policy::Access;
use registry::list;

use super::error::Failure;
use super::{Call, respond};

/// The exact type: clients compare it (Q75).
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

pub(super) async fn list(call: &Call<'_>, access: &Access, digest: &Digest) -> Result<Response, Failure> {
    let types = filters(call);
    let after = call.query.last.as_deref();
    let page = list::referrers(&call.state.registry, access, digest, &types, after).await?;
    let mut response = render(&types, page.body);
    if let Some(next) = &page.next {
        let path = format!("/v2/{}/referrers/{digest}", access.repository());
        let mut query: Vec<(&str, &str)> = types.iter().map(|filter| ("artifactType", filter.as_str())).collect();
        query.push(("last", next));
        respond::set(response.headers_mut(), LINK, link::next_page(&path, &query));
    }
    Ok(response)
}

/// The answer for a repository that the caller may not see, which is the answer for one that does not exist.
pub(super) fn empty(call: &Call<'_>) -> Response {
    render(&filters(call), ReferrersPage::new().finish())
}

fn filters(call: &Call<'_>) -> Vec<String> {
    call.query.artifact_types.iter().filter(|filter| !filter.is_empty()).cloned().collect()
}

fn render(types: &[String], body: impl Into<Bytes>) -> Response {
    let mut response = respond::bytes(StatusCode::OK, INDEX, body);
    if !types.is_empty() {
        response.headers_mut().insert(respond::OCI_FILTERS_APPLIED, HeaderValue::from_static("artifactType"));
    }
    response
}
