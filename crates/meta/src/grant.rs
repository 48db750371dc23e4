//! Grants: which verbs a subject, or anyone, has on which repositories.

use oci::Timestamp;

use crate::actor::Actor;
use crate::db::Db;
use crate::error::Error;
use crate::event::{self, Action, NewEvent};
use crate::subject;
use crate::tx::{Row, Tx};
use crate::value::{Value, limit as rows};

/// A grant to be given. Verbs and patterns are the caller's, checked by it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewGrant {
    /// The subject's row; none for anyone at all.
    pub subject: Option<i64>,
    /// The role that was asked for, for lists.
    pub role: Option<String>,
    /// The verbs, separated by commas.
    pub verbs: String,
    /// The repository pattern.
    pub repository: String,
    /// The tag patterns; none for all tags.
    pub tags: Vec<String>,
    /// From when on it gives nothing.
    pub expires_at: Option<Timestamp>,
    /// Why, as a user wrote it.
    pub reason: Option<String>,
}

/// A grant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrantRow {
    /// Its row: the cursor of lists.
    pub id: i64,
    /// The subject's row; none for anyone at all.
    pub subject: Option<i64>,
    /// `user:alice`, `robot:payments.deploy` or `anonymous`.
    pub subject_name: String,
    /// The role that was asked for.
    pub role: Option<String>,
    /// The verbs, separated by commas.
    pub verbs: String,
    /// The repository pattern.
    pub repository: String,
    /// The tag patterns; none for all tags.
    pub tags: Vec<String>,
    /// From when on it gives nothing.
    pub expires_at: Option<Timestamp>,
    /// Why.
    pub reason: Option<String>,
    /// Who gave it: [`Actor::name`].
    pub created_by: String,
    /// When.
    pub created_at: Timestamp,
}

/// The end of [`Db::create_grant`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "one is made at a time, and taken apart at once")]
pub enum CreateGrant {
    /// It counts now.
    Done(GrantRow),
    /// The same is there, with this id.
    There(i64),
    /// The subject is not there.
    NoSubject,
}

impl Db {
    /// Gives a grant, unless one with the same subject, verbs and patterns counts already. Event `grant.add`. Synced.
    pub async fn create_grant(&self, grant: NewGrant, actor: &Actor) -> Result<CreateGrant, Error> {
        let actor = actor.clone();
        self.write(move |tx| {
            Box::pin(async move {
                subject::begin_change(tx);
                if let Some(id) = grant.subject {
                    let there =
                        tx.optional("SELECT 1 FROM subject WHERE id = $1", &[id.into()], |_| Ok(())).await?.is_some();
                    if !there {
                        return Ok(CreateGrant::NoSubject);
                    }
                }
                if let Some(id) = same(tx, &grant).await? {
                    return Ok(CreateGrant::There(id));
                }
                let id = add(tx, &grant, &actor).await?;
                let written = find(tx, id).await?;
                written.map(CreateGrant::Done).ok_or_else(|| Error::corrupt("a grant that was just given is missing"))
            })
        })
        .await
    }

    /// The grant of this row.
    pub async fn grant(&self, id: i64) -> Result<Option<GrantRow>, Error> {
        self.read_single(move |tx| Box::pin(async move { find(tx, id).await })).await
    }

    /// Grants in the order of their rows, after `after`: of one subject (`Some(None)`: of anyone), or all.
    pub async fn list_grants(
        &self,
        of: Option<Option<i64>>,
        after: Option<i64>,
        limit: usize,
    ) -> Result<Vec<GrantRow>, Error> {
        self.read_single(move |tx| {
            Box::pin(async move {
                let (after, limit) = (after.unwrap_or(i64::MIN), rows(limit));
                match of {
                    None => {
                        let sql = format!("{SELECT} WHERE g.id > $1 ORDER BY g.id LIMIT $2");
                        tx.query(&sql, &[after.into(), limit.into()], grant).await
                    }
                    Some(subject) => {
                        let last = if subject.is_some() { 3 } else { 2 };
                        let sql =
                            format!("{SELECT} WHERE g.id > $1 AND {} ORDER BY g.id LIMIT ${last}", is(subject, 2));
                        let values: Vec<Value<'_>> =
                            [after.into()].into_iter().chain(subject.map(Value::from)).chain([limit.into()]).collect();
                        tx.query(&sql, &values, grant).await
                    }
                }
            })
        })
        .await
    }

    /// Takes a grant away, at once. `false`: there is none. Event `grant.remove`. Synced.
    pub async fn remove_grant(&self, id: i64, actor: &Actor) -> Result<bool, Error> {
        let actor = actor.clone();
        self.write(move |tx| {
            Box::pin(async move {
                subject::begin_change(tx);
                let Some(grant) = find(tx, id).await? else { return Ok(false) };
                remove(tx, &[grant], &actor).await?;
                Ok(true)
            })
        })
        .await
    }

    /// Takes away all grants of a subject (none: of anyone), at once; how many. Events `grant.remove`. Synced.
    pub async fn remove_grants_of(&self, subject: Option<i64>, actor: &Actor) -> Result<u64, Error> {
        let actor = actor.clone();
        self.write(move |tx| {
            Box::pin(async move {
                subject::begin_change(tx);
                let sql = format!("{SELECT} WHERE {} ORDER BY g.id", is(subject, 1));
                let values: Vec<Value<'_>> = subject.map(Value::from).into_iter().collect();
                let grants = tx.query(&sql, &values, grant).await?;
                remove(tx, &grants, &actor).await?;
                Ok(grants.len() as u64)
            })
        })
        .await
    }
}

/// The condition that a grant is this subject's, or anyone's: in two forms, because PostgreSQL looks up neither in an index
/// when they are one.
fn is(subject: Option<i64>, parameter: usize) -> String {
    if subject.is_some() { format!("g.subject_id = ${parameter}") } else { "g.subject_id IS NULL".to_owned() }
}

/// The grant that says the same and has not expired, if there is one.
async fn same(tx: &mut Tx, grant: &NewGrant) -> Result<Option<i64>, Error> {
    let tags = serde_json::json!(grant.tags).to_string();
    let sql = format!(
        "SELECT g.id FROM access_grant g
         WHERE g.verbs = $1 AND g.repository = $2 AND g.tags = $3 AND (g.expires_at IS NULL OR g.expires_at > $4) AND {}
         ORDER BY g.id LIMIT 1",
        is(grant.subject, 5)
    );
    let values: [Value<'_>; 4] = [(&grant.verbs).into(), (&grant.repository).into(), (&tags).into(), tx.now().into()];
    let values: Vec<Value<'_>> = values.into_iter().chain(grant.subject.map(Value::from)).collect();
    tx.optional(&sql, &values, |row| row.get(0)).await
}

/// Writes a grant, with its event.
pub(crate) async fn add(tx: &mut Tx, grant: &NewGrant, actor: &Actor) -> Result<i64, Error> {
    let tags = serde_json::json!(grant.tags).to_string();
    let id = tx
        .one(
            "INSERT INTO access_grant (subject_id, role, verbs, repository, tags, expires_at, reason, created_by, created_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) RETURNING id",
            &[
                grant.subject.into(),
                grant.role.as_ref().into(),
                (&grant.verbs).into(),
                (&grant.repository).into(),
                (&tags).into(),
                grant.expires_at.into(),
                grant.reason.as_ref().into(),
                (&actor.name).into(),
                tx.now().into(),
            ],
            |row| row.get(0),
        )
        .await?;
    subject::change_policy(tx).await?;
    if let Some(written) = find(tx, id).await? {
        event::append(tx, &told(Action::GrantAdd, &written, actor)).await?;
    }
    Ok(id)
}

async fn remove(tx: &mut Tx, grants: &[GrantRow], actor: &Actor) -> Result<(), Error> {
    if grants.is_empty() {
        return Ok(());
    }
    for grant in grants {
        tx.execute("DELETE FROM access_grant WHERE id = $1", &[grant.id.into()]).await?;
        event::append(tx, &told(Action::GrantRemove, grant, actor)).await?;
    }
    subject::change_policy(tx).await
}

fn told(action: Action, grant: &GrantRow, actor: &Actor) -> NewEvent {
    NewEvent::new(action, actor).reference(grant.id.to_string()).detail(serde_json::json!({
        "subject": grant.subject_name,
        "role": grant.role,
        "verbs": grant.verbs,
        "repository": grant.repository,
        "tags": grant.tags,
        "expires_at": grant.expires_at.map(|at| at.to_string()),
        "reason": grant.reason,
    }))
}

const SELECT: &str = "SELECT g.id, g.subject_id, COALESCE(s.kind || ':' || s.name, 'anonymous'), g.role, g.verbs,
            g.repository, g.tags, g.expires_at, g.reason, g.created_by, g.created_at
     FROM access_grant g LEFT JOIN subject s ON s.id = g.subject_id";

/// All grants, in the order of their rows.
pub(crate) async fn all(tx: &mut Tx) -> Result<Vec<GrantRow>, Error> {
    tx.query(&format!("{SELECT} WHERE g.id > 0 ORDER BY g.id"), &[], grant).await
}

async fn find(tx: &mut Tx, id: i64) -> Result<Option<GrantRow>, Error> {
    tx.optional(&format!("{SELECT} WHERE g.id = $1"), &[id.into()], grant).await
}

fn grant(row: &Row<'_>) -> Result<GrantRow, Error> {
    Ok(GrantRow {
        id: row.get(0)?,
        subject: row.get(1)?,
        subject_name: row.get(2)?,
        role: row.get(3)?,
        verbs: row.get(4)?,
        repository: row.get(5)?,
        tags: serde_json::from_str(&row.get::<String>(6)?)
            .map_err(|error| Error::corrupt(format!("the tags of a grant: {error}")))?,
        expires_at: row.get(7)?,
        reason: row.get(8)?,
        created_by: row.get(9)?,
        created_at: row.get(10)?,
    })
}
