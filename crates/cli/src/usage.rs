//! Reading the command line, and saying what is wrong with it.

use std::ffi::OsString;

use clap::error::ErrorKind;
use clap::{ColorChoice, CommandFactory, FromArgMatches};

use crate::args::Cli;
use crate::error::Error;
use crate::exit::Exit;
use crate::output::Output;

/// What was typed, as typed arguments.
pub fn parse(mut typed: Vec<OsString>, plain: bool) -> Result<Cli, clap::Error> {
    if typed.len() < 2 {
        typed = vec!["portcullis".into(), "--help".into()];
    }
    let color = if plain { ColorChoice::Never } else { ColorChoice::Auto };
    let mut command = Cli::command().color(color);
    let matches = command.try_get_matches_from_mut(typed)?;
    Cli::from_arg_matches(&matches).map_err(|e| e.format(&mut command))
}

/// Help and version are no errors; everything else is said as all errors are.
pub fn report(error: &clap::Error, output: &Output) -> Exit {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            // Nobody is left to tell when this fails.
            _ = error.print();
            Exit::Done
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            _ = error.print();
            Exit::Usage
        }
        _ => {
            let (message, help) = sentences(&error.render().to_string());
            output.error(&Error::Usage { message, help: Some(help) });
            Exit::Usage
        }
    }
}

/// Takes clap's paragraphs apart: `error: …`, `tip: …`, `Usage: …`, and the pointer to `--help`.
fn sentences(text: &str) -> (String, String) {
    let mut paragraphs = text.split("\n\n").map(|p| p.split_whitespace().collect::<Vec<_>>().join(" "));
    let first = paragraphs.next().unwrap_or_default();
    let message = first.strip_prefix("error: ").unwrap_or(&first).to_owned();
    let mut help = Vec::new();
    for paragraph in paragraphs {
        if let Some(tip) = paragraph.strip_prefix("tip: ") {
            help.push(tip.to_owned());
        } else if let Some(usage) = paragraph.strip_prefix("Usage: ") {
            help.push(format!("usage: {usage}"));
        }
    }
    if help.is_empty() {
        help.push("see `portcullis --help`".to_owned());
    }
    (message, help.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_errors_become_one_sentence_and_a_next_step() {
        let typed = ["portcullis", "user", "ad", "alice"].map(OsString::from).to_vec();
        let error = parse(typed, true).unwrap_err();
        let (message, help) = sentences(&error.render().to_string());
        assert_eq!(message, "unrecognized subcommand 'ad'");
        assert!(help.contains("'add'") && help.contains("usage: portcullis user"), "{help}");
        assert!(!message.contains('\n') && !help.contains('\n'));
    }
}
