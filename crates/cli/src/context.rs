//! What the flags and the environment mean for one invocation.

use std::ffi::OsString;
use std::io::{self, BufRead, IsTerminal, Read, Write};
use std::path::PathBuf;

use serde::Serialize;
use server::config::Environment;

use crate::args::Global;
use crate::client::{self, Client};
use crate::command;
use crate::error::Error;
use crate::output::Output;

/// A password or token is one short line.
const SECRET_LIMIT: u64 = 64 << 10;

/// Passed to every command.
pub struct Context {
    /// How to print.
    pub output: Output,
    /// The flags as typed.
    pub global: Global,
}

impl Context {
    /// From the flags and `NO_COLOR`.
    pub fn new(global: Global) -> Self {
        let color = !global.no_color && environment("NO_COLOR").is_none();
        Self { output: Output::new(global.json, global.quiet, color), global }
    }

    /// The server that this invocation talks to.
    pub fn client(&self) -> Result<Client, Error> {
        client::choose(&self.global)
    }

    /// For commands that work on this machine only.
    pub fn refuse_server(&self, command: &str) -> Result<(), Error> {
        if self.global.server.is_none() {
            return Ok(());
        }
        let message = format!("`{command}` works on this machine and talks to no other server");
        Err(Error::usage(message, "leave out --server"))
    }

    /// A page of a list as JSON, or as the table that `table` makes of it.
    pub fn page<T: Serialize>(&self, page: &api::Page<T>, table: impl FnOnce() -> String) -> Result<(), Error> {
        if self.output.json() {
            return self.output.value(page);
        }
        self.output.text(&table())?;
        if let Some(next) = &page.next {
            self.output.note(&format!("there is more: --all, or --cursor {next}"));
        }
        Ok(())
    }

    /// The data directory that `serve` would have here.
    pub fn data_dir(&self) -> PathBuf {
        data_dir(&self.global)
    }

    /// Asks on the terminal before something is destroyed. Without a terminal only `--yes` will do.
    pub fn confirm(&self, question: &str) -> Result<(), Error> {
        if self.global.yes {
            return Ok(());
        }
        if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
            return Err(Error::Unconfirmed { question: question.to_owned() });
        }
        let answer = ask(&format!("{question}? [y/N] "))?;
        if matches!(answer.trim(), "y" | "Y" | "yes") { Ok(()) } else { Err(Error::Declined) }
    }
}

/// The data directory that `serve` would have here. A configuration that is invalid in other points is no reason to find
/// none: it counts for `serve`, and may have been changed since the start of the server that runs.
pub fn data_dir(global: &Global) -> PathBuf {
    let named = global.data_dir.clone().or_else(|| environment("PORTCULLIS_DATA_DIR").map(PathBuf::from));
    named.unwrap_or_else(|| match server::config::load(&command::config::flags(global), &Environment::current()) {
        Ok(config) => config.data_dir,
        Err(_) => PathBuf::from("portcullis-data"),
    })
}

/// A variable of the environment; an empty one counts as unset.
pub fn environment(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

/// Prints a question on standard error and reads a line from standard input.
pub fn ask(question: &str) -> Result<String, Error> {
    let failed = |source| Error::Stream { action: "read from the terminal", source };
    let mut err = io::stderr().lock();
    write!(err, "{question}").and_then(|()| err.flush()).map_err(failed)?;
    let mut line = String::new();
    io::stdin().lock().take(SECRET_LIMIT).read_line(&mut line).map_err(failed)?;
    Ok(line)
}

/// Asks for a password on the terminal without showing what is typed.
pub fn ask_password(question: &str) -> Result<String, Error> {
    let failed = |source| Error::Stream { action: "read from the terminal", source };
    let before = rustix::termios::tcgetattr(io::stdin()).map_err(|e| failed(e.into()))?;
    let mut silent = before.clone();
    silent.local_modes.remove(rustix::termios::LocalModes::ECHO);
    silent.local_modes.insert(rustix::termios::LocalModes::ECHONL);
    let set = |mode: &rustix::termios::Termios| {
        rustix::termios::tcsetattr(io::stdin(), rustix::termios::OptionalActions::Flush, mode)
            .map_err(|e| failed(e.into()))
    };
    set(&silent)?;
    let answer = ask(question);
    set(&before)?;
    without_line_end(answer?)
}

/// Reads a password from standard input: everything but one line end at its end.
pub fn password_from_stdin() -> Result<String, Error> {
    let mut bytes = Vec::new();
    io::stdin()
        .lock()
        .take(SECRET_LIMIT + 1)
        .read_to_end(&mut bytes)
        .map_err(|source| Error::Stream { action: "read the password from standard input", source })?;
    let help = "give it as a single line on standard input";
    if bytes.len() as u64 > SECRET_LIMIT {
        return Err(Error::usage("the password on standard input is longer than 64 KiB", help));
    }
    match String::from_utf8(bytes) {
        Ok(text) => without_line_end(text),
        Err(_) => Err(Error::usage("the password on standard input is not UTF-8", help)),
    }
}

fn without_line_end(mut text: String) -> Result<String, Error> {
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    if text.is_empty() {
        return Err(Error::EmptyPassword);
    }
    if text.contains('\n') {
        return Err(Error::usage("the password has more than one line", "give it as a single line on standard input"));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_end_does_not_belong_to_a_password() {
        for (text, password) in [("a b\n", "a b"), ("x\r\n", "x"), (" y ", " y ")] {
            assert_eq!(without_line_end(text.to_owned()).unwrap(), password);
        }
        for text in ["", "\n", "a\nb\n"] {
            assert!(without_line_end(text.to_owned()).is_err());
        }
    }
}
