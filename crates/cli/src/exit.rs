//! The exit states, which scripts rely on.

/// What the process ends with. The numbers are fixed; they are documented in `docs/reference/errors.md`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Done.
    Done = 0,
    /// Failed.
    Failed = 1,
    /// Wrong usage or invalid configuration.
    Usage = 2,
    /// Done, and problems were found.
    Found = 3,
    /// Not logged in, or denied.
    Denied = 4,
    /// Refused as unsafe; the message ends with what mends it.
    Unsafe = 6,
    /// The data directory is locked by another server, or its format is too new.
    Locked = 7,
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}
