//! The suite that every store must pass, called by the tests of each kind. Panics where the store is wrong.

#![allow(clippy::unwrap_used, clippy::missing_panics_doc, reason = "test code, which the tests of other crates call")]

use bytes::Bytes;
use oci::{Algorithm, Digest, Hasher};

use crate::{Blobs, Error, Key, PIECE, READ_MAX, Source, Writer, Written, read_chunk};

/// Runs every check on an empty store, which it leaves with files in it.
pub async fn run(store: &Blobs) {
    sizes(store).await;
    frames_of_any_size(store).await;
    resumes(store).await;
    two_hashes(store).await;
    one_writer(store).await;
    absent(store).await;
    lists(store).await;
    ranges(store).await;
    links(store).await;
}

/// A key from a number.
pub fn key(n: u64) -> Key {
    Key::parse(&format!("{n:02x}{n:030x}")).unwrap()
}

/// `length` bytes that differ at each position.
pub fn bytes(length: usize) -> Vec<u8> {
    (0..length).map(|i| (i ^ (i >> 8) ^ (i >> 16)) as u8).collect()
}

/// Writes `bytes` under `key` as a new file.
pub async fn put(store: &Blobs, key: &Key, bytes: &[u8]) -> Result<Written, Error> {
    let mut writer = store.writer(key, 0, sha256()).await?;
    writer.write(Bytes::copy_from_slice(bytes)).await?;
    writer.finish().await
}

/// Everything in the file of `key`.
pub async fn get(store: &Blobs, key: &Key, size: u64) -> Result<Vec<u8>, Error> {
    let open = store.open(key, size).await?;
    let mut bytes = Vec::new();
    while (bytes.len() as u64) < size {
        let left = (size - bytes.len() as u64).min(READ_MAX);
        bytes.extend_from_slice(&read_chunk(&open.file, bytes.len() as u64, left).await.unwrap());
    }
    Ok(bytes)
}

fn sha256() -> Vec<Hasher> {
    vec![Hasher::new(Algorithm::Sha256)]
}

fn digests(written: Written) -> Vec<Digest> {
    written.hashers.into_iter().map(Hasher::finish).collect()
}

async fn sizes(store: &Blobs) {
    for (n, size) in [0, 1, PIECE - 1, PIECE, PIECE + 1, 9 << 20].into_iter().enumerate() {
        let (key, content) = (key(n as u64), bytes(size));
        let written = put(store, &key, &content).await.unwrap();
        assert_eq!(written.size, size as u64);
        let (mtime, digest) = (written.mtime_ns, Hasher::digest(Algorithm::Sha256, &content));
        assert_eq!(digests(written), std::slice::from_ref(&digest));
        assert_eq!(store.open(&key, size as u64).await.unwrap().mtime_ns, mtime);
        assert_eq!(get(store, &key, size as u64).await.unwrap(), content);
        let (open, on_disk) = store.hash_on_disk(&key, size as u64, &[Algorithm::Sha256]).await.unwrap();
        assert_eq!((open.mtime_ns, on_disk), (mtime, vec![digest.clone()]));
        assert!(matches!(store.hash_on_disk(&key, size as u64 + 1, &[]).await, Err(Error::Damaged { .. })));
        assert_eq!(store.hash(&key, &[Algorithm::Sha256]).await.unwrap(), (size as u64, vec![digest]));
        assert!(matches!(store.open(&key, size as u64 + 1).await, Err(Error::Damaged { .. })));
    }
}

async fn frames_of_any_size(store: &Blobs) {
    let content = bytes(3 * PIECE + 17);
    for (n, frame) in [(20, 7), (21, 16 << 10), (22, PIECE + 5), (23, 2 * PIECE)] {
        let mut writer = store.writer(&key(n), 0, sha256()).await.unwrap();
        for part in content.chunks(frame) {
            writer.write(Bytes::copy_from_slice(part)).await.unwrap();
        }
        assert_eq!(writer.offset(), content.len() as u64);
        assert_eq!(digests(writer.finish().await.unwrap()), [Hasher::digest(Algorithm::Sha256, &content)]);
        assert_eq!(get(store, &key(n), content.len() as u64).await.unwrap(), content);
    }
}

async fn resumes(store: &Blobs) {
    let (key, content) = (key(30), bytes(2 * PIECE + 100));
    let mut hashers = sha256();
    let mut offset = 0;
    for end in [1, PIECE + 1, PIECE + 1, content.len()] {
        let mut writer = store.writer(&key, offset as u64, hashers).await.unwrap();
        writer.write(Bytes::copy_from_slice(&content[offset..end])).await.unwrap();
        hashers = writer.finish().await.unwrap().hashers;
        offset = end;
        // What was never acknowledged is cut off by the next writer.
        drop_unfinished(store, &key, offset as u64).await;
    }
    let writer = store.writer(&key, offset as u64, hashers).await.unwrap();
    let written = writer.finish().await.unwrap();
    assert_eq!(written.size, content.len() as u64);
    assert_eq!(digests(written), [Hasher::digest(Algorithm::Sha256, &content)]);
    assert_eq!(get(store, &key, content.len() as u64).await.unwrap(), content);
    // And from nothing, over what was there.
    put(store, &key, b"new").await.unwrap();
    assert_eq!(get(store, &key, 3).await.unwrap(), b"new");
}

async fn drop_unfinished(store: &Blobs, key: &Key, offset: u64) {
    let mut writer = store.writer(key, offset, sha256()).await.unwrap();
    writer.write(Bytes::from_static(b"never acknowledged")).await.unwrap();
    writer.flush().await.unwrap();
}

async fn two_hashes(store: &Blobs) {
    let content = bytes(PIECE + 1);
    let both = [Algorithm::Sha256, Algorithm::Sha512];
    let mut writer = store.writer(&key(40), 0, both.map(Hasher::new).into()).await.unwrap();
    writer.write(content.clone().into()).await.unwrap();
    let expected: Vec<Digest> = both.map(|algorithm| Hasher::digest(algorithm, &content)).into();
    assert_eq!(digests(writer.finish().await.unwrap()), expected);
    assert_eq!(store.hash(&key(40), &both).await.unwrap().1, expected);
}

async fn one_writer(store: &Blobs) {
    let first: Writer = store.writer(&key(50), 0, sha256()).await.unwrap();
    assert!(matches!(store.writer(&key(50), 0, sha256()).await, Err(Error::Busy { .. })));
    drop(first);
    store.writer(&key(50), 0, sha256()).await.unwrap();
}

async fn absent(store: &Blobs) {
    assert!(matches!(store.open(&key(60), 0).await, Err(Error::NotFound { .. })));
    assert!(matches!(store.hash(&key(60), &[]).await, Err(Error::NotFound { .. })));
    assert!(matches!(store.writer(&key(60), 1, sha256()).await, Err(Error::NotFound { .. })));
    store.delete(&key(60)).await.unwrap();
    put(store, &key(60), b"x").await.unwrap();
    assert!(matches!(store.writer(&key(60), 2, sha256()).await, Err(Error::Damaged { .. })));
    let open = store.open(&key(60), 1).await.unwrap();
    store.delete(&key(60)).await.unwrap();
    assert!(matches!(store.open(&key(60), 1).await, Err(Error::NotFound { .. })));
    // A reader that has it open goes on.
    assert_eq!(&read_chunk(&open.file, 0, 1).await.unwrap()[..], b"x");
}

async fn lists(store: &Blobs) {
    put(store, &key(0x70), b"listed").await.unwrap();
    let entries = store.list_prefix(0x70).await.unwrap();
    assert_eq!(entries.len(), 1);
    assert_eq!((entries[0].key.as_ref(), entries[0].size), (Some(&key(0x70)), 6));
    assert_eq!(entries[0].name, format!("70/{}", key(0x70)));
    assert!(store.list_prefix(0x71).await.unwrap().is_empty());
    assert!(store.strays().await.unwrap().is_empty());
    assert!(store.free_bytes().unwrap() > 0);
}

async fn ranges(store: &Blobs) {
    let content = bytes(1000);
    put(store, &key(80), &content).await.unwrap();
    let open = store.open(&key(80), 1000).await.unwrap();
    let whole = Source::File { file: open.file, offset: 0, length: 1000 };
    for (start, end) in [(0, 1), (999, 1000), (10, 500), (0, 1000)] {
        let Source::File { file, offset, length } = whole.slice(start..end) else { unreachable!() };
        let read = read_chunk(&file, offset, length).await.unwrap();
        assert_eq!(&read[..], &content[start as usize..end as usize]);
    }
}

async fn links(store: &Blobs) {
    let folder = tempfile_folder();
    let written = put(store, &key(90), b"linked").await.unwrap();
    let copy = folder.join("copy");
    store.link_to(&key(90), &copy).await.unwrap();
    store.delete(&key(90)).await.unwrap();
    assert_eq!(std::fs::read(&copy).unwrap(), b"linked");
    store.link_from(&key(91), &copy).await.unwrap();
    assert_eq!(get(store, &key(91), 6).await.unwrap(), b"linked");
    assert_eq!(store.open(&key(91), 6).await.unwrap().mtime_ns, written.mtime_ns);
    std::fs::remove_dir_all(&folder).unwrap();
}

fn tempfile_folder() -> std::path::PathBuf {
    static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    let n = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let folder = std::env::temp_dir().join(format!("blobs-conformance-{}-{n}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    folder
}
