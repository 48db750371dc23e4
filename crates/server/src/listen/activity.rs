//! What one connection is doing, and what of that took too long.
//!
//! Three parties write here: the wrapper of the socket (bytes, heads), the wrapper of the bodies (who waits for whom) and
//! the service (requests). The connection's own task looks every now and then and decides. Nothing here needs a timer for
//! each read, and time that the server spends is never counted against the client.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::task::Waker;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::config::LimitsConfig;
use crate::metrics::Closed;

/// What one connection is doing.
#[derive(Debug)]
pub(super) struct Activity {
    base: Instant,
    accepted: u64,
    requests: AtomicU64,
    in_flight: AtomicU32,
    /// Since when there is no request in flight.
    waiting_since: AtomicU64,
    /// Since when the head of a request is incomplete; 0 when none is.
    head_since: AtomicU64,
    received: AtomicU64,
    sent: AtomicU64,
    /// Request bodies that a handler waits for.
    bodies_awaited: AtomicU32,
    /// Answers of which a piece waits for the client.
    answers_waiting: AtomicU32,
    /// Bytes of answers that the socket did not take.
    unsent: AtomicBool,
    /// A request's body was left unread: the client may still be sending it.
    unread: AtomicBool,
    /// Bodies end with an error from now on.
    /// 0, or an [`Expired`].
    expired: AtomicU8,
    wakers: Mutex<Vec<Waker>>,
    /// Somebody else needs the room.
    evicted: Notify,
}

/// What has to be done about a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing.
    Fine,
    /// No request for too long: say goodbye.
    Idle,
    /// The head of a request does not end.
    Head,
    /// A request's body does not come.
    Body,
    /// An answer is not taken.
    Answer,
}

/// Why the bodies of a connection end before their time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expired {
    /// They came too slowly.
    Progress = 1,
    /// The server stops.
    Stop = 2,
}

impl Expired {
    fn of(value: u8) -> Option<Self> {
        match value {
            0 => None,
            1 => Some(Self::Progress),
            _ => Some(Self::Stop),
        }
    }
}

impl Verdict {
    /// The label of the metric.
    pub(super) fn reason(self) -> Option<Closed> {
        match self {
            Self::Fine => None,
            Self::Idle => Some(Closed::Idle),
            Self::Head => Some(Closed::HeaderTime),
            Self::Body | Self::Answer => Some(Closed::Progress),
        }
    }
}

impl Activity {
    /// Of a connection accepted now. `base` is the same for all connections that are compared.
    pub(super) fn new(base: Instant) -> Self {
        let now = milliseconds(base);
        Self {
            base,
            accepted: now,
            requests: AtomicU64::new(0),
            in_flight: AtomicU32::new(0),
            waiting_since: AtomicU64::new(now),
            head_since: AtomicU64::new(0),
            received: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            bodies_awaited: AtomicU32::new(0),
            answers_waiting: AtomicU32::new(0),
            unsent: AtomicBool::new(false),
            unread: AtomicBool::new(false),
            expired: AtomicU8::new(0),
            wakers: Mutex::default(),
            evicted: Notify::new(),
        }
    }

    fn now(&self) -> u64 {
        milliseconds(self.base)
    }

    pub(super) fn received(&self, bytes: usize) {
        self.received.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn sent(&self, bytes: usize) {
        self.sent.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// The socket takes no more bytes for now.
    pub(super) fn stuck(&self) {
        self.unsent.store(true, Ordering::Relaxed);
    }

    /// Everything was handed to the socket.
    pub(super) fn flushed(&self) {
        if self.unsent.swap(false, Ordering::Relaxed) {
            self.waiting_since.store(self.now(), Ordering::Relaxed);
        }
    }

    /// A handler left a body unread.
    pub(super) fn body_left(&self) {
        self.unread.store(true, Ordering::Relaxed);
    }

    /// Whether a body was left unread.
    pub(super) fn has_unread(&self) -> bool {
        self.unread.load(Ordering::Relaxed)
    }

    /// The first byte of a head has come.
    pub(super) fn head_began(&self) {
        self.head_since.store(self.now(), Ordering::Relaxed);
    }

    /// The head is complete.
    pub(super) fn head_ended(&self) {
        self.head_since.store(0, Ordering::Relaxed);
    }

    /// A request was handed over.
    pub(super) fn request_began(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.in_flight.fetch_add(1, Ordering::Relaxed);
    }

    /// Its answer was handed to the socket, or given up.
    pub(super) fn request_ended(&self) {
        self.waiting_since.store(self.now(), Ordering::Relaxed);
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
    }

    /// Requests in flight.
    pub(super) fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    pub(super) fn body_awaited(&self) {
        self.bodies_awaited.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn body_came(&self) {
        self.bodies_awaited.fetch_sub(1, Ordering::Relaxed);
    }

    pub(super) fn answer_waits(&self) {
        self.answers_waiting.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn answer_taken(&self) {
        self.answers_waiting.fetch_sub(1, Ordering::Relaxed);
    }

    /// Since when this connection waits for a request; `None` while it has one. For choosing whom to close.
    pub(super) fn waiting_since(&self) -> Option<u64> {
        let busy = self.in_flight() > 0 || self.unsent.load(Ordering::Relaxed);
        (!busy).then(|| self.waiting_since.load(Ordering::Relaxed))
    }

    /// Asks the connection's task to end it.
    pub(super) fn evict(&self) {
        self.evicted.notify_one();
    }

    /// Resolves when [`evict`](Self::evict) was called.
    pub(super) async fn evicted(&self) {
        self.evicted.notified().await;
    }

    /// Ends all bodies that handlers still wait for with an error, so that they keep what they have and answer.
    pub(super) fn expire(&self, why: Expired) {
        // The first reason is the one.
        let _ = self.expired.compare_exchange(0, why as u8, Ordering::AcqRel, Ordering::Acquire);
        let wakers = std::mem::take(&mut *self.wakers.lock().unwrap_or_else(PoisonError::into_inner));
        for waker in wakers {
            waker.wake();
        }
    }

    /// Whether bodies are to end, and why; otherwise `waker` is woken when that changes.
    pub(super) fn is_expired(&self, waker: &Waker) -> Option<Expired> {
        if let Some(why) = Expired::of(self.expired.load(Ordering::Acquire)) {
            return Some(why);
        }
        let mut wakers = self.wakers.lock().unwrap_or_else(PoisonError::into_inner);
        if !wakers.iter().any(|other| other.will_wake(waker)) {
            // One per stream of the connection at most, apart from those of streams that have ended.
            if wakers.len() >= 256 {
                wakers.clear();
            }
            wakers.push(waker.clone());
        }
        drop(wakers);
        Expired::of(self.expired.load(Ordering::Acquire))
    }
}

/// Looks at one connection again and again.
#[derive(Debug)]
pub(super) struct Watch {
    limits: LimitsConfig,
    looked: u64,
    body: Progress,
    answer: Progress,
}

/// Bytes over time in which only the client was waited for.
#[derive(Debug, Default)]
struct Progress {
    waited: u64,
    from: u64,
}

impl Progress {
    /// One look, `passed` after the last. True when too few bytes came over the whole time.
    fn look(&mut self, waiting: bool, passed: u64, bytes: u64, limits: &LimitsConfig) -> bool {
        if !waiting {
            return false;
        }
        if self.waited == 0 {
            self.from = bytes;
        }
        self.waited += passed;
        let window = as_milliseconds(limits.progress_time);
        if self.waited < window {
            return false;
        }
        let wanted = limits.progress.0.saturating_mul(self.waited) / 1000;
        let slow = bytes - self.from < wanted;
        *self = Self::default();
        slow
    }
}

impl Watch {
    pub(super) fn new(limits: LimitsConfig, activity: &Activity) -> Self {
        Self { limits, looked: activity.now(), body: Progress::default(), answer: Progress::default() }
    }

    /// How often to look.
    pub(super) fn interval(&self) -> Duration {
        let shortest = self.limits.header_time.min(self.limits.idle).min(self.limits.progress_time);
        (shortest / 8).clamp(Duration::from_millis(20), Duration::from_secs(5))
    }

    /// What is the matter now. `http2`: bytes of a connection without requests are no head that goes on.
    pub(super) fn look(&mut self, activity: &Activity, http2: bool) -> Verdict {
        let now = activity.now();
        let passed = now.saturating_sub(self.looked);
        self.looked = now;
        if activity.waiting_since().is_some() {
            (self.body, self.answer) = (Progress::default(), Progress::default());
            return self.without_request(activity, http2, now);
        }
        if self.limits.progress.0 == 0 {
            return Verdict::Fine;
        }
        let awaited = activity.bodies_awaited.load(Ordering::Relaxed) > 0;
        if self.body.look(awaited, passed, activity.received.load(Ordering::Relaxed), &self.limits) {
            return Verdict::Body;
        }
        let unsent = activity.unsent.load(Ordering::Relaxed);
        let waiting = activity.answers_waiting.load(Ordering::Relaxed) > 0 || unsent && activity.in_flight() == 0;
        if self.answer.look(waiting, passed, activity.sent.load(Ordering::Relaxed), &self.limits) {
            return Verdict::Answer;
        }
        Verdict::Fine
    }

    fn without_request(&self, activity: &Activity, http2: bool, now: u64) -> Verdict {
        let header_time = as_milliseconds(self.limits.header_time);
        let head_since = activity.head_since.load(Ordering::Relaxed);
        if !http2 && head_since != 0 && now.saturating_sub(head_since) >= header_time {
            return Verdict::Head;
        }
        if activity.requests.load(Ordering::Relaxed) == 0 {
            return if now.saturating_sub(activity.accepted) >= header_time { Verdict::Head } else { Verdict::Fine };
        }
        let idle = now.saturating_sub(activity.waiting_since.load(Ordering::Relaxed));
        let overdue = idle >= as_milliseconds(self.limits.idle) && (http2 || head_since == 0);
        if overdue { Verdict::Idle } else { Verdict::Fine }
    }
}

/// From 1, so that 0 can mean "never".
fn milliseconds(base: Instant) -> u64 {
    as_milliseconds(base.elapsed()) + 1
}

fn as_milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ByteSize;

    fn limits() -> LimitsConfig {
        LimitsConfig {
            manifest: ByteSize(4 << 20),
            connections: 10,
            connections_per_source: 10,
            uploads_per_subject: 1,
            header: ByteSize(32 << 10),
            header_time: Duration::from_secs(30),
            idle: Duration::from_secs(120),
            progress: ByteSize(1 << 10),
            progress_time: Duration::from_secs(60),
            failed_logins: 1,
        }
    }

    fn connection() -> (Activity, Watch) {
        let activity = Activity::new(Instant::now());
        let watch = Watch::new(limits(), &activity);
        (activity, watch)
    }

    async fn after(seconds: u64, watch: &mut Watch, activity: &Activity) -> Verdict {
        for _ in 0..seconds {
            tokio::time::advance(Duration::from_secs(1)).await;
            let verdict = watch.look(activity, false);
            if verdict != Verdict::Fine {
                return verdict;
            }
        }
        Verdict::Fine
    }

    #[tokio::test(start_paused = true)]
    async fn i02_a_head_has_its_time_and_then_no_more() {
        let (activity, mut watch) = connection();
        activity.head_began();
        assert_eq!(after(29, &mut watch, &activity).await, Verdict::Fine);
        assert_eq!(after(2, &mut watch, &activity).await, Verdict::Head);
        // A later head counts from its own first byte.
        let (activity, mut watch) = connection();
        activity.request_began();
        activity.request_ended();
        assert_eq!(after(100, &mut watch, &activity).await, Verdict::Fine);
        activity.head_began();
        assert_eq!(after(29, &mut watch, &activity).await, Verdict::Fine);
        assert_eq!(after(2, &mut watch, &activity).await, Verdict::Head);
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_without_requests_ends() {
        let (activity, mut watch) = connection();
        activity.request_began();
        assert_eq!(after(1000, &mut watch, &activity).await, Verdict::Fine, "a request in flight may take its time");
        activity.request_ended();
        assert_eq!(after(119, &mut watch, &activity).await, Verdict::Fine);
        assert_eq!(after(2, &mut watch, &activity).await, Verdict::Idle);
    }

    #[tokio::test(start_paused = true)]
    async fn i03_slow_bodies_and_slow_readers_end_and_slow_servers_do_not_count() {
        let (activity, mut watch) = connection();
        activity.request_began();
        assert_eq!(after(600, &mut watch, &activity).await, Verdict::Fine, "the handler is at work");
        activity.body_awaited();
        for _ in 0..300 {
            activity.received(1500);
            assert_eq!(after(1, &mut watch, &activity).await, Verdict::Fine, "fast enough");
        }
        assert_eq!(after(70, &mut watch, &activity).await, Verdict::Body, "too slow");
        activity.body_came();
        activity.answer_waits();
        for _ in 0..300 {
            activity.sent(1500);
            assert_eq!(after(1, &mut watch, &activity).await, Verdict::Fine, "fast enough");
        }
        assert_eq!(after(70, &mut watch, &activity).await, Verdict::Answer);
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_bytes_of_an_answer_may_take_their_time_too() {
        let (activity, mut watch) = connection();
        activity.request_began();
        activity.stuck();
        activity.request_ended();
        for _ in 0..300 {
            activity.sent(1500);
            assert_eq!(after(1, &mut watch, &activity).await, Verdict::Fine);
        }
        activity.flushed();
        assert_eq!(after(119, &mut watch, &activity).await, Verdict::Fine);
        assert_eq!(after(2, &mut watch, &activity).await, Verdict::Idle);
    }

    #[tokio::test(start_paused = true)]
    async fn time_in_which_the_server_is_waited_for_is_left_out() {
        let (activity, mut watch) = connection();
        activity.request_began();
        for _ in 0..20 {
            activity.answer_waits();
            assert_eq!(after(1, &mut watch, &activity).await, Verdict::Fine);
            activity.answer_taken();
            assert_eq!(after(100, &mut watch, &activity).await, Verdict::Fine);
        }
    }
}
