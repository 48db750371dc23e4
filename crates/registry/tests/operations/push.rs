use std::time::Duration;

use futures_util::{StreamExt, stream};
use oci::{Algorithm, ContentRange, Digest, Hasher};
use policy::{Access, Refusal};
use registry::push::{self, Position, Upload, UploadId};
use registry::{Error, INLINE_MAX, Settings};
use rustix::io::Errno;

use crate::common::*;

fn at(offset: u64) -> Position {
    Position { offset: Some(offset), ..Position::default() }
}

fn range(start: u64, end: u64) -> Position {
    Position { range: Some(ContentRange { start, end }), ..Position::default() }
}

async fn start(world: &World, access: &Access) -> UploadId {
    push::start(&world.registry, access, None).await.unwrap().id
}

async fn append(world: &World, access: &Access, id: &UploadId, at: Position, bytes: &[u8]) -> Result<u64, Error> {
    Ok(push::append(&world.registry, access, id, at, body(bytes)).await?.offset)
}

async fn finish(world: &World, access: &Access, id: &UploadId, digest: &Digest, bytes: &[u8]) -> Result<Digest, Error> {
    let again = access.clone();
    push::finish(&world.registry, access, id, Position::default(), digest, body(bytes), &again).await
}

async fn offset(world: &World, access: &Access, id: &UploadId) -> Result<u64, Error> {
    Ok(push::status(&world.registry, access, id).await?.offset)
}

#[tokio::test]
async fn in_pieces_of_any_size() {
    let world = world().await;
    let alice = world.access(ALICE, "a/b");
    let sizes = [0, 1, INLINE_MAX - 1, INLINE_MAX, INLINE_MAX + 1, 3 * INLINE_MAX, 1 << 20];
    for (n, size) in sizes.into_iter().enumerate() {
        for cuts in [vec![], vec![size / 2], vec![1.min(size), INLINE_MAX.min(size), size]] {
            // Different bytes for each, so that each is a new blob.
            let mut content = bytes(size);
            content.extend_from_slice(&[n as u8, cuts.len() as u8]);
            let id = start(&world, &alice).await;
            let mut sent = 0;
            for cut in cuts {
                let end = append(&world, &alice, &id, at(sent as u64), &content[sent..cut]).await.unwrap();
                assert_eq!((end, offset(&world, &alice, &id).await.unwrap()), (cut as u64, cut as u64));
                sent = cut;
            }
            let digest = sha256(&content);
            assert_eq!(finish(&world, &alice, &id, &digest, &content[sent..]).await.unwrap(), digest);
            assert_eq!(world.read_blob(&alice, &digest).await.unwrap(), content);
            // H-02: what is finished is over.
            assert!(matches!(finish(&world, &alice, &id, &digest, b"").await, Err(Error::UploadUnknown)));
        }
    }
}

#[tokio::test]
async fn q29_the_empty_blob() {
    let world = world().await;
    let alice = world.access(ALICE, "a/b");
    let id = start(&world, &alice).await;
    finish(&world, &alice, &id, &sha256(b""), b"").await.unwrap();
    assert_eq!(world.read_blob(&alice, &sha256(b"")).await.unwrap(), b"");
    world.push_blob(&world.access(ALICE, "a/c"), b"").await;
}

#[tokio::test]
async fn q30_sha512() {
    let world = world().await;
    let alice = world.access(ALICE, "a/b");
    for (n, size) in [100, 100_000].into_iter().enumerate() {
        for announced in [None, Some(Algorithm::Sha256), Some(Algorithm::Sha512)] {
            for first in [0, 50, size] {
                let mut content = bytes(size);
                content.extend_from_slice(&[n as u8, first as u8, announced.is_some().into(), 7]);
                let digest = Hasher::digest(Algorithm::Sha512, &content);
                let id = push::start(&world.registry, &alice, announced).await.unwrap().id;
                if first > 0 {
                    append(&world, &alice, &id, at(0), &content[..first]).await.unwrap();
                }
                finish(&world, &alice, &id, &digest, &content[first..]).await.unwrap();
                assert_eq!(world.read_blob(&alice, &digest).await.unwrap(), content);
                // The same bytes are not there under another digest.
                assert!(matches!(world.read_blob(&alice, &sha256(&content)).await, Err(Error::BlobUnknown(_))));
            }
        }
    }
}

#[tokio::test]
async fn h01_out_of_order() {
    let world = world().await;
    let alice = world.access(ALICE, "a/b");
    let id = start(&world, &alice).await;
    append(&world, &alice, &id, range(0, 9), &bytes(10)).await.unwrap();
    for wrong in [range(0, 9), range(9, 18), range(11, 20), at(0), at(11)] {
        let error = append(&world, &alice, &id, wrong, &bytes(10)).await.unwrap_err();
        assert!(matches!(error, Error::OutOfRange { offset: 10, .. }), "{error}");
        // On the closing request too, and the session lives on.
        let (digest, again) = (sha256(&bytes(10)), alice.clone());
        let error = push::finish(&world.registry, &alice, &id, wrong, &digest, body(&bytes(10)), &again).await;
        assert!(matches!(error, Err(Error::OutOfRange { offset: 10, .. })));
    }
    // Longer or shorter than the range, and a length that contradicts it.
    for (position, count, expected, actual) in [
        (range(10, 19), 9, 10, 9),
        (range(10, 19), 11, 10, 11),
        (Position { length: Some(9), ..range(10, 19) }, 9, 10, 9),
        (Position { length: Some(12), ..at(10) }, 11, 12, 11),
    ] {
        let error = append(&world, &alice, &id, position, &bytes(count)).await.unwrap_err();
        assert!(matches!(error, Error::SizeMismatch { expected: e, actual: a } if (e, a) == (expected, actual)));
        assert_eq!(offset(&world, &alice, &id).await.unwrap(), 10);
    }
    // A range decides, whatever the URL says.
    let position = Position { offset: Some(0), ..range(10, 19) };
    assert_eq!(append(&world, &alice, &id, position, &bytes(10)).await.unwrap(), 20);
    assert_eq!(append(&world, &alice, &id, Position::default(), b"x").await.unwrap(), 21);
}

/// A session that has spilled to a file takes nothing of a chunk that does not fit its range.
#[tokio::test]
async fn h01_a_wrong_chunk_leaves_no_trace_in_the_file() {
    let world = world().await;
    let alice = world.access(ALICE, "a/b");
    let content = bytes(900_000);
    let id = start(&world, &alice).await;
    append(&world, &alice, &id, at(0), &content[..400_000]).await.unwrap();
    let other = vec![7; 500_000];
    assert!(append(&world, &alice, &id, range(400_000, 400_009), &other).await.is_err());
    assert_eq!(offset(&world, &alice, &id).await.unwrap(), 400_000);
    finish(&world, &alice, &id, &sha256(&content), &content[400_000..]).await.unwrap();
    assert_eq!(world.read_blob(&alice, &sha256(&content)).await.unwrap(), content);
}

#[tokio::test]
async fn h02_a_wrong_digest_discards_the_session() {
    let world = world().await;
    let alice = world.access(ALICE, "a/b");
    for size in [10, 100_000] {
        let id = start(&world, &alice).await;
        let content = bytes(size);
        append(&world, &alice, &id, at(0), &content).await.unwrap();
        let wrong = sha256(b"wrong");
        let error = finish(&world, &alice, &id, &wrong, b"").await.unwrap_err();
        let actual = sha256(&content);
        assert!(matches!(error, Error::DigestMismatch { expected: e, actual: a } if e == wrong && a == actual));
        assert!(matches!(offset(&world, &alice, &id).await, Err(Error::UploadUnknown)));
        for digest in [&wrong, &actual] {
            let read = world.read_blob(&alice, digest).await;
            assert!(matches!(read, Err(Error::BlobUnknown(_) | Error::NameUnknown)));
        }
        let again = alice.clone();
        let before = world.files();
        let sent = push::monolithic(&world.registry, &alice, &wrong, None, body(&content), &again).await;
        assert!(matches!(sent, Err(Error::DigestMismatch { .. })));
        assert_eq!(world.files(), before);
    }
}

#[tokio::test]
async fn h03_one_request_at_a_time() {
    let world = world().await;
    let alice = world.access(ALICE, "a/b");
    let id = start(&world, &alice).await;
    append(&world, &alice, &id, at(0), b"12345").await.unwrap();
    let (sender, receiver) = tokio::sync::mpsc::channel::<std::io::Result<bytes::Bytes>>(1);
    let waiting = stream::unfold(receiver, |mut r| async move { r.recv().await.map(|item| (item, r)) }).boxed();
    let (registry, access, upload) = (world.registry.clone(), alice.clone(), id.clone());
    let first = tokio::spawn(async move { push::append(&registry, &access, &upload, at(5), waiting).await });
    sender.send(Ok("67".into())).await.unwrap();
    sender.send(Ok("8".into())).await.unwrap();
    let second = append(&world, &alice, &id, at(5), b"abc").await;
    assert!(matches!(second, Err(Error::UploadBusy { offset: 5, .. })));
    let closing = finish(&world, &alice, &id, &sha256(b"12345"), b"").await;
    assert!(matches!(closing, Err(Error::UploadBusy { offset: 5, .. })));
    drop(sender);
    assert_eq!(first.await.unwrap().unwrap().offset, 8);
    finish(&world, &alice, &id, &sha256(b"12345678"), b"").await.unwrap();
}

#[tokio::test]
async fn h03_cancelled_while_it_is_sent() {
    let world = world().await;
    let alice = world.access(ALICE, "a/b");
    for size in [10, 1 << 20] {
        let id = start(&world, &alice).await;
        let (sender, receiver) = tokio::sync::mpsc::channel::<std::io::Result<bytes::Bytes>>(1);
        let waiting = stream::unfold(receiver, |mut r| async move { r.recv().await.map(|item| (item, r)) }).boxed();
        let (registry, access, upload) = (world.registry.clone(), alice.clone(), id.clone());
        let first = tokio::spawn(async move { push::append(&registry, &access, &upload, at(0), waiting).await });
        sender.send(Ok(bytes(size).into())).await.unwrap();
        sender.send(Ok("x".into())).await.unwrap();
        push::cancel(&world.registry, &alice, &id).await.unwrap();
        drop(sender);
        assert!(matches!(first.await.unwrap(), Err(Error::UploadUnknown)));
        assert!(matches!(offset(&world, &alice, &id).await, Err(Error::UploadUnknown)));
        assert!(matches!(push::cancel(&world.registry, &alice, &id).await, Err(Error::UploadUnknown)));
    }
}

/// C-05, H-04: a session is there for its owner in its repository alone.
#[tokio::test]
async fn c05_sessions_of_others() {
    let world = world().await;
    let (alice, carol) = (world.access(ALICE, "a/b"), world.access(CAROL, "a/b"));
    let id = start(&world, &alice).await;
    append(&world, &alice, &id, at(0), b"12345").await.unwrap();
    for stranger in [carol, world.access(ALICE, "a/c")] {
        assert!(matches!(offset(&world, &stranger, &id).await, Err(Error::UploadUnknown)));
        assert!(matches!(append(&world, &stranger, &id, at(5), b"x").await, Err(Error::UploadUnknown)));
        assert!(matches!(finish(&world, &stranger, &id, &sha256(b"12345"), b"").await, Err(Error::UploadUnknown)));
        assert!(matches!(push::cancel(&world.registry, &stranger, &id).await, Err(Error::UploadUnknown)));
    }
    assert_eq!(offset(&world, &alice, &id).await.unwrap(), 5);
    for text in ["", "..", "0", &id.as_str().to_uppercase(), &id.as_str().replace('-', "")] {
        assert!(UploadId::parse(text).is_none(), "{text}");
    }
}

#[tokio::test]
async fn a_break_keeps_what_came() {
    let world = world().await;
    let alice = world.access(ALICE, "a/b");
    for size in [1000, 1_000_000] {
        let mut content = bytes(size);
        content.push(1);
        let id = start(&world, &alice).await;
        let sent = push::append(&world.registry, &alice, &id, at(0), broken(&content[..size / 2])).await;
        assert!(matches!(sent, Err(Error::ClientGone(_))));
        let (kept, digest, again) = (size / 2, sha256(&content), alice.clone());
        assert_eq!(offset(&world, &alice, &id).await.unwrap(), kept as u64);
        // And on the closing request.
        let rest = broken(&content[kept..kept + 7]);
        let closed = push::finish(&world.registry, &alice, &id, at(kept as u64), &digest, rest, &again).await;
        assert!(matches!(closed, Err(Error::ClientGone(_))));
        let kept = kept + 7;
        assert_eq!(offset(&world, &alice, &id).await.unwrap(), kept as u64);
        finish(&world, &alice, &id, &digest, &content[kept..]).await.unwrap();
        assert_eq!(world.read_blob(&alice, &digest).await.unwrap(), content);
    }
}

/// When the connection goes, the server drops the future that handles the request.
#[tokio::test]
async fn a_dropped_request_gives_its_lease_back() {
    let world = world().await;
    let alice = world.access(ALICE, "a/b");
    let id = start(&world, &alice).await;
    let (sender, receiver) = tokio::sync::mpsc::channel::<std::io::Result<bytes::Bytes>>(1);
    let waiting = stream::unfold(receiver, |mut r| async move { r.recv().await.map(|item| (item, r)) }).boxed();
    let (registry, access, upload) = (world.registry.clone(), alice.clone(), id.clone());
    let request = tokio::spawn(async move { push::append(&registry, &access, &upload, at(0), waiting).await });
    let content = bytes(300_000);
    sender.send(Ok(content.clone().into())).await.unwrap();
    // The channel holds one: now the first is being worked on.
    sender.send(Ok("".into())).await.unwrap();
    request.abort();
    assert!(request.await.unwrap_err().is_cancelled());
    sender.send(Err(std::io::ErrorKind::ConnectionReset.into())).await.unwrap();
    sender.closed().await;
    for _ in 0..100 {
        if offset(&world, &alice, &id).await.unwrap() > 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(offset(&world, &alice, &id).await.unwrap(), 300_000);
    finish(&world, &alice, &id, &sha256(&content), b"").await.unwrap();
}

#[tokio::test]
async fn sessions_survive_a_restart() {
    let mut world = world().await;
    let mut content = bytes(400_000);
    for cut in [5, 300_000] {
        content.push(1);
        let alice = world.access(ALICE, "a/b");
        let id = start(&world, &alice).await;
        append(&world, &alice, &id, at(0), &content[..cut]).await.unwrap();
        world = world.restart().await;
        assert_eq!(offset(&world, &alice, &id).await.unwrap(), cut as u64);
        finish(&world, &alice, &id, &sha256(&content), &content[cut..]).await.unwrap();
        assert_eq!(world.read_blob(&alice, &sha256(&content)).await.unwrap(), content);
    }
}

/// After a crash the file may be longer than the row says. What lies beyond was never acknowledged.
#[tokio::test]
async fn unacknowledged_bytes_are_cut_off() {
    let world = world().await;
    let alice = world.access(ALICE, "a/b");
    let content = bytes(300_000);
    let id = start(&world, &alice).await;
    append(&world, &alice, &id, at(0), &content).await.unwrap();
    let file = world.files().pop().unwrap();
    let longer = [&content[..], b"never acknowledged"].concat();
    std::fs::write(&file, longer).unwrap();
    finish(&world, &alice, &id, &sha256(&content), b"").await.unwrap();
    assert_eq!(world.read_blob(&alice, &sha256(&content)).await.unwrap(), content);
}

#[tokio::test]
async fn a_session_that_lost_its_bytes_is_gone() {
    let world = world().await;
    let alice = world.access(ALICE, "a/b");
    for damage in
        [|path: &std::path::Path| std::fs::remove_file(path), |path: &std::path::Path| std::fs::write(path, "short")]
    {
        let id = start(&world, &alice).await;
        append(&world, &alice, &id, at(0), &bytes(300_000)).await.unwrap();
        for file in world.files() {
            damage(&file).unwrap();
        }
        assert!(matches!(append(&world, &alice, &id, at(300_000), b"x").await, Err(Error::UploadUnknown)));
        assert!(matches!(offset(&world, &alice, &id).await, Err(Error::UploadUnknown)));
    }
}

/// O-01: a full disk ends the request, not the session.
#[tokio::test]
async fn o01_a_full_disk_keeps_the_session() {
    for (errno, op) in [(Errno::NOSPC, "pwrite"), (Errno::NOSPC, "open"), (Errno::ROFS, "open"), (Errno::IO, "pwrite")]
    {
        let world = world().await;
        let alice = world.access(ALICE, "a/b");
        let content = bytes(2_000_000);
        let id = start(&world, &alice).await;
        append(&world, &alice, &id, at(0), &content[..10_000]).await.unwrap();
        world.faults.fail_op(op, errno);
        let error = append(&world, &alice, &id, at(10_000), &content[10_000..]).await.unwrap_err();
        match errno {
            Errno::NOSPC => assert!(matches!(error, Error::Full(_)), "{error}"),
            Errno::ROFS => assert!(matches!(error, Error::ReadOnly(_)), "{error}"),
            _ => assert!(matches!(error, Error::Unavailable { source: Some(_), .. }), "{error}"),
        }
        world.faults.clear();
        let kept = offset(&world, &alice, &id).await.unwrap() as usize;
        // What was acknowledged is still there.
        assert!(kept >= 10_000, "{kept}");
        finish(&world, &alice, &id, &sha256(&content), &content[kept..]).await.unwrap();
        assert_eq!(world.read_blob(&alice, &sha256(&content)).await.unwrap(), content);
    }
}

/// O-04: what was not synced is not acknowledged, not even later.
#[tokio::test]
async fn o04_a_failed_sync_ends_the_session() {
    let world = world().await;
    let alice = world.access(ALICE, "a/b");
    let content = bytes(300_000);
    for op in ["fdatasync", "fsync"] {
        let id = start(&world, &alice).await;
        world.faults.fail_op(op, Errno::IO);
        assert!(append(&world, &alice, &id, at(0), &content).await.is_err());
        world.faults.clear();
        assert!(matches!(offset(&world, &alice, &id).await, Err(Error::UploadUnknown)));
        let again = alice.clone();
        world.faults.fail_op(op, Errno::IO);
        let sent = push::monolithic(&world.registry, &alice, &sha256(&content), None, body(&content), &again).await;
        assert!(matches!(sent, Err(Error::Unavailable { .. })));
        world.faults.clear();
    }
    assert!(world.read_blob(&alice, &sha256(&content)).await.is_err());
    assert!(world.files().is_empty());
}

#[tokio::test]
async fn the_right_is_asked_again_at_the_end() {
    let world = world().await;
    let alice = world.access(ALICE, "a/b");
    for size in [10, 300_000] {
        let (content, no) = (bytes(size), No);
        let id = start(&world, &alice).await;
        append(&world, &alice, &id, at(0), &content).await.unwrap();
        let digest = sha256(&content);
        let closed = push::finish(&world.registry, &alice, &id, at(size as u64), &digest, body(b""), &no).await;
        assert!(matches!(closed, Err(Error::Refused(Refusal::Denied { .. }))));
        assert!(matches!(offset(&world, &alice, &id).await, Err(Error::UploadUnknown)));
        let before = world.files();
        let sent = push::monolithic(&world.registry, &alice, &digest, None, body(&content), &no).await;
        assert!(matches!(sent, Err(Error::Refused(_))));
        assert_eq!(world.files(), before);
        assert!(world.read_blob(&alice, &digest).await.is_err());
    }
}

#[tokio::test]
async fn a_limit_of_sessions() {
    let world = world_with(Settings { uploads_per_subject: 3, ..settings() }).await;
    let alice = world.access(ALICE, "a/b");
    let mut ids = vec![];
    for _ in 0..3 {
        ids.push(start(&world, &alice).await);
    }
    let fourth = push::start(&world.registry, &alice, None).await;
    assert!(matches!(fourth, Err(Error::TooManyUploads { limit: 3 })));
    push::start(&world.registry, &world.access(CAROL, "a/b"), None).await.unwrap();
    push::cancel(&world.registry, &alice, &ids[0]).await.unwrap();
    let Upload { offset, .. } = push::start(&world.registry, &alice, None).await.unwrap();
    assert_eq!(offset, 0);
}

/// In one request, on a disk that fills up: there is room again at once, for the client knows no session to go on with.
#[tokio::test]
async fn h06_in_one_request_nothing_is_left_on_a_full_disk() {
    let world = world().await;
    let alice = world.access(ALICE, "a/b");
    let content = bytes(900_000);
    for n in 1..40 {
        world.faults.fail_at(n, Errno::NOSPC);
        let sent = push::monolithic(&world.registry, &alice, &sha256(&content), None, body(&content), &alice).await;
        world.faults.clear();
        if sent.is_ok() {
            break;
        }
        assert!(matches!(sent, Err(Error::Full(_))), "{n}: {sent:?}");
        assert_eq!(world.registry.db().count_uploads().await.unwrap(), 0, "{n}");
        assert!(world.files().is_empty(), "{n}: {:?}", world.files());
    }
    assert_eq!(world.read_blob(&alice, &sha256(&content)).await.unwrap(), content);
}

/// In one request: no session is left behind, whatever happens.
#[tokio::test]
async fn h06_in_one_request() {
    let world = world_with(Settings { uploads_per_subject: 1, ..settings() }).await;
    let alice = world.access(ALICE, "a/b");
    let again = alice.clone();
    for size in [0, 10, INLINE_MAX, INLINE_MAX + 1, 300_000] {
        let mut content = bytes(size);
        for length in [None, Some(size as u64)] {
            content[..size.min(1)].fill(length.is_some().into());
            let digest = sha256(&content);
            push::monolithic(&world.registry, &alice, &digest, length, body(&content), &again).await.unwrap();
            assert_eq!(world.read_blob(&alice, &digest).await.unwrap(), content);
        }
        let length = Some(size as u64 + 1);
        let sent = push::monolithic(&world.registry, &alice, &sha256(&content), length, body(&content), &again).await;
        assert!(matches!(sent, Err(Error::SizeMismatch { .. })));
        let sent = push::monolithic(&world.registry, &alice, &sha256(&content), None, broken(&content), &again).await;
        assert!(matches!(sent, Err(Error::ClientGone(_))));
        let mut left = push::start(&world.registry, &alice, None).await;
        for _ in 0..100 {
            if left.is_ok() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
            left = push::start(&world.registry, &alice, None).await;
        }
        push::cancel(&world.registry, &alice, &left.unwrap().id).await.unwrap();
    }
}

/// C-04, Q28: bytes that are there already are taken in full, and replace the copy.
#[tokio::test]
async fn c04_a_duplicate_does_the_same_work() {
    let world = world().await;
    let alice = world.access(ALICE, "a/b");
    let content = bytes(300_000);
    world.push_blob(&alice, &content).await;
    let before = world.files();
    world.push_blob(&world.access(ALICE, "a/c"), &content).await;
    let after = world.files();
    assert_eq!((before.len(), after.len()), (1, 2));
    // The one of the first push is garbage now, the other is served.
    std::fs::remove_file(&before[0]).unwrap();
    assert_eq!(world.read_blob(&alice, &sha256(&content)).await.unwrap(), content);
}

#[tokio::test]
async fn h11_the_same_blob_many_times_at_once() {
    let world = world().await;
    let content = bytes(300_000);
    let digest = sha256(&content);
    let pushes = (0..20).map(|n| {
        let access = world.access(ALICE, &format!("a/r{n}"));
        let (world, content) = (&world, &content);
        async move { world.push_blob(&access, content).await }
    });
    for pushed in futures_util::future::join_all(pushes).await {
        assert_eq!(pushed, digest);
    }
    for n in 0..20 {
        let access = world.access(ALICE, &format!("a/r{n}"));
        assert_eq!(world.read_blob(&access, &digest).await.unwrap(), content);
    }
}

#[tokio::test]
async fn c01_mounts() {
    let world = world().await;
    let content = bytes(100);
    let secret = world.access(ALICE, "secret/a");
    let digest = world.push_blob(&secret, &content).await;
    let target = world.access(ERIN, "erin/x");
    // Nobody's access to the source, or not to a blob that is there.
    assert!(target.source(&name("secret/a")).is_none());
    assert!(!push::mount_from_anywhere(&world.registry, &target, &digest).await.unwrap());
    assert!(!push::mount_from_anywhere(&world.registry, &target, &sha256(b"absent")).await.unwrap());

    // In a repository that may be pulled, but accepted by no manifest.
    let open = world.access(ALICE, "open/a");
    world.push_blob(&open, &content).await;
    let source = name("open/a");
    assert!(!push::mount(&world.registry, &target, &name("secret/a"), &digest).await.unwrap());
    assert!(!push::mount(&world.registry, &target, &source, &digest).await.unwrap());
    assert!(matches!(world.read_blob(&target, &digest).await, Err(Error::NameUnknown)));
    // To one who may push there it is mounted.
    let alices = world.access(ALICE, "other/x");
    assert!(push::mount(&world.registry, &alices, &source, &digest).await.unwrap());
    assert_eq!(world.read_blob(&alices, &digest).await.unwrap(), content);

    world.push_manifest(&open, "v1", &image(&digest, &[])).await.unwrap();
    assert!(!push::mount(&world.registry, &target, &source, &sha256(b"absent")).await.unwrap());
    assert!(push::mount(&world.registry, &target, &source, &digest).await.unwrap());
    assert_eq!(world.read_blob(&target, &digest).await.unwrap(), content);
    assert!(push::mount_from_anywhere(&world.registry, &world.access(ERIN, "erin/y"), &digest).await.unwrap());
}
