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
