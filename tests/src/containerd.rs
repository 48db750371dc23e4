//! A containerd of the test's own: its own root, state and socket, and nothing that needs the machine's kernel or network.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use tempfile::TempDir;

use crate::daemon::Daemon;
use crate::{Stage, Tool};

/// What a test of images does not need, and what may not work inside a container.
const DISABLED: &[&str] = &[
    "io.containerd.grpc.v1.cri",
    "io.containerd.cri.v1.images",
    "io.containerd.cri.v1.runtime",
    "io.containerd.nri.v1.nri",
    "io.containerd.podsandbox.controller.v1.podsandbox",
    "io.containerd.sandbox.controller.v1.shim",
    "io.containerd.snapshotter.v1.aufs",
    "io.containerd.snapshotter.v1.blockfile",
    "io.containerd.snapshotter.v1.btrfs",
    "io.containerd.snapshotter.v1.devmapper",
    "io.containerd.snapshotter.v1.zfs",
    "io.containerd.snapshotter.v1.erofs",
    "io.containerd.differ.v1.erofs",
    "io.containerd.internal.v1.opt",
    "io.containerd.tracing.processor.v1.otlp",
];

/// Which containerd.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line {
    /// 1.6, of Debian.
    Debian,
    /// 2.x, built from its module.
    Current,
}

impl Line {
    /// The names of server and client.
    fn programs(self) -> (&'static str, &'static str) {
        match self {
            Self::Debian => ("containerd", "ctr"),
            Self::Current => ("containerd2", "ctr2"),
        }
    }

    /// Its name in the report.
    pub fn name(self) -> &'static str {
        match self {
            Self::Debian => "ctr-1.6",
            Self::Current => "ctr-2",
        }
    }

    fn configuration(self, directory: &Path) -> String {
        let path = |name: &str| directory.join(name).display().to_string();
        let version = match self {
            Self::Debian => 2,
            Self::Current => 3,
        };
        let mut text = format!(
            "version = {version}\nroot = \"{}\"\nstate = \"{}\"\ndisabled_plugins = {DISABLED:?}\n[grpc]\naddress = \"{}\"\n\
             [ttrpc]\naddress = \"{}\"\n",
            path("root"),
            path("state"),
            path("sock"),
            path("ttrpc"),
        );
        // A namespace does not get from another what it would have to fetch.
        text.push_str("[plugins.\"io.containerd.metadata.v1.bolt\"]\ncontent_sharing_policy = \"isolated\"\n");
        if self == Self::Current {
            // Small pieces, so that a layer of a few MiB is fetched by many open-ended ranges at a time.
            text.push_str(
                "[plugins.\"io.containerd.transfer.v1.local\"]\nmax_concurrent_downloads = 4\n\
                 concurrent_layer_fetch_buffer = 262144\n",
            );
        }
        text
    }
}

/// A running containerd; stopped when dropped.
pub struct Containerd {
    daemon: Daemon,
    line: Line,
    directory: TempDir,
}

impl Containerd {
    /// Starts one and waits until it answers.
    pub fn start(line: Line) -> Result<Self> {
        // A short path: names of sockets have at most 107 bytes.
        let directory = tempfile::Builder::new().prefix("pcc").tempdir_in("/tmp")?;
        let configuration = directory.path().join("config.toml");
        fs::write(&configuration, line.configuration(directory.path()))?;
        let (server, client) = line.programs();
        let mut command = Command::new(server);
        command.arg("--config").arg(configuration);
        let socket = directory.path().join("sock");
        let is_ready = || {
            let mut version = Command::new(client);
            version.arg("--address").arg(&socket).arg("version").stdout(Stdio::null()).stderr(Stdio::null());
            socket.exists() && version.status().is_ok_and(|status| status.success())
        };
        let daemon = Daemon::start(command, &directory.path().join("log"), is_ready)?;
        Ok(Self { daemon, line, directory })
    }

    /// Its socket.
    pub fn socket(&self) -> String {
        self.directory.path().join("sock").display().to_string()
    }

    /// What it printed.
    pub fn log(&self) -> String {
        self.daemon.log()
    }

    /// Starts a pull and kills it while it fetches. The pull has to be of more than comes in a moment.
    pub fn interrupt_pull(&self, mut command: Command) -> Result<()> {
        let ingest = self.directory.path().join("root/io.containerd.content.v1.content/ingest");
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        let start = Instant::now();
        while !fs::read_dir(&ingest).is_ok_and(|entries| entries.count() > 0) {
            ensure!(start.elapsed() < Duration::from_secs(30), "the pull fetches nothing");
            std::thread::sleep(Duration::from_millis(2));
        }
        ensure!(child.try_wait()?.is_none(), "the pull ended before it could be interrupted");
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// Its `ctr` in a namespace of its own: content of one namespace is not seen from another.
    pub fn ctr(&self, stage: &Stage, namespace: &str) -> Result<Tool> {
        let (_, client) = self.line.programs();
        Ok(stage.tool(client, namespace)?.always(&["--address", &self.socket(), "--namespace", namespace]))
    }
}
