//! Users.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::Time;

/// A person who logs in with a password.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct User {
    /// The login name: `[a-z0-9][a-z0-9._-]{0,63}`.
    #[schema(examples("alice"))]
    pub name: String,
    /// May use this API. Gives no right to pull or push.
    pub administrator: bool,
    /// Cannot log in, and tokens that were issued before do not count.
    pub disabled: bool,
    /// When it was made.
    pub created_at: Time,
    /// The last successful login, to about a minute; null when there was none.
    pub last_login_at: Option<Time>,
}

/// Makes a user.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateUser {
    /// The login name: `[a-z0-9][a-z0-9._-]{0,63}`, used by no other user or robot.
    pub name: String,
    /// May use this API.
    #[serde(default)]
    pub administrator: bool,
    /// 1 to 1024 bytes. When it is not given, one is generated and is in the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
}

/// The user that was made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct CreatedUser {
    /// The user.
    #[serde(flatten)]
    pub user: User,
    /// The generated password, shown this once; null when the request brought one, and in a repeated answer.
    pub password: Option<String>,
}

/// Changes a user; what is not given stays. Disabling and enabling end tokens that were issued before.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UpdateUser {
    /// May use this API.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub administrator: Option<bool>,
    /// Cannot log in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disabled: Option<bool>,
}

/// Sets a user's password. The old one, sessions and refresh tokens end at once.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangePassword {
    /// 1 to 1024 bytes. When it is not given, one is generated and is in the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
}

/// The password was set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ChangedPassword {
    /// The user's name.
    pub name: String,
    /// The generated password, shown this once; null when the request brought one, and in a repeated answer.
    pub password: Option<String>,
}
