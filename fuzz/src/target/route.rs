//! Paths of requests: a byte for the method, then the path behind `/v2/`, or, with a line feed first, a whole path.

use http::Method;
use oci::{Reference, Tag};
use server::distribution::{Route, RouteError, is_confusing};

use crate::Input;
use crate::oracle::{DIGEST, NAME, percent_decoded};

const METHODS: [Method; 7] =
    [Method::GET, Method::HEAD, Method::PUT, Method::POST, Method::PATCH, Method::DELETE, Method::OPTIONS];

// security: A-03, E-03, E-08
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let method = &METHODS[input.below(METHODS.len())];
    let text = String::from_utf8_lossy(input.rest()).into_owned();
    let path = text.strip_prefix('\n').map_or_else(|| format!("/v2/{text}"), str::to_owned);
    if path != "/v2" && !path.starts_with("/v2/") {
        elsewhere(&path);
        return;
    }
    match Route::parse(method, &path) {
        Ok(route) => known(&route, method, &path),
        Err(RouteError::Method(allow)) => {
            for name in allow.split(", ") {
                let other: Method = name.parse().unwrap();
                assert_ne!(other, *method);
                known(&Route::parse(&other, &path).unwrap(), &other, &path);
            }
            for method in METHODS.iter().filter(|method| !allow.split(", ").any(|name| name == method.as_str())) {
                assert_eq!(Route::parse(method, &path), Err(RouteError::Method(allow)));
            }
        }
        Err(RouteError::Invalid(error)) => assert!(error.message.len() < 2000),
        Err(RouteError::NotFound | RouteError::UploadUnknown) => {}
    }
}

/// A route leads to where the decoded path says, and its canonical path to the same route.
fn known(route: &Route, method: &Method, path: &str) {
    let canonical = canonical(route);
    assert_eq!(Route::parse(method, &canonical).as_ref(), Ok(route), "{path} {canonical}");
    // Decoding the whole path at once would have made the same of it: no encoded separator has become one.
    let slash = if path.ends_with("/blobs/uploads/") { "/" } else { "" };
    let decoded = percent_decoded(path).unwrap();
    assert!(
        decoded == canonical || decoded == format!("{canonical}{slash}") || canonical == "/v2/",
        "{path} {canonical}"
    );
    assert!(!decoded.contains("//") && !decoded.contains("/.") && !decoded.contains('\\'), "{path}");
    if let Some(name) = route.repository() {
        assert!(NAME.matches(name.as_str()));
        assert!(route.need().is_some() && route.verb().is_some());
    }
    assert!(!route.label().is_empty());
}

fn canonical(route: &Route) -> String {
    match route {
        Route::Base => "/v2/".to_owned(),
        Route::Catalog => "/v2/_catalog".to_owned(),
        Route::Discover => "/v2/_oci/ext/discover".to_owned(),
        Route::Tags(name) => format!("/v2/{name}/tags/list"),
        Route::Referrers(name, digest) => format!("/v2/{name}/referrers/{digest}"),
        Route::ManifestGet(name, reference)
        | Route::ManifestHead(name, reference)
        | Route::ManifestPut(name, reference)
        | Route::ManifestDelete(name, reference) => {
            match reference {
                Reference::Digest(digest) => assert!(DIGEST.matches(digest.as_str())),
                Reference::Tag(tag) => assert!(Tag::parse(tag.as_str()).is_ok()),
            }
            format!("/v2/{name}/manifests/{reference}")
        }
        Route::BlobGet(name, digest) | Route::BlobHead(name, digest) | Route::BlobDelete(name, digest) => {
            format!("/v2/{name}/blobs/{digest}")
        }
        Route::UploadStart(name) => format!("/v2/{name}/blobs/uploads"),
        Route::UploadAppend(name, id)
        | Route::UploadFinish(name, id)
        | Route::UploadStatus(name, id)
        | Route::UploadCancel(name, id) => format!("/v2/{name}/blobs/uploads/{id}"),
    }
}

/// A path that some server would clean into one of the API is refused, not unknown.
fn elsewhere(path: &str) {
    let confusing = is_confusing(path);
    if !path.starts_with('/') {
        return;
    }
    let Some(decoded) = percent_decoded(path) else { return };
    let mut clean: Vec<&str> = Vec::new();
    for part in decoded.split(['/', '\\']) {
        match part {
            "" | "." => {}
            ".." => {
                clean.pop();
            }
            part => clean.push(part),
        }
    }
    let first = clean.first().and_then(|first| first.split(';').next());
    if first.is_some_and(|first| first.eq_ignore_ascii_case("v2")) {
        assert!(confusing, "{path}");
    }
}
