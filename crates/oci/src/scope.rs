//! Scopes: what a client asks the token service for.

use std::fmt;

use crate::RepositoryName;
use crate::error::{Error, ErrorCode};

/// How many scopes one request may ask for, so that the token fits into a header. Docker asks for at most five.
pub const MAX_SCOPES: usize = 32;

/// What a scope is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Resource {
    /// `repository:<name>`.
    Repository(RepositoryName),
    /// `registry:catalog`.
    Catalog,
}

/// `repository:<name>` or `registry:catalog`.
impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Repository(name) => write!(f, "repository:{name}"),
            Self::Catalog => f.write_str("registry:catalog"),
        }
    }
}

/// The actions of a scope, a set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Actions {
    /// Read.
    pub pull: bool,
    /// Write.
    pub push: bool,
    /// Remove.
    pub delete: bool,
}

impl Actions {
    /// None.
    pub const NONE: Self = Self { pull: false, push: false, delete: false };
    /// All, written `*`.
    pub const ALL: Self = Self { pull: true, push: true, delete: true };

    /// Reads a list with commas; what is not known is dropped, as the token specification says.
    pub fn parse(list: &str) -> Self {
        list.split(',').fold(Self::NONE, |actions, action| match action.trim() {
            "pull" => Self { pull: true, ..actions },
            "push" => Self { push: true, ..actions },
            "delete" => Self { delete: true, ..actions },
            "*" => Self::ALL,
            _ => actions,
        })
    }

    /// Those of both.
    pub fn union(self, other: Self) -> Self {
        Self { pull: self.pull || other.pull, push: self.push || other.push, delete: self.delete || other.delete }
    }

    /// Those in both.
    pub fn intersection(self, other: Self) -> Self {
        Self { pull: self.pull && other.pull, push: self.push && other.push, delete: self.delete && other.delete }
    }

    /// Whether every one of `other` is in this.
    pub fn contains(self, other: Self) -> bool {
        self.intersection(other) == other
    }

    /// Whether there is none.
    pub fn is_empty(self) -> bool {
        self == Self::NONE
    }

    /// The names, in the order `pull`, `push`, `delete`.
    pub fn iter(self) -> impl Iterator<Item = &'static str> {
        [(self.pull, "pull"), (self.push, "push"), (self.delete, "delete")]
            .into_iter()
            .filter_map(|(there, name)| there.then_some(name))
    }
}

/// The names joined with commas.
impl fmt::Display for Actions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, name) in self.iter().enumerate() {
            write!(f, "{}{name}", if index == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

/// Reads the `scope` fields of a token request: repeated, separated by spaces, or both (Q8).
///
/// Scopes of one resource are joined; those of types and names that are not known are dropped, since a narrower token
/// is no error. `UNSUPPORTED` (answer 400) for more than [`MAX_SCOPES`] resources.
pub fn parse_scopes<'a>(fields: impl IntoIterator<Item = &'a str>) -> Result<Vec<(Resource, Actions)>, Error> {
    let mut scopes: Vec<(Resource, Actions)> = Vec::new();
    for (resource, actions) in fields.into_iter().flat_map(str::split_ascii_whitespace).filter_map(parse_scope) {
        if let Some((_, known)) = scopes.iter_mut().find(|(known, _)| *known == resource) {
            *known = known.union(actions);
        } else if scopes.len() == MAX_SCOPES {
            return Err(Error::new(
                ErrorCode::Unsupported,
                format!("more than {MAX_SCOPES} scopes in one request: ask for several tokens"),
            ));
        } else {
            scopes.push((resource, actions));
        }
    }
    Ok(scopes)
}

/// `type[(class)]:name:action[,action…]`. The name may hold colons (`host:port/name`), so the type ends at the first
/// colon and the actions begin behind the last.
fn parse_scope(text: &str) -> Option<(Resource, Actions)> {
    let (kind, rest) = text.split_once(':')?;
    let (name, actions) = rest.rsplit_once(':')?;
    let kind = match kind.split_once('(') {
        Some((kind, class)) if class.ends_with(')') => kind,
        Some(_) => return None,
        None => kind,
    };
    match kind {
        "repository" => {
            // A first component with a colon can only be a host; without one it is a component like any other.
            let name = match name.split_once('/') {
                Some((host, name)) if host.contains(':') => name,
                _ => name,
            };
            Some((Resource::Repository(RepositoryName::parse(name).ok()?), Actions::parse(actions)))
        }
        "registry" if name == "catalog" => {
            let actions =
                if actions.split(',').any(|action| action.trim() == "*") { Actions::ALL } else { Actions::NONE };
            Some((Resource::Catalog, actions))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn scopes(fields: &[&str]) -> String {
        let scopes = parse_scopes(fields.iter().copied()).unwrap();
        scopes.iter().map(|(resource, actions)| format!("{resource}:{actions}")).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn q8_q10_forms() {
        for (fields, expected) in [
            (&["repository:a/b:pull"][..], "repository:a/b:pull"),
            (&["repository:a/b:push,pull"], "repository:a/b:pull,push"),
            (&["repository:a/b:pull,push,delete"], "repository:a/b:pull,push,delete"),
            (&["repository:a/b:*"], "repository:a/b:pull,push,delete"),
            (
                &["repository:a:pull repository:b:push", "repository:c:delete"],
                "repository:a:pull repository:b:push repository:c:delete",
            ),
            (&["repository:a:pull", "repository:a:push"], "repository:a:pull,push"),
            (&["repository(plugin):a:pull"], "repository:a:pull"),
            (&["repository:localhost:5000/team/app:pull"], "repository:team/app:pull"),
            (&["repository:[::1]:5000/team/app:pull"], "repository:team/app:pull"),
            (&["repository:reg.example/team:pull"], "repository:reg.example/team:pull"),
            (&["repository:a:pull,scan,"], "repository:a:pull"),
            (&["repository:a:scan"], "repository:a:"),
            (&["registry:catalog:*"], "registry:catalog:pull,push,delete"),
            (&["registry:catalog:pull"], "registry:catalog:"),
            (
                &[
                    "registry:other:*",
                    "plugin:a:pull",
                    "repository:A:pull",
                    "repository:a",
                    "repository",
                    "",
                    ":",
                    "::",
                    "repository(x:a:pull",
                ],
                "",
            ),
            (&["", "  "], ""),
        ] {
            assert_eq!(scopes(fields), expected, "{fields:?}");
        }
    }

    #[test]
    fn number_is_bounded() {
        let many = |count: usize| (0..count).map(|i| format!("repository:r{i}:pull")).collect::<Vec<_>>().join(" ");
        assert_eq!(parse_scopes([many(MAX_SCOPES).as_str()]).unwrap().len(), MAX_SCOPES);
        assert_eq!(parse_scopes([many(MAX_SCOPES + 1).as_str()]).unwrap_err().code, ErrorCode::Unsupported);
        assert_eq!(parse_scopes([many(MAX_SCOPES).as_str(), many(MAX_SCOPES).as_str()]).unwrap().len(), MAX_SCOPES);
    }

    proptest! {
        #[test]
        fn never_panics_and_round_trips(text in "[a-z():/,* 0-9]{0,80}", pull: bool, push: bool, delete: bool) {
            if let Ok(scopes) = parse_scopes([text.as_str()]) {
                for (resource, actions) in scopes {
                    let again = if resource == Resource::Catalog && !actions.is_empty() {
                        "registry:catalog:*".to_owned()
                    } else {
                        format!("{resource}:{actions}")
                    };
                    prop_assert_eq!(parse_scopes([again.as_str()]), Ok(vec![(resource, actions)]));
                }
            }
            let actions = Actions { pull, push, delete };
            prop_assert_eq!(Actions::parse(&actions.to_string()), actions);
        }
    }
}
