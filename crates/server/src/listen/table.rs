//! The connections that are open, and who has to go when there are too many.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::activity::Activity;

/// Waiting connections that are compared before one is chosen: enough to find an old one, few enough to be cheap in a
/// flood.
const COMPARED: usize = 64;
/// One that came in just now is about to send its request, and stays.
const YOUNG: Duration = Duration::from_secs(1);

/// All open connections of all listeners. Clones are the same table.
#[derive(Clone, Debug)]
pub(super) struct Table(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    base: Instant,
    limit: usize,
    source_limit: u32,
    open: Mutex<Open>,
    /// Told whenever a connection ends.
    ended: Notify,
}

#[derive(Debug, Default)]
struct Open {
    next: u64,
    /// Connections whose tasks have not ended, evicted ones included.
    tasks: usize,
    entries: Vec<Entry>,
    sources: HashMap<IpAddr, u32>,
    /// Where the next search begins.
    cursor: usize,
}

#[derive(Debug)]
struct Entry {
    id: u64,
    source: Option<IpAddr>,
    activity: Arc<Activity>,
}

/// Whether a connection gets in.
#[derive(Debug)]
pub(super) enum Admission {
    /// Yes; it counts until this is dropped.
    In(Place),
    /// All connections are busy, or as new as this one: it has to wait until one ends.
    Full,
    /// This source has as many as it may, all of them busy.
    SourceFull,
}

/// A connection's place in the table.
#[derive(Debug)]
pub(super) struct Place {
    table: Table,
    id: u64,
    activity: Arc<Activity>,
}

impl Place {
    pub(super) fn activity(&self) -> &Arc<Activity> {
        &self.activity
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.table.lock();
        open.tasks -= 1;
        if let Some(at) = open.entries.iter().position(|entry| entry.id == self.id) {
            open.remove(at);
        }
        drop(open);
        self.table.0.ended.notify_waiters();
    }
}

impl Open {
    fn remove(&mut self, at: usize) -> Entry {
        let entry = self.entries.swap_remove(at);
        if let Some(source) = entry.source
            && let Some(count) = self.sources.get_mut(&source)
        {
            *count -= 1;
            if *count == 0 {
                self.sources.remove(&source);
            }
        }
        entry
    }

    /// Ends one that waits for a request, one of the longest; of `source`, if one is given. False when none has waited for
    /// a second.
    fn evict(&mut self, source: Option<IpAddr>, base: Instant) -> bool {
        let length = self.entries.len();
        let latest = u64::try_from(base.elapsed().saturating_sub(YOUNG).as_millis()).unwrap_or(u64::MAX);
        let oldest = (0..length)
            .map(|i| (self.cursor + i) % length)
            .filter(|at| source.is_none() || self.entries[*at].source == source)
            .filter_map(|at| self.entries[at].activity.waiting_since().map(|since| (since, at)))
            .filter(|(since, _)| *since <= latest)
            .take(COMPARED)
            .min();
        self.cursor = self.cursor.wrapping_add(COMPARED);
        match oldest {
            Some((_, at)) => {
                self.remove(at).activity.evict();
                true
            }
            None => false,
        }
    }
}

impl Table {
    /// An empty one with room for `limit`, and for `source_limit` of one source.
    pub(super) fn new(limit: u32, source_limit: u32) -> Self {
        Self(Arc::new(Inner {
            base: Instant::now(),
            limit: limit as usize,
            source_limit,
            open: Mutex::default(),
            ended: Notify::new(),
        }))
    }

    /// Lets a connection in, making room if need be. `source` is `None` for those that are not counted by source.
    pub(super) fn admit(&self, source: Option<IpAddr>) -> Admission {
        let mut open = self.lock();
        if let Some(source) = source
            && open.sources.get(&source).is_some_and(|count| *count >= self.0.source_limit)
            && !open.evict(Some(source), self.0.base)
        {
            return Admission::SourceFull;
        }
        if open.entries.len() >= self.0.limit && !open.evict(None, self.0.base) {
            return Admission::Full;
        }
        let activity = Arc::new(Activity::new(self.0.base));
        let id = open.next;
        open.next += 1;
        open.tasks += 1;
        if let Some(source) = source {
            *open.sources.entry(source).or_default() += 1;
        }
        open.entries.push(Entry { id, source, activity: activity.clone() });
        Admission::In(Place { table: self.clone(), id, activity })
    }

    /// Waits until a connection ends, or has ended since the call.
    pub(super) async fn one_ended(&self) {
        self.0.ended.notified().await;
    }

    /// Waits until there is no connection.
    pub(super) async fn all_ended(&self) {
        loop {
            let ended = self.0.ended.notified();
            tokio::pin!(ended);
            ended.as_mut().enable();
            if self.lock().tasks == 0 {
                return;
            }
            ended.await;
        }
    }

    /// How many connections there are.
    pub(super) fn count(&self) -> usize {
        self.lock().tasks
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Open> {
        self.0.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn enter(table: &Table, source: u8) -> Place {
        match table.admit(Some([10, 0, 0, source].into())) {
            Admission::In(place) => place,
            other => panic!("{other:?}"),
        }
    }

    async fn is_evicted(place: &Place) -> bool {
        tokio::time::timeout(Duration::ZERO, place.activity().evicted()).await.is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn the_one_that_waits_longest_makes_room() {
        let table = Table::new(2, 10);
        let busy = enter(&table, 1);
        busy.activity().request_began();
        tokio::time::advance(Duration::from_secs(1)).await;
        let waits = enter(&table, 2);
        assert!(matches!(table.admit(None), Admission::Full), "it came in just now");
        tokio::time::advance(Duration::from_secs(2)).await;
        let new = enter(&table, 3);
        assert!(is_evicted(&waits).await && !is_evicted(&busy).await);
        new.activity().request_began();
        assert!(matches!(table.admit(None), Admission::Full), "all are busy");
        drop(new);
        assert!(matches!(table.admit(None), Admission::In(_)));
        assert_eq!(table.count(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn i02_one_source_has_a_share_and_makes_room_for_itself() {
        let table = Table::new(100, 2);
        let other = enter(&table, 9);
        let first = enter(&table, 1);
        tokio::time::advance(Duration::from_secs(2)).await;
        let second = enter(&table, 1);
        let third = enter(&table, 1);
        assert!(is_evicted(&first).await && !is_evicted(&second).await && !is_evicted(&other).await);
        second.activity().request_began();
        third.activity().request_began();
        assert!(matches!(table.admit(Some([10, 0, 0, 1].into())), Admission::SourceFull));
        drop((first, second, third, other));
        assert_eq!(table.count(), 0);
        assert!(table.lock().sources.is_empty());
        table.all_ended().await;
    }
}
