//! The body of an error response.

use serde::Serialize;

use crate::{Error, ErrorCode};

/// The longest error body, in bytes: oras reads no more (Q83).
pub const MAX_ERROR_BODY: usize = 8 * 1024;

/// One entry of an error body.
#[derive(Clone, Debug, PartialEq)]
pub struct ErrorEntry {
    /// The code.
    pub code: ErrorCode,
    /// A sentence for people.
    pub message: String,
    /// Anything for programs; left out when absent.
    pub detail: Option<serde_json::Value>,
}

impl From<Error> for ErrorEntry {
    fn from(error: Error) -> Self {
        Self { code: error.code, message: error.message, detail: None }
    }
}

#[derive(Serialize)]
struct Rendered<'a> {
    code: &'static str,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'a serde_json::Value>,
}

/// `{"errors":[…]}` (the specification, "Error Codes"), at most [`MAX_ERROR_BODY`] bytes: entries that do not fit are
/// left out. Never empty: without entries it holds one `UNKNOWN`, and a first entry that does not fit is shortened to
/// its code.
pub fn error_body(entries: &[ErrorEntry]) -> Vec<u8> {
    const END: &[u8] = b"]}";
    let mut body = br#"{"errors":["#.to_vec();
    let empty = body.len();
    for entry in entries {
        let rendered = Rendered { code: entry.code.as_str(), message: &entry.message, detail: entry.detail.as_ref() };
        let Ok(json) = serde_json::to_vec(&rendered) else { continue };
        if body.len() + 1 + json.len() + END.len() > MAX_ERROR_BODY {
            break;
        }
        if body.len() > empty {
            body.push(b',');
        }
        body.extend_from_slice(&json);
    }
    if body.len() == empty {
        let code = entries.first().map_or(ErrorCode::Unknown, |entry| entry.code);
        body.extend_from_slice(format!(r#"{{"code":"{}"}}"#, code.as_str()).as_bytes());
    }
    body.extend_from_slice(END);
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(message: &str, detail: Option<serde_json::Value>) -> ErrorEntry {
        ErrorEntry { code: ErrorCode::ManifestBlobUnknown, message: message.to_owned(), detail }
    }

    #[test]
    fn form() {
        let body = error_body(&[entry("no \"x\"", Some(serde_json::json!({"digest": "d"}))), entry("b", None)]);
        assert_eq!(
            String::from_utf8(body).unwrap(),
            r#"{"errors":[{"code":"MANIFEST_BLOB_UNKNOWN","message":"no \"x\"","detail":{"digest":"d"}},{"code":"MANIFEST_BLOB_UNKNOWN","message":"b"}]}"#
        );
        assert_eq!(error_body(&[]), br#"{"errors":[{"code":"UNKNOWN"}]}"#);
    }

    #[test]
    fn q83_bounded() {
        let many = vec![entry(&"m".repeat(200), None); 1000];
        let body = error_body(&many);
        assert!(body.len() <= MAX_ERROR_BODY);
        let json: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert!(json["errors"].as_array().unwrap().len() > 30);
        assert_eq!(error_body(&[entry(&"m".repeat(9000), None)]), br#"{"errors":[{"code":"MANIFEST_BLOB_UNKNOWN"}]}"#);
    }
}
