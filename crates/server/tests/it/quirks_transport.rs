//! Quirks of clients: transport and the rest. The numbers are those of the list of quirks in
//! `docs/reference/protocol.md`.

use serde_json::json;

use crate::world::{OCI_INDEX, World, sha256};

#[tokio::test]
async fn q81_every_answer_names_the_version_of_the_api() {
    let world = World::new().await;
    world.image("a", "v1", b"layer").await;
    for (method, path) in [
        ("GET", "/v2/"),
        ("GET", "/v2/a/manifests/v1"),
        ("GET", "/v2/a/manifests/missing"),
        ("POST", "/v2/a/blobs/uploads/"),
        ("BREW", "/v2/a/manifests/v1"),
        ("GET", "/v2/nowhere"),
        ("GET", "/v2/A/tags/list"),
        ("GET", "/token"),
        ("PUT", "/token"),
    ] {
        for nobody in [true, false] {
            let call = world.call(method, path);
            let answer = if nobody { call.nobody().send().await } else { call.send().await };
            assert_eq!(answer.header("docker-distribution-api-version"), "registry/2.0", "{method} {path}");
        }
    }
    let misdirected = world.call("GET", "/v2/").host(Some("evil.example")).send().await;
    assert_eq!(misdirected.header("docker-distribution-api-version"), "registry/2.0");
}

#[tokio::test]
async fn q82_ns_of_ourselves_is_ignored_and_of_others_is_not_ours() {
    let world = World::new().await;
    world.image("library/alpine", "latest", b"layer").await;
    let get = |ns: &'static str| async move { format!("/v2/library/alpine/manifests/latest?ns={ns}") };
    for ns in ["", "localhost:5000", "127.0.0.1:5000", "LOCALHOST:5000"] {
        assert_eq!(world.get(&get(ns).await).await.status, 200, "{ns}");
    }
    for ns in ["docker.io", "localhost:5001", "evil"] {
        assert_eq!(world.get(&get(ns).await).await.told(), (404, "NAME_UNKNOWN".to_owned()), "{ns}");
    }
    assert_eq!(world.post("/v2/a/blobs/uploads/?ns=docker.io").await.status, 404, "not for pushes either");
}

#[tokio::test]
async fn q83_errors_are_small_and_json() {
    let world = World::new().await;
    let config = world.blob("a", b"{}").await;
    let digests: Vec<String> = (0..500_u32).map(|i| sha256(&i.to_be_bytes())).collect();
    let mut parts = vec![(config.as_str(), 2)];
    parts.extend(digests.iter().map(|digest| (digest.as_str(), 4)));
    let answer = world.put_manifest("a", "v1", &crate::world::image(&parts)).await;
    assert_eq!((answer.status, answer.header("content-type").as_str()), (400, "application/json"));
    assert!(answer.body.len() <= 8 * 1024);
    let errors = answer.json()["errors"].as_array().unwrap().clone();
    assert!(errors.len() > 10 && errors.iter().all(|error| error["code"] == "MANIFEST_BLOB_UNKNOWN"));
    let long = world.get(&format!("/v2/a/manifests/{}", "x".repeat(5000))).await;
    assert!(long.told() == (400, "TAG_INVALID".to_owned()) && long.body.len() < 1000);
}

#[tokio::test]
async fn q84_who_is_too_many_is_told_when_to_come_back() {
    let world = World::with(&[("PORTCULLIS_LIMITS__UPLOADS_PER_SUBJECT", "1")]).await;
    world.post("/v2/a/blobs/uploads/").await;
    let answer = world.post("/v2/a/blobs/uploads/").await;
    assert_eq!((answer.told(), answer.header("retry-after")), ((429, "TOOMANYREQUESTS".to_owned()), "10".to_owned()));
    let world = World::with(&[("PORTCULLIS_LIMITS__FAILED_LOGINS", "1")]).await;
    let wrong = || world.call("GET", "/token").authorization(&crate::world::basic("maint", "wrong")).send();
    assert_eq!(wrong().await.status, 401);
    let answer = wrong().await;
    assert_eq!(answer.told(), (429, "TOOMANYREQUESTS".to_owned()));
    assert!(answer.header("retry-after").parse::<u32>().unwrap() >= 1);
}

#[tokio::test]
async fn q85_a_refused_body_is_taken_in_within_bounds() {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    let world = World::new().await;
    let taken = Arc::new(AtomicUsize::new(0));
    let count = taken.clone();
    let body = futures_util::stream::poll_fn(move |_| {
        count.fetch_add(65_536, Ordering::Relaxed);
        std::task::Poll::Ready(Some(Ok::<_, std::io::Error>(bytes::Bytes::from(vec![0; 65_536]))))
    });
    let call = world.call("PUT", "/v2/a/manifests/v1").nobody();
    let answer = call.body(axum::body::Body::from_stream(body)).send().await;
    assert_eq!(answer.status, 401, "before anything was read");
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    let taken = taken.load(Ordering::Relaxed);
    // A client that sends a body of up to a mebibyte before it reads sees the answer; a longer one is not waited for.
    assert!((1 << 20..=2 << 20).contains(&taken), "{taken}");
}

#[tokio::test]
async fn q87_mounts_from_other_names_and_cancelled_uploads() {
    let world = World::new().await;
    let [_, _, layer] = world.image("one", "v1", b"layer").await;
    let mounted = world.post(&format!("/v2/two/blobs/uploads/?mount={layer}&from=one")).await;
    assert_eq!((mounted.status, mounted.header("location")), (201, format!("/v2/two/blobs/{layer}")));
    let other = world.post(&format!("/v2/two/blobs/uploads/?mount={}&from=one", sha256(b"x"))).await;
    assert_eq!(world.delete(&other.header("location")).await.status, 204);
}

#[tokio::test]
async fn q88_deleting_a_tag_leaves_the_manifest() {
    let world = World::new().await;
    let [digest, ..] = world.image("a", "v1", b"layer").await;
    let manifest = world.get("/v2/a/manifests/v1").await.json();
    world.manifest("a", "v2", &manifest).await;
    assert_eq!(world.delete("/v2/a/manifests/v1").await.status, 202);
    assert_eq!(world.head("/v2/a/manifests/v1").await.status, 404, "at once");
    assert_eq!(world.delete("/v2/a/manifests/v1").await.told(), (404, "MANIFEST_UNKNOWN".to_owned()));
    assert_eq!(world.get("/v2/a/manifests/v2").await.status, 200);
    assert_eq!(world.get(&format!("/v2/a/manifests/{digest}")).await.status, 200);
    // The way of clients that find no deleting of tags: a manifest of its own, then delete that by digest.
    let dummy = json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [] });
    let digest = world.manifest("a", "v2", &dummy).await;
    assert_eq!(world.delete(&format!("/v2/a/manifests/{digest}")).await.status, 202);
    assert_eq!(world.head("/v2/a/manifests/v2").await.status, 404, "the tag goes with it");
}

// Q89: nothing to do in a registry: Notary v1 is a server of its own.

#[tokio::test]
async fn q92_where_another_registry_differs_the_specification_is_followed() {
    let world = World::new().await;
    // The end of a range is its last byte: 0-3 are four bytes.
    let location = world.post("/v2/a/blobs/uploads/").await.header("location");
    let chunk = |body: &'static str| world.call("PATCH", &location).header("content-range", "0-3").body(body).send();
    assert_eq!(chunk("abc").await.told(), (400, "SIZE_INVALID".to_owned()));
    assert_eq!(chunk("abcd").await.status, 202);
    // A method that is not known here is 405, not 400.
    assert_eq!(world.call("BREW", "/v2/a/manifests/v1").send().await.told(), (405, "UNSUPPORTED".to_owned()));
    // An index may come before its children.
    let child = json!({ "mediaType": crate::world::OCI_MANIFEST, "digest": crate::world::NOTHING, "size": 7 });
    world.manifest("a", "v1", &json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [child] })).await;
    // Referrers of a repository that is not there are none.
    let referrers = world.get(&format!("/v2/missing/referrers/{}", crate::world::NOTHING)).await;
    assert_eq!((referrers.status, referrers.json()["manifests"].clone()), (200, json!([])));
}

#[tokio::test]
async fn q90_soci_indexes_are_ordinary() {
    let world = World::new().await;
    let [subject, ..] = world.image("a", "v1", b"layer").await;
    let config = world.blob("a", b"{}").await;
    let mut index = crate::world::image(&[(&config, 2)]);
    index["config"]["mediaType"] = "application/vnd.amazon.soci.index.v1+json".into();
    index["subject"] = json!({ "mediaType": crate::world::OCI_MANIFEST, "digest": subject, "size": 7 });
    let digest = world.manifest("a", &sha256(index.to_string().as_bytes()), &index).await;
    let filter = "application%2Fvnd.amazon.soci.index.v1%2Bjson";
    let answer = world.get(&format!("/v2/a/referrers/{subject}?artifactType={filter}")).await;
    assert_eq!(answer.json()["manifests"][0]["digest"], digest, "found by the type of its config");
}

#[tokio::test]
async fn q91_deletes_without_a_body() {
    let world = World::new().await;
    let [manifest, _, layer] = world.image("a", "v1", b"layer").await;
    for path in [format!("/v2/a/manifests/{manifest}"), format!("/v2/a/blobs/{layer}")] {
        let answer = world.delete(&path).await;
        assert_eq!((answer.status, answer.header("content-length")), (202, "0".to_owned()));
        assert_eq!(world.head(&path).await.status, 404);
        assert_eq!(world.delete(&path).await.status, 404);
    }
}
