//! `portcullis fsck`

use std::os::unix::net::UnixStream;

use api::{Finding, FsckReport, Report, Route, Severity, StartFsck};
use server::config::{Config, Environment, load};

use super::config::flags;
use crate::client::job::checked;
use crate::client::server_url;
use crate::context::Context;
use crate::error::Error;
use crate::exit::Exit;
use crate::output::{duration, fields, printable};
use crate::progress::Progress;

const AFTER_HELP: &str = "\
Reads every blob and compares rows with the store in both directions, through the running server or, \
when none runs, in the data directory itself. Exit status 0: clean. 3: done, and something was found.

Examples:
  portcullis fsck
  portcullis fsck --repair --json";

/// Check rows against stored bytes, both ways
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Args {
    /// Mend what can be mended without losing anything
    #[arg(long)]
    repair: bool,
}

/// Checks through the server when one runs, else in the data directory.
pub async fn run(context: &Context, args: Args) -> Result<Exit, Error> {
    let report = match stopped(context)? {
        Some(config) => offline(context, &config, args.repair).await?,
        None => through_server(context, args.repair).await?,
    };
    show(context, &report)?;
    Ok(state_of(&report.findings))
}

/// The configuration of the data directory when there is one and no server has it.
fn stopped(context: &Context) -> Result<Option<Config>, Error> {
    let data_dir = context.data_dir();
    let listens = UnixStream::connect(data_dir.join("admin.sock")).is_ok();
    if server_url(&context.global).is_some() || listens || !server::data_dir::holds_registry(&data_dir) {
        return Ok(None);
    }
    Ok(Some(load(&flags(&context.global), &Environment::current())?))
}

async fn through_server(context: &Context, repair: bool) -> Result<FsckReport, Error> {
    let client = context.client()?;
    match client.run(&context.output, "checking", Route::FsckRun, &StartFsck { repair }).await? {
        Report::Fsck(report) => Ok(report),
        other => Err(client.unexpected_report(&other)),
    }
}

async fn offline(context: &Context, config: &Config, repair: bool) -> Result<FsckReport, Error> {
    let progress = Progress::start(&context.output, "checking");
    let shown = progress.clone();
    let report = server::offline::fsck(config, repair, &move |so_far| shown.set(checked(&so_far))).await;
    progress.finish();
    Ok(report?)
}

fn show(context: &Context, report: &FsckReport) -> Result<(), Error> {
    if context.output.json() {
        return context.output.value(report);
    }
    let mut text = findings(&report.findings);
    text.push_str(&fields(&[
        ("blobs", report.checked.blobs.to_string()),
        ("manifests", report.checked.manifests.to_string()),
        ("tags", report.checked.tags.to_string()),
        ("links", report.checked.links.to_string()),
        ("findings", (report.findings.len() as u64 + report.omitted).to_string()),
        ("took", duration(report.duration_ms)),
    ]));
    context.output.text(&text)
}

/// A line each.
pub fn findings(findings: &[Finding]) -> String {
    findings.iter().fold(String::new(), |mut text, finding| {
        let severity = match finding.severity {
            Severity::Note => "note",
            Severity::Warning => "warning",
            Severity::Error => "error",
        };
        let repaired = if finding.repaired { " (mended)" } else { "" };
        text.push_str(&printable(&format!("{severity}: {}: {}{repaired}", finding.code, finding.message)));
        text.push('\n');
        text
    })
}

/// Notes alone are no problem.
pub fn state_of(findings: &[Finding]) -> Exit {
    if findings.iter().any(|finding| finding.severity != Severity::Note) { Exit::Found } else { Exit::Done }
}
