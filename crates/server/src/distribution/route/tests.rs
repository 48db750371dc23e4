use proptest::prelude::*;

use super::*;

const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
const ID: &str = "0f8fad5b-d9cb-469f-a165-70867728950e";

fn get(path: &str) -> Result<Route, RouteError> {
    Route::parse(&Method::GET, path)
}

fn code(path: &str) -> ErrorCode {
    match get(path) {
        Err(RouteError::Invalid(error)) => error.code,
        other => panic!("{path}: {other:?}"),
    }
}

fn name(text: &str) -> RepositoryName {
    RepositoryName::parse(text).unwrap()
}

#[test]
fn every_endpoint() {
    let digest = Digest::parse(DIGEST).unwrap();
    let tag = || Reference::Tag(Tag::parse("v1").unwrap());
    let id = UploadId::parse(ID).unwrap();
    let upload = format!("/v2/a/b/blobs/uploads/{ID}");
    for (method, path, route) in [
        (Method::GET, "/v2", Route::Base),
        (Method::HEAD, "/v2/", Route::Base),
        (Method::GET, "/v2/_catalog", Route::Catalog),
        (Method::GET, "/v2/_oci/ext/discover", Route::Discover),
        (Method::GET, "/v2/a/b/tags/list", Route::Tags(name("a/b"))),
        (Method::GET, &format!("/v2/a/referrers/{DIGEST}"), Route::Referrers(name("a"), digest.clone())),
        (Method::GET, "/v2/a/manifests/v1", Route::ManifestGet(name("a"), tag())),
        (Method::HEAD, "/v2/a/manifests/v1", Route::ManifestHead(name("a"), tag())),
        (Method::PUT, "/v2/a/manifests/v1", Route::ManifestPut(name("a"), tag())),
        (Method::DELETE, "/v2/a/manifests/v1", Route::ManifestDelete(name("a"), tag())),
        (Method::GET, &format!("/v2/a/blobs/{DIGEST}"), Route::BlobGet(name("a"), digest.clone())),
        (Method::HEAD, &format!("/v2/a/blobs/{DIGEST}"), Route::BlobHead(name("a"), digest.clone())),
        (Method::DELETE, &format!("/v2/a/blobs/{DIGEST}"), Route::BlobDelete(name("a"), digest.clone())),
        (Method::POST, "/v2/a/blobs/uploads", Route::UploadStart(name("a"))),
        (Method::POST, "/v2/a/blobs/uploads/", Route::UploadStart(name("a"))),
        (Method::PATCH, &upload, Route::UploadAppend(name("a/b"), id.clone())),
        (Method::PUT, &upload, Route::UploadFinish(name("a/b"), id.clone())),
        (Method::GET, &upload, Route::UploadStatus(name("a/b"), id.clone())),
        (Method::HEAD, &upload, Route::UploadStatus(name("a/b"), id.clone())),
        (Method::DELETE, &upload, Route::UploadCancel(name("a/b"), id)),
    ] {
        assert_eq!(Route::parse(&method, path).as_ref(), Ok(&route), "{method} {path}");
        assert_eq!(route.need().is_some(), route.repository().is_some());
    }
}

#[test]
fn names_that_are_words_of_the_api() {
    let tag = |text: &str| Reference::Tag(Tag::parse(text).unwrap());
    for (path, route) in [
        ("/v2/manifests/manifests/manifests", Route::ManifestGet(name("manifests"), tag("manifests"))),
        ("/v2/blobs/uploads/tags/list", Route::Tags(name("blobs/uploads"))),
        ("/v2/tags/list/manifests/list", Route::ManifestGet(name("tags/list"), tag("list"))),
        ("/v2/a/blobs/uploads/manifests/v1", Route::ManifestGet(name("a/blobs/uploads"), tag("v1"))),
        (
            &format!("/v2/referrers/referrers/{DIGEST}"),
            Route::Referrers(name("referrers"), Digest::parse(DIGEST).unwrap()),
        ),
        ("/v2/v2/tags/list", Route::Tags(name("v2"))),
    ] {
        assert_eq!(get(path), Ok(route), "{path}");
    }
}

#[test]
fn decodes_once_and_strictly() {
    let encoded = DIGEST.replace(':', "%3A");
    assert!(matches!(get(&format!("/v2/a/blobs/{encoded}")), Ok(Route::BlobGet(..))));
    assert_eq!(get("/v2/a/manifests/%761"), get("/v2/a/manifests/v1"));
    for path in [
        "/v2/team-a%2fx/tags/list",
        "/v2/team-a/x%2f..%2fz/tags/list",
        "/v2/%2e%2e/a/tags/list",
        "/v2/a/../b/tags/list",
        "/v2/a/%252e/tags/list",
        "/v2/a%5cb/tags/list",
        "/v2/a/..;/b/tags/list",
        "/v2/a%zz/tags/list",
        "/v2/a%2/tags/list",
        "/v2/a%/tags/list",
        "/v2/a%ff/tags/list",
        "/v2/a%00/tags/list",
        "/v2//a/tags/list",
        "/v2/a//tags/list",
        "/v2/A/tags/list",
        "/v2/tags/list",
        "/v2/a/tags/list/",
        "/v2/a/tags//list",
        "/v2//",
        "/v2/%2e/",
        "/v2/../v2/",
    ] {
        assert_eq!(code(path), ErrorCode::NameInvalid, "{path}");
    }
    for path in ["/v2/a/manifests/%2e%2e%2fv1", "/v2/a/manifests/-v1", "/v2/a/manifests/", "/v2/a/manifests/v%2f1"] {
        assert_eq!(code(path), ErrorCode::TagInvalid, "{path}");
    }
    for path in [
        "/v2/a/manifests/sha256:bad".to_owned(),
        format!("/v2/a/blobs/{}", DIGEST.to_uppercase()),
        "/v2/a/blobs/..%2f..".to_owned(),
        "/v2/a/referrers/sha256:..%2f..".to_owned(),
    ] {
        assert_eq!(code(&path), ErrorCode::DigestInvalid, "{path}");
    }
}

#[test]
fn unknown_endpoints_and_methods() {
    for path in ["/v2/a", "/v2/a/b/c", "/v2/_catalog/a", "/v2/_oci/ext", "/v2x", "/", "/v1/search", "/v2/;a"] {
        assert_eq!(get(path), Err(RouteError::NotFound), "{path}");
    }
    for id in ["x", "..%2fx", &ID.to_uppercase(), &ID[1..]] {
        assert_eq!(get(&format!("/v2/a/blobs/uploads/{id}")), Err(RouteError::UploadUnknown), "{id}");
    }
    for (path, allow) in [
        ("/v2/", "GET, HEAD"),
        ("/v2/_catalog", "GET, HEAD"),
        ("/v2/a/tags/list", "GET, HEAD"),
        ("/v2/a/manifests/v1", "GET, HEAD, PUT, DELETE"),
        (&format!("/v2/a/blobs/{DIGEST}"), "GET, HEAD, DELETE"),
        (&format!("/v2/a/blobs/uploads/{ID}"), "GET, HEAD, PATCH, PUT, DELETE"),
        ("/v2/a/blobs/uploads/", "POST"),
    ] {
        for method in [Method::OPTIONS, Method::TRACE, Method::from_bytes(b"BREW").unwrap()] {
            assert_eq!(Route::parse(&method, path), Err(RouteError::Method(allow)), "{method} {path}");
        }
    }
}

#[test]
fn paths_that_a_proxy_would_clean() {
    for path in ["//v2/", "/V2/", "/%76%32/", "/v2;x/", "/api/../v2/", "/api/%2e%2e/v2/", "/a%2f..", "/./v2/", "/a//b"]
    {
        assert!(is_confusing(path), "{path}");
    }
    for path in ["/", "/v1/search", "/token", "/healthz", "/a/b/", "/v22/"] {
        assert!(!is_confusing(path), "{path}");
    }
}

proptest! {
    #[test]
    fn never_panics_and_accepts_only_names(path in "/v2/[a-zA-Z0-9/%._:-]{0,80}") {
        if let Ok(route) = get(&path)
            && let Some(name) = route.repository()
        {
            prop_assert!(RepositoryName::parse(name.as_str()).is_ok());
            prop_assert!(!name.as_str().contains(".."));
        }
    }
}
