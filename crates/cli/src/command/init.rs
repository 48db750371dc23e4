//! `portcullis init`

use serde_json::json;
use server::config::Environment;

use super::config::flags;
use crate::context::Context;
use crate::error::Error;
use crate::exit::Exit;

const AFTER_HELP: &str = "\
Writes `portcullis.toml` beside the data directory (or where --config says) and the certificates beside that, then \
prints what each client needs in order to trust them. Nothing that is there is overwritten.

Examples:
  portcullis init --hostname registry.example.com
  portcullis init --hostname registry.example.com --hostname 10.0.0.5 --config /etc/portcullis/portcullis.toml";

/// Write a commented configuration, a certificate authority and a certificate
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Args {
    /// A name or address by which clients reach the registry; may be repeated; by default this machine's name
    #[arg(long, value_name = "HOST")]
    hostname: Vec<String>,
}

/// Writes the files.
pub fn run(context: &Context, args: Args) -> Result<Exit, Error> {
    context.refuse_server("init")?;
    let made = server::offline::init(&flags(&context.global), &Environment::current(), &args.hostname)?;
    if context.output.json() {
        context.output.value(&json!({
            "config": made.config,
            "authority": made.authority,
            "authority_key": made.authority_key,
            "certificate": made.certificate,
            "key": made.key,
            "hostnames": made.hostnames,
            "public_urls": made.public_urls,
            "expires_at": made.expires_at.to_string(),
        }))?;
        return Ok(Exit::Done);
    }
    for path in [&made.config, &made.authority, &made.authority_key, &made.certificate, &made.key] {
        context.output.note(&format!("written: {}", path.display()));
    }
    context.output.text(&format!("\n{}", made.instructions))?;
    context.output.note("next: portcullis serve");
    Ok(Exit::Done)
}
