//! What a manifest is asked for by.

use std::fmt;

use crate::error::Error;
use crate::{Digest, Tag};

/// A tag or a digest. Text with a `:` is a digest, everything else a tag (the specification, "Pulling manifests").
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Reference {
    /// By tag.
    Tag(Tag),
    /// By digest.
    Digest(Digest),
}

impl Reference {
    /// Parses a reference; `DIGEST_INVALID` or `TAG_INVALID` when it is neither.
    pub fn parse(text: &str) -> Result<Self, Error> {
        if text.contains(':') { Digest::parse(text).map(Self::Digest) } else { Tag::parse(text).map(Self::Tag) }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tag(tag) => fmt::Display::fmt(tag, f),
            Self::Digest(digest) => fmt::Display::fmt(digest, f),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ErrorCode;

    #[test]
    fn a_colon_makes_a_digest() {
        let digest = format!("sha256:{}", "0".repeat(64));
        assert!(matches!(Reference::parse(&digest), Ok(Reference::Digest(_))));
        assert!(matches!(Reference::parse("latest"), Ok(Reference::Tag(_))));
        assert_eq!(Reference::parse("sha256:baddigeststring").unwrap_err().code, ErrorCode::DigestInvalid);
        assert_eq!(Reference::parse("a:b").unwrap_err().code, ErrorCode::DigestInvalid);
        assert_eq!(Reference::parse("").unwrap_err().code, ErrorCode::TagInvalid);
    }

    proptest! {
        #[test]
        fn round_trips(text in "[a-z0-9:._-]{0,80}|sha256:[0-9a-f]{64}") {
            if let Ok(reference) = Reference::parse(&text) {
                prop_assert_eq!(reference.to_string(), text);
            }
        }
    }
}
