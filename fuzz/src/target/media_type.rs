//! Media types of manifests.

use oci::{ErrorCode, MediaType};

use crate::oracle::APPLICATION_TYPE;

pub fn run(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let essence = text.split(';').next().unwrap_or_default().trim_matches([' ', '\t']);
    let good = essence.len() <= MediaType::MAX && APPLICATION_TYPE.matches(essence);
    match MediaType::parse(&text) {
        Ok(parsed) => {
            assert!(good, "{text}");
            assert_eq!(parsed.as_str(), essence);
            assert_eq!(MediaType::parse(&parsed.to_string()), Ok(parsed.clone()));
            assert!(parsed.is(&essence.to_ascii_uppercase()) && !parsed.is(&format!("{essence}x")));
        }
        Err(error) => {
            assert!(!good, "{text}");
            assert_eq!(error.code, ErrorCode::ManifestInvalid);
            assert!(error.message.len() < 2000);
        }
    }
    if oci::is_non_distributable(&text) {
        assert!(MediaType::parse(&text).is_ok());
    }
}
