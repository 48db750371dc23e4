//! Memory for large manifests, which are held whole while they are parsed, stored and sent: a fixed amount for all of them
//! together, so that many at a time wait instead of filling the memory.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::Error;

/// Manifests up to this length need no room: thousands of them fit beside the large ones.
const SMALL: usize = 64 << 10;
/// What one permit stands for.
const UNIT: usize = 64 << 10;
/// Bytes of large manifests at a time, in each direction. Parsing takes a few times as much.
const TOTAL: usize = 24 << 20;
/// How long somebody waits for room.
const PATIENCE: Duration = Duration::from_secs(10);

/// Room for manifests that are pushed, and for those that are pulled: neither direction can starve the other.
#[derive(Debug)]
pub(crate) struct Rooms {
    pub(crate) pushed: Room,
    pub(crate) pulled: Room,
}

impl Rooms {
    pub(crate) fn new() -> Self {
        Self { pushed: Room::new(), pulled: Room::new() }
    }
}

/// Memory that is given out in parts.
#[derive(Debug)]
pub(crate) struct Room(Arc<Semaphore>);

/// A part of it, until it is dropped.
#[derive(Debug)]
pub struct Reservation {
    /// `None` for what is small.
    permit: Option<OwnedSemaphorePermit>,
}

/// Bytes with the room that they take.
struct Held {
    bytes: Bytes,
    _reservation: Reservation,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Reservation {
    /// The same bytes, which keep the room until the last part of them is dropped: sent, that is, or given up.
    pub(crate) fn hold(self, bytes: Bytes) -> Bytes {
        match self.permit {
            None => bytes,
            Some(_) => Bytes::from_owner(Held { bytes, _reservation: self }),
        }
    }
}

impl Room {
    fn new() -> Self {
        Self(Arc::new(Semaphore::new(TOTAL / UNIT)))
    }

    /// Room for so many bytes, if there is some now.
    pub(crate) fn try_reserve(&self, length: usize) -> Option<Reservation> {
        match permits(length) {
            0 => Some(Reservation { permit: None }),
            count => {
                let permit = Arc::clone(&self.0).try_acquire_many_owned(count).ok()?;
                Some(Reservation { permit: Some(permit) })
            }
        }
    }

    /// Room for so many bytes; waits its turn for some seconds.
    pub(crate) async fn reserve(&self, length: usize) -> Result<Reservation, Error> {
        let count = permits(length);
        if count == 0 {
            return Ok(Reservation { permit: None });
        }
        let waiting = tokio::time::timeout(PATIENCE, Arc::clone(&self.0).acquire_many_owned(count));
        match waiting.await {
            Ok(Ok(permit)) => Ok(Reservation { permit: Some(permit) }),
            Ok(Err(closed)) => Err(Error::internal(closed)),
            Err(_) => Err(Error::Unavailable { retry_after_s: 5, source: None }),
        }
    }
}

/// Never more than there are, so that the longest manifest of any setting gets its turn.
fn permits(length: usize) -> u32 {
    if length <= SMALL {
        return 0;
    }
    u32::try_from(length.div_ceil(UNIT).min(TOTAL / UNIT)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn large_ones_wait_and_small_ones_do_not() {
        let room = Room::new();
        let held: Vec<Reservation> = (0..6).filter_map(|_| room.try_reserve(4 << 20)).collect();
        assert_eq!(held.len(), 6);
        assert!(room.try_reserve(SMALL + 1).is_none());
        assert!(room.try_reserve(SMALL).is_some());
        assert!(
            matches!(room.reserve(4 << 20).await, Err(Error::Unavailable { .. })),
            "nobody left within ten seconds"
        );
        drop(held);
        assert!(room.reserve(usize::MAX).await.is_ok(), "more than there is takes all of it");
    }
}
