//! The referrers list, and the tags by which clients kept it before registries did.

use serde::Serialize;

use crate::{Algorithm, Digest, MediaType, Tag};

/// One entry of a referrers list.
#[derive(Clone, Copy, Debug)]
pub struct Referrer<'a> {
    /// The type that the manifest is stored with.
    pub media_type: &'a str,
    /// The manifest.
    pub digest: &'a Digest,
    /// Length of the manifest in bytes.
    pub size: u64,
    /// [`crate::Manifest::artifact_type`].
    pub artifact_type: Option<&'a str>,
    /// [`crate::Manifest::annotations`]: a JSON object.
    pub annotations: Option<&'a str>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Head<'a> {
    media_type: &'a str,
    digest: &'a str,
    size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    artifact_type: Option<&'a str>,
}

/// The body of a referrers response while it grows: an image index.
#[derive(Debug)]
pub struct ReferrersPage {
    body: Vec<u8>,
    entries: usize,
}

impl ReferrersPage {
    /// The longest page, in bytes: what clients read at most (Q71).
    pub const MAX_BYTES: usize = 4 * 1024 * 1024;

    /// A page without entries.
    pub fn new() -> Self {
        let body = format!(r#"{{"schemaVersion":2,"mediaType":"{}","manifests":["#, MediaType::OCI_INDEX).into_bytes();
        Self { body, entries: 0 }
    }

    /// Adds an entry, or gives `false` when the page is full: then it belongs on the next one. The first entry always
    /// fits; if it alone is beyond the limit, it is listed without its annotations.
    pub fn push(&mut self, referrer: &Referrer<'_>) -> bool {
        let head = Head {
            media_type: referrer.media_type,
            digest: referrer.digest.as_str(),
            size: referrer.size,
            artifact_type: referrer.artifact_type,
        };
        let Ok(mut entry) = serde_json::to_vec(&head) else { return false };
        let annotations = referrer.annotations.unwrap_or_default();
        let room = Self::MAX_BYTES.saturating_sub(self.body.len() + entry.len() + ANNOTATIONS.len() + 3);
        if annotations.len() > room && self.entries > 0 {
            return false;
        }
        if !annotations.is_empty() && annotations.len() <= room {
            entry.pop();
            entry.extend_from_slice(ANNOTATIONS);
            entry.extend_from_slice(annotations.as_bytes());
            entry.push(b'}');
        }
        if self.entries > 0 {
            self.body.push(b',');
        }
        self.body.extend_from_slice(&entry);
        self.entries += 1;
        true
    }

    /// How many entries it has.
    pub fn entries(&self) -> usize {
        self.entries
    }

    /// How many bytes it has now, without its end.
    pub fn length(&self) -> usize {
        self.body.len()
    }

    /// The body.
    pub fn finish(mut self) -> Vec<u8> {
        self.body.extend_from_slice(b"]}");
        self.body
    }
}

impl Default for ReferrersPage {
    fn default() -> Self {
        Self::new()
    }
}

const ANNOTATIONS: &[u8] = br#","annotations":"#;

/// How many digits of a digest a fallback tag holds (the specification, "Referrers Tag Schema").
const FALLBACK_HEX: usize = 64;

/// The tag under which clients keep the referrers of `subject` where a registry has no list of them: `sha256-<hex>`, or
/// `sha512-` and the first 64 digits.
pub fn referrers_fallback_tag(subject: &Digest) -> Tag {
    Tag::from_checked(format!("{}-{}", subject.algorithm(), &subject.hex()[..FALLBACK_HEX]))
}

/// What a fallback tag says about its subject.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FallbackSubject {
    algorithm: Algorithm,
    hex: String,
}

impl FallbackSubject {
    /// Reads a tag of exactly the form that [`referrers_fallback_tag`] gives; `None` for any other, also for cosign's
    /// `sha256-<hex>.sig`.
    pub fn parse(tag: &Tag) -> Option<Self> {
        let (algorithm, hex) = tag.as_str().split_once('-')?;
        let algorithm = Algorithm::parse(algorithm).ok()?;
        let digits = hex.len() == FALLBACK_HEX && hex.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'));
        digits.then(|| Self { algorithm, hex: hex.to_owned() })
    }

    /// Whether it may be this subject. For sha512 only the first half is known.
    pub fn is(&self, subject: &Digest) -> bool {
        subject.algorithm() == self.algorithm && subject.hex().starts_with(&self.hex)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::Hasher;

    #[test]
    fn pages() {
        let digest = Hasher::digest(Algorithm::Sha256, b"a");
        let empty = r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}"#;
        assert_eq!(ReferrersPage::new().finish(), empty.as_bytes());
        let mut page = ReferrersPage::new();
        let plain = Referrer {
            media_type: MediaType::OCI_MANIFEST,
            digest: &digest,
            size: 7,
            artifact_type: Some("a/\"b"),
            annotations: Some(r#"{ "k" : "v" }"#),
        };
        assert!(page.push(&plain));
        assert!(page.push(&Referrer { artifact_type: None, annotations: None, ..plain }));
        let body = String::from_utf8(page.finish()).unwrap();
        assert!(body.contains(r#""size":7,"artifactType":"a/\"b","annotations":{ "k" : "v" }},{"#), "{body}");
        let json: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!(
            json["manifests"][1].as_object().unwrap().keys().collect::<Vec<_>>(),
            ["mediaType", "digest", "size"]
        );
    }

    #[test]
    fn q71_pages_end_at_four_mebibytes() {
        let digest = Hasher::digest(Algorithm::Sha256, b"a");
        let annotations = format!(r#"{{"k":"{}"}}"#, "v".repeat(1 << 20));
        let large = Referrer {
            media_type: MediaType::OCI_MANIFEST,
            digest: &digest,
            size: 7,
            artifact_type: None,
            annotations: Some(&annotations),
        };
        let mut page = ReferrersPage::new();
        assert_eq!((0..10).take_while(|_| page.push(&large)).count(), 3);
        assert!(page.finish().len() <= ReferrersPage::MAX_BYTES);

        let too_large = format!(r#"{{"k":"{}"}}"#, "v".repeat(ReferrersPage::MAX_BYTES - 8));
        let mut page = ReferrersPage::new();
        assert!(page.push(&Referrer { annotations: Some(&too_large), ..large }));
        assert!(page.push(&large));
        let json: serde_json::Value = serde_json::from_slice(&page.finish()).unwrap();
        assert!(json["manifests"][0].get("annotations").is_none());
        assert!(json["manifests"][1].get("annotations").is_some());
    }

    proptest! {
        #[test]
        fn fallback_tags_round_trip(bytes in proptest::collection::vec(any::<u8>(), 0..9), text in "(sha256-|sha512-|md5-)?[0-9a-fA-F.]{60,70}") {
            for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
                let digest = Hasher::digest(algorithm, &bytes);
                let tag = referrers_fallback_tag(&digest);
                prop_assert_eq!(Tag::parse(tag.as_str()), Ok(tag.clone()));
                prop_assert!(FallbackSubject::parse(&tag).unwrap().is(&digest));
                prop_assert!(!FallbackSubject::parse(&tag).unwrap().is(&Hasher::digest(algorithm, b"something else")));
            }
            if let Ok(tag) = Tag::parse(&text) {
                FallbackSubject::parse(&tag);
            }
        }
    }

    #[test]
    fn other_tags_are_no_fallback_tags() {
        let hex = "0123456789abcdef".repeat(4);
        for other in
            ["latest", "sha256-", &format!("sha256-{hex}.sig"), &format!("sha256-{}", hex.to_uppercase()), &hex]
        {
            assert_eq!(FallbackSubject::parse(&Tag::parse(other).unwrap()), None, "{other}");
        }
    }
}
