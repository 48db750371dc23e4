//! Checking a backup, and making a data directory of it.

use std::fs;
use std::path::Path;

use blobs::{Blobs, Key, sync_directory};
use meta::Db;
use oci::{Clock, Random, Timestamp};

use super::{
    BLOBS, Before, DATABASE, DESCRIPTION, Description, FORMAT, FORMAT_FILE, PAGE, Report, Wanted, blocking,
    close_scratch, damaged, empty_folder, hash_file, open_scratch, undo, wanted, write_file,
};
use crate::Error;

/// How many sessions are ended at once.
const SESSIONS: usize = 500;

/// Reads the whole backup in `folder`, which has to be writable: every byte is what it was when it was pushed.
/// [`Error::Conflict`] says what is not.
pub async fn verify(
    folder: &Path,
    clock: &Clock,
    random: &Random,
    progress: &(dyn Fn(&Report) + Send + Sync),
) -> Result<Report, Error> {
    let description = describe(folder).await?;
    let store = Blobs::open_fs(&folder.join(BLOBS))?;
    let state = open_scratch(folder, clock, random).await?;
    let done = walk(&state, &store, &description, None, progress).await;
    close_scratch(folder, state).await?;
    done
}

/// Makes the data directory `data`, which must be absent or empty, of the backup in `folder`. Every byte is verified on
/// the way; when one is wrong, this fails and removes what it made. Stopped in the middle, it leaves a folder without
/// `format.json`. Upload sessions are not restored. What `data` was before is told too, for [`super::undo`].
pub async fn restore(
    folder: &Path,
    data: &Path,
    clock: &Clock,
    random: &Random,
    progress: &(dyn Fn(&Report) + Send + Sync),
) -> Result<(Report, Before), Error> {
    let description = describe(folder).await?;
    let before = empty_folder(data)?;
    let restored = fill(folder, data, &description, (clock, random), progress).await;
    if restored.is_err()
        && let Err(error) = undo(data, before)
    {
        tracing::warn!(error = &error as &dyn std::error::Error, "what was restored so far could not be removed");
    }
    Ok((restored?, before))
}

async fn fill(
    folder: &Path,
    data: &Path,
    description: &Description,
    (clock, random): (&Clock, &Random),
    progress: &(dyn Fn(&Report) + Send + Sync),
) -> Result<Report, Error> {
    let (from, to) = (folder.join(DATABASE), data.join(DATABASE));
    let database = to.clone();
    blocking(move || {
        let mut source = fs::File::open(&from).map_err(|error| blobs::Error::io("open", &from, error))?;
        write_file(&to, b"")?;
        let copied = fs::OpenOptions::new().write(true).open(&to).and_then(|mut target| {
            std::io::copy(&mut source, &mut target)?;
            target.sync_all()
        });
        Ok(copied.map_err(|error| blobs::Error::io("copy", &to, error))?)
    })
    .await?;
    let root = data.join(BLOBS);
    empty_folder(&root)?;
    let (store, source) = (Blobs::open_fs(&root)?, folder.join(BLOBS));
    let (clock, random) = (clock.clone(), random.clone());
    let db = blocking(move || Ok(Db::open_sqlite(&database, clock, random)?)).await?;
    let restored = walk(&db, &store, description, Some(&source), progress).await;
    let ended = end_sessions(&db).await;
    db.close().await?;
    ended?;
    let report = restored?;
    let (folder, data) = (folder.to_owned(), data.to_owned());
    blocking(move || {
        let format = folder.join(FORMAT_FILE);
        let bytes = fs::read(&format).map_err(|error| blobs::Error::io("read", &format, error))?;
        sync_directory(&data)?;
        write_file(&data.join(FORMAT_FILE), &bytes)?;
        sync_directory(&data)?;
        match data.canonicalize().ok().as_deref().and_then(Path::parent) {
            Some(parent) => Ok(sync_directory(parent)?),
            None => Ok(()),
        }
    })
    .await?;
    Ok(report)
}

/// Reads `backup.json` and compares the database with it.
async fn describe(folder: &Path) -> Result<Description, Error> {
    let folder = folder.to_owned();
    blocking(move || {
        let path = folder.join(DESCRIPTION);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(damaged(format!("{} is not a complete backup: it has no {DESCRIPTION}", folder.display())));
            }
            Err(error) => return Err(blobs::Error::io("read", &path, error).into()),
        };
        let description: Description = serde_json::from_slice(&bytes)
            .map_err(|error| damaged(format!("{} cannot be read: {error}", path.display())))?;
        if description.format != FORMAT {
            let what = format!("the backup has format {}, this program reads format {FORMAT}", description.format);
            return Err(damaged(what));
        }
        let (size, digest) = hash_file(&folder.join(DATABASE))?;
        if (size, digest.hex()) != (description.database_bytes, description.database_sha256.as_str()) {
            return Err(damaged(format!("the backup's {DATABASE} is not the one that was written")));
        }
        Ok(description)
    })
    .await
}

/// Hashes every file which the rows name, after it was linked from `source` if there is one.
async fn walk(
    db: &Db,
    store: &Blobs,
    description: &Description,
    source: Option<&Path>,
    progress: &(dyn Fn(&Report) + Send + Sync),
) -> Result<Report, Error> {
    let mut report = Report {
        database_bytes: description.database_bytes,
        missing: description.missing.clone(),
        ..Report::default()
    };
    let mut after = None;
    loop {
        let page = db.check_blobs(after.as_ref(), PAGE).await?;
        for blob in wanted(&page) {
            if description.missing.iter().any(|missing| missing == blob.digest.as_str()) {
                continue;
            }
            if let Some(source) = source {
                let from = source.join(blob.key.folder()).join(blob.key.as_str());
                store.link_from(&blob.key, &from).await.map_err(|error| lost(&blob.key, error))?;
            }
            compare(store, &blob).await?;
            report.blobs += 1;
            report.bytes += blob.size;
            progress(&report);
        }
        match page.last() {
            Some(last) if page.len() == PAGE => after = Some(last.digest.clone()),
            _ => break,
        }
    }
    if report.blobs != description.blobs {
        return Err(damaged(format!("the backup has {} blobs instead of {}", report.blobs, description.blobs)));
    }
    Ok(report)
}

async fn compare(store: &Blobs, blob: &Wanted) -> Result<(), Error> {
    let Wanted { digest, size, key } = blob;
    store.open(key, *size).await.map_err(|error| lost(key, error))?;
    let (_, digests) = store.hash(key, &[digest.algorithm()]).await.map_err(|error| lost(key, error))?;
    match digests.first() == Some(digest) {
        true => Ok(()),
        false => Err(damaged(format!("the backup's file {key} holds other bytes than {digest}"))),
    }
}

fn lost(key: &Key, error: blobs::Error) -> Error {
    match error {
        blobs::Error::NotFound { .. } | blobs::Error::Damaged { .. } => {
            damaged(format!("the backup's file {key} is damaged: {error}"))
        }
        blobs::Error::Io { ref source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
            damaged(format!("the backup's file {key} is missing"))
        }
        error => error.into(),
    }
}

/// Upload sessions of the state that was backed up: their files are not in the backup.
async fn end_sessions(db: &Db) -> Result<(), Error> {
    db.clear_leases().await?;
    while db.expire_uploads(Timestamp(i64::MAX), SESSIONS).await? == SESSIONS as u64 {}
    Ok(())
}
