//! Running a client as a person would: its own process, its own home, its messages kept.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};

/// A client program with the environment that it always gets.
#[derive(Clone, Debug)]
pub struct Tool {
    program: String,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
}

/// What a run left.
#[derive(Debug)]
pub struct Ran {
    /// How it ended.
    pub status: ExitStatus,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Ran {
    /// Standard output without the spaces around it.
    pub fn text(&self) -> &str {
        self.stdout.trim()
    }

    /// Standard output as JSON.
    pub fn json(&self) -> Result<serde_json::Value> {
        serde_json::from_str(&self.stdout).with_context(|| format!("not JSON: {}", self.stdout))
    }

    /// Fails unless one of these texts is in what was printed, in upper or lower case.
    pub fn names_the_cause(&self, causes: &[&str]) -> Result<()> {
        let printed = format!("{}{}", self.stdout, self.stderr).to_lowercase();
        ensure!(
            causes.iter().any(|cause| printed.contains(&cause.to_lowercase())),
            "none of {causes:?} in what was printed: {printed}"
        );
        Ok(())
    }
}

impl Tool {
    /// A program found in `PATH`, at home in `home`.
    pub fn new(program: &str, home: &Path) -> Self {
        let tool = Self { program: program.to_owned(), arguments: Vec::new(), environment: Vec::new() };
        let docker = home.join("docker");
        tool.env("HOME", &home.display().to_string())
            .env("DOCKER_CONFIG", &docker.display().to_string())
            .env("REGISTRY_AUTH_FILE", &home.join("auth.json").display().to_string())
            .env("XDG_RUNTIME_DIR", &home.display().to_string())
    }

    /// With a variable of the environment.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// With arguments that come before those of each run.
    pub fn always(mut self, arguments: &[&str]) -> Self {
        self.arguments.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        self
    }

    /// Its version: that of the folder where it was found, if that is named after it (a program that was built from a module
    /// often knows only a part of its version), else the first one that it prints when run with these arguments.
    pub fn version(&self, arguments: &[&str]) -> Result<String> {
        let name = Path::new(&self.program).file_name().unwrap_or_default().to_string_lossy();
        let found = std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())
            .find(|folder| folder.join(&self.program).is_file());
        let folder = found.as_deref().and_then(Path::file_name).unwrap_or_default().to_string_lossy();
        if let Some(version) = folder.strip_prefix(&*name).and_then(|rest| rest.strip_prefix("-v")) {
            return Ok(version.to_owned());
        }
        let ran = self.run(arguments)?;
        let version = first_version(&ran.stdout).or_else(|| first_version(&ran.stderr));
        version.map(str::to_owned).with_context(|| format!("{} names no version: {ran:?}", self.program))
    }

    /// The command, not started yet.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).args(arguments).envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null());
        command
    }

    /// Runs it, whatever comes of it.
    pub fn try_run(&self, arguments: &[&str], input: &str) -> Result<Ran> {
        let start = Instant::now();
        let mut command = self.command(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("cannot start {}", self.program))?;
        if let Some(mut stdin) = child.stdin.take() {
            // A program that does not read its input may have ended by now.
            let _ = stdin.write_all(input.as_bytes());
        }
        let output = child.wait_with_output()?;
        let ran = Ran {
            status: output.status,
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        };
        let shown = arguments.join(" ");
        eprintln!("{} {shown}: {} in {:.1} s", self.program, ran.status, start.elapsed().as_secs_f64());
        Ok(ran)
    }

    /// Runs it; it must succeed.
    pub fn run(&self, arguments: &[&str]) -> Result<Ran> {
        self.run_with(arguments, "")
    }

    /// Runs it with this on its standard input; it must succeed.
    pub fn run_with(&self, arguments: &[&str], input: &str) -> Result<Ran> {
        let ran = self.try_run(arguments, input)?;
        ensure!(ran.status.success(), "{} {arguments:?} failed: {ran:#?}", self.program);
        Ok(ran)
    }

    /// Runs it; it must fail.
    pub fn fails(&self, arguments: &[&str]) -> Result<Ran> {
        self.fails_with(arguments, "")
    }

    /// Runs it with this on its standard input; it must fail.
    pub fn fails_with(&self, arguments: &[&str], input: &str) -> Result<Ran> {
        let ran = self.try_run(arguments, input)?;
        ensure!(!ran.status.success(), "{} {arguments:?} succeeded: {ran:#?}", self.program);
        eprintln!("  as it should: {}", ran.stderr.trim());
        Ok(ran)
    }
}

/// The first word that begins like a version: `v1.2…` or `1.2…`.
fn first_version(text: &str) -> Option<&str> {
    text.split_whitespace().map(|word| word.trim_matches(['"', ',', 'v'])).find(|word| {
        let (major, rest) = word.split_once('.').unwrap_or_default();
        !major.is_empty()
            && major.bytes().all(|byte| byte.is_ascii_digit())
            && rest.starts_with(|c: char| c.is_ascii_digit())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_found_in_what_programs_print() {
        for (printed, version) in [
            ("skopeo version 1.9.3", Some("1.9.3")),
            ("Client:\n  Version:  v2.4.2\n  Go version: go1.26.8", Some("2.4.2")),
            ("buildah version 1.28.2 (image-spec 1.0.2-dev, runtime-spec 1.0.2-dev)", Some("1.28.2")),
            ("20.10.24+dfsg1\n", Some("20.10.24+dfsg1")),
            ("GitVersion: devel", None),
        ] {
            assert_eq!(first_version(printed), version, "{printed}");
        }
    }
}
