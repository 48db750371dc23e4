//! Subjects and grants, compiled so that a decision looks only at what can match.

use std::collections::HashMap;
use std::sync::Arc;

use oci::{RepositoryName, Tag, Timestamp};

use crate::pattern::glob_matches;
use crate::{Identity, NameRange, RepositoryPattern, TagPattern, Verb, Verbs};

/// The id of a user or robot, its key in the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SubjectId(pub i64);

/// What a subject is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SubjectKind {
    /// A person.
    User,
    /// A machine.
    Robot,
}

/// A user or a robot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// Its id.
    pub id: SubjectId,
    /// Its login name; users and robots share one set of names.
    pub name: Arc<str>,
    /// What it is.
    pub kind: SubjectKind,
    /// Whether it may use the admin API. No right to pull or push.
    pub administrator: bool,
    /// A disabled subject is treated as one that does not exist.
    pub disabled: bool,
    /// The credential epoch: changes with the password, the secrets and `disabled`; tokens of another one are void.
    pub epoch: i64,
    /// From when on it is treated as disabled.
    pub expires_at: Option<Timestamp>,
}

impl Subject {
    /// `user:alice` or `robot:payments.api.deploy`.
    pub fn label(&self) -> String {
        match self.kind {
            SubjectKind::User => format!("user:{}", self.name),
            SubjectKind::Robot => format!("robot:{}", self.name),
        }
    }

    /// Whether it may do anything at all at this time.
    pub fn is_active(&self, now: Timestamp) -> bool {
        !self.disabled && self.expires_at.is_none_or(|end| now < end)
    }
}

/// Who gets what a grant gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Grantee {
    /// This subject.
    Subject(SubjectId),
    /// Everybody, with and without a login. Of its verbs only [`Verbs::READ`] count.
    Anonymous,
}

/// One grant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Its id, the key in the database.
    pub id: i64,
    /// Who gets it.
    pub grantee: Grantee,
    /// What it allows.
    pub verbs: Verbs,
    /// On which repositories.
    pub repository: RepositoryPattern,
    /// For which tags; empty means all. Bounds the verbs on tags, pulling by tag and the tags that are listed; pulling
    /// by digest, pushing blobs and manifests by digest and deleting them do not look at it.
    pub tags: Vec<TagPattern>,
    /// From when on it does not count.
    pub expires_at: Option<Timestamp>,
}

/// All subjects and grants at one time. Built anew from the database after each change, before the change is answered.
#[derive(Debug, Default)]
pub struct Rules {
    epoch: i64,
    subjects: HashMap<SubjectId, Subject>,
    names: HashMap<Arc<str>, SubjectId>,
    grants: HashMap<SubjectId, Compiled>,
    anonymous: Compiled,
}

impl Rules {
    /// Compiles them. `epoch` is the database's number of this state. Grants of subjects that are not there are left
    /// out.
    pub fn new(epoch: i64, subjects: Vec<Subject>, grants: Vec<Grant>) -> Self {
        let mut rules = Self { epoch, ..Self::default() };
        for subject in subjects {
            rules.names.insert(subject.name.clone(), subject.id);
            rules.subjects.insert(subject.id, subject);
        }
        for mut grant in grants {
            match grant.grantee {
                Grantee::Anonymous => {
                    grant.verbs = grant.verbs.intersection(Verbs::READ);
                    rules.anonymous.add(grant);
                }
                Grantee::Subject(id) if rules.subjects.contains_key(&id) => {
                    rules.grants.entry(id).or_default().add(grant);
                }
                Grantee::Subject(_) => {}
            }
        }
        rules
    }

    /// The number of this state.
    pub fn epoch(&self) -> i64 {
        self.epoch
    }

    /// The subject with this id, active or not.
    pub fn subject(&self, id: SubjectId) -> Option<&Subject> {
        self.subjects.get(&id)
    }

    /// The subject with this login name, active or not.
    pub fn subject_by_name(&self, name: &str) -> Option<&Subject> {
        self.names.get(name).and_then(|id| self.subjects.get(id))
    }

    /// Whether this identity may do anything at all at this time.
    pub(crate) fn is_active(&self, identity: Identity, now: Timestamp) -> bool {
        match identity {
            Identity::Anonymous => true,
            Identity::Subject(id) => self.subject(id).is_some_and(|subject| subject.is_active(now)),
        }
    }

    /// How events and messages call this identity.
    pub(crate) fn label(&self, identity: Identity) -> String {
        match identity {
            Identity::Anonymous => "anonymous".to_owned(),
            Identity::Subject(id) => self.subject(id).map_or_else(|| format!("subject:{}", id.0), Subject::label),
        }
    }

    /// What an active identity holds on a repository: its own grants and those of everybody.
    pub(crate) fn rights(&self, identity: Identity, name: &RepositoryName, now: Timestamp) -> Rights {
        let mut rights = Rights::default();
        for compiled in self.compiled(identity) {
            compiled.visit(name, |allowance| rights.add(allowance, now));
        }
        rights
    }

    /// The ranges of names that this identity may list, merged and in order. They may hold names that it may not.
    pub(crate) fn list_ranges(&self, identity: Identity, now: Timestamp) -> Vec<NameRange> {
        let counts = |expires_at: Option<Timestamp>| expires_at.is_none_or(|end| now < end);
        let ranges = self.compiled(identity).flat_map(|compiled| &compiled.list_ranges);
        NameRange::merge(ranges.filter(|(_, end)| counts(*end)).map(|(range, _)| range.clone()).collect())
    }

    fn compiled(&self, identity: Identity) -> impl Iterator<Item = &Compiled> {
        let own = match identity {
            Identity::Anonymous => None,
            Identity::Subject(id) => self.grants.get(&id),
        };
        own.into_iter().chain([&self.anonymous])
    }
}

/// What an identity holds on one repository.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rights {
    /// All verbs, whatever their tags.
    pub(crate) verbs: Verbs,
    /// The verbs that hold for every tag.
    every_tag: Verbs,
    tagged: Vec<(Verbs, Arc<[TagPattern]>)>,
}

impl Rights {
    /// These verbs, for every tag.
    pub(crate) fn of(verbs: Verbs) -> Self {
        Self { verbs, every_tag: verbs, tagged: Vec::new() }
    }

    fn add(&mut self, allowance: &Allowance, now: Timestamp) {
        if allowance.expires_at.is_some_and(|end| now >= end) {
            return;
        }
        self.verbs = self.verbs.union(allowance.verbs);
        if allowance.tags.is_empty() {
            self.every_tag = self.every_tag.union(allowance.verbs);
        } else {
            self.tagged.push((allowance.verbs, allowance.tags.clone()));
        }
    }

    /// Whether `verb` is held for this tag.
    pub(crate) fn hold_for_tag(&self, verb: Verb, tag: &Tag) -> bool {
        self.every_tag.contains(verb)
            || self
                .tagged
                .iter()
                .any(|(verbs, patterns)| verbs.contains(verb) && patterns.iter().any(|pattern| pattern.matches(tag)))
    }
}

/// What one grant allows where its pattern matches.
#[derive(Debug)]
struct Allowance {
    verbs: Verbs,
    tags: Arc<[TagPattern]>,
    expires_at: Option<Timestamp>,
}

/// The grants of one grantee as a tree of name components. A look-up follows the components of a name: one hash look-up
/// each, and the patterns with `*` at the places that it comes through.
#[derive(Debug)]
struct Compiled {
    /// The first is the root.
    nodes: Vec<Node>,
    list_ranges: Vec<(NameRange, Option<Timestamp>)>,
}

#[derive(Debug, Default)]
struct Node {
    literal: HashMap<Box<str>, usize>,
    globs: Vec<(Box<str>, usize)>,
    /// Grants whose pattern ends here.
    here: Vec<Allowance>,
    /// Grants whose pattern goes on with `**`.
    below: Vec<Allowance>,
}

impl Default for Compiled {
    fn default() -> Self {
        Self { nodes: vec![Node::default()], list_ranges: Vec::new() }
    }
}

impl Compiled {
    fn add(&mut self, grant: Grant) {
        if grant.verbs.contains(Verb::List) {
            self.list_ranges.push((grant.repository.range(), grant.expires_at));
        }
        let allowance = Allowance { verbs: grant.verbs, tags: grant.tags.into(), expires_at: grant.expires_at };
        let mut at = 0;
        for component in grant.repository.components() {
            if component == "**" {
                self.nodes[at].below.push(allowance);
                return;
            }
            at = self.child(at, component);
        }
        self.nodes[at].here.push(allowance);
    }

    fn child(&mut self, at: usize, component: &str) -> usize {
        let new = self.nodes.len();
        let node = &mut self.nodes[at];
        let child = if component.contains('*') {
            match node.globs.iter().find(|(glob, _)| &**glob == component) {
                Some((_, child)) => *child,
                None => {
                    node.globs.push((component.into(), new));
                    new
                }
            }
        } else {
            *node.literal.entry(component.into()).or_insert(new)
        };
        if child == new {
            self.nodes.push(Node::default());
        }
        child
    }

    fn visit(&self, name: &RepositoryName, mut visit: impl FnMut(&Allowance)) {
        let mut reached = vec![0];
        for component in name.components() {
            let mut next = Vec::new();
            for node in reached.iter().map(|at| &self.nodes[*at]) {
                node.below.iter().for_each(&mut visit);
                next.extend(node.literal.get(component));
                next.extend(
                    node.globs.iter().filter(|(glob, _)| glob_matches(glob, component)).map(|(_, child)| *child),
                );
            }
            reached = next;
        }
        for at in reached {
            self.nodes[at].here.iter().for_each(&mut visit);
        }
    }
}
