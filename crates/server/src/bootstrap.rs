//! The first start: an administrator, and a password that somebody gets to see exactly once.

use std::io::{self, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use policy::{Caller, Credential, Identity, authorize_admin};
use registry::accounts::{self, FIRST_USER};

use crate::data_dir::{DataDir, names, remove, replace};
use crate::error::Error;
use crate::state::AppState;

/// The longest file that is read for a password.
const FILE_LIMIT: u64 = 64 << 10;

/// Where the first password went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FirstPassword {
    /// There were users already.
    None,
    /// It was given by the configuration.
    Given,
    /// It is in this file of the data directory, and is to be shown on the terminal if there is one.
    Generated {
        /// The password.
        password: String,
        /// The file.
        file: PathBuf,
    },
}

/// Makes the first administrator if there is no user and the mode allows it. A generated password is in a file before the user is in the
/// database, so that no crash can lose it.
///
/// # Errors
/// [`Error::Unsafe`] when the given password is empty or otherwise none.
pub async fn first_user(state: &AppState, data: &DataDir) -> Result<FirstPassword, Error> {
    let users = state.registry.db().users(None, 1).await.map_err(|error| Error::database(data.root(), error))?;
    if !users.is_empty() || state.config.is_read_only() {
        return Ok(FirstPassword::None);
    }
    let file = data.path(names::INITIAL_PASSWORD);
    let (password, first) = match &state.config.bootstrap.password_file {
        Some(path) => (given(path)?, FirstPassword::Given),
        None => {
            let password = accounts::new_password(&state.registry);
            replace(&file, format!("{password}\n").as_bytes())?;
            (password.clone(), FirstPassword::Generated { password, file: file.clone() })
        }
    };
    let hash =
        state.auth.hash_password(&password).await.map_err(|error| Error::operation("hashing a password", error))?;
    let caller = Arc::new(Caller {
        identity: Identity::Anonymous,
        credential: Credential::Socket,
        credential_id: "system".to_owned(),
        source: "local".to_owned(),
        request_id: "first-start".to_owned(),
    });
    let access = authorize_admin(&state.rules.load(), &caller, (state.clock)()).map_err(|refusal| {
        Error::refuse(format!("the first administrator was not made: {refusal:?}"), "start with a new data directory")
    })?;
    let made = accounts::add_first_user(&state.registry, &access, hash)
        .await
        .map_err(|error| Error::operation("making the first administrator", error))?;
    state.rules.reload().await.map_err(|error| Error::Database(Box::new(error)))?;
    if made.is_none() {
        remove(&file)?;
        return Ok(FirstPassword::None);
    }
    Ok(first)
}

fn given(path: &Path) -> Result<String, Error> {
    use std::io::Read as _;
    let wrong = |source| Error::io("read", path, source);
    let mut text = String::new();
    std::fs::File::open(path).map_err(wrong)?.take(FILE_LIMIT).read_to_string(&mut text).map_err(wrong)?;
    let password = text.strip_suffix('\n').unwrap_or(&text);
    let password = password.strip_suffix('\r').unwrap_or(password);
    accounts::check_password(password).map_err(|error| {
        Error::refuse(
            format!("bootstrap.password_file is no good: {error}"),
            format!("write a password into {}, on one line", path.display()),
        )
    })?;
    Ok(password.to_owned())
}

/// Tells the password: on a terminal by one line, once; elsewhere only where it is, since logs live long.
///
/// # Errors
/// [`Error::Io`] when the file of a password that was shown cannot be removed.
pub fn announce(first: &FirstPassword, state: &AppState) -> Result<(), Error> {
    let FirstPassword::Generated { password, file } = first else { return Ok(()) };
    let out = io::stdout();
    if out.is_terminal()
        && write!(out.lock(), "{}", greeting(password, state)).and_then(|()| out.lock().flush()).is_ok()
    {
        return remove(file);
    }
    let place = std::path::absolute(file).unwrap_or_else(|_| file.clone());
    tracing::info!(
        target: crate::logs::ALWAYS,
        user = FIRST_USER,
        file = %place.display(),
        "the first administrator's password is in a file, which is removed when the password is changed"
    );
    Ok(())
}

fn greeting(password: &str, state: &AppState) -> String {
    let config = &state.config;
    let host =
        config.server.urls().first().map_or_else(|| "localhost:5000".to_owned(), |url| url.authority().to_owned());
    let usual = Path::new("./portcullis-data");
    let at = match config.data_dir == usual {
        true => String::new(),
        false => format!(" --data-dir {}", config.data_dir.display()),
    };
    format!(
        "\npassword for {FIRST_USER}: {password}\n\n\
         It is shown only now. Next:\n\
         \x20 docker login {host} --username {FIRST_USER}\n\
         \x20 docker tag IMAGE {host}/team/app:v1\n\
         \x20 docker push {host}/team/app:v1\n\
         \x20 portcullis user add alice{at}\n\
         \x20 portcullis grant add user:alice writer 'team/**'{at}\n\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_given_password_is_one_line_and_not_empty() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("p");
        for (text, password) in [("a b\n", "a b"), ("x\r\n", "x"), (" y ", " y ")] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(given(&path).unwrap(), password);
        }
        for text in ["", "\n", "a\nb\n"] {
            std::fs::write(&path, text).unwrap();
            let error = given(&path).unwrap_err();
            assert_eq!(error.exit_code(), 6, "{error}");
        }
        assert_eq!(given(&dir.path().join("absent")).unwrap_err().exit_code(), 1);
    }
}
