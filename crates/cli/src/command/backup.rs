//! `portcullis backup`

use std::path::PathBuf;

use api::{BackupReport, Report, Route, StartBackup};

use super::fsck::{findings, state_of};
use crate::client::Target;
use crate::context::Context;
use crate::error::Error;
use crate::exit::Exit;
use crate::output::{bytes, duration, fields};

const AFTER_HELP: &str = "\
The server writes the copy, so DIR is a directory of the server's machine, absent or empty. On the same \
file system blobs are hard links. The copy holds every image and the hashes of passwords, but not `keys/kek`: protect it like the data directory.

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
    let directory = match client.target() {
        Target::Socket(_) => std::path::absolute(&args.directory).map_err(|e| Error::io("find", &args.directory, e))?,
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
