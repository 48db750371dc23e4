//! Memory for what is held whole: manifests while they are received, parsed and stored, and answers while they are sent. A
//! fixed amount for all of them together, so that many at a time wait instead of filling the memory.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use policy::Identity;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::Error;

/// What is longer is large. The large ones have memory of their own, so that they never keep small ones waiting.
pub(crate) const SMALL: usize = 64 << 10;
/// Bytes of small ones at a time, in each direction.
const SMALL_TOTAL: usize = 8 << 20;
/// Bytes of large ones at a time, in each direction. Parsing and storing take up to twice as much again.
const LARGE_TOTAL: usize = 24 << 20;
/// How many pages of megabytes are made at a time: what they are made from is more than what they need.
const MAKING: usize = 2;
/// How many may wait for each of the two.
const QUEUE: usize = 512;
/// How long somebody waits for room.
const PATIENCE: Duration = Duration::from_secs(10);

/// Room for what is pushed, and for what is pulled: neither direction can starve the other.
#[derive(Debug)]
pub(crate) struct Rooms {
    pub(crate) pushed: Room,
    pub(crate) pulled: Room,
    /// One permit for each page that is being made from annotations.
    pub(crate) making: Semaphore,
}

impl Rooms {
    pub(crate) fn new() -> Self {
        Self { pushed: Room::new(), pulled: Room::new(), making: Semaphore::new(MAKING) }
    }
}

/// Memory that is given out in parts.
#[derive(Debug)]
pub(crate) struct Room {
    small: Share,
    large: Share,
}

/// All that is given out of one kind. Of each, one subject may have half: whoever stalls does not stop the others.
#[derive(Debug)]
struct Share {
    /// What one permit stands for, in bytes.
    unit: usize,
    /// How many permits one subject may have.
    half: usize,
    all: Arc<Semaphore>,
    waiting: AtomicUsize,
    subjects: Mutex<HashMap<Identity, Weak<Semaphore>>>,
}

/// A part of it, until it is dropped.
#[derive(Debug)]
pub struct Reservation {
    unit: usize,
    /// Of what the subject may have, and of all.
    permits: [OwnedSemaphorePermit; 2],
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
    /// The same bytes, which keep the room that they need until the last part of them is dropped: sent, that is, or given
    /// up. What was reserved beyond their length is given back.
    pub fn hold(mut self, bytes: impl Into<Bytes>) -> Bytes {
        let bytes = bytes.into();
        let needed = bytes.len().div_ceil(self.unit);
        for permit in &mut self.permits {
            drop(permit.num_permits().checked_sub(needed).and_then(|excess| permit.split(excess)));
        }
        Bytes::from_owner(Held { bytes, _reservation: self })
    }
}

impl Room {
    fn new() -> Self {
        Self { small: Share::new(SMALL_TOTAL, 1 << 10), large: Share::new(LARGE_TOTAL, 64 << 10) }
    }

    /// Room for so many bytes of this caller; waits its turn for some seconds, then [`Error::Unavailable`]. What is longer
    /// than one subject may have takes all of that.
    pub(crate) async fn reserve(&self, who: Identity, length: usize) -> Result<Reservation, Error> {
        match length > SMALL {
            true => self.large.reserve(who, length).await,
            false => self.small.reserve(who, length).await,
        }
    }
}

impl Share {
    fn new(total: usize, unit: usize) -> Self {
        let (all, half) = (Arc::new(Semaphore::new(total / unit)), total / unit / 2);
        Self { unit, half, all, waiting: AtomicUsize::new(0), subjects: Mutex::default() }
    }

    async fn reserve(&self, who: Identity, length: usize) -> Result<Reservation, Error> {
        let count = u32::try_from(length.div_ceil(self.unit).min(self.half)).map_err(Error::internal)?;
        let busy = || Error::Unavailable { retry_after_s: 5, source: None };
        let of_subject = self.of_subject(who);
        if self.waiting.fetch_add(1, Ordering::Relaxed) >= QUEUE {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            return Err(busy());
        }
        let _leave = Leave(&self.waiting);
        // First what the subject may have: who waits for that holds nothing that others wait for.
        let both = async {
            let own = of_subject.acquire_many_owned(count).await?;
            Ok::<_, tokio::sync::AcquireError>([own, self.all.clone().acquire_many_owned(count).await?])
        };
        let permits = tokio::time::timeout(PATIENCE, both).await.map_err(|_| busy())?.map_err(Error::internal)?;
        Ok(Reservation { unit: self.unit, permits })
    }

    /// What this subject may have; kept only while it has some of it.
    fn of_subject(&self, who: Identity) -> Arc<Semaphore> {
        let mut subjects = self.subjects.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = subjects.get(&who).and_then(Weak::upgrade) {
            return known;
        }
        if subjects.len() == subjects.capacity() {
            subjects.retain(|_, known| known.strong_count() > 0);
        }
        let new = Arc::new(Semaphore::new(self.half));
        subjects.insert(who, Arc::downgrade(&new));
        new
    }
}

struct Leave<'a>(&'a AtomicUsize);

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use policy::SubjectId;

    use super::*;

    const MANIFEST: usize = 4 << 20;

    fn who(id: i64) -> Identity {
        Identity::Subject(SubjectId(id))
    }

    async fn is_full(room: &Room, who: Identity, length: usize) -> bool {
        matches!(room.reserve(who, length).await, Err(Error::Unavailable { .. }))
    }

    #[tokio::test(start_paused = true)]
    async fn large_ones_wait_and_small_ones_do_not() {
        let room = Room::new();
        let mut held = Vec::new();
        for id in [1, 1, 1, 2, 2, 2] {
            held.push(room.reserve(who(id), MANIFEST).await.unwrap());
        }
        assert!(is_full(&room, who(3), SMALL + 1).await, "nobody left within ten seconds");
        assert!(room.reserve(who(3), SMALL).await.is_ok());
        drop(held);
        assert!(room.reserve(who(3), usize::MAX).await.is_ok(), "more than there is takes what there is");
    }

    #[tokio::test(start_paused = true)]
    async fn one_subject_has_half() {
        let room = Room::new();
        let mut held = Vec::new();
        for _ in 0..3 {
            held.push(room.reserve(Identity::Anonymous, MANIFEST).await.unwrap());
        }
        assert!(is_full(&room, Identity::Anonymous, MANIFEST).await);
        for _ in 0..3 {
            held.push(room.reserve(who(1), MANIFEST).await.unwrap());
        }
        held.remove(0);
        assert!(room.reserve(Identity::Anonymous, MANIFEST).await.is_ok(), "what is given back is there again");
        let (mut small, each) = (Vec::new(), 64);
        for _ in 0..SMALL_TOTAL / 2 / SMALL * each {
            small.push(room.reserve(who(1), SMALL / each).await.unwrap());
        }
        assert!(is_full(&room, who(1), 1).await);
        assert!(room.reserve(who(2), 1).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn the_queue_is_bounded() {
        let room = Arc::new(Room::new());
        let held = room.reserve(who(1), usize::MAX).await.unwrap();
        let mut waiting = Vec::new();
        for _ in 0..QUEUE {
            let room = room.clone();
            waiting.push(tokio::spawn(async move { room.reserve(who(1), MANIFEST).await.map(drop) }));
        }
        while room.large.waiting.load(Ordering::Relaxed) < QUEUE {
            tokio::task::yield_now().await;
        }
        let start = tokio::time::Instant::now();
        assert!(is_full(&room, who(1), MANIFEST).await);
        assert!(start.elapsed() < Duration::from_secs(1), "turned away at once");
        drop(held);
        for one in waiting {
            one.await.unwrap().unwrap();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_keep_what_they_need_until_the_last_part_is_dropped() {
        let room = Room::new();
        let bytes = room.reserve(who(1), usize::MAX).await.unwrap().hold(vec![7; SMALL + 1]);
        let free = |room: &Room| room.large.all.available_permits();
        assert_eq!(free(&room), LARGE_TOTAL / (64 << 10) - 2);
        let part = bytes.slice(5..10);
        drop(bytes);
        assert_eq!((free(&room), &part[..]), (LARGE_TOTAL / (64 << 10) - 2, &[7; 5][..]));
        drop(part);
        assert_eq!(free(&room), LARGE_TOTAL / (64 << 10));
        assert!(room.large.subjects.lock().unwrap().values().all(|known| known.strong_count() == 0));
    }
}
