//! A small piece of work, each step of which is noted with what the disk had been asked by then: what is promised at which
//! moment.

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Result, ensure};
use oci::{Algorithm, Digest, Hasher};
use serde_json::json;
use testkit::client::{location_of, with_digest};
use testkit::http::Body;
use testkit::image::MANIFEST;
use testkit::{Client, Rng};

use super::model::{Content, Known, Manifest, Repository};
use crate::block_disk::Recorder;

/// Lengths of what lives in the database.
const SMALL: Range<u64> = 1_000..16_000;
/// Lengths of what becomes a file.
const LARGE: Range<u64> = 20_000..300_000;

/// How a blob is pushed.
#[derive(Clone, Copy, Debug)]
enum Way {
    /// POST with all of it.
    Post,
    /// POST, then PUT with all of it.
    Put,
    /// POST, PATCH in so many pieces, PUT.
    Patch(usize),
}

/// One repository and who works in it.
pub struct Script {
    client: Client,
    rng: Rng,
    recorder: Recorder,
    repository: Repository,
    /// What held from when on.
    notes: Vec<(usize, Repository)>,
}

impl Script {
    /// Nothing is done yet.
    pub fn new(client: Client, rng: Rng, recorder: Recorder, name: &str) -> Self {
        let repository = Repository::new(name.to_owned());
        let notes = vec![(recorder.position(), repository.clone())];
        Self { client, rng, recorder, repository, notes }
    }

    /// When something was acknowledged or begun.
    pub fn marks(&self) -> impl Iterator<Item = usize> {
        self.notes.iter().map(|(position, _)| *position)
    }

    /// What was promised when the disk had been asked so much; `None` before the beginning.
    pub fn at(&self, position: usize) -> Option<&Repository> {
        let after = self.notes.partition_point(|(noted, _)| *noted <= position);
        Some(&self.notes.get(after.checked_sub(1)?)?.1)
    }

    /// What is promised in the end.
    pub fn end(&self) -> &Repository {
        &self.repository
    }

    fn note(&mut self) {
        self.notes.push((self.recorder.position(), self.repository.clone()));
    }

    /// Pushes, moves and deletes; some of it is of `shared`, which other repositories push as well.
    pub fn work(&mut self, shared: &[Arc<Vec<u8>>]) -> Result<()> {
        let config = self.push_new(Way::Put, SMALL)?;
        let mut layers = vec![self.push_new(Way::Patch(3), LARGE)?];
        for content in shared {
            layers.push(self.push(Way::Put, content)?);
        }
        let first = self.manifest(&config, &layers);
        self.put(&first, "first")?;
        let second_layers = [layers[0].clone(), self.push_new(Way::Post, LARGE)?];
        let second = self.manifest(&config, &second_layers);
        self.put(&second, "second")?;
        self.put(&second, "first")?;
        self.push_new(Way::Patch(1), SMALL)?;
        let third_layers = [self.push_new(Way::Patch(2), LARGE)?];
        let third = self.manifest(&config, &third_layers);
        self.put(&third, "third")?;
        self.delete_tag("second")?;
        self.delete(&first)
    }

    /// Runs a collection without grace; nobody may push meanwhile.
    pub fn collect(scripts: &mut [Self], run: impl FnOnce() -> Result<()>) -> Result<()> {
        for script in &mut *scripts {
            script.repository.may_be_collected();
            script.note();
        }
        run()?;
        scripts.iter_mut().for_each(Self::note);
        Ok(())
    }

    fn push_new(&mut self, way: Way, lengths: Range<u64>) -> Result<Digest> {
        let length = lengths.start + self.rng.below(lengths.end - lengths.start);
        let bytes = self.rng.bytes(usize::try_from(length)?);
        self.push(way, &Arc::new(bytes))
    }

    fn push(&mut self, way: Way, bytes: &Arc<Vec<u8>>) -> Result<Digest> {
        let digest = Hasher::digest(Algorithm::Sha256, bytes);
        let content = Content { bytes: Arc::clone(bytes), acknowledged: None };
        self.repository.blobs.entry(digest.clone()).or_insert(content);
        self.note();
        self.send(way, bytes, &digest)?;
        if let Some(content) = self.repository.blobs.get_mut(&digest) {
            content.acknowledged = Some(Instant::now());
        }
        self.note();
        Ok(digest)
    }

    fn send(&mut self, way: Way, bytes: &[u8], digest: &Digest) -> io::Result<()> {
        let (name, client) = (&self.repository.name, &mut self.client);
        match way {
            Way::Post => {
                let target = format!("/v2/{name}/blobs/uploads/?digest={digest}");
                client.send(name, "POST", &target, &[], Body::Bytes(bytes))?.expect_status(201)?;
            }
            Way::Put => client.push_blob(name, digest, bytes)?,
            Way::Patch(count) => {
                let mut location = client.start(name)?;
                for piece in bytes.chunks(bytes.len().div_ceil(count)) {
                    let sent = client.send(name, "PATCH", &location, &[], Body::Bytes(piece))?;
                    location = location_of(&sent.expect_status(202)?)?;
                }
                let target = with_digest(&location, digest);
                client.send(name, "PUT", &target, &[], Body::Bytes(b""))?.expect_status(201)?;
            }
        }
        Ok(())
    }

    /// A manifest of these blobs, which is not pushed yet.
    fn manifest(&mut self, config: &Digest, layers: &[Digest]) -> Digest {
        let descriptor = |digest: &Digest| {
            let size = self.repository.blobs.get(digest).map(|content| content.bytes.len());
            json!({"mediaType": "application/octet-stream", "digest": digest.as_str(), "size": size})
        };
        let bytes = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": descriptor(config),
            "layers": layers.iter().map(descriptor).collect::<Vec<_>>(),
            "annotations": {"number": self.rng.number().to_string()},
        });
        let bytes = bytes.to_string().into_bytes();
        let digest = Hasher::digest(Algorithm::Sha256, &bytes);
        let blobs = layers.iter().chain([config]).cloned().collect();
        let manifest = Manifest { bytes, blobs, present: Known::certain(false) };
        self.repository.manifests.insert(digest.clone(), manifest);
        digest
    }

    fn present(&mut self, digest: &Digest, change: impl FnOnce(&mut Known<bool>)) {
        if let Some(manifest) = self.repository.manifests.get_mut(digest) {
            change(&mut manifest.present);
        }
    }

    fn tagged(&mut self, tag: &str) -> &mut Known<Option<Digest>> {
        self.repository.tags.entry(tag.to_owned()).or_insert(Known::certain(None))
    }

    fn put(&mut self, digest: &Digest, tag: &str) -> Result<()> {
        self.present(digest, |present| present.may_become(true));
        self.tagged(tag).may_become(Some(digest.clone()));
        self.note();
        let bytes = self.repository.manifests.get(digest).map(|manifest| manifest.bytes.clone()).unwrap_or_default();
        self.client.put_manifest(&self.repository.name, tag, MANIFEST, &bytes)?.expect_status(201)?;
        self.present(digest, |present| present.becomes(true));
        self.tagged(tag).becomes(Some(digest.clone()));
        self.note();
        Ok(())
    }

    fn delete_tag(&mut self, tag: &str) -> Result<()> {
        self.tagged(tag).may_become(None);
        self.note();
        ensure!(self.client.delete_manifest(&self.repository.name, tag)? == 202, "{tag} cannot be deleted");
        self.tagged(tag).becomes(None);
        self.note();
        Ok(())
    }

    /// Deletes a manifest that no tag points to.
    fn delete(&mut self, digest: &Digest) -> Result<()> {
        self.present(digest, |present| present.may_become(false));
        self.note();
        let status = self.client.delete_manifest(&self.repository.name, digest.as_str())?;
        ensure!(status == 202, "{digest} cannot be deleted: {status}");
        self.present(digest, |present| present.becomes(false));
        self.note();
        Ok(())
    }
}
