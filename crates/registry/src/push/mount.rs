//! Mounts: a blob of one repository becomes one of another without its bytes being sent.

use oci::{Digest, RepositoryName};
use policy::{Access, Verb};

use crate::{Error, Registry, actor};

/// How many repositories a mount without a source looks at.
const CANDIDATES: usize = 64;

/// How many repositories that link a blob are asked for, of which the caller may pull some.
const LINKING: usize = 512;

/// Mounts `digest` from the repository of `source` into that of `target`. `false`, for whatever reason, means that
/// the client has to upload it: what the source holds is told to nobody who could not read it there.
pub async fn mount(r: &Registry, target: &Access, source: &Access, digest: &Digest) -> Result<bool, Error> {
    // As for a read: what no manifest has accepted yet is for those who may push there.
    let require_accepted = !source.may(Verb::Push);
    let (to, from) = (target.repository(), source.repository());
    Ok(r.db().mount_blob(to, from, digest, require_accepted, &actor(target)).await?)
}

/// Mounts `digest` from whichever repository the caller may pull it from.
pub async fn mount_from_anywhere(r: &Registry, target: &Access, digest: &Digest) -> Result<bool, Error> {
    let linking: Vec<RepositoryName> = r.db().linking_repositories(digest, LINKING).await?;
    let sources = linking.iter().filter_map(|name| target.source(name)).take(CANDIDATES);
    for source in sources {
        if mount(r, target, &source, digest).await? {
            return Ok(true);
        }
    }
    Ok(false)
}
