//! Query parameters. What is not known is ignored, as clients add parameters of their own (`origin`, `ns`, …).

use oci::{Error, ErrorCode};

/// More pairs than this are refused before they are kept.
const MAX_PAIRS: usize = 256;

/// The parameters that some endpoint reads, decoded. Of a parameter given twice the first counts, except where a list is
/// meant, and except for `digest`, of which two are refused.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query {
    /// `digest`: the blob's digest that closes an upload.
    pub digest: Option<String>,
    /// `digest-algorithm`: announced at the start of an upload.
    pub digest_algorithm: Option<String>,
    /// `mount`: digest of a blob of another repository.
    pub mount: Option<String>,
    /// `from`: that repository.
    pub from: Option<String>,
    /// `state`: the offset that an upload's URL was made for.
    pub state: Option<String>,
    /// `n`: how many entries of a list.
    pub n: Option<String>,
    /// `last`: the entry after which a list goes on.
    pub last: Option<String>,
    /// `artifactType`, any of them.
    pub artifact_types: Vec<String>,
    /// `tag`, all of them.
    pub tags: Vec<String>,
    /// `ns`: the registry host that a mirror is asked in place of.
    pub ns: Option<String>,
}

/// Why a query was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum QueryError {
    /// Too many parameters: 414.
    TooLong,
    /// A contradiction: 400.
    Invalid(Error),
}

impl Query {
    /// Parses the part behind the `?`.
    pub fn parse(raw: Option<&str>) -> Result<Self, QueryError> {
        let mut query = Self::default();
        let Some(raw) = raw else { return Ok(query) };
        if raw.split('&').nth(MAX_PAIRS).is_some() {
            return Err(QueryError::TooLong);
        }
        for (key, value) in pairs(raw) {
            let slot = match key.as_str() {
                "digest" => {
                    if query.digest.replace(value).is_some() {
                        let message = "the digest parameter was given more than once";
                        return Err(QueryError::Invalid(Error::new(ErrorCode::DigestInvalid, message)));
                    }
                    continue;
                }
                "artifactType" => {
                    // A media type holds no blank: one that is here was a '+' that the client left unescaped.
                    query.artifact_types.push(value.replace(' ', "+"));
                    continue;
                }
                "tag" => {
                    query.tags.push(value);
                    continue;
                }
                "digest-algorithm" => &mut query.digest_algorithm,
                "mount" => &mut query.mount,
                "from" => &mut query.from,
                "state" => &mut query.state,
                "n" => &mut query.n,
                "last" => &mut query.last,
                "ns" => &mut query.ns,
                _ => continue,
            };
            slot.get_or_insert(value);
        }
        Ok(query)
    }
}

/// The decoded pairs of a query or of a form body (`application/x-www-form-urlencoded`). Malformed escapes stay as they
/// are, malformed UTF-8 is replaced: what comes of it is refused by whoever parses the value.
pub fn pairs(raw: &str) -> impl Iterator<Item = (String, String)> + '_ {
    raw.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decode(key), decode(value))
    })
}

fn decode(text: &str) -> String {
    let spaced = text.replace('+', " ");
    percent_encoding::percent_decode_str(&spaced).decode_utf8_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_knows() {
        let query = Query::parse(Some(
            "digest=sha256%3Aab&n=5&n=6&unknown&tag=a&tag=b&artifactType=application/x+json&artifactType=a%2Bb&last=&&=&from=a%2Fb&digest-algorithm=sha512&state=7&mount=m&ns=docker.io",
        ))
        .unwrap();
        assert_eq!(query.digest.as_deref(), Some("sha256:ab"));
        assert_eq!(query.n.as_deref(), Some("5"));
        assert_eq!(query.tags, ["a", "b"]);
        assert_eq!(query.artifact_types, ["application/x+json", "a+b"]);
        assert_eq!(query.last.as_deref(), Some(""));
        assert_eq!(query.from.as_deref(), Some("a/b"));
        assert_eq!(query.digest_algorithm.as_deref(), Some("sha512"));
        assert_eq!(query.state.as_deref(), Some("7"));
        assert_eq!(query.mount.as_deref(), Some("m"));
        assert_eq!(query.ns.as_deref(), Some("docker.io"));
        assert_eq!(Query::parse(None).unwrap(), Query::default());
    }

    #[test]
    fn refuses_two_digests_and_a_flood() {
        assert!(matches!(
            Query::parse(Some("digest=a&digest=a")),
            Err(QueryError::Invalid(Error { code: ErrorCode::DigestInvalid, .. }))
        ));
        assert_eq!(Query::parse(Some(&"a=b&".repeat(10_000))), Err(QueryError::TooLong));
        assert!(Query::parse(Some(&"a=%zz&".repeat(200))).is_ok());
    }
}
