//! Deaths at chosen points: before each writing system call, in the middle of the first start, with torn writes, and asked
//! for politely.

use std::fs::File;
use std::io::Write as _;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use oci::{Algorithm, Hasher};
use portcullis_tests::crash::{CONFIG, End, Traffic};
use portcullis_tests::strace;
use testkit::client::{location_of, with_digest};
use testkit::http::Body;
use testkit::image::Recipe;
use testkit::{Options, Rng, Server};

const KEPT: Duration = Duration::from_secs(8);

/// System calls that change what is on the disk; those that a kernel does not know are left out by `?`.
const WRITING: [&str; 7] = [
    "?open,openat",
    "write,?writev",
    "pwrite64,?pwritev",
    "fsync,fdatasync,?sync_file_range",
    "?rename,renameat,renameat2,?link,linkat",
    "?unlink,unlinkat,?mkdir,mkdirat",
    "ftruncate,fallocate",
];

/// Kills the server when one of its threads is about to make its n-th of these system calls.
fn kill_at(server: &Server, calls: &str, nth: u32) -> Result<Child> {
    strace::inject(server, calls, &format!("signal=KILL:when={nth}"))
}

// security: N-02, N-08
#[test]
fn killed_before_each_writing_system_call() -> Result<()> {
    let rng = &mut Rng::announced("system calls");
    let mut server = Server::start(Options { config: CONFIG.to_owned(), ..Options::default() })?;
    let mut traffic = Traffic::new(&server, rng, 1, End::Kill)?;
    let moments: u32 = std::env::var("PORTCULLIS_MOMENTS").ok().map_or(Ok(6), |text| text.parse())?;
    let mut reached = 0;
    for calls in WRITING {
        for nth in 1..=moments {
            let mut strace = kill_at(&server, calls, nth)?;
            traffic.resume(&server);
            let died = server.ends_within(Duration::from_millis(1500));
            reached += u32::from(died);
            server.kill();
            let _ = strace.wait();
            traffic.settle()?;
            server.launch()?;
            traffic.look(&server, KEPT).with_context(|| format!("killed before {calls}, number {nth}"))?;
            if !died {
                // Later moments of this kind do not come either.
                break;
            }
        }
        server.assert_clean().with_context(|| format!("after kills before {calls}"))?;
    }
    eprintln!("{reached} kills before a writing system call");
    ensure!(reached >= 15, "only {reached} kills hit a system call");
    Ok(())
}

/// Database, keys and first account are made in the first start; whatever is there half is finished by the next.
// security: N-08
#[test]
fn killed_during_the_first_start() -> Result<()> {
    let rng = &mut Rng::announced("first start");
    for round in 0..15 {
        let directory = tempfile::tempdir()?;
        let data_dir = directory.path().join("data");
        let database = testkit::database()?;
        for _ in 0..1 + rng.below(3) {
            let mut child = testkit::with_database(
                &mut Command::new(testkit::binary()),
                database.as_ref().map(|database| database.url()),
            )
            .args(["serve", "--listen", "127.0.0.1:0", "--admin-listen", "off", "--data-dir"])
            .arg(&data_dir)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
            std::thread::sleep(Duration::from_millis(rng.below(150)));
            child.kill()?;
            child.wait()?;
        }
        let server =
            Server::start(Options { data_dir: Some(data_dir), database: database.clone(), ..Options::default() })
                .with_context(|| format!("round {round}"))?;
        let image = Recipe::new().layer(rng, 50_000)?.image();
        let mut admin = server.admin();
        admin.push_image("first/image", &image, "1").with_context(|| format!("round {round}"))?;
        admin.assert_serves("first/image", &image)?;
        server.assert_clean().with_context(|| format!("round {round}"))?;
    }
    Ok(())
}

/// What the disk may have of writes that were never acknowledged: a part of a transaction at the end of the log, bytes of an
/// upload beyond the offset that was promised.
// security: N-06, H-10
#[test]
fn torn_writes_are_dropped() -> Result<()> {
    let rng = &mut Rng::announced("torn writes");
    let mut server = Server::start_default()?;
    let image = Recipe::new().layers(rng, 2, 100_000)?.image();
    let mut admin = server.admin();
    admin.push_image("team/torn", &image, "1")?;
    let bytes = rng.bytes(1 << 20);
    let digest = Hasher::digest(Algorithm::Sha256, &bytes);
    for round in 0..8 {
        let mut admin = server.admin();
        let location = admin.start("team/torn")?;
        let half = Body::Bytes(&bytes[..600_000]);
        let sent = admin.send("team/torn", "PATCH", &location, &[], half)?.expect_status(202)?;
        server.kill();
        let garbage = usize::try_from(1 + rng.below(9000))?;
        // PostgreSQL's log is elsewhere, and its own.
        if server.database_url().is_none() {
            append(&server.data_dir().join("meta.db-wal"), &rng.bytes(garbage))?;
        }
        let id = sent.header("docker-upload-uuid").context("no upload id")?.replace('-', "");
        append(&server.data_dir().join("blobs").join(&id[..2]).join(&id), &rng.bytes(garbage))?;
        server.launch().with_context(|| format!("round {round}"))?;
        let mut admin = server.admin();
        admin.assert_serves("team/torn", &image).with_context(|| format!("round {round}"))?;
        let rest = Body::Bytes(&bytes[600_000..]);
        let target = with_digest(&location_of(&sent)?, &digest);
        admin.send("team/torn", "PUT", &target, &[], rest)?.expect_status(201)?;
        let (status, actual, _) = admin.hash_blob("team/torn", &digest)?;
        ensure!(status == 200 && actual == digest, "{status}: {actual} came back for {digest}");
        server.assert_clean().with_context(|| format!("round {round}"))?;
    }
    Ok(())
}

fn append(path: &std::path::Path, bytes: &[u8]) -> Result<()> {
    let mut file = File::options().append(true).open(path).with_context(|| path.display().to_string())?;
    file.write_all(bytes)?;
    Ok(())
}

// security: N-10
#[test]
fn asked_to_end_under_load() -> Result<()> {
    let rng = &mut Rng::announced("SIGTERM");
    let mut server = Server::start(Options { config: CONFIG.to_owned(), ..Options::default() })?;
    let mut traffic = Traffic::new(&server, rng, 4, End::Kill)?;
    for round in 0..5 {
        traffic.resume(&server);
        std::thread::sleep(Duration::from_millis(200 + rng.below(500)));
        ensure!(traffic.wait_for_flight(), "nothing is in flight");
        let status = server.stop()?;
        ensure!(status.success(), "round {round}: SIGTERM under load ended with {status}");
        traffic.settle()?;
        server.assert_clean()?;
        server.launch()?;
        traffic.look(&server, KEPT).with_context(|| format!("round {round}"))?;
    }
    Ok(())
}
