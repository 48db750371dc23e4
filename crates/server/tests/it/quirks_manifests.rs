//! Quirks of clients: manifests. The numbers are those of the list of quirks in `docs/reference/protocol.md`.

use serde_json::{Value, json};

use crate::world::{DOCKER_LIST, DOCKER_MANIFEST, NOTHING, OCI_INDEX, OCI_MANIFEST, World, image, sha256};

const EMPTY_JSON: &str = "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";

/// An image manifest of a pushed config and one pushed layer.
async fn pushed(world: &World) -> Value {
    let config = world.blob("a", b"{\"config\":1}").await;
    let layer = world.blob("a", b"layer").await;
    image(&[(&config, 12), (&layer, 5)])
}

async fn put(world: &World, reference: &str, content_type: Option<&str>, body: &[u8]) -> (u16, String) {
    let call = world.call("PUT", &format!("/v2/a/manifests/{reference}")).body(body.to_vec());
    let call = match content_type {
        Some(content_type) => call.header("content-type", content_type),
        None => call,
    };
    call.send().await.told()
}

fn invalid() -> (u16, String) {
    (400, "MANIFEST_INVALID".to_owned())
}

fn created() -> (u16, String) {
    (201, String::new())
}

// security: G-07
#[tokio::test]
async fn q36_bytes_and_type_come_back_as_they_went_in() {
    let world = World::new().await;
    let manifest = pushed(&world).await;
    let body = format!(
        "\n {{ \"unknown\" : [1.50, \"\\u0041\"] , \"unknown\":2,{}\n\n",
        &serde_json::to_string_pretty(&manifest).unwrap()[1..]
    );
    let digest = sha256(body.as_bytes());
    assert_eq!(put(&world, "v1", Some(&format!("{OCI_MANIFEST}; charset=utf-8")), body.as_bytes()).await, created());
    for reference in ["v1", digest.as_str()] {
        let answer = world.get(&format!("/v2/a/manifests/{reference}")).await;
        assert_eq!(answer.text(), body);
        assert_eq!(answer.header("content-type"), OCI_MANIFEST);
        assert_eq!(answer.header("docker-content-digest"), digest);
    }
    // Where the body says nothing, what was said with it counts.
    let mut untyped = manifest.clone();
    untyped.as_object_mut().unwrap().remove("mediaType");
    for kind in [DOCKER_MANIFEST, OCI_MANIFEST, "application/vnd.example.manifest+json"] {
        assert_eq!(put(&world, "untyped", Some(kind), untyped.to_string().as_bytes()).await, created());
        assert_eq!(world.get("/v2/a/manifests/untyped").await.header("content-type"), kind);
    }
    let twice = manifest.to_string().replacen('{', "{\"config\":{},", 1);
    assert_eq!(put(&world, "v2", None, twice.as_bytes()).await, invalid(), "a key that is read, twice");
}

// security: F-06
#[tokio::test]
async fn q37_accept_does_not_choose() {
    let world = World::new().await;
    let manifest = pushed(&world).await;
    world.manifest("a", "v1", &manifest).await;
    let long = "application/x,".repeat(700);
    for accept in
        ["*/*", "text/html", "application/vnd.docker.distribution.manifest.v2+json;q=0.9, */*;q=0.1", &long, ""]
    {
        let answer = world
            .call("GET", "/v2/a/manifests/v1")
            .header("accept", accept)
            .header("accept", "application/vnd.docker.distribution.manifest.v1+json")
            .send()
            .await;
        assert_eq!((answer.status, answer.text()), (200, manifest.to_string().as_str()));
        assert_eq!(answer.header("content-type"), OCI_MANIFEST);
    }
    assert_eq!(world.get("/v2/a/manifests/v1").await.status, 200, "and none");
    // An index is not turned into one of its images for those who do not name its type.
    let index = json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [] });
    world.manifest("a", "index", &index).await;
    let call = world.call("GET", "/v2/a/manifests/index").header("accept", OCI_MANIFEST);
    let answer = call.send().await;
    assert_eq!((answer.text(), answer.header("content-type").as_str()), (index.to_string().as_str(), OCI_INDEX));
}

// security: G-13
#[tokio::test]
async fn q38_schema_1_is_refused() {
    let world = World::new().await;
    let body = br#"{"schemaVersion":1,"name":"a","tag":"v1","architecture":"amd64","fsLayers":[],"history":[]}"#;
    for kind in ["v1+json", "v1+prettyjws"] {
        let kind = format!("application/vnd.docker.distribution.manifest.{kind}");
        assert_eq!(put(&world, "v1", Some(&kind), body).await, invalid());
    }
    assert_eq!(put(&world, "v1", None, body).await, invalid());
}

// security: G-03
#[tokio::test]
async fn q39_without_a_content_type_the_shape_decides() {
    let world = World::new().await;
    let mut manifest = pushed(&world).await;
    assert_eq!(put(&world, "typed", None, manifest.to_string().as_bytes()).await, created());
    manifest.as_object_mut().unwrap().remove("mediaType");
    assert_eq!(put(&world, "image", None, manifest.to_string().as_bytes()).await, created());
    assert_eq!(put(&world, "index", None, br#"{"schemaVersion":2,"manifests":[]}"#).await, created());
    for (reference, kind) in [("typed", OCI_MANIFEST), ("image", OCI_MANIFEST), ("index", OCI_INDEX)] {
        assert_eq!(world.get(&format!("/v2/a/manifests/{reference}")).await.header("content-type"), kind);
    }
    assert_eq!(put(&world, "x", None, br#"{"schemaVersion":2}"#).await, invalid());
}

// security: G-01, G-02
#[tokio::test]
async fn q40_a_document_is_one_thing() {
    let world = World::new().await;
    let manifest = pushed(&world).await;
    // Another kind, and another type of the same kind.
    for kind in [OCI_INDEX, DOCKER_MANIFEST, "application/vnd.example.manifest+json"] {
        assert_eq!(put(&world, "v1", Some(kind), manifest.to_string().as_bytes()).await, invalid(), "{kind}");
    }
    let list = json!({ "schemaVersion": 2, "mediaType": DOCKER_LIST, "manifests": [] });
    assert_eq!(put(&world, "v1", Some(OCI_INDEX), list.to_string().as_bytes()).await, invalid());
    let mut both = manifest.clone();
    both["manifests"] = json!([]);
    for kind in [Some(OCI_MANIFEST), Some(OCI_INDEX), None] {
        assert_eq!(put(&world, "v1", kind, both.to_string().as_bytes()).await, invalid());
    }
    let index = json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [], "layers": [] });
    assert_eq!(put(&world, "v1", Some(OCI_INDEX), index.to_string().as_bytes()).await, invalid());
    assert_eq!(world.get("/v2/a/manifests/v1").await.status, 404);
}

// security: G-13
#[tokio::test]
async fn q41_any_type_of_artifact() {
    let world = World::new().await;
    let mut manifest = pushed(&world).await;
    manifest["artifactType"] = "application/vnd.example+type".into();
    manifest["config"]["mediaType"] = "application/vnd.cncf.helm.config.v1+json".into();
    manifest["layers"][0]["mediaType"] = "application/wasm".into();
    world.manifest("a", "v1", &manifest).await;
    let kind = "application/vnd.oci.artifact.manifest.v1+json";
    let withdrawn = json!({
        "mediaType": kind,
        "artifactType": "application/vnd.example",
        "blobs": [manifest["layers"][0].clone()],
        "subject": { "mediaType": OCI_MANIFEST, "digest": NOTHING, "size": 5 },
    });
    let answer = world.put_manifest("a", "artifact", &withdrawn).await;
    assert_eq!((answer.status, answer.header("oci-subject").as_str()), (201, NOTHING), "{}", answer.text());
    assert_eq!(world.get("/v2/a/manifests/artifact").await.header("content-type"), kind);
}

#[tokio::test]
async fn q42_nothing_in_it() {
    let world = World::new().await;
    let empty = json!({ "mediaType": "application/vnd.oci.empty.v1+json", "digest": EMPTY_JSON, "size": 2 });
    for (reference, layers) in [("none", json!(null)), ("zero", json!([])), ("one", json!([empty.clone()]))] {
        let mut manifest = json!({ "schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": empty.clone() });
        manifest["artifactType"] = "application/vnd.example".into();
        if !layers.is_null() {
            manifest["layers"] = layers;
        }
        world.manifest("a", reference, &manifest).await;
    }
    let blob = world.get(&format!("/v2/a/blobs/{EMPTY_JSON}")).await;
    assert_eq!((blob.status, blob.text()), (200, "{}"), "though it was never pushed");
    world.manifest("a", "index", &json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [] })).await;
}

// security: G-10
#[tokio::test]
async fn q43_layers_that_are_elsewhere_are_not_asked_for() {
    let world = World::new().await;
    let mut manifest = pushed(&world).await;
    let foreign = |kind: &str| json!({ "mediaType": kind, "digest": NOTHING, "size": 123 });
    let mut with_urls = foreign("application/vnd.oci.image.layer.v1.tar+gzip");
    with_urls["urls"] = json!(["https://example.org/layer"]);
    let kinds = [
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
        "application/vnd.oci.image.layer.nondistributable.v1.tar",
        "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
        "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd",
    ];
    manifest["layers"] = kinds.iter().map(|kind| foreign(kind)).chain([with_urls]).collect();
    world.manifest("a", "v1", &manifest).await;
    let elsewhere = world.get(&format!("/v2/a/blobs/{NOTHING}")).await;
    assert_eq!((elsewhere.told(), elsewhere.header("location")), ((404, "BLOB_UNKNOWN".to_owned()), String::new()));
    let mut missing = pushed(&world).await;
    missing["layers"] = json!([foreign("application/vnd.oci.image.layer.v1.tar+gzip")]);
    let answer = world.put_manifest("a", "v2", &missing).await;
    assert_eq!(answer.told(), (400, "MANIFEST_BLOB_UNKNOWN".to_owned()));
    assert_eq!(answer.json()["errors"][0]["detail"]["digest"], NOTHING);
}

#[tokio::test]
async fn q44_an_index_with_missing_children() {
    let world = World::new().await;
    let child = json!({ "mediaType": OCI_MANIFEST, "digest": NOTHING, "size": 7 });
    world.manifest("a", "v1", &json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [child] })).await;
    // Missing layers are accepted only where the settings say so.
    let layer = json!({ "mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": NOTHING, "size": 7 });
    let mut manifest = pushed(&world).await;
    manifest["layers"] = json!([layer]);
    assert_eq!(world.put_manifest("a", "sparse", &manifest).await.code(), "MANIFEST_BLOB_UNKNOWN");
    let world = World::with(&[("PORTCULLIS_CONTENT__SPARSE_IMAGES", "true")]).await;
    pushed(&world).await;
    world.manifest("a", "sparse", &manifest).await;
}

#[tokio::test]
async fn q45_an_index_whose_children_are_blobs() {
    let world = World::new().await;
    let layer = world.blob("a", b"cached layer").await;
    let config = world.blob("a", b"{}").await;
    let entry = |kind: &str, digest: &str, size: usize| json!({ "mediaType": kind, "digest": digest, "size": size });
    let index = json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [
        entry("application/vnd.oci.image.layer.v1.tar+gzip", &layer, 12),
        entry("application/vnd.buildkit.cacheconfig.v0", &config, 2),
    ] });
    world.manifest("a", "cache", &index).await;
    world.user("reader").await;
    world.grant("user:reader", "reader", "a").await;
    let blob = world.call("GET", &format!("/v2/a/blobs/{layer}")).user("reader").send().await;
    assert_eq!(blob.status, 200, "the index has accepted it");
    assert_eq!(world.delete(&format!("/v2/a/blobs/{layer}")).await.status, 405, "and needs it");
}

#[tokio::test]
async fn q46_a_manifest_before_its_blobs_is_for_the_setting() {
    let world = World::with(&[("PORTCULLIS_CONTENT__SPARSE_IMAGES", "true")]).await;
    let config = world.blob("a", b"{}").await;
    world.manifest("a", "v1", &image(&[(&config, 2), (&sha256(b"later"), 5)])).await;
    world.blob("a", b"later").await;
    assert_eq!(world.get(&format!("/v2/a/blobs/{}", sha256(b"later"))).await.status, 200);
    // Without it each that is missing is named, once.
    let world = World::new().await;
    let config = world.blob("a", b"{}").await;
    let (one, two) = (sha256(b"one"), sha256(b"two"));
    let manifest = image(&[(&config, 2), (&one, 3), (&two, 3), (&one, 3)]);
    let answer = world.put_manifest("a", "v1", &manifest).await;
    let errors = answer.json()["errors"].as_array().unwrap().clone();
    let named: Vec<_> = errors.iter().map(|error| (error["code"].clone(), error["detail"]["digest"].clone())).collect();
    let unknown = |digest: &str| (json!("MANIFEST_BLOB_UNKNOWN"), json!(digest));
    assert_eq!((answer.status, named), (400, vec![unknown(&one), unknown(&two)]));
    assert_eq!(world.get("/v2/a/manifests/v1").await.told(), (404, "MANIFEST_UNKNOWN".to_owned()));
}

#[tokio::test]
async fn q47_a_subject_may_be_missing_and_is_named() {
    let world = World::new().await;
    let mut manifest = pushed(&world).await;
    manifest["subject"] = json!({ "mediaType": OCI_MANIFEST, "digest": NOTHING, "size": 7 });
    let answer = world.put_manifest("a", "v1", &manifest).await;
    assert_eq!((answer.status, answer.header("oci-subject").as_str()), (201, NOTHING));
    manifest.as_object_mut().unwrap().remove("subject");
    assert_eq!(world.put_manifest("a", "v2", &manifest).await.header("oci-subject"), "");
}

// security: G-08
#[tokio::test]
async fn q48_a_push_by_digest_only() {
    let world = World::new().await;
    let manifest = pushed(&world).await;
    let digest = sha256(manifest.to_string().as_bytes());
    let answer = world.put_manifest("a", &digest, &manifest).await;
    assert_eq!((answer.status, answer.header("location")), (201, format!("/v2/a/manifests/{digest}")));
    assert_eq!(world.get(&format!("/v2/a/manifests/{digest}")).await.status, 200);
    assert_eq!(world.get("/v2/a/tags/list").await.json(), json!({ "name": "a", "tags": [] }));
    let mut other = manifest.clone();
    other["annotations"] = json!({ "is": "another" });
    let wrong = world.put_manifest("a", &format!("{NOTHING}?tag=v1"), &other).await;
    assert_eq!(wrong.told(), (400, "DIGEST_INVALID".to_owned()));
    for reference in [NOTHING, &sha256(other.to_string().as_bytes()), "v1"] {
        assert_eq!(world.get(&format!("/v2/a/manifests/{reference}")).await.status, 404, "{reference}");
    }
}

#[tokio::test]
async fn q49_blobs_and_manifests_are_apart() {
    let world = World::new().await;
    let [manifest, config, layer] = world.image("a", "v1", b"layer").await;
    assert_eq!(world.get(&format!("/v2/a/blobs/{manifest}")).await.told(), (404, "BLOB_UNKNOWN".to_owned()));
    assert_eq!(world.head(&format!("/v2/a/blobs/{manifest}")).await.status, 404);
    for blob in [config, layer] {
        assert_eq!(world.head(&format!("/v2/a/manifests/{blob}")).await.status, 404);
        assert_eq!(world.get(&format!("/v2/a/manifests/{blob}")).await.told(), (404, "MANIFEST_UNKNOWN".to_owned()));
    }
}

#[tokio::test]
async fn q50_the_head_of_a_manifest_has_all_three_headers() {
    let world = World::new().await;
    let manifest = pushed(&world).await;
    let digest = world.manifest("a", "v1", &manifest).await;
    let (head, get) = (world.head("/v2/a/manifests/v1").await, world.get("/v2/a/manifests/v1").await);
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert_eq!(head.headers, get.headers);
    assert_eq!(head.header("content-length"), manifest.to_string().len().to_string());
    assert_eq!(head.header("content-type"), OCI_MANIFEST);
    assert_eq!(head.header("docker-content-digest"), digest);
}

#[tokio::test]
async fn q51_errors_of_a_head_have_no_body_and_the_state_of_a_get() {
    let world = World::new().await;
    world.user("bare").await;
    world.user("lister").await;
    world.grant("user:lister", "list", "a").await;
    world.image("a", "v1", b"layer").await;
    for (path, user) in [
        ("/v2/a/manifests/missing", "maint"),
        ("/v2/a/manifests/v1", "bare"),
        ("/v2/a/manifests/v1", "lister"),
        ("/v2/missing/manifests/v1", "maint"),
        ("/v2/a/manifests/-", "maint"),
        ("/v2/a/manifests/sha256:x", "maint"),
    ] {
        let head = world.call("HEAD", path).user(user).send().await;
        let get = world.call("GET", path).user(user).send().await;
        assert_eq!((head.status, head.body.len()), (get.status, 0), "{path}");
        assert!(!get.code().is_empty() && (get.status == 403) == (user == "lister"), "{path}: {}", get.text());
        assert_eq!(head.headers, get.headers, "{path}");
    }
}

#[tokio::test]
async fn q52_the_head_before_a_push_is_200_or_404() {
    let world = World::new().await;
    world.user("writer").await;
    world.grant("user:writer", "writer", "team/**").await;
    let head = |path: &'static str| world.call("HEAD", path).user("writer").send();
    assert_eq!(head("/v2/team/new/manifests/v1").await.status, 404);
    let [digest, ..] = world.image("team/new", "v1", b"layer").await;
    let answer = head("/v2/team/new/manifests/v1").await;
    assert_eq!((answer.status, answer.header("docker-content-digest")), (200, digest));
    assert_eq!(head("/v2/team/new/manifests/v2").await.status, 404);
}

// security: G-06
#[tokio::test]
async fn q53_manifests_up_to_four_mebibytes() {
    let world = World::new().await;
    let mut manifest = pushed(&world).await;
    let padded = |manifest: &Value, size: usize| {
        let text = manifest.to_string();
        format!("{text}{}", " ".repeat(size - text.len()))
    };
    manifest["annotations"] = (0..300).map(|i| (format!("key{i}"), Value::from("x".repeat(10_000)))).collect();
    let exact = padded(&manifest, 4 * 1024 * 1024);
    assert_eq!(put(&world, "exact", Some(OCI_MANIFEST), exact.as_bytes()).await, created());
    assert_eq!(world.get("/v2/a/manifests/exact").await.text(), exact);
    let over = padded(&manifest, 4 * 1024 * 1024 + 1);
    assert_eq!(put(&world, "over", Some(OCI_MANIFEST), over.as_bytes()).await, (413, "SIZE_INVALID".to_owned()));
    // Without a length it is found out while it comes.
    let endless = futures_util::stream::repeat_with(|| Ok(bytes::Bytes::from(vec![b' '; 65536]))).take_some(100);
    let answer = world.call("PUT", "/v2/a/manifests/v1").chunked(endless).send().await;
    assert_eq!(answer.status, 413);
}

/// The first pieces of an endless body.
trait TakeSome {
    fn take_some(self, count: usize) -> Vec<Result<bytes::Bytes, std::io::Error>>;
}

impl<S: futures_util::Stream<Item = Result<bytes::Bytes, std::io::Error>>> TakeSome for S {
    fn take_some(self, count: usize) -> Vec<Result<bytes::Bytes, std::io::Error>> {
        use futures_util::{FutureExt, StreamExt};
        Box::pin(self).take(count).collect::<Vec<_>>().now_or_never().unwrap()
    }
}

// security: F-05
#[tokio::test]
async fn q54_entity_tags_are_digests() {
    let world = World::new().await;
    let [digest, _, layer] = world.image("a", "v1", b"layer").await;
    for (path, digest) in [
        ("/v2/a/manifests/v1".to_owned(), &digest),
        (format!("/v2/a/manifests/{digest}"), &digest),
        (format!("/v2/a/blobs/{layer}"), &layer),
    ] {
        assert_eq!(world.get(&path).await.header("etag"), format!("\"{digest}\""));
        for known in [
            format!("\"{digest}\""),
            digest.clone(),
            format!("W/\"{digest}\""),
            format!("\"x\", \"{digest}\""),
            "*".to_owned(),
        ] {
            for method in ["GET", "HEAD"] {
                let answer = world.call(method, &path).header("if-none-match", &known).send().await;
                assert_eq!((answer.status, answer.body.len()), (304, 0), "{known}");
                assert_eq!(answer.header("etag"), format!("\"{digest}\""));
                assert_eq!(&answer.header("docker-content-digest"), digest);
            }
        }
        assert_eq!(world.call("GET", &path).header("if-none-match", "\"x\"").send().await.status, 200);
        assert_eq!(world.call("GET", &path).header("if-match", &format!("\"{digest}\"")).send().await.status, 200);
        assert_eq!(world.call("GET", &path).header("if-match", "\"x\"").send().await.status, 412);
        assert_eq!(world.call("GET", &path).nobody().header("if-none-match", "*").send().await.status, 401);
    }
    assert_eq!(world.get("/v2/a/manifests/v1").await.header("cache-control"), "no-cache");
    // A push that is bound to what is there.
    let manifest = world.get("/v2/a/manifests/v1").await.json();
    for (reference, state) in [(format!("\"{digest}\""), 201), (format!("\"{NOTHING}\""), 412)] {
        let call = world.call("PUT", "/v2/a/manifests/v1").header("content-type", OCI_MANIFEST);
        assert_eq!(call.header("if-match", &reference).body(manifest.to_string()).send().await.status, state);
    }
    let call = world.call("PUT", "/v2/a/manifests/new").header("content-type", OCI_MANIFEST).header("if-match", "*");
    assert_eq!(call.body(manifest.to_string()).send().await.status, 412);
}

#[tokio::test]
async fn q55_percent_encoded_references() {
    let world = World::new().await;
    let [manifest, _, layer] = world.image("a/b", "v1", b"layer").await;
    for path in [
        format!("/v2/a/b/manifests/{}", manifest.replace(':', "%3A")),
        format!("/v2/a/b/manifests/{}", manifest.replace(':', "%3a")),
        format!("/v2/a/b/blobs/{}", layer.replace(':', "%3A")),
        format!("/v2/a/b/referrers/{}", manifest.replace(':', "%3A")),
        "/v2/a/%62/manifests/v%31".to_owned(),
    ] {
        assert_eq!(world.get(&path).await.status, 200, "{path}");
    }
    assert_eq!(world.get("/v2/a%2Fb/manifests/v1").await.told(), (400, "NAME_INVALID".to_owned()));
}

#[tokio::test]
async fn q56_what_is_refused_is_a_manifest_invalid() {
    let world = World::new().await;
    for (kind, body) in [
        (Some("text/html"), "<html>"),
        (Some("application/vnd.docker.distribution.manifest.v1+json"), "{}"),
        (Some(OCI_MANIFEST), "not json"),
        (Some(OCI_MANIFEST), ""),
        (Some(OCI_MANIFEST), "[]"),
        (Some(OCI_MANIFEST), "\u{feff}{}"),
        (Some(OCI_MANIFEST), "{\"schemaVersion\":2} x"),
        (Some(OCI_MANIFEST), "{\"schemaVersion\":1e999}"),
        (None, "{}"),
    ] {
        assert_eq!(put(&world, "v1", kind, body.as_bytes()).await, invalid(), "{kind:?} {body}");
    }
    let manifest = pushed(&world).await.to_string();
    assert_eq!(put(&world, "-v1", Some(OCI_MANIFEST), manifest.as_bytes()).await, (400, "TAG_INVALID".to_owned()));
}

#[tokio::test]
async fn q57_attestations_of_buildx() {
    let world = World::new().await;
    let mut statement = pushed(&world).await;
    let subject = world.manifest("a", "app", &statement).await;
    statement["artifactType"] = "application/vnd.docker.attestation.manifest.v1+json".into();
    statement["subject"] = json!({ "mediaType": OCI_MANIFEST, "digest": subject, "size": 400 });
    let attestation = statement.to_string();
    let digest = world.manifest("a", &sha256(attestation.as_bytes()), &statement).await;
    let index = json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [
        { "mediaType": OCI_MANIFEST, "digest": subject, "size": 400,
          "platform": { "architecture": "amd64", "os": "linux" } },
        { "mediaType": OCI_MANIFEST, "digest": digest, "size": attestation.len(),
          "annotations": { "vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": subject },
          "platform": { "architecture": "unknown", "os": "unknown" } },
    ] });
    world.manifest("a", "latest", &index).await;
    let referrers = world.get(&format!("/v2/a/referrers/{subject}")).await.json();
    assert_eq!(referrers["manifests"][0]["digest"], digest);
}

#[tokio::test]
async fn q58_an_index_that_refers() {
    let world = World::new().await;
    let [subject, ..] = world.image("a", "v1", b"layer").await;
    let index = json!({
        "schemaVersion": 2, "mediaType": OCI_INDEX, "artifactType": "application/vnd.example", "manifests": [],
        "subject": { "mediaType": OCI_MANIFEST, "digest": subject, "size": 7 }, "annotations": { "k": "v" },
    });
    let digest = world.manifest("a", "index", &index).await;
    let entry = &world.get(&format!("/v2/a/referrers/{subject}")).await.json()["manifests"][0];
    let expected = json!({
        "mediaType": OCI_INDEX, "digest": digest, "size": index.to_string().len(),
        "artifactType": "application/vnd.example", "annotations": { "k": "v" },
    });
    assert_eq!(*entry, expected);
}
