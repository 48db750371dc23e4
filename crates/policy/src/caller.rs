//! Who calls and by which credential.

use oci::{Actions, RepositoryName, Resource};

use crate::SubjectId;

/// Whom the credential stands for, as the server has found out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Identity {
    /// Nobody in particular.
    Anonymous,
    /// This user or robot. Whether it still exists and is enabled is decided here, not by the server.
    Subject(SubjectId),
}

/// What the caller has shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credential {
    /// Nothing.
    None,
    /// Name and password, or name and secret, which were right.
    Basic,
    /// A token of ours, which is valid.
    Token(TokenScopes),
    /// A connection to the admin socket from a process of the data directory's owner.
    Socket,
}

/// The scopes that a token carries: every one that was asked for, also those of which nothing was granted, so that 'did
/// not ask' can be told from 'was refused'.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenScopes(pub Vec<Scope>);

/// One scope of a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    /// What it is about.
    pub resource: Resource,
    /// What the client asked for.
    pub asked: Actions,
    /// What of that was granted when the token was issued.
    pub granted: Actions,
}

impl TokenScopes {
    /// Asked and granted for exactly this resource; none when it was not asked for.
    fn find(&self, is: impl Fn(&Resource) -> bool) -> (Actions, Actions) {
        self.0.iter().filter(|scope| is(&scope.resource)).fold(
            (Actions::NONE, Actions::NONE),
            |(asked, granted), scope| {
                (asked.union(scope.asked), granted.union(scope.granted.intersection(scope.asked)))
            },
        )
    }

    /// Asked and granted for this repository. Names are compared whole, never by prefix.
    pub(crate) fn repository(&self, name: &RepositoryName) -> (Actions, Actions) {
        self.find(|resource| matches!(resource, Resource::Repository(known) if known == name))
    }

    /// Asked and granted for the catalog.
    pub(crate) fn catalog(&self) -> (Actions, Actions) {
        self.find(|resource| matches!(resource, Resource::Catalog))
    }
}

/// The caller of one request.
#[derive(Clone, Debug)]
pub struct Caller {
    /// Who it is.
    pub identity: Identity,
    /// By what that is known.
    pub credential: Credential,
    /// The credential's name for events: `basic`, `token:<id>`, `socket`, `none`. Never a secret.
    pub credential_id: String,
    /// The peer's address, or what it stands for.
    pub source: String,
    /// The request's id.
    pub request_id: String,
}
