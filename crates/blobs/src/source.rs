//! Bytes to be served: in memory, or a range of an open file.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use crate::Error;
use crate::lane::Lane;

/// The most that [`read_chunk`] reads at once.
pub const READ_MAX: u64 = 1 << 20;

/// A file open for reading. Clones are the same; its position is never used.
#[derive(Clone, Debug)]
pub struct ReadFile {
    file: Arc<File>,
    lane: Lane,
}

impl ReadFile {
    pub(crate) fn new(file: File, lane: Lane) -> Self {
        Self { file: Arc::new(file), lane }
    }

    /// The file itself.
    pub fn file(&self) -> &File {
        &self.file
    }
}

/// A file of no store.
impl From<File> for ReadFile {
    fn from(file: File) -> Self {
        Self::new(file, Lane::default())
    }
}

/// Where the bytes of an answer come from.
#[derive(Clone, Debug)]
pub enum Source {
    /// In memory.
    Inline(Bytes),
    /// `length` bytes of an open file from `offset` on.
    File {
        /// The file.
        file: ReadFile,
        /// Where the bytes begin.
        offset: u64,
        /// How many there are.
        length: u64,
    },
}

impl Source {
    /// How many bytes it has.
    pub fn length(&self) -> u64 {
        match self {
            Self::Inline(bytes) => bytes.len() as u64,
            Self::File { length, .. } => *length,
        }
    }

    /// The bytes of `range`, counted from the start of this source; what lies beyond its end is left out.
    pub fn slice(&self, range: Range<u64>) -> Self {
        let end = range.end.min(self.length());
        let start = range.start.min(end);
        match self {
            // Both fit in a usize, for they are at most the length of something in memory.
            Self::Inline(bytes) => Self::Inline(bytes.slice(start as usize..end as usize)),
            Self::File { file, offset, .. } => {
                Self::File { file: file.clone(), offset: offset + start, length: end - start }
            }
        }
    }
}

/// Reads `length` bytes (at most [`READ_MAX`]) at `offset`, on the blocking pool.
///
/// `UnexpectedEof` when the file has become shorter: the answer under way must then be cut off, not padded. `TimedOut` when
/// the disk is silent.
pub async fn read_chunk(file: &ReadFile, offset: u64, length: u64) -> io::Result<Bytes> {
    let on_thread = file.clone();
    let read = move || Ok(read_at(&on_thread.file, offset, length.min(READ_MAX)));
    file.lane.run("pread", read).await.unwrap_or_else(|error| match error {
        Error::Silent { .. } => Err(io::Error::new(io::ErrorKind::TimedOut, error)),
        other => Err(io::Error::other(other)),
    })
}

pub(crate) fn read_at(file: &File, offset: u64, length: u64) -> io::Result<Bytes> {
    let mut bytes = Vec::with_capacity(length as usize);
    while (bytes.len() as u64) < length {
        let position = offset + bytes.len() as u64;
        match rustix::io::pread(file, rustix::buffer::spare_capacity(&mut bytes), position) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
        }
    }
    // An allocator may have given more than was asked for.
    bytes.truncate(length as usize);
    Ok(bytes.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn slices_and_reads() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f");
        std::fs::write(&path, b"0123456789").unwrap();
        let file = ReadFile::from(File::open(&path).unwrap());
        let whole = Source::File { file: file.clone(), offset: 0, length: 10 };
        let Source::File { offset, length, .. } = whole.slice(2..8).slice(1..100) else { panic!() };
        assert_eq!((offset, length), (3, 5));
        assert_eq!(&read_chunk(&file, offset, length).await.unwrap()[..], b"34567");
        assert_eq!(read_chunk(&file, 8, 3).await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        assert!(read_chunk(&file, 20, 0).await.unwrap().is_empty());
        let Source::Inline(bytes) = Source::Inline(Bytes::from_static(b"abc")).slice(1..9) else { panic!() };
        assert_eq!(&bytes[..], b"bc");
        assert_eq!(whole.slice(12..15).length(), 0);
    }
}
