//! Queries and form bodies, and the `Link` header that names the next page.

use form_urlencoded::parse;
use oci::ErrorCode;
use server::distribution::query::{Query, QueryError, pairs};

// security: D-05, F-08
pub fn run(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    // The standard of forms (WHATWG, application/x-www-form-urlencoded) is what clients go by.
    let standard: Vec<(String, String)> =
        parse(text.as_bytes()).map(|(k, v)| (k.into_owned(), v.into_owned())).collect();
    let found: Vec<(String, String)> = pairs(&text).collect();
    assert_eq!(found, standard, "{text}");

    let values = |wanted: &str| found.iter().filter(|(key, _)| key == wanted).map(|(_, value)| value.clone()).collect();
    let digests: Vec<String> = values("digest");
    match Query::parse(Some(&text)) {
        Ok(query) => {
            let first = |wanted: &str| -> Option<String> { Vec::into_iter(values(wanted)).next() };
            assert_eq!((query.digest.clone(), digests.len()), (first("digest"), usize::from(query.digest.is_some())));
            assert_eq!(query.digest_algorithm, first("digest-algorithm"));
            assert_eq!((&query.mount, &query.from), (&first("mount"), &first("from")));
            assert_eq!((&query.n, &query.last), (&first("n"), &first("last")));
            assert_eq!((&query.state, &query.ns), (&first("state"), &first("ns")));
            assert_eq!(query.tags, values("tag"));
            let types: Vec<String> = values("artifactType");
            assert_eq!(query.artifact_types.len(), types.len());
            link(&query);
        }
        Err(QueryError::TooLong) => assert!(text.matches('&').count() >= 256, "{text}"),
        Err(QueryError::Invalid(error)) => {
            assert_eq!(error.code, ErrorCode::DigestInvalid);
            assert!(digests.len() > 1, "{text}");
        }
    }
}

/// What a page links to is read back as what was meant.
fn link(query: &Query) {
    let (Some(last), Some(n)) = (&query.last, &query.n) else { return };
    let link = oci::link::next_page("/v2/a/tags/list", &[("last", last), ("n", n)]);
    assert!(http::HeaderValue::from_str(&link).is_ok(), "{link}");
    assert!(link.bytes().all(|byte| (0x20..0x7f).contains(&byte)) && link.matches([';', ',']).count() == 1, "{link}");
    let target = link.strip_prefix("</v2/a/tags/list?").and_then(|rest| rest.strip_suffix(">; rel=\"next\"")).unwrap();
    let again = Query::parse(Some(target)).unwrap();
    assert_eq!((again.last.as_ref(), again.n.as_ref()), (Some(last), Some(n)), "{link}");
}
