//! `portcullis sandbox-probe`: not in the help; for tests, and for whoever wants to see the sandbox hold.

use serde_json::json;
use server::config::{Environment, load};
use server::data_dir::DataDir;
use server::sandbox::{confine, probe};

use super::config::flags;
use crate::context::Context;
use crate::error::Error;
use crate::exit::Exit;

/// Confine this process as `serve` does, and try what it can still do
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Prints what was tried; [`Exit::Found`] unless everything needed worked and nothing else did.
pub fn run(context: &Context, _: Args) -> Result<Exit, Error> {
    let config = load(&flags(&context.global), &Environment::current())?;
    DataDir::make(&config.data_dir)?;
    let confinement = confine(&config)?;
    let attempts = probe::probe(&config);
    let right = attempts.iter().all(probe::Attempt::is_right);
    if context.output.json() {
        context.output.value(&json!({
            "user": confinement.identity.to_string(),
            "files": confinement.files.to_string(),
            "system_calls": confinement.system_calls.to_string(),
            "attempts": attempts,
        }))?;
    } else {
        for attempt in &attempts {
            let sign = if attempt.is_right() { "ok   " } else { "WRONG" };
            let end = attempt.error.as_deref().unwrap_or("worked");
            context.output.text(&format!("{sign} {}: {end}\n", attempt.what))?;
        }
    }
    Ok(if right { Exit::Done } else { Exit::Found })
}
