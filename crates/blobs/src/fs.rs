//! The store on the local disk: `root/ab/<key>`, where `ab` are the key's first two digits.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use oci::{Algorithm, Digest, Hasher, Timestamp};
use rustix::fs::{Access, Advice, OFlags, StatVfs, StatVfsMountFlags};
use rustix::io::Errno;

use crate::faults::Faults;
use crate::lane::Lane;
use crate::room::Room;
use crate::source::read_at;
use crate::{Damage, Entry, Error, Key, OpenFile, READ_MAX, ReadFile, Writer};

/// A store on the local disk. Clones are the same store.
#[derive(Clone, Debug)]
pub struct Fs {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    root: PathBuf,
    faults: Faults,
    room: Room,
    lane: Lane,
    beside: OnceLock<Beside>,
}

/// Another disk that a push fills.
#[derive(Debug)]
struct Beside {
    path: PathBuf,
    keep: u64,
}

impl Fs {
    /// Opens the store in `root`, which must exist. All 256 folders are made and synced here, so that no write has to
    /// ask whether its folder's name is on the disk already.
    pub fn open(root: &Path) -> Result<Self, Error> {
        Self::open_with(root, Faults::default())
    }

    /// As [`Fs::open`], with system calls that can be made to fail.
    #[cfg(any(test, feature = "conformance"))]
    pub fn open_faulty(root: &Path, faults: Faults) -> Result<Self, Error> {
        Self::open_with(root, faults)
    }

    fn open_with(root: &Path, faults: Faults) -> Result<Self, Error> {
        for prefix in 0..=u8::MAX {
            let folder = root.join(format!("{prefix:02x}"));
            match DirBuilder::new().mode(0o700).create(&folder) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && folder.is_dir() => {}
                Err(error) => return Err(Error::io("mkdir", &folder, error)),
            }
        }
        sync_directory(root)?;
        let (room, lane) = (Room::default(), Lane::default());
        Ok(Self { inner: Arc::new(Inner { root: root.to_owned(), faults, room, lane, beside: OnceLock::new() }) })
    }

    pub(crate) fn path(&self, key: &Key) -> PathBuf {
        self.inner.root.join(key.folder()).join(key.as_str())
    }

    /// Whether the next system call `op` on `path` may be made, or fails in its place.
    pub(crate) fn check(&self, op: &'static str, path: &Path) -> Result<(), Error> {
        self.inner.faults.check(op).map_err(|error| Error::io(op, path, error))
    }

    pub(crate) async fn writer(&self, key: &Key, offset: u64, hashers: Vec<Hasher>) -> Result<Writer, Error> {
        let (fs, key) = (self.clone(), key.clone());
        self.inner.lane.run("open", move || Writer::open(fs, &key, offset, hashers)).await
    }

    pub(crate) async fn open_file(&self, key: &Key, size: Option<u64>) -> Result<OpenFile, Error> {
        let (fs, key) = (self.clone(), key.clone());
        self.inner.lane.run("open", move || fs.open_now(&key, size)).await
    }

    fn open_now(&self, key: &Key, expected: Option<u64>) -> Result<OpenFile, Error> {
        let path = self.path(key);
        self.check("open", &path)?;
        // O_NONBLOCK: opening a pipe must not wait for its other end.
        let file = match OpenOptions::new().read(true).custom_flags(flags()).open(&path) {
            Ok(file) => file,
            Err(error) => return Err(open_error(key, &path, error)),
        };
        let metadata = file.metadata().map_err(|error| Error::io("fstat", &path, error))?;
        if !metadata.is_file() {
            return Err(Error::Damaged { path, damage: Damage::NotAFile });
        }
        let actual = metadata.len();
        if let Some(expected) = expected.filter(|expected| *expected != actual) {
            return Err(Error::Damaged { path, damage: Damage::Size { expected, actual } });
        }
        let file = ReadFile::new(file, self.inner.lane.clone());
        Ok(OpenFile { file, size: actual, mtime_ns: mtime_ns(&metadata) })
    }

    pub(crate) async fn hash(&self, key: &Key, algorithms: &[Algorithm]) -> Result<(u64, Vec<Digest>), Error> {
        let open = self.open_file(key, None).await?;
        self.hash_open(key, open, algorithms).await
    }

    pub(crate) async fn hash_on_disk(
        &self,
        key: &Key,
        size: u64,
        algorithms: &[Algorithm],
    ) -> Result<(OpenFile, Vec<Digest>), Error> {
        let open = self.open_file(key, Some(size)).await?;
        let file = open.file.clone();
        self.inner
            .lane
            .run("fadvise", move || {
                forget_cached(file.file());
                Ok(())
            })
            .await?;
        let (_, digests) = self.hash_open(key, open.clone(), algorithms).await?;
        Ok((open, digests))
    }

    async fn hash_open(
        &self,
        key: &Key,
        open: OpenFile,
        algorithms: &[Algorithm],
    ) -> Result<(u64, Vec<Digest>), Error> {
        let (fs, OpenFile { file, size, .. }) = (self.clone(), open);
        let mut hashers: Vec<Hasher> = algorithms.iter().copied().map(Hasher::new).collect();
        let (path, mut offset) = (fs.path(key), 0);
        // A call for each piece: a large file takes long on a disk that is well.
        while offset < size {
            let (fs, file, path) = (fs.clone(), file.clone(), path.clone());
            let length = (size - offset).min(READ_MAX);
            hashers = self
                .inner
                .lane
                .run("pread", move || {
                    fs.check("pread", &path)?;
                    let bytes =
                        read_at(file.file(), offset, length).map_err(|error| Error::io("pread", &path, error))?;
                    hashers.iter_mut().for_each(|hasher| hasher.update(&bytes));
                    Ok(hashers)
                })
                .await?;
            offset += length;
        }
        Ok((size, hashers.into_iter().map(Hasher::finish).collect()))
    }

    pub(crate) async fn delete(&self, key: &Key) -> Result<(), Error> {
        let (fs, path) = (self.clone(), self.path(key));
        self.inner.lane.run("unlink", move || fs.unlink(&path)).await
    }

    pub(crate) fn unlink(&self, path: &Path) -> Result<(), Error> {
        self.check("unlink", path)?;
        match std::fs::remove_file(path) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            // Not made by the store. One with something in it is left to whoever made it.
            Err(error) if error.kind() == io::ErrorKind::IsADirectory => {
                std::fs::remove_dir(path).map_err(|error| Error::io("rmdir", path, error))
            }
            Err(error) => Err(Error::io("unlink", path, error)),
        }
    }

    pub(crate) async fn list_prefix(&self, prefix: u8) -> Result<Vec<Entry>, Error> {
        let (fs, folder) = (self.clone(), format!("{prefix:02x}"));
        blocking(move || {
            let path = fs.inner.root.join(&folder);
            fs.check("readdir", &path)?;
            let failed = |error| Error::io("readdir", &path, error);
            let mut entries = Vec::new();
            for entry in std::fs::read_dir(&path).map_err(failed)? {
                let entry = entry.map_err(failed)?;
                let metadata = match entry.metadata() {
                    Ok(metadata) => metadata,
                    // Removed since the folder was read.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                    Err(error) => return Err(Error::io("lstat", &entry.path(), error)),
                };
                let file = entry.file_name().to_string_lossy().into_owned();
                let key = Key::parse(&file).filter(|key| key.folder() == folder && metadata.is_file());
                let mtime = Timestamp(mtime_ns(&metadata) / 1_000_000);
                entries.push(Entry { key, name: format!("{folder}/{file}"), size: metadata.len(), mtime });
            }
            entries.sort_by(|a, b| a.name.cmp(&b.name));
            Ok(entries)
        })
        .await
    }

    pub(crate) async fn strays(&self) -> Result<Vec<String>, Error> {
        let fs = self.clone();
        blocking(move || {
            let root = &fs.inner.root;
            fs.check("readdir", root)?;
            let failed = |error| Error::io("readdir", root, error);
            let mut names = Vec::new();
            for entry in std::fs::read_dir(root).map_err(failed)? {
                let name = entry.map_err(failed)?.file_name().to_string_lossy().into_owned();
                if !(name.len() == 2 && name.bytes().all(|c| c.is_ascii_digit() || matches!(c, b'a'..=b'f'))) {
                    names.push(name);
                }
            }
            names.sort();
            Ok(names)
        })
        .await
    }

    pub(crate) async fn link_to(&self, key: &Key, destination: &Path) -> Result<(), Error> {
        let (fs, key, destination) = (self.clone(), key.clone(), destination.to_owned());
        blocking(move || {
            let source = fs.open_now(&key, None)?;
            fs.link_or_copy(&fs.path(&key), source.file.file(), &destination)
        })
        .await
    }

    pub(crate) async fn link_from(&self, key: &Key, source: &Path) -> Result<(), Error> {
        let (fs, key, source) = (self.clone(), key.clone(), source.to_owned());
        blocking(move || {
            let file = OpenOptions::new().read(true).custom_flags(flags()).open(&source);
            let file = file.map_err(|error| Error::io("open", &source, error))?;
            if !file.metadata().is_ok_and(|metadata| metadata.is_file()) {
                return Err(Error::Damaged { path: source, damage: Damage::NotAFile });
            }
            let destination = fs.path(&key);
            fs.link_or_copy(&source, &file, &destination)?;
            destination.parent().map_or(Ok(()), sync_directory)
        })
        .await
    }

    fn link_or_copy(&self, from: &Path, file: &File, to: &Path) -> Result<(), Error> {
        match self.inner.faults.check("link").and_then(|()| std::fs::hard_link(from, to)) {
            Ok(()) => return Ok(()),
            Err(error) => match error.raw_os_error().map(Errno::from_raw_os_error) {
                Some(Errno::XDEV | Errno::PERM | Errno::MLINK | Errno::OPNOTSUPP | Errno::NOSYS) => {}
                _ => return Err(Error::io("link", to, error)),
            },
        }
        copy(file, to).map_err(|error| Error::io("copy", to, error))
    }

    pub(crate) fn keep_free(&self, bytes: u64, beside: &Path) -> Result<(), Error> {
        let share = |disk: StatVfs| bytes.min(disk.f_blocks.saturating_mul(disk.f_frsize) / 20);
        let device = |path: &Path| std::fs::metadata(path).map(|found| found.dev());
        let failed = |error| Error::io("stat", beside, error);
        if device(&self.inner.root).map_err(failed)? != device(beside).map_err(failed)? {
            let other = Beside { path: beside.to_owned(), keep: share(statvfs(beside)?) };
            // Set once, when the store is opened.
            let _ = self.inner.beside.set(other);
        }
        self.inner.room.keep(share(self.statvfs()?));
        Ok(())
    }

    /// What writers may count on: nothing, where the other disk has too little left.
    fn room(&self) -> Result<u64, Error> {
        if let Some(Beside { path, keep }) = self.inner.beside.get()
            && free(statvfs(path)?) < *keep
        {
            return Ok(0);
        }
        self.free_bytes()
    }

    /// Whether so many bytes may be written at `path`.
    pub(crate) fn take_room(&self, path: &Path, bytes: u64) -> Result<(), Error> {
        self.inner.room.take(path, bytes, || self.room())
    }

    /// Looks at the disk on another thread: one that is silent must not hold who asks.
    pub(crate) async fn admit(&self) -> Result<(), Error> {
        if self.inner.room.has_plenty() {
            return Ok(());
        }
        let fs = self.clone();
        self.inner.lane.run("statvfs", move || fs.take_room(&fs.inner.root, 0)).await
    }

    pub(crate) async fn ready(&self) -> Result<(), Error> {
        let fs = self.clone();
        let look = move || {
            let root = &fs.inner.root;
            let disk = fs.statvfs()?;
            let read_only = disk.f_flag.contains(StatVfsMountFlags::RDONLY);
            let wrong = |errno: Errno| Error::io("access", root, errno.into());
            if read_only {
                return Err(wrong(Errno::ROFS));
            }
            rustix::fs::access(root, Access::WRITE_OK | Access::EXEC_OK).map_err(wrong)?;
            // Without inodes no file comes to be; file systems that make them as needed count none.
            if disk.f_files > 0 && disk.f_favail == 0 {
                return Err(wrong(Errno::NOSPC));
            }
            fs.take_room(root, 0)
        };
        self.inner.lane.run("access", look).await
    }

    pub(crate) fn set_timeout(&self, timeout: Duration) {
        self.inner.lane.set_timeout(timeout);
    }

    pub(crate) fn lane(&self) -> &Lane {
        &self.inner.lane
    }

    pub(crate) fn free_bytes(&self) -> Result<u64, Error> {
        self.statvfs().map(free)
    }

    fn statvfs(&self) -> Result<StatVfs, Error> {
        statvfs(&self.inner.root)
    }
}

fn statvfs(path: &Path) -> Result<StatVfs, Error> {
    rustix::fs::statvfs(path).map_err(|error| Error::io("statvfs", path, error.into()))
}

fn free(disk: StatVfs) -> u64 {
    disk.f_bavail.saturating_mul(disk.f_frsize)
}

/// A synced copy with the modification time of the original, by which a reader knows that it need not hash it.
fn copy(from: &File, to: &Path) -> io::Result<()> {
    let mut target = OpenOptions::new().write(true).create_new(true).mode(0o600).open(to)?;
    let copied = io::copy(&mut &*from, &mut target)
        .and_then(|_| target.set_modified(from.metadata()?.modified()?))
        .and_then(|()| sync(&target));
    copied.inspect_err(|_| {
        let _ = std::fs::remove_file(to);
    })
}

/// Syncs a folder, so that the names in it survive a loss of power.
pub fn sync_directory(path: &Path) -> Result<(), Error> {
    if cfg!(feature = "no-sync") {
        return Ok(());
    }
    File::open(path).and_then(|folder| folder.sync_all()).map_err(|error| Error::io("fsync", path, error))
}

/// `fdatasync`: the bytes and the length, not the times.
pub(crate) fn sync(file: &File) -> io::Result<()> {
    if cfg!(feature = "no-sync") { Ok(()) } else { file.sync_data() }
}

/// Lets the kernel forget what it has of the file in memory, so that the next read asks the disk. Pages that are not written
/// yet cannot be forgotten, hence the sync. No error matters here: the read tells what is there.
fn forget_cached(file: &File) {
    let _ = sync(file);
    let _ = rustix::fs::fadvise(file, 0, None, Advice::DontNeed);
}

pub(crate) fn mtime_ns(metadata: &std::fs::Metadata) -> i64 {
    metadata.mtime().saturating_mul(1_000_000_000).saturating_add(metadata.mtime_nsec())
}

/// How files are opened. std adds `O_CLOEXEC`.
pub(crate) fn flags() -> i32 {
    (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits() as i32
}

/// The error of opening the file of `key`.
pub(crate) fn open_error(key: &Key, path: &Path, error: io::Error) -> Error {
    match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::NOENT) => Error::NotFound { key: key.clone() },
        // A symbolic link; a socket or a device without driver, or a pipe without reader; a folder.
        Some(Errno::LOOP | Errno::NXIO | Errno::ISDIR) => {
            Error::Damaged { path: path.to_owned(), damage: Damage::NotAFile }
        }
        _ => Error::io("open", path, error),
    }
}

/// Runs work that takes as long as it takes on the pool made for it: nobody waits for it but who keeps the store in order.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(work).await.unwrap_or(Err(Error::Stopped))
}
