//! A disk that can lose its power: an image file, mounted through a loop device, shut down without writing its log
//! (XFS_IOC_GOINGDOWN and EXT4_IOC_SHUTDOWN, which `xfs_io -c shutdown` sends to either). What was synced before is there
//! after the next mount, what was not is gone.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

/// Size of the image; sparse, so only what is written takes space.
const SIZE: u64 = 2 << 30;

/// A mounted file system; unmounted when dropped.
pub struct LoopDisk {
    directory: TempDir,
}

impl LoopDisk {
    /// A new file system of this kind (`ext4`, `xfs`), mounted.
    pub fn new(kind: &str) -> Result<Self> {
        Self::sized(kind, SIZE, &[])
    }

    /// The same with another size, and further arguments of `mkfs`.
    pub fn sized(kind: &str, bytes: u64, arguments: &[&str]) -> Result<Self> {
        let disk = Self { directory: tempfile::Builder::new().prefix("portcullis-disk-").tempdir()? };
        File::create(disk.image())?.set_len(bytes)?;
        std::fs::create_dir(disk.mount_point())?;
        run(Command::new(format!("mkfs.{kind}")).arg("-q").args(arguments).arg(disk.image()))?;
        disk.mount()?;
        Ok(disk)
    }

    /// The file that holds what is on the disk.
    pub fn image(&self) -> PathBuf {
        self.directory.path().join("image")
    }

    /// Where it is mounted.
    pub fn mount_point(&self) -> PathBuf {
        self.directory.path().join("mounted")
    }

    /// Free bytes.
    pub fn free(&self) -> Result<u64> {
        let disk = rustix::fs::statvfs(self.mount_point())?;
        Ok(disk.f_bavail * disk.f_frsize)
    }

    /// Somebody else takes all but this much of what is free; the file, to be removed again.
    pub fn fill(&self, but: u64) -> Result<PathBuf> {
        let path = self.mount_point().join("somebody-else");
        let file = File::options().create(true).append(true).open(&path)?;
        let length = file.metadata()?.len();
        let more = self.free()?.saturating_sub(but);
        if more > 0 {
            // The last blocks go to the file's own administration.
            let all = rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), length, more);
            if all.is_err() {
                for piece in [1 << 20, 64 << 10, 4096_usize] {
                    while self.free()? > but
                        && (&file).write_all(&vec![7; piece]).and_then(|()| file.sync_data()).is_ok()
                    {
                    }
                }
            }
        }
        Ok(path)
    }

    fn mount(&self) -> Result<()> {
        run(Command::new("mount").args(["-o", "loop"]).arg(self.image()).arg(self.mount_point()))
    }

    /// The power fails: from now on every access is an error.
    pub fn cut(&self) -> Result<()> {
        run(Command::new("xfs_io").args(["-x", "-c", "shutdown"]).arg(self.mount_point()))
    }

    /// The file system finds itself damaged, and does what it was made to do then (ext4 only).
    pub fn give_up(&self) -> Result<()> {
        let source = Command::new("findmnt").args(["-n", "-o", "SOURCE"]).arg(self.mount_point()).output()?;
        let device = String::from_utf8(source.stdout)?.trim().rsplit('/').next().unwrap_or_default().to_owned();
        let trigger = format!("/sys/fs/ext4/{device}/trigger_fs_error");
        std::fs::write(&trigger, "1").with_context(|| trigger.clone())
    }

    /// The power is back: mounts again, with what was on the disk. Nothing may have files open on it.
    pub fn restore(&self) -> Result<()> {
        let start = Instant::now();
        while let Err(error) = run(Command::new("umount").arg(self.mount_point())) {
            if start.elapsed() > Duration::from_secs(10) {
                return Err(error);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        self.mount()
    }
}

impl Drop for LoopDisk {
    fn drop(&mut self) {
        if let Err(error) = run(Command::new("umount").arg("-l").arg(self.mount_point())) {
            eprintln!("{error:#}");
        }
    }
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("cannot start {:?}; run as root", command.get_program()))?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// A data directory whose blobs are on a disk of their own.
pub struct BoundDisk {
    data_dir: PathBuf,
    disk: LoopDisk,
    _directory: Option<TempDir>,
}

impl BoundDisk {
    /// As [`LoopDisk::sized`].
    pub fn new(kind: &str, bytes: u64, arguments: &[&str]) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("portcullis-data-").tempdir()?;
        Self::at(directory.path().join("data"), Some(directory), LoopDisk::sized(kind, bytes, arguments)?)
    }

    /// The data directory is on `outer`, its blobs on a disk of their own.
    pub fn within(outer: &LoopDisk, kind: &str, bytes: u64) -> Result<Self> {
        Self::at(outer.mount_point().join("data"), None, LoopDisk::sized(kind, bytes, &[])?)
    }

    fn at(data_dir: PathBuf, directory: Option<TempDir>, disk: LoopDisk) -> Result<Self> {
        let bound = Self { data_dir, disk, _directory: directory };
        // The server makes the folders; then the disk is laid over that of the blobs.
        let made = testkit::Server::start(testkit::Options { data_dir: Some(bound.data_dir()), ..Default::default() });
        made?.stop()?;
        std::fs::create_dir(bound.disk.mount_point().join("store"))?;
        std::fs::set_permissions(bound.disk.mount_point().join("store"), PermissionsExt::from_mode(0o700))?;
        let from = bound.disk.mount_point().join("store");
        run(Command::new("mount").arg("--bind").arg(from).arg(bound.data_dir().join("blobs")))?;
        Ok(bound)
    }

    /// The data directory.
    pub fn data_dir(&self) -> PathBuf {
        self.data_dir.clone()
    }

    /// The disk of the blobs.
    pub fn disk(&self) -> &LoopDisk {
        &self.disk
    }

    /// Where the disk of the blobs is mounted.
    pub fn mount_point(&self) -> PathBuf {
        self.disk.mount_point()
    }
}

impl Drop for BoundDisk {
    fn drop(&mut self) {
        if let Err(error) = run(Command::new("umount").arg("-l").arg(self.data_dir().join("blobs"))) {
            eprintln!("{error:#}");
        }
    }
}
