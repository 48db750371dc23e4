//! What the writer counts, for metrics and tests.

/// Upper bounds of the buckets of [`Stats::group_sizes`].
pub const GROUP_SIZE_BOUNDS: [u64; 9] = [1, 2, 4, 8, 16, 32, 64, 128, 256];

/// Counts since the database was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Commits of groups of durable transactions, each with one sync.
    pub synced_commits: u64,
    /// Commits of groups of session rows, without a sync.
    pub unsynced_commits: u64,
    /// Transactions in all these groups.
    pub transactions: u64,
    /// Groups that failed as a whole.
    pub failed_commits: u64,
    /// How many durable groups had at most as many transactions as the bound at the same place (and more than the bound
    /// before it).
    pub group_sizes: [u64; GROUP_SIZE_BOUNDS.len()],
    /// Transactions in durable groups: the sum that belongs to `group_sizes`.
    pub synced_transactions: u64,
    /// Statements, those of reads included; BEGIN, COMMIT and settings are not counted.
    pub statements: u64,
    /// Exchanges with the server: 0 where there is none.
    pub round_trips: u64,
    /// Transactions that were run again, because others were in their way or their connection was lost.
    pub retries: u64,
}
