//! Lengths of time on the wire and on the command line.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::{RefOr, Schema};

/// A whole number of seconds, minutes, hours or days: `90s`, `15m`, `24h`, `30d`; `0` is `0s`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Lifetime(pub Duration);

/// The text is not a lifetime.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LifetimeError;

impl fmt::Display for LifetimeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a length of time is a whole number with s, m, h or d, such as 90d")
    }
}

impl std::error::Error for LifetimeError {}

const UNITS: [(char, u64); 4] = [('d', 86_400), ('h', 3_600), ('m', 60), ('s', 1)];

/// Longer than any date that a column or a client can hold is an error, not a wrap.
const MAX_SECONDS: u64 = 1_000 * 366 * 86_400;

impl FromStr for Lifetime {
    type Err = LifetimeError;

    fn from_str(text: &str) -> Result<Self, LifetimeError> {
        let (number, unit) = match UNITS.iter().find(|(unit, _)| text.ends_with(*unit)) {
            Some((_, seconds)) => (&text[..text.len() - 1], *seconds),
            None if text == "0" => (text, 1),
            None => return Err(LifetimeError),
        };
        if number.is_empty() || number.len() > 12 || !number.bytes().all(|c| c.is_ascii_digit()) {
            return Err(LifetimeError);
        }
        let number: u64 = number.parse().map_err(|_| LifetimeError)?;
        let seconds = number.checked_mul(unit).filter(|seconds| *seconds <= MAX_SECONDS).ok_or(LifetimeError)?;
        Ok(Self(Duration::from_secs(seconds)))
    }
}

/// In the largest unit that gives a whole number; what is below a second is cut off.
impl fmt::Display for Lifetime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        let (unit, divisor) =
            UNITS.into_iter().find(|(_, divisor)| seconds != 0 && seconds.is_multiple_of(*divisor)).unwrap_or(('s', 1));
        write!(f, "{}{unit}", seconds / divisor)
    }
}

impl Serialize for Lifetime {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Lifetime {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Cow::<str>::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl utoipa::PartialSchema for Lifetime {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new().schema_type(Type::String).pattern(Some("^(0|[0-9]{1,12}[smhd])$")).examples(["90d"]).into()
    }
}

impl utoipa::ToSchema for Lifetime {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_form() {
        for (text, seconds, canonical) in
            [("90s", 90, "90s"), ("15m", 900, "15m"), ("24h", 86_400, "1d"), ("30d", 2_592_000, "30d"), ("0", 0, "0s")]
        {
            let lifetime: Lifetime = text.parse().unwrap();
            assert_eq!((lifetime.0.as_secs(), lifetime.to_string().as_str()), (seconds, canonical));
        }
        for bad in ["", "d", "90", "-1d", "1.5h", "1 d", "1D", "9999999999999s", "999999999999d", "1w", "１d"] {
            assert_eq!(bad.parse::<Lifetime>(), Err(LifetimeError), "{bad}");
        }
    }
}
