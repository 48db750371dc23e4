//! Sessions of the admin API.
//!
//! Their tokens are of a use of their own: a token that the token service gave out, scoped or not, never opens the admin
//! API, and one of a session opens no repository. Both end when the credentials of their holder change.

use std::sync::Arc;

use axum::http::request::Parts;
use oci::Timestamp;
use policy::{Caller, Credential, Identity, SubjectId, TokenScopes};

use super::token::Use;
use super::{Auth, AuthError, REFRESH_LIFETIME};

/// A session that was begun or goes on.
pub struct AdminSession {
    /// Sent as `Authorization: Bearer …`.
    pub token: String,
    /// From then on it is not valid.
    pub expires_at: Timestamp,
    /// Gets the next token.
    pub refresh_token: String,
    /// From then on it is not valid.
    pub refresh_expires_at: Timestamp,
}

impl Auth {
    /// As [`Auth::identify`], for the admin API: of tokens, only those of its sessions count.
    pub async fn identify_admin(&self, parts: &Parts) -> Result<Arc<Caller>, AuthError> {
        self.identify_by(parts, Use::Admin).await
    }

    /// Begins a session of this subject, which has just shown its password and may use the admin API. `None` when it is
    /// gone.
    pub fn begin_session(&self, id: SubjectId) -> Option<AdminSession> {
        let rules = self.0.setup.rules.load();
        let subject = rules.subject(id)?;
        let now = self.now();
        let refresh_expires_at = now.plus(REFRESH_LIFETIME);
        let refresh_token =
            self.sign(Use::AdminRefresh, Some(subject), now, refresh_expires_at, TokenScopes(Vec::new()));
        self.session_token(id, refresh_token, refresh_expires_at)
    }

    /// Who a refresh token of a session stands for, with the session that goes on. Whether that one may still use the
    /// admin API is for the caller to decide.
    pub fn resume_session(&self, parts: &Parts, refresh_token: &str) -> Result<(Arc<Caller>, AdminSession), AuthError> {
        let token = self.verify(refresh_token, Use::AdminRefresh).ok_or(AuthError::RejectedToken)?;
        let holder = token.holder.ok_or(AuthError::RejectedToken)?;
        let credential_id = format!("token:{}", token.id);
        let caller =
            self.origin(parts).caller(Identity::Subject(holder.id), Credential::Token(token.scopes), &credential_id);
        let session = self
            .session_token(holder.id, refresh_token.to_owned(), token.expires_at)
            .ok_or(AuthError::RejectedToken)?;
        Ok((caller, session))
    }

    fn session_token(
        &self,
        id: SubjectId,
        refresh_token: String,
        refresh_expires_at: Timestamp,
    ) -> Option<AdminSession> {
        let rules = self.0.setup.rules.load();
        let subject = rules.subject(id)?;
        let now = self.now();
        let expires_at = now.plus(self.0.setup.token_lifetime).min(refresh_expires_at);
        let token = self.sign(Use::Admin, Some(subject), now, expires_at, TokenScopes(Vec::new()));
        Some(AdminSession { token, expires_at, refresh_token, refresh_expires_at })
    }
}
