//! Every endpoint once, whole answers; and bad input.

use serde_json::json;

use crate::world::{NOTHING, OCI_INDEX, OCI_MANIFEST, World, image, sha256};

const ID: &str = "00000000-0000-4000-8000-000000000000";

#[tokio::test]
async fn reading() {
    let world = World::new().await;
    let [manifest, _, layer] = world.image("team/app", "v1", b"layer").await;
    insta::assert_snapshot!(world.get("/v2/").await.show(), @r"
    200
    content-length: 2
    content-type: application/json
    docker-distribution-api-version: registry/2.0

    {}
    ");
    insta::assert_snapshot!(world.get("/v2/team/app/manifests/v1").await.show(), @r#"
    200
    cache-control: no-cache
    content-disposition: attachment
    content-length: 398
    content-security-policy: default-src 'none'; sandbox
    content-type: application/vnd.oci.image.manifest.v1+json
    docker-content-digest: sha256:d0cd6a5a04573df3d8cbc2f16271dfe412bb9ed9763c60b907d00a940728e2f7
    docker-distribution-api-version: registry/2.0
    etag: "sha256:d0cd6a5a04573df3d8cbc2f16271dfe412bb9ed9763c60b907d00a940728e2f7"
    x-content-type-options: nosniff

    {"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:b95790abee7c6c227d8bf736a8d174dcbe15175b6bd092c4e5bac1854918b4a1","size":11},"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":"sha256:dac1d7cfa95021764849fd102524e141488c5e3a90f861dbb5a12d9ac8584f85","size":5}]}
    "#);
    insta::assert_snapshot!(world.head(&format!("/v2/team/app/manifests/{manifest}")).await.show(), @r#"
    200
    content-disposition: attachment
    content-length: 398
    content-security-policy: default-src 'none'; sandbox
    content-type: application/vnd.oci.image.manifest.v1+json
    docker-content-digest: sha256:d0cd6a5a04573df3d8cbc2f16271dfe412bb9ed9763c60b907d00a940728e2f7
    docker-distribution-api-version: registry/2.0
    etag: "sha256:d0cd6a5a04573df3d8cbc2f16271dfe412bb9ed9763c60b907d00a940728e2f7"
    x-content-type-options: nosniff
    "#);
    insta::assert_snapshot!(world.get(&format!("/v2/team/app/blobs/{layer}")).await.show(), @r#"
    200
    accept-ranges: bytes
    cache-control: max-age=31536000
    content-disposition: attachment
    content-length: 5
    content-security-policy: default-src 'none'; sandbox
    content-type: application/octet-stream
    docker-content-digest: sha256:dac1d7cfa95021764849fd102524e141488c5e3a90f861dbb5a12d9ac8584f85
    docker-distribution-api-version: registry/2.0
    etag: "sha256:dac1d7cfa95021764849fd102524e141488c5e3a90f861dbb5a12d9ac8584f85"
    x-content-type-options: nosniff

    layer
    "#);
    insta::assert_snapshot!(world.head(&format!("/v2/team/app/blobs/{layer}")).await.show(), @r#"
    200
    accept-ranges: bytes
    cache-control: max-age=31536000
    content-disposition: attachment
    content-length: 5
    content-security-policy: default-src 'none'; sandbox
    content-type: application/octet-stream
    docker-content-digest: sha256:dac1d7cfa95021764849fd102524e141488c5e3a90f861dbb5a12d9ac8584f85
    docker-distribution-api-version: registry/2.0
    etag: "sha256:dac1d7cfa95021764849fd102524e141488c5e3a90f861dbb5a12d9ac8584f85"
    x-content-type-options: nosniff
    "#);
    let part = world.call("GET", &format!("/v2/team/app/blobs/{layer}")).header("range", "bytes=1-2").send().await;
    insta::assert_snapshot!(part.show(), @r#"
    206
    accept-ranges: bytes
    cache-control: max-age=31536000
    content-disposition: attachment
    content-length: 2
    content-range: bytes 1-2/5
    content-security-policy: default-src 'none'; sandbox
    content-type: application/octet-stream
    docker-content-digest: sha256:dac1d7cfa95021764849fd102524e141488c5e3a90f861dbb5a12d9ac8584f85
    docker-distribution-api-version: registry/2.0
    etag: "sha256:dac1d7cfa95021764849fd102524e141488c5e3a90f861dbb5a12d9ac8584f85"
    x-content-type-options: nosniff

    ay
    "#);
}

#[tokio::test]
async fn listing() {
    let world = World::new().await;
    let [manifest, ..] = world.image("team/app", "v1", b"layer").await;
    insta::assert_snapshot!(world.get("/v2/team/app/tags/list").await.show(), @r#"
    200
    content-length: 33
    content-type: application/json
    docker-distribution-api-version: registry/2.0

    {"name":"team/app","tags":["v1"]}
    "#);
    insta::assert_snapshot!(world.get("/v2/_catalog").await.show(), @r#"
    200
    content-length: 29
    content-type: application/json
    docker-distribution-api-version: registry/2.0

    {"repositories":["team/app"]}
    "#);
    insta::assert_snapshot!(world.get(&format!("/v2/team/app/referrers/{manifest}")).await.show(), @r#"
    200
    content-length: 88
    content-type: application/vnd.oci.image.index.v1+json
    docker-distribution-api-version: registry/2.0

    {"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}
    "#);
    insta::assert_snapshot!(world.get("/v2/_oci/ext/discover").await.show(), @r#"
    200
    content-length: 364
    content-type: application/json
    docker-distribution-api-version: registry/2.0

    {"extensions":[{"name":"_oci","url":"https://github.com/opencontainers/distribution-spec/tree/main/extensions","description":"discovery of extensions","endpoints":["_oci/ext/discover"]},{"name":"_catalog","url":"https://github.com/opencontainers/distribution-spec/tree/main/extensions","description":"the repositories that you may list","endpoints":["_catalog"]}]}
    "#);
}

#[tokio::test]
async fn pushing() {
    let world = World::new().await;
    let start = world.post("/v2/team/app/blobs/uploads/").await;
    insta::assert_snapshot!(start.show(), @r"
    202
    content-length: 0
    docker-distribution-api-version: registry/2.0
    docker-upload-uuid: <id>
    location: /v2/team/app/blobs/uploads/<id>?state=0
    range: 0-0
    ");
    let patch = world.patch(&start.header("location"), "{}").await;
    insta::assert_snapshot!(patch.show(), @r"
    202
    content-length: 0
    docker-distribution-api-version: registry/2.0
    docker-upload-uuid: <id>
    location: /v2/team/app/blobs/uploads/<id>?state=2
    range: 0-1
    ");
    insta::assert_snapshot!(world.get(&patch.header("location")).await.show(), @r"
    204
    docker-distribution-api-version: registry/2.0
    docker-upload-uuid: <id>
    location: /v2/team/app/blobs/uploads/<id>?state=2
    range: 0-1
    ");
    let digest = sha256(b"{}");
    let put = world.put(&format!("{}&digest={digest}", patch.header("location")), "").await;
    insta::assert_snapshot!(put.show(), @r"
    201
    content-length: 0
    docker-content-digest: sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a
    docker-distribution-api-version: registry/2.0
    location: /v2/team/app/blobs/sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a
    ");
    let other = world.post("/v2/team/app/blobs/uploads/").await;
    insta::assert_snapshot!(world.delete(&other.header("location")).await.show(), @r"
    204
    docker-distribution-api-version: registry/2.0
    docker-upload-uuid: <id>
    ");
    let mut manifest = image(&[(&digest, 2)]);
    manifest["subject"] = json!({ "mediaType": OCI_MANIFEST, "digest": NOTHING, "size": 7 });
    let body = manifest.to_string();
    let target = format!("/v2/team/app/manifests/{}?tag=v1&tag=v2", sha256(body.as_bytes()));
    let pushed = world.call("PUT", &target).header("content-type", OCI_MANIFEST).body(body).send().await;
    insta::assert_snapshot!(pushed.show(), @r"
    201
    content-length: 0
    docker-content-digest: sha256:8d8fae0ae3985b076c3492d1f0a5b480c46fd363a5f5ed852ed3fcfcae6b8124
    docker-distribution-api-version: registry/2.0
    location: /v2/team/app/manifests/sha256:8d8fae0ae3985b076c3492d1f0a5b480c46fd363a5f5ed852ed3fcfcae6b8124
    oci-subject: sha256:0000000000000000000000000000000000000000000000000000000000000000
    oci-tag: v1
    oci-tag: v2
    ");
    insta::assert_snapshot!(world.delete("/v2/team/app/manifests/v1").await.show(), @r"
    202
    content-length: 0
    docker-distribution-api-version: registry/2.0
    ");
}

#[tokio::test]
async fn errors() {
    let world = World::new().await;
    world.image("team/app", "v1", b"layer").await;
    insta::assert_snapshot!(world.call("GET", "/v2/").nobody().send().await.show(), @r#"
    401
    content-length: 61
    content-type: application/json
    docker-distribution-api-version: registry/2.0
    www-authenticate: Bearer realm="http://localhost:5000/token",service="localhost:5000"

    {"errors":[{"code":"UNAUTHORIZED","message":"log in first"}]}
    "#);
    insta::assert_snapshot!(world.get("/v2/team/app/manifests/missing").await.show(), @r#"
    404
    content-length: 86
    content-type: application/json
    docker-distribution-api-version: registry/2.0

    {"errors":[{"code":"MANIFEST_UNKNOWN","message":"there is no manifest missing here"}]}
    "#);
    insta::assert_snapshot!(world.get("/v2/missing/manifests/v1").await.show(), @r#"
    404
    content-length: 99
    content-type: application/json
    docker-distribution-api-version: registry/2.0

    {"errors":[{"code":"NAME_UNKNOWN","message":"there is no such repository, or you may not see it"}]}
    "#);
    insta::assert_snapshot!(world.post("/v2/team/app/manifests/v1").await.show(), @r#"
    405
    allow: GET, HEAD, PUT, DELETE
    content-length: 90
    content-type: application/json
    docker-distribution-api-version: registry/2.0

    {"errors":[{"code":"UNSUPPORTED","message":"this endpoint takes GET, HEAD, PUT, DELETE"}]}
    "#);
    insta::assert_snapshot!(world.get("/nowhere").await.show(), @r#"
    404
    content-length: 69
    content-type: application/json

    {"errors":[{"code":"UNSUPPORTED","message":"there is nothing here"}]}
    "#);
    insta::assert_snapshot!(world.call("GET", "/v2/").host(Some("evil.example")).send().await.show(), @r#"
    421
    content-length: 130
    content-type: application/json
    docker-distribution-api-version: registry/2.0

    {"errors":[{"code":"UNSUPPORTED","message":"the Host header must hold exactly one name, and one of those in server.public_urls"}]}
    "#);
}

#[tokio::test]
async fn tokens() {
    let world = World::new().await;
    let answer = world.call("GET", "/token?scope=repository:a:pull&offline_token=true").send().await;
    let mut body = answer.json();
    for name in ["token", "access_token", "refresh_token"] {
        assert_eq!(body[name].as_str().unwrap().split('.').count(), 3);
        body[name] = "…".into();
    }
    insta::assert_snapshot!(body.to_string(), @r#"{"token":"…","access_token":"…","expires_in":900,"issued_at":"2027-01-15T08:00:00.000Z","refresh_token":"…"}"#);
    insta::assert_snapshot!(world.call("GET", "/token").user("nobody").send().await.show(), @r#"
    401
    cache-control: no-store
    content-length: 80
    content-type: application/json
    docker-distribution-api-version: registry/2.0
    www-authenticate: Basic realm="localhost:5000"

    {"errors":[{"code":"UNAUTHORIZED","message":"the name or the secret is wrong"}]}
    "#);
}

#[tokio::test]
async fn several_tags_in_one_push() {
    let world = World::new().await;
    let config = world.blob("a", b"{}").await;
    let manifest = image(&[(&config, 2)]);
    let digest = sha256(manifest.to_string().as_bytes());
    let put = |target: String| {
        let call = world.call("PUT", &target).header("content-type", OCI_MANIFEST).body(manifest.to_string());
        async move { call.send().await }
    };
    let tags: Vec<String> = (10..30).map(|i| format!("t{i}")).collect();
    let answer = put(format!("/v2/a/manifests/{digest}?tag={}", tags.join("&tag="))).await;
    assert_eq!((answer.status, answer.header("oci-tag")), (201, tags.join(" & ")));
    assert_eq!(world.get("/v2/a/tags/list").await.json()["tags"], json!(tags));
    assert_eq!(put(format!("/v2/a/manifests/{digest}?tag=ok&tag=-bad")).await.told(), (400, "TAG_INVALID".to_owned()));
    assert_eq!(put("/v2/a/manifests/v1?tag=other".to_owned()).await.status, 400, "with a digest only");
    let many = put(format!("/v2/a/manifests/{digest}?tag={}", vec!["x"; 65].join("&tag="))).await;
    assert_eq!(many.status, 414);
    assert_eq!(world.head("/v2/a/manifests/ok").await.status, 404, "all or nothing");
    let sha512 = crate::world::sha512(manifest.to_string().as_bytes());
    assert_eq!(put(format!("/v2/a/manifests/{sha512}?tag=long")).await.status, 201);
    assert_eq!(world.get("/v2/a/manifests/long").await.header("docker-content-digest"), sha512);
}

// security: B-06, B-07
#[tokio::test]
async fn b06_b07_a_right_to_create_tags_moves_none() {
    let world = World::new().await;
    let [old, ..] = world.image("a", "latest", b"layer").await;
    world.user("ci").await;
    world.grant("user:ci", "pull,list,push,tag-create", "a").await;
    let manifest = json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [] });
    let digest = sha256(manifest.to_string().as_bytes());
    let put = |target: &str| {
        let call = world.call("PUT", target).user("ci").header("content-type", OCI_INDEX).body(manifest.to_string());
        async move { call.send().await }
    };
    let refused = put("/v2/a/manifests/latest").await;
    assert_eq!(refused.told(), (403, "DENIED".to_owned()));
    assert!(refused.text().contains("user:ci may not move tag latest in a: needs verb tag-move"), "{}", refused.text());
    assert_eq!(put(&format!("/v2/a/manifests/{digest}?tag=new&tag=latest")).await.status, 403);
    assert_eq!(world.get("/v2/a/manifests/latest").await.header("docker-content-digest"), old);
    assert_eq!(world.get("/v2/a/tags/list").await.json()["tags"], json!(["latest"]));
    assert_eq!(put("/v2/a/manifests/new").await.status, 201);
    let answer = world.call("DELETE", &format!("/v2/a/manifests/{old}")).user("ci").send().await;
    assert_eq!(answer.told(), (403, "DENIED".to_owned()));
    // Who may delete, but not tags, deletes no manifest that has one.
    world.user("sweeper").await;
    world.grant("user:sweeper", "pull,delete", "a").await;
    let answer = world.call("DELETE", &format!("/v2/a/manifests/{old}")).user("sweeper").send().await;
    assert!(answer.text().contains("needs verb tag-delete"), "{}", answer.text());
}

// security: B-17
#[tokio::test]
async fn b17_the_decision_comes_before_the_body() {
    let world = World::new().await;
    world.user("reader").await;
    world.grant("user:reader", "reader", "a").await;
    world.image("a", "v1", b"layer").await;
    for size in [0, 10, 8 << 20] {
        let answer = world.call("PUT", "/v2/a/manifests/v1").user("reader").body(vec![b'x'; size]).send().await;
        assert_eq!(answer.told(), (403, "DENIED".to_owned()), "{size}");
        let answer = world.call("POST", "/v2/a/blobs/uploads/?digest=sha256:x").user("reader").body(vec![b'x'; size]);
        assert_eq!(answer.send().await.told(), (403, "DENIED".to_owned()), "{size}");
    }
    for (name, value) in [("x-http-method-override", "PUT"), ("x-method-override", "DELETE")] {
        let answer =
            world.call("GET", "/v2/a/manifests/v1?_method=PUT").user("reader").header(name, value).send().await;
        assert_eq!(answer.status, 200);
    }
}

// security: C-02, C-04, C-06
#[tokio::test]
async fn c04_bytes_that_are_elsewhere_are_taken_all_the_same() {
    let world = World::new().await;
    world.user("alice").await;
    world.grant("user:alice", "writer", "alice/**").await;
    let [_, _, secret] = world.image("secret/app", "v1", b"secret layer").await;
    for method in ["GET", "HEAD"] {
        for path in [format!("/v2/alice/app/blobs/{secret}"), format!("/v2/alice/app/manifests/{secret}")] {
            assert_eq!(world.call(method, &path).user("alice").send().await.status, 404, "{method} {path}");
        }
    }
    let referrers = world.call("GET", &format!("/v2/alice/app/referrers/{secret}")).user("alice").send().await;
    assert_eq!(referrers.json()["manifests"], json!([]));
    // A manifest is no lever either.
    let config = sha256(b"{}");
    let start = world.call("POST", &format!("/v2/alice/app/blobs/uploads/?digest={config}")).user("alice").body("{}");
    assert_eq!(start.send().await.status, 201);
    let put = |layer: &str, size: usize| {
        let manifest = image(&[(&config, 2), (layer, size)]);
        let call = world.call("PUT", "/v2/alice/app/manifests/v1").user("alice").header("content-type", OCI_MANIFEST);
        let call = call.body(manifest.to_string());
        async move { call.send().await }
    };
    let (known, random) = (put(&secret, 12).await, put(NOTHING, 12).await);
    assert_eq!(known.told(), (400, "MANIFEST_BLOB_UNKNOWN".to_owned()));
    assert_eq!(known.show().replace(&secret, NOTHING), random.show());
    // Half of the bytes are not enough, all of them are.
    let target = format!("/v2/alice/app/blobs/uploads/?digest={secret}");
    let half = world.call("POST", &target).user("alice").body("secret").send().await;
    assert_eq!(half.told(), (400, "DIGEST_INVALID".to_owned()));
    let known = world.call("POST", &target).user("alice").body("secret layer").send().await;
    let fresh = sha256(b"fresh! layer");
    let target = format!("/v2/alice/app/blobs/uploads/?digest={fresh}");
    let random = world.call("POST", &target).user("alice").body("fresh! layer").send().await;
    assert_eq!((known.status, known.show().replace(&secret, &fresh)), (201, random.show()));
    assert_eq!(put(&secret, 12).await.status, 201);
}

// security: C-08
#[tokio::test]
async fn c08_deleting_in_one_repository_leaves_the_other() {
    let world = World::new().await;
    let [manifest, _, layer] = world.image("a", "v1", b"layer").await;
    world.image("b", "v1", b"layer").await;
    assert_eq!(world.delete(&format!("/v2/a/blobs/{layer}")).await.told(), (405, "UNSUPPORTED".to_owned()));
    assert_eq!(world.delete(&format!("/v2/a/manifests/{manifest}")).await.status, 202);
    assert_eq!(world.delete(&format!("/v2/a/blobs/{layer}")).await.status, 202);
    for path in [format!("/v2/a/blobs/{layer}"), format!("/v2/a/manifests/{manifest}"), "/v2/a/manifests/v1".to_owned()]
    {
        assert_eq!(world.get(&path).await.status, 404, "{path}");
    }
    assert_eq!(world.get(&format!("/v2/b/blobs/{layer}")).await.status, 200);
    assert_eq!(world.get(&format!("/v2/a/blobs/{layer}")).await.status, 404);
}

// security: C-10
#[tokio::test]
async fn c10_subjects_stay_in_their_repository() {
    let world = World::new().await;
    let [subject, ..] = world.image("b", "v1", b"layer").await;
    let index = json!({
        "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [],
        "subject": { "mediaType": OCI_MANIFEST, "digest": subject, "size": 7 },
    });
    world.manifest("a", "v1", &index).await;
    let count = |name: &'static str| {
        let (world, target) = (&world, format!("/v2/{name}/referrers/{subject}"));
        async move { world.get(&target).await.json()["manifests"].as_array().unwrap().len() }
    };
    assert_eq!((count("a").await, count("b").await), (1, 0));
}

// security: E-03
#[tokio::test]
async fn e03_encoded_separators_reach_nothing() {
    let world = World::new().await;
    world.image("a", "v1", b"layer").await;
    for part in ["%2e%2e%2f", "..%2f", "%252e", "%5c", "..;", "..", ".", "%2e", "%00", "a%2f..%2fa", "%c0%ae"] {
        for path in [
            format!("/v2/{part}/manifests/v1"),
            format!("/v2/a/{part}/manifests/v1"),
            format!("/v2/a/manifests/{part}"),
            format!("/v2/a/manifests/sha256:{part}"),
            format!("/v2/a/blobs/{part}"),
            format!("/v2/a/blobs/uploads/{part}"),
            format!("/v2/a/referrers/{part}"),
        ] {
            let answer = world.get(&path).await;
            assert!([400, 404].contains(&answer.status), "{path}: {}", answer.status);
        }
    }
}

// security: E-05
#[tokio::test]
async fn e05_digests_are_canonical_or_refused() {
    let world = World::new().await;
    let hex = "a".repeat(64);
    for digest in [
        format!("sha256:{}", &hex[1..]),
        format!("sha256:{hex}a"),
        format!("sha256:{}", hex.to_uppercase()),
        format!("SHA256:{hex}"),
        format!("md5:{}", &hex[..32]),
        format!("sha1:{}", &hex[..40]),
        format!("sha256+b64u:{hex}"),
        format!("sha512:{hex}"),
        format!("blake3:{hex}"),
        "sha256:".to_owned(),
        ":".to_owned(),
        format!("sha256:{}", "a".repeat(10_000)),
    ] {
        for target in
            [format!("/v2/a/blobs/{digest}"), format!("/v2/a/manifests/{digest}"), format!("/v2/a/referrers/{digest}")]
        {
            assert_eq!(world.get(&target).await.told(), (400, "DIGEST_INVALID".to_owned()), "{digest}");
        }
        for target in [format!("/v2/a/blobs/uploads/?digest={digest}"), format!("/v2/a/blobs/uploads/?mount={digest}")]
        {
            assert_eq!(world.post(&target).await.told(), (400, "DIGEST_INVALID".to_owned()), "{digest}");
        }
    }
    let good = sha256(b"");
    let two = world.post(&format!("/v2/a/blobs/uploads/?digest={good}&digest={good}")).await;
    assert_eq!(two.told(), (400, "DIGEST_INVALID".to_owned()));
}

// security: F-08
#[tokio::test]
async fn f08_targets_are_bounded() {
    let world = World::new().await;
    for (target, state) in [
        (format!("/v2/a/manifests/{}", "x".repeat(20_000)), 414),
        (format!("/v2/a/tags/list?x={}", "y".repeat(60_000)), 414),
        (format!("/v2/a/tags/list?{}", "a=b&".repeat(10_000)), 414),
        (format!("/v2/a/tags/list?{}", "a=b&".repeat(300)), 414),
        (format!("/v2/{}/tags/list", "a/".repeat(5000).trim_end_matches('/')), 400),
        (format!("/v2/{}/tags/list", ["a"; 100].join("/")), 404),
    ] {
        assert_eq!(world.get(&target).await.status, state, "{}", &target[..40]);
    }
}

// security: E-08
#[tokio::test]
async fn e08_deep_names_and_names_below_others() {
    let world = World::new().await;
    let deep = ["a"; 100].join("/");
    for name in ["org/team", "org/team/img", "org/team/img/tags/list", &deep] {
        world.image(name, "v1", b"layer").await;
    }
    assert_eq!(world.delete("/v2/org/team/manifests/v1").await.status, 202);
    // The whole repository, and what a collection makes of it.
    let name = oci::RepositoryName::parse("org/team").unwrap();
    assert!(world.db().delete_repository(&name, &meta::Actor::system("test")).await.unwrap());
    world.collect(std::time::Duration::ZERO).await;
    let left = world.get("/v2/_catalog").await.json()["repositories"].clone();
    assert_eq!(left, json!([deep, "org/team/img", "org/team/img/tags/list"]));
    for name in ["org/team/img", "org/team/img/tags/list", &deep] {
        assert_eq!(world.get(&format!("/v2/{name}/manifests/v1")).await.status, 200, "{name}");
        assert_eq!(world.get(&format!("/v2/{name}/tags/list")).await.json()["tags"], json!(["v1"]), "{name}");
    }
}

#[tokio::test]
async fn methods_and_endpoints_that_are_not_there() {
    let world = World::new().await;
    for (method, path, allow) in [
        ("POST", "/v2/".to_owned(), "GET, HEAD"),
        ("DELETE", "/v2/_catalog".to_owned(), "GET, HEAD"),
        ("POST", "/v2/a/tags/list".to_owned(), "GET, HEAD"),
        ("PATCH", "/v2/a/manifests/v1".to_owned(), "GET, HEAD, PUT, DELETE"),
        ("PUT", format!("/v2/a/blobs/{NOTHING}"), "GET, HEAD, DELETE"),
        ("GET", "/v2/a/blobs/uploads/".to_owned(), "POST"),
        ("POST", format!("/v2/a/blobs/uploads/{ID}"), "GET, HEAD, PATCH, PUT, DELETE"),
        ("OPTIONS", "/v2/a/manifests/v1".to_owned(), "GET, HEAD, PUT, DELETE"),
    ] {
        let answer = world.call(method, &path).send().await;
        assert_eq!((answer.told(), answer.header("allow").as_str()), ((405, "UNSUPPORTED".to_owned()), allow));
    }
    for path in ["/v2/a", "/v2/a/b/c/d", "/v2/a/blobs", "/v2/a/tags", "/x"] {
        assert_eq!(world.get(path).await.told(), (404, "UNSUPPORTED".to_owned()), "{path}");
    }
}

#[tokio::test]
async fn metrics_count_requests_by_endpoint() {
    let world = World::new().await;
    world.get("/v2/a/manifests/v1").await;
    world.get("/v2/a/manifests/v2").await;
    world.call("BREW", "/nowhere").send().await;
    world.blob("a", b"12345").await;
    let text = world.state.metrics.text();
    for line in [
        r#"portcullis_http_requests_total{route="manifest",method="GET",code="404"} 2"#,
        r#"portcullis_http_requests_total{route="unknown",method="other",code="404"} 1"#,
        r#"portcullis_blob_bytes_total{direction="in"} 5"#,
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
}
