//! How our types stand in rows, the same for every engine.

use bytes::Bytes;
use oci::{Algorithm, Digest, RepositoryName, Tag, Timestamp};

use crate::error::Error;

/// A parameter of a statement.
#[derive(Clone, Copy, Debug)]
pub enum Value<'a> {
    /// NULL of any type.
    Null,
    /// A BIGINT.
    Int(i64),
    /// A TEXT.
    Text(&'a str),
    /// A BYTEA.
    Bytes(&'a [u8]),
    /// A BYTEA that holds a digest.
    Digest(DigestBytes),
}

/// A digest as it stands in a row: 1 (sha256) or 2 (sha512), then the hash. Sorts as the digest's text does.
#[derive(Clone, Copy, Debug)]
pub struct DigestBytes {
    bytes: [u8; 65],
    length: u8,
}

impl DigestBytes {
    pub(crate) fn new(digest: &Digest) -> Self {
        let nibble = |c: u8| if c.is_ascii_digit() { c - b'0' } else { c - b'a' + 10 };
        let mut bytes = [0; 65];
        bytes[0] = match digest.algorithm() {
            Algorithm::Sha256 => 1,
            Algorithm::Sha512 => 2,
        };
        let mut length = 1;
        for (to, pair) in bytes[1..].iter_mut().zip(digest.hex().as_bytes().chunks_exact(2)) {
            *to = nibble(pair[0]) << 4 | nibble(pair[1]);
            length += 1;
        }
        Self { bytes, length }
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }
}

fn digest_from(bytes: &[u8]) -> Result<Digest, Error> {
    use std::fmt::Write;
    let algorithm = match bytes {
        [1, hash @ ..] if hash.len() == 32 => Algorithm::Sha256,
        [2, hash @ ..] if hash.len() == 64 => Algorithm::Sha512,
        _ => return Err(Error::corrupt(format!("a digest of {} bytes", bytes.len()))),
    };
    let mut text = String::with_capacity(algorithm.hex_len() + 7);
    text.push_str(algorithm.as_str());
    text.push(':');
    for byte in &bytes[1..] {
        let _ = write!(text, "{byte:02x}");
    }
    Digest::parse(&text).map_err(|error| Error::corrupt(error.message))
}

impl From<i64> for Value<'_> {
    fn from(value: i64) -> Self {
        Self::Int(value)
    }
}

impl From<bool> for Value<'_> {
    fn from(value: bool) -> Self {
        Self::Int(i64::from(value))
    }
}

impl From<Timestamp> for Value<'_> {
    fn from(value: Timestamp) -> Self {
        Self::Int(value.0)
    }
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(value: &'a str) -> Self {
        Self::Text(value)
    }
}

impl<'a> From<&'a String> for Value<'a> {
    fn from(value: &'a String) -> Self {
        Self::Text(value)
    }
}

impl<'a> From<&'a RepositoryName> for Value<'a> {
    fn from(value: &'a RepositoryName) -> Self {
        Self::Text(value.as_str())
    }
}

impl<'a> From<&'a Tag> for Value<'a> {
    fn from(value: &'a Tag) -> Self {
        Self::Text(value.as_str())
    }
}

impl<'a> From<&'a [u8]> for Value<'a> {
    fn from(value: &'a [u8]) -> Self {
        Self::Bytes(value)
    }
}

impl<'a> From<&'a Bytes> for Value<'a> {
    fn from(value: &'a Bytes) -> Self {
        Self::Bytes(value)
    }
}

impl From<&Digest> for Value<'_> {
    fn from(value: &Digest) -> Self {
        Self::Digest(DigestBytes::new(value))
    }
}

impl<'a, T: Into<Value<'a>>> From<Option<T>> for Value<'a> {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

/// A value of a row, borrowed from it.
#[derive(Clone, Copy, Debug)]
pub enum Cell<'a> {
    /// NULL.
    Null,
    /// A BIGINT.
    Int(i64),
    /// A TEXT.
    Text(&'a str),
    /// A BYTEA.
    Bytes(&'a [u8]),
}

/// What a column can be read as.
pub trait Column: Sized {
    /// Reads it; [`Error::Corrupt`] when the row holds something else.
    fn read(cell: Cell<'_>) -> Result<Self, Error>;
}

fn unexpected(wanted: &str, cell: Cell<'_>) -> Error {
    let found = match cell {
        Cell::Null => "NULL",
        Cell::Int(_) => "an integer",
        Cell::Text(_) => "text",
        Cell::Bytes(_) => "bytes",
    };
    Error::corrupt(format!("a row holds {found} instead of {wanted}"))
}

impl Column for i64 {
    fn read(cell: Cell<'_>) -> Result<Self, Error> {
        if let Cell::Int(value) = cell { Ok(value) } else { Err(unexpected("an integer", cell)) }
    }
}

impl Column for u64 {
    fn read(cell: Cell<'_>) -> Result<Self, Error> {
        i64::read(cell)?.try_into().map_err(|_| Error::corrupt("a row holds a negative size"))
    }
}

impl Column for bool {
    fn read(cell: Cell<'_>) -> Result<Self, Error> {
        Ok(i64::read(cell)? != 0)
    }
}

impl Column for Timestamp {
    fn read(cell: Cell<'_>) -> Result<Self, Error> {
        i64::read(cell).map(Self)
    }
}

impl Column for String {
    fn read(cell: Cell<'_>) -> Result<Self, Error> {
        if let Cell::Text(value) = cell { Ok(value.to_owned()) } else { Err(unexpected("text", cell)) }
    }
}

impl Column for Bytes {
    fn read(cell: Cell<'_>) -> Result<Self, Error> {
        if let Cell::Bytes(value) = cell { Ok(Self::copy_from_slice(value)) } else { Err(unexpected("bytes", cell)) }
    }
}

impl Column for Digest {
    fn read(cell: Cell<'_>) -> Result<Self, Error> {
        if let Cell::Bytes(value) = cell { digest_from(value) } else { Err(unexpected("a digest", cell)) }
    }
}

impl Column for RepositoryName {
    fn read(cell: Cell<'_>) -> Result<Self, Error> {
        let Cell::Text(value) = cell else { return Err(unexpected("a name", cell)) };
        Self::parse(value).map_err(|error| Error::corrupt(error.message))
    }
}

impl Column for Tag {
    fn read(cell: Cell<'_>) -> Result<Self, Error> {
        let Cell::Text(value) = cell else { return Err(unexpected("a tag", cell)) };
        Self::parse(value).map_err(|error| Error::corrupt(error.message))
    }
}

impl Column for Algorithm {
    fn read(cell: Cell<'_>) -> Result<Self, Error> {
        let Cell::Text(value) = cell else { return Err(unexpected("an algorithm", cell)) };
        Self::parse(value).map_err(|error| Error::corrupt(error.message))
    }
}

impl<T: Column> Column for Option<T> {
    fn read(cell: Cell<'_>) -> Result<Self, Error> {
        if let Cell::Null = cell { Ok(None) } else { T::read(cell).map(Some) }
    }
}

/// A size or an offset as it stands in a row; nothing has 2^63 bytes.
pub(crate) fn size(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// A page size as a parameter of `LIMIT`.
pub(crate) fn limit(rows: usize) -> i64 {
    i64::try_from(rows).unwrap_or(i64::MAX)
}

/// The key that a page goes on after; without one it is before every digest.
pub(crate) fn after(digest: Option<&Digest>) -> Value<'_> {
    digest.map_or(Value::Bytes(&[]), Value::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci::Hasher;

    #[test]
    fn digests_survive_and_keep_their_order() {
        let mut digests: Vec<Digest> =
            (0u8..50).flat_map(|n| [Algorithm::Sha256, Algorithm::Sha512].map(|a| Hasher::digest(a, &[n]))).collect();
        digests.sort();
        let rows: Vec<DigestBytes> = digests.iter().map(DigestBytes::new).collect();
        assert!(rows.is_sorted_by(|a, b| a.as_slice() < b.as_slice()));
        for (digest, row) in digests.iter().zip(&rows) {
            assert_eq!(&digest_from(row.as_slice()).unwrap(), digest);
        }
        for bad in [&[][..], &[1], &[3; 33], &[2; 33], &[1; 65]] {
            assert!(matches!(digest_from(bad), Err(Error::Corrupt { .. })));
        }
    }
}
