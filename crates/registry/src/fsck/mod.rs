//! The check of rows against bytes, both ways: everything is hashed. Works with the server running.
//!
//! While it runs, rows come and go. So what looks wrong is looked at a second time before it becomes a finding.

mod files;
mod rows;

use std::time::Instant;

use oci::{Digest, RepositoryName};
use serde::Serialize;

use crate::{Authority, Error, Registry};

/// More findings than this are only counted.
const FINDINGS_MAX: usize = 10_000;

/// What was found.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// How much was looked at.
    pub checked: Checked,
    /// What is not as it should be: the first 10,000.
    pub findings: Vec<Finding>,
    /// How many findings are not listed.
    pub omitted: u64,
    /// How long it took, in milliseconds.
    pub duration_ms: u64,
}

/// How much was looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Checked {
    /// Blobs, each hashed.
    pub blobs: u64,
    /// Manifests, each hashed and read.
    pub manifests: u64,
    /// Tags.
    pub tags: u64,
    /// Blobs of repositories.
    pub links: u64,
}

/// Something that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What kind: stable, for scripts.
    pub code: Code,
    /// How bad it is.
    pub severity: Severity,
    /// One sentence: what it is, and what to do about it.
    pub message: String,
    /// The digest it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// The repository it is in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repository: Option<String>,
    /// Whether it was put right.
    pub repaired: bool,
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Good to know; nothing is wrong.
    Note,
    /// Something is not in order, but no acknowledged data is affected.
    Warning,
    /// Acknowledged data is lost or damaged.
    Error,
}

/// The kinds of findings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// The database engine finds its own file damaged.
    DatabaseDamaged,
    /// The bytes of a blob are not there.
    BlobMissing,
    /// The bytes of a blob are not those that were pushed.
    BlobDamaged,
    /// The time of a blob's file is not the recorded one, but its bytes are right.
    BlobTimeChanged,
    /// A mark by which collection finds candidates is wrong.
    MarkWrong,
    /// A repository has a blob of which nothing is known.
    LinkDangling,
    /// The bytes of a manifest are not there.
    ManifestMissing,
    /// The bytes of a manifest are not those that were pushed.
    ManifestDamaged,
    /// A stored manifest cannot be read any more.
    ManifestUnreadable,
    /// What is recorded of a manifest is not what it says.
    ManifestDiffers,
    /// A manifest needs a blob that is not in its repository.
    ManifestIncomplete,
    /// A tag points to no manifest.
    TagDangling,
    /// The bytes of an upload session are not there.
    UploadDamaged,
    /// A file that no row knows.
    OrphanFile,
    /// Something that the store did not put there.
    StrayFile,
}

/// Looks at everything. Changes nothing, but that a blob that was found damaged is not trusted any more: whoever may push it
/// is told that it is absent.
pub async fn check(
    r: &Registry,
    by: Authority<'_>,
    progress: &(dyn Fn(&Checked) + Send + Sync),
) -> Result<Report, Error> {
    run(r, by, Repair::Nothing, progress).await
}

/// Looks at everything, and puts right what can be put right without any loss: files that no row knows are removed,
/// marks are worked out anew, the time of a file whose bytes are right is recorded. A damaged or missing blob is healed
/// by pushing it again, never here: to forget it would make a disk that is not mounted a loss of everything.
pub async fn repair(
    r: &Registry,
    by: Authority<'_>,
    progress: &(dyn Fn(&Checked) + Send + Sync),
) -> Result<Report, Error> {
    run(r, by, Repair::WhatIsSafe, progress).await
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Repair {
    Nothing,
    WhatIsSafe,
}

/// A check under way.
struct Check<'a> {
    r: &'a Registry,
    repair: Repair,
    report: Report,
    progress: &'a (dyn Fn(&Checked) + Send + Sync),
}

async fn run(
    r: &Registry,
    by: Authority<'_>,
    repair: Repair,
    progress: &(dyn Fn(&Checked) + Send + Sync),
) -> Result<Report, Error> {
    let started = Instant::now();
    let actor = by.actor();
    tracing::info!(by = actor.name, repair = repair == Repair::WhatIsSafe, "the check of the store begins");
    let mut check = Check { r, repair, report: Report::default(), progress };
    for problem in r.db().integrity_check().await? {
        check.add(Code::DatabaseDamaged, Severity::Error, problem, None, None);
    }
    check.blobs().await?;
    check.links().await?;
    check.manifests().await?;
    check.tags().await?;
    check.uploads().await?;
    check.files().await?;
    let mut report = check.report;
    report.duration_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    Ok(report)
}

impl Check<'_> {
    fn add(
        &mut self,
        code: Code,
        severity: Severity,
        message: String,
        digest: Option<&Digest>,
        repository: Option<&RepositoryName>,
    ) {
        let finding = Finding {
            code,
            severity,
            message,
            digest: digest.map(|digest| digest.as_str().to_owned()),
            repository: repository.map(|repository| repository.as_str().to_owned()),
            repaired: false,
        };
        match self.report.findings.len() < FINDINGS_MAX {
            true => self.report.findings.push(finding),
            false => self.report.omitted += 1,
        }
    }

    /// Whether to put right the finding just added, which is then said of it.
    fn repairs(&mut self) -> bool {
        if self.repair == Repair::Nothing {
            return false;
        }
        if self.report.omitted == 0
            && let Some(finding) = self.report.findings.last_mut()
        {
            finding.repaired = true;
        }
        true
    }

    fn tell(&self) {
        (self.progress)(&self.report.checked);
    }
}
