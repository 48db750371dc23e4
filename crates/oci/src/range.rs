//! The `Range` header of downloads and the `Content-Range` header of uploads.

use crate::error::{Error, ErrorCode, excerpt};

/// How many ranges one request may ask for. On 400 podman's partial pulls halve their number, but give up where fewer than
/// 64 are refused; a part costs the server about 250 bytes of memory.
pub const MAX_RANGES: usize = 128;

/// Bytes `start` to `end` of a blob, both included; `end` is below the blob's size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ByteRange {
    /// First byte.
    pub start: u64,
    /// Last byte.
    pub end: u64,
}

impl ByteRange {
    /// How many bytes; at least one.
    pub fn length(self) -> u64 {
        self.end - self.start + 1
    }

    /// The value of `Content-Range` for a blob of `size` bytes: `bytes a-b/size`.
    pub fn content_range(self, size: u64) -> String {
        format!("bytes {}-{}/{size}", self.start, self.end)
    }
}

/// What a `Range` header asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ranges {
    /// The whole blob: the header is absent or of a unit that is not known. Answer 200.
    Whole,
    /// One range. Answer 206.
    Single(ByteRange),
    /// Several ranges were asked for, of which these have bytes: 1 to [`MAX_RANGES`], as asked, without overlap. Answer 206 with
    /// `multipart/byteranges`, parts in this order (Q63).
    Multiple(Vec<ByteRange>),
    /// Nothing of the one range is there, or it is reversed (Q61). Answer 416 with `Content-Range: bytes */size`.
    NotSatisfiable,
}

/// Reads the value of a `Range` header for a blob of `size` bytes.
///
/// `RANGE_INVALID` (answer 400) when it is malformed, or asks for several ranges that are more than [`MAX_RANGES`],
/// overlap, are reversed, or are none of them there: clients of several ranges try again with one on 400 alone (Q63).
pub fn parse_range(header: Option<&str>, size: u64) -> Result<Ranges, Error> {
    let Some((unit, set)) = header.and_then(|value| value.split_once('=')) else {
        return header.map_or(Ok(Ranges::Whole), |value| Err(malformed(value)));
    };
    if !unit.trim_matches(BLANK).eq_ignore_ascii_case("bytes") {
        return Ok(Ranges::Whole);
    }
    // RFC 9110 section 5.6.1.2: empty elements of a list are ignored.
    let mut parts = set.split(',').map(|part| part.trim_matches(BLANK)).filter(|part| !part.is_empty());
    let first = parts.next().ok_or_else(|| malformed(set))?;
    let Some(second) = parts.next() else {
        return Ok(match resolve(first, size)? {
            Part::Bytes(range) => Ranges::Single(range),
            Part::Reversed | Part::Beyond => Ranges::NotSatisfiable,
        });
    };
    let mut ranges: Vec<ByteRange> = Vec::new();
    for (index, part) in [first, second].into_iter().chain(parts).enumerate() {
        if index == MAX_RANGES {
            return Err(Error::new(ErrorCode::RangeInvalid, format!("more than {MAX_RANGES} ranges in one request")));
        }
        match resolve(part, size)? {
            Part::Bytes(range) if ranges.iter().any(|other| other.start <= range.end && range.start <= other.end) => {
                return Err(Error::new(ErrorCode::RangeInvalid, "the ranges overlap"));
            }
            Part::Bytes(range) => ranges.push(range),
            Part::Reversed => return Err(malformed(part)),
            Part::Beyond => {}
        }
    }
    if ranges.is_empty() {
        return Err(Error::new(ErrorCode::RangeInvalid, format!("none of the ranges is within the {size} bytes")));
    }
    Ok(Ranges::Multiple(ranges))
}

const BLANK: [char; 2] = [' ', '\t'];

enum Part {
    Bytes(ByteRange),
    Reversed,
    Beyond,
}

/// `a-b`, `a-` or `-n` against the size (RFC 9110 section 14.1.2).
fn resolve(part: &str, size: u64) -> Result<Part, Error> {
    let (first, last) = part.split_once('-').ok_or_else(|| malformed(part))?;
    let start = match (first, last) {
        ("", _) => size.saturating_sub(number(last).ok_or_else(|| malformed(part))?),
        _ => number(first).ok_or_else(|| malformed(part))?,
    };
    let end = match (first, last) {
        ("", _) | (_, "") => u64::MAX,
        _ => number(last).ok_or_else(|| malformed(part))?,
    };
    if end < start || !first.is_empty() && !last.is_empty() && is_less(last, first) {
        return Ok(Part::Reversed);
    }
    Ok(if start < size { Part::Bytes(ByteRange { start, end: end.min(size - 1) }) } else { Part::Beyond })
}

/// Decimal digits; what does not fit is as large as can be, since it is beyond the end of every blob.
fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|c| c.is_ascii_digit());
    digits.then(|| text.parse().unwrap_or(u64::MAX))
}

/// Whether one number in decimal digits is less than another, of any length.
fn is_less(a: &str, b: &str) -> bool {
    let (a, b) = (a.trim_start_matches('0'), b.trim_start_matches('0'));
    (a.len(), a) < (b.len(), b)
}

fn malformed(text: &str) -> Error {
    Error::new(ErrorCode::RangeInvalid, format!("'{}' is not a range of bytes", excerpt(text)))
}

/// The `Content-Range` header of an upload: `start-end`, both included, without unit and total (the specification,
/// "Pushing a blob in chunks").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContentRange {
    /// Offset of the first byte of the body.
    pub start: u64,
    /// Offset of the last byte of the body; not below `start`.
    pub end: u64,
}

impl ContentRange {
    /// Parses `^[0-9]+-[0-9]+$`; `RANGE_INVALID` when it is not that, is reversed or does not fit 63 bits.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let offset = |digits: &str| number(digits).filter(|value| i64::try_from(*value).is_ok());
        text.split_once('-')
            .and_then(|(start, end)| Some(Self { start: offset(start)?, end: offset(end)? }))
            .filter(|range| range.start <= range.end)
            .ok_or_else(|| {
                Error::new(
                    ErrorCode::RangeInvalid,
                    format!("'{}' is not a Content-Range of an upload: write <first>-<last>", excerpt(text)),
                )
            })
    }

    /// How many bytes the body must have.
    pub fn length(self) -> u64 {
        self.end - self.start + 1
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn single(start: u64, end: u64) -> Ranges {
        Ranges::Single(ByteRange { start, end })
    }

    fn multiple(pairs: &[(u64, u64)]) -> Ranges {
        Ranges::Multiple(pairs.iter().map(|&(start, end)| ByteRange { start, end }).collect())
    }

    #[test]
    fn q61_single_ranges() {
        for (header, expected) in [
            ("bytes=0-0", single(0, 0)),
            ("bytes=500-1499", single(500, 1499)),
            ("bytes=500-", single(500, 1999)),
            ("bytes=-500", single(1500, 1999)),
            ("bytes=-5000", single(0, 1999)),
            ("bytes=1999-5000", single(1999, 1999)),
            ("Bytes = 1-2", single(1, 2)),
            ("bytes=1-2,", single(1, 2)),
            ("bytes=0-18446744073709551615", single(0, 1999)),
            ("bytes=0-99999999999999999999999", single(0, 1999)),
            ("bytes=2000-", Ranges::NotSatisfiable),
            ("bytes=5000-10000", Ranges::NotSatisfiable),
            ("bytes=500-0", Ranges::NotSatisfiable),
            ("bytes=-0", Ranges::NotSatisfiable),
            ("bytes=99999999999999999999999-", Ranges::NotSatisfiable),
            ("lines=1-2", Ranges::Whole),
            ("lines=x", Ranges::Whole),
        ] {
            assert_eq!(parse_range(Some(header), 2000), Ok(expected), "{header}");
        }
        assert_eq!(parse_range(None, 2000), Ok(Ranges::Whole));
        for header in ["bytes=0-", "bytes=0-0", "bytes=-1"] {
            assert_eq!(parse_range(Some(header), 0), Ok(Ranges::NotSatisfiable), "{header}");
        }
        for header in ["", "bytes", "bytes=", "bytes=,", "bytes=-", "bytes=a-b", "bytes=1", "bytes=+1-2", "bytes=1--2"]
        {
            assert_eq!(parse_range(Some(header), 2000).unwrap_err().code, ErrorCode::RangeInvalid, "{header}");
        }
    }

    #[test]
    fn q63_several_ranges_as_asked_or_400() {
        assert_eq!(parse_range(Some("bytes=20-29, 0-9"), 100), Ok(multiple(&[(20, 29), (0, 9)])));
        assert_eq!(parse_range(Some("bytes=0-0,-1"), 100), Ok(multiple(&[(0, 0), (99, 99)])));
        assert_eq!(parse_range(Some("bytes=0-9,100-200"), 100), Ok(multiple(&[(0, 9)])));
        let many = |count: u64| {
            let parts: Vec<String> = (0..count).map(|i| format!("{}-{}", i * 2, i * 2)).collect();
            format!("bytes={}", parts.join(","))
        };
        assert!(matches!(parse_range(Some(&many(128)), 300), Ok(Ranges::Multiple(ranges)) if ranges.len() == 128));
        for header in [
            &many(129),
            &many(10_000),
            "bytes=0-9,9-10",
            "bytes=0-9,0-9",
            "bytes=5-4,7-8",
            "bytes=0-0,99999999999999999999-18446744073709551615",
            "bytes=100-,200-",
            "bytes=0-1,x",
        ] {
            assert_eq!(parse_range(Some(header), 100).unwrap_err().code, ErrorCode::RangeInvalid);
        }
    }

    #[test]
    fn content_ranges() {
        assert_eq!(ContentRange::parse("0-0"), Ok(ContentRange { start: 0, end: 0 }));
        assert_eq!(ContentRange::parse("10-19").unwrap().length(), 10);
        for bad in [
            "",
            "-",
            "0-",
            "-0",
            "1-0",
            "0 - 1",
            "bytes 0-1",
            "0-1/2",
            "+0-1",
            "0-9223372036854775808",
            "0-99999999999999999999",
            "٠-١",
        ] {
            assert_eq!(ContentRange::parse(bad).unwrap_err().code, ErrorCode::RangeInvalid, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn ranges_are_within_the_blob(header in "(bytes=)?[0-9,\\- a-z]{0,60}", size in 0_u64..300) {
            let ranges = match parse_range(Some(&header), size) {
                Ok(Ranges::Single(range)) => vec![range],
                Ok(Ranges::Multiple(ranges)) => ranges,
                _ => vec![],
            };
            for (i, range) in ranges.iter().enumerate() {
                prop_assert!(range.start <= range.end && range.end < size);
                for other in &ranges[..i] {
                    prop_assert!(other.end < range.start || range.end < other.start);
                }
            }
        }

        #[test]
        fn content_ranges_round_trip(text in "[0-9]{0,21}-?[0-9 /a]{0,21}", start in 0..=i64::MAX as u64, length in 0_u64..1000) {
            let _ = ContentRange::parse(&text);
            let end = start.saturating_add(length).min(i64::MAX as u64);
            prop_assert_eq!(ContentRange::parse(&format!("{start}-{end}")), Ok(ContentRange { start, end }));
        }
    }
}
