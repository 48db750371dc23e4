//! A disk that does not answer at all: who needs it is told in time, whoever does not is served, few threads are held, and
//! everything goes on when it answers again.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use oci::{Algorithm, Digest, Hasher};
use portcullis_tests::disk_scene::{DiskScene, KEPT, answers, go_on, push};
use portcullis_tests::{EVERYTHING, Fault, FaultDisk};
use testkit::http::{Body, Connection};
use testkit::{Client, Server};

/// Requests wait for the disk for a second.
const CONFIG: &str = "[storage]\nreserve = \"1MiB\"\ntimeout = \"1s\"\n";
/// No request takes longer: it waits at most for a thread, for the store, and for the database.
const BOUND: Duration = Duration::from_secs(15);
/// Threads that a silent disk may hold, and what the server has besides.
const THREADS: usize = 200;

/// Clients that pull and push at the same time, each on its own connection; how they were answered and how long it took.
fn crowd(server: &Server, count: usize, blob: &Digest, round: u8) -> Result<Vec<(u16, Duration)>> {
    let crowd: Vec<_> = (0..count)
        .map(|n| {
            let (mut client, blob) = (server.admin(), blob.clone());
            std::thread::spawn(move || -> Result<(u16, Duration)> {
                let start = Instant::now();
                let status = match n % 2 {
                    0 => pull(&mut client, &blob)?,
                    _ => {
                        let bytes = vec![round.wrapping_mul(31).wrapping_add(n as u8); 300_000 + n];
                        let digest = Hasher::digest(Algorithm::Sha256, &bytes);
                        push(&mut client, "team/new", &bytes, &digest)?.0.status
                    }
                };
                Ok((status, start.elapsed()))
            })
        })
        .collect();
    crowd.into_iter().map(|thread| thread.join().map_err(|_| anyhow!("panicked"))?).collect()
}

/// The status; 0 when the answer broke off.
fn pull(client: &mut Client, blob: &Digest) -> Result<u16> {
    match client.hash_blob(KEPT, blob) {
        Ok((200, actual, _)) => {
            ensure!(actual == *blob, "{actual} was served for {blob}");
            Ok(200)
        }
        Ok((status, ..)) => Ok(status),
        Err(_) => Ok(0),
    }
}

fn healthy(server: &Server) -> Result<()> {
    let start = Instant::now();
    let response = Connection::open(server.address(), &server.host())?.send("GET", "/healthz", &[], Body::None)?;
    ensure!(response.status == 200 && start.elapsed() < Duration::from_secs(2), "{response:?} {:?}", start.elapsed());
    Ok(())
}

/// Only the store is silent.
// security: O-07
#[test]
fn a_silent_store() -> Result<()> {
    let disk = FaultDisk::new()?;
    let mut scene = DiskScene::new("a silent store", Some(disk.mount_point().join("data")), CONFIG)?;
    let (bytes, digest) = scene.bytes(600_000);
    let blob = scene.kept.blobs[1].digest.clone();
    disk.set(&EVERYTHING, "/blobs", Fault::Silence);
    let (response, location) = scene.push(&bytes, &digest)?;
    answers(&response, 503)?;
    let answered = crowd(&scene.server, 160, &blob, 1)?;
    let longest = answered.iter().map(|(_, time)| *time).max().unwrap_or_default();
    ensure!(longest < BOUND, "{longest:?}");
    ensure!(answered.iter().all(|(status, _)| matches!(status, 0 | 503)), "{answered:?}");
    ensure!(scene.threads()? <= THREADS, "{} threads", scene.threads()?);
    // Now all that may wait for it do, and nobody else does.
    let start = Instant::now();
    let answered = crowd(&scene.server, 40, &blob, 2)?;
    eprintln!("the first of a silent store waited {longest:?}, those after them {:?}", start.elapsed());
    ensure!(answered.iter().all(|(status, _)| matches!(status, 0 | 503)), "{answered:?}");
    ensure!(scene.threads()? <= THREADS, "{} threads", scene.threads()?);
    // What does not need it is served.
    healthy(&scene.server)?;
    let start = Instant::now();
    let mut client = scene.server.admin();
    ensure!(client.manifest(KEPT, "1")?.status == 200, "a token and a manifest need no store");
    scene.server.run(&["user", "add", "another"])?;
    ensure!(start.elapsed() < BOUND, "{:?}", start.elapsed());
    scene.becomes(503, "\"store\":\"silent\"")?;
    ensure!(scene.logged("disk or database fails")? == 1, "told once");
    ensure!(disk.lift() > 0);
    let goes_on = Instant::now();
    let location = location.context("no session")?;
    while let Err(error) = go_on(&mut scene.client, &location, &bytes, &digest) {
        ensure!(goes_on.elapsed() < Duration::from_secs(10), "{error:#}");
        scene.client.reconnect();
        std::thread::sleep(Duration::from_millis(100));
    }
    scene.has_recovered()
}

/// Nothing of the data directory answers, the database neither.
// security: O-07
#[test]
fn a_silent_disk() -> Result<()> {
    let disk = FaultDisk::new()?;
    let mut scene = DiskScene::new("a silent disk", Some(disk.mount_point().join("data")), CONFIG)?;
    let (bytes, digest) = scene.bytes(600_000);
    let blob = scene.kept.blobs[1].digest.clone();
    disk.set(&EVERYTHING, "", Fault::Silence);
    let start = Instant::now();
    let response = scene.push(&bytes, &digest)?.0;
    answers(&response, 503)?;
    ensure!(start.elapsed() < BOUND, "{:?}", start.elapsed());
    for round in 1..3 {
        let answered = crowd(&scene.server, 60, &blob, round)?;
        let longest = answered.iter().map(|(_, time)| *time).max().unwrap_or_default();
        eprintln!("round {round} of a silent disk: at most {longest:?}");
        ensure!(longest < BOUND, "{longest:?}");
        ensure!(answered.iter().all(|(status, _)| matches!(status, 0 | 503)), "{answered:?}");
        ensure!(scene.threads()? <= THREADS, "{} threads", scene.threads()?);
        // A token for credentials that were shown before needs no database.
        healthy(&scene.server)?;
        scene.server.admin().authorization("team/other")?;
    }
    ensure!(scene.ready()?.0 == 503);
    ensure!(disk.lift() > 0);
    scene.has_recovered()
}

/// Only syncs do not return: nothing is acknowledged, and nothing else suffers.
// security: O-07, O-08
#[test]
fn silent_syncs() -> Result<()> {
    for path in ["/blobs", "meta.db-wal"] {
        let disk = FaultDisk::new()?;
        let mut scene = DiskScene::new("silent syncs", Some(disk.mount_point().join("data")), CONFIG)?;
        let (bytes, digest) = scene.bytes(600_000);
        disk.set(&["fsync", "fsyncdir"], path, Fault::Silence);
        answers(&scene.push(&bytes, &digest)?.0, 503).context(path)?;
        scene.serves().context(path)?;
        ensure!(scene.client.blob("team/new", &digest)?.status == 404, "{path}");
        healthy(&scene.server)?;
        ensure!(disk.lift() > 0, "{path}");
        scene.has_recovered().context(path)?;
    }
    Ok(())
}
