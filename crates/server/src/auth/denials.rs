//! Events that are not changes: logins, wrong logins, tokens and refusals.
//!
//! They are many, and nobody waits for them, so they are counted in bounded memory and written by a task: one row for the
//! same thing within a minute, with how often it happened. What finds no room is counted too. What nobody in particular
//! is refused is not recorded: every pull of docker begins with that.

use std::collections::HashMap;
use std::mem;
use std::sync::{Mutex, PoisonError};

use meta::{Action, Actor, Db, NewEvent, Outcome};
use oci::{Clock, RepositoryName, Timestamp};
use policy::{Caller, Subject, SubjectId};

/// Different things that are kept at most; more within one flush are only counted.
const ROWS: usize = 4096;
const MINUTE_MS: i64 = 60_000;

/// What has happened and is not written down yet.
pub struct Journal {
    clock: Clock,
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    rows: HashMap<Key, Row>,
    logins: HashMap<SubjectId, Timestamp>,
    dropped: u64,
}

/// What makes two happenings the same.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    action: Action,
    subject: Option<i64>,
    name: String,
    source: String,
    repository: Option<RepositoryName>,
    detail: String,
    minute: i64,
}

struct Row {
    /// Of the first.
    at: Timestamp,
    credential: String,
    request_id: String,
    /// How many are not written yet.
    count: u64,
    written: bool,
}

impl Journal {
    /// An empty one.
    pub fn new(clock: Clock) -> Self {
        Self { clock, waiting: Mutex::new(Waiting::default()) }
    }

    /// A login with the right secret.
    pub fn logged_in(&self, subject: &Subject, source: &str, request_id: &str) {
        let now = (self.clock)();
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).logins.insert(subject.id, now);
        self.add(Action::Login, Some(subject.id.0), subject.label(), source, None, "", "basic", request_id);
    }

    /// A wrong login.
    pub fn failed(&self, name: &str, source: &str, request_id: &str) {
        // Whatever was typed there may be a secret: only what could be a name is kept.
        let name = if registry::accounts::AccountName::parse(name).is_ok() { name } else { "(malformed)" };
        self.add(Action::LoginFailed, None, name.to_owned(), source, None, "", "basic", request_id);
    }

    /// A token was issued, covering `scopes`.
    pub fn issued(&self, subject: &Subject, scopes: &str, source: &str, request_id: &str) {
        self.add(Action::TokenIssued, Some(subject.id.0), subject.label(), source, None, scopes, "basic", request_id);
    }

    /// A known subject was refused something.
    pub fn denied(&self, caller: &Caller, subject: &Subject, repository: Option<&RepositoryName>, what: &str) {
        self.add(
            Action::Denied,
            Some(subject.id.0),
            subject.label(),
            &caller.source,
            repository.cloned(),
            what,
            &caller.credential_id,
            &caller.request_id,
        );
    }

    #[expect(clippy::too_many_arguments, reason = "the columns of one row, named at each call above")]
    fn add(
        &self,
        action: Action,
        subject: Option<i64>,
        name: String,
        source: &str,
        repository: Option<RepositoryName>,
        detail: &str,
        credential: &str,
        request_id: &str,
    ) {
        let at = (self.clock)();
        let minute = at.0.div_euclid(MINUTE_MS);
        let detail = detail.chars().take(1024).collect();
        let key = Key { action, subject, name, source: source.to_owned(), repository, detail, minute };
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let full = waiting.rows.len() >= ROWS;
        match waiting.rows.get_mut(&key) {
            Some(row) => row.count += 1,
            None if full => waiting.dropped += 1,
            None => {
                let (credential, request_id) = (credential.to_owned(), request_id.to_owned());
                waiting.rows.insert(key, Row { at, credential, request_id, count: 1, written: false });
            }
        }
    }

    /// Writes down what has waited: the first of a kind at once, those that followed when its minute is over. A task
    /// calls this every few seconds, and [`Journal::flush_all`] at the end.
    pub async fn flush(&self, db: &Db) -> Result<(), meta::Error> {
        let now = (self.clock)();
        self.write(db, now.0.div_euclid(MINUTE_MS)).await
    }

    /// Writes down everything.
    pub async fn flush_all(&self, db: &Db) -> Result<(), meta::Error> {
        self.write(db, i64::MAX).await
    }

    async fn write(&self, db: &Db, minute: i64) -> Result<(), meta::Error> {
        let (events, logins) = self.take(minute);
        if db.is_read_only() {
            // Nothing is kept in the database, and nothing is lost either: the log has it.
            events.iter().for_each(crate::logs::event);
            return Ok(());
        }
        if !logins.is_empty() {
            db.set_last_login(logins.into_iter().map(|(id, at)| (id.0, at)).collect()).await?;
        }
        if events.is_empty() { Ok(()) } else { db.append_events(events).await }
    }

    fn take(&self, minute: i64) -> (Vec<NewEvent>, HashMap<SubjectId, Timestamp>) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let mut events = Vec::new();
        waiting.rows.retain(|key, row| {
            let over = key.minute < minute;
            if row.count > 0 && (over || !row.written) {
                events.push(event(key, row));
                row.count = 0;
                row.written = true;
            }
            !over
        });
        events.sort_by_key(|event| event.time);
        let dropped = mem::take(&mut waiting.dropped);
        if dropped > 0 {
            events.push(overflow((self.clock)(), dropped));
        }
        (events, mem::take(&mut waiting.logins))
    }
}

fn event(key: &Key, row: &Row) -> NewEvent {
    let outcome = match key.action {
        Action::Denied => Outcome::Denied,
        Action::LoginFailed => Outcome::Failed,
        _ => Outcome::Ok,
    };
    let mut detail = serde_json::Map::new();
    if !key.detail.is_empty() {
        let name = if key.action == Action::TokenIssued { "scope" } else { "what" };
        detail.insert(name.to_owned(), key.detail.clone().into());
    }
    if row.count > 1 {
        detail.insert("count".to_owned(), row.count.into());
    }
    let actor = Actor {
        subject: key.subject,
        name: key.name.clone(),
        credential: row.credential.clone(),
        source: key.source.clone(),
        request_id: row.request_id.clone(),
        policy_epoch: None,
    };
    let mut event = NewEvent::new(key.action, &actor);
    event.time = Some(row.at);
    event.outcome = outcome;
    event.repository = key.repository.as_ref().map(|name| name.as_str().to_owned());
    event.detail = (!detail.is_empty()).then_some(serde_json::Value::Object(detail));
    event
}

fn overflow(at: Timestamp, count: u64) -> NewEvent {
    let detail = serde_json::json!({ "what": "more refusals and logins than are kept apart", "count": count });
    let mut event = NewEvent::new(Action::Denied, &Actor::system("")).detail(detail);
    event.time = Some(at);
    event.outcome = Outcome::Denied;
    event
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicI64, Ordering};

    use policy::{Credential, Identity, SubjectKind};

    use super::*;

    fn subject() -> Subject {
        Subject {
            id: SubjectId(7),
            name: "alice".into(),
            kind: SubjectKind::User,
            administrator: false,
            disabled: false,
            epoch: 1,
            expires_at: None,
        }
    }

    fn texts(events: &[NewEvent]) -> Vec<String> {
        let text = |event: &NewEvent| {
            let detail = event.detail.as_ref().map_or_else(String::new, ToString::to_string);
            let repository = event.repository.as_deref().unwrap_or("-");
            format!("{} {} {repository} {detail}", event.action.as_str(), event.actor.name)
        };
        let mut texts: Vec<String> = events.iter().map(text).collect();
        texts.sort();
        texts
    }

    #[test]
    fn the_same_within_a_minute_is_one_row() {
        let time = Arc::new(AtomicI64::new(600_000));
        let clock_time = time.clone();
        let journal = Journal::new(Arc::new(move || Timestamp(clock_time.load(Ordering::Relaxed))));
        let caller = Caller {
            identity: Identity::Subject(SubjectId(7)),
            credential: Credential::Basic,
            credential_id: "basic".to_owned(),
            source: "10.0.0.1".to_owned(),
            request_id: "r1".to_owned(),
        };
        let name = RepositoryName::parse("a/b").unwrap();
        for _ in 0..3 {
            journal.denied(&caller, &subject(), Some(&name), "push");
        }
        journal.failed("s3cret!", "10.0.0.1", "r2");
        assert_eq!(
            texts(&journal.take(10).0),
            [r#"denied user:alice a/b {"what":"push","count":3}"#, "login.failed (malformed) - ",]
        );
        journal.denied(&caller, &subject(), Some(&name), "push");
        assert!(journal.take(10).0.is_empty(), "the first of this minute is written already");
        assert_eq!(texts(&journal.take(11).0), [r#"denied user:alice a/b {"what":"push"}"#]);
        assert!(journal.take(12).0.is_empty());

        journal.logged_in(&subject(), "10.0.0.1", "r3");
        let (events, logins) = journal.take(i64::MAX);
        assert_eq!((events.len(), logins.len()), (1, 1));
    }

    #[test]
    fn what_finds_no_room_is_counted() {
        let journal = Journal::new(Arc::new(|| Timestamp(0)));
        for i in 0..ROWS + 5 {
            journal.failed(&format!("user{i}"), "10.0.0.1", "r");
        }
        let events = journal.take(0).0;
        assert_eq!(events.len(), ROWS + 1);
        assert_eq!(events[ROWS].detail.as_ref().unwrap()["count"], 5);
    }
}
