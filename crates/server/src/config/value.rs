//! Text forms of sizes and durations.

use std::fmt;
use std::time::Duration;

/// A number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

const SIZE_UNITS: [(&str, u64); 4] = [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
const TIME_UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

impl ByteSize {
    /// `64KiB`, `10GiB`, `512B`, or a plain number of bytes. Units are binary; decimal ones (`KB`) are refused, so that
    /// nobody has to guess.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let (number, unit) = split(text);
        let factor = match unit {
            "" | "B" => Some(1),
            _ => SIZE_UNITS.iter().find(|(name, _)| *name == unit).map(|(_, factor)| *factor),
        };
        let (Ok(number), Some(factor)) = (number.parse::<u64>(), factor) else {
            return Err(format!("`{text}` is not a size such as 64KiB, 4MiB or 10GiB"));
        };
        number.checked_mul(factor).map(Self).ok_or_else(|| format!("`{text}` is too large"))
    }

    /// As a length in memory; saturates on machines with small addresses.
    pub fn as_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match SIZE_UNITS.iter().find(|(_, factor)| self.0 >= *factor && self.0.is_multiple_of(*factor)) {
            Some((name, factor)) => write!(f, "{}{name}", self.0 / factor),
            None => write!(f, "{}B", self.0),
        }
    }
}

/// `500ms`, `90s`, `15m`, `24h`, `30d`; `0` needs no unit.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let text = text.trim();
    let (number, unit) = split(text);
    let factor = match unit {
        "" if number == "0" => Some(1),
        _ => TIME_UNITS.iter().find(|(name, _)| *name == unit).map(|(_, factor)| *factor),
    };
    let (Ok(number), Some(factor)) = (number.parse::<u64>(), factor) else {
        return Err(format!("`{text}` is not a duration such as 90s, 15m, 24h or 30d"));
    };
    // 100 years: what is added to a time of day must not leave the calendar.
    match number.checked_mul(factor).filter(|ms| *ms <= 100 * 366 * 86_400_000) {
        Some(milliseconds) => Ok(Duration::from_millis(milliseconds)),
        None => Err(format!("`{text}` is too long")),
    }
}

/// The form that [`parse_duration`] reads.
pub fn duration_text(duration: Duration) -> String {
    let milliseconds = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    if milliseconds == 0 {
        return "0s".to_owned();
    }
    match TIME_UNITS.iter().find(|(_, factor)| milliseconds.is_multiple_of(*factor)) {
        Some((name, factor)) => format!("{}{name}", milliseconds / factor),
        None => format!("{milliseconds}ms"),
    }
}

fn split(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    (number, unit.trim_start())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, bytes, printed) in [
            ("64KiB", 65_536, "64KiB"),
            ("4 MiB", 4 << 20, "4MiB"),
            ("10GiB", 10 << 30, "10GiB"),
            ("512B", 512, "512B"),
            ("1024", 1024, "1KiB"),
            ("0", 0, "0B"),
            ("1025B", 1025, "1025B"),
        ] {
            assert_eq!(ByteSize::parse(text), Ok(ByteSize(bytes)), "{text}");
            assert_eq!(ByteSize(bytes).to_string(), printed);
            assert_eq!(ByteSize::parse(printed), Ok(ByteSize(bytes)));
        }
        for text in ["", "KiB", "4MB", "4mib", "-1", "1.5GiB", "99999999999TiB", "4 M iB"] {
            assert!(ByteSize::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn durations() {
        for (text, milliseconds, printed) in [
            ("90s", 90_000, "90s"),
            ("120s", 120_000, "2m"),
            ("15m", 900_000, "15m"),
            ("24h", 86_400_000, "1d"),
            ("30d", 2_592_000_000, "30d"),
            ("250ms", 250, "250ms"),
            ("0", 0, "0s"),
            ("0s", 0, "0s"),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(milliseconds)), "{text}");
            assert_eq!(duration_text(Duration::from_millis(milliseconds)), printed);
        }
        for text in ["", "s", "10", "1.5h", "1h30m", "-1s", "5y", "999999999d", "18446744073709551615d"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }
}
