//! Names and secrets that were found right a moment ago. It holds who that was, never what they may do.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use aws_lc_rs::hmac;
use oci::Timestamp;
use policy::SubjectId;
use tokio::sync::OwnedMutexGuard;

const LIFE: Duration = Duration::from_secs(60);
const ROWS: usize = 4096;
/// From so many pairs on, those that nobody checks any more are looked for.
const PAIRS: usize = 256;

type Pair = tokio::sync::Mutex<()>;

/// The cache. Its keys are MACs under a key of this process, so that memory holds neither secrets nor plain hashes of them.
pub struct Verified {
    key: hmac::Key,
    rows: Mutex<HashMap<[u8; 32], Row>>,
    /// The pairs that are being checked: as many as requests that check one, and a bounded number of dead ones.
    pairs: Mutex<HashMap<[u8; 32], Weak<Pair>>>,
}

struct Row {
    known: Known,
    until: Instant,
}

/// Whose credentials they were.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    /// The subject.
    pub id: SubjectId,
    /// Its credential epoch then. The caller must see that it still is the same.
    pub epoch: i64,
    /// From when on the secret opens nothing.
    pub expires_at: Option<Timestamp>,
}

impl Verified {
    /// An empty one.
    pub fn new(random: &oci::Random) -> Self {
        let mut secret = [0; 32];
        random(&mut secret);
        let key = hmac::Key::new(hmac::HMAC_SHA256, &secret);
        Self { key, rows: Mutex::new(HashMap::new()), pairs: Mutex::new(HashMap::new()) }
    }

    /// Waits until nobody else checks this pair, and keeps others from it until the guard is dropped: a client that sends a
    /// hundred requests at a time costs one hash, and does not fill the queue for hashes.
    pub async fn alone(&self, name: &str, secret: &str) -> OwnedMutexGuard<()> {
        let pair = {
            let mut pairs = self.pairs.lock().unwrap_or_else(PoisonError::into_inner);
            if pairs.len() >= PAIRS {
                pairs.retain(|_, pair| pair.strong_count() > 0);
            }
            let place = pairs.entry(self.mac(name, secret)).or_default();
            place.upgrade().unwrap_or_else(|| {
                let pair = Arc::new(Pair::default());
                *place = Arc::downgrade(&pair);
                pair
            })
        };
        pair.lock_owned().await
    }

    /// Whose credentials these were within the last minute.
    pub fn get(&self, name: &str, secret: &str, now: Instant) -> Option<Known> {
        let rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        rows.get(&self.mac(name, secret)).filter(|row| row.until > now).map(|row| row.known)
    }

    /// Remembers credentials.
    pub fn insert(&self, name: &str, secret: &str, known: Known, now: Instant) {
        let mac = self.mac(name, secret);
        let mut rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        if rows.len() >= ROWS {
            rows.retain(|_, row| row.until > now);
        }
        if rows.len() >= ROWS {
            rows.clear();
        }
        rows.insert(mac, Row { known, until: now + LIFE });
    }

    fn mac(&self, name: &str, secret: &str) -> [u8; 32] {
        let mut context = hmac::Context::with_key(&self.key);
        context.update(&(name.len() as u64).to_be_bytes());
        context.update(name.as_bytes());
        context.update(secret.as_bytes());
        let mut mac = [0; 32];
        mac.copy_from_slice(context.sign().as_ref());
        mac
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_pair_is_checked_by_one_at_a_time() {
        let random: oci::Random = Arc::new(|bytes: &mut [u8]| bytes.fill(1));
        let cache = Verified::new(&random);
        let first = cache.alone("a", "b").await;
        let _other = cache.alone("a", "c").await;
        let soon = Duration::from_millis(20);
        assert!(tokio::time::timeout(soon, cache.alone("a", "b")).await.is_err());
        drop(first);
        assert!(tokio::time::timeout(soon, cache.alone("a", "b")).await.is_ok());
        for i in 0..PAIRS * 3 {
            drop(cache.alone("a", &i.to_string()).await);
        }
        assert!(cache.pairs.lock().unwrap().len() <= PAIRS);
    }

    #[test]
    fn remembers_for_a_minute_and_stays_bounded() {
        let random: oci::Random = Arc::new(|bytes: &mut [u8]| bytes.fill(1));
        let (cache, now) = (Verified::new(&random), Instant::now());
        let known = Known { id: SubjectId(1), epoch: 5, expires_at: None };
        cache.insert("ab", "c", known, now);
        assert_eq!(cache.get("ab", "c", now), Some(known));
        assert_eq!(cache.get("a", "bc", now), None);
        assert_eq!(cache.get("ab", "d", now), None);
        assert_eq!(cache.get("ab", "c", now + LIFE), None);
        for i in 0..ROWS * 2 {
            cache.insert("ab", &i.to_string(), known, now);
        }
        assert!(cache.rows.lock().unwrap().len() <= ROWS);
    }
}
