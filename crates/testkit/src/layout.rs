//! OCI image layouts on disk: what skopeo, crane, oras and podman read and write.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use oci::{Algorithm, Digest, Hasher};
use serde_json::json;

use crate::image::{Blob, INDEX, Image};

/// Writes a layout that names this image `name`.
pub fn write(directory: &Path, image: &Image, name: &str) -> Result<()> {
    fs::create_dir_all(directory.join("blobs/sha256"))?;
    write_blobs(directory, image)?;
    fs::write(directory.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)?;
    let mut descriptor = image.descriptor();
    descriptor["annotations"] = json!({"org.opencontainers.image.ref.name": name});
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [descriptor]});
    fs::write(directory.join("index.json"), index.to_string())?;
    Ok(())
}

fn write_blobs(directory: &Path, image: &Image) -> Result<()> {
    for blob in image.blobs.iter().chain([&image.manifest]) {
        fs::write(path(directory, &blob.digest), &blob.bytes)?;
    }
    image.children.iter().try_for_each(|child| write_blobs(directory, child))
}

/// Where a layout keeps a blob.
pub fn path(directory: &Path, digest: &Digest) -> PathBuf {
    directory.join("blobs").join(digest.algorithm().as_str()).join(digest.hex())
}

/// Fails unless every blob and manifest of the image is there with its exact bytes, and every file that is there has the
/// digest that its name says.
pub fn assert_holds(directory: &Path, image: &Image) -> Result<()> {
    let found = digests(directory)?;
    let mut wanted: Vec<&Blob> = image.all_blobs();
    wanted.push(&image.manifest);
    wanted.extend(image.children.iter().map(|child| &child.manifest));
    for blob in wanted {
        let size = found.get(blob.digest.hex()).with_context(|| {
            format!("{} is missing in {}: {:?}", blob.digest, directory.display(), found.keys().collect::<Vec<_>>())
        })?;
        ensure!(*size == blob.bytes.len() as u64, "{} has {size} bytes, not {}", blob.digest, blob.bytes.len());
    }
    Ok(())
}

/// The blobs of a layout with their sizes; each is hashed and must be what its name says.
pub fn digests(directory: &Path) -> Result<BTreeMap<String, u64>> {
    let mut found = BTreeMap::new();
    let folder = directory.join("blobs/sha256");
    for entry in fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let actual = digest_of_file(&entry.path())?;
        ensure!(actual.hex() == name, "{name} holds bytes of {actual}");
        found.insert(name, entry.metadata()?.len());
    }
    Ok(found)
}

/// SHA-256 of a file, read in pieces.
pub fn digest_of_file(path: &Path) -> Result<Digest> {
    let mut file = fs::File::open(path).with_context(|| path.display().to_string())?;
    let mut hasher = Hashing::new();
    std::io::copy(&mut file, &mut hasher)?;
    Ok(hasher.finish().0)
}

/// A sink that hashes what is written to it.
pub struct Hashing {
    hasher: Hasher,
    length: u64,
}

impl Hashing {
    /// SHA-256 of nothing yet.
    pub fn new() -> Self {
        Self { hasher: Hasher::new(Algorithm::Sha256), length: 0 }
    }

    /// Digest and number of bytes.
    pub fn finish(self) -> (Digest, u64) {
        (self.hasher.finish(), self.length)
    }
}

impl Default for Hashing {
    fn default() -> Self {
        Self::new()
    }
}

impl std::io::Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.hasher.update(bytes);
        self.length += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Rng, image};

    #[test]
    fn a_layout_holds_its_image_and_a_changed_byte_is_found() {
        let directory = tempfile::tempdir().unwrap();
        let index = image::index(&mut Rng::new(5), &["amd64", "arm64"], 100).unwrap();
        write(directory.path(), &index, "1").unwrap();
        assert_holds(directory.path(), &index).unwrap();
        let victim = path(directory.path(), &index.children[1].blobs[1].digest);
        let mut bytes = fs::read(&victim).unwrap();
        bytes[3] ^= 1;
        fs::write(&victim, bytes).unwrap();
        assert!(assert_holds(directory.path(), &index).is_err());
    }
}
