//! `cargo xtask fuzz`: every fuzz target under libFuzzer, two at a time, an hour each unless told otherwise; and the part
//! `fuzz` of the tests, which is the same for some seconds.
//!
//! Nothing is installed and nothing but stable Rust is needed: the crates of the workspace are compiled by `fuzz/rustc`,
//! which adds the counters that libFuzzer goes by, and those of others are what the release build has made of them.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};

use crate::packed;
use crate::part::{Scene, target_folder};
use crate::process::{Count, cargo, output, run};

const PAGE: &str = "docs/fuzz.md";
/// The longest input, in bytes.
const LONGEST: usize = 4096;
/// What is kept of the inputs that were found for one target: bytes of their text.
const KEPT: usize = 40 << 10;
/// And how many of them: the ordinary tests run them all.
const MOST: usize = 160;
/// How long a target runs in each run of the tests.
const SHORT: u64 = 15;
/// How long it runs where nothing is said.
const LONG: u64 = 60 * 60;

/// What to run, and for how long.
#[derive(Debug, PartialEq, Eq)]
pub struct Options {
    seconds: u64,
    targets: Vec<String>,
}

impl Options {
    /// Reads the flags of `cargo xtask fuzz`.
    pub fn parse(arguments: &[&str]) -> Result<Self> {
        let mut options = Self { seconds: LONG, targets: Vec::new() };
        let mut arguments = arguments.iter();
        while let Some(argument) = arguments.next() {
            let value = arguments.next().with_context(|| format!("{argument} takes a value"))?;
            match *argument {
                "--seconds" => options.seconds = value.parse().context("--seconds takes a number")?,
                "--target" => options.targets.push((*value).to_owned()),
                _ => bail!("no such flag: {argument}"),
            }
        }
        ensure!(options.seconds > 0, "--seconds is 0");
        Ok(options)
    }
}

/// What came of one target.
struct Outcome {
    target: String,
    seconds: u64,
    executions: u64,
    edges: u64,
    /// What it stopped at, with the input.
    trouble: Option<String>,
}

/// Runs the targets, keeps what they found worth keeping, and writes the page; whether none failed.
pub fn run_all(root: &Path, options: &Options) -> Result<bool> {
    let fuzzer = Fuzzer::build(root)?;
    let outcomes = fuzzer.run(options)?;
    write_page(root, &fuzzer.commit, &outcomes)?;
    for outcome in &outcomes {
        fuzzer.keep(&outcome.target)?;
    }
    Ok(outcomes.iter().all(|outcome| outcome.trouble.is_none()))
}

/// The part of the tests.
pub fn short(scene: &Scene) -> Result<Count> {
    let outcomes = Fuzzer::build(&scene.root)?.run(&Options { seconds: SHORT, targets: Vec::new() })?;
    let failed = outcomes.iter().filter(|outcome| outcome.trouble.is_some()).count() as u64;
    Ok(Count { passed: outcomes.len() as u64 - failed, failed, ..Count::default() })
}

/// The built program and its folders.
struct Fuzzer {
    root: PathBuf,
    /// The commit that it was built of, with a mark where something was changed since.
    commit: String,
    program: PathBuf,
    /// For everything that is not checked in: `target/fuzz`.
    folder: PathBuf,
    /// For the folders that targets make, in memory where the machine has such a place. Removed at the end.
    temporary: PathBuf,
    /// Held while this one uses the folder.
    _alone: File,
}

impl Drop for Fuzzer {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.temporary);
    }
}

impl Fuzzer {
    fn build(root: &Path) -> Result<Self> {
        let arguments = ["build", "--release", "-p", "portcullis-fuzz", "--features", "engine", "--bin", "fuzz"];
        let mut build = cargo(root, &arguments);
        run(build.env("RUSTC_WORKSPACE_WRAPPER", root.join("fuzz/rustc")))
            .context("libFuzzer is compiled here: is there a C++ compiler (Debian: g++)?")?;
        let memory = Path::new("/dev/shm");
        let parent = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        let temporary = parent.join(format!("portcullis-fuzz-{}", std::process::id()));
        fs::create_dir_all(&temporary)?;
        let target = target_folder(root);
        let mut describe = Command::new("git");
        describe.current_dir(root).args(["describe", "--always", "--dirty", "--abbrev=10"]);
        let commit = output(&mut describe)?.trim().to_owned();
        let folder = target.join("fuzz");
        fs::create_dir_all(&folder)?;
        let alone = File::create(folder.join("lock"))?;
        alone.try_lock().with_context(|| format!("another run uses {}", folder.display()))?;
        let program = target.join("release/fuzz");
        Ok(Self { root: root.to_owned(), commit, program, folder, temporary, _alone: alone })
    }

    /// Every target: each has seeds.
    fn targets(&self) -> Result<Vec<String>> {
        let mut targets = Vec::new();
        for entry in fs::read_dir(self.root.join("fuzz/seeds"))? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            targets.extend(name.strip_suffix(".txt").map(str::to_owned));
        }
        targets.sort();
        Ok(targets)
    }

    /// Runs the targets, two at a time; prints what each came to as it ends.
    fn run(&self, options: &Options) -> Result<Vec<Outcome>> {
        let mut targets = self.targets()?;
        if let Some(unknown) = options.targets.iter().find(|name| !targets.contains(name)) {
            bail!("no such target: {unknown}; there are {}", targets.join(", "));
        }
        if !options.targets.is_empty() {
            targets.retain(|target| options.targets.contains(target));
        }
        let queue = Mutex::new(VecDeque::from(targets));
        let next = || queue.lock().ok().and_then(|mut queue| queue.pop_front());
        let outcomes = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while let Some(target) = next() {
                        let outcome = self.run_one(&target, options.seconds);
                        let text = match &outcome {
                            Ok(outcome) => outcome.to_string(),
                            Err(error) => format!("{target}: {error:#}"),
                        };
                        println!("{text}");
                        if let Ok(mut outcomes) = outcomes.lock() {
                            outcomes.push(outcome);
                        }
                    }
                });
            }
        });
        let outcomes = outcomes.into_inner().map_err(|_| anyhow::anyhow!("a thread of the fuzzer panicked"))?;
        let mut outcomes = outcomes.into_iter().collect::<Result<Vec<_>>>()?;
        outcomes.sort_by(|a, b| a.target.cmp(&b.target));
        Ok(outcomes)
    }

    fn run_one(&self, target: &str, seconds: u64) -> Result<Outcome> {
        let folder = self.folder.join(target);
        let inputs = self.unpack(target, &["seeds", "corpus"], "inputs")?;
        let found = folder.join("found");
        fs::create_dir_all(&found)?;
        let crashes = empty(&folder.join("crashes"))?;
        let log = folder.join("log");
        let mut command = self.command(target);
        command.arg(&found).arg(&inputs).arg(format!("-max_total_time={seconds}"));
        command.arg(format!("-artifact_prefix={}/", crashes.display())).arg("-print_final_stats=1");
        command.stdout(Stdio::null()).stderr(File::create(&log)?);
        let started = Instant::now();
        let status = command.status().with_context(|| format!("cannot start {}", self.program.display()))?;
        let log = String::from_utf8_lossy(&fs::read(&log)?).into_owned();
        let trouble = if status.success() { None } else { Some(trouble(&log, &crashes)?) };
        Ok(Outcome {
            target: target.to_owned(),
            seconds: started.elapsed().as_secs(),
            executions: last_number(&log, "stat::number_of_executed_units:"),
            edges: last_number(&log, "cov:"),
            trouble,
        })
    }

    fn command(&self, target: &str) -> Command {
        let mut command = Command::new(&self.program);
        command.env("PORTCULLIS_FUZZ_TARGET", target).env("TMPDIR", &self.temporary).env("RUST_BACKTRACE", "1");
        command.arg(format!("-max_len={LONGEST}")).args(["-timeout=30", "-rss_limit_mb=1024"]).stdin(Stdio::null());
        let words = self.root.join(format!("fuzz/dictionaries/{target}.txt"));
        if words.is_file() {
            command.arg(format!("-dict={}", words.display()));
        }
        command
    }

    /// Writes the checked-in inputs of these folders into a fresh one, a file each.
    fn unpack(&self, target: &str, from: &[&str], to: &str) -> Result<PathBuf> {
        let folder = empty(&self.folder.join(target).join(to))?;
        for source in from {
            for (number, input) in self.inputs(source, target)?.into_iter().enumerate() {
                fs::write(folder.join(format!("{source}-{number}")), input)?;
            }
        }
        Ok(folder)
    }

    fn inputs(&self, folder: &str, target: &str) -> Result<Vec<Vec<u8>>> {
        let path = self.root.join("fuzz").join(folder).join(format!("{target}.txt"));
        let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        packed::read(&text).map_err(|line| anyhow::anyhow!("{}:{line}: no input", path.display()))
    }

    /// Replaces the corpus by the fewest inputs that reach, beyond the seeds, what all that were found reach; some of
    /// every length, where there are too many.
    fn keep(&self, target: &str) -> Result<()> {
        let folder = self.folder.join(target);
        let kept = self.unpack(target, &["seeds"], "kept")?;
        let mut merge = self.command(target);
        merge.arg("-merge=1").args([&kept, &folder.join("inputs"), &folder.join("found")]);
        let log = File::create(folder.join("merge-log"))?;
        let status = merge.stdout(Stdio::null()).stderr(log).status()?;
        ensure!(status.success(), "{target}: merging failed, see {}", folder.join("merge-log").display());
        let mut inputs = Vec::new();
        for entry in fs::read_dir(&kept)? {
            let entry = entry?;
            if !entry.file_name().to_string_lossy().starts_with("seeds-") {
                inputs.push(fs::read(entry.path())?);
            }
        }
        inputs.sort_by(|a, b| (a.len(), a).cmp(&(b.len(), b)));
        let step = inputs.len().div_ceil(MOST).max(1);
        let mut text = String::new();
        for input in inputs.iter().step_by(step) {
            let line = packed::write([input.as_slice()]);
            if text.len() + line.len() > KEPT {
                break;
            }
            text.push_str(&line);
        }
        fs::write(self.root.join(format!("fuzz/corpus/{target}.txt")), text)?;
        Ok(())
    }
}

/// What went wrong, in the target's own words, and the input that the seeds should get.
fn trouble(log: &str, crashes: &Path) -> Result<String> {
    let mut text = match log.find("panicked at") {
        Some(at) => log[at..].lines().take(8).collect::<Vec<_>>().join("\n"),
        // A timeout, too much memory, or a signal: the engine says which, among its progress.
        None => log.lines().filter(|line| !line.starts_with('#')).collect::<Vec<_>>().join("\n"),
    };
    for entry in fs::read_dir(crashes)? {
        let path = entry?.path();
        write!(text, "\ninput, in {}:\n{}", path.display(), packed::write([fs::read(&path)?.as_slice()]))?;
    }
    Ok(text)
}

/// The folder, with nothing in it.
fn empty(folder: &Path) -> Result<PathBuf> {
    if folder.exists() {
        fs::remove_dir_all(folder)?;
    }
    fs::create_dir_all(folder)?;
    Ok(folder.to_owned())
}

/// The number that follows this word where it comes last.
fn last_number(log: &str, word: &str) -> u64 {
    let rest = log.rsplit_once(word).map_or("", |(_, rest)| rest).trim_start();
    rest.split(|c: char| !c.is_ascii_digit()).next().and_then(|digits| digits.parse().ok()).unwrap_or(0)
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let trouble = self.trouble.as_deref().unwrap_or("nothing found");
        let Self { target, seconds, executions, edges, .. } = self;
        write!(f, "{target:14} {seconds:>6} s {executions:>12} executions {edges:>7} edges  {trouble}")
    }
}

const HEAD: &str = "\
<!-- written by `cargo xtask fuzz` -->

# Fuzzing

Each target reads untrusted input and asserts properties of what it makes of it; what they are stands in
[fuzz/src/target](../fuzz/src/target). The last long run of each, two at a time on a machine of two cores:

| target | commit | seconds | executions | edges | found |
|---|---|--:|--:|--:|---|
";

/// Rewrites the rows of these targets; those of others stay.
fn write_page(root: &Path, commit: &str, outcomes: &[Outcome]) -> Result<()> {
    let old = fs::read_to_string(root.join(PAGE)).unwrap_or_default();
    let mut rows: BTreeMap<String, String> = BTreeMap::new();
    for line in old.lines().filter(|line| line.starts_with("| `")) {
        if let Some(name) = line.split('`').nth(1) {
            rows.insert(name.to_owned(), line.to_owned());
        }
    }
    for outcome in outcomes {
        let Outcome { target, seconds, executions, edges, trouble } = outcome;
        // The whole of it was printed; a row holds its beginning.
        let found = trouble.as_deref().map_or("nothing", |text| text.lines().nth(1).unwrap_or(text));
        let found: String = found.chars().filter(|c| *c != '|').take(100).collect();
        let row = format!("| `{target}` | {commit} | {seconds} | {executions} | {edges} | {found} |");
        rows.insert(target.clone(), row);
    }
    let mut text = HEAD.to_owned();
    for row in rows.values() {
        writeln!(text, "{row}")?;
    }
    text.push_str("\nEdges are those that the run has covered. What targets have found so far, each with its input among the seeds:\n\n");
    for target in rows.keys() {
        let seeds = fs::read_to_string(root.join(format!("fuzz/seeds/{target}.txt")))?;
        for found in seeds.lines().filter_map(|line| line.strip_prefix("# found: ")) {
            writeln!(text, "- `{target}`: {found}")?;
        }
    }
    fs::write(root.join(PAGE), text)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags() {
        let options = |arguments: &[&str]| Options::parse(arguments).ok();
        assert_eq!(options(&[]), Some(Options { seconds: 3600, targets: Vec::new() }));
        let some = Options { seconds: 5, targets: vec!["a".to_owned(), "b".to_owned()] };
        assert_eq!(options(&["--target", "a", "--seconds", "5", "--target", "b"]), Some(some));
        for bad in [&["--seconds"][..], &["--seconds", "x"], &["--seconds", "0"], &["--other", "a"], &["a"]] {
            assert_eq!(options(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn numbers_of_a_log() {
        let log = "#2 INITED cov: 12 ft: 13\n#9 NEW    cov: 145 ft: 2\nstat::number_of_executed_units: 300\n";
        assert_eq!(last_number(log, "cov:"), 145);
        assert_eq!(last_number(log, "stat::number_of_executed_units:"), 300);
        assert_eq!(last_number("", "cov:"), 0);
    }
}
