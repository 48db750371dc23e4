//! `/api/v1/session` and `/api/v1/whoami`: logging in to this API.

use api::{ErrorCode, RefreshSession, Session, Whoami};
use axum::extract::{FromRequest, Request, State};
use axum::response::Response;
use http::StatusCode;
use policy::{AdminAccess, Credential, authorize_admin};

use super::extract::{Admin, Input};
use super::{AdminState, Failure, answer};
use crate::auth::AdminSession;

/// Begins a session for who has shown a password.
pub async fn create(State(state): State<AdminState>, Admin(access): Admin) -> Result<Response, Failure> {
    let (Credential::Basic, Some(id)) = (&access.caller().credential, access.subject_id()) else {
        let help = "send name and password as Authorization: Basic";
        return Err(Failure::new(ErrorCode::Denied, "a session begins with a name and a password", help));
    };
    let session = state.app.auth.begin_session(id).ok_or_else(|| Failure::internal("the administrator is gone"))?;
    if let Some(subject) = state.app.rules.load().subject(id) {
        let caller = access.caller();
        state.app.auth.journal().issued(subject, "admin", &caller.source, &caller.request_id);
    }
    Ok(answer(StatusCode::OK, &show(&access, session)))
}

/// Goes on with a session. The refresh token is the credential; what else the request carries does not count.
pub async fn refresh(State(state): State<AdminState>, request: Request) -> Result<Response, Failure> {
    let (parts, body) = request.into_parts();
    let Input(input) = Input::<RefreshSession>::from_request(Request::from_parts(parts.clone(), body), &()).await?;
    let rules = state.app.rules.current().await?;
    let (caller, session) = state.app.auth.resume_session(&parts, &input.refresh_token)?;
    let access = authorize_admin(&rules, &caller, (state.app.clock)())?;
    Ok(answer(StatusCode::OK, &show(&access, session)))
}

/// Tells the caller who it is.
pub async fn whoami(Admin(access): Admin) -> Response {
    let credential = match access.caller().credential {
        Credential::None => "none",
        Credential::Basic => "basic",
        Credential::Token(_) => "token",
        Credential::Socket => "socket",
    };
    let whoami = Whoami { subject: access.label(), administrator: true, credential: credential.to_owned() };
    answer(StatusCode::OK, &whoami)
}

fn show(access: &AdminAccess, session: AdminSession) -> Session {
    Session {
        subject: access.label(),
        token: session.token,
        expires_at: session.expires_at.into(),
        refresh_token: session.refresh_token,
        refresh_expires_at: session.refresh_expires_at.into(),
    }
}
