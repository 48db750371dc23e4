//! Work that the server does in the background: start it, and wait for its end.

use std::time::Duration;

use api::{Job, JobState, Report, Route};
use serde::Serialize;

use super::Client;
use crate::error::Error;
use crate::output::Output;
use crate::progress::Progress;

const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

impl Client {
    /// Starts a job.
    pub async fn start(&self, route: Route, body: &impl Serialize) -> Result<Job, Error> {
        self.send(route, &[], body).await
    }

    /// Waits until a job has ended, and returns what came of it.
    pub async fn wait(&self, output: &Output, what: &'static str, job: Job) -> Result<Report, Error> {
        let progress = Progress::start(output, what);
        let result = self.watch(job).await;
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

    async fn watch(&self, mut job: Job) -> Result<Report, Error> {
        let mut pause = FIRST_PAUSE;
        loop {
            match (job.state, job.report) {
                (JobState::Done, Some(report)) => return Ok(report),
                (JobState::Failed, _) => {
                    return Err(Error::JobFailed {
                        why: job.error.unwrap_or_else(|| "it does not say why".to_owned()),
                    });
                }
                (JobState::Done, None) => {
                    let what = format!("job {} is done and has no report", job.id);
                    return Err(Error::Foreign { target: self.target.to_string(), what });
                }
                (JobState::Running, _) => {}
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
            job = self.call(Route::JobShow, &[&job.id], &[]).await?;
        }
    }
}
