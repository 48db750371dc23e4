//! Decisions: what a caller may do, and what to answer when it may not.
//!
//! The answer depends on the grants, the token and the request, never on whether something exists, so that it can be
//! given before anything is looked up.

use std::sync::Arc;

use oci::{Actions, RepositoryName, Resource, Tag, Timestamp};

use crate::rules::Rights;
use crate::{Caller, Credential, Identity, NameRange, Rules, Scope, SubjectId, Verb, Verbs};

/// What a request needs on its repository.
#[derive(Clone, Copy, Debug)]
pub enum Need<'a> {
    /// Read a manifest by digest, or a blob.
    Pull,
    /// Read a manifest by tag.
    PullTag(&'a Tag),
    /// List tags or referrers.
    List,
    /// Write a blob or a manifest. Which tags may be written is asked later, of the [`Access`].
    Push,
    /// Delete a manifest by digest, or a blob.
    Delete,
    /// Delete a tag.
    DeleteTag(&'a Tag),
}

impl<'a> Need<'a> {
    fn verb(self) -> Verb {
        match self {
            Self::Pull | Self::PullTag(_) => Verb::Pull,
            Self::List => Verb::List,
            Self::Push => Verb::Push,
            Self::Delete => Verb::Delete,
            Self::DeleteTag(_) => Verb::TagDelete,
        }
    }

    fn tag(self) -> Option<&'a Tag> {
        match self {
            Self::PullTag(tag) | Self::DeleteTag(tag) => Some(tag),
            Self::Pull | Self::List | Self::Push | Self::Delete => None,
        }
    }

    /// The action that a token must carry.
    fn action(self) -> Actions {
        match self {
            Self::Pull | Self::PullTag(_) | Self::List => Actions { pull: true, ..Actions::NONE },
            Self::Push => Actions { push: true, ..Actions::NONE },
            Self::Delete | Self::DeleteTag(_) => Actions { delete: true, ..Actions::NONE },
        }
    }

    /// The scope that a challenge asks for: who pushes also reads.
    fn scope(self, name: &RepositoryName) -> String {
        let actions = match self {
            Self::Push => Actions { pull: true, push: true, delete: false },
            _ => self.action(),
        };
        format!("repository:{name}:{actions}")
    }
}

/// What to answer to a caller who may not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// 401 with a challenge.
    Challenge {
        /// The scope to ask for; none where a token without any will do.
        scope: Option<String>,
        /// `invalid_token` or `insufficient_scope`, and only where a token was sent (RFC 6750 section 3.1).
        error: Option<&'static str>,
    },
    /// 403 `DENIED`: the caller sees the repository.
    Denied {
        /// What is missing and what would grant it.
        reason: String,
    },
    /// The answer for a repository that does not exist.
    Hidden,
}

/// A decision in the caller's favour: what it may do on one repository. Every operation takes one and reads the
/// repository from it.
#[derive(Clone, Debug)]
pub struct Access {
    repository: RepositoryName,
    caller: Arc<Caller>,
    rights: Rights,
    /// What the credential lets through of the rights.
    mask: Verbs,
    /// The rules and the time of the decision; none for the system itself.
    basis: Option<(Arc<Rules>, Timestamp)>,
}

/// Decides whether the caller may do what `need` says on the repository `name`, existing or not.
pub fn authorize(
    rules: &Arc<Rules>,
    caller: &Arc<Caller>,
    name: &RepositoryName,
    need: Need<'_>,
    now: Timestamp,
) -> Result<Access, Refusal> {
    let challenge = |error| Refusal::Challenge { scope: Some(need.scope(name)), error };
    let granted = match &caller.credential {
        Credential::None | Credential::Socket => return Err(challenge(None)),
        // An empty name with an empty password is no login (Q3).
        Credential::Basic if caller.identity == Identity::Anonymous => return Err(challenge(None)),
        Credential::Basic if !rules.is_active(caller.identity, now) => return Err(challenge(None)),
        Credential::Basic => Actions::ALL,
        Credential::Token(_) if !rules.is_active(caller.identity, now) => return Err(challenge(Some("invalid_token"))),
        Credential::Token(scopes) => {
            let (asked, granted) = scopes.repository(name);
            if !asked.contains(need.action()) {
                return Err(challenge(Some("insufficient_scope")));
            }
            granted
        }
    };
    let rights = rules.rights(caller.identity, name, now);
    let held = match need.tag() {
        None => rights.verbs.contains(need.verb()),
        Some(tag) => rights.hold_for_tag(need.verb(), tag),
    };
    if !held {
        if rights.verbs.is_empty() {
            return Err(Refusal::Hidden);
        }
        let reason = denial(&rules.label(caller.identity), name, need.verb(), need.tag(), &rights);
        return Err(Refusal::Denied { reason });
    }
    if !granted.contains(need.action()) {
        // Granted after the token was issued: a new one will carry it.
        return Err(challenge(Some("insufficient_scope")));
    }
    Ok(Access {
        repository: name.clone(),
        caller: caller.clone(),
        rights,
        mask: verbs_of(granted),
        basis: Some((rules.clone(), now)),
    })
}

/// The verbs that an action of a token lets through.
fn verbs_of(actions: Actions) -> Verbs {
    let when = |there, verbs: &[Verb]| if there { Verbs::of(verbs) } else { Verbs::NONE };
    when(actions.pull, &[Verb::Pull, Verb::List])
        .union(when(actions.push, &[Verb::Push, Verb::TagCreate, Verb::TagMove]))
        .union(when(actions.delete, &[Verb::TagDelete, Verb::Delete]))
}

/// The scopes of a new token: of what is wanted, that for which the identity holds at least one verb now.
///
/// Every wanted scope is there, with nothing granted where nothing is held. The catalog is for every valid identity; it
/// shows what that may list.
pub fn grant_scopes(rules: &Rules, identity: Identity, wanted: &[(Resource, Actions)], now: Timestamp) -> Vec<Scope> {
    let active = rules.is_active(identity, now);
    let allowed = |resource: &Resource| match resource {
        _ if !active => Actions::NONE,
        Resource::Catalog => Actions::ALL,
        Resource::Repository(name) => {
            let verbs = rules.rights(identity, name, now).verbs;
            let any = |of: &[Verb]| of.iter().any(|verb| verbs.contains(*verb));
            Actions {
                pull: any(&[Verb::Pull, Verb::List]),
                push: any(&[Verb::Push]),
                delete: any(&[Verb::Delete, Verb::TagDelete]),
            }
        }
    };
    wanted
        .iter()
        .map(|(resource, asked)| Scope {
            resource: resource.clone(),
            asked: *asked,
            granted: asked.intersection(allowed(resource)),
        })
        .collect()
}

impl Access {
    /// Access of a background task of the server itself, to everything in one repository.
    pub fn system(repository: RepositoryName, request_id: String) -> Self {
        let caller = Caller {
            identity: Identity::Anonymous,
            credential: Credential::None,
            credential_id: "system".to_owned(),
            source: String::new(),
            request_id,
        };
        Self { repository, caller: Arc::new(caller), rights: Rights::of(Verbs::ALL), mask: Verbs::ALL, basis: None }
    }

    /// The repository that was decided about.
    pub fn repository(&self) -> &RepositoryName {
        &self.repository
    }

    /// Who it was decided for.
    pub fn caller(&self) -> &Arc<Caller> {
        &self.caller
    }

    /// The id of that subject; none for anonymous callers and the system.
    pub fn subject_id(&self) -> Option<SubjectId> {
        match self.caller.identity {
            Identity::Anonymous => None,
            Identity::Subject(id) => Some(id),
        }
    }

    /// The number of the rules that were decided by; none for the system, which no rules bind. A change that is made on
    /// this decision compares it with the store's number of that moment.
    pub fn epoch(&self) -> Option<i64> {
        self.basis.as_ref().map(|(rules, _)| rules.epoch())
    }

    /// How events call the caller: `user:alice`, `robot:…`, `anonymous`, `socket` or `system`.
    pub fn label(&self) -> String {
        self.basis.as_ref().map_or_else(|| "system".to_owned(), |(rules, _)| label(rules, &self.caller))
    }

    /// Whether the caller may do this here, for whatever tag. For the verbs on tags ask [`Access::may_tag`].
    pub fn may(&self, verb: Verb) -> bool {
        self.mask.contains(verb) && self.rights.verbs.contains(verb)
    }

    /// Whether the caller's grants have this verb here, whatever its token asked for. Decides only what a caller may
    /// see of what it could have written itself (a pusher reads back with a token for pulling), never what it may do.
    pub fn holds(&self, verb: Verb) -> bool {
        self.rights.verbs.contains(verb)
    }

    /// Whether the caller may do this with this tag: pull by it, list it, create, move or delete it.
    pub fn may_tag(&self, verb: Verb, tag: &Tag) -> bool {
        self.mask.contains(verb) && self.rights.hold_for_tag(verb, tag)
    }

    /// Why the caller may not do this, for [`Refusal::Denied`].
    pub fn denial(&self, verb: Verb, tag: Option<&Tag>) -> String {
        denial(&self.label(), &self.repository, verb, tag, &self.rights)
    }

    /// Access to the repository that a blob is to be mounted from, if the caller may push here and pull there.
    ///
    /// The subject's grants decide, not the token's scopes: clients ask a token for the target alone
    /// (`docs/decisions/0001-mount-source-by-grants.md`). Besides pulling it tells only whether the caller may push
    /// there, which decides about blobs that no manifest has accepted yet.
    pub fn source(&self, name: &RepositoryName) -> Option<Self> {
        let (rules, now) = self.basis.as_ref()?;
        if !self.may(Verb::Push) || !rules.is_active(self.caller.identity, *now) {
            return None;
        }
        let rights = rules.rights(self.caller.identity, name, *now);
        rights.verbs.contains(Verb::Pull).then(|| Self {
            repository: name.clone(),
            caller: self.caller.clone(),
            rights,
            mask: Verbs::of(&[Verb::Pull, Verb::Push]),
            basis: self.basis.clone(),
        })
    }
}

/// A decision in the caller's favour: which repositories it may list.
#[derive(Clone, Debug)]
pub struct CatalogAccess {
    caller: Arc<Caller>,
    ranges: Vec<NameRange>,
    rules: Arc<Rules>,
    now: Timestamp,
}

/// Decides whether the caller may list repositories. Who holds nothing gets an empty list.
pub fn authorize_catalog(rules: &Arc<Rules>, caller: &Arc<Caller>, now: Timestamp) -> Result<CatalogAccess, Refusal> {
    let challenge = |error| Refusal::Challenge { scope: Some("registry:catalog:*".to_owned()), error };
    match &caller.credential {
        Credential::None | Credential::Socket => return Err(challenge(None)),
        Credential::Basic if caller.identity == Identity::Anonymous => return Err(challenge(None)),
        Credential::Basic if !rules.is_active(caller.identity, now) => return Err(challenge(None)),
        Credential::Basic => {}
        Credential::Token(_) if !rules.is_active(caller.identity, now) => return Err(challenge(Some("invalid_token"))),
        Credential::Token(scopes) => {
            if scopes.catalog().1 != Actions::ALL {
                return Err(challenge(Some("insufficient_scope")));
            }
        }
    }
    let ranges = rules.list_ranges(caller.identity, now);
    Ok(CatalogAccess { caller: caller.clone(), ranges, rules: rules.clone(), now })
}

impl CatalogAccess {
    /// The ranges of names to look through: merged, in order, without overlap. Each name found there is still to be
    /// asked about with [`CatalogAccess::may_list`].
    pub fn ranges(&self) -> &[NameRange] {
        &self.ranges
    }

    /// Whether the caller may see this name.
    pub fn may_list(&self, name: &RepositoryName) -> bool {
        self.rules.rights(self.caller.identity, name, self.now).verbs.contains(Verb::List)
    }

    /// Who it was decided for.
    pub fn caller(&self) -> &Arc<Caller> {
        &self.caller
    }
}

/// A decision in the caller's favour: it may use the admin API.
#[derive(Clone, Debug)]
pub struct AdminAccess {
    caller: Arc<Caller>,
    rules: Arc<Rules>,
    now: Timestamp,
}

/// Decides whether the caller may use the admin API: over the admin socket, or as an administrator.
///
/// A token does only if no scope was asked for with it: one that was made for a repository and is handed to a build
/// must not open more than that.
pub fn authorize_admin(rules: &Arc<Rules>, caller: &Arc<Caller>, now: Timestamp) -> Result<AdminAccess, Refusal> {
    let challenge = |error| Refusal::Challenge { scope: None, error };
    match &caller.credential {
        Credential::Socket => {
            return Ok(AdminAccess { caller: caller.clone(), rules: rules.clone(), now });
        }
        Credential::None => return Err(challenge(None)),
        Credential::Basic if caller.identity == Identity::Anonymous => return Err(challenge(None)),
        Credential::Basic if !rules.is_active(caller.identity, now) => return Err(challenge(None)),
        Credential::Basic => {}
        Credential::Token(_) if !rules.is_active(caller.identity, now) => return Err(challenge(Some("invalid_token"))),
        Credential::Token(scopes) if !scopes.0.is_empty() => return Err(challenge(Some("insufficient_scope"))),
        Credential::Token(_) => {}
    }
    let administrator = match caller.identity {
        Identity::Anonymous => false,
        Identity::Subject(id) => rules.subject(id).is_some_and(|subject| subject.administrator),
    };
    if !administrator {
        let reason = format!(
            "{} is not an administrator; use the admin socket on the server, or log in as one",
            rules.label(caller.identity)
        );
        return Err(Refusal::Denied { reason });
    }
    Ok(AdminAccess { caller: caller.clone(), rules: rules.clone(), now })
}

impl AdminAccess {
    /// Who it was decided for.
    pub fn caller(&self) -> &Arc<Caller> {
        &self.caller
    }

    /// The id of that subject; none over the admin socket.
    pub fn subject_id(&self) -> Option<SubjectId> {
        match self.caller.identity {
            Identity::Anonymous => None,
            Identity::Subject(id) => Some(id),
        }
    }

    /// How events call the caller: `user:alice` or `socket`.
    pub fn label(&self) -> String {
        label(&self.rules, &self.caller)
    }

    /// What an administrator may do in any repository through the admin API: list and delete, not pull and push.
    pub fn repository(&self, name: &RepositoryName) -> Access {
        let verbs = Verbs::of(&[Verb::List, Verb::TagDelete, Verb::Delete]);
        Access {
            repository: name.clone(),
            caller: self.caller.clone(),
            rights: Rights::of(verbs),
            mask: verbs,
            basis: Some((self.rules.clone(), self.now)),
        }
    }
}

fn label(rules: &Rules, caller: &Caller) -> String {
    match caller.credential {
        Credential::Socket => "socket".to_owned(),
        _ => rules.label(caller.identity),
    }
}

/// Why `who`, holding `rights` on `name`, may not, and the command that would change that.
fn denial(who: &str, name: &RepositoryName, verb: Verb, tag: Option<&Tag>, rights: &Rights) -> String {
    let which = tag.map_or_else(|| "tags".to_owned(), |tag| format!("tag {tag}"));
    let act = match verb {
        Verb::Pull if tag.is_some() => format!("pull {which} of {name}"),
        Verb::Pull => format!("pull from {name}"),
        Verb::List => format!("list {name}"),
        Verb::Push => format!("push to {name}"),
        Verb::TagCreate => format!("create {which} in {name}"),
        Verb::TagMove => format!("move {which} in {name}"),
        Verb::TagDelete => format!("delete {which} of {name}"),
        Verb::Delete => format!("delete from {name}"),
    };
    if who == "anonymous" && !Verbs::READ.contains(verb) {
        return format!("{who} may not {act}: needs verb {verb}, which only users and robots can have; log in first");
    }
    // Who holds the verb for other tags is meant to be bound by tags.
    let tags = match tag {
        Some(tag) if rights.verbs.contains(verb) => format!(" --tags {tag}"),
        _ => String::new(),
    };
    let role = verb.role();
    format!(
        "{who} may not {act}: needs verb {verb}; an administrator can run: portcullis grant add {who} {role} {name}{tags}"
    )
}

#[cfg(test)]
mod tests;
