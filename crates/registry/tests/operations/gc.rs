use std::fs;
use std::time::Duration;

use oci::Reference;
use registry::gc::{self, Report};
use registry::push::{self, Position};
use registry::{Authority, Error, delete};

use crate::common::*;

async fn run(world: &World, grace: Duration) -> Report {
    let planned = gc::plan(&world.registry, grace).await.unwrap();
    let report = gc::run(&world.registry, Authority::DataDirectory, grace, &|_| {}).await.unwrap();
    // T-08: a plan is what a run does.
    assert_eq!(planned, report);
    report
}

fn nothing(report: Report) -> bool {
    report == Report::default()
}

#[tokio::test]
async fn from_the_last_reference_on_a_whole_grace() {
    let world = world().await;
    let alice = world.access(ALICE, "a/b");
    let layer = world.push_blob(&alice, &bytes(300_000)).await;
    let config = world.push_blob(&alice, b"config").await;
    let digest = world.push_manifest(&alice, "v1", &image(&config, std::slice::from_ref(&layer))).await.unwrap().digest;
    world.pass(GRACE * 10);
    assert!(nothing(run(&world, GRACE).await));

    delete::manifest(&world.registry, &alice, &Reference::Digest(digest)).await.unwrap();
    world.pass(GRACE - Duration::from_secs(1));
    assert!(nothing(run(&world, GRACE).await));
    assert_eq!(world.read_blob(&alice, &layer).await.unwrap(), bytes(300_000));
    // Which was a look by a pusher: another grace for the layer.
    world.pass(Duration::from_secs(1));
    let report = run(&world, GRACE).await;
    assert_eq!((report.deleted_manifests, report.deleted_links, report.deleted_blobs), (1, 1, 1));
    assert_eq!(world.read_blob(&alice, &layer).await.unwrap(), bytes(300_000));
    world.pass(GRACE);
    let report = run(&world, GRACE).await;
    assert_eq!((report.deleted_links, report.deleted_blobs, report.deleted_bytes), (1, 1, 300_000));
    assert!(world.files().is_empty());
    assert!(matches!(world.read_blob(&alice, &layer).await, Err(Error::BlobUnknown(_))));
    assert!(nothing(run(&world, GRACE).await));
}

#[tokio::test]
async fn q45_t06_what_is_kept() {
    let world = world().await;
    let alice = world.access(ALICE, "a/b");
    let untagged = world.push_image(&alice, "x", "one").await;
    delete::manifest(&world.registry, &alice, &Reference::parse("x").unwrap()).await.unwrap();
    let cached = world.push_blob(&alice, b"a blob that is a child of an index (Q45)").await;
    world.push_manifest(&alice, "cache", &index(std::slice::from_ref(&cached))).await.unwrap();
    let referrer = world.push_manifest(&alice, "y", &artifact(&untagged.digest, "a/b", "x")).await.unwrap().digest;
    delete::manifest(&world.registry, &alice, &Reference::parse("y").unwrap()).await.unwrap();
    world.pass(GRACE * 2);
    assert!(nothing(run(&world, GRACE).await));
    for blob in [&untagged.config, &untagged.layer, &cached] {
        world.read_blob(&alice, blob).await.unwrap();
    }
    for digest in [untagged.digest, referrer] {
        registry::pull::manifest(&world.registry, &alice, &Reference::Digest(digest)).await.unwrap();
    }
}

#[tokio::test]
async fn t05_shared_blobs() {
    let world = world().await;
    let (one, two) = (world.access(ALICE, "a/one"), world.access(ALICE, "a/two"));
    let content = bytes(100_000);
    let layer = world.push_blob(&one, &content).await;
    world.push_blob(&two, &content).await;
    world.push_manifest(&two, "v1", &image(&layer, &[])).await.unwrap();
    world.pass(GRACE);
    let report = run(&world, GRACE).await;
    assert_eq!((report.deleted_links, report.deleted_blobs), (1, 0));
    assert!(matches!(world.read_blob(&one, &layer).await, Err(Error::BlobUnknown(_))));
    assert_eq!(world.read_blob(&two, &layer).await.unwrap(), content);
    // The first copy went with the second push.
    assert_eq!(world.files().len(), 1);
}

// security: H-08
#[tokio::test]
async fn h08_idle_sessions() {
    let world = world().await;
    let alice = world.access(ALICE, "a/b");
    let id = push::start(&world.registry, &alice, None).await.unwrap().id;
    world.pass(GRACE - Duration::from_secs(1));
    push::append(&world.registry, &alice, &id, Position::default(), body(&bytes(100_000))).await.unwrap();
    world.pass(GRACE - Duration::from_secs(1));
    assert!(nothing(run(&world, Duration::ZERO).await));
    assert_eq!(world.files().len(), 1);
    push::status(&world.registry, &alice, &id).await.unwrap();
    world.pass(Duration::from_secs(2));
    assert_eq!(run(&world, GRACE).await.expired_uploads, 1);
    assert!(matches!(push::status(&world.registry, &alice, &id).await, Err(Error::UploadUnknown)));
    assert!(world.files().is_empty());
}

#[tokio::test]
async fn t01_a_push_under_way() {
    let world = world().await;
    let alice = world.access(ALICE, "a/b");
    let layer = world.push_blob(&alice, b"layer").await;
    world.pass(GRACE - Duration::from_secs(1));
    run(&world, GRACE).await;
    world.push_manifest(&alice, "v1", &image(&layer, &[])).await.unwrap();
    world.pass(GRACE * 2);
    run(&world, GRACE).await;
    assert_eq!(world.read_blob(&alice, &layer).await.unwrap(), b"layer");
    // Too late: the client is told to push the blob again.
    let late = world.push_blob(&alice, b"late").await;
    world.pass(GRACE);
    run(&world, GRACE).await;
    let sent = world.push_manifest(&alice, "v2", &image(&late, &[])).await;
    assert!(matches!(sent, Err(Error::MissingBlobs(missing)) if missing == [late]));
}

#[tokio::test]
async fn orphan_files() {
    let world = world().await;
    let store = world.folder.path().join("blobs/ab");
    let (old, young) = (store.join("ab".repeat(16)), store.join("abcd".repeat(8)));
    fs::write(&old, b"orphan").unwrap();
    fs::write(&young, b"orphan").unwrap();
    fs::write(store.join("readme"), b"not ours").unwrap();
    let time = std::time::UNIX_EPOCH + Duration::from_millis(world.time().0 as u64);
    fs::File::options().write(true).open(&young).unwrap().set_modified(time).unwrap();
    let report = run(&world, GRACE).await;
    assert_eq!((report.orphan_files, report.deleted_bytes), (1, 6));
    assert!(!old.exists() && young.exists() && store.join("readme").exists());
}

#[tokio::test]
async fn a_hold_keeps_the_bytes() {
    let world = world().await;
    let alice = world.access(ALICE, "a/b");
    let digest = world.push_blob(&alice, &bytes(100_000)).await;
    let db = world.registry.db();
    db.take_hold("x", "backup", Duration::from_secs(60)).await.unwrap();
    world.pass(GRACE);
    db.renew_hold("x", Duration::from_secs(60)).await.unwrap();
    db.take_hold("y", "backup", Duration::from_secs(60)).await.unwrap();
    let report = gc::run(&world.registry, Authority::DataDirectory, GRACE, &|_| {}).await.unwrap();
    assert!(report.held && report.deleted_blobs == 1);
    assert!(world.read_blob(&alice, &digest).await.is_err());
    assert_eq!(world.files().len(), 1);
    db.release_hold("x").await.unwrap();
    db.release_hold("y").await.unwrap();
    assert!(!gc::run(&world.registry, Authority::DataDirectory, GRACE, &|_| {}).await.unwrap().held);
    assert!(world.files().is_empty());
}

/// Collection with pushes, without any grace: what is acknowledged as an image stays complete.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t01_collection_races_with_pushes() {
    let world = std::sync::Arc::new(world().await);
    let collector = {
        let world = world.clone();
        tokio::spawn(async move {
            loop {
                gc::run(&world.registry, Authority::DataDirectory, Duration::from_millis(1), &|_| {}).await.unwrap();
                world.pass(Duration::from_millis(1));
                tokio::task::yield_now().await;
            }
        })
    };
    let mut pushed = Vec::new();
    for n in 0..60 {
        let alice = world.access(ALICE, &format!("a/r{}", n % 3));
        let content = bytes(20_000 + n % 5);
        let layer = world.push_blob(&alice, &content).await;
        let manifest = image(&layer, &[]);
        match world.push_manifest(&alice, &format!("t{n}"), &manifest).await {
            Ok(done) => pushed.push((alice, done.digest, layer, content)),
            Err(Error::MissingBlobs(_)) => {}
            Err(error) => panic!("{error}"),
        }
        assert!(!collector.is_finished());
    }
    collector.abort();
    let _ = collector.await;
    assert!(!pushed.is_empty());
    for (alice, digest, layer, content) in pushed {
        registry::pull::manifest(&world.registry, &alice, &Reference::Digest(digest)).await.unwrap();
        assert_eq!(world.read_blob(&alice, &layer).await.unwrap(), content);
    }
    let report = registry::fsck::check(&world.registry, Authority::DataDirectory, &|_| {}).await.unwrap();
    assert!(report.findings.is_empty(), "{:?}", report.findings);
}

#[tokio::test]
async fn t08_a_deleted_repository_is_planned_and_gone_in_one_run() {
    let world = world().await;
    let (one, two) = (world.access(ALICE, "a/one"), world.access(ALICE, "a/two"));
    let content = bytes(100_000);
    let shared = world.push_blob(&one, &content).await;
    let own = world.push_blob(&one, &bytes(200_000)).await;
    world.push_manifest(&one, "v1", &image(&shared, std::slice::from_ref(&own))).await.unwrap();
    world.push_manifest(&one, "v2", &image(&own, &[])).await.unwrap();
    world.push_blob(&two, &content).await;
    world.push_manifest(&two, "v1", &image(&shared, &[])).await.unwrap();
    world.pass(GRACE);
    assert!(world.registry.db().delete_repository(one.repository(), &meta::Actor::system("test")).await.unwrap());
    let report = run(&world, Duration::ZERO).await;
    assert_eq!((report.deleted_manifests, report.deleted_links, report.deleted_blobs), (2, 2, 1));
    assert_eq!(report.deleted_bytes, 200_000);
    assert_eq!(world.files().len(), 1);
    assert!(nothing(run(&world, Duration::ZERO).await));
    // With a grace, it begins when the repository's objects are closed.
    assert!(world.registry.db().delete_repository(two.repository(), &meta::Actor::system("test")).await.unwrap());
    assert!(nothing(run(&world, GRACE).await));
    world.pass(GRACE);
    assert_eq!(run(&world, GRACE).await.deleted_blobs, 1);
    assert!(world.files().is_empty());
}
