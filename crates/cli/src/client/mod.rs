//! The client of the admin API that every command but `serve`, `init`, `config` and `restore` is.

mod choose;
pub mod job;
pub mod login;
mod resolve;
mod session;
mod target;
mod transport;

use std::path::PathBuf;
use std::time::Duration;

use api::{Route, path};
use bytes::Bytes;
use http::{HeaderValue, Method, Request, StatusCode, header};
use http_body_util::Full;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

pub use self::choose::{base_url, ca_file, choose, server_url};
pub use self::job::copied;
pub use self::target::{BaseUrl, Target};
pub use self::transport::{Answer, send};
use crate::args::Paging;
use crate::error::{Error, Refusal};
use crate::output::printable;

/// The server answers out of its database; nothing that takes longer is a single request.
const TIMEOUT: Duration = Duration::from_secs(60);

/// How requests are authorized.
enum Credential {
    /// By opening the socket, or not at all.
    None,
    /// A token that the environment gave.
    Token(String),
    /// A stored login: its refresh token is exchanged at the first request.
    Login { login: login::Login, token: tokio::sync::OnceCell<String> },
}

/// Talks to one server.
pub struct Client {
    target: Target,
    ca_file: Option<PathBuf>,
    credential: Credential,
}

impl Client {
    /// Whom this talks to.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// Asks for something without a body. `parameters` fill the braces of the route, in order.
    pub async fn call<T: DeserializeOwned>(
        &self,
        route: Route,
        parameters: &[&str],
        query: &[(&str, Option<String>)],
    ) -> Result<T, Error> {
        let path = path::with_query(path::of(route, parameters), query);
        self.decode(&self.exchange(method(route), &path, None, self.bearer().await?.as_ref()).await?)
    }

    /// Sends a body.
    pub async fn send<T: DeserializeOwned>(
        &self,
        route: Route,
        parameters: &[&str],
        body: &impl Serialize,
    ) -> Result<T, Error> {
        let body = encode(body)?;
        let bearer = self.bearer().await?;
        self.decode(&self.exchange(method(route), &path::of(route, parameters), Some(body), bearer.as_ref()).await?)
    }

    /// A list, or with `--all` every page of it. `next` goes on from its end.
    pub async fn list<T: DeserializeOwned>(
        &self,
        route: Route,
        parameters: &[&str],
        filter: &[(&str, Option<String>)],
        paging: &Paging,
    ) -> Result<api::Page<T>, Error> {
        let limit = if paging.all { api::Page::<T>::MAX } else { paging.limit };
        let mut items = Vec::new();
        let mut cursor = paging.cursor.clone();
        loop {
            let mut query = vec![("limit", Some(limit.to_string())), ("cursor", cursor.take())];
            query.extend_from_slice(filter);
            let page: api::Page<T> = self.call(route, parameters, &query).await?;
            items.extend(page.items);
            cursor = page.next;
            if !paging.all || cursor.is_none() {
                return Ok(api::Page { items, next: cursor });
            }
        }
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
        authorization: Option<&HeaderValue>,
    ) -> Result<Bytes, Error> {
        let request = request(&self.target, method, path, body, authorization)?;
        let answer = send(&self.target, self.ca_file.as_deref(), request, Some(TIMEOUT)).await?;
        if answer.status.is_success() { Ok(answer.body) } else { Err(self.refusal(&answer)) }
    }

    async fn bearer(&self) -> Result<Option<HeaderValue>, Error> {
        let token = match &self.credential {
            Credential::None => return Ok(None),
            Credential::Token(token) => token,
            Credential::Login { login, token } => token.get_or_try_init(|| self.refresh(login)).await?,
        };
        let mut value = HeaderValue::try_from(format!("Bearer {token}")).map_err(|_| {
            Error::usage("the token has characters that no token has", "see PORTCULLIS_TOKEN and PORTCULLIS_TOKEN_FILE")
        })?;
        value.set_sensitive(true);
        Ok(Some(value))
    }

    fn decode<T: DeserializeOwned>(&self, bytes: &[u8]) -> Result<T, Error> {
        // An answer without a body is read as `null`, so that `()` can be asked for.
        let bytes = if bytes.is_empty() { b"null" } else { bytes };
        serde_json::from_slice(bytes).map_err(|e| Error::Foreign {
            target: self.target.to_string(),
            what: format!("its body is not as expected ({e})"),
        })
    }

    /// The error in an answer that is none of 2xx.
    fn refusal(&self, answer: &Answer) -> Error {
        let target = self.target.to_string();
        if answer.status == StatusCode::UNAUTHORIZED {
            return match &self.credential {
                Credential::None => Error::NotLoggedIn { target },
                Credential::Token(_) => Error::TokenRefused { target },
                Credential::Login { login, .. } => Error::LoginRefused { target, name: login.name.clone() },
            };
        }
        let body: Value = serde_json::from_slice(&answer.body).unwrap_or(Value::Null);
        let error = body.get("error").unwrap_or(&Value::Null);
        let text = |key: &str| error.get(key).and_then(Value::as_str).filter(|t| !t.is_empty()).map(printable);
        match (text("code"), text("message")) {
            (Some(code), Some(message)) => Error::Answer(Box::new(Refusal {
                status: answer.status.as_u16(),
                code,
                message,
                help: text("help"),
                details: error.get("details").cloned().unwrap_or(Value::Null),
            })),
            _ => Error::Foreign { target, what: format!("it answered {}", answer.status) },
        }
    }
}

/// A request to a target, with the headers that all requests have.
pub fn request(
    target: &Target,
    method: Method,
    path: &str,
    body: Option<Vec<u8>>,
    authorization: Option<&HeaderValue>,
) -> Result<Request<Full<Bytes>>, Error> {
    let host = match target {
        Target::Socket(_) => "localhost".to_owned(),
        Target::Url(url) => url.authority(),
    };
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, host)
        .header(header::ACCEPT, "application/json")
        .header(header::USER_AGENT, concat!("portcullis/", env!("CARGO_PKG_VERSION")));
    if let Some(value) = authorization {
        request = request.header(header::AUTHORIZATION, value);
    }
    if body.is_some() {
        request = request.header(header::CONTENT_TYPE, "application/json");
    }
    request
        .body(Full::new(body.unwrap_or_default().into()))
        .map_err(|e| Error::Unreachable { target: target.to_string(), source: e.into() })
}

fn encode(body: &impl Serialize) -> Result<Vec<u8>, Error> {
    serde_json::to_vec(body)
        .map_err(|e| Error::Stream { action: "render the request", source: std::io::Error::other(e) })
}

fn method(route: Route) -> Method {
    match route.method() {
        api::Method::Get => Method::GET,
        api::Method::Post => Method::POST,
        api::Method::Patch => Method::PATCH,
        api::Method::Delete => Method::DELETE,
    }
}
