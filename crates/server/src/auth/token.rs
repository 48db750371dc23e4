//! Tokens: signed by this store, verified by this store, opaque to clients.
//!
//! The form is that of a JWT (`header.claims.mac`, base64url without padding), since clients expect to be able to look
//! inside, but nothing of the header is ever parsed: it is compared byte for byte with the header of each known key, so
//! there is no algorithm to choose, no key to embed and no place to fetch one from. The MAC is HMAC-SHA-256. Claims are
//! read only after it was verified, and then strictly: every one is required and of its exact type.

use std::time::Duration;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use oci::{Actions, RepositoryName, Resource, Timestamp};
use policy::{Scope, SubjectId, TokenScopes};
use serde::{Deserialize, Serialize};

/// A token longer than this is refused before anything of it is looked at.
pub const MAX_TOKEN: usize = 16 * 1024;

/// How far the clocks of those who look at a token may differ.
const LEEWAY: Duration = Duration::from_secs(60);

/// A key that signs or has signed tokens.
pub struct TokenKey {
    header: String,
    key: hmac::Key,
}

impl TokenKey {
    /// The key with this id and secret (32 random bytes).
    pub fn new(id: &str, secret: &[u8]) -> Self {
        let header = serde_json::json!({ "alg": "HS256", "typ": "JWT", "kid": id }).to_string();
        Self { header: URL_SAFE_NO_PAD.encode(header), key: hmac::Key::new(hmac::HMAC_SHA256, secret) }
    }
}

/// The keys of one store. The first signs; all verify.
pub struct TokenKeys {
    store_id: String,
    keys: Vec<TokenKey>,
}

/// What a token may be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Use {
    /// Sent with requests.
    Access,
    /// Exchanged for access tokens at the token service.
    Refresh,
    /// Sent with requests to the admin API, and good for nothing else.
    Admin,
    /// Exchanged for such tokens.
    AdminRefresh,
}

/// Whom a token stands for, with the epoch that the subject's credentials had when it was issued.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// The subject.
    pub id: SubjectId,
    /// Its login name, for those who look inside; rights go by the id.
    pub name: String,
    /// Its credential epoch.
    pub epoch: i64,
}

/// A token before it is signed, or after it was verified.
#[derive(Clone, Debug)]
pub struct Token {
    /// What it may be used for.
    pub usage: Use,
    /// Whose it is; `None`: anybody's.
    pub holder: Option<Holder>,
    /// Its own id, random.
    pub id: String,
    /// The instant of issue.
    pub issued_at: Timestamp,
    /// The instant from which it is not valid any more.
    pub expires_at: Timestamp,
    /// Every scope that was asked for, with what was granted of it.
    pub scopes: TokenScopes,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Claims {
    iss: String,
    aud: String,
    sub: String,
    sid: i64,
    epoch: i64,
    #[serde(rename = "use")]
    usage: Use,
    jti: String,
    iat: u64,
    nbf: u64,
    exp: u64,
    access: Vec<AccessClaim>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct AccessClaim {
    #[serde(rename = "type")]
    kind: String,
    name: String,
    actions: Vec<String>,
    asked: Vec<String>,
}

/// The subject id in the token of nobody; ids of subjects begin with 1.
const NOBODY: i64 = 0;

impl TokenKeys {
    /// The keys of the store with this id; the first of them signs.
    pub fn new(store_id: &str, signing: TokenKey, verifying: Vec<TokenKey>) -> Self {
        let mut keys = vec![signing];
        keys.extend(verifying);
        Self { store_id: store_id.to_owned(), keys }
    }

    /// The signed form. It may be longer than [`MAX_TOKEN`]; then it must not be given out.
    pub fn sign(&self, token: &Token) -> String {
        let (sub, sid, epoch) = match &token.holder {
            Some(holder) => (holder.name.clone(), holder.id.0, holder.epoch),
            None => (String::new(), NOBODY, 0),
        };
        let issued = u64::try_from(token.issued_at.seconds()).unwrap_or_default();
        let claims = Claims {
            iss: self.store_id.clone(),
            aud: self.store_id.clone(),
            sub,
            sid,
            epoch,
            usage: token.usage,
            jti: token.id.clone(),
            iat: issued,
            nbf: issued,
            exp: u64::try_from(token.expires_at.seconds()).unwrap_or_default(),
            access: token.scopes.0.iter().map(access_claim).collect(),
        };
        // Strings and numbers only: this cannot fail. If it did, the token would not verify.
        self.sign_claims(&serde_json::to_vec(&claims).unwrap_or_default())
    }

    /// Signs whatever these bytes are.
    pub(crate) fn sign_claims(&self, claims: &[u8]) -> String {
        let signing = &self.keys[0];
        let message = format!("{}.{}", signing.header, URL_SAFE_NO_PAD.encode(claims));
        let mac = hmac::sign(&signing.key, message.as_bytes());
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(mac.as_ref()))
    }

    /// The token that `text` is, if this store signed it for this use and it is valid at `now`. Whether its holder still
    /// exists, and has the same epoch, is for the caller to see.
    pub fn verify(&self, text: &str, usage: Use, now: Timestamp) -> Option<Token> {
        if text.len() > MAX_TOKEN {
            return None;
        }
        let (message, mac) = text.rsplit_once('.')?;
        let (header, claims) = message.split_once('.')?;
        let key = &self.keys.iter().find(|key| key.header == header)?.key;
        let mac = URL_SAFE_NO_PAD.decode(mac).ok()?;
        hmac::verify(key, message.as_bytes(), &mac).ok()?;
        self.read(&URL_SAFE_NO_PAD.decode(claims).ok()?, usage, now)
    }

    fn read(&self, claims: &[u8], usage: Use, now: Timestamp) -> Option<Token> {
        let claims: Claims = serde_json::from_slice(claims).ok()?;
        if claims.iss != self.store_id || claims.aud != self.store_id || claims.usage != usage {
            return None;
        }
        let instant = |seconds: u64| Some(Timestamp(i64::try_from(seconds).ok()?.checked_mul(1000)?));
        let (issued_at, not_before, expires_at) = (instant(claims.iat)?, instant(claims.nbf)?, instant(claims.exp)?);
        let latest_start = now.plus(LEEWAY);
        if issued_at > latest_start || not_before > latest_start || expires_at.plus(LEEWAY) <= now {
            return None;
        }
        let holder = match (claims.sid, claims.sub.is_empty()) {
            (NOBODY, true) => None,
            (id, false) if id > NOBODY => Some(Holder { id: SubjectId(id), name: claims.sub, epoch: claims.epoch }),
            _ => return None,
        };
        let scopes = claims.access.iter().map(scope).collect::<Option<Vec<_>>>()?;
        Some(Token { usage, holder, id: claims.jti, issued_at, expires_at, scopes: TokenScopes(scopes) })
    }
}

fn access_claim(scope: &Scope) -> AccessClaim {
    let (kind, name) = match &scope.resource {
        Resource::Repository(name) => ("repository", name.as_str()),
        Resource::Catalog => ("registry", "catalog"),
    };
    let catalog = matches!(scope.resource, Resource::Catalog);
    AccessClaim {
        kind: kind.to_owned(),
        name: name.to_owned(),
        actions: action_names(scope.granted, catalog),
        asked: action_names(scope.asked, catalog),
    }
}

/// The names of the actions. For the catalog the only action is `*`.
pub fn action_names(actions: Actions, catalog: bool) -> Vec<String> {
    if catalog {
        return if actions == Actions::ALL { vec!["*".to_owned()] } else { Vec::new() };
    }
    actions.iter().map(str::to_owned).collect()
}

fn scope(claim: &AccessClaim) -> Option<Scope> {
    let resource = match (claim.kind.as_str(), claim.name.as_str()) {
        ("repository", name) => Resource::Repository(RepositoryName::parse(name).ok()?),
        ("registry", "catalog") => Resource::Catalog,
        _ => return None,
    };
    Some(Scope { resource, asked: actions(&claim.asked)?, granted: actions(&claim.actions)? })
}

fn actions(names: &[String]) -> Option<Actions> {
    names.iter().try_fold(Actions::NONE, |actions, name| match name.as_str() {
        name @ ("pull" | "push" | "delete" | "*") => Some(actions.union(Actions::parse(name))),
        _ => None,
    })
}

#[cfg(test)]
mod tests;
