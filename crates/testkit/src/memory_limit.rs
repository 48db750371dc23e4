//! A memory limit for a child process, by the kernel's control groups of either version.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};

static COUNT: AtomicU32 = AtomicU32::new(0);

/// A control group with a memory limit; removed when dropped, after its processes have ended.
pub struct MemoryLimit {
    folder: PathBuf,
}

impl MemoryLimit {
    /// A group limited to this many bytes, the page cache that its processes fill included.
    pub fn new(bytes: u64) -> io::Result<Self> {
        let name = format!("portcullis-test-{}-{}", process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let (parent, file) = if Path::new("/sys/fs/cgroup/memory/memory.limit_in_bytes").exists() {
            (Path::new("/sys/fs/cgroup/memory"), "memory.limit_in_bytes")
        } else {
            let root = Path::new("/sys/fs/cgroup");
            fs::write(root.join("cgroup.subtree_control"), "+memory")?;
            (root, "memory.max")
        };
        let limit = Self { folder: parent.join(name) };
        fs::create_dir(&limit.folder)?;
        fs::write(limit.folder.join(file), bytes.to_string())?;
        Ok(limit)
    }

    /// The file that takes the id of a process into the group.
    pub fn processes_file(&self) -> PathBuf {
        self.folder.join("cgroup.procs")
    }

    /// How often the kernel killed a process of this group for its memory.
    pub fn kills(&self) -> u64 {
        ["memory.oom_control", "memory.events"]
            .iter()
            .filter_map(|file| fs::read_to_string(self.folder.join(file)).ok())
            .flat_map(|text| text.lines().map(ToOwned::to_owned).collect::<Vec<_>>())
            .filter_map(|line| line.strip_prefix("oom_kill ").and_then(|count| count.trim().parse::<u64>().ok()))
            .sum()
    }
}

impl Drop for MemoryLimit {
    fn drop(&mut self) {
        // Fails while a process is left; the folder of an empty group can be removed like any other.
        let _ = fs::remove_dir(&self.folder);
    }
}
