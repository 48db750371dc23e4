//! The stored login: which server client commands talk to without being told, and as whom.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::Error;

/// The file holds one entry a server; a person has a handful of them.
const FILE_LIMIT: u64 = 1 << 20;

/// One login.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct Login {
    /// The admin API's URL as `BaseUrl` shows it.
    pub server: String,
    /// The user's name.
    pub name: String,
    /// Ends with the password, or after 90 days.
    pub refresh_token: String,
    /// Authorities besides the system's, as an absolute path.
    pub ca_file: Option<PathBuf>,
}

/// All of them; the first is the one that commands use.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Logins {
    /// Newest first.
    pub logins: Vec<Login>,
}

/// `$XDG_CONFIG_HOME/portcullis/login.json`, by default below `~/.config`; `None` without a home.
pub fn path() -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let base = set("XDG_CONFIG_HOME").filter(|p| p.is_absolute()).or_else(|| set("HOME").map(|h| h.join(".config")))?;
    Some(base.join("portcullis").join("login.json"))
}

impl Logins {
    /// Reads the file; an absent one is empty. Others may not be able to read it.
    pub fn load(path: &Path) -> Result<Self, Error> {
        let metadata = match fs::metadata(path) {
            Ok(metadata) => metadata,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(e) => return Err(Error::io("read", path, e)),
        };
        if metadata.permissions().mode() & 0o077 != 0 {
            return Err(Error::OpenToOthers { path: path.to_owned() });
        }
        if metadata.len() > FILE_LIMIT {
            return Err(damaged(path, "it is too large"));
        }
        let bytes = fs::read(path).map_err(|e| Error::io("read", path, e))?;
        serde_json::from_slice(&bytes).map_err(|e| damaged(path, &e.to_string()))
    }

    /// Writes the file by rename, mode 0600 in a directory of mode 0700.
    pub fn store(&self, path: &Path) -> Result<(), Error> {
        let directory = path.parent().unwrap_or(Path::new("."));
        let write = || {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
            let fresh = path.with_extension(format!("new-{}", std::process::id()));
            let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
            file.write_all(&serde_json::to_vec_pretty(self)?)?;
            file.sync_all()?;
            fs::rename(&fresh, path)
        };
        write().map_err(|e| Error::io("write", path, e))
    }

    /// The login for this server.
    pub fn find(&self, server: &str) -> Option<&Login> {
        self.logins.iter().find(|l| l.server == server)
    }

    /// Puts one first, in the place of an older one for the same server.
    pub fn put(&mut self, login: Login) {
        self.remove(&login.server);
        self.logins.insert(0, login);
    }

    /// Renews one in its place, if it is still there.
    pub fn replace(&mut self, login: Login) {
        if let Some(old) = self.logins.iter_mut().find(|l| l.server == login.server) {
            *old = login;
        }
    }

    /// Forgets one; `None` when there was none.
    pub fn remove(&mut self, server: &str) -> Option<Login> {
        let at = self.logins.iter().position(|l| l.server == server)?;
        Some(self.logins.remove(at))
    }
}

fn damaged(path: &Path, why: &str) -> Error {
    Error::Usage {
        message: format!("{} is not a file of logins: {why}", path.display()),
        help: Some("remove it and log in again".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn login(server: &str) -> Login {
        Login { server: server.into(), name: "alice".into(), refresh_token: "t".into(), ca_file: None }
    }

    #[test]
    fn the_newest_login_comes_first_and_the_file_is_private() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("portcullis/login.json");
        let mut logins = Logins::load(&path).unwrap();
        logins.put(login("https://a"));
        logins.put(login("https://b"));
        logins.put(login("https://a"));
        logins.store(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let mut again = Logins::load(&path).unwrap();
        assert_eq!(again.logins.iter().map(|l| l.server.as_str()).collect::<Vec<_>>(), ["https://a", "https://b"]);
        assert_eq!(again.remove("https://a"), Some(login("https://a")));
        assert_eq!(again.remove("https://a"), None);
    }

    #[test]
    fn a_file_that_others_can_read_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("login.json");
        Logins::default().store(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(Logins::load(&path), Err(Error::OpenToOthers { .. })));
    }
}
