//! A server program that a test starts for itself: its output kept, ended when dropped.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

/// Longest time from start to ready.
const START: Duration = Duration::from_secs(60);
/// Longest time from SIGTERM to the end.
const STOP: Duration = Duration::from_secs(20);

/// A running program.
pub struct Daemon {
    child: Child,
    log: PathBuf,
}

impl Daemon {
    /// Starts it with its output in the file `log`, and waits until it is ready.
    pub fn start(mut command: Command, log: &Path, is_ready: impl Fn() -> bool) -> Result<Self> {
        let file = File::create(log)?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        let child = command.spawn().with_context(|| format!("cannot start {:?}", command.get_program()))?;
        let mut daemon = Self { child, log: log.to_owned() };
        let start = Instant::now();
        while start.elapsed() < START {
            if is_ready() {
                return Ok(daemon);
            }
            if let Some(status) = daemon.child.try_wait()? {
                bail!("{:?} ended: {status}\n{}", command.get_program(), daemon.log());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        bail!("{:?} is not ready\n{}", command.get_program(), daemon.log())
    }

    /// What it printed.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::TERM);
        }
        let start = Instant::now();
        while start.elapsed() < STOP && matches!(self.child.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- {}\n{}", self.log.display(), self.log());
        }
    }
}
