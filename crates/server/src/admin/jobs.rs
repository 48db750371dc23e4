//! Work that outlives its request. Jobs live in memory: what they did is in the database and in the events.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use api::{Job, JobKind, JobState, Report};
use oci::{Clock, Random};
use registry::BoxError;

use super::failure::chain;

/// Ended jobs that can still be asked for.
const KEPT: usize = 64;

/// The jobs of this server, newest first. Clones are the same table.
#[derive(Clone)]
pub struct Jobs(Arc<Inner>);

struct Inner {
    jobs: Mutex<VecDeque<Job>>,
    clock: Clock,
    random: Random,
}

/// Where a job tells how far it is.
pub struct Progress {
    jobs: Jobs,
    id: String,
}

impl Progress {
    /// Shows this to whoever asks for the job.
    pub fn tell(&self, report: Report) {
        let mut jobs = self.jobs.lock();
        if let Some(job) = jobs.iter_mut().find(|job| job.id == self.id && job.state == JobState::Running) {
            job.report = Some(report);
        }
    }
}

impl Jobs {
    /// An empty table.
    pub fn new(clock: Clock, random: Random) -> Self {
        Self(Arc::new(Inner { jobs: Mutex::default(), clock, random }))
    }

    /// Starts `work` on a task of its own, unless a job of this kind is running: then its id is the error. `work` may
    /// tell how far it is.
    pub fn start<F>(&self, kind: JobKind, started_by: String, work: impl FnOnce(Progress) -> F) -> Result<Job, String>
    where
        F: Future<Output = Result<Report, BoxError>> + Send + 'static,
    {
        let job = {
            let mut jobs = self.lock();
            if let Some(running) = jobs.iter().find(|job| job.kind == kind && job.state == JobState::Running) {
                return Err(running.id.clone());
            }
            let job = Job {
                id: self.new_id(),
                kind,
                state: JobState::Running,
                started_by,
                started_at: (self.0.clock)().into(),
                finished_at: None,
                report: None,
                error: None,
            };
            jobs.push_front(job.clone());
            jobs.truncate(KEPT);
            job
        };
        let (table, id) = (self.clone(), job.id.clone());
        // A task of its own, so that a panic ends as a failed job and not as one that runs for ever.
        let task = tokio::spawn(work(Progress { jobs: self.clone(), id: job.id.clone() }));
        tokio::spawn(async move {
            let result = task.await.unwrap_or_else(|error| Err(error.into()));
            table.finish(&id, result);
        });
        Ok(job)
    }

    /// One job.
    pub fn get(&self, id: &str) -> Option<Job> {
        self.lock().iter().find(|job| job.id == id).cloned()
    }

    /// All of them, newest first.
    pub fn list(&self) -> Vec<Job> {
        self.lock().iter().cloned().collect()
    }

    fn finish(&self, id: &str, result: Result<Report, BoxError>) {
        let mut jobs = self.lock();
        let Some(job) = jobs.iter_mut().find(|job| job.id == id) else { return };
        job.finished_at = Some((self.0.clock)().into());
        match result {
            Ok(report) => {
                job.state = JobState::Done;
                job.report = Some(report);
            }
            Err(error) => {
                let error = chain(error.as_ref());
                tracing::error!(job = id, %error, "a job failed");
                job.state = JobState::Failed;
                job.report = None;
                job.error = Some(error);
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, VecDeque<Job>> {
        self.0.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn new_id(&self) -> String {
        let mut bytes = [0; 16];
        (self.0.random)(&mut bytes);
        uuid::Builder::from_random_bytes(bytes).into_uuid().to_string()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU8, Ordering};

    use api::GcReport;
    use oci::Timestamp;

    use super::*;

    fn jobs() -> Jobs {
        let next = AtomicU8::new(0);
        Jobs::new(
            Arc::new(|| Timestamp(7)),
            Arc::new(move |bytes: &mut [u8]| bytes.fill(next.fetch_add(1, Ordering::Relaxed))),
        )
    }

    async fn ended(jobs: &Jobs, id: &str) -> Job {
        loop {
            match jobs.get(id) {
                Some(job) if job.state != JobState::Running => return job,
                _ => tokio::task::yield_now().await,
            }
        }
    }

    #[tokio::test]
    async fn one_of_a_kind_at_a_time() {
        let jobs = jobs();
        let (go, wait) = tokio::sync::oneshot::channel::<()>();
        let first = jobs.start(JobKind::Gc, "user:a".into(), |progress| async move {
            progress.tell(Report::Gc(GcReport { duration_ms: 1, ..GcReport::default() }));
            wait.await?;
            Ok(Report::Gc(GcReport::default()))
        });
        let first = first.unwrap();
        let refused = jobs.start(JobKind::Gc, "user:b".into(), |_| async { Err("never".into()) });
        assert_eq!(refused.unwrap_err(), first.id);
        let other = jobs.start(JobKind::Fsck, "user:b".into(), |_| async { Err("broken".into()) }).unwrap();
        let other = ended(&jobs, &other.id).await;
        assert_eq!((other.state, other.error.as_deref()), (JobState::Failed, Some("broken")));
        go.send(()).unwrap();
        let first = ended(&jobs, &first.id).await;
        assert_eq!((first.state, first.report), (JobState::Done, Some(Report::Gc(GcReport::default()))));
        assert!(jobs.start(JobKind::Gc, "user:a".into(), |_| async { Err("next".into()) }).is_ok());
        assert_eq!(jobs.list().len(), 3);
    }

    #[tokio::test]
    async fn a_panic_is_a_failure() {
        let jobs = jobs();
        let job = jobs.start(JobKind::Backup, "socket".into(), |_| async { panic!("for the test") }).unwrap();
        assert_eq!(ended(&jobs, &job.id).await.state, JobState::Failed);
    }
}
