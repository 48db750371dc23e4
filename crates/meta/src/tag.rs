//! Tags. A row is one time that a tag came to name a digest; it is closed, never removed.

use oci::conditional::Precondition;
use oci::{Digest, RepositoryName, Tag, Timestamp};

use crate::actor::Actor;
use crate::db::Db;
use crate::error::Error;
use crate::event::{self, Action, NewEvent};
use crate::lock::Hold;
use crate::manifest::TagChange;
use crate::repository::{self, RepositoryId};
use crate::subject;
use crate::tx::Tx;
use crate::value::{Value, limit as rows};

/// The end of [`Db::delete_tag`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeleteTag {
    /// It is gone.
    Done,
    /// The repository has no such tag.
    Unknown,
    /// It points elsewhere than the precondition asks for; nothing was changed.
    PreconditionFailed,
}

/// A tag as it is listed to people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TagRow {
    /// Its name.
    pub name: Tag,
    /// What it points to.
    pub digest: Digest,
    /// The media type of the manifest.
    pub media_type: String,
    /// How many bytes the manifest has.
    pub size: u64,
    /// When it came to point there.
    pub pushed_at: Timestamp,
    /// By whom: [`Actor::name`].
    pub pushed_by: String,
}

impl Db {
    /// Live tags in byte order, after `last`. `None`: there is no such repository.
    pub async fn tags(
        &self,
        repository: &RepositoryName,
        last: Option<&str>,
        limit: usize,
    ) -> Result<Option<Vec<Tag>>, Error> {
        let (name, last) = (repository.clone(), last.unwrap_or_default().to_owned());
        self.read(move |tx| {
            Box::pin(async move {
                let Some(repository) = repository::find(tx, &name).await? else { return Ok(None) };
                tx.query(
                    "SELECT name FROM tag
                     WHERE repository_id = $1 AND name > $2 AND closed_at IS NULL AND state = 'live'
                     ORDER BY name LIMIT $3",
                    &[repository.id.into(), (&last).into(), rows(limit).into()],
                    |row| row.get(0),
                )
                .await
                .map(Some)
            })
        })
        .await
    }

    /// Live tags with what an administrator sees of them, in byte order, after `last`. Empty when there is no such
    /// repository.
    pub async fn tag_details(
        &self,
        repository: &RepositoryName,
        last: Option<&str>,
        limit: usize,
    ) -> Result<Vec<TagRow>, Error> {
        let (name, last) = (repository.clone(), last.unwrap_or_default().to_owned());
        self.read_single(move |tx| {
            Box::pin(async move {
                tx.query(
                    "SELECT t.name, t.digest, m.media_type, m.size, t.pushed_at, t.pushed_by
                     FROM repository r
                     JOIN tag t ON t.repository_id = r.id AND t.name > $1 AND t.closed_at IS NULL AND t.state = 'live'
                     JOIN manifest m ON m.repository_id = r.id AND m.digest = t.digest
                     WHERE r.name = $2 AND r.deleted_at IS NULL
                     ORDER BY t.name LIMIT $3",
                    &[(&last).into(), (&name).into(), rows(limit).into()],
                    |row| {
                        Ok(TagRow {
                            name: row.get(0)?,
                            digest: row.get(1)?,
                            media_type: row.get(2)?,
                            size: row.get(3)?,
                            pushed_at: row.get(4)?,
                            pushed_by: row.get(5)?,
                        })
                    },
                )
                .await
            })
        })
        .await
    }

    /// Closes a tag, if `precondition` holds for what it points to; the manifest stays. Event `tag.delete`. Synced.
    pub async fn delete_tag(
        &self,
        repository: &RepositoryName,
        tag: &Tag,
        precondition: &Precondition,
        actor: &Actor,
    ) -> Result<DeleteTag, Error> {
        let (name, tag, actor) = (repository.clone(), tag.clone(), actor.clone());
        let precondition = precondition.clone();
        self.write(move |tx| {
            Box::pin(async move {
                subject::check_decision(tx, &actor, &name, Hold::Exclusive).await?;
                let Some(repository) = repository::find(tx, &name).await? else { return Ok(DeleteTag::Unknown) };
                let Some(digest) = open(tx, repository, &tag).await? else { return Ok(DeleteTag::Unknown) };
                if !precondition.holds(Some(&digest)) {
                    return Ok(DeleteTag::PreconditionFailed);
                }
                close(tx, repository, &tag, None, &actor).await?;
                let event = NewEvent::new(Action::TagDelete, &actor).repository(&name).reference(tag.as_str());
                event::append(tx, &event.digest(&digest)).await?;
                Ok(DeleteTag::Done)
            })
        })
        .await
    }
}

/// What the tag points to, in quarantine or not.
pub(crate) async fn open(tx: &mut Tx, repository: RepositoryId, tag: &Tag) -> Result<Option<Digest>, Error> {
    tx.optional(
        "SELECT digest FROM tag WHERE repository_id = $1 AND name = $2 AND closed_at IS NULL",
        &[repository.id.into(), tag.into()],
        |row| row.get(0),
    )
    .await
}

/// The tags that point to the manifest, in byte order.
pub(crate) async fn pointing_to(tx: &mut Tx, repository: RepositoryId, digest: &Digest) -> Result<Vec<Tag>, Error> {
    tx.query(
        "SELECT name FROM tag WHERE repository_id = $1 AND digest = $2 AND closed_at IS NULL ORDER BY name",
        &[repository.id.into(), digest.into()],
        |row| row.get(0),
    )
    .await
}

/// Points tags, which point to what each change says now, to `new`, with the events.
pub(crate) async fn set(
    tx: &mut Tx,
    repository: RepositoryId,
    name: &RepositoryName,
    changes: &[TagChange],
    new: &Digest,
    actor: &Actor,
) -> Result<(), Error> {
    let now = tx.now();
    let moved: Vec<Vec<Value<'_>>> = changes
        .iter()
        .filter(|change| change.old.is_some())
        .map(|change| closing(repository, &change.tag, Some(new), now, actor))
        .collect();
    tx.execute_each(CLOSE, &moved).await?;
    let opened: Vec<Vec<Value<'_>>> = changes
        .iter()
        .map(|change| {
            vec![
                repository.id.into(),
                (&change.tag).into(),
                new.into(),
                change.old.as_ref().into(),
                now.into(),
                (&actor.name).into(),
                (&actor.source).into(),
            ]
        })
        .collect();
    tx.execute_each(
        "INSERT INTO tag (repository_id, name, digest, state, old_digest, pushed_at, pushed_by, pushed_from)
         VALUES ($1, $2, $3, 'live', $4, $5, $6, $7)",
        &opened,
    )
    .await?;
    let events: Vec<NewEvent> = changes
        .iter()
        .map(|change| {
            let (action, detail) = match &change.old {
                None => (Action::TagCreate, serde_json::json!({ "new": new.as_str() })),
                Some(old) => (Action::TagMove, serde_json::json!({ "old": old.as_str(), "new": new.as_str() })),
            };
            let event = NewEvent::new(action, actor).repository(name).reference(change.tag.as_str()).digest(new);
            event.detail(detail)
        })
        .collect();
    event::append_all(tx, &events).await
}

const CLOSE: &str =
    "UPDATE tag SET state = 'deleted', new_digest = $1, closed_at = $2, closed_by = $3, closed_from = $4
     WHERE repository_id = $5 AND name = $6 AND closed_at IS NULL";

fn closing<'a>(
    repository: RepositoryId,
    tag: &'a Tag,
    new: Option<&'a Digest>,
    now: Timestamp,
    actor: &'a Actor,
) -> Vec<Value<'a>> {
    vec![new.into(), now.into(), (&actor.name).into(), (&actor.source).into(), repository.id.into(), tag.into()]
}

/// Closes the open row of the tag. `new` is what it comes to point to, none when it is deleted.
pub(crate) async fn close(
    tx: &mut Tx,
    repository: RepositoryId,
    tag: &Tag,
    new: Option<&Digest>,
    actor: &Actor,
) -> Result<(), Error> {
    let values = closing(repository, tag, new, tx.now(), actor);
    tx.execute(CLOSE, &values).await.map(drop)
}
