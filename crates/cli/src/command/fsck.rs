//! `portcullis fsck`

use api::{Finding, FsckReport, Report, Route, Severity, StartFsck};

use crate::context::Context;
use crate::error::Error;
use crate::exit::Exit;
use crate::output::{duration, fields, printable};

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
    let client = context.client()?;
    let request = StartFsck { repair: args.repair };
    let report = match client.run(&context.output, "checking", Route::FsckRun, &request).await? {
        Report::Fsck(report) => report,
        other => return Err(client.unexpected_report(&other)),
    };
    show(context, &report)?;
    Ok(state_of(&report.findings))
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
        ("findings", report.findings.len().to_string()),
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
    if findings.iter().any(|finding| finding.severity == Severity::Error) { Exit::Found } else { Exit::Done }
}
