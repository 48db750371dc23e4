//! A disk that answers with errors: what clients get, that nothing acknowledged is lost and nothing partial is served, and
//! that everything goes on when the disk does.

use std::path::Path;
use std::process::Child;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use portcullis_tests::disk_scene::{DiskScene, KEPT, answers, go_on, push, system};
use portcullis_tests::{CHANGING, Fault, FaultDisk, strace};
use rustix::io::Errno;
use testkit::http::Body;
use testkit::image::Recipe;
use testkit::{Options, Server};

const CONFIG: &str = "[storage]\nreserve = \"1MiB\"\n";

fn scene(name: &str) -> Result<(FaultDisk, DiskScene)> {
    let disk = FaultDisk::new()?;
    let scene = DiskScene::new(name, Some(disk.mount_point().join("data")), CONFIG)?;
    Ok((disk, scene))
}

fn fail(errno: Errno) -> Fault {
    Fault::Fail(errno.raw_os_error())
}

/// A fault of the store's files: which operations, with what, and the status of a push meanwhile. Whether the session lives on.
type Row = (&'static [&'static str], Fault, u16, bool);

// security: O-03, O-05, O-06
#[test]
fn errors_of_the_store() -> Result<()> {
    let (disk, mut scene) = scene("errors of the store")?;
    let rows: [Row; 13] = [
        (&["write"], fail(Errno::IO), 503, true),
        (&["write"], fail(Errno::NOSPC), 507, true),
        (&["write"], fail(Errno::DQUOT), 507, true),
        (&["write"], fail(Errno::FBIG), 507, true),
        (&["write"], Fault::FullAfter(700_000), 507, true),
        (&CHANGING, fail(Errno::ROFS), 503, true),
        (&["create"], fail(Errno::IO), 503, true),
        (&["create"], fail(Errno::NOSPC), 507, true),
        (&["create"], fail(Errno::MFILE), 503, true),
        (&["create"], fail(Errno::NFILE), 503, true),
        // What of the file is on the disk can never be known again: its upload begins anew.
        (&["fsync"], fail(Errno::IO), 503, false),
        (&["fsync"], fail(Errno::NOSPC), 507, false),
        (&["fsyncdir"], fail(Errno::IO), 503, false),
    ];
    for (operations, fault, status, lives_on) in rows {
        let (bytes, digest) = scene.bytes(2_000_000);
        disk.set(operations, "/blobs/", fault);
        let (response, location) = scene.push(&bytes, &digest)?;
        let whole = format!("{operations:?} {fault:?}: {response:?}");
        answers(&response, status).with_context(|| whole.clone())?;
        scene.serves().with_context(|| whole.clone())?;
        ensure!(scene.client.blob("team/new", &digest)?.status == 404, "{whole}: something of it is served");
        // In one request, nothing can be gone on with, and nothing is left.
        let target = format!("/v2/team/new/blobs/uploads/?digest={digest}");
        let at_once = scene.client.send("team/new", "POST", &target, &[], Body::Bytes(&bytes))?;
        answers(&at_once, status).with_context(|| whole.clone())?;
        ensure!(disk.lift() > 0, "{whole}: nothing met the fault");
        let location = location.context("no session")?;
        match lives_on {
            true => {
                let offset = go_on(&mut scene.client, &location, &bytes, &digest).with_context(|| whole.clone())?;
                eprintln!("{operations:?} {fault:?}: {status}, and the upload went on at {offset}");
            }
            false => {
                let path = location.split('?').next().unwrap_or_default();
                let gone = scene.client.send("team/new", "GET", path, &[], Body::None)?;
                ensure!(gone.status == 404, "{whole}: the session is still there: {gone:?}");
                ensure!(scene.push(&bytes, &digest)?.0.status == 201, "{whole}");
            }
        }
    }
    for (kind, text) in [("full", "the disk is full"), ("unavailable", "disk or database fails")] {
        let name = format!("portcullis_storage_failures_total{{kind=\"{kind}\"}}");
        ensure!(scene.metric(&name)? >= 6.0, "{name} {}", scene.metric(&name)?);
        ensure!(scene.logged(text)? == 1, "{text}: {} times in the log", scene.logged(text)?);
    }
    scene.has_recovered()
}

/// The system may do a part of what it was asked for.
// security: O-05
#[test]
fn parts_are_made_whole() -> Result<()> {
    let (disk, mut scene) = scene("parts")?;
    disk.set(&["read", "write", "part"], "/blobs/", Fault::Part(10_007));
    let (bytes, digest) = scene.bytes(600_000);
    ensure!(scene.push(&bytes, &digest)?.0.status == 201);
    let served = scene.client.blob("team/new", &digest)?;
    ensure!(served.status == 200 && served.body == bytes, "{} bytes", served.body.len());
    ensure!(disk.lift() > 50);
    scene.has_recovered()
}

/// A read that fails never looks like the end of the blob.
// security: O-05
#[test]
fn errors_of_reads() -> Result<()> {
    let (disk, mut scene) = scene("reads")?;
    let (bytes, digest) = scene.bytes(1_000_000);
    ensure!(scene.push(&bytes, &digest)?.0.status == 201);
    for errno in [Errno::IO, Errno::MFILE, Errno::NFILE] {
        disk.set(&["open"], "/blobs/", fail(errno));
        answers(&scene.client.blob("team/new", &digest)?, 503)?;
        ensure!(scene.client.manifest(KEPT, "1")?.status == 200, "the database is well");
        ensure!(disk.lift() > 0);
    }
    drop_caches()?;
    disk.set(&["read"], "/blobs/", fail(Errno::IO));
    match scene.client.blob("team/new", &digest) {
        Err(error) => eprintln!("as it should, a broken answer: {error}"),
        Ok(response) => answers(&response, 503)?,
    }
    ensure!(disk.lift() > 0);
    ensure!(scene.client.blob("team/new", &digest)?.body == bytes);
    scene.has_recovered()
}

// security: O-05
#[test]
fn errors_of_the_database() -> Result<()> {
    let (disk, mut scene) = scene("errors of the database")?;
    let image = Recipe::new().layers(&mut scene.rng, 1, 100)?.image();
    for (fault, status) in [(fail(Errno::NOSPC), 507), (fail(Errno::IO), 503), (fail(Errno::ROFS), 503)] {
        let (bytes, digest) = scene.bytes(2_000);
        disk.set(&["write"], "meta.db-wal", fault);
        let (response, _) = scene.push(&bytes, &digest)?;
        answers(&response, status).with_context(|| format!("{fault:?}"))?;
        let manifest = scene.client.put_manifest(KEPT, "2", image.media_type, &scene.kept.manifest.bytes)?;
        answers(&manifest, status).with_context(|| format!("{fault:?}"))?;
        scene.serves()?;
        ensure!(scene.ready()?.0 == 503, "{fault:?}");
        ensure!(disk.lift() > 0);
        ensure!(scene.client.manifest(KEPT, "2")?.status == 404);
        // A write that failed is written again: no restart is needed.
        ensure!(scene.push(&bytes, &digest)?.0.status == 201, "{fault:?}\n{}", scene.server.log_tail());
    }
    scene.has_recovered()
}

/// After a failed sync of the database nothing is written until it is started again, for nobody knows what of the log is on
/// the disk; and a blob whose commit may have been made keeps its bytes.
// security: O-04
#[test]
fn a_failed_sync_of_the_database() -> Result<()> {
    let (disk, mut scene) = scene("a failed sync of the database")?;
    let (bytes, digest) = scene.bytes(100_000);
    ensure!(scene.push(&bytes, &digest)?.0.status == 201);
    for round in ["in one request", "by a session"] {
        disk.set(&["fsync"], "meta.db-wal", fail(Errno::IO));
        let response = match round {
            "by a session" => scene.push(&bytes, &digest)?.0,
            _ => {
                let target = format!("/v2/team/new/blobs/uploads/?digest={digest}");
                scene.client.send("team/new", "POST", &target, &[], Body::Bytes(&bytes))?
            }
        };
        answers(&response, 503).context(round)?;
        ensure!(disk.lift() > 0, "{round}");
        answers(&scene.push(&bytes, &digest)?.0, 503).context("healed by itself, which it cannot know")?;
        scene.becomes(503, "read_only")?;
        scene.serves()?;
        ensure!(scene.client.blob("team/new", &digest)?.body == bytes, "{round}");
        ensure!(scene.logged("could not be synced")? >= 1);
        scene.server.kill();
        scene.relaunch()?;
        scene.serves()?;
        ensure!(scene.client.blob("team/new", &digest)?.body == bytes, "{round}: an acknowledged blob is lost");
        scene.server.assert_clean().context(round)?;
    }
    scene.has_recovered()
}

/// Collection fails where nothing can be removed, says so, and goes on when it can.
// security: O-05
#[test]
fn errors_of_collection() -> Result<()> {
    let (disk, mut scene) = scene("collection")?;
    let (bytes, digest) = scene.bytes(100_000);
    ensure!(scene.push(&bytes, &digest)?.0.status == 201);
    for errno in [Errno::IO, Errno::ROFS] {
        disk.set(&["unlink", "readdir"], "/blobs/", fail(errno));
        ensure!(!scene.server.output(&["gc", "run", "--wait", "--grace", "0"])?.status.success(), "{errno}");
        scene.serves()?;
        ensure!(disk.lift() > 0);
    }
    scene.is_clean()?;
    ensure!(scene.client.blob("team/new", &digest)?.status == 404);
    scene.has_recovered()
}

/// The blobs lie on a disk that becomes read-only under the running server, and writable again.
// security: O-06
#[test]
fn a_disk_that_becomes_read_only() -> Result<()> {
    for kind in ["ext4", "xfs"] {
        let (disk, mut scene) = blobs_on(kind, 400 << 20, &[])?;
        let (bytes, digest) = scene.bytes(400_000);
        let at = disk.mount_point().display().to_string();
        system("mount", &["-o", "remount,ro", &at])?;
        let (response, location) = scene.push(&bytes, &digest)?;
        answers(&response, 503)?;
        scene.serves()?;
        scene.becomes(503, "\"store\":\"read_only\"")?;
        ensure!(scene.metric("portcullis_storage_failures_total{kind=\"read_only\"}")? >= 1.0);
        system("mount", &["-o", "remount,rw", &at])?;
        go_on(&mut scene.client, &location.context("no session")?, &bytes, &digest)?;
        scene.has_recovered()?;
        drop(scene);
    }
    Ok(())
}

/// A server whose blobs are on a disk of their own.
fn blobs_on(kind: &str, bytes: u64, arguments: &[&str]) -> Result<(portcullis_tests::BoundDisk, DiskScene)> {
    let disk = portcullis_tests::BoundDisk::new(kind, bytes, arguments)?;
    let scene = DiskScene::new(&format!("blobs on {kind}"), Some(disk.data_dir()), CONFIG)?;
    Ok((disk, scene))
}

/// The file system itself gives up (`errors=remount-ro`). It can only be mounted anew, so a restart is needed.
// security: O-06
#[test]
fn a_file_system_that_gives_up() -> Result<()> {
    let disk = portcullis_tests::LoopDisk::sized("ext4", 256 << 20, &["-e", "remount-ro"])?;
    let mut scene = DiskScene::new("gives up", Some(disk.mount_point().join("data")), CONFIG)?;
    let (bytes, digest) = scene.bytes(400_000);
    disk.give_up()?;
    answers(&scene.push(&bytes, &digest)?.0, 503)?;
    scene.serves()?;
    ensure!(scene.ready()?.0 == 503);
    scene.server.kill();
    disk.restore()?;
    scene.relaunch()?;
    scene.has_recovered()?;
    scene.server.kill();
    Ok(())
}

// security: O-03
#[test]
fn a_limit_on_the_size_of_files() -> Result<()> {
    let mut scene = DiskScene::new("a limit on files", None, CONFIG)?;
    let limit = |value: &str| {
        let (id, limit) = (scene.server.id().to_string(), format!("--fsize={value}"));
        system("prlimit", &["--pid", &id, &limit])
    };
    limit("3000000:unlimited")?;
    let mut client = scene.server.admin();
    let bytes = vec![7; 6_000_000];
    let digest = oci::Hasher::digest(oci::Algorithm::Sha256, &bytes);
    answers(&push(&mut client, "team/new", &bytes, &digest)?.0, 507)?;
    limit("unlimited:unlimited")?;
    ensure!(scene.push(&bytes, &digest)?.0.status == 201);
    scene.has_recovered()
}

/// No descriptor is left: those who are served are told, those who come wait, and all goes on.
// security: O-05
#[test]
fn no_descriptors_left() -> Result<()> {
    let mut scene = DiskScene::new("descriptors", None, CONFIG)?;
    let (bytes, digest) = scene.bytes(400_000);
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", scene.server.id()))?;
    let usual = limits.lines().find_map(|line| line.strip_prefix("Max open files")).context("no limit of files")?;
    let usual = usual.split_whitespace().next().unwrap_or_default().to_owned();
    let limit = |value: String| {
        let (id, limit) = (scene.server.id().to_string(), format!("--nofile={value}:"));
        system("prlimit", &["--pid", &id, &limit])
    };
    let mut client = scene.server.admin();
    client.manifest(KEPT, "1")?.expect_status(200)?;
    client.start("team/new")?;
    // What is open stays open.
    limit("10".to_owned())?;
    answers(&client.blob(KEPT, &scene.kept.blobs[1].digest)?, 503)?;
    answers(&push(&mut client, "team/new", &bytes, &digest)?.0, 503)?;
    // Those who come in great numbers wait to be accepted.
    let address = scene.server.address();
    let waiting = std::thread::spawn(move || {
        let mut connection = testkit::http::Connection::open(address, &format!("localhost:{}", address.port()))?;
        connection.send("GET", "/healthz", &[], Body::None)
    });
    std::thread::sleep(Duration::from_millis(1500));
    ensure!(scene.logged("cannot accept a connection")? == 1, "{}", scene.server.log_tail());
    limit(usual)?;
    let answer = waiting.join().map_err(|_| anyhow::anyhow!("panicked"))??;
    ensure!(answer.status == 200, "{answer:?}");
    ensure!(scene.push(&bytes, &digest)?.0.status == 201);
    scene.has_recovered()
}

/// System calls of which the n-th of a thread fails, on a real disk.
const CALLS: [&str; 8] = [
    "openat",
    "pwrite64",
    "fdatasync",
    "fsync",
    "unlink,unlinkat",
    "ftruncate,fallocate",
    "pread64",
    "statx,newfstatat,fstat",
];

struct Injected(Child);

impl Injected {
    fn new(server: &Server, calls: &str, error: &str, nth: u32) -> Result<Self> {
        Ok(Self(strace::inject(server, calls, &format!("error={error}:when={nth}"))?))
    }
}

impl Drop for Injected {
    fn drop(&mut self) {
        // Asked politely, strace lets go of the server.
        if let Some(pid) = i32::try_from(self.0.id()).ok().and_then(rustix::process::Pid::from_raw) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let _ = self.0.wait();
    }
}

// security: O-05
#[test]
fn any_system_call_may_fail() -> Result<()> {
    let moments: u32 = std::env::var("PORTCULLIS_MOMENTS").ok().map_or(Ok(3), |text| text.parse())?;
    let mut scene = DiskScene::new("system calls", None, CONFIG)?;
    let (mut refused, mut restarts) = (0, 0);
    for (calls, error) in CALLS.iter().flat_map(|calls| ["EIO", "ENOSPC", "EMFILE"].map(|error| (*calls, error))) {
        for nth in 1..=moments {
            let moment = format!("{calls} {error} {nth}");
            let (bytes, digest) = scene.bytes(600_000);
            let injected = Injected::new(&scene.server, calls, error, nth)?;
            let (response, _) = scene.push(&bytes, &digest).with_context(|| moment.clone())?;
            let pulled = scene.client.blob(KEPT, &scene.kept.blobs[1].digest);
            drop(injected);
            match response.status {
                201 => {}
                status @ (503 | 507) => {
                    answers(&response, status).with_context(|| moment.clone())?;
                    refused += 1;
                }
                _ => ensure!(false, "{moment}: {response:?}\n{}", scene.server.log_tail()),
            }
            if let Ok(pulled) = pulled {
                let good = pulled.status == 200 && pulled.body == scene.kept.blobs[1].bytes;
                ensure!(
                    good || matches!(pulled.status, 503 | 507),
                    "{moment}: {pulled:?}\n{}",
                    scene.server.log_tail()
                );
            }
            if response.status == 201 {
                let (status, actual, _) = scene.client.hash_blob("team/new", &digest)?;
                ensure!(status == 200 && actual == digest, "{moment}: what was acknowledged is {status} {actual}");
            }
            let mut again = scene.push(&bytes, &digest)?.0;
            if again.status == 503 {
                // The log of the database could not be synced.
                restarts += 1;
                ensure!(matches!(calls, "fdatasync" | "fsync"), "{moment}: {}", scene.server.log_tail());
                scene.becomes(503, "read_only")?;
                scene.server.kill();
                scene.relaunch()?;
                scene.server.assert_clean().with_context(|| moment.clone())?;
                again = scene.push(&bytes, &digest)?.0;
            }
            ensure!(again.status == 201, "{moment}: {again:?}");
        }
        scene.server.assert_clean().with_context(|| format!("{calls} {error}"))?;
    }
    eprintln!("{refused} pushes were refused, {restarts} times the server had to be started again");
    ensure!(refused >= 10, "only {refused} injected errors were met");
    scene.has_recovered()
}

/// A folder of the store that nobody may write to: for a server that is not root.
// security: O-05
#[test]
fn a_folder_with_wrong_rights() -> Result<()> {
    let mut scene = DiskScene::new("rights", None, CONFIG)?;
    let blobs = scene.server.data_dir().join("blobs");
    let (bytes, digest) = scene.bytes(400_000);
    // Root passes all modes; this it does not pass.
    for_each_folder(&blobs, "+i")?;
    let (response, location) = scene.push(&bytes, &digest)?;
    for_each_folder(&blobs, "-i")?;
    answers(&response, 503)?;
    scene.serves()?;
    go_on(&mut scene.client, &location.context("no session")?, &bytes, &digest)?;
    scene.has_recovered()
}

fn for_each_folder(blobs: &Path, change: &str) -> Result<()> {
    let folders: Vec<String> =
        std::fs::read_dir(blobs)?.flatten().map(|entry| entry.path().display().to_string()).collect();
    let mut arguments = vec![change];
    arguments.extend(folders.iter().map(String::as_str));
    system("chattr", &arguments)
}

fn drop_caches() -> Result<()> {
    Ok(std::fs::write("/proc/sys/vm/drop_caches", "3")?)
}

/// The server says at the start what is wrong with its disk, and ends.
// security: O-05
#[test]
fn a_start_on_a_bad_disk() -> Result<()> {
    let disk = FaultDisk::new()?;
    let data_dir = disk.mount_point().join("data");
    let options = || Options { data_dir: Some(data_dir.clone()), ..Options::default() };
    for (operations, errno) in
        [(&["mkdir"][..], Errno::IO), (&["fsync", "fsyncdir"], Errno::IO), (&["create"], Errno::ROFS)]
    {
        disk.set(operations, "data", fail(errno));
        let error = Server::start(options()).err().context("started")?;
        ensure!(format!("{error:#}").contains("ended"), "{error:#}");
        ensure!(disk.lift() > 0);
    }
    let server = Server::start(options())?;
    server.assert_clean()
}
