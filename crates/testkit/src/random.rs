//! Randomness that a printed seed brings back.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{self, Read};

/// A small generator (SplitMix64). Not for secrets.
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    /// The generator of this seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A generator whose seed is `PORTCULLIS_SEED` or else fresh; prints the seed, so that a failure can be repeated.
    pub fn announced(what: &str) -> Self {
        let seed = std::env::var("PORTCULLIS_SEED")
            .ok()
            .and_then(|text| text.parse().ok())
            .unwrap_or_else(|| RandomState::new().build_hasher().finish());
        eprintln!("{what}: seed {seed} (PORTCULLIS_SEED={seed} repeats it)");
        Self(seed)
    }

    /// The next 64 bits.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `limit`, which must not be 0.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.number() % limit
    }

    /// True in `percent` of 100 calls.
    pub fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// One of `items`; `None` when there are none.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> Option<&'a T> {
        let index = usize::try_from(self.below(items.len().max(1) as u64)).unwrap_or(0);
        items.get(index)
    }

    /// This many bytes that do not compress.
    pub fn bytes(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(length + 8);
        while bytes.len() < length {
            bytes.extend_from_slice(&self.number().to_le_bytes());
        }
        bytes.truncate(length);
        bytes
    }

    /// A generator of its own for another thread.
    pub fn fork(&mut self) -> Self {
        Self(self.number())
    }
}

/// Any number of bytes that do not compress, made while reading: one random block, stamped with its number each time.
#[derive(Clone, Debug)]
pub struct Noise {
    block: Vec<u8>,
    position: u64,
    length: u64,
}

impl Noise {
    /// `length` bytes, the same for the same seed.
    pub fn new(seed: u64, length: u64) -> Self {
        Self { block: Rng::new(seed).bytes(1 << 20), position: 0, length }
    }
}

impl Read for Noise {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let size = self.block.len() as u64;
        let (number, within) = (self.position / size, usize::try_from(self.position % size).map_err(io::Error::other)?);
        if within == 0 {
            self.block[..8].copy_from_slice(&number.to_le_bytes());
        }
        let left = usize::try_from(self.length - self.position).unwrap_or(usize::MAX);
        let count = buffer.len().min(self.block.len() - within).min(left);
        buffer[..count].copy_from_slice(&self.block[within..within + count]);
        self.position += count as u64;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_is_the_same_however_it_is_read() {
        let mut whole = Vec::new();
        Noise::new(7, (2 << 20) + 5).read_to_end(&mut whole).unwrap();
        assert_eq!(whole.len(), (2 << 20) + 5);
        assert_ne!(whole[..8], whole[1 << 20..][..8], "each block has its own stamp");
        let mut pieces = Vec::new();
        let mut noise = Noise::new(7, (2 << 20) + 5);
        let mut buffer = [0; 70_001];
        loop {
            match noise.read(&mut buffer).unwrap() {
                0 => break,
                count => pieces.extend_from_slice(&buffer[..count]),
            }
        }
        assert!(whole == pieces);
    }

    #[test]
    fn a_seed_repeats() {
        assert_eq!(Rng::new(1).bytes(100), Rng::new(1).bytes(100));
        assert_ne!(Rng::new(1).bytes(100), Rng::new(2).bytes(100));
    }
}
