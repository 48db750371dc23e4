//! Repositories as administrators see them: names, numbers, tags. Never bytes.

use meta::{RepositoryDetails, RepositoryRow, TagRow};
use oci::RepositoryName;
use policy::AdminAccess;

use crate::right::Decisions;
use crate::{Error, Registry, Right, actor};

/// All repositories in the order of their names, after `after`.
pub async fn list(
    r: &Registry,
    _: &AdminAccess,
    after: Option<&str>,
    limit: usize,
) -> Result<Vec<RepositoryRow>, Error> {
    Ok(r.db().repository_rows(after, limit).await?)
}

/// What a repository holds.
pub async fn show(r: &Registry, _: &AdminAccess, name: &RepositoryName) -> Result<RepositoryDetails, Error> {
    r.db().repository_details(name).await?.ok_or(Error::NameUnknown)
}

/// Deletes a repository with all that is in it; collection removes the bytes.
/// The right is that of an administrator, [`AdminAccess::repository`].
pub async fn delete(r: &Registry, right: &dyn Right) -> Result<(), Error> {
    let mut decisions = Decisions::on(right);
    loop {
        let access = decisions.next().await?;
        match r.db().delete_repository(access.repository(), &actor(&access)).await {
            Err(meta::Error::Outdated) => {}
            Ok(true) => return Ok(()),
            Ok(false) => return Err(Error::NameUnknown),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Tags in the order of their names, after `after`.
pub async fn tags(
    r: &Registry,
    _: &AdminAccess,
    name: &RepositoryName,
    after: Option<&str>,
    limit: usize,
) -> Result<Vec<TagRow>, Error> {
    let rows = r.db().tag_details(name, after, limit).await?;
    if rows.is_empty() && !r.db().repository_exists(name).await? {
        return Err(Error::NameUnknown);
    }
    Ok(rows)
}
