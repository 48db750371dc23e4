//! Manifests, tags, referrers, lists.

use super::*;
use crate::{DeleteManifest, DeleteTag, ManifestRow, ManifestStat, PushManifest, TagChange, TagVerb};

/// What was pushed is served, byte for byte, with the media type of its repository.
pub async fn manifest_life(bench: &Bench) {
    let (db, app) = (&bench.db, name("team/app"));
    let layer = bench.push_blob("team/app", 1, "key-1").await;
    let pushed = image("m", &[&layer]);
    let done = db.push_manifest(&app, pushed.clone(), vec![any("v1"), any("v1")], &alice()).await.unwrap();
    let changes = vec![TagChange { tag: tag("v1"), old: None }];
    assert_eq!(done, PushManifest::Done { created: true, changes });
    let row = ManifestRow {
        digest: pushed.digest.clone(),
        media_type: pushed.media_type.clone(),
        size: 1,
        bytes: Some(pushed.bytes.clone()),
    };
    assert_eq!(db.manifest_by_tag(&app, &tag("v1"), u64::MAX, None).await.unwrap().as_ref(), Some(&row));
    assert_eq!(db.manifest_by_digest(&app, &pushed.digest, u64::MAX, None).await.unwrap().as_ref(), Some(&row));
    let long = Some(ManifestRow { bytes: None, ..row.clone() });
    assert_eq!(db.manifest_by_tag(&app, &tag("v1"), 0, None).await.unwrap(), long);
    assert_eq!(db.manifest_by_digest(&app, &pushed.digest, 0, None).await.unwrap(), long);
    let stat = ManifestStat { digest: row.digest.clone(), media_type: row.media_type.clone(), size: 1 };
    assert_eq!(db.stat_manifest_by_tag(&app, &tag("v1"), None).await.unwrap().as_ref(), Some(&stat));
    assert_eq!(db.stat_manifest_by_digest(&app, &pushed.digest, None).await.unwrap(), Some(stat));
    assert_eq!(db.manifest_by_tag(&app, &tag("v2"), u64::MAX, None).await.unwrap(), None);
    assert_eq!(db.manifest_by_digest(&name("team/other"), &pushed.digest, u64::MAX, None).await.unwrap(), None);

    // Another repository may know the same bytes by another media type; neither sees the other's.
    let other = NewManifest { media_type: "x/y".to_owned(), edges: vec![], required: vec![], ..pushed.clone() };
    db.push_manifest(&name("team/other"), other, vec![], &alice()).await.unwrap();
    let served = |repository: &str| {
        let repository = name(repository);
        let digest = pushed.digest.clone();
        async move { db.manifest_by_digest(&repository, &digest, u64::MAX, None).await.unwrap().unwrap().media_type }
    };
    assert_eq!((served("team/other").await.as_str(), served("team/app").await), ("x/y", pushed.media_type.clone()));

    let again = db.push_manifest(&app, pushed.clone(), vec![any("v1")], &alice()).await.unwrap();
    assert_eq!(again, PushManifest::Done { created: false, changes: vec![] });
    assert_eq!(bench.told(Action::TagCreate).await.len(), 1);
    bench.assert_sound().await;
}

/// A tag is created with one right, moved with another; its rows tell its history.
pub async fn tag_rights(bench: &Bench) {
    let (db, app) = (&bench.db, name("team/app"));
    let right = |text: &str, create, move_| vec![TagRight { tag: tag(text), create, move_ }];
    let denied = |text: &str, verb| PushManifest::TagDenied { tag: tag(text), verb };
    let push = |text: &'static str, rights| db.push_manifest(&app, image(text, &[]), rights, &ALICE);
    assert_eq!(push("m1", right("v", false, true)).await.unwrap(), denied("v", TagVerb::Create));
    assert!(!db.repository_exists(&app).await.unwrap());
    push("m1", right("v", true, false)).await.unwrap();
    assert_eq!(push("m2", right("v", true, false)).await.unwrap(), denied("v", TagVerb::Move));
    assert_eq!(db.manifest_by_tag(&app, &tag("v"), u64::MAX, None).await.unwrap().unwrap().digest, digest("m1"));
    assert_eq!(db.manifest_by_digest(&app, &digest("m2"), u64::MAX, None).await.unwrap(), None);
    // It points there already: nothing to do for whoever could have done it.
    for rights in [right("v", true, false), right("v", false, true)] {
        assert_eq!(push("m1", rights).await.unwrap(), PushManifest::Done { created: false, changes: vec![] });
    }
    assert_eq!(push("m1", right("v", false, false)).await.unwrap(), denied("v", TagVerb::Move));
    bench.pass(HOUR);
    let moved = push("m2", right("v", false, true)).await.unwrap();
    let changes = vec![TagChange { tag: tag("v"), old: Some(digest("m1")) }];
    assert_eq!(moved, PushManifest::Done { created: true, changes });
    assert_eq!(db.manifest_by_tag(&app, &tag("v"), u64::MAX, None).await.unwrap().unwrap().digest, digest("m2"));
    let (v, stale) = (tag("v"), if_match(&digest("m1")));
    assert_eq!(db.delete_tag(&app, &v, &stale, &alice()).await.unwrap(), DeleteTag::PreconditionFailed);
    let delete = || db.delete_tag(&app, &v, &FREE, &ALICE);
    assert_eq!(delete().await.unwrap(), DeleteTag::Done);
    assert_eq!(delete().await.unwrap(), DeleteTag::Unknown);
    assert_eq!(db.manifest_by_tag(&app, &tag("v"), u64::MAX, None).await.unwrap(), None);
    assert!(db.manifest_by_digest(&app, &digest("m2"), u64::MAX, None).await.unwrap().is_some());
    assert_eq!(push("m2", right("v", false, true)).await.unwrap(), denied("v", TagVerb::Create));

    let moved = bench.told(Action::TagMove).await.remove(0);
    assert_eq!((moved.reference.as_deref(), moved.digest.as_ref()), (Some("v"), Some(&digest("m2"))));
    let detail: serde_json::Value = serde_json::from_str(moved.detail.as_deref().unwrap()).unwrap();
    assert_eq!(detail, serde_json::json!({ "old": digest("m1").as_str(), "new": digest("m2").as_str() }));
    assert_eq!(bench.told(Action::TagDelete).await.remove(0).digest, Some(digest("m2")));
}

static ALICE: std::sync::LazyLock<Actor> = std::sync::LazyLock::new(alice);

fn if_match(digest: &Digest) -> Precondition {
    Precondition { if_match: Some(vec![oci::conditional::etag(digest)]), if_none_match: None }
}

/// Of several that found the same state only one changes it, by tag and by digest.
pub async fn preconditions(bench: &Bench) {
    let (db, app) = (&bench.db, name("team/app"));
    let create = || Precondition { if_match: None, if_none_match: Some(vec!["*".to_owned()]) };
    let push = |text: &'static str, reference: Reference, precondition| {
        let tags = match &reference {
            Reference::Tag(tag) => vec![TagRight { tag: tag.clone(), create: true, move_: true }],
            Reference::Digest(_) => vec![],
        };
        let condition = Some((reference, precondition));
        db.push_manifest_if(&app, image(text, &[]), tags, condition, &ALICE)
    };
    let by_tag = || Reference::Tag(tag("v"));
    let failed = PushManifest::PreconditionFailed;
    assert_eq!(push("m1", by_tag(), if_match(&digest("m1"))).await.unwrap(), failed, "nothing is there");
    assert!(!db.repository_exists(&app).await.unwrap());
    push("m1", by_tag(), create()).await.unwrap();
    assert_eq!(push("m2", by_tag(), create()).await.unwrap(), failed);
    let raced = ["m2", "m3", "m4", "m5"].map(|text| push(text, by_tag(), if_match(&digest("m1"))));
    let ends = futures_util::future::join_all(raced).await.into_iter().map(Result::unwrap);
    assert_eq!(ends.filter(|end| *end == failed).count(), 3);

    let by_digest = |text| Reference::Digest(digest(text));
    push("d", by_digest("d"), create()).await.unwrap();
    assert_eq!(push("d", by_digest("d"), create()).await.unwrap(), failed);
    let judge = || -> crate::TagJudge { std::sync::Arc::new(|_: &Tag| true) };
    let kept = db.delete_manifest(&app, &digest("d"), judge(), &if_match(&digest("m1")), &alice()).await.unwrap();
    assert_eq!(kept, DeleteManifest::PreconditionFailed);
    let gone = db.delete_manifest(&app, &digest("d"), judge(), &if_match(&digest("d")), &alice()).await.unwrap();
    assert_eq!(gone, DeleteManifest::Done { tags: vec![] });
    push("d", by_digest("d"), create()).await.unwrap();

    // Whoever would be refused anyway is refused for that.
    let rights = vec![TagRight { tag: tag("v"), create: true, move_: false }];
    let condition = Some((by_tag(), create()));
    let refused = db.push_manifest_if(&app, image("m9", &[]), rights, condition, &alice()).await.unwrap();
    assert_eq!(refused, PushManifest::TagDenied { tag: tag("v"), verb: TagVerb::Move });
    let condition = Some((by_tag(), create()));
    let missing = image("m9", &[&digest("x")]);
    let refused = db.push_manifest_if(&app, missing, vec![any("v")], condition, &alice()).await.unwrap();
    assert_eq!(refused, PushManifest::MissingBlobs(vec![digest("x")]));
    bench.assert_sound().await;
}

/// One tag that is refused, or one blob that is missing, and nothing is done at all.
pub async fn all_or_nothing(bench: &Bench) {
    let (db, app) = (&bench.db, name("team/app"));
    let layer = bench.push_blob("team/app", 1, "key-1").await;
    db.push_manifest(&app, image("old", &[&layer]), vec![any("existing")], &alice()).await.unwrap();
    let before = db.events(&EventFilter::default(), None, 100).await.unwrap().len();
    let rights = vec![any("new"), TagRight { tag: tag("existing"), create: true, move_: false }];
    let refused = db.push_manifest(&app, image("m", &[&layer]), rights, &alice()).await.unwrap();
    assert_eq!(refused, PushManifest::TagDenied { tag: tag("existing"), verb: TagVerb::Move });
    let missing = [digest("x"), digest("y")];
    let refused = db
        .push_manifest(&app, image("m", &[&missing[0], &layer, &missing[1], &missing[0]]), vec![any("new")], &alice())
        .await
        .unwrap();
    assert_eq!(refused, PushManifest::MissingBlobs(missing.to_vec()));
    assert_eq!(db.tags(&app, None, 10).await.unwrap().unwrap(), [tag("existing")]);
    assert_eq!(db.manifest_by_digest(&app, &digest("m"), u64::MAX, None).await.unwrap(), None);
    assert_eq!(db.events(&EventFilter::default(), None, 100).await.unwrap().len(), before);
    // Elsewhere the blob is as missing as a random one, although the store has it.
    let refused = db.push_manifest(&name("team/other"), image("m", &[&layer]), vec![], &alice()).await.unwrap();
    assert_eq!(refused, PushManifest::MissingBlobs(vec![layer]));
    assert!(!db.repository_exists(&name("team/other")).await.unwrap());
    bench.assert_sound().await;
}

/// A deleted manifest is gone with its tags at once; pushed again it is back.
pub async fn deleted_manifests(bench: &Bench) {
    let (db, app) = (&bench.db, name("team/app"));
    let layer = bench.push_blob("team/app", 1, "key-1").await;
    let pushed = image("m", &[&layer]);
    db.push_manifest(&app, pushed.clone(), vec![any("a"), any("b")], &alice()).await.unwrap();
    db.push_manifest(&app, image("other", &[]), vec![any("c")], &alice()).await.unwrap();
    let delete =
        |judge: fn(&Tag) -> bool| db.delete_manifest(&app, &pushed.digest, std::sync::Arc::new(judge), &FREE, &ALICE);
    assert_eq!(delete(|tag| tag.as_str() == "a").await.unwrap(), DeleteManifest::TagDenied(tag("b")));
    assert_eq!(db.tags(&app, None, 10).await.unwrap().unwrap().len(), 3);
    assert_eq!(delete(|_| true).await.unwrap(), DeleteManifest::Done { tags: vec![tag("a"), tag("b")] });
    assert_eq!(delete(|_| true).await.unwrap(), DeleteManifest::Unknown);
    assert_eq!(db.tags(&app, None, 10).await.unwrap().unwrap(), [tag("c")]);
    assert_eq!(db.manifest_by_digest(&app, &pushed.digest, u64::MAX, None).await.unwrap(), None);
    assert_eq!(db.stat_manifest_by_tag(&app, &tag("a"), None).await.unwrap(), None);
    assert!(!db.blob(&app, &layer, None).await.unwrap().unwrap().accepted);
    bench.assert_sound().await;

    bench.pass(HOUR);
    let again = db.push_manifest(&app, pushed.clone(), vec![any("a")], &alice()).await.unwrap();
    assert!(matches!(again, PushManifest::Done { created: true, .. }));
    assert_eq!(db.manifest_by_tag(&app, &tag("a"), u64::MAX, None).await.unwrap().unwrap().bytes, Some(pushed.bytes));
    assert!(db.blob(&app, &layer, None).await.unwrap().unwrap().accepted);
    let details = db.tag_details(&app, None, 1).await.unwrap().remove(0);
    assert_eq!((details.name, details.digest, details.size), (tag("a"), pushed.digest.clone(), 1));
    assert_eq!((details.pushed_at, details.pushed_by.as_str()), (bench.now(), "user:alice"));
    assert_eq!(bench.told(Action::ManifestDelete).await.len(), 1);
    bench.assert_sound().await;
}

/// What a repository never had, or lost, may be named all the same; an index may name blobs, which it keeps.
pub async fn sparse_indexes(bench: &Bench) {
    let (db, app) = (&bench.db, name("team/app"));
    let cache = bench.push_blob("team/app", 1, "key-1").await;
    let child = |target: &Digest| Edge { target: target.clone(), kind: EdgeKind::Child };
    let mut index = image("index", &[]);
    let subject = Edge { target: digest("subject"), kind: EdgeKind::Subject };
    index.edges = vec![child(&cache), child(&digest("sparse")), subject];
    db.push_manifest(&app, index.clone(), vec![], &alice()).await.unwrap();
    let edges = db.check_edges(None, 10).await.unwrap();
    assert_eq!(edges.len(), 2, "a subject is no edge that keeps anything");
    assert_eq!(edges.iter().filter(|edge| edge.has_blob).map(|edge| &edge.target).collect::<Vec<_>>(), [&cache]);
    bench.pass(GRACE * 2);
    assert_eq!(bench.collect().await, [0, 0, 0]);
    assert!(db.blob(&app, &cache, None).await.unwrap().unwrap().accepted);
    // What was missing comes later and is accepted at once.
    let late = NewBlob { digest: digest("sparse"), ..blob(2, "key-2") };
    db.finish_upload(&app, None, late, &alice()).await.unwrap();
    assert!(db.blob(&app, &digest("sparse"), None).await.unwrap().unwrap().accepted);
    bench.pass(GRACE * 2);
    assert_eq!(bench.collect().await, [0, 0, 0]);
    bench.assert_sound().await;
}

/// Referrers are those of the repository, whatever tags there are, page by page in the order of their digests.
pub async fn referrers(bench: &Bench) {
    let (db, app, subject) = (&bench.db, name("team/app"), digest("subject"));
    let of = |text: &str| NewManifest {
        subject: Some(digest("subject")),
        artifact_type: Some("a/b".to_owned()),
        annotations: Some("{\"k\":\"v\"}".to_owned()),
        ..image(text, &[])
    };
    assert!(db.referrers(&app, &subject, None, 10).await.unwrap().is_empty());
    let mut all: Vec<Digest> = Vec::new();
    for n in 0..5 {
        db.push_manifest(&app, of(&format!("referrer {n}")), vec![], &alice()).await.unwrap();
        all.push(digest(&format!("referrer {n}")));
    }
    all.sort();
    db.push_manifest(&name("team/other"), of("elsewhere"), vec![], &alice()).await.unwrap();
    db.push_manifest(&app, image("none", &[]), vec![], &alice()).await.unwrap();
    let first = db.referrers(&app, &subject, None, 3).await.unwrap();
    let rest = db.referrers(&app, &subject, Some(first[2].digest.as_str()), 3).await.unwrap();
    let listed: Vec<&Digest> = first.iter().chain(&rest).map(|row| &row.digest).collect();
    assert_eq!(listed, all.iter().collect::<Vec<_>>());
    assert_eq!(
        (first[0].artifact_type.as_deref(), first[0].annotations.as_deref()),
        (Some("a/b"), Some("{\"k\":\"v\"}"))
    );
    db.delete_manifest(&app, &all[0], Arc::new(|_| true), &FREE, &alice()).await.unwrap();
    let left = db.referrers(&app, &subject, Some("no digest"), 10).await.unwrap();
    assert_eq!(left.iter().map(|row| &row.digest).collect::<Vec<_>>(), all[1..].iter().collect::<Vec<_>>());
}

/// Tags are listed in byte order, after a key that need not exist.
pub async fn tag_lists(bench: &Bench) {
    let (db, app) = (&bench.db, name("team/app"));
    assert_eq!(db.tags(&app, None, 10).await.unwrap(), None);
    bench.push_blob("team/app", 1, "key").await;
    assert_eq!(db.tags(&app, None, 10).await.unwrap(), Some(vec![]));
    let texts = ["v2", "V1", "_x", "a.b", "v10", "0"];
    db.push_manifest(&app, image("m", &[]), texts.map(any).to_vec(), &alice()).await.unwrap();
    let list = |last: Option<&'static str>, limit| async move {
        let tags = db.tags(&name("team/app"), last, limit).await.unwrap().unwrap();
        tags.iter().map(|tag| tag.as_str().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(list(None, 10).await, ["0", "V1", "_x", "a.b", "v10", "v2"]);
    assert_eq!(list(None, 2).await, ["0", "V1"]);
    assert_eq!(list(Some("V1"), 2).await, ["_x", "a.b"]);
    assert_eq!(list(Some("v1"), 2).await, ["v10", "v2"]);
    assert_eq!(list(Some("v2"), 2).await, Vec::<String>::new());
    let details = db.tag_details(&app, Some("a"), 2).await.unwrap();
    assert_eq!(details.iter().map(|row| row.name.as_str()).collect::<Vec<_>>(), ["a.b", "v10"]);
}

/// Repositories are listed in byte order, from ranges of names.
pub async fn catalog(bench: &Bench) {
    let db = &bench.db;
    for repository in ["b/x", "a", "a/b", "a-b", "c", "b"] {
        bench.push_blob(repository, 1, &format!("key-{}", repository.replace('/', "-in-"))).await;
    }
    let range = |start: &str, end: Option<&str>| (start.to_owned(), end.map(ToOwned::to_owned));
    let list = |ranges: Vec<(String, Option<String>)>, last: Option<&'static str>, limit| async move {
        let names = db.repositories(&ranges, last, limit).await.unwrap();
        names.iter().map(|name| name.as_str().to_owned()).collect::<Vec<_>>()
    };
    let all = || vec![range("", None)];
    assert_eq!(list(all(), None, 10).await, ["a", "a-b", "a/b", "b", "b/x", "c"]);
    assert_eq!(list(all(), Some("a-b"), 2).await, ["a/b", "b"]);
    let some = || vec![range("a/", Some("a0")), range("b", Some("b\0")), range("c", None)];
    assert_eq!(list(some(), None, 10).await, ["a/b", "b", "c"]);
    assert_eq!(list(some(), None, 2).await, ["a/b", "b"]);
    assert_eq!(list(some(), Some("a/b"), 10).await, ["b", "c"]);
    assert_eq!(list(vec![], None, 10).await, Vec::<String>::new());
    db.push_manifest(&name("a"), image("m", &[&blob(1, "").digest]), vec![any("v")], &alice()).await.unwrap();
    let details = db.repository_details(&name("a")).await.unwrap().unwrap();
    assert_eq!((details.tags, details.manifests, details.blobs, details.bytes), (1, 1, 1, 2));
    assert_eq!((details.created_at, details.created_by.as_str()), (bench.now(), "user:alice"));
    let rows = db.repository_rows(Some("a-b"), 2).await.unwrap();
    assert_eq!(rows.iter().map(|row| row.name.as_str()).collect::<Vec<_>>(), ["a/b", "b"]);
    assert_eq!(db.repository_details(&name("none")).await.unwrap(), None);
}
