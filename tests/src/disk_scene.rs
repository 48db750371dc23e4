//! The scene of a test with a bad disk: a server, something that it has acknowledged, and what has to hold in the end.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use oci::{Algorithm, Digest, Hasher};
use testkit::client::{location_of, with_digest};
use testkit::http::{Body, Connection, Response};
use testkit::image::{Image, Recipe};
use testkit::{Client, Options, Rng, Server};

/// Where the scene's image is.
pub const KEPT: &str = "team/kept";

/// A server on a disk that will fail.
pub struct DiskScene {
    /// The server.
    pub server: Server,
    /// Seeded randomness.
    pub rng: Rng,
    /// What was acknowledged before the disk failed.
    pub kept: Image,
    /// A client with tokens for `team/kept` and `team/new`.
    pub client: Client,
    ops: std::net::SocketAddr,
    descriptors: usize,
}

impl DiskScene {
    /// Starts a server in `data_dir` and pushes an image.
    pub fn new(name: &str, data_dir: Option<PathBuf>, config: &str) -> Result<Self> {
        let mut rng = Rng::announced(name);
        let options = Options {
            data_dir,
            config: config.to_owned(),
            flags: vec!["--ops-listen".to_owned(), "127.0.0.1:0".to_owned()],
            ..Options::default()
        };
        let server = Server::start(options)?;
        let kept = Recipe::new().layers(&mut rng, 2, 300_000)?.image();
        let mut client = server.admin();
        client.push_image(KEPT, &kept, "1")?;
        client.assert_serves(KEPT, &kept)?;
        client.start("team/new")?;
        let ops = ops_address(&server)?;
        let mut scene = Self { server, rng, kept, client, ops, descriptors: 0 };
        scene.descriptors = scene.open_files()?.len();
        Ok(scene)
    }

    /// Starts the server again, which was killed or stopped.
    pub fn relaunch(&mut self) -> Result<()> {
        self.server.launch()?;
        self.client = self.server.admin();
        self.ops = ops_address(&self.server)?;
        Ok(())
    }

    /// Status and state of the checks of `/readyz`.
    pub fn ready(&self) -> Result<(u16, String)> {
        let response = Connection::open(self.ops, "localhost")?.send("GET", "/readyz", &[], Body::None)?;
        Ok((response.status, response.text()))
    }

    /// Waits until `/readyz` answers this, with this in its text.
    pub fn becomes(&self, status: u16, text: &str) -> Result<()> {
        let start = Instant::now();
        loop {
            let ready = self.ready()?;
            if ready.0 == status && ready.1.contains(text) {
                return Ok(());
            }
            ensure!(start.elapsed() < Duration::from_secs(20), "{status} {text} expected: {ready:?}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// The value of a line of `/metrics`; 0 when it is not there.
    pub fn metric(&self, name: &str) -> Result<f64> {
        let text = Connection::open(self.ops, "localhost")?.send("GET", "/metrics", &[], Body::None)?.text();
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        Ok(line.map_or(Ok(0.0), |value| value.trim().parse())?)
    }

    /// How often this is in the log.
    pub fn logged(&self, text: &str) -> Result<usize> {
        Ok(std::fs::read_to_string(self.server.log_file())?.matches(text).count())
    }

    /// New bytes and their digest.
    pub fn bytes(&mut self, length: usize) -> (Vec<u8>, Digest) {
        let bytes = self.rng.bytes(length);
        let digest = Hasher::digest(Algorithm::Sha256, &bytes);
        (bytes, digest)
    }

    /// POST, PATCH, PUT: the first answer that is no success, or the last; and where the upload goes on.
    pub fn push(&mut self, bytes: &[u8], digest: &Digest) -> Result<(Response, Option<String>)> {
        push(&mut self.client, "team/new", bytes, digest)
    }

    /// Everything that was acknowledged is served.
    pub fn serves(&mut self) -> Result<()> {
        self.client.assert_serves(KEPT, &self.kept)?;
        self.client.assert_whole(KEPT, "1")?;
        Ok(())
    }

    /// The disk is well again: pushes succeed without a restart, what was acknowledged is there, nothing else is, and no
    /// descriptor is left open.
    pub fn has_recovered(&mut self) -> Result<()> {
        let image = Recipe::new().layers(&mut self.rng, 2, 200_000)?.image();
        let start = Instant::now();
        while let Err(error) = self.client.push_image("team/after", &image, "1") {
            ensure!(start.elapsed() < Duration::from_secs(10), "{error}\n{}", self.server.log_tail());
            std::thread::sleep(Duration::from_millis(50));
        }
        self.client.assert_serves("team/after", &image)?;
        self.serves()?;
        self.becomes(200, "true")?;
        let start = Instant::now();
        loop {
            let open = self.open_files()?;
            let of_blobs = open.iter().filter(|path| path.contains("/blobs/")).count();
            if of_blobs == 0 && open.len() <= self.descriptors {
                break;
            }
            let more = open.len() - self.descriptors.min(open.len());
            ensure!(start.elapsed() < Duration::from_secs(10), "{more} more files are open: {open:#?}");
            std::thread::sleep(Duration::from_millis(50));
        }
        self.is_clean()
    }

    /// Collects what was never finished; then `fsck` has nothing to say, not even a note.
    pub fn is_clean(&self) -> Result<()> {
        let output = self.server.output(&["gc", "run", "--wait", "--grace", "0"])?;
        ensure!(output.status.success(), "gc: {}", String::from_utf8_lossy(&output.stderr));
        self.server.assert_spotless()
    }

    /// Files that the process has open, without sockets and without the database's own, which are opened as needed.
    pub fn open_files(&self) -> Result<Vec<String>> {
        let folder = format!("/proc/{}/fd", self.server.id());
        let links = std::fs::read_dir(folder)?.flatten().filter_map(|entry| std::fs::read_link(entry.path()).ok());
        let texts = links.map(|link| link.display().to_string());
        Ok(texts.filter(|path| path.starts_with('/') && !path.contains("/meta.db")).collect())
    }

    /// Threads of the process.
    pub fn threads(&self) -> Result<usize> {
        Ok(std::fs::read_dir(format!("/proc/{}/task", self.server.id()))?.count())
    }
}

/// See [`DiskScene::push`].
pub fn push(
    client: &mut Client,
    repository: &str,
    bytes: &[u8],
    digest: &Digest,
) -> Result<(Response, Option<String>)> {
    let target = format!("/v2/{repository}/blobs/uploads/");
    let started = client.send(repository, "POST", &target, &[], Body::Bytes(b""))?;
    if started.status != 202 {
        return Ok((started, None));
    }
    let location = location_of(&started)?;
    let sent = client.send(repository, "PATCH", &location, &[], Body::Bytes(bytes))?;
    if sent.status != 202 {
        // Who is refused while it sends loses its connection.
        client.reconnect();
        return Ok((sent, Some(location)));
    }
    let location = location_of(&sent)?;
    let done = client.send(repository, "PUT", &with_digest(&location, digest), &[], Body::Bytes(b""))?;
    Ok((done, Some(location)))
}

/// Goes on with an upload from where its status says, to its end.
pub fn go_on(client: &mut Client, location: &str, bytes: &[u8], digest: &Digest) -> Result<usize> {
    let path = location.split('?').next().unwrap_or(location);
    let status = client.send("team/new", "GET", path, &[], Body::None)?.expect_status(204)?;
    let location = location_of(&status)?;
    let offset: usize = location.split("state=").nth(1).context("no state")?.parse()?;
    let rest = Body::Bytes(&bytes[offset..]);
    client.send("team/new", "PUT", &with_digest(&location, digest), &[], rest)?.expect_status(201)?;
    let (status, actual, _) = client.hash_blob("team/new", digest)?;
    ensure!(status == 200 && actual == *digest, "{status}: {actual} came back for {digest}");
    Ok(offset)
}

/// Fails unless this is the answer that a client should get: status, code, `Retry-After`, and no name of a file.
pub fn answers(response: &Response, status: u16) -> Result<()> {
    let text = response.text();
    ensure!(response.status == status, "{status} expected: {response:?}");
    ensure!(text.contains("\"UNAVAILABLE\"") && response.header("retry-after").is_some(), "{response:?}");
    ensure!(!text.contains("blobs/") && !text.contains("meta.db") && !text.contains("os error"), "{response:?}");
    Ok(())
}

/// Runs a command of the system, as root.
pub fn system(program: &str, arguments: &[&str]) -> Result<()> {
    let output = Command::new(program).args(arguments).output().with_context(|| format!("cannot start {program}"))?;
    ensure!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

fn ops_address(server: &Server) -> Result<std::net::SocketAddr> {
    let text = std::fs::read(server.data_dir().join("addresses.json"))?;
    let addresses: serde_json::Value = serde_json::from_slice(&text)?;
    Ok(addresses["ops"].as_str().context("no ops listener")?.parse()?)
}
