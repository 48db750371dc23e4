//! The one binary: the registry, and the commands that talk to it.

mod allocator;
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
    allocator::return_large_blocks();
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
        Command::Serve(args) => command::serve::run(context, args),
        Command::Init(args) => command::init::run(context, args),
        Command::Config(command) => command::config::run(context, command),
        Command::Health(args) => wait(command::health::run(context, args)),
        Command::User(command) => wait(command::user::run(context, command)),
        Command::Robot(command) => wait(command::robot::run(context, command)),
        Command::Grant(command) => wait(command::grant::run(context, command)),
        Command::Event(command) => wait(command::event::run(context, command)),
        Command::Repo(command) => wait(command::repo::run(context, command)),
        Command::Tag(command) => wait(command::tag::run(context, command)),
        Command::Gc(command) => wait(command::gc::run(context, command)),
        Command::Backup(args) => wait(command::backup::run(context, args)),
        Command::Restore(args) => wait(command::restore::run(context, args)),
        Command::Fsck(args) => wait(command::fsck::run(context, args)),
        Command::Migrate(args) => wait(command::migrate::run(context, args)),
        Command::Login(args) => wait(command::login::run(context, args)),
        Command::Logout(args) => command::logout::run(context, args),
        Command::Version(args) => command::version::run(context, args),
        Command::Completions(args) => command::completions::run(context, args),
        Command::Man(args) => command::man::run(context, args),
        Command::SandboxProbe(args) => command::sandbox_probe::run(context, args),
    }
}

/// Runs a command that waits for files or for a server. `serve` has a runtime of its own.
fn wait(work: impl Future<Output = Result<Exit, Error>>) -> Result<Exit, Error> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.map_err(|source| Error::Stream { action: "start", source })?.block_on(work)
}
