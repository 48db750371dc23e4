//! Collection, holds, and the readers of the check.

use super::*;
use crate::{GcPlan, PushManifest};

/// Everything has the whole grace from its last reference, in each repository apart, and then goes for good.
pub async fn graces(bench: &Bench) {
    let (db, app, copy) = (&bench.db, name("team/app"), name("team/copy"));
    let layer = bench.push_blob("team/app", 1, "key-1").await;
    bench.push_blob("team/copy", 1, "key-2").await;
    let unused = bench.push_blob("team/app", 2, "key-3").await;
    let small = NewBlob { location: Location::Inline(Bytes::from_static(b"abcd")), ..blob(3, "") };
    db.finish_upload(&app, None, small.clone(), &alice()).await.unwrap();
    for repository in [&app, &copy] {
        db.push_manifest(repository, image("m", &[&layer]), vec![any("v")], &alice()).await.unwrap();
    }
    bench.pass(GRACE - Duration::from_millis(1));
    assert_eq!(bench.collect().await, [0, 0, 0]);
    bench.pass(Duration::from_millis(1));
    let cutoff = bench.now().minus(GRACE);
    let plan = db.gc_plan(bench.now(), cutoff, cutoff).await.unwrap();
    assert_eq!(plan, GcPlan { links: 2, blobs: 2, bytes: 3 + 4, garbage: 1, ..GcPlan::default() });
    assert_eq!(bench.collect().await, [0, 2, 2], "what no manifest needs");
    assert_eq!(db.blob(&app, &unused, None).await.unwrap(), None);
    assert_eq!(db.blob(&app, &small.digest, None).await.unwrap(), None);
    assert_eq!(bench.garbage_keys().await, BTreeSet::from(["key-1".to_owned(), "key-3".to_owned()]));

    db.delete_manifest(&app, &digest("m"), Arc::new(|_| true), &FREE, &alice()).await.unwrap();
    bench.pass(GRACE - Duration::from_millis(1));
    assert_eq!(bench.collect().await, [0, 0, 0], "the grace counts from the deletion");
    assert!(db.blob(&app, &layer, None).await.unwrap().is_some());
    bench.pass(Duration::from_millis(1));
    assert_eq!(bench.collect().await, [1, 1, 0], "the other repository needs the blob");
    assert_eq!(db.blob(&app, &layer, None).await.unwrap(), None);
    assert!(db.blob(&copy, &layer, None).await.unwrap().unwrap().accepted);
    assert!(
        db.manifest_by_tag(&copy, &tag("v"), u64::MAX, None).await.unwrap().is_some(),
        "the body is the other's too"
    );
    bench.assert_sound().await;

    db.delete_manifest(&copy, &digest("m"), Arc::new(|_| true), &FREE, &alice()).await.unwrap();
    bench.pass(GRACE);
    let cutoff = bench.now().minus(GRACE);
    let plan = db.gc_plan(bench.now(), cutoff, cutoff).await.unwrap();
    assert_eq!(plan, GcPlan { manifests: 1, links: 1, blobs: 1, bytes: 2, garbage: 2, ..GcPlan::default() });
    assert_eq!(bench.collect().await, [1, 1, 1]);
    assert_eq!(bench.garbage_keys().await.len(), 3);
    assert!(db.check_blobs(None, 10).await.unwrap().is_empty());
    assert!(db.check_links(None, 10).await.unwrap().is_empty());
    assert!(db.check_manifests(None, 10).await.unwrap().is_empty());
    let kinds: Vec<String> = bench.told(Action::GcDeleted).await.into_iter().filter_map(|event| event.detail).collect();
    assert_eq!(kinds.iter().filter(|detail| detail.contains("blob")).count(), 3);
    assert_eq!(kinds.len(), 2 + 4 + 3);
    bench.assert_sound().await;
}

/// A reference in time keeps a blob however old it is; a blob that went is reported as missing, never half there.
pub async fn touch_before_reference(bench: &Bench) {
    let (db, app) = (&bench.db, name("team/app"));
    db.set_touch_after(GRACE / 4);
    let layer = bench.push_blob("team/app", 1, "key-1").await;
    bench.pass(GRACE * 3);
    db.touch_blob(&app, &layer).await.unwrap();
    assert_eq!(bench.collect().await, [0, 0, 0], "a client was told that it is there");
    bench.pass(GRACE * 3);
    db.push_manifest(&app, image("m", &[&layer]), vec![], &alice()).await.unwrap();
    assert_eq!(db.blob(&app, &layer, None).await.unwrap().unwrap().touched_at, bench.now());
    // Young enough: the row of a popular layer is not written again.
    bench.pass(GRACE / 8);
    let touched = db.blob(&app, &layer, None).await.unwrap().unwrap().touched_at;
    db.push_manifest(&app, image("n", &[&layer]), vec![], &alice()).await.unwrap();
    assert_eq!(db.blob(&app, &layer, None).await.unwrap().unwrap().touched_at, touched);
    bench.pass(GRACE * 3);
    assert_eq!(bench.collect().await, [0, 0, 0]);

    for text in ["m", "n"] {
        db.delete_manifest(&app, &digest(text), Arc::new(|_| true), &FREE, &alice()).await.unwrap();
    }
    bench.pass(GRACE);
    assert_eq!(bench.collect().await, [2, 1, 1]);
    let refused = db.push_manifest(&app, image("m", &[&layer]), vec![], &alice()).await.unwrap();
    assert_eq!(refused, PushManifest::MissingBlobs(vec![layer.clone()]));
    bench.push_blob("team/app", 1, "key-2").await;
    assert_eq!(bench.garbage_keys().await, BTreeSet::from(["key-1".to_owned()]), "the new copy is not hit");
    assert!(db.blob(&app, &layer, None).await.unwrap().is_some());
    bench.assert_sound().await;
}

/// A deleted repository is gone at once; a push makes a new one that has nothing of the old.
pub async fn deleted_repositories(bench: &Bench) {
    let (db, app) = (&bench.db, name("team/app"));
    let layer = bench.push_blob("team/app", 1, "key-1").await;
    for n in 0..10 {
        let pushed = image(&format!("m{n}"), &[&layer]);
        db.push_manifest(&app, pushed, vec![any(&format!("v{n}"))], &alice()).await.unwrap();
    }
    assert!(db.delete_repository(&app, &alice()).await.unwrap());
    assert!(!db.delete_repository(&app, &alice()).await.unwrap());
    assert!(!db.repository_exists(&app).await.unwrap());
    assert_eq!(db.blob(&app, &layer, None).await.unwrap(), None);
    assert_eq!(db.manifest_by_tag(&app, &tag("v1"), u64::MAX, None).await.unwrap(), None);
    assert_eq!(db.tags(&app, None, 10).await.unwrap(), None);
    assert!(db.repositories(&[(String::new(), None)], None, 10).await.unwrap().is_empty());
    assert!(db.linking_repositories(&layer, 10).await.unwrap().is_empty());

    bench.push_blob("team/app", 2, "key-2").await;
    assert_eq!(db.blob(&app, &layer, None).await.unwrap(), None);
    assert_eq!(db.tags(&app, None, 10).await.unwrap(), Some(vec![]));
    let cutoff = bench.now().minus(GRACE);
    assert_eq!(db.gc_plan(bench.now(), cutoff, cutoff).await.unwrap().repositories, 1);
    assert_eq!(bench.collect().await, [0, 0, 0], "the graces begin with the deletion");
    assert_eq!(db.gc_plan(bench.now(), cutoff, cutoff).await.unwrap().repositories, 0);
    assert_eq!(bench.told(Action::TagDelete).await.len(), 10);
    assert_eq!(bench.told(Action::ManifestDelete).await.len(), 10);
    bench.assert_sound().await;
    bench.pass(GRACE);
    assert_eq!(bench.collect().await, [10, 2, 2]);
    bench.assert_sound().await;
}

/// A hold runs until it is released or its time is over.
pub async fn holds(bench: &Bench) {
    let db = &bench.db;
    assert_eq!(db.active_hold().await.unwrap(), None);
    db.take_hold("one", "backup", HOUR).await.unwrap();
    assert!(db.take_hold("one", "backup", HOUR).await.is_err());
    db.take_hold("two", "backup", HOUR / 2).await.unwrap();
    assert_eq!(db.active_hold().await.unwrap().unwrap().id, "one");
    db.release_hold("one").await.unwrap();
    assert_eq!(db.active_hold().await.unwrap().unwrap().id, "two");
    assert!(db.renew_hold("two", HOUR).await.unwrap());
    bench.pass(HOUR);
    assert_eq!(db.active_hold().await.unwrap(), None);
    assert!(!db.renew_hold("two", HOUR).await.unwrap(), "a hold that ran out is not renewed");
}

/// The check reads every row once, page by page.
pub async fn checks(bench: &Bench) {
    let db = &bench.db;
    for n in 0..7 {
        let repository = format!("team/app{}", n % 3);
        let layer = bench.push_blob(&repository, n, &format!("key-{n}")).await;
        let mut pushed = image(&format!("m{n}"), &[&layer]);
        pushed.edges.push(Edge { target: layer.clone(), kind: EdgeKind::Config });
        pushed.subject = Some(digest("subject"));
        db.push_manifest(&name(&repository), pushed, vec![any(&format!("v{n}"))], &alice()).await.unwrap();
    }
    let mut blobs = Vec::new();
    loop {
        let page = db.check_blobs(blobs.last().map(|b: &crate::BlobCheck| &b.digest), 3).await.unwrap();
        if page.is_empty() {
            break;
        }
        blobs.extend(page);
    }
    assert_eq!(blobs.iter().map(|b| &b.digest).collect::<BTreeSet<_>>().len(), 7);
    let mut links: Vec<crate::LinkCheck> = Vec::new();
    loop {
        let page = db.check_links(links.last().map(|l| (l.repository_id, &l.digest)), 2).await.unwrap();
        if page.is_empty() {
            break;
        }
        links.extend(page);
    }
    assert_eq!(links.len(), 7);
    assert!(links.iter().all(|link| link.has_blob && link.mark_agrees && link.state == "live"));
    let first = db.check_manifests(None, 4).await.unwrap();
    let second = db.check_manifests(first.last().map(|m| m.id), 4).await.unwrap();
    assert_eq!((first.len(), second.len()), (4, 3));
    assert_eq!(first[0].edges.len(), 2);
    assert_eq!(first[0].subject, Some(digest("subject")));
    let edges = db.check_edges(Some(second[0].id), 2).await.unwrap();
    assert_eq!(edges.len(), 4);
    assert!(edges.iter().all(|edge| edge.has_blob && !edge.has_manifest));
    let tags = db.check_tags(None, 5).await.unwrap();
    assert_eq!(db.check_tags(tags.last().map(|t| t.id), 5).await.unwrap().len(), 2);
    db.repair_blob_mark(&blobs[0].digest).await.unwrap();
    db.repair_link_mark(links[0].repository_id, &links[0].digest).await.unwrap();
    bench.assert_sound().await;
}
