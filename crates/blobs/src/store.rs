//! The store as its callers see it: one type over the kinds of stores.

use std::path::Path;
use std::time::Duration;

use oci::{Algorithm, Digest, Hasher, Timestamp};

use crate::{Error, Fs, Key, ReadFile, Writer};

/// Where the bytes are kept. Clones are the same store.
#[derive(Clone, Debug)]
pub enum Blobs {
    /// The local disk.
    Fs(Fs),
}

/// A file open for reading, known to be a plain file of the recorded length.
#[derive(Clone, Debug)]
pub struct OpenFile {
    /// The file.
    pub file: ReadFile,
    /// Its length in bytes.
    pub size: u64,
    /// When it was last written, in nanoseconds since the epoch. If that is not what was recorded, hash it first.
    pub mtime_ns: i64,
}

/// Something that lies in the store.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Its key; `None` when its name is not one, or it lies in the wrong folder, or is not a plain file.
    pub key: Option<Key>,
    /// Its path relative to the store.
    pub name: String,
    /// Its length in bytes.
    pub size: u64,
    /// When it was last written.
    pub mtime: Timestamp,
}

impl Blobs {
    /// Opens the store in the folder `root`, which must exist; creates and syncs the folders it needs.
    pub fn open_fs(root: &Path) -> Result<Self, Error> {
        Fs::open(root).map(Self::Fs)
    }

    /// Opens the file of `key` for writing from `offset` on.
    ///
    /// With an offset of 0 the file may be absent, and is created; otherwise it must have at least that many bytes,
    /// and is cut to them: what lies beyond was never acknowledged. `hashers` have seen everything before `offset`.
    /// `NotFound` and `Damaged` mean that the upload cannot go on. One writer at a time, else `Busy`.
    pub async fn writer(&self, key: &Key, offset: u64, hashers: Vec<Hasher>) -> Result<Writer, Error> {
        match self {
            Self::Fs(fs) => fs.writer(key, offset, hashers).await,
        }
    }

    /// Opens the file of `key`, which must have `size` bytes. Never opens a pipe or a device, never follows a link.
    pub async fn open(&self, key: &Key, size: u64) -> Result<OpenFile, Error> {
        match self {
            Self::Fs(fs) => fs.open_file(key, Some(size)).await,
        }
    }

    /// As [`Blobs::open`], whatever its length.
    pub async fn open_any(&self, key: &Key) -> Result<OpenFile, Error> {
        match self {
            Self::Fs(fs) => fs.open_file(key, None).await,
        }
    }

    /// Reads the whole file: its length and its digest by each of `algorithms`.
    pub async fn hash(&self, key: &Key, algorithms: &[Algorithm]) -> Result<(u64, Vec<Digest>), Error> {
        match self {
            Self::Fs(fs) => fs.hash(key, algorithms).await,
        }
    }

    /// Opens the file as [`Blobs::open`] does and hashes what the disk holds of it, not what the kernel has in memory: bytes
    /// that were right when they were written are wrong on a disk that has changed them since.
    pub async fn hash_on_disk(
        &self,
        key: &Key,
        size: u64,
        algorithms: &[Algorithm],
    ) -> Result<(OpenFile, Vec<Digest>), Error> {
        match self {
            Self::Fs(fs) => fs.hash_on_disk(key, size, algorithms).await,
        }
    }

    /// Removes the file of `key`. That it is absent is no error. Not synced: after a loss of power it may be back.
    pub async fn delete(&self, key: &Key) -> Result<(), Error> {
        match self {
            Self::Fs(fs) => fs.delete(key).await,
        }
    }

    /// Everything in the folder `prefix` (0 to 255), sorted by name.
    pub async fn list_prefix(&self, prefix: u8) -> Result<Vec<Entry>, Error> {
        match self {
            Self::Fs(fs) => fs.list_prefix(prefix).await,
        }
    }

    /// The names beside the 256 folders, which the store did not make. Sorted.
    pub async fn strays(&self) -> Result<Vec<String>, Error> {
        match self {
            Self::Fs(fs) => fs.strays().await,
        }
    }

    /// Makes the file of `key` appear at `destination` too: a hard link, or a synced copy with the same modification
    /// time where a link is not possible. The folder of `destination` is not synced.
    pub async fn link_to(&self, key: &Key, destination: &Path) -> Result<(), Error> {
        match self {
            Self::Fs(fs) => fs.link_to(key, destination).await,
        }
    }

    /// The other direction of [`Blobs::link_to`]: makes the file at `source` the file of `key`, and syncs its name.
    pub async fn link_from(&self, key: &Key, source: &Path) -> Result<(), Error> {
        match self {
            Self::Fs(fs) => fs.link_from(key, source).await,
        }
    }

    /// From now on writers leave so many bytes of the disk free, at most a twentieth of it: beyond that they fail as on a
    /// full disk. 0 is no limit, which is what a store begins with. The same holds for the disk of `beside`, where that is
    /// another one: what a push writes there has to fit as well.
    pub fn keep_free(&self, bytes: u64, beside: &Path) -> Result<(), Error> {
        match self {
            Self::Fs(fs) => fs.keep_free(bytes, beside),
        }
    }

    /// [`Error::Full`] when writers would be refused. Cheap: looks at the disk once a second.
    pub async fn admit(&self) -> Result<(), Error> {
        match self {
            Self::Fs(fs) => fs.admit().await,
        }
    }

    /// Why nothing can be written at present, if so. Writes nothing.
    pub async fn ready(&self) -> Result<(), Error> {
        match self {
            Self::Fs(fs) => fs.ready().await,
        }
    }

    /// From now on a call that the disk does not answer within this time fails with [`Error::Silent`]. A minute unless set.
    pub fn set_timeout(&self, timeout: Duration) {
        match self {
            Self::Fs(fs) => fs.set_timeout(timeout),
        }
    }

    /// Bytes that can still be written by this process's user.
    pub fn free_bytes(&self) -> Result<u64, Error> {
        match self {
            Self::Fs(fs) => fs.free_bytes(),
        }
    }
}
