//! The parts of `cargo xtask test`, in their order, with their times.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use testdb::Engine;

use crate::engines::{self, Pair};
use crate::postgres::Servers;
use crate::process::{self, Count, cargo};
use crate::{fuzz, image, install, quirks, security_cases, style};

/// Where a part runs.
pub struct Scene {
    /// The folder of the workspace.
    pub root: PathBuf,
    /// Folders of tools that were installed, for `PATH`.
    pub tools: Vec<PathBuf>,
    /// What keeps the rows in the tests.
    pub engine: Engine,
    /// Variables that tell the tests where that is.
    pub variables: Vec<(&'static str, String)>,
}

/// What a part needs to be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Need {
    /// Rust.
    Nothing,
    /// Debian's packages of PostgreSQL.
    Database,
    /// The release build.
    Binary,
    /// The release build, Debian packages and Go modules.
    Tools,
}

struct Part {
    name: &'static str,
    about: &'static str,
    quick: bool,
    /// Which engines it is run on.
    engines: Engines,
    need: Need,
    run: fn(&Scene) -> Result<Count>,
}

/// The engines of a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Engines {
    /// It has nothing to do with them.
    Neither,
    /// First on SQLite, then, as `postgres-NAME`, on PostgreSQL.
    Both,
    /// PostgreSQL alone.
    Postgres,
}

const fn part(name: &'static str, about: &'static str, need: Need, run: fn(&Scene) -> Result<Count>) -> Part {
    Part { name, about, quick: false, engines: Engines::Neither, need, run }
}

const fn both(name: &'static str, about: &'static str, need: Need, run: fn(&Scene) -> Result<Count>) -> Part {
    Part { name, about, quick: false, engines: Engines::Both, need, run }
}

const fn quick(name: &'static str, about: &'static str, run: fn(&Scene) -> Result<Count>) -> Part {
    Part { name, about, quick: true, engines: Engines::Neither, need: Need::Nothing, run }
}

/// Packages whose tests keep rows, and are run on both engines.
const WITH_ROWS: [&str; 4] = ["meta", "registry", "server", "portcullis"];

/// Packages that `--quick` tests: the libraries and the router, all in process.
const QUICK_PACKAGES: [&str; 9] =
    ["oci", "policy", "blobs", "meta", "registry", "api", "server", "xtask", "portcullis-fuzz"];

const PARTS: &[Part] = &[
    quick("format", "cargo fmt --check", |s| checked(cargo(&s.root, &["fmt", "--all", "--check"]))),
    quick("style", "rules of CONTRIBUTING.md, dependencies between crates", |s| {
        style::check(&s.root).map(|()| Count::ONE)
    }),
    quick("generated", "docs/reference/protocol.md and docs/security-cases.md are up to date", generated),
    quick("clippy", "lints, all targets, warnings denied", |s| {
        let arguments = ["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"];
        checked(cargo(&s.root, &arguments))
    }),
    part("unit", "cargo test of every crate without a database", Need::Database, |s| {
        let mut command = cargo(&s.root, &["test", "--workspace", "--no-fail-fast", "--exclude", "portcullis-tests"]);
        command.args(WITH_ROWS.iter().flat_map(|package| ["--exclude", package]));
        let crates = process::run_tests(&mut command)?;
        let own = process::run_tests(&mut cargo(&s.root, &["test", "-p", "portcullis-tests", "--lib"]))?;
        Ok(crates.plus(own))
    }),
    both("rows", "cargo test of meta, registry, server and the commands", Need::Database, |s| {
        with_rows(s, &WITH_ROWS.map(|package| ["-p", package]).concat(), &[])
    }),
    Part {
        engines: Engines::Postgres,
        ..part("pgbouncer", "the suite of meta and the permission matrix by way of pgbouncer", Need::Database, |s| {
            // Plans are the same by any way. Long lists and the rest of the router are run this way by `cargo xtask verify`.
            let without = [
                "--skip",
                "tests::postgres_plans::",
                "--skip",
                "tests::lists::",
                "--skip",
                "no_statement_walks_a_table",
            ];
            let meta = with_rows(s, &["-p", "meta", "--lib"], &without)?;
            Ok(meta.plus(with_rows(s, &["-p", "server", "--test", "it"], &["matrix::", "races::"])?))
        })
    },
    part("release", "cargo build --release", Need::Nothing, |s| {
        checked(cargo(&s.root, &["build", "--release", "-p", "portcullis"]))
    }),
    both(
        "conformance",
        "official suite, strictest form over Bearer and Basic, and the default form",
        Need::Tools,
        |s| built(s, "conformance"),
    ),
    both("skopeo", "skopeo of Debian", Need::Tools, |s| built(s, "clients_skopeo")),
    part("podman", "podman of Debian", Need::Tools, |s| built(s, "clients_podman")),
    part("docker", "docker engine of Debian, a layer of 1 GiB", Need::Tools, |s| built(s, "clients_docker")),
    both("crane", "crane, a layer of 1 GiB", Need::Tools, |s| built(s, "clients_crane")),
    part("docker-next", "current docker engine with its containerd store", Need::Tools, |s| {
        built(s, "clients_docker_next")
    }),
    part("containerd", "containerd of Debian and containerd 2, each by its ctr", Need::Tools, |s| {
        built(s, "clients_containerd")
    }),
    part("proxies", "nginx and haproxy in front, as docs/guide/proxies.md says", Need::Tools, |s| built(s, "proxies")),
    part("http2", "HTTP/2: who speaks it, and many streams on one connection", Need::Tools, |s| built(s, "http2")),
    both("oras", "oras: artifacts and referrers", Need::Tools, |s| built(s, "clients_oras")),
    part("container", "the static binary in an image from scratch, as docs/guide/docker.md says", Need::Tools, |s| {
        let folder = image::prepare(&s.root)?.display().to_string();
        built_with(s, "container", &[("PORTCULLIS_IMAGE", &folder)])
    }),
    part("regctl", "regctl: copies with referrers, deletes tags, waits as it is told", Need::Tools, |s| {
        built(s, "clients_regctl")
    }),
    part("helm", "helm 3 and 4: charts, versions from tags, provenance", Need::Tools, |s| built(s, "clients_helm")),
    part("cosign", "cosign with a local key: signatures as referrers and as tags", Need::Tools, |s| {
        built(s, "clients_cosign")
    }),
    part("buildah", "buildah of Debian", Need::Tools, |s| built(s, "clients_buildah")),
    part("buildkit", "buildctl with buildkitd: attestations, caches", Need::Tools, |s| built(s, "clients_buildkit")),
    part("umoci", "layouts of umoci, moved by skopeo", Need::Tools, |s| built(s, "clients_umoci")),
    part("lazy", "lazy pullers: their ranges, zstd:chunked", Need::Tools, |s| built(s, "clients_lazy")),
    part("client-report", "docs/reference/clients.md is what the clients of this run did", Need::Tools, |s| {
        built(s, "client_report")
    }),
    both("kill", "kill -9 at random moments", Need::Binary, |s| {
        // `cargo xtask verify` kills a thousand times on each engine.
        let kills = if s.engine == Engine::Postgres { "40" } else { "60" };
        built_with(s, "crash_kill", &[("PORTCULLIS_KILLS", kills)])
    }),
    part("kill-points", "kill -9 before each writing system call; torn writes; SIGTERM under load", Need::Tools, |s| {
        built(s, "crash_points")
    }),
    both(
        "power-cut",
        "a file system shut down without log flush; and without syncs, which has to fail",
        Need::Tools,
        |s| without_syncs(s, "power_cut", &[]),
    ),
    part("power-replay", "every write of a disk recorded, the power lost between any two of them", Need::Tools, |s| {
        without_syncs(s, "power_replay", &[])
    }),
    part("disk", "full, read-only, failing, silent disks; damaged files", Need::Tools, |s| {
        let tests = ["disk_full", "disk_faults", "disk_silent", "disk_damage"];
        tests.iter().try_fold(Count::default(), |count, test| Ok(count.plus(built(s, test)?)))
    }),
    Part {
        engines: Engines::Postgres,
        ..part("postgres", "PostgreSQL killed, restarted, cut off and hung in mid-push; migration", Need::Tools, |s| {
            built(s, "postgres")
        })
    },
    part("memory", "256 MiB: a blob of 4 GiB, 100,000 tags, 500 manifests at once", Need::Binary, |s| {
        built(s, "memory")
    }),
    part("fuzz", "every fuzz target for 15 s", Need::Nothing, fuzz::short),
];

/// Which parts to run.
#[derive(Debug, Default)]
pub struct Selection {
    quick: bool,
    only: Vec<String>,
}

impl Selection {
    /// Reads the flags of `cargo xtask test`.
    pub fn parse(arguments: &[&str]) -> Result<Self> {
        let mut selection = Self::default();
        let mut arguments = arguments.iter();
        while let Some(argument) = arguments.next() {
            match (*argument, argument.strip_prefix("--only=")) {
                ("--quick", _) => selection.quick = true,
                ("--only", _) => match arguments.next() {
                    Some(name) => selection.only.push((*name).to_owned()),
                    None => bail!("--only takes the name of a part; cargo xtask parts lists them"),
                },
                (_, Some(name)) => selection.only.push(name.to_owned()),
                _ => bail!("no such flag: {argument}"),
            }
        }
        if let Some(name) = selection.only.iter().find(|name| !all_runs().any(|run| run.name() == **name)) {
            bail!("no such part: {name}; cargo xtask parts lists them");
        }
        Ok(selection)
    }

    fn is_everything(&self) -> bool {
        !self.quick && self.only.is_empty()
    }

    fn runs(&self) -> Vec<Run> {
        let binary_is_given = std::env::var_os("PORTCULLIS_BIN").is_some();
        let mut runs: Vec<Run> = all_runs()
            .filter(|run| match self.only.is_empty() {
                true => !self.quick || run.part.quick,
                false => self.only.contains(&run.name()),
            })
            .collect();
        if self.quick && self.only.is_empty() {
            runs.push(Run { part: &QUICK_TESTS, engine: Engine::Sqlite });
        }
        let builds = runs.iter().any(|run| run.part.name == "release");
        let needs = runs.iter().any(|run| matches!(run.part.need, Need::Binary | Need::Tools));
        if needs && !builds && !binary_is_given {
            runs.extend(all_runs().filter(|run| run.part.name == "release"));
            runs.sort_by_key(|run| run.part.need != Need::Nothing);
        }
        runs
    }
}

/// A part on an engine.
#[derive(Clone, Copy)]
struct Run {
    part: &'static Part,
    engine: Engine,
}

impl Run {
    fn name(&self) -> String {
        match (self.engine, self.part.engines) {
            (Engine::Postgres, Engines::Both) => format!("postgres-{}", self.part.name),
            _ => self.part.name.to_owned(),
        }
    }
}

/// Every part, those of both engines twice.
fn all_runs() -> impl Iterator<Item = Run> {
    PARTS.iter().flat_map(|part| {
        let engines: &[Engine] = match part.engines {
            Engines::Neither => &[Engine::Sqlite],
            Engines::Both => &[Engine::Sqlite, Engine::Postgres],
            Engines::Postgres => &[Engine::Postgres],
        };
        engines.iter().map(move |engine| Run { part, engine: *engine })
    })
}

const QUICK_TESTS: Part = quick("unit", "cargo test of the libraries and the router", |s| {
    let mut command = cargo(&s.root, &["test", "--no-fail-fast"]);
    QUICK_PACKAGES.iter().for_each(|package| {
        command.args(["-p", package]);
    });
    process::run_tests(&mut command)
});

/// Prints the names of the parts.
pub fn list() {
    for run in all_runs() {
        let on =
            if run.engine == Engine::Postgres && run.part.engines == Engines::Both { "on PostgreSQL: " } else { "" };
        println!("{:22} {on}{}", run.name(), run.part.about);
    }
}

struct Done {
    name: String,
    /// The part and its engine; none for what is done before them.
    run: Option<Run>,
    time: Duration,
    count: Count,
    trouble: Option<String>,
}

/// Runs the selected parts and prints what came of them; whether all passed.
pub fn test(root: &Path, selection: &Selection) -> Result<bool> {
    let runs = selection.runs();
    let mut done: Vec<Done> = Vec::new();
    if selection.is_everything() {
        // Rows of files of tests that are no longer there.
        let _ = std::fs::remove_dir_all(target_folder(root).join("client-report"));
    }
    let mut tools = Vec::new();
    if runs.iter().any(|run| run.part.need == Need::Tools) {
        done.push(timed("install", None, || {
            tools = install::everything()?;
            Ok(Count::ONE)
        }));
    } else if runs.iter().any(|run| run.part.need == Need::Database) {
        done.push(timed("install", None, || install::databases().map(|()| Count::ONE)));
    }
    let mut servers = None;
    if runs.iter().any(|run| run.engine == Engine::Postgres) {
        done.push(timed("servers", None, || {
            servers = Some(Servers::start()?);
            Ok(Count::ONE)
        }));
    }
    for run in runs {
        let needed: &[&str] = match (run.part.need, run.engine) {
            (Need::Nothing, _) => &[],
            (Need::Database, Engine::Sqlite) => &["install"],
            (Need::Database, Engine::Postgres) => &["install", "servers"],
            (Need::Binary, Engine::Sqlite) => &["release"],
            (Need::Binary, Engine::Postgres) => &["release", "servers"],
            (Need::Tools, Engine::Sqlite) => &["install", "release"],
            (Need::Tools, Engine::Postgres) => &["install", "release", "servers"],
        };
        let missing = done
            .iter()
            .find(|done| needed.contains(&done.name.as_str()) && done.trouble.is_some())
            .map(|done| &done.name);
        let missing = missing.cloned();
        let variables = match (run.engine, &servers) {
            (Engine::Postgres, Some(servers)) if run.part.name == "pgbouncer" => servers.pooled(),
            (Engine::Postgres, Some(servers)) => servers.direct(),
            _ => Vec::new(),
        };
        let scene = Scene { root: root.to_owned(), tools: tools.clone(), engine: run.engine, variables };
        done.push(timed(&run.name(), Some(run), || match missing {
            Some(name) => bail!("could not run: {name} failed"),
            None => (run.part.run)(&scene),
        }));
    }
    Ok(report(&done))
}

fn timed(name: &str, run: Option<Run>, work: impl FnOnce() -> Result<Count>) -> Done {
    eprintln!("\n=== {name}");
    let start = Instant::now();
    let result = work();
    let time = start.elapsed();
    let (count, trouble) = match result {
        Ok(count) if count.failed == 0 => (count, None),
        Ok(count) => (count, Some(format!("{} failed", count.failed))),
        Err(error) => (Count::NONE, Some(format!("{error:#}"))),
    };
    let state = trouble.as_deref().unwrap_or("passed");
    eprintln!("=== {name}: {state} in {:.1} s", time.as_secs_f64());
    Done { name: name.to_owned(), run, time, count, trouble }
}

/// Prints the tables and, last, the line that programs read.
fn report(done: &[Done]) -> bool {
    println!("\n{:22} {:>8} {:>7} {:>7}", "part", "seconds", "passed", "failed");
    let mut total = Count::default();
    let mut time = Duration::ZERO;
    for part in done {
        total = total.plus(part.count);
        time += part.time;
        let seconds = part.time.as_secs_f64();
        let trouble = part.trouble.as_deref().and_then(|text| text.lines().next()).unwrap_or("");
        println!("{:22} {seconds:>8.1} {:>7} {:>7}  {trouble}", part.name, part.count.passed, part.count.failed);
    }
    println!("{:22} {:>8.1}\n", "all", time.as_secs_f64());
    let pairs: Vec<Pair> = done
        .iter()
        .filter_map(|sqlite| {
            let run = sqlite.run.filter(|run| run.engine == Engine::Sqlite && run.part.engines == Engines::Both)?;
            let other = Run { engine: Engine::Postgres, ..run }.name();
            let postgres = done.iter().find(|done| done.name == other)?;
            Some(Pair { name: run.part.name, sqlite: sqlite.count, postgres: postgres.count })
        })
        .collect();
    let equal = engines::compare(&pairs);
    println!("{} passed, {} failed", total.passed, total.failed + u64::from(!equal));
    total.failed == 0 && total.passed > 0 && equal
}

fn checked(mut command: std::process::Command) -> Result<Count> {
    process::run(&mut command)?;
    Ok(Count::ONE)
}

fn generated(scene: &Scene) -> Result<Count> {
    if std::env::var_os("UPDATE").is_some() {
        quirks::write(&scene.root)?;
        security_cases::write(&scene.root)?;
    }
    // Both are checked before either is reported.
    let (quirks, cases) = (quirks::check(&scene.root), security_cases::check(&scene.root));
    quirks?;
    cases?;
    Ok(Count { passed: 2, ..Count::default() })
}

/// `cargo test` of what keeps rows, of these packages and filtered so, without the tests that are about the other engine.
pub fn with_rows(scene: &Scene, selected: &[&str], filters: &[&str]) -> Result<Count> {
    let mut command = cargo(&scene.root, &["test", "--no-fail-fast"]);
    command.args(selected).arg("--").args(engines::left_out(scene.engine)).args(filters);
    command.envs(scene.variables.iter().map(|(name, value)| (name, value)));
    process::run_tests(&mut command)
}

/// Runs one file of `tests/tests` against the release build.
fn built(scene: &Scene, test: &str) -> Result<Count> {
    built_with(scene, test, &[])
}

/// As [`built`], with variables of the environment.
pub fn built_with(scene: &Scene, test: &str, environment: &[(&str, &str)]) -> Result<Count> {
    let mut command = cargo(&scene.root, &["test", "-p", "portcullis-tests", "--test", test]);
    command.args(["--", "--test-threads=1", "--nocapture"]).args(engines::left_out(scene.engine));
    command.env("PATH", process::path_with(&scene.tools)?).env("RUST_LIB_BACKTRACE", "0");
    command.env("PORTCULLIS_CLIENT_REPORT", rows_folder(scene, test)?);
    command.envs(environment.iter().copied());
    command.envs(scene.variables.iter().map(|(name, value)| (name, value)));
    process::run_tests(&mut command)
}

/// Where the rows of a file of client tests go: a folder of its own, so that running it again replaces its rows and no others.
fn rows_folder(scene: &Scene, test: &str) -> Result<PathBuf> {
    let folder = target_folder(&scene.root).join("client-report").join(test);
    if folder.exists() {
        std::fs::remove_dir_all(&folder)?;
    }
    Ok(folder)
}

/// Losses of power need a second program, whose syncs are compiled out, to show that they are noticed: a debug build, since
/// most of it is there already.
pub fn without_syncs(scene: &Scene, test: &str, environment: &[(&str, &str)]) -> Result<Count> {
    process::run(&mut cargo(&scene.root, &["build", "-p", "portcullis", "--features", "no-sync"]))?;
    let folder = target_folder(&scene.root).join("no-sync");
    std::fs::create_dir_all(&folder)?;
    let unsafe_binary = folder.join("portcullis");
    std::fs::copy(target_folder(&scene.root).join("debug/portcullis"), &unsafe_binary)?;
    let unsafe_binary = unsafe_binary.display().to_string();
    let mut environment = environment.to_vec();
    environment.push(("PORTCULLIS_NO_SYNC_BIN", &unsafe_binary));
    built_with(scene, test, &environment)
}

/// Where cargo builds.
pub fn target_folder(root: &Path) -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from)
}

#[cfg(test)]
mod tests {
    /// A file that no part runs is never run, and what the lists say of its tests is not true.
    #[test]
    fn every_file_of_tests_is_run() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/tests");
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            assert!(include_str!("part.rs").contains(&format!("\"{name}\"")), "no part runs {name}");
        }
    }
}
