//! The operations over a real database and a real folder.

#[path = "../common/mod.rs"]
mod common;

mod push;
