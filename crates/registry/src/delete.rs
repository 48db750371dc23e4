//! Deleting tags, manifests and blobs. Bytes go later, by collection.

use meta::{DeleteBlob, DeleteManifest};
use oci::{Digest, Reference};
use policy::{Access, Verb};

use crate::{Error, Registry, actor, unknown};

/// By tag: the tag goes, the manifest stays. By digest: the manifest and every tag that points to it go, for which
/// the caller needs `tag-delete` on each of them, or nothing is done.
pub async fn manifest(r: &Registry, access: &Access, reference: &Reference) -> Result<(), Error> {
    let missing = || Error::ManifestUnknown(reference.clone());
    match reference {
        Reference::Tag(tag) => match r.db().delete_tag(access.repository(), tag, &actor(access)).await? {
            true => Ok(()),
            false => unknown(r, access, missing()).await,
        },
        Reference::Digest(digest) => {
            let rights = access.clone();
            let may_delete_tag = Box::new(move |tag: &oci::Tag| rights.may_tag(Verb::TagDelete, tag));
            match r.db().delete_manifest(access.repository(), digest, may_delete_tag, &actor(access)).await? {
                DeleteManifest::Done { .. } => Ok(()),
                DeleteManifest::Unknown => unknown(r, access, missing()).await,
                DeleteManifest::TagDenied(tag) => Err(Error::TagDenied { tag, verb: Verb::TagDelete }),
            }
        }
    }
}

/// Takes the blob out of the repository, unless a manifest of it needs the blob.
pub async fn blob(r: &Registry, access: &Access, digest: &Digest) -> Result<(), Error> {
    match r.db().delete_blob(access.repository(), digest, &actor(access)).await? {
        DeleteBlob::Done => Ok(()),
        DeleteBlob::Unknown => unknown(r, access, Error::BlobUnknown(digest.clone())).await,
        DeleteBlob::InUse(manifest) => Err(Error::BlobInUse { digest: digest.clone(), manifest }),
    }
}
