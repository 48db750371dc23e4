//! Manifests: a line with the `Content-Type`, then the body. `D` in front of a quote stands for a digest, since no fuzzer
//! finds 64 digits; `@` at the end for blanks up to the longest manifest, `@@` for one more.

use oci::{Descriptor, ErrorCode, Manifest, ManifestKind, Referrer, ReferrersPage};

use crate::Input;
use crate::oracle::manifest::{self as oracle, Expected};

const DIGEST: &[u8] = b"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a\"";

// security: G-01, G-02, G-03, G-05, G-06, G-10, G-13, G-15
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let content_type = input.text_line();
    let content_type = (!content_type.is_empty()).then_some(content_type.as_str());
    let mut bytes = Vec::new();
    let mut rest = input.rest();
    let more = rest.iter().rev().take_while(|byte| **byte == b'@').count();
    rest = &rest[..rest.len() - more];
    while let Some((first, after)) = rest.split_first() {
        match (first, after.first()) {
            (b'D', Some(b'"')) => bytes.extend_from_slice(DIGEST),
            _ => bytes.push(*first),
        }
        rest = if *first == b'D' && after.first() == Some(&b'"') { &after[1..] } else { after };
    }
    let parsed = Manifest::parse(&bytes, content_type);
    compare(&parsed, &bytes, content_type);
    if more > 0 {
        let mut padded = bytes;
        padded.resize(Manifest::MAX_BYTES + usize::from(more > 1), b' ');
        let again = Manifest::parse(&padded, content_type);
        match more {
            1 => assert_eq!(again.is_ok(), parsed.is_ok()),
            _ => assert_eq!(again.unwrap_err().code, ErrorCode::SizeInvalid),
        }
    }
}

fn compare(parsed: &Result<Manifest, oci::Error>, bytes: &[u8], content_type: Option<&str>) {
    let expected = oracle::read(bytes, content_type);
    match (parsed, expected) {
        (Ok(manifest), Some(expected)) => same(manifest, &expected),
        (Err(error), None) => {
            assert_eq!(error.code, ErrorCode::ManifestInvalid);
            assert!(error.message.len() < 4000, "{}", error.message);
        }
        (Ok(_), None) => panic!("accepted what is not valid"),
        (Err(error), Some(_)) => panic!("refused what is valid: {error}"),
    }
}

fn same(manifest: &Manifest, expected: &Expected) {
    let plain = |descriptor: &Descriptor| oracle::Descriptor {
        media_type: descriptor.media_type.clone(),
        digest: descriptor.digest.to_string(),
        size: descriptor.size,
        has_urls: descriptor.has_urls,
    };
    let listed: Vec<_> =
        [&manifest.layers, &manifest.blobs, &manifest.children].into_iter().flatten().map(plain).collect();
    let annotations: serde_json::Map<String, serde_json::Value> =
        manifest.annotations.as_deref().map(|text| serde_json::from_str(text).unwrap()).unwrap_or_default();
    let found = Expected {
        kind: manifest.kind,
        media_type: manifest.media_type.to_string(),
        config: manifest.config.as_ref().map(plain),
        listed,
        subject: manifest.subject.as_ref().map(plain),
        artifact_type: manifest.artifact_type.clone(),
        annotations: annotations.len(),
    };
    assert_eq!(&found, expected);
    let required = manifest.required();
    for digest in &required {
        let named = |descriptor: &Descriptor| descriptor.digest == *digest && !descriptor.has_urls;
        let parts = manifest.config.iter().chain(&manifest.layers).chain(&manifest.blobs);
        assert!(parts.into_iter().any(named) && !oci::is_empty_json(digest));
    }
    assert!(manifest.kind != ManifestKind::Index || required.is_empty() || manifest.config.is_some());
    listing(manifest);
}

/// The list of referrers that holds it is JSON of bounded length.
fn listing(manifest: &Manifest) {
    let digest = oci::Hasher::digest(oci::Algorithm::Sha256, b"");
    let referrer = Referrer {
        media_type: manifest.media_type.as_str(),
        digest: &digest,
        size: 1,
        artifact_type: manifest.artifact_type.as_deref(),
        annotations: manifest.annotations.as_deref(),
    };
    let mut page = ReferrersPage::new();
    assert!(page.push(&referrer) && page.push(&referrer));
    let body = page.finish();
    assert!(body.len() <= ReferrersPage::MAX_BYTES);
    let json: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(json["manifests"].as_array().map(Vec::len), Some(2));
    assert_eq!(json["manifests"][0]["artifactType"].as_str(), manifest.artifact_type.as_deref());
}
