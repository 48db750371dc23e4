//! `cargo xtask verify`: what is too long for each run. Its last results are checked in, each with the commit that it is about.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Result, bail, ensure};
use testdb::Engine;

use crate::part::{Scene, built_with, with_rows, without_syncs};
use crate::postgres::Servers;
use crate::process::{Count, cargo, output, run};
use crate::{install, mutation};

const FILE: &str = "docs/verify.md";

const HEAD: &str = "\
<!-- written by `cargo xtask verify` -->

# Last verification

What takes too long for each run of the tests. `cargo xtask verify` does all of it, `cargo xtask verify NAME…` a part.

| name | what | commit | seconds | passed | failed |
|---|---|---|--:|--:|--:|
";

const MUTANTS: &str = "
## Authorization calls

Each was replaced, alone, in a copy of the sources; the permission matrix has to fail.

";

/// What the checks work with.
struct Work<'a> {
    root: &'a Path,
    sqlite: Scene,
    postgres: Scene,
    pooled: Scene,
}

/// One of the checks: its name, and what does it. It says how much it did.
type Check = (&'static str, fn(&Work<'_>, &mut String) -> (String, Result<Count>));

const CHECKS: [Check; 7] = [
    ("kill", |work, _| kills(&work.sqlite)),
    ("postgres-kill", |work, _| kills(&work.postgres)),
    ("power-cut", |work, _| cuts(&work.sqlite)),
    ("postgres-power-cut", |work, _| cuts(&work.postgres)),
    ("power-replay", |work, _| {
        let replays = setting("PORTCULLIS_REPLAYS", "800");
        let done = without_syncs(&work.sqlite, "power_replay", &[("PORTCULLIS_REPLAYS", &replays)]);
        (format!("{replays} losses of power between any two writes"), done)
    }),
    ("pgbouncer", |work, _| {
        let rows = with_rows(&work.pooled, &["-p", "meta", "--lib"], &["--skip", "tests::postgres_plans::"]);
        let both =
            rows.and_then(|rows| Ok(rows.plus(with_rows(&work.pooled, &["-p", "server", "--test", "it"], &[])?)));
        ("the whole suite of meta and the whole router by way of pgbouncer".to_owned(), both)
    }),
    ("mutation", |work, mutants| {
        ("every authorization call, replaced by one that allows everything".to_owned(), mutate(work.root, mutants))
    }),
];

/// Runs the checks of these names, or all, and rewrites their rows of the page; whether all passed.
pub fn run_all(root: &Path, names: &[&str]) -> Result<bool> {
    if let Some(unknown) = names.iter().find(|name| !CHECKS.iter().any(|(known, _)| known == *name)) {
        bail!("no such check: {unknown}; there are {}", CHECKS.map(|(name, _)| name).join(", "));
    }
    let changed =
        output(Command::new("git").current_dir(root).args(["status", "--porcelain", "--untracked-files=no"]))?;
    let changed: Vec<&str> = changed.lines().filter(|line| !line.ends_with(FILE)).collect();
    ensure!(changed.is_empty(), "commit first: the result is about a commit\n{}", changed.join("\n"));
    let commit = output(Command::new("git").current_dir(root).args(["rev-parse", "--short=10", "HEAD"]))?;
    let tools = install::everything()?;
    let servers = Servers::start()?;
    let scene = |engine, variables| Scene { root: root.to_owned(), tools: tools.clone(), engine, variables };
    let work = Work {
        root,
        sqlite: scene(Engine::Sqlite, Vec::new()),
        postgres: scene(Engine::Postgres, servers.direct()),
        pooled: scene(Engine::Postgres, servers.pooled()),
    };
    run(&mut cargo(root, &["build", "--release", "-p", "portcullis"]))?;
    let mut total = Count::default();
    for (name, check) in CHECKS.iter().filter(|(name, _)| names.is_empty() || names.contains(name)) {
        let start = Instant::now();
        let mut mutants = String::new();
        let (what, done) = check(&work, &mut mutants);
        let (count, trouble) = match done {
            Ok(count) => (count, String::new()),
            Err(error) => (Count::NONE, format!(": {}", format!("{error:#}").lines().next().unwrap_or(""))),
        };
        total = total.plus(count);
        let row = format!(
            "| `{name}` | {what}{trouble} | {} | {} | {} | {} |",
            commit.trim(),
            start.elapsed().as_secs(),
            count.passed,
            count.failed
        );
        // At once, so that one that is stopped leaves what it has found.
        write(root, name, &row, &mutants)?;
    }
    println!("{} passed, {} failed", total.passed, total.failed);
    Ok(total.failed == 0)
}

fn kills(scene: &Scene) -> (String, Result<Count>) {
    let kills = setting("PORTCULLIS_KILLS", "1000");
    let done = built_with(scene, "crash_kill", &[("PORTCULLIS_KILLS", &kills)]);
    (format!("{kills} kills at random moments, {:?}", scene.engine), done)
}

fn cuts(scene: &Scene) -> (String, Result<Count>) {
    let cuts = setting("PORTCULLIS_CUTS", "200");
    let done = without_syncs(scene, "power_cut", &[("PORTCULLIS_CUTS", &cuts)]);
    (format!("{cuts} power cuts, and without syncs, {:?}", scene.engine), done)
}

fn mutate(root: &Path, mutants: &mut String) -> Result<Count> {
    let found = mutation::run(root)?;
    let caught = found.iter().filter(|mutant| mutant.verdict == mutation::Verdict::Caught).count();
    found.iter().try_for_each(|mutant| writeln!(mutants, "- {}", mutant.describe()))?;
    Ok(Count { passed: caught as u64, failed: (found.len() - caught) as u64, left_out: 0 })
}

/// A count from the environment, for a shorter or longer run; the page says how many there were.
fn setting(name: &str, default: &str) -> String {
    std::env::var(name).ok().filter(|value| value.parse::<u32>().is_ok()).unwrap_or_else(|| default.to_owned())
}

fn write(root: &Path, name: &str, row: &str, mutants: &str) -> Result<()> {
    let old = std::fs::read_to_string(root.join(FILE)).unwrap_or_default();
    std::fs::write(root.join(FILE), page(&old, name, row, mutants))?;
    Ok(())
}

/// The page with another row of this check; the rows of others stay, and so do the mutants unless there are new ones.
fn page(old: &str, name: &str, row: &str, mutants: &str) -> String {
    let mut rows: BTreeMap<&str, &str> = BTreeMap::new();
    for line in old.lines().filter(|line| line.starts_with("| `")) {
        rows.insert(line.split('`').nth(1).unwrap_or(""), line);
    }
    rows.insert(name, row);
    let mut text = HEAD.to_owned();
    for name in CHECKS.map(|(name, _)| name) {
        let missing = format!("| `{name}` | not run yet | – | – | – | – |");
        text.push_str(rows.get(name).copied().unwrap_or(&missing));
        text.push('\n');
    }
    let before: String =
        old.lines().filter(|line| line.starts_with("- ")).fold(String::new(), |all, line| all + line + "\n");
    let mutants = if mutants.is_empty() { &before } else { mutants };
    if !mutants.is_empty() {
        text.push_str(MUTANTS);
        text.push_str(mutants);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_replaced_and_the_others_stay() {
        let first = page("", "kill", "| `kill` | 10 kills | abc | 1 | 1 | 0 |", "");
        assert!(first.contains("10 kills") && first.contains("| `mutation` | not run yet |"), "{first}");
        let second = page(&first, "mutation", "| `mutation` | all | def | 2 | 1 | 0 |", "- one: caught\n");
        let third = page(&second, "kill", "| `kill` | 20 kills | abd | 1 | 1 | 0 |", "");
        assert!(third.contains("20 kills") && !third.contains("10 kills"), "{third}");
        assert!(third.contains("| `mutation` | all | def |") && third.ends_with("- one: caught\n"), "{third}");
        assert_eq!(third.matches("| `kill` |").count(), 1);
    }
}
