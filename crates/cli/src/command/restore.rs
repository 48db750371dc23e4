//! `portcullis restore`

use std::path::PathBuf;

use server::config::{Environment, load};
use server::data_dir::holder;

use super::backup;
use super::config::flags;
use super::fsck::state_of;
use crate::client::job::copied;
use crate::context::Context;
use crate::error::Error;
use crate::exit::Exit;
use crate::progress::Progress;

const AFTER_HELP: &str = "\
The data directory has to be absent or empty, and no server may use it. Every blob is read and compared with its \
digest on the way. The backup stays as it is. The backup does not hold the key in `keys/kek`: put the old directory's \
`keys/kek` in its place, or all clients log in again.

Examples:
  portcullis restore /srv/backup/2026-11-24 --data-dir /var/lib/portcullis";

/// Make a data directory from a backup
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Args {
    /// The backup
    #[arg(value_name = "DIR")]
    directory: PathBuf,
}

/// Restores into the data directory of the configuration.
pub async fn run(context: &Context, args: Args) -> Result<Exit, Error> {
    context.refuse_server("restore")?;
    let config = load(&flags(&context.global), &Environment::current())?;
    if let Some(holder) = holder(&config.data_dir)? {
        return Err(server::Error::Locked { path: config.data_dir, holder }.into());
    }
    let progress = Progress::start(&context.output, "copying");
    let shown = progress.clone();
    let report = server::offline::restore(&config, &args.directory, &move |so_far| shown.set(copied(&so_far))).await;
    progress.finish();
    let report = report?;
    backup::show(context, &report)?;
    context.output.note(&format!("next: portcullis serve --data-dir {}", config.data_dir.display()));
    Ok(state_of(&report.findings))
}
