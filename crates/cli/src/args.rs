//! What can be typed: the tree of commands. What it means is decided in each command's own file.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::command::{
    backup, completions, config, event, fsck, gc, grant, health, init, login, logout, man, migrate, repo, restore,
    robot, sandbox_probe, serve, tag, user, version,
};

const AFTER_HELP: &str = "\
Examples:
  portcullis serve                                  # start the registry on 127.0.0.1:5000
  portcullis user add alice                         # a user, with a generated password
  portcullis grant add user:alice reader 'team/**'  # may pull everything below team/
  portcullis repo list

Client commands talk to the server named by --server or PORTCULLIS_SERVER, else to the socket in the \
data directory (--data-dir or PORTCULLIS_DATA_DIR, by default ./portcullis-data), else to the server of \
`portcullis login`.

Exit status: 0 done, 1 failed, 2 wrong usage or invalid configuration, 3 done and problems were found, \
4 not logged in or denied, 6 refused as unsafe, 7 data directory locked or of a newer format.";

/// A self-hosted registry for container images: locked as shipped
#[derive(Debug, Parser)]
#[command(name = "portcullis", bin_name = "portcullis", version, after_help = AFTER_HELP, propagate_version = false)]
#[command(subcommand_required = true, disable_help_subcommand = true, max_term_width = 100)]
pub struct Cli {
    /// Flags that every command takes.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Flags that every command takes.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// Print data and errors as JSON
    #[arg(long, global = true, display_order = 900)]
    pub json: bool,
    /// Print no messages and no progress, only data and errors
    #[arg(long, short, global = true, display_order = 901)]
    pub quiet: bool,
    /// Answer yes to every question
    #[arg(long, short, global = true, display_order = 902)]
    pub yes: bool,
    /// Print without colours (as does NO_COLOR in the environment)
    #[arg(long, global = true, display_order = 903)]
    pub no_color: bool,
    /// Talk to the admin API at this URL [env: PORTCULLIS_SERVER]
    #[arg(long, value_name = "URL", global = true, display_order = 904)]
    pub server: Option<String>,
    /// Trust the certificate authorities in this PEM file too [env: PORTCULLIS_CA_FILE]
    #[arg(long, value_name = "FILE", global = true, display_order = 905)]
    pub ca_file: Option<PathBuf>,
    /// The data directory [env: PORTCULLIS_DATA_DIR] [default: ./portcullis-data]
    #[arg(long, value_name = "DIR", global = true, display_order = 906)]
    pub data_dir: Option<PathBuf>,
    /// The configuration file [env: PORTCULLIS_CONFIG] [default: portcullis.toml beside the data directory]
    #[arg(long, value_name = "FILE", global = true, display_order = 907)]
    pub config: Option<PathBuf>,
}

/// The commands, in the order in which help lists them.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the registry
    Serve(serve::Args),
    /// Write a commented configuration, a certificate authority and a certificate
    Init(init::Args),
    /// Show, check or explain the configuration
    #[command(subcommand)]
    Config(config::Command),
    /// Tell whether a server is ready
    Health(health::Args),

    /// Manage users
    #[command(subcommand)]
    User(user::Command),
    /// Manage robots, the accounts of machines
    #[command(subcommand)]
    Robot(robot::Command),
    /// Manage grants: who may do what where
    #[command(subcommand)]
    Grant(grant::Command),
    /// Read the audit trail
    #[command(subcommand)]
    Event(event::Command),

    /// Look at repositories, or delete them
    #[command(subcommand)]
    Repo(repo::Command),
    /// Look at tags, or delete them
    #[command(subcommand)]
    Tag(tag::Command),

    /// Collect garbage
    #[command(subcommand)]
    Gc(gc::Command),
    /// Copy the running registry into a directory
    Backup(backup::Args),
    /// Make a data directory from a backup
    Restore(restore::Args),
    /// Check rows against stored bytes, both ways
    Fsck(fsck::Args),
    /// Move the rows from one database to another
    Migrate(migrate::Args),

    /// Store a login for client commands
    Login(login::Args),
    /// Forget a stored login
    Logout(logout::Args),
    /// Print the version
    Version(version::Args),
    /// Print a completion script for a shell
    Completions(completions::Args),
    /// Print manual pages
    Man(man::Args),
    /// Confine this process as `serve` does, and try what it can still do
    #[command(hide = true)]
    SandboxProbe(sandbox_probe::Args),
}

/// Which part of a long list to show.
#[derive(Clone, Debug, Args)]
pub struct Paging {
    /// Show at most this many
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub limit: u32,
    /// Go on from where an earlier list ended (its `next`)
    #[arg(long, value_name = "CURSOR")]
    pub cursor: Option<String>,
    /// Show all
    #[arg(long)]
    pub all: bool,
}
