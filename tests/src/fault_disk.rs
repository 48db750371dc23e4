//! A disk that fails on command: a file system of the test's own (FUSE) over a plain folder. Each operation is looked up in
//! a list of faults first: an error, silence until it is lifted, a part instead of the whole, no space after so many bytes.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{File, Metadata, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{FileExt as _, FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo,
    LockOwner, MountOption, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyEmpty,
    ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request, SessionACL, TimeOrNow, WriteFlags,
};
use tempfile::TempDir;

use crate::fault_plan::{Fault, Faults};

/// A mounted file system with faults; unmounted when dropped.
pub struct FaultDisk {
    faults: Arc<Faults>,
    session: Option<BackgroundSession>,
    directory: TempDir,
}

impl FaultDisk {
    /// An empty one without faults, mounted.
    pub fn new() -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("portcullis-fault-").tempdir()?;
        let mut disk = Self { faults: Arc::default(), session: None, directory };
        for path in [disk.backing(), disk.mount_point()] {
            std::fs::create_dir(&path)?;
            std::fs::set_permissions(&path, Permissions::from_mode(0o700))?;
        }
        let tree = Tree {
            root: disk.backing(),
            faults: disk.faults.clone(),
            state: Mutex::new(State { paths: vec![PathBuf::new(), PathBuf::new()], ..State::default() }),
        };
        let mut config = Config::default();
        config.acl = SessionACL::All;
        config.mount_options = vec![MountOption::FSName("faults".to_owned())];
        let session = fuser::spawn_mount(Served(Arc::new(tree)), disk.mount_point(), &config)
            .context("cannot mount a FUSE file system; run as root")?;
        disk.session = Some(session);
        Ok(disk)
    }

    /// The plain folder below it.
    pub fn backing(&self) -> PathBuf {
        self.directory.path().join("backing")
    }

    /// Where it is mounted.
    pub fn mount_point(&self) -> PathBuf {
        self.directory.path().join("mounted")
    }

    /// From now on these operations on paths that contain `path` have this fault.
    pub fn set(&self, operations: &[&'static str], path: &str, fault: Fault) {
        self.faults.set(operations, path, fault);
    }

    /// No faults any more; what was silent goes on. How many operations a fault has met since the last was set.
    pub fn lift(&self) -> u64 {
        self.faults.lift()
    }
}

impl Drop for FaultDisk {
    fn drop(&mut self) {
        // Who waits for an answer cannot be killed.
        self.lift();
        let unmounted = std::process::Command::new("umount").arg("-l").arg(self.mount_point()).status();
        if !unmounted.is_ok_and(|status| status.success()) {
            eprintln!("{} is still mounted", self.mount_point().display());
        }
        if let Some(session) = self.session.take() {
            drop(session);
        }
    }
}

/// The folder below, by inode numbers.
struct Tree {
    root: PathBuf,
    faults: Arc<Faults>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Relative paths by inode number; the root is 1.
    paths: Vec<PathBuf>,
    numbers: HashMap<PathBuf, u64>,
    files: HashMap<u64, Arc<File>>,
    opened: u64,
}

const TTL: Duration = Duration::ZERO;

impl Tree {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn relative(&self, ino: INodeNo) -> PathBuf {
        self.state().paths.get(ino.0 as usize).cloned().unwrap_or_default()
    }

    fn number(&self, path: &Path) -> u64 {
        let mut state = self.state();
        if let Some(number) = state.numbers.get(path) {
            return *number;
        }
        state.paths.push(path.to_owned());
        let number = state.paths.len() as u64 - 1;
        state.numbers.insert(path.to_owned(), number);
        number
    }

    fn forget_name(&self, path: &Path) {
        self.state().numbers.remove(path);
    }

    fn rename(&self, from: &Path, to: &Path) {
        let mut state = self.state();
        state.numbers.remove(to);
        if let Some(number) = state.numbers.remove(from) {
            state.numbers.insert(to.to_owned(), number);
            state.paths[number as usize] = to.to_owned();
        }
    }

    fn keep(&self, file: File) -> FileHandle {
        let mut state = self.state();
        state.opened += 1;
        let handle = state.opened;
        state.files.insert(handle, Arc::new(file));
        FileHandle(handle)
    }

    fn file(&self, handle: FileHandle) -> Result<Arc<File>, Errno> {
        self.state().files.get(&handle.0).cloned().ok_or(Errno::EBADF)
    }

    fn attributes(&self, path: &Path) -> Result<FileAttr, Errno> {
        let metadata = std::fs::symlink_metadata(self.root.join(path)).map_err(errno)?;
        let number = if path.as_os_str().is_empty() { 1 } else { self.number(path) };
        Ok(attributes(&metadata, number))
    }

    fn child(&self, parent: INodeNo, name: &OsStr) -> PathBuf {
        self.relative(parent).join(name)
    }
}

fn touch(file: &File) -> Result<(), Errno> {
    let at = |nanoseconds| rustix::fs::Timespec { tv_sec: 0, tv_nsec: nanoseconds };
    let times = rustix::fs::Timestamps {
        last_access: at(rustix::fs::UTIME_OMIT),
        last_modification: at(rustix::fs::UTIME_NOW),
    };
    rustix::fs::futimens(file, &times).map_err(|error| Errno::from_i32(error.raw_os_error()))
}

fn errno(error: io::Error) -> Errno {
    Errno::from_i32(error.raw_os_error().unwrap_or(5))
}

fn attributes(metadata: &Metadata, number: u64) -> FileAttr {
    let kind = metadata.file_type();
    let kind = match () {
        () if kind.is_dir() => FileType::Directory,
        () if kind.is_symlink() => FileType::Symlink,
        () if kind.is_socket() => FileType::Socket,
        () if kind.is_fifo() => FileType::NamedPipe,
        () => FileType::RegularFile,
    };
    let time = |seconds: i64, nanoseconds: i64| {
        UNIX_EPOCH + Duration::new(seconds.unsigned_abs(), nanoseconds.unsigned_abs() as u32)
    };
    let mtime = time(metadata.mtime(), metadata.mtime_nsec());
    FileAttr {
        ino: INodeNo(number),
        size: metadata.len(),
        blocks: metadata.blocks(),
        atime: mtime,
        mtime,
        ctime: time(metadata.ctime(), metadata.ctime_nsec()),
        crtime: mtime,
        kind,
        perm: (metadata.mode() & 0o7777) as u16,
        nlink: metadata.nlink() as u32,
        uid: metadata.uid(),
        gid: metadata.gid(),
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}

/// The file system as the kernel sees it. Each operation has a thread of its own, so that silence stops no other.
struct Served(Arc<Tree>);

/// Runs an operation and answers.
macro_rules! answer {
    ($self:ident, $reply:ident, |$tree:ident| $work:expr, |$answer:ident, $value:pat_param| $done:expr) => {{
        let tree = $self.0.clone();
        std::thread::spawn(move || {
            let $tree = &*tree;
            let work = || -> Result<_, Errno> { $work };
            match work() {
                Ok($value) => {
                    let $answer = $reply;
                    $done
                }
                Err(error) => $reply.error(error),
            }
        });
    }};
}

impl Filesystem for Served {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let path = self.0.child(parent, name);
        answer!(
            self,
            reply,
            |tree| {
                tree.faults.gate("lookup", &path, 0)?;
                tree.attributes(&path)
            },
            |reply, attributes| reply.entry(&TTL, &attributes, Generation(0))
        );
    }

    fn getattr(&self, _: &Request, ino: INodeNo, fh: Option<FileHandle>, reply: ReplyAttr) {
        let path = self.0.relative(ino);
        answer!(
            self,
            reply,
            |tree| {
                tree.faults.gate("getattr", &path, 0)?;
                match fh.map(|fh| tree.file(fh)) {
                    Some(Ok(file)) => Ok(attributes(&file.metadata().map_err(errno)?, ino.0)),
                    _ => tree.attributes(&path),
                }
            },
            |reply, attributes| reply.attr(&TTL, &attributes)
        );
    }

    fn setattr(
        &self,
        _: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        _uid: Option<u32>,
        _gid: Option<u32>,
        size: Option<u64>,
        _atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<fuser::BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let path = self.0.relative(ino);
        answer!(
            self,
            reply,
            |tree| {
                tree.faults.gate("setattr", &path, 0)?;
                let full = tree.root.join(&path);
                if let Some(mode) = mode {
                    std::fs::set_permissions(&full, Permissions::from_mode(mode & 0o7777)).map_err(errno)?;
                }
                if size.is_some() || mtime.is_some() {
                    let file = match fh.map(|fh| tree.file(fh)) {
                        Some(Ok(file)) => file,
                        _ => Arc::new(OpenOptions::new().write(true).open(&full).map_err(errno)?),
                    };
                    if let Some(size) = size {
                        file.set_len(size).map_err(errno)?;
                    }
                    match mtime {
                        Some(TimeOrNow::SpecificTime(time)) => file.set_modified(time).map_err(errno)?,
                        Some(TimeOrNow::Now) => touch(&file)?,
                        None => {}
                    }
                }
                tree.attributes(&path)
            },
            |reply, attributes| reply.attr(&TTL, &attributes)
        );
    }

    fn mknod(&self, _: &Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32, _rdev: u32, reply: ReplyEntry) {
        let path = self.0.child(parent, name);
        answer!(
            self,
            reply,
            |tree| {
                tree.faults.gate("mknod", &path, 0)?;
                let (kind, mode) =
                    (rustix::fs::FileType::from_raw_mode(mode), rustix::fs::Mode::from_raw_mode(mode & !umask));
                let made = rustix::fs::mknodat(rustix::fs::CWD, tree.root.join(&path), kind, mode, 0);
                made.map_err(|error| Errno::from_i32(error.raw_os_error()))?;
                tree.attributes(&path)
            },
            |reply, attributes| reply.entry(&TTL, &attributes, Generation(0))
        );
    }

    fn mkdir(&self, _: &Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32, reply: ReplyEntry) {
        let path = self.0.child(parent, name);
        answer!(
            self,
            reply,
            |tree| {
                tree.faults.gate("mkdir", &path, 0)?;
                std::fs::create_dir(tree.root.join(&path)).map_err(errno)?;
                let permissions = Permissions::from_mode(mode & !umask & 0o7777);
                std::fs::set_permissions(tree.root.join(&path), permissions).map_err(errno)?;
                tree.attributes(&path)
            },
            |reply, attributes| reply.entry(&TTL, &attributes, Generation(0))
        );
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let path = self.0.child(parent, name);
        answer!(
            self,
            reply,
            |tree| {
                tree.faults.gate("unlink", &path, 0)?;
                std::fs::remove_file(tree.root.join(&path)).map_err(errno)?;
                tree.forget_name(&path);
                Ok(())
            },
            |reply, ()| reply.ok()
        );
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let path = self.0.child(parent, name);
        answer!(
            self,
            reply,
            |tree| {
                tree.faults.gate("rmdir", &path, 0)?;
                std::fs::remove_dir(tree.root.join(&path)).map_err(errno)?;
                tree.forget_name(&path);
                Ok(())
            },
            |reply, ()| reply.ok()
        );
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        _flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let (from, to) = (self.0.child(parent, name), self.0.child(newparent, newname));
        answer!(
            self,
            reply,
            |tree| {
                tree.faults.gate("rename", &to, 0)?;
                std::fs::rename(tree.root.join(&from), tree.root.join(&to)).map_err(errno)?;
                tree.rename(&from, &to);
                Ok(())
            },
            |reply, ()| reply.ok()
        );
    }

    fn link(&self, _: &Request, ino: INodeNo, newparent: INodeNo, newname: &OsStr, reply: ReplyEntry) {
        let (from, to) = (self.0.relative(ino), self.0.child(newparent, newname));
        answer!(
            self,
            reply,
            |tree| {
                tree.faults.gate("link", &to, 0)?;
                std::fs::hard_link(tree.root.join(&from), tree.root.join(&to)).map_err(errno)?;
                tree.attributes(&to)
            },
            |reply, attributes| reply.entry(&TTL, &attributes, Generation(0))
        );
    }

    fn open(&self, _: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let path = self.0.relative(ino);
        answer!(
            self,
            reply,
            |tree| {
                let write = flags.0 & 3 != 0;
                tree.faults.gate(if write { "open-write" } else { "open" }, &path, 0)?;
                let mut options = OpenOptions::new();
                options.read(flags.0 & 3 != 1).write(write).custom_flags(flags.0 & 0o1000);
                let part = tree.faults.gate("part", &path, usize::MAX)? != usize::MAX;
                // Past the kernel's cache, which would make a whole of parts.
                let how = if part { FopenFlags::FOPEN_DIRECT_IO } else { FopenFlags::empty() };
                Ok((tree.keep(options.open(tree.root.join(&path)).map_err(errno)?), how))
            },
            |reply, (handle, how)| reply.opened(handle, how)
        );
    }

    fn create(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let path = self.0.child(parent, name);
        answer!(
            self,
            reply,
            |tree| {
                tree.faults.gate("create", &path, 0)?;
                let mut options = OpenOptions::new();
                options.read(true).write(true).create(true).mode(mode & !umask).custom_flags(flags & 0o200);
                let file = options.open(tree.root.join(&path)).map_err(errno)?;
                let permissions = Permissions::from_mode(mode & !umask & 0o7777);
                file.set_permissions(permissions).map_err(errno)?;
                Ok((tree.attributes(&path)?, tree.keep(file)))
            },
            |reply, (attributes, handle)| {
                reply.created(&TTL, &attributes, Generation(0), handle, FopenFlags::empty());
            }
        );
    }

    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let path = self.0.relative(ino);
        answer!(
            self,
            reply,
            |tree| {
                let most = tree.faults.gate("read", &path, size as usize)?;
                let (file, mut bytes, mut length) = (tree.file(fh)?, vec![0; most], 0);
                while length < most {
                    match file.read_at(&mut bytes[length..], offset + length as u64).map_err(errno)? {
                        0 => break,
                        count => length += count,
                    }
                }
                bytes.truncate(length);
                Ok(bytes)
            },
            |reply, bytes| reply.data(&bytes)
        );
    }

    fn write(
        &self,
        _: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let (path, data) = (self.0.relative(ino), data.to_vec());
        answer!(
            self,
            reply,
            |tree| {
                let most = tree.faults.gate("write", &path, data.len())?;
                tree.file(fh)?.write_all_at(&data[..most], offset).map_err(errno)?;
                Ok(most as u32)
            },
            |reply, count| reply.written(count)
        );
    }

    fn release(
        &self,
        _: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        self.0.state().files.remove(&fh.0);
        reply.ok();
    }

    fn fsync(&self, _: &Request, ino: INodeNo, fh: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        let path = self.0.relative(ino);
        answer!(
            self,
            reply,
            |tree| {
                tree.faults.gate("fsync", &path, 0)?;
                tree.file(fh)?.sync_data().map_err(errno)
            },
            |reply, ()| reply.ok()
        );
    }

    fn fsyncdir(&self, _: &Request, ino: INodeNo, _fh: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        let path = self.0.relative(ino);
        answer!(self, reply, |tree| tree.faults.gate("fsyncdir", &path, 0), |reply, _| reply.ok());
    }

    fn readdir(&self, _: &Request, ino: INodeNo, _fh: FileHandle, offset: u64, reply: ReplyDirectory) {
        let path = self.0.relative(ino);
        answer!(
            self,
            reply,
            |tree| {
                tree.faults.gate("readdir", &path, 0)?;
                let mut names = Vec::new();
                for entry in std::fs::read_dir(tree.root.join(&path)).map_err(errno)? {
                    let entry = entry.map_err(errno)?;
                    let kind = entry.file_type().ok().and_then(FileType::from_std).unwrap_or(FileType::RegularFile);
                    names.push((tree.number(&path.join(entry.file_name())), kind, entry.file_name()));
                }
                names.sort_by(|a, b| a.2.cmp(&b.2));
                Ok(names)
            },
            |reply, names| {
                let mut reply = reply;
                for (place, (number, kind, name)) in names.into_iter().enumerate().skip(offset as usize) {
                    if reply.add(INodeNo(number), place as u64 + 1, kind, name) {
                        break;
                    }
                }
                reply.ok();
            }
        );
    }

    fn statfs(&self, _: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        answer!(
            self,
            reply,
            |tree| {
                tree.faults.gate("statfs", Path::new(""), 0)?;
                rustix::fs::statvfs(&tree.root).map_err(|error| Errno::from_i32(error.raw_os_error()))
            },
            |reply, disk| reply.statfs(
                disk.f_blocks,
                disk.f_bfree,
                disk.f_bavail,
                disk.f_files,
                disk.f_ffree,
                disk.f_bsize as u32,
                255,
                disk.f_frsize as u32,
            )
        );
    }
}
