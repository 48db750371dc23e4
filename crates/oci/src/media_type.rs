//! Media types of manifests and of what they name.

use std::fmt;
use std::sync::Arc;

use crate::error::{Error, ErrorCode, excerpt};

/// The media type of a manifest: `application/…`, without parameters, spelled as the client spelled it.
///
/// Other top-level types are refused, because manifests are served from the registry's own origin and a browser would
/// render `text/html`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct MediaType(Arc<str>);

impl MediaType {
    /// OCI image manifest, also the form of artifacts.
    pub const OCI_MANIFEST: &'static str = "application/vnd.oci.image.manifest.v1+json";
    /// OCI image index.
    pub const OCI_INDEX: &'static str = "application/vnd.oci.image.index.v1+json";
    /// OCI artifact manifest, withdrawn before image-spec 1.1 and still produced by oras 1.0.
    pub const OCI_ARTIFACT: &'static str = "application/vnd.oci.artifact.manifest.v1+json";
    /// OCI image configuration.
    pub const OCI_CONFIG: &'static str = "application/vnd.oci.image.config.v1+json";
    /// The empty descriptor, whose content is `{}`.
    pub const OCI_EMPTY: &'static str = "application/vnd.oci.empty.v1+json";
    /// Docker image manifest, version 2, schema 2.
    pub const DOCKER_MANIFEST: &'static str = "application/vnd.docker.distribution.manifest.v2+json";
    /// Docker manifest list.
    pub const DOCKER_LIST: &'static str = "application/vnd.docker.distribution.manifest.list.v2+json";
    /// Docker manifest schema 1, refused.
    pub const DOCKER_SCHEMA1: &'static str = "application/vnd.docker.distribution.manifest.v1+json";
    /// Docker manifest schema 1 with signatures, refused.
    pub const DOCKER_SCHEMA1_SIGNED: &'static str = "application/vnd.docker.distribution.manifest.v1+prettyjws";

    /// The longest media type, in bytes: RFC 6838 section 4.2 allows 127 for each half.
    pub const MAX: usize = 255;

    /// Parses the value of a `Content-Type` header or of `mediaType`: parameters are dropped; `MANIFEST_INVALID` when
    /// it is not `application/<subtype>` in the characters of RFC 6838 section 4.2.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let essence = text.split_once(';').map_or(text, |(essence, _)| essence).trim_matches([' ', '\t']);
        let allowed = |c: u8| c.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&c);
        let well_formed = |(kind, subtype): (&str, &str)| {
            kind.eq_ignore_ascii_case("application")
                && subtype.bytes().all(allowed)
                && subtype.bytes().next().is_some_and(|c| c.is_ascii_alphanumeric())
        };
        if essence.len() > Self::MAX || !essence.split_once('/').is_some_and(well_formed) {
            return Err(Error::new(
                ErrorCode::ManifestInvalid,
                format!("'{}' is not a media type of manifests: use application/<type>", excerpt(essence)),
            ));
        }
        Ok(Self(essence.into()))
    }

    /// The media type as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this is `other`; media types do not depend on case (RFC 6838 section 4.2).
    pub fn is(&self, other: &str) -> bool {
        self.0.eq_ignore_ascii_case(other)
    }
}

impl fmt::Display for MediaType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether content of this type is never required to be in the registry (image specification, `layer.md`,
/// "Non-Distributable Layers"; docker's foreign layers).
pub fn is_non_distributable(media_type: &str) -> bool {
    [
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
        "application/vnd.oci.image.layer.nondistributable.v1.tar",
        "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
        "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd",
    ]
    .iter()
    .any(|known| known.eq_ignore_ascii_case(media_type))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn round_trips_and_never_panics(text in "\\PC{0,40}|application/[a-z+.;= -]{0,20}") {
            if let Ok(parsed) = MediaType::parse(&text) {
                prop_assert_eq!(MediaType::parse(parsed.as_str()), Ok(parsed));
            }
        }
    }

    #[test]
    fn parses() {
        for (good, essence) in [
            (MediaType::OCI_INDEX, MediaType::OCI_INDEX),
            ("application/json; charset=utf-8", "application/json"),
            (" application/json ;x", "application/json"),
            ("Application/X", "Application/X"),
        ] {
            assert_eq!(MediaType::parse(good).unwrap().as_str(), essence);
        }
        for bad in
            ["", "json", "text/html", "application/", "application/a/b", "application/ü", "application/a b", "*/*"]
        {
            assert_eq!(MediaType::parse(bad).unwrap_err().code, ErrorCode::ManifestInvalid, "{bad}");
        }
        assert!(MediaType::parse(&format!("application/{}", "x".repeat(300))).is_err());
        assert!(is_non_distributable("application/vnd.oci.image.layer.nondistributable.v1.tar+zstd"));
        assert!(!is_non_distributable("application/vnd.oci.image.layer.v1.tar+zstd"));
    }
}
