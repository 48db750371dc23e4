//! The distribution API: `/v2`. The only place where one of its requests is dispatched.

mod blob;
pub(crate) mod body;
mod catalog;
pub mod error;
mod manifest;
mod pages;
pub mod query;
mod referrers;
pub mod respond;
mod route;
mod tags;
mod upload;

use std::sync::Arc;

use axum::body::Body;
use axum::response::Response;
use futures_util::future::BoxFuture;
use http::request::Parts;
use http::{HeaderName, HeaderValue, StatusCode};
use oci::{ErrorCode, RepositoryName};
use policy::{Access, Caller, Credential, Identity, Need, Refusal, Rules};
use registry::Right;
use serde_json::json;

pub use route::{Route, RouteError, is_confusing};

use crate::auth::Challenge;
use crate::state::AppState;
use body::RequestBody;
use error::{Asked, Failure, answer};
use query::Query;

/// `Docker-Distribution-API-Version`, by which old clients decide that they have found a registry (Q81).
pub const API_VERSION: HeaderName = HeaderName::from_static("docker-distribution-api-version");
/// Its value.
pub const API_VERSION_VALUE: HeaderValue = HeaderValue::from_static("registry/2.0");

/// The longest target of a request: 64 tags in one push fit.
const MAX_TARGET: usize = 16 * 1024;

/// One request, identified and authorized: what every handler gets.
struct Call<'a> {
    state: &'a AppState,
    parts: &'a Parts,
    query: Query,
    caller: Arc<Caller>,
    rules: Arc<Rules>,
}

/// Answers a request whose path is `/v2` or below, and names the endpoint for the metrics.
pub async fn serve(state: &AppState, parts: &Parts, body: Body) -> (&'static str, Response) {
    let request_id = crate::main_router::request_id(parts);
    let route = Route::parse(&parts.method, parts.uri.path());
    let label = route.as_ref().map_or("invalid", Route::label);
    let mut response = match state.auth.hosts().of(parts) {
        Err(status) => {
            let message = "the Host header must hold exactly one name, and one of those in server.public_urls";
            error::with_status(status, ErrorCode::Unsupported, message)
        }
        Ok(url) => {
            let repository = route.as_ref().ok().and_then(Route::repository).cloned();
            let asked = Asked {
                challenge: Challenge::new(state.auth.scheme(), url.clone()),
                request_id,
                repository: repository.as_ref().map(RepositoryName::as_str),
                upload: matches!(route, Ok(Route::UploadAppend(..) | Route::UploadFinish(..))),
                scope: scope(&route, state),
            };
            let body = RequestBody::new(parts, body);
            // Boxed: the futures of all handlers together are large, and this one lives as long as an upload.
            let result = Box::pin(handle(state, parts, route, body)).await;
            result.unwrap_or_else(|failure| answer(failure, &asked))
        }
    };
    response.headers_mut().insert(API_VERSION, API_VERSION_VALUE);
    (label, response)
}

/// From the target to the operation. The order is part of the contract: who shows no credentials gets the challenge
/// whatever was asked, and nothing of a body is read before the right to send it is clear.
async fn handle(
    state: &AppState,
    parts: &Parts,
    route: Result<Route, RouteError>,
    body: RequestBody,
) -> Result<Response, Failure> {
    let target = parts.uri.path_and_query().map_or(0, |target| target.as_str().len());
    if target > MAX_TARGET {
        return Err(Failure::TooLong("the request's target is too long"));
    }
    let (rules, caller) = identify(state, parts, &route).await?;
    if caller.credential == Credential::None {
        return Err(Failure::Refused(Refusal::Challenge { scope: scope(&route, state), error: None }));
    }
    let route = route?;
    let query = Query::parse(parts.uri.query())?;
    if let Some(ns) = query.ns.as_deref().filter(|ns| !ns.is_empty())
        && !state.auth.hosts().contains(ns)
    {
        // Asked as a mirror of another registry, which we are not: our own repository of that name must not stand in.
        return Err(Failure::Refused(Refusal::Hidden));
    }
    let call = Call { state, parts, query, caller, rules };
    let result = dispatch(&call, &route, body).await;
    if let Err(failure) = &result {
        call.record(&route, failure);
    }
    result
}

/// Who makes the request, and the rules to decide by, which are not newer than those that said who it is.
///
/// Where the query of the operation compares the rules' epoch with the database's, those at hand do while they allow it: one
/// query a pull. Every other decision, and every refusal, is by rules that are the database's now.
async fn identify(
    state: &AppState,
    parts: &Parts,
    route: &Result<Route, RouteError>,
) -> Result<(Arc<Rules>, Arc<Caller>), Failure> {
    let at_hand = state.rules.load();
    let found = match state.auth.identify(parts).await {
        // A challenge is no decision.
        Ok(caller) if caller.credential == Credential::None => return Ok((at_hand, caller)),
        Ok(caller) if route.as_ref().is_ok_and(|route| allowed(state, &at_hand, &caller, route)) => {
            return Ok((at_hand, caller));
        }
        Err(error) if !error.depends_on_rules() => return Err(error.into()),
        found => found,
    };
    let rules = state.rules.current().await.map_err(registry::Error::from)?;
    let caller = if rules.epoch() == at_hand.epoch() { found? } else { state.auth.identify(parts).await? };
    Ok((rules, caller))
}

/// Whether these rules allow an operation that compares their epoch itself.
fn allowed(state: &AppState, rules: &Arc<Rules>, caller: &Arc<Caller>, route: &Route) -> bool {
    let compares = matches!(
        route,
        Route::ManifestGet(..)
            | Route::ManifestHead(..)
            | Route::ManifestPut(..)
            | Route::ManifestDelete(..)
            | Route::BlobGet(..)
            | Route::BlobHead(..)
            | Route::BlobDelete(..)
    );
    let (Some(name), Some(need)) = (route.repository(), route.need()) else { return false };
    compares && policy::authorize(rules, caller, name, need, (state.clock)()).is_ok()
}

/// The scope that a request needs, as the challenge to nobody names it.
fn scope(route: &Result<Route, RouteError>, state: &AppState) -> Option<String> {
    let (rules, now) = (state.rules.load(), (state.clock)());
    let nobody = Arc::new(Caller {
        identity: Identity::Anonymous,
        credential: Credential::None,
        credential_id: String::new(),
        source: String::new(),
        request_id: String::new(),
    });
    let route = route.as_ref().ok()?;
    let refusal = match (route, route.repository(), route.need()) {
        (Route::Catalog, ..) => policy::authorize_catalog(&rules, &nobody, now).err(),
        (_, Some(name), Some(need)) => policy::authorize(&rules, &nobody, name, need, now).err(),
        _ => None,
    };
    match refusal? {
        Refusal::Challenge { scope, .. } => scope,
        Refusal::Denied { .. } | Refusal::Hidden => None,
    }
}

async fn dispatch(call: &Call<'_>, route: &Route, body: RequestBody) -> Result<Response, Failure> {
    let (Some(name), Some(need)) = (route.repository(), route.need()) else {
        return match route {
            Route::Catalog => {
                let access = policy::authorize_catalog(&call.rules, &call.caller, call.now())?;
                catalog::list(call, &access).await
            }
            Route::Discover => Ok(discover()),
            _ => Ok(respond::json(StatusCode::OK, &json!({}))),
        };
    };
    let access = match policy::authorize(&call.rules, &call.caller, name, need, call.now()) {
        // A 404 here would make clients keep referrers in tags for good (Q74); an empty list tells as little.
        Err(Refusal::Hidden) if matches!(route, Route::Referrers(..)) => return Ok(referrers::empty(call)),
        other => other?,
    };
    // After the rights, so that the mode tells nobody more than they were told before.
    if call.state.config.is_read_only() && route.is_change() {
        return Err(Failure::ReadOnlyMode(route.reading_methods()));
    }
    if let Route::ManifestPut(..) | Route::UploadStart(_) | Route::UploadAppend(..) | Route::UploadFinish(..) = route {
        // What is left of the disk is for those who make room.
        call.state.registry.blobs().admit().await.map_err(registry::Error::from)?;
    }
    match route {
        Route::Base | Route::Catalog | Route::Discover => Ok(respond::json(StatusCode::OK, &json!({}))),
        Route::Tags(_) => tags::list(call, &access).await,
        Route::Referrers(_, digest) => referrers::list(call, &access, digest).await,
        Route::ManifestGet(_, reference) => manifest::get(call, &call.still(&access, need), reference).await,
        Route::ManifestHead(_, reference) => manifest::head(call, &call.still(&access, need), reference).await,
        Route::ManifestPut(_, reference) => manifest::put(call, &call.still(&access, need), reference, body).await,
        Route::ManifestDelete(_, reference) => manifest::delete(call, &call.still(&access, need), reference).await,
        Route::BlobGet(_, digest) => blob::get(call, &call.still(&access, need), digest).await,
        Route::BlobHead(_, digest) => blob::head(call, &call.still(&access, need), digest).await,
        Route::BlobDelete(_, digest) => blob::delete(call, &call.still(&access, need), digest).await,
        Route::UploadStart(_) => upload::start(call, &access, body).await,
        Route::UploadAppend(_, id) => upload::append(call, &access, id, body).await,
        Route::UploadFinish(_, id) => upload::finish(call, &access, id, body).await,
        Route::UploadStatus(_, id) => upload::status(call, &access, id).await,
        Route::UploadCancel(_, id) => upload::cancel(call, &access, id).await,
    }
}

fn discover() -> Response {
    let extension = |name: &str, description: &str, endpoints: &[&str]| {
        json!({
            "name": name,
            "url": "https://github.com/opencontainers/distribution-spec/tree/main/extensions",
            "description": description,
            "endpoints": endpoints,
        })
    };
    respond::json(
        StatusCode::OK,
        &json!({ "extensions": [
            extension("_oci", "discovery of extensions", &["_oci/ext/discover"]),
            extension("_catalog", "the repositories that you may list", &["_catalog"]),
        ] }),
    )
}

/// A right that is decided on anew each time, by the rules of that moment: the end of a request may come hours after its
/// beginning. A change of the caller's credentials since then counts as well.
struct Still<'a> {
    call: &'a Call<'a>,
    name: &'a RepositoryName,
    need: Need<'a>,
}

impl Right for Still<'_> {
    fn decide(&self) -> Result<Access, Refusal> {
        let (call, rules) = (self.call, self.call.state.rules.load());
        if call.credentials(&rules) != call.credentials(&call.rules) {
            let error = matches!(call.caller.credential, Credential::Token(_)).then_some("invalid_token");
            return Err(Refusal::Challenge { scope: None, error });
        }
        policy::authorize(&rules, &call.caller, self.name, self.need, call.now())
    }

    fn refresh(&self) -> BoxFuture<'_, Result<(), registry::Error>> {
        Box::pin(async { Ok(self.call.state.rules.refresh().await?) })
    }
}

impl Call<'_> {
    fn now(&self) -> oci::Timestamp {
        (self.state.clock)()
    }

    /// The right that was found at the beginning of this request, to be asked for again when its body is there.
    fn still<'b>(&'b self, access: &'b Access, need: Need<'b>) -> Still<'b> {
        Still { call: self, name: access.repository(), need }
    }

    /// The epoch of the caller's credentials.
    fn credentials(&self, rules: &Rules) -> Option<i64> {
        match self.caller.identity {
            Identity::Subject(id) => rules.subject(id).map(|subject| subject.epoch),
            Identity::Anonymous => None,
        }
    }

    /// Counts what is damaged, and notes that a known subject was refused something.
    fn record(&self, route: &Route, failure: &Failure) {
        if let Failure::Registry(error) = failure {
            let request_id = crate::main_router::request_id(self.parts);
            self.state.trouble.note(error, request_id, &self.state.metrics);
        }
        let verb = match failure {
            Failure::Registry(registry::Error::Damaged { .. }) => {
                self.state.metrics.damaged();
                None
            }
            Failure::Refused(Refusal::Denied { .. } | Refusal::Hidden) => route.verb(),
            Failure::TagDenied { verb, .. } => Some(*verb),
            _ => None,
        };
        let Identity::Subject(id) = self.caller.identity else { return };
        if let (Some(verb), Some(subject)) = (verb, self.rules.subject(id)) {
            self.state.auth.journal().denied(&self.caller, subject, route.repository(), verb.as_str());
        }
    }
}
