//! Quirks of clients: lists, referrers, the catalog. The numbers are those of the list of quirks in
//! `docs/reference/protocol.md`.

use serde_json::{Value, json};

use crate::world::{Answer, NOTHING, OCI_INDEX, OCI_MANIFEST, World, image, sha256};

/// A manifest that refers to `subject`; `mark` makes it different from others.
fn referrer(subject: &str, kind: &str, mark: &str) -> Value {
    json!({
        "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [], "artifactType": kind,
        "subject": { "mediaType": OCI_MANIFEST, "digest": subject, "size": 7 },
        "annotations": { "mark": mark },
    })
}

async fn refer(world: &World, subject: &str, kind: &str, mark: &str) -> String {
    let manifest = referrer(subject, kind, mark);
    let digest = sha256(manifest.to_string().as_bytes());
    world.manifest("a", &digest, &manifest).await
}

fn digests(answer: &Answer) -> Vec<String> {
    let mut digests: Vec<String> = answer.json()["manifests"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| entry["digest"].as_str().unwrap().to_owned())
        .collect();
    digests.sort();
    digests
}

async fn tags(world: &World, names: &[&str]) {
    let config = world.blob("a", b"{}").await;
    for name in names {
        world.manifest("a", name, &image(&[(&config, 2)])).await;
    }
}

#[tokio::test]
async fn q70_links_are_relative_and_encoded() {
    let world = World::new().await;
    tags(&world, &["a", "b", "c"]).await;
    let page = world.get("/v2/a/tags/list?n=2").await;
    assert_eq!(page.json()["tags"], json!(["a", "b"]));
    assert_eq!(page.header("link"), r#"</v2/a/tags/list?last=b&n=2>; rel="next""#);
    let page = world.get("/v2/a/tags/list?last=b&n=2").await;
    assert_eq!((page.json()["tags"].clone(), page.header("link")), (json!(["c"]), String::new()));
    let exact = world.get("/v2/a/tags/list?n=3").await;
    assert_eq!((exact.json()["tags"].clone(), exact.header("link")), (json!(["a", "b", "c"]), String::new()));
    for name in ["x/one", "x/two", "y"] {
        world.image(name, "v1", b"layer").await;
    }
    let catalog = world.get("/v2/_catalog?n=2").await;
    assert_eq!(catalog.headers.get_all("link").iter().count(), 1);
    assert_eq!(catalog.json(), json!({ "repositories": ["a", "x/one"] }));
    assert_eq!(catalog.header("link"), r#"</v2/_catalog?last=x%2Fone&n=2>; rel="next""#);
}

#[tokio::test]
async fn q71_referrers_are_one_page_up_to_four_mebibytes() {
    let world = World::new().await;
    let mut all = Vec::new();
    for i in 0..5 {
        if i == 4 {
            let whole = world.get(&format!("/v2/a/referrers/{NOTHING}")).await;
            assert_eq!(
                (digests(&whole).len(), whole.header("link")),
                (4, String::new()),
                "not split before it is long"
            );
        }
        all.push(refer(&world, NOTHING, "application/x", &format!("{i}{}", "x".repeat(1_000_000))).await);
    }
    all.sort();
    let first = world.get(&format!("/v2/a/referrers/{NOTHING}")).await;
    assert!(first.body.len() <= 4 * 1024 * 1024);
    let link = first.header("link");
    let next = link.strip_prefix('<').and_then(|link| link.strip_suffix(r#">; rel="next""#)).unwrap();
    assert!(next.starts_with("/v2/a/referrers/sha256:"), "{next}");
    let second = world.get(next).await;
    assert_eq!(second.header("link"), "");
    let mut found = [digests(&first), digests(&second)].concat();
    found.sort();
    assert_eq!(found, all);
    // What is asked for goes along.
    let filtered = world.get(&format!("/v2/a/referrers/{NOTHING}?artifactType=application%2Fx")).await;
    assert!(filtered.header("link").contains("?artifactType=application%2Fx&last="));
}

#[tokio::test]
async fn q72_filters_are_named_when_they_were_applied() {
    let world = World::new().await;
    let one = refer(&world, NOTHING, "application/x+json", "1").await;
    refer(&world, NOTHING, "application/y", "2").await;
    let path = format!("/v2/a/referrers/{NOTHING}");
    let all = world.get(&path).await;
    assert_eq!((digests(&all).len(), all.header("oci-filters-applied")), (2, String::new()));
    for filter in ["application%2Fx%2Bjson", "application/x+json"] {
        let answer = world.get(&format!("{path}?artifactType={filter}")).await;
        assert_eq!(
            (digests(&answer), answer.header("oci-filters-applied")),
            (vec![one.clone()], "artifactType".to_owned())
        );
    }
    let empty = world.get(&format!("{path}?artifactType=")).await;
    assert_eq!((digests(&empty).len(), empty.header("oci-filters-applied")), (2, String::new()));
    let none = world.get(&format!("{path}?artifactType=application/z")).await;
    assert_eq!((digests(&none).len(), none.header("oci-filters-applied")), (0, "artifactType".to_owned()));
}

#[tokio::test]
async fn q73_any_of_several_filters() {
    let world = World::new().await;
    let mut two =
        vec![refer(&world, NOTHING, "application/x", "1").await, refer(&world, NOTHING, "application/y", "2").await];
    refer(&world, NOTHING, "application/z", "3").await;
    two.sort();
    let path = format!("/v2/a/referrers/{NOTHING}?artifactType=application/x&artifactType=application/y");
    let answer = world.get(&path).await;
    assert_eq!((digests(&answer), answer.header("oci-filters-applied")), (two, "artifactType".to_owned()));
}

#[tokio::test]
async fn q74_referrers_of_nothing_are_an_empty_index() {
    let world = World::new().await;
    world.user("bare").await;
    world.image("a", "v1", b"layer").await;
    let expected = world.get(&format!("/v2/a/referrers/{NOTHING}")).await;
    assert_eq!(expected.json(), json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [] }));
    for (path, user) in [("/v2/missing", "maint"), ("/v2/a", "bare"), ("/v2/missing", "bare")] {
        let answer = world.call("GET", &format!("{path}/referrers/{NOTHING}")).user(user).send().await;
        assert_eq!(answer.show(), expected.show(), "{path} {user}");
    }
    let malformed = world.get("/v2/a/referrers/sha256:x").await;
    assert_eq!(malformed.told(), (400, "DIGEST_INVALID".to_owned()));
}

#[tokio::test]
async fn q75_the_type_of_referrers_is_exact() {
    let world = World::new().await;
    let answer = world.get(&format!("/v2/a/referrers/{NOTHING}?n=5")).await;
    assert_eq!((answer.status, answer.header("content-type").as_str()), (200, OCI_INDEX));
}

#[tokio::test]
async fn q76_fallback_tags_are_tags() {
    let world = World::new().await;
    let [subject, ..] = world.image("a", "v1", b"layer").await;
    let tag = subject.replace(':', "-");
    for tag in [tag.clone(), format!("{tag}.sig"), format!("{tag}.att"), format!("{tag}.sbom")] {
        let path = format!("/v2/a/manifests/{tag}");
        assert_eq!(world.get(&path).await.told(), (404, "MANIFEST_UNKNOWN".to_owned()));
        world.manifest("a", &tag, &json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [] })).await;
        let answer = world.get(&path).await;
        assert_eq!((answer.status, answer.header("x-registry-supports-signatures")), (200, String::new()));
    }
}

#[tokio::test]
async fn q77_tags_in_the_order_of_their_bytes() {
    let world = World::new().await;
    tags(&world, &["b", "A", "a", "_", "10", "9", "B", "a.b", "a-b"]).await;
    let manifest = image(&[(&world.blob("a", b"{}").await, 2)]);
    world.manifest("a", &sha256(manifest.to_string().as_bytes()), &manifest).await;
    let sorted = json!(["10", "9", "A", "B", "_", "a", "a-b", "a.b", "b"]);
    let answer = world.get("/v2/a/tags/list").await;
    assert_eq!((answer.json(), answer.header("link")), (json!({ "name": "a", "tags": sorted }), String::new()));
    assert_eq!(world.get("/v2/a/tags/list?last=B").await.json()["tags"], json!(["_", "a", "a-b", "a.b", "b"]));
    assert_eq!(world.get("/v2/a/tags/list?last=zz").await.json()["tags"], json!([]));
    assert_eq!(world.get("/v2/missing/tags/list").await.told(), (404, "NAME_UNKNOWN".to_owned()));
}

#[tokio::test]
async fn q78_charts_of_helm() {
    let world = World::new().await;
    let config = world.blob("charts/web", b"{\"name\":\"web\"}").await;
    let chart = world.blob("charts/web", b"chart").await;
    let mut manifest = image(&[(&config, 14), (&chart, 5)]);
    manifest["config"]["mediaType"] = "application/vnd.cncf.helm.config.v1+json".into();
    manifest["layers"][0]["mediaType"] = "application/vnd.cncf.helm.chart.content.v1.tar+gzip".into();
    manifest.as_object_mut().unwrap().remove("mediaType");
    world.manifest("charts/web", "0.1.0_build.5", &manifest).await;
    assert_eq!(world.get("/v2/charts/web/tags/list").await.json()["tags"], json!(["0.1.0_build.5"]));
    assert_eq!(world.get("/v2/charts/web/manifests/0.1.0+build.5").await.told(), (400, "TAG_INVALID".to_owned()));
}

#[tokio::test]
async fn q79_artifacts_of_flux_and_argo() {
    let world = World::new().await;
    assert_eq!(world.get("/v2/").await.text(), "{}");
    let config = world.blob("a", b"{}").await;
    let content = world.blob("a", b"content").await;
    let mut manifest = image(&[(&config, 2), (&content, 7)]);
    manifest["config"]["mediaType"] = "application/vnd.cncf.flux.config.v1+json".into();
    manifest["layers"][0]["mediaType"] = "application/vnd.cncf.flux.content.v1.tar+gzip".into();
    world.manifest("a", "v1", &manifest).await;
    assert_eq!(world.get("/v2/a/tags/list").await.json()["tags"], json!(["v1"]));
}

#[tokio::test]
async fn q80_podman_searches_v1_first() {
    let world = World::new().await;
    world.image("team/app", "v1", b"layer").await;
    for path in ["/v1/search?q=app&n=25", "/v1/_ping", "/"] {
        let answer = world.call("GET", path).nobody().send().await;
        assert_eq!((answer.status, answer.header("content-type").as_str()), (404, "application/json"), "{path}");
        assert_eq!(answer.header("www-authenticate"), "");
    }
    assert_eq!(world.get("/v2/_catalog?n=25").await.json()["repositories"], json!(["team/app"]));
}

// security: D-05
#[tokio::test]
async fn d05_n_of_every_kind() {
    let world = World::new().await;
    tags(&world, &["a", "b"]).await;
    for path in ["/v2/a/tags/list", "/v2/_catalog"] {
        let list = |n: &str| {
            let target = format!("{path}?{n}");
            let world = &world;
            async move { world.get(&target).await }
        };
        let zero = list("n=0").await;
        let name = if path.contains("tags") { "tags" } else { "repositories" };
        assert_eq!((zero.status, zero.json()[name].clone(), zero.header("link")), (200, json!([]), String::new()));
        for n in ["1000000000000000000", "9223372036854775808", "18446744073709551616", "5&n=x"] {
            let answer = list(&format!("n={n}")).await;
            assert_eq!((answer.status, answer.header("link")), (200, String::new()), "{n}");
        }
        for n in ["-1", "1e9", "0x10", "", "ten", "%20"] {
            assert_eq!(list(&format!("n={n}")).await.told(), (400, "PAGINATION_NUMBER_INVALID".to_owned()), "{n}");
        }
    }
}

// security: D-06
#[tokio::test]
async fn d06_paging_while_tags_come_and_go() {
    let world = World::new().await;
    let names: Vec<String> = (0..40).map(|i| "v".repeat(1 + i % 3) + &i.to_string()).collect();
    tags(&world, &names.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let (mut next, mut seen) = ("/v2/a/tags/list?n=7".to_owned(), Vec::new());
    loop {
        let page = world.get(&next).await;
        seen.extend(page.json()["tags"].as_array().unwrap().iter().map(|tag| tag.as_str().unwrap().to_owned()));
        tags(&world, &[&format!("a{}", seen.len()), &format!("zzz{}", seen.len())]).await;
        // The tag that the next page begins after is gone by then.
        assert_eq!(world.delete(&format!("/v2/a/manifests/{}", seen.last().unwrap())).await.status, 202);
        let link = page.header("link");
        let Some(link) = link.strip_prefix('<') else { break };
        next = link.split('>').next().unwrap().to_owned();
    }
    let mut expected = names.clone();
    expected.sort();
    let stable: Vec<String> = seen.iter().filter(|tag| names.contains(tag)).cloned().collect();
    assert_eq!(stable, expected);
    let mut once = seen.clone();
    once.dedup();
    assert_eq!(once, seen);
}

#[tokio::test]
async fn the_catalog_shows_what_one_may_list() {
    let world = World::new().await;
    for name in ["a/one", "a/two", "b/one"] {
        world.image(name, "v1", b"layer").await;
    }
    world.user("bare").await;
    world.user("half").await;
    world.grant("user:half", "pull", "b/**").await;
    world.grant("user:half", "list", "a/t*").await;
    let list = |user: &'static str| world.call("GET", "/v2/_catalog").user(user).send();
    assert_eq!(list("maint").await.json()["repositories"], json!(["a/one", "a/two", "b/one"]));
    assert_eq!(list("half").await.json()["repositories"], json!(["a/two"]));
    assert_eq!(list("bare").await.json()["repositories"], json!([]));
}

#[tokio::test]
async fn the_extensions_are_discovered() {
    let world = World::new().await;
    let answer = world.get("/v2/_oci/ext/discover").await;
    let names: Vec<Value> =
        answer.json()["extensions"].as_array().unwrap().iter().map(|extension| extension["name"].clone()).collect();
    assert_eq!((answer.status, names), (200, vec![json!("_oci"), json!("_catalog")]));
}
