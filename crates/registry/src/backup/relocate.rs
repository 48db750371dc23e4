//! Taking a finished backup to where it belongs.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use blobs::sync_directory;

use super::{DESCRIPTION, blocking, empty_folder};
use crate::Error;

/// Moves the backup in `from` to `to`, which must be absent or empty: by its name on the same file system, else as a copy
/// that is synced before the original goes. `backup.json` comes last, so that half a copy is never taken for a backup.
///
/// # Errors
/// [`Error::Conflict`] when `to` is not empty, else what the disk said. `from` is then still whole.
pub async fn relocate(from: &Path, to: &Path) -> Result<(), Error> {
    let (from, to) = (from.to_owned(), to.to_owned());
    blocking(move || {
        empty_folder(&to)?;
        let name = || to.parent().map_or(Ok(()), sync_directory);
        match fs::rename(&from, &to) {
            Ok(()) => Ok(name()?),
            // A folder on which a disk is mounted is busy; what is in it is on that disk.
            Err(error) if matches!(error.kind(), io::ErrorKind::CrossesDevices | io::ErrorKind::ResourceBusy) => {
                copy_folder(&from, &to, &|name| name == DESCRIPTION)?;
                copy_file(&from.join(DESCRIPTION), &to.join(DESCRIPTION))?;
                sync_directory(&to)?;
                name()?;
                remove_folder(&from)
            }
            Err(error) => Err(blobs::Error::io("rename", &from, error).into()),
        }
    })
    .await
}

/// Removes a backup, or what there is of one.
///
/// # Errors
/// What the disk said.
pub async fn discard(folder: &Path) -> Result<(), Error> {
    let folder = folder.to_owned();
    blocking(move || remove_folder(&folder)).await
}

fn remove_folder(folder: &Path) -> Result<(), Error> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(blobs::Error::io("remove", folder, error).into()),
        _ => Ok(()),
    }
}

/// Copies what is in a folder into one that is there, and syncs it. Depth is that of a backup: two.
fn copy_folder(from: &Path, to: &Path, leave: &dyn Fn(&str) -> bool) -> Result<(), Error> {
    let wrong = |error| blobs::Error::io("readdir", from, error);
    for entry in fs::read_dir(from).map_err(wrong)? {
        let entry = entry.map_err(wrong)?;
        let target = to.join(entry.file_name());
        if leave(&entry.file_name().to_string_lossy()) {
            continue;
        }
        if entry.file_type().map_err(wrong)?.is_dir() {
            DirBuilder::new().mode(0o700).create(&target).map_err(|error| blobs::Error::io("mkdir", &target, error))?;
            copy_folder(&entry.path(), &target, &|_| false)?;
        } else {
            copy_file(&entry.path(), &target)?;
        }
    }
    Ok(sync_directory(to)?)
}

fn copy_file(from: &Path, to: &Path) -> Result<(), Error> {
    let copied = File::open(from).and_then(|mut source| {
        let mut target = OpenOptions::new().write(true).create_new(true).mode(0o600).open(to)?;
        io::copy(&mut source, &mut target)?;
        // A file that restoring compares by its time keeps it.
        target.set_modified(source.metadata()?.modified()?)?;
        target.sync_all()
    });
    copied.map_err(|error| blobs::Error::io("copy", to, error).into())
}
