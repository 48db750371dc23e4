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
