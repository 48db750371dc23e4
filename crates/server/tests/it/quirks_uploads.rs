//! Quirks of clients: uploads. The numbers are those of the list of quirks in `docs/reference/protocol.md`.

use bytes::Bytes;

use crate::world::{Answer, World, sha256, sha512};

async fn start(world: &World) -> String {
    let answer = world.post("/v2/a/blobs/uploads/").await;
    assert_eq!(answer.status, 202);
    answer.header("location")
}

fn with_digest(location: &str, bytes: &[u8]) -> String {
    format!("{location}&digest={}", sha256(bytes))
}

async fn stored(world: &World, bytes: &[u8]) -> bool {
    let answer = world.get(&format!("/v2/a/blobs/{}", sha256(bytes))).await;
    assert!(answer.status == 404 || answer.body == bytes);
    answer.status == 200
}

#[tokio::test]
async fn q16_range_has_no_unit_and_ends_with_the_last_byte() {
    let world = World::new().await;
    let answer = world.post("/v2/a/blobs/uploads/").await;
    assert_eq!(answer.header("range"), "0-0");
    let status = world.get(&answer.header("location")).await;
    assert_eq!((status.status, status.header("range")), (204, "0-0".to_owned()));
    let answer = world.patch(&answer.header("location"), "hello").await;
    assert_eq!((answer.status, answer.header("range")), (202, "0-4".to_owned()));
    let status = world.get(&answer.header("location")).await;
    assert_eq!((status.status, status.header("range")), (204, "0-4".to_owned()));
}

#[tokio::test]
async fn q17_one_chunked_patch_and_an_empty_put() {
    let world = World::new().await;
    let location = start(&world).await;
    let pieces = vec![Ok(Bytes::from_static(b"hel")), Ok(Bytes::from_static(b"lo"))];
    let answer = world.call("PATCH", &location).chunked(pieces).send().await;
    assert_eq!((answer.status, answer.header("range")), (202, "0-4".to_owned()));
    let answer = world.put(&with_digest(&answer.header("location"), b"hello"), "").await;
    assert_eq!(answer.status, 201);
    assert!(stored(&world, b"hello").await);
}

#[tokio::test]
async fn q18_one_put_with_the_whole_body() {
    let world = World::new().await;
    let location = start(&world).await;
    assert_eq!(world.put(&with_digest(&location, b"hello"), "hello").await.status, 201);
    assert!(stored(&world, b"hello").await);
    let location = start(&world).await;
    let empty = world.call("PUT", &with_digest(&location, b"")).chunked(Vec::new()).send().await;
    assert_eq!(empty.status, 201);
    assert!(stored(&world, b"").await);
}

#[tokio::test]
async fn q19_a_patch_with_a_length_and_no_range() {
    let world = World::new().await;
    let answer = world.call("POST", "/v2/a/blobs/uploads/").header("content-type", "application/json").send().await;
    assert_eq!(answer.status, 202);
    let answer = world.patch(&answer.header("location"), "hello").await;
    assert_eq!(world.put(&with_digest(&answer.header("location"), b"hello"), "").await.status, 201);
}

// security: H-01
#[tokio::test]
async fn q20_after_a_refused_chunk_the_answer_tells_where_to_go_on() {
    let world = World::new().await;
    let location = start(&world).await;
    let answer = world.call("PATCH", &location).header("content-range", "0-4").body("hello").send().await;
    let location = answer.header("location");
    // Beyond a gap, over what is there, and the same once more.
    for wrong in ["9-13", "3-7", "0-4"] {
        let refused = world.call("PATCH", &location).header("content-range", wrong).body("world").send().await;
        assert_eq!(refused.told(), (416, "RANGE_INVALID".to_owned()), "{wrong}");
        assert_eq!((refused.header("location"), refused.header("range")), (location.clone(), "0-4".to_owned()));
        assert_eq!(refused.header("docker-upload-uuid").len(), 36);
        assert_eq!(world.get(&location).await.status, 204);
    }
    let answer = world.call("PATCH", &location).header("content-range", "5-9").body("world").send();
    assert_eq!(answer.await.header("range"), "0-9");
}

#[tokio::test]
async fn q20_a_put_that_broke_off_goes_on_in_chunks() {
    let world = World::new().await;
    let location = start(&world).await;
    let pieces = vec![Ok(Bytes::from_static(b"hel")), Err(std::io::ErrorKind::ConnectionReset.into())];
    let broken = world.call("PUT", &with_digest(&location, b"hello")).chunked(pieces).send().await;
    assert_eq!(broken.told(), (400, "BLOB_UPLOAD_INVALID".to_owned()));
    let status = world.get(&location).await;
    assert_eq!((status.status, status.header("range")), (204, "0-2".to_owned()));
    let answer = world.call("PATCH", &status.header("location")).header("content-range", "3-4").body("lo").send().await;
    assert_eq!((answer.status, answer.header("range")), (202, "0-4".to_owned()));
    assert_eq!(world.put(&with_digest(&answer.header("location"), b"hello"), "").await.status, 201);
    assert!(stored(&world, b"hello").await);
}

#[tokio::test]
async fn q21_exact_states() {
    let world = World::new().await;
    let location = start(&world).await;
    let patched = world.patch(&location, "x").await;
    assert_eq!(patched.status, 202);
    assert_eq!(world.put(&with_digest(&patched.header("location"), b"x"), "").await.status, 201);
    let [manifest, ..] = world.image("a", "v1", b"layer").await;
    assert_eq!(world.delete("/v2/a/manifests/v1").await.status, 202);
    assert_eq!(world.delete(&format!("/v2/a/manifests/{manifest}")).await.status, 202);
    assert_eq!(world.delete(&format!("/v2/a/blobs/{}", sha256(b"x"))).await.status, 202);
}

// security: H-05
#[tokio::test]
async fn q22_a_patch_that_is_sent_twice_is_not_taken_twice() {
    let world = World::new().await;
    let first = start(&world).await;
    let answer = world.patch(&first, "hello").await;
    let second = answer.header("location");
    assert_ne!(first, second, "each answer has a fresh URL");
    let replayed = world.patch(&first, "hello").await;
    assert_eq!(replayed.told(), (416, "RANGE_INVALID".to_owned()));
    assert_eq!((replayed.header("location"), replayed.header("range")), (second.clone(), "0-4".to_owned()));
    // Where there is a range, it decides.
    let answer = world.call("PATCH", &first).header("content-range", "5-9").body("world").send().await;
    assert_eq!(answer.header("range"), "0-9");
    assert_eq!(world.put(&with_digest(&answer.header("location"), b"helloworld"), "").await.status, 201);
    let location = start(&world).await;
    let tampered = |state: &str| location.replace("state=0", &format!("state={state}"));
    assert_eq!(world.patch(&tampered("x"), "hello").await.told(), (404, "BLOB_UPLOAD_UNKNOWN".to_owned()));
    for ahead in ["1", "9223372036854775807"] {
        assert_eq!(world.patch(&tampered(ahead), "hello").await.told(), (416, "RANGE_INVALID".to_owned()), "{ahead}");
    }
    assert_eq!(world.put(&with_digest(&location, b"hello"), "hello").await.status, 201, "nothing of it was taken");
}

#[tokio::test]
async fn q23_locations_are_relative() {
    let world = World::new().await;
    let all_relative = |answer: &Answer| {
        let location = answer.header("location");
        assert!(location.starts_with("/v2/"), "{location}");
    };
    let started = world.call("POST", "/v2/a/blobs/uploads/").header("x-forwarded-host", "evil.example").send().await;
    all_relative(&started);
    let patched = world.patch(&started.header("location"), "x").await;
    all_relative(&patched);
    all_relative(&world.get(&patched.header("location")).await);
    all_relative(&world.put(&with_digest(&patched.header("location"), b"x"), "").await);
    let config = world.blob("a", b"{}").await;
    let manifest = crate::world::image(&[(&config, 2)]);
    all_relative(&world.put_manifest("a", "v1", &manifest).await);
}

#[tokio::test]
async fn q24_the_query_of_an_upload_url_may_be_written_anew() {
    let world = World::new().await;
    let location = world.patch(&start(&world).await, "hello").await.header("location");
    let (path, state) = location.split_once("?state=").unwrap();
    let digest = sha256(b"hello").replace(':', "%3A");
    // Sorted and encoded, as a client in Go does it.
    let answer = world.put(&format!("{path}?digest={digest}&foo=bar&state=%35"), "").await;
    assert_eq!((answer.status, state), (201, "5"));
    // A client may drop the query and begin one of its own.
    let location = world.patch(&start(&world).await, "again").await.header("location");
    let path = location.split('?').next().unwrap();
    assert_eq!(world.put(&format!("{path}?digest={}", sha256(b"again")), "").await.status, 201);
    // A digest on a request for the status is no harm.
    let location = start(&world).await;
    assert_eq!(world.get(&with_digest(&location, b"x")).await.status, 204);
}

#[tokio::test]
async fn q25_uploads_with_and_without_the_last_slash() {
    let world = World::new().await;
    for path in ["/v2/a/blobs/uploads", "/v2/a/blobs/uploads/"] {
        assert_eq!(world.post(path).await.status, 202, "{path}");
    }
    for path in ["/v2", "/v2/"] {
        assert_eq!(world.get(path).await.status, 200, "{path}");
    }
}

#[tokio::test]
async fn q26_the_upload_has_its_id_in_a_header() {
    let world = World::new().await;
    let started = world.post("/v2/a/blobs/uploads/").await;
    let id = started.header("docker-upload-uuid");
    assert_eq!(id.len(), 36);
    let patched = world.patch(&started.header("location"), "x").await;
    assert_eq!(patched.header("docker-upload-uuid"), id);
    for method in ["GET", "HEAD", "DELETE"] {
        let answer = world.call(method, &patched.header("location")).send().await;
        assert_eq!((answer.status, answer.header("docker-upload-uuid")), (204, id.clone()), "{method}");
    }
}

#[tokio::test]
async fn q27_a_put_out_of_order_leaves_the_session_alive() {
    let world = World::new().await;
    let location = world.patch(&start(&world).await, "hello").await.header("location");
    let target = with_digest(&location, b"helloworld");
    let refused = world.call("PUT", &target).header("content-range", "9-13").body("world").send().await;
    assert_eq!(refused.told(), (416, "RANGE_INVALID".to_owned()));
    let status = world.get(&refused.header("location")).await;
    assert_eq!((status.status, status.header("range")), (204, "0-4".to_owned()));
    assert_eq!(world.call("PUT", &target).header("content-range", "5-9").body("world").send().await.status, 201);
    assert!(stored(&world, b"helloworld").await);
}

#[tokio::test]
async fn q28_the_same_blob_at_the_same_time() {
    let world = World::new().await;
    let bytes: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    let push = || async {
        let location = start(&world).await;
        world.put(&with_digest(&location, &bytes), bytes.clone()).await.status
    };
    let all = futures_util::future::join_all((0..8).map(|_| push())).await;
    assert_eq!(all, [201; 8]);
    assert_eq!(push().await, 201, "and once more when it is there");
    assert!(stored(&world, &bytes).await);
}

#[tokio::test]
async fn q29_the_empty_blob() {
    let world = World::new().await;
    world.blob("a", b"").await;
    let path = format!("/v2/a/blobs/{}", sha256(b""));
    for method in ["GET", "HEAD"] {
        let answer = world.call(method, &path).send().await;
        assert_eq!((answer.status, answer.header("content-length")), (200, "0".to_owned()), "{method}");
    }
}

// security: E-06
#[tokio::test]
async fn q30_sha512_announced_or_not() {
    let world = World::new().await;
    for (bytes, query) in [(&b"announced"[..], "?digest-algorithm=sha512"), (b"not announced", "")] {
        let location = world.post(&format!("/v2/a/blobs/uploads/{query}")).await.header("location");
        let location = world.patch(&location, bytes.to_vec()).await.header("location");
        let digest = sha512(bytes);
        let answer = world.put(&format!("{location}&digest={digest}"), "").await;
        assert_eq!((answer.status, answer.header("docker-content-digest")), (201, digest.clone()));
        let answer = world.get(&format!("/v2/a/blobs/{digest}")).await;
        assert_eq!((answer.status, answer.header("docker-content-digest")), (200, digest.clone()));
        assert_eq!(&answer.body[..], bytes);
        // One algorithm is no way to the other.
        assert_eq!(world.get(&format!("/v2/a/blobs/{}", sha256(bytes))).await.status, 404);
    }
    let large = vec![7; 100_000];
    let location = world.patch(&start(&world).await, large.clone()).await.header("location");
    assert_eq!(world.put(&format!("{location}&digest={}", sha512(&large)), "").await.status, 201);
    let unknown = world.post("/v2/a/blobs/uploads/?digest-algorithm=md5").await;
    assert_eq!(unknown.told(), (400, "DIGEST_INVALID".to_owned()));
}

// security: I-05
#[tokio::test]
async fn q31_uploads_that_are_left_behind_are_bounded() {
    let world = World::with(&[("PORTCULLIS_LIMITS__UPLOADS_PER_SUBJECT", "3")]).await;
    let mut locations = Vec::new();
    for _ in 0..3 {
        locations.push(start(&world).await);
    }
    let refused = world.post("/v2/a/blobs/uploads/").await;
    assert_eq!(refused.told(), (429, "TOOMANYREQUESTS".to_owned()));
    assert_eq!(refused.header("retry-after"), "10");
    assert_eq!(world.delete(&locations[0]).await.status, 204);
    start(&world).await;
}

#[tokio::test]
async fn q32_cancelling_an_upload() {
    let world = World::new().await;
    let location = world.patch(&start(&world).await, "hello").await.header("location");
    let answer = world.delete(&location).await;
    assert_eq!((answer.status, answer.body.len()), (204, 0));
    for method in ["GET", "PATCH", "DELETE"] {
        let answer = world.call(method, &location).send().await;
        assert_eq!(answer.status, 404, "{method}");
    }
    assert_eq!(world.put(&with_digest(&location, b"hello"), "").await.told(), (404, "BLOB_UPLOAD_UNKNOWN".to_owned()));
}

// security: C-03
#[tokio::test]
async fn q33_a_mount_without_a_source() {
    let world = World::new().await;
    let [_, _, layer] = world.image("source/app", "v1", b"layer").await;
    let answer = world.post(&format!("/v2/target/app/blobs/uploads/?mount={layer}")).await;
    assert_eq!((answer.status, answer.header("location")), (201, format!("/v2/target/app/blobs/{layer}")));
    assert_eq!(answer.header("docker-content-digest"), layer);
    let nowhere = world.post(&format!("/v2/target/app/blobs/uploads/?mount={}", sha256(b"nowhere"))).await;
    assert_eq!(nowhere.status, 202);
    assert_eq!(world.put(&with_digest(&nowhere.header("location"), b"nowhere"), "nowhere").await.status, 201);
    let malformed = world.post("/v2/target/app/blobs/uploads/?mount=sha256:x").await;
    assert_eq!(malformed.told(), (400, "DIGEST_INVALID".to_owned()));
    let from = world.post(&format!("/v2/other/app/blobs/uploads/?mount={layer}&from=source/app")).await;
    assert_eq!(from.status, 201);
}

#[tokio::test]
async fn q34_who_waits_for_100_continue_gets_the_final_state_at_once() {
    // With a socket it is tested that 100 is sent; here, that a refusal does not ask for the body.
    let world = World::new().await;
    let polled = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let seen = polled.clone();
    let body = futures_util::stream::poll_fn(move |_| {
        seen.store(true, std::sync::atomic::Ordering::Relaxed);
        std::task::Poll::Ready(Some(Ok::<_, std::io::Error>(Bytes::from_static(b"x"))))
    });
    let answer = world
        .call("PUT", "/v2/a/manifests/v1")
        .nobody()
        .header("expect", "100-continue")
        .body(axum::body::Body::from_stream(body))
        .send()
        .await;
    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    assert_eq!(answer.status, 401);
    assert!(!polled.load(std::sync::atomic::Ordering::Relaxed));
}

#[tokio::test]
async fn q35_further_parameters_are_ignored() {
    let world = World::new().await;
    let [_, _, layer] = world.image("source/app", "v1", b"layer").await;
    let target = format!("/v2/a/blobs/uploads/?mount={layer}&from=source/app&origin=quay.io&ns=localhost:5000&x=y&x");
    assert_eq!(world.post(&target).await.status, 201);
    assert_eq!(world.post("/v2/a/blobs/uploads/?ns=").await.status, 202);
    assert_eq!(world.post("/v2/a/blobs/uploads/?n=x&last=%zz&&=").await.status, 202);
    let [manifest, ..] = world.image("a", "v1", b"layer").await;
    for path in [
        format!("/v2/a/blobs/{layer}"),
        "/v2/a/manifests/v1".to_owned(),
        format!("/v2/a/manifests/{manifest}"),
        "/v2/a/tags/list".to_owned(),
        format!("/v2/a/referrers/{manifest}"),
        "/v2/_catalog".to_owned(),
        "/v2/".to_owned(),
    ] {
        let (plain, more) = (world.get(&path).await, world.get(&format!("{path}?ns=localhost:5000&x=y&z&=%zz")).await);
        assert_eq!((more.status, more.show()), (200, plain.show()), "{path}");
    }
}

// security: H-06
#[tokio::test]
async fn h06_lengths_that_do_not_agree() {
    let world = World::new().await;
    let short = |method: &'static str, target: String| {
        world.call(method, &target).header("content-length", "9").body("hello").send()
    };
    let digest = sha256(b"hello");
    let answer = short("POST", format!("/v2/a/blobs/uploads/?digest={digest}")).await;
    assert_eq!(answer.told(), (400, "SIZE_INVALID".to_owned()));
    let location = start(&world).await;
    assert_eq!(short("PUT", format!("{location}&digest={digest}")).await.told(), (400, "SIZE_INVALID".to_owned()));
    let location = start(&world).await;
    for range in ["0-8", "0-2"] {
        let answer = world.call("PATCH", &location).header("content-range", range).body("hello").send().await;
        assert_eq!(answer.told(), (400, "SIZE_INVALID".to_owned()), "{range}");
    }
    for odd in ["bytes 0-4/5", "0-", "-4", "4-0", "a-b", "0-18446744073709551616", ""] {
        let answer = world.call("PATCH", &location).header("content-range", odd).body("hello").send().await;
        assert_eq!(answer.told(), (400, "RANGE_INVALID".to_owned()), "{odd}");
    }
    assert!(!stored(&world, b"hello").await);
    let status = world.get(&location).await;
    assert_eq!(status.header("range"), "0-0", "nothing of it was taken");
}

// security: H-02
#[tokio::test]
async fn h02_closing_with_a_wrong_digest_or_none() {
    let world = World::new().await;
    let location = start(&world).await;
    assert_eq!(world.put(&location, "hello").await.told(), (400, "DIGEST_INVALID".to_owned()));
    for digest in ["", "sha256:x", "md5:00", &sha256(b"hello").to_uppercase()] {
        let answer = world.put(&format!("{location}&digest={digest}"), "hello").await;
        assert_eq!(answer.told(), (400, "DIGEST_INVALID".to_owned()), "{digest}");
    }
    let digest = sha256(b"hello");
    let twice = world.put(&format!("{location}&digest={digest}&digest={digest}"), "hello").await;
    assert_eq!(twice.told(), (400, "DIGEST_INVALID".to_owned()));
    let wrong = world.put(&with_digest(&location, b"other"), "hello").await;
    assert_eq!(wrong.told(), (400, "DIGEST_INVALID".to_owned()));
    assert!(!stored(&world, b"hello").await && !stored(&world, b"other").await);
    let again = world.put(&with_digest(&location, b"hello"), "hello").await;
    assert_eq!(again.told(), (404, "BLOB_UPLOAD_UNKNOWN".to_owned()), "a wrong digest ends the session");
    let location = start(&world).await;
    assert_eq!(world.put(&with_digest(&location, b"hello"), "hello").await.status, 201);
    assert_eq!(world.put(&with_digest(&location, b"hello"), "hello").await.status, 404, "finished once");
}

// security: C-05, H-04
#[tokio::test]
async fn h04_sessions_are_their_owners_in_their_repository() {
    let world = World::new().await;
    world.user("other").await;
    world.grant("user:other", "maintainer", "**").await;
    let location = world.patch(&start(&world).await, "hello").await.header("location");
    let elsewhere = location.replace("/v2/a/", "/v2/b/");
    let id = location.split('/').next_back().unwrap().split('?').next().unwrap().to_owned();
    for (target, user) in [(location.clone(), "other"), (elsewhere, "maint")] {
        for method in ["GET", "PATCH", "PUT", "DELETE"] {
            let target = with_digest(&target, b"hello");
            let answer = world.call(method, &target).user(user).body("x").send().await;
            assert_eq!(answer.told(), (404, "BLOB_UPLOAD_UNKNOWN".to_owned()), "{method} by {user}");
        }
    }
    for odd in ["x", "..%2f..%2fmeta.db", "00000000-0000-0000-0000-000000000000", &id.to_uppercase(), &id[1..]] {
        let answer = world.get(&format!("/v2/a/blobs/uploads/{odd}")).await;
        assert_eq!(answer.told(), (404, "BLOB_UPLOAD_UNKNOWN".to_owned()), "{odd}");
    }
    assert_eq!(world.get(&location).await.header("range"), "0-4", "untouched");
}

// security: H-01
#[tokio::test]
async fn h01_a_body_that_breaks_off_is_kept_and_resumed() {
    let world = World::new().await;
    let location = start(&world).await;
    let pieces = vec![Ok(Bytes::from_static(b"hel")), Err(std::io::ErrorKind::ConnectionReset.into())];
    let answer = world.call("PATCH", &location).chunked(pieces).send().await;
    assert_eq!(answer.told(), (400, "BLOB_UPLOAD_INVALID".to_owned()));
    let status = world.get(&location).await;
    assert_eq!(status.header("range"), "0-2");
    let answer = world.patch(&status.header("location"), "lo").await;
    assert_eq!(world.put(&with_digest(&answer.header("location"), b"hello"), "").await.status, 201);
}
