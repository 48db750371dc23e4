//! `cargo xtask image`: the static binary, and a folder that `docker build` makes the image of without any network.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result};

use crate::process::{cargo, output, run};

/// What the Dockerfile in the root builds with, too.
const STATIC: &str = "-C target-feature=+crt-static";

/// Builds the binary and fills the folder; where that is.
pub fn prepare(root: &Path) -> Result<PathBuf> {
    let binary = build(root)?;
    let folder = target_dir(root).join("image");
    let volume = folder.join("volume");
    fs::create_dir_all(&volume).with_context(|| format!("cannot make {}", volume.display()))?;
    for (from, to) in [(&binary, "portcullis"), (&root.join("packaging/docker/Dockerfile.prebuilt"), "Dockerfile")] {
        fs::copy(from, folder.join(to)).with_context(|| format!("cannot copy {}", from.display()))?;
    }
    Ok(folder)
}

/// As [`prepare`], for people.
pub fn prepare_and_tell(root: &Path) -> Result<bool> {
    let folder = prepare(root)?;
    eprintln!("\nnext: docker build -t portcullis {}", folder.display());
    Ok(true)
}

/// With `--target` the flag is for the program, not for build scripts and macros, which cannot be static.
fn build(root: &Path) -> Result<PathBuf> {
    let version = output(&mut command("rustc", root, &["-vV"]))?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: ")).context("rustc does not tell its host")?;
    let start = Instant::now();
    run(
        cargo(root, &["build", "--release", "--locked", "-p", "portcullis", "--target", host]).env("RUSTFLAGS", STATIC)
    )?;
    let binary = target_dir(root).join(host).join("release/portcullis");
    let size = fs::metadata(&binary).with_context(|| format!("there is no {}", binary.display()))?.len();
    eprintln!("{}: static, {} KiB, {:.0} s", binary.display(), size >> 10, start.elapsed().as_secs_f64());
    Ok(binary)
}

fn command(program: &str, root: &Path, arguments: &[&str]) -> std::process::Command {
    let mut command = std::process::Command::new(program);
    command.current_dir(root).args(arguments);
    command
}

fn target_dir(root: &Path) -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from)
}
