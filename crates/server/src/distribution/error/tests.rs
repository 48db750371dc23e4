use std::collections::BTreeSet;
use std::io;

use http_body_util::BodyExt;
use oci::{Digest, Reference, Tag};
use registry::push::UploadId;

use super::*;
use crate::auth::Scheme;
use crate::config::PublicUrl;

const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// Status, the headers that carry meaning, and the body.
async fn told(failure: Failure) -> String {
    told_of(failure, false).await
}

async fn told_of(failure: Failure, upload: bool) -> String {
    let url = PublicUrl::parse("http://localhost:5000").unwrap();
    let asked = Asked {
        challenge: Challenge::new(Scheme::Bearer, url),
        request_id: "req-1",
        repository: Some("team/app"),
        upload,
        scope: Some("repository:team/app:pull".to_owned()),
    };
    let response = answer(failure, &asked);
    let mut text = response.status().as_u16().to_string();
    let names =
        ["www-authenticate", "retry-after", "allow", "location", "range", "docker-upload-uuid", "content-range"];
    for name in names {
        if let Some(value) = response.headers().get(name) {
            text.push_str(&format!(" {name}: {}", value.to_str().unwrap()));
        }
    }
    assert_eq!(response.headers()["content-type"], "application/json");
    // Of all failures exactly those that pass by themselves say when to come back, and no other has their codes.
    let passes = matches!(response.status().as_u16(), 429 | 503 | 507);
    assert_eq!(response.headers().contains_key("retry-after"), passes, "{text}");
    let body = response.into_body().collect().await.unwrap().to_bytes();
    let errors: serde_json::Value = serde_json::from_slice(&body).unwrap();
    for error in errors["errors"].as_array().unwrap() {
        assert_eq!(matches!(error["code"].as_str(), Some("TOOMANYREQUESTS" | "UNAVAILABLE")), passes, "{text}");
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
        Error::UploadBusy { id: id(), offset: 7 },
        Error::PreconditionFailed,
        Error::MissingBlobs(vec![digest(), digest()]),
        Error::DigestMismatch { expected: digest(), actual: digest() },
        Error::SizeMismatch { expected: 4, actual: 3 },
        Error::TooLarge { limit: 4 },
        Error::BlobInUse { digest: digest(), manifest: digest() },
        Error::Refused(Refusal::Hidden),
        Error::TagDenied { tag: tag(), verb: Verb::TagMove },
        Error::TooManyUploads { limit: 100 },
        Error::Full("secret detail".into()),
        Error::ReadOnly("secret detail".into()),
        Error::Unavailable { retry_after_s: 5, source: None },
        Error::Unavailable { retry_after_s: 5, source: Some("secret detail".into()) },
        Error::Unsure("secret detail".into()),
        Error::Damaged { digest: digest(), source: None },
        Error::ClientGone(io::ErrorKind::UnexpectedEof.into()),
        Error::Conflict { what: "something else stands in the way".to_owned() },
        Error::Internal("secret detail".into()),
    ];
    insta::assert_snapshot!(table(all.map(Failure::from)).await, @r#"
    400 | MANIFEST_INVALID not JSON
    404 | NAME_UNKNOWN there is no such repository, or you may not see it
    404 | BLOB_UNKNOWN there is no blob <digest> here
    404 | MANIFEST_UNKNOWN there is no manifest v1 here
    404 | BLOB_UPLOAD_UNKNOWN there is no such upload, or it is not yours: start again
    416 location: /v2/team/app/blobs/uploads/0f8fad5b-d9cb-469f-a165-70867728950e?state=0 range: 0-0 docker-upload-uuid: 0f8fad5b-d9cb-469f-a165-70867728950e | RANGE_INVALID the upload goes on at byte 0
    416 location: /v2/team/app/blobs/uploads/0f8fad5b-d9cb-469f-a165-70867728950e?state=7 range: 0-6 docker-upload-uuid: 0f8fad5b-d9cb-469f-a165-70867728950e | RANGE_INVALID the upload goes on at byte 7
    416 location: /v2/team/app/blobs/uploads/0f8fad5b-d9cb-469f-a165-70867728950e?state=7 range: 0-6 docker-upload-uuid: 0f8fad5b-d9cb-469f-a165-70867728950e | RANGE_INVALID another request is writing to this upload: try again when it is done
    412 | UNSUPPORTED the precondition does not hold
    400 | MANIFEST_BLOB_UNKNOWN the manifest needs <digest>, which is not in this repository: push it first {"digest":"<digest>"} | MANIFEST_BLOB_UNKNOWN the manifest needs <digest>, which is not in this repository: push it first {"digest":"<digest>"}
    400 | DIGEST_INVALID the bytes have the digest <digest>, not <digest>
    400 | SIZE_INVALID 4 bytes were announced and 3 came
    413 | SIZE_INVALID larger than the limit of 4 bytes
    405 | UNSUPPORTED the manifest <digest> needs <digest>: delete the manifest first
    404 | NAME_UNKNOWN there is no such repository, or you may not see it
    403 | DENIED this needs the verb tag-move for the tag v1
    429 retry-after: 10 | TOOMANYREQUESTS you have 100 unfinished uploads already: finish or cancel some
    507 retry-after: 60 | UNAVAILABLE the registry's disk is full
    503 retry-after: 30 | UNAVAILABLE the registry cannot write now
    503 retry-after: 5 | UNAVAILABLE the registry is busy: try again
    503 retry-after: 5 | UNAVAILABLE the registry cannot reach its store or its database: try again
    503 retry-after: 5 | UNAVAILABLE it is not known whether this was done: send it again, which does no harm
    500 | UNKNOWN internal error: the server's log has more under req-1
    400 | BLOB_UPLOAD_INVALID the body ended too early: unexpected end of file
    409 | UNSUPPORTED something else stands in the way
    500 | UNKNOWN internal error: the server's log has more under req-1
    "#);
}

/// Only who knows the upload can go on with it.
#[tokio::test]
async fn a_full_disk_under_an_upload() {
    let told = told_of(Failure::from(registry::Error::Full("secret detail".into())), true).await;
    assert!(told.ends_with("the registry's disk is full: the status of the upload tells what of it is kept"), "{told}");
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
    insta::assert_snapshot!(table(all.map(Failure::from)).await, @r#"
    401 www-authenticate: Bearer realm="http://localhost:5000/token",service="localhost:5000" | UNAUTHORIZED log in first
    401 www-authenticate: Bearer realm="http://localhost:5000/token",service="localhost:5000",scope="repository:team/app:pull" | UNAUTHORIZED log in first
    401 www-authenticate: Bearer realm="http://localhost:5000/token",service="localhost:5000",scope="repository:team/app:pull,push",error="insufficient_scope" | UNAUTHORIZED the token does not cover this: ask for one with this scope
    401 www-authenticate: Bearer realm="http://localhost:5000/token",service="localhost:5000",error="invalid_token" | UNAUTHORIZED the token is not valid, or not any more
    403 | DENIED user:alice may not push
    404 | NAME_UNKNOWN there is no such repository, or you may not see it
    "#);
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
        Failure::Cut(std::io::Error::new(std::io::ErrorKind::TimedOut, "too slow")),
        Failure::Cut(std::io::Error::new(std::io::ErrorKind::ConnectionAborted, "stopping")),
        Failure::TagDenied { verb: Verb::TagMove, reason: "user:alice may not move tag v1".to_owned() },
        AuthError::Ambiguous("twice").into(),
        AuthError::RejectedBasic.into(),
        AuthError::RejectedToken.into(),
        AuthError::Throttled { wait }.into(),
        AuthError::Busy { wait }.into(),
        AuthError::Internal("secret detail".into()).into(),
        AuthError::Internal(Box::new(meta::Error::Busy)).into(),
    ];
    insta::assert_snapshot!(table(all).await, @r#"
    404 | UNSUPPORTED there is no such endpoint
    405 allow: GET, HEAD | UNSUPPORTED this endpoint takes GET, HEAD
    404 | BLOB_UPLOAD_UNKNOWN there is no such upload, or it is not yours: start again
    400 | NAME_INVALID not a name
    414 | UNSUPPORTED too many query parameters
    400 | DIGEST_INVALID two digests
    400 | RANGE_INVALID not a range
    414 | UNSUPPORTED too long
    413 | SIZE_INVALID the body is larger than the limit of 4 bytes
    412 | UNSUPPORTED the precondition does not hold
    416 content-range: bytes */10 | RANGE_INVALID none of the ranges is within 10 bytes
    400 | BLOB_UPLOAD_INVALID gone
    408 | BLOB_UPLOAD_INVALID too slow
    503 retry-after: 5 | UNAVAILABLE stopping
    403 | DENIED user:alice may not move tag v1
    400 | UNAUTHORIZED twice
    401 www-authenticate: Bearer realm="http://localhost:5000/token",service="localhost:5000",scope="repository:team/app:pull" | UNAUTHORIZED the name or the secret is wrong
    401 www-authenticate: Bearer realm="http://localhost:5000/token",service="localhost:5000",scope="repository:team/app:pull",error="invalid_token" | UNAUTHORIZED the token is not valid, or not any more
    429 retry-after: 2 | TOOMANYREQUESTS too many wrong logins from here: wait
    503 retry-after: 2 | UNAVAILABLE too many logins are being checked: try again
    500 | UNKNOWN internal error: the server's log has more under req-1
    503 retry-after: 1 | UNAVAILABLE the registry cannot reach its store or its database: try again
    "#);
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
