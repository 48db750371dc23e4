//! Landlock: which directories and which ports.

use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible as _, NetPort, PathBeneath, PathFd,
    Ruleset, RulesetAttr as _, RulesetCreated, RulesetCreatedAttr as _, RulesetError, RulesetStatus, Scope,
};

use meta::Authorities;

use super::Level;
use crate::config::{Config, DatabaseUrl};
use crate::error::Error;

/// The newest interface of which something is asked: version 6 (Linux 6.12) can keep signals in.
const NEWEST: ABI = ABI::V6;

/// What may be done, and where.
#[derive(Debug, Default, PartialEq, Eq)]
struct Allowed {
    /// Directories below which everything but devices and programs.
    write: Vec<PathBuf>,
    /// Directories below which files are read.
    read: Vec<PathBuf>,
    /// Files that are read.
    files: Vec<PathBuf>,
    /// Ports that may be bound; 0 is any free one.
    bind: Vec<u16>,
    /// Ports that may be connected to.
    connect: Vec<u16>,
}

/// What the lookup of names reads.
const NAMES: [&str; 2] = ["/etc/resolv.conf", "/etc/hosts"];
/// The port of name servers, for answers that are too long for a datagram.
const NAME_SERVER: u16 = 53;
/// Random numbers. In a static binary libraries do not find the system call of the C library and read these instead; the drivers
/// of PostgreSQL and of name servers panic without.
const RANDOM: [&str; 2] = ["/dev/urandom", "/dev/random"];
/// Where systems keep the authorities that they trust.
const AUTHORITIES: [&str; 4] =
    ["/etc/ssl", "/etc/pki", "/usr/share/ca-certificates", "/usr/local/share/ca-certificates"];

impl Allowed {
    fn of(config: &Config) -> Self {
        let mut allowed = Self { write: vec![config.data_dir.clone()], ..Self::default() };
        allowed.write.extend(config.sandbox.write.iter().cloned());
        let tls = config.server.tls.iter();
        let files = tls
            .flat_map(|tls| [Some(&tls.certificate), Some(&tls.key), tls.client_ca.as_ref()])
            .chain([config.keys.kek_file.as_ref(), config.bootstrap.password_file.as_ref(), config.file.as_ref()])
            .flatten();
        let own_authorities = allowed.allow_database(&config.database.url);
        let files = files.chain(own_authorities.as_ref());
        for file in files {
            allowed.allow_file(file);
        }
        allowed.read.sort();
        allowed.read.dedup();
        allowed.bind.push(config.server.listen.port());
        allowed.bind.extend(config.admin.listen.map(|address| address.port()));
        allowed.bind.extend(config.ops.listen.map(|address| address.port()));
        allowed
    }

    /// The file's directory, since a mounted certificate is renewed by turning a symbolic link; and where the link leads
    /// today.
    fn allow_file(&mut self, file: &Path) {
        for place in [Some(file.to_owned()), file.canonicalize().ok()].into_iter().flatten() {
            match parent(&place) {
                // Everything lies below it.
                Some(directory) if is_root(&directory) => self.files.extend(place.exists().then_some(place)),
                directory => self.read.extend(directory),
            }
        }
    }

    /// What a connection to the database needs; the file of its authorities, if there is one.
    fn allow_database(&mut self, url: &DatabaseUrl) -> Option<PathBuf> {
        let DatabaseUrl::Postgres(url) = url else { return None };
        self.connect.extend(url.tcp_port());
        let there = |path: &&&str| Path::new(path).exists();
        if url.is_looked_up() {
            self.connect.push(NAME_SERVER);
            self.files.extend(NAMES.iter().filter(there).map(PathBuf::from));
        }
        match url.authorities()? {
            Authorities::File(file) => Some(file.to_owned()),
            Authorities::System => {
                self.read.extend(AUTHORITIES.iter().filter(there).map(PathBuf::from));
                None
            }
        }
    }
}

fn is_root(directory: &Path) -> bool {
    directory.canonicalize().is_ok_and(|directory| directory == Path::new("/"))
}

fn parent(file: &Path) -> Option<PathBuf> {
    match file.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Some(PathBuf::from(".")),
        parent => parent.map(Path::to_owned),
    }
}

/// Leaves this thread, and those that it makes, the directories and ports that the configuration names.
///
/// # Errors
/// [`Error::Io`] for a directory that is to be allowed and cannot be opened; [`Error::Operation`] for what the kernel
/// refuses although it knows Landlock.
pub(super) fn restrict(config: &Config) -> Result<Level, Error> {
    let allowed = Allowed::of(config);
    let failed = |error: RulesetError| Error::operation("confining the process", error);
    let mut ruleset = create().map_err(failed)?;
    for path in &allowed.write {
        ruleset = allow(ruleset, path, writing())?;
    }
    for path in &allowed.read {
        ruleset = allow(ruleset, path, AccessFs::ReadFile | AccessFs::ReadDir)?;
    }
    let random = RANDOM.iter().map(Path::new).filter(|path| path.exists());
    for path in allowed.files.iter().map(PathBuf::as_path).chain(random) {
        ruleset = allow(ruleset, path, AccessFs::ReadFile.into())?;
    }
    for port in allowed.connect {
        ruleset = ruleset.add_rule(NetPort::new(port, AccessNet::ConnectTcp)).map_err(failed)?;
    }
    for port in allowed.bind {
        ruleset = ruleset.add_rule(NetPort::new(port, AccessNet::BindTcp)).map_err(failed)?;
    }
    let status = ruleset.restrict_self().map_err(failed)?;
    Ok(match status.ruleset {
        RulesetStatus::FullyEnforced => Level::Full,
        RulesetStatus::PartiallyEnforced => Level::Partial("Landlock of an older kernel".to_owned()),
        RulesetStatus::NotEnforced => Level::None("this kernel has no Landlock, or it is switched off".to_owned()),
    })
}

fn create() -> Result<RulesetCreated, RulesetError> {
    Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(ABI::V5))?
        .handle_access(AccessNet::from_all(ABI::V4))?
        .scope(Scope::from_all(NEWEST) & !BitFlags::from(Scope::AbstractUnixSocket))?
        .create()
}

/// Everything that files of ours need; nothing is executed, and there are no devices.
fn writing() -> BitFlags<AccessFs> {
    AccessFs::from_all(ABI::V5) & !(AccessFs::Execute | AccessFs::MakeChar | AccessFs::MakeBlock | AccessFs::IoctlDev)
}

fn allow(ruleset: RulesetCreated, path: &Path, access: BitFlags<AccessFs>) -> Result<RulesetCreated, Error> {
    let opened = PathFd::new(path).map_err(|error| Error::operation("opening a directory of the sandbox", error))?;
    ruleset.add_rule(PathBeneath::new(opened, access)).map_err(|error| Error::operation("confining the process", error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_in_the_root_directory_does_not_open_all_others() {
        let dir = tempfile::tempdir().unwrap();
        let link = dir.path().join("root");
        std::os::unix::fs::symlink("/", &link).unwrap();
        let mut allowed = Allowed::default();
        for file in [Path::new("/etc"), &link.join("etc"), Path::new("/usr/../no-such-file")] {
            allowed.allow_file(file);
        }
        let below = dir.path().join("portcullis.toml");
        std::fs::write(&below, "").unwrap();
        assert!(allowed.read.is_empty(), "{allowed:?}");
        assert!(allowed.files.contains(&link.join("etc")) && allowed.files.contains(&PathBuf::from("/etc")));
        allowed.allow_file(&below);
        assert!(allowed.read.contains(&dir.path().to_owned()), "{allowed:?}");
    }
}
