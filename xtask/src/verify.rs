//! `cargo xtask verify`: what is too long for each run. Its last result is checked in, with the commit that it is about.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Result, ensure};
use testdb::Engine;

use crate::part::{Scene, built_with, with_rows, without_syncs};
use crate::postgres::Servers;
use crate::process::{Count, cargo, output, run};
use crate::{install, mutation};

const FILE: &str = "docs/verify.md";

/// Runs everything and writes the page; whether all passed.
pub fn run_all(root: &Path) -> Result<bool> {
    let changed =
        output(Command::new("git").current_dir(root).args(["status", "--porcelain", "--untracked-files=no"]))?;
    ensure!(changed.is_empty(), "commit first: the result is about a commit\n{changed}");
    let commit = output(Command::new("git").current_dir(root).args(["rev-parse", "HEAD"]))?;
    let tools = install::everything()?;
    let servers = Servers::start()?;
    let scene = |engine, variables| Scene { root: root.to_owned(), tools: tools.clone(), engine, variables };
    let scenes =
        [("SQLite", scene(Engine::Sqlite, Vec::new())), ("PostgreSQL", scene(Engine::Postgres, servers.direct()))];
    run(&mut cargo(root, &["build", "--release", "-p", "portcullis"]))?;

    let (kills, cuts) = (setting("PORTCULLIS_KILLS", "1000"), setting("PORTCULLIS_CUTS", "200"));
    let mut rows = Vec::new();
    for (engine, scene) in &scenes {
        rows.push(row(format!("{kills} kills at random moments, {engine}"), || {
            built_with(scene, "crash_kill", &[("PORTCULLIS_KILLS", &kills)])
        }));
        rows.push(row(format!("{cuts} power cuts, and without syncs, {engine}"), || {
            without_syncs(scene, "power_cut", &[("PORTCULLIS_CUTS", &cuts)])
        }));
    }
    let replays = setting("PORTCULLIS_REPLAYS", "800");
    rows.push(row(format!("{replays} losses of power between any two writes"), || {
        without_syncs(&scenes[0].1, "power_replay", &[("PORTCULLIS_REPLAYS", &replays)])
    }));
    rows.push(row("the whole router by way of pgbouncer".to_owned(), || {
        with_rows(&scene(Engine::Postgres, servers.pooled()), &["-p", "server", "--test", "it"], &[])
    }));
    let mut mutants = String::new();
    rows.push(row("every authorization call, replaced by one that allows everything".to_owned(), || {
        let found = mutation::run(root)?;
        let caught = found.iter().filter(|mutant| mutant.verdict == mutation::Verdict::Caught).count();
        found.iter().try_for_each(|mutant| writeln!(mutants, "- {}", mutant.describe()))?;
        Ok(Count { passed: caught as u64, failed: (found.len() - caught) as u64, left_out: 0 })
    }));

    let mut text = format!(
        "<!-- written by `cargo xtask verify` -->\n\n# Last verification\n\nOf commit {}.\n\n\
         | what | seconds | passed | failed |\n|---|--:|--:|--:|\n",
        commit.trim()
    );
    let mut total = Count::default();
    for (what, seconds, count, trouble) in &rows {
        total = total.plus(*count);
        writeln!(text, "| {what}{trouble} | {seconds} | {} | {} |", count.passed, count.failed)?;
    }
    writeln!(
        text,
        "\n## Authorization calls\n\nEach was replaced, alone, in a copy of the sources; the matrix has to fail.\n\n{mutants}"
    )?;
    std::fs::write(root.join(FILE), text.trim_end().to_owned() + "\n")?;
    println!("{} passed, {} failed", total.passed, total.failed);
    Ok(total.failed == 0)
}

/// A count from the environment, for a shorter or longer run; the page says how many there were.
fn setting(name: &str, default: &str) -> String {
    std::env::var(name).ok().filter(|value| value.parse::<u32>().is_ok()).unwrap_or_else(|| default.to_owned())
}

fn row(what: String, work: impl FnOnce() -> Result<Count>) -> (String, u64, Count, String) {
    let start = Instant::now();
    let (count, trouble) = match work() {
        Ok(count) => (count, String::new()),
        Err(error) => (Count::NONE, format!(": {}", format!("{error:#}").lines().next().unwrap_or(""))),
    };
    (what, start.elapsed().as_secs(), count, trouble)
}
