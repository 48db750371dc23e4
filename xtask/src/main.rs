//! Development tasks: `cargo xtask test`, `cargo xtask verify`, and what they are made of.

#![allow(clippy::print_stdout, reason = "a task that prints is what is wanted here")]

mod crate_rules;
mod engines;
mod fuzz;
mod image;
mod install;
mod mutation;
mod packed;
mod part;
mod postgres;
mod process;
mod quirks;
mod security_cases;
mod sources;
mod style;
mod verify;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};

const HELP: &str = "\
cargo xtask test            build and run every test; root on Debian 12, installs what it needs
cargo xtask test --quick    format, lints, style, library and router tests; installs nothing
cargo xtask test --only P   one part, with what it needs; may be repeated
cargo xtask parts           list the parts
cargo xtask verify [NAME…]  what is too long for each run, or a part of it; writes docs/verify.md
cargo xtask mutation        only that part of it: is each authorization call needed?
cargo xtask fuzz            every fuzz target for an hour; --seconds N, --target T; writes docs/fuzz.md
cargo xtask image           the static binary, and target/image for `docker build`
cargo xtask postgres C…     run a command with a PostgreSQL server for its tests; --pgbouncer in front: by way of that
cargo xtask style           the rules of CONTRIBUTING.md that a program can check
cargo xtask generate        rewrite the generated pages";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match run(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[&str]) -> Result<bool> {
    let root = root()?;
    match arguments {
        ["test", rest @ ..] => part::test(&root, &part::Selection::parse(rest)?),
        ["verify", names @ ..] => verify::run_all(&root, names),
        ["mutation"] => Ok(mutation::run(&root)?.iter().all(|mutant| mutant.verdict == mutation::Verdict::Caught)),
        ["fuzz", rest @ ..] => fuzz::run_all(&root, &fuzz::Options::parse(rest)?),
        ["image"] => image::prepare_and_tell(&root),
        ["postgres", command @ ..] => postgres::with_server(&root, command),
        ["style"] => style::check(&root).map(|()| true),
        ["generate"] => {
            quirks::write(&root)?;
            security_cases::write(&root)?;
            Ok(true)
        }
        ["parts"] => {
            part::list();
            Ok(true)
        }
        [] | ["help" | "--help" | "-h"] => {
            eprintln!("{HELP}");
            Ok(true)
        }
        _ => bail!("no such task: {}\n{HELP}", arguments.join(" ")),
    }
}

/// The folder of the workspace.
fn root() -> Result<PathBuf> {
    let parent = Path::new(env!("CARGO_MANIFEST_DIR")).parent();
    parent.map(Path::to_owned).context("xtask is not in a workspace")
}
