//! What a grant allows: verbs, and the roles that bundle them.

use std::fmt;

use crate::Error;

/// One thing that a grant can allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Verb {
    /// Read manifests and blobs.
    Pull,
    /// List tags and referrers, and see the repository named in the catalog.
    List,
    /// Write blobs, and manifests by digest.
    Push,
    /// Point a new tag at a manifest.
    TagCreate,
    /// Point an existing tag elsewhere.
    TagMove,
    /// Remove a tag.
    TagDelete,
    /// Remove manifests and blobs.
    Delete,
}

impl Verb {
    /// All verbs, in the order in which they are listed.
    pub const ALL: [Self; 7] =
        [Self::Pull, Self::List, Self::Push, Self::TagCreate, Self::TagMove, Self::TagDelete, Self::Delete];

    /// Parses a verb's name.
    pub fn parse(text: &str) -> Result<Self, Error> {
        Self::ALL
            .into_iter()
            .find(|verb| verb.as_str() == text)
            .ok_or_else(|| Error::Verb { text: crate::excerpt(text) })
    }

    /// The name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pull => "pull",
            Self::List => "list",
            Self::Push => "push",
            Self::TagCreate => "tag-create",
            Self::TagMove => "tag-move",
            Self::TagDelete => "tag-delete",
            Self::Delete => "delete",
        }
    }

    /// The narrowest role that has it.
    pub fn role(self) -> Role {
        match self {
            Self::Pull | Self::List => Role::Reader,
            Self::Push | Self::TagCreate | Self::TagMove => Role::Writer,
            Self::TagDelete | Self::Delete => Role::Maintainer,
        }
    }
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A set of verbs.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Verbs(u8);

impl Verbs {
    /// No verb.
    pub const NONE: Self = Self(0);
    /// Every verb.
    pub const ALL: Self = Self::of(&Verb::ALL);
    /// What can be granted to `anonymous`.
    pub const READ: Self = Self::of(&[Verb::Pull, Verb::List]);

    /// The set of these.
    pub const fn of(verbs: &[Verb]) -> Self {
        let (mut bits, mut index) = (0, 0);
        while index < verbs.len() {
            bits |= 1 << verbs[index] as u8;
            index += 1;
        }
        Self(bits)
    }

    /// Parses a list with commas, as `push,tag-create`; not empty.
    pub fn parse(list: &str) -> Result<Self, Error> {
        list.split(',').try_fold(Self::NONE, |verbs, verb| Ok(verbs.union(Self::of(&[Verb::parse(verb.trim())?]))))
    }

    /// Whether `verb` is in it.
    pub const fn contains(self, verb: Verb) -> bool {
        self.0 & (1 << verb as u8) != 0
    }

    /// Whether every one of `other` is in it.
    pub const fn contains_all(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether it has none.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Those in either.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Those in both.
    #[must_use]
    pub const fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Its verbs, in the order of [`Verb::ALL`].
    pub fn iter(self) -> impl Iterator<Item = Verb> {
        Verb::ALL.into_iter().filter(move |verb| self.contains(*verb))
    }
}

/// The names joined with commas, as [`Verbs::parse`] reads them.
impl fmt::Display for Verbs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, verb) in self.iter().enumerate() {
            write!(f, "{}{verb}", if index == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

impl fmt::Debug for Verbs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

/// A named set of verbs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// `pull`, `list`.
    Reader,
    /// Reader and `push`, `tag-create`, `tag-move`.
    Writer,
    /// Writer and `tag-delete`, `delete`.
    Maintainer,
}

impl Role {
    /// All roles, the narrowest first.
    pub const ALL: [Self; 3] = [Self::Reader, Self::Writer, Self::Maintainer];

    /// Parses a role's name.
    pub fn parse(text: &str) -> Result<Self, Error> {
        Self::ALL
            .into_iter()
            .find(|role| role.as_str() == text)
            .ok_or_else(|| Error::Role { text: crate::excerpt(text) })
    }

    /// The name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Reader => "reader",
            Self::Writer => "writer",
            Self::Maintainer => "maintainer",
        }
    }

    /// What it allows.
    pub const fn verbs(self) -> Verbs {
        match self {
            Self::Reader => Verbs::READ,
            Self::Writer => Self::Reader.verbs().union(Verbs::of(&[Verb::Push, Verb::TagCreate, Verb::TagMove])),
            Self::Maintainer => Verbs::ALL,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn sets_round_trip(bits in 1..128_u8, text in "[a-z, -]{0,30}") {
            prop_assert_eq!(Verbs::parse(&Verbs(bits).to_string()), Ok(Verbs(bits)));
            let _ = Verbs::parse(&text);
        }
    }

    #[test]
    fn names_and_roles() {
        for verb in Verb::ALL {
            assert_eq!(Verb::parse(verb.as_str()), Ok(verb));
            let narrowest = Role::ALL.into_iter().find(|role| role.verbs().contains(verb));
            assert_eq!(Some(verb.role()), narrowest);
        }
        for role in Role::ALL {
            assert_eq!(Role::parse(role.as_str()), Ok(role));
            assert_eq!(Verbs::parse(&role.verbs().to_string()), Ok(role.verbs()));
        }
        assert_eq!(Role::Writer.verbs().to_string(), "pull,list,push,tag-create,tag-move");
        assert_eq!(Verbs::parse("push, tag-create"), Ok(Verbs::of(&[Verb::TagCreate, Verb::Push])));
        for bad in ["", "pull,", "PULL", "write", "*"] {
            assert!(Verbs::parse(bad).is_err(), "{bad}");
        }
        assert!(Role::parse("owner").is_err());
    }
}
