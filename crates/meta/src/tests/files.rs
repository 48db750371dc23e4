//! The file: opening, starters at the same time, copies, damage.

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use super::{disk, random};
use crate::conformance::{alice, any, clock, digest, image, name};
use crate::{Db, Error};

#[test]
fn two_starters_make_one_database() {
    for round in 0..20 {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("meta.db");
        let ids: Vec<String> = std::thread::scope(|scope| {
            let starters: Vec<_> = (0..4u8)
                .map(|n| {
                    let path = &path;
                    scope.spawn(move || {
                        let random = std::sync::Arc::new(move |bytes: &mut [u8]| bytes.fill(n));
                        Db::open_sqlite(path, clock().0, random).unwrap().store_id().to_owned()
                    })
                })
                .collect();
            starters.into_iter().map(|starter| starter.join().unwrap()).collect()
        });
        assert!(ids.windows(2).all(|pair| pair[0] == pair[1]), "round {round}: {ids:?}");
    }
}

#[tokio::test]
async fn what_was_committed_is_there_after_the_next_start() {
    let disk = disk();
    let layer = disk.bench.push_blob("team/app", 1, "key-1").await;
    disk.bench.db.push_manifest(&name("team/app"), image("m", &[&layer]), vec![any("v")], &alice()).await.unwrap();
    let id = disk.bench.db.store_id().to_owned();
    assert_eq!(id, "5a5a5a5a-5a5a-4a5a-9a5a-5a5a5a5a5a5a");
    for suffix in ["", "-wal", "-shm"] {
        let file = format!("{}{suffix}", disk.path.display());
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600, "{file}");
    }
    let other = disk.bench.db.clone();
    disk.bench.db.clone().close().await.unwrap();
    assert!(other.repository_exists(&name("team/app")).await.is_err());
    assert!(!std::fs::exists(format!("{}-wal", disk.path.display())).unwrap(), "the log was copied");
    let again = Db::open_sqlite(&disk.path, clock().0, random()).unwrap();
    assert_eq!(again.store_id(), id);
    assert!(again.manifest_by_digest(&name("team/app"), &digest("m"), u64::MAX, None).await.unwrap().is_some());
}

#[tokio::test]
async fn a_copy_is_one_state_while_others_write() {
    let disk = disk();
    let db = disk.bench.db.clone();
    let stop = std::sync::atomic::AtomicBool::new(false);
    let destination = disk.path.with_file_name("copy.db");
    let ((), ()) = tokio::join!(
        async {
            let mut n = 0;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                let layer = disk.bench.push_blob("team/app", n, &format!("key-{n}")).await;
                let pushed = image(&format!("m{n}"), &[&layer]);
                db.push_manifest(&name("team/app"), pushed, vec![any("latest")], &alice()).await.unwrap();
                n += 1;
            }
        },
        async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            for n in 0..5 {
                let path = destination.with_extension(n.to_string());
                db.backup_to(&path).await.unwrap();
            }
            db.backup_to(&destination).await.unwrap();
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
        }
    );
    assert!(db.backup_to(&destination).await.is_err(), "a copy replaces nothing");
    assert_eq!(std::fs::metadata(&destination).unwrap().permissions().mode() & 0o777, 0o600);
    let copy = Db::open_sqlite(&destination, clock().0, random()).unwrap();
    assert_eq!(copy.store_id(), db.store_id());
    let bench = crate::conformance::Bench { db: copy, time: disk.bench.time.clone() };
    bench.assert_sound().await;
    assert!(!bench.db.tags(&name("team/app"), None, 10).await.unwrap().unwrap().is_empty());
}

#[tokio::test]
async fn damage_is_found_and_said() {
    let disk = disk();
    disk.bench.push_blob("team/app", 1, "key-1").await;
    disk.bench.db.clone().close().await.unwrap();
    let mut bytes = std::fs::read(&disk.path).unwrap();
    let length = bytes.len();
    bytes[4096 * 3..length].fill(0xff);
    std::fs::write(&disk.path, &bytes).unwrap();
    match Db::open_sqlite(&disk.path, clock().0, random()) {
        Ok(db) => assert!(!db.integrity_check().await.unwrap().is_empty()),
        Err(error) => assert!(matches!(error, Error::Corrupt { .. }), "{error}"),
    }
    std::fs::write(&disk.path, b"certainly no database, however long one looks at it").unwrap();
    assert!(matches!(Db::open_sqlite(&disk.path, clock().0, random()), Err(Error::Corrupt { .. })));
    let missing = disk.path.join("no directory/meta.db");
    assert!(matches!(Db::open_sqlite(&missing, clock().0, random()), Err(Error::Db { .. })));
}

#[tokio::test]
async fn a_checkpoint_copies_the_log() {
    let disk = disk();
    for n in 0..10 {
        disk.bench.push_blob("team/app", n, &format!("key-{n}")).await;
    }
    let done = disk.bench.db.checkpoint().await.unwrap();
    assert!(done.log_pages > 0 && done.log_pages == done.copied_pages, "{done:?}");
    disk.bench.push_blob("team/app", 11, "key-11").await;
    let after = disk.bench.db.checkpoint().await.unwrap();
    assert!(after.log_pages < done.log_pages, "the log begins anew: {after:?} after {done:?}");
}
