//! Numbered migrations, embedded in the program.

/// A migration: its text is PostgreSQL's and is never changed once released, which its checksum in the table shows.
pub(crate) struct Migration {
    pub(crate) number: i64,
    pub(crate) name: &'static str,
    pub(crate) sql: &'static str,
}

/// All migrations, in order, numbered from 1.
pub(crate) const MIGRATIONS: &[Migration] =
    &[Migration { number: 1, name: "first", sql: include_str!("migrations/0001_first.sql") }];

/// The number of the newest migration.
pub(crate) const NEWEST: i64 = MIGRATIONS.len() as i64;
