//! No statement walks a table that it could look up.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

static SEEN: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// Remembers a statement that was run.
pub(crate) fn saw(sql: &str) {
    SEEN.lock().unwrap_or_else(PoisonError::into_inner).insert(sql.to_owned());
}

/// Tables that are small by their nature, or counted for an administrator.
const MAY_WALK: &[&str] = &["upload", "signing_key", "garbage"];

/// Asks SQLite how it would run each statement seen. Walks of a few tables are allowed, by name; so is the walk of what
/// a subquery has found, and the walk of a partial index that holds nothing but candidates of collection.
pub(crate) fn assert_no_walk(path: &Path) {
    let connection = rusqlite::Connection::open(path).unwrap();
    let seen = SEEN.lock().unwrap_or_else(PoisonError::into_inner).clone();
    assert!(seen.len() > 100, "the suite ran {} statements", seen.len());
    let mut walks = Vec::new();
    for sql in seen {
        let mut statement = connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
        for n in 1..=statement.parameter_count() {
            statement.raw_bind_parameter(n, 1).unwrap();
        }
        let mut rows = statement.raw_query();
        while let Some(row) = rows.next().unwrap() {
            let step: String = row.get(3).unwrap();
            let Some(table) = step.strip_prefix("SCAN ") else { continue };
            let first = table.split(' ').next().unwrap();
            let candidates = ["repository_to_empty", "event USING INDEX", "CONSTANT ROW"];
            if !MAY_WALK.contains(&first) && !candidates.iter().any(|walk| table.contains(walk)) {
                walks.push(format!("{step}\n    in {sql}"));
            }
        }
    }
    assert!(walks.is_empty(), "{}", walks.join("\n"));
}
