//! A push that is killed half way, and what becomes of what it left.

use std::fs::File;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use testkit::http::Body;
use testkit::image::Recipe;
use testkit::{Noise, Rng, layout, tar};

use crate::{Stage, Tool};

/// How much of the push has to be there before it is killed.
const ENOUGH: u64 = 1 << 20;
/// Size of what is pushed.
const LARGE: usize = 192 << 20;
/// How long a push may take to get so far, and its garbage to go.
const PATIENCE: Duration = Duration::from_secs(90);

impl Stage {
    /// Starts a push of something large to `repository:tag` and kills the client when the server has a part of it. Fails
    /// unless no tag is left, and all bytes are collected. For [`Stage::hasty`], and a repository that is empty before.
    pub fn cancelled_push(&self, tool: &Tool, arguments: &[&str], repository: &str) -> Result<()> {
        let before = self.stored_bytes()?;
        let mut child = tool.command(arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        let start = Instant::now();
        while self.stored_bytes()? < before + ENOUGH {
            let ended = child.try_wait()?;
            let late = start.elapsed() > PATIENCE;
            if late || ended.is_some() {
                let _ = child.kill();
            }
            ensure!(!late && ended.is_none(), "{arguments:?}: {ended:?}, and the server has nothing of it");
            std::thread::sleep(Duration::from_millis(2));
        }
        child.kill()?;
        let status = child.wait()?;
        ensure!(!status.success(), "{arguments:?} was done before it could be killed");
        eprintln!("killed with {} of its bytes at the server", self.stored_bytes()? - before);
        let target = format!("/v2/{repository}/tags/list");
        let tags = self.client("alice").send(repository, "GET", &target, &[], Body::None)?;
        ensure!(tags.status == 404 || tags.text().contains("[]"), "a cancelled push left a tag: {tags:?}");
        let start = Instant::now();
        while self.stored_bytes()? > before {
            let left = self.stored_bytes()? - before;
            ensure!(start.elapsed() < PATIENCE, "{left} bytes of a cancelled push are never collected");
            std::thread::sleep(Duration::from_millis(200));
        }
        eprintln!("collected after {:.1} s", start.elapsed().as_secs_f64());
        Ok(())
    }

    /// A layout, named `it`, of an image that takes a client long enough to push; its folder.
    pub fn large_layout(&self) -> Result<String> {
        let mut rng = Rng::announced("large");
        let image = Recipe::new().layer(&mut rng, LARGE)?.image();
        layout::write(&self.path("large"), &image, "it")?;
        Ok(self.text_path("large"))
    }

    /// A layer of that size, as a file.
    pub fn large_layer(&self) -> Result<String> {
        let length = LARGE as u64;
        let path = self.path("large.tar");
        let mut file = File::create(&path)?;
        tar::write_file(&mut file, "large", &mut Noise::new(17, length), length, 0o644)?;
        tar::finish(&mut file)?;
        Ok(path.display().to_string())
    }

    /// Bytes of all files of the store.
    pub fn stored_bytes(&self) -> Result<u64> {
        bytes_below(&self.server.data_dir().join("blobs"))
    }
}

fn bytes_below(folder: &Path) -> Result<u64> {
    let mut sum = 0;
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        // A file may go between the two looks at it.
        let Ok(metadata) = entry.metadata() else { continue };
        sum += if metadata.is_dir() { bytes_below(&entry.path())? } else { metadata.len() };
    }
    Ok(sum)
}
