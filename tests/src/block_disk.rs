//! A disk of which every write is known: one file of a file system of the test's own (FUSE), which a loop device makes a
//! block device of. What was written, and when a flush was asked for, is kept in order, so that the disk can be made again
//! as a loss of power would have left it at any moment.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo,
    LockOwner, MountOption, OpenFlags, ReplyAttr, ReplyData, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyWrite, Request,
    WriteFlags,
};
use tempfile::TempDir;

/// What a disk writes as a whole or not at all: a physical sector, and a block of the file systems here.
pub const SECTOR: usize = 4096;

type Sector = Arc<[u8; SECTOR]>;

/// The content of a disk. Clones share what is the same in both.
#[derive(Clone)]
pub struct Image {
    bytes: u64,
    /// Those that are not zero.
    sectors: HashMap<u64, Sector>,
}

impl Image {
    /// A disk with an empty file system of this kind (`ext4`, `xfs`).
    pub fn formatted(kind: &str) -> Result<Self> {
        // Nothing is left to be made later, in the midst of what is recorded; xfs takes no smaller disk.
        let (bytes, arguments): (u64, &[&str]) = match kind {
            "ext4" => (64 << 20, &["-E", "lazy_itable_init=0,lazy_journal_init=0"]),
            _ => (300 << 20, &[]),
        };
        let file = tempfile::NamedTempFile::new()?;
        file.as_file().set_len(bytes)?;
        run(Command::new(format!("mkfs.{kind}")).arg("-q").args(arguments).arg(file.path()))?;
        let mut image = Self { bytes, sectors: HashMap::new() };
        let mut piece = vec![0; 1 << 20];
        for offset in (0..bytes).step_by(piece.len()) {
            file.as_file().read_exact_at(&mut piece, offset)?;
            image.write(offset, &piece);
        }
        Ok(image)
    }

    fn read(&self, offset: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length.min(usize::try_from(self.bytes.saturating_sub(offset)).unwrap_or(0))];
        for (number, within, range) in pieces(offset, bytes.len()) {
            if let Some(sector) = self.sectors.get(&number) {
                let length = range.len();
                bytes[range].copy_from_slice(&sector[within..within + length]);
            }
        }
        bytes
    }

    /// Writes these bytes.
    pub fn write(&mut self, offset: u64, bytes: &[u8]) {
        for (number, within, range) in pieces(offset, bytes.len()) {
            let bytes = &bytes[range];
            if !self.sectors.contains_key(&number) && bytes.iter().all(|byte| *byte == 0) {
                continue;
            }
            let sector = self.sectors.entry(number).or_insert_with(|| Arc::new([0; SECTOR]));
            Arc::make_mut(sector)[within..within + bytes.len()].copy_from_slice(bytes);
        }
    }
}

/// The sectors of these bytes: their numbers, where in the sector each piece begins, and which of the bytes it is.
pub fn pieces(offset: u64, length: usize) -> impl Iterator<Item = (u64, usize, std::ops::Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        let position = offset + done as u64;
        let within = (position % SECTOR as u64) as usize;
        let count = (SECTOR - within).min(length - done);
        let piece = (position / SECTOR as u64, within, done..done + count);
        done += count;
        (count > 0).then_some(piece)
    })
}

/// What the file system asked of the disk.
#[derive(Clone, Debug)]
pub enum Asked {
    /// To write these bytes, some time.
    Write {
        /// Where.
        offset: u64,
        /// What.
        bytes: Vec<u8>,
    },
    /// To return when all that was written so far is safe.
    Flush,
}

/// What the disk was asked so far.
#[derive(Clone, Default)]
pub struct Recorder(Arc<Mutex<Vec<Asked>>>);

impl Recorder {
    fn lock(&self) -> MutexGuard<'_, Vec<Asked>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How much it was asked so far: whoever has an answer now relies on this much and no more.
    pub fn position(&self) -> usize {
        self.lock().len()
    }

    /// All of it.
    pub fn taken(&self) -> Vec<Asked> {
        self.lock().clone()
    }
}

/// A mounted disk; unmounted when dropped.
pub struct BlockDisk {
    directory: TempDir,
    session: Option<BackgroundSession>,
    recorder: Recorder,
}

impl BlockDisk {
    /// A disk with this content, mounted, which mends the file system where it has to.
    pub fn mounted(image: Image) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("portcullis-blocks-").tempdir()?;
        let mut disk = Self { directory, session: None, recorder: Recorder::default() };
        for path in [disk.outer(), disk.mount_point()] {
            std::fs::create_dir(path)?;
        }
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName("blocks".to_owned())];
        let served = Served { image: Mutex::new(image), recorder: disk.recorder.clone() };
        let session = fuser::spawn_mount(served, disk.outer(), &config);
        disk.session = Some(session.context("cannot mount a FUSE file system; run as root")?);
        run(Command::new("mount").args(["-o", "loop"]).arg(disk.outer().join(NAME)).arg(disk.mount_point()))?;
        Ok(disk)
    }

    fn outer(&self) -> PathBuf {
        self.directory.path().join("outer")
    }

    /// Where it is mounted.
    pub fn mount_point(&self) -> PathBuf {
        self.directory.path().join("mounted")
    }

    /// What it is asked.
    pub fn recorder(&self) -> Recorder {
        self.recorder.clone()
    }
}

impl Drop for BlockDisk {
    fn drop(&mut self) {
        let start = Instant::now();
        // A killed process may still be closing its files.
        while let Err(error) = run(Command::new("umount").arg(self.mount_point())) {
            if format!("{error:#}").contains("not mounted") {
                break;
            }
            if start.elapsed() > Duration::from_secs(10) {
                eprintln!("{error:#}");
                let _ = run(Command::new("umount").arg("-l").arg(self.mount_point()));
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        if let Some(session) = self.session.take() {
            if let Err(error) = run(Command::new("umount").arg("-l").arg(self.outer())) {
                eprintln!("{error:#}");
            }
            drop(session);
        }
    }
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("cannot start {:?}; run as root", command.get_program()))?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

const NAME: &str = "disk";
const FILE: INodeNo = INodeNo(2);
const TTL: Duration = Duration::from_secs(3600);

/// The file system as the kernel sees it: a folder with one file. Served by one thread, so that the order of the record is
/// the order of the disk.
struct Served {
    image: Mutex<Image>,
    recorder: Recorder,
}

impl Served {
    fn image(&self) -> MutexGuard<'_, Image> {
        self.image.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn attributes(&self, number: INodeNo) -> FileAttr {
        let (kind, size) = match number == FILE {
            true => (FileType::RegularFile, self.image().bytes),
            false => (FileType::Directory, 0),
        };
        FileAttr {
            ino: number,
            size,
            blocks: size / 512,
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind,
            perm: 0o700,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: SECTOR as u32,
            flags: 0,
        }
    }
}

impl Filesystem for Served {
    fn lookup(&self, _: &Request, _parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match name == NAME {
            true => reply.entry(&TTL, &self.attributes(FILE), Generation(0)),
            false => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&TTL, &self.attributes(ino));
    }

    fn open(&self, _: &Request, _ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(0), FopenFlags::empty());
    }

    fn read(
        &self,
        _: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        reply.data(&self.image().read(offset, size as usize));
    }

    fn write(
        &self,
        _: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        self.image().write(offset, data);
        self.recorder.lock().push(Asked::Write { offset, bytes: data.to_vec() });
        reply.written(data.len() as u32);
    }

    fn flush(&self, _: &Request, _ino: INodeNo, _fh: FileHandle, _lock_owner: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fsync(&self, _: &Request, _ino: INodeNo, _fh: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        self.recorder.lock().push(Asked::Flush);
        reply.ok();
    }
}
