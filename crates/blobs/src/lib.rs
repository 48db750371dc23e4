//! Bytes: resumable uploads, verified writes and ranged reads.
//!
//! A store holds files under keys that are never used twice: the key of a file is the id of the upload that wrote it,
//! never its digest. So deleting an old key can never hit a fresh upload of the same bytes, nothing is renamed and
//! nothing is copied when an upload is finished. Which key holds which digest is known to the database alone.
//!
//! What a store promises: after [`Writer::finish`] has returned, the bytes, the length and the name of the file
//! survive a loss of power. A file that is not a plain file of the expected length is never read.

mod error;
mod faults;
mod fs;
mod key;
mod lane;
mod room;
mod source;
mod store;
mod writer;

#[cfg(any(test, feature = "conformance"))]
pub mod conformance;

pub use error::{Damage, Error};
#[cfg(any(test, feature = "conformance"))]
pub use faults::Faults;
pub use fs::{Fs, sync_directory};
pub use key::Key;
pub use source::{READ_MAX, ReadFile, Source, read_chunk};
pub use store::{Blobs, Entry, OpenFile};
pub use writer::{PIECE, Writer, Written};

#[cfg(test)]
mod tests;
