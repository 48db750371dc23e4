//! Attacks on the distribution API that are no quirk of a client. Cases are those of `docs/security-cases.md`.

use std::time::{Duration, Instant};

use bytes::Bytes;
use serde_json::{Value, json};

use crate::world::{Answer, NOTHING, OCI_INDEX, OCI_MANIFEST, World, image, sha256};

/// What there is to read in the repository: if nothing of it changed, nothing was written.
async fn contents(world: &World) -> Vec<String> {
    let mut all = vec![world.get("/v2/_catalog").await.show(), world.get("/v2/a/tags/list").await.show()];
    all.push(world.get("/v2/a/manifests/v1").await.show());
    all
}

/// Every request that would write or delete in the repository `a`.
fn writes(manifest: &str, layer: &str) -> Vec<(&'static str, String)> {
    vec![
        ("PUT", "/v2/a/manifests/v1".to_owned()),
        ("PUT", "/v2/a/manifests/new".to_owned()),
        ("PUT", format!("/v2/a/manifests/{manifest}?tag=new")),
        ("DELETE", "/v2/a/manifests/v1".to_owned()),
        ("DELETE", format!("/v2/a/manifests/{manifest}")),
        ("DELETE", format!("/v2/a/blobs/{layer}")),
        ("POST", "/v2/a/blobs/uploads/".to_owned()),
        ("POST", format!("/v2/a/blobs/uploads/?digest={}", sha256(b"x"))),
        ("POST", format!("/v2/a/blobs/uploads/?mount={layer}&from=b")),
        ("PATCH", "/v2/a/blobs/uploads/00000000-0000-4000-8000-000000000000".to_owned()),
        ("PUT", format!("/v2/a/blobs/uploads/00000000-0000-4000-8000-000000000000?digest={}", sha256(b"x"))),
        ("DELETE", "/v2/a/blobs/uploads/00000000-0000-4000-8000-000000000000".to_owned()),
    ]
}

// security: B-05
#[tokio::test]
async fn a_token_for_pulling_writes_nothing() {
    let world = World::new().await;
    let [manifest, _, layer] = world.image("a", "v1", b"layer").await;
    world.image("b", "v1", b"layer").await;
    let before = contents(&world).await;
    let token = world.token("maint", &["repository:a:pull"]).await;
    for (method, path) in writes(&manifest, &layer) {
        let answer = world.call(method, &path).bearer(&token).body("x").send().await;
        assert_eq!(answer.status, 401, "{method} {path}");
        assert!(answer.header("www-authenticate").contains("insufficient_scope"), "{method} {path}");
        for name in ["x-http-method-override", "x-http-method", "x-method-override"] {
            let call = world.call("GET", "/v2/a/manifests/v1?_method=DELETE").bearer(&token).header(name, method);
            assert_eq!(call.send().await.status, 200);
        }
    }
    assert_eq!(contents(&world).await, before);
}

// security: B-11, B-16
#[tokio::test]
async fn without_the_right_nothing_is_written_or_deleted() {
    let world = World::new().await;
    let [manifest, _, layer] = world.image("a", "v1", b"layer").await;
    world.image("b", "v1", b"layer").await;
    world.user("bare").await;
    world.user("writer").await;
    world.grant("user:writer", "writer", "**").await;
    let before = contents(&world).await;
    for (method, path) in writes(&manifest, &layer) {
        let answer = world.call(method, &path).user("bare").body("x").send().await;
        assert_eq!(answer.told(), (404, "NAME_UNKNOWN".to_owned()), "{method} {path}");
        if method == "DELETE" && !path.contains("uploads") {
            let answer = world.call(method, &path).user("writer").send().await;
            assert_eq!(answer.told(), (403, "DENIED".to_owned()), "{method} {path}");
        }
    }
    assert_eq!(world.call("GET", "/v2/").user("bare").send().await.status, 200);
    assert_eq!(contents(&world).await, before);
}

// security: B-13
#[tokio::test]
async fn nothing_internal_is_on_the_main_listener() {
    let world = World::new().await;
    let of_admin = api::Route::ALL.iter().map(|route| route.path());
    for path in ["/metrics", "/readyz", "/debug/pprof/", "/debug/vars", "/admin", "/status"].into_iter().chain(of_admin)
    {
        let path = &path.replace(['{', '}'], "");
        for method in ["GET", "POST"] {
            assert_eq!(world.call(method, path).send().await.status, 404, "{method} {path}");
        }
    }
}

// security: B-15
#[tokio::test]
async fn other_origins_get_no_leave() {
    let world = World::new().await;
    for (method, path) in
        [("OPTIONS", "/v2/"), ("OPTIONS", "/token"), ("GET", "/v2/"), ("POST", "/token"), ("GET", "/token")]
    {
        for origin in ["https://evil.example", "null", "http://localhost:5000"] {
            let call = world.call(method, path).header("origin", origin).header("access-control-request-method", "PUT");
            let answer = call.send().await;
            assert!(answer.headers.keys().all(|name| !name.as_str().starts_with("access-control-")), "{method} {path}");
            assert!(!answer.headers.contains_key("set-cookie"));
        }
    }
}

// security: C-11
#[tokio::test]
async fn an_index_reaches_no_manifest_of_another_repository() {
    let world = World::new().await;
    let [child, ..] = world.image("secret", "v1", b"layer").await;
    world.user("alice").await;
    world.grant("user:alice", "writer", "alice").await;
    let entry = json!({ "mediaType": OCI_MANIFEST, "digest": child, "size": 400 });
    let index = json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [entry] });
    let call = world.call("PUT", "/v2/alice/manifests/v1").user("alice").header("content-type", OCI_INDEX);
    assert_eq!(call.body(index.to_string()).send().await.status, 201, "a child may be missing");
    for path in [format!("/v2/alice/manifests/{child}"), format!("/v2/alice/blobs/{child}")] {
        assert_eq!(world.call("GET", &path).user("alice").send().await.status, 404, "{path}");
    }
}

// security: E-01
#[tokio::test]
async fn names_around_the_grammar() {
    let world = World::new().await;
    let parts = ["a", "0", "A", ".", "_", "__", "___", "-", "---", "/", "..", "a-b", "%", "+", "ä"];
    let component = |text: &str| -> bool {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        // Separators one after another, each of a kind that is allowed, between plain characters.
        let mut rest = text.trim_start_matches(plain);
        let mut good = rest.len() < text.len();
        while good && !rest.is_empty() {
            let separator: String = rest.chars().take_while(|c| !plain(*c)).collect();
            rest = &rest[separator.len()..];
            let known = [".", "_", "__"].contains(&separator.as_str()) || separator.chars().all(|c| c == '-');
            good = known && !rest.is_empty();
            rest = rest.trim_start_matches(plain);
        }
        good
    };
    let mut counts = [0, 0];
    for number in 0..parts.len().pow(3) {
        let pick = |place: u32| parts[number / parts.len().pow(place) % parts.len()];
        let name = format!("{}{}{}", pick(0), pick(1), pick(2));
        let good = name.split('/').all(component);
        let answer = world.get(&format!("/v2/{}/tags/list", name.replace('%', "%25").replace('ä', "%C3%A4"))).await;
        let expected = if good { (404, "NAME_UNKNOWN") } else { (400, "NAME_INVALID") };
        assert_eq!(answer.told(), (expected.0, expected.1.to_owned()), "{name}");
        counts[usize::from(good)] += 1;
    }
    assert!(counts[0] > 1000 && counts[1] > 50, "{counts:?}");
    for (length, status) in [(255, 404), (256, 400), (10_000, 400)] {
        assert_eq!(world.get(&format!("/v2/{}/tags/list", "a".repeat(length))).await.status, status, "{length}");
    }
}

// security: F-13
#[tokio::test]
async fn no_parameter_leads_elsewhere() {
    let world = World::new().await;
    for target in ["https://evil.example", "//evil.example", "/\\evil.example", "\\evil.example"] {
        for name in ["redirect_uri", "redirect", "next", "return_to", "service", "account", "client_id"] {
            for path in ["/token", "/v2/", "/healthz"] {
                let answer = world.get(&format!("{path}?{name}={}", target.replace('\\', "%5C"))).await;
                assert_eq!((answer.status, answer.header("location")), (200, String::new()), "{path} {name}");
                assert!(!answer.text().contains("evil"), "{path} {name}");
            }
        }
    }
}

async fn put(world: &World, body: impl Into<axum::body::Body>) -> Answer {
    world.call("PUT", "/v2/a/manifests/v1").header("content-type", OCI_MANIFEST).body(body).send().await
}

// security: G-05
#[tokio::test]
async fn documents_that_parsers_read_differently() {
    let world = World::new().await;
    let config = world.blob("a", b"{}").await;
    let good = image(&[(&config, 2)]).to_string();
    for bad in [
        good.replacen("\"layers\"", "\"layers\":[],\"layers\"", 1),
        good.replacen("\"size\":2", "\"size\":1,\"size\":2", 1),
        good.replacen("\"schemaVersion\":2", "\"schemaVersion\":1,\"schemaVersion\":2", 1),
        good.replacen("\"size\":2", "\"size\":2.0", 1),
        good.replacen("\"size\":2", "\"size\":1e999", 1),
        good.replacen("\"size\":2", "\"size\":-2", 1),
        good.replacen("\"size\":2", "\"size\":NaN", 1),
        good.replacen("\"size\":2", "\"size\":\"2\"", 1),
        good.replacen('{', "{/* comment */", 1),
        format!("\u{feff}{good}"),
        format!("{good}{good}"),
        format!("{good} x"),
        format!("{good}\0"),
        good.replace("\"layers\":[]", "\"layers\":[,]"),
    ] {
        assert_ne!(bad, good);
        assert_eq!(put(&world, bad.clone()).await.told(), (400, "MANIFEST_INVALID".to_owned()), "{bad}");
    }
    let utf16: Vec<u8> = good.encode_utf16().flat_map(u16::to_le_bytes).collect();
    assert_eq!(put(&world, utf16).await.status, 400);
    let latin1 = good.replacen("\"size\":2", "\"size\":2,\"x\":\"\u{e9}\"", 1).replace('\u{e9}', "\u{0}");
    let latin1: Vec<u8> = latin1.into_bytes().into_iter().map(|byte| if byte == 0 { 0xe9 } else { byte }).collect();
    assert_eq!(put(&world, latin1).await.status, 400, "not UTF-8");
    let told = put(&world, good.replace("layers", "Layers")).await.told();
    assert_eq!(told, (400, "MANIFEST_INVALID".to_owned()), "some parsers take it for the key, others do not");
    assert_eq!(put(&world, good).await.status, 201);
}

// security: G-06
#[tokio::test]
async fn documents_that_are_enormous() {
    let world = World::new().await;
    let config = world.blob("a", b"{}").await;
    let started = Instant::now();
    let deep = image(&[(&config, 2)]).to_string().replacen('{', &format!("{{\"x\":{}", "[".repeat(1 << 20)), 1);
    assert_eq!(put(&world, deep).await.told(), (400, "MANIFEST_INVALID".to_owned()));
    let deep_objects = format!("{}1{}", "{\"a\":".repeat(500_000), "}".repeat(500_000));
    assert_eq!(put(&world, deep_objects).await.told(), (400, "MANIFEST_INVALID".to_owned()));
    let mut many = image(&[(&config, 2)]).to_string();
    many = many.replace("\"layers\":[]", &format!("\"layers\":[{}]", vec!["{}"; 1_000_000].join(",")));
    assert_eq!(put(&world, many).await.told(), (400, "MANIFEST_INVALID".to_owned()));
    assert!(started.elapsed() < Duration::from_secs(30));
}

// security: G-10
#[tokio::test]
async fn inline_data_is_kept_as_it_is() {
    let world = World::new().await;
    let config = world.blob("a", b"{}").await;
    let mut manifest = image(&[(&config, 2)]);
    manifest["config"]["data"] = "e30=".into();
    let digest = world.manifest("a", "v1", &manifest).await;
    assert_eq!(world.get(&format!("/v2/a/manifests/{digest}")).await.text(), manifest.to_string());
    // It is what it says that it is, wherever a descriptor may stand.
    for (place, data) in
        [("config", "e31="), ("config", "e30"), ("layers", "e31="), ("subject", "e31="), ("config", "e3 0=")]
    {
        let mut wrong = image(&[(&config, 2), (&config, 2)]);
        let descriptor = json!({ "mediaType": "application/x", "digest": config, "size": 2, "data": data });
        wrong[place] = if place == "layers" { json!([descriptor]) } else { descriptor };
        assert_eq!(world.put_manifest("a", "wrong", &wrong).await.told(), (400, "MANIFEST_INVALID".to_owned()));
    }
    let mut wrong = image(&[(&config, 3)]);
    wrong["config"]["data"] = "e30=".into();
    assert_eq!(world.put_manifest("a", "wrong", &wrong).await.code(), "MANIFEST_INVALID", "of another size");
    // It stands in for no blob.
    let mut missing = image(&[(&sha256(b"inline"), 6)]);
    missing["config"]["data"] = "aW5saW5l".into();
    assert_eq!(world.put_manifest("a", "v2", &missing).await.code(), "MANIFEST_BLOB_UNKNOWN");
}

// security: G-11
#[tokio::test]
async fn indexes_that_go_round_or_down_for_ever() {
    let world = World::new().await;
    let index = |children: &[String]| {
        let entry = |digest: &String| json!({ "mediaType": OCI_INDEX, "digest": digest, "size": 100 });
        let entries: Vec<Value> = children.iter().map(entry).collect();
        json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries })
    };
    // One below the other, a thousand deep; a digest cannot be made to go round, but a subject may name what comes later.
    let mut below = world.manifest("a", "bottom", &index(&[])).await;
    for _ in 0..1000 {
        below = world.manifest("a", "deep", &index(&[below])).await;
    }
    let twice = index(&[below.clone(), below.clone()]);
    world.manifest("a", "twice", &twice).await;
    let wide: Vec<String> = (0..9999_u32).map(|i| sha256(&i.to_be_bytes())).collect();
    world.manifest("a", "wide", &index(&wide)).await;
    assert_eq!(world.get("/v2/a/manifests/wide").await.status, 200);
    // What walks through all of it comes to an end.
    let grace = Duration::from_secs(3600);
    world.pass(7200);
    assert_eq!(world.collect(grace).await.deleted_manifests, 0);
    for reference in [sha256(twice.to_string().as_bytes()), below.clone()] {
        assert_eq!(world.delete(&format!("/v2/a/manifests/{reference}")).await.status, 202);
    }
    world.pass(7200);
    assert_eq!(world.collect(grace).await.deleted_manifests, 2);
    let findings = registry::fsck::check(&world.state.registry, registry::Authority::DataDirectory, &|_| {})
        .await
        .unwrap()
        .findings;
    assert!(findings.is_empty(), "{findings:?}");
    for reference in ["bottom", "wide"] {
        assert_eq!(world.get(&format!("/v2/a/manifests/{reference}")).await.status, 200, "{reference}");
    }
}

// security: G-15
#[tokio::test]
async fn annotations_enormous_and_odd() {
    let world = World::new().await;
    let config = world.blob("a", b"{}").await;
    let mut manifest = image(&[(&config, 2)]);
    manifest["subject"] = json!({ "mediaType": OCI_MANIFEST, "digest": NOTHING, "size": 7 });
    manifest["annotations"] = json!({
        "large": "x".repeat(1 << 20), "text": "\u{0}\u{1f}\"\\</script>\n", "": "empty", "ä": "\u{202e}",
    });
    let digest = world.manifest("a", "v1", &manifest).await;
    let entry = world.get(&format!("/v2/a/referrers/{NOTHING}")).await.json()["manifests"][0].clone();
    assert_eq!((&entry["digest"], &entry["annotations"]), (&json!(digest), &manifest["annotations"]));
    manifest["annotations"] = (0..5000).map(|i| (i.to_string(), json!("x"))).collect();
    assert_eq!(world.put_manifest("a", "many", &manifest).await.told(), (400, "MANIFEST_INVALID".to_owned()));
    manifest["annotations"] = json!({ "control\u{1}\n": "x" });
    assert_eq!(world.put_manifest("a", "control", &manifest).await.told(), (400, "MANIFEST_INVALID".to_owned()));
    manifest["annotations"] = json!({ "not": ["text"] });
    assert_eq!(world.put_manifest("a", "odd", &manifest).await.told(), (400, "MANIFEST_INVALID".to_owned()));
}

// security: H-03
#[tokio::test]
async fn two_requests_on_one_session() {
    let world = World::new().await;
    let location = world.post("/v2/a/blobs/uploads/").await.header("location");
    let slow = |text: &'static str| {
        let pieces = futures_util::stream::unfold(text.as_bytes(), |rest| async move {
            tokio::time::sleep(Duration::from_millis(5)).await;
            let (first, rest) = rest.split_first()?;
            Some((Ok::<_, std::io::Error>(Bytes::copy_from_slice(&[*first])), rest))
        });
        world.call("PATCH", &location).body(axum::body::Body::from_stream(pieces)).send()
    };
    let (one, two) = tokio::join!(slow("hello"), slow("WORLD"));
    let mut statuses = [one.status, two.status];
    statuses.sort_unstable();
    assert_eq!(statuses, [202, 416], "one wins");
    let (winner, bytes) = if one.status == 202 { (&one, "hello") } else { (&two, "WORLD") };
    let target = format!("{}&digest={}", winner.header("location"), sha256(bytes.as_bytes()));
    assert_eq!(world.put(&target, "").await.status, 201);

    let location = world.post("/v2/a/blobs/uploads/").await.header("location");
    let slow = |text: &'static str| {
        let pieces = futures_util::stream::unfold(text.as_bytes(), |rest| async move {
            tokio::time::sleep(Duration::from_millis(20)).await;
            let (first, rest) = rest.split_first()?;
            Some((Ok::<_, std::io::Error>(Bytes::copy_from_slice(&[*first])), rest))
        });
        world.call("PATCH", &location).body(axum::body::Body::from_stream(pieces)).send()
    };
    let cancel = async {
        tokio::time::sleep(Duration::from_millis(30)).await;
        world.delete(&location).await.status
    };
    let (patched, cancelled) = tokio::join!(slow("hello"), cancel);
    assert_eq!((patched.status, cancelled), (404, 204), "cancelled while it was sent to");
    assert_eq!(world.get(&location).await.status, 404);
}

// security: H-08
#[tokio::test]
async fn q31_abandoned_sessions_end_and_used_ones_do_not() {
    let world = World::new().await;
    let (idle, used) = (world.post("/v2/a/blobs/uploads/").await, world.post("/v2/a/blobs/uploads/").await);
    let large = vec![7; 100_000];
    let idle = world.patch(&idle.header("location"), large.clone()).await.header("location");
    let mut used = used.header("location");
    let day = 24 * 3600;
    for _ in 0..3 {
        world.pass(day / 2);
        used = world.patch(&used, "x").await.header("location");
        let now = (world.state.clock)();
        world.db().expire_uploads(now.minus(Duration::from_secs(day as u64)), 100).await.unwrap();
    }
    assert_eq!(world.get(&idle).await.told(), (404, "BLOB_UPLOAD_UNKNOWN".to_owned()));
    assert_eq!(world.put(&format!("{used}&digest={}", sha256(b"xxx")), "").await.status, 201);
}

// security: H-11
#[tokio::test]
async fn fifty_pushes_of_one_blob() {
    let world = World::new().await;
    let bytes = vec![7; 50_000];
    let digest = sha256(&bytes);
    let pushes = (0..50).map(|i| {
        let call = world.call("POST", &format!("/v2/team/r{i}/blobs/uploads/?digest={digest}")).body(bytes.clone());
        async move { call.send().await.status }
    });
    assert!(futures_util::future::join_all(pushes).await.iter().all(|status| *status == 201));
    // Each took its own bytes; one copy is left of them.
    world.collect(Duration::from_secs(3600)).await;
    assert_eq!(world.files().len(), 1);
    for i in 0..50 {
        assert_eq!(world.get(&format!("/v2/team/r{i}/blobs/{digest}")).await.body, bytes, "{i}");
    }
}

// security: I-06
#[tokio::test]
async fn very_many_small_objects_take_no_files() {
    let world = World::new().await;
    let config = world.blob("a", b"{}").await;
    for i in 0..200_u32 {
        world.blob("a", &i.to_be_bytes()).await;
        world.manifest("a", &format!("t{i}"), &image(&[(&config, 2), (&sha256(&i.to_be_bytes()), 4)])).await;
    }
    assert_eq!(world.files().len(), 0);
}

// security: I-08
#[tokio::test]
async fn text_made_for_backtracking() {
    let world = World::new().await;
    let started = Instant::now();
    for text in ["a-", "a_", "a.", "-", "a__", "aa/"].map(|part| part.repeat(16_000 / 3 / part.len())) {
        for path in [format!("/v2/{text}/tags/list"), format!("/v2/a/manifests/{text}"), format!("/v2/a/blobs/{text}:")]
        {
            assert!([400, 404].contains(&world.get(&path).await.status));
        }
    }
    assert!(started.elapsed() < Duration::from_secs(10));
}

// security: I-16
#[tokio::test]
async fn a_flood_of_refusals_makes_few_events() {
    let world = World::new().await;
    world.user("bare").await;
    for i in 0..2000 {
        world.call("GET", &format!("/v2/r{}/tags/list", i % 3)).user("bare").send().await;
    }
    world.state.auth.journal().flush_all(world.db()).await.unwrap();
    let filter = meta::EventFilter { action: Some(meta::Action::Denied), ..meta::EventFilter::default() };
    let events = world.db().events(&filter, None, 10_000).await.unwrap();
    let counted: u64 = events.iter().map(|event| count(event.detail.as_deref())).sum();
    assert!(events.len() <= 6 && counted == 2000, "{} {counted}", events.len());
}

fn count(detail: Option<&str>) -> u64 {
    let detail: Value = serde_json::from_str(detail.unwrap_or("{}")).unwrap();
    detail["count"].as_u64().unwrap_or(1)
}

// security: M-01
#[tokio::test]
async fn every_write_has_its_event() {
    let world = World::new().await;
    let [digest, _, layer] = world.image("a", "v1", b"layer").await;
    let moved = world.manifest("a", "v1", &image(&[(&world.blob("a", b"other").await, 5)])).await;
    assert_eq!(world.post(&format!("/v2/b/blobs/uploads/?mount={layer}&from=a")).await.status, 201);
    assert_eq!(world.delete("/v2/a/manifests/v1").await.status, 202);
    assert_eq!(world.delete(&format!("/v2/a/manifests/{digest}")).await.status, 202);
    assert_eq!(world.delete(&format!("/v2/b/blobs/{layer}")).await.status, 202);
    let mut counts = std::collections::BTreeMap::new();
    for event in world.db().events(&meta::EventFilter::default(), None, 1000).await.unwrap() {
        if event.subject == "user:maint" && event.repository.is_some() {
            assert!(!event.source.is_empty() && !event.request_id.is_empty(), "{event:?}");
            *counts.entry(event.action.to_string()).or_insert(0) += 1;
        }
    }
    let expected = [
        ("blob.delete", 1),
        ("blob.mount", 1),
        ("blob.push", 3),
        ("manifest.delete", 1),
        ("manifest.push", 2),
        ("tag.create", 1),
        ("tag.delete", 1),
        ("tag.move", 1),
    ];
    counts.retain(|action, _| action != "token.issued" && action != "login");
    assert_eq!(counts.iter().map(|(action, count)| (action.as_str(), *count)).collect::<Vec<_>>(), expected);
    assert_ne!(moved, digest);
}

// security: P-01
#[tokio::test]
async fn the_clock_jumps() {
    let world = World::new().await;
    let [digest, _, layer] = world.image("a", "v1", &[7; 50_000]).await;
    let grace = Duration::from_secs(24 * 3600);
    let collect = || world.collect(grace);
    let usable = |token: String| {
        let world = &world;
        async move { world.call("GET", "/v2/a/manifests/v1").bearer(&token).send().await.status }
    };
    let day = 24 * 3600;
    let before = world.token("maint", &["repository:a:pull"]).await;
    for jump in [400 * day, -day, -399 * day, -day, 401 * day] {
        let token = world.token("maint", &["repository:a:pull"]).await;
        assert_eq!(usable(token.clone()).await, 200);
        world.pass(jump);
        let late = usable(token).await;
        assert_eq!(late, 401, "neither an old token nor one of the future: {jump}");
        assert_eq!(usable(world.token("maint", &["repository:a:pull"]).await).await, 200);
        // What a manifest holds is no older by a jump, and what is pushed now is not old.
        collect().await;
        assert_eq!(world.get(&format!("/v2/a/blobs/{layer}")).await.status, 200, "{jump}");
        let fresh = world.blob("a", format!("pushed after {jump}").as_bytes()).await;
        collect().await;
        assert_eq!(world.get(&format!("/v2/a/blobs/{fresh}")).await.status, 200, "{jump}");
    }
    world.pass(-400 * day);
    assert_eq!(usable(before).await, 200, "back where it began");
    assert_eq!(world.get("/v2/a/manifests/v1").await.header("docker-content-digest"), digest);
}

// security: Q-06
#[tokio::test]
async fn text_made_for_databases() {
    let world = World::new().await;
    world.image("a", "v1", b"layer").await;
    let before = contents(&world).await;
    let texts = [
        "'",
        "' OR '1'='1",
        "'; DROP TABLE tag; --",
        "x' UNION SELECT secret_hash FROM secret --",
        "\"",
        "`",
        "\\",
        "%",
        "_%",
        "*",
        "?1",
        "$1",
        ":name",
        "\u{0}",
        "1e309",
        "NULL",
        "[a-z]*",
    ];
    for text in texts.map(|text| text.bytes().map(|byte| format!("%{byte:02X}")).collect::<String>()) {
        for (method, target) in [
            ("GET", format!("/v2/{text}/tags/list")),
            ("GET", format!("/v2/a/manifests/{text}")),
            ("PUT", format!("/v2/a/manifests/{text}")),
            ("DELETE", format!("/v2/a/manifests/{text}")),
            ("GET", format!("/v2/a/blobs/{text}")),
            ("GET", format!("/v2/a/blobs/uploads/{text}")),
            ("PATCH", format!("/v2/a/blobs/uploads/{text}?state={text}")),
            ("POST", format!("/v2/a/blobs/uploads/?mount={text}&from={text}")),
            ("POST", format!("/v2/a/blobs/uploads/?digest={text}&digest-algorithm={text}")),
            ("GET", format!("/v2/a/tags/list?n={text}&last={text}")),
            ("GET", format!("/v2/a/tags/list?last={text}")),
            ("GET", format!("/v2/_catalog?last={text}")),
            ("GET", format!("/v2/a/referrers/{NOTHING}?artifactType={text}&last={text}")),
            ("GET", format!("/v2/a/referrers/{NOTHING}?artifactType={text}")),
            ("GET", format!("/token?scope={text}&service={text}&account={text}")),
            ("GET", format!("/token?scope=repository:{text}:pull")),
        ] {
            let answer = world.call(method, &target).send().await;
            assert!(answer.status < 500, "{method} {target}: {answer:?}");
            let told = answer.text().to_ascii_lowercase();
            for leak in ["sqlite", "syntax error", "no such column", "select ", "panicked"] {
                assert!(!told.replace("union select secret_hash", "").contains(leak), "{method} {target}: {told}");
            }
        }
    }
    for text in texts {
        let login = crate::world::basic(text, text);
        let answer = world.call("GET", "/token").authorization(&login).send().await;
        assert!((400..500).contains(&answer.status), "{text}: {answer:?}");
        let [kind, mark] = [text; 2];
        let index = json!({
            "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [], "artifactType": kind,
            "subject": { "mediaType": OCI_MANIFEST, "digest": NOTHING, "size": 7 }, "annotations": { "mark": mark },
        });
        assert!(world.put_manifest("injected", "v1", &index).await.status < 500, "{text}");
    }
    assert_eq!(contents(&world).await[1..], before[1..]);
}
