//! Blobs and links.

use super::*;
use crate::{DeleteBlob, PushManifest};

/// A blob is where it was pushed, and nowhere else; a manifest accepts it.
pub async fn blob_life(bench: &Bench) {
    let (db, app) = (&bench.db, name("team/app"));
    let layer = bench.push_blob("team/app", 1, "key-1").await;
    let row = db.blob(&app, &layer, None).await.unwrap().unwrap();
    assert_eq!((row.size, row.accepted, row.touched_at), (2, false, bench.now()));
    assert_eq!(row.location, Location::File { key: "key-1".to_owned(), mtime_ns: 1 });
    assert_eq!(db.blob(&name("team/other"), &layer, None).await.unwrap(), None);
    bench.push_blob("team/other", 2, "key-2").await;
    assert_eq!(db.blob(&name("team/other"), &layer, None).await.unwrap(), None, "knowing a digest is no permission");

    db.push_manifest(&app, image("m", &[&layer]), vec![], &alice()).await.unwrap();
    assert!(db.blob(&app, &layer, None).await.unwrap().unwrap().accepted);
    assert!(db.names_blob(&app, &layer).await.unwrap());
    assert!(!db.names_blob(&name("team/other"), &layer).await.unwrap());
    db.record_mtime(&layer, "key-0", 5).await.unwrap();
    db.record_mtime(&layer, "key-1", 6).await.unwrap();
    let row = db.blob(&app, &layer, None).await.unwrap().unwrap();
    assert_eq!(row.location, Location::File { key: "key-1".to_owned(), mtime_ns: 6 });
    bench.pass(HOUR);
    db.touch_blob(&app, &layer).await.unwrap();
    db.touch_blob(&name("team/none"), &layer).await.unwrap();
    assert_eq!(db.blob(&app, &layer, None).await.unwrap().unwrap().touched_at, bench.now());
    let event = bench.told(Action::BlobPush).await.remove(0);
    assert_eq!((event.digest, event.repository.as_deref()), (Some(layer), Some("team/app")));
    assert_eq!((event.subject.as_str(), event.source.as_str()), ("user:alice", "192.0.2.1"));
}

/// Bytes that were just verified take the place of older ones, which become garbage.
pub async fn replaced_bytes(bench: &Bench) {
    let (db, app) = (&bench.db, name("team/app"));
    let layer = bench.push_blob("team/app", 1, "key-1").await;
    bench.push_blob("team/other", 1, "key-2").await;
    let file = |key: &str| Location::File { key: key.to_owned(), mtime_ns: 1 };
    assert_eq!(db.blob(&app, &layer, None).await.unwrap().unwrap().location, file("key-2"));
    let inline = |bytes: &'static [u8]| Location::Inline(Bytes::from_static(bytes));
    for bytes in [b"ab", b"cd"] {
        let new = NewBlob { location: inline(bytes), ..blob(1, "") };
        db.finish_upload(&app, None, new, &alice()).await.unwrap();
        assert_eq!(db.blob(&app, &layer, None).await.unwrap().unwrap().location, inline(bytes));
    }
    bench.push_blob("team/app", 1, "key-3").await;
    assert_eq!(db.blob(&app, &layer, None).await.unwrap().unwrap().location, file("key-3"));
    assert_eq!(bench.garbage_keys().await, BTreeSet::from(["key-1".to_owned(), "key-2".to_owned()]));
    assert!(db.finish_upload(&app, None, blob(9, "key-3"), &alice()).await.is_err(), "the key of another blob");
    bench.push_blob("team/app", 1, "key-3").await;
    assert_eq!(db.linking_repositories(&layer, 10).await.unwrap().len(), 2);
    bench.assert_sound().await;

    assert!(!db.forget_lost_blob(&layer, Some("key-1"), &alice()).await.unwrap());
    assert!(db.forget_lost_blob(&layer, Some("key-3"), &alice()).await.unwrap());
    assert_eq!(db.blob(&app, &layer, None).await.unwrap(), None);
    bench.assert_sound().await;
}

/// A mount takes what the source has, and what it has accepted if so asked.
pub async fn mounts(bench: &Bench) {
    let (db, app, copy) = (&bench.db, name("team/app"), name("team/copy"));
    let layer = bench.push_blob("team/app", 1, "key-1").await;
    assert!(!db.mount_blob(&copy, &app, &layer, true, &alice()).await.unwrap(), "no manifest has accepted it");
    assert!(!db.mount_blob(&copy, &app, &digest("none"), false, &alice()).await.unwrap());
    assert!(!db.mount_blob(&copy, &name("team/none"), &layer, false, &alice()).await.unwrap());
    assert!(!db.repository_exists(&copy).await.unwrap());
    bench.pass(HOUR);
    assert!(db.mount_blob(&copy, &app, &layer, false, &alice()).await.unwrap());
    assert_eq!(db.blob(&copy, &layer, None).await.unwrap().unwrap().touched_at, bench.now());
    db.push_manifest(&app, image("m", &[&layer]), vec![], &alice()).await.unwrap();
    bench.pass(HOUR);
    assert!(db.mount_blob(&name("team/third"), &app, &layer, true, &alice()).await.unwrap());
    let newest_first = ["team/third", "team/copy", "team/app"].map(name);
    assert_eq!(db.linking_repositories(&layer, 10).await.unwrap(), newest_first);
    assert_eq!(db.linking_repositories(&layer, 1).await.unwrap(), newest_first[..1]);
    assert_eq!(bench.told(Action::BlobMount).await.len(), 2);
    bench.assert_sound().await;
}

/// A blob that a manifest needs stays; deleted in one repository, it is there in the others.
pub async fn deleted_blobs(bench: &Bench) {
    let (db, app, copy) = (&bench.db, name("team/app"), name("team/copy"));
    let layer = bench.push_blob("team/app", 1, "key-1").await;
    bench.push_blob("team/copy", 1, "key-2").await;
    let pushed = image("m", &[&layer]);
    db.push_manifest(&app, pushed.clone(), vec![], &alice()).await.unwrap();
    assert_eq!(db.delete_blob(&app, &layer, &alice()).await.unwrap(), DeleteBlob::InUse(pushed.digest.clone()));
    assert_eq!(db.delete_blob(&copy, &layer, &alice()).await.unwrap(), DeleteBlob::Done);
    assert_eq!(db.delete_blob(&copy, &layer, &alice()).await.unwrap(), DeleteBlob::Unknown);
    assert_eq!(db.delete_blob(&name("team/none"), &layer, &alice()).await.unwrap(), DeleteBlob::Unknown);
    assert_eq!(db.blob(&copy, &layer, None).await.unwrap(), None);
    assert!(db.blob(&app, &layer, None).await.unwrap().is_some());
    assert!(!db.mount_blob(&name("x"), &copy, &layer, false, &alice()).await.unwrap());
    assert_eq!(
        db.push_manifest(&copy, image("n", &[&layer]), vec![], &alice()).await.unwrap(),
        PushManifest::MissingBlobs(vec![layer.clone()])
    );
    bench.push_blob("team/copy", 1, "key-3").await;
    assert!(db.blob(&copy, &layer, None).await.unwrap().is_some());
    db.delete_manifest(&app, &pushed.digest, Arc::new(|_| true), &FREE, &alice()).await.unwrap();
    assert_eq!(db.delete_blob(&app, &layer, &alice()).await.unwrap(), DeleteBlob::Done);
    assert_eq!(bench.told(Action::BlobDelete).await.len(), 2);
    bench.assert_sound().await;
}
