//! The whole router in this process.

mod admin;
mod admin_accounts;
mod admin_jobs;
mod admin_rules;
mod auth;
mod distribution;
mod matrix;
mod quirks_auth;
mod quirks_blobs;
mod quirks_lists;
mod quirks_manifests;
mod quirks_transport;
mod quirks_uploads;
mod world;
