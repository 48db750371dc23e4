//! Backup and restore.
//!
//! A backup is a folder: `meta.db` (one state of the database), `blobs/ab/<key>` (every file which that state names, as
//! hard links where the folder is on the same file system), `format.json`, and at last `backup.json`, which says that
//! the rest is complete. Bytes are never changed once they are a blob, so a hard link is as good as a copy against
//! everything but the loss of the disk. Upload sessions are not in it, nor is the key that wraps the signing keys.

mod create;
mod relocate;
mod restore;

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use blobs::Key;
use meta::{BlobCheck, Db, Location};
use oci::{Algorithm, Clock, Digest, Hasher, Random};
use serde::{Deserialize, Serialize};

use crate::Error;

pub use create::create;
pub use relocate::{discard, relocate};
pub use restore::{restore, verify};

/// The version of the layout.
const FORMAT: u32 = 1;

const DESCRIPTION: &str = "backup.json";
const DATABASE: &str = "meta.db";
const FORMAT_FILE: &str = "format.json";
const BLOBS: &str = "blobs";

/// A copy of the database to look into: opening it changes the file.
const SCRATCH: &str = "scratch.db";

/// How many blobs are asked for at once.
const PAGE: usize = 200;

/// What a backup holds, so far or in all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Files of blobs. Smaller ones are in the database.
    pub blobs: u64,
    /// The sum of their sizes.
    pub bytes: u64,
    /// The size of the database.
    pub database_bytes: u64,
    /// Blobs whose bytes were missing or damaged in the store when the backup was made.
    pub missing: Vec<String>,
}

/// `backup.json`.
#[derive(Debug, Serialize, Deserialize)]
struct Description {
    format: u32,
    store: String,
    created_at: String,
    database_bytes: u64,
    database_sha256: String,
    blobs: u64,
    bytes: u64,
    missing: Vec<String>,
}

/// What of a blob's file must be in a backup.
struct Wanted {
    digest: Digest,
    size: u64,
    key: Key,
}

/// The files that a page of rows names. A key that is none is a damaged row, which the check of the store reports.
fn wanted(page: &[BlobCheck]) -> impl Iterator<Item = Wanted> {
    page.iter().filter_map(|row| match &row.location {
        Some(Location::File { key, .. }) => {
            Some(Wanted { digest: row.digest.clone(), size: row.size, key: Key::parse(key)? })
        }
        _ => None,
    })
}

/// Opens a copy of the database in `folder`; [`close_scratch`] removes it.
async fn open_scratch(folder: &Path, clock: &Clock, random: &Random) -> Result<Db, Error> {
    remove_scratch(folder)?;
    let (from, to) = (folder.join(DATABASE), folder.join(SCRATCH));
    let (clock, random) = (clock.clone(), random.clone());
    blocking(move || {
        fs::copy(&from, &to).map_err(|error| blobs::Error::io("copy", &to, error))?;
        Ok(Db::open_sqlite(&to, clock, random)?)
    })
    .await
}

async fn close_scratch(folder: &Path, db: Db) -> Result<(), Error> {
    db.close().await?;
    remove_scratch(folder)
}

fn remove_scratch(folder: &Path) -> Result<(), Error> {
    for suffix in ["", "-wal", "-shm", "-journal"] {
        let path = folder.join(format!("{SCRATCH}{suffix}"));
        match fs::remove_file(&path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(blobs::Error::io("unlink", &path, error).into()),
        }
    }
    Ok(())
}

/// What a folder was before it was filled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Before {
    /// It was not there.
    Absent,
    /// It was there and empty.
    Empty,
}

/// Removes a data directory that was being made by [`restore`], or what is in it, so that it is as it was before.
pub fn undo(data: &Path, before: Before) -> Result<(), Error> {
    let undone = match before {
        Before::Absent => fs::remove_dir_all(data),
        Before::Empty => fs::read_dir(data).and_then(|mut entries| {
            entries.try_for_each(|entry| {
                let entry = entry?;
                match entry.file_type()?.is_dir() {
                    true => fs::remove_dir_all(entry.path()),
                    false => fs::remove_file(entry.path()),
                }
            })
        }),
    };
    undone.map_err(|error| blobs::Error::io("remove", data, error).into())
}

/// Makes `path` a folder for its owner only; it must be absent or empty.
fn empty_folder(path: &Path) -> Result<Before, Error> {
    match DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => return Ok(Before::Absent),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(blobs::Error::io("mkdir", path, error).into()),
    }
    let mut entries = fs::read_dir(path).map_err(|error| blobs::Error::io("readdir", path, error))?;
    match entries.next() {
        None => Ok(Before::Empty),
        Some(_) => Err(Error::Conflict { what: format!("{} is not empty; name a new folder", path.display()) }),
    }
}

/// Writes a new file for its owner only, and syncs it. Its name is not synced.
fn write_file(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let written = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    written.map_err(|error| blobs::Error::io("write", path, error).into())
}

/// Length and sha256 of a file.
fn hash_file(path: &Path) -> Result<(u64, Digest), Error> {
    let hash = || -> io::Result<(u64, Digest)> {
        let (mut file, mut hasher) = (File::open(path)?, Hasher::new(Algorithm::Sha256));
        let (mut piece, mut size) = (vec![0; 1 << 20], 0);
        loop {
            match file.read(&mut piece)? {
                0 => return Ok((size, hasher.finish())),
                n => {
                    hasher.update(&piece[..n]);
                    size += n as u64;
                }
            }
        }
    };
    hash().map_err(|error| blobs::Error::io("read", path, error).into())
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Error> + Send + 'static) -> Result<T, Error> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(Error::internal(error)))
}

fn damaged(what: impl Into<String>) -> Error {
    Error::Conflict { what: what.into() }
}
