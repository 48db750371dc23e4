use std::fs;

use oci::Reference;
use registry::fsck::{Code, Report, Severity, check, repair};
use registry::push::{self, Position};
use registry::{Authority, Error, delete, pull};

use crate::common::*;

async fn report(world: &World) -> Report {
    check(&world.registry, Authority::DataDirectory, &|_| {}).await.unwrap()
}

async fn codes(world: &World) -> Vec<Code> {
    report(world).await.findings.iter().map(|finding| finding.code).collect()
}

/// Changes rows behind the program's back. Where the engines write a thing differently, the second text is PostgreSQL's.
fn sql(world: &World, text: &str, postgres: Option<&str>) {
    match &world.database {
        Some(database) => drop(database.run(postgres.unwrap_or(text)).unwrap()),
        None => {
            let file = world.folder.path().join("meta.db");
            rusqlite::Connection::open(file).unwrap().execute_batch(text).unwrap();
        }
    }
}

async fn filled() -> (World, Image) {
    let world = world().await;
    let alice = world.access(ALICE, "a/b");
    let layer = world.push_blob(&alice, &bytes(300_000)).await;
    let config = world.push_blob(&alice, b"config").await;
    let manifest = image(&config, std::slice::from_ref(&layer));
    let digest = world.push_manifest(&alice, "v1", &manifest).await.unwrap().digest;
    (world, Image { config, layer, digest, bytes: manifest })
}

#[tokio::test]
async fn a_sound_store_has_no_findings() {
    let (world, image) = filled().await;
    let alice = world.access(ALICE, "a/b");
    world.push_manifest(&alice, "index", &index(&[image.digest.clone(), sha256(b"elsewhere")])).await.unwrap();
    world.push_manifest(&alice, "artifact", &artifact(&image.digest, "a/b", "x")).await.unwrap();
    let other = world.push_image(&world.access(ALICE, "a/c"), "v1", "x").await;
    delete::manifest(&world.registry, &world.access(ALICE, "a/c"), &Reference::Digest(other.digest)).await.unwrap();
    for size in [100, 100_000] {
        let id = push::start(&world.registry, &alice, None).await.unwrap().id;
        push::append(&world.registry, &alice, &id, Position::default(), body(&bytes(size))).await.unwrap();
    }
    let report = report(&world).await;
    assert!(report.findings.is_empty(), "{:?}", report.findings);
    let checked = report.checked;
    assert_eq!((checked.blobs, checked.manifests, checked.tags, checked.links), (4, 4, 3, 4));
}

#[tokio::test]
async fn files_that_are_not_what_they_were() {
    let (world, image) = filled().await;
    let path = world.files().pop().unwrap();
    let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1);
    fs::File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
    assert_eq!(codes(&world).await, [Code::BlobTimeChanged]);
    let repaired = repair(&world.registry, Authority::DataDirectory, &|_| {}).await.unwrap();
    assert!(repaired.findings.iter().all(|finding| finding.repaired && finding.severity == Severity::Note));
    assert!(codes(&world).await.is_empty());

    // Nothing tells it from outside, until it was found.
    let time = fs::metadata(&path).unwrap().modified().unwrap();
    fs::write(&path, [&bytes(299_999)[..], b"x"].concat()).unwrap();
    fs::File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
    let (alice, other) = (world.access(ALICE, "a/b"), world.access(ALICE, "a/mounted"));
    pull::blob_head(&world.registry, &alice, &image.layer).await.unwrap();
    let damaged = report(&world).await;
    let found = &damaged.findings[0];
    assert_eq!((damaged.findings.len(), found.code), (1, Code::BlobDamaged));
    let hit = found.repository.clone().unwrap();
    assert!(found.message.contains(&hit), "{}", found.message);
    assert!(matches!(pull::blob_head(&world.registry, &alice, &image.layer).await, Err(Error::BlobUnknown(_))));
    assert!(!push::mount(&world.registry, &other, &name(&hit), &image.layer).await.unwrap());
    fs::write(&path, b"short").unwrap();
    assert_eq!(codes(&world).await, [Code::BlobDamaged]);
    fs::remove_file(&path).unwrap();
    let report = report(&world).await;
    assert_eq!((report.findings.len(), report.findings[0].code), (1, Code::BlobMissing));
    assert_eq!(report.findings[0].severity, Severity::Error);
    assert_eq!(report.findings[0].digest.as_deref(), Some(image.layer.as_str()));
    // Never repaired by forgetting it: pushing it again heals it.
    let repaired = repair(&world.registry, Authority::DataDirectory, &|_| {}).await.unwrap();
    assert!(!repaired.findings[0].repaired);
    world.push_blob(&world.access(ALICE, "a/c"), &bytes(300_000)).await;
    assert!(codes(&world).await.is_empty());
}

#[tokio::test]
async fn files_that_nobody_knows() {
    let (world, _) = filled().await;
    let store = world.folder.path().join("blobs");
    let orphan = store.join("ab").join("ab".repeat(16));
    fs::write(&orphan, b"x").unwrap();
    fs::write(store.join("ab/readme"), b"x").unwrap();
    fs::write(store.join("lost+found"), b"x").unwrap();
    assert_eq!(codes(&world).await, [Code::StrayFile, Code::StrayFile, Code::OrphanFile]);
    repair(&world.registry, Authority::DataDirectory, &|_| {}).await.unwrap();
    assert!(!orphan.exists());
    assert_eq!(codes(&world).await, [Code::StrayFile, Code::StrayFile]);
}

#[tokio::test]
async fn rows_that_are_not_what_they_were() {
    for (change, postgres, code, repairable) in [
        ("UPDATE blob_body SET bytes = x'00'", Some(r"UPDATE blob_body SET bytes = '\x00'"), Code::BlobDamaged, false),
        ("DELETE FROM blob_body", None, Code::BlobMissing, false),
        ("UPDATE blob SET linked = 0 WHERE storage = 'file'", None, Code::MarkWrong, true),
        (
            "UPDATE link SET referenced = 1 - referenced WHERE digest IN (SELECT digest FROM blob_body)",
            None,
            Code::MarkWrong,
            true,
        ),
        (
            "UPDATE manifest_body SET bytes = CAST(bytes || x'20' AS BLOB)",
            Some(r"UPDATE manifest_body SET bytes = bytes || '\x20'"),
            Code::ManifestDamaged,
            false,
        ),
        ("UPDATE manifest SET subject = (SELECT digest FROM blob LIMIT 1)", None, Code::ManifestDiffers, false),
        ("DELETE FROM manifest_body", None, Code::ManifestMissing, false),
        ("UPDATE tag SET digest = (SELECT digest FROM blob LIMIT 1)", None, Code::TagDangling, false),
    ] {
        let (world, _) = filled().await;
        sql(&world, change, postgres);
        assert_eq!(codes(&world).await, [code], "{change}");
        let repaired = repair(&world.registry, Authority::DataDirectory, &|_| {}).await.unwrap();
        assert_eq!(repaired.findings[0].repaired, repairable, "{change}");
        assert_eq!(codes(&world).await.is_empty(), repairable, "{change}");
    }
}

#[tokio::test]
async fn links_and_edges() {
    let (world, _) = filled().await;
    sql(&world, "DELETE FROM blob WHERE storage = 'file'", None);
    assert_eq!(codes(&world).await, [Code::LinkDangling, Code::OrphanFile]);
    let (world, _) = filled().await;
    sql(&world, "DELETE FROM link WHERE digest IN (SELECT digest FROM blob WHERE storage = 'file')", None);
    assert_eq!(codes(&world).await, [Code::MarkWrong, Code::ManifestIncomplete]);
    let (world, _) = filled().await;
    sql(
        &world,
        "DELETE FROM edge WHERE kind = 'layer'; UPDATE link SET referenced = 0 WHERE digest IN (SELECT digest FROM blob WHERE storage = 'file')",
        None,
    );
    assert_eq!(codes(&world).await, [Code::ManifestDiffers]);
}

#[tokio::test]
async fn sessions() {
    let world = world().await;
    let alice = world.access(ALICE, "a/b");
    let id = push::start(&world.registry, &alice, None).await.unwrap().id;
    push::append(&world.registry, &alice, &id, Position::default(), body(&bytes(100_000))).await.unwrap();
    fs::write(&world.files()[0], b"short").unwrap();
    assert_eq!(codes(&world).await, [Code::UploadDamaged]);
}
