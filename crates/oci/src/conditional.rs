//! Conditional requests. The entity tag of everything that has a digest is that digest in quotes.

use crate::Digest;

/// The value of `ETag`: `"<digest>"`, a strong one.
pub fn etag(digest: &Digest) -> String {
    format!("\"{digest}\"")
}

/// Whether one of the values of `If-None-Match` names this digest, so that the answer is 304.
///
/// Takes `*`, lists, weak tags (the comparison is weak, RFC 9110 section 13.1.2) and, as clients send it, a digest
/// without quotes (Q54). `values` are the header lines.
pub fn none_match<'a>(values: impl IntoIterator<Item = &'a str>, digest: &Digest) -> bool {
    values.into_iter().flat_map(|value| value.split(',')).map(|tag| tag.trim_matches(BLANK)).any(|tag| {
        let tag = tag.strip_prefix("W/").unwrap_or(tag);
        tag == "*" || opaque(tag) == digest.as_str()
    })
}

/// Whether a `Range` header counts, given the value of `If-Range`: when it is this digest's tag. The comparison is
/// strong and dates are never equal, since none is sent (RFC 9110 section 13.1.5).
pub fn range_applies(if_range: Option<&str>, digest: &Digest) -> bool {
    if_range.is_none_or(|value| opaque(value.trim_matches(BLANK)) == digest.as_str())
}

/// What a request asks of the present state of what it is about to change: `If-Match` and `If-None-Match`, as they came.
/// It is judged where the change is made, so that of several that found the same state only one succeeds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Precondition {
    /// The header lines of `If-Match`: one of these must be there. None: no such header.
    pub if_match: Option<Vec<String>>,
    /// The header lines of `If-None-Match`: none of these may be there; `*` is anything at all. None: no such header.
    pub if_none_match: Option<Vec<String>>,
}

impl Precondition {
    /// Whether it holds where `current` is there now.
    pub fn holds(&self, current: Option<&Digest>) -> bool {
        let names =
            |lines: &[String]| current.is_some_and(|digest| none_match(lines.iter().map(String::as_str), digest));
        self.if_match.as_deref().is_none_or(names) && !self.if_none_match.as_deref().is_some_and(names)
    }
}

const BLANK: [char; 2] = [' ', '\t'];

fn opaque(tag: &str) -> &str {
    tag.strip_prefix('"').and_then(|tag| tag.strip_suffix('"')).unwrap_or(tag)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{Algorithm, Hasher};

    #[test]
    fn q54_entity_tags() {
        let digest = Hasher::digest(Algorithm::Sha256, b"a");
        let other = Hasher::digest(Algorithm::Sha256, b"b");
        let tag = etag(&digest);
        assert_eq!(tag, format!("\"{digest}\""));
        for (value, matches) in [
            (tag.clone(), true),
            (digest.to_string(), true),
            (format!("W/{tag}"), true),
            ("*".to_owned(), true),
            (format!("{}, {tag}", etag(&other)), true),
            (format!(" {tag} ,"), true),
            (etag(&other), false),
            (String::new(), false),
            (format!("\"{digest}"), false),
            ("\"*\"".to_owned(), false),
            (digest.hex().to_owned(), false),
        ] {
            assert_eq!(none_match([value.as_str()], &digest), matches, "{value}");
        }
        assert!(none_match([etag(&other).as_str(), tag.as_str()], &digest));
        assert!(!none_match([], &digest));
    }

    #[test]
    fn preconditions() {
        let (digest, other) = (Hasher::digest(Algorithm::Sha256, b"a"), Hasher::digest(Algorithm::Sha256, b"b"));
        let lines = |value: String| Some(vec![value]);
        for (if_match, if_none_match, nothing, same, another) in [
            (None, None, true, true, true),
            (lines(etag(&digest)), None, false, true, false),
            (lines("*".to_owned()), None, false, true, true),
            (None, lines("*".to_owned()), true, false, false),
            (None, lines(etag(&digest)), true, false, true),
            (lines("*".to_owned()), lines(etag(&other)), false, true, false),
            (Some(vec![]), None, false, false, false),
        ] {
            let condition = Precondition { if_match, if_none_match };
            let found = [None, Some(&digest), Some(&other)].map(|current| condition.holds(current));
            assert_eq!(found, [nothing, same, another], "{condition:?}");
        }
    }

    #[test]
    fn q69_if_range() {
        let digest = Hasher::digest(Algorithm::Sha256, b"a");
        let tag = etag(&digest);
        for (value, applies) in [
            (None, true),
            (Some(tag.clone()), true),
            (Some(digest.to_string()), true),
            (Some(format!("W/{tag}")), false),
            (Some("*".to_owned()), false),
            (Some("Tue, 24 Nov 2026 10:00:00 GMT".to_owned()), false),
        ] {
            assert_eq!(range_applies(value.as_deref(), &digest), applies, "{value:?}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(value in "[\"W/*, a-f0-9:]{0,80}") {
            let digest = Hasher::digest(Algorithm::Sha512, b"a");
            none_match([value.as_str()], &digest);
            range_applies(Some(&value), &digest);
        }
    }
}
