//! Fuzz targets for everything that reads untrusted input.
//!
//! A target is a function over bytes that panics when a property does not hold: what was parsed prints as it was, an
//! independent reading of the same text agrees, a bound is kept, a forgery is refused. `cargo test` runs each of them over
//! its inputs in `seeds` (written by hand, and what once failed) and `corpus` (found by the fuzzer, the smallest set that
//! reaches what it reached); `cargo xtask fuzz` runs them under libFuzzer.
//!
//! Inputs are kept as text, one a line, in double quotes, with the escapes of a Rust byte string.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a target fails by panicking")]

mod input;
mod oracle;
mod target;
mod world;

pub use input::Input;

/// A fuzz target.
pub struct Target {
    /// Its name; also that of its files in `seeds`, `corpus` and `dictionaries`.
    pub name: &'static str,
    /// Runs one input; panics when a property does not hold.
    pub run: fn(&[u8]),
}

macro_rules! targets {
    ($($name:ident)+) => {
        /// Every target.
        pub const TARGETS: &[Target] = &[$(Target { name: stringify!($name), run: target::$name::run }),+];
    };
}

targets! {
    admin authorization conditional config digest form framing host manifest media_type pattern query range reference
    request route scope token upload value
}
