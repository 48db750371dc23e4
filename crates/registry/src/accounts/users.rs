//! Users.

use meta::{NewGrant, NewUser, RemoveUser, UpdateUser, UserRow};
use policy::{AdminAccess, Role};

use super::{AccountName, Error, Missing, actor, name_taken};
use crate::Registry;

/// The name of the user that the first start makes.
pub const FIRST_USER: &str = "admin";

/// What of a user is to change; `None` stays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UserChange {
    /// May use the admin API.
    pub administrator: Option<bool>,
    /// Can do nothing.
    pub disabled: Option<bool>,
}

/// Users in the order of their names, after `after`.
pub async fn users(r: &Registry, _: &AdminAccess, after: Option<&str>, limit: usize) -> Result<Vec<UserRow>, Error> {
    Ok(r.db().users(after, limit).await?)
}

/// The user of this name.
pub async fn user(r: &Registry, _: &AdminAccess, name: &str) -> Result<UserRow, Error> {
    r.db().user(name).await?.ok_or_else(|| missing(name))
}

/// Makes a user. `password_hash` is a PHC string of a password that [`super::check_password`] accepts.
pub async fn add_user(
    r: &Registry,
    access: &AdminAccess,
    name: &AccountName,
    administrator: bool,
    password_hash: String,
) -> Result<UserRow, Error> {
    let new = NewUser { name: name.to_string(), administrator, password_hash: Some(password_hash) };
    r.db().create_user(new, &actor(access)).await.map_err(|error| name_taken(error, name))
}

/// Makes the administrator of the first start, with a grant of the role maintainer on everything, listed and removable
/// like any other. `None`: there is a user already.
pub async fn add_first_user(
    r: &Registry,
    access: &AdminAccess,
    password_hash: String,
) -> Result<Option<UserRow>, Error> {
    let new = NewUser { name: FIRST_USER.to_owned(), administrator: true, password_hash: Some(password_hash) };
    let grant = NewGrant {
        subject: None,
        role: Some(Role::Maintainer.as_str().to_owned()),
        verbs: Role::Maintainer.verbs().to_string(),
        repository: "**".to_owned(),
        tags: Vec::new(),
        expires_at: None,
        reason: Some("the first administrator".to_owned()),
    };
    Ok(r.db().create_first_user(new, grant, &actor(access)).await?)
}

/// Changes a user, all or nothing. Nobody, the owner of the data directory included, can take away or disable the last
/// administrator: it would be a mistake, and whoever means it makes another one first.
pub async fn change_user(r: &Registry, access: &AdminAccess, name: &str, change: UserChange) -> Result<UserRow, Error> {
    match r.db().update_user(name, change.administrator, change.disabled, &actor(access)).await? {
        UpdateUser::Done(user) => Ok(user),
        UpdateUser::Unknown => Err(missing(name)),
        UpdateUser::LastAdministrator => Err(Error::LastAdministrator { name: name.to_owned() }),
    }
}

/// Sets a password by its PHC string. What the old one opened ends.
pub async fn set_password(r: &Registry, access: &AdminAccess, name: &str, password_hash: String) -> Result<(), Error> {
    match r.db().set_user_password(name, &password_hash, &actor(access)).await? {
        true => Ok(()),
        false => Err(missing(name)),
    }
}

/// Removes a user with the user's grants; what the user pushed stays. The last administrator stays too.
pub async fn remove_user(r: &Registry, access: &AdminAccess, name: &str) -> Result<(), Error> {
    match r.db().remove_user(name, &actor(access)).await? {
        RemoveUser::Done => Ok(()),
        RemoveUser::Unknown => Err(missing(name)),
        RemoveUser::LastAdministrator => Err(Error::LastAdministrator { name: name.to_owned() }),
    }
}

fn missing(name: &str) -> Error {
    Error::NotFound { what: Missing::User(super::name::excerpt(name)) }
}
