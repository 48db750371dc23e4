//! Error codes of the specification and what parsing can fail with.

/// A code of the specification's error list, or one of the codes that the reference implementation added and that
/// docker's clients know (`UNKNOWN`, `UNAVAILABLE`, `RANGE_INVALID`, `TAG_INVALID`, `PAGINATION_NUMBER_INVALID`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorCode {
    /// The blob is not in this repository.
    BlobUnknown,
    /// The upload cannot go on in the way that was asked.
    BlobUploadInvalid,
    /// No such upload session, for this caller.
    BlobUploadUnknown,
    /// The digest is malformed, of an unsupported algorithm, or not that of the bytes.
    DigestInvalid,
    /// The manifest names a blob that is not in this repository.
    ManifestBlobUnknown,
    /// The manifest is malformed.
    ManifestInvalid,
    /// The manifest is not in this repository.
    ManifestUnknown,
    /// The repository name is malformed.
    NameInvalid,
    /// The repository does not exist, or the caller may not know of it.
    NameUnknown,
    /// A length does not agree with the bytes, or is over a limit.
    SizeInvalid,
    /// Credentials are missing or not valid.
    Unauthorized,
    /// The caller may not do this.
    Denied,
    /// The operation is not supported, or not in this state.
    Unsupported,
    /// Too many requests.
    TooManyRequests,
    /// A tag is malformed.
    TagInvalid,
    /// A range does not fit what is stored.
    RangeInvalid,
    /// `n` or `last` of a list is malformed.
    PaginationNumberInvalid,
    /// Temporarily not available.
    Unavailable,
    /// An internal error.
    Unknown,
}

impl ErrorCode {
    /// The code as it stands in an error body.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BlobUnknown => "BLOB_UNKNOWN",
            Self::BlobUploadInvalid => "BLOB_UPLOAD_INVALID",
            Self::BlobUploadUnknown => "BLOB_UPLOAD_UNKNOWN",
            Self::DigestInvalid => "DIGEST_INVALID",
            Self::ManifestBlobUnknown => "MANIFEST_BLOB_UNKNOWN",
            Self::ManifestInvalid => "MANIFEST_INVALID",
            Self::ManifestUnknown => "MANIFEST_UNKNOWN",
            Self::NameInvalid => "NAME_INVALID",
            Self::NameUnknown => "NAME_UNKNOWN",
            Self::SizeInvalid => "SIZE_INVALID",
            Self::Unauthorized => "UNAUTHORIZED",
            Self::Denied => "DENIED",
            Self::Unsupported => "UNSUPPORTED",
            Self::TooManyRequests => "TOOMANYREQUESTS",
            Self::TagInvalid => "TAG_INVALID",
            Self::RangeInvalid => "RANGE_INVALID",
            Self::PaginationNumberInvalid => "PAGINATION_NUMBER_INVALID",
            Self::Unavailable => "UNAVAILABLE",
            Self::Unknown => "UNKNOWN",
        }
    }
}

/// Why a piece of untrusted input was refused: the code to answer with and a sentence for the client.
///
/// The sentence never repeats more than a bounded part of the input.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// The code that the specification gives for it.
    pub code: ErrorCode,
    /// What is wrong and what would be right, in one sentence.
    pub message: String,
}

impl Error {
    /// An error with its code and sentence.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

/// At most 64 characters of `input`, escaped, for a message.
pub(crate) fn excerpt(input: &str) -> String {
    let mut short: String = input.chars().take(64).flat_map(char::escape_debug).collect();
    if input.chars().nth(64).is_some() {
        short.push('…');
    }
    short
}
