//! `portcullis config`

use clap::Subcommand;
use serde_json::{Value, json};
use server::config::{Config, Environment, Flags, KEYS, load, reference};

use crate::args::Global;
use crate::context::Context;
use crate::error::Error;
use crate::exit::Exit;

/// What to do with the configuration.
#[derive(Debug, Subcommand)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub enum Command {
    /// Report everything that is wrong with the configuration
    #[command(after_help = "\
Exit status 0: valid and safe to serve with. 2: invalid. 6: valid, and `serve` would refuse it as unsafe.

Examples:
  portcullis config check --config /etc/portcullis/portcullis.toml")]
    Check,
    /// Show the settings in force, and where each comes from
    Show,
    /// Print what every setting means
    Reference,
}

/// Reads the configuration as `serve` would.
pub fn run(context: &Context, command: Command) -> Result<Exit, Error> {
    context.refuse_server("config")?;
    match command {
        Command::Check => check(context)?,
        Command::Show => show(context, &load(&flags(&context.global), &Environment::current())?)?,
        Command::Reference if context.output.json() => context.output.value(&json!({"items": keys(), "next": null}))?,
        Command::Reference => context.output.text(&reference())?,
    }
    Ok(Exit::Done)
}

/// What the flags that all commands share say about the configuration.
pub fn flags(global: &Global) -> Flags {
    Flags { config: global.config.clone(), data_dir: global.data_dir.clone(), ..Flags::default() }
}

fn check(context: &Context) -> Result<(), Error> {
    let config = load(&flags(&context.global), &Environment::current())?;
    config.refuse_unsafe()?;
    if context.output.json() {
        return context.output.value(&json!({"file": config.file, "problems": []}));
    }
    let file = config.file.as_ref().map_or_else(|| "no file".to_owned(), |file| file.display().to_string());
    context.output.note(&format!("the configuration is valid ({file})"));
    Ok(())
}

fn show(context: &Context, config: &Config) -> Result<(), Error> {
    if context.output.json() {
        return context.output.value(&json!({"file": config.file, "items": config.settings(), "next": null}));
    }
    context.output.text(&config.show())
}

fn keys() -> Vec<Value> {
    KEYS.iter()
        .map(|key| {
            json!({
                "key": key.name,
                "form": key.form.describe(),
                "default": Some(key.default).filter(|d| !d.is_empty()),
                "variable": key.variable(),
                "flag": key.flag,
                "secret": key.secret,
                "doc": key.doc,
            })
        })
        .collect()
}
