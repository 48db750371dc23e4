//! Work that the server does in the background: start it, and wait for its end.

use std::time::Duration;

use api::{BackupReport, Checked, ErrorCode, Job, JobState, Report, Route};
use serde::Serialize;
use serde_json::Value;

use super::Client;
use crate::error::Error;
use crate::output::{Output, bytes};
use crate::progress::Progress;

const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

impl Client {
    /// Starts a job.
    pub async fn start(&self, route: Route, body: &impl Serialize) -> Result<Job, Error> {
        self.send(route, &[], body).await
    }

    /// Starts a job and waits for its end. When one of its kind is at work already, that one goes first.
    pub async fn run(
        &self,
        output: &Output,
        what: &'static str,
        route: Route,
        body: &impl Serialize,
    ) -> Result<Report, Error> {
        let progress = Progress::start(output, what);
        let result = async {
            loop {
                let running = match self.start(route, body).await {
                    Ok(job) => return self.watch(job, &progress).await?.report(self),
                    Err(Error::Answer(refusal)) if refusal.code == ErrorCode::JobRunning.as_str() => refusal,
                    Err(error) => return Err(error),
                };
                let id = running.details.get("id").and_then(Value::as_str).map(str::to_owned);
                let Some(id) = id else { return Err(Error::Answer(running)) };
                // How the other one ends is not our concern.
                let job: Job = self.call(Route::JobShow, &[&id], &[]).await?;
                self.watch(job, &progress).await?;
            }
        }
        .await;
        progress.finish();
        result
    }

    /// The report of another kind of job than was started.
    pub fn unexpected_report(&self, report: &Report) -> Error {
        let kind = match report {
            Report::Gc(_) => "gc",
            Report::Backup(_) => "backup",
            Report::Fsck(_) => "fsck",
        };
        Error::Foreign { target: self.target.to_string(), what: format!("it gave the report of a {kind} job") }
    }

    /// Asks until the job has ended, one way or the other.
    async fn watch(&self, mut job: Job, progress: &Progress) -> Result<Ended, Error> {
        let mut pause = FIRST_PAUSE;
        while job.state == JobState::Running {
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
            job = self.call(Route::JobShow, &[&job.id], &[]).await?;
            if let Some(report) = &job.report {
                progress.set(so_far(report));
            }
        }
        Ok(Ended(job))
    }
}

/// How far a job is, in a few words.
fn so_far(report: &Report) -> String {
    match report {
        Report::Gc(gc) => format!("collecting garbage: {} blobs, {}", gc.removed.blobs, bytes(gc.removed.bytes)),
        Report::Backup(backup) => copied(backup),
        Report::Fsck(fsck) => checked(&fsck.checked),
    }
}

/// How far a backup or restoring one is.
pub fn copied(report: &BackupReport) -> String {
    format!("copying: {} files, {}", report.blobs, bytes(report.bytes))
}

/// How far a check is.
pub fn checked(checked: &Checked) -> String {
    format!(
        "checking: {} blobs, {} manifests, {} tags, {} links",
        checked.blobs, checked.manifests, checked.tags, checked.links
    )
}

/// A job that is not running any more.
struct Ended(Job);

impl Ended {
    fn report(self, client: &Client) -> Result<Report, Error> {
        match (self.0.report, self.0.error) {
            (Some(report), None) => Ok(report),
            (_, Some(why)) => Err(Error::JobFailed { why }),
            (None, None) => {
                let what = format!("job {} has neither a report nor an error", self.0.id);
                Err(Error::Foreign { target: client.target.to_string(), what })
            }
        }
    }
}
