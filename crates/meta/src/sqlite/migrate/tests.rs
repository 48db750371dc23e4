use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use oci::Timestamp;

use super::super::connection;
use super::*;

fn clock() -> Clock {
    Arc::new(|| Timestamp(1))
}

fn open(path: &Path) -> Connection {
    connection::create_file(path).unwrap();
    connection::open_writer(path, Duration::from_secs(10)).unwrap()
}

const FIRST: Migration = Migration {
    number: 1,
    name: "first",
    sql: "CREATE TABLE store (\n    id BIGINT, store_id TEXT, policy_epoch BIGINT, created_at BIGINT\n);",
};
const SECOND: Migration = Migration { number: 2, name: "second", sql: "CREATE TABLE second (\n    x BYTEA\n);" };
const BROKEN: Migration = Migration {
    number: 2,
    name: "broken",
    sql: "CREATE TABLE third (\n    x BIGINT\n);\nCREATE TABLE third (x BIGINT);",
};

#[test]
fn each_is_applied_once_and_the_store_keeps_its_id() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("m.db");
    assert_eq!(migrate_with(&mut open(&path), &clock(), "one", &[FIRST]).unwrap(), "one");
    assert_eq!(migrate_with(&mut open(&path), &clock(), "two", &[FIRST, SECOND]).unwrap(), "one");
    assert_eq!(migrate_with(&mut open(&path), &clock(), "three", &[FIRST, SECOND]).unwrap(), "one");
}

#[test]
fn all_or_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("m.db");
    migrate_with(&mut open(&path), &clock(), "one", &[FIRST]).unwrap();
    assert!(migrate_with(&mut open(&path), &clock(), "one", &[FIRST, BROKEN]).is_err());
    let third: i64 =
        open(&path).query_row("SELECT COUNT(*) FROM sqlite_schema WHERE name = 'third'", [], |row| row.get(0)).unwrap();
    assert_eq!(third, 0);
    migrate_with(&mut open(&path), &clock(), "one", &[FIRST, SECOND]).unwrap();
}

// security: Q-05
#[test]
fn what_another_program_wrote_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("newer.db");
    migrate_with(&mut open(&path), &clock(), "one", &[FIRST, SECOND]).unwrap();
    let refused = migrate_with(&mut open(&path), &clock(), "one", &[FIRST]);
    assert!(matches!(refused, Err(Error::NewerFormat { found: 2, supported: 1 })));
    let changed = Migration { sql: "CREATE TABLE store (x BIGINT);", ..FIRST };
    let refused = migrate_with(&mut open(&path), &clock(), "one", &[changed, SECOND]);
    assert!(matches!(refused, Err(Error::Corrupt { .. })));

    let path = directory.path().join("foreign.db");
    open(&path).execute_batch("CREATE TABLE theirs (x INTEGER)").unwrap();
    assert!(matches!(migrate(&mut open(&path), &clock(), "one"), Err(Error::Corrupt { .. })));
    let path = directory.path().join("other.db");
    open(&path).execute_batch("PRAGMA application_id = 7").unwrap();
    assert!(matches!(migrate(&mut open(&path), &clock(), "one"), Err(Error::Corrupt { .. })));
}

#[test]
fn the_schema_is_strict_and_whole() {
    let directory = tempfile::tempdir().unwrap();
    let mut connection = open(&directory.path().join("m.db"));
    migrate(&mut connection, &clock(), "one").unwrap();
    let (tables, strict): (i64, i64) = connection
        .query_row(
            "SELECT COUNT(*), SUM(strict) FROM pragma_table_list WHERE schema = 'main' AND name NOT LIKE 'sqlite%'",
            [],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )
        .unwrap();
    assert!(tables >= 18 && tables == strict, "{tables} tables, {strict} of them strict");
    let numbers: Vec<i64> = MIGRATIONS.iter().map(|migration| migration.number).collect();
    assert_eq!(numbers, (1..=crate::migrations::NEWEST).collect::<Vec<_>>());
}
