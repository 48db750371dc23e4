//! Points in time, and the clock and the randomness that the rest of the program takes as arguments.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use time::format_description::well_known::Rfc3339;
use time::{OffsetDateTime, UtcOffset};

/// Milliseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// This much later; saturates.
    pub fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)))
    }

    /// This much earlier; saturates.
    pub fn minus(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)))
    }

    /// Parses RFC 3339; `None` when it is not that, or is in UTC a year that RFC 3339 cannot write.
    pub fn parse(text: &str) -> Option<Self> {
        let time = OffsetDateTime::parse(text, &Rfc3339).ok()?.checked_to_offset(UtcOffset::UTC)?;
        if !(0..=9999).contains(&time.year()) {
            return None;
        }
        i64::try_from(time.unix_timestamp_nanos() / 1_000_000).ok().map(Self)
    }

    /// Whole seconds since the epoch, rounded down.
    pub fn seconds(self) -> i64 {
        self.0.div_euclid(1000)
    }
}

/// RFC 3339 in UTC with milliseconds.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match OffsetDateTime::from_unix_timestamp_nanos(i128::from(self.0) * 1_000_000) {
            Ok(t) => write!(
                f,
                "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z",
                t.year(),
                u8::from(t.month()),
                t.day(),
                t.hour(),
                t.minute(),
                t.second(),
                t.millisecond()
            ),
            Err(_) => write!(f, "{}ms", self.0),
        }
    }
}

/// Tells the time of day. The server passes the real one, tests their own.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// Fills a buffer with random bytes fit for secrets. The server passes the system's, tests may pass a seeded one.
pub type Random = Arc<dyn Fn(&mut [u8]) + Send + Sync>;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn round_trips_and_never_panics(time: i64, within in -62_135_596_800_000_i64..253_402_300_800_000, text in "\\PC{0,40}|[0-9TZ:.+-]{0,40}") {
            let _ = Timestamp(time).to_string();
            prop_assert_eq!(Timestamp::parse(&Timestamp(within).to_string()), Some(Timestamp(within)));
            let _ = Timestamp::parse(&text);
        }
    }

    #[test]
    fn text_form_is_rfc_3339_in_utc() {
        for (text, milliseconds) in [
            ("1970-01-01T00:00:00.000Z", 0),
            ("2026-11-24T10:00:00.250Z", 1_795_514_400_250),
            ("1969-12-31T23:59:59.999Z", -1),
        ] {
            assert_eq!(Timestamp(milliseconds).to_string(), text);
            assert_eq!(Timestamp::parse(text), Some(Timestamp(milliseconds)));
        }
        assert_eq!(Timestamp::parse("2026-11-24T11:00:00.25+01:00"), Timestamp::parse("2026-11-24T10:00:00.25Z"));
        for bad in ["yesterday", "0000-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59"] {
            assert_eq!(Timestamp::parse(bad), None, "{bad}");
        }
    }
}
