//! Login names of users and robots, and the namespaces that robots belong to.

use std::fmt;
use std::sync::Arc;

use oci::RepositoryName;

use super::Invalid;

/// The login name of a user or a robot. Users and robots share one set of names.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AccountName(Arc<str>);

impl AccountName {
    /// The longest name of a user, in bytes.
    pub const MAX_USER: usize = 64;
    /// The longest login name of a robot, in bytes.
    pub const MAX_ROBOT: usize = 255;

    /// Parses the name of a user: `[a-z0-9][a-z0-9._-]{0,63}`.
    pub fn parse_user(text: &str) -> Result<Self, Invalid> {
        if is_name(text, Self::MAX_USER) {
            return Ok(Self(text.into()));
        }
        Err(Invalid::Name(format!(
            "'{}' is not a user's name: use 1 to {} lower-case letters, digits, '.', '_' or '-', and begin with a letter or digit",
            excerpt(text),
            Self::MAX_USER
        )))
    }

    /// The login name of the robot `own` in `namespace`: the namespace with `/` written `.`, then `.`, then `own`.
    pub fn of_robot(namespace: &Namespace, own: &str) -> Result<Self, Invalid> {
        let one_component = !own.contains('/') && RepositoryName::parse(own).is_ok();
        if !one_component {
            return Err(Invalid::Name(format!(
                "'{}' is not a robot's own name: use lower-case letters and digits, separated by '.', '_', '__' or '-', without its namespace",
                excerpt(own)
            )));
        }
        let name = format!("{}.{own}", namespace.as_str().replace('/', "."));
        if name.len() > Self::MAX_ROBOT {
            return Err(Invalid::Name(format!(
                "the robot's login name would have {} characters; at most {} are allowed",
                name.len(),
                Self::MAX_ROBOT
            )));
        }
        Ok(Self(name.into()))
    }

    /// Parses a name that may be a user's or a robot's, to look it up.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        if is_name(text, Self::MAX_ROBOT) {
            return Ok(Self(text.into()));
        }
        Err(Invalid::Name(format!("'{}' is no name of a user or a robot", excerpt(text))))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for AccountName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A namespace: path components as in the name of a repository.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Namespace(RepositoryName);

impl Namespace {
    /// Parses a namespace.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        RepositoryName::parse(text).map(Self).map_err(|_| {
            Invalid::Name(format!(
                "'{}' is not a namespace: use components as in a repository's name, such as payments or payments/api",
                excerpt(text)
            ))
        })
    }

    /// The namespace as text.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

fn is_name(text: &str, longest: usize) -> bool {
    let alphanumeric = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
    text.len() <= longest
        && text.bytes().next().is_some_and(alphanumeric)
        && text.bytes().all(|c| alphanumeric(c) || matches!(c, b'.' | b'_' | b'-'))
}

/// At most 64 characters of what somebody sent, escaped, for a message.
pub(super) fn excerpt(input: &str) -> String {
    let mut short: String = input.chars().take(64).flat_map(char::escape_debug).collect();
    if input.chars().nth(64).is_some() {
        short.push('…');
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users() {
        for good in ["a", "0", "alice", "a.b_c-d", "alice-", &"a".repeat(64)] {
            assert_eq!(AccountName::parse_user(good).unwrap().as_str(), good);
        }
        for bad in ["", ".a", "-a", "_a", "Alice", "a b", "a/b", "a:b", "ä", "a\0", "a\n", &"a".repeat(65)] {
            assert!(AccountName::parse_user(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn robots() {
        let name = |namespace: &str, own: &str| AccountName::of_robot(&Namespace::parse(namespace)?, own);
        assert_eq!(name("payments/api", "deploy").unwrap().as_str(), "payments.api.deploy");
        assert_eq!(name("a", "b").unwrap().as_str(), "a.b");
        for (namespace, own) in
            [("", "a"), ("a/", "b"), ("A", "b"), ("a", ""), ("a", "b/c"), ("a", "B"), ("a", "-b"), ("a$b", "c")]
        {
            assert!(name(namespace, own).is_err(), "{namespace} {own}");
        }
        assert!(name(&"a".repeat(250), "abcdef").is_err());
        assert!(AccountName::parse("payments.api.deploy").is_ok());
    }
}
