//! Who is calling.
//!
//! Credentials come from the `Authorization` header and from nowhere else. What is found out here is an identity and the
//! limits of a token; what somebody may do is decided by `policy`, anew for each request, from the rules of the moment.

mod backoff;
pub(crate) mod basic;
mod denials;
mod hosts;
pub(crate) mod origin;
mod password;
pub mod service;
mod session;
pub(crate) mod token;
mod verified;

use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use axum::http::request::Parts;
use http::header::AUTHORIZATION;
use ipnet::IpNet;
use oci::{Clock, Random, Timestamp};
use policy::{Actions, Caller, Credential, Identity, Resource, Rules, Subject, TokenScopes};
use registry::Registry;

pub use backoff::Source;
pub use denials::Journal;
pub use hosts::{Challenge, Hosts, Scheme};
pub use origin::client_address;
pub use password::HashError;
pub use session::AdminSession;
pub use token::{TokenKey, TokenKeys};

use crate::config::Config;
use crate::state::{Note, RulesHandle};
use backoff::Backoff;
use basic::Stored;
use origin::Origin;
use password::Hashing;
use token::{Holder, Token, Use};
use verified::{Known, Verified};

/// How long a refresh token lives. One of a robot never outlives the robot.
const REFRESH_LIFETIME: Duration = Duration::from_secs(90 * 24 * 60 * 60);

/// The credential id of who shows none.
const NO_CREDENTIAL: &str = "none";

/// Authentication of one server. Clones are the same.
#[derive(Clone)]
pub struct Auth(Arc<Inner>);

struct Inner {
    setup: Setup,
    keys: ArcSwap<TokenKeys>,
    hashing: Hashing,
    backoff: Backoff,
    verified: Verified,
    journal: Journal,
}

/// What authentication works on.
pub struct Setup {
    /// Where the accounts are.
    pub registry: Registry,
    /// The rules of the moment.
    pub rules: RulesHandle,
    /// The names of this registry.
    pub hosts: Hosts,
    /// The peers that may say for whom they speak.
    pub proxies: Vec<IpNet>,
    /// How credentials are asked for.
    pub scheme: Scheme,
    /// How long an access token lives; at least a minute.
    pub token_lifetime: Duration,
    /// Wrong logins of an account from one source before the first pause.
    pub failed_logins: u32,
    /// The first pause.
    pub backoff: Duration,
    /// The time of day.
    pub clock: Clock,
    /// Where ids and salts come from.
    pub random: Random,
}

impl Setup {
    /// What the configuration says.
    pub fn new(config: &Config, registry: &Registry, rules: &RulesHandle, clock: &Clock, random: &Random) -> Self {
        Self {
            registry: registry.clone(),
            rules: rules.clone(),
            hosts: Hosts::new(config.server.urls()),
            proxies: config.server.plain_from.clone(),
            scheme: config.auth.challenge,
            token_lifetime: config.auth.token_lifetime,
            failed_logins: config.limits.failed_logins,
            backoff: config.auth.backoff,
            clock: clock.clone(),
            random: random.clone(),
        }
    }
}

/// Why nobody could be identified.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// The request says who it is in two ways: 400.
    #[error("{0}")]
    Ambiguous(&'static str),
    /// The name or the secret is wrong, the account is disabled or has expired: 401.
    #[error("the name or the secret is wrong")]
    RejectedBasic,
    /// The token is not ours, has expired, or its holder is gone: 401 with `invalid_token`.
    #[error("the token is not valid, or not any more")]
    RejectedToken,
    /// Too many wrong logins: 429.
    #[error("too many wrong logins")]
    Throttled {
        /// How long to wait.
        wait: Duration,
    },
    /// Too many logins at once: 503.
    #[error("too many logins are being checked")]
    Busy {
        /// How long to wait.
        wait: Duration,
    },
    /// The database, without which nothing is decided.
    #[error(transparent)]
    Store(registry::Error),
    /// An internal error.
    #[error("an internal error")]
    Internal(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl AuthError {
    /// Whether other rules might have identified the caller.
    pub fn depends_on_rules(&self) -> bool {
        matches!(self, Self::RejectedBasic | Self::RejectedToken)
    }
}

impl From<HashError> for AuthError {
    fn from(error: HashError) -> Self {
        match error {
            HashError::Busy => Self::Busy { wait: Duration::from_secs(5) },
            HashError::Failed(_) => Self::Internal(Box::new(error)),
        }
    }
}

/// A token as the token service gives it out.
pub struct Issued {
    /// The signed form.
    pub token: String,
    /// The instant of issue.
    pub issued_at: Timestamp,
    /// How long it lives.
    pub lifetime: Duration,
    /// What it covers.
    pub scopes: TokenScopes,
}

impl Auth {
    /// Authentication with these keys.
    pub fn new(setup: Setup, keys: TokenKeys) -> Self {
        Self(Arc::new(Inner {
            keys: ArcSwap::from_pointee(keys),
            hashing: Hashing::new(setup.random.clone()),
            backoff: Backoff::new(setup.failed_logins, setup.backoff),
            verified: Verified::new(&setup.random),
            journal: Journal::new(setup.clock.clone()),
            setup,
        }))
    }

    /// Replaces the keys. Tokens signed by a key that is not among them are not valid any more.
    pub fn set_keys(&self, keys: TokenKeys) {
        self.0.keys.store(Arc::new(keys));
    }

    /// The names of this registry.
    pub fn hosts(&self) -> &Hosts {
        &self.0.setup.hosts
    }

    /// How credentials are asked for.
    pub fn scheme(&self) -> Scheme {
        self.0.setup.scheme
    }

    /// What waits to be written down: a task calls [`Journal::flush`].
    pub fn journal(&self) -> &Journal {
        &self.0.journal
    }

    /// The hash of a new password, to be stored. Takes a turn among the logins.
    pub async fn hash_password(&self, password: &str) -> Result<String, AuthError> {
        Ok(self.0.hashing.hash(password).await?)
    }

    /// Who makes this request. Without credentials, and with an empty name and secret (which podman sends for none, Q3),
    /// that is nobody, with [`Credential::None`].
    pub async fn identify(&self, parts: &Parts) -> Result<Arc<Caller>, AuthError> {
        self.identify_by(parts, Use::Access).await
    }

    /// The same, where tokens are to be for this use.
    async fn identify_by(&self, parts: &Parts, usage: Use) -> Result<Arc<Caller>, AuthError> {
        Ok(self.identify_until(parts, usage).await?.0)
    }

    /// The same, with the instant at which the secret that was shown expires, if it does.
    async fn identify_until(&self, parts: &Parts, usage: Use) -> Result<(Arc<Caller>, Option<Timestamp>), AuthError> {
        let origin = self.origin(parts);
        let mut headers = parts.headers.get_all(AUTHORIZATION).iter();
        let (first, second) = (headers.next(), headers.next());
        if second.is_some() {
            return Err(AuthError::Ambiguous("the Authorization header was sent more than once"));
        }
        let nobody = || (origin.caller(Identity::Anonymous, Credential::None, NO_CREDENTIAL), None);
        let Some(header) = first else { return Ok(nobody()) };
        let header = header.to_str().map_err(|_| AuthError::RejectedBasic)?;
        let (scheme, value) = header.split_once(' ').unwrap_or((header, ""));
        if scheme.eq_ignore_ascii_case("bearer") {
            let token = self.verify(value.trim(), usage).ok_or(AuthError::RejectedToken)?;
            let identity = token.holder.map_or(Identity::Anonymous, |holder| Identity::Subject(holder.id));
            let credential_id = format!("token:{}", token.id);
            self.note(parts, identity);
            return Ok((origin.caller(identity, Credential::Token(token.scopes), &credential_id), None));
        }
        if !scheme.eq_ignore_ascii_case("basic") {
            return Err(AuthError::RejectedBasic);
        }
        match basic::parse(value).ok_or(AuthError::RejectedBasic)? {
            None => Ok(nobody()),
            Some((name, secret)) => {
                let known = self.log_in(&name, &secret, &origin).await?;
                let identity = Identity::Subject(known.id);
                self.note(parts, identity);
                Ok((origin.caller(identity, Credential::Basic, "basic"), known.expires_at))
            }
        }
    }

    fn origin(&self, parts: &Parts) -> Origin {
        Origin::of(parts, &self.0.setup.proxies)
    }

    /// Tells the access log who makes the request.
    fn note(&self, parts: &Parts, identity: Identity) {
        let Some(note) = parts.extensions.get::<Note>() else { return };
        match identity {
            Identity::Anonymous => note.set_subject("anonymous"),
            Identity::Subject(id) => {
                if let Some(subject) = self.0.setup.rules.load().subject(id) {
                    note.set_subject(subject.label());
                }
            }
        }
    }

    /// A token that is ours, valid now, and whose holder still has the credentials that it was issued for.
    fn verify(&self, text: &str, usage: Use) -> Option<Token> {
        let token = self.0.keys.load().verify(text, usage, self.now())?;
        if let Some(holder) = &token.holder {
            let rules = self.0.setup.rules.load();
            let subject = rules.subject(holder.id)?;
            if subject.epoch != holder.epoch || !subject.is_active(self.now()) {
                return None;
            }
        }
        Some(token)
    }

    /// An access token for `subject`, or for nobody, with what the rules grant of `wanted`. `None` when it would be too
    /// long for a header.
    fn issue(&self, rules: &Rules, subject: Option<&Subject>, wanted: &[(Resource, Actions)]) -> Option<Issued> {
        let now = self.now();
        let identity = subject.map_or(Identity::Anonymous, |subject| Identity::Subject(subject.id));
        let scopes = TokenScopes(policy::grant_scopes(rules, identity, wanted, now));
        let lifetime = self.0.setup.token_lifetime;
        let token = self.sign(Use::Access, subject, now, now.plus(lifetime), scopes.clone());
        (token.len() <= token::MAX_TOKEN).then_some(Issued { token, issued_at: now, lifetime, scopes })
    }

    /// A token to get access tokens with, valid until the subject's credentials change, and no longer than the secret
    /// that it is given for.
    fn issue_refresh(&self, subject: &Subject, secret_expires_at: Option<Timestamp>) -> String {
        let now = self.now();
        let ends = [Some(now.plus(REFRESH_LIFETIME)), subject.expires_at, secret_expires_at];
        let expires_at = ends.into_iter().flatten().min().unwrap_or(now);
        self.sign(Use::Refresh, Some(subject), now, expires_at, TokenScopes(Vec::new()))
    }

    fn sign(
        &self,
        usage: Use,
        subject: Option<&Subject>,
        issued_at: Timestamp,
        expires_at: Timestamp,
        scopes: TokenScopes,
    ) -> String {
        let mut id = [0; 16];
        (self.0.setup.random)(&mut id);
        let holder =
            subject.map(|subject| Holder { id: subject.id, name: subject.name.to_string(), epoch: subject.epoch });
        let id = uuid::Builder::from_random_bytes(id).into_uuid().simple().to_string();
        self.0.keys.load().sign(&Token { usage, holder, id, issued_at, expires_at, scopes })
    }

    fn now(&self) -> Timestamp {
        (self.0.setup.clock)()
    }
}

impl Auth {
    /// Whose name and secret these are. Takes the same time for every wrong pair, whether the name is that of a user, of
    /// a robot or of nobody: one password hash.
    async fn log_in(&self, name: &str, secret: &str, origin: &Origin) -> Result<Known, AuthError> {
        if let Some(known) = self.remembered(name, secret) {
            return Ok(known);
        }
        self.check_pause(name, origin)?;
        let alone = tokio::time::timeout(password::PATIENCE, self.0.verified.alone(name, secret)).await;
        let _alone = alone.map_err(|_| HashError::Busy)?;
        // While this one waited, others may have found the answer, or have failed too often.
        if let Some(known) = self.remembered(name, secret) {
            return Ok(known);
        }
        self.check_pause(name, origin)?;
        let rules = self.0.setup.rules.load();
        let subject = rules.subject_by_name(name).filter(|subject| subject.is_active(self.now()));
        let known = basic::stored(&self.0.setup.registry, name, subject, self.now())
            .await
            .map_err(|error| AuthError::Store(error.into()))?;
        let secret_of_robot = match &known {
            Stored::Secrets(secrets) => basic::find(secret, secrets),
            Stored::None | Stored::Password(_) => None,
        };
        let right = if secret_of_robot.is_some() {
            true
        } else {
            let turn = self.0.hashing.enter().await?;
            // While this one waited for its turn, others may have failed too often.
            self.check_pause(name, origin)?;
            let hash = if let Stored::Password(hash) = &known { Some(hash.clone()) } else { None };
            self.0.hashing.verify(turn, secret, hash).await?
        };
        let now = Instant::now();
        match subject {
            Some(subject) if right => {
                let expires_at = secret_of_robot.and_then(|secret| secret.expires_at);
                let known = Known { id: subject.id, epoch: subject.epoch, expires_at };
                self.0.verified.insert(name, secret, known, now);
                self.0.backoff.succeeded(name, origin.source, now);
                self.0.journal.logged_in(subject, &origin.address, &origin.request_id);
                Ok(known)
            }
            _ => {
                self.0.backoff.failed(name, origin.source, now);
                self.0.journal.failed(name, &origin.address, &origin.request_id);
                Err(AuthError::RejectedBasic)
            }
        }
    }

    /// The subject that these credentials were verified for lately, if they are still its own.
    fn remembered(&self, name: &str, secret: &str) -> Option<Known> {
        let known = self.0.verified.get(name, secret, Instant::now())?;
        let (rules, now) = (self.0.setup.rules.load(), self.now());
        let subject = rules.subject(known.id)?;
        let live = known.expires_at.is_none_or(|end| end > now);
        (live && subject.epoch == known.epoch && subject.is_active(now)).then_some(known)
    }

    fn check_pause(&self, name: &str, origin: &Origin) -> Result<(), AuthError> {
        match self.0.backoff.must_wait(name, origin.source, Instant::now()) {
            Some(wait) => Err(AuthError::Throttled { wait }),
            None => Ok(()),
        }
    }
}
