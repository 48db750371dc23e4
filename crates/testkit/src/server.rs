//! The built server as a process: started, asked by its commands, killed and started again.

use std::fs::{self, File};
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use testdb::{Database, Engine, engine};

use crate::client::{Client, Login};
use crate::memory_limit::MemoryLimit;

/// What every server of the tests has to get along with.
const MEMORY: u64 = 256 << 20;
/// Longest time from start to ready.
const START: Duration = Duration::from_secs(30);

/// How to start a server.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The program; [`binary`] when `None`.
    pub binary: Option<PathBuf>,
    /// The data directory; one in a temporary directory, where log and configuration always are, when `None`.
    pub data_dir: Option<PathBuf>,
    /// Text of the configuration file.
    pub config: String,
    /// A configuration file that is there, instead of that text.
    pub config_file: Option<PathBuf>,
    /// Further flags of `serve`.
    pub flags: Vec<String>,
    /// The database, where it is not a file in the data directory. When `None`, a run on PostgreSQL makes one.
    pub database: Option<Arc<Database>>,
    /// The value of `database.url` instead of that of the database: a proxy, or a server of the test's own.
    pub database_url: Option<String>,
}

/// An empty database for the run's engine; `None` on SQLite, whose database is made with the data directory.
pub fn database() -> Result<Option<Arc<Database>>> {
    match engine() {
        Engine::Sqlite => Ok(None),
        Engine::Postgres => Ok(Some(Arc::new(Database::create()?))),
    }
}

/// Tells the program which database is its own.
pub fn with_database<'c>(command: &'c mut Command, url: Option<&str>) -> &'c mut Command {
    match url {
        Some(url) => command.env("PORTCULLIS_DATABASE__URL", url),
        None => command,
    }
}

/// A server process with its data directory.
pub struct Server {
    options: Options,
    directory: TempDir,
    data_dir: PathBuf,
    child: Option<Child>,
    limit: Option<MemoryLimit>,
    address: SocketAddr,
    password: String,
}

/// The program under test: `PORTCULLIS_BIN`, else the release build of this workspace.
pub fn binary() -> PathBuf {
    match std::env::var_os("PORTCULLIS_BIN") {
        Some(path) => path.into(),
        None => {
            let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
            let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
            target.join("release/portcullis")
        }
    }
}

impl Server {
    /// Starts a server on a free loopback port and waits until it is ready.
    pub fn start(options: Options) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("portcullis-test-").tempdir()?;
        let data_dir = options.data_dir.clone().unwrap_or_else(|| directory.path().join("data"));
        let database = match options.database.clone() {
            None if options.database_url.is_none() => database()?,
            given => given,
        };
        let mut server = Self {
            options: Options { database, ..options },
            directory,
            data_dir,
            child: None,
            limit: MemoryLimit::new(MEMORY).ok(),
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            password: String::new(),
        };
        server.launch()?;
        let file = server.data_dir().join("initial-password");
        if let Ok(text) = fs::read_to_string(&file) {
            text.trim().clone_into(&mut server.password);
        }
        Ok(server)
    }

    /// A server with the defaults.
    pub fn start_default() -> Result<Self> {
        Self::start(Options::default())
    }

    /// Starts the process again on its data directory, after [`Server::kill`] or [`Server::stop`].
    pub fn launch(&mut self) -> Result<()> {
        ensure!(self.child.is_none(), "the server runs already");
        let config = match &self.options.config_file {
            Some(file) => file.clone(),
            None => {
                let file = self.directory.path().join("test.toml");
                fs::write(&file, &self.options.config)?;
                file
            }
        };
        let addresses = self.data_dir().join("addresses.json");
        let _ = fs::remove_file(&addresses);
        let log = File::options().create(true).append(true).open(self.log_file())?;
        let mut command = self.confined();
        // A restarted server keeps its port: tokens name the service by it.
        command.args(["serve", "--listen", &self.address.to_string(), "--admin-listen", "off"]);
        command.arg("--config").arg(&config);
        command.arg("--data-dir").arg(self.data_dir()).args(&self.options.flags);
        with_database(&mut command, self.database_url());
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = command.spawn().with_context(|| format!("cannot start {}", self.binary().display()))?;
        let child = self.child.insert(child);
        let start = Instant::now();
        loop {
            if let Some(address) = main_address(&addresses) {
                self.address = address;
                return Ok(());
            }
            let ended = child.try_wait()?;
            if ended.is_some() || start.elapsed() > START {
                let state = ended.map_or_else(|| "is not ready".to_owned(), |status| format!("ended: {status}"));
                self.kill();
                bail!("the server {state}\n{}", self.log_tail());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// The program, under the memory limit where the machine can set one.
    fn confined(&self) -> Command {
        let Some(limit) = &self.limit else {
            return Command::new(self.binary());
        };
        let mut command = Command::new("/bin/sh");
        command.args(["-c", r#"echo $$ > "$0" && exec "$@""#]).arg(limit.processes_file()).arg(self.binary());
        command
    }

    fn binary(&self) -> PathBuf {
        self.options.binary.clone().unwrap_or_else(binary)
    }

    /// The data directory.
    pub fn data_dir(&self) -> PathBuf {
        self.data_dir.clone()
    }

    /// The address of its database, where that is not a file in the data directory.
    pub fn database_url(&self) -> Option<&str> {
        let given = self.options.database_url.as_deref();
        given.or_else(|| self.options.database.as_deref().map(Database::url))
    }

    /// From the next start on, this is its `database.url`; `None` is a file in the data directory.
    pub fn move_database(&mut self, url: Option<String>) {
        self.options.database = None;
        self.options.database_url = url;
    }

    /// A listener by its name in `addresses.json`.
    pub fn listener(&self, name: &str) -> Result<SocketAddr> {
        let text = fs::read(self.data_dir().join("addresses.json"))?;
        let addresses: serde_json::Value = serde_json::from_slice(&text)?;
        Ok(addresses[name].as_str().with_context(|| format!("no listener {name}"))?.parse()?)
    }

    /// What the process printed so far.
    pub fn log_file(&self) -> PathBuf {
        self.directory.path().join("server.log")
    }

    /// The main listener.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The main listener as clients name it: `localhost:PORT`.
    pub fn host(&self) -> String {
        format!("localhost:{}", self.address.port())
    }

    /// The generated password of `admin`.
    pub fn password(&self) -> &str {
        &self.password
    }

    /// The process id; 0 when it does not run.
    pub fn id(&self) -> u32 {
        self.child.as_ref().map_or(0, Child::id)
    }

    /// Whether its process is there still.
    pub fn is_running(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// A client of the main listener.
    pub fn client(&self, login: Login) -> Client {
        Client::new(self.address, login)
    }

    /// A client that is `admin`, with tokens.
    pub fn admin(&self) -> Client {
        self.client(Login::Bearer("admin".to_owned(), self.password.clone()))
    }

    /// One of the program's commands on this data directory.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.binary());
        command.args(arguments).arg("--data-dir").arg(self.data_dir()).stdin(Stdio::null());
        with_database(&mut command, self.database_url());
        command
    }

    /// Runs a command; its output whatever it was.
    pub fn output(&self, arguments: &[&str]) -> Result<Output> {
        self.command(arguments).output().with_context(|| format!("portcullis {arguments:?}"))
    }

    /// Runs a command that must succeed; what it printed.
    pub fn run(&self, arguments: &[&str]) -> Result<String> {
        let output = self.output(arguments)?;
        ensure!(
            output.status.success(),
            "portcullis {arguments:?}: {}\n{}{}\n{}",
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
            self.log_tail()
        );
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Adds a user with this password.
    pub fn add_user(&self, name: &str, password: &str) -> Result<()> {
        let mut command = self.command(&["user", "add", name, "--password-stdin"]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
        if let Some(mut input) = child.stdin.take() {
            input.write_all(password.as_bytes())?;
        }
        let output = child.wait_with_output()?;
        ensure!(output.status.success(), "user add {name}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }

    /// Grants a role or verbs.
    pub fn grant(&self, subject: &str, role: &str, pattern: &str) -> Result<()> {
        self.run(&["grant", "add", subject, role, pattern])?;
        Ok(())
    }

    /// Highest resident memory of the process so far, in bytes.
    pub fn peak_memory(&self) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
        let kib: u64 = line.trim().trim_end_matches(" kB").parse()?;
        Ok(kib << 10)
    }

    /// The memory limit, where the machine can set one.
    pub fn memory_limit(&self) -> Option<&MemoryLimit> {
        self.limit.as_ref()
    }

    /// Ends the process at once, as `kill -9`.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Waits at most so long for the process to end by itself; whether it did.
    pub fn ends_within(&mut self, time: Duration) -> bool {
        let start = Instant::now();
        while start.elapsed() < time {
            match self.child.as_mut().map(Child::try_wait) {
                Some(Ok(None)) => std::thread::sleep(Duration::from_millis(2)),
                _ => return true,
            }
        }
        false
    }

    /// Asks the process to end (SIGTERM) and waits until it has.
    pub fn stop(&mut self) -> Result<ExitStatus> {
        let mut child = self.child.take().context("the server does not run")?;
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).context("process id")?;
        kill_process(pid, Signal::TERM)?;
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(60) {
            if let Some(status) = child.try_wait()? {
                return Ok(status);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = child.kill();
        let _ = child.wait();
        bail!("the server did not stop within a minute\n{}", self.log_tail())
    }

    /// Fails unless `fsck` finds nothing wrong, whether the server runs or not. Notes are nothing wrong: files of uploads
    /// whose rows a power cut took.
    pub fn assert_clean(&self) -> Result<()> {
        self.fsck(|finding| finding["severity"] == "note")
    }

    /// Fails unless `fsck` finds nothing at all.
    pub fn assert_spotless(&self) -> Result<()> {
        self.fsck(|_| false)
    }

    fn fsck(&self, harmless: impl Fn(&serde_json::Value) -> bool) -> Result<()> {
        let output = self.output(&["fsck", "--json"])?;
        let text = String::from_utf8_lossy(&output.stdout);
        let report: serde_json::Value = serde_json::from_str(&text).with_context(|| {
            format!("fsck printed {text:?} {:?}: {}", String::from_utf8_lossy(&output.stderr), output.status)
        })?;
        let findings = report["findings"].as_array().context("fsck gave no findings")?;
        let clean = findings.iter().all(harmless) && output.status.success();
        ensure!(clean, "fsck: {}: {report:#}", output.status);
        Ok(())
    }

    /// The last lines of the process's log.
    pub fn log_tail(&self) -> String {
        let text = fs::read_to_string(self.log_file()).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let tail = &lines[lines.len().saturating_sub(40)..];
        format!("--- last lines of the server's log\n{}\n---", tail.join("\n"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("{}", self.log_tail());
            self.directory.disable_cleanup(std::env::var_os("PORTCULLIS_KEEP").is_some());
        }
    }
}

/// The main address in `addresses.json`; `None` until the file is there.
fn main_address(file: &Path) -> Option<SocketAddr> {
    let addresses: serde_json::Value = serde_json::from_slice(&fs::read(file).ok()?).ok()?;
    addresses["main"].as_str()?.parse().ok()
}
