//! `cargo xtask image`: the static binary, and a folder that `docker build` makes the image of without any network.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result};

use crate::part::target_folder;
use crate::process::{cargo, run};

/// What the Dockerfile in the root builds with, too.
const STATIC: [&str; 2] = ["-C", "target-feature=+crt-static"];

/// Builds the binary and fills the folder; where that is.
pub fn prepare(root: &Path) -> Result<PathBuf> {
    let folder = target_folder(root).join("image");
    let volume = folder.join("volume");
    fs::create_dir_all(&volume).with_context(|| format!("cannot make {}", volume.display()))?;
    let recipe = root.join("packaging/docker/Dockerfile.prebuilt");
    fs::copy(&recipe, folder.join("Dockerfile")).with_context(|| format!("cannot copy {}", recipe.display()))?;
    build(root, &folder.join("portcullis"))?;
    Ok(folder)
}

/// As [`prepare`], for people.
pub fn prepare_and_tell(root: &Path) -> Result<bool> {
    let folder = prepare(root)?;
    eprintln!("\nnext: docker build -t portcullis {}", folder.display());
    Ok(true)
}

/// The flag is for the last crate alone, which is what links: everything else is that of the release build.
fn build(root: &Path, to: &Path) -> Result<()> {
    let start = Instant::now();
    let arguments = ["rustc", "--release", "--locked", "-p", "portcullis", "--bin", "portcullis", "--"];
    run(cargo(root, &arguments).args(STATIC))?;
    let built = target_folder(root).join("release/portcullis");
    fs::copy(&built, to).with_context(|| format!("cannot copy {}", built.display()))?;
    // Cargo has kept the one that is not static, and puts it back.
    run(&mut cargo(root, &["build", "--release", "--locked", "-p", "portcullis"]))?;
    let size = fs::metadata(to)?.len();
    eprintln!("{}: static, {} KiB, {:.0} s", to.display(), size >> 10, start.elapsed().as_secs_f64());
    Ok(())
}
