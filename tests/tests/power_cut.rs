//! Power cuts: the file system below the data directory loses everything that was not synced. And the proof that this test
//! can fail: the same with a program whose syncs are compiled out has to lose something.

use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use portcullis_tests::LoopDisk;
use portcullis_tests::crash::{CONFIG, End, Traffic};
use testkit::image::Recipe;
use testkit::{Options, Rng, Server};

/// How long a blob that no manifest names is expected after its push.
const KEPT: Duration = Duration::from_secs(8);
/// The number of cuts within which a program without syncs has to be found out. It takes one or two.
const SOON: u32 = 10;

fn server_on(disk: &LoopDisk, binary: Option<PathBuf>) -> Result<Server> {
    let data_dir = Some(disk.mount_point().join("data"));
    Server::start(Options { binary, data_dir, config: CONFIG.to_owned(), ..Options::default() })
}

/// Cuts the power so often; fails when something that was acknowledged is gone.
fn cut_at_random(kind: &str, cuts: u32, binary: Option<PathBuf>) -> Result<()> {
    let rng = &mut Rng::announced(&format!("power cuts, {kind}"));
    let disk = LoopDisk::new(kind)?;
    let mut server = server_on(&disk, binary)?;
    let mut traffic = Traffic::new(&server, rng, 4, End::PowerCut)?;
    for cut in 1..=cuts {
        traffic.resume(&server);
        std::thread::sleep(Duration::from_millis(100 + rng.below(700)));
        ensure!(traffic.wait_for_flight(), "nothing is in flight");
        traffic.doom();
        disk.cut()?;
        std::thread::sleep(Duration::from_millis(rng.below(50)));
        server.kill();
        traffic.settle()?;
        disk.restore()?;
        server.launch().with_context(|| format!("after cut {cut}"))?;
        traffic.look(&server, KEPT).with_context(|| format!("after cut {cut}"))?;
        if cut % 5 == 0 {
            server.assert_clean().with_context(|| format!("after cut {cut}"))?;
        }
    }
    server.run(&["gc", "run", "--wait", "--grace", "0"])?;
    server.assert_spotless()?;
    let totals = traffic.totals();
    eprintln!(
        "{kind}: {cuts} cuts; {} requests acknowledged, {} cut",
        totals.acknowledged.load(Ordering::Relaxed),
        totals.cut.load(Ordering::Relaxed)
    );
    drop(traffic);
    server.kill();
    Ok(())
}

fn cuts() -> Result<u32> {
    let both: u32 = std::env::var("PORTCULLIS_CUTS").ok().map_or(Ok(30), |text| text.parse())?;
    Ok(both.div_ceil(2))
}

// security: N-03
#[test]
fn at_random_moments_on_ext4() -> Result<()> {
    cut_at_random("ext4", cuts()?, None)
}

// security: N-03
#[test]
fn at_random_moments_on_xfs() -> Result<()> {
    cut_at_random("xfs", cuts()?, None)
}

/// The very first push of a new registry, cut right after it was acknowledged: nothing but the syncs of names and
/// directories keeps keys, database and the blob's folder.
// security: N-09
#[test]
fn right_after_the_first_push() -> Result<()> {
    let rng = &mut Rng::announced("first push");
    for kind in ["ext4", "xfs"] {
        let disk = LoopDisk::new(kind)?;
        let mut server = server_on(&disk, None)?;
        let image = Recipe::new().layers(rng, 2, 200_000)?.image();
        let mut admin = server.admin();
        admin.push_image("new/repository", &image, "first")?;
        disk.cut()?;
        server.kill();
        disk.restore()?;
        server.launch()?;
        let mut admin = server.admin();
        admin.assert_serves("new/repository", &image)?;
        admin.assert_whole("new/repository", "first")?;
        server.assert_clean()?;
        server.kill();
    }
    Ok(())
}

#[test]
fn a_program_without_syncs_is_found_out() -> Result<()> {
    let binary = std::env::var_os("PORTCULLIS_NO_SYNC_BIN")
        .context("PORTCULLIS_NO_SYNC_BIN is not set; `cargo xtask test --only power-cut` builds that program")?;
    match cut_at_random("ext4", SOON, Some(binary.into())) {
        Ok(()) => bail!("{SOON} power cuts took nothing from a program without syncs"),
        Err(error) => {
            eprintln!("as it should, without syncs: {error:#}");
            Ok(())
        }
    }
}
