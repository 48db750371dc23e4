//! What every request is handled with, and what the listener says about a request.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use oci::Clock;
use policy::{Grant, Grantee, RepositoryPattern, Rules, Subject, SubjectId, SubjectKind, TagPattern, Verbs};
use registry::Registry;

use crate::auth::Auth;
use crate::config::Config;
use crate::error::Error;
use crate::metrics::Metrics;
use crate::trouble::Trouble;

/// What the handlers of all listeners share.
#[derive(Clone)]
pub struct AppState {
    /// The operations.
    pub registry: Registry,
    /// Who is calling.
    pub auth: Auth,
    /// Who may do what.
    pub rules: RulesHandle,
    /// The settings; `server.listen` is the bound address.
    pub config: Arc<Config>,
    /// Counters.
    pub metrics: Metrics,
    /// Failures of disk and database, for the log.
    pub trouble: Trouble,
    /// The time of day.
    pub clock: Clock,
}

/// Who may do what, as a snapshot of the database that is replaced before a change of it is answered. Clones are the same.
#[derive(Clone)]
pub struct RulesHandle(Arc<Snapshot>);

struct Snapshot {
    db: meta::Db,
    rules: ArcSwap<Rules>,
    /// One at a time, so that an older snapshot never replaces a newer one.
    reloading: tokio::sync::Mutex<()>,
}

impl RulesHandle {
    /// Reads the rules of this database.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn open(db: meta::Db) -> Result<Self, Error> {
        let handle =
            Self(Arc::new(Snapshot { db, rules: ArcSwap::default(), reloading: tokio::sync::Mutex::default() }));
        handle.reload().await.map_err(|error| Error::Database(Box::new(error)))?;
        Ok(handle)
    }

    /// The rules of the moment. Ask for them once a request.
    pub fn load(&self) -> Arc<Rules> {
        self.0.rules.load_full()
    }

    /// Reads the rules again. Whoever changed subjects or grants calls this before the change is answered.
    ///
    /// # Errors
    /// When the database cannot be read; the old rules stay.
    pub async fn reload(&self) -> Result<(), meta::Error> {
        let _alone = self.0.reloading.lock().await;
        self.read().await
    }

    /// [`RulesHandle::reload`], if the rules are not the database's any more. Of many that find that out at the same time one
    /// reads.
    ///
    /// # Errors
    /// When the database cannot be read; the old rules stay.
    pub async fn refresh(&self) -> Result<(), meta::Error> {
        let _alone = self.0.reloading.lock().await;
        let epoch = self.0.db.policy_epoch().await?;
        if epoch == self.load().epoch() { Ok(()) } else { self.read().await }
    }

    /// The rules that are the database's at this moment, for whatever is decided without a query that compares their epoch.
    /// Where other servers may change them, that is asked: nothing is decided while the database cannot be reached. Where
    /// this process makes every change, those at hand are.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn current(&self) -> Result<Arc<Rules>, meta::Error> {
        if self.0.db.engine() == meta::Engine::Postgres && self.0.db.policy_epoch().await? != self.load().epoch() {
            self.refresh().await?;
        }
        Ok(self.load())
    }

    async fn read(&self) -> Result<(), meta::Error> {
        let rows = self.0.db.rules().await?;
        self.0.rules.store(Arc::new(rules(rows)));
        Ok(())
    }
}

fn rules(rows: meta::RulesRows) -> Rules {
    let subjects = rows.subjects.into_iter().map(|row| Subject {
        id: SubjectId(row.id),
        name: row.name.into(),
        kind: match row.kind {
            meta::SubjectKind::User => SubjectKind::User,
            meta::SubjectKind::Robot => SubjectKind::Robot,
        },
        administrator: row.administrator,
        disabled: row.disabled,
        epoch: row.epoch,
        expires_at: row.expires_at,
    });
    let grants = rows.grants.iter().filter_map(|row| match grant(row) {
        Ok(grant) => Some(grant),
        Err(error) => {
            tracing::error!(grant = row.id, error = %error, "a grant in the database cannot be read and gives nothing");
            None
        }
    });
    Rules::new(rows.epoch, subjects.collect(), grants.collect())
}

fn grant(row: &meta::GrantRow) -> Result<Grant, policy::Error> {
    Ok(Grant {
        id: row.id,
        grantee: row.subject.map_or(Grantee::Anonymous, |id| Grantee::Subject(SubjectId(id))),
        verbs: Verbs::parse(&row.verbs)?,
        repository: RepositoryPattern::parse(&row.repository)?,
        tags: row.tags.iter().map(|tag| TagPattern::parse(tag)).collect::<Result<_, _>>()?,
        expires_at: row.expires_at,
    })
}

/// Where a request came in; the listener puts it into the extensions of each request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The other end; `None` on the socket.
    pub addr: Option<SocketAddr>,
    /// Whether it came by TLS.
    pub tls: bool,
    /// The listener.
    pub listener: Listener,
}

/// The listeners.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Listener {
    /// `/v2` and the token service.
    Main,
    /// The admin API over TCP.
    Admin,
    /// Health and metrics.
    Ops,
    /// The admin API over the socket in the data directory.
    Socket,
}

impl Listener {
    /// Its name in logs, metrics and `addresses.json`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Main => "main",
            Self::Admin => "admin",
            Self::Ops => "ops",
            Self::Socket => "socket",
        }
    }
}

/// The id of a request, which its answer, its log lines and its events carry; in the extensions of each request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestId(pub String);

/// What the handlers tell the access log about a request; in the extensions of each request.
#[derive(Clone, Debug, Default)]
pub struct Note(Arc<OnceLock<String>>);

impl Note {
    /// Who made the request: `user:alice`. Only the first call counts.
    pub fn set_subject(&self, subject: impl Into<String>) {
        let _ = self.0.set(subject.into());
    }

    /// Who made it, if that was found out.
    pub fn subject(&self) -> Option<&str> {
        self.0.get().map(String::as_str)
    }
}
