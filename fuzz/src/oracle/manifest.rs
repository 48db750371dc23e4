//! What a manifest is, read from a tree of all of its values.

use aws_lc_rs::digest::{SHA256, SHA512, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use oci::{Manifest, ManifestKind, MediaType};

use super::json::Json;
use super::{APPLICATION_TYPE, DIGEST};

/// A descriptor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Descriptor {
    pub media_type: String,
    pub digest: String,
    pub size: u64,
    pub has_urls: bool,
}

/// The fields that a registry acts on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expected {
    pub kind: ManifestKind,
    pub media_type: String,
    pub config: Option<Descriptor>,
    pub listed: Vec<Descriptor>,
    pub subject: Option<Descriptor>,
    pub artifact_type: Option<String>,
    pub annotations: usize,
}

type Fields<'a> = Vec<(&'a str, &'a Json)>;

/// The named fields of an object; `None` when it is no object, one of them comes twice, or one in other case is there.
fn fields<'a>(value: &'a Json, names: &[&str]) -> Option<Fields<'a>> {
    let Json::Object(pairs) = value else { return None };
    let fold = |text: &str| text.replace('ſ', "s").replace('\u{212A}', "k").to_ascii_lowercase();
    let mut found: Fields<'a> = Vec::new();
    for (key, value) in pairs {
        let Some(name) = names.iter().find(|name| fold(name) == fold(key)) else { continue };
        if key != name || found.iter().any(|(known, _)| known == key) {
            return None;
        }
        found.push((key, value));
    }
    Some(found)
}

fn field<'a>(fields: &Fields<'a>, name: &str) -> Option<&'a Json> {
    fields.iter().find(|(key, _)| *key == name).map(|(_, value)| *value)
}

/// A short text; `Some(None)` where there is none.
#[allow(clippy::option_option, reason = "wrong and absent are different")]
fn text(value: Option<&Json>) -> Option<Option<String>> {
    match value {
        None | Some(Json::Null) => Some(None),
        Some(Json::Text(text)) if text.len() <= 255 && !text.chars().any(char::is_control) => {
            Some(Some(text.clone()).filter(|text| !text.is_empty()))
        }
        Some(_) => None,
    }
}

fn descriptor(value: &Json) -> Option<Descriptor> {
    let names = ["mediaType", "digest", "size", "urls", "data", "annotations", "artifactType", "platform"];
    let fields = fields(value, &names)?;
    let media_type = text(field(&fields, "mediaType"))??;
    let Some(Json::Text(digest)) = field(&fields, "digest") else { return None };
    let Some(Json::Natural(size)) = field(&fields, "size") else { return None };
    let has_urls = match field(&fields, "urls") {
        None | Some(Json::Null) => false,
        Some(Json::List(urls)) if urls.iter().all(|url| matches!(url, Json::Text(_))) => !urls.is_empty(),
        Some(_) => return None,
    };
    match field(&fields, "data") {
        None | Some(Json::Null) => {}
        Some(Json::Text(data)) => {
            let bytes = STANDARD.decode(data).ok()?;
            if bytes.len() as u64 != *size || !is_digest_of(digest, &bytes) {
                return None;
            }
        }
        Some(_) => return None,
    }
    DIGEST.matches(digest).then(|| Descriptor { media_type, digest: digest.clone(), size: *size, has_urls })
}

/// Whether `text` is the digest of `bytes`, computed by another library than ours.
pub fn is_digest_of(text: &str, bytes: &[u8]) -> bool {
    let algorithm = if text.starts_with("sha256:") { &SHA256 } else { &SHA512 };
    let hash = digest(algorithm, bytes);
    let hex: String = hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    text.split_once(':').is_some_and(|(_, digits)| digits == hex)
}

#[allow(clippy::option_option, reason = "wrong and absent are different")]
fn optional(value: Option<&Json>) -> Option<Option<Descriptor>> {
    match value {
        None | Some(Json::Null) => Some(None),
        Some(value) => descriptor(value).map(Some),
    }
}

/// `Some(None)` where there is no list.
#[allow(clippy::option_option, reason = "wrong and absent are different")]
fn list(value: Option<&Json>) -> Option<Option<Vec<Descriptor>>> {
    match value {
        None => Some(None),
        Some(Json::Null) => Some(Some(Vec::new())),
        Some(Json::List(items)) if items.len() <= Manifest::MAX_DESCRIPTORS => {
            items.iter().map(descriptor).collect::<Option<Vec<_>>>().map(Some)
        }
        Some(_) => None,
    }
}

fn annotations(value: Option<&Json>) -> Option<usize> {
    let pairs = match value {
        None | Some(Json::Null) => return Some(0),
        Some(Json::Object(pairs)) => pairs,
        Some(_) => return None,
    };
    let mut keys: Vec<&str> = pairs.iter().map(|(key, _)| key.as_str()).collect();
    keys.sort_unstable();
    let count = keys.len();
    keys.dedup();
    let good = keys.len() == count
        && count <= Manifest::MAX_ANNOTATIONS
        && pairs.iter().all(|(key, value)| key.len() <= Manifest::MAX_ANNOTATION_KEY && matches!(value, Json::Text(_)));
    good.then_some(count)
}

fn essence(text: &str) -> Option<String> {
    let essence = text.split(';').next()?.trim_matches([' ', '\t']);
    (essence.len() <= MediaType::MAX && APPLICATION_TYPE.matches(essence)).then(|| essence.to_owned())
}

const SCHEMA1: [&str; 2] = [MediaType::DOCKER_SCHEMA1, MediaType::DOCKER_SCHEMA1_SIGNED];

fn kind_of(media_type: &str) -> Option<ManifestKind> {
    let is = |known: &&str| known.eq_ignore_ascii_case(media_type);
    if [MediaType::OCI_MANIFEST, MediaType::DOCKER_MANIFEST].iter().any(is) {
        Some(ManifestKind::Image)
    } else if [MediaType::OCI_INDEX, MediaType::DOCKER_LIST].iter().any(is) {
        Some(ManifestKind::Index)
    } else {
        is(&MediaType::OCI_ARTIFACT).then_some(ManifestKind::Artifact)
    }
}

/// What is in the manifest; `None` when it must be refused.
pub fn read(bytes: &[u8], content_type: Option<&str>) -> Option<Expected> {
    let json = Json::read(bytes)?;
    if json.depth() > 64 || json.has_control_in_keys() || bytes.len() > Manifest::MAX_BYTES {
        return None;
    }
    let names = [
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
    let fields = fields(&json, &names)?;
    let get = |name: &str| field(&fields, name);
    let version = match get("schemaVersion") {
        None => None,
        Some(Json::Natural(version)) => Some(*version),
        Some(_) => return None,
    };
    let header = match content_type.filter(|text| !text.trim().is_empty()) {
        Some(text) => Some(essence(text)?),
        None => None,
    };
    let body = match text(get("mediaType"))? {
        Some(text) => Some(essence(&text)?),
        None => None,
    };
    if let (Some(header), Some(body)) = (&header, &body)
        && !header.eq_ignore_ascii_case(body)
    {
        return None;
    }
    let stated = header.or(body);
    if stated.iter().any(|stated| SCHEMA1.iter().any(|schema1| schema1.eq_ignore_ascii_case(stated))) {
        return None;
    }
    let by_type = stated.as_deref().and_then(kind_of);
    let config = optional(get("config"))?;
    let (layers, blobs, manifests) = (list(get("layers"))?, list(get("blobs"))?, list(get("manifests"))?);
    let shapes = [get("config").is_some() || layers.is_some(), manifests.is_some(), blobs.is_some()];
    let kind = match shapes {
        [true, false, false] => ManifestKind::Image,
        [false, true, false] => ManifestKind::Index,
        [false, false, true] => ManifestKind::Artifact,
        [false, false, false] if by_type == Some(ManifestKind::Artifact) => ManifestKind::Artifact,
        _ => return None,
    };
    let foreign = stated.is_some() && by_type.is_none();
    let may_lack_version = foreign || kind == ManifestKind::Artifact;
    let good = get("fsLayers").is_none()
        && by_type.is_none_or(|by_type| by_type == kind)
        && (version == Some(2) || version.is_none() && may_lack_version)
        && (kind != ManifestKind::Image || foreign || config.is_some());
    if !good {
        return None;
    }
    let default = match kind {
        ManifestKind::Image => MediaType::OCI_MANIFEST,
        ManifestKind::Index => MediaType::OCI_INDEX,
        ManifestKind::Artifact => MediaType::OCI_ARTIFACT,
    };
    let artifact_type = text(get("artifactType"))?;
    Some(Expected {
        kind,
        media_type: stated.unwrap_or_else(|| default.to_owned()),
        listed: [layers, blobs, manifests].into_iter().flatten().flatten().collect(),
        subject: optional(get("subject"))?,
        artifact_type: artifact_type.or_else(|| config.as_ref().map(|config| config.media_type.clone())),
        config,
        annotations: annotations(get("annotations"))?,
    })
}
