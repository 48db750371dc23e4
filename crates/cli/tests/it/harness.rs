//! Starts the binary, as a server or as a command, in an environment that holds nothing of the machine's own.

use std::cell::RefCell;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use oci::{Algorithm, Hasher};
use serde_json::Value;
use tempfile::TempDir;
use testdb::{Database, Engine, engine};

/// The commands that open a database.
const OPENS: [&str; 4] = ["serve", "fsck", "restore", "migrate"];
/// The administrator's password in all tests.
pub const PASSWORD: &str = "correct horse battery staple";

/// A working directory with a home and, usually, a data directory `data`.
pub struct Sandbox {
    directory: TempDir,
    database: RefCell<Option<Database>>,
}

impl Sandbox {
    pub fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap(), database: RefCell::default() }
    }

    /// For a registry beside the one that there is: from now on commands use another database, and SQLite has one in each
    /// data directory. The old one is returned, to be dropped when it is not needed any more.
    pub fn another_database(&self) -> Option<Database> {
        self.database.take()
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn data(&self) -> PathBuf {
        self.path("data")
    }

    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    /// The binary with this sandbox as its world.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_portcullis"));
        command.args(arguments).current_dir(self.directory.path()).env_clear();
        command.env("HOME", self.path("home")).env("PORTCULLIS_DATA_DIR", self.data());
        if engine() == Engine::Postgres && arguments.first().is_some_and(|name| OPENS.contains(name)) {
            let mut database = self.database.borrow_mut();
            let database = database.get_or_insert_with(|| Database::create().unwrap());
            command.env("PORTCULLIS_DATABASE__URL", database.url());
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Outcome {
        Outcome::of(&mut self.command(arguments), "")
    }

    pub fn run_with_stdin(&self, arguments: &[&str], stdin: &str) -> Outcome {
        Outcome::of(&mut self.command(arguments), stdin)
    }

    /// Runs a command that must succeed, and reads the JSON that it prints.
    pub fn json(&self, arguments: &[&str]) -> Value {
        let mut all = arguments.to_vec();
        all.push("--json");
        self.run(&all).succeeded().json()
    }

    /// Starts a server on free loopback ports and waits until it is ready.
    pub fn serve(&self) -> Server<'_> {
        self.serve_with(&[])
    }

    pub fn serve_with(&self, more: &[&str]) -> Server<'_> {
        self.write("password", PASSWORD);
        let log = self.path("log");
        let mut command = self.command(&["serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]);
        command.args(more).env("PORTCULLIS_BOOTSTRAP__PASSWORD_FILE", self.path("password"));
        command.stdout(Stdio::null()).stderr(std::fs::File::create(&log).unwrap());
        _ = std::fs::remove_file(self.data().join("addresses.json"));
        let mut server = Server { sandbox: self, child: command.spawn().unwrap(), addresses: Value::Null };
        let file = self.data().join("addresses.json");
        let deadline = Instant::now() + Duration::from_secs(60);
        while !file.exists() {
            let ended = server.child.try_wait().unwrap();
            assert!(ended.is_none() && Instant::now() < deadline, "{ended:?}\n{}", read(&log));
            std::thread::sleep(Duration::from_millis(10));
        }
        server.addresses = serde_json::from_str(&read(&file)).unwrap();
        server
    }
}

/// A running server; killed when dropped.
pub struct Server<'a> {
    pub sandbox: &'a Sandbox,
    pub child: Child,
    addresses: Value,
}

impl Server<'_> {
    pub fn address(&self, listener: &str) -> &str {
        self.addresses[listener].as_str().unwrap()
    }

    pub fn log(&self) -> String {
        read(&self.sandbox.path("log"))
    }

    /// SIGTERM, then the exit state.
    pub fn stop(mut self) -> i32 {
        signal(&self.child, rustix::process::Signal::TERM);
        wait(&mut self.child, Duration::from_secs(20))
    }

    /// Pushes an image of one layer over the main listener, as the administrator. Returns the manifest's digest.
    pub fn push(&self, repository: &str, tag: &str, layer: &[u8]) -> String {
        let config = b"{}";
        let (config_digest, layer_digest) = (sha256(config), sha256(layer));
        for (digest, bytes) in [(&config_digest, config.as_slice()), (&layer_digest, layer)] {
            let path = format!("/v2/{repository}/blobs/uploads/?digest={digest}");
            let status = self.request("POST", &path, "application/octet-stream", bytes);
            assert_eq!(status, 201, "{}", self.log());
        }
        let manifest = serde_json::json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": config_digest, "size": 2},
            "layers": [{
                "mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": layer_digest, "size": layer.len(),
            }],
        })
        .to_string();
        let path = format!("/v2/{repository}/manifests/{tag}");
        let status = self.request("PUT", &path, "application/vnd.oci.image.manifest.v1+json", manifest.as_bytes());
        assert_eq!(status, 201, "{}", self.log());
        sha256(manifest.as_bytes())
    }

    /// One request to the main listener with the administrator's login; its status.
    pub fn request(&self, method: &str, path: &str, content_type: &str, body: &[u8]) -> u16 {
        self.exchange("main", method, path, content_type, body).0
    }

    /// A token of the admin API.
    pub fn session_token(&self) -> String {
        let (status, body) = self.exchange("admin", "POST", "/api/v1/session", "application/json", b"");
        assert_eq!(status, 200, "{body}");
        let start = body.find('{').unwrap();
        let session: Value = serde_json::from_str(&body[start..]).unwrap();
        session["token"].as_str().unwrap().to_owned()
    }

    fn exchange(&self, listener: &str, method: &str, path: &str, content_type: &str, body: &[u8]) -> (u16, String) {
        let address = self.address(listener);
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let login = login();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Basic {login}\r\nConnection: close\r\n\
             Content-Type: {content_type}\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(body).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        let answer = String::from_utf8(answer).unwrap();
        (answer[9..12].parse().unwrap(), answer)
    }
}

impl Drop for Server<'_> {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

/// What a command did.
#[derive(Debug)]
pub struct Outcome {
    pub exit: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Outcome {
    pub fn of(command: &mut Command, stdin: &str) -> Self {
        let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
        // A command that fails early does not read its input.
        _ = child.stdin.take().unwrap().write_all(stdin.as_bytes());
        let output = child.wait_with_output().unwrap();
        Self {
            exit: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    #[track_caller]
    pub fn succeeded(self) -> Self {
        self.exited(0)
    }

    #[track_caller]
    pub fn exited(self, exit: i32) -> Self {
        assert_eq!(self.exit, exit, "{self:#?}");
        self
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("{e}: {self:#?}"))
    }

    /// The two lines of an error: message and next step.
    #[track_caller]
    pub fn error(&self) -> (&str, &str) {
        let message = self.stderr.lines().find_map(|l| l.strip_prefix("error: "));
        let help = self.stderr.lines().find_map(|l| l.strip_prefix("help: "));
        (message.unwrap_or_else(|| panic!("{self:#?}")), help.unwrap_or_default())
    }

    /// The code of an error with `--json`.
    #[track_caller]
    pub fn code(&self) -> String {
        let line = self.stderr.lines().last().unwrap_or_default();
        let value: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {self:#?}"));
        let error = value["error"].as_object().unwrap();
        assert_eq!(error.keys().collect::<Vec<_>>(), ["code", "message", "help", "details"]);
        assert!(!error["message"].as_str().unwrap().is_empty() && error["details"].is_object(), "{value}");
        error["code"].as_str().unwrap().to_owned()
    }
}

pub fn signal(child: &Child, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(child.id().try_into().unwrap()).unwrap();
    rustix::process::kill_process(pid, signal).unwrap();
}

pub fn wait(child: &mut Child, limit: Duration) -> i32 {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code().unwrap_or(-1);
        }
        assert!(Instant::now() < deadline, "still running after {limit:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

pub fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap()
}

pub fn mode(path: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

pub fn sha256(bytes: &[u8]) -> String {
    Hasher::digest(Algorithm::Sha256, bytes).to_string()
}

/// The administrator's credentials of the scheme Basic.
pub fn login() -> String {
    base64(format!("admin:{PASSWORD}").as_bytes())
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}
