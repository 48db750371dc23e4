//! Requests that overlap: with a revocation, with a delete, with each other.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use oci::RepositoryName;
use serde_json::Value;
use server::state::AppState;

use crate::world::{Answer, NOTHING, OCI_MANIFEST, World, basic, image, password, sha256};

/// How somebody loses a right.
#[derive(Clone, Copy, Debug)]
enum Loss {
    Grant,
    Disabled,
    Removed,
}

/// Takes the right away, in the database; the rules in memory are still the old ones.
async fn lose(state: &AppState, user: &str, loss: Loss) {
    let (db, system) = (state.registry.db(), meta::Actor::system("test"));
    let id = db.credentials(user).await.unwrap().unwrap().subject.id;
    match loss {
        Loss::Grant => assert_eq!(db.remove_grants_of(Some(id), &system).await.unwrap(), 1),
        Loss::Disabled => drop(db.update_user(user, None, Some(true), &system).await.unwrap()),
        Loss::Removed => assert_eq!(db.remove_user(user, &system).await.unwrap(), meta::RemoveUser::Done),
    }
}

/// A body of which the second half comes after `between`.
fn halves(bytes: &[u8], between: impl Future<Output = ()> + Send + 'static) -> Body {
    let (first, second) = bytes.split_at(bytes.len() / 2);
    let (first, second) = (Bytes::copy_from_slice(first), Bytes::copy_from_slice(second));
    let first = stream::once(async { Ok::<_, std::io::Error>(first) });
    Body::from_stream(first.chain(stream::once(async move {
        between.await;
        Ok(second)
    })))
}

fn manifest(config: &str, layer: &str, n: usize) -> Value {
    let mut manifest = image(&[(config, 11), (layer, 5)]);
    manifest["annotations"] = serde_json::json!({ "n": n.to_string() });
    manifest
}

// security: B-19
#[tokio::test]
async fn a_right_that_is_lost_while_the_body_comes() {
    let world = World::new().await;
    let [before, config, layer] = world.image("a", "v1", b"layer").await;
    let mut n = 0;
    for loss in [Loss::Grant, Loss::Disabled, Loss::Removed] {
        for bearer in [false, true] {
            for request in ["new tag", "moved tag", "by digest", "closing", "small", "large"] {
                n += 1;
                let user = format!("u{n}");
                world.user(&user).await;
                world.grant(&format!("user:{user}"), "writer", "a").await;
                let authorization = match bearer {
                    false => basic(&user, &password(&user)),
                    true => format!("Bearer {}", world.token(&user, &["repository:a:pull,push"]).await),
                };
                let call = |method, target: &str| world.call(method, target).authorization(&authorization);
                let manifest = manifest(&config, &layer, n).to_string();
                let content = format!("{n:9}").repeat(if request == "large" { 30_000 } else { 10 });
                let (method, target, bytes) = match request {
                    "new tag" => ("PUT", format!("/v2/a/manifests/new{n}"), &manifest),
                    "moved tag" => ("PUT", "/v2/a/manifests/v1".to_owned(), &manifest),
                    "by digest" => ("PUT", format!("/v2/a/manifests/{}", sha256(manifest.as_bytes())), &manifest),
                    "closing" => {
                        let location = call("POST", "/v2/a/blobs/uploads/").send().await.header("location");
                        ("PUT", format!("{location}&digest={}", sha256(content.as_bytes())), &content)
                    }
                    _ => ("POST", format!("/v2/a/blobs/uploads/?digest={}", sha256(content.as_bytes())), &content),
                };
                // Each second loss is not in memory yet: the transaction finds out.
                let (state, known) = (world.state.clone(), n % 2 == 0);
                let body = halves(bytes.as_bytes(), async move {
                    lose(&state, &user, loss).await;
                    if known {
                        state.rules.reload().await.unwrap();
                    }
                });
                let answer = call(method, &target).header("content-type", OCI_MANIFEST).body(body).send().await;
                let told = match loss {
                    Loss::Grant => (404, "NAME_UNKNOWN"),
                    Loss::Disabled | Loss::Removed => (401, "UNAUTHORIZED"),
                };
                let case = format!("{loss:?}, bearer {bearer}, {request}, known {known}");
                assert_eq!(answer.told(), (told.0, told.1.to_owned()), "{case}");
                for lost in [sha256(manifest.as_bytes()), format!("new{n}")] {
                    assert_eq!(world.get(&format!("/v2/a/manifests/{lost}")).await.status, 404, "{case}");
                }
                let blob = world.get(&format!("/v2/a/blobs/{}", sha256(content.as_bytes()))).await;
                assert_eq!(blob.status, 404, "{case}");
                assert_eq!(world.db().count_uploads().await.unwrap(), 0, "{case}");
                assert_eq!(world.files().len(), 0, "{case}");
                world.reload().await;
            }
        }
    }
    assert_eq!(world.get("/v2/a/manifests/v1").await.header("docker-content-digest"), before);
}

// security: B-19
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn after_a_revocation_nothing_is_written() {
    let world = Arc::new(World::new().await);
    let [_, config, layer] = world.image("a", "v1", b"layer").await;
    world.user("rita").await;
    let name = RepositoryName::parse("a").unwrap();
    let tags = || async { world.db().tags(&name, None, 10_000).await.unwrap().unwrap() };
    for round in 0..12 {
        world.grant("user:rita", "writer", "a").await;
        let pushers = (0..6).map(|pusher| {
            let (world, config, layer) = (world.clone(), config.clone(), layer.clone());
            tokio::spawn(async move {
                for n in 0.. {
                    let target = format!("/v2/a/manifests/r{round}-{pusher}-{n}");
                    let call = world.call("PUT", &target).user("rita").header("content-type", OCI_MANIFEST);
                    let status = call.body(manifest(&config, &layer, n).to_string()).send().await.status;
                    match status {
                        201 => {}
                        404 => return n,
                        _ => panic!("{status}"),
                    }
                }
                0
            })
        });
        let pushers: Vec<_> = pushers.collect();
        let before = tags().await.len();
        while tags().await.len() == before {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        // Changes of other rights meanwhile are no obstacle.
        for n in 0..3 {
            tokio::time::sleep(Duration::from_millis(5)).await;
            world.grant("anonymous", "reader", &format!("x{round}/{n}")).await;
        }
        lose(&world.state, "rita", Loss::Grant).await;
        let at_revocation = tags().await;
        let mut pushed = 0;
        for pusher in pushers {
            pushed += pusher.await.unwrap();
        }
        assert_eq!(tags().await, at_revocation, "round {round}");
        assert!(pushed > 0, "round {round}");
        world.reload().await;
    }
}

#[tokio::test]
async fn a_repository_that_is_deleted_under_a_push() {
    let world = World::new().await;
    let [_, config, layer] = world.image("a", "v1", b"layer").await;
    let (state, name) = (world.state.clone(), RepositoryName::parse("a").unwrap());
    let body = halves(manifest(&config, &layer, 1).to_string().as_bytes(), async move {
        assert!(state.registry.db().delete_repository(&name, &meta::Actor::system("test")).await.unwrap());
    });
    let answer = world.call("PUT", "/v2/a/manifests/v2").header("content-type", OCI_MANIFEST).body(body).send().await;
    assert_eq!(answer.told(), (400, "MANIFEST_BLOB_UNKNOWN".to_owned()));
    assert_eq!(world.get("/v2/a/tags/list").await.told(), (404, "NAME_UNKNOWN".to_owned()));
    world.image("a", "v1", b"layer").await;
}

async fn put_if(world: &World, reference: &str, header: (&str, &str), manifest: &Value) -> Answer {
    let call = world.call("PUT", &format!("/v2/a/manifests/{reference}")).header("content-type", OCI_MANIFEST);
    call.header(header.0, header.1).body(manifest.to_string()).send().await
}

#[tokio::test]
async fn of_several_with_the_same_precondition_one_wins() {
    let world = World::new().await;
    let [digest, config, layer] = world.image("a", "v1", b"layer").await;
    let etag = format!("\"{digest}\"");
    for (reference, header) in [("v1", ("if-match", etag.as_str())), ("new", ("if-none-match", "*"))] {
        let puts = (0..8).map(|n| {
            let (world, manifest) = (&world, manifest(&config, &layer, n));
            async move { put_if(world, reference, header, &manifest).await.status }
        });
        let mut statuses = futures_util::future::join_all(puts).await;
        statuses.sort_unstable();
        assert_eq!(statuses, [201, 412, 412, 412, 412, 412, 412, 412], "{reference}");
    }
    let manifest = manifest(&config, &layer, 100);
    let by_digest = sha256(manifest.to_string().as_bytes());
    assert_eq!(put_if(&world, &by_digest, ("if-match", "*"), &manifest).await.status, 412);
    assert_eq!(put_if(&world, &by_digest, ("if-none-match", "*"), &manifest).await.status, 201);
    assert_eq!(put_if(&world, &by_digest, ("if-none-match", "*"), &manifest).await.status, 412);
    assert_eq!(put_if(&world, &by_digest, ("if-match", &format!("\"{by_digest}\"")), &manifest).await.status, 201);

    // Deletes too: only what the client has seen.
    put_if(&world, "v1", ("x-nothing", ""), &manifest).await;
    for target in ["/v2/a/manifests/v1".to_owned(), format!("/v2/a/manifests/{by_digest}")] {
        for (value, status) in [(format!("\"{NOTHING}\""), 412), (format!("\"{by_digest}\""), 202)] {
            assert_eq!(world.call("DELETE", &target).header("if-match", &value).send().await.status, status);
        }
    }
}

// security: H-03
#[tokio::test]
async fn an_upload_that_another_request_writes_to() {
    let world = World::new().await;
    let location = world.post("/v2/a/blobs/uploads/").await.header("location");
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let body = halves(b"hello", async move { stopped.await.unwrap() });
    let first = world.call("PATCH", &location).body(body).send();
    let others = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let closing = format!("{location}&digest={}", sha256(b"hello"));
        for (method, target) in [("PATCH", &location), ("PUT", &closing)] {
            let answer = world.call(method, target).body("hello").send().await;
            assert_eq!(answer.told(), (416, "RANGE_INVALID".to_owned()));
            assert_eq!((answer.header("location"), answer.header("range")), (location.clone(), "0-0".to_owned()));
            let message = answer.json()["errors"][0]["message"].as_str().unwrap().to_owned();
            assert!(message.contains("another request is writing to this upload: try again"), "{message}");
        }
        stop.send(()).unwrap();
    };
    let (first, ()) = tokio::join!(first, others);
    assert_eq!(first.status, 202);
    // Two that close: the one that comes after the other is done finds nothing.
    let closing = format!("{}&digest={}", first.header("location"), sha256(b"hello"));
    assert_eq!(world.put(&closing, "").await.status, 201);
    assert_eq!(world.put(&closing, "").await.told(), (404, "BLOB_UPLOAD_UNKNOWN".to_owned()));
}

// security: F-11
#[tokio::test]
async fn an_upload_in_one_request_that_fails_leaves_nothing() {
    let world = World::new().await;
    let content = vec![7; 300_000];
    let target = format!("/v2/a/blobs/uploads/?digest={}", sha256(b"something else"));
    let answer = world.call("POST", &target).body(content.clone()).send().await;
    assert_eq!(answer.told(), (400, "DIGEST_INVALID".to_owned()));
    assert_eq!((world.db().count_uploads().await.unwrap(), world.files().len()), (0, 0));
    let target = format!("/v2/a/blobs/uploads/?digest={}", sha256(&content));
    let pieces = vec![Ok(Bytes::from(content)), Err(std::io::ErrorKind::ConnectionReset.into())];
    let answer = world.call("POST", &target).chunked(pieces).send().await;
    assert_eq!(answer.status, 400);
    assert_eq!((world.db().count_uploads().await.unwrap(), world.files().len()), (0, 0));
}
