//! Robots.

use std::time::Duration;

use meta::{NewRobot, OlderSecrets, RobotRow};
use oci::Timestamp;
use policy::AdminAccess;

use super::{AccountName, Error, Invalid, Missing, Namespace, actor, generate_secret, hash_secret, name_taken};
use crate::Registry;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// How long a robot lives when nobody says.
pub const DEFAULT_LIFETIME: Duration = DAY.saturating_mul(90);
/// How long it lives at most from the last rotation on: a year, whichever.
pub const MAX_LIFETIME: Duration = DAY.saturating_mul(366);

/// A secret, in clear this once.
#[derive(Clone)]
pub struct NewSecret {
    /// The robot's login name.
    pub name: String,
    /// Where it belongs.
    pub namespace: String,
    /// What it logs in with.
    pub secret: String,
    /// When the robot and this secret expire.
    pub expires_at: Timestamp,
}

/// Robots in the order of their names, after `after`.
pub async fn robots(r: &Registry, _: &AdminAccess, after: Option<&str>, limit: usize) -> Result<Vec<RobotRow>, Error> {
    Ok(r.db().robots(after, limit).await?)
}

/// The robot of this name.
pub async fn robot(r: &Registry, _: &AdminAccess, name: &str) -> Result<RobotRow, Error> {
    r.db().robot(name).await?.ok_or_else(|| missing(name))
}

/// Makes a robot named `own` in a namespace. Its expiry is mandatory: 90 days from now unless said otherwise.
pub async fn add_robot(
    r: &Registry,
    access: &AdminAccess,
    namespace: &Namespace,
    own: &str,
    expires_at: Option<Timestamp>,
) -> Result<NewSecret, Error> {
    let name = AccountName::of_robot(namespace, own)?;
    let now = r.now();
    let expires_at = check_expiry(expires_at.unwrap_or(now.plus(DEFAULT_LIFETIME)), now)?;
    let secret = generate_secret(&r.0.random);
    let new = NewRobot {
        name: name.to_string(),
        namespace: namespace.as_str().to_owned(),
        expires_at,
        secret_hash: hash_secret(&secret).to_string(),
    };
    let row = r.db().create_robot(new, &actor(access)).await.map_err(|error| name_taken(error, &name))?;
    Ok(NewSecret { name: row.name, namespace: row.namespace, secret, expires_at })
}

/// Gives a robot a second secret, and a new expiry if one is given. Older secrets end as they would have, at once, or
/// because two newer ones are there.
pub async fn rotate_robot(
    r: &Registry,
    access: &AdminAccess,
    name: &str,
    expires_at: Option<Timestamp>,
    older: OlderSecrets,
) -> Result<NewSecret, Error> {
    let now = r.now();
    let expires_at = expires_at.map(|at| check_expiry(at, now)).transpose()?;
    let secret = generate_secret(&r.0.random);
    let hash = hash_secret(&secret);
    let row = r.db().rotate_robot(name, hash.as_str(), older, expires_at, &actor(access)).await?;
    let row = row.ok_or_else(|| missing(name))?;
    Ok(NewSecret { name: row.name, namespace: row.namespace, secret, expires_at: row.expires_at.unwrap_or(now) })
}

/// Disables or enables a robot.
pub async fn change_robot(r: &Registry, access: &AdminAccess, name: &str, disabled: bool) -> Result<RobotRow, Error> {
    r.db().update_robot(name, disabled, &actor(access)).await?.ok_or_else(|| missing(name))
}

/// Removes a robot with its secrets and grants; what it pushed stays.
pub async fn remove_robot(r: &Registry, access: &AdminAccess, name: &str) -> Result<(), Error> {
    match r.db().remove_robot(name, &actor(access)).await? {
        true => Ok(()),
        false => Err(missing(name)),
    }
}

fn check_expiry(expires_at: Timestamp, now: Timestamp) -> Result<Timestamp, Invalid> {
    let expires_at = super::ahead(expires_at, now)?;
    if expires_at > now.plus(MAX_LIFETIME) {
        return Err(Invalid::Expiry("a robot lives 366 days at most; rotate it before it expires"));
    }
    Ok(expires_at)
}

fn missing(name: &str) -> Error {
    Error::NotFound { what: Missing::Robot(super::name::excerpt(name)) }
}
