//! The data directory: made with the right modes, refused with wrong ones, locked by one server at a time.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use oci::Clock;
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use crate::error::Error;

/// How long a starting server waits for the lock: one that is ending, or a command that works offline, may hold it for a
/// moment.
const LOCK_TIME: Duration = Duration::from_secs(2);
/// Longest file of ours that is read whole.
const FILE_LIMIT: u64 = 64 << 10;

/// Names in the data directory.
pub mod names {
    /// Held by the server with an advisory lock; says who that is.
    pub const LOCK: &str = "portcullis.lock";
    /// Format and store id.
    pub const FORMAT: &str = "format.json";
    /// The database.
    pub const DATABASE: &str = "meta.db";
    /// The blobs.
    pub const BLOBS: &str = "blobs";
    /// The key-encryption key lies here.
    pub const KEYS: &str = "keys";
    /// Backups that are being made, until the command that asked for them has taken them where they belong.
    pub const STAGING: &str = "staging";
    /// The bound addresses.
    pub const ADDRESSES: &str = "addresses.json";
    /// Space that is given up when the disk is full.
    pub const RESERVE: &str = "reserve";
    /// The first administrator's password.
    pub const INITIAL_PASSWORD: &str = "initial-password";
}

/// `format.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Format {
    /// The format of what is in the directory.
    pub format: u64,
    /// The id of the store, the same as in the database.
    pub store: String,
    /// The oldest format that a program must know to read it.
    pub min_reader: u64,
}

/// A data directory that this process has locked, until it is dropped.
#[derive(Debug)]
pub struct DataDir {
    root: PathBuf,
    lock: File,
}

impl DataDir {
    /// Makes the directory if it is absent, looks whether anybody else could get at what is in it, locks it, and looks
    /// whether this version can read it. Blocks up to two seconds.
    ///
    /// # Errors
    /// [`Error::Unsafe`], [`Error::Locked`], [`Error::NewerFormat`], [`Error::DataDir`], [`Error::Io`].
    pub fn open(root: &Path, clock: &Clock) -> Result<Self, Error> {
        Self::make(root)?;
        Self::open_existing(root, clock)
    }

    /// Makes the directory if it is absent.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn make(root: &Path) -> Result<(), Error> {
        match DirBuilder::new().recursive(true).mode(0o700).create(parent(root)) {
            Err(source) if source.kind() != io::ErrorKind::AlreadyExists => {
                return Err(Error::io("make the directory", parent(root), source));
            }
            _ => {}
        }
        match DirBuilder::new().mode(0o700).create(root) {
            Ok(()) => sync_dir(parent(root)),
            Err(source) if source.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            Err(source) => Err(Error::io("make the directory", root, source)),
        }
    }

    /// As [`DataDir::open_existing`] where nothing is changed: the directory may be mounted read-only. Where it can be
    /// written, the file of the lock says who holds it.
    ///
    /// # Errors
    /// As [`DataDir::open`]; [`Error::Unsafe`] when no server has made it yet.
    pub fn open_to_read(root: &Path, clock: &Clock) -> Result<Self, Error> {
        Self::holds_registry(root)?;
        Self::open_existing(root, clock)
    }

    /// Refuses a directory in which no server has been started yet.
    ///
    /// # Errors
    /// [`Error::Unsafe`], [`Error::Io`].
    pub fn holds_registry(root: &Path) -> Result<(), Error> {
        if !exists(&root.join(names::FORMAT))? || !exists(&root.join(names::LOCK))? {
            return Err(Error::refuse(
                format!("there is no registry in {}, and in read-only mode none is made", root.display()),
                "name its data directory with --data-dir DIR, or start once with server.mode = \"read-write\"",
            ));
        }
        Ok(())
    }

    /// Whether files can be made in it.
    pub fn is_writable(&self) -> bool {
        rustix::fs::access(&self.root, rustix::fs::Access::WRITE_OK).is_ok()
    }

    /// The same for a directory that must be there.
    ///
    /// # Errors
    /// As [`DataDir::open`].
    pub fn open_existing(root: &Path, clock: &Clock) -> Result<Self, Error> {
        private_dir(root)?;
        let lock = lock(root, clock)?;
        if let Some(format) = read_format(root)? {
            check_format(root, &format)?;
        }
        for name in [names::KEYS, names::BLOBS] {
            if exists(&root.join(name))? {
                private_dir(&root.join(name))?;
            }
        }
        for name in [names::DATABASE, names::FORMAT, names::INITIAL_PASSWORD] {
            if exists(&root.join(name))? {
                private_file(&root.join(name))?;
            }
        }
        Ok(Self { root: root.to_owned(), lock })
    }

    /// Where it is.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Something in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// Makes a directory in it if it is absent.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Unsafe`].
    pub fn make_dir(&self, name: &str) -> Result<PathBuf, Error> {
        let path = self.path(name);
        match DirBuilder::new().mode(0o700).create(&path) {
            Ok(()) => sync_dir(&self.root)?,
            Err(source) if source.kind() == io::ErrorKind::AlreadyExists => private_dir(&path)?,
            Err(source) => return Err(Error::io("make the directory", path, source)),
        }
        Ok(path)
    }

    /// What tells this directory from a copy of it, the same after a restart of the machine.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn identity(&self) -> Result<String, Error> {
        let found = self.lock.metadata().map_err(|source| Error::io("look at", self.path(names::LOCK), source))?;
        let made = found.created().ok().and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok());
        Ok(format!("{}-{}", found.ino(), made.map_or(0, |age| age.as_nanos())))
    }

    /// This process, for people.
    pub fn label() -> String {
        format!("process {} on {}", std::process::id(), host())
    }

    /// Whether a store has been settled here.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::DataDir`].
    pub fn is_settled(&self) -> Result<bool, Error> {
        read_format(&self.root).map(|format| format.is_some())
    }

    /// Sees that what is here is of this store, if anything is.
    ///
    /// # Errors
    /// [`Error::DataDir`] when the directory belongs to another store.
    pub fn belongs_to(&self, store: &str) -> Result<(), Error> {
        match read_format(&self.root)? {
            Some(found) if found.store != store => Err(Error::DataDir {
                what: format!(
                    "the database is that of store {store}, and {} holds the files of store {}",
                    self.root.display(),
                    found.store
                ),
                help: "put back what belongs together (database.url, --data-dir DIR), or restore a backup into a new \
                       directory"
                    .to_owned(),
            }),
            Some(_) | None => Ok(()),
        }
    }

    /// Writes down the format, or sees that it is that of this store. Call it once the database is open.
    ///
    /// # Errors
    /// As [`DataDir::belongs_to`].
    pub fn settle_format(&self, store: &str, format: u64, min_reader: u64) -> Result<(), Error> {
        self.belongs_to(store)?;
        let ours = Format { format, store: store.to_owned(), min_reader };
        match read_format(&self.root)? {
            Some(found) if found == ours => Ok(()),
            Some(_) | None => {
                let text = serde_json::to_vec(&ours).unwrap_or_default();
                replace(&self.path(names::FORMAT), &text)
            }
        }
    }
}

/// Whether there is a registry in this directory: one that was started once, its database in the directory or elsewhere.
pub fn holds_registry(root: &Path) -> bool {
    root.join(names::FORMAT).exists() || root.join(names::DATABASE).exists()
}

/// What lies in a data directory and does not belong there, in order; at most a hundred names.
///
/// # Errors
/// [`Error::Io`].
pub fn strays(root: &Path) -> Result<Vec<String>, Error> {
    let known = |name: &str| {
        let ours = [
            names::LOCK,
            names::FORMAT,
            names::DATABASE,
            names::BLOBS,
            names::KEYS,
            names::STAGING,
            names::ADDRESSES,
            names::RESERVE,
            names::INITIAL_PASSWORD,
            crate::listen::SOCKET,
        ];
        ours.contains(&name) || name.strip_prefix(names::DATABASE).is_some_and(|end| matches!(end, "-wal" | "-shm"))
    };
    let wrong = |source| Error::io("list", root, source);
    let mut strays = Vec::new();
    for entry in fs::read_dir(root).map_err(wrong)? {
        let name = entry.map_err(wrong)?.file_name().to_string_lossy().into_owned();
        if !known(&name) {
            strays.push(name);
        }
    }
    // A backup that nobody took holds the bytes of blobs that are collected meanwhile.
    match fs::read_dir(root.join(names::STAGING)) {
        Ok(staged) => {
            for entry in staged {
                strays.push(format!("{}/{}", names::STAGING, entry.map_err(wrong)?.file_name().to_string_lossy()));
            }
        }
        Err(source) if source.kind() == io::ErrorKind::NotFound => {}
        Err(source) => return Err(wrong(source)),
    }
    strays.sort();
    strays.truncate(100);
    Ok(strays)
}

/// Writes a file of mode 0600 so that a reader sees the old content or the new one, whatever happens.
///
/// # Errors
/// [`Error::Io`].
pub fn replace(path: &Path, content: &[u8]) -> Result<(), Error> {
    let new = path.with_extension("new");
    let wrong = |source| Error::io("write", &new, source);
    match fs::remove_file(&new) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => return Err(wrong(source)),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new).map_err(wrong)?;
    file.write_all(content).map_err(wrong)?;
    file.sync_all().map_err(wrong)?;
    fs::rename(&new, path).map_err(|source| Error::io("write", path, source))?;
    sync_dir(parent(path))
}

/// Removes a file; one that is not there is fine.
///
/// # Errors
/// [`Error::Io`].
pub fn remove(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(Error::io("remove", path, source)),
        _ => Ok(()),
    }
}

/// Reads a small file that must be a plain file, ours, and nobody else's to read.
///
/// # Errors
/// [`Error::Unsafe`], [`Error::Io`].
pub fn read_private(path: &Path) -> Result<Vec<u8>, Error> {
    private_file(path)?;
    read_small(path)
}

/// The content of a small file.
pub(crate) fn read_small(path: &Path) -> Result<Vec<u8>, Error> {
    let wrong = |source| Error::io("read", path, source);
    let mut content = Vec::new();
    let file = File::open(path).map_err(wrong)?;
    file.take(FILE_LIMIT).read_to_end(&mut content).map_err(wrong)?;
    Ok(content)
}

/// Makes a rename or a new name in this directory durable.
pub(crate) fn sync_dir(path: &Path) -> Result<(), Error> {
    File::open(path).and_then(|dir| dir.sync_all()).map_err(|source| Error::io("sync the directory", path, source))
}

/// Who holds the lock of this directory, as it wrote it down; `None` when nobody does.
///
/// # Errors
/// [`Error::Io`] when that cannot be found out.
pub fn holder(root: &Path) -> Result<Option<String>, Error> {
    let path = root.join(names::LOCK);
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(source) if source.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(Error::io("read", path, source)),
    };
    match flock(&file, FlockOperation::NonBlockingLockShared) {
        Ok(()) => Ok(None),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(Some(read_holder(&path))),
        Err(source) => Err(Error::io("lock", path, source.into())),
    }
}

fn lock(root: &Path, clock: &Clock) -> Result<File, Error> {
    let path = root.join(names::LOCK);
    let wrong = |action| move |source: io::Error| Error::io(action, root.join(names::LOCK), source);
    if exists(&path)? {
        private_file(&path)?;
    }
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(no_follow());
    let opened = match options.clone().write(true).create(true).truncate(false).mode(0o600).open(&path) {
        // On a disk that is read-only a lock keeps others out as well; it only does not say who holds it.
        Err(source) if source.kind() == io::ErrorKind::ReadOnlyFilesystem => {
            options.open(&path).map(|file| (file, false))
        }
        opened => opened.map(|file| (file, true)),
    };
    let (mut file, writable) = opened.map_err(wrong("open"))?;
    let began = Instant::now();
    loop {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => break,
            Err(rustix::io::Errno::WOULDBLOCK | rustix::io::Errno::INTR) if began.elapsed() < LOCK_TIME => {
                std::thread::sleep(Duration::from_millis(50));
            }
            Err(rustix::io::Errno::WOULDBLOCK) => {
                return Err(Error::Locked { path: root.to_owned(), holder: read_holder(&path) });
            }
            Err(source) => return Err(wrong("lock")(source.into())),
        }
    }
    if !writable {
        return Ok(file);
    }
    let text = format!("{} since {}\n", DataDir::label(), clock());
    file.set_len(0).map_err(wrong("write"))?;
    match file.write_all(text.as_bytes()) {
        // The lock is held; on a full disk it only does not say by whom.
        Err(source) if source.kind() != io::ErrorKind::StorageFull => Err(wrong("write")(source)),
        _ => Ok(file),
    }
}

fn read_holder(path: &Path) -> String {
    let text = read_small(path).map(|bytes| String::from_utf8_lossy(&bytes).trim().to_owned()).unwrap_or_default();
    let printable = !text.is_empty() && text.len() < 512 && !text.contains(char::is_control);
    if printable { text } else { "another process".to_owned() }
}

fn host() -> String {
    rustix::system::uname().nodename().to_string_lossy().chars().filter(|c| !c.is_control()).collect()
}

fn no_follow() -> i32 {
    i32::try_from(rustix::fs::OFlags::NOFOLLOW.bits()).unwrap_or_default()
}

fn read_format(root: &Path) -> Result<Option<Format>, Error> {
    let path = root.join(names::FORMAT);
    if !exists(&path)? {
        return Ok(None);
    }
    serde_json::from_slice(&read_small(&path)?).map(Some).map_err(|error| Error::DataDir {
        what: format!("{} cannot be understood: {error}", path.display()),
        help: "restore it from a backup; its store id is that of the database".to_owned(),
    })
}

fn check_format(root: &Path, found: &Format) -> Result<(), Error> {
    let supported = u64::try_from(meta::FORMAT).unwrap_or_default();
    // A server writes, so knowing how to read a newer format does not help.
    let needed = found.format.max(found.min_reader);
    if needed > supported {
        return Err(Error::NewerFormat { path: root.to_owned(), found: needed, supported });
    }
    Ok(())
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) => Path::new("."),
        None => Path::new("/"),
    }
}

fn exists(path: &Path) -> Result<bool, Error> {
    match fs::symlink_metadata(path) {
        Ok(_) => Ok(true),
        Err(source) if source.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(source) => Err(Error::io("look at", path, source)),
    }
}

/// A directory of ours in which nobody else can look.
pub(crate) fn private_dir(path: &Path) -> Result<(), Error> {
    let metadata = own(path)?;
    if !metadata.is_dir() {
        return Err(Error::DataDir {
            what: format!("{} is not a directory", path.display()),
            help: "move it away, or name another directory with --data-dir DIR".to_owned(),
        });
    }
    private(path, &metadata, "700")
}

/// A plain file of ours that nobody else can read.
pub(crate) fn private_file(path: &Path) -> Result<(), Error> {
    let metadata = own(path)?;
    if !metadata.is_file() {
        let what = format!("{} is not a plain file", path.display());
        return Err(Error::refuse(
            what,
            format!("look at what it is, and move it away: mv {0} {0}.odd", path.display()),
        ));
    }
    private(path, &metadata, "600")
}

/// Not a link, and ours.
fn own(path: &Path) -> Result<fs::Metadata, Error> {
    let metadata = fs::symlink_metadata(path).map_err(|source| Error::io("look at", path, source))?;
    if metadata.file_type().is_symlink() {
        let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        return Err(Error::refuse(
            format!("{} is a symbolic link", path.display()),
            format!(
                "name the directory itself (--data-dir DIR), or put the thing in its place: mv {} {}",
                target.display(),
                path.display()
            ),
        ));
    }
    let user = rustix::process::geteuid().as_raw();
    if metadata.uid() != user {
        return Err(Error::refuse(
            format!(
                "{} belongs to the user with id {}, and this process runs as {user}",
                path.display(),
                metadata.uid()
            ),
            format!("chown -R {user} {}", path.display()),
        ));
    }
    Ok(metadata)
}

fn private(path: &Path, metadata: &fs::Metadata, mode: &str) -> Result<(), Error> {
    if metadata.mode() & 0o077 != 0 {
        return Err(Error::refuse(
            format!("others can get at {} (mode {:04o})", path.display(), metadata.mode() & 0o7777),
            format!("chmod {mode} {}", path.display()),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    use std::sync::Arc;

    use oci::Timestamp;

    use super::*;

    fn clock() -> Clock {
        Arc::new(|| Timestamp(0))
    }

    fn mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    // security: M-06
    #[test]
    fn m06_what_others_can_get_at_is_refused_with_what_mends_it() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("data");
        drop(DataDir::open(&root, &clock()).unwrap());
        assert_eq!(fs::metadata(&root).unwrap().mode() & 0o7777, 0o700);
        fs::create_dir(root.join("keys")).unwrap();
        fs::write(root.join("meta.db"), "").unwrap();
        mode(&root.join("keys"), 0o700);
        mode(&root.join("meta.db"), 0o600);
        drop(DataDir::open(&root, &clock()).unwrap());
        for (path, bad, good) in [
            ("", 0o755, 0o700),
            ("", 0o701, 0o700),
            ("keys", 0o750, 0o700),
            ("meta.db", 0o644, 0o600),
            ("portcullis.lock", 0o666, 0o600),
        ] {
            let path = root.join(path);
            mode(&path, bad);
            let error = DataDir::open(&root, &clock()).unwrap_err();
            assert_eq!(error.exit_code(), 6, "{error}");
            let help = error.help().unwrap();
            assert!(help.starts_with(&format!("chmod {good:o} ")), "{help}");
            mode(&path, good);
        }
        fs::rename(root.join("meta.db"), dir.path().join("elsewhere.db")).unwrap();
        symlink(dir.path().join("elsewhere.db"), root.join("meta.db")).unwrap();
        assert_eq!(DataDir::open(&root, &clock()).unwrap_err().exit_code(), 6);
        let link = dir.path().join("link");
        symlink(&root, &link).unwrap();
        assert_eq!(DataDir::open(&link, &clock()).unwrap_err().exit_code(), 6);
    }

    #[test]
    fn p06_a_second_one_is_refused_and_told_who_holds_it() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("data");
        let first = DataDir::open(&root, &clock()).unwrap();
        assert!(holder(&root).unwrap().unwrap().contains(&std::process::id().to_string()));
        let began = Instant::now();
        let error = DataDir::open(&root, &clock()).unwrap_err();
        assert_eq!(error.exit_code(), 7);
        assert!(error.to_string().contains(&format!("process {}", std::process::id())), "{error}");
        assert!(began.elapsed() < Duration::from_secs(5));
        drop(first);
        assert_eq!(holder(&root).unwrap(), None);
        DataDir::open(&root, &clock()).unwrap();
    }

    #[test]
    fn what_does_not_belong_there_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("data");
        let data = DataDir::open(&root, &clock()).unwrap();
        data.make_dir(names::KEYS).unwrap();
        for name in ["meta.db", "meta.db-wal", "addresses.json", "notes.txt", "meta.db-old"] {
            fs::write(root.join(name), "").unwrap();
        }
        fs::create_dir_all(root.join(names::STAGING).join("left")).unwrap();
        assert_eq!(strays(&root).unwrap(), ["meta.db-old", "notes.txt", "staging/left"]);
    }

    #[test]
    fn the_format_is_written_once_and_a_newer_one_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("data");
        let format = root.join("format.json");
        let data = DataDir::open(&root, &clock()).unwrap();
        data.settle_format("s1", 1, 1).unwrap();
        assert_eq!(fs::read_to_string(&format).unwrap(), r#"{"format":1,"store":"s1","min_reader":1}"#);
        assert_eq!(fs::metadata(&format).unwrap().mode() & 0o7777, 0o600);
        data.settle_format("s1", 1, 1).unwrap();
        assert_eq!(data.settle_format("s2", 1, 1).unwrap_err().code(), "data_dir_damaged");
        drop(data);
        for newer in [
            r#"{"format":99,"store":"s1","min_reader":1}"#,
            r#"{"format":99,"store":"s1","min_reader":99,"more":true}"#,
        ] {
            fs::write(&format, newer).unwrap();
            let error = DataDir::open(&root, &clock()).unwrap_err();
            assert_eq!((error.exit_code(), error.code()), (7, "data_dir_too_new"));
        }
        fs::write(&format, "{").unwrap();
        assert_eq!(DataDir::open(&root, &clock()).unwrap_err().code(), "data_dir_damaged");
    }
}
