//! Whom a command talks to, and with which credentials.

use std::fs;
use std::io::Read;
use std::os::unix::fs::FileTypeExt;
use std::path::PathBuf;

use super::login::{self, Login, Logins};
use super::{BaseUrl, Client, Credential, Target};
use crate::args::Global;
use crate::context::{data_dir, environment};
use crate::error::Error;

/// A token is one short line.
const TOKEN_LIMIT: u64 = 64 << 10;

/// Decides: `--server`, `PORTCULLIS_SERVER`, the socket of the data directory, the stored login.
pub fn choose(global: &Global) -> Result<Client, Error> {
    if let Some(url) = server_url(global) {
        let url = base_url(&url)?;
        let login = stored()?.find(&url.to_string()).cloned();
        return with_url(url, login, ca_file(global));
    }
    let socket = data_dir(global).join("admin.sock");
    match fs::metadata(&socket) {
        Ok(metadata) if metadata.file_type().is_socket() => {
            return Ok(Client { target: Target::Socket(socket), ca_file: None, credential: Credential::None });
        }
        Err(source) if source.kind() == std::io::ErrorKind::PermissionDenied && names_data_dir(global) => {
            return Err(Error::io("open", socket, source));
        }
        _ => {}
    }
    // A data directory that was named and has no server is no reason to talk to some other server.
    let first = if names_data_dir(global) { None } else { stored()?.logins.into_iter().next() };
    match first {
        Some(login) => with_url(base_url(&login.server)?, Some(login), ca_file(global)),
        None => Err(Error::NoServer { socket }),
    }
}

/// `--server`, else `PORTCULLIS_SERVER`.
pub fn server_url(global: &Global) -> Option<String> {
    global.server.clone().or_else(|| environment("PORTCULLIS_SERVER").map(|v| v.to_string_lossy().into_owned()))
}

/// `--ca-file`, else `PORTCULLIS_CA_FILE`.
pub fn ca_file(global: &Global) -> Option<PathBuf> {
    global.ca_file.clone().or_else(|| environment("PORTCULLIS_CA_FILE").map(PathBuf::from))
}

/// Parses a server's URL; a bad one is wrong usage.
pub fn base_url(text: &str) -> Result<BaseUrl, Error> {
    text.parse().map_err(|message| Error::Usage { message, help: None })
}

fn names_data_dir(global: &Global) -> bool {
    global.data_dir.is_some() || environment("PORTCULLIS_DATA_DIR").is_some()
}

fn stored() -> Result<Logins, Error> {
    login::path().map_or_else(|| Ok(Logins::default()), |path| Logins::load(&path))
}

fn with_url(url: BaseUrl, login: Option<Login>, ca_file: Option<PathBuf>) -> Result<Client, Error> {
    url.check_private()?;
    let ca_file = ca_file.or_else(|| login.as_ref().and_then(|l| l.ca_file.clone()));
    let credential = match (token_from_environment()?, login) {
        (Some(token), _) => Credential::Token(token),
        (None, Some(login)) => Credential::Login { login, token: tokio::sync::OnceCell::new() },
        (None, None) => Credential::None,
    };
    Ok(Client { target: Target::Url(url), ca_file, credential })
}

fn token_from_environment() -> Result<Option<String>, Error> {
    if let Some(token) = environment("PORTCULLIS_TOKEN") {
        return Ok(Some(token.to_string_lossy().trim().to_owned()));
    }
    let Some(path) = environment("PORTCULLIS_TOKEN_FILE").map(PathBuf::from) else { return Ok(None) };
    let mut text = String::new();
    fs::File::open(&path)
        .and_then(|file| file.take(TOKEN_LIMIT).read_to_string(&mut text))
        .map_err(|e| Error::io("read the token from", &path, e))?;
    Ok(Some(text.trim().to_owned()))
}
