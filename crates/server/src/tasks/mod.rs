//! Work in the background. Each task is idempotent, takes no input, is bounded in a run, and can be stopped anywhere: the
//! next run goes on. What came of the last run is kept for the admin API.

mod collect;
mod upkeep;

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use oci::Clock;
use tokio::task::JoinHandle;

pub use collect::collection;
pub use upkeep::{certificates, checkpoint, free_space, idempotency, journal};

/// What ends a run that failed.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The future of a run: what came of it, in a few words.
pub type Run = Pin<Box<dyn Future<Output = Result<String, BoxError>> + Send>>;

/// A task.
pub struct Task {
    /// Its name, in the API and in logs.
    pub name: &'static str,
    /// The time between the end of one run and the beginning of the next.
    pub interval: Duration,
    /// Begins a run.
    pub run: Box<dyn Fn() -> Run + Send + Sync>,
}

/// The tasks of a server. Clones are the same.
#[derive(Clone)]
pub struct Tasks(Arc<Inner>);

struct Inner {
    clock: Clock,
    states: Mutex<Vec<api::Task>>,
    loops: Mutex<Vec<JoinHandle<()>>>,
}

impl Tasks {
    /// None yet.
    pub fn new(clock: Clock) -> Self {
        Self(Arc::new(Inner { clock, states: Mutex::default(), loops: Mutex::default() }))
    }

    /// Runs a task again and again; the first time after one interval.
    pub fn start(&self, task: Task) {
        let at = {
            let mut states = self.0.states.lock().unwrap_or_else(PoisonError::into_inner);
            states.push(api::Task {
                name: task.name.to_owned(),
                running: false,
                runs: 0,
                last_started_at: None,
                last_finished_at: None,
                last_error: None,
                last_result: None,
            });
            states.len() - 1
        };
        let tasks = self.clone();
        let handle = tokio::spawn(async move {
            loop {
                tokio::time::sleep(task.interval).await;
                tasks.run(at, &task).await;
            }
        });
        self.0.loops.lock().unwrap_or_else(PoisonError::into_inner).push(handle);
    }

    /// How they are.
    pub fn list(&self) -> Vec<api::Task> {
        self.0.states.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Stops all of them where they are.
    pub async fn stop(&self) {
        let loops = std::mem::take(&mut *self.0.loops.lock().unwrap_or_else(PoisonError::into_inner));
        for handle in &loops {
            handle.abort();
        }
        for handle in loops {
            // It was stopped, or it had panicked.
            let _ = handle.await;
        }
    }

    async fn run(&self, at: usize, task: &Task) {
        let now = || (self.0.clock)().into();
        self.update(at, |state| {
            state.running = true;
            state.last_started_at = Some(now());
        });
        // On a task of its own, so that a panic is a failed run and not the end of all runs; dropped with this one.
        let mut run = tokio::task::JoinSet::new();
        run.spawn((task.run)());
        let result = match run.join_next().await {
            Some(Ok(result)) => result,
            Some(Err(panic)) => Err(panic.into()),
            None => return,
        };
        self.update(at, |state| {
            state.running = false;
            state.runs += 1;
            state.last_finished_at = Some(now());
            match result {
                Ok(result) => {
                    tracing::debug!(task = task.name, result, "a task has run");
                    state.last_error = None;
                    state.last_result = Some(result);
                }
                Err(error) => {
                    let error = crate::logs::chain(error.as_ref());
                    // Once, not at every run while it lasts.
                    if state.last_error.as_ref() != Some(&error) {
                        tracing::error!(task = task.name, error, "a task failed");
                    }
                    state.last_error = Some(error);
                }
            }
        });
    }

    fn update(&self, at: usize, change: impl FnOnce(&mut api::Task)) {
        let mut states = self.0.states.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(state) = states.get_mut(at) {
            change(state);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use oci::Timestamp;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn runs_failures_and_panics_are_recorded_and_the_next_run_comes() {
        let tasks = Tasks::new(Arc::new(|| Timestamp(5000)));
        let count = Arc::new(AtomicU32::new(0));
        let counted = count.clone();
        tasks.start(Task {
            name: "t",
            interval: Duration::from_secs(10),
            run: Box::new(move || {
                let run = counted.fetch_add(1, Ordering::Relaxed);
                Box::pin(async move {
                    match run {
                        0 => Ok("three things".to_owned()),
                        1 => Err("no disk".into()),
                        2 => panic!("for the test"),
                        _ => Ok("again".to_owned()),
                    }
                })
            }),
        });
        let state = || tasks.list()[0].clone();
        assert_eq!((state().runs, state().last_started_at), (0, None));
        for (runs, result, error) in [
            (1, Some("three things"), None),
            (2, Some("three things"), Some("no disk")),
            (3, Some("three things"), Some("panicked")),
            (4, Some("again"), None),
        ] {
            tokio::time::sleep(Duration::from_secs(10)).await;
            tokio::time::sleep(Duration::from_millis(1)).await;
            let state = state();
            assert_eq!((state.runs, state.running, state.last_result.as_deref()), (runs, false, result));
            assert!(error.is_none_or(|error| state.last_error.as_deref().unwrap().contains(error)), "{state:?}");
            assert_eq!(state.last_error.is_some(), error.is_some());
        }
        tasks.stop().await;
        tokio::time::sleep(Duration::from_secs(100)).await;
        assert_eq!(count.load(Ordering::Relaxed), 4);
    }
}
