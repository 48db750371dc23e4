//! Robots.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{Lifetime, Time};

/// A machine that logs in with a secret. It always expires.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Robot {
    /// The login name: the namespace with `/` written `.`, then `.`, then its own name.
    #[schema(examples("payments.api.deploy"))]
    pub name: String,
    /// Where it belongs. This gives no right; grants do.
    #[schema(examples("payments/api"))]
    pub namespace: String,
    /// Cannot log in.
    pub disabled: bool,
    /// From then on it cannot log in.
    pub expires_at: Time,
    /// When it was made.
    pub created_at: Time,
    /// The last successful login, to about a minute; null when there was none.
    pub last_login_at: Option<Time>,
    /// Its live secrets, oldest first: one or two. What they are is never shown again.
    pub secrets: Vec<Secret>,
}

/// A secret of a robot, without the secret.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Secret {
    /// Its id.
    pub id: i64,
    /// When it was made.
    pub created_at: Time,
    /// From then on it does not count.
    pub expires_at: Time,
}

/// Makes a robot.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateRobot {
    /// Where it belongs: path components like those of a repository.
    pub namespace: String,
    /// Its own name: one component, without the namespace.
    pub name: String,
    /// How long it lives: more than 0, at most `366d`; default `90d`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_in: Option<Lifetime>,
    /// When it expires, instead of `expires_in`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Time>,
}

/// Disables or enables a robot. Both end tokens that were issued before.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UpdateRobot {
    /// Cannot log in.
    pub disabled: bool,
}

/// Gives a robot a second secret; when it has two, the older one ends, and so do tokens that were issued before.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RotateRobot {
    /// How long the robot and the new secret live from now on: more than 0, at most `366d`. When it is not given, the
    /// robot's expiry stays. The older secret ends when it would have ended anyway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_in: Option<Lifetime>,
    /// When they expire, instead of `expires_in`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Time>,
    /// End every older secret and token at once: for a secret that leaked.
    #[serde(default)]
    pub revoke_old: bool,
}

/// A robot that was made or got a new secret.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct CreatedRobot {
    /// The login name.
    pub name: String,
    /// Where it belongs.
    pub namespace: String,
    /// The secret, shown this once; null in a repeated answer. It starts with `pcr_` so that scanners know it.
    pub secret: Option<String>,
    /// When the robot and this secret expire.
    pub expires_at: Time,
}
