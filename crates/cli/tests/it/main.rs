//! The built binary, run against data directories of its own.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "tests may panic, and nobody else calls them"
)]

mod accounts;
mod configuration;
mod content;
mod documents;
mod full_disk;
mod harness;
mod login;
mod maintenance;
mod sandbox;
mod starting;
mod terminal;
mod usage;
