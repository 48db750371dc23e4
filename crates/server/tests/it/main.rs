//! The whole router in this process.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, reason = "a helper of tests fails the test")]

mod admin;
mod admin_accounts;
mod admin_jobs;
mod admin_rules;
mod auth;
mod config;
mod data_dir;
mod distribution;
mod distribution_attacks;
mod epochs;
mod listen;
mod matrix;
mod memory;
mod quirks_auth;
mod quirks_blobs;
mod quirks_lists;
mod quirks_manifests;
mod quirks_transport;
mod quirks_uploads;
mod races;
mod read_only;
mod world;
