//! Names and secrets, as they come and as they are stored.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use oci::Timestamp;
use policy::{Subject, SubjectKind};
use registry::Registry;

/// The longest name that is looked up; robots' names reach it.
const MAX_NAME: usize = 255;

const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The name and the secret of a `Basic` header's value (RFC 7617); `Some(None)` when both are empty, `None` when it is
/// malformed.
#[expect(clippy::option_option, reason = "malformed and empty are different")]
pub fn parse(value: &str) -> Option<Option<(String, String)>> {
    let decoded = String::from_utf8(LENIENT.decode(value.trim()).ok()?).ok()?;
    let (name, secret) = decoded.split_once(':')?;
    if name.is_empty() && secret.is_empty() {
        return Some(None);
    }
    if name.is_empty() || name.len() > MAX_NAME {
        return None;
    }
    Some(Some((name.to_owned(), secret.to_owned())))
}

/// What an account's secret is compared with.
pub enum Stored {
    /// Nothing.
    None,
    /// A password's hash.
    Password(String),
    /// Secrets, any of which is right.
    Secrets(Vec<Secret>),
}

/// A robot's secret that is valid now.
pub struct Secret {
    /// Its hash.
    pub hash: String,
    /// From when on it opens nothing.
    pub expires_at: Option<Timestamp>,
}

/// What is stored for the account `name`, which must be that of `subject`. Asks the database the same whether there is
/// such an account or not.
pub async fn stored(
    registry: &Registry,
    name: &str,
    subject: Option<&Subject>,
    now: Timestamp,
) -> Result<Stored, meta::Error> {
    let row = registry.db().credentials(name).await?;
    let Some((row, subject)) = row.zip(subject).filter(|(row, subject)| row.subject.id == subject.id.0) else {
        return Ok(Stored::None);
    };
    Ok(match subject.kind {
        SubjectKind::User => row.password_hash.map_or(Stored::None, Stored::Password),
        SubjectKind::Robot => {
            let live = row.secrets.into_iter().filter(|secret| secret.expires_at.is_none_or(|end| end > now));
            Stored::Secrets(live.map(|secret| Secret { hash: secret.hash, expires_at: secret.expires_at }).collect())
        }
    })
}

/// Which of them the secret is, if any. A robot's secret is long and random, so a plain hash suffices.
pub fn find<'a>(secret: &str, stored: &'a [Secret]) -> Option<&'a Secret> {
    let hash = registry::accounts::hash_secret(secret);
    let same = |stored: &Secret| verify_slices_are_equal(stored.hash.as_bytes(), hash.as_str().as_bytes()).is_ok();
    // Each is compared, so that the time does not tell which one it was.
    stored.iter().fold(None, |found, secret| if same(secret) { Some(secret) } else { found })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers() {
        let pair = |name: &str, secret: &str| Some(Some((name.to_owned(), secret.to_owned())));
        assert_eq!(parse("YWxpY2U6cDpx"), pair("alice", "p:q"));
        assert_eq!(parse("YTpi"), pair("a", "b"));
        assert_eq!(parse("YTo="), pair("a", ""));
        assert_eq!(parse("YTo"), pair("a", ""), "padding may be missing");
        assert_eq!(parse("Og=="), Some(None), "q3");
        for bad in ["", "YQ==", "OnA=", "a b", "YTpi, Bearer x", "/w==", &"YWFh".repeat(100)] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_secret_is_compared_with_all() {
        let stored = ["a", "b"]
            .map(|secret| Secret { hash: registry::accounts::hash_secret(secret).to_string(), expires_at: None });
        for (secret, place) in [("a", Some(0)), ("b", Some(1)), ("c", None), ("", None)] {
            let found = find(secret, &stored).map(|found| found.hash.as_str());
            assert_eq!(found, place.map(|place: usize| stored[place].hash.as_str()), "{secret}");
        }
        assert!(find("a", &[]).is_none());
    }
}
