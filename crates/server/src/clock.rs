//! The real clock and the system's randomness: the only place that asks the system for either.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::rand::{SecureRandom as _, SystemRandom};
use oci::{Clock, Random, Timestamp};

/// The time of day of this machine.
pub fn system_clock() -> Clock {
    Arc::new(|| {
        #[allow(clippy::disallowed_methods, reason = "the one place that reads the wall clock")]
        let now = SystemTime::now();
        let milliseconds = match now.duration_since(UNIX_EPOCH) {
            Ok(since) => i64::try_from(since.as_millis()).unwrap_or(i64::MAX),
            Err(before) => i64::try_from(before.duration().as_millis()).map_or(i64::MIN, |ms| -ms),
        };
        Timestamp(milliseconds)
    })
}

/// The system's generator. A system that cannot give random bytes can make no secret either, and nothing here may go on
/// without them: the process ends.
pub fn system_random() -> Random {
    let system = SystemRandom::new();
    Arc::new(move |buffer| {
        if system.fill(buffer).is_err() {
            std::process::abort();
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_runs_in_this_century_and_random_bytes_differ() {
        assert!(system_clock()().0 > 1_700_000_000_000);
        let random = system_random();
        let (mut a, mut b) = ([0; 16], [0; 16]);
        random(&mut a);
        random(&mut b);
        assert_ne!(a, b);
    }
}
