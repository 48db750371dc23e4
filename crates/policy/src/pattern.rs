//! Patterns of repository names and of tags.

use std::fmt;
use std::sync::Arc;

use oci::{RepositoryName, Tag};

use crate::{Error, excerpt};

/// A pattern of repository names: components joined with `/`, where `*` is any run of characters within one component
/// and a last component `**` is one or more components.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct RepositoryPattern(Arc<str>);

impl RepositoryPattern {
    /// Parses a pattern of at most 255 bytes. One without `*` must be a repository name.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let invalid = |why: &'static str| Error::RepositoryPattern { text: excerpt(text), why };
        if text.len() > RepositoryName::MAX {
            return Err(invalid("it is longer than 255 characters"));
        }
        if !text.contains('*') {
            RepositoryName::parse(text).map_err(|_| invalid("it has no '*' and is not a repository name"))?;
            return Ok(Self(text.into()));
        }
        let literal = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, b'.' | b'_' | b'-' | b'*');
        let mut components = text.split('/').peekable();
        while let Some(component) = components.next() {
            if component.is_empty() {
                return Err(invalid("a component is empty"));
            }
            if component == "**" && components.peek().is_none() {
                break;
            }
            if component.contains("**") {
                return Err(invalid("'**' stands only at the end, as a whole component"));
            }
            if !component.bytes().all(literal) {
                return Err(invalid("use lower-case letters, digits, '.', '_', '-' and '*'"));
            }
        }
        Ok(Self(text.into()))
    }

    /// Whether `name` is one of those. Takes time linear in the name and the pattern.
    pub fn matches(&self, name: &RepositoryName) -> bool {
        let mut names = name.components();
        for pattern in self.components() {
            match names.next() {
                Some(_) if pattern == "**" => return true,
                Some(component) if glob_matches(pattern, component) => {}
                _ => return false,
            }
        }
        names.next().is_none()
    }

    /// The pattern as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The components, from the left; `**` only as the last.
    pub(crate) fn components(&self) -> impl Iterator<Item = &str> {
        self.0.split('/')
    }

    /// The smallest range of names that holds all that match. It may hold others.
    pub fn range(&self) -> NameRange {
        match self.0.split_once('*') {
            // Every character that a name may go on with is above the space.
            None => NameRange { start: self.0.to_string(), end: Some(format!("{} ", self.0)) },
            Some(("", _)) => NameRange { start: String::new(), end: None },
            Some((prefix, _)) => NameRange { start: prefix.to_owned(), end: Some(successor(prefix)) },
        }
    }
}

/// The first text that is above all that begin with `prefix`, which is ASCII and not empty.
fn successor(prefix: &str) -> String {
    let mut next = prefix.to_owned();
    if let Some(last) = next.pop() {
        next.push(char::from_u32(u32::from(last) + 1).unwrap_or(char::MAX));
    }
    next
}

impl fmt::Display for RepositoryPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for RepositoryPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// Names from `start` on and below `end`, in the order of their bytes; no `end` means all that follow.
///
/// Neither bound has to be a name; both are printable ASCII.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameRange {
    /// The least name that may be in it.
    pub start: String,
    /// The least text that is above all of it.
    pub end: Option<String>,
}

impl NameRange {
    /// Whether `name` is in it.
    pub fn contains(&self, name: &str) -> bool {
        self.start.as_str() <= name && self.end.as_deref().is_none_or(|end| name < end)
    }

    /// The same names in the fewest ranges, in order: none touches the next.
    pub(crate) fn merge(mut ranges: Vec<Self>) -> Vec<Self> {
        ranges.sort_by(|a, b| a.start.cmp(&b.start));
        let mut merged: Vec<Self> = Vec::new();
        for range in ranges {
            match merged.last_mut() {
                Some(last) if last.end.as_ref().is_none_or(|end| range.start <= *end) => {
                    if range.end.is_none() || last.end < range.end && last.end.is_some() {
                        last.end = range.end;
                    }
                    if last.end.is_none() {
                        return merged;
                    }
                }
                _ => merged.push(range),
            }
        }
        merged
    }
}

/// A pattern of tags, where `*` is any run of characters.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct TagPattern(Arc<str>);

impl TagPattern {
    /// Parses a pattern of 1 to 128 bytes.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let invalid = |why: &'static str| Error::TagPattern { text: excerpt(text), why };
        if text.is_empty() || text.len() > Tag::MAX {
            return Err(invalid("it must have 1 to 128 characters"));
        }
        if !text.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'_' | b'-' | b'*')) {
            return Err(invalid("use letters, digits, '.', '_', '-' and '*'"));
        }
        if !text.contains('*') && Tag::parse(text).is_err() {
            return Err(invalid("it has no '*' and is not a tag"));
        }
        Ok(Self(text.into()))
    }

    /// Whether `tag` is one of those. Takes time linear in the tag and the pattern.
    pub fn matches(&self, tag: &Tag) -> bool {
        glob_matches(&self.0, tag.as_str())
    }

    /// The pattern as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TagPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TagPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// Whether `text` is `pattern` with each `*` standing for any run of characters. The pieces between the stars are
/// looked for from the left, each once: no backtracking.
pub(crate) fn glob_matches(pattern: &str, text: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('*') else { return pattern == text };
    let (middle, tail) = rest.rsplit_once('*').unwrap_or(("", rest));
    let Some(inner) = text.strip_prefix(head).and_then(|text| text.strip_suffix(tail)) else { return false };
    middle.split('*').try_fold(inner, |text, piece| text.split_once(piece).map(|(_, after)| after)).is_some()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn matches(pattern: &str, name: &str) -> bool {
        RepositoryPattern::parse(pattern).unwrap().matches(&RepositoryName::parse(name).unwrap())
    }

    #[test]
    fn repository_patterns() {
        for (pattern, good, bad) in [
            (
                "payments/api",
                &["payments/api"][..],
                &["payments", "payments/api/x", "payments/apix", "payments/ap"][..],
            ),
            ("payments/**", &["payments/a", "payments/a/b/c"], &["payments", "paymentsx/a", "x/payments/a"]),
            ("**", &["a", "a/b/c"], &[]),
            ("*", &["a", "a-b"], &["a/b"]),
            ("*/api", &["a/api", "b/api"], &["api", "a/b/api", "a/apis"]),
            ("team-*/api*", &["team-a/api", "team-a/api-2"], &["team/api", "team-a/ap", "team-a/api/x"]),
            ("a*b*c", &["abc", "axbxc", "abbcc"], &["ab", "acb", "abcd", "a/b/c"]),
            ("*/**", &["a/b", "a/b/c"], &["a"]),
        ] {
            for name in good {
                assert!(matches(pattern, name), "{pattern} {name}");
            }
            for name in bad {
                assert!(!matches(pattern, name), "{pattern} {name}");
            }
        }
        for bad in [
            "",
            "/",
            "a/",
            "/a",
            "a//*",
            "A/*",
            "**/a",
            "a/**/b",
            "a**",
            "a/b**",
            "***",
            "a/b c*",
            "a/?*",
            &"a*".repeat(128),
        ] {
            assert!(RepositoryPattern::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn tag_patterns() {
        for (pattern, good, bad) in [
            ("latest", &["latest"][..], &["latest2", "Latest"][..]),
            ("v1.*", &["v1.", "v1.0", "v1.0.1"], &["v1", "v10", "xv1.0"]),
            ("*", &["a"], &[]),
            ("*-rc*", &["1-rc", "1-rc2"], &["1", "rc2"]),
            ("**", &["a"], &[]),
            ("a*a", &["aa", "aba"], &["a"]),
        ] {
            let parsed = TagPattern::parse(pattern).unwrap();
            for (tags, expected) in [(good, true), (bad, false)] {
                for tag in tags {
                    assert_eq!(parsed.matches(&Tag::parse(tag).unwrap()), expected, "{pattern} {tag}");
                }
            }
        }
        for bad in ["", ".a", "-a", "a/b", "a:b", "ä*", &"*".repeat(129)] {
            assert!(TagPattern::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn ranges_are_narrow() {
        for (pattern, start, end) in [
            ("a/b", "a/b", Some("a/b ")),
            ("a/**", "a/", Some("a0")),
            ("a/b*", "a/b", Some("a/c")),
            ("**", "", None),
            ("*/a", "", None),
        ] {
            let range = NameRange { start: start.to_owned(), end: end.map(str::to_owned) };
            assert_eq!(RepositoryPattern::parse(pattern).unwrap().range(), range);
        }
    }

    /// The definition, in its slowest form.
    fn slow_glob(pattern: &[u8], text: &[u8]) -> bool {
        match (pattern.split_first(), text.split_first()) {
            (None, None) => true,
            (Some((b'*', rest)), _) => slow_glob(rest, text) || (!text.is_empty() && slow_glob(pattern, &text[1..])),
            (Some((p, rest)), Some((t, after))) => p == t && slow_glob(rest, after),
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn glob_is_its_definition(pattern in "[ab*]{0,10}", text in "[ab]{0,10}") {
            prop_assert_eq!(glob_matches(&pattern, &text), slow_glob(pattern.as_bytes(), text.as_bytes()));
        }

        #[test]
        fn parsing_never_panics_and_ranges_hold_all_matches(text in "[a-c*/-]{0,12}", name in "[a-c/-]{1,8}") {
            let _ = TagPattern::parse(&text);
            if let (Ok(pattern), Ok(name)) = (RepositoryPattern::parse(&text), RepositoryName::parse(&name)) {
                prop_assert_eq!(pattern.as_str(), &text);
                prop_assert!(!pattern.matches(&name) || pattern.range().contains(name.as_str()));
            }
        }
    }

    #[test]
    fn i08_patterns_take_linear_time() {
        let tag = Tag::parse(&"a".repeat(128)).unwrap();
        let pattern = TagPattern::parse(&format!("{}b", "a*".repeat(63))).unwrap();
        for _ in 0..10_000 {
            assert!(!pattern.matches(&tag));
        }
    }
}
