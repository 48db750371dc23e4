use oci::Reference;
use policy::Verb;
use registry::delete::{blob, manifest};
use registry::{Error, pull};

use crate::common::*;

#[tokio::test]
async fn a_tag_leaves_the_manifest() {
    let world = world().await;
    let alice = world.access(ALICE, "a/b");
    let image = world.push_image(&alice, "v1", "one").await;
    let by_tag = Reference::parse("v1").unwrap();
    manifest(&world.registry, &alice, &by_tag).await.unwrap();
    assert!(matches!(manifest(&world.registry, &alice, &by_tag).await, Err(Error::ManifestUnknown(_))));
    assert!(pull::manifest(&world.registry, &alice, &by_tag).await.is_err());
    pull::manifest(&world.registry, &alice, &Reference::Digest(image.digest)).await.unwrap();
    let nowhere = manifest(&world.registry, &world.access(ALICE, "no/where"), &by_tag).await;
    assert!(matches!(nowhere, Err(Error::NameUnknown)));
}

#[tokio::test]
async fn a_digest_takes_its_tags() {
    let world = world().await;
    let alice = world.access(ALICE, "team/x");
    let image = world.push_image(&alice, "v1", "one").await;
    world.push_manifest(&alice, "stable", &image.bytes).await.unwrap();
    let by_digest = Reference::Digest(image.digest);
    // The right to delete is not one to each tag.
    let denied = manifest(&world.registry, &world.access(DAVE, "team/x"), &by_digest).await;
    let Err(Error::TagDenied { tag: denied, verb: Verb::TagDelete }) = denied else { panic!() };
    assert_eq!(denied, tag("stable"));
    for reference in ["v1", "stable"] {
        pull::manifest(&world.registry, &alice, &Reference::parse(reference).unwrap()).await.unwrap();
    }
    manifest(&world.registry, &alice, &Reference::parse("stable").unwrap()).await.unwrap();
    manifest(&world.registry, &world.access(DAVE, "team/x"), &by_digest).await.unwrap();
    let read = pull::manifest(&world.registry, &alice, &Reference::parse("v1").unwrap()).await;
    assert!(matches!(read, Err(Error::ManifestUnknown(_))));
    assert!(matches!(manifest(&world.registry, &alice, &by_digest).await, Err(Error::ManifestUnknown(_))));
    // And it can be pushed again.
    world.push_manifest(&alice, "v1", &image.bytes).await.unwrap();
    pull::manifest(&world.registry, &alice, &by_digest).await.unwrap();
}

#[tokio::test]
async fn c08_a_blob_of_one_repository() {
    let world = world().await;
    let (one, two) = (world.access(ALICE, "a/one"), world.access(ALICE, "a/two"));
    let image = world.push_image(&one, "v1", "x").await;
    world.push_image(&two, "v1", "x").await;
    let Err(Error::BlobInUse { digest, manifest: user }) = blob(&world.registry, &one, &image.layer).await else {
        panic!()
    };
    assert_eq!((&digest, &user), (&image.layer, &image.digest));
    manifest(&world.registry, &one, &Reference::Digest(image.digest)).await.unwrap();
    blob(&world.registry, &one, &image.layer).await.unwrap();
    assert!(matches!(world.read_blob(&one, &image.layer).await, Err(Error::BlobUnknown(_))));
    assert!(matches!(blob(&world.registry, &one, &image.layer).await, Err(Error::BlobUnknown(_))));
    assert_eq!(world.read_blob(&two, &image.layer).await.unwrap(), b"layer x");
    let nowhere = blob(&world.registry, &world.access(ALICE, "no/where"), &digest).await;
    assert!(matches!(nowhere, Err(Error::NameUnknown)));
}
