//! Two changes at the same time, on connections of their own: whatever the order, the end is that of one after the other.

use std::sync::Arc;
use std::time::Duration;

use oci::Digest;

use super::Fresh;
use crate::conformance::{FREE, GRACE, alice, any, blob, digest, image, name, tag};
use crate::{
    Action, Actor, DeleteBlob, EventFilter, Finish, Location, NewBlob, NewEvent, NewUser, PushManifest, RemoveUser,
    UpdateUser,
};

/// So often each race is run: in about half of the rounds either side begins first.
const ROUNDS: u64 = 40;

fn old_grace(fresh: &Fresh) -> oci::Timestamp {
    fresh.bench.pass(GRACE * 2);
    fresh.bench.now().minus(GRACE)
}

/// Lets the other side begin first in every second round, by a different while each time.
async fn stagger(round: u64) {
    if round % 2 == 1 {
        tokio::time::sleep(Duration::from_micros(round * 150)).await;
    }
}

// security: H-11
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn fifty_pushes_of_one_blob() {
    let fresh = Fresh::open().await;
    let db = &fresh.bench.db;
    let pushes = (0..50u64).map(|n| {
        let db = db.clone();
        tokio::spawn(async move {
            let blob = NewBlob { ..blob(1, &format!("key-{n}")) };
            db.finish_upload(&name(&format!("team/r{}", n % 10)), None, blob, &alice()).await
        })
    });
    for push in pushes.collect::<Vec<_>>() {
        assert_eq!(push.await.unwrap().unwrap(), Finish::Done);
    }
    let mut keys = Vec::new();
    for n in 0..10 {
        let row = db.blob(&name(&format!("team/r{n}")), &blob(1, "").digest, None).await.unwrap().unwrap();
        let Location::File { key, .. } = row.location else { panic!("not a file") };
        keys.push(key);
    }
    keys.dedup();
    assert_eq!(keys.len(), 1, "one stored copy");
    let garbage = fresh.bench.garbage_keys().await;
    assert_eq!(garbage.len(), 49, "every other copy is garbage, none twice");
    assert!(!garbage.contains(&keys[0]));
    assert_eq!(fresh.bench.told(Action::BlobPush).await.len(), 50);
    fresh.bench.assert_sound().await;
}

/// Collects links and blobs, beside what the test does.
fn collect(db: &crate::Db, round: u64, cutoff: oci::Timestamp) -> tokio::task::JoinHandle<()> {
    let db = db.clone();
    tokio::spawn(async move {
        stagger(round).await;
        db.gc_links(cutoff, 10, &Actor::system("gc")).await.unwrap();
        db.gc_blobs(cutoff, 10, &Actor::system("gc")).await.unwrap();
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_push_of_a_blob_races_with_its_collection() {
    let fresh = Fresh::open().await;
    let db = &fresh.bench.db;
    for round in 0..ROUNDS {
        fresh.bench.push_blob("team/old", round, &format!("old-{round}")).await;
        let cutoff = old_grace(&fresh);
        let collecting = collect(db, round, cutoff);
        stagger(round + 1).await;
        let app = name("team/new");
        let pushed = db.finish_upload(&app, None, blob(round, &format!("new-{round}")), &alice()).await.unwrap();
        assert_eq!(pushed, Finish::Done);
        collecting.await.unwrap();
        let row = db.blob(&app, &blob(round, "").digest, None).await.unwrap().expect("what was acknowledged is there");
        assert_eq!(row.location, Location::File { key: format!("new-{round}"), mtime_ns: 1 });
        let garbage = fresh.bench.garbage_keys().await;
        assert!(garbage.contains(&format!("old-{round}")) && !garbage.contains(&format!("new-{round}")), "{round}");
        fresh.bench.assert_sound().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_mount_races_with_collection() {
    let fresh = Fresh::open().await;
    let db = &fresh.bench.db;
    let mut ends = [0, 0];
    for round in 0..ROUNDS {
        let layer = fresh.bench.push_blob("team/old", round, &format!("key-{round}")).await;
        let cutoff = old_grace(&fresh);
        let collecting = collect(db, round, cutoff);
        stagger(round + 1).await;
        let (target, source) = (name("team/new"), name("team/old"));
        let mounted = db.mount_blob(&target, &source, &layer, false, &alice()).await.unwrap();
        collecting.await.unwrap();
        let there = db.blob(&target, &layer, None).await.unwrap().is_some();
        assert_eq!(mounted, there, "round {round}");
        let garbage = fresh.bench.garbage_keys().await.contains(&format!("key-{round}"));
        assert!(!(there && garbage), "round {round}: the bytes of a blob are garbage");
        ends[usize::from(mounted)] += 1;
        fresh.bench.assert_sound().await;
    }
    println!("{} mounts lost, {} won", ends[0], ends[1]);
}

/// The last manifest of one repository with a body is collected while another repository pushes the same manifest.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_push_of_a_manifest_races_with_the_collection_of_its_body() {
    let fresh = Fresh::open().await;
    let db = &fresh.bench.db;
    for round in 0..ROUNDS {
        let text = format!("m{round}");
        let (old, new) = (name("team/old"), name("team/new"));
        db.push_manifest(&old, image(&text, &[]), vec![], &alice()).await.unwrap();
        db.delete_manifest(&old, &digest(&text), Arc::new(|_| true), &FREE, &alice()).await.unwrap();
        let cutoff = old_grace(&fresh);
        let gc = db.clone();
        let collecting = tokio::spawn(async move {
            stagger(round).await;
            gc.gc_manifests(cutoff, 10, &Actor::system("gc")).await.unwrap();
        });
        stagger(round + 1).await;
        db.push_manifest(&new, image(&text, &[]), vec![any("v")], &alice()).await.unwrap();
        collecting.await.unwrap();
        let row = db.manifest_by_tag(&new, &tag("v"), u64::MAX, None).await.unwrap().unwrap();
        assert_eq!(
            row.bytes.as_deref(),
            Some(text.as_bytes()),
            "round {round}: the body went with the other's manifest"
        );
        fresh.bench.assert_sound().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_delete_of_a_blob_races_with_a_manifest_that_needs_it() {
    let fresh = Fresh::open().await;
    let (db, app) = (&fresh.bench.db, name("team/app"));
    let mut ends = [0, 0];
    for round in 0..ROUNDS {
        let layer = fresh.bench.push_blob("team/app", round, &format!("key-{round}")).await;
        let (other, gone, target) = (db.clone(), layer.clone(), app.clone());
        let deleting = tokio::spawn(async move {
            stagger(round).await;
            other.delete_blob(&target, &gone, &alice()).await.unwrap()
        });
        stagger(round + 1).await;
        let pushed = db.push_manifest(&app, image(&format!("m{round}"), &[&layer]), vec![], &alice()).await.unwrap();
        match (pushed, deleting.await.unwrap()) {
            (PushManifest::Done { .. }, DeleteBlob::InUse(_)) => ends[0] += 1,
            (PushManifest::MissingBlobs(missing), DeleteBlob::Done) => {
                assert_eq!(missing, [layer]);
                ends[1] += 1;
            }
            other => panic!("round {round}: {other:?}"),
        }
        fresh.bench.assert_sound().await;
    }
    println!("{} pushes won, {} lost", ends[0], ends[1]);
}

/// Many tags moves at once: each is told what it moved from, as one after the other.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn moves_of_one_tag_form_a_chain() {
    let fresh = Fresh::open().await;
    let (db, app) = (&fresh.bench.db, name("team/app"));
    let pushes = (0..24u64).map(|n| {
        let (db, app) = (db.clone(), app.clone());
        tokio::spawn(async move {
            let pushed = db.push_manifest(&app, image(&format!("m{n}"), &[]), vec![any("v")], &alice()).await.unwrap();
            let PushManifest::Done { changes, .. } = pushed else { panic!("{pushed:?}") };
            (changes[0].old.clone(), digest(&format!("m{n}")))
        })
    });
    let mut moves: Vec<(Option<Digest>, Digest)> = Vec::new();
    for push in pushes.collect::<Vec<_>>() {
        moves.push(push.await.unwrap());
    }
    let (mut last, mut length) = (None, 0);
    while let Some((_, new)) = moves.iter().find(|(old, _)| *old == last) {
        last = Some(new.clone());
        length += 1;
    }
    assert_eq!(length, moves.len(), "every move begins where another ended");
    let row = db.stat_manifest_by_tag(&app, &tag("v"), None).await.unwrap().unwrap();
    assert_eq!(Some(row.digest), last);
    assert_eq!(
        (fresh.bench.told(Action::TagCreate).await.len(), fresh.bench.told(Action::TagMove).await.len()),
        (1, 23)
    );
}

/// Of two who create a tag that must not be there, one does.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_of_many_creates_what_must_not_be_there() {
    let fresh = Fresh::open().await;
    let (db, app) = (&fresh.bench.db, name("team/app"));
    for round in 0..10 {
        let tag_name = format!("v{round}");
        let pushes = (0..8u64).map(|n| {
            let (db, app, tag_name) = (db.clone(), app.clone(), tag_name.clone());
            tokio::spawn(async move {
                let right = crate::TagRight { tag: tag(&tag_name), create: true, move_: false };
                let pushed = image(&format!("m{round}-{n}"), &[]);
                db.push_manifest(&app, pushed, vec![right], &alice()).await.unwrap()
            })
        });
        let mut done = 0;
        for push in pushes.collect::<Vec<_>>() {
            match push.await.unwrap() {
                PushManifest::Done { .. } => done += 1,
                PushManifest::TagDenied { .. } => {}
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(done, 1);
    }
}

/// What a repository is deleted under does not stay: it was there before and went, or it made a new one.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_push_races_with_the_delete_of_its_repository() {
    let fresh = Fresh::open().await;
    let (db, app) = (&fresh.bench.db, name("team/app"));
    for round in 0..ROUNDS {
        fresh.bench.push_blob("team/app", 1, &format!("key-{round}")).await;
        let (other, target) = (db.clone(), app.clone());
        let deleting = tokio::spawn(async move {
            stagger(round).await;
            other.delete_repository(&target, &alice()).await.unwrap()
        });
        stagger(round + 1).await;
        let pushed =
            db.push_manifest(&app, image("m", &[&blob(1, "").digest]), vec![any("v")], &alice()).await.unwrap();
        assert!(deleting.await.unwrap());
        let there = db.stat_manifest_by_tag(&app, &tag("v"), None).await.unwrap().is_some();
        match pushed {
            PushManifest::Done { .. } => assert!(!there, "round {round}: it outlived its repository"),
            PushManifest::MissingBlobs(_) => {}
            other => panic!("{other:?}"),
        }
        while db.gc_repositories(100, &Actor::system("gc")).await.unwrap().more {}
    }
    fresh.bench.pass(GRACE * 2);
    fresh.bench.collect().await;
    fresh.bench.collect().await;
    assert!(db.check_manifests(None, 100).await.unwrap().is_empty(), "nothing hangs on a deleted repository");
    assert!(db.check_links(None, 100).await.unwrap().is_empty());
}

// security: B-19
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_push_commits_after_a_revocation_that_it_was_not_decided_by() {
    let fresh = Fresh::open().await;
    let (db, app) = (&fresh.bench.db, name("team/app"));
    let mut ends = [0, 0];
    for round in 0..ROUNDS {
        let epoch = db.policy_epoch().await.unwrap();
        let actor = Actor { policy_epoch: Some(epoch), ..alice() };
        let other = db.clone();
        let revoking = tokio::spawn(async move {
            stagger(round).await;
            let user = NewUser { name: format!("u{round}"), administrator: false, password_hash: None };
            other.create_user(user, &Actor::system("test")).await.unwrap();
            // Acknowledged: from now on nothing is there that was decided before and was not.
            other
                .stat_manifest_by_digest(&name("team/app"), &digest(&format!("m{round}")), None)
                .await
                .unwrap()
                .is_some()
        });
        stagger(round + 1).await;
        let pushed = db.push_manifest(&app, image(&format!("m{round}"), &[]), vec![], &actor).await;
        let before = revoking.await.unwrap();
        match pushed {
            Ok(PushManifest::Done { .. }) => {
                assert!(before, "round {round}: a push committed after the revocation was acknowledged");
                ends[0] += 1;
            }
            Err(crate::Error::Outdated) => {
                assert!(!before);
                ends[1] += 1;
            }
            other => panic!("{other:?}"),
        }
    }
    println!("{} pushes came first, {} revocations", ends[0], ends[1]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_administrator_stays() {
    let fresh = Fresh::open().await;
    let db = &fresh.bench.db;
    let system = Actor::system("test");
    for round in 0..10 {
        let names = [format!("a{round}"), format!("b{round}")];
        for name in &names {
            let user = NewUser { name: name.clone(), administrator: true, password_hash: Some("x".to_owned()) };
            db.create_user(user, &system).await.unwrap();
        }
        if round > 0 {
            // Those that the rounds before have left.
            for old in [format!("a{}", round - 1), format!("b{}", round - 1)] {
                db.remove_user(&old, &system).await.unwrap();
            }
        }
        let (first, second) = (db.clone(), db.clone());
        let [a, b] = names;
        let (removed, demoted) = tokio::join!(
            tokio::spawn(async move { first.remove_user(&a, &Actor::system("test")).await.unwrap() }),
            tokio::spawn(
                async move { second.update_user(&b, Some(false), None, &Actor::system("test")).await.unwrap() }
            ),
        );
        let (removed, demoted) = (removed.unwrap(), demoted.unwrap());
        let refused =
            u8::from(removed == RemoveUser::LastAdministrator) + u8::from(demoted == UpdateUser::LastAdministrator);
        assert_eq!(refused, 1, "round {round}: {removed:?}, {demoted:?}");
    }
}

/// Who follows events misses none, although those that are written later may be seen earlier.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn who_follows_events_misses_none() {
    const EACH: usize = 60;
    let fresh = Fresh::open().await;
    let db = &fresh.bench.db;
    let writers: Vec<_> = (0..6)
        .map(|writer| {
            let db = db.clone();
            tokio::spawn(async move {
                for n in 0..EACH {
                    // Several in one transaction, so that ids are given out long before the commit.
                    let event = NewEvent::new(Action::Login, &alice()).reference(format!("{writer}-{n}"));
                    db.append_events(vec![event; 1 + n % 7]).await.unwrap();
                }
            })
        })
        .collect();
    let expected: usize = 6 * (0..EACH).map(|n| 1 + n % 7).sum::<usize>();
    let (mut seen, mut after) = (Vec::new(), None);
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    while seen.len() < expected {
        let page = db.events(&EventFilter::default(), after, 17).await.unwrap();
        after = page.last().map(|event| event.id).or(after);
        seen.extend(page.into_iter().map(|event| event.id));
        assert!(std::time::Instant::now() < deadline, "{} of {expected} were seen", seen.len());
    }
    for writer in writers {
        writer.await.unwrap();
    }
    assert!(seen.is_sorted());
    let all = db.events(&EventFilter::default(), None, usize::MAX).await.unwrap();
    assert_eq!(seen, all.iter().map(|event| event.id).collect::<Vec<_>>(), "those that were followed are all");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_owner_opens_no_more_sessions_than_allowed() {
    let fresh = Fresh::open().await;
    let opens = (0..20).map(|n| {
        let db = fresh.bench.db.clone();
        tokio::spawn(async move { db.create_upload(&format!("u{n}"), &name("team/app"), 1, None, 5).await.unwrap() })
    });
    let mut open = 0;
    for created in opens.collect::<Vec<_>>() {
        open += u32::from(created.await.unwrap() == crate::CreateUpload::Created);
    }
    assert_eq!(open, 5);
}

/// Two processes on one database: what one has been told the other sees.
#[tokio::test]
async fn another_process_sees_what_was_acknowledged() {
    let fresh = Fresh::open().await;
    let other = fresh.again().await;
    assert_eq!(other.store_id(), fresh.bench.db.store_id());
    fresh.bench.push_blob("team/app", 1, "key-1").await;
    assert!(other.blob(&name("team/app"), &blob(1, "").digest, None).await.unwrap().is_some());
    let epoch = other.policy_epoch().await.unwrap();
    let user = NewUser { name: "u".to_owned(), administrator: false, password_hash: None };
    fresh.bench.db.create_user(user, &alice()).await.unwrap();
    let read = other.blob(&name("team/app"), &blob(1, "").digest, Some(epoch)).await;
    assert!(matches!(read, Err(crate::Error::Outdated)));
}
