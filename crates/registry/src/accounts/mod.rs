//! Users, robots and grants.
//!
//! Every operation takes an [`AdminAccess`]. Each change is one transaction with its event. Afterwards the caller builds
//! the rules anew, before it answers.

mod grants;
mod name;
mod robots;
mod secret;
mod users;

use meta::Actor;
use oci::Timestamp;
use policy::AdminAccess;

pub use grants::{Given, GranteeName, NewGrant, add_grant, grant, grants, remove_grant, remove_grants_of};
pub use name::{AccountName, Namespace};
pub use robots::{
    DEFAULT_LIFETIME, MAX_LIFETIME, NewSecret, add_robot, change_robot, remove_robot, robot, robots, rotate_robot,
};
pub use secret::{MAX_PASSWORD, check_password, generate_password, generate_secret, hash_secret, is_secret};
pub use users::{
    FIRST_USER, UserChange, add_first_user, add_user, change_user, remove_user, set_password, user, users,
};

use crate::Registry;

/// Why an account was not changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// What was asked for cannot be.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// There is no such account or grant.
    #[error("{what} does not exist")]
    NotFound {
        /// What was looked for.
        what: Missing,
    },
    /// A user or a robot has that name.
    #[error("the name '{name}' is taken")]
    NameTaken {
        /// The name.
        name: String,
    },
    /// The same grant is there already.
    #[error("this grant is there already, with the id {id}")]
    GrantExists {
        /// Its id.
        id: i64,
    },
    /// The change would leave no administrator who can log in.
    #[error("'{name}' is the last administrator")]
    LastAdministrator {
        /// The administrator's name.
        name: String,
    },
    /// The database.
    #[error(transparent)]
    Meta(#[from] meta::Error),
}

/// What is wrong with what was asked for; each is a sentence for the caller.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// A name.
    #[error("{0}")]
    Name(String),
    /// A password.
    #[error("{0}")]
    Password(&'static str),
    /// The subject of a grant.
    #[error("{0}")]
    Subject(String),
    /// Verbs or a role.
    #[error("{0}")]
    Verbs(String),
    /// A pattern of repositories or of tags.
    #[error("{0}")]
    Pattern(String),
    /// An expiry.
    #[error("{0}")]
    Expiry(&'static str),
    /// Something else.
    #[error("{0}")]
    Value(&'static str),
}

/// What does not exist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Missing {
    /// A user of this name.
    User(String),
    /// A robot of this name.
    Robot(String),
    /// A grant of this id.
    Grant(i64),
    /// The subject of a grant.
    Subject(String),
}

impl std::fmt::Display for Missing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::User(name) => write!(f, "the user '{name}'"),
            Self::Robot(name) => write!(f, "the robot '{name}'"),
            Self::Grant(id) => write!(f, "the grant {id}"),
            Self::Subject(subject) => write!(f, "the subject {subject}"),
        }
    }
}

/// Who makes a change, for its event.
fn actor(access: &AdminAccess) -> Actor {
    let caller = access.caller();
    Actor {
        subject: access.subject_id().map(|id| id.0),
        name: access.label(),
        credential: caller.credential_id.clone(),
        source: caller.source.clone(),
        request_id: caller.request_id.clone(),
        policy_epoch: None,
    }
}

/// A new password for somebody to read and type.
pub fn new_password(r: &Registry) -> String {
    generate_password(&r.0.random)
}

/// The database's conflict when an account is made can only be its name.
fn name_taken(error: meta::Error, name: &AccountName) -> Error {
    match error {
        meta::Error::Conflict { .. } => Error::NameTaken { name: name.to_string() },
        other => other.into(),
    }
}

/// An expiry that has to lie ahead.
fn ahead(expires_at: Timestamp, now: Timestamp) -> Result<Timestamp, Invalid> {
    if expires_at > now { Ok(expires_at) } else { Err(Invalid::Expiry("the expiry is not in the future")) }
}
