//! Deleting tags, manifests and blobs. Bytes go later, by collection.

use meta::{DeleteBlob, DeleteManifest, DeleteTag};
use oci::conditional::Precondition;
use oci::{Digest, Reference, Tag};
use policy::{Access, Verb};

use crate::right::Decisions;
use crate::{Error, Registry, Right, actor, unknown};

/// By tag: the tag goes, the manifest stays. By digest: the manifest and every tag that points to it go, for which
/// the caller needs `tag-delete` on each of them, or nothing is done.
pub async fn manifest(r: &Registry, right: &dyn Right, reference: &Reference) -> Result<(), Error> {
    manifest_if(r, right, reference, &Precondition::default()).await
}

/// [`manifest`], provided that the precondition holds for what the reference names.
pub async fn manifest_if(
    r: &Registry,
    right: &dyn Right,
    reference: &Reference,
    precondition: &Precondition,
) -> Result<(), Error> {
    let mut decisions = Decisions::on(right);
    loop {
        let access = decisions.next().await?;
        let done = match reference {
            Reference::Tag(tag) => by_tag(r, &access, tag, precondition).await,
            Reference::Digest(digest) => by_digest(r, &access, digest, precondition).await,
        };
        match done {
            Err(meta::Error::Outdated) => {}
            Err(error) => return Err(error.into()),
            Ok(DeleteManifest::Done { .. }) => return Ok(()),
            Ok(DeleteManifest::Unknown) => {
                return unknown(r, &access, Error::ManifestUnknown(reference.clone())).await;
            }
            Ok(DeleteManifest::TagDenied(tag)) => return Err(Error::TagDenied { tag, verb: Verb::TagDelete }),
            Ok(DeleteManifest::PreconditionFailed) => return Err(Error::PreconditionFailed),
        }
    }
}

async fn by_tag(
    r: &Registry,
    access: &Access,
    tag: &Tag,
    precondition: &Precondition,
) -> Result<DeleteManifest, meta::Error> {
    Ok(match r.db().delete_tag(access.repository(), tag, precondition, &actor(access)).await? {
        DeleteTag::Done => DeleteManifest::Done { tags: vec![tag.clone()] },
        DeleteTag::Unknown => DeleteManifest::Unknown,
        DeleteTag::PreconditionFailed => DeleteManifest::PreconditionFailed,
    })
}

async fn by_digest(
    r: &Registry,
    access: &Access,
    digest: &Digest,
    precondition: &Precondition,
) -> Result<DeleteManifest, meta::Error> {
    let rights = access.clone();
    let may_delete_tag = std::sync::Arc::new(move |tag: &Tag| rights.may_tag(Verb::TagDelete, tag));
    r.db().delete_manifest(access.repository(), digest, may_delete_tag, precondition, &actor(access)).await
}

/// Takes the blob out of the repository, unless a manifest of it needs the blob.
pub async fn blob(r: &Registry, right: &dyn Right, digest: &Digest) -> Result<(), Error> {
    let mut decisions = Decisions::on(right);
    loop {
        let access = decisions.next().await?;
        match r.db().delete_blob(access.repository(), digest, &actor(&access)).await {
            Err(meta::Error::Outdated) => {}
            Err(error) => return Err(error.into()),
            Ok(DeleteBlob::Done) => return Ok(()),
            Ok(DeleteBlob::Unknown) => return unknown(r, &access, Error::BlobUnknown(digest.clone())).await,
            Ok(DeleteBlob::InUse(manifest)) => return Err(Error::BlobInUse { digest: digest.clone(), manifest }),
        }
    }
}
