//! Back-off after wrong credentials.
//!
//! Failures are counted three ways: for an account from one source, for a source whatever the account, and for an account
//! whatever the source. When a count reaches its limit, further attempts are refused unseen for a pause that doubles with
//! each failure that follows. The count over all sources pauses shortly and never binds a source from which the account
//! has logged in lately, so that guessing from many places slows down and its victim is not locked out.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A failure is forgotten when nothing followed it for this long.
const MEMORY: Duration = Duration::from_secs(15 * 60);
/// A source from which an account logged in counts as its own for this long.
const TRUST: Duration = Duration::from_secs(24 * 60 * 60);
/// The longest pause of a source, and of an account from one source.
const LONGEST: Duration = Duration::from_secs(5 * 60);
/// The longest pause of an account over all sources.
const LONGEST_ACCOUNT: Duration = Duration::from_secs(30);
/// The limits of a source, and of an account over all sources, are this many times that of an account from one source.
const WIDER: u32 = 5;
/// Rows that are kept at most; the oldest go first.
const ROWS: usize = 16 * 1024;

/// The table.
pub struct Backoff {
    limit: u32,
    pause: Duration,
    hash: RandomState,
    rows: Mutex<HashMap<Key, Row>>,
}

/// The part of an address by which sources are told apart: IPv4 as it is, IPv6 by its /64, which is what one customer gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Source(IpAddr);

impl Source {
    /// The source of a connection.
    pub fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V6(v6) => {
                let prefix = u128::from(v6) >> 64 << 64;
                Self(IpAddr::V6(prefix.into()))
            }
            v4 @ IpAddr::V4(_) => Self(v4),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Key {
    Pair(u64, Source),
    Source(Source),
    Account(u64),
    Trusted(u64, Source),
}

struct Row {
    failures: u32,
    paused_until: Instant,
    last: Instant,
}

impl Backoff {
    /// A table that allows `limit` failures of an account from one source (at least one) before the first pause.
    pub fn new(limit: u32, pause: Duration) -> Self {
        Self { limit: limit.max(1), pause, hash: RandomState::new(), rows: Mutex::new(HashMap::new()) }
    }

    /// How long an attempt has to wait, if it has to.
    pub fn must_wait(&self, account: &str, source: Source, now: Instant) -> Option<Duration> {
        let account = self.hash.hash_one(account);
        let rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        let left = |key: Key| {
            let row = rows.get(&key)?;
            row.paused_until.checked_duration_since(now).filter(|left| !left.is_zero())
        };
        let trusted =
            rows.get(&Key::Trusted(account, source)).is_some_and(|row| now.saturating_duration_since(row.last) < TRUST);
        let over_all = if trusted { None } else { left(Key::Account(account)) };
        [left(Key::Pair(account, source)), left(Key::Source(source)), over_all].into_iter().flatten().max()
    }

    /// Counts a failure.
    pub fn failed(&self, account: &str, source: Source, now: Instant) {
        let account = self.hash.hash_one(account);
        let wider = self.limit.saturating_mul(WIDER);
        let mut rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        make_room(&mut rows);
        for (key, limit, longest) in [
            (Key::Pair(account, source), self.limit, LONGEST),
            (Key::Source(source), wider, LONGEST),
            (Key::Account(account), wider, LONGEST_ACCOUNT),
        ] {
            let row = rows.entry(key).or_insert(Row { failures: 0, paused_until: now, last: now });
            if now.saturating_duration_since(row.last) >= MEMORY {
                row.failures = 0;
            }
            row.failures = row.failures.saturating_add(1);
            row.last = now;
            if let Some(over) = row.failures.checked_sub(limit) {
                let pause = self.pause.saturating_mul(2_u32.saturating_pow(over.min(20))).min(longest);
                row.paused_until = now + pause;
            }
        }
    }

    /// Forgets the failures of this account from this source, from which it is trusted from now on. The counts of the
    /// source and of the account stay: neither a guesser's own account nor the victim's login should reset them.
    pub fn succeeded(&self, account: &str, source: Source, now: Instant) {
        let account = self.hash.hash_one(account);
        let mut rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        rows.remove(&Key::Pair(account, source));
        make_room(&mut rows);
        rows.insert(Key::Trusted(account, source), Row { failures: 0, paused_until: now, last: now });
    }
}

/// Drops the older half of a full table. Called before up to three insertions.
fn make_room(rows: &mut HashMap<Key, Row>) {
    if rows.len() + 3 <= ROWS {
        return;
    }
    let mut times: Vec<Instant> = rows.values().map(|row| row.last).collect();
    let middle = times.len() / 2;
    let (_, median, _) = times.select_nth_unstable(middle);
    let median = *median;
    rows.retain(|_, row| row.last > median);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(n: u32) -> Source {
        Source::of(IpAddr::V4((0x0a00_0000 + n).into()))
    }

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn pauses_double_and_end() {
        let (table, start) = (Backoff::new(3, seconds(1)), Instant::now());
        for _ in 0..2 {
            table.failed("alice", source(1), start);
        }
        assert_eq!(table.must_wait("alice", source(1), start), None);
        for pause in [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300] {
            table.failed("alice", source(1), start);
            assert_eq!(table.must_wait("alice", source(1), start), Some(seconds(pause)));
        }
        assert_eq!(table.must_wait("alice", source(1), start + seconds(300)), None, "not for ever");
        assert_eq!(table.must_wait("alice", source(2), start), None, "another source is free");
        assert_eq!(table.must_wait("bob", source(1), start), None, "another account is free");
        table.failed("alice", source(1), start + seconds(300) + MEMORY);
        assert_eq!(table.must_wait("alice", source(1), start + seconds(300) + MEMORY), None, "forgotten");
    }

    #[test]
    fn success_forgets_only_its_own_failures() {
        let (table, now) = (Backoff::new(3, seconds(1)), Instant::now());
        for _ in 0..3 {
            table.failed("alice", source(1), now);
        }
        table.succeeded("alice", source(1), now);
        assert_eq!(table.must_wait("alice", source(1), now), None);
        for i in 0..30 {
            table.failed(&format!("user{i}"), source(1), now);
        }
        table.succeeded("alice", source(1), now);
        assert!(table.must_wait("alice", source(1), now).is_some(), "the source is paused");
    }

    // security: A-18
    #[test]
    fn spraying_names_from_one_source_is_slowed_after_five_times_the_limit() {
        let (table, now) = (Backoff::new(10, seconds(1)), Instant::now());
        for i in 0..50 {
            assert_eq!(table.must_wait(&format!("user{i}"), source(1), now), None, "{i}");
            table.failed(&format!("user{i}"), source(1), now);
        }
        assert_eq!(table.must_wait("another", source(1), now), Some(seconds(1)));
        assert_eq!(table.must_wait("another", source(2), now), None);
    }

    #[test]
    fn guessing_from_many_places_does_not_bind_the_owner() {
        let (table, now) = (Backoff::new(3, seconds(1)), Instant::now());
        table.succeeded("alice", source(9999), now);
        for i in 0..10_000 {
            table.failed("alice", source(i % 1000), now);
        }
        assert!(table.must_wait("alice", source(5000), now).is_some_and(|wait| wait <= LONGEST_ACCOUNT));
        assert_eq!(table.must_wait("alice", source(9999), now), None);
        assert!(table.rows.lock().unwrap().len() <= ROWS);
    }

    #[test]
    fn stays_bounded() {
        let (table, start) = (Backoff::new(3, seconds(1)), Instant::now());
        for i in 0..100_000_u32 {
            table.failed(&format!("user{i}"), source(i), start + Duration::from_millis(u64::from(i)));
        }
        assert!(table.rows.lock().unwrap().len() <= ROWS);
    }

    #[test]
    fn sources() {
        let of = |text: &str| Source::of(text.parse().unwrap());
        assert_eq!(of("2001:db8:1:2::1"), of("2001:db8:1:2:ffff::9"));
        assert_ne!(of("2001:db8:1:2::1"), of("2001:db8:1:3::1"));
        assert_eq!(of("::ffff:10.0.0.1"), of("10.0.0.1"));
        assert_ne!(of("10.0.0.2"), of("10.0.0.1"));
    }
}
