//! Referrers: the manifests that name a subject. A column of the manifest with an index, whatever tags there are, so
//! that what was pushed for the tag scheme is listed too.

use oci::{Digest, RepositoryName, Timestamp};

use crate::db::Db;
use crate::error::Error;
use crate::value::{after as key_after, limit as rows};

/// A referrer as its descriptor shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReferrerRow {
    /// Its digest.
    pub digest: Digest,
    /// Its media type.
    pub media_type: String,
    /// How many bytes.
    pub size: u64,
    /// The type to filter by.
    pub artifact_type: Option<String>,
    /// Its annotations: a JSON object as text.
    pub annotations: Option<String>,
    /// When it was pushed.
    pub pushed_at: Timestamp,
}

/// Beyond so many bytes of annotations, [`Db::referrers`] reads no further row at once.
pub const REFERRERS_TEXT: usize = 1 << 20;

impl Db {
    /// The live manifests of the repository that name `subject`, which need not be there, in the order of their digests,
    /// after the digest `after`; text that is no digest starts the list. Fewer than `limit` when their annotations are more
    /// than [`REFERRERS_TEXT`] together: the list has ended when there are none.
    pub async fn referrers(
        &self,
        repository: &RepositoryName,
        subject: &Digest,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<ReferrerRow>, Error> {
        let (repository, subject) = (repository.clone(), subject.clone());
        let after = after.and_then(|text| Digest::parse(text).ok());
        self.read_single(move |tx| {
            Box::pin(async move {
                let mut text = 0;
                let found = tx
                    .query(
                        "SELECT m.digest, m.media_type, m.size, m.artifact_type, m.annotations, m.pushed_at
                     FROM repository r
                     JOIN manifest m ON m.repository_id = r.id AND m.subject = $1 AND m.digest > $2 AND m.state = 'live'
                     WHERE r.name = $3 AND r.deleted_at IS NULL
                     ORDER BY m.digest LIMIT $4",
                        &[(&subject).into(), key_after(after.as_ref()), (&repository).into(), rows(limit).into()],
                        |row| {
                            if text > REFERRERS_TEXT {
                                return Ok(None);
                            }
                            let annotations: Option<String> = row.get(4)?;
                            text += annotations.as_ref().map_or(0, String::len);
                            Ok(Some(ReferrerRow {
                                digest: row.get(0)?,
                                media_type: row.get(1)?,
                                size: row.get(2)?,
                                artifact_type: row.get(3)?,
                                annotations,
                                pushed_at: row.get(5)?,
                            }))
                        },
                    )
                    .await?;
                Ok(found.into_iter().flatten().collect())
            })
        })
        .await
    }
}
