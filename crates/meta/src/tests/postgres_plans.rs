//! The plans of PostgreSQL, with 100,000 rows in every table that grows.

use std::collections::BTreeMap;

use super::plans::Owned;
use crate::PostgresUrl;
use crate::postgres::explain;

/// Rows as a registry has them that has been in use for a while: one large repository, many small ones, few candidates of
/// collection.
const ROWS: &str = "
    INSERT INTO repository (domain, name, created_at, created_by)
        SELECT 0, CASE WHEN n = 1 THEN 'team/app' ELSE 'team/r' || n END, n, 'user:alice'
        FROM generate_series(1, 100000) n;
    UPDATE repository SET deleted_at = 5 WHERE id % 10000 = 9;
    INSERT INTO blob (domain, digest, size, storage, location, mtime_ns, state, created_at, touched_at, linked)
        SELECT 0, '\\x01'::bytea || sha256(n::text::bytea), 1000000, 'file', 'key-' || n, 1, 'live',
               1800000000000 - n, 1800000000000 - n, CASE WHEN n % 1000 = 0 THEN 0 ELSE 1 END
        FROM generate_series(1, 100000) n;
    INSERT INTO blob_body (domain, digest, bytes)
        SELECT 1, '\\x01'::bytea || sha256(n::text::bytea), 'bytes' FROM generate_series(1, 100000) n;
    INSERT INTO link (repository_id, digest, domain, state, first_seen, pushed_by, pushed_from, touched_at, referenced)
        SELECT CASE WHEN n % 2 = 0 THEN 1 ELSE n END, '\\x01'::bytea || sha256(n::text::bytea), 0, 'live',
               n, 'user:alice', '', 1800000000000 - n, CASE WHEN n % 1000 = 1 THEN 0 ELSE 1 END
        FROM generate_series(1, 100000) n;
    INSERT INTO manifest_body (domain, digest, bytes)
        SELECT 0, '\\x01'::bytea || sha256(('m' || n)::bytea), 'bytes' FROM generate_series(1, 100000) n;
    INSERT INTO manifest (repository_id, domain, digest, state, state_at, media_type, size, subject, pushed_by, pushed_from,
                          pushed_at)
        SELECT CASE WHEN n % 2 = 0 THEN 1 ELSE n END, 0, '\\x01'::bytea || sha256(('m' || n)::bytea),
               CASE WHEN n % 1000 = 2 THEN 'deleted' ELSE 'live' END, 1800000000000 - n, 'application/json', 500,
               CASE WHEN n % 10 = 3 THEN '\\x01'::bytea || sha256(('m' || n - 1)::bytea) END, 'user:alice', '', n
        FROM generate_series(1, 100000) n;
    INSERT INTO edge (repository_id, target, manifest_id, kind)
        SELECT CASE WHEN n % 2 = 0 THEN 1 ELSE n END, '\\x01'::bytea || sha256(n::text::bytea), n, 'layer'
        FROM generate_series(1, 100000) n;
    INSERT INTO tag (repository_id, name, digest, state, pushed_at, pushed_by, pushed_from, closed_at)
        SELECT CASE WHEN n % 2 = 0 THEN 1 ELSE n END, 'v' || n, '\\x01'::bytea || sha256(('m' || n)::bytea), 'live', n,
               'user:alice', '', CASE WHEN n % 10 = 7 THEN n END
        FROM generate_series(1, 100000) n;
    INSERT INTO event (occurred_at, action, outcome, subject, credential, source, request_id, repository, reference)
        SELECT 1700000000000 + n * 1000, CASE WHEN n % 2 = 0 THEN 'blob.push' ELSE 'a' || n % 20 END, 'ok',
               'user:u' || n % 1000, 'basic', '', 'r' || n, 'team/r' || n % 5000, NULL
        FROM generate_series(1, 100000) n;
    INSERT INTO upload (id, repository, owner, received, states, created_at, touched_at, location)
        SELECT 'u' || n, 'team/app', n % 1000, 0, '', n, 1800000000000 - n, 'upload-' || n FROM generate_series(1, 100000) n;
    INSERT INTO garbage (location, size, added_at) SELECT 'garbage-' || n, 1, n FROM generate_series(1, 100000) n;
    INSERT INTO subject (name, kind, administrator, disabled, password_hash, epoch, created_at)
        SELECT 's' || n, CASE WHEN n % 2 = 0 THEN 'robot' ELSE 'user' END, CASE WHEN n < 5 THEN 1 ELSE 0 END, 0,
               CASE WHEN n % 2 = 0 THEN NULL ELSE 'hash' END, 1, n
        FROM generate_series(1, 100000) n;
    INSERT INTO secret (subject_id, hash, created_at) SELECT n, 'hash', n FROM generate_series(1, 100000) n;
    INSERT INTO access_grant (subject_id, verbs, repository, tags, created_by, created_at)
        SELECT n, 'pull', 'team/*', '[]', 'user:alice', n FROM generate_series(1, 100000) n;
    INSERT INTO idempotency (owner, key, request_hash, created_at)
        SELECT 'user:alice', 'k' || n, '', n FROM generate_series(1, 100000) n;
";

/// Tables that have few rows by their nature, or are read as a whole by purpose.
const SMALL: &[&str] =
    &["store", "signing_key", "hold", "schema_migration", "event_id_seq", "pg_class", "pg_namespace"];

/// Statements that read much by purpose: the rules as a whole, counts for metrics and for an administrator.
const WHOLE: &[&str] = &[
    "FROM access_grant g LEFT JOIN subject s ON s.id = g.subject_id WHERE g.id > 0 ORDER BY g.id",
    "FROM subject WHERE id > 0 ORDER BY id",
    "SELECT COUNT(*)",
    // Once, at the first start.
    "FROM subject WHERE kind = $1 LIMIT 1",
    "WITH doomed AS",
    "WHERE lease_holder IS NOT NULL",
];

pub(crate) async fn assert_no_walk(url: &PostgresUrl, seen: &BTreeMap<String, Vec<Owned>>) {
    crate::postgres::command(url, &format!("{ROWS} ANALYZE")).await.unwrap();
    let statements: Vec<(&str, Vec<_>)> = seen
        .iter()
        .filter(|(sql, _)| ["SELECT", "INSERT", "UPDATE", "DELETE", "WITH"].iter().any(|verb| sql.starts_with(verb)))
        .map(|(sql, values)| (sql.as_str(), values.iter().map(Owned::value).collect()))
        .collect();
    let plans = explain(url, &statements).await.unwrap();
    let mut walks = Vec::new();
    for ((sql, _), plan) in statements.iter().zip(plans) {
        if WHOLE.iter().any(|whole| sql.contains(whole)) {
            continue;
        }
        if plan.lines().any(is_walk) {
            walks.push(format!("{plan}\n    in {sql}"));
        }
    }
    assert!(walks.is_empty(), "{}", walks.join("\n\n"));
}

/// A scan of a whole large table, or a sort of much.
fn is_walk(line: &str) -> bool {
    if let Some((_, table)) = line.split_once("Seq Scan on ") {
        let table = table.split(' ').next().unwrap();
        return !SMALL.contains(&table) && !table.starts_with("pg_");
    }
    let rows = line.split_once(" rows=").and_then(|(_, rest)| rest.split(' ').next()?.parse::<u64>().ok());
    line.contains("Sort  (") && rows.is_some_and(|rows| rows > 2000)
}
