//! Syncs: how many a change costs, alone and in company.

use std::time::Duration;

use super::disk;
use crate::conformance::{alice, blob, name};
use crate::{Finish, Lease};

#[tokio::test]
async fn a_finish_alone_costs_one_sync_and_a_session_none() {
    let disk = disk();
    let (db, app) = (&disk.bench.db, name("team/app"));
    let before = db.stats();
    db.create_upload("id", &app, 7, None, 10).await.unwrap();
    let leased = db.lease_upload(&app, "id", 7, "request", Duration::from_secs(30)).await.unwrap();
    assert!(matches!(leased, Lease::Taken(_)));
    db.name_upload_key("id", "request", "key-1").await.unwrap();
    db.renew_upload("id", "request", Duration::from_secs(30)).await.unwrap();
    assert_eq!(db.stats().synced_commits, before.synced_commits);
    assert_eq!(db.stats().unsynced_commits, before.unsynced_commits + 4);
    let done = db.finish_upload(&app, Some(("id", "request")), blob(1, "key-1"), &alice()).await.unwrap();
    assert_eq!(done, Finish::Done);
    assert_eq!(db.stats().synced_commits, before.synced_commits + 1);
    // What changes nothing costs nothing.
    let tag = crate::conformance::tag("v");
    let nothing = db.delete_tag(&app, &tag, &crate::conformance::FREE, &alice()).await.unwrap();
    assert_eq!(nothing, crate::DeleteTag::Unknown);
    assert_eq!(db.stats().synced_commits, before.synced_commits + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_finishes_share_syncs() {
    let disk = disk();
    disk.bench.push_blob("team/app", 0, "key-0").await;
    let before = disk.bench.db.stats();
    // While another process holds the database, the first waits for it and the others gather behind the first.
    let outsider = rusqlite::Connection::open(&disk.path).unwrap();
    outsider.execute_batch("BEGIN IMMEDIATE").unwrap();
    let finishes: Vec<_> = (1..=16)
        .map(|n| {
            let db = disk.bench.db.clone();
            tokio::spawn(async move {
                let new = blob(n, &format!("key-{n}"));
                db.finish_upload(&name(&format!("team/app{n}")), None, new, &alice()).await
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(300)).await;
    outsider.execute_batch("ROLLBACK").unwrap();
    for finish in finishes {
        assert_eq!(finish.await.unwrap().unwrap(), Finish::Done);
    }
    let after = disk.bench.db.stats();
    assert_eq!(after.synced_transactions - before.synced_transactions, 16);
    assert!(after.synced_commits - before.synced_commits <= 3, "{after:?}");
    assert_eq!(after.group_sizes.iter().sum::<u64>(), after.synced_commits);
    disk.bench.assert_sound().await;
}

/// Readers see the state before, and do not wait.
#[tokio::test]
async fn readers_never_wait_for_a_writer() {
    let disk = disk();
    let layer = disk.bench.push_blob("team/app", 1, "key-1").await;
    let outsider = rusqlite::Connection::open(&disk.path).unwrap();
    outsider.execute_batch("BEGIN IMMEDIATE; DELETE FROM link").unwrap();
    let app = name("team/app");
    let read = disk.bench.db.blob(&app, &layer, None);
    let row = tokio::time::timeout(Duration::from_secs(2), read).await.unwrap().unwrap();
    assert!(row.is_some());
    outsider.execute_batch("ROLLBACK").unwrap();
}
