//! Every write of a disk is recorded while clients push, move and delete; then the power fails at chosen moments of that
//! record: the disk is made as it would have been, mounted, the server started, and compared with what had been acknowledged
//! by then. And the proof that this test can fail: a program whose syncs are compiled out has to lose something.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use portcullis_tests::block_disk::{Asked, BlockDisk, Image};
use portcullis_tests::crash::Script;
use portcullis_tests::moments::{self, Moment, Replay};
use testkit::client::Login;
use testkit::{Client, Options, Rng, Server};

/// Nothing is collected but by command: a replay comes long after what was recorded.
const CONFIG: &str = "[gc]\ninterval = \"1h\"\n";
/// What was acknowledged is expected whenever the replay comes.
const KEPT: Duration = Duration::from_secs(1 << 30);
const PASSWORD: &str = "a long password";

/// What was recorded.
struct Record {
    /// The disk before.
    image: Image,
    asked: Vec<Asked>,
    /// How much of that is before the first start was ready.
    ready: usize,
    scripts: Vec<Script>,
}

fn server_on(disk: &BlockDisk, binary: Option<PathBuf>) -> Result<Server> {
    let data_dir = Some(disk.mount_point().join("data"));
    Server::start(Options { binary, data_dir, config: CONFIG.to_owned(), ..Options::default() })
}

fn client(server: &Server) -> Client {
    server.client(Login::Bearer("replay".to_owned(), PASSWORD.to_owned()))
}

/// The first start of a server, then two clients at once, a collection, and the two again.
fn record(kind: &str, rng: &mut Rng, binary: Option<PathBuf>) -> Result<Record> {
    let image = Image::formatted(kind)?;
    let disk = BlockDisk::mounted(image.clone())?;
    let recorder = disk.recorder();
    let mut server = server_on(&disk, binary)?;
    server.add_user("replay", PASSWORD)?;
    server.grant("user:replay", "maintainer", "replay/**")?;
    let ready = recorder.position();
    let mut scripts: Vec<Script> = ["replay/first", "replay/second"]
        .map(|name| Script::new(client(&server), rng.fork(), recorder.clone(), name))
        .into();
    let shared: Vec<Arc<Vec<u8>>> = [2_000, 50_000].map(|length| Arc::new(rng.bytes(length))).into();
    for round in 0..2 {
        std::thread::scope(|scope| {
            let shared = &shared;
            let threads: Vec<_> = scripts.iter_mut().map(|script| scope.spawn(move || script.work(shared))).collect();
            threads.into_iter().try_for_each(|thread| thread.join().unwrap_or_else(|_| bail!("a client panicked")))
        })?;
        if round == 0 {
            let run = || server.run(&["gc", "run", "--wait", "--grace", "0"]).map(|_| ());
            Script::collect(&mut scripts, run)?;
        }
    }
    let asked = recorder.taken();
    server.kill();
    Ok(Record { image, asked, ready, scripts })
}

/// The disk after a loss of power: what was acknowledged is there, nothing else is, and the server goes on.
fn look(record: &Record, image: Image, position: usize, binary: Option<PathBuf>) -> Result<()> {
    let disk = BlockDisk::mounted(image).context("the file system")?;
    let mut server = server_on(&disk, binary)?;
    server.assert_clean()?;
    if position >= record.ready {
        let mut client = client(&server);
        for script in &record.scripts {
            let promised = script.at(position).context("nothing is noted")?;
            promised.holds_no_more(&mut client, script.end())?;
            promised.clone().look(&mut client, KEPT)?;
        }
        let bytes = Rng::new(position as u64).bytes(40_000);
        client.push_blob("replay/after", &oci::Hasher::digest(oci::Algorithm::Sha256, &bytes), &bytes)?;
    }
    server.run(&["gc", "run", "--wait", "--grace", "0"])?;
    server.assert_spotless()?;
    server.kill();
    Ok(())
}

fn fails(moment: Moment, (pending, reached): (usize, usize)) -> String {
    format!("power lost after {} of the record, {reached} of {pending} sectors reached the disk", moment.position)
}

/// Loses the power so often in a record of the disk; fails when something that was acknowledged is gone.
fn replay(kind: &str, count: usize, binary: Option<PathBuf>) -> Result<()> {
    let rng = &mut Rng::announced(&format!("replays, {kind}"));
    let record = record(kind, rng, binary.clone())?;
    let flushes = record.asked.iter().filter(|asked| matches!(asked, Asked::Flush)).count();
    let marks: Vec<usize> = record.scripts.iter().flat_map(Script::marks).collect();
    eprintln!("{kind}: {} writes, {flushes} flushes, {} marks", record.asked.len() - flushes, marks.len());
    ensure!(binary.is_some() || flushes > marks.len() / 4, "flushes do not come through to the disk");
    let mut replay = Replay::new(&record.asked, record.image.clone());
    for moment in moments::choose(rng, &record.asked, &marks, count) {
        let (image, pending, reached) = replay.at(rng, moment);
        look(&record, image, moment.position, binary.clone()).with_context(|| fails(moment, (pending, reached)))?;
    }
    eprintln!("{kind}: {count} losses of power");
    Ok(())
}

/// Of `PORTCULLIS_REPLAYS` losses of power, so many percent.
fn share(percent: usize) -> Result<usize> {
    let all: usize = std::env::var("PORTCULLIS_REPLAYS").ok().map_or(Ok(40), |text| text.parse())?;
    Ok((all * percent).div_ceil(100))
}

// security: N-05
#[test]
fn of_every_write_on_ext4() -> Result<()> {
    replay("ext4", share(60)?, None)
}

// security: N-05
#[test]
fn of_every_write_on_xfs() -> Result<()> {
    replay("xfs", share(40)?, None)
}

#[test]
fn finds_a_program_without_syncs_out() -> Result<()> {
    let binary = std::env::var_os("PORTCULLIS_NO_SYNC_BIN")
        .context("PORTCULLIS_NO_SYNC_BIN is not set; `cargo xtask test --only power-cut` builds that program")?;
    match replay("ext4", 10, Some(binary.into())) {
        Ok(()) => bail!("10 losses of power took nothing from a program without syncs"),
        Err(error) => {
            eprintln!("as it should, without syncs: {error:#}");
            Ok(())
        }
    }
}
