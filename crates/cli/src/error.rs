//! Everything that ends a command, with its code, exit state and next step.

use std::io;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::exit::Exit;

/// Why a command failed. `Display` is one sentence without its source; [`Error::chain`] adds the sources.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// What was typed makes no sense.
    #[error("{message}")]
    Usage {
        /// What is wrong with it.
        message: String,
        /// What to type instead.
        help: Option<String>,
    },
    /// A destructive command without `--yes` where nobody can be asked.
    #[error("{question} cannot be asked without a terminal")]
    Unconfirmed {
        /// The question, without its question mark.
        question: String,
    },
    /// The person at the terminal answered no.
    #[error("not confirmed, nothing was changed")]
    Declined,
    /// There is no socket, URL or login to reach a server by.
    #[error("no server to talk to: {} is not there", .socket.display())]
    NoServer {
        /// The socket that was looked for.
        socket: PathBuf,
    },
    /// Connecting, or talking once connected, failed.
    #[error("cannot reach {target}")]
    Unreachable {
        /// URL or socket.
        target: String,
        /// What the system said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// No answer in time.
    #[error("no answer from {target} within {seconds} s")]
    TimedOut {
        /// URL or socket.
        target: String,
        /// How long was waited.
        seconds: u64,
    },
    /// Something answered, but not as the admin API does.
    #[error("{target} does not answer like the admin API of Portcullis: {what}")]
    Foreign {
        /// URL or socket.
        target: String,
        /// What was wrong with the answer.
        what: String,
    },
    /// Credentials would cross a network in the clear.
    #[error("{url} is plain HTTP beyond loopback: credentials would be readable on the way")]
    PlainHttp {
        /// Where they would have gone.
        url: String,
    },
    /// The server wants a login.
    #[error("not logged in to {target}")]
    NotLoggedIn {
        /// URL or socket.
        target: String,
    },
    /// Name or password are wrong.
    #[error("{target} does not know this name and password ({name})")]
    PasswordRefused {
        /// The server.
        target: String,
        /// The login name.
        name: String,
    },
    /// The token of the environment does not count.
    #[error("{target} refused the token of the environment")]
    TokenRefused {
        /// The server.
        target: String,
    },
    /// The stored login has ended: 90 days, another password, or the user was disabled.
    #[error("the login of {name} at {target} has ended")]
    LoginRefused {
        /// The server.
        target: String,
        /// The login name.
        name: String,
    },
    /// A job of the server ended without success.
    #[error("{why}")]
    JobFailed {
        /// The server's reason.
        why: String,
    },
    /// The server answered with an error of its own.
    #[error("{}", .0.message)]
    Answer(Box<Refusal>),
    /// A directory that cannot take what is to be written there.
    #[error("{message}")]
    Directory {
        /// What is wrong with it.
        message: String,
        /// What to name instead.
        help: String,
    },
    /// `--password-stdin` with nothing in it.
    #[error("the password is empty")]
    EmptyPassword,
    /// A file with secrets that others can read.
    #[error("{} can be read by others", .path.display())]
    OpenToOthers {
        /// The file.
        path: PathBuf,
    },
    /// A file or stream.
    #[error("cannot {action} {}", .path.display())]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Standard output or input.
    #[error("cannot {action}")]
    Stream {
        /// What was tried.
        action: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// From the server's own code: its configuration, its start, its offline commands.
    #[error(transparent)]
    Server(Box<server::Error>),
    /// The reader of standard output has gone: nothing to report, nobody to report it to.
    #[error("nobody reads the output any more")]
    OutputClosed,
}

/// An error that a server answered with.
#[derive(Debug)]
pub struct Refusal {
    /// The HTTP status.
    pub status: u16,
    /// The error's code, one of `api::ErrorCode` or newer than this program.
    pub code: String,
    /// The server's sentence.
    pub message: String,
    /// The server's next step.
    pub help: Option<String>,
    /// Whatever else it said.
    pub details: Value,
}

impl Error {
    /// A usage error with the next step.
    pub fn usage(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self::Usage { message: message.into(), help: Some(help.into()) }
    }

    /// An error on a path.
    pub fn io(action: &'static str, path: impl Into<PathBuf>, source: io::Error) -> Self {
        Self::Io { action, path: path.into(), source }
    }

    /// The stable name of this error, listed in `docs/reference/errors.md`.
    pub fn code(&self) -> &str {
        match self {
            Self::Usage { .. } => "usage",
            Self::Unconfirmed { .. } => "confirmation_needed",
            Self::Declined => "not_confirmed",
            Self::NoServer { .. } => "no_server",
            Self::Unreachable { .. } => "unreachable",
            Self::TimedOut { .. } => "timed_out",
            Self::Foreign { .. } => "foreign_answer",
            Self::PlainHttp { .. } => "plain_http",
            Self::NotLoggedIn { .. } => "not_logged_in",
            Self::PasswordRefused { .. } => "password_refused",
            Self::TokenRefused { .. } => "token_refused",
            Self::LoginRefused { .. } => "login_ended",
            Self::JobFailed { .. } => "job_failed",
            Self::Answer(refusal) => &refusal.code,
            Self::Directory { .. } => api::ErrorCode::InvalidDirectory.as_str(),
            Self::EmptyPassword => "empty_password",
            Self::OpenToOthers { .. } => "open_to_others",
            Self::Server(error) => error.code(),
            Self::Io { .. } | Self::Stream { .. } | Self::OutputClosed => "io",
        }
    }

    /// The exit state that goes with it.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Usage { .. } | Self::Unconfirmed { .. } | Self::Directory { .. } => Exit::Usage,
            Self::NotLoggedIn { .. }
            | Self::PasswordRefused { .. }
            | Self::TokenRefused { .. }
            | Self::LoginRefused { .. } => Exit::Denied,
            Self::PlainHttp { .. } | Self::EmptyPassword | Self::OpenToOthers { .. } => Exit::Unsafe,
            Self::OutputClosed => Exit::Done,
            Self::Answer(refusal) => exit_of_status(refusal.status),
            Self::Server(error) => match error.kind() {
                server::Kind::Failed => Exit::Failed,
                server::Kind::Invalid => Exit::Usage,
                server::Kind::Unsafe => Exit::Unsafe,
                server::Kind::Unavailable => Exit::Locked,
            },
            _ => Exit::Failed,
        }
    }

    /// What to do next, where there is something to do.
    pub fn help(&self) -> Option<String> {
        match self {
            Self::Usage { help, .. } => help.clone(),
            Self::Directory { help, .. } => Some(help.clone()),
            Self::Answer(refusal) => refusal.help.clone(),
            Self::Unconfirmed { .. } => Some("repeat the command with --yes".to_owned()),
            Self::NoServer { .. } => Some(
                "start one with `portcullis serve`, name its directory with --data-dir DIR, or its address with \
                 --server URL, or `portcullis login URL`"
                    .to_owned(),
            ),
            Self::Unreachable { .. } | Self::TimedOut { .. } => {
                Some("see whether it runs: `portcullis health`".to_owned())
            }
            Self::Foreign { .. } => {
                Some("the admin API has its own address (admin.listen, by default port 5001)".to_owned())
            }
            Self::PlainHttp { .. } => Some("use an https:// URL, or the socket with --data-dir DIR".to_owned()),
            Self::NotLoggedIn { target } => Some(format!("portcullis login {target}")),
            Self::PasswordRefused { .. } => {
                Some("try again, or have an administrator set a new one: `portcullis user passwd`".to_owned())
            }
            Self::TokenRefused { .. } => Some("see PORTCULLIS_TOKEN and PORTCULLIS_TOKEN_FILE".to_owned()),
            Self::JobFailed { .. } => Some("the server's log says more".to_owned()),
            Self::LoginRefused { target, .. } => Some(format!("log in again: portcullis login {target}")),
            Self::Server(error) => error.help(),
            Self::EmptyPassword => {
                Some("write one to standard input, or leave out --password-stdin to have one generated".to_owned())
            }
            Self::OpenToOthers { path } => Some(format!("chmod 600 {}", path.display())),
            Self::Declined | Self::Io { .. } | Self::Stream { .. } | Self::OutputClosed => None,
        }
    }

    /// Message and sources in one line.
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut source = std::error::Error::source(self);
        while let Some(error) = source {
            let part = error.to_string();
            if !text.ends_with(&part) {
                text.push_str(": ");
                text.push_str(&part);
            }
            source = error.source();
        }
        text
    }

    /// The form for `--json`.
    pub fn to_json(&self) -> Value {
        let details = match self {
            Self::Answer(refusal) if !refusal.details.is_null() => refusal.details.clone(),
            Self::Server(error) => match error.as_ref() {
                server::Error::Config(problems) => json!({ "problems": problems }),
                _ => json!({}),
            },
            _ => json!({}),
        };
        json!({"error": {"code": self.code(), "message": self.chain(), "help": self.help(), "details": details}})
    }
}

impl From<server::Error> for Error {
    fn from(error: server::Error) -> Self {
        Self::Server(Box::new(error))
    }
}

/// The exit state for an answer of the admin API.
pub fn exit_of_status(status: u16) -> Exit {
    match status {
        400 | 422 => Exit::Usage,
        401 | 403 => Exit::Denied,
        _ => Exit::Failed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error_page::COMMAND_CODES;

    #[test]
    fn codes_and_exit_states_are_those_of_the_reference() {
        let text = String::new;
        let refused = || io::Error::from(io::ErrorKind::ConnectionRefused);
        for error in [
            Error::usage("a", "b"),
            Error::Unconfirmed { question: text() },
            Error::Declined,
            Error::NoServer { socket: PathBuf::new() },
            Error::Unreachable { target: text(), source: Box::new(refused()) },
            Error::TimedOut { target: text(), seconds: 1 },
            Error::Foreign { target: text(), what: text() },
            Error::PlainHttp { url: text() },
            Error::NotLoggedIn { target: text() },
            Error::PasswordRefused { target: text(), name: text() },
            Error::TokenRefused { target: text() },
            Error::LoginRefused { target: text(), name: text() },
            Error::JobFailed { why: text() },
            Error::EmptyPassword,
            Error::OpenToOthers { path: PathBuf::new() },
            Error::io("read", "a", refused()),
            Error::Stream { action: "read", source: refused() },
            server::Error::Config(Vec::new()).into(),
            server::Error::refuse("a", "b").into(),
            server::Error::Locked { path: PathBuf::new(), holder: text() }.into(),
            server::Error::NewerFormat { path: PathBuf::new(), found: 2, supported: 1 }.into(),
            server::Error::DataDir { what: text(), help: text() }.into(),
            server::Error::io("read", "a", refused()).into(),
            server::Error::Tls { path: PathBuf::new(), reason: text() }.into(),
            server::Error::System { action: "start", source: refused() }.into(),
            server::Error::Database(Box::new(refused())).into(),
            server::Error::operation("check", refused()).into(),
        ] {
            let listed = COMMAND_CODES.iter().find(|(code, _, _)| *code == error.code());
            assert_eq!(listed.map(|(_, exit, _)| *exit), Some(error.exit() as u8), "{}", error.code());
        }
    }

    #[test]
    fn the_chain_names_each_cause_once() {
        let error = Error::io("read", "/x", io::Error::other("no such disk"));
        assert_eq!(error.chain(), "cannot read /x: no such disk");
        assert_eq!(Error::from(server::Error::io("read", "/x", io::Error::other("b"))).chain(), "cannot read /x: b");
    }
}
