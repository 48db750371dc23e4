//! Running programs: their output is shown as it comes, and the summary lines of test runners are counted.

use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

/// Tests that ran.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Those that passed.
    pub passed: u64,
    /// Those that failed.
    pub failed: u64,
    /// Those that were left out by name: they are about the other engine.
    pub left_out: u64,
}

impl Count {
    /// One check that passed.
    pub const ONE: Self = Self { passed: 1, failed: 0, left_out: 0 };
    /// One check that failed.
    pub const NONE: Self = Self { passed: 0, failed: 1, left_out: 0 };

    /// Both together.
    pub fn plus(self, other: Self) -> Self {
        Self {
            passed: self.passed + other.passed,
            failed: self.failed + other.failed,
            left_out: self.left_out + other.left_out,
        }
    }
}

/// Runs a program and shows what it prints; it must succeed.
pub fn run(command: &mut Command) -> Result<()> {
    let shown = shown(command);
    eprintln!("$ {shown}");
    let status = command.stdin(Stdio::null()).status().with_context(|| format!("cannot start {shown}"))?;
    ensure!(status.success(), "{shown}: {status}");
    Ok(())
}

/// Runs a program and returns what it printed; it must succeed.
pub fn output(command: &mut Command) -> Result<String> {
    let shown = shown(command);
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("cannot start {shown}"))?;
    ensure!(output.status.success(), "{shown}: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs `cargo test` and counts its tests. That none ran is a failure: a filter that matches nothing tests nothing.
pub fn run_tests(command: &mut Command) -> Result<Count> {
    let shown = shown(command);
    eprintln!("$ {shown}");
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("cannot start {shown}"))?;
    let mut count = Count::default();
    if let Some(stdout) = child.stdout.take() {
        for line in BufReader::new(stdout).split(b'\n') {
            let line = line?;
            let line = String::from_utf8_lossy(&line);
            println!("{line}");
            count = count.plus(summary(&line));
        }
    }
    let status = child.wait()?;
    if !status.success() && count.failed == 0 {
        bail!("{shown}: {status}");
    }
    ensure!(count != Count::default(), "{shown} ran no test");
    Ok(count)
}

/// The numbers of a line like `test result: ok. 6 passed; 0 failed; …`; tests that were left out count as failed.
fn summary(line: &str) -> Count {
    let Some(rest) = line.strip_prefix("test result: ") else {
        return Count::default();
    };
    let number = |what: &str| -> u64 {
        rest.split([';', '.']).find_map(|part| part.trim().strip_suffix(what)?.trim().parse().ok()).unwrap_or(0)
    };
    let failed = number(" failed") + number(" ignored");
    Count { passed: number(" passed"), failed, left_out: number(" filtered out") }
}

/// cargo, in the folder of the workspace.
pub fn cargo(root: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root).args(arguments);
    command
}

/// The value of `PATH` with these folders in front.
pub fn path_with(folders: &[PathBuf]) -> Result<OsString> {
    let old = std::env::var_os("PATH").unwrap_or_default();
    Ok(std::env::join_paths(folders.iter().cloned().chain(std::env::split_paths(&old)))?)
}

fn shown(command: &Command) -> String {
    let mut text = command.get_program().to_string_lossy().into_owned();
    for argument in command.get_args() {
        text.push(' ');
        text.push_str(&argument.to_string_lossy());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summary_lines_are_counted() {
        let line = "test result: FAILED. 12 passed; 3 failed; 1 ignored; 0 measured; 5 filtered out; finished in 0.01s";
        assert_eq!(summary(line), Count { passed: 12, failed: 4, left_out: 5 });
        let line = "test result: ok. 6 passed; 0 failed; 0 ignored";
        assert_eq!(summary(line), Count { passed: 6, failed: 0, left_out: 0 });
        assert_eq!(summary("running 6 tests"), Count::default());
    }
}
