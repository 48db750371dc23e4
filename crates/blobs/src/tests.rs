use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use bytes::Bytes;
use oci::{Algorithm, Hasher};
use rustix::io::Errno;

use crate::conformance::{self, bytes, get, key, put};
use crate::{Blobs, Damage, Error, Faults, Fs, Key, PIECE};

struct Store {
    folder: tempfile::TempDir,
    blobs: Blobs,
    faults: Faults,
}

fn store() -> Store {
    let folder = tempfile::tempdir().unwrap();
    let faults = Faults::default();
    let blobs = Blobs::Fs(Fs::open_faulty(folder.path(), faults.clone()).unwrap());
    Store { folder, blobs, faults }
}

fn sha256() -> Vec<Hasher> {
    vec![Hasher::new(Algorithm::Sha256)]
}

impl Store {
    fn path(&self, key: &Key) -> std::path::PathBuf {
        self.folder.path().join(key.folder()).join(key.as_str())
    }
}

#[tokio::test]
async fn local_disk_conforms() {
    conformance::run(&store().blobs).await;
}

#[tokio::test]
async fn modes_are_private() {
    let store = store();
    put(&store.blobs, &key(1), b"x").await.unwrap();
    let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    let path = store.path(&key(1));
    assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
    // Opening again finds its folders.
    Blobs::open_fs(store.folder.path()).unwrap();
    assert!(Blobs::open_fs(&store.folder.path().join("absent")).is_err());
}

/// Security case O-10: what is not the recorded file is neither read nor written, and nothing hangs.
#[tokio::test]
async fn o10_replaced_files_are_refused() {
    let store = store();
    let outside = store.folder.path().join("outside");
    fs::write(&outside, b"12345").unwrap();
    for (n, replace) in [
        (|path| fs::create_dir(path)) as fn(&std::path::Path) -> std::io::Result<()>,
        |path| symlink(path.parent().unwrap().parent().unwrap().join("outside"), path),
        |path| Ok(rustix::fs::mkfifoat(rustix::fs::CWD, path, rustix::fs::Mode::from_raw_mode(0o600))?),
    ]
    .into_iter()
    .enumerate()
    {
        let key = key(n as u64);
        replace(&store.path(&key)).unwrap();
        for offset in [0, 5] {
            assert!(
                matches!(
                    store.blobs.writer(&key, offset, sha256()).await,
                    Err(Error::Damaged { damage: Damage::NotAFile, .. })
                ),
                "{n}"
            );
        }
        let opened = store.blobs.open(&key, 5).await;
        assert!(matches!(opened, Err(Error::Damaged { damage: Damage::NotAFile, .. })), "{n}");
        assert!(store.blobs.hash(&key, &[]).await.is_err());
        assert!(store.blobs.list_prefix(n as u8).await.unwrap()[0].key.is_none());
    }
    assert_eq!(fs::read(&outside).unwrap(), b"12345");
    assert_eq!(store.blobs.strays().await.unwrap(), ["outside"]);

    put(&store.blobs, &key(9), b"12345").await.unwrap();
    fs::write(store.path(&key(9)), b"1234").unwrap();
    assert!(matches!(
        store.blobs.open(&key(9), 5).await,
        Err(Error::Damaged { damage: Damage::Size { expected: 5, actual: 4 }, .. })
    ));
}

/// Security case O-04: after a failed sync nothing is acknowledged and nothing is left to be acknowledged later.
#[tokio::test]
async fn o04_a_failed_sync_discards_the_file() {
    let store = store();
    for op in ["fdatasync", "fsync"] {
        store.faults.fail_op(op, Errno::IO);
        let failed = put(&store.blobs, &key(1), b"x").await;
        assert!(matches!(failed, Err(Error::Unsynced { op: failing, .. }) if failing == op));
        store.faults.clear();
        assert!(matches!(store.blobs.open(&key(1), 1).await, Err(Error::NotFound { .. })));
        assert!(matches!(store.blobs.writer(&key(1), 1, sha256()).await, Err(Error::NotFound { .. })));
    }
}

#[tokio::test]
async fn a_failed_write_keeps_what_came_before() {
    for (errno, full, read_only) in [
        (Errno::NOSPC, true, false),
        (Errno::DQUOT, true, false),
        (Errno::ROFS, false, true),
        (Errno::IO, false, false),
    ] {
        let store = store();
        let content = bytes(4 * PIECE);
        let mut writer = store.blobs.writer(&key(1), 0, sha256()).await.unwrap();
        writer.write(Bytes::copy_from_slice(&content[..2 * PIECE])).await.unwrap();
        writer.flush().await.unwrap();
        store.faults.fail_op("pwrite", errno);
        let error = match writer.write(Bytes::copy_from_slice(&content[2 * PIECE..])).await {
            Err(error) => error,
            Ok(()) => writer.flush().await.unwrap_err(),
        };
        assert_eq!(matches!(error, Error::Full { .. }), full);
        assert_eq!(matches!(error, Error::ReadOnly { .. }), read_only);
        store.faults.clear();
        // Once failed, it takes nothing more in and never finishes.
        assert!(writer.flush().await.is_err());
        let written = writer.keep().await.unwrap();
        assert_eq!(written.size, 2 * PIECE as u64);

        let mut writer = store.blobs.writer(&key(1), written.size, written.hashers).await.unwrap();
        writer.write(Bytes::copy_from_slice(&content[2 * PIECE..])).await.unwrap();
        let hashers = writer.finish().await.unwrap().hashers;
        assert_eq!(hashers[0].clone().finish(), Hasher::digest(Algorithm::Sha256, &content));
        assert_eq!(get(&store.blobs, &key(1), content.len() as u64).await.unwrap(), content);
    }
}

#[tokio::test]
async fn finish_after_a_failed_write_fails() {
    let store = store();
    let mut writer = store.blobs.writer(&key(1), 0, sha256()).await.unwrap();
    store.faults.fail_op("pwrite", Errno::NOSPC);
    let _ = writer.write(bytes(PIECE).into()).await;
    let _ = writer.flush().await;
    store.faults.clear();
    assert!(writer.finish().await.is_err());
}

/// Security case O-05: whichever call fails, a push either fails or is complete, and the next one succeeds.
#[tokio::test]
async fn o05_any_call_may_fail() {
    let content = bytes(2 * PIECE + 5);
    let digest = Hasher::digest(Algorithm::Sha256, &content);
    for errno in [Errno::IO, Errno::NOSPC, Errno::MFILE, Errno::ROFS] {
        for n in 1.. {
            let store = store();
            let before = store.faults.calls();
            store.faults.fail_at(n, errno);
            let outcome = put(&store.blobs, &key(1), &content).await;
            let reached = store.faults.calls() - before >= n;
            assert_eq!(outcome.is_err(), reached, "{errno} at call {n}");
            if !reached {
                break;
            }
            store.faults.clear();
            let again = put(&store.blobs, &key(1), &content).await.unwrap();
            assert_eq!(again.hashers[0].clone().finish(), digest);
            assert_eq!(store.blobs.hash(&key(1), &[Algorithm::Sha256]).await.unwrap().1, std::slice::from_ref(&digest));
        }
    }
}

#[tokio::test]
async fn links_are_copies_across_devices() {
    let store = store();
    let written = put(&store.blobs, &key(1), b"x").await.unwrap();
    let destination = store.folder.path().join("copy");
    store.faults.fail_op("link", Errno::XDEV);
    store.blobs.link_to(&key(1), &destination).await.unwrap();
    let metadata = fs::metadata(&destination).unwrap();
    assert_eq!(crate::fs::mtime_ns(&metadata), written.mtime_ns);
    assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
    // Never over something else.
    assert!(store.blobs.link_to(&key(1), &destination).await.is_err());
    assert!(destination.exists());
    store.faults.fail_op("link", Errno::NOSPC);
    let other = store.folder.path().join("other");
    assert!(matches!(store.blobs.link_to(&key(1), &other).await, Err(Error::Full { .. })));
}
