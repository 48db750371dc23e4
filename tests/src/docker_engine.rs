//! A docker engine of the test's own: its own data, its own socket, no network, nothing of the machine's engine.

use std::fs;
use std::process::Command;

use anyhow::Result;
use tempfile::TempDir;

use crate::containerd::{Containerd, Line};
use crate::daemon::Daemon;

/// A running `dockerd`; stopped when dropped.
pub struct DockerEngine {
    daemon: Daemon,
    // After the engine, which needs it to end.
    _containerd: Option<Containerd>,
    directory: TempDir,
}

impl DockerEngine {
    /// Starts the engine of Debian and waits until it answers.
    pub fn start() -> Result<Self> {
        Self::run("dockerd", None)
    }

    /// Starts the current engine, which keeps images in a containerd.
    pub fn start_current() -> Result<Self> {
        Self::run("dockerd2", Some(Containerd::start(Line::Current)?))
    }

    fn run(program: &str, containerd: Option<Containerd>) -> Result<Self> {
        // A short path: names of sockets have at most 107 bytes, and the engine makes long ones below.
        let directory = tempfile::Builder::new().prefix("pcd").tempdir_in("/tmp")?;
        let path = |name: &str| directory.path().join(name).display().to_string();
        fs::write(path("none.json"), "{}")?;
        let mut command = Command::new(program);
        command
            .args(["--data-root", &path("data"), "--exec-root", &path("exec"), "--pidfile", &path("pid")])
            .args(["--config-file", &path("none.json"), "--bridge=none", "--iptables=false", "-H"])
            .arg(format!("unix://{}", path("sock")));
        if let Some(containerd) = &containerd {
            command.args(["--ip6tables=false", "--containerd", &containerd.socket()]);
        }
        let host = format!("unix://{}", path("sock"));
        let is_ready = || {
            let version = Command::new("docker").args(["-H", &host, "version"]).output();
            version.is_ok_and(|output| output.status.success())
        };
        let daemon = Daemon::start(command, &directory.path().join("log"), is_ready)?;
        Ok(Self { daemon, _containerd: containerd, directory })
    }

    /// The value of `-H` for its clients.
    pub fn socket(&self) -> String {
        format!("unix://{}", self.directory.path().join("sock").display())
    }

    /// What the engine printed.
    pub fn log(&self) -> String {
        self.daemon.log()
    }
}
