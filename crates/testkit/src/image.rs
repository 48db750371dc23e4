//! Images, indexes and artifacts, built by code.

use std::io;

use oci::{Algorithm, Digest, Hasher};
use serde_json::{Value, json};

use crate::{Rng, tar};

/// Type of an OCI image manifest.
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// Type of an OCI index.
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// Type of an OCI image configuration.
pub const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// Type of a layer as most clients write it.
pub const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
/// Type of the empty descriptor.
pub const EMPTY: &str = "application/vnd.oci.empty.v1+json";

/// Bytes with their digest.
#[derive(Clone, Debug)]
pub struct Blob {
    /// SHA-256 of the bytes.
    pub digest: Digest,
    /// The bytes.
    pub bytes: Vec<u8>,
}

impl Blob {
    /// These bytes.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self { digest: Hasher::digest(Algorithm::Sha256, &bytes), bytes }
    }

    /// A descriptor of it.
    pub fn descriptor(&self, media_type: &str) -> Value {
        json!({"mediaType": media_type, "digest": self.digest.as_str(), "size": self.bytes.len()})
    }
}

/// A manifest or index as bytes, and what it needs.
#[derive(Clone, Debug)]
pub struct Image {
    /// `Content-Type` of the manifest.
    pub media_type: &'static str,
    /// The manifest.
    pub manifest: Blob,
    /// Config and layers.
    pub blobs: Vec<Blob>,
    /// Manifests of an index.
    pub children: Vec<Image>,
}

impl Image {
    /// A descriptor of the manifest.
    pub fn descriptor(&self) -> Value {
        self.manifest.descriptor(self.media_type)
    }

    /// Every blob, those of the children too.
    pub fn all_blobs(&self) -> Vec<&Blob> {
        self.blobs.iter().chain(self.children.iter().flat_map(Self::all_blobs)).collect()
    }
}

/// What an image is made of.
#[derive(Clone, Debug)]
pub struct Recipe {
    layers: Vec<Vec<u8>>,
    architecture: String,
    subject: Option<Value>,
    annotations: Value,
}

impl Recipe {
    /// An image without layers.
    pub fn new() -> Self {
        Self { layers: Vec::new(), architecture: "amd64".to_owned(), subject: None, annotations: json!({}) }
    }

    /// One more layer: an archive of one file of this many random bytes.
    pub fn layer(mut self, rng: &mut Rng, length: usize) -> io::Result<Self> {
        let name = format!("file-{}-{:016x}", self.layers.len(), rng.number());
        self.layers.push(tar::archive(&[(&name, &rng.bytes(length))])?);
        Ok(self)
    }

    /// So many more layers of about this size each.
    pub fn layers(mut self, rng: &mut Rng, count: usize, length: usize) -> io::Result<Self> {
        for _ in 0..count {
            self = self.layer(rng, length)?;
        }
        Ok(self)
    }

    /// For this architecture (Go's name of it).
    pub fn architecture(mut self, name: &str) -> Self {
        name.clone_into(&mut self.architecture);
        self
    }

    /// Referring to this image.
    pub fn subject(mut self, image: &Image) -> Self {
        self.subject = Some(image.descriptor());
        self
    }

    /// With this annotation.
    pub fn annotation(mut self, key: &str, value: &str) -> Self {
        self.annotations[key] = json!(value);
        self
    }

    /// The image.
    pub fn image(self) -> Image {
        let diff_ids: Vec<String> =
            self.layers.iter().map(|layer| Hasher::digest(Algorithm::Sha256, layer).to_string()).collect();
        let layers: Vec<Blob> = self.layers.iter().map(|layer| Blob::new(tar::gzip(layer))).collect();
        let config = json!({
            "architecture": self.architecture,
            "os": "linux",
            "config": {"Cmd": ["/file"]},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        });
        let config = Blob::new(config.to_string().into_bytes());
        let mut manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": config.descriptor(CONFIG),
            "layers": layers.iter().map(|layer| layer.descriptor(LAYER)).collect::<Vec<_>>(),
        });
        add(&mut manifest, self.subject, self.annotations);
        let mut blobs = vec![config];
        blobs.extend(layers);
        Image { media_type: MANIFEST, manifest: document(&manifest), blobs, children: Vec::new() }
    }

    /// An artifact of this type: its layers as they are, without a config.
    pub fn artifact(self, artifact_type: &str) -> Image {
        let layers: Vec<Blob> = self.layers.into_iter().map(Blob::new).collect();
        let empty = Blob::new(b"{}".to_vec());
        let mut manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "artifactType": artifact_type,
            "config": empty.descriptor(EMPTY),
            "layers": layers.iter().map(|layer| layer.descriptor("application/octet-stream")).collect::<Vec<_>>(),
        });
        add(&mut manifest, self.subject, self.annotations);
        let mut blobs = vec![empty];
        blobs.extend(layers);
        Image { media_type: MANIFEST, manifest: document(&manifest), blobs, children: Vec::new() }
    }
}

impl Default for Recipe {
    fn default() -> Self {
        Self::new()
    }
}

/// An index of images of these architectures, each with one layer of about `length` bytes.
pub fn index(rng: &mut Rng, architectures: &[&str], length: usize) -> io::Result<Image> {
    let mut children = Vec::new();
    let mut manifests = Vec::new();
    for architecture in architectures {
        let child = Recipe::new().architecture(architecture).layer(rng, length)?.image();
        let mut descriptor = child.descriptor();
        descriptor["platform"] = json!({"architecture": architecture, "os": "linux"});
        manifests.push(descriptor);
        children.push(child);
    }
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests});
    Ok(Image { media_type: INDEX, manifest: document(&index), blobs: Vec::new(), children })
}

/// Five architectures of common multi-platform images.
pub const FIVE_PLATFORMS: [&str; 5] = ["amd64", "arm64", "ppc64le", "riscv64", "s390x"];

fn add(manifest: &mut Value, subject: Option<Value>, annotations: Value) {
    if let Some(subject) = subject {
        manifest["subject"] = subject;
    }
    if annotations.as_object().is_some_and(|map| !map.is_empty()) {
        manifest["annotations"] = annotations;
    }
}

fn document(value: &Value) -> Blob {
    Blob::new(value.to_string().into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_parse_by_the_products_own_rules() {
        let rng = &mut Rng::new(3);
        let image = Recipe::new().layers(rng, 3, 100).unwrap().annotation("a", "b").image();
        let parsed = oci::Manifest::parse(&image.manifest.bytes, Some(image.media_type)).unwrap();
        let digests: Vec<_> = image.blobs.iter().map(|blob| blob.digest.clone()).collect();
        assert_eq!(parsed.required(), digests);
        let artifact = Recipe::new().layer(rng, 10).unwrap().subject(&image).artifact("application/x.test");
        oci::Manifest::parse(&artifact.manifest.bytes, Some(artifact.media_type)).unwrap();
        let index = index(rng, &FIVE_PLATFORMS, 10).unwrap();
        oci::Manifest::parse(&index.manifest.bytes, Some(index.media_type)).unwrap();
        assert_eq!(index.all_blobs().len(), 10);
    }
}
