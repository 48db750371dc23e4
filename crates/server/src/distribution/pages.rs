//! How lists are cut into pages.

use http::HeaderMap;
use http::header::LINK;
use oci::{Error, ErrorCode, link};

use super::respond;

/// The most that `n` counts for.
pub const MAX_PAGE: usize = 1000;

/// The parameter `n`: `None` where it is absent. What is larger than `max` counts as `max`; 400 for what is no number.
pub fn limit(n: Option<&str>, max: usize) -> Result<Option<usize>, Error> {
    let Some(text) = n else { return Ok(None) };
    if text.is_empty() || !text.bytes().all(|c| c.is_ascii_digit()) {
        return Err(Error::new(ErrorCode::PaginationNumberInvalid, "n is a number of entries, in decimal digits"));
    }
    // What does not fit is larger than any limit.
    Ok(Some(text.parse::<usize>().unwrap_or(usize::MAX).min(max)))
}

/// Says where a list goes on, if it does. A page that was asked to be empty never does.
pub fn set_link(headers: &mut HeaderMap, path: &str, last: Option<&str>, limit: Option<usize>) {
    let (Some(last), Some(limit)) = (last, limit.filter(|limit| *limit > 0)) else { return };
    respond::set(headers, LINK, link::next_page(path, &[("last", last), ("n", &limit.to_string())]));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn d05_numbers() {
        for (n, limit_) in [
            ("0", 0),
            ("1", 1),
            ("007", 7),
            ("100", 100),
            ("101", 100),
            ("1000000000000000000", 100),
            ("9223372036854775808", 100),
            ("18446744073709551616", 100),
        ] {
            assert_eq!(limit(Some(n), 100), Ok(Some(limit_)), "{n}");
        }
        assert_eq!(limit(None, 100), Ok(None));
        for n in ["", "-1", "1e9", "0x10", "ten", " 1", "+1", "1.0"] {
            assert_eq!(limit(Some(n), 100).unwrap_err().code, ErrorCode::PaginationNumberInvalid, "{n}");
        }
    }
}
