//! Deleting a manifest: its row stays, `deleted`, for the grace; its edges go at once.

use std::collections::BTreeSet;
use std::sync::Arc;

use oci::conditional::Precondition;
use oci::{Digest, RepositoryName, Tag};

use crate::actor::Actor;
use crate::db::Db;
use crate::error::Error;
use crate::event::{self, Action, NewEvent};
use crate::lock::Hold;
use crate::repository::RepositoryId;
use crate::tx::Tx;
use crate::value::Value;
use crate::{link, repository, subject, tag};

/// Whether the caller may delete this tag.
pub type TagJudge = Arc<dyn Fn(&Tag) -> bool + Send + Sync>;

/// The end of [`Db::delete_manifest`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeleteManifest {
    /// It is deleted.
    Done {
        /// The tags that pointed to it and are closed.
        tags: Vec<Tag>,
    },
    /// The repository does not have it.
    Unknown,
    /// The caller may not delete this tag, which points to it; nothing was changed.
    TagDenied(Tag),
    /// The precondition does not hold for it; nothing was changed.
    PreconditionFailed,
}

impl Db {
    /// Deletes a manifest from a repository, with every tag that points to it: each must pass `may_delete_tag` and the
    /// manifest `precondition`, or nothing is done. What it named has a full grace from now. Events `tag.delete` and `manifest.delete`. Synced.
    pub async fn delete_manifest(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        may_delete_tag: TagJudge,
        precondition: &Precondition,
        actor: &Actor,
    ) -> Result<DeleteManifest, Error> {
        let precondition = precondition.clone();
        let (name, digest, actor) = (repository.clone(), digest.clone(), actor.clone());
        self.write(move |tx| {
            Box::pin(async move {
                subject::check_decision(tx, &actor, &name, Hold::Exclusive).await?;
                let Some(repository) = repository::find(tx, &name).await? else { return Ok(DeleteManifest::Unknown) };
                let id = tx
                    .optional(
                        "SELECT id FROM manifest WHERE repository_id = $1 AND digest = $2 AND state = 'live'",
                        &[repository.id.into(), (&digest).into()],
                        |row| row.get::<i64>(0),
                    )
                    .await?;
                let Some(id) = id else { return Ok(DeleteManifest::Unknown) };
                let tags = tag::pointing_to(tx, repository, &digest).await?;
                if let Some(denied) = tags.iter().find(|tag| !may_delete_tag(tag)) {
                    return Ok(DeleteManifest::TagDenied(denied.clone()));
                }
                if !precondition.holds(Some(&digest)) {
                    return Ok(DeleteManifest::PreconditionFailed);
                }
                for tag in &tags {
                    tag::close(tx, repository, tag, None, &actor).await?;
                    let event = NewEvent::new(Action::TagDelete, &actor).repository(&name).reference(tag.as_str());
                    event::append(tx, &event.digest(&digest)).await?;
                }
                remove(tx, repository, &[id]).await?;
                event::append(tx, &NewEvent::new(Action::ManifestDelete, &actor).repository(&name).digest(&digest))
                    .await?;
                Ok(DeleteManifest::Done { tags })
            })
        })
        .await
    }
}

/// Marks rows as deleted, removes their edges and touches what they named.
pub(crate) async fn remove(tx: &mut Tx, repository: RepositoryId, manifests: &[i64]) -> Result<(), Error> {
    let now = tx.now();
    let rows: Vec<Vec<Value<'_>>> = manifests.iter().map(|id| vec![now.into(), (*id).into()]).collect();
    tx.execute_each("UPDATE manifest SET state = 'deleted', state_at = $1 WHERE id = $2", &rows).await?;
    let mut targets: BTreeSet<Digest> = BTreeSet::new();
    for manifest in manifests {
        targets.extend(super::edges(tx, *manifest).await?.into_iter().map(|edge| edge.target));
    }
    let rows: Vec<Vec<Value<'_>>> = manifests.iter().map(|id| vec![(*id).into()]).collect();
    tx.execute_each("DELETE FROM edge WHERE manifest_id = $1", &rows).await?;
    link::touch_after_edges(tx, repository, &targets.iter().collect()).await
}
