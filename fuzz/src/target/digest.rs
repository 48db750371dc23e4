//! Digests and hashes: a line of text, then bytes to hash.

use oci::{Algorithm, Digest, ErrorCode, FallbackSubject, Hasher, referrers_fallback_tag};

use crate::Input;
use crate::oracle::DIGEST;
use crate::oracle::manifest::is_digest_of;

// security: E-05, E-06
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let text = input.text_line();
    match Digest::parse(&text) {
        Ok(digest) => {
            assert!(DIGEST.matches(&text), "{text}");
            assert_eq!(digest.to_string(), text);
            assert_eq!(format!("{}:{}", digest.algorithm(), digest.hex()), text);
            assert_eq!(digest.hex().len(), digest.algorithm().hex_len());
            let tag = referrers_fallback_tag(&digest);
            assert_eq!(oci::Tag::parse(tag.as_str()), Ok(tag.clone()));
            assert!(FallbackSubject::parse(&tag).unwrap().is(&digest));
        }
        Err(error) => {
            assert!(!DIGEST.matches(&text), "{text}");
            assert_eq!(error.code, ErrorCode::DigestInvalid);
            assert!(error.message.len() < 2000, "{}", error.message);
        }
    }
    if let Ok(tag) = oci::Tag::parse(&text)
        && let Some(subject) = FallbackSubject::parse(&tag)
    {
        let full = if text.starts_with("sha512") {
            text.replacen('-', ":", 1) + &text[7..]
        } else {
            text.replacen('-', ":", 1)
        };
        assert!(subject.is(&Digest::parse(&full).unwrap()), "{full}");
    }
    let (cut, bytes) = (input.byte(), input.rest());
    for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
        let whole = Hasher::digest(algorithm, bytes);
        assert!(is_digest_of(whole.as_str(), bytes));
        let (before, after) = bytes.split_at(usize::from(cut).min(bytes.len()));
        let mut first = Hasher::new(algorithm);
        first.update(before);
        let mut second = Hasher::resume(&first.export()).unwrap();
        second.update(after);
        assert_eq!(second.finish(), whole);
    }
    // A state as it may lie in a damaged row.
    if let Some(mut hasher) = Hasher::resume(bytes) {
        assert_eq!(hasher.export(), bytes);
        hasher.update(&[0; 300]);
        assert!(DIGEST.matches(hasher.finish().as_str()));
    }
}
