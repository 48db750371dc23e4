//! A docker engine of the test's own: its own data, its own socket, no network, nothing of the machine's engine.

use std::fs::{self, File};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// A running `dockerd`; stopped when dropped.
pub struct DockerEngine {
    directory: TempDir,
    child: Child,
}

impl DockerEngine {
    /// Starts an engine and waits until it answers.
    pub fn start() -> Result<Self> {
        // A short path: names of sockets have at most 107 bytes, and the engine makes long ones below.
        let directory = tempfile::Builder::new().prefix("pcd").tempdir_in("/tmp")?;
        let log = File::create(directory.path().join("log"))?;
        let path = |name: &str| directory.path().join(name).display().to_string();
        let child = Command::new("dockerd")
            .args(["--data-root", &path("data"), "--exec-root", &path("exec"), "--pidfile", &path("pid")])
            .args(["--config-file", &path("none.json"), "--bridge=none", "--iptables=false", "-H"])
            .arg(format!("unix://{}", path("sock")))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("cannot start dockerd")?;
        let mut engine = Self { directory, child };
        engine.wait()?;
        Ok(engine)
    }

    fn wait(&mut self) -> Result<()> {
        fs::write(self.directory.path().join("none.json"), "{}")?;
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(60) {
            let version = Command::new("docker").args(["-H", &self.socket(), "version"]).output()?;
            if version.status.success() {
                return Ok(());
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("dockerd ended: {status}\n{}", self.log());
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        bail!("dockerd is not ready\n{}", self.log())
    }

    /// The value of `-H` for its clients.
    pub fn socket(&self) -> String {
        format!("unix://{}", self.directory.path().join("sock").display())
    }

    /// What the engine printed.
    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }
}

impl Drop for DockerEngine {
    fn drop(&mut self) {
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::TERM);
        }
        let _ = self.child.wait();
    }
}
