//! The scene of a client's test: a server, three people with different rights, a place for files.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use tempfile::TempDir;
use testkit::client::Login;
use testkit::{Client, Options, Server};

use crate::{Tool, Transport};

/// Everybody's password.
pub const PASSWORD: &str = "correct horse battery staple";

/// Garbage is collected every second; what is not referenced may go after this time.
const GRACE: &str = "30s";
/// The same, for what a test waits for: cancelled pushes.
const SHORT_GRACE: &str = "6s";

/// A server with `alice`, who may do everything below `team/`, `bob`, who may read there, and `carol`, who may do nothing.
pub struct Stage {
    /// The server.
    pub server: Server,
    files: TempDir,
    collector: Option<Collector>,
    authority: Option<PathBuf>,
    configuration: Option<TempDir>,
    transport: Transport,
}

impl Stage {
    /// A stage over plain HTTP on loopback.
    pub fn plain() -> Result<Self> {
        Self::plain_with(&format!("[gc]\ngrace = \"{GRACE}\"\n"))
    }

    /// A stage over plain HTTP on loopback, with these settings.
    pub fn plain_with(config: &str) -> Result<Self> {
        Self::set(Options { config: config.to_owned(), ..Options::default() }, GRACE)
    }

    /// As [`Stage::plain`], where uploads that nobody goes on with, and what they left, go after seconds.
    pub fn hasty() -> Result<Self> {
        let config = format!("[gc]\ngrace = \"{SHORT_GRACE}\"\n[upload]\nidle = \"{SHORT_GRACE}\"\n");
        Self::set(Options { config, ..Options::default() }, SHORT_GRACE)
    }

    /// A stage over TLS with an authority of its own, as `portcullis init` makes it.
    pub fn tls() -> Result<Self> {
        Self::tls_and_plain_from("")
    }

    /// As [`Stage::tls`], but this network may speak plain HTTP on the same port and is believed for whom it speaks.
    pub fn tls_and_plain_from(network: &str) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let config = directory.path().join("portcullis.toml");
        let made = std::process::Command::new(testkit::binary())
            .args(["init", "--hostname", "localhost", "--config"])
            .arg(&config)
            .arg("--data-dir")
            .arg(directory.path().join("data"))
            .output()?;
        ensure!(made.status.success(), "init: {}", String::from_utf8_lossy(&made.stderr));
        if !network.is_empty() {
            let text = std::fs::read_to_string(&config)?;
            let (before, after) = text.split_once("#plain_from = []").context("init writes no plain_from")?;
            std::fs::write(&config, format!("{before}plain_from = [\"{network}\"]{after}"))?;
        }
        let authority = find(directory.path(), "ca.crt").ok_or_else(|| anyhow!("init wrote no ca.crt"))?;
        let mut stage = Self::set(Options { config_file: Some(config), ..Options::default() }, GRACE)?;
        let kept = stage.path("ca.crt");
        std::fs::copy(authority, &kept)?;
        stage.configuration = Some(directory);
        stage.authority = Some(kept);
        stage.transport = Transport::Tls;
        Ok(stage)
    }

    fn set(options: Options, grace: &str) -> Result<Self> {
        let server = Server::start(options)?;
        for name in ["alice", "bob", "carol"] {
            server.add_user(name, PASSWORD)?;
        }
        server.grant("user:alice", "maintainer", "team/**")?;
        server.grant("user:bob", "reader", "team/**")?;
        let files = tempfile::Builder::new().prefix("portcullis-client-").tempdir()?;
        let collector = Some(Collector::start(&server, grace));
        Ok(Self { server, files, collector, authority: None, configuration: None, transport: Transport::Http })
    }

    /// How its clients reach the server.
    pub fn transport(&self) -> Transport {
        self.transport
    }

    /// From now on its clients reach the server in another way: through a proxy.
    pub fn set_transport(&mut self, transport: Transport) {
        self.transport = transport;
    }

    /// `localhost:PORT`.
    pub fn host(&self) -> String {
        self.server.host()
    }

    /// Repository or reference below the host.
    pub fn at(&self, reference: &str) -> String {
        format!("{}/{reference}", self.host())
    }

    /// A path for a file.
    pub fn path(&self, name: &str) -> PathBuf {
        self.files.path().join(name)
    }

    /// A path for a file, as text.
    pub fn text_path(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    /// The certificate of the authority, for [`Stage::tls`].
    pub fn authority(&self) -> Result<String> {
        let path = self.authority.as_ref().context("this stage has no authority")?;
        Ok(path.display().to_string())
    }

    /// A folder with that certificate, as `--cert-dir` of podman and its kin takes it.
    pub fn certificates(&self) -> Result<String> {
        let folder = self.path("certificates");
        std::fs::create_dir_all(&folder)?;
        std::fs::copy(self.authority()?, folder.join("ca.crt"))?;
        Ok(folder.display().to_string())
    }

    /// A client program at home in a folder of its own, named after who uses it.
    pub fn tool(&self, program: &str, who: &str) -> Result<Tool> {
        let home = self.path(&format!("home-{who}"));
        std::fs::create_dir_all(&home)?;
        Ok(Tool::new(program, &home))
    }

    /// The test's own client for one of the people.
    pub fn client(&self, who: &str) -> Client {
        self.server.client(Login::Bearer(who.to_owned(), PASSWORD.to_owned()))
    }

    /// The lines of the server's log about requests so far.
    pub fn requests(&self) -> Result<Vec<serde_json::Value>> {
        let text = std::fs::read_to_string(self.server.log_file())?;
        let lines = text.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        Ok(lines.filter(|line| line["message"] == "request").collect())
    }

    /// The protocol of the requests of this method whose paths begin so, as the server saw it; fails when there were none, or
    /// of several protocols.
    pub fn protocol_of(&self, method: &str, path: &str) -> Result<String> {
        let requests = self.requests()?;
        let those = requests.iter().filter(|line| {
            line["method"] == method && line["path"].as_str().is_some_and(|text| text.starts_with(path))
        });
        let protocols: std::collections::BTreeSet<&str> = those.filter_map(|line| line["protocol"].as_str()).collect();
        ensure!(protocols.len() == 1, "{method} {path}… came by {protocols:?}");
        Ok(protocols.into_iter().collect())
    }

    /// Stops collecting: for a test that makes collections fail.
    pub fn stop_collecting(&mut self) -> Result<()> {
        self.collector.take().map_or(Ok(()), Collector::stop)
    }

    /// How many blobs were mounted into a repository so far, by the server's log: an answer 201 where an upload would begin.
    pub fn mounts(&self, repository: &str) -> Result<usize> {
        let target = format!("/v2/{repository}/blobs/uploads/");
        let mounted =
            |line: &&serde_json::Value| line["method"] == "POST" && line["path"] == *target && line["status"] == 201;
        Ok(self.requests()?.iter().filter(mounted).count())
    }

    /// Stops collecting, and fails unless each collection succeeded and `fsck` finds nothing.
    pub fn close(mut self) -> Result<()> {
        if let Some(collector) = self.collector.take() {
            collector.stop()?;
        }
        if let Some(limit) = self.server.memory_limit() {
            ensure!(limit.kills() == 0, "the kernel killed the server for its memory");
        }
        self.server.assert_clean()
    }
}

/// A thread that runs `gc run` each second.
struct Collector {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<u32>>,
}

impl Collector {
    fn start(server: &Server, grace: &str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut command = server.command(&["gc", "run", "--wait", "--grace", grace, "--json"]);
        let flag = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut runs = 0;
            while !flag.load(Ordering::Relaxed) {
                let output = command.output()?;
                ensure!(output.status.success(), "gc run: {}", String::from_utf8_lossy(&output.stderr));
                runs += 1;
                std::thread::sleep(Duration::from_secs(1));
            }
            Ok(runs)
        });
        Self { stop, thread }
    }

    fn stop(self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        let runs = self.thread.join().map_err(|_| anyhow!("the collector panicked"))??;
        eprintln!("gc ran {runs} times meanwhile");
        Ok(())
    }
}

fn find(directory: &Path, name: &str) -> Option<PathBuf> {
    for entry in std::fs::read_dir(directory).ok()?.flatten() {
        let path = entry.path();
        if path.is_dir() {
            if let Some(found) = find(&path, name) {
                return Some(found);
            }
        } else if path.file_name().is_some_and(|file| file == name) {
            return Some(path);
        }
    }
    None
}
