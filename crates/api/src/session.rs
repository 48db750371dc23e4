//! Logging in to this API.
//!
//! `portcullis login URL` sends name and password once (`POST /api/v1/session` with Basic), stores the refresh token, and
//! gets a token of a few minutes with it for each command. These tokens open the admin API and nothing else, and the
//! tokens of `/token`, which docker and others hold, do not open the admin API: a token that leaks from a build machine
//! pulls at most what it was asked for.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::Time;

/// A login.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Session {
    /// `user:NAME`.
    pub subject: String,
    /// Send it as `Authorization: Bearer …`.
    pub token: String,
    /// From then on the token does not count.
    pub expires_at: Time,
    /// Gets the next token. Ends with it, and with any change of the password.
    pub refresh_token: String,
    /// From then on the refresh token does not count.
    pub refresh_expires_at: Time,
}

/// Gets a new token.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RefreshSession {
    /// `refresh_token` of a [`Session`].
    pub refresh_token: String,
}
