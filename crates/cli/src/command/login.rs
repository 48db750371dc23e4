//! `portcullis login`

use std::io::{self, IsTerminal};

use crate::client::login::{self, Logins};
use crate::client::{Client, base_url, ca_file, server_url};
use crate::context::{Context, ask, ask_password, password_from_stdin};
use crate::error::Error;
use crate::exit::Exit;

const AFTER_HELP: &str = "\
The URL is that of the admin API (admin.listen, by default port 5001), not the registry's. What is \
stored is a token that ends with the password, in $XDG_CONFIG_HOME/portcullis/login.json (0600). For \
images use your client's own login: `docker login HOST:PORT`.

Examples:
  portcullis login https://registry.example.com:5001 --username alice
  portcullis login https://registry.example.com:5001 --username ops --password-stdin < password-file";

/// Store a login for client commands
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Args {
    /// The admin API of the server; by default --server or PORTCULLIS_SERVER
    #[arg(value_name = "URL")]
    url: Option<String>,
    /// The login name; asked for on a terminal
    #[arg(long, short, value_name = "NAME")]
    username: Option<String>,
    /// Read the password from standard input
    #[arg(long, requires = "username")]
    password_stdin: bool,
}

/// Logs in and stores the login.
pub async fn run(context: &Context, args: Args) -> Result<Exit, Error> {
    let text = args.url.or_else(|| server_url(&context.global)).ok_or_else(|| {
        Error::usage("there is no server to log in to", "portcullis login https://registry.example.com:5001")
    })?;
    let url = base_url(&text)?;
    url.check_private()?;
    let path = login::path().ok_or_else(|| {
        Error::usage("there is no place to store a login", "set HOME or XDG_CONFIG_HOME to a directory")
    })?;
    let mut logins = Logins::load(&path)?;
    let (name, password) = credentials(args.username, args.password_stdin)?;
    let ca_file = ca_file(&context.global)
        .map(|file| std::path::absolute(&file).map_err(|e| Error::io("find", file, e)))
        .transpose()?;
    let login = Client::log_in(url, ca_file, &name, &password).await?;
    context.output.note(&format!("logged in to {} as {}", login.server, login.name));
    logins.put(login);
    logins.store(&path)?;
    context.output.note(&format!("stored in {}", path.display()));
    Ok(Exit::Done)
}

fn credentials(username: Option<String>, password_stdin: bool) -> Result<(String, String), Error> {
    if let (Some(name), true) = (&username, password_stdin) {
        return Ok((name.clone(), password_from_stdin()?));
    }
    if !io::stdin().is_terminal() {
        return Err(Error::usage(
            "there is no terminal to ask for name and password on",
            "give --username NAME --password-stdin, and the password on standard input",
        ));
    }
    let name = match username {
        Some(name) => name,
        None => ask("username: ")?.trim().to_owned(),
    };
    let password = ask_password("password: ")?;
    Ok((name, password))
}
