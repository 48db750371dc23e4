//! Writing one upload: frames are gathered into pieces, each of which is written and hashed on a blocking thread while
//! the next one is being gathered.

use std::fs::{File, OpenOptions, TryLockError};
use std::num::NonZeroU64;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::PathBuf;

use bytes::Bytes;
use oci::Hasher;
use rustix::fs::Advice;

use crate::fs::{Fs, flags, mtime_ns, open_error, sync};
use crate::lane::{Call, Lane};
use crate::{Damage, Error, Key};

/// Bytes of a piece. An upload holds two of them: the one being gathered and the one being written. A thread is held
/// only while there is something to write, so a slow client holds none.
pub const PIECE: usize = 256 << 10;

/// After this many bytes the kernel is told to begin writing them to the disk, so that the sync at the end does not
/// have everything left to do.
const WRITEBACK: u64 = 8 << 20;

/// An upload being written. Dropping it leaves the file as it is: the next writer cuts it to what was acknowledged.
pub struct Writer {
    buffer: Vec<u8>,
    offset: u64,
    lane: Lane,
    state: State,
}

/// What [`Writer::finish`] and [`Writer::keep`] leave on the disk.
pub struct Written {
    /// The length of the file in bytes.
    pub size: u64,
    /// When it was last written, in nanoseconds since the epoch.
    pub mtime_ns: i64,
    /// The hashes of everything up to `size`.
    pub hashers: Vec<Hasher>,
}

enum State {
    Idle(Box<Work>),
    Busy(Call<Piece>),
    /// The thread that held the work has panicked, or is held by a silent disk.
    Gone,
}

/// What the blocking thread needs, handed to and fro.
struct Work {
    fs: Fs,
    path: PathBuf,
    /// Locked: two writers of one file, of which one has lost its lease, would mix their bytes.
    file: File,
    hashers: Vec<Hasher>,
    /// Bytes in the file that `hashers` have seen.
    written: u64,
    hinted: u64,
    /// Bytes since the last sync.
    unsynced: u64,
    /// The name of the file may not be on the disk yet.
    new_name: bool,
    /// Something was changed since the last sync. An upload that only opens its file in order to be finished has
    /// nothing to sync: what came before `offset` was synced before it was acknowledged.
    dirty: bool,
    failed: bool,
}

struct Piece {
    work: Box<Work>,
    buffer: Vec<u8>,
    result: Result<(), Error>,
}

impl Writer {
    /// Blocks. See [`crate::Blobs::writer`].
    pub(crate) fn open(fs: Fs, key: &Key, offset: u64, hashers: Vec<Hasher>) -> Result<Self, Error> {
        let path = fs.path(key);
        fs.check("open", &path)?;
        let mut options = OpenOptions::new();
        options.write(true).custom_flags(flags()).mode(0o600);
        let opened = match offset {
            0 => match options.clone().create_new(true).open(&path) {
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => options.open(&path),
                opened => opened,
            },
            _ => options.open(&path),
        };
        let file = opened.map_err(|error| open_error(key, &path, error))?;
        let metadata = file.metadata().map_err(|error| Error::io("fstat", &path, error))?;
        if !metadata.is_file() {
            return Err(Error::Damaged { path, damage: Damage::NotAFile });
        }
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(Error::Busy { path }),
            Err(TryLockError::Error(error)) => return Err(Error::io("flock", &path, error)),
        }
        // Asked again, for another writer may just have finished.
        let actual = file.metadata().map_err(|error| Error::io("fstat", &path, error))?.len();
        if actual < offset {
            return Err(Error::Damaged { path, damage: Damage::Size { expected: offset, actual } });
        }
        let new_name = offset == 0;
        let (written, hinted, unsynced, lane) = (offset, offset, 0, fs.lane().clone());
        let dirty = new_name;
        let mut work = Work { fs, path, file, hashers, written, hinted, unsynced, new_name, dirty, failed: false };
        if actual > offset {
            work.cut()?;
        }
        Ok(Self { buffer: Vec::new(), offset, lane, state: State::Idle(Box::new(work)) })
    }

    /// Where the next byte goes: the end of everything taken in.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Takes in more bytes; waits while two pieces are full. After an error nothing more is taken in, and
    /// [`Writer::keep`] tells how far it came.
    pub async fn write(&mut self, mut bytes: Bytes) -> Result<(), Error> {
        while !bytes.is_empty() {
            if self.buffer.capacity() == 0 {
                self.buffer.reserve_exact(PIECE);
            }
            let part = bytes.split_to(bytes.len().min(PIECE - self.buffer.len()));
            self.buffer.extend_from_slice(&part);
            self.offset += part.len() as u64;
            if self.buffer.len() == PIECE {
                self.hand_over().await?;
            }
        }
        Ok(())
    }

    /// Waits until everything taken in is in the file (not yet on the disk).
    pub async fn flush(&mut self) -> Result<(), Error> {
        if !self.buffer.is_empty() {
            self.hand_over().await?;
        }
        self.settle().await.map(|_| ())
    }

    /// Flushes, then syncs the bytes, the length and, for a new file, its name.
    ///
    /// A failed sync removes the file ([`Error::Unsynced`]). A failed write leaves it: call [`Writer::flush`] first
    /// and, if that fails, [`Writer::keep`], in order to go on later.
    pub async fn finish(mut self) -> Result<Written, Error> {
        self.flush().await?;
        self.keep().await
    }

    /// Syncs what was written before the first failed write, and cuts the file to it. What was not flushed is lost.
    pub async fn keep(mut self) -> Result<Written, Error> {
        // An error of a write was reported when it came up, or is the reason for this call.
        let _ = self.settle().await;
        match std::mem::replace(&mut self.state, State::Gone) {
            State::Idle(work) => {
                self.lane.begin("fdatasync", work.unsynced, move || (*work).finish()).await?.wait().await?
            }
            _ => Err(Error::Stopped),
        }
    }

    /// Gives the full buffer to a blocking thread, once the one before it is written.
    async fn hand_over(&mut self) -> Result<(), Error> {
        let spare = self.settle().await?;
        let buffer = std::mem::replace(&mut self.buffer, spare.unwrap_or_default());
        match std::mem::replace(&mut self.state, State::Gone) {
            State::Idle(mut work) => {
                let piece = move || {
                    let result = work.piece(&buffer);
                    Piece { work, buffer, result }
                };
                self.state = State::Busy(self.lane.begin("pwrite", 0, piece).await?);
                Ok(())
            }
            _ => Err(Error::Stopped),
        }
    }

    /// Waits for the piece under way and gives its buffer back, emptied. Safe to be cancelled.
    async fn settle(&mut self) -> Result<Option<Vec<u8>>, Error> {
        let call = match &mut self.state {
            State::Busy(call) => call,
            State::Idle(work) if !work.failed => return Ok(None),
            _ => return Err(Error::Stopped),
        };
        match call.wait().await {
            Ok(Piece { work, mut buffer, result }) => {
                self.state = State::Idle(work);
                buffer.clear();
                result.map(|()| Some(buffer))
            }
            Err(error) => {
                self.state = State::Gone;
                Err(error)
            }
        }
    }
}

impl Work {
    /// Writes, then hashes: when the write fails, the hashes still say how far the good bytes go.
    fn piece(&mut self, bytes: &[u8]) -> Result<(), Error> {
        debug_assert!(!self.failed);
        self.dirty = true;
        let written = self.fs.check("pwrite", &self.path).and_then(|()| {
            self.fs.take_room(&self.path, bytes.len() as u64)?;
            let written = self.file.write_all_at(bytes, self.written);
            written.map_err(|error| Error::io("pwrite", &self.path, error))
        });
        if let Err(error) = written {
            self.failed = true;
            return Err(error);
        }
        self.hashers.iter_mut().for_each(|hasher| hasher.update(bytes));
        self.written += bytes.len() as u64;
        self.unsynced += bytes.len() as u64;
        if self.written - self.hinted >= WRITEBACK {
            // On Linux this begins to write dirty pages without waiting for them. It is a hint: no error matters.
            let _ = rustix::fs::fadvise(
                &self.file,
                self.hinted,
                NonZeroU64::new(self.written - self.hinted),
                Advice::DontNeed,
            );
            self.hinted = self.written;
        }
        Ok(())
    }

    fn cut(&mut self) -> Result<(), Error> {
        self.dirty = true;
        self.fs.check("ftruncate", &self.path)?;
        self.file.set_len(self.written).map_err(|error| Error::io("ftruncate", &self.path, error))
    }

    fn finish(mut self) -> Result<Written, Error> {
        if self.failed {
            self.cut()?;
        }
        if self.dirty
            && let Err(error) = self.sync()
        {
            // Whatever this removal does, the caller is told that the upload is gone.
            let _ = self.fs.unlink(&self.path);
            return Err(error);
        }
        let metadata = self.file.metadata().map_err(|error| Error::io("fstat", &self.path, error))?;
        Ok(Written { size: self.written, mtime_ns: mtime_ns(&metadata), hashers: self.hashers })
    }

    fn sync(&self) -> Result<(), Error> {
        let unsynced = |op, error| Error::Unsynced { op, path: self.path.clone(), source: error };
        let check = |op| match self.fs.check(op, &self.path) {
            Err(Error::Io { source, .. } | Error::Full { source, .. } | Error::ReadOnly { source, .. }) => {
                Err(unsynced(op, source))
            }
            _ => Ok(()),
        };
        check("fdatasync")?;
        sync(&self.file).map_err(|error| unsynced("fdatasync", error))?;
        if self.new_name && !cfg!(feature = "no-sync") {
            check("fsync")?;
            let folder = self.path.parent().map_or_else(|| Ok(()), |folder| File::open(folder)?.sync_all());
            folder.map_err(|error| unsynced("fsync", error))?;
        }
        Ok(())
    }
}
