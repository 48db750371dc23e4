//! What the data directory keeps for itself on a disk that others fill as well.
//!
//! Two things, so that a full disk can be left again by the registry's own means. Pushes are refused while there is still
//! some room (`storage.reserve`), which rows of deletions, collections and accounts then use. Against everybody else who
//! writes to the disk there is a file of allocated space, `reserve` in the data directory, that is given up piece by piece
//! before a commit that would not fit, and taken again when there is room. Both decisions are made here and in the store,
//! for all operations alike.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use meta::MakeRoom;
use rustix::fs::{FallocateFlags, OFlags, StatVfs, fallocate, statvfs};

use crate::config::Config;
use crate::data_dir::names;

/// The file takes this part of `storage.reserve`: 16 MiB of 64 MiB.
const PART: u64 = 4;
/// Never more than this part of the file system, as for `storage.reserve` itself.
const PART_OF_DISK: u64 = 20;

/// The space of one data directory. Clones are the same; all state is on the disk.
#[derive(Clone, Debug)]
pub struct Space {
    root: PathBuf,
    /// The length of the file when it is whole.
    whole: u64,
    /// The file stays as it is.
    untouched: bool,
}

impl Space {
    /// The space that the configuration asks for.
    pub fn of(config: &Config) -> Self {
        Self { untouched: config.is_read_only(), ..Self::new(&config.data_dir, config.storage.reserve.0) }
    }

    fn new(root: &Path, reserve: u64) -> Self {
        let disk = statvfs(root).map_or(0, |disk| disk.f_blocks.saturating_mul(disk.f_frsize));
        Self { root: root.to_owned(), whole: (reserve / PART).min(disk / PART_OF_DISK), untouched: false }
    }

    /// Below so many free bytes a commit may not fit.
    fn tight(&self) -> u64 {
        self.whole / 2
    }

    /// Gives up as much of the file as makes a commit fit. Whether the disk is all but full. Costs one system call on a
    /// disk with room.
    pub fn make_room(&self) -> bool {
        if self.untouched {
            return false;
        }
        let Ok(free) = statvfs(&self.root).map(free) else { return false };
        let Some(wanted) = self.tight().checked_sub(free).filter(|wanted| *wanted > 0) else { return false };
        match self.shrink(wanted) {
            Ok(0) => {}
            Ok(given) => tracing::warn!(given, free, "the disk is full: gave up reserved space"),
            Err(error) => tracing::warn!(%error, "the disk is full, and reserved space could not be given up"),
        }
        true
    }

    fn shrink(&self, wanted: u64) -> io::Result<u64> {
        let file = match self.options().open(self.path()) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
            Err(error) => return Err(error),
        };
        let length = plain_length(&file)?;
        let rest = length.saturating_sub(wanted);
        if rest < length {
            file.set_len(rest)?;
        }
        Ok(length - rest)
    }

    /// Takes what is missing of the file, as far as the disk has room beyond that. The length that it has.
    ///
    /// # Errors
    /// What the system says; a file system that cannot allocate is none.
    pub fn take(&self) -> io::Result<u64> {
        self.take_but(self.tight())
    }

    /// The same, to the last byte of the disk: when the database is closed, what its log took is kept for the next start.
    ///
    /// # Errors
    /// As [`Space::take`].
    pub fn take_all(&self) -> io::Result<u64> {
        self.take_but(0)
    }

    fn take_but(&self, left: u64) -> io::Result<u64> {
        if self.untouched {
            return Ok(0);
        }
        if self.whole == 0 {
            return crate::data_dir::remove(&self.path()).map(|()| 0).map_err(io::Error::other);
        }
        let file = self.options().create(true).open(self.path())?;
        let length = plain_length(&file)?;
        if length > self.whole {
            file.set_len(self.whole)?;
        }
        let room = free(statvfs(&self.root)?).saturating_sub(left);
        let more = self.whole.saturating_sub(length).min(room);
        if more == 0 {
            return Ok(length.min(self.whole));
        }
        match fallocate(&file, FallocateFlags::empty(), length, more) {
            Ok(()) => Ok(length + more),
            // Without allocation, and where the room was gone in this moment, there is what there was.
            Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSPC) => {
                file.set_len(length)?;
                Ok(length)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// For the database: called before each commit.
    pub fn hook(&self) -> MakeRoom {
        let space = self.clone();
        MakeRoom(Arc::new(move || space.make_room()))
    }

    fn path(&self) -> PathBuf {
        self.root.join(names::RESERVE)
    }

    fn options(&self) -> OpenOptions {
        let mut options = OpenOptions::new();
        let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits();
        options.write(true).mode(0o600).custom_flags(i32::try_from(flags).unwrap_or_default());
        options
    }
}

fn free(disk: StatVfs) -> u64 {
    disk.f_bavail.saturating_mul(disk.f_frsize)
}

fn plain_length(file: &File) -> io::Result<u64> {
    let metadata = file.metadata()?;
    if metadata.is_file() { Ok(metadata.len()) } else { Err(io::Error::other("it is not a plain file")) }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    #[test]
    fn the_file_is_allocated_given_up_and_taken_again() {
        let dir = tempfile::tempdir().unwrap();
        let space = Space::new(dir.path(), 4 << 20);
        assert_eq!(space.whole, 1 << 20);
        assert_eq!(space.take().unwrap(), 1 << 20);
        let blocks = || std::fs::metadata(dir.path().join("reserve")).unwrap().blocks() * 512;
        assert!(blocks() >= 1 << 20);
        assert!(!space.make_room(), "this disk has room");
        assert_eq!(space.shrink(1 << 18).unwrap(), 1 << 18);
        assert!(blocks() < 1 << 20);
        assert_eq!(space.take().unwrap(), 1 << 20);
        assert_eq!(space.shrink(1 << 30).unwrap(), 1 << 20);
        assert_eq!(Space::new(dir.path(), 0).take().unwrap(), 0, "switched off");
        assert!(!dir.path().join("reserve").exists());
    }

    #[test]
    fn a_link_in_its_place_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let other = dir.path().join("other");
        std::fs::write(&other, "precious").unwrap();
        std::os::unix::fs::symlink(&other, dir.path().join("reserve")).unwrap();
        let space = Space::new(dir.path(), 4 << 20);
        assert!(space.take().is_err() && space.shrink(1).is_err());
        assert_eq!(std::fs::read_to_string(other).unwrap(), "precious");
    }
}
