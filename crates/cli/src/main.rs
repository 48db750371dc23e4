//! The one binary: the registry, and the commands that talk to it.

mod args;
mod client;
mod command;
mod context;
mod error;
mod error_page;
mod exit;
mod markdown;
mod output;
mod progress;
mod span;
mod usage;

use std::process::ExitCode;

use crate::args::Command;
use crate::context::Context;
use crate::error::Error;
use crate::exit::Exit;
use crate::output::Output;

fn main() -> ExitCode {
    // Fails only if there is a provider already, and there is none before this line.
    _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let typed: Vec<_> = std::env::args_os().collect();
    let plain = typed.iter().any(|a| a == "--no-color");
    let json = typed.iter().any(|a| a == "--json");
    let cli = match usage::parse(typed, plain) {
        Ok(cli) => cli,
        Err(error) => return usage::report(&error, &Output::new(json, false, !plain)).into(),
    };
    let context = Context::new(cli.global);
    match run(&context, cli.command) {
        Ok(exit) => exit.into(),
        Err(Error::OutputClosed) => Exit::Done.into(),
        Err(error) => {
            context.output.error(&error);
            error.exit().into()
        }
    }
}

fn run(context: &Context, command: Command) -> Result<Exit, Error> {
    match command {
        Command::Version(args) => command::version::run(context, args),
        Command::Completions(args) => command::completions::run(context, args),
        Command::Man(args) => command::man::run(context, args),
        Command::Serve(args) => command::serve::run(context, args),
        Command::Config(command) => command::config::run(context, command),
        Command::Logout(args) => command::logout::run(context, args),
        other => tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|source| Error::Stream { action: "start", source })?
            .block_on(talk(context, other)),
    }
}

/// The commands that wait for somebody's answer.
async fn talk(context: &Context, command: Command) -> Result<Exit, Error> {
    match command {
        Command::User(command) => command::user::run(context, command).await,
        Command::Robot(command) => command::robot::run(context, command).await,
        Command::Grant(command) => command::grant::run(context, command).await,
        Command::Event(command) => command::event::run(context, command).await,
        Command::Repo(command) => command::repo::run(context, command).await,
        Command::Tag(command) => command::tag::run(context, command).await,
        Command::Gc(command) => command::gc::run(context, command).await,
        Command::Backup(args) => command::backup::run(context, args).await,
        Command::Fsck(args) => command::fsck::run(context, args).await,
        Command::Health(args) => command::health::run(context, args).await,
        Command::Login(args) => command::login::run(context, args).await,
        Command::Serve(_)
        | Command::Config(_)
        | Command::Version(_)
        | Command::Completions(_)
        | Command::Man(_)
        | Command::Logout(_) => Ok(Exit::Done),
    }
}
