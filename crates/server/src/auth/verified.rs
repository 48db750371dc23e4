//! Names and secrets that were found right a moment ago. It holds who that was, never what they may do.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use aws_lc_rs::hmac;
use oci::Timestamp;
use policy::SubjectId;

const LIFE: Duration = Duration::from_secs(60);
const ROWS: usize = 4096;

/// The cache. Its keys are MACs under a key of this process, so that memory holds neither secrets nor plain hashes of them.
pub struct Verified {
    key: hmac::Key,
    rows: Mutex<HashMap<[u8; 32], Row>>,
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
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, &secret), rows: Mutex::new(HashMap::new()) }
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
    use std::sync::Arc;

    use super::*;

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
