//! Password hashes: argon2id with the crate's defaults (19 MiB, two passes), two at a time, behind a bounded queue.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use argon2::Argon2;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Each hash takes 19 MiB and some 20 ms of one processor.
const AT_ONCE: usize = 2;
/// Who comes when this many wait is turned away.
const QUEUE: usize = 64;
/// Who has waited this long is turned away.
const PATIENCE: Duration = Duration::from_secs(10);
const SALT_LENGTH: usize = 16;

/// All hashing of passwords of one server.
pub struct Hashing {
    permits: Arc<Semaphore>,
    waiting: AtomicUsize,
    random: oci::Random,
    /// What is verified against where there is no password, so that it takes the same time.
    decoy: String,
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
        let decoy = hash_with("", [0; SALT_LENGTH]).unwrap_or_default();
        Self { permits: Arc::new(Semaphore::new(AT_ONCE)), waiting: AtomicUsize::new(0), random, decoy }
    }

    /// The PHC string for a new password.
    pub async fn hash(&self, password: &str) -> Result<String, HashError> {
        let permit = self.enter().await?;
        let mut salt = [0; SALT_LENGTH];
        (self.random)(&mut salt);
        let password = password.to_owned();
        blocking(permit, move || hash_with(&password, salt)).await?
    }

    /// Waits for a turn. Whoever holds it may call [`Hashing::verify`] once.
    pub async fn enter(&self) -> Result<OwnedSemaphorePermit, HashError> {
        if self.waiting.fetch_add(1, Ordering::Relaxed) >= QUEUE {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            return Err(HashError::Busy);
        }
        let _leave = Leave(&self.waiting);
        match tokio::time::timeout(PATIENCE, self.permits.clone().acquire_owned()).await {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_)) | Err(_) => Err(HashError::Busy),
        }
    }

    /// Whether `password` is the one that `hash` was made from. Without a hash the answer is no, after the same time.
    pub async fn verify(
        &self,
        turn: OwnedSemaphorePermit,
        password: &str,
        hash: Option<String>,
    ) -> Result<bool, HashError> {
        let password = password.to_owned();
        let real = hash.is_some();
        let hash = hash.unwrap_or_else(|| self.decoy.clone());
        let same = blocking(turn, move || match PasswordHash::new(&hash) {
            Ok(hash) => Argon2::default().verify_password(password.as_bytes(), &hash).is_ok(),
            Err(_) => false,
        })
        .await?;
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
    turn: OwnedSemaphorePermit,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, HashError> {
    tokio::task::spawn_blocking(move || {
        let result = work();
        drop(turn);
        result
    })
    .await
    .map_err(|error| HashError::Failed(error.to_string()))
}

fn hash_with(password: &str, salt: [u8; SALT_LENGTH]) -> Result<String, HashError> {
    Argon2::default()
        .hash_password_with_salt(password.as_bytes(), &salt)
        .map(|hash| hash.to_string())
        .map_err(|error| HashError::Failed(error.to_string()))
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
