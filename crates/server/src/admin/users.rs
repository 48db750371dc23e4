//! `/api/v1/users`.

use api::{ChangePassword, ChangedPassword, CreateUser, CreatedUser, ListQuery, UpdateUser, User};
use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use registry::accounts::{self, AccountName, UserChange};

use super::extract::{Admin, At, Input, Params, limit, page};
use super::{AdminState, Failure, answer};

/// Lists users by name.
pub async fn list(
    State(state): State<AdminState>,
    Admin(access): Admin,
    Params(query): Params<ListQuery>,
) -> Result<Response, Failure> {
    let limit = limit(query.limit)?;
    let rows = accounts::users(&state.app.registry, &access, query.cursor.as_deref(), limit + 1).await?;
    Ok(answer(StatusCode::OK, &page(rows, limit, |row| row.name.clone(), show)))
}

/// Makes a user.
pub async fn create(
    State(state): State<AdminState>,
    Admin(access): Admin,
    Input(input): Input<CreateUser>,
) -> Result<Response, Failure> {
    let name = AccountName::parse_user(&input.name).map_err(accounts::Error::from)?;
    let (hash, generated) = hash(&state, input.password).await?;
    let row = accounts::add_user(&state.app.registry, &access, &name, input.administrator, hash).await?;
    state.reload().await?;
    Ok(answer(StatusCode::CREATED, &CreatedUser { user: show(row), password: generated }))
}

/// Shows one user.
pub async fn get(
    State(state): State<AdminState>,
    Admin(access): Admin,
    At(name): At<String>,
) -> Result<Response, Failure> {
    let row = accounts::user(&state.app.registry, &access, &name).await?;
    Ok(answer(StatusCode::OK, &show(row)))
}

/// Changes a user.
pub async fn update(
    State(state): State<AdminState>,
    Admin(access): Admin,
    At(name): At<String>,
    Input(input): Input<UpdateUser>,
) -> Result<Response, Failure> {
    let change = UserChange { administrator: input.administrator, disabled: input.disabled };
    let row = accounts::change_user(&state.app.registry, &access, &name, change).await?;
    state.reload().await?;
    Ok(answer(StatusCode::OK, &show(row)))
}

/// Removes a user.
pub async fn remove(
    State(state): State<AdminState>,
    Admin(access): Admin,
    At(name): At<String>,
) -> Result<StatusCode, Failure> {
    accounts::remove_user(&state.app.registry, &access, &name).await?;
    state.reload().await?;
    state.password_changed(&name).await;
    Ok(StatusCode::NO_CONTENT)
}

/// Sets a user's password.
pub async fn password(
    State(state): State<AdminState>,
    Admin(access): Admin,
    At(name): At<String>,
    Input(input): Input<ChangePassword>,
) -> Result<Response, Failure> {
    // Before the hash, which is dear: there is nobody to set it for.
    accounts::user(&state.app.registry, &access, &name).await?;
    let (hash, generated) = hash(&state, input.password).await?;
    accounts::set_password(&state.app.registry, &access, &name, hash).await?;
    state.reload().await?;
    state.password_changed(&name).await;
    Ok(answer(StatusCode::OK, &ChangedPassword { name, password: generated }))
}

/// The hash of the password that was given, or of a new one, which then is the second value.
async fn hash(state: &AdminState, given: Option<String>) -> Result<(String, Option<String>), Failure> {
    let (password, generated) = match given {
        Some(password) => (password, None),
        None => {
            let password = accounts::new_password(&state.app.registry);
            (password.clone(), Some(password))
        }
    };
    accounts::check_password(&password).map_err(accounts::Error::from)?;
    Ok((state.app.auth.hash_password(&password).await?, generated))
}

fn show(row: meta::UserRow) -> User {
    User {
        name: row.name,
        administrator: row.administrator,
        disabled: row.disabled,
        created_at: row.created_at.into(),
        last_login_at: row.last_login_at.map(Into::into),
    }
}
