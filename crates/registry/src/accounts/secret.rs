//! Generated secrets of robots and generated passwords of users.

use oci::{Algorithm, Digest, Hasher, Random};

use super::Invalid;

/// How every secret of a robot begins, so that secret scanners know it.
pub const PREFIX: &str = "pcr_";
/// Random characters of a secret: 238 bits.
const RANDOM: usize = 40;
/// Characters of the checksum that follow.
const CHECKSUM: usize = 6;
const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// Without `0`, `o`, `1`, `l` and `i`, which look alike.
const READABLE: &[u8; 31] = b"23456789abcdefghjkmnpqrstuvwxyz";
/// Four groups of five: 99 bits.
const GROUPS: usize = 4;
const GROUP: usize = 5;

/// The longest password in bytes. All of them count.
pub const MAX_PASSWORD: usize = 1024;

/// A new secret: `pcr_`, 40 random characters of base 62, and the CRC-32 of those as 6 characters of base 62.
pub fn generate_secret(random: &Random) -> String {
    let body: String = std::iter::repeat_with(|| pick(random, BASE62)).take(RANDOM).collect();
    format!("{PREFIX}{body}{}", checksum(&body))
}

/// Whether the text has the form of a secret and its checksum agrees. Says nothing of whether it is anybody's.
pub fn is_secret(text: &str) -> bool {
    let Some(rest) = text.strip_prefix(PREFIX) else { return false };
    rest.len() == RANDOM + CHECKSUM
        && rest.bytes().all(|c| c.is_ascii_alphanumeric())
        && checksum(&rest[..RANDOM]) == rest[RANDOM..]
}

/// The form in which a secret is stored: its SHA-256. That suffices, since it has 238 random bits.
pub fn hash_secret(secret: &str) -> Digest {
    Hasher::digest(Algorithm::Sha256, secret.as_bytes())
}

/// A new password for a person to read and type, such as `k7hqx-2mvwt-c9r4n-zp3fd`.
pub fn generate_password(random: &Random) -> String {
    let group = || -> String { std::iter::repeat_with(|| pick(random, READABLE)).take(GROUP).collect() };
    (0..GROUPS).map(|_| group()).collect::<Vec<_>>().join("-")
}

/// Checks a password that somebody chose: 1 to 1024 bytes, no control characters (RFC 7617 has none).
pub fn check_password(password: &str) -> Result<(), Invalid> {
    if password.is_empty() {
        return Err(Invalid::Password("the password is empty"));
    }
    if password.len() > MAX_PASSWORD {
        return Err(Invalid::Password("the password is longer than 1024 bytes"));
    }
    if password.chars().any(char::is_control) {
        return Err(Invalid::Password("the password holds a control character, such as a line break"));
    }
    Ok(())
}

/// One character of the alphabet, each as likely as another.
fn pick(random: &Random, alphabet: &[u8]) -> char {
    let ceiling = 256 - 256 % alphabet.len();
    loop {
        let mut byte = [0];
        random(&mut byte);
        if usize::from(byte[0]) < ceiling {
            return char::from(alphabet[usize::from(byte[0]) % alphabet.len()]);
        }
    }
}

fn checksum(text: &str) -> String {
    let mut crc = crc32(text.as_bytes());
    let mut digits = [b'0'; CHECKSUM];
    for digit in digits.iter_mut().rev() {
        *digit = BASE62[(crc % 62) as usize];
        crc /= 62;
    }
    digits.into_iter().map(char::from).collect()
}

/// CRC-32 of IEEE 802.3, as zip and PNG use it.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc: u32, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 & 0_u32.wrapping_sub(crc & 1)))
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    fn random() -> Random {
        let state = AtomicU64::new(1);
        Arc::new(move |buffer: &mut [u8]| {
            for byte in buffer {
                let next = state.load(Ordering::Relaxed).wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                state.store(next, Ordering::Relaxed);
                *byte = (next >> 33) as u8;
            }
        })
    }

    #[test]
    fn secrets_are_recognisable() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
        let (first, second) = (generate_secret(&random()), generate_secret(&random()));
        assert_eq!(first, second, "the seed decides");
        assert!(is_secret(&first) && first.len() == 50, "{first}");
        let mut wrong = first.clone().into_bytes();
        wrong[10] = if wrong[10] == b'x' { b'y' } else { b'x' };
        for bad in ["", "pcr_", &first[..49], &format!("{first}0"), &String::from_utf8(wrong).unwrap()] {
            assert!(!is_secret(bad), "{bad}");
        }
        assert_eq!(hash_secret(&first).hex().len(), 64);
    }

    #[test]
    fn passwords() {
        let password = generate_password(&random());
        assert_eq!(password.len(), 23);
        assert!(password.bytes().all(|c| c == b'-' || READABLE.contains(&c)), "{password}");
        assert!(check_password(&password).is_ok() && check_password("ä ö").is_ok());
        for bad in ["", "a\n", "\0", &"a".repeat(1025)] {
            assert!(check_password(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn every_character_is_as_likely() {
        let random = random();
        let mut counts = [0_u32; 256];
        for _ in 0..62_000 {
            counts[pick(&random, BASE62) as usize] += 1;
        }
        assert!(BASE62.iter().all(|c| (800..1200).contains(&counts[usize::from(*c)])));
    }
}
