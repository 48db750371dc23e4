//! Repository names and tags.

use std::fmt;
use std::sync::Arc;

use crate::error::{Error, ErrorCode, excerpt};

/// The name of a repository: path components of lower-case letters and digits, joined with `/`.
///
/// Grammar: the specification, "Pulling manifests"; at most 255 bytes, as `distribution` limits it.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RepositoryName(Arc<str>);

impl RepositoryName {
    /// The longest name that is accepted, in bytes.
    pub const MAX: usize = 255;

    /// Parses a name; `NAME_INVALID` when it is not one.
    pub fn parse(text: &str) -> Result<Self, Error> {
        if text.len() > Self::MAX {
            return Err(Error::new(
                ErrorCode::NameInvalid,
                format!("a repository name has at most {} characters, this one has {}", Self::MAX, text.len()),
            ));
        }
        if text.is_empty() || !text.split('/').all(is_component) {
            return Err(Error::new(
                ErrorCode::NameInvalid,
                format!(
                    "'{}' is not a repository name: use lower-case letters and digits, separated by '.', '_', '__' or '-', in components joined by '/'",
                    excerpt(text)
                ),
            ));
        }
        Ok(Self(text.into()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The path components, from the left.
    pub fn components(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.0.split('/')
    }
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
fn is_component(component: &str) -> bool {
    let alphanumeric = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
    let bytes = component.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else { return false };
    if !alphanumeric(*first) || !alphanumeric(*last) {
        return false;
    }
    bytes
        .split(|c| alphanumeric(*c))
        .filter(|separator| !separator.is_empty())
        .all(|separator| matches!(separator, b"." | b"_" | b"__") || separator.iter().all(|c| *c == b'-'))
}

impl fmt::Display for RepositoryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for RepositoryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// A tag: `[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}`. Tags are ordered by their bytes.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tag(Arc<str>);

impl Tag {
    /// The longest tag, in bytes.
    pub const MAX: usize = 128;

    /// Parses a tag; `TAG_INVALID` when it is not one.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let bytes = text.as_bytes();
        let word = |c: &u8| c.is_ascii_alphanumeric() || *c == b'_';
        let valid = bytes.len() <= Self::MAX
            && bytes.first().is_some_and(word)
            && bytes.iter().all(|c| word(c) || matches!(c, b'.' | b'-'));
        if !valid {
            return Err(Error::new(
                ErrorCode::TagInvalid,
                format!(
                    "'{}' is not a tag: use 1 to 128 letters, digits, '_', '.' or '-', and begin with neither '.' nor '-'",
                    excerpt(text)
                ),
            ));
        }
        Ok(Self(text.into()))
    }

    /// The tag with a text that is one by construction.
    pub(crate) fn from_checked(text: String) -> Self {
        Self(text.into())
    }

    /// The tag as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The specification's expression, read one character at a time.
    fn in_grammar(name: &str) -> bool {
        let mut separator = "/".to_owned();
        for c in name.chars() {
            if c.is_ascii_lowercase() || c.is_ascii_digit() {
                separator.clear();
                continue;
            }
            separator.push(c);
            let dashes = separator.chars().all(|c| c == '-');
            if !dashes && !matches!(separator.as_str(), "." | "_" | "__" | "/") {
                return false;
            }
        }
        separator.is_empty()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(5000))]
        #[test]
        fn e01_names_are_the_grammar(name in "[a-b0./_-]{0,9}|[a-zA-Z/]{0,5}|\\PC{0,5}|[a-z]{250,258}") {
            let expected = in_grammar(&name) && name.len() <= RepositoryName::MAX;
            let parsed = RepositoryName::parse(&name);
            prop_assert_eq!(parsed.is_ok(), expected, "{}", &name);
            if let Ok(parsed) = parsed {
                prop_assert_eq!(parsed.components().collect::<Vec<_>>().join("/"), name);
            }
        }

        #[test]
        fn tags_are_the_grammar(good in "[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}", text in "\\PC{0,130}|[a-z./:+]{0,6}") {
            prop_assert_eq!(Tag::parse(&good).map(|tag| tag.to_string()), Ok(good));
            let _ = Tag::parse(&text);
        }
    }

    #[test]
    fn names() {
        for good in ["a", "0", "a/b", "a.b_c__d-e---f/0", "blobs/uploads", &"a".repeat(255)] {
            assert_eq!(RepositoryName::parse(good).unwrap().as_str(), good);
        }
        for bad in [
            "",
            "/",
            "a/",
            "/a",
            "a//b",
            "A",
            "a..b",
            "a___b",
            "a._b",
            "-a",
            "a-",
            "a.",
            ".a",
            "_catalog",
            "ä",
            "a b",
            "a\0",
            "a/../b",
            "a\\b",
            &"a".repeat(256),
        ] {
            assert_eq!(RepositoryName::parse(bad).unwrap_err().code, ErrorCode::NameInvalid, "{bad}");
        }
    }

    #[test]
    fn tags() {
        for good in ["latest", "_", "A", "1.0-rc.1", &"x".repeat(128)] {
            assert_eq!(Tag::parse(good).unwrap().as_str(), good);
        }
        for bad in ["", ".a", "-a", "a+b", "a:b", "a/b", "ä", &"x".repeat(129)] {
            assert_eq!(Tag::parse(bad).unwrap_err().code, ErrorCode::TagInvalid, "{bad}");
        }
    }
}
