//! Names of repositories, tags, and references that are one of tag and digest.

use oci::{ErrorCode, Reference, RepositoryName, Tag};

use crate::oracle::{DIGEST, NAME, TAG};

// security: E-01, I-08
pub fn run(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let name = RepositoryName::parse(&text);
    assert_eq!(name.is_ok(), NAME.matches(&text) && text.len() <= RepositoryName::MAX, "{text}");
    match name {
        Ok(name) => {
            assert_eq!(name.to_string(), text);
            assert_eq!(name.components().collect::<Vec<_>>().join("/"), text);
        }
        Err(error) => {
            assert_eq!(error.code, ErrorCode::NameInvalid);
            assert!(error.message.len() < 2000);
        }
    }
    let tag = Tag::parse(&text);
    assert_eq!(tag.is_ok(), TAG.matches(&text), "{text}");
    match &tag {
        Ok(tag) => assert_eq!(tag.to_string(), text),
        Err(error) => assert_eq!(error.code, ErrorCode::TagInvalid),
    }
    match Reference::parse(&text) {
        Ok(reference) => {
            assert_eq!(reference.to_string(), text);
            assert_eq!(matches!(reference, Reference::Digest(_)), DIGEST.matches(&text));
            assert_eq!(matches!(reference, Reference::Tag(_)), tag.is_ok());
        }
        Err(error) => {
            assert!(tag.is_err() && !DIGEST.matches(&text), "{text}");
            let code = if text.contains(':') { ErrorCode::DigestInvalid } else { ErrorCode::TagInvalid };
            assert_eq!(error.code, code);
        }
    }
}
