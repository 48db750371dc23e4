//! Names, digests, media types, manifests and error codes of the OCI specifications.
//!
//! Everything here is pure: no I/O, no clock, no randomness. Untrusted text and bytes enter the program through the
//! parsers of this crate, each of which bounds its input before it looks at it and returns a type that cannot be wrong.
//! "The specification" is the OCI distribution specification unless another one is named.

mod digest;
mod error;
mod hasher;
mod name;
mod reference;
mod timestamp;

pub use digest::{Algorithm, Digest};
pub use error::{Error, ErrorCode};
pub use hasher::Hasher;
pub use name::{RepositoryName, Tag};
pub use reference::Reference;
pub use timestamp::{Clock, Random, Timestamp};
