//! Password hashes: argon2id with the crate's defaults (19 MiB, two passes), two at a time, behind a bounded queue.
//!
//! The memory of the hashes is kept and used again. An allocator may keep what was freed for the thread that freed it, and
//! hashes run on any of hundreds of threads.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use argon2::password_hash::phc::{Output, ParamsString, PasswordHash, Salt};
use argon2::{Algorithm, Argon2, Block, Params, Version};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Each hash takes 19 MiB and some 20 ms of one processor.
const AT_ONCE: usize = 2;
/// Who comes when this many wait is turned away.
const QUEUE: usize = 64;
/// Who has waited this long is turned away.
pub const PATIENCE: Duration = Duration::from_secs(10);
const SALT_LENGTH: usize = 16;

/// All hashing of passwords of one server.
pub struct Hashing {
    permits: Arc<Semaphore>,
    memory: Arc<Mutex<Vec<Memory>>>,
    waiting: AtomicUsize,
    random: oci::Random,
    /// What is verified against where there is no password, so that it takes the same time.
    decoy: String,
}

/// What one hash is computed in. It is not cleared between two: the first pass writes all of it before any is read, and
/// what is left is no closer to the password than the hash is.
type Memory = Vec<Block>;

/// The right to one hash, and the memory for it, which goes back when it is dropped.
pub struct Turn {
    memory: Memory,
    home: Arc<Mutex<Vec<Memory>>>,
    /// Given back after the memory: fields are dropped after `drop` has run.
    _permit: OwnedSemaphorePermit,
}

impl Drop for Turn {
    fn drop(&mut self) {
        let memory = std::mem::take(&mut self.memory);
        self.home.lock().unwrap_or_else(PoisonError::into_inner).push(memory);
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum HashError {
    /// The queue is full, or the wait was too long.
    #[error("too many passwords are being checked")]
    Busy,
    /// The library refused, or its thread died.
    #[error("hashing a password: {0}")]
    Failed(String),
}

impl Hashing {
    /// Ready to hash; makes one hash itself.
    pub fn new(random: oci::Random) -> Self {
        let mut memory = Memory::new();
        let decoy = hash_with(&mut memory, "", [0; SALT_LENGTH]).unwrap_or_default();
        let memory = Arc::new(Mutex::new(vec![memory]));
        Self { permits: Arc::new(Semaphore::new(AT_ONCE)), memory, waiting: AtomicUsize::new(0), random, decoy }
    }

    /// The PHC string for a new password.
    pub async fn hash(&self, password: &str) -> Result<String, HashError> {
        let turn = self.enter().await?;
        let mut salt = [0; SALT_LENGTH];
        (self.random)(&mut salt);
        let password = password.to_owned();
        blocking(turn, move |memory| hash_with(memory, &password, salt)).await?
    }

    /// Waits for a turn. Whoever holds it may call [`Hashing::verify`] once.
    pub async fn enter(&self) -> Result<Turn, HashError> {
        if self.waiting.fetch_add(1, Ordering::Relaxed) >= QUEUE {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            return Err(HashError::Busy);
        }
        let _leave = Leave(&self.waiting);
        match tokio::time::timeout(PATIENCE, self.permits.clone().acquire_owned()).await {
            Ok(Ok(permit)) => {
                // Whoever holds a permit holds a memory, so there are never more than permits.
                let memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default();
                Ok(Turn { memory, home: self.memory.clone(), _permit: permit })
            }
            Ok(Err(_)) | Err(_) => Err(HashError::Busy),
        }
    }

    /// Whether `password` is the one that `hash` was made from. Without a hash the answer is no, after the same time.
    pub async fn verify(&self, turn: Turn, password: &str, hash: Option<String>) -> Result<bool, HashError> {
        let password = password.to_owned();
        let real = hash.is_some();
        let hash = hash.unwrap_or_else(|| self.decoy.clone());
        let same = blocking(turn, move |memory| verify_with(memory, &password, &hash).unwrap_or(false)).await?;
        Ok(real && same)
    }
}

struct Leave<'a>(&'a AtomicUsize);

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The turn moves into the thread: a client that goes away does not make room for a third hash.
async fn blocking<T: Send + 'static>(
    mut turn: Turn,
    work: impl FnOnce(&mut Memory) -> T + Send + 'static,
) -> Result<T, HashError> {
    tokio::task::spawn_blocking(move || work(&mut turn.memory))
        .await
        .map_err(|error| HashError::Failed(error.to_string()))
}

fn hash_with(memory: &mut Memory, password: &str, salt: [u8; SALT_LENGTH]) -> Result<String, HashError> {
    let failed = |error: &dyn std::fmt::Display| HashError::Failed(error.to_string());
    let argon2 = Argon2::default();
    let hash = compute(memory, &argon2, password, &salt, Params::DEFAULT_OUTPUT_LEN).map_err(|error| failed(&error))?;
    let hash = PasswordHash {
        algorithm: Algorithm::default().ident(),
        version: Some(Version::default().into()),
        params: ParamsString::try_from(argon2.params()).map_err(|error| failed(&error))?,
        salt: Some(Salt::new(&salt).map_err(|error| failed(&error))?),
        hash: Some(hash),
    };
    Ok(hash.to_string())
}

/// `None` for what is no hash of ours.
fn verify_with(memory: &mut Memory, password: &str, hash: &str) -> Option<bool> {
    let hash = PasswordHash::new(hash).ok()?;
    let (salt, expected) = (hash.salt?, hash.hash?);
    let algorithm = Algorithm::try_from(hash.algorithm.as_str()).ok()?;
    let version = hash.version.map_or(Ok(Version::default()), Version::try_from).ok()?;
    let argon2 = Argon2::new(algorithm, version, Params::try_from(&hash).ok()?);
    let actual = compute(memory, &argon2, password, &salt, expected.len()).ok()?;
    // `Output` compares in constant time.
    Some(actual == expected)
}

fn compute(
    memory: &mut Memory,
    argon2: &Argon2<'_>,
    password: &str,
    salt: &[u8],
    length: usize,
) -> Result<Output, Box<dyn std::error::Error + Send + Sync>> {
    // Once: all hashes are made with the same parameters.
    let blocks = argon2.params().block_count();
    if memory.len() < blocks {
        memory.resize(blocks, Block::new());
    }
    let mut hash = [0; Output::MAX_LENGTH];
    let hash = hash.get_mut(..length).ok_or("the hash is too long")?;
    argon2.hash_password_into_with_memory(password.as_bytes(), salt, hash, &mut memory[..blocks])?;
    Ok(Output::new(hash)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hashing() -> Hashing {
        Hashing::new(Arc::new(|bytes: &mut [u8]| bytes.fill(7)))
    }

    async fn check(hashing: &Hashing, password: &str, hash: Option<&str>) -> bool {
        let turn = hashing.enter().await.unwrap();
        hashing.verify(turn, password, hash.map(str::to_owned)).await.unwrap()
    }

    #[tokio::test]
    async fn every_byte_counts() {
        let hashing = hashing();
        let long = "x".repeat(100);
        let hash = hashing.hash(&long).await.unwrap();
        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
        assert!(check(&hashing, &long, Some(&hash)).await);
        assert!(!check(&hashing, &long[..72], Some(&hash)).await);
        assert!(!check(&hashing, &format!("{long}x"), Some(&hash)).await);
        assert!(!check(&hashing, "", None).await, "the decoy is nobody's password");
        assert!(!check(&hashing, "x", Some("not a hash")).await);
    }

    #[tokio::test]
    async fn the_memory_is_used_again() {
        let hashing = hashing();
        let hash = hashing.hash("x").await.unwrap();
        for round in 0..3 {
            let turns = [hashing.enter().await.unwrap(), hashing.enter().await.unwrap()];
            assert!(hashing.memory.lock().unwrap().is_empty());
            for turn in turns {
                assert!(hashing.verify(turn, "x", Some(hash.clone())).await.unwrap());
            }
            let memory = hashing.memory.lock().unwrap();
            assert_eq!(memory.len(), AT_ONCE, "round {round}");
            assert!(memory.iter().all(|memory| memory.len() == Params::default().block_count()));
        }
    }

    #[tokio::test]
    async fn hashes_are_those_of_the_library() {
        use argon2::password_hash::{PasswordHasher, PasswordVerifier};
        let ours = hashing().hash("a password").await.unwrap();
        let theirs = Argon2::default().hash_password_with_salt(b"a password", &[7; SALT_LENGTH]).unwrap();
        assert_eq!(ours, theirs.to_string());
        assert!(Argon2::default().verify_password(b"a password", &theirs).is_ok());
        // Other parameters, after and before the default ones.
        let small = Argon2::from(Params::new(64, 1, 1, None).unwrap());
        let small = small.hash_password_with_salt(b"a password", &[7; SALT_LENGTH]).unwrap().to_string();
        let hashing = hashing();
        for hash in [&small, &ours, &small] {
            assert!(check(&hashing, "a password", Some(hash)).await);
            assert!(!check(&hashing, "another password", Some(hash)).await);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn two_at_a_time_and_a_bounded_queue() {
        let hashing = Arc::new(hashing());
        let held = [hashing.enter().await.unwrap(), hashing.enter().await.unwrap()];
        let mut waiting = Vec::new();
        for _ in 0..QUEUE {
            let hashing = hashing.clone();
            waiting.push(tokio::spawn(async move { hashing.enter().await.map(drop) }));
        }
        tokio::task::yield_now().await;
        assert!(matches!(hashing.enter().await, Err(HashError::Busy)), "the queue is full");
        tokio::time::advance(PATIENCE + Duration::from_secs(1)).await;
        for one in waiting {
            assert!(matches!(one.await.unwrap(), Err(HashError::Busy)), "waited too long");
        }
        drop(held);
        assert!(hashing.enter().await.is_ok());
    }
}
