//! Entity tags in `If-Match`, `If-None-Match` and `If-Range`. A line each; `D` and `O` stand for the digest of what is there
//! and of something else, since no fuzzer finds a hash.

use oci::conditional::{Precondition, etag, none_match, range_applies};
use oci::{Algorithm, Digest, Hasher};

use crate::Input;

// security: F-05
pub fn run(data: &[u8]) {
    let digest = Hasher::digest(Algorithm::Sha256, b"this");
    let other = Hasher::digest(Algorithm::Sha512, b"other");
    let mut input = Input::new(data);
    let lines: Vec<String> =
        (0..4).map(|_| input.text_line().replace('D', digest.as_str()).replace('O', other.as_str())).collect();
    assert!(none_match([etag(&digest).as_str()], &digest) && range_applies(Some(&etag(&digest)), &digest));

    let names = |lines: &[String], digest: &Digest| lines.iter().any(|line| weakly(line, digest));
    for digest in [&digest, &other] {
        assert_eq!(none_match(lines.iter().map(String::as_str), digest), names(&lines, digest), "{lines:?}");
        let range = lines[0].trim_matches([' ', '\t']);
        assert_eq!(range_applies(Some(range), digest), range == digest.as_str() || range == etag(digest), "{range}");
    }
    for (matching, without) in [(0, 4), (4, 0), (2, 2), (1, 1)] {
        let part = |from: usize, count: usize| (count > 0).then(|| lines[from..from + count].to_vec());
        let condition = Precondition { if_match: part(0, matching), if_none_match: part(matching, without) };
        for current in [None, Some(&digest), Some(&other)] {
            // RFC 9110 section 13.2.2, for a change.
            let wanted = condition.if_match.as_ref().is_none_or(|lines| current.is_some_and(|now| names(lines, now)));
            let refused =
                condition.if_none_match.as_ref().is_some_and(|lines| current.is_some_and(|now| names(lines, now)));
            assert_eq!(condition.holds(current), wanted && !refused, "{condition:?} {current:?}");
        }
    }
}

/// Whether one of the line's tags is this one, by the weak comparison of RFC 9110 section 8.8.3.2. A digest needs no quotes.
fn weakly(line: &str, digest: &Digest) -> bool {
    line.split(',').any(|tag| {
        let tag = tag.trim_matches([' ', '\t']);
        let forms = [digest.to_string(), etag(digest), format!("W/{digest}"), format!("W/{}", etag(digest))];
        matches!(tag, "*" | "W/*") || forms.iter().any(|form| form == tag)
    })
}
