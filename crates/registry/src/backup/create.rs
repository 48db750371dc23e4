//! Making a backup of a running registry.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use blobs::{Blobs, sync_directory};
use tokio::task::JoinHandle;

use super::{
    BLOBS, DATABASE, DESCRIPTION, Description, FORMAT, FORMAT_FILE, PAGE, Report, Wanted, blocking, close_scratch,
    damaged, empty_folder, hash_file, open_scratch, wanted, write_file,
};
use crate::{Authority, Error, Registry};

/// For this long collection leaves the bytes alone after the last sign of life of a backup.
const HOLD: Duration = Duration::from_secs(120);

/// How often that sign is given.
const RENEWAL: Duration = Duration::from_secs(20);

/// Writes a backup of the registry, whose data directory is `data`, to `folder`, which must be absent or empty. The
/// registry goes on working meanwhile. Blobs whose bytes are missing in the store are told in the report; everything
/// else that goes wrong fails, and leaves a folder without `backup.json`, which cannot be restored.
pub async fn create(
    r: &Registry,
    by: Authority<'_>,
    data: &Path,
    folder: &Path,
    progress: &(dyn Fn(&Report) + Send + Sync),
) -> Result<Report, Error> {
    tracing::info!(by = by.actor().name, folder = %folder.display(), "a backup begins");
    empty_folder(folder)?;
    let hold = Hold::take(r).await?;
    let mut report = Report::default();
    let done = fill(r, data, folder, &hold, &mut report, progress).await;
    hold.release().await;
    done.map(|()| report)
}

async fn fill(
    r: &Registry,
    data: &Path,
    folder: &Path,
    hold: &Hold,
    report: &mut Report,
    progress: &(dyn Fn(&Report) + Send + Sync),
) -> Result<(), Error> {
    let database = folder.join(DATABASE);
    r.db().backup_to(&database).await?;
    let path = database.clone();
    let (database_bytes, database_sha256) = blocking(move || hash_file(&path)).await?;
    report.database_bytes = database_bytes;
    progress(report);

    let root = folder.join(BLOBS);
    empty_folder(&root)?;
    // Opening it makes the folders.
    Blobs::open_fs(&root)?;
    let state = open_scratch(folder, &r.0.clock, &r.0.random).await?;
    let mut after = None;
    loop {
        let page = state.check_blobs(after.as_ref(), PAGE).await?;
        for blob in wanted(&page) {
            link(r, &root, &blob, report).await?;
        }
        progress(report);
        if hold.lost() {
            return Err(damaged("the backup took too long without a sign of life; bytes may be gone, so start anew"));
        }
        match page.last() {
            Some(last) if page.len() == PAGE => after = Some(last.digest.clone()),
            _ => break,
        }
    }
    close_scratch(folder, state).await?;

    let description = Description {
        format: FORMAT,
        store: r.db().store_id().to_owned(),
        created_at: r.now().to_string(),
        database_bytes,
        database_sha256: database_sha256.hex().to_owned(),
        blobs: report.blobs,
        bytes: report.bytes,
        missing: report.missing.clone(),
    };
    let (data, folder) = (data.to_owned(), folder.to_owned());
    blocking(move || seal(&data, &folder, &root, &description)).await
}

async fn link(r: &Registry, root: &Path, blob: &Wanted, report: &mut Report) -> Result<(), Error> {
    let Wanted { digest, size, key } = blob;
    let destination = root.join(key.folder()).join(key.as_str());
    let linked = async {
        r.blobs().open(key, *size).await?;
        r.blobs().link_to(key, &destination).await
    };
    match linked.await {
        Ok(()) => {
            report.blobs += 1;
            report.bytes += size;
            Ok(())
        }
        Err(error @ (blobs::Error::NotFound { .. } | blobs::Error::Damaged { .. })) => {
            tracing::error!(error = &error as &dyn std::error::Error, %digest, "a blob cannot be backed up");
            report.missing.push(digest.as_str().to_owned());
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}

/// Syncs every name, then says that the backup is complete.
fn seal(data: &Path, folder: &Path, root: &Path, description: &Description) -> Result<(), Error> {
    let format = data.join(FORMAT_FILE);
    let bytes = fs::read(&format).map_err(|error| blobs::Error::io("read", &format, error))?;
    write_file(&folder.join(FORMAT_FILE), &bytes)?;
    for prefix in 0..=u8::MAX {
        sync_directory(&root.join(format!("{prefix:02x}")))?;
    }
    sync_directory(root)?;
    sync_directory(folder)?;
    let text = serde_json::to_vec_pretty(description).map_err(Error::internal)?;
    write_file(&folder.join(DESCRIPTION), &text)?;
    sync_directory(folder)?;
    match folder.canonicalize().ok().as_deref().and_then(Path::parent) {
        Some(parent) => Ok(sync_directory(parent)?),
        None => Ok(()),
    }
}

/// Keeps collection from removing bytes.
struct Hold {
    r: Registry,
    id: String,
    lost: Arc<AtomicBool>,
    ticker: JoinHandle<()>,
}

impl Hold {
    async fn take(r: &Registry) -> Result<Self, Error> {
        let id: String = r.random::<16>().iter().map(|byte| format!("{byte:02x}")).collect();
        let lost = Arc::new(AtomicBool::new(false));
        if r.db().is_read_only() {
            // Nothing is collected, so there is nothing to hold, and nowhere to write it down.
            return Ok(Self { r: r.clone(), id, lost, ticker: tokio::spawn(std::future::ready(())) });
        }
        r.db().take_hold(&id, "backup", HOLD).await?;
        let (db, name, flag) = (r.db().clone(), id.clone(), lost.clone());
        let ticker = tokio::spawn(async move {
            loop {
                tokio::time::sleep(RENEWAL).await;
                if let Ok(false) = db.renew_hold(&name, HOLD).await {
                    return flag.store(true, Ordering::SeqCst);
                }
            }
        });
        Ok(Self { r: r.clone(), id, lost, ticker })
    }

    fn lost(&self) -> bool {
        self.lost.load(Ordering::SeqCst)
    }

    async fn release(self) {
        // If it fails, the hold runs out.
        let _ = self.r.db().release_hold(&self.id).await;
    }
}

/// A backup that was dropped half-way leaves its hold to run out.
impl Drop for Hold {
    fn drop(&mut self) {
        self.ticker.abort();
    }
}
