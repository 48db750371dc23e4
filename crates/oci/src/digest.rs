//! Digests: `sha256:…` and `sha512:…` in canonical form.

use std::fmt;
use std::sync::Arc;

use crate::error::{Error, ErrorCode, excerpt};

/// The digest algorithms that are enabled (image specification, `descriptor.md`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Algorithm {
    /// SHA-256, 64 lower-case hexadecimal digits.
    Sha256,
    /// SHA-512, 128 lower-case hexadecimal digits.
    Sha512,
}

impl Algorithm {
    /// Parses an algorithm's name, as in `digest-algorithm=sha512`; `DIGEST_INVALID` when it is not enabled.
    pub fn parse(text: &str) -> Result<Self, Error> {
        match text {
            "sha256" => Ok(Self::Sha256),
            "sha512" => Ok(Self::Sha512),
            _ => Err(Error::new(
                ErrorCode::DigestInvalid,
                format!("'{}' is not a supported digest algorithm: use sha256 or sha512", excerpt(text)),
            )),
        }
    }

    /// The name in front of the colon.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }

    /// How many hexadecimal digits follow the colon.
    pub fn hex_len(self) -> usize {
        match self {
            Self::Sha256 => 64,
            Self::Sha512 => 128,
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A digest of a supported algorithm, in canonical form. Ordered as text.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest(Arc<str>);

impl Digest {
    /// Parses `algorithm:hex`; `DIGEST_INVALID` when it is malformed, not canonical or of another algorithm.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let invalid =
            |why: &str| Error::new(ErrorCode::DigestInvalid, format!("'{}' is not a digest: {why}", excerpt(text)));
        let Some((algorithm, hex)) = text.split_once(':') else {
            return Err(invalid("it has no ':'; write sha256:<64 hexadecimal digits>"));
        };
        let algorithm = Algorithm::parse(algorithm)?;
        if hex.len() != algorithm.hex_len() || !hex.bytes().all(|c| c.is_ascii_digit() || matches!(c, b'a'..=b'f')) {
            return Err(invalid(&format!("{algorithm} takes {} lower-case hexadecimal digits", algorithm.hex_len())));
        }
        Ok(Self(text.into()))
    }

    /// The digest with this algorithm and these hash bytes; `None` when their number does not fit.
    pub(crate) fn from_hash(algorithm: Algorithm, hash: &[u8]) -> Self {
        use fmt::Write;
        let mut text = String::with_capacity(8 + hash.len() * 2);
        text.push_str(algorithm.as_str());
        text.push(':');
        for byte in hash {
            let _ = write!(text, "{byte:02x}");
        }
        Self(text.into())
    }

    /// `algorithm:hex`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The algorithm.
    pub fn algorithm(&self) -> Algorithm {
        if self.0.len() == "sha256:".len() + Algorithm::Sha256.hex_len() {
            Algorithm::Sha256
        } else {
            Algorithm::Sha512
        }
    }

    /// The hexadecimal part.
    pub fn hex(&self) -> &str {
        &self.0["sha256:".len()..]
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn round_trips_and_never_panics(good in "sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}", text in "\\PC{0,20}|(sha256|sha512)?:?[0-9a-gA-F]{0,140}") {
            let digest = Digest::parse(&good).unwrap();
            prop_assert_eq!(format!("{}:{}", digest.algorithm(), digest.hex()), good);
            if let Ok(digest) = Digest::parse(&text) {
                prop_assert_eq!(digest.as_str(), text);
            }
        }
    }

    #[test]
    fn parses_only_the_canonical_form() {
        let (hex64, hex128) = ("0123456789abcdef".repeat(4), "0123456789abcdef".repeat(8));
        for (good, algorithm) in
            [(format!("sha256:{hex64}"), Algorithm::Sha256), (format!("sha512:{hex128}"), Algorithm::Sha512)]
        {
            let digest = Digest::parse(&good).unwrap();
            assert_eq!((digest.as_str(), digest.algorithm()), (good.as_str(), algorithm));
            assert_eq!(digest.hex().len(), algorithm.hex_len());
        }
        for bad in [
            "",
            ":",
            "sha256",
            "sha256:",
            &format!("sha256:{}", &hex64[1..]),
            &format!("sha256:{hex64}0"),
            &format!("sha256:{}", hex64.to_uppercase()),
            &format!("SHA256:{hex64}"),
            &format!("md5:{}", &hex64[..32]),
            &format!("sha512:{hex64}"),
            "sha256:../../etc",
            &format!("sha256+b64u:{hex64}"),
            &"9".repeat(1 << 20),
        ] {
            assert_eq!(Digest::parse(bad).unwrap_err().code, ErrorCode::DigestInvalid);
        }
    }
}
