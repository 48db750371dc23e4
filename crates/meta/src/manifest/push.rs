//! Pushing a manifest: one transaction, all or nothing.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

use oci::conditional::Precondition;
use oci::{Digest, Reference, RepositoryName, Tag};

use super::{EdgeKind, NewManifest, TagRight, TagVerb};
use crate::actor::Actor;
use crate::db::Db;
use crate::error::Error;
use crate::event::{self, Action, NewEvent};
use crate::lock::Hold;
use crate::repository::RepositoryId;
use crate::tx::Tx;
use crate::value::{Value, size};
use crate::{link, repository, subject, tag};

/// The end of [`Db::push_manifest`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PushManifest {
    /// The manifest is there and the tags point to it.
    Done {
        /// Whether the repository did not have it before.
        created: bool,
        /// The tags that were created or moved; not those that pointed to it already.
        changes: Vec<TagChange>,
    },
    /// The repository does not have these of the required blobs; nothing was changed.
    MissingBlobs(Vec<Digest>),
    /// The caller lacks the right to one of the tags; nothing was changed, the other tags included.
    TagDenied {
        /// The tag.
        tag: Tag,
        /// What would have been done to it.
        verb: TagVerb,
    },
    /// What is there is not what the precondition asks for; nothing was changed.
    PreconditionFailed,
}

/// What a push did to a tag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TagChange {
    /// The tag.
    pub tag: Tag,
    /// What it pointed to before; none when it was created.
    pub old: Option<Digest>,
}

#[derive(Clone)]
struct Push {
    name: RepositoryName,
    manifest: Arc<NewManifest>,
    tags: Vec<TagRight>,
    condition: Option<(Reference, Precondition)>,
    actor: Actor,
    touch_after: Duration,
}

impl Db {
    /// Stores a manifest and sets tags to it.
    ///
    /// In one transaction: every tag is judged by its [`TagRight`] against what it points to now (a tag that points to
    /// this digest already needs either right and stays as it is); every required blob must be live in the repository,
    /// and all that are not are reported; blobs are touched before edges to them are added; body, row (live again if it
    /// was deleted, still in quarantine if it was there) and edges are written; tags are closed and opened. Events
    /// `manifest.push`, `tag.create` and `tag.move` (with the old and the new digest). Creates the repository. Synced.
    pub async fn push_manifest(
        &self,
        repository: &RepositoryName,
        manifest: impl Into<Arc<NewManifest>>,
        tags: Vec<TagRight>,
        actor: &Actor,
    ) -> Result<PushManifest, Error> {
        self.push_manifest_if(repository, manifest, tags, None, actor).await
    }

    /// [`Db::push_manifest`], provided that the precondition holds for what the reference (the digest, or one of the tags)
    /// names at that moment. Judged last, as the specification of HTTP wants it: whoever would be refused anyway is
    /// refused for that.
    pub async fn push_manifest_if(
        &self,
        repository: &RepositoryName,
        manifest: impl Into<Arc<NewManifest>>,
        tags: Vec<TagRight>,
        condition: Option<(Reference, Precondition)>,
        actor: &Actor,
    ) -> Result<PushManifest, Error> {
        let push = Push {
            name: repository.clone(),
            manifest: manifest.into(),
            tags,
            condition,
            actor: actor.clone(),
            touch_after: self.touch_after(),
        };
        self.write(move |tx| {
            Box::pin(async move {
                let result = run(tx, &push).await?;
                if !matches!(result, PushManifest::Done { .. }) {
                    tx.abandon();
                }
                Ok(result)
            })
        })
        .await
    }
}

async fn run(tx: &mut Tx, push: &Push) -> Result<PushManifest, Error> {
    subject::check_decision(tx, &push.actor, &push.name, Hold::Exclusive).await?;
    let repository = repository::ensure(tx, &push.name, &push.actor).await?;
    let changes = match judge(tx, repository, push).await? {
        Ok(changes) => changes,
        Err((tag, verb)) => return Ok(PushManifest::TagDenied { tag, verb }),
    };
    touch(tx, repository, push).await?;
    let mut seen = HashSet::new();
    let required: Vec<&Digest> = push.manifest.required.iter().filter(|digest| seen.insert(*digest)).collect();
    let missing = link::missing(tx, repository, &required).await?;
    if !missing.is_empty() {
        return Ok(PushManifest::MissingBlobs(missing));
    }
    if let Some((reference, precondition)) = &push.condition
        && !precondition.holds(current(tx, repository, reference).await?.as_ref())
    {
        return Ok(PushManifest::PreconditionFailed);
    }
    let (id, created) = upsert(tx, repository, push).await?;
    let edges = push.manifest.edges.iter().filter(|edge| edge.kind != EdgeKind::Subject);
    let rows: Vec<Vec<Value<'_>>> = edges
        .map(|edge| vec![repository.id.into(), (&edge.target).into(), id.into(), edge.kind.as_str().into()])
        .collect();
    tx.execute_each(
        "INSERT INTO edge (repository_id, target, manifest_id, kind) VALUES ($1, $2, $3, $4)
         ON CONFLICT (repository_id, target, manifest_id, kind) DO NOTHING",
        &rows,
    )
    .await?;
    let event = NewEvent::new(Action::ManifestPush, &push.actor).repository(&push.name).digest(&push.manifest.digest);
    let detail = serde_json::json!({ "media_type": push.manifest.media_type, "size": push.manifest.bytes.len() });
    event::append(tx, &event.detail(detail)).await?;
    tag::set(tx, repository, &push.name, &changes, &push.manifest.digest, &push.actor).await?;
    Ok(PushManifest::Done { created, changes })
}

/// What the reference names now, in quarantine or not.
async fn current(tx: &mut Tx, repository: RepositoryId, reference: &Reference) -> Result<Option<Digest>, Error> {
    match reference {
        Reference::Tag(tag) => tag::open(tx, repository, tag).await,
        Reference::Digest(digest) => {
            tx.optional(
                "SELECT digest FROM manifest WHERE repository_id = $1 AND digest = $2 AND state <> 'deleted'",
                &[repository.id.into(), digest.into()],
                |row| row.get(0),
            )
            .await
        }
    }
}

/// What is to be done to each tag, or the first that the caller may not do.
async fn judge(
    tx: &mut Tx,
    repository: RepositoryId,
    push: &Push,
) -> Result<Result<Vec<TagChange>, (Tag, TagVerb)>, Error> {
    let mut changes: Vec<TagChange> = Vec::new();
    let mut seen = HashSet::new();
    for right in &push.tags {
        let old = tag::open(tx, repository, &right.tag).await?;
        let same = old.as_ref() == Some(&push.manifest.digest);
        let (allowed, verb) = match old {
            None => (right.create, TagVerb::Create),
            Some(_) if same => (right.create || right.move_, TagVerb::Move),
            Some(_) => (right.move_, TagVerb::Move),
        };
        if !allowed {
            return Ok(Err((right.tag.clone(), verb)));
        }
        if !same && seen.insert(&right.tag) {
            changes.push(TagChange { tag: right.tag.clone(), old });
        }
    }
    Ok(Ok(changes))
}

/// Touches what the manifest names.
async fn touch(tx: &mut Tx, repository: RepositoryId, push: &Push) -> Result<(), Error> {
    let threshold = tx.now().minus(push.touch_after);
    let targets: BTreeSet<&Digest> = push
        .manifest
        .edges
        .iter()
        .filter(|edge| edge.kind != EdgeKind::Subject)
        .map(|edge| &edge.target)
        .chain(&push.manifest.required)
        .collect();
    link::touch_for_edges(tx, repository, &targets, threshold).await
}

/// Writes body and row; the row's id, and whether the repository did not have the manifest before.
async fn upsert(tx: &mut Tx, repository: RepositoryId, push: &Push) -> Result<(i64, bool), Error> {
    let manifest = &push.manifest;
    let before = tx
        .optional(
            "SELECT state FROM manifest WHERE repository_id = $1 AND digest = $2",
            &[repository.id.into(), (&manifest.digest).into()],
            |row| row.get::<String>(0),
        )
        .await?;
    let id = tx
        .one(
            "INSERT INTO manifest (repository_id, domain, digest, state, state_at, media_type, size, artifact_type,
                                   annotations, subject, pushed_by, pushed_from, pushed_at)
             VALUES ($1, $2, $3, 'live', $4, $5, $6, $7, $8, $9, $10, $11, $4)
             ON CONFLICT (repository_id, digest) DO UPDATE SET
                 media_type = excluded.media_type,
                 artifact_type = excluded.artifact_type,
                 annotations = excluded.annotations,
                 subject = excluded.subject,
                 pushed_by = CASE WHEN manifest.state = 'deleted' THEN excluded.pushed_by ELSE manifest.pushed_by END,
                 pushed_from =
                     CASE WHEN manifest.state = 'deleted' THEN excluded.pushed_from ELSE manifest.pushed_from END,
                 pushed_at = CASE WHEN manifest.state = 'deleted' THEN excluded.pushed_at ELSE manifest.pushed_at END,
                 state_at = CASE WHEN manifest.state = 'deleted' THEN excluded.state_at ELSE manifest.state_at END,
                 state = CASE WHEN manifest.state = 'deleted' THEN excluded.state ELSE manifest.state END
             RETURNING id",
            &[
                repository.id.into(),
                repository.domain.into(),
                (&manifest.digest).into(),
                tx.now().into(),
                (&manifest.media_type).into(),
                size(manifest.bytes.len() as u64).into(),
                manifest.artifact_type.as_ref().into(),
                manifest.annotations.as_ref().into(),
                manifest.subject.as_ref().into(),
                (&push.actor.name).into(),
                (&push.actor.source).into(),
            ],
            |row| row.get(0),
        )
        .await?;
    keep_body(tx, repository, manifest).await?;
    Ok((id, before.is_none_or(|state| state == "deleted")))
}

/// Writes the body, or locks the one that is there, which another repository's last manifest may be about to take with it: rows
/// that an `ON CONFLICT DO UPDATE` meets are locked whether they change or not. What is there may be damaged, and these bytes have
/// just been verified.
async fn keep_body(tx: &mut Tx, repository: RepositoryId, manifest: &NewManifest) -> Result<(), Error> {
    tx.execute(
        "INSERT INTO manifest_body (domain, digest, bytes) VALUES ($1, $2, $3)
         ON CONFLICT (domain, digest) DO UPDATE SET bytes = excluded.bytes
         WHERE manifest_body.bytes IS DISTINCT FROM excluded.bytes",
        &[repository.domain.into(), (&manifest.digest).into(), (&manifest.bytes).into()],
    )
    .await
    .map(drop)
}
