//! `Range` of a download (eight bytes of size, then the header) and `Content-Range` of an upload (the same text).

use oci::{ByteRange, ContentRange, ErrorCode, MAX_RANGES, Ranges, parse_range};

use crate::Input;
use crate::oracle::CONTENT_RANGE;

/// What RFC 9110 section 14 makes of a header, with Q61 and Q63 where it leaves the choice.
#[derive(Debug, PartialEq)]
enum Expected {
    Whole,
    Single(u128, u128),
    Multiple(Vec<(u128, u128)>),
    NotSatisfiable,
    Malformed,
}

// security: F-04, H-01
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let size = input.long() >> (input.byte() % 64);
    let text = String::from_utf8_lossy(input.rest());
    let parsed = parse_range(Some(&text), size);
    let found = match &parsed {
        Ok(Ranges::Whole) => Expected::Whole,
        Ok(Ranges::NotSatisfiable) => Expected::NotSatisfiable,
        Ok(Ranges::Single(range)) => Expected::Single(range.start.into(), range.end.into()),
        Ok(Ranges::Multiple(ranges)) => {
            Expected::Multiple(ranges.iter().map(|range| (range.start.into(), range.end.into())).collect())
        }
        Err(error) => {
            assert_eq!(error.code, ErrorCode::RangeInvalid);
            assert!(error.message.len() < 2000);
            Expected::Malformed
        }
    };
    assert_eq!(found, expected(&text, size.into()), "{text} of {size}");
    if let Ok(Ranges::Single(range)) = parsed {
        assert!(range.end < size && range.length() >= 1);
        let again = format!("bytes={}-{}", range.start, range.end);
        assert_eq!(parse_range(Some(&again), size), Ok(Ranges::Single(range)));
        assert_eq!(range.content_range(size), format!("bytes {}-{}/{size}", range.start, range.end));
    }
    if let Ok(Ranges::Multiple(ranges)) = parse_range(Some(&text), size) {
        assert!((1..=MAX_RANGES).contains(&ranges.len()));
        assert!(ranges.iter().map(|range| u128::from(range.length())).sum::<u128>() <= u128::from(size));
    }
    upload(&text);
}

fn expected(text: &str, size: u128) -> Expected {
    let Some(at) = text.find('=') else { return Expected::Malformed };
    if !text[..at].trim_matches([' ', '\t']).eq_ignore_ascii_case("bytes") {
        return Expected::Whole;
    }
    let parts: Vec<&str> =
        text[at + 1..].split(',').map(|part| part.trim_matches([' ', '\t'])).filter(|part| !part.is_empty()).collect();
    if parts.is_empty() || parts.len() > MAX_RANGES {
        // One part more than is accepted is refused whatever it is.
        return Expected::Malformed;
    }
    let mut ranges: Vec<(u128, u128)> = Vec::new();
    let mut reversed = false;
    for part in &parts {
        let Some((first, last)) = part.split_once('-') else { return Expected::Malformed };
        // As texts of one length, numbers of any size have their order.
        reversed |= !first.is_empty() && !last.is_empty() && format!("{first:0>4096}") > format!("{last:0>4096}");
        let (Some(first), Some(last)) = (digits(first), digits(last)) else { return Expected::Malformed };
        let (start, end) = match (first, last) {
            (None, None) => return Expected::Malformed,
            (Some(first), None) => (first, u128::MAX),
            (None, Some(suffix)) => (size.saturating_sub(suffix), u128::MAX),
            (Some(first), Some(last)) => (first, last),
        };
        if end >= start && start < size {
            ranges.push((start, end.min(size - 1)));
        }
    }
    if parts.len() == 1 {
        return ranges.first().map_or(Expected::NotSatisfiable, |(start, end)| Expected::Single(*start, *end));
    }
    let overlap = ranges.iter().enumerate().any(|(at, a)| ranges[..at].iter().any(|b| a.0 <= b.1 && b.0 <= a.1));
    if reversed || overlap || ranges.is_empty() { Expected::Malformed } else { Expected::Multiple(ranges) }
}

/// A number without limit; `Some(None)` where there is none, `None` where it is no number.
#[allow(clippy::option_option, reason = "wrong and absent are different")]
fn digits(text: &str) -> Option<Option<u128>> {
    if text.is_empty() {
        return Some(None);
    }
    // Beyond what can be counted there is no difference any more, as far as `u64` sizes go.
    let far = 1 << 100;
    text.chars().try_fold(0_u128, |value, c| Some((value * 10 + u128::from(char::to_digit(c, 10)?)).min(far))).map(Some)
}

fn upload(text: &str) {
    let wanted = || {
        let (start, end) = text.split_once('-')?;
        let number = |text: &str| {
            text.trim_start_matches('0').parse::<i64>().ok().or((text.trim_start_matches('0').is_empty()).then_some(0))
        };
        let (start, end) = (number(start)?, number(end)?);
        (start <= end).then(|| ByteRange { start: start.unsigned_abs(), end: end.unsigned_abs() })
    };
    let wanted = if CONTENT_RANGE.matches(text) { wanted() } else { None };
    match ContentRange::parse(text) {
        Ok(range) => {
            assert_eq!(Some(ByteRange { start: range.start, end: range.end }), wanted, "{text}");
            assert_eq!(range.length(), range.end - range.start + 1);
            assert_eq!(ContentRange::parse(&format!("{}-{}", range.start, range.end)), Ok(range));
        }
        Err(error) => {
            assert_eq!(wanted, None, "{text}");
            assert_eq!(error.code, ErrorCode::RangeInvalid);
        }
    }
}
