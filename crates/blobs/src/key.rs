//! Where a file lies: the id of the upload that wrote it.

use std::fmt;
use std::sync::Arc;

/// The key of a stored file: 32 lower-case hexadecimal digits, the upload's id without dashes.
///
/// The first two digits are the folder, so a random id spreads the files evenly over 256 folders.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(Arc<str>);

impl Key {
    /// Parses a key; `None` when it is not one.
    pub fn parse(text: &str) -> Option<Self> {
        let valid = text.len() == 32 && text.bytes().all(|c| c.is_ascii_digit() || matches!(c, b'a'..=b'f'));
        valid.then(|| Self(text.into()))
    }

    /// The key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The folder: the first two digits.
    pub fn folder(&self) -> &str {
        &self.0[..2]
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_lower_case_hexadecimal_of_one_length() {
        let good = "00112233445566778899aabbccddeeff";
        assert_eq!(Key::parse(good).unwrap().folder(), "00");
        for bad in ["", "..", &good[1..], &format!("{good}0"), &good.to_uppercase(), &good.replace('0', "/")] {
            assert!(Key::parse(bad).is_none(), "{bad}");
        }
    }
}
