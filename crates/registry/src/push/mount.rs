//! Mounts: a blob of one repository becomes one of another without its bytes being sent.

use oci::{Digest, RepositoryName};
use policy::{Access, Verb};

use crate::right::Decisions;
use crate::{Error, Registry, Right, actor, pull};

/// How many repositories a mount without a source looks at.
const CANDIDATES: usize = 64;

/// How many repositories that link a blob are asked for, of which the caller may pull some.
const LINKING: usize = 512;

/// Mounts `digest` from the repository `from`. `false`, for whatever reason, means that the client has to upload it: what
/// the source holds is told to nobody who could not read it there.
pub async fn mount(r: &Registry, right: &dyn Right, from: &RepositoryName, digest: &Digest) -> Result<bool, Error> {
    mount_first(r, right, std::slice::from_ref(from), digest).await
}

/// Mounts `digest` from whichever repository the caller may pull it from.
pub async fn mount_from_anywhere(r: &Registry, right: &dyn Right, digest: &Digest) -> Result<bool, Error> {
    let linking = r.db().linking_repositories(digest, LINKING).await?;
    mount_first(r, right, &linking, digest).await
}

/// Mounts it from the first of these that has it and that the caller may pull from.
async fn mount_first(
    r: &Registry,
    right: &dyn Right,
    names: &[RepositoryName],
    digest: &Digest,
) -> Result<bool, Error> {
    let mut decisions = Decisions::on(right);
    'decided: loop {
        let target = decisions.next().await?;
        let sources = names.iter().filter_map(|name| target.source(name)).take(CANDIDATES);
        for source in sources {
            // What is damaged has to be sent again, which heals it.
            if !pull::is_sound(r, source.repository(), digest).await? {
                continue;
            }
            match from(r, &target, &source, digest).await {
                Err(meta::Error::Outdated) => continue 'decided,
                Ok(false) => {}
                done => return Ok(done?),
            }
        }
        return Ok(false);
    }
}

async fn from(r: &Registry, target: &Access, source: &Access, digest: &Digest) -> Result<bool, meta::Error> {
    // As for a read: what no manifest has accepted yet is for those who may push there.
    let require_accepted = !source.may(Verb::Push);
    r.db().mount_blob(target.repository(), source.repository(), digest, require_accepted, &actor(target)).await
}
