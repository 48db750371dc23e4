//! No statement walks a table that it could look up.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use super::{Fresh, Place, postgres_plans};
use crate::value::Value;

static SEEN: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
static VALUES: Mutex<BTreeMap<String, Vec<Owned>>> = Mutex::new(BTreeMap::new());

/// A copy reads everything by purpose.
const COPY: &str = "/* copy */";

/// A value that outlives its statement.
#[derive(Clone, Debug)]
pub(crate) enum Owned {
    Null,
    Int(i64),
    Text(String),
    Bytes(Vec<u8>),
}

impl Owned {
    pub(crate) fn value(&self) -> Value<'_> {
        match self {
            Self::Null => Value::Null,
            Self::Int(value) => Value::Int(*value),
            Self::Text(text) => Value::Text(text),
            Self::Bytes(bytes) => Value::Bytes(bytes),
        }
    }
}

/// Remembers a statement that was run.
pub(crate) fn saw(sql: &str) {
    if sql.starts_with(COPY) {
        return;
    }
    SEEN.lock().unwrap_or_else(PoisonError::into_inner).insert(sql.to_owned());
}

/// The same, with the values of its first run.
pub(crate) fn saw_with(sql: &str, values: &[Value<'_>]) {
    if sql.starts_with(COPY) {
        return;
    }
    let owned = |value: &Value<'_>| match value {
        Value::Null => Owned::Null,
        // No limit at all is for tests; a page has about this many rows.
        Value::Int(i64::MAX) => Owned::Int(100),
        Value::Int(value) => Owned::Int(*value),
        Value::Text(text) => Owned::Text((*text).to_owned()),
        Value::Bytes(bytes) => Owned::Bytes(bytes.to_vec()),
        Value::Digest(digest) => Owned::Bytes(digest.as_slice().to_vec()),
    };
    let mut seen = VALUES.lock().unwrap_or_else(PoisonError::into_inner);
    seen.entry(sql.to_owned()).or_insert_with(|| values.iter().map(owned).collect());
}

/// Asks the engine under test how it would run each statement seen.
pub(crate) async fn assert_no_walk(fresh: &Fresh) {
    match &fresh.place {
        Place::Sqlite(path) => assert_no_walk_on_sqlite(path),
        Place::Postgres(url) => {
            let seen = VALUES.lock().unwrap_or_else(PoisonError::into_inner).clone();
            assert!(seen.len() > 100, "the suite ran {} statements", seen.len());
            postgres_plans::assert_no_walk(url, &seen).await;
        }
    }
}

/// Tables that are small by their nature, or counted for an administrator.
const MAY_WALK: &[&str] = &["upload", "signing_key", "garbage"];

/// What subqueries have found: `few` sessions, a `page` of manifests, candidates of the plan.
const SUBQUERIES: &[&str] = &["few", "page", "found", "candidate", "c", "doomed"];

/// Asks SQLite how it would run each statement seen. Walks of a few tables are allowed, by name; so is the walk of what
/// a subquery has found, and the walk of a partial index that holds nothing but candidates of collection.
fn assert_no_walk_on_sqlite(path: &Path) {
    let connection = rusqlite::Connection::open(path).unwrap();
    let seen = SEEN.lock().unwrap_or_else(PoisonError::into_inner).clone();
    assert!(seen.len() > 100, "the suite ran {} statements", seen.len());
    let mut walks = Vec::new();
    for sql in seen {
        let mut statement = match connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}")) {
            Ok(statement) => statement,
            // The writer's own tests have tables of their own.
            Err(error) if ["no such table: t", "no such table: child"].contains(&error.to_string().as_str()) => {
                continue;
            }
            Err(error) => panic!("{error} in {sql}"),
        };
        for n in 1..=statement.parameter_count() {
            statement.raw_bind_parameter(n, 1).unwrap();
        }
        let mut rows = statement.raw_query();
        while let Some(row) = rows.next().unwrap() {
            let step: String = row.get(3).unwrap();
            if is_walk(&step, &sql) {
                walks.push(format!("{step}\n    in {sql}"));
            }
        }
    }
    assert!(walks.is_empty(), "{}", walks.join("\n"));
}

fn is_walk(step: &str, sql: &str) -> bool {
    if let Some(table) = step.strip_prefix("SCAN ") {
        let first = table.split(' ').next().unwrap();
        let candidates = table == "CONSTANT ROW" || table.contains("repository_to_empty");
        return !MAY_WALK.contains(&first) && !SUBQUERIES.contains(&first) && !candidates;
    }
    // All of a repository: only counted for an administrator, or page by page.
    if step.ends_with("(repository_id=?)") {
        return !sql.contains("COUNT(*)") && !sql.contains("LIMIT");
    }
    // Sorting needs all rows: only those of one manifest, or of a table that may be walked.
    step.contains("B-TREE FOR ORDER BY") && !sql.contains("WHERE manifest_id = $1") && !sql.contains("FROM signing_key")
}
