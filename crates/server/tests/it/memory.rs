//! What is held in memory is bounded: bodies that are received, answers that are sent.

use std::time::Duration;

use axum::body::Body;
use axum::http::Request;
use axum::response::Response;
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use server::state::{Listener, Peer, RequestId};
use tower::ServiceExt;

use crate::world::{HOST, MAINTAINER, OCI_INDEX, OCI_MANIFEST, World, basic, image, password, sha256};

const LARGE: usize = 4 << 20;
/// What one subject may have of the memory for large ones at a time.
const OF_ONE: usize = 3;
const OTHER: &str = "other";

async fn world() -> World {
    let world = World::new().await;
    world.user(OTHER).await;
    world.grant(&format!("user:{OTHER}"), "maintainer", "**").await;
    for user in [MAINTAINER, OTHER] {
        // Logged in, so that no hash is needed later.
        assert_eq!(world.call("GET", "/v2/").user(user).send().await.status, 200);
    }
    world
}

/// The answer with its body unread.
async fn open(world: &World, request: axum::http::request::Builder, user: &str, body: Body) -> Response {
    let request = request.header("authorization", basic(user, &password(user))).header("host", HOST);
    let mut request = request.body(body).unwrap();
    let peer = Peer { addr: Some("127.0.0.1:40000".parse().unwrap()), tls: false, listener: Listener::Main };
    request.extensions_mut().insert(peer);
    request.extensions_mut().insert(RequestId("request-1".to_owned()));
    server::main_router::router(world.state.clone()).oneshot(request).await.unwrap()
}

async fn get(world: &World, user: &str, target: &str) -> Response {
    open(world, Request::builder().uri(target), user, Body::empty()).await
}

/// A push whose body stops after its first bytes.
fn stalled(world: &World, user: &str, length: Option<usize>) -> impl Future<Output = Response> + Send + 'static {
    let mut request = Request::builder().method("PUT").uri("/v2/a/manifests/stalled");
    if let Some(length) = length {
        request = request.header("content-length", length);
    }
    let body = stream::iter([Ok::<_, std::io::Error>(Bytes::from_static(b"{"))]).chain(stream::pending());
    let (state, user) = (world.state.clone(), user.to_owned());
    let request = request.header("authorization", basic(&user, &password(&user))).header("host", HOST);
    let mut request = request.body(Body::from_stream(body)).unwrap();
    let peer = Peer { addr: Some("127.0.0.1:40000".parse().unwrap()), tls: false, listener: Listener::Main };
    request.extensions_mut().insert(peer);
    request.extensions_mut().insert(RequestId("request-1".to_owned()));
    async move { server::main_router::router(state).oneshot(request).await.unwrap() }
}

async fn large_manifest(world: &World, tag: &str) -> Vec<u8> {
    let config = world.blob("a", b"{}").await;
    let mut manifest = image(&[(&config, 2)]);
    let room = LARGE - manifest.to_string().len() - 10;
    manifest["z"] = Value::from(format!("{tag}{}", "x".repeat(room - tag.len())));
    manifest.to_string().into_bytes()
}

#[tokio::test]
async fn stalled_pushes_hold_half_of_the_memory_and_not_for_long() {
    let world = world().await;
    let manifest = large_manifest(&world, "one").await;
    let push = |user: &'static str| {
        let (world, manifest) = (&world, manifest.clone());
        async move {
            let call = world.call("PUT", "/v2/a/manifests/one").user(user).header("content-type", OCI_MANIFEST);
            call.body(manifest).send().await
        }
    };
    let mut waiting = Vec::new();
    for number in 0..OF_ONE {
        // Without a length it may be the longest.
        waiting.push(tokio::spawn(stalled(&world, MAINTAINER, (number > 0).then_some(LARGE))));
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(waiting.iter().all(|one| !one.is_finished()));
    let start = std::time::Instant::now();
    assert_eq!(push(OTHER).await.status, 201, "others have their half");
    world.image("a", "small", b"layer").await;
    assert!(start.elapsed() < Duration::from_secs(8), "small ones do not wait");
    let answer = push(MAINTAINER).await;
    assert_eq!(answer.told(), (503, "UNAVAILABLE".to_owned()));
    assert_eq!(answer.header("retry-after"), "5");
    // 30 s, and 128 for 4 MiB.
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(147)).await;
    assert!(waiting.iter().all(|one| !one.is_finished()));
    tokio::time::advance(Duration::from_secs(12)).await;
    for one in waiting {
        let answer = one.await.unwrap();
        assert_eq!(answer.status(), 408);
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        assert!(String::from_utf8_lossy(&body).contains("did not arrive within 158 seconds"), "{body:?}");
    }
    tokio::time::resume();
    assert_eq!(push(MAINTAINER).await.status, 201);
}

#[tokio::test]
async fn answers_that_nobody_reads_hold_half_of_the_memory() {
    let world = world().await;
    let bytes = large_manifest(&world, "one").await;
    let target = "/v2/a/manifests/one";
    let pushed = world.call("PUT", target).header("content-type", OCI_MANIFEST).body(bytes.clone()).send().await;
    assert_eq!(pushed.status, 201, "{}", pushed.text());
    world.image("a", "small", b"layer").await;
    let mut unread = Vec::new();
    for _ in 0..OF_ONE {
        unread.push(get(&world, MAINTAINER, target).await);
    }
    assert!(unread.iter().all(|response| response.status() == 200));
    assert_eq!(get(&world, MAINTAINER, "/v2/a/manifests/small").await.status(), 200);
    let read = get(&world, OTHER, target).await.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(read, bytes);
    let refused = get(&world, MAINTAINER, target).await;
    assert_eq!((refused.status().as_u16(), refused.headers()["retry-after"].to_str().unwrap()), (503, "5"));
    unread.pop();
    assert_eq!(get(&world, MAINTAINER, target).await.status(), 200);
}

#[tokio::test]
async fn long_pages_of_referrers_take_from_the_same_memory() {
    let world = world().await;
    let subject = sha256(b"subject");
    for mark in ["1", "2", "3", "4"] {
        let manifest = json!({
            "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [], "artifactType": "a/b",
            "subject": { "mediaType": OCI_MANIFEST, "digest": subject, "size": 7 },
            "annotations": { mark: "x".repeat(1_000_000) },
        });
        world.manifest("a", &sha256(manifest.to_string().as_bytes()), &manifest).await;
    }
    let target = format!("/v2/a/referrers/{subject}");
    let mut unread = Vec::new();
    for _ in 0..OF_ONE {
        unread.push(get(&world, MAINTAINER, &target).await);
    }
    assert_eq!(get(&world, MAINTAINER, &target).await.status(), 503);
    assert_eq!(get(&world, MAINTAINER, &format!("/v2/a/referrers/{}", sha256(b"x"))).await.status(), 200);
    let body = unread.remove(0).into_body().collect().await.unwrap().to_bytes();
    let page: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(page["manifests"].as_array().unwrap().len(), 4);
    drop(body);
    assert_eq!(get(&world, MAINTAINER, &target).await.status(), 200);
}

#[tokio::test]
async fn a_list_without_an_end_comes_in_pieces() {
    let world = world().await;
    let config = world.blob("a", b"{}").await;
    let bytes = image(&[(&config, 2)]).to_string();
    let tags: Vec<String> = (0..1500).map(|number| format!("t{number:05}{}", "x".repeat(100))).collect();
    for some in tags.chunks(60) {
        let query: Vec<String> = some.iter().map(|tag| format!("tag={tag}")).collect();
        let target = format!("/v2/a/manifests/{}?{}", sha256(bytes.as_bytes()), query.join("&"));
        let call = world.call("PUT", &target).header("content-type", OCI_MANIFEST);
        assert_eq!(call.body(bytes.clone()).send().await.status, 201);
    }
    let response = get(&world, MAINTAINER, "/v2/a/tags/list").await;
    assert_eq!(response.headers()["content-type"], "application/json");
    let (mut whole, mut pieces, mut body) = (Vec::new(), 0, response.into_body());
    while let Some(frame) = body.frame().await {
        let piece = frame.unwrap().into_data().unwrap();
        assert!(piece.len() <= 64 << 10, "{} bytes", piece.len());
        whole.extend_from_slice(&piece);
        pieces += 1;
    }
    assert_eq!(pieces, 4);
    let list: Value = serde_json::from_slice(&whole).unwrap();
    assert_eq!(list, json!({ "name": "a", "tags": tags }));
    // With n there is an end, and the next page.
    let page = world.get("/v2/a/tags/list?n=10000").await;
    assert_eq!(page.json()["tags"].as_array().unwrap().len(), 1000);
    let link = page.header("link");
    assert!(link.contains(&format!("last={}&n=1000", tags[999])), "{link}");
}
