//! `/api/v1/robots`.

use api::{CreateRobot, CreatedRobot, ListQuery, Robot, RotateRobot, Secret, UpdateRobot};
use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use meta::OlderSecrets;
use oci::Timestamp;
use registry::accounts::{self, Namespace, NewSecret};

use super::extract::{Admin, At, Input, Params, expiry, limit, page};
use super::{AdminState, Failure, answer};

/// Lists robots by name.
pub async fn list(
    State(state): State<AdminState>,
    Admin(access): Admin,
    Params(query): Params<ListQuery>,
) -> Result<Response, Failure> {
    let limit = limit(query.limit)?;
    let rows = accounts::robots(&state.app.registry, &access, query.cursor.as_deref(), limit + 1).await?;
    Ok(answer(StatusCode::OK, &page(rows, limit, |row| row.name.clone(), show)))
}

/// Makes a robot.
pub async fn create(
    State(state): State<AdminState>,
    Admin(access): Admin,
    Input(input): Input<CreateRobot>,
) -> Result<Response, Failure> {
    let namespace = Namespace::parse(&input.namespace).map_err(accounts::Error::from)?;
    let expires_at = expiry(&state, input.expires_in, input.expires_at)?;
    let made = accounts::add_robot(&state.app.registry, &access, &namespace, &input.name, expires_at).await?;
    state.reload().await?;
    Ok(answer(StatusCode::CREATED, &created(made)))
}

/// Shows one robot.
pub async fn get(
    State(state): State<AdminState>,
    Admin(access): Admin,
    At(name): At<String>,
) -> Result<Response, Failure> {
    let row = accounts::robot(&state.app.registry, &access, &name).await?;
    Ok(answer(StatusCode::OK, &show(row)))
}

/// Disables or enables a robot.
pub async fn update(
    State(state): State<AdminState>,
    Admin(access): Admin,
    At(name): At<String>,
    Input(input): Input<UpdateRobot>,
) -> Result<Response, Failure> {
    let row = accounts::change_robot(&state.app.registry, &access, &name, input.disabled).await?;
    state.reload().await?;
    Ok(answer(StatusCode::OK, &show(row)))
}

/// Removes a robot.
pub async fn remove(
    State(state): State<AdminState>,
    Admin(access): Admin,
    At(name): At<String>,
) -> Result<StatusCode, Failure> {
    accounts::remove_robot(&state.app.registry, &access, &name).await?;
    state.reload().await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Gives a robot a new secret.
pub async fn rotate(
    State(state): State<AdminState>,
    Admin(access): Admin,
    At(name): At<String>,
    Input(input): Input<RotateRobot>,
) -> Result<Response, Failure> {
    let expires_at = expiry(&state, input.expires_in, input.expires_at)?;
    let older = if input.revoke_old { OlderSecrets::End } else { OlderSecrets::KeepNewest };
    let made = accounts::rotate_robot(&state.app.registry, &access, &name, expires_at, older).await?;
    state.reload().await?;
    Ok(answer(StatusCode::OK, &created(made)))
}

fn created(made: NewSecret) -> CreatedRobot {
    CreatedRobot {
        name: made.name,
        namespace: made.namespace,
        secret: Some(made.secret),
        expires_at: made.expires_at.into(),
    }
}

fn show(row: meta::RobotRow) -> Robot {
    // Every robot has an expiry; a row without one would be one that has expired.
    let expires_at = row.expires_at.unwrap_or(Timestamp(0));
    let secrets = row.secrets.into_iter().map(|secret| Secret {
        id: secret.id,
        created_at: secret.created_at.into(),
        expires_at: secret.expires_at.map_or(expires_at, |end| end.min(expires_at)).into(),
    });
    Robot {
        secrets: secrets.collect(),
        name: row.name,
        namespace: row.namespace,
        disabled: row.disabled,
        expires_at: expires_at.into(),
        created_at: row.created_at.into(),
        last_login_at: row.last_login_at.map(Into::into),
    }
}
