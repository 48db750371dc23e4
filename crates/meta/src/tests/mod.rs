//! Tests of the crate as a whole.

mod collection;
mod copies;
mod files;
mod fresh;
mod lists;
pub(crate) mod plans;
mod postgres;
mod postgres_plans;
mod races;
mod suite;
mod writer;

use std::path::PathBuf;
use std::sync::Arc;

use oci::Random;

pub(crate) use fresh::{Fresh, Place};

use crate::conformance::{Bench, clock};
use crate::{Db, Options};

/// Bytes that are the same in each run.
pub(crate) fn random() -> Random {
    Arc::new(|bytes: &mut [u8]| bytes.fill(0x5a))
}

/// A database in a directory of its own: SQLite, for what is about its file.
pub(crate) struct Disk {
    pub(crate) bench: Bench,
    pub(crate) path: PathBuf,
    _directory: tempfile::TempDir,
}

pub(crate) fn disk() -> Disk {
    disk_with(&Options::default())
}

pub(crate) fn disk_with(options: &Options) -> Disk {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("meta.db");
    let (clock, time) = clock();
    let db = Db::open_sqlite_with(&path, clock, random(), options).unwrap();
    Disk { bench: Bench { db, time }, path, _directory: directory }
}
