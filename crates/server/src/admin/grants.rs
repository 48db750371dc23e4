//! `/api/v1/grants`.

use api::{CreateGrant, Grant, GrantQuery, RemoveGrantsQuery, Removed};
use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use meta::GrantRow;
use registry::accounts::{self, Given, GranteeName, Invalid, NewGrant};

use super::extract::{Admin, At, Input, Params, expiry, limit, number, page};
use super::{AdminState, Failure, answer};

/// Lists grants by id.
pub async fn list(
    State(state): State<AdminState>,
    Admin(access): Admin,
    Params(query): Params<GrantQuery>,
) -> Result<Response, Failure> {
    let (limit, after) = (limit(query.limit)?, number(query.cursor.as_deref())?);
    let subject = query.subject.as_deref().map(GranteeName::parse).transpose().map_err(accounts::Error::from)?;
    let grants = accounts::grants(&state.app.registry, &access, subject.as_ref(), after, limit + 1).await?;
    Ok(answer(StatusCode::OK, &page(grants, limit, |row| row.id.to_string(), show)))
}

/// Gives a grant.
pub async fn create(
    State(state): State<AdminState>,
    Admin(access): Admin,
    Input(input): Input<CreateGrant>,
) -> Result<Response, Failure> {
    let expires_at = expiry(&state, input.expires_in, input.expires_at)?;
    let grant = parse(input).map_err(accounts::Error::from)?;
    let grant = accounts::add_grant(&state.app.registry, &access, NewGrant { expires_at, ..grant }).await?;
    state.reload().await?;
    Ok(answer(StatusCode::CREATED, &show(grant)))
}

/// Shows one grant.
pub async fn get(State(state): State<AdminState>, Admin(access): Admin, At(id): At<i64>) -> Result<Response, Failure> {
    let grant = accounts::grant(&state.app.registry, &access, id).await?;
    Ok(answer(StatusCode::OK, &show(grant)))
}

/// Takes one grant away.
pub async fn remove(
    State(state): State<AdminState>,
    Admin(access): Admin,
    At(id): At<i64>,
) -> Result<StatusCode, Failure> {
    accounts::remove_grant(&state.app.registry, &access, id).await?;
    state.reload().await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Takes all grants of a subject away.
pub async fn remove_by_subject(
    State(state): State<AdminState>,
    Admin(access): Admin,
    Params(query): Params<RemoveGrantsQuery>,
) -> Result<Response, Failure> {
    let subject = GranteeName::parse(&query.subject).map_err(accounts::Error::from)?;
    let removed = accounts::remove_grants_of(&state.app.registry, &access, &subject).await?;
    state.reload().await?;
    Ok(answer(StatusCode::OK, &Removed { removed }))
}

fn parse(input: CreateGrant) -> Result<NewGrant, Invalid> {
    let given = match (&input.role, &input.verbs) {
        (Some(role), None) => Given::role(role)?,
        (None, Some(verbs)) => Given::verbs(verbs)?,
        _ => return Err(Invalid::Verbs("give either a role or verbs".to_owned())),
    };
    NewGrant::parse(&input.subject, given, &input.repository, &input.tags, input.reason)
}

fn show(row: GrantRow) -> Grant {
    Grant {
        id: row.id,
        subject: row.subject_name,
        role: row.role,
        verbs: row.verbs.split(',').map(str::to_owned).collect(),
        repository: row.repository,
        tags: row.tags,
        expires_at: row.expires_at.map(Into::into),
        reason: row.reason,
        created_by: row.created_by,
        created_at: row.created_at.into(),
    }
}
