//! Upload sessions.

use super::*;
use crate::{CreateUpload, Finish, Lease, UploadRow};

const MINUTE: Duration = Duration::from_secs(60);

async fn taken(bench: &Bench, id: &str, holder: &str) -> UploadRow {
    match bench.db.lease_upload(&name("team/app"), id, 7, holder, MINUTE).await.unwrap() {
        Lease::Taken(row) => row,
        other => panic!("{other:?}"),
    }
}

/// A session keeps what was saved, and only its owner sees it, in its repository.
pub async fn sessions(bench: &Bench) {
    let (db, app) = (&bench.db, name("team/app"));
    for id in ["one", "two"] {
        let created = db.create_upload(id, &app, 7, Some(Algorithm::Sha512), 2).await.unwrap();
        assert_eq!(created, CreateUpload::Created);
    }
    assert_eq!(db.create_upload("three", &app, 7, None, 2).await.unwrap(), CreateUpload::TooMany);
    assert_eq!(db.create_upload("three", &app, 8, None, 2).await.unwrap(), CreateUpload::Created);
    assert!(db.create_upload("three", &app, 9, None, 2).await.is_err(), "an id is never used twice");
    assert!(!db.repository_exists(&app).await.unwrap(), "a session creates no repository");
    assert_eq!(db.count_uploads().await.unwrap(), 3);

    taken(bench, "one", "request").await;
    assert!(db.name_upload_key("one", "request", "key-1").await.unwrap());
    bench.pass(MINUTE);
    let states = vec![vec![1, 2, 3], vec![]];
    assert!(db.save_upload("one", "request", 70_000, states.clone(), None, Some("key-1".into())).await.unwrap());
    let saved = db.upload(&app, "one", 7).await.unwrap().unwrap();
    assert_eq!((saved.offset, &saved.states, saved.key.as_deref()), (70_000, &states, Some("key-1")));
    assert_eq!((saved.algorithm, saved.inline), (Some(Algorithm::Sha512), None));
    assert!(saved.touched_at > saved.created_at);

    taken(bench, "two", "request").await;
    let bytes = Bytes::from_static(b"abc");
    assert!(db.save_upload("two", "request", 3, vec![], Some(bytes.clone()), None).await.unwrap());
    assert_eq!(db.upload(&app, "two", 7).await.unwrap().unwrap().inline, Some(bytes));

    for (repository, id, owner) in [("team/app", "one", 8), ("team/other", "one", 7), ("team/app", "none", 7)] {
        assert_eq!(db.upload(&name(repository), id, owner).await.unwrap(), None);
        assert_eq!(db.lease_upload(&name(repository), id, owner, "x", MINUTE).await.unwrap(), Lease::Gone);
        assert!(!db.cancel_upload(&name(repository), id, owner).await.unwrap());
    }
    assert!(db.cancel_upload(&app, "one", 7).await.unwrap());
    assert_eq!(db.upload(&app, "one", 7).await.unwrap(), None);
    assert_eq!(bench.garbage_keys().await, BTreeSet::from(["key-1".to_owned()]));
    assert_eq!(db.unknown_keys(&["key-1".into(), "key-2".into()]).await.unwrap(), ["key-2"]);
    assert_eq!(db.check_uploads(Some("three"), 10).await.unwrap().len(), 1);
}

/// One request at a time uses a session; a lease ends by being given back, saved, cleared or running out.
pub async fn leases(bench: &Bench) {
    let (db, app) = (&bench.db, name("team/app"));
    db.create_upload("id", &app, 7, None, 10).await.unwrap();
    taken(bench, "id", "first").await;
    let busy = |other| matches!(other, Lease::Busy(_));
    assert!(busy(db.lease_upload(&app, "id", 7, "second", MINUTE).await.unwrap()));
    taken(bench, "id", "first").await;
    bench.pass(MINUTE / 2);
    assert!(db.renew_upload("id", "first", MINUTE).await.unwrap());
    assert!(!db.renew_upload("id", "second", MINUTE).await.unwrap());
    bench.pass(MINUTE / 2 + Duration::from_millis(1));
    assert!(busy(db.lease_upload(&app, "id", 7, "second", MINUTE).await.unwrap()));

    bench.pass(MINUTE / 2);
    taken(bench, "id", "second").await;
    assert!(!db.save_upload("id", "first", 1, vec![], None, None).await.unwrap(), "the lease was lost");
    assert!(!db.name_upload_key("id", "first", "key").await.unwrap());
    assert!(!db.renew_upload("id", "first", MINUTE).await.unwrap());
    db.release_upload("id", "first").await.unwrap();
    assert!(busy(db.lease_upload(&app, "id", 7, "third", MINUTE).await.unwrap()));
    assert!(db.save_upload("id", "second", 1, vec![], None, None).await.unwrap());
    taken(bench, "id", "third").await;
    db.release_upload("id", "third").await.unwrap();
    taken(bench, "id", "fourth").await;
    db.clear_leases().await.unwrap();
    taken(bench, "id", "fifth").await;
}

/// A session ends when nobody used it for long enough, never while it is in use; its file becomes garbage.
pub async fn expiry(bench: &Bench) {
    let (db, app) = (&bench.db, name("team/app"));
    for id in ["idle", "used", "renewed"] {
        db.create_upload(id, &app, 7, None, 10).await.unwrap();
        taken(bench, id, "request").await;
        db.name_upload_key(id, "request", &format!("key-{id}")).await.unwrap();
    }
    db.release_upload("idle", "request").await.unwrap();
    bench.pass(HOUR);
    taken(bench, "used", "request").await;
    taken(bench, "renewed", "request").await;
    db.release_upload("renewed", "request").await.unwrap();
    assert_eq!(db.expire_uploads(bench.now().minus(HOUR * 2), 10).await.unwrap(), 0);
    assert_eq!(db.expire_uploads(bench.now().minus(HOUR), 10).await.unwrap(), 1);
    assert_eq!(db.expire_uploads(bench.now(), 10).await.unwrap(), 1, "the one in use stays");
    let keys = ["key-idle", "key-renewed"].map(ToOwned::to_owned);
    assert_eq!(bench.garbage_keys().await, BTreeSet::from(keys.clone()));
    let first = db.garbage(None, 1).await.unwrap().remove(0);
    assert_eq!(db.garbage(Some(first.id), 10).await.unwrap().len(), 1);
    db.forget_garbage(&keys).await.unwrap();
    assert!(bench.garbage_keys().await.is_empty());
    assert_eq!(db.unknown_keys(&keys).await.unwrap(), keys);
}

/// Finishing ends the session of its holder, creates the repository and leaves no other trace of the session.
pub async fn finishing(bench: &Bench) {
    let (db, app) = (&bench.db, name("team/app"));
    db.create_upload("id", &app, 7, None, 10).await.unwrap();
    taken(bench, "id", "request").await;
    db.name_upload_key("id", "request", "key-1").await.unwrap();
    let gone = db.finish_upload(&app, Some(("id", "thief")), blob(1, "key-1"), &alice()).await.unwrap();
    assert_eq!(gone, Finish::UploadGone);
    assert!(!db.repository_exists(&app).await.unwrap());
    let done = db.finish_upload(&app, Some(("id", "request")), blob(1, "key-1"), &alice()).await.unwrap();
    assert_eq!(done, Finish::Done);
    assert_eq!(db.upload(&app, "id", 7).await.unwrap(), None);
    assert!(db.blob(&app, &blob(1, "").digest, None).await.unwrap().is_some());
    assert!(bench.garbage_keys().await.is_empty());
    let again = db.finish_upload(&app, Some(("id", "request")), blob(1, "key-1"), &alice()).await.unwrap();
    assert_eq!(again, Finish::UploadGone);

    // The file of a session whose bytes turn out to be few enough for a row is garbage.
    db.create_upload("small", &app, 7, None, 10).await.unwrap();
    taken(bench, "small", "request").await;
    db.name_upload_key("small", "request", "key-2").await.unwrap();
    let small = NewBlob { location: Location::Inline(Bytes::from_static(b"ab")), ..blob(1, "") };
    db.finish_upload(&app, Some(("small", "request")), small, &alice()).await.unwrap();
    assert_eq!(bench.garbage_keys().await, BTreeSet::from(["key-1".to_owned(), "key-2".to_owned()]));
    // A key that was given up is not taken again.
    assert!(db.finish_upload(&app, None, blob(2, "key-2"), &alice()).await.is_err());
    assert_eq!(bench.told(Action::BlobPush).await.len(), 2);
    bench.assert_sound().await;
}
