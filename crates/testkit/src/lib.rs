//! What tests share: the built server as a process of its own, an image builder, a raw HTTP client, seeded randomness.
//!
//! Nothing here is asynchronous, and nothing is taken from the product but the types of `oci`: a test must not see the
//! product's bytes through the product's eyes.

pub mod client;
pub mod http;
pub mod image;
pub mod layout;
pub mod memory_limit;
mod random;
mod server;
pub mod tar;

pub use client::Client;
pub use random::{Noise, Rng};
pub use server::{Options, Server, binary, database, with_database};
