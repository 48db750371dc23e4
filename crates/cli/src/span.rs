//! Points in time as they are typed.

use api::{Lifetime, Time};
use oci::Timestamp;

/// A point in time, given as such or as its distance from now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// RFC 3339.
    At(Time),
    /// So far from now; before or after depends on the flag.
    Distance(Lifetime),
}

/// RFC 3339 (`2026-11-24T10:00:00Z`) or a duration.
pub fn parse_moment(text: &str) -> Result<Moment, String> {
    if let Some(time) = Timestamp::parse(text) {
        return Ok(Moment::At(Time(time)));
    }
    text.parse()
        .map(Moment::Distance)
        .map_err(|_| "write a duration (24h, 30d) or a time (2026-11-24T10:00:00Z)".to_owned())
}

/// `90s`, `15m`, `24h`, `30d`, or `0`.
pub fn parse_lifetime(text: &str) -> Result<Lifetime, String> {
    text.parse().map_err(|_| "write a duration such as 90s, 15m, 24h or 30d".to_owned())
}

impl Moment {
    /// For a request that takes either.
    pub fn split(moment: Option<Self>) -> (Option<Lifetime>, Option<Time>) {
        match moment {
            None => (None, None),
            Some(Self::At(time)) => (None, Some(time)),
            Some(Self::Distance(lifetime)) => (Some(lifetime), None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_times_or_distances() {
        let day = std::time::Duration::from_secs(86_400);
        assert_eq!(parse_moment("24h"), Ok(Moment::Distance(Lifetime(day))));
        assert_eq!(parse_moment("1970-01-02T00:00:00Z"), Ok(Moment::At(Time(Timestamp(86_400_000)))));
        for text in ["soon", "", "1w", "2026-11-24"] {
            assert!(parse_moment(text).is_err(), "{text}");
        }
    }
}
