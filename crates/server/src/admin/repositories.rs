//! `/api/v1/repositories`: names, numbers and tags, and their removal. Bytes are pulled like everybody's, with a grant.

use api::{ErrorCode, ListQuery, Repository, RepositoryDetail};
use axum::extract::State;
use axum::response::Response;
use futures_util::future::BoxFuture;
use http::StatusCode;
use oci::{Reference, RepositoryName, Tag};
use policy::{Access, AdminAccess, Refusal, authorize_admin};
use registry::Right;

use super::extract::{Admin, At, Params, limit, page, repository};
use super::{AdminState, Failure, answer};

/// An administrator's right to a repository, decided on anew each time by the rules of that moment.
struct Still<'a> {
    state: &'a AdminState,
    access: &'a AdminAccess,
    name: &'a RepositoryName,
}

impl Right for Still<'_> {
    fn decide(&self) -> Result<Access, Refusal> {
        let app = &self.state.app;
        Ok(authorize_admin(&app.rules.load(), self.access.caller(), (app.clock)())?.repository(self.name))
    }

    fn refresh(&self) -> BoxFuture<'_, Result<(), registry::Error>> {
        Box::pin(async { Ok(self.state.app.rules.refresh().await?) })
    }
}

/// Lists repositories by name.
pub async fn list(
    State(state): State<AdminState>,
    Admin(access): Admin,
    Params(query): Params<ListQuery>,
) -> Result<Response, Failure> {
    let limit = limit(query.limit)?;
    let rows = registry::repository::list(&state.app.registry, &access, query.cursor.as_deref(), limit + 1).await?;
    let show = |row: meta::RepositoryRow| Repository {
        name: row.name.to_string(),
        created_at: row.created_at.into(),
        created_by: row.created_by,
    };
    Ok(answer(StatusCode::OK, &page(rows, limit, |row| row.name.to_string(), show)))
}

/// Shows one repository.
pub async fn get(
    State(state): State<AdminState>,
    Admin(access): Admin,
    At(name): At<String>,
) -> Result<Response, Failure> {
    let row = registry::repository::show(&state.app.registry, &access, &repository(&name)?).await?;
    let detail = RepositoryDetail {
        name: row.name.to_string(),
        created_at: row.created_at.into(),
        created_by: row.created_by,
        tags: row.tags,
        manifests: row.manifests,
        blobs: row.blobs,
        bytes: row.bytes,
    };
    Ok(answer(StatusCode::OK, &detail))
}

/// Deletes a repository with all that is in it.
pub async fn remove(
    State(state): State<AdminState>,
    Admin(access): Admin,
    At(name): At<String>,
) -> Result<StatusCode, Failure> {
    let name = repository(&name)?;
    registry::repository::delete(&state.app.registry, &Still { state: &state, access: &access, name: &name }).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Lists the tags of a repository by name.
pub async fn tags(
    State(state): State<AdminState>,
    Admin(access): Admin,
    At(name): At<String>,
    Params(query): Params<ListQuery>,
) -> Result<Response, Failure> {
    let (limit, name) = (limit(query.limit)?, repository(&name)?);
    let after = query.cursor.as_deref();
    let rows = registry::repository::tags(&state.app.registry, &access, &name, after, limit + 1).await?;
    let show = |row: meta::TagRow| api::Tag {
        name: row.name.to_string(),
        digest: row.digest.to_string(),
        media_type: row.media_type,
        size: row.size,
        pushed_at: row.pushed_at.into(),
        pushed_by: row.pushed_by,
    };
    Ok(answer(StatusCode::OK, &page(rows, limit, |row| row.name.to_string(), show)))
}

/// Removes a tag; what it points at stays.
pub async fn remove_tag(
    State(state): State<AdminState>,
    Admin(access): Admin,
    At((name, tag)): At<(String, String)>,
) -> Result<StatusCode, Failure> {
    let name = repository(&name)?;
    let tag = Tag::parse(&tag).map_err(|error| Failure::new(ErrorCode::InvalidName, error.message, ""))?;
    let still = Still { state: &state, access: &access, name: &name };
    registry::delete::manifest(&state.app.registry, &still, &Reference::Tag(tag)).await?;
    Ok(StatusCode::NO_CONTENT)
}
