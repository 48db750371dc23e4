//! Manifests: a strict, bounded reading of what a client pushed.
//!
//! The bytes themselves are never changed; [`Manifest`] is a view of the fields that a registry acts on.

use std::borrow::Cow;
use std::collections::HashSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::error::{Error, ErrorCode, excerpt};
use crate::json::{Keys, Reader, invalid};
use crate::media_type::is_non_distributable;
use crate::{Algorithm, Digest, Hasher, MediaType};

/// What a manifest is, by its shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ManifestKind {
    /// `config` and `layers`: an image or an artifact in the form of one.
    Image,
    /// `manifests`.
    Index,
    /// `blobs`: the withdrawn OCI artifact manifest.
    Artifact,
}

/// A descriptor: what a manifest says about something else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Descriptor {
    /// `mediaType`: 1 to 255 bytes without control characters, otherwise free.
    pub media_type: String,
    /// `digest`.
    pub digest: Digest,
    /// `size` in bytes, at most 2^63 - 1.
    pub size: u64,
    /// Whether `urls` names at least one place. Nothing is ever fetched from there.
    pub has_urls: bool,
}

impl Descriptor {
    /// Whether this names the empty JSON object, whose bytes everybody knows.
    pub fn is_empty_json(&self) -> bool {
        is_empty_json(&self.digest)
    }
}

/// The content of the empty descriptor (image specification, `manifest.md`, "Guidance for an Empty Descriptor").
pub const EMPTY_JSON: &[u8] = b"{}";

/// Whether `digest` is that of [`EMPTY_JSON`].
pub fn is_empty_json(digest: &Digest) -> bool {
    const SHA256: &str = "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";
    const SHA512: &str = "27c74670adb75075fad058d5ceaf7b20c4e7786c83bae8a32f626f9782af34c9a33c2046ef60fd2a7878d378e29fec851806bbd9a67878f3a9f1cda4830763fd";
    digest.hex()
        == match digest.algorithm() {
            Algorithm::Sha256 => SHA256,
            Algorithm::Sha512 => SHA512,
        }
}

/// What a registry reads from a manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// What it is.
    pub kind: ManifestKind,
    /// The type to store and to serve it with: the `Content-Type` of the push, else its own `mediaType`, else by shape.
    pub media_type: MediaType,
    /// `config` of an image.
    pub config: Option<Descriptor>,
    /// `layers` of an image.
    pub layers: Vec<Descriptor>,
    /// `blobs` of an artifact manifest.
    pub blobs: Vec<Descriptor>,
    /// `manifests` of an index. What they name may be a blob (buildkit's registry cache) or be missing.
    pub children: Vec<Descriptor>,
    /// `subject`, which may be missing.
    pub subject: Option<Descriptor>,
    /// The type that the referrers list shows: its own `artifactType`, else, for an image, that of its `config`.
    pub artifact_type: Option<String>,
    /// `annotations`, the JSON object as it was written: no key twice, all values strings.
    pub annotations: Option<String>,
}

impl Manifest {
    /// The longest manifest, in bytes: what clients read at most, and what the specification asks a registry to take.
    pub const MAX_BYTES: usize = 4 * 1024 * 1024;
    /// How many descriptors `layers`, `blobs` or `manifests` may list. Each becomes a row of the push's transaction.
    /// Docker builds at most 127 layers; the index of a build cache may have thousands.
    pub const MAX_DESCRIPTORS: usize = 10_000;
    /// How many annotations the manifest itself may have.
    pub const MAX_ANNOTATIONS: usize = 4096;
    /// The longest key of an annotation, in bytes. Values are bounded by [`Manifest::MAX_BYTES`] alone.
    pub const MAX_ANNOTATION_KEY: usize = 1024;

    /// Reads a manifest. `content_type` is the header's value as it came.
    ///
    /// `SIZE_INVALID` when it is over [`Manifest::MAX_BYTES`] (answer 413), otherwise `MANIFEST_INVALID`, on which
    /// podman tries another format (Q56).
    pub fn parse(bytes: &[u8], content_type: Option<&str>) -> Result<Self, Error> {
        if bytes.len() > Self::MAX_BYTES {
            return Err(Error::new(
                ErrorCode::SizeInvalid,
                format!("a manifest has at most {} bytes, this one has {}", Self::MAX_BYTES, bytes.len()),
            ));
        }
        let header = content_type.filter(|text| !text.trim().is_empty()).map(MediaType::parse).transpose()?;
        if let Some(header) = &header {
            refuse_schema1(header)?;
        }
        Fields::read(bytes)?.check(header)
    }

    /// The digests that must be in the repository before this manifest may be: `config`, `layers` and `blobs`, each
    /// once, without those with `urls`, of a type that is not distributed, or of the empty JSON object.
    pub fn required(&self) -> Vec<Digest> {
        let mut seen = HashSet::new();
        self.config
            .iter()
            .chain(&self.layers)
            .chain(&self.blobs)
            .filter(|d| !d.has_urls && !is_non_distributable(&d.media_type) && !d.is_empty_json())
            .filter(|d| seen.insert(&d.digest))
            .map(|d| d.digest.clone())
            .collect()
    }
}

/// The top level of a manifest as it was written.
#[derive(Default)]
struct Fields {
    schema_version: Option<u64>,
    media_type: Option<String>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
    blobs: Option<Vec<Descriptor>>,
    manifests: Option<Vec<Descriptor>>,
    subject: Option<Descriptor>,
    artifact_type: Option<String>,
    annotations: Option<String>,
    has_config: bool,
    has_fs_layers: bool,
}

const TOP_LEVEL: &[&str] = &[
    "schemaVersion",
    "mediaType",
    "config",
    "layers",
    "blobs",
    "manifests",
    "subject",
    "artifactType",
    "annotations",
    "fsLayers",
];

impl Fields {
    fn read(bytes: &[u8]) -> Result<Self, Error> {
        let (mut fields, mut keys) = (Self::default(), Keys::new(TOP_LEVEL));
        let mut reader = Reader::open(bytes)?;
        reader.object(|reader, key| {
            match keys.note(key)? {
                Some("schemaVersion") => fields.schema_version = Some(reader.unsigned()?),
                Some("mediaType") => fields.media_type = text(reader, "mediaType")?,
                Some("config") => {
                    fields.has_config = true;
                    fields.config = optional_descriptor(reader)?;
                }
                Some("layers") => fields.layers = Some(descriptors(reader)?),
                Some("blobs") => fields.blobs = Some(descriptors(reader)?),
                Some("manifests") => fields.manifests = Some(descriptors(reader)?),
                Some("subject") => fields.subject = optional_descriptor(reader)?,
                Some("artifactType") => fields.artifact_type = text(reader, "artifactType")?,
                Some("annotations") => fields.annotations = annotations(reader)?,
                Some(_) => {
                    fields.has_fs_layers = true;
                    reader.skip()?;
                }
                None => {
                    reader.skip()?;
                }
            }
            Ok(())
        })?;
        reader.finish()?;
        Ok(fields)
    }

    fn check(self, header: Option<MediaType>) -> Result<Manifest, Error> {
        let body = self.media_type.as_deref().map(MediaType::parse).transpose()?;
        if let Some(body) = &body {
            refuse_schema1(body)?;
        }
        if let (Some(header), Some(body)) = (&header, &body)
            && !header.is(body.as_str())
        {
            return Err(invalid(&format!(
                "its mediaType '{}' is not the Content-Type '{}' of the request",
                excerpt(body.as_str()),
                excerpt(header.as_str())
            )));
        }
        let stated = header.or(body);
        let kind = self.kind(stated.as_ref())?;
        self.check_schema_version(stated.as_ref())?;
        let known = stated.as_ref().is_none_or(|stated| known_kind(stated).is_some());
        if kind == ManifestKind::Image && known && self.config.is_none() {
            return Err(invalid("an image manifest has no config"));
        }
        let media_type = match stated {
            Some(stated) => stated,
            None => MediaType::parse(match kind {
                ManifestKind::Image => MediaType::OCI_MANIFEST,
                ManifestKind::Index => MediaType::OCI_INDEX,
                ManifestKind::Artifact => MediaType::OCI_ARTIFACT,
            })?,
        };
        let artifact_type = self.artifact_type.or_else(|| self.config.as_ref().map(|config| config.media_type.clone()));
        Ok(Manifest {
            kind,
            media_type,
            config: self.config,
            layers: self.layers.unwrap_or_default(),
            blobs: self.blobs.unwrap_or_default(),
            children: self.manifests.unwrap_or_default(),
            subject: self.subject,
            artifact_type,
            annotations: self.annotations,
        })
    }

    /// The kind by shape, which must be one, and that of the media type where that is known (CVE-2021-41190).
    fn kind(&self, stated: Option<&MediaType>) -> Result<ManifestKind, Error> {
        if self.has_fs_layers {
            return Err(schema1());
        }
        let by_type = stated.and_then(known_kind);
        let by_shape = match (self.has_config || self.layers.is_some(), self.manifests.is_some(), self.blobs.is_some())
        {
            (true, false, false) => ManifestKind::Image,
            (false, true, false) => ManifestKind::Index,
            (false, false, true) => ManifestKind::Artifact,
            (false, false, false) if by_type == Some(ManifestKind::Artifact) => ManifestKind::Artifact,
            (false, false, false) => {
                return Err(invalid("it has neither config and layers nor manifests"));
            }
            _ => {
                return Err(invalid("it is ambiguous: only one of config and layers, manifests, blobs may be there"));
            }
        };
        match (by_type, stated) {
            (Some(by_type), Some(stated)) if by_type != by_shape => {
                Err(invalid(&format!("its fields are not those of '{stated}'")))
            }
            _ => Ok(by_shape),
        }
    }

    /// `schemaVersion` is 2; the withdrawn artifact manifest and types of others may leave it out.
    fn check_schema_version(&self, stated: Option<&MediaType>) -> Result<(), Error> {
        match self.schema_version {
            Some(2) => Ok(()),
            Some(1) => Err(schema1()),
            Some(_) => Err(invalid("schemaVersion is not 2")),
            None => match stated.map(known_kind) {
                Some(None | Some(ManifestKind::Artifact)) => Ok(()),
                None if self.blobs.is_some() => Ok(()),
                _ => Err(invalid("schemaVersion is missing")),
            },
        }
    }
}

/// The kind that a media type known to us stands for.
fn known_kind(media_type: &MediaType) -> Option<ManifestKind> {
    let is_any = |types: &[&str]| types.iter().any(|known| media_type.is(known));
    if is_any(&[MediaType::OCI_MANIFEST, MediaType::DOCKER_MANIFEST]) {
        Some(ManifestKind::Image)
    } else if is_any(&[MediaType::OCI_INDEX, MediaType::DOCKER_LIST]) {
        Some(ManifestKind::Index)
    } else if media_type.is(MediaType::OCI_ARTIFACT) {
        Some(ManifestKind::Artifact)
    } else {
        None
    }
}

fn refuse_schema1(media_type: &MediaType) -> Result<(), Error> {
    let schema1_types = [MediaType::DOCKER_SCHEMA1, MediaType::DOCKER_SCHEMA1_SIGNED];
    if schema1_types.iter().any(|known| media_type.is(known)) { Err(schema1()) } else { Ok(()) }
}

fn schema1() -> Error {
    invalid("docker's manifest schema 1 is not accepted: push schema 2 or an OCI manifest")
}

/// A list of descriptors; `null` is an empty one, as Go writes it.
fn descriptors(reader: &mut Reader<'_>) -> Result<Vec<Descriptor>, Error> {
    let mut list = Vec::new();
    if reader.null()? {
        return Ok(list);
    }
    reader.array(|reader| {
        if list.len() == Manifest::MAX_DESCRIPTORS {
            return Err(invalid(&format!("it lists more than {} descriptors", Manifest::MAX_DESCRIPTORS)));
        }
        list.push(descriptor(reader)?);
        Ok(())
    })?;
    Ok(list)
}

/// A descriptor, or `null`.
fn optional_descriptor(reader: &mut Reader<'_>) -> Result<Option<Descriptor>, Error> {
    if reader.null()? { Ok(None) } else { descriptor(reader).map(Some) }
}

const DESCRIPTOR: &[&str] = &["mediaType", "digest", "size", "urls", "data", "annotations", "artifactType", "platform"];

fn descriptor(reader: &mut Reader<'_>) -> Result<Descriptor, Error> {
    let mut keys = Keys::new(DESCRIPTOR);
    let (mut media_type, mut digest, mut size, mut has_urls) = (None, None, None, false);
    let mut data: Option<Cow<'_, str>> = None;
    reader.object(|reader, key| {
        match keys.note(key)? {
            Some("mediaType") => media_type = text(reader, "mediaType of a descriptor")?,
            Some("digest") => digest = Some(Digest::parse(&reader.string()?).map_err(|e| invalid(&e.message))?),
            Some("size") => size = Some(reader.unsigned()?),
            Some("urls") => has_urls = urls(reader)?,
            Some("data") if !reader.null()? => data = Some(reader.string()?),
            Some("data") => {}
            _ => {
                reader.skip()?;
            }
        }
        Ok(())
    })?;
    let missing = |name: &str| invalid(&format!("a descriptor has no {name}"));
    let descriptor = Descriptor {
        digest: digest.ok_or_else(|| missing("digest"))?,
        media_type: media_type.ok_or_else(|| missing("mediaType"))?,
        size: size.ok_or_else(|| missing("size"))?,
        has_urls,
    };
    if let Some(data) = data {
        check_data(&descriptor, &data)?;
    }
    Ok(descriptor)
}

/// `data` is the content itself, and clients may take it unread (image specification, `descriptor.md`).
fn check_data(descriptor: &Descriptor, data: &str) -> Result<(), Error> {
    let digest = &descriptor.digest;
    let bytes = STANDARD.decode(data).map_err(|_| invalid(&format!("the data of {digest} is not base64")))?;
    if u64::try_from(bytes.len()).ok() != Some(descriptor.size) || Hasher::digest(digest.algorithm(), &bytes) != *digest
    {
        return Err(invalid(&format!("the data of {digest} is not what its digest and size say")));
    }
    Ok(())
}

/// Whether `urls` names anything.
fn urls(reader: &mut Reader<'_>) -> Result<bool, Error> {
    let mut any = false;
    if !reader.null()? {
        reader.array(|reader| {
            any = true;
            reader.string().map(drop)
        })?;
    }
    Ok(any)
}

/// A short string: media types. `null` and the empty string count as absent, as Go writes them.
fn text(reader: &mut Reader<'_>, name: &str) -> Result<Option<String>, Error> {
    if reader.null()? {
        return Ok(None);
    }
    let value = reader.string()?;
    if value.len() > MediaType::MAX || value.chars().any(char::is_control) {
        return Err(invalid(&format!(
            "{name} has at most {} bytes and no control characters: '{}'",
            MediaType::MAX,
            excerpt(&value)
        )));
    }
    Ok(Some(value.into_owned()).filter(|value| !value.is_empty()))
}

/// The annotations of the manifest, checked and as written.
fn annotations(reader: &mut Reader<'_>) -> Result<Option<String>, Error> {
    if reader.null()? {
        return Ok(None);
    }
    let mut keys: HashSet<String> = HashSet::new();
    let written = reader.verbatim(|reader| {
        reader.object(|reader, key| {
            if key.len() > Manifest::MAX_ANNOTATION_KEY {
                return Err(invalid(&format!(
                    "the key of an annotation is longer than {} bytes",
                    Manifest::MAX_ANNOTATION_KEY
                )));
            }
            if keys.len() == Manifest::MAX_ANNOTATIONS {
                return Err(invalid(&format!("it has more than {} annotations", Manifest::MAX_ANNOTATIONS)));
            }
            if !keys.insert(key.to_owned()) {
                return Err(invalid(&format!("the annotation '{}' comes twice", excerpt(key))));
            }
            reader.string().map(drop)
        })
    })?;
    Ok(Some(written.to_owned()))
}

#[cfg(test)]
mod tests;
