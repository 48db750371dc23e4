//! The commands of a guide, run as they stand in it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::Ran;

/// A page of `docs/guide` with named blocks of commands: `<!-- block: NAME -->` stands above each.
#[derive(Debug)]
pub struct Guide {
    text: String,
}

impl Guide {
    /// Reads a page.
    pub fn open(name: &str) -> Result<Self> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/guide").join(name);
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok(Self { text })
    }

    /// The commands of a block.
    pub fn block(&self, name: &str) -> Result<&str> {
        let head = format!("<!-- block: {name} -->\n```sh\n");
        let (_, rest) = self.text.split_once(&head).with_context(|| format!("no block {name}"))?;
        Ok(rest.split_once("\n```").with_context(|| format!("the block {name} does not end"))?.0)
    }

    /// The names of all blocks.
    pub fn blocks(&self) -> Vec<&str> {
        self.text.lines().filter_map(|line| line.strip_prefix("<!-- block: ")?.strip_suffix(" -->")).collect()
    }
}

/// A shell in a folder of its own, with programs that stand in for those of `PATH`.
#[derive(Debug)]
pub struct Shell {
    folder: PathBuf,
    environment: Vec<(String, String)>,
}

impl Shell {
    /// In this folder, which is there.
    pub fn new(folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder.join("bin"))?;
        let path = std::env::var("PATH").unwrap_or_default();
        let path = format!("{}:{path}", folder.join("bin").display());
        let home = folder.display().to_string();
        Ok(Self { folder: folder.to_owned(), environment: vec![("PATH".to_owned(), path), ("HOME".to_owned(), home)] })
    }

    /// With a program of this name, a shell script.
    pub fn program(self, name: &str, script: &str) -> Result<Self> {
        use std::os::unix::fs::PermissionsExt as _;
        let path = self.folder.join("bin").join(name);
        fs::write(&path, format!("#!/bin/sh\n{script}\n"))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        Ok(self)
    }

    /// Runs commands, the first that fails ends them; whatever comes of it.
    pub fn try_run(&self, commands: &str) -> Result<Ran> {
        eprintln!("{}", commands.lines().map(|line| format!("$ {line}\n")).collect::<String>().trim_end());
        let output = Command::new("/bin/sh")
            .args(["-eu", "-c", commands])
            .current_dir(&self.folder)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .output()
            .context("cannot start /bin/sh")?;
        Ok(Ran {
            status: output.status,
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// Runs commands; they must succeed.
    pub fn run(&self, commands: &str) -> Result<Ran> {
        let ran = self.try_run(commands)?;
        ensure!(ran.status.success(), "{commands}\nfailed: {ran:#?}");
        Ok(ran)
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}
