use bytes::Bytes;
use oci::conditional::Precondition;
use oci::{Algorithm, Hasher, Reference};
use policy::Verb;
use registry::manifest::{Pushed, Target, push};
use registry::pull;
use registry::{Error, Settings};

use crate::common::*;

async fn push_tags(
    world: &World,
    subject: i64,
    repository: &str,
    tags: &[&str],
    bytes: &[u8],
) -> Result<Pushed, Error> {
    let target = Target {
        reference: Reference::Digest(sha256(bytes)),
        tags: tags.iter().map(|t| tag(t)).collect(),
        precondition: Precondition::default(),
    };
    let access = world.access(subject, repository);
    push(&world.registry, &access, target, None, Bytes::copy_from_slice(bytes)).await
}

#[tokio::test]
async fn q36_bytes_and_type_as_pushed() {
    let world = world().await;
    let alice = world.access(ALICE, "a/b");
    let image = world.push_image(&alice, "v1", "one").await;
    let mut bytes = b" \n".to_vec();
    bytes.extend_from_slice(&serde_json::to_vec_pretty(&image_json(&image.config, &[])).unwrap());
    bytes.push(b'\n');
    let pushed = world.push_manifest(&alice, "v2", &bytes).await.unwrap();
    assert_eq!((&pushed.digest, &pushed.tags), (&sha256(&bytes), &vec![tag("v2")]));
    for reference in ["v2", pushed.digest.as_str()] {
        let reference = Reference::parse(reference).unwrap();
        let manifest = pull::manifest(&world.registry, &alice, &reference).await.unwrap();
        assert_eq!((&manifest.bytes[..], &manifest.digest), (&bytes[..], &pushed.digest));
        assert_eq!(manifest.media_type, "application/vnd.oci.image.manifest.v1+json");
        let head = pull::manifest_head(&world.registry, &alice, &reference).await.unwrap();
        assert_eq!((head.digest, head.size), (pushed.digest.clone(), bytes.len() as u64));
    }
}

#[tokio::test]
async fn g08_another_digest() {
    let world = world().await;
    let alice = world.access(ALICE, "a/b");
    let image = world.push_image(&alice, "v1", "one").await;
    let bytes = image_json(&image.config, &[]).to_string();
    for body in [bytes.as_bytes(), b"no manifest at all"] {
        let wrong = sha256(b"another");
        let sent = world.push_manifest(&alice, wrong.as_str(), body).await;
        assert!(matches!(sent, Err(Error::DigestMismatch { .. })));
        for digest in [wrong, sha256(body)] {
            let read = pull::manifest(&world.registry, &alice, &Reference::Digest(digest)).await;
            assert!(matches!(read, Err(Error::ManifestUnknown(_))));
        }
    }
    assert!(matches!(world.push_manifest(&alice, "v2", b"no manifest").await, Err(Error::Oci(_))));
}

#[tokio::test]
async fn g06_limits() {
    let world = world_with(Settings { manifest_limit: 100_000, ..settings() }).await;
    let alice = world.access(ALICE, "a/b");
    let mut json = image_json(&sha256(b"{}"), &[]);
    json["annotations"] = serde_json::json!({"pad": "x".repeat(90_000)});
    // Long enough to be read off the serving threads.
    world.push_manifest(&alice, "v1", json.to_string().as_bytes()).await.unwrap();
    json["annotations"] = serde_json::json!({"pad": "x".repeat(100_000)});
    let sent = world.push_manifest(&alice, "v2", json.to_string().as_bytes()).await;
    assert!(matches!(sent, Err(Error::TooLarge { limit: 100_000 })));
}

/// C-06: each missing blob is named, and one that is elsewhere counts as missing.
#[tokio::test]
async fn c06_missing_blobs() {
    let world = world().await;
    let (alice, other) = (world.access(ALICE, "a/b"), world.access(ALICE, "secret/x"));
    let elsewhere = world.push_blob(&other, b"elsewhere").await;
    let config = world.push_blob(&alice, b"config").await;
    let nowhere = sha256(b"nowhere");
    let bytes = image(&config, &[elsewhere.clone(), nowhere.clone(), nowhere.clone()]);
    let Err(Error::MissingBlobs(mut missing)) = world.push_manifest(&alice, "v1", &bytes).await else { panic!() };
    missing.sort();
    let mut expected = vec![elsewhere, nowhere];
    expected.sort();
    assert_eq!(missing, expected);
    let read = pull::manifest(&world.registry, &alice, &Reference::parse("v1").unwrap()).await;
    assert!(matches!(read, Err(Error::ManifestUnknown(_))));
}

/// Q43, Q44, Q47: what need not be there.
#[tokio::test]
async fn q43_what_need_not_be_there() {
    let world = world().await;
    let alice = world.access(ALICE, "a/b");
    let (config, nowhere) = (world.push_blob(&alice, b"config").await, sha256(b"nowhere"));
    let mut foreign = image_json(&config, std::slice::from_ref(&nowhere));
    foreign["layers"][0]["urls"] = serde_json::json!(["https://example.com/layer"]);
    let pushed = world.push_manifest(&alice, "v1", foreign.to_string().as_bytes()).await.unwrap();
    assert_eq!(pushed.warnings.len(), 1);
    world.push_manifest(&alice, "v2", &index(&[nowhere.clone(), config.clone()])).await.unwrap();
    let pushed = world.push_manifest(&alice, "v3", &artifact(&nowhere, "a/b", "x")).await.unwrap();
    assert_eq!(pushed.subject, Some(nowhere.clone()));
    // The empty object is served although nobody pushed it, where a manifest names it and nowhere else.
    let empty = sha256(b"{}");
    assert_eq!(world.read_blob(&world.access(BOB, "a/b"), &empty).await.unwrap(), b"{}");
    world.push_image(&world.access(ALICE, "a/c"), "v1", "one").await;
    for subject in [ALICE, BOB] {
        let read = world.read_blob(&world.access(subject, "a/c"), &empty).await;
        assert!(matches!(read, Err(Error::BlobUnknown(_))));
    }

    let world = world_with(Settings { sparse_images: true, ..settings() }).await;
    let alice = world.access(ALICE, "a/b");
    let config = world.push_blob(&alice, b"config").await;
    world.push_manifest(&alice, "v1", &image(&config, std::slice::from_ref(&nowhere))).await.unwrap();
    let sent = world.push_manifest(&alice, "v2", &image(&nowhere, &[])).await;
    assert!(matches!(sent, Err(Error::MissingBlobs(missing)) if missing == [nowhere]));
}

#[tokio::test]
async fn several_tags_at_once() {
    let world = world().await;
    let alice = world.access(ALICE, "a/b");
    let image = world.push_image(&alice, "old", "one").await;
    let pushed = push_tags(&world, ALICE, "a/b", &["x", "y", "x"], &image.bytes).await.unwrap();
    assert_eq!(pushed.tags, [tag("x"), tag("y")]);
    let target =
        Target { reference: Reference::Tag(tag("z")), tags: vec![tag("y")], precondition: Precondition::default() };
    let sent = push(&world.registry, &alice, target, None, image.bytes.clone().into()).await;
    assert!(matches!(sent, Err(Error::Oci(_))));

    // By sha512: the tag keeps that digest.
    let digest = Hasher::digest(Algorithm::Sha512, &image.bytes);
    let target = Target {
        reference: Reference::Digest(digest.clone()),
        tags: vec![tag("x")],
        precondition: Precondition::default(),
    };
    push(&world.registry, &alice, target, None, image.bytes.into()).await.unwrap();
    let read = pull::manifest(&world.registry, &alice, &Reference::parse("x").unwrap()).await.unwrap();
    assert_eq!(read.digest, digest);
}

/// All tags or nothing, each by the right to it.
#[tokio::test]
async fn tag_rights() {
    let world = world().await;
    let alice = world.access(ALICE, "team/x");
    let (one, two) = (world.push_image(&alice, "v1", "one").await, world.push_image(&alice, "other", "two").await);
    let denied = push_tags(&world, DAVE, "team/x", &["v1", "stable", "v2"], &two.bytes).await;
    let Err(Error::TagDenied { tag: denied, verb: Verb::TagCreate }) = denied else { panic!() };
    assert_eq!(denied, tag("stable"));
    let denied = push_tags(&world, DAVE, "team/x", &["other"], &one.bytes).await;
    assert!(matches!(denied, Err(Error::TagDenied { verb: Verb::TagMove, .. })));
    let read = |reference: &str| {
        let reference = Reference::parse(reference).unwrap();
        let (registry, alice) = (world.registry.clone(), alice.clone());
        async move { pull::manifest_head(&registry, &alice, &reference).await.map(|head| head.digest) }
    };
    assert_eq!(read("v1").await.unwrap(), one.digest);
    assert!(matches!(read("v2").await, Err(Error::ManifestUnknown(_))));
    push_tags(&world, DAVE, "team/x", &["v1", "v2"], &two.bytes).await.unwrap();
    assert_eq!((read("v1").await.unwrap(), read("v2").await.unwrap()), (two.digest.clone(), two.digest));
}
