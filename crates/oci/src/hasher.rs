//! Hashing whose state can be stored, so that an upload goes on after a restart without reading again what came before.

use std::ops::Range;

use sha2::digest::common::hazmat::SerializableState;
use sha2::{Digest as _, Sha256, Sha512};

use crate::{Algorithm, Digest};

/// A running hash. Its state can be exported and resumed at any offset.
#[derive(Clone)]
pub enum Hasher {
    /// SHA-256.
    Sha256(Sha256),
    /// SHA-512.
    Sha512(Sha512),
}

/// Version of the exported form: `version, algorithm, state`. The state's layout is promised by `sha2` only within a
/// major version, so a change of that version must change this one.
const STATE_VERSION: u8 = 1;

impl Hasher {
    /// A hash of nothing yet.
    pub fn new(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::Sha256 => Self::Sha256(Sha256::new()),
            Algorithm::Sha512 => Self::Sha512(Sha512::new()),
        }
    }

    /// The digest of `bytes`.
    pub fn digest(algorithm: Algorithm, bytes: &[u8]) -> Digest {
        let mut hasher = Self::new(algorithm);
        hasher.update(bytes);
        hasher.finish()
    }

    /// Takes in more bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hash) => hash.update(bytes),
            Self::Sha512(hash) => hash.update(bytes),
        }
    }

    /// The algorithm.
    pub fn algorithm(&self) -> Algorithm {
        match self {
            Self::Sha256(_) => Algorithm::Sha256,
            Self::Sha512(_) => Algorithm::Sha512,
        }
    }

    /// The digest of everything taken in.
    pub fn finish(self) -> Digest {
        match self {
            Self::Sha256(hash) => Digest::from_hash(Algorithm::Sha256, &hash.finalize()),
            Self::Sha512(hash) => Digest::from_hash(Algorithm::Sha512, &hash.finalize()),
        }
    }

    /// The state as bytes. It holds up to one block of the client's bytes: store it as data, never log it.
    pub fn export(&self) -> Vec<u8> {
        let (algorithm, state): (u8, Vec<u8>) = match self {
            Self::Sha256(hash) => (1, hash.serialize().to_vec()),
            Self::Sha512(hash) => (2, hash.serialize().to_vec()),
        };
        let mut bytes = vec![STATE_VERSION, algorithm];
        bytes.extend_from_slice(&state);
        bytes
    }

    /// Resumes from what [`Hasher::export`] gave; `None` when it is not that, or says that more bytes were taken in than
    /// a blob can have.
    pub fn resume(bytes: &[u8]) -> Option<Self> {
        let possible = |state: &[u8], count: Range<usize>, block: u128| {
            let blocks = state.get(count)?.iter().rev().fold(0_u128, |blocks, byte| blocks << 8 | u128::from(*byte));
            (blocks <= i64::MAX as u128 / block).then_some(())
        };
        match bytes.split_at_checked(2)? {
            // The chaining value, then the number of blocks, little-endian.
            ([STATE_VERSION, 1], state) => possible(state, 32..40, 64)?,
            ([STATE_VERSION, 2], state) => possible(state, 64..80, 128)?,
            _ => return None,
        }
        match bytes.split_at_checked(2)? {
            ([STATE_VERSION, 1], state) => Sha256::deserialize(state.try_into().ok()?).ok().map(Self::Sha256),
            ([STATE_VERSION, 2], state) => Sha512::deserialize(state.try_into().ok()?).ok().map(Self::Sha512),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn resuming_never_panics(mut state in proptest::collection::vec(any::<u8>(), 0..220), kind in 0..4_u8) {
            if let [version, algorithm, ..] = state.as_mut_slice() {
                (*version, *algorithm) = (STATE_VERSION, kind);
            }
            if let Some(mut hasher) = Hasher::resume(&state) {
                hasher.update(&[0; 300]);
                hasher.finish();
            }
        }
    }

    #[test]
    fn a_count_that_no_blob_can_have_is_no_state() {
        let bytes = [0; 1280];
        for (algorithm, count, block) in [(Algorithm::Sha256, 34..42, 64), (Algorithm::Sha512, 66..82, 128)] {
            let mut hasher = Hasher::new(algorithm);
            hasher.update(&bytes);
            let mut state = hasher.export();
            let mut blocks = vec![0; count.len()];
            blocks[0] = u8::try_from(bytes.len() / block).unwrap();
            assert_eq!(state[count.clone()], blocks, "where the count lies");
            state[count.end - 1] = 0x80;
            assert!(Hasher::resume(&state).is_none(), "{algorithm}");
        }
    }

    #[test]
    fn resumes_at_any_offset() {
        let bytes: Vec<u8> = (0..=255).cycle().take(1000).collect();
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            let whole = Hasher::digest(algorithm, &bytes);
            for cut in [0, 1, 63, 64, 65, 127, 128, 500, 1000] {
                let mut first = Hasher::new(algorithm);
                first.update(&bytes[..cut]);
                let mut second = Hasher::resume(&first.export()).unwrap();
                second.update(&bytes[cut..]);
                assert_eq!(second.finish(), whole);
            }
        }
        for bad in [&[][..], &[1], &[1, 1], &[2, 1, 0], &[1, 3, 0]] {
            assert!(Hasher::resume(bad).is_none());
        }
        assert_eq!(
            Hasher::digest(Algorithm::Sha256, b"{}").as_str(),
            "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
        );
    }
}
