//! `portcullis health`

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use api::{Lifetime, Readiness};
use http::{Method, StatusCode};

use crate::client::{Answer, Target, base_url, ca_file, request, send, server_url};
use crate::context::Context;
use crate::error::Error;
use crate::exit::Exit;
use crate::span::parse_lifetime;

const AFTER_HELP: &str = "\
Exit status 0: ready. 1: not, or nobody answers. Without --server it asks the server of the data \
directory, so it works as the HEALTHCHECK of an image without a shell.

Examples:
  HEALTHCHECK CMD [\"portcullis\", \"health\", \"--data-dir\", \"/data\"]";

/// Addresses are a few lines.
const ADDRESSES_LIMIT: u64 = 64 << 10;

/// Tell whether a server is ready
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Args {
    /// How long to wait for an answer
    #[arg(long, value_name = "D", default_value = "5s", value_parser = parse_lifetime)]
    timeout: Lifetime,
}

/// Asks; everything but `ready` ends with 1.
pub async fn run(context: &Context, args: Args) -> Result<Exit, Error> {
    let readiness = match server_url(&context.global) {
        Some(url) => {
            let target = Target::Url(base_url(&url)?);
            ask(&target, ca_file(&context.global).as_deref(), args.timeout.0).await?
        }
        None => ask_local(&context.data_dir(), args.timeout.0).await?,
    };
    if context.output.json() {
        context.output.value(&readiness)?;
    } else if !context.output.quiet() {
        let word = if readiness.ready { "ready" } else { "not ready" };
        context.output.text(&format!("{word}\n"))?;
        for (check, state) in readiness.checks.iter().filter(|(_, state)| *state != "ok") {
            context.output.note(&format!("{check}: {state}"));
        }
    }
    Ok(if readiness.ready { Exit::Done } else { Exit::Failed })
}

/// By the socket of the data directory, else by the addresses that the server wrote there.
async fn ask_local(data_dir: &Path, timeout: Duration) -> Result<Readiness, Error> {
    let socket = data_dir.join("admin.sock");
    let by_socket = ask(&Target::Socket(socket.clone()), None, timeout).await;
    if by_socket.is_ok() {
        return by_socket;
    }
    let file = data_dir.join("addresses.json");
    let addresses = match fs::metadata(&file) {
        Ok(metadata) if metadata.len() <= ADDRESSES_LIMIT => fs::read(&file).unwrap_or_default(),
        _ => return Err(Error::NoServer { socket }),
    };
    let addresses: BTreeMap<String, Option<String>> = serde_json::from_slice(&addresses).unwrap_or_default();
    for listener in ["ops", "admin", "main"] {
        let Some(Some(address)) = addresses.get(listener) else { continue };
        let Ok(url) = base_url(&format!("http://{address}")) else { continue };
        if let Ok(readiness) = ask(&Target::Url(url), None, timeout).await {
            return Ok(readiness);
        }
    }
    by_socket
}

/// `/readyz`, or `/healthz` where that is all there is: the main listener.
async fn ask(target: &Target, ca_file: Option<&Path>, timeout: Duration) -> Result<Readiness, Error> {
    let get = async |path: &str| -> Result<Answer, Error> {
        send(target, ca_file, request(target, Method::GET, path, None, None)?, Some(timeout)).await
    };
    let answer = get("/readyz").await?;
    if let Ok(readiness) = serde_json::from_slice::<Readiness>(&answer.body) {
        return Ok(readiness);
    }
    let answer = get("/healthz").await?;
    if answer.status == StatusCode::OK && answer.body.trim_ascii() == b"ok" {
        return Ok(Readiness { ready: true, checks: BTreeMap::new(), mode: None });
    }
    Err(Error::Foreign { target: target.to_string(), what: format!("it answered {} to /healthz", answer.status) })
}
