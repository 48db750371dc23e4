//! HTTP, authentication, configuration, background tasks and metrics.
//!
//! [`serve::run`] builds everything from a [`config::Config`] and runs until a signal. A request comes in through
//! [`listen`], goes to the router of its listener ([`main_router`], [`admin`], [`health`]), and meets an operation of the
//! `registry` crate. What is wrong at start is an [`Error`] with an exit state. The commands that work without a server
//! are in [`offline`].

pub mod admin;
pub mod auth;
pub mod bootstrap;
pub mod clock;
pub mod config;
pub mod data_dir;
mod database;
pub mod distribution;
mod error;
#[doc(hidden)]
pub mod fuzzing;
pub mod health;
pub mod keys;
pub mod listen;
pub mod logs;
pub mod main_router;
pub mod metrics;
pub mod offline;
pub mod sandbox;
pub mod serve;
pub mod space;
pub mod state;
pub mod tasks;
pub mod trouble;

pub use error::{Error, Kind};
