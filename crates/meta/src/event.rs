//! Events: what was done, by whom. Written in the transaction of the change.

use oci::{Digest, RepositoryName, Timestamp};

use crate::actor::Actor;
use crate::db::{Db, Engine};
use crate::error::Error;
use crate::lock::Lock;
use crate::tx::{Row, Tx};
use crate::value::{Value, limit as rows};

macro_rules! actions {
    ($($(#[$doc:meta])* $variant:ident = $text:literal,)*) => {
        /// What an event is about: a closed list that users filter by.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Action { $($(#[$doc])* $variant,)* }

        impl Action {
            /// All of them, in the order of the documentation.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The name in lists and filters.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }

            /// The action of this name.
            pub fn parse(text: &str) -> Option<Self> {
                match text { $($text => Some(Self::$variant),)* _ => None }
            }
        }
    };
}

actions! {
    /// A login succeeded.
    Login = "login",
    /// A login failed.
    LoginFailed = "login.failed",
    /// A token was issued.
    TokenIssued = "token.issued",
    /// A known subject was refused; `detail.count` tells how often within the minute.
    Denied = "denied",
    /// A blob was pushed.
    BlobPush = "blob.push",
    /// A blob was mounted from another repository.
    BlobMount = "blob.mount",
    /// A blob was deleted from a repository.
    BlobDelete = "blob.delete",
    /// A manifest was pushed.
    ManifestPush = "manifest.push",
    /// A manifest was deleted.
    ManifestDelete = "manifest.delete",
    /// A tag was created.
    TagCreate = "tag.create",
    /// A tag was moved to another manifest.
    TagMove = "tag.move",
    /// A tag was deleted.
    TagDelete = "tag.delete",
    /// A repository was deleted with all that was in it.
    RepositoryDelete = "repository.delete",
    /// A user was created.
    UserAdd = "user.add",
    /// A user's password was changed.
    UserPassword = "user.password",
    /// A user was disabled.
    UserDisable = "user.disable",
    /// A user was enabled.
    UserEnable = "user.enable",
    /// A user became, or is no longer, an administrator.
    UserAdministrator = "user.administrator",
    /// A user was removed.
    UserRemove = "user.remove",
    /// A robot was created.
    RobotAdd = "robot.add",
    /// A robot was given a new secret.
    RobotRotate = "robot.rotate",
    /// A robot was disabled.
    RobotDisable = "robot.disable",
    /// A robot was enabled.
    RobotEnable = "robot.enable",
    /// A robot was removed.
    RobotRemove = "robot.remove",
    /// A grant was given.
    GrantAdd = "grant.add",
    /// A grant was taken away.
    GrantRemove = "grant.remove",
    /// A key of the server was made or replaced.
    KeyRotated = "key.rotated",
    /// The configuration changed.
    ConfigChanged = "config.changed",
    /// The server started.
    Start = "start",
    /// The server stopped.
    Stop = "stop",
    /// Collection removed something; `detail.kind` tells what: `manifest`, `link` or `blob`.
    GcDeleted = "gc.deleted",
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was done.
    Ok,
    /// It was not allowed.
    Denied,
    /// It was tried and failed.
    Failed,
}

impl Outcome {
    /// The name in lists.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Denied => "denied",
            Self::Failed => "failed",
        }
    }
}

/// An event to be written.
#[derive(Clone, Debug)]
pub struct NewEvent {
    /// When it happened; none for the time of the transaction.
    pub time: Option<Timestamp>,
    /// What was done.
    pub action: Action,
    /// How it ended.
    pub outcome: Outcome,
    /// Who did it.
    pub actor: Actor,
    /// In which repository.
    pub repository: Option<String>,
    /// The tag, or the name of the user, robot, grant or key.
    pub reference: Option<String>,
    /// The digest of the object.
    pub digest: Option<Digest>,
    /// What else matters: a JSON object.
    pub detail: Option<serde_json::Value>,
}

impl NewEvent {
    /// An event of something that was done, with nothing more to say about it.
    pub fn new(action: Action, actor: &Actor) -> Self {
        Self {
            time: None,
            action,
            outcome: Outcome::Ok,
            actor: actor.clone(),
            repository: None,
            reference: None,
            digest: None,
            detail: None,
        }
    }

    /// In this repository.
    #[must_use]
    pub fn repository(mut self, name: &RepositoryName) -> Self {
        self.repository = Some(name.as_str().to_owned());
        self
    }

    /// With this tag or name.
    #[must_use]
    pub fn reference(mut self, reference: impl Into<String>) -> Self {
        self.reference = Some(reference.into());
        self
    }

    /// About this object.
    #[must_use]
    pub fn digest(mut self, digest: &Digest) -> Self {
        self.digest = Some(digest.clone());
        self
    }

    /// With this JSON object.
    #[must_use]
    pub fn detail(mut self, detail: serde_json::Value) -> Self {
        self.detail = Some(detail);
        self
    }
}

/// An event that was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventRow {
    /// Its place in the order of events: the cursor of lists.
    pub id: i64,
    /// When it happened.
    pub time: Timestamp,
    /// The name of an [`Action`].
    pub action: String,
    /// The name of an [`Outcome`].
    pub outcome: String,
    /// Who did it: [`Actor::name`].
    pub subject: String,
    /// What proved it.
    pub credential: String,
    /// From where.
    pub source: String,
    /// In which request.
    pub request_id: String,
    /// In which repository.
    pub repository: Option<String>,
    /// The tag or the name.
    pub reference: Option<String>,
    /// The digest of the object.
    pub digest: Option<Digest>,
    /// A JSON object as text.
    pub detail: Option<String>,
}

/// Which events a list shows: those that match all that is set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventFilter {
    /// Not before.
    pub since: Option<Timestamp>,
    /// Before.
    pub until: Option<Timestamp>,
    /// By this [`Actor::name`].
    pub subject: Option<String>,
    /// Of this kind.
    pub action: Option<Action>,
    /// In this repository.
    pub repository: Option<String>,
}

/// Writes an event in the transaction of the change that it tells of.
pub(crate) async fn append(tx: &mut Tx, event: &NewEvent) -> Result<(), Error> {
    append_all(tx, std::slice::from_ref(event)).await
}

/// Writes events in the transaction of the changes that they tell of.
pub(crate) async fn append_all(tx: &mut Tx, events: &[NewEvent]) -> Result<(), Error> {
    tx.announce_events();
    let now = tx.now();
    let details: Vec<Option<String>> =
        events.iter().map(|event| event.detail.as_ref().map(ToString::to_string)).collect();
    let rows: Vec<Vec<Value<'_>>> = events
        .iter()
        .zip(&details)
        .map(|(event, detail)| {
            vec![
                event.time.unwrap_or(now).into(),
                event.action.as_str().into(),
                event.outcome.as_str().into(),
                event.actor.subject.into(),
                (&event.actor.name).into(),
                (&event.actor.credential).into(),
                (&event.actor.source).into(),
                (&event.actor.request_id).into(),
                event.repository.as_ref().into(),
                event.reference.as_ref().into(),
                event.digest.as_ref().into(),
                detail.as_ref().into(),
            ]
        })
        .collect();
    tx.execute_each(
        "INSERT INTO event (occurred_at, action, outcome, subject_id, subject, credential, source, request_id,
                            repository, reference, digest, detail)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)",
        &rows,
    )
    .await
    .map(drop)
}

impl Db {
    /// Writes events that belong to no other change: logins, denials, start and stop.
    pub async fn append_events(&self, events: Vec<NewEvent>) -> Result<(), Error> {
        self.write(move |tx| Box::pin(async move { append_all(tx, &events).await })).await
    }

    /// Events in the order in which they were written, after the one with the id `after`: to follow them. None is passed over:
    /// on PostgreSQL, where ids become visible out of order, the list ends before the first that may still come.
    pub async fn events(&self, filter: &EventFilter, after: Option<i64>, limit: usize) -> Result<Vec<EventRow>, Error> {
        let filter = filter.clone();
        let last = self.last_settled_event().await?;
        self.read(move |tx| Box::pin(async move { list(tx, &filter, Order::Forward(last), after, limit).await })).await
    }

    /// The newest events first, before the one with the id `before`.
    pub async fn events_before(
        &self,
        filter: &EventFilter,
        before: Option<i64>,
        limit: usize,
    ) -> Result<Vec<EventRow>, Error> {
        let filter = filter.clone();
        self.read(move |tx| Box::pin(async move { list(tx, &filter, Order::Backward, before, limit).await })).await
    }
}

impl Db {
    /// The id up to which no event can come to be any more; `None` where they are written one after the other.
    ///
    /// Who writes events first takes a lock whose key says above which id its own will be (see `announce_events`). So: the
    /// newest id that was given out; then the lowest of these keys; then, by the caller, the rows. An id that is not above the
    /// first was given to somebody whose lock was there before, and is there now unless its rows are.
    async fn last_settled_event(&self) -> Result<Option<i64>, Error> {
        if self.engine() == Engine::Sqlite {
            return Ok(None);
        }
        let given = self.read_single(|tx| {
            Box::pin(async move {
                let sql = "SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM event_id_seq";
                tx.one(sql, &[], |row| row.get::<i64>(0)).await
            })
        });
        let given = given.await?;
        let announced = self.read_single(|tx| {
            Box::pin(async move {
                tx.one(
                    "SELECT MIN(CAST(classid AS BIGINT) * 4294967296 + CAST(objid AS BIGINT)) FROM pg_locks
                     WHERE locktype = 'advisory' AND objsubid = 1
                       AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
                       AND CAST(classid AS BIGINT) * 4294967296 + CAST(objid AS BIGINT) >= $1",
                    &[Lock::EVENTS.into()],
                    |row| row.get::<Option<i64>>(0),
                )
                .await
            })
        });
        let announced = announced.await?.map(|key| key - Lock::EVENTS);
        Ok(Some(announced.map_or(given, |above| above.min(given))))
    }
}

#[derive(Clone, Copy)]
enum Order {
    /// Up to this id, if there may be gaps after it.
    Forward(Option<i64>),
    Backward,
}

/// Events carry the time at which they happened, which may be this much before they were written (denials are gathered
/// for a minute), so times do not rise strictly with the ids.
const LATENESS: std::time::Duration = std::time::Duration::from_secs(300);

async fn list(
    tx: &mut Tx,
    filter: &EventFilter,
    order: Order,
    cursor: Option<i64>,
    limit: usize,
) -> Result<Vec<EventRow>, Error> {
    let mut first = i64::MIN;
    if let Some(since) = filter.since {
        first = first_since(tx, since.minus(LATENESS)).await?;
    }
    let mut sql = String::from(
        "SELECT id, occurred_at, action, outcome, subject, credential, source, request_id, repository, reference,
                digest, detail
         FROM event WHERE id >= $1",
    );
    let mut values: Vec<Value<'_>> = vec![match (order, cursor) {
        (Order::Forward(_), Some(after)) => first.max(after.saturating_add(1)).into(),
        _ => first.into(),
    }];
    let (before, last) = match order {
        Order::Backward => (cursor, None),
        Order::Forward(last) => (None, last),
    };
    for (condition, value) in [
        ("id <", before.map(Value::from)),
        ("id <=", last.map(Value::from)),
        ("occurred_at >=", filter.since.map(Value::from)),
        ("occurred_at <", filter.until.map(Value::from)),
        ("subject =", filter.subject.as_ref().map(Value::from)),
        ("action =", filter.action.map(|action| action.as_str().into())),
        ("repository =", filter.repository.as_ref().map(Value::from)),
    ] {
        if let Some(value) = value {
            values.push(value);
            sql.push_str(&format!(" AND {condition} ${}", values.len()));
        }
    }
    values.push(rows(limit).into());
    let direction = match order {
        Order::Forward(_) => "",
        Order::Backward => " DESC",
    };
    sql.push_str(&format!(" ORDER BY id{direction} LIMIT ${}", values.len()));
    tx.query(&sql, &values, event).await
}

/// The id of about the first event at or after `time`, by halving the range of ids: times have no index.
async fn first_since(tx: &mut Tx, time: Timestamp) -> Result<i64, Error> {
    let ends = tx
        .one("SELECT (SELECT MIN(id) FROM event), (SELECT MAX(id) FROM event)", &[], |row| {
            Ok((row.get::<Option<i64>>(0)?, row.get::<Option<i64>>(1)?))
        })
        .await?;
    let (Some(mut low), Some(last)) = ends else { return Ok(0) };
    let mut high = last + 1;
    while low < high {
        let middle = low + (high - low) / 2;
        let found = tx
            .optional("SELECT id, occurred_at FROM event WHERE id >= $1 ORDER BY id LIMIT 1", &[middle.into()], |row| {
                Ok((row.get::<i64>(0)?, row.get::<Timestamp>(1)?))
            })
            .await?;
        match found {
            Some((id, at)) if at < time => low = id + 1,
            _ => high = middle,
        }
    }
    Ok(low)
}

fn event(row: &Row<'_>) -> Result<EventRow, Error> {
    Ok(EventRow {
        id: row.get(0)?,
        time: row.get(1)?,
        action: row.get(2)?,
        outcome: row.get(3)?,
        subject: row.get(4)?,
        credential: row.get(5)?,
        source: row.get(6)?,
        request_id: row.get(7)?,
        repository: row.get(8)?,
        reference: row.get(9)?,
        digest: row.get(10)?,
        detail: row.get(11)?,
    })
}
