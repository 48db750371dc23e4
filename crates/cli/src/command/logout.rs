//! `portcullis logout`

use crate::client::login::{self, Logins};
use crate::client::{base_url, server_url};
use crate::context::Context;
use crate::error::Error;
use crate::exit::Exit;

/// Forget a stored login
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The server; by default --server or PORTCULLIS_SERVER, else the one used last
    #[arg(value_name = "URL", conflicts_with = "every")]
    url: Option<String>,
    /// Forget all of them
    #[arg(long = "all", id = "every")]
    every: bool,
}

/// Removes one login, or all of them.
pub fn run(context: &Context, args: Args) -> Result<Exit, Error> {
    let Some(path) = login::path() else { return Ok(Exit::Done) };
    let mut logins = Logins::load(&path)?;
    let server = match args.url.or_else(|| server_url(&context.global)) {
        Some(url) => Some(base_url(&url)?.to_string()),
        None => logins.logins.first().map(|login| login.server.clone()),
    };
    if args.every {
        logins.logins.clear();
        context.output.note("all logins forgotten");
    } else {
        match server.and_then(|server| logins.remove(&server)) {
            Some(login) => context.output.note(&format!("login of {} at {} forgotten", login.name, login.server)),
            None => context.output.note("there was no login to forget"),
        }
    }
    logins.store(&path)?;
    Ok(Exit::Done)
}
