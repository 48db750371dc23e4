//! Keys: the key-encryption key in a file, the signing keys in the database, wrapped by it.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use bytes::Bytes;
use meta::{Actor, Db, NewSigningKey};
use oci::{Random, Timestamp};

use crate::data_dir::{DataDir, names, read_private, read_small, replace};
use crate::error::Error;

/// Bytes of every key here.
const KEY: usize = 32;
/// What the signing keys of tokens are for.
const TOKENS: &str = "token";
/// The file in [`names::KEYS`].
const KEK: &str = "kek";

/// The key that opens all others.
pub struct Kek(LessSafeKey);

impl std::fmt::Debug for Kek {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Kek")
    }
}

/// A key that signs tokens.
pub struct SigningKey {
    /// Its id, which tokens carry.
    pub id: String,
    /// 32 bytes.
    pub secret: Vec<u8>,
    /// When it was made.
    pub created_at: Timestamp,
    /// Since when it signs no more.
    pub retired_at: Option<Timestamp>,
}

impl Kek {
    /// Reads the key, from the file that the configuration names or from the data directory, where it is made at the first
    /// start. `may_make`: there is nothing yet that another key could have wrapped.
    ///
    /// # Errors
    /// [`Error::Unsafe`] when others can read it, [`Error::DataDir`] when it is missing and needed, or no key.
    pub fn open(data: &DataDir, file: Option<&Path>, may_make: bool, random: &Random) -> Result<Self, Error> {
        if let Some(path) = file {
            return Self::parse(path, &read_given(path)?);
        }
        let path = data.make_dir(names::KEYS)?.join(KEK);
        match fs::symlink_metadata(&path) {
            Ok(_) => Self::parse(&path, &read_private(&path)?),
            Err(source) if source.kind() == io::ErrorKind::NotFound && may_make => {
                let mut key = [0; KEY];
                random(&mut key);
                let text: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
                replace(&path, format!("{text}\n").as_bytes())?;
                Self::parse(&path, text.as_bytes())
            }
            Err(source) if source.kind() == io::ErrorKind::NotFound => Err(Error::DataDir {
                what: format!(
                    "{} is missing, and the signing keys in the database cannot be opened without it",
                    path.display()
                ),
                help: "put it back; without it, restore a backup into an empty directory, which makes a new one"
                    .to_owned(),
            }),
            Err(source) => Err(Error::io("look at", path, source)),
        }
    }

    fn parse(path: &Path, text: &[u8]) -> Result<Self, Error> {
        let wrong = || Error::DataDir {
            what: format!("{} does not hold a key of 64 hexadecimal digits", path.display()),
            help: "restore it from a backup".to_owned(),
        };
        let text = text.trim_ascii();
        if text.len() != 2 * KEY {
            return Err(wrong());
        }
        let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        let key: Option<Vec<u8>> = text.chunks(2).map(|pair| Some(digit(pair[0])? << 4 | digit(pair[1])?)).collect();
        UnboundKey::new(&AES_256_GCM, &key.ok_or_else(wrong)?)
            .map(|key| Self(LessSafeKey::new(key)))
            .map_err(|_| wrong())
    }

    /// Wraps a key for the row with this purpose and id; it opens for no other row. The form is nonce, ciphertext, tag
    /// (AES-256-GCM).
    fn wrap(&self, purpose: &str, id: &str, key: &[u8], random: &Random) -> Option<Vec<u8>> {
        let mut nonce = [0; NONCE_LEN];
        random(&mut nonce);
        let mut sealed = key.to_vec();
        let aad = Aad::from(context(purpose, id));
        self.0.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), aad, &mut sealed).ok()?;
        Some([&nonce[..], &sealed].concat())
    }

    fn unwrap(&self, purpose: &str, id: &str, wrapped: &[u8]) -> Option<Vec<u8>> {
        let (nonce, sealed) = wrapped.split_at_checked(NONCE_LEN)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut key = sealed.to_vec();
        let opened = self.0.open_in_place(nonce, Aad::from(context(purpose, id)), &mut key).ok()?;
        Some(opened.to_vec())
    }
}

fn context(purpose: &str, id: &str) -> Vec<u8> {
    format!("portcullis signing key\0{purpose}\0{id}").into_bytes()
}

/// A file that the operator names: mounted secrets are links, belong to root and may be readable by the group.
fn read_given(path: &Path) -> Result<Vec<u8>, Error> {
    let metadata = fs::metadata(path).map_err(|source| Error::io("read", path, source))?;
    if metadata.mode() & 0o027 != 0 {
        return Err(Error::refuse(
            format!("others can get at the key {} (mode {:04o})", path.display(), metadata.mode() & 0o7777),
            format!("chmod 600 {}", path.display()),
        ));
    }
    read_small(path)
}

/// Whether there is a key in use that only the key-encryption key of this store can open.
///
/// # Errors
/// [`Error::Database`].
pub async fn needs_kek(db: &Db) -> Result<bool, Error> {
    Ok(db.signing_keys().await.map_err(database)?.iter().any(|row| row.retired_at.is_none()))
}

/// Retires every signing key: for a store that was restored without its key-encryption key, which is no part of a backup.
///
/// # Errors
/// [`Error::Database`].
pub async fn retire_all(db: &Db) -> Result<(), Error> {
    for row in db.signing_keys().await.map_err(database)? {
        if row.retired_at.is_none() {
            db.retire_signing_key(&row.id, &Actor::system("restore")).await.map_err(database)?;
        }
    }
    Ok(())
}

/// The keys that sign tokens, the newest one that is not retired first. One is made at the first start, but not in read-only
/// mode, when there has to be one.
///
/// # Errors
/// [`Error::DataDir`] when the key-encryption key is not the one that wrapped them.
pub async fn token_keys(db: &Db, kek: &Kek, random: &Random) -> Result<Vec<SigningKey>, Error> {
    let mut keys = read_token_keys(db, kek).await?;
    if keys.iter().all(|key| key.retired_at.is_some()) {
        let (mut id, mut secret) = ([0; 8], [0; KEY]);
        random(&mut id);
        random(&mut secret);
        let id: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
        let wrapped = kek.wrap(TOKENS, &id, &secret, random).ok_or_else(|| unopened(&id))?;
        let new = NewSigningKey { id, purpose: TOKENS.to_owned(), wrapped: Bytes::from(wrapped) };
        db.add_signing_key(new, &Actor::system("start")).await.map_err(database)?;
        keys = read_token_keys(db, kek).await?;
    }
    keys.sort_by_key(|key| (key.retired_at.is_some(), std::cmp::Reverse(key.created_at)));
    Ok(keys)
}

async fn read_token_keys(db: &Db, kek: &Kek) -> Result<Vec<SigningKey>, Error> {
    let rows = db.signing_keys().await.map_err(database)?;
    rows.into_iter()
        .filter(|row| row.purpose == TOKENS)
        .filter_map(|row| match kek.unwrap(&row.purpose, &row.id, &row.wrapped) {
            Some(secret) => {
                Some(Ok(SigningKey { id: row.id, secret, created_at: row.created_at, retired_at: row.retired_at }))
            }
            None if row.retired_at.is_some() => {
                tracing::warn!(key = row.id, "a retired signing key cannot be opened: tokens that it signed are void");
                None
            }
            None => Some(Err(unopened(&row.id))),
        })
        .collect()
}

fn unopened(id: &str) -> Error {
    Error::DataDir {
        what: format!("the key-encryption key does not open the signing key {id} in the database"),
        help: "put back keys/kek of this data directory, or the file that keys.kek_file named before".to_owned(),
    }
}

fn database(error: meta::Error) -> Error {
    Error::Database(Box::new(error))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::sync::Arc;

    use super::*;
    use crate::clock::{system_clock, system_random};

    fn data() -> (tempfile::TempDir, DataDir) {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::open(&dir.path().join("data"), &system_clock()).unwrap();
        (dir, data)
    }

    fn open(data: &DataDir) -> Result<Kek, Error> {
        Kek::open(data, None, true, &system_random())
    }

    #[test]
    fn a_wrapped_key_opens_only_for_its_row_and_unchanged() {
        let (_dir, data) = data();
        let (kek, random) = (open(&data).unwrap(), system_random());
        let mut wrapped = kek.wrap("token", "a", b"secret", &random).unwrap();
        assert_eq!(kek.unwrap("token", "a", &wrapped).as_deref(), Some(&b"secret"[..]));
        assert_eq!(open(&data).unwrap().unwrap("token", "a", &wrapped).as_deref(), Some(&b"secret"[..]));
        assert_eq!(kek.unwrap("token", "b", &wrapped), None);
        assert_eq!(kek.unwrap("other", "a", &wrapped), None);
        assert_eq!(kek.unwrap("token", "a", &wrapped[..5]), None);
        wrapped[NONCE_LEN] ^= 1;
        assert_eq!(kek.unwrap("token", "a", &wrapped), None);
    }

    // security: M-06
    #[test]
    fn m06_the_key_is_ours_alone_and_is_made_only_when_nothing_depends_on_it() {
        let (dir, data) = data();
        let error = Kek::open(&data, None, false, &system_random()).unwrap_err();
        assert!(error.to_string().contains("missing"));
        open(&data).unwrap();
        let path = data.path("keys/kek");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let error = open(&data).unwrap_err();
        assert_eq!((error.exit_code(), error.help().unwrap()), (6, format!("chmod 600 {}", path.display())));
        let moved = dir.path().join("kek");
        fs::rename(&path, &moved).unwrap();
        std::os::unix::fs::symlink(&moved, &path).unwrap();
        assert_eq!(open(&data).unwrap_err().exit_code(), 6);
        // A named file may be a link, and is refused when everybody can read it.
        assert_eq!(Kek::open(&data, Some(&path), false, &system_random()).unwrap_err().exit_code(), 6);
        fs::set_permissions(&moved, fs::Permissions::from_mode(0o440)).unwrap();
        Kek::open(&data, Some(&path), false, &system_random()).unwrap();
        fs::set_permissions(&moved, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&moved, "short").unwrap();
        assert_eq!(Kek::open(&data, Some(&moved), false, &system_random()).unwrap_err().code(), "data_dir_damaged");
    }

    #[tokio::test]
    async fn a15_a_restart_keeps_the_signing_key_and_another_kek_is_refused() {
        let (_dir, data) = data();
        let (clock, random) = (system_clock(), system_random());
        let db = Db::open_sqlite(&data.path("meta.db"), clock, random.clone()).unwrap();
        assert!(!needs_kek(&db).await.unwrap());
        let kek = open(&data).unwrap();
        let first = token_keys(&db, &kek, &random).await.unwrap();
        let again = token_keys(&db, &kek, &random).await.unwrap();
        assert_eq!((first.len(), &first[0].id, &first[0].secret), (1, &again[0].id, &again[0].secret));
        assert!(needs_kek(&db).await.unwrap());
        let zero: Random = Arc::new(|bytes| bytes.fill(0));
        fs::remove_file(data.path("keys/kek")).unwrap();
        let other = Kek::open(&data, None, true, &zero).unwrap();
        assert_eq!(token_keys(&db, &other, &random).await.err().unwrap().code(), "data_dir_damaged");
        // Restored elsewhere: the old keys are retired, and a new one takes their place.
        retire_all(&db).await.unwrap();
        assert!(!needs_kek(&db).await.unwrap());
        let restored = token_keys(&db, &other, &random).await.unwrap();
        assert!(restored.len() == 1 && restored[0].id != first[0].id);
    }
}
