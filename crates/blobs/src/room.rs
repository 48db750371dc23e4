//! Room that is kept free on the disk of a store.

use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::io::Errno;

use crate::Error;

/// A measurement counts for this long,
const GOOD_FOR: Duration = Duration::from_secs(1);
/// and for this many bytes written.
const MEASURE_AFTER: u64 = 8 << 20;
/// With less than this beyond what is kept, it is looked each time: others write to the disk too, the database among them.
const NEAR: u64 = 64 << 20;

/// How much is to stay free, and how much was free when it was last looked.
#[derive(Debug, Default)]
pub(crate) struct Room(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    keep: u64,
    measured: Option<Instant>,
    free: u64,
    written: u64,
}

impl Room {
    pub(crate) fn keep(&self, bytes: u64) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *state = State { keep: bytes, ..State::default() };
    }

    /// Whether there is much more than what is kept, as far as is known without looking.
    pub(crate) fn has_plenty(&self) -> bool {
        // Held while the disk is looked at.
        let Ok(state) = self.0.try_lock() else { return false };
        let recent = state.measured.is_some_and(|at| at.elapsed() < GOOD_FOR);
        let left = state.free.saturating_sub(state.written);
        state.keep == 0 || recent && left >= state.keep.saturating_add(NEAR)
    }

    /// Takes account of `bytes` that are about to be written, or refuses them. Measures now and then, and always before it
    /// refuses, so that space that was freed is used at once.
    pub(crate) fn take(
        &self,
        path: &Path,
        bytes: u64,
        measure: impl FnOnce() -> Result<u64, Error>,
    ) -> Result<(), Error> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.keep == 0 {
            return Ok(());
        }
        let left = |state: &State| state.free.saturating_sub(state.written.saturating_add(bytes));
        let recent = state.measured.is_some_and(|at| at.elapsed() < GOOD_FOR) && state.written < MEASURE_AFTER;
        if !recent || left(&state) < state.keep.saturating_add(NEAR) {
            state.free = measure()?;
            state.written = 0;
            state.measured = Some(Instant::now());
        }
        if left(&state) < state.keep {
            return Err(Error::io("write", path, Errno::NOSPC.into()));
        }
        state.written += bytes;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_not_given_away_and_what_is_freed_is_used_at_once() {
        let room = Room::default();
        let take = |bytes, free| room.take(Path::new("/store"), bytes, || Ok(free));
        assert!(take(u64::MAX, 0).is_ok(), "nothing is kept");
        room.keep(100);
        assert!(take(60, 200).is_ok());
        assert!(matches!(take(1, 100), Err(Error::Full { .. })), "near the mark it is measured each time");
        assert!(take(1, 200).is_ok());
        assert!(take(MEASURE_AFTER - 1, NEAR * 2).is_ok());
        assert!(take(1, 0).is_ok(), "the measurement is a moment old and what was written since is known");
        assert!(take(1, 0).is_err(), "measured again after so many bytes");
    }
}
