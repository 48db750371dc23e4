//! `portcullis gc`

use api::{CollectionCounts, GcReport, Lifetime, Report, Route, StartGc};
use clap::Subcommand;

use crate::context::Context;
use crate::error::Error;
use crate::exit::Exit;
use crate::output::{bytes, duration, fields};
use crate::span::parse_lifetime;

/// What to do about garbage. The server collects by itself every `gc.interval`.
#[derive(Debug, Subcommand)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub enum Command {
    /// Show what a run would remove now
    Plan {
        /// Instead of the setting gc.grace
        #[arg(long, value_name = "D", value_parser = parse_lifetime)]
        grace: Option<Lifetime>,
    },
    /// Start a run
    #[command(after_help = "\
Collection runs while clients push and pull. It removes what nothing has referenced for the grace. \
`--grace 0` can take blobs from under a push that is running: for tests, and for a full disk.

Examples:
  portcullis gc run --wait")]
    Run {
        /// Return when it is done, and show what was removed
        #[arg(long)]
        wait: bool,
        /// Instead of the setting gc.grace
        #[arg(long, value_name = "D", value_parser = parse_lifetime)]
        grace: Option<Lifetime>,
    },
}

/// Talks to the server about garbage.
pub async fn run(context: &Context, command: Command) -> Result<Exit, Error> {
    let client = context.client()?;
    let output = &context.output;
    match command {
        Command::Plan { grace } => {
            let query = [("grace", grace.map(|g| g.to_string()))];
            let counts: CollectionCounts = client.call(Route::GcPlan, &[], &query).await?;
            if output.json() { output.value(&counts)? } else { output.text(&fields(&rows(&counts)))? }
        }
        Command::Run { wait, grace } => {
            if !wait {
                let job = client.start(Route::GcRun, &StartGc { grace }).await?;
                output.note("collection started; see `portcullis event list --action gc.deleted`");
                return if output.json() { output.value(&job).map(|()| Exit::Done) } else { Ok(Exit::Done) };
            }
            match client.run(output, "collecting garbage", Route::GcRun, &StartGc { grace }).await? {
                Report::Gc(report) => removed(context, &report)?,
                other => return Err(client.unexpected_report(&other)),
            }
        }
    }
    Ok(Exit::Done)
}

fn removed(context: &Context, report: &GcReport) -> Result<(), Error> {
    if context.output.json() {
        return context.output.value(report);
    }
    let mut all = rows(&report.removed);
    all.push(("took", duration(report.duration_ms)));
    if report.held {
        context.output.note("a backup is under way: bytes were left for the next run");
    }
    context.output.text(&fields(&all))
}

fn rows(counts: &CollectionCounts) -> Vec<(&'static str, String)> {
    vec![
        ("uploads", counts.uploads.to_string()),
        ("manifests", counts.manifests.to_string()),
        ("links", counts.links.to_string()),
        ("blobs", counts.blobs.to_string()),
        ("files", counts.files.to_string()),
        ("size", bytes(counts.bytes)),
    ]
}
