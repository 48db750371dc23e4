//! Grants.

use meta::{CreateGrant, GrantRow};
use oci::Timestamp;
use policy::{AdminAccess, RepositoryPattern, Role, TagPattern, Verbs};

use super::name::excerpt;
use super::{AccountName, Error, Invalid, Missing, actor};
use crate::Registry;

/// Tag patterns of one grant at most.
const MAX_TAGS: usize = 64;
/// Characters of a reason at most.
const MAX_REASON: usize = 500;

/// Whom a grant is for, by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GranteeName {
    /// `user:NAME`.
    User(AccountName),
    /// `robot:NAME`.
    Robot(AccountName),
    /// `anonymous`: everybody, with or without a login.
    Anonymous,
}

impl GranteeName {
    /// Parses `user:alice`, `robot:payments.api.deploy` or `anonymous`.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let name = |name: &str| AccountName::parse(name).map_err(|_| invalid_subject(text));
        match text.split_once(':') {
            None if text == "anonymous" => Ok(Self::Anonymous),
            Some(("user", user)) => name(user).map(Self::User),
            Some(("robot", robot)) => name(robot).map(Self::Robot),
            _ => Err(invalid_subject(text)),
        }
    }
}

impl std::fmt::Display for GranteeName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::User(name) => write!(f, "user:{name}"),
            Self::Robot(name) => write!(f, "robot:{name}"),
            Self::Anonymous => f.write_str("anonymous"),
        }
    }
}

/// What is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Given {
    /// A role, that is its verbs.
    Role(Role),
    /// Single verbs, at least one.
    Verbs(Verbs),
}

impl Given {
    /// Parses a role.
    pub fn role(text: &str) -> Result<Self, Invalid> {
        Role::parse(text).map(Self::Role).map_err(|error| Invalid::Verbs(error.to_string()))
    }

    /// Parses verbs.
    pub fn verbs(texts: &[String]) -> Result<Self, Invalid> {
        let verbs = Verbs::parse(&texts.join(",")).map_err(|error| Invalid::Verbs(error.to_string()))?;
        Ok(Self::Verbs(verbs))
    }

    fn all(self) -> Verbs {
        match self {
            Self::Role(role) => role.verbs(),
            Self::Verbs(verbs) => verbs,
        }
    }
}

/// A grant to be given.
#[derive(Clone, Debug)]
pub struct NewGrant {
    /// Whom it is for.
    pub subject: GranteeName,
    /// What it gives.
    pub given: Given,
    /// Where.
    pub repository: RepositoryPattern,
    /// For which tags; empty for all.
    pub tags: Vec<TagPattern>,
    /// From when on it does not count.
    pub expires_at: Option<Timestamp>,
    /// Why, in at most 500 characters.
    pub reason: Option<String>,
}

impl NewGrant {
    /// A grant without an expiry from its parts as text.
    pub fn parse(
        subject: &str,
        given: Given,
        repository: &str,
        tags: &[String],
        reason: Option<String>,
    ) -> Result<Self, Invalid> {
        let pattern = |error: policy::Error| Invalid::Pattern(error.to_string());
        Ok(Self {
            subject: GranteeName::parse(subject)?,
            given,
            repository: RepositoryPattern::parse(repository).map_err(pattern)?,
            tags: tags.iter().map(|tag| TagPattern::parse(tag)).collect::<Result<_, _>>().map_err(pattern)?,
            expires_at: None,
            reason: reason.filter(|reason| !reason.trim().is_empty()),
        })
    }

    fn check(&self, now: Timestamp) -> Result<(), Invalid> {
        if self.subject == GranteeName::Anonymous && self.given.all().union(Verbs::READ) != Verbs::READ {
            return Err(Invalid::Verbs("anonymous can be given pull and list only".to_owned()));
        }
        if self.tags.len() > MAX_TAGS {
            return Err(Invalid::Pattern(format!("a grant has at most {MAX_TAGS} tag patterns")));
        }
        let reason = self.reason.as_deref().unwrap_or_default();
        if reason.chars().count() > MAX_REASON || reason.chars().any(char::is_control) {
            return Err(Invalid::Value("the reason is one line of at most 500 characters"));
        }
        if let Some(expires_at) = self.expires_at {
            super::ahead(expires_at, now)?;
        }
        Ok(())
    }
}

/// Grants in the order of their ids, after `after`; all of them, or those of one subject.
pub async fn grants(
    r: &Registry,
    _: &AdminAccess,
    of: Option<&GranteeName>,
    after: Option<i64>,
    limit: usize,
) -> Result<Vec<GrantRow>, Error> {
    let of = match of {
        Some(subject) => Some(find(r, subject).await?),
        None => None,
    };
    Ok(r.db().list_grants(of, after, limit).await?)
}

/// The grant of this id.
pub async fn grant(r: &Registry, _: &AdminAccess, id: i64) -> Result<GrantRow, Error> {
    r.db().grant(id).await?.ok_or(Error::NotFound { what: Missing::Grant(id) })
}

/// Gives a grant.
pub async fn add_grant(r: &Registry, access: &AdminAccess, new: NewGrant) -> Result<GrantRow, Error> {
    new.check(r.now())?;
    let subject = find(r, &new.subject).await?;
    let role = match new.given {
        Given::Role(role) => Some(role.as_str().to_owned()),
        Given::Verbs(_) => None,
    };
    let row = meta::NewGrant {
        subject,
        role,
        verbs: new.given.all().to_string(),
        repository: new.repository.as_str().to_owned(),
        tags: new.tags.iter().map(|tag| tag.as_str().to_owned()).collect(),
        expires_at: new.expires_at,
        reason: new.reason,
    };
    match r.db().create_grant(row, &actor(access)).await? {
        CreateGrant::Done(row) => Ok(row),
        CreateGrant::There(id) => Err(Error::GrantExists { id }),
        CreateGrant::NoSubject => Err(missing(&new.subject)),
    }
}

/// Takes a grant away.
pub async fn remove_grant(r: &Registry, access: &AdminAccess, id: i64) -> Result<(), Error> {
    match r.db().remove_grant(id, &actor(access)).await? {
        true => Ok(()),
        false => Err(Error::NotFound { what: Missing::Grant(id) }),
    }
}

/// Takes all grants of a subject away; how many there were.
pub async fn remove_grants_of(r: &Registry, access: &AdminAccess, of: &GranteeName) -> Result<u64, Error> {
    let subject = find(r, of).await?;
    Ok(r.db().remove_grants_of(subject, &actor(access)).await?)
}

/// The row of a subject; none for anonymous.
async fn find(r: &Registry, subject: &GranteeName) -> Result<Option<i64>, Error> {
    let id = match subject {
        GranteeName::Anonymous => return Ok(None),
        GranteeName::User(name) => r.db().user(name.as_str()).await?.map(|user| user.id),
        GranteeName::Robot(name) => r.db().robot(name.as_str()).await?.map(|robot| robot.id),
    };
    id.map(Some).ok_or_else(|| missing(subject))
}

fn missing(subject: &GranteeName) -> Error {
    Error::NotFound { what: Missing::Subject(subject.to_string()) }
}

fn invalid_subject(text: &str) -> Invalid {
    Invalid::Subject(format!("'{}' is not a subject: write user:NAME, robot:NAME or anonymous", excerpt(text)))
}
