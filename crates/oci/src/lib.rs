//! Names, digests, media types, manifests and error codes of the OCI specifications.
//!
//! Everything here is pure: no I/O, no clock, no randomness. Untrusted text and bytes enter the program through the
//! parsers of this crate, each of which bounds its input before it looks at it and returns a type that cannot be wrong.
//! "The specification" is the OCI distribution specification unless another one is named.

pub mod conditional;
mod digest;
mod error;
mod error_body;
mod hasher;
mod json;
pub mod link;
mod manifest;
mod media_type;
mod name;
mod range;
mod reference;
mod referrers;
mod scope;
mod timestamp;
mod warning;

pub use digest::{Algorithm, Digest};
pub use error::{Error, ErrorCode};
pub use error_body::{ErrorEntry, MAX_ERROR_BODY, error_body};
pub use hasher::Hasher;
pub use manifest::{Descriptor, EMPTY_JSON, Manifest, ManifestKind, is_empty_json};
pub use media_type::{MediaType, is_non_distributable};
pub use name::{RepositoryName, Tag};
pub use range::{ByteRange, ContentRange, MAX_RANGES, Ranges, parse_range};
pub use reference::Reference;
pub use referrers::{FallbackSubject, Referrer, ReferrersPage, referrers_fallback_tag};
pub use scope::{Actions, MAX_SCOPES, Resource, parse_scopes};
pub use timestamp::{Clock, Random, Timestamp};
pub use warning::{MAX_WARNING_BYTES, warning_values};
