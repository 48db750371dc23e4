//! Decides whether a subject may do something, and says why; pure functions over data.
//!
//! [`Rules`] is a compiled snapshot of subjects and grants. The server makes a [`Caller`] of what it knows about a
//! request and asks [`authorize`], [`authorize_catalog`] or [`authorize_admin`], which alone make [`Access`],
//! [`CatalogAccess`] and [`AdminAccess`]; the operations take those.

mod access;
mod caller;
mod error;
mod pattern;
mod rules;
mod verb;

pub use access::{
    Access, AdminAccess, CatalogAccess, Need, Refusal, authorize, authorize_admin, authorize_catalog, grant_scopes,
};
pub use caller::{Caller, Credential, Identity, Scope, TokenScopes};
pub use error::Error;
pub(crate) use error::excerpt;
pub use oci::{Actions, Resource};
pub use pattern::{NameRange, RepositoryPattern, TagPattern};
pub use rules::{Grant, Grantee, Rules, Subject, SubjectId, SubjectKind};
pub use verb::{Role, Verb, Verbs};
