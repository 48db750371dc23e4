//! `portcullis man`

use std::fs;
use std::io;
use std::path::PathBuf;

use clap::CommandFactory;

use crate::args::Cli;
use crate::context::Context;
use crate::error::Error;
use crate::exit::Exit;
use crate::{error_page, markdown};

const AFTER_HELP: &str = "\
Examples:
  portcullis man | man -l -                         # read the main page
  portcullis man grant add | man -l -               # read the page of one command
  portcullis man --dir /usr/local/share/man/man1    # install all pages
  portcullis man --markdown > commands.md           # all of it as one Markdown page";

/// Print manual pages
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Args {
    /// Print the page of this command instead of the main page
    #[arg(value_name = "COMMAND", conflicts_with_all = ["dir", "markdown", "errors"])]
    command: Vec<String>,
    /// Write the pages of all commands to this directory
    #[arg(long, value_name = "DIR", conflicts_with = "markdown")]
    dir: Option<PathBuf>,
    /// Print one Markdown page with all commands
    #[arg(long, conflicts_with = "errors")]
    markdown: bool,
    /// Print one Markdown page with all exit states and error codes
    #[arg(long, conflicts_with = "dir")]
    errors: bool,
}

/// Prints or writes the pages.
pub fn run(context: &Context, args: Args) -> Result<Exit, Error> {
    if args.markdown {
        context.output.text(&markdown::commands(Cli::command()))?;
        return Ok(Exit::Done);
    }
    if args.errors {
        context.output.text(&error_page::page())?;
        return Ok(Exit::Done);
    }
    if let Some(dir) = args.dir {
        fs::create_dir_all(&dir)
            .and_then(|()| clap_mangen::generate_to(Cli::command(), &dir))
            .map_err(|e| Error::io("write manual pages to", &dir, e))?;
        context.output.note(&format!("manual pages written to {}", dir.display()));
        return Ok(Exit::Done);
    }
    let mut root = Cli::command();
    root.build();
    let mut command = &root;
    for name in &args.command {
        command = command.find_subcommand(name).ok_or_else(|| {
            Error::usage(format!("there is no command `{}`", args.command.join(" ")), "see `portcullis --help`")
        })?;
    }
    let mut page = Vec::new();
    clap_mangen::Man::new(command.clone())
        .render(&mut page)
        .map_err(|e| Error::Stream { action: "render the page", source: io::Error::other(e) })?;
    context.output.bytes(&page)?;
    Ok(Exit::Done)
}
