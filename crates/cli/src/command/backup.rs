//! `portcullis backup`

use std::path::{Path, PathBuf};

use api::{BackupReport, Report, Route, StartBackup};
use server::offline;

use super::fsck::{findings, state_of};
use crate::client::{Client, Target, copied};
use crate::context::Context;
use crate::error::Error;
use crate::exit::Exit;
use crate::output::{bytes, duration, fields};
use crate::progress::Progress;

const AFTER_HELP: &str = "\
DIR is absent or empty. On the file system of the data directory blobs are hard links. On another machine than the \
server's (--server), the server writes the copy: DIR is a directory there, below one that `sandbox.write` names. The copy holds every image and the hashes of passwords, but not `keys/kek`: protect it like the data directory.

Examples:
  portcullis backup /srv/backup/2026-11-24 --verify
  portcullis restore /srv/backup/2026-11-24 --data-dir /var/lib/portcullis";

/// Copy the running registry into a directory
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Args {
    /// Where the copy goes: absent or empty
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// Read every blob back and compare it with its digest
    #[arg(long)]
    verify: bool,
}

/// Starts a backup and waits for its end.
pub async fn run(context: &Context, args: Args) -> Result<Exit, Error> {
    let client = context.client()?;
    if let Target::Socket(socket) = client.target() {
        let socket = socket.clone();
        return here(context, &client, &socket, args).await;
    }
    let directory = match client.target() {
        Target::Socket(_) => args.directory,
        Target::Url(_) if args.directory.is_absolute() => args.directory,
        Target::Url(url) => {
            return Err(Error::usage(
                format!("{} is relative, and the server is another process at {url}", args.directory.display()),
                "give an absolute path on the server's machine",
            ));
        }
    };
    let directory = directory.into_os_string().into_string().map_err(|name| Error::Usage {
        message: format!("{} is not UTF-8", PathBuf::from(name).display()),
        help: None,
    })?;
    let request = StartBackup { directory, verify: args.verify };
    match client.run(&context.output, "copying", Route::BackupCreate, &request).await? {
        Report::Backup(report) => {
            show(context, &report)?;
            Ok(state_of(&report.findings))
        }
        other => Err(client.unexpected_report(&other)),
    }
}

/// A backup on this machine. The server, which reaches nothing but its data directory, makes it there; from there it is
/// taken to its place with the rights of whoever asked for it.
async fn here(context: &Context, client: &Client, socket: &Path, args: Args) -> Result<Exit, Error> {
    let to = std::path::absolute(&args.directory).map_err(|error| Error::io("find", &args.directory, error))?;
    let data_dir = socket.parent().unwrap_or(Path::new("/"));
    let data_dir = data_dir.canonicalize().map_err(|error| Error::io("find", data_dir, error))?;
    check(&to, &data_dir)?;
    let staged = offline::staging(&data_dir);
    let request = StartBackup { directory: staged.display().to_string(), verify: false };
    let made = client.run(&context.output, "copying", Route::BackupCreate, &request).await;
    let taken = async {
        let mut report = match made? {
            Report::Backup(report) => report,
            other => return Err(client.unexpected_report(&other)),
        };
        report.directory = to.display().to_string();
        let progress = Progress::start(&context.output, "taking the copy to its place");
        let tell = |so_far: BackupReport| progress.set(copied(&so_far));
        let verified = offline::take_backup(&staged, &to, args.verify, &tell).await;
        progress.finish();
        if let Some(verified) = verified? {
            report.verified = true;
            report.duration_ms += verified.duration_ms;
        }
        Ok(report)
    };
    match taken.await {
        Ok(report) => {
            show(context, &report)?;
            Ok(state_of(&report.findings))
        }
        Err(error) => {
            // The first error counts; what is left behind is named by `fsck`.
            let _ = offline::discard_backup(&staged).await;
            Err(error)
        }
    }
}

/// Refuses a place that cannot take a backup before anything is copied.
fn check(to: &Path, data_dir: &Path) -> Result<(), Error> {
    let refuse = |what: &str, help: &str| Error::Directory {
        message: format!("{} {what}", to.display()),
        help: help.to_owned(),
    };
    // What is not there yet lies where its nearest ancestor is, whatever links and dots are in the names.
    if to.ancestors().find_map(|ancestor| ancestor.canonicalize().ok()).is_some_and(|at| at.starts_with(data_dir)) {
        let help = "name a directory outside of it, on another disk if possible";
        return Err(refuse("is in the data directory, which is what is to be copied", help));
    }
    match std::fs::read_dir(to).map(|mut entries| entries.next().is_none()) {
        Ok(true) => Ok(()),
        Ok(false) => Err(refuse("is not empty", "name a new directory")),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(Error::io("look into", to, error)),
    }
}

/// What is in a backup, or came out of it.
pub fn show(context: &Context, report: &BackupReport) -> Result<(), Error> {
    if context.output.json() {
        return context.output.value(report);
    }
    let mut text = findings(&report.findings);
    text.push_str(&fields(&[
        ("directory", report.directory.clone()),
        ("blobs", report.blobs.to_string()),
        ("size", bytes(report.bytes)),
        ("verified", crate::output::yes_no(report.verified)),
        ("took", duration(report.duration_ms)),
    ]));
    context.output.text(&text)
}
