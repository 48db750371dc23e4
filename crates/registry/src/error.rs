//! How an operation can end otherwise than well: the outcomes that the specification knows, and what the stores say.

use std::io;

use oci::{Digest, Reference, Tag};
use policy::{Refusal, Verb};

use crate::push::UploadId;

/// The source of an error that is not the client's.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Why an operation was not done. The server turns each variant into one answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The input does not have the form the specification asks for.
    #[error(transparent)]
    Oci(#[from] oci::Error),
    /// Rights have changed since it was decided by them. Nothing was done or told; operations that take a [`crate::Right`]
    /// decide again and do not give it out.
    #[error("rights have changed since it was decided by them")]
    Outdated,
    /// The repository does not exist.
    #[error("the repository does not exist")]
    NameUnknown,
    /// The blob is not in the repository, or may not be read yet.
    #[error("the blob {0} is not in this repository")]
    BlobUnknown(Digest),
    /// The manifest is not in the repository.
    #[error("the manifest {0} is not in this repository")]
    ManifestUnknown(Reference),
    /// No such upload session, for this caller in this repository.
    #[error("the upload does not exist: it was finished, cancelled or has expired")]
    UploadUnknown,
    /// The bytes offered do not follow those received. The session lives on.
    #[error("the upload {id} continues at byte {offset}")]
    OutOfRange {
        /// The upload.
        id: UploadId,
        /// Where the next byte goes.
        offset: u64,
    },
    /// Another request is sending to this upload. The session lives on; try again.
    #[error("another request is sending to the upload {id}, which has {offset} bytes so far")]
    UploadBusy {
        /// The upload.
        id: UploadId,
        /// What the last request that ended has left it with.
        offset: u64,
    },
    /// What is there now is not what the request's precondition asks for. Nothing was done.
    #[error("the precondition does not hold")]
    PreconditionFailed,
    /// The manifest names blobs that are not in the repository.
    #[error("{} blobs of the manifest are not in this repository", .0.len())]
    MissingBlobs(Vec<Digest>),
    /// The bytes do not have the digest that was given. Nothing was stored; an upload's session is discarded.
    #[error("the digest given is {expected}, that of the bytes is {actual}")]
    DigestMismatch {
        /// As given.
        expected: Digest,
        /// Of the bytes received.
        actual: Digest,
    },
    /// The length given is not that of the bytes. The upload's offset has not changed.
    #[error("{expected} bytes were announced, {actual} came")]
    SizeMismatch {
        /// As announced by `Content-Range` or `Content-Length`.
        expected: u64,
        /// Received; more may have followed.
        actual: u64,
    },
    /// Over a limit on size.
    #[error("it is larger than the limit of {limit} bytes")]
    TooLarge {
        /// The limit in bytes.
        limit: u64,
    },
    /// A manifest of the repository needs the blob.
    #[error("the blob {digest} is needed by the manifest {manifest}; delete that first")]
    BlobInUse {
        /// The blob.
        digest: Digest,
        /// One of the manifests.
        manifest: Digest,
    },
    /// The right to do this has been taken away since the request began.
    #[error("the right to do this has been taken away")]
    Refused(Refusal),
    /// The caller may push but not do this to this tag. Nothing was done.
    #[error("the tag '{tag}' needs the verb {}", .verb.as_str())]
    TagDenied {
        /// The tag.
        tag: Tag,
        /// What is needed for it.
        verb: Verb,
    },
    /// The caller has too many open uploads.
    #[error("there are {limit} open uploads of this account; finish or cancel some")]
    TooManyUploads {
        /// How many are allowed.
        limit: u32,
    },
    /// No space is left. An upload's session lives on.
    #[error("the store is full")]
    Full(#[source] BoxError),
    /// The store can only be read at present. An upload's session lives on.
    #[error("the store is read-only")]
    ReadOnly(#[source] BoxError),
    /// The store or the database does not answer at present. An upload's session lives on.
    #[error("the store is not available at present")]
    Unavailable {
        /// When to try again, in seconds.
        retry_after_s: u32,
        /// What happened, for the log.
        source: Option<BoxError>,
    },
    /// The commit failed on the way to the disk, or was not answered in time: it may have been made. To be repeated, which does
    /// no harm where it was.
    #[error("it is not known whether the change was made")]
    Unsure(#[source] BoxError),
    /// The stored bytes are not those that were pushed. They were not served.
    #[error("the stored copy of {digest} is damaged")]
    Damaged {
        /// The blob or manifest.
        digest: Digest,
        /// What is wrong, for the log.
        source: Option<BoxError>,
    },
    /// The body broke off. What was received of an upload is kept.
    #[error("the request's body broke off")]
    ClientGone(#[source] io::Error),
    /// Something else stands in the way.
    #[error("{what}")]
    Conflict {
        /// What, in a sentence.
        what: String,
    },
    /// Anything else.
    #[error("an internal error")]
    Internal(#[source] BoxError),
}

impl Error {
    /// What the caller can do nothing about.
    pub fn internal(source: impl Into<BoxError>) -> Self {
        Self::Internal(source.into())
    }

    /// What a caller gets to see of an error of another part, by what is at the bottom of it.
    pub fn by_cause(source: BoxError) -> Self {
        let mut next: Option<&(dyn std::error::Error + 'static)> = Some(source.as_ref());
        while let Some(error) = next {
            if let Some(error) = error.downcast_ref::<meta::Error>() {
                return error.clone().into();
            }
            next = error.source();
        }
        Self::Internal(source)
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// Errors of the blob store that no caller has treated: those of a write, since reads know which blob they read.
impl From<blobs::Error> for Error {
    fn from(error: blobs::Error) -> Self {
        match error {
            blobs::Error::Full { .. } => Self::Full(Box::new(error)),
            blobs::Error::Unsynced { ref source, .. }
                if matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) =>
            {
                Self::Full(Box::new(error))
            }
            blobs::Error::ReadOnly { .. } => Self::ReadOnly(Box::new(error)),
            blobs::Error::Io { .. }
            | blobs::Error::Unsynced { .. }
            | blobs::Error::Busy { .. }
            | blobs::Error::Silent { .. } => Self::Unavailable { retry_after_s: 5, source: Some(Box::new(error)) },
            blobs::Error::NotFound { .. } | blobs::Error::Damaged { .. } | blobs::Error::Stopped => {
                Self::Internal(Box::new(error))
            }
        }
    }
}

impl From<meta::Error> for Error {
    fn from(error: meta::Error) -> Self {
        match error {
            meta::Error::Full => Self::Full(Box::new(error)),
            meta::Error::ReadOnly => Self::ReadOnly(Box::new(error)),
            meta::Error::Unavailable { .. } => Self::Unavailable { retry_after_s: 5, source: Some(Box::new(error)) },
            // An error of the disk under a read looks like damage. If it is damage, `fsck` says so.
            meta::Error::Corrupt { .. } => Self::Unavailable { retry_after_s: 30, source: Some(Box::new(error)) },
            meta::Error::Unsure { .. } => Self::Unsure(Box::new(error)),
            meta::Error::Outdated => Self::Outdated,
            meta::Error::Busy => Self::Unavailable { retry_after_s: 1, source: Some(Box::new(error)) },
            meta::Error::Conflict { .. } => Self::Conflict { what: error.to_string() },
            _ => Self::Internal(Box::new(error)),
        }
    }
}
