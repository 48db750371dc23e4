use oci::conditional::Precondition;
use policy::authorize_catalog;
use registry::Error;
use registry::list::{Page, Referrers, catalog, referrers, tags};

use crate::common::*;

async fn tag_names(world: &World, subject: i64, last: Option<&str>, limit: Option<usize>) -> (Vec<String>, bool) {
    let Page { items, more } = tags(&world.registry, &world.access(subject, "team/x"), last, limit).await.unwrap();
    (items.iter().map(|tag| tag.as_str().to_owned()).collect(), more)
}

#[tokio::test]
async fn q77_tags() {
    let world = world().await;
    let alice = world.access(ALICE, "team/x");
    let nowhere = tags(&world.registry, &alice, None, None).await;
    assert!(matches!(nowhere, Err(Error::NameUnknown)));
    let image = world.push_image(&alice, "v2", "one").await;
    for tag in ["b", "A", "v10", "v1", "_"] {
        world.push_manifest(&alice, tag, &image.bytes).await.unwrap();
    }
    let all = ["A", "_", "b", "v1", "v10", "v2"];
    assert_eq!(tag_names(&world, ALICE, None, None).await, (all.map(String::from).to_vec(), false));
    assert_eq!(tag_names(&world, ALICE, None, Some(0)).await, (vec![], false));
    assert_eq!(tag_names(&world, ALICE, None, Some(2)).await, (vec!["A".into(), "_".into()], true));
    assert_eq!(
        tag_names(&world, ALICE, Some("_"), Some(4)).await,
        (all[2..].iter().map(|t| t.to_string()).collect(), false)
    );
    // `last` need not exist.
    assert_eq!(tag_names(&world, ALICE, Some("v11"), None).await.0, ["v2"]);
    // Grants with tag patterns list those alone.
    assert_eq!(tag_names(&world, DAVE, None, None).await.0, ["v1", "v10", "v2"]);
    assert_eq!(tag_names(&world, DAVE, None, Some(2)).await, (vec!["v1".into(), "v10".into()], true));
}

#[tokio::test]
async fn many_tags() {
    let world = world().await;
    let alice = world.access(ALICE, "team/x");
    let image = world.push_image(&alice, "first", "one").await;
    let reference = oci::Reference::Digest(image.digest);
    for hundred in 0..25 {
        let tags = (0..100).map(|n| tag(&format!("t{hundred:02}{n:02}"))).collect();
        let target =
            registry::manifest::Target { reference: reference.clone(), tags, precondition: Precondition::default() };
        registry::manifest::push(&world.registry, &alice, target, None, image.bytes.clone().into()).await.unwrap();
    }
    let (all, more) = tag_names(&world, ALICE, None, None).await;
    assert_eq!((all.len(), more), (2501, false));
    let (page, more) = tag_names(&world, ALICE, Some(&all[99]), Some(1500)).await;
    assert_eq!((&page[..], more), (&all[100..1600], true));
    // Only the last of them is visible to this one.
    world.push_manifest(&alice, "v", &image.bytes).await.unwrap();
    assert_eq!(tag_names(&world, DAVE, None, Some(1)).await, (vec!["v".into()], false));
}

#[tokio::test]
async fn d01_the_catalog_shows_what_may_be_listed() {
    let world = world().await;
    for name in ["open/a", "open/b", "secret/a", "erin/x", "zzz"] {
        world.push_blob(&world.access(ALICE, name), b"x").await;
    }
    let list = async |subject, last: Option<&str>, limit| {
        let access = authorize_catalog(&world.rules, &world.caller(subject), world.time()).unwrap();
        let page = catalog(&world.registry, &access, last, limit).await.unwrap();
        (page.items.iter().map(|name| name.as_str().to_owned()).collect::<Vec<_>>(), page.more)
    };
    assert_eq!(list(ALICE, None, None).await.0, ["erin/x", "open/a", "open/b", "secret/a", "zzz"]);
    assert_eq!(list(ERIN, None, None).await, (vec!["erin/x".into(), "open/a".into(), "open/b".into()], false));
    assert_eq!(list(ERIN, None, Some(2)).await, (vec!["erin/x".into(), "open/a".into()], true));
    assert_eq!(list(ERIN, Some("open/a"), Some(2)).await, (vec!["open/b".into()], false));
    assert_eq!(list(DAVE, None, None).await, (vec![], false));
    assert_eq!(list(ALICE, None, Some(0)).await, (vec![], false));
}

fn entries(page: &Referrers) -> Vec<serde_json::Value> {
    let body: serde_json::Value = serde_json::from_slice(&page.body).unwrap();
    assert_eq!((&body["schemaVersion"], body["mediaType"].as_str()), (&2.into(), Some(INDEX)));
    body["manifests"].as_array().unwrap().clone()
}

const INDEX: &str = "application/vnd.oci.image.index.v1+json";

#[tokio::test]
async fn q74_referrers() {
    let world = world().await;
    let alice = world.access(ALICE, "a/b");
    let subject = sha256(b"subject");
    let page = referrers(&world.registry, &alice, &subject, &[], None).await.unwrap();
    assert!(entries(&page).is_empty() && page.next.is_none());
    for (note, kind) in [("1", "a/sbom"), ("2", "a/signature"), ("3", "a/sbom")] {
        let pushed = world.push_manifest(&alice, "x", &artifact(&subject, kind, note)).await.unwrap();
        assert_eq!(pushed.subject.as_ref(), Some(&subject));
    }
    let page = referrers(&world.registry, &alice, &subject, &[], None).await.unwrap();
    let all = entries(&page);
    assert_eq!(all.len(), 3);
    assert!(all.iter().all(|entry| entry["annotations"]["note"].is_string() && entry["size"].is_u64()));
    for (types, count) in [(vec!["a/sbom"], 2), (vec!["a/sbom", "a/signature"], 3), (vec!["a/none"], 0)] {
        let types: Vec<String> = types.into_iter().map(str::to_owned).collect();
        let page = referrers(&world.registry, &alice, &subject, &types, None).await.unwrap();
        assert_eq!(entries(&page).len(), count);
    }
    // C-10: only where they were pushed; and a deleted one is gone.
    let other = world.access(ALICE, "a/c");
    assert!(entries(&referrers(&world.registry, &other, &subject, &[], None).await.unwrap()).is_empty());
    let first = oci::Reference::parse(all[0]["digest"].as_str().unwrap()).unwrap();
    registry::delete::manifest(&world.registry, &alice, &first).await.unwrap();
    let page = referrers(&world.registry, &alice, &subject, &[], None).await.unwrap();
    assert_eq!(entries(&page), all[1..]);
}

#[tokio::test]
async fn q71_referrers_in_pages_of_four_mebibytes() {
    let world = world().await;
    let alice = world.access(ALICE, "a/b");
    let subject = sha256(b"subject");
    for n in 0..11 {
        let note = format!("{n:02}{}", "x".repeat(900_000));
        world.push_manifest(&alice, "x", &artifact(&subject, "a/b", &note)).await.unwrap();
    }
    let (mut after, mut found, mut pages) = (None, Vec::new(), 0);
    loop {
        let page = referrers(&world.registry, &alice, &subject, &[], after.as_deref()).await.unwrap();
        assert!(page.body.len() <= 4 << 20);
        found.extend(entries(&page).iter().map(|entry| entry["digest"].as_str().unwrap().to_owned()));
        pages += 1;
        match page.next {
            Some(next) => after = Some(next),
            None => break,
        }
    }
    found.dedup();
    assert_eq!((found.len(), pages), (11, 3));
}
