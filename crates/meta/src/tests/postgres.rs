//! What is PostgreSQL's alone: starters, other programs' tables, lost connections, round trips. On SQLite, where the variables of
//! `fresh.rs` name no server, these check the counterpart or end at once by what `engine` says.

use std::time::Duration;

use super::{Fresh, Place, random};
use crate::conformance::{alice, any, blob, clock, digest, image, name, tag};
use crate::lock::{Hold, Lock};
use crate::postgres::command;
use crate::{Db, Engine, Error, PostgresOptions, PostgresUrl, Server, TakeStore};

/// The address of the fresh database, where it is on a server.
fn server(fresh: &Fresh) -> Option<&PostgresUrl> {
    match &fresh.place {
        Place::Postgres(url) => Some(url),
        Place::Sqlite(_) => None,
    }
}

async fn open(url: &PostgresUrl) -> Result<Db, Error> {
    Db::open_postgres(&PostgresOptions::new(url.clone()), clock().0, random()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn starters_at_the_same_time_make_one_store() {
    let fresh = Fresh::open().await;
    let Some(url) = server(&fresh) else { return assert_eq!(fresh.bench.db.engine(), Engine::Sqlite) };
    command(url, "DROP SCHEMA public CASCADE; CREATE SCHEMA public").await.unwrap();
    let starters: Vec<_> = (0..6u8)
        .map(|n| {
            let url = url.clone();
            tokio::spawn(async move {
                let random = std::sync::Arc::new(move |bytes: &mut [u8]| bytes.fill(n));
                let db = Db::open_postgres(&PostgresOptions::new(url), clock().0, random).await.unwrap();
                db.store_id().to_owned()
            })
        })
        .collect();
    let mut ids = Vec::new();
    for starter in starters {
        ids.push(starter.await.unwrap());
    }
    ids.dedup();
    assert_eq!(ids.len(), 1, "{ids:?}");
}

#[tokio::test]
async fn what_another_program_wrote_is_refused() {
    let fresh = Fresh::open().await;
    let Some(url) = server(&fresh) else { return assert_eq!(fresh.bench.db.engine(), Engine::Sqlite) };
    command(url, "UPDATE schema_migration SET checksum = 'x' WHERE number = 1").await.unwrap();
    assert!(matches!(open(url).await, Err(Error::Corrupt { .. })));
    command(url, "INSERT INTO schema_migration (number, name, checksum, applied_at) VALUES (99, 'later', '', 0)")
        .await
        .unwrap();
    assert!(matches!(open(url).await, Err(Error::NewerFormat { found: 99, .. })));
    command(url, "DROP SCHEMA public CASCADE; CREATE SCHEMA public; CREATE TABLE theirs (x INT)").await.unwrap();
    let refused = open(url).await;
    assert!(matches!(&refused, Err(Error::Corrupt { what }) if what.contains("'theirs'")), "{refused:?}");
    command(url, "CREATE TABLE schema_migration (number BIGINT)").await.unwrap();
    assert!(matches!(open(url).await, Err(Error::Corrupt { .. })), "the name alone makes it not ours");
    let extended = "DROP SCHEMA public CASCADE; CREATE SCHEMA public; CREATE EXTENSION citext;
                    CREATE VIEW statistics AS SELECT 1; ALTER EXTENSION citext ADD VIEW statistics";
    command(url, extended).await.unwrap();
    open(url).await.expect("a view of an extension is not another program's");
}

#[tokio::test]
async fn a_database_that_cannot_be_reached_is_said_and_comes_back() {
    let fresh = Fresh::open().await;
    let Some(url) = server(&fresh) else { return assert_eq!(fresh.bench.db.engine(), Engine::Sqlite) };
    let nowhere = PostgresUrl::parse("postgres://u@127.0.0.1:1/d").unwrap();
    let refused = open(&nowhere).await;
    assert!(matches!(refused, Err(Error::Unavailable { .. })), "{refused:?}");

    let (db, app) = (&fresh.bench.db, name("team/app"));
    fresh.bench.push_blob("team/app", 1, "key-1").await;
    // Every connection of the pool is dead, which the pool may not know yet.
    cut(url).await;
    assert!(db.blob(&app, &blob(1, "").digest, None).await.unwrap().is_some(), "a read is tried on a new connection");
    cut(url).await;
    fresh.bench.push_blob("team/app", 2, "key-2").await;
    fresh.bench.assert_sound().await;
}

/// A server from which another one has taken the store commits nothing any more, also what it had begun before.
#[tokio::test]
async fn a_server_without_the_store_changes_nothing() {
    let fresh = Fresh::open().await;
    let Some(url) = server(&fresh) else { return assert_eq!(fresh.bench.db.engine(), Engine::Sqlite) };
    let (db, app, time) = (&fresh.bench.db, name("team/app"), Duration::from_secs(30));
    let server_of = |holder: &str, session: &str| Server {
        holder: holder.to_owned(),
        session: session.to_owned(),
        label: holder.to_owned(),
    };
    db.take_store(&server_of("a", "a1"), time, None).await.unwrap();
    db.fence("a1");
    let layer = fresh.bench.push_blob("team/app", 1, "key-1").await;
    let other = open(url).await.unwrap();
    let b = server_of("b", "b1");
    let TakeStore::Held { until, .. } = other.take_store(&b, time, None).await.unwrap() else { panic!("taken") };
    // A change that is under way holds the taker up.
    let under_way = Lock::Store(Hold::Shared).key();
    let holder = {
        let url = url.clone();
        let sql = format!("BEGIN; SELECT pg_advisory_xact_lock_shared({under_way}); SELECT pg_sleep(0.5); COMMIT");
        tokio::spawn(async move { command(&url, &sql).await })
    };
    tokio::time::sleep(Duration::from_millis(100)).await;
    let start = std::time::Instant::now();
    assert_eq!(other.take_store(&b, time, Some(until)).await.unwrap(), TakeStore::Taken);
    assert!(start.elapsed() > Duration::from_millis(200), "{:?}", start.elapsed());
    holder.await.unwrap().unwrap();

    let refused = db.push_manifest(&app, image("m", &[&layer]), vec![any("v")], &alice()).await;
    assert!(matches!(refused, Err(Error::Unavailable { .. })), "{refused:?}");
    assert!(db.touch_blob(&app, &layer).await.is_err());
    assert!(!db.keep_store("a1", time).await.unwrap(), "it can tell why");
    other.fence("b1");
    assert!(other.manifest_by_tag(&app, &tag("v"), u64::MAX, None).await.unwrap().is_none());
    other.push_manifest(&app, image("m", &[&layer]), vec![any("v")], &alice()).await.unwrap();
}

/// Ends every other session on the fresh database.
async fn cut(url: &PostgresUrl) {
    let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
               WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'";
    command(url, sql).await.unwrap();
}

/// A statement that waits too long ends, says so, and leaves no connection behind that is in the middle of something.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wait_for_a_lock_is_bounded() {
    let fresh = Fresh::open().await;
    let Some(url) = server(&fresh) else { return assert_eq!(fresh.bench.db.engine(), Engine::Sqlite) };
    let options = PostgresOptions {
        statement_timeout: Duration::from_millis(300),
        connections: 2,
        ..PostgresOptions::new(url.clone())
    };
    let db = Db::open_postgres(&options, clock().0, random()).await.unwrap();
    let holder = {
        let url = url.clone();
        let name = name("team/app");
        let key = crate::lock::Lock::Repository(&name, crate::lock::Hold::Exclusive).key();
        tokio::spawn(async move {
            command(&url, &format!("BEGIN; SELECT pg_advisory_xact_lock({key}); SELECT pg_sleep(2); COMMIT")).await
        })
    };
    tokio::time::sleep(Duration::from_millis(300)).await;
    let start = std::time::Instant::now();
    let waited = db.push_manifest(&name("team/app"), image("m", &[]), vec![any("v")], &alice()).await;
    assert!(matches!(waited, Err(Error::Unavailable { .. } | Error::Busy)), "{waited:?}");
    assert!(start.elapsed() < Duration::from_millis(1500), "{:?}", start.elapsed());
    holder.await.unwrap().unwrap();
    for _ in 0..4 {
        db.push_manifest(&name("team/app"), image("m", &[]), vec![any("v")], &alice()).await.unwrap();
    }
}

/// One round trip for what every pull asks; BEGIN, settings and locks cost none.
#[tokio::test]
async fn round_trips() {
    let fresh = Fresh::open().await;
    let (db, app) = (&fresh.bench.db, name("team/app"));
    let layer = fresh.bench.push_blob("team/app", 1, "key-1").await;
    db.push_manifest(&app, image("m", &[&layer]), vec![any("v")], &alice()).await.unwrap();
    let remote = db.engine() == Engine::Postgres;
    let before = db.stats();
    db.manifest_by_tag(&app, &tag("v"), u64::MAX, Some(1)).await.unwrap().unwrap();
    db.manifest_by_digest(&app, &digest("m"), u64::MAX, Some(1)).await.unwrap().unwrap();
    db.blob(&app, &layer, Some(1)).await.unwrap().unwrap();
    let after = db.stats();
    assert_eq!(after.statements - before.statements, 3);
    assert_eq!(after.round_trips - before.round_trips, if remote { 3 } else { 0 });
    let before = db.stats();
    db.touch_blob(&app, &layer).await.unwrap();
    let after = db.stats();
    // BEGIN with the first of three statements, and COMMIT.
    assert_eq!(after.statements - before.statements, 3);
    assert_eq!(after.round_trips - before.round_trips, if remote { 4 } else { 0 });
}

#[tokio::test]
async fn what_is_for_files_says_so() {
    let fresh = Fresh::open().await;
    let db = &fresh.bench.db;
    let copied = db.backup_to(std::path::Path::new("/nonexistent/copy.db")).await;
    assert!(matches!(copied, Err(Error::Db { .. })), "{copied:?}");
    match db.engine() {
        Engine::Sqlite => {}
        Engine::Postgres => {
            assert_eq!(db.checkpoint().await.unwrap().log_pages, 0);
            let Some(url) = server(&fresh) else { panic!("no server") };
            command(url, "DROP INDEX tag_open_digest").await.unwrap();
            assert_eq!(db.integrity_check().await.unwrap(), ["the index tag_open_digest is missing"]);
        }
    }
}
