//! Copies between databases: from SQLite to the engine under test, and back.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{Fresh, disk};
use crate::conformance::{Bench, FREE, alice, any, blob, clock, digest, image, name, tag};
use crate::migrations::MIGRATIONS;
use crate::{Actor, Db, Error, Location, NewBlob, NewGrant, NewRobot, NewSigningKey, NewUser, copy};

/// Something in every table.
async fn fill(bench: &Bench) {
    let db = &bench.db;
    let (system, app) = (Actor::system("test"), name("team/app"));
    for n in 0..120 {
        let layer = bench.push_blob("team/app", n, &format!("key-{n}")).await;
        let pushed = image(&format!("m{n}"), &[&layer]);
        db.push_manifest(&app, pushed, vec![any(&format!("v{n}")), any("latest")], &alice()).await.unwrap();
    }
    let small = NewBlob { digest: digest("small"), size: 5, location: Location::Inline(b"small"[..].to_vec().into()) };
    db.finish_upload(&app, None, small, &alice()).await.unwrap();
    bench.push_blob("team/app", 1, "key-1-again").await;
    db.delete_manifest(&app, &digest("m3"), Arc::new(|_| true), &FREE, &alice()).await.unwrap();
    db.delete_repository(&name("team/gone"), &alice()).await.unwrap();
    db.create_upload("u1", &app, 1, None, 5).await.unwrap();
    db.save_upload("u1", "nobody", 0, vec![vec![1, 2]], None, None).await.unwrap();
    let user = NewUser { name: "root".to_owned(), administrator: true, password_hash: Some("hash".to_owned()) };
    let user = db.create_user(user, &system).await.unwrap();
    let robot = NewRobot {
        name: "team.bot".to_owned(),
        namespace: "team".to_owned(),
        expires_at: bench.now(),
        secret_hash: "hash".to_owned(),
    };
    db.create_robot(robot, &system).await.unwrap();
    for subject in [Some(user.id), None] {
        let grant = NewGrant {
            subject,
            role: None,
            verbs: "pull".to_owned(),
            repository: "team/**".to_owned(),
            tags: vec!["v*".to_owned()],
            expires_at: None,
            reason: Some("because".to_owned()),
        };
        db.create_grant(grant, &system).await.unwrap();
    }
    let gone = db.list_grants(Some(None), None, 1).await.unwrap();
    db.remove_grant(gone[0].id, &system).await.unwrap();
    let key = NewSigningKey { id: "k".to_owned(), purpose: "token".to_owned(), wrapped: vec![1, 2, 3].into() };
    db.add_signing_key(key, &system).await.unwrap();
    db.take_hold("h", "a backup", std::time::Duration::from_secs(60)).await.unwrap();
    db.reserve_idempotency("root", "key", b"hash").await.unwrap();
}

/// All that can be read of it, as text.
async fn told(db: &Db) -> String {
    format!(
        "{:?}\n{:?}\n{:?}\n{:?}\n{:?}\n{:?}\n{:?}\n{:?}\n{:?}\n{:?}\n{:?}\n{:?}",
        db.check_blobs(None, 9999).await.unwrap(),
        db.check_links(None, 9999).await.unwrap(),
        db.check_manifests(None, 9999).await.unwrap(),
        db.check_tags(None, 9999).await.unwrap(),
        db.check_uploads(None, 9999).await.unwrap(),
        db.events(&crate::EventFilter::default(), None, 99999).await.unwrap(),
        db.rules().await.unwrap(),
        db.robots(None, 99).await.unwrap(),
        db.users(None, 99).await.unwrap(),
        db.signing_keys().await.unwrap(),
        db.garbage(None, 999).await.unwrap(),
        db.active_hold().await.unwrap(),
    )
}

#[tokio::test]
async fn everything_is_copied_and_ids_go_on() {
    let source = disk();
    fill(&source.bench).await;
    let target = Fresh::target().await;
    let to = target.for_copy().await;
    let mut pages = 0;
    copy(&source.bench.db, &to, |_| pages += 1).await.unwrap();
    assert!(pages > 17, "{pages}");
    let copied = target.again().await;
    assert_eq!(copied.store_id(), source.bench.db.store_id());
    assert_eq!(told(&copied).await, told(&source.bench.db).await);
    let bench = Bench { db: copied, time: source.bench.time.clone() };
    bench.assert_sound().await;
    // New rows get new ids, also where the last one is gone.
    let grants = |db: Db| async move {
        let grant = NewGrant {
            subject: None,
            role: None,
            verbs: "list".to_owned(),
            repository: "x".to_owned(),
            tags: vec![],
            expires_at: None,
            reason: None,
        };
        match db.create_grant(grant, &Actor::system("test")).await.unwrap() {
            crate::CreateGrant::Done(row) => row.id,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(grants(bench.db.clone()).await, grants(source.bench.db.clone()).await);
    bench.push_blob("team/new", 500, "key-500").await;
    assert!(copy(&source.bench.db, &target.for_copy().await, |_| ()).await.is_err(), "it is not empty");

    // And back.
    let back = Fresh::sqlite();
    copy(&bench.db, &back.for_copy().await, |_| ()).await.unwrap();
    assert_eq!(told(&back.again().await).await, told(&bench.db).await);
}

#[tokio::test]
async fn an_interrupted_copy_goes_on_and_nobody_starts_on_it() {
    let source = disk();
    fill(&source.bench).await;
    let target = Fresh::target().await;
    let to = target.for_copy().await;
    for stop in [1, 4, 9] {
        let mut pages = 0;
        let stopped = std::panic::AssertUnwindSafe(copy(&source.bench.db, &to, |_| {
            pages += 1;
            assert!(pages < stop, "killed");
        }));
        use futures_util::FutureExt;
        assert!(stopped.catch_unwind().await.is_err());
        assert!(matches!(target.try_again().await, Err(Error::BeingFilled)));
    }
    let other = disk();
    let wrong =
        Db::open_sqlite(&other.path.with_file_name("other.db"), clock().0, Arc::new(|bytes: &mut [u8]| bytes.fill(7)))
            .unwrap();
    assert!(matches!(copy(&wrong, &to, |_| ()).await, Err(Error::Conflict { .. })), "another store's copy");
    copy(&source.bench.db, &to, |_| ()).await.unwrap();
    let copied = target.again().await;
    assert_eq!(told(&copied).await, told(&source.bench.db).await);
    assert!(copied.manifest_by_tag(&name("team/app"), &tag("latest"), 9999, None).await.unwrap().is_some());
    assert!(copied.blob(&name("team/app"), &blob(1, "").digest, None).await.unwrap().is_some());
}

/// A copy that goes on after a server ran on the source would mix two states: a robot that was disabled meanwhile could log in.
#[tokio::test]
async fn a_copy_does_not_go_on_when_the_source_was_changed() {
    use futures_util::FutureExt;
    let source = disk();
    fill(&source.bench).await;
    let target = Fresh::target().await;
    let to = target.for_copy().await;
    let stopped = std::panic::AssertUnwindSafe(copy(&source.bench.db, &to, |copied| {
        assert!(copied.table != "idempotency", "killed");
    }));
    assert!(stopped.catch_unwind().await.is_err());
    let db = &source.bench.db;
    db.update_robot("team.bot", true, &Actor::system("test")).await.unwrap().unwrap();
    assert!(matches!(copy(db, &to, |_| ()).await, Err(Error::Conflict { .. })));
    assert!(matches!(target.try_again().await, Err(Error::BeingFilled)));
}

/// A table or a column that a migration adds must not be forgotten here.
#[tokio::test]
async fn every_column_is_copied() {
    let disk = disk();
    let connection = rusqlite::Connection::open(&disk.path).unwrap();
    let mut statement = connection
        .prepare(
            "SELECT m.name, p.name FROM sqlite_schema m JOIN pragma_table_info(m.name) p
             WHERE m.type = 'table' AND m.name NOT LIKE 'sqlite_%'",
        )
        .unwrap();
    let columns: BTreeSet<(String, String)> =
        statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap().map(Result::unwrap).collect();
    let copied: BTreeSet<(String, String)> = crate::copy::tables()
        .flat_map(|(table, columns)| columns.iter().map(move |column| (table.to_owned(), (*column).to_owned())))
        .collect();
    let left: BTreeSet<&str> = columns.difference(&copied).map(|(table, _)| table.as_str()).collect();
    assert_eq!(left, BTreeSet::from(["schema_migration", "store"]));
    assert!(copied.is_subset(&columns));
    assert_eq!(MIGRATIONS.len() as i64, crate::FORMAT);
}

/// A backup is one state, as a file of SQLite, while others go on.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_backup_is_one_state_in_a_file() {
    let fresh = Fresh::open().await;
    fill(&fresh.bench).await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("copy.db");
    let before = told(&fresh.bench.db).await;
    fresh.bench.db.backup_to(&path).await.unwrap();
    let names: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["copy.db"]);
    let copy = Db::open_sqlite(&path, clock().0, super::random()).unwrap();
    assert_eq!(told(&copy).await, before);
    assert_eq!(copy.store_id(), fresh.bench.db.store_id());
    copy.close().await.unwrap();

    // A tag is moved all the time: its row and its manifest are of the same moment in each copy.
    let (db, app) = (fresh.bench.db.clone(), name("team/app"));
    let writer = tokio::spawn(async move {
        for n in 0..200 {
            let pushed = image(&format!("moving {n}"), &[]);
            db.push_manifest(&app, pushed, vec![any("moving")], &alice()).await.unwrap();
        }
    });
    for n in 0..3 {
        let path = folder.path().join(format!("moving-{n}.db"));
        fresh.bench.db.backup_to(&path).await.unwrap();
        let copy = Db::open_sqlite(&path, clock().0, super::random()).unwrap();
        assert!(copy.check_tags(None, 9999).await.unwrap().iter().all(|tag| tag.has_manifest));
        copy.close().await.unwrap();
    }
    writer.await.unwrap();
}
