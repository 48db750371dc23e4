//! Quirks of clients: reading blobs. The numbers are those of the list of quirks in `docs/reference/protocol.md`.

use crate::world::{Answer, World, sha256};

/// A blob that lies in a file, of bytes that tell where they are.
fn bytes(size: usize) -> Vec<u8> {
    (0..size).map(|i| (i % 251) as u8).collect()
}

async fn ranged(world: &World, digest: &str, range: &str) -> Answer {
    world.call("GET", &format!("/v2/a/blobs/{digest}")).header("range", range).send().await
}

#[tokio::test]
async fn q59_the_head_of_a_blob_has_its_length() {
    let world = World::new().await;
    for size in [0, 1, 5000, 100_000] {
        let digest = world.blob("a", &bytes(size)).await;
        let path = format!("/v2/a/blobs/{digest}");
        let (head, get) = (world.head(&path).await, world.get(&path).await);
        assert_eq!((head.status, head.header("content-length"), head.body.len()), (200, size.to_string(), 0));
        assert_eq!(head.headers, get.headers);
        assert_eq!(get.body, bytes(size));
    }
}

// security: F-05
#[tokio::test]
async fn q60_nothing_is_compressed() {
    let world = World::new().await;
    let [manifest, _, layer] = world.image("a", "v1", &vec![b'x'; 50_000]).await;
    for path in [format!("/v2/a/blobs/{layer}"), format!("/v2/a/manifests/{manifest}"), "/v2/a/tags/list".to_owned()] {
        let answer = world.call("GET", &path).header("accept-encoding", "zstd, gzip, br, deflate").send().await;
        assert_eq!((answer.status, answer.header("content-encoding")), (200, String::new()), "{path}");
        assert_eq!(answer.header("content-length"), answer.body.len().to_string());
    }
}

// security: F-04
#[tokio::test]
async fn q61_single_ranges() {
    let world = World::new().await;
    for size in [10_000, 100_000] {
        let (all, digest) = (bytes(size), world.blob("a", &bytes(size)).await);
        for (range, first, last) in [
            ("bytes=0-0", 0, 0),
            ("bytes=500-1499", 500, 1499),
            (&format!("bytes={}-", size - 10), size - 10, size - 1),
            ("bytes=-1", size - 1, size - 1),
            ("bytes=-999999999", 0, size - 1),
            ("bytes=2000-99999999", 2000, size - 1),
            ("bytes=0-18446744073709551615", 0, size - 1),
        ] {
            let answer = ranged(&world, &digest, range).await;
            assert_eq!(answer.status, 206, "{range}");
            assert_eq!(answer.body, all[first..=last], "{range}");
            assert_eq!(answer.header("content-range"), format!("bytes {first}-{last}/{size}"));
            assert_eq!(answer.header("content-length"), (last - first + 1).to_string());
        }
        for range in
            [&format!("bytes={size}-"), &format!("bytes={size}-{size}"), "bytes=-0", "bytes=500-0", "bytes=5-4"]
        {
            let answer = ranged(&world, &digest, range).await;
            assert_eq!(answer.told(), (416, "RANGE_INVALID".to_owned()), "{range}");
            assert_eq!(answer.header("content-range"), format!("bytes */{size}"));
        }
        assert_eq!(ranged(&world, &digest, "items=0-5").await.status, 200, "another unit");
    }
}

// security: F-11
#[tokio::test]
async fn q62_an_answer_that_nobody_takes_is_not_read() {
    use axum::http::Request;
    use http_body_util::BodyExt;
    use tower::ServiceExt;
    let world = World::new().await;
    let digest = world.blob("a", &bytes(3_000_000)).await;
    let before = world.state.metrics.blob_bytes_out().get();
    let file = world.files().pop().unwrap();
    let ask = || async {
        let request = Request::get(format!("/v2/a/blobs/{digest}"))
            .header("host", crate::world::HOST)
            .header("range", "bytes=1-")
            .header("authorization", crate::world::basic("maint", &crate::world::password("maint")))
            .body(axum::body::Body::empty())
            .unwrap();
        let router = server::main_router::router(world.state.clone());
        router.oneshot(request).await.unwrap().into_body()
    };
    let open = || {
        let descriptors = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
        descriptors.filter_map(|entry| std::fs::read_link(entry.path()).ok()).filter(|path| *path == file).count()
    };
    let mut body = ask().await;
    let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
    assert_eq!(open(), 1);
    drop(body);
    assert!(first.len() <= 256 * 1024);
    assert_eq!(world.state.metrics.blob_bytes_out().get() - before, first.len() as u64);
    assert_eq!(open(), 0, "the file is closed with the answer");
    // Nothing is read ahead of the client: what is cut off after the first piece is missed by the next.
    let mut body = ask().await;
    body.frame().await.unwrap().unwrap();
    std::fs::File::options().write(true).open(&file).unwrap().set_len(300_000).unwrap();
    assert!(body.frame().await.unwrap().is_err());
}

// security: F-04
#[tokio::test]
async fn q63_several_ranges() {
    let world = World::new().await;
    for size in [1000, 100_000] {
        let (all, digest) = (bytes(size), world.blob("a", &bytes(size)).await);
        // In the order of the request, not merged, and one that is beyond the end left out.
        let answer = ranged(&world, &digest, "bytes=20-29, 0-9,10-19,-5,99999999-").await;
        assert_eq!(answer.status, 206);
        assert_eq!(answer.header("content-length"), answer.body.len().to_string());
        let expected = [(20, 29), (0, 9), (10, 19), (size - 5, size - 1)];
        assert_eq!(parts(&answer, size), expected.map(|(first, last)| all[first..=last].to_vec()));
        for range in ["bytes=0-9,9-19", &format!("bytes={}", "0-0,".repeat(10_000)), "bytes=5-4,1-2", "bytes=x,1-2"] {
            assert_eq!(ranged(&world, &digest, range).await.told(), (400, "RANGE_INVALID".to_owned()));
        }
    }
}

/// The parts of a multipart answer, as a client takes them apart.
fn parts(answer: &Answer, size: usize) -> Vec<Vec<u8>> {
    let kind = answer.header("content-type");
    let boundary = kind.strip_prefix("multipart/byteranges; boundary=").unwrap();
    assert!(boundary.len() <= 70 && boundary.chars().all(|c| c.is_ascii_alphanumeric()));
    let (mut rest, mut parts) = (&answer.body[..], Vec::new());
    loop {
        rest = rest.strip_prefix(format!("--{boundary}").as_bytes()).unwrap();
        if rest == b"--\r\n" {
            return parts;
        }
        let end = rest.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
        let head = std::str::from_utf8(&rest[2..end]).unwrap();
        let (kind, range) = head.split_once("\r\n").unwrap();
        assert_eq!(kind, "Content-Type: application/octet-stream");
        let (range, whole) = range.strip_prefix("Content-Range: bytes ").unwrap().split_once('/').unwrap();
        assert_eq!(whole, size.to_string());
        let (first, last) = range.split_once('-').unwrap();
        let length = last.parse::<usize>().unwrap() - first.parse::<usize>().unwrap() + 1;
        parts.push(rest[end + 4..end + 4 + length].to_vec());
        rest = rest[end + 4 + length..].strip_prefix(b"\r\n").unwrap();
    }
}

#[tokio::test]
async fn q64_parts_have_types_and_are_bounded() {
    let world = World::new().await;
    let digest = world.blob("a", &bytes(1000)).await;
    assert_eq!(ranged(&world, &digest, "bytes=0-1").await.header("content-type"), "application/octet-stream");
    let many = |count: usize| (0..count).map(|i| format!("{0}-{0}", i * 2)).collect::<Vec<_>>().join(",");
    let answer = ranged(&world, &digest, &format!("bytes={}", many(128))).await;
    assert_eq!(parts(&answer, 1000).len(), 128);
    assert_eq!(ranged(&world, &digest, &format!("bytes={}", many(129))).await.status, 400);
}

#[tokio::test]
async fn q65_a_lazy_puller_learns_the_size_from_two_bytes() {
    let world = World::new().await;
    for size in [1000, 100_000] {
        let digest = world.blob("a", &bytes(size)).await;
        let probe = ranged(&world, &digest, "bytes=0-1").await;
        assert_eq!((probe.status, probe.header("content-range")), (206, format!("bytes 0-1/{size}")));
        assert_eq!(probe.header("content-type"), "application/octet-stream");
        assert_eq!(probe.header("location"), "", "what it keeps is the URL that it asked");
        assert_eq!(world.head(&format!("/v2/a/blobs/{digest}")).await.header("content-length"), size.to_string());
    }
    // Of a blob that has no second byte.
    let digest = world.blob("a", b"x").await;
    assert_eq!(ranged(&world, &digest, "bytes=0-1").await.header("content-range"), "bytes 0-0/1");
    let digest = world.blob("a", b"").await;
    assert_eq!(ranged(&world, &digest, "bytes=0-1").await.header("content-range"), "bytes */0");
}

#[tokio::test]
async fn q66_ranges_are_announced() {
    let world = World::new().await;
    let digest = world.blob("a", &bytes(1000)).await;
    let path = format!("/v2/a/blobs/{digest}");
    for answer in [world.head(&path).await, world.get(&path).await, ranged(&world, &digest, "bytes=0-1").await] {
        assert_eq!(answer.header("accept-ranges"), "bytes");
    }
}

#[tokio::test]
async fn q67_from_the_local_disk_nothing_is_redirected() {
    let world = World::new().await;
    // One in the database, one in a file.
    for size in [1000, 100_000] {
        let path = format!("/v2/a/blobs/{}", world.blob("a", &bytes(size)).await);
        for answer in [world.get(&path).await, world.head(&path).await] {
            assert_eq!((answer.status, answer.header("location")), (200, String::new()));
        }
        assert_eq!(world.get(&path).await.body, bytes(size));
    }
}

#[tokio::test]
async fn q68_the_digest_on_every_answer_with_bytes() {
    let world = World::new().await;
    let digest = world.blob("a", &bytes(1000)).await;
    for range in ["bytes=0-1", "bytes=0-1,5-6", "items=0"] {
        assert_eq!(ranged(&world, &digest, range).await.header("docker-content-digest"), digest);
    }
    let created = world.post(&format!("/v2/a/blobs/uploads/?mount={digest}&from=a")).await;
    assert_eq!((created.status, created.header("docker-content-digest")), (201, digest));
}

// security: F-04
#[tokio::test]
async fn q69_if_range() {
    let world = World::new().await;
    let digest = world.blob("a", &bytes(1000)).await;
    let ask = |tag: String| {
        world.call("GET", &format!("/v2/a/blobs/{digest}")).header("range", "bytes=0-9").header("if-range", &tag).send()
    };
    assert_eq!(ask(format!("\"{digest}\"")).await.status, 206);
    for other in ["\"x\"".to_owned(), "Wed, 21 Oct 2026 07:28:00 GMT".to_owned(), format!("W/\"{digest}\"")] {
        let answer = ask(other.clone()).await;
        assert_eq!((answer.status, answer.body.len()), (200, 1000), "{other}");
    }
}

// security: F-10
#[tokio::test]
async fn f10_a_browser_runs_nothing() {
    let world = World::new().await;
    let [manifest, _, layer] = world.image("a", "v1", b"<script>alert(1)</script>").await;
    for path in [format!("/v2/a/blobs/{layer}"), format!("/v2/a/manifests/{manifest}")] {
        let answer = world.get(&path).await;
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
        assert_eq!(answer.header("content-disposition"), "attachment");
        assert_eq!(answer.header("content-security-policy"), "default-src 'none'; sandbox");
    }
    assert_eq!(world.get(&format!("/v2/a/blobs/{layer}")).await.header("content-type"), "application/octet-stream");
}

#[tokio::test]
async fn a_file_that_is_not_what_was_stored_is_not_served() {
    let world = World::new().await;
    let digest = world.blob("a", &bytes(100_000)).await;
    let files = world.files();
    assert_eq!(files.len(), 1);
    std::fs::write(&files[0], b"short").unwrap();
    let answer = world.get(&format!("/v2/a/blobs/{digest}")).await;
    assert_eq!(answer.told(), (500, "UNKNOWN".to_owned()));
    assert!(answer.text().contains("request-1"), "the client can name the request");
    assert!(!answer.text().contains("blobs/"), "and learns nothing of the server");
    // Who may push is told that it is missing, and heals it by pushing.
    assert_eq!(world.head(&format!("/v2/a/blobs/{digest}")).await.status, 404);
    world.blob("a", &bytes(100_000)).await;
    assert_eq!(world.get(&format!("/v2/a/blobs/{digest}")).await.body, bytes(100_000));
    assert_eq!(sha256(&bytes(100_000)), digest);
}
