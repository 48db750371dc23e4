//! `portcullis version`

use serde_json::json;

use crate::context::Context;
use crate::error::Error;
use crate::exit::Exit;

/// Print the version
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Prints name and version.
pub fn run(context: &Context, _: Args) -> Result<Exit, Error> {
    let version = env!("CARGO_PKG_VERSION");
    if context.output.json() {
        context.output.value(&json!({"name": "portcullis", "version": version}))?;
    } else {
        context.output.text(&format!("portcullis {version}\n"))?;
    }
    Ok(Exit::Done)
}
