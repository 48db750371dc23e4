//! Repositories as administrators see them: names, numbers, tags. Never bytes.

use meta::{RepositoryDetails, RepositoryRow, TagRow};
use oci::RepositoryName;
use policy::AdminAccess;

use crate::{Error, Registry, actor};

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
pub async fn delete(r: &Registry, access: &AdminAccess, name: &RepositoryName) -> Result<(), Error> {
    match r.db().delete_repository(name, &actor(&access.repository(name))).await? {
        true => Ok(()),
        false => Err(Error::NameUnknown),
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
