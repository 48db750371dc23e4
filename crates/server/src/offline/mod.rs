//! Commands that work on a data directory without a server, or before there is one.

mod init;
mod migrate;

use std::path::Path;
use std::time::Duration;

use api::{BackupReport, Checked, Finding, FsckReport, Severity};
use oci::{Clock, Random};
use registry::{Authority, backup, fsck as checks};
use tokio::time::Instant;

pub use init::{Init, init};
pub use migrate::{Location, Migrated, Progress, migrate};

use crate::admin::{backup_report, fsck_report};
use crate::clock::{system_clock, system_random};
use crate::config::{Config, DatabaseUrl};
use crate::data_dir::{self, DataDir, names};
use crate::error::Error;
use crate::keys::retire_all;
use crate::serve::{blocking, open_registry};

/// Checks rows against stored bytes, both ways; `repair` mends what can be mended without losing anything. `progress` gets
/// to know how much was looked at so far.
///
/// # Errors
/// [`Error::Locked`] when a server has the directory; the check is then to be asked of it.
pub async fn fsck(
    config: &Config,
    repair: bool,
    progress: &(dyn Fn(Checked) + Send + Sync),
) -> Result<FsckReport, Error> {
    private_files();
    let (clock, random, root) = (system_clock(), system_random(), config.data_dir.clone());
    if !data_dir::holds_registry(&root) {
        return Err(Error::DataDir {
            what: format!("there is no registry in {}", root.display()),
            help: "name its data directory with --data-dir DIR".to_owned(),
        });
    }
    if repair && config.is_read_only() {
        return Err(Error::refuse(
            "server.mode is read-only, and a repair changes what it finds",
            "set server.mode to read-write for it: PORTCULLIS_SERVER__MODE=read-write portcullis fsck --repair",
        ));
    }
    let for_lock = clock.clone();
    let data = blocking(move || DataDir::open_existing(&root, &for_lock)).await?;
    let registry = open_registry(config, &data, &clock, &random, Duration::ZERO).await?;
    let tell = |so_far: &checks::Checked| {
        progress(Checked { blobs: so_far.blobs, manifests: so_far.manifests, tags: so_far.tags, links: so_far.links });
    };
    let done = if repair {
        checks::repair(&registry, Authority::DataDirectory, &tell).await
    } else {
        checks::check(&registry, Authority::DataDirectory, &tell).await
    };
    let closed = registry.db().clone().close().await;
    let report = done.map_err(|error| Error::operation("the check", error))?;
    closed.map_err(|error| Error::database(data.root(), error))?;
    Ok(with_strays(fsck_report(report), data.root()))
}

/// Has a running server make a backup where it may, and takes it to `to`, which must be absent or empty. `staged` is the
/// folder that the server filled; `verify` reads every blob back where it is now.
///
/// # Errors
/// [`Error::Operation`] when `to` is not empty, cannot be written, or does not hold what it should.
pub async fn take_backup(
    staged: &Path,
    to: &Path,
    verify: bool,
    progress: &(dyn Fn(BackupReport) + Send + Sync),
) -> Result<Option<BackupReport>, Error> {
    private_files();
    backup::relocate(staged, to).await.map_err(|error| Error::operation("taking the backup to its place", error))?;
    if !verify {
        return Ok(None);
    }
    let (clock, random, start, directory) = (system_clock(), system_random(), Instant::now(), to.display().to_string());
    let took = || u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
    let tell = |report: &backup::Report| progress(backup_report(&directory, report, true, took()));
    let report = backup::verify(to, &clock, &random, &tell).await;
    let report = report.map_err(|error| Error::operation("verifying the backup", error))?;
    Ok(Some(backup_report(&directory, &report, true, took())))
}

/// Removes what a server staged and nobody takes.
///
/// # Errors
/// [`Error::Operation`].
pub async fn discard_backup(staged: &Path) -> Result<(), Error> {
    backup::discard(staged).await.map_err(|error| Error::operation("removing the staged backup", error))
}

/// A new name in the staging folder of a data directory.
pub fn staging(data_dir: &Path) -> std::path::PathBuf {
    let mut bytes = [0; 8];
    system_random()(&mut bytes);
    let name: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    data_dir.join(names::STAGING).join(name)
}

/// Adds notes about what lies in the data directory and does not belong there.
pub(crate) fn with_strays(mut report: FsckReport, data_dir: &Path) -> FsckReport {
    let strays = data_dir::strays(data_dir).unwrap_or_default();
    report.findings.extend(strays.into_iter().map(|name| Finding {
        code: "stray_file".to_owned(),
        severity: Severity::Note,
        message: format!("the data directory holds {name}, which is none of the registry's files"),
        digest: None,
        repository: None,
        repaired: false,
    }));
    report
}

/// Makes the data directory of the configuration, which must be absent or empty, of a backup. The key that wraps the
/// signing keys is no part of a backup: the keys are retired, the next start makes a new one, and tokens that were given
/// out before are void. Whoever puts `keys/kek` of the old directory in its place keeps them.
///
/// # Errors
/// [`Error::Operation`] when the backup is damaged or the directory is not empty.
pub async fn restore(
    config: &Config,
    from: &Path,
    progress: &(dyn Fn(BackupReport) + Send + Sync),
) -> Result<BackupReport, Error> {
    private_files();
    let (clock, random, began) = (system_clock(), system_random(), Instant::now());
    let took = || u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    let directory = config.data_dir.to_string_lossy();
    let tell = |report: &backup::Report| progress(backup_report(&directory, report, false, took()));
    let (report, before) = backup::restore(from, &config.data_dir, &clock, &random, &tell)
        .await
        .map_err(|error| Error::operation("restoring the backup", error))?;
    let finished = finish_restore(config, &clock, &random).await;
    if finished.is_err() {
        // The first error is the one that counts.
        let _ = backup::undo(&config.data_dir, before);
    }
    finished.map(|()| backup_report(&directory, &report, true, took()))
}

async fn finish_restore(config: &Config, clock: &Clock, random: &Random) -> Result<(), Error> {
    let (root, for_lock) = (config.data_dir.clone(), clock.clone());
    let data = blocking(move || DataDir::open_existing(&root, &for_lock)).await?;
    if let DatabaseUrl::Postgres(_) = &config.database.url {
        migrate::restored(config, &data, clock, random).await?;
    }
    let registry = open_registry(config, &data, clock, random, Duration::ZERO).await?;
    let retired = retire_all(registry.db()).await;
    let closed = registry.db().clone().close().await;
    retired?;
    closed.map_err(|error| Error::database(data.root(), error))
}

/// What is made from here on is ours alone.
fn private_files() {
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
}
