use std::collections::BTreeSet;
use std::io;

use http_body_util::BodyExt;
use oci::{Digest, Reference, Tag};
use policy::Verb;
use registry::push::UploadId;

use super::*;
use crate::auth::Scheme;
use crate::config::PublicUrl;

const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// Status, the headers that carry meaning, and the body.
async fn told(failure: Failure) -> String {
    let url = PublicUrl::parse("http://localhost:5000").unwrap();
    let asked =
        Asked { challenge: Challenge::new(Scheme::Bearer, url), request_id: "req-1", repository: Some("team/app") };
    let response = answer(failure, &asked);
    let mut text = response.status().as_u16().to_string();
    let names =
        ["www-authenticate", "retry-after", "allow", "location", "range", "docker-upload-uuid", "content-range"];
    for name in names.into_iter().chain(["connection"]) {
        if let Some(value) = response.headers().get(name) {
            text.push_str(&format!(" {name}: {}", value.to_str().unwrap()));
        }
    }
    assert_eq!(response.headers()["content-type"], "application/json");
    let body = response.into_body().collect().await.unwrap().to_bytes();
    let errors: serde_json::Value = serde_json::from_slice(&body).unwrap();
    for error in errors["errors"].as_array().unwrap() {
        text.push_str(&format!(" | {} {}", error["code"].as_str().unwrap(), error["message"].as_str().unwrap()));
        if let Some(detail) = error.get("detail") {
            text.push_str(&format!(" {detail}"));
        }
    }
    text.replace(EMPTY, "<digest>")
}

fn digest() -> Digest {
    Digest::parse(EMPTY).unwrap()
}

fn tag() -> Tag {
    Tag::parse("v1").unwrap()
}

fn id() -> UploadId {
    UploadId::parse("0f8fad5b-d9cb-469f-a165-70867728950e").unwrap()
}

async fn table(failures: impl IntoIterator<Item = Failure>) -> String {
    let mut lines = Vec::new();
    for failure in failures {
        lines.push(told(failure).await);
    }
    lines.join("\n")
}

#[tokio::test]
async fn every_error_of_an_operation() {
    use registry::Error;
    let all = [
        Error::Oci(oci::Error::new(ErrorCode::ManifestInvalid, "not JSON")),
        Error::NameUnknown,
        Error::BlobUnknown(digest()),
        Error::ManifestUnknown(Reference::Tag(tag())),
        Error::UploadUnknown,
        Error::OutOfRange { id: id(), offset: 0 },
        Error::OutOfRange { id: id(), offset: 7 },
        Error::MissingBlobs(vec![digest(), digest()]),
        Error::DigestMismatch { expected: digest(), actual: digest() },
        Error::SizeMismatch { expected: 4, actual: 3 },
        Error::TooLarge { limit: 4 },
        Error::BlobInUse { digest: digest(), manifest: digest() },
        Error::Refused(Refusal::Hidden),
        Error::TagDenied { tag: tag(), verb: Verb::TagMove },
        Error::TooManyUploads { limit: 100 },
        Error::Full,
        Error::ReadOnly,
        Error::Unavailable { retry_after_s: 5, source: None },
        Error::Damaged { digest: digest(), source: None },
        Error::ClientGone(io::ErrorKind::UnexpectedEof.into()),
        Error::Conflict { what: "something else stands in the way".to_owned() },
        Error::Internal("secret detail".into()),
    ];
    insta::assert_snapshot!(table(all.map(Failure::from)).await, @"");
}

#[tokio::test]
async fn every_refusal() {
    let challenge = |scope: Option<&str>, error| Refusal::Challenge { scope: scope.map(str::to_owned), error };
    let all = [
        challenge(None, None),
        challenge(Some("repository:team/app:pull"), None),
        challenge(Some("repository:team/app:pull,push"), Some("insufficient_scope")),
        challenge(None, Some("invalid_token")),
        Refusal::Denied { reason: "user:alice may not push".to_owned() },
        Refusal::Hidden,
    ];
    insta::assert_snapshot!(table(all.map(Failure::from)).await, @"");
}

#[tokio::test]
async fn every_other_failure() {
    let wait = Duration::from_millis(1500);
    let all = [
        RouteError::NotFound.into(),
        RouteError::Method("GET, HEAD").into(),
        RouteError::UploadUnknown.into(),
        RouteError::Invalid(oci::Error::new(ErrorCode::NameInvalid, "not a name")).into(),
        QueryError::TooLong.into(),
        QueryError::Invalid(oci::Error::new(ErrorCode::DigestInvalid, "two digests")).into(),
        Failure::Malformed(oci::Error::new(ErrorCode::RangeInvalid, "not a range")),
        Failure::TooLong("too long"),
        Failure::TooLarge(4),
        Failure::Precondition,
        Failure::Range(10),
        Failure::Body("gone".to_owned()),
        AuthError::Ambiguous("twice").into(),
        AuthError::RejectedBasic.into(),
        AuthError::RejectedToken.into(),
        AuthError::Throttled { wait }.into(),
        AuthError::Busy { wait }.into(),
        AuthError::Internal("secret detail".into()).into(),
    ];
    insta::assert_snapshot!(table(all).await, @"");
}

#[tokio::test]
async fn q14_hidden_and_missing_are_the_same_byte_for_byte() {
    assert_eq!(told(Refusal::Hidden.into()).await, told(registry::Error::NameUnknown.into()).await);
}

#[test]
fn every_code_has_its_status() {
    use ErrorCode::*;
    let all = [
        (BlobUnknown, 404),
        (BlobUploadInvalid, 400),
        (BlobUploadUnknown, 404),
        (DigestInvalid, 400),
        (ManifestBlobUnknown, 400),
        (ManifestInvalid, 400),
        (ManifestUnknown, 404),
        (NameInvalid, 400),
        (NameUnknown, 404),
        (SizeInvalid, 400),
        (Unauthorized, 401),
        (Denied, 403),
        (Unsupported, 405),
        (TooManyRequests, 429),
        (TagInvalid, 400),
        (RangeInvalid, 416),
        (PaginationNumberInvalid, 400),
        (Unavailable, 503),
        (Unknown, 500),
    ];
    for (code, expected) in all {
        assert_eq!(status(code).as_u16(), expected, "{code:?}");
    }
    let texts: BTreeSet<&str> = all.iter().map(|(code, _)| code.as_str()).collect();
    assert_eq!(texts.len(), all.len());
}
