//! Password → refresh token → token, by the admin API's own sessions.

use std::path::PathBuf;

use api::{RefreshSession, Route, Session, path};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;

use super::login::{self, Login, Logins};
use super::{BaseUrl, Client, Credential, Target, encode, method};
use crate::error::Error;

impl Client {
    /// Sends name and password once. Nothing is stored here.
    pub async fn log_in(url: BaseUrl, ca_file: Option<PathBuf>, name: &str, password: &str) -> Result<Login, Error> {
        url.check_private()?;
        let server = url.to_string();
        let client = Self { target: Target::Url(url), ca_file, credential: Credential::None };
        let basic = format!("Basic {}", STANDARD.encode(format!("{name}:{password}")));
        let mut basic = HeaderValue::try_from(basic)
            .map_err(|_| Error::Usage { message: "this password cannot be sent".to_owned(), help: None })?;
        basic.set_sensitive(true);
        let route = Route::SessionCreate;
        let answer = client.exchange(method(route), &path::of(route, &[]), None, Some(&basic)).await;
        let body = answer.map_err(|error| match error {
            Error::NotLoggedIn { target } => Error::PasswordRefused { target, name: name.to_owned() },
            other => other,
        })?;
        let session: Session = client.decode(&body)?;
        Ok(Login { server, name: name.to_owned(), refresh_token: session.refresh_token, ca_file: client.ca_file })
    }

    /// Exchanges the refresh token for a token; a new refresh token takes the place of the old one.
    pub(super) async fn refresh(&self, login: &Login) -> Result<String, Error> {
        let body = encode(&RefreshSession { refresh_token: login.refresh_token.clone() })?;
        let route = Route::SessionRefresh;
        let answer = self.exchange(method(route), &path::of(route, &[]), Some(body), None).await?;
        let session: Session = self.decode(&answer)?;
        if session.refresh_token != login.refresh_token
            && let Some(path) = login::path()
        {
            let mut logins = Logins::load(&path)?;
            logins.replace(Login { refresh_token: session.refresh_token, ..login.clone() });
            logins.store(&path)?;
        }
        Ok(session.token)
    }
}
