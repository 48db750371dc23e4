//! One file a subcommand: its arguments, what they mean, and how its answer is shown.

pub mod backup;
pub mod completions;
pub mod config;
pub mod event;
pub mod fsck;
pub mod gc;
pub mod grant;
pub mod health;
pub mod init;
pub mod login;
pub mod logout;
pub mod man;
pub mod migrate;
pub mod repo;
pub mod restore;
pub mod robot;
pub mod sandbox_probe;
pub mod serve;
pub mod tag;
pub mod user;
pub mod version;
