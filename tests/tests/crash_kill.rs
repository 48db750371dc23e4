//! `kill -9` at random moments while clients push, move, delete, and garbage is collected every second.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use portcullis_tests::crash::{CONFIG, End, Traffic};
use testkit::{Options, Rng, Server};

/// How long a blob that no manifest names is expected after its push.
const KEPT: Duration = Duration::from_secs(8);

// security: N-01, N-08, I-18
#[test]
fn killed_at_random_moments() -> Result<()> {
    let kills: u32 = std::env::var("PORTCULLIS_KILLS").ok().map_or(Ok(100), |text| text.parse())?;
    let rng = &mut Rng::announced("kill -9");
    let mut server = Server::start(Options { config: CONFIG.to_owned(), ..Options::default() })?;
    let mut traffic = Traffic::new(&server, rng, 4, End::Kill)?;
    let start = Instant::now();
    let mut restarts = Duration::ZERO;
    let mut killed = 0;
    while killed < kills {
        traffic.resume(&server);
        std::thread::sleep(Duration::from_millis(50 + rng.below(700)));
        if !traffic.wait_for_flight() {
            traffic.settle()?;
            continue;
        }
        server.kill();
        killed += 1;
        traffic.settle()?;
        if killed % 10 == 0 {
            server.assert_clean().with_context(|| format!("after kill {killed}, before the restart"))?;
        }
        let restart = Instant::now();
        server.launch()?;
        restarts += restart.elapsed();
        traffic.look(&server, KEPT).with_context(|| format!("after kill {killed}"))?;
    }
    // One more time in peace: nothing is left over that a collection or a check would trip over.
    server.run(&["gc", "run", "--wait", "--grace", "0"])?;
    server.assert_spotless()?;
    let totals = traffic.totals();
    eprintln!(
        "{killed} kills in {:.0} s, restarts took {:.0} ms each; {} requests acknowledged, {} cut, {} uploads resumed",
        start.elapsed().as_secs_f64(),
        restarts.as_secs_f64() * 1000.0 / f64::from(killed.max(1)),
        totals.acknowledged.load(Ordering::Relaxed),
        totals.cut.load(Ordering::Relaxed),
        totals.resumed.load(Ordering::Relaxed),
    );
    ensure!(totals.cut.load(Ordering::Relaxed) >= u64::from(kills), "the kills hit nothing");
    if kills >= 100 {
        ensure!(totals.resumed.load(Ordering::Relaxed) > 0, "no upload was cut in the middle and resumed");
    }
    Ok(())
}
