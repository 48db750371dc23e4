//! What a change locks beside rows, so that its order against others is the same as on SQLite, which has one writer.
//!
//! Locks are held to the end of the transaction, and taken in this order, so that no two changes can wait for each other:
//!
//! 0. [`Lock::Store`]: shared by every change of a server that holds the store, exclusive for the server that takes it over.
//! 1. [`Lock::Policy`]: shared by a change that was decided by rules, exclusive for a change of subjects or grants. No
//!    revocation commits before a change that was decided without it.
//! 2. [`Lock::Repository`]: exclusive for what sets or deletes manifests, tags, links, or the repository; shared for what
//!    only adds blobs. So nothing is judged that another change is about to make untrue, and a repository that is deleted
//!    gets nothing more.
//! 3. [`Lock::Uploads`]: exclusive for a new session of an owner, which is counted.
//! 4. Rows: a session; links, in the order of their digests; blobs, in the order of their digests; manifests; bodies.
//!
//! Collection passes over rows that others have locked, so nobody waits for it with a lock that it wants.
//!
//! PostgreSQL's advisory locks are fair: who waits for an exclusive one is not overtaken by those that share, as it would be
//! by those that lock a row `FOR SHARE`. They are numbers; that two names have the same costs a wait at worst.

use oci::RepositoryName;
use sha2::{Digest, Sha256};

/// How a lock is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hold {
    Shared,
    Exclusive,
}

/// What is locked.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Lock<'a> {
    /// The right to serve the store.
    Store(Hold),
    /// Subjects and grants.
    Policy(Hold),
    /// A repository, by its name.
    Repository(&'a RepositoryName, Hold),
    /// The upload sessions of this owner.
    Uploads(i64),
    /// The schema.
    Schema,
}

impl Lock<'_> {
    /// The first key of those that are held by who writes events: key + `n` says that its events have ids above `n`.
    pub(crate) const EVENTS: i64 = class(6);

    pub(crate) fn is_shared(&self) -> bool {
        matches!(self, Self::Store(Hold::Shared) | Self::Policy(Hold::Shared) | Self::Repository(_, Hold::Shared))
    }

    /// PostgreSQL's number of the lock.
    pub(crate) fn key(&self) -> i64 {
        match self {
            Self::Policy(_) => class(1),
            Self::Repository(name, _) => class(2) | low(name.as_str().as_bytes()),
            Self::Uploads(owner) => class(3) | low(&owner.to_be_bytes()),
            Self::Schema => class(4),
            Self::Store(_) => class(5),
        }
    }
}

const fn class(number: i64) -> i64 {
    number << 56
}

fn low(bytes: &[u8]) -> i64 {
    let hash = Sha256::digest(bytes);
    hash.iter().take(7).fold(0, |number, byte| number << 8 | i64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_of_locks_have_no_key_in_common() {
        let name = RepositoryName::parse("team/app").unwrap();
        let locks = [
            Lock::Policy(Hold::Shared),
            Lock::Repository(&name, Hold::Exclusive),
            Lock::Uploads(i64::MIN),
            Lock::Schema,
            Lock::Store(Hold::Shared),
        ];
        for (number, lock) in (1..).zip(locks) {
            assert_eq!(lock.key() >> 56, number, "{lock:?}");
        }
        assert_eq!(Lock::Repository(&name, Hold::Shared).key(), Lock::Repository(&name, Hold::Exclusive).key());
        assert!(Lock::Policy(Hold::Shared).is_shared() && !Lock::Policy(Hold::Exclusive).is_shared());
    }
}
