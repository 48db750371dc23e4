//! What a store can fail with.

use std::io;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use crate::Key;

/// Why a call failed. The variants say what a caller can do about it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No file has this key.
    #[error("no file has the key {key}")]
    NotFound {
        /// The key that was asked for.
        key: Key,
    },
    /// There is something under this key, but not the bytes that were recorded. It was not read, and must not be served.
    #[error("the file {} is damaged: {damage}", path.display())]
    Damaged {
        /// Where it lies.
        path: PathBuf,
        /// What is wrong with it.
        damage: Damage,
    },
    /// Another writer has this file open. The caller's lease on the upload has been lost, or not yet been given back.
    #[error("the file {} is being written by another request", path.display())]
    Busy {
        /// Where it lies.
        path: PathBuf,
    },
    /// No space, no quota or no inode is left, or a limit on the size of files was hit. Free some and try again.
    #[error("no space for {op} on {}", path.display())]
    Full {
        /// The system call.
        op: &'static str,
        /// What it was called on.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file system cannot be written to. Reads go on.
    #[error("the file system of {} is read-only", path.display())]
    ReadOnly {
        /// The system call.
        op: &'static str,
        /// What it was called on.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A sync failed. What of the file is on the disk is unknown and can never be known again (the kernel reports such
    /// an error once and forgets the pages), so the file was removed: its upload has to start anew.
    #[error("{op} of {} failed, so the upload was discarded", path.display())]
    Unsynced {
        /// The system call.
        op: &'static str,
        /// What it was called on.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Any other error of a system call.
    #[error("{op} of {} failed", path.display())]
    Io {
        /// The system call.
        op: &'static str,
        /// What it was called on.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The disk has not answered in time. What was begun may still come to its end.
    #[error("the disk of the blobs has not answered {op} in time")]
    Silent {
        /// The system call.
        op: &'static str,
    },
    /// The thread that worked on the file has panicked or the process is shutting down.
    #[error("the work on the store was cut off")]
    Stopped,
}

/// How a stored file differs from what was recorded of it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// A folder, a link, a pipe or a device lies in its place.
    #[error("it is not a plain file")]
    NotAFile,
    /// Truncated or extended.
    #[error("it has {actual} bytes instead of {expected}")]
    Size {
        /// Bytes as recorded.
        expected: u64,
        /// Bytes found.
        actual: u64,
    },
}

impl Error {
    /// The error of the system call `op` on `path`, sorted into what the caller can do about it.
    pub fn io(op: &'static str, path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.raw_os_error().map(Errno::from_raw_os_error) {
            Some(Errno::NOSPC | Errno::DQUOT | Errno::FBIG) => Self::Full { op, path, source },
            Some(Errno::ROFS) => Self::ReadOnly { op, path, source },
            _ => Self::Io { op, path, source },
        }
    }
}
