//! A BuildKit daemon of the test's own: its own data, its own socket.

use std::fs::{self, File};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::Stage;

/// A running `buildkitd`; stopped when dropped.
pub struct BuildKit {
    directory: TempDir,
    child: Child,
}

impl BuildKit {
    /// Starts a daemon that knows the stage's registry by these lines of its configuration (`http = true`), and waits until
    /// it answers.
    pub fn start(stage: &Stage, registry: &str) -> Result<Self> {
        // A short path: names of sockets have at most 107 bytes, and the daemon makes longer ones below.
        let directory = tempfile::Builder::new().prefix("pcb").tempdir_in("/tmp")?;
        let log = File::create(directory.path().join("log"))?;
        let path = |name: &str| directory.path().join(name).display().to_string();
        fs::write(path("toml"), format!("[registry.\"{}\"]\n{registry}\n", stage.host()))?;
        let child = Command::new("buildkitd")
            .args(["--config", &path("toml"), "--root", &path("root"), "--addr"])
            .arg(format!("unix://{}", path("sock")))
            .args(["--containerd-worker=false", "--oci-worker=true", "--oci-worker-net=host"])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("cannot start buildkitd")?;
        let mut daemon = Self { directory, child };
        daemon.wait()?;
        Ok(daemon)
    }

    fn wait(&mut self) -> Result<()> {
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(60) {
            let workers = Command::new("buildctl").args(["--addr", &self.address(), "debug", "workers"]).output()?;
            if workers.status.success() {
                return Ok(());
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("buildkitd ended: {status}\n{}", self.log());
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        bail!("buildkitd is not ready\n{}", self.log())
    }

    /// The value of `--addr` for its clients.
    pub fn address(&self) -> String {
        format!("unix://{}", self.directory.path().join("sock").display())
    }

    /// What the daemon printed.
    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }
}

impl Drop for BuildKit {
    fn drop(&mut self) {
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::TERM);
        }
        let _ = self.child.wait();
    }
}
