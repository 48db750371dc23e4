//! Trouble with disk and database: counted at each request that it costs, told in the log once a minute with its cause.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::logs::chain;
use crate::metrics::{Metrics, StorageFailure};

/// How long one kind of trouble is not told again.
const QUIET: Duration = Duration::from_secs(60);

/// What was told when. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Trouble(Arc<Mutex<[Option<Instant>; 3]>>);

impl Trouble {
    /// Counts and tells a failure that comes from the disk or the database; others are none of it.
    pub fn note(&self, error: &registry::Error, request_id: &str, metrics: &Metrics) {
        use registry::Error;
        let (kind, cause) = match error {
            Error::Full(cause) => (StorageFailure::Full, cause),
            Error::ReadOnly(cause) => (StorageFailure::ReadOnly, cause),
            Error::Unsure(cause) | Error::Unavailable { source: Some(cause), .. } => {
                (StorageFailure::Unavailable, cause)
            }
            _ => return,
        };
        metrics.storage_failure(kind);
        if self.is_news(kind, Instant::now()) {
            let message = match kind {
                StorageFailure::Full => "the disk is full: pushes are refused",
                StorageFailure::ReadOnly => "nothing can be written: changes are refused",
                StorageFailure::Unavailable => "disk or database fails: requests that need it are refused",
            };
            tracing::warn!(request_id, error = chain(cause.as_ref()), "{message}");
        }
    }

    fn is_news(&self, kind: StorageFailure, now: Instant) -> bool {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(last) = told.get_mut(kind as usize) else { return false };
        let news = last.is_none_or(|last| now.saturating_duration_since(last) >= QUIET);
        if news {
            *last = Some(now);
        }
        news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_is_told_once_a_minute_and_counted_each_time() {
        let (trouble, now) = (Trouble::default(), Instant::now());
        assert!(trouble.is_news(StorageFailure::Full, now) && trouble.is_news(StorageFailure::Unavailable, now));
        assert!(!trouble.is_news(StorageFailure::Full, now + QUIET / 2));
        assert!(trouble.is_news(StorageFailure::Full, now + QUIET));
        let metrics = Metrics::new();
        let full = registry::Error::Full("no space".into());
        (0..3).for_each(|_| trouble.note(&full, "r", &metrics));
        trouble.note(&registry::Error::Unavailable { retry_after_s: 1, source: None }, "r", &metrics);
        let text = metrics.text();
        assert!(text.contains("portcullis_storage_failures_total{kind=\"full\"} 3"), "{text}");
        assert!(!text.contains("kind=\"unavailable\""), "busy is no trouble of the disk: {text}");
    }
}
