//! Storing manifests and pointing tags at them.

use std::sync::Arc;

use bytes::Bytes;
use meta::{Edge, EdgeKind, NewManifest, PushManifest, TagRight, TagVerb};
use oci::conditional::Precondition;
use oci::{Algorithm, Digest, Error as OciError, ErrorCode, Hasher, Manifest, ManifestKind, Reference, Tag};
use policy::{Caller, Verb};

use crate::right::Decisions;
use crate::{Error, Registry, Reservation, Right, actor};

/// Under what a manifest is pushed.
#[derive(Clone, Debug)]
pub struct Target {
    /// A tag, or the digest of the bytes.
    pub reference: Reference,
    /// Further tags (`?tag=`), only with a digest.
    pub tags: Vec<Tag>,
    /// What has to be under the reference now.
    pub precondition: Precondition,
}

/// A stored manifest.
#[derive(Clone, Debug)]
pub struct Pushed {
    /// Its digest, by the algorithm of the reference; sha256 when it was pushed by tag.
    pub digest: Digest,
    /// What it refers to, for `OCI-Subject`.
    pub subject: Option<Digest>,
    /// Every tag that points to it now because of this push.
    pub tags: Vec<Tag>,
    /// Sentences for the `Warning` header.
    pub warnings: Vec<String>,
}

/// From this length on a manifest is parsed and hashed off the threads that serve connections.
const LARGE: usize = 64 << 10;

/// Memory for a manifest of so many bytes, to be held while it is received and pushed. Waits while other manifests are
/// under way, some seconds at most: then [`Error::Unavailable`].
pub async fn reserve(r: &Registry, caller: &Caller, length: usize) -> Result<Reservation, Error> {
    r.rooms().pushed.reserve(caller.identity, length).await
}

/// Stores `bytes` exactly as they are. The manifest, its edges and all its tags come to be in one transaction, or
/// nothing does: a missing blob, or a tag that the caller may not create or move, refuses the whole push.
pub async fn push(
    r: &Registry,
    right: &dyn Right,
    target: Target,
    content_type: Option<&str>,
    bytes: Bytes,
) -> Result<Pushed, Error> {
    let limit = r.settings().manifest_limit;
    if bytes.len() > limit {
        return Err(Error::TooLarge { limit: limit as u64 });
    }
    let (algorithm, tags) = match &target.reference {
        Reference::Tag(_) if !target.tags.is_empty() => {
            let why = "further tags can be given only with a push by digest: put the digest in place of the tag";
            return Err(OciError::new(ErrorCode::TagInvalid, why).into());
        }
        Reference::Tag(tag) => (Algorithm::Sha256, vec![tag.clone()]),
        Reference::Digest(digest) => (digest.algorithm(), distinct(target.tags)),
    };
    let (digest, manifest) = read(bytes.clone(), content_type, algorithm).await?;
    if let Reference::Digest(expected) = &target.reference
        && digest != *expected
    {
        return Err(Error::DigestMismatch { expected: expected.clone(), actual: digest });
    }
    let manifest = manifest?;
    let subject = manifest.subject.as_ref().map(|subject| subject.digest.clone());
    let warnings = warnings(&manifest, r.settings().sparse_images);
    let new = Arc::new(new_manifest(manifest, digest.clone(), bytes, r.settings().sparse_images));
    let condition = Some((target.reference, target.precondition));
    match commit(r, right, new, &tags, condition).await? {
        PushManifest::Done { .. } => Ok(Pushed { digest, subject, tags, warnings }),
        PushManifest::PreconditionFailed => Err(Error::PreconditionFailed),
        PushManifest::MissingBlobs(missing) => Err(Error::MissingBlobs(missing)),
        PushManifest::TagDenied { tag, verb } => {
            let verb = match verb {
                TagVerb::Create => Verb::TagCreate,
                TagVerb::Move => Verb::TagMove,
            };
            Err(Error::TagDenied { tag, verb })
        }
    }
}

/// The transaction, by the rights of its moment.
async fn commit(
    r: &Registry,
    right: &dyn Right,
    new: Arc<NewManifest>,
    tags: &[Tag],
    condition: Option<(Reference, Precondition)>,
) -> Result<PushManifest, Error> {
    let mut decisions = Decisions::on(right);
    loop {
        let access = decisions.next().await?;
        let rights = tags.iter().map(|tag| TagRight {
            tag: tag.clone(),
            create: access.may_tag(Verb::TagCreate, tag),
            move_: access.may_tag(Verb::TagMove, tag),
        });
        let (name, actor) = (access.repository(), actor(&access));
        match r.db().push_manifest_if(name, new.clone(), rights.collect(), condition.clone(), &actor).await {
            Err(meta::Error::Outdated) => {}
            done => return Ok(done?),
        }
    }
}

/// The digest and the fields. The digest first: bytes that do not have the digest they were pushed under are refused
/// for that, whatever they hold.
async fn read(
    bytes: Bytes,
    content_type: Option<&str>,
    algorithm: Algorithm,
) -> Result<(Digest, Result<Manifest, OciError>), Error> {
    let content_type = content_type.map(str::to_owned);
    let large = bytes.len() > LARGE;
    let work = move || (Hasher::digest(algorithm, &bytes), Manifest::parse(&bytes, content_type.as_deref()));
    match large {
        true => tokio::task::spawn_blocking(work).await.map_err(Error::internal),
        false => Ok(work()),
    }
}

fn new_manifest(manifest: Manifest, digest: Digest, bytes: Bytes, sparse: bool) -> NewManifest {
    let mut required = manifest.required();
    if sparse {
        required.retain(|digest| manifest.config.as_ref().is_some_and(|config| config.digest == *digest));
    }
    let edges = edges(&manifest);
    let subject = manifest.subject.map(|subject| subject.digest);
    NewManifest {
        digest,
        media_type: manifest.media_type.as_str().to_owned(),
        bytes,
        artifact_type: manifest.artifact_type,
        annotations: manifest.annotations,
        subject,
        edges,
        required,
    }
}

/// Everything that a manifest names.
pub(crate) fn edges(manifest: &Manifest) -> Vec<Edge> {
    let config = manifest.config.iter().map(|config| (EdgeKind::Config, config));
    let subject = manifest.subject.iter().map(|subject| (EdgeKind::Subject, subject));
    let of = |kind, descriptors: &'_ [oci::Descriptor]| -> Vec<Edge> {
        descriptors.iter().map(|descriptor| Edge { target: descriptor.digest.clone(), kind }).collect()
    };
    let mut edges = of(EdgeKind::Layer, &manifest.layers);
    edges.extend(of(EdgeKind::Blob, &manifest.blobs));
    edges.extend(of(EdgeKind::Child, &manifest.children));
    edges.extend(config.chain(subject).map(|(kind, d)| Edge { target: d.digest.clone(), kind }));
    edges
}

fn warnings(manifest: &Manifest, sparse: bool) -> Vec<String> {
    let mut warnings = Vec::new();
    if manifest.kind == ManifestKind::Artifact {
        warnings.push(
            "the artifact manifest was withdrawn from the OCI specification; push an image manifest with artifactType"
                .to_owned(),
        );
    }
    let remote = manifest.layers.iter().filter(|layer| layer.has_urls).count();
    if remote > 0 && !sparse {
        warnings.push(format!("{remote} layers name other places to fetch them from; this registry never does"));
    }
    warnings
}

fn distinct(tags: Vec<Tag>) -> Vec<Tag> {
    let mut seen = std::collections::HashSet::new();
    tags.into_iter().filter(|tag| seen.insert(tag.clone())).collect()
}
