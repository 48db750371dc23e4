//! Numbered migrations, embedded in the program.

use sha2::{Digest, Sha256};

use crate::error::Error;

/// A migration: its text is PostgreSQL's and is never changed once released, which its checksum in the table shows.
pub(crate) struct Migration {
    pub(crate) number: i64,
    pub(crate) name: &'static str,
    pub(crate) sql: &'static str,
}

/// All migrations, in order, numbered from 1.
pub(crate) const MIGRATIONS: &[Migration] = &[
    Migration { number: 1, name: "first", sql: include_str!("migrations/0001_first.sql") },
    Migration { number: 2, name: "copies", sql: include_str!("migrations/0002_copies.sql") },
    Migration { number: 3, name: "serving", sql: include_str!("migrations/0003_serving.sql") },
];

/// The number of the newest migration.
pub(crate) const NEWEST: i64 = MIGRATIONS.len() as i64;

/// Refuses a schema that a newer program brought up to date, or whose migrations were not these. `applied` is number, name
/// and checksum of each, in order.
pub(crate) fn check(applied: &[(i64, String, String)], migrations: &[Migration]) -> Result<(), Error> {
    let supported = migrations.last().map_or(0, |last| last.number);
    if let Some((found, ..)) = applied.last().filter(|(number, ..)| *number > supported) {
        return Err(Error::NewerFormat { found: *found, supported });
    }
    for (migration, (number, name, checksum)) in migrations.iter().zip(applied) {
        if migration.number != *number || checksum_of(migration) != *checksum {
            return Err(Error::corrupt(format!("migration {number} ({name}) is not the one of this program")));
        }
    }
    Ok(())
}

pub(crate) fn checksum_of(migration: &Migration) -> String {
    Sha256::digest(migration.sql).iter().map(|byte| format!("{byte:02x}")).collect()
}
