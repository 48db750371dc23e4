//! The `Link` header of lists that go on.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// Everything but the unreserved characters of RFC 3986; podman cuts the value at `;`.
const QUERY: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// As [`QUERY`], with what paths are made of.
const PATH: &AsciiSet = &QUERY.remove(b'/').remove(b':');

/// The value of `Link` for the next page: `</v2/…?last=x&n=k>; rel="next"`, relative, because clients refuse another
/// scheme or host than they know (Q70). `path` begins with `/`; `query` is encoded here, in the order given.
pub fn next_page(path: &str, query: &[(&str, &str)]) -> String {
    let mut link = format!("<{}", utf8_percent_encode(path, PATH));
    for (index, (key, value)) in query.iter().enumerate() {
        link.push(if index == 0 { '?' } else { '&' });
        link.extend(utf8_percent_encode(key, QUERY));
        link.push('=');
        link.extend(utf8_percent_encode(value, QUERY));
    }
    link.push_str(">; rel=\"next\"");
    link
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn q70_form() {
        assert_eq!(
            next_page("/v2/team/app/tags/list", &[("last", "1.0_rc-1"), ("n", "10")]),
            "</v2/team/app/tags/list?last=1.0_rc-1&n=10>; rel=\"next\""
        );
        assert_eq!(
            next_page("/v2/a/referrers/sha256:ab", &[("artifactType", "a/b+c;\"<>\r\n"), ("n", "ä")]),
            "</v2/a/referrers/sha256:ab?artifactType=a%2Fb%2Bc%3B%22%3C%3E%0D%0A&n=%C3%A4>; rel=\"next\""
        );
        assert_eq!(next_page("/v2/_catalog", &[]), "</v2/_catalog>; rel=\"next\"");
    }

    proptest! {
        #[test]
        fn is_a_header_value_and_round_trips(key in "[a-z]{1,9}", value in "\\PC{0,40}|[\\x00-\\x7f]{0,40}") {
            let link = next_page("/v2/a", &[(&key, &value)]);
            prop_assert!(link.bytes().all(|c| (0x20..0x7f).contains(&c)));
            let target = link.strip_prefix("</v2/a?").unwrap().strip_suffix(">; rel=\"next\"").unwrap();
            let (found_key, found) = target.split_once('=').unwrap();
            let decoded = percent_encoding::percent_decode_str(found).decode_utf8().unwrap();
            prop_assert_eq!((found_key, decoded.as_ref()), (key.as_str(), value.as_str()));
        }
    }
}
