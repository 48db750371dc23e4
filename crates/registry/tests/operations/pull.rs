use std::fs;
use std::time::Duration;

use oci::Reference;
use registry::pull::{blob_head, manifest};
use registry::{Error, Settings};

use crate::common::*;

#[tokio::test]
async fn a_blob_is_for_pushers_until_a_manifest_names_it() {
    let world = world().await;
    let (alice, bob) = (world.access(ALICE, "a/b"), world.access(BOB, "a/b"));
    let digest = world.push_blob(&alice, b"layer").await;
    assert_eq!(world.read_blob(&world.access(CAROL, "a/b"), &digest).await.unwrap(), b"layer");
    assert!(matches!(world.read_blob(&bob, &digest).await, Err(Error::BlobUnknown(_))));
    assert!(matches!(blob_head(&world.registry, &bob, &digest).await, Err(Error::BlobUnknown(_))));
    let pushed = world.push_manifest(&alice, "v1", &image(&digest, &[])).await.unwrap();
    assert_eq!(world.read_blob(&bob, &digest).await.unwrap(), b"layer");
    assert_eq!(blob_head(&world.registry, &bob, &digest).await.unwrap().size, 5);
    registry::delete::manifest(&world.registry, &alice, &Reference::Digest(pushed.digest)).await.unwrap();
    assert!(matches!(world.read_blob(&bob, &digest).await, Err(Error::BlobUnknown(_))));
}

/// C-02, C-08, Q49.
#[tokio::test]
async fn c02_a_digest_is_no_permission() {
    let world = world().await;
    let alice = world.access(ALICE, "a/b");
    let image = world.push_image(&alice, "v1", "one").await;
    let other = world.access(ALICE, "a/c");
    assert!(matches!(world.read_blob(&other, &image.layer).await, Err(Error::NameUnknown)));
    world.push_blob(&other, b"x").await;
    assert!(matches!(world.read_blob(&other, &image.layer).await, Err(Error::BlobUnknown(_))));
    let reference = Reference::Digest(image.digest.clone());
    assert!(matches!(manifest(&world.registry, &other, &reference).await, Err(Error::ManifestUnknown(_))));
    assert!(matches!(world.read_blob(&alice, &image.digest).await, Err(Error::BlobUnknown(_))));
    let as_manifest = manifest(&world.registry, &alice, &Reference::Digest(image.layer)).await;
    assert!(matches!(as_manifest, Err(Error::ManifestUnknown(_))));
    let nowhere = manifest(&world.registry, &world.access(ALICE, "no/where"), &reference).await;
    assert!(matches!(nowhere, Err(Error::NameUnknown)));
}

/// O-09, O-10, O-13: never served, and healed by pushing it again.
#[tokio::test]
async fn o09_damaged_files() {
    let world = world().await;
    let (alice, bob) = (world.access(ALICE, "a/b"), world.access(BOB, "a/b"));
    let content = bytes(300_000);
    let digest = world.push_blob(&alice, &content).await;
    world.push_manifest(&alice, "v1", &image(&digest, &[])).await.unwrap();
    type Damage = fn(&std::path::Path, &[u8]);
    let damages: [Damage; 6] = [
        |path, content| fs::write(path, [&content[1..], b"x"].concat()).unwrap(),
        |path, content| fs::write(path, &content[1..]).unwrap(),
        |path, content| fs::write(path, [content, b"x"].concat()).unwrap(),
        |path, _| fs::remove_file(path).unwrap(),
        |path, _| {
            fs::remove_file(path).unwrap();
            fs::create_dir(path).unwrap();
        },
        |path, _| {
            fs::remove_file(path).unwrap();
            std::os::unix::fs::symlink("/etc/hostname", path).unwrap();
        },
    ];
    for damage in damages {
        let before = world.files();
        for file in &before {
            if file.is_file() && !file.is_symlink() {
                damage(file, &content);
            }
        }
        assert!(matches!(world.read_blob(&bob, &digest).await, Err(Error::Damaged { .. })));
        assert!(matches!(blob_head(&world.registry, &bob, &digest).await, Err(Error::Damaged { .. })));
        // A pusher is told to send it again.
        assert!(matches!(world.read_blob(&alice, &digest).await, Err(Error::Damaged { .. })));
        assert!(matches!(blob_head(&world.registry, &alice, &digest).await, Err(Error::BlobUnknown(_))));
        world.push_blob(&world.access(ALICE, "a/other"), &content).await;
        assert_eq!(world.read_blob(&bob, &digest).await.unwrap(), content);
    }
}

/// A restored or copied file has another time: it is hashed once, and then served.
#[tokio::test]
async fn another_time_is_looked_into() {
    let world = world().await;
    let alice = world.access(ALICE, "a/b");
    let content = bytes(300_000);
    let digest = world.push_blob(&alice, &content).await;
    let file = fs::File::options().write(true).open(&world.files()[0]).unwrap();
    file.set_modified(std::time::UNIX_EPOCH + Duration::from_secs(1)).unwrap();
    let reads = |world: &World| world.faults.calls();
    let before = reads(&world);
    assert_eq!(world.read_blob(&alice, &digest).await.unwrap(), content);
    let first = reads(&world) - before;
    assert_eq!(world.read_blob(&alice, &digest).await.unwrap(), content);
    assert!(reads(&world) - before - first < first);
}

/// A bit that flipped on the disk changes no time.
#[tokio::test]
async fn verified_reads() {
    let world = world_with(Settings { verify_reads: true, ..settings() }).await;
    let alice = world.access(ALICE, "a/b");
    let content = bytes(300_000);
    let digest = world.push_blob(&alice, &content).await;
    assert_eq!(world.read_blob(&alice, &digest).await.unwrap(), content);
    let path = &world.files()[0];
    let time = fs::metadata(path).unwrap().modified().unwrap();
    fs::write(path, [&content[1..], b"x"].concat()).unwrap();
    fs::File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
    blob_head(&world.registry, &alice, &digest).await.unwrap();
    assert!(matches!(world.read_blob(&alice, &digest).await, Err(Error::Damaged { .. })));
    // From now on who may push is asked for it again, which heals it.
    assert!(matches!(blob_head(&world.registry, &alice, &digest).await, Err(Error::BlobUnknown(_))));
    world.push_blob(&alice, &content).await;
    assert_eq!(world.read_blob(&alice, &digest).await.unwrap(), content);
}

/// Who may push and saw the blob will name it: it is there until then, for a grace.
#[tokio::test]
async fn a_look_by_a_pusher_is_a_promise() {
    let world = world().await;
    let alice = world.access(ALICE, "a/b");
    let digest = world.push_blob(&alice, b"layer").await;
    let touched = async || world.registry.db().blob(&name("a/b"), &digest, None).await.unwrap().unwrap().touched_at;
    let first = touched().await;
    world.pass(GRACE / 8);
    blob_head(&world.registry, &alice, &digest).await.unwrap();
    assert_eq!(touched().await, first);
    world.pass(GRACE / 4);
    // A reader promises nothing.
    assert!(blob_head(&world.registry, &world.access(BOB, "a/b"), &digest).await.is_err());
    assert_eq!(touched().await, first);
    blob_head(&world.registry, &alice, &digest).await.unwrap();
    assert_eq!(touched().await, world.time());
    world.pass(GRACE / 2);
    world.read_blob(&alice, &digest).await.unwrap();
    assert_eq!(touched().await, world.time());
}
