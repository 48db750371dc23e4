//! The operations over a real database and a real folder.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests may panic and print")]

#[path = "../common/mod.rs"]
mod common;

mod backup;
mod delete;
mod fsck;
mod gc;
mod list;
mod manifest;
mod pull;
mod push;
mod right;
