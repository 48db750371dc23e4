//! Pushes that are killed half way, and what they leave.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::Stage;

/// How much of a push has arrived when it is killed.
const ARRIVED: u64 = 4 << 20;
/// Longest wait for anything here.
const PATIENCE: Duration = Duration::from_secs(60);

/// Settings for a stage whose cancelled pushes are collected within seconds.
pub const SHORT_TIMES: &str = "[gc]\ngrace = \"1s\"\n[upload]\nidle = \"3s\"\n";

impl Stage {
    /// Starts a push and interrupts it with Ctrl-C once the server has taken in some MiB. The push has to be of more than it
    /// can send in a moment.
    pub fn interrupt_push(&self, mut command: Command) -> Result<()> {
        let before = self.stored()?;
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        let start = Instant::now();
        while self.stored()? < before + ARRIVED {
            ensure!(child.try_wait()?.is_none(), "the push ended before it could be interrupted");
            ensure!(start.elapsed() < PATIENCE, "the push sends nothing");
            std::thread::sleep(Duration::from_millis(5));
        }
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).context("process id")?;
        kill_process(pid, Signal::INT)?;
        let status = child.wait()?;
        ensure!(!status.success(), "the interrupted push succeeded");
        Ok(())
    }

    /// Collects until no more is stored than this; a stage with [`SHORT_TIMES`] gets there within seconds.
    pub fn collect_down_to(&self, bytes: u64) -> Result<()> {
        let start = Instant::now();
        loop {
            self.server.run(&["gc", "run", "--wait", "--grace", "1s", "--json"])?;
            let stored = self.stored()?;
            if stored <= bytes {
                eprintln!("collected after {:.1} s", start.elapsed().as_secs_f64());
                return Ok(());
            }
            if start.elapsed() > PATIENCE {
                bail!("{stored} bytes are still stored, {bytes} were before");
            }
            std::thread::sleep(Duration::from_millis(500));
        }
    }

    /// Bytes of the files in the store, those of uploads under way included.
    pub fn stored(&self) -> Result<u64> {
        fn below(folder: &Path) -> Result<u64> {
            let mut sum = 0;
            for entry in std::fs::read_dir(folder).with_context(|| folder.display().to_string())? {
                let entry = entry?;
                // Files come and go meanwhile.
                sum += match entry.metadata() {
                    Ok(metadata) if metadata.is_dir() => below(&entry.path())?,
                    Ok(metadata) => metadata.len(),
                    Err(_) => 0,
                };
            }
            Ok(sum)
        }
        below(&self.server.data_dir().join("blobs"))
    }
}
