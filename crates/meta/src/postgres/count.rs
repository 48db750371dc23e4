//! What is counted, for metrics and tests.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::stats::Stats;

#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) statements: Count,
    pub(super) round_trips: Count,
    pub(super) transactions: Count,
    pub(super) synced: Count,
    pub(super) unsynced: Count,
    pub(super) failed: Count,
    pub(super) retries: Count,
}

#[derive(Debug, Default)]
pub(super) struct Count(AtomicU64);

impl Count {
    pub(super) fn add(&self, number: usize) {
        self.0.fetch_add(number as u64, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Counts {
    /// PostgreSQL gathers the syncs of commits itself, so each is a group of its own here.
    pub(super) fn stats(&self) -> Stats {
        let synced = self.synced.get();
        let mut stats = Stats {
            synced_commits: synced,
            unsynced_commits: self.unsynced.get(),
            transactions: self.transactions.get(),
            failed_commits: self.failed.get(),
            synced_transactions: synced,
            statements: self.statements.get(),
            round_trips: self.round_trips.get(),
            retries: self.retries.get(),
            ..Stats::default()
        };
        stats.group_sizes[0] = synced;
        stats
    }
}
