//! The token service: `GET` and `POST /token` (`docs/content/spec/auth/{token,oauth}.md` of `distribution`).

use axum::body::Body;
use axum::response::Response;
use futures_util::StreamExt;
use http::header::{ALLOW, AUTHORIZATION, CACHE_CONTROL, CONTENT_LENGTH};
use http::request::Parts;
use http::{HeaderValue, Method, StatusCode};
use oci::{Error, ErrorCode};
use policy::{Actions, Credential, Identity, Resource, Rules, Subject, SubjectId};
use serde_json::json;

use super::origin::Origin;
use super::token::{Use, action_names};
use super::{Auth, AuthError, Challenge, Issued, Scheme};
use crate::distribution::body::io_error;
use crate::distribution::error::{Asked, Failure, answer, with_status};
use crate::distribution::query::pairs;
use crate::distribution::respond;

/// The longest form that is read.
const MAX_FORM: usize = 64 * 1024;

/// Answers a request for a token. The challenge of its 401 asks for name and secret.
pub async fn serve(auth: &Auth, parts: &Parts, body: Body) -> Response {
    let origin = auth.origin(parts);
    let url = match auth.hosts().of(parts) {
        Ok(url) => url.clone(),
        Err(status) => {
            return with_status(status, ErrorCode::Unsupported, "the Host header is not a name of this registry");
        }
    };
    let result = match parts.method {
        Method::GET => get(auth, parts, &origin).await,
        Method::POST => post(auth, parts, body, &origin).await,
        _ => {
            let mut response =
                with_status(StatusCode::METHOD_NOT_ALLOWED, ErrorCode::Unsupported, "this endpoint takes GET, POST");
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, POST"));
            return response;
        }
    };
    let mut response = result.unwrap_or_else(|failure| {
        let asked = Asked {
            challenge: Challenge::new(Scheme::Basic, url),
            request_id: &origin.request_id,
            repository: None,
            scope: None,
            upload: false,
        };
        answer(failure, &asked)
    });
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

async fn get(auth: &Auth, parts: &Parts, origin: &Origin) -> Result<Response, Failure> {
    let rules = current(auth).await?;
    let (caller, until) = auth.identify_until(parts, Use::Access).await?;
    let id = match (&caller.credential, caller.identity) {
        (Credential::Token(_), _) => return Err(AuthError::RejectedBasic.into()),
        (_, Identity::Subject(id)) => Some(id),
        (_, Identity::Anonymous) => None,
    };
    let (mut scopes, mut offline) = (Vec::new(), false);
    for (key, value) in parts.uri.query().map(pairs).into_iter().flatten() {
        match key.as_str() {
            "scope" => scopes.push(value),
            "offline_token" => offline = value == "true",
            _ => {}
        }
    }
    let (issued, subject) = issue(auth, &rules, id, &scopes, origin)?;
    let mut body = json!({
        "token": issued.token,
        "access_token": issued.token,
        "expires_in": issued.lifetime.as_secs(),
        "issued_at": issued.issued_at.to_string(),
    });
    if let Some(subject) = subject.filter(|_| offline) {
        body["refresh_token"] = auth.issue_refresh(&subject, until).into();
    }
    Ok(respond::json(StatusCode::OK, &body))
}

/// Fields that say who asks: two of one could be read differently by whoever stands in front of us.
const ONCE: [&str; 4] = ["grant_type", "username", "password", "refresh_token"];

/// The fields of a form that count.
#[derive(Default)]
struct Form {
    grant_type: String,
    username: String,
    password: String,
    refresh_token: String,
    offline: bool,
    scopes: Vec<String>,
}

async fn post(auth: &Auth, parts: &Parts, body: Body, origin: &Origin) -> Result<Response, Failure> {
    if parts.headers.contains_key(AUTHORIZATION) {
        return Err(AuthError::Ambiguous("a form with credentials takes no Authorization header").into());
    }
    let form = read_form(parts, body).await?;
    let rules = current(auth).await?;
    // A refresh token is given for a password only: one that was shown goes on living as it is.
    let (id, until, offline) = match form.grant_type.as_str() {
        "password" => {
            if form.username.is_empty() {
                return Err(AuthError::RejectedBasic.into());
            }
            let known = auth.log_in(&form.username, &form.password, origin).await?;
            (known.id, known.expires_at, form.offline)
        }
        "refresh_token" => {
            let token = auth.verify(&form.refresh_token, Use::Refresh);
            (token.and_then(|token| token.holder).ok_or(AuthError::RejectedBasic)?.id, None, false)
        }
        _ => {
            let message = "grant_type must be password or refresh_token";
            return Err(Failure::Malformed(Error::new(ErrorCode::Unsupported, message)));
        }
    };
    auth.note(parts, Identity::Subject(id));
    let (issued, subject) = issue(auth, &rules, Some(id), &form.scopes, origin)?;
    let mut body = json!({
        "access_token": issued.token,
        "token": issued.token,
        "scope": granted(&issued),
        "expires_in": issued.lifetime.as_secs(),
        "issued_at": issued.issued_at.to_string(),
    });
    if let Some(subject) = subject.filter(|_| offline) {
        body["refresh_token"] = auth.issue_refresh(&subject, until).into();
    }
    Ok(respond::json(StatusCode::OK, &body))
}

async fn read_form(parts: &Parts, body: Body) -> Result<Form, Failure> {
    let too_large = || Failure::TooLarge(MAX_FORM as u64);
    let announced = parts.headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    if announced.is_some_and(|length| length > MAX_FORM) {
        return Err(too_large());
    }
    let mut text = Vec::new();
    let mut stream = body.into_data_stream();
    while let Some(piece) = stream.next().await {
        let piece = piece.map_err(|error| Failure::Cut(io_error(error)))?;
        if text.len() + piece.len() > MAX_FORM {
            return Err(too_large());
        }
        text.extend_from_slice(&piece);
    }
    let mut form = Form::default();
    let mut seen = Vec::new();
    for (key, value) in pairs(&String::from_utf8_lossy(&text)) {
        // RFC 6749, 3.2: parameters must not be included more than once.
        if let Some(once) = ONCE.into_iter().find(|once| *once == key) {
            if seen.contains(&once) {
                let message = format!("{once} was given more than once");
                return Err(Failure::Malformed(Error::new(ErrorCode::Unsupported, message)));
            }
            seen.push(once);
        }
        match key.as_str() {
            "grant_type" => form.grant_type = value,
            "username" => form.username = value,
            "password" => form.password = value,
            "refresh_token" => form.refresh_token = value,
            "access_type" => form.offline = value == "offline",
            "scope" => form.scopes.push(value),
            _ => {}
        }
    }
    Ok(form)
}

/// The rules that a token is issued by.
async fn current(auth: &Auth) -> Result<std::sync::Arc<Rules>, Failure> {
    Ok(auth.0.setup.rules.current().await.map_err(registry::Error::from)?)
}

/// An access token for whoever was identified, and who that is.
fn issue(
    auth: &Auth,
    rules: &Rules,
    id: Option<SubjectId>,
    scopes: &[String],
    origin: &Origin,
) -> Result<(Issued, Option<Subject>), Failure> {
    let wanted: Vec<(Resource, Actions)> =
        oci::parse_scopes(scopes.iter().map(String::as_str)).map_err(Failure::Malformed)?;
    let subject = match id {
        // Removed in between: as if the login had come too late.
        Some(id) => Some(rules.subject(id).ok_or(AuthError::RejectedBasic)?),
        None => None,
    };
    let issued = auth.issue(rules, subject, &wanted).ok_or_else(|| {
        Failure::Malformed(Error::new(ErrorCode::Unsupported, "too many scopes in one request: ask for several tokens"))
    })?;
    if let Some(subject) = subject {
        auth.0.journal.issued(subject, &granted(&issued), &origin.address, &origin.request_id);
    }
    Ok((issued, subject.cloned()))
}

/// What a token covers, as a list of scopes; those of which nothing was granted are left out.
fn granted(issued: &Issued) -> String {
    let scopes = issued.scopes.0.iter().filter(|scope| !scope.granted.is_empty()).map(|scope| {
        let catalog = matches!(scope.resource, Resource::Catalog);
        format!("{}:{}", scope.resource, action_names(scope.granted, catalog).join(","))
    });
    scopes.collect::<Vec<_>>().join(" ")
}
