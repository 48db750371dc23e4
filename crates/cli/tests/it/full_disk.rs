//! A disk without room, by the registry's own doing and by others': deletions, collection and accounts are the way out, and
//! have to go on. On small file systems of their own, which takes root.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::harness::{Sandbox, Server, sha256};

/// A file system mounted as the data directory; unmounted when dropped.
struct Disk(PathBuf);

impl Disk {
    fn tmpfs(sandbox: &Sandbox) -> Self {
        Self::mount(sandbox, &["-t", "tmpfs", "-o", "size=20m,mode=0700", "tmpfs"])
    }

    fn ext4(sandbox: &Sandbox) -> Self {
        let image = sandbox.path("disk.img");
        File::create(&image).unwrap().set_len(48 << 20).unwrap();
        let image = image.to_str().unwrap();
        run(Command::new("mkfs.ext4").args(["-q", "-F", "-m", "0", image]));
        let disk = Self::mount(sandbox, &["-t", "ext4", "-o", "loop", image]);
        // What a new file system has in it is none of the registry's.
        std::fs::remove_dir(sandbox.data().join("lost+found")).unwrap();
        run(Command::new("chmod").args(["700", sandbox.data().to_str().unwrap()]));
        disk
    }

    fn mount(sandbox: &Sandbox, arguments: &[&str]) -> Self {
        let at = sandbox.data();
        std::fs::create_dir(&at).unwrap();
        run(Command::new("mount").args(arguments).arg(&at));
        Self(at)
    }

    fn free(&self) -> u64 {
        let disk = rustix::fs::statvfs(&self.0).unwrap();
        disk.f_bavail * disk.f_frsize
    }

    /// Somebody else takes this much of what is left.
    fn take(&self, bytes: usize) -> PathBuf {
        let path = self.0.join("somebody-else");
        let mut file = File::create_new(&path).unwrap();
        file.write_all(&vec![7; bytes]).and_then(|()| file.sync_data()).unwrap();
        path
    }

    /// Somebody else takes all that is left.
    fn fill(&self) -> PathBuf {
        let path = self.0.join("somebody-else");
        let mut file = File::options().append(true).create(true).open(&path).unwrap();
        for piece in [1 << 20, 64 << 10, 4096, 512] {
            while file.write_all(&vec![7; piece]).and_then(|()| file.sync_data()).is_ok() {}
        }
        path
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "this test needs root: {command:?}: {output:?}");
}

const REPOSITORY: &str = "team/app";

fn push_blob(server: &Server<'_>, seed: u32, length: usize) -> u16 {
    let bytes: Vec<u8> = seed.to_le_bytes().into_iter().cycle().take(length).collect();
    let path = format!("/v2/{REPOSITORY}/blobs/uploads/?digest={}", sha256(&bytes));
    server.request("POST", &path, "application/octet-stream", &bytes)
}

/// Everything that makes room, and everything that ends somebody's rights.
fn the_ways_out(sandbox: &Sandbox, server: &Server<'_>, digests: &[String]) {
    let delete = |reference: &str| {
        server.request("DELETE", &format!("/v2/{REPOSITORY}/manifests/{reference}"), "text/plain", b"")
    };
    assert_eq!(delete("v0"), 202, "a tag\n{}", server.log());
    assert_eq!(delete(&digests[1]), 202, "a manifest\n{}", server.log());
    let grants = sandbox.json(&["grant", "list", "--subject", "user:pusher"]);
    let grant = grants["items"][0]["id"].to_string();
    sandbox.run(&["grant", "remove", &grant]).succeeded();
    sandbox.run(&["user", "disable", "pusher"]).succeeded();
    sandbox.run(&["user", "add", "another"]).succeeded();
    sandbox.run(&["gc", "run", "--wait", "--grace", "0"]).succeeded();
    assert_eq!(server.request("GET", &format!("/v2/{REPOSITORY}/manifests/v2"), "", b""), 200);
}

fn prepare(sandbox: &Sandbox, server: &Server<'_>) -> Vec<String> {
    sandbox.run(&["user", "add", "pusher"]).succeeded();
    sandbox.run(&["grant", "add", "user:pusher", "writer", "team/**"]).succeeded();
    (0..4_u8).map(|i| server.push(REPOSITORY, &format!("v{i}"), &vec![i; 500_000])).collect()
}

fn stopped_and_clean(sandbox: &Sandbox, server: Server<'_>) {
    assert_eq!(server.stop(), 0);
    let report = sandbox.run(&["fsck", "--json"]).json();
    let strange = |finding: &&Value| !finding["message"].as_str().unwrap().contains("somebody-else");
    assert_eq!(report["findings"].as_array().unwrap().iter().find(strange), None);
}

fn filled_by_pushes(sandbox: &Sandbox, disk: &Disk) {
    let server = sandbox.serve();
    let digests = prepare(sandbox, &server);
    let mut seed = 1_000;
    let refused = loop {
        seed += 1;
        match push_blob(&server, seed, 300_000) {
            201 => {}
            other => break other,
        }
    };
    assert_eq!(refused, 507, "{}", server.log());
    assert!(disk.free() > 500_000, "refused before the disk is full: {}", disk.free());
    assert!(!server.log().contains("gave up reserved space"), "{}", server.log());
    // What came of the refused one is removed again, so that a smaller one may just fit.
    let theirs = disk.take(400_000);
    assert_eq!(push_blob(&server, 1, 10), 507, "even a small one");
    assert_eq!(push_blob(&server, 1, 60_000), 507);
    sandbox.run(&["health"]).exited(1);
    std::fs::remove_file(theirs).unwrap();
    the_ways_out(sandbox, &server, &digests);
    assert_eq!(push_blob(&server, 1, 300_000), 201, "there is room again, at once\n{}", server.log());
    // What a probe finds is kept for a second.
    std::thread::sleep(Duration::from_millis(1100));
    sandbox.run(&["health"]).succeeded();
    stopped_and_clean(sandbox, server);
}

fn filled_by_others(sandbox: &Sandbox, disk: &Disk) {
    let server = sandbox.serve();
    let digests = prepare(sandbox, &server);
    let reserve = || std::fs::metadata(sandbox.data().join("reserve")).unwrap().len();
    let whole = reserve();
    assert!(whole >= 1 << 20);
    let theirs = disk.fill();
    assert_eq!(push_blob(&server, 1, 10), 507);
    the_ways_out(sandbox, &server, &digests);
    assert!(reserve() < whole, "given up\n{}", server.log());

    disk.fill();
    sandbox.run(&["repo", "delete", REPOSITORY, "--yes"]).succeeded();
    sandbox.run(&["gc", "run", "--wait", "--grace", "0"]).succeeded();

    std::fs::remove_file(theirs).unwrap();
    let began = Instant::now();
    while reserve() < whole {
        assert!(began.elapsed() < Duration::from_secs(30), "taken again\n{}", server.log());
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(push_blob(&server, 1, 300_000), 201);
    stopped_and_clean(sandbox, server);
}

fn started_on_a_full_disk(sandbox: &Sandbox, disk: &Disk) {
    let server = sandbox.serve();
    let digests = prepare(sandbox, &server);
    assert_eq!(server.stop(), 0);
    disk.fill();
    let server = sandbox.serve();
    assert_eq!(server.request("GET", &format!("/v2/{REPOSITORY}/manifests/v1"), "", b""), 200);
    assert_eq!(push_blob(&server, 1, 10), 507);
    the_ways_out(sandbox, &server, &digests);
    // And once more, from what the one before has left over.
    disk.fill();
    assert_eq!(server.stop(), 0);
    disk.fill();
    let mut server = sandbox.serve();
    assert_eq!(server.request("GET", &format!("/v2/{REPOSITORY}/manifests/v2"), "", b""), 200);
    // Killed, it gives nothing back.
    disk.fill();
    server.child.kill().unwrap();
    server.child.wait().unwrap();
    let server = sandbox.serve();
    assert_eq!(server.request("GET", &format!("/v2/{REPOSITORY}/manifests/v2"), "", b""), 200);
    stopped_and_clean(sandbox, server);
}

fn on(disk: fn(&Sandbox) -> Disk, test: fn(&Sandbox, &Disk)) {
    let sandbox = Sandbox::new();
    let disk = disk(&sandbox);
    assert!(Path::new(&disk.0).is_dir());
    test(&sandbox, &disk);
}

#[test]
fn pushes_stop_in_time_tmpfs() {
    on(Disk::tmpfs, filled_by_pushes);
}

#[test]
fn pushes_stop_in_time_ext4() {
    on(Disk::ext4, filled_by_pushes);
}

/// What is set aside is for rows, and those of PostgreSQL are on another disk.
mod sqlite_only {
    use super::*;

    #[test]
    fn others_fill_the_disk_tmpfs() {
        on(Disk::tmpfs, filled_by_others);
    }

    #[test]
    fn others_fill_the_disk_ext4() {
        on(Disk::ext4, filled_by_others);
    }
}

#[test]
fn a_start_on_a_full_disk_tmpfs() {
    on(Disk::tmpfs, started_on_a_full_disk);
}

#[test]
fn a_start_on_a_full_disk_ext4() {
    on(Disk::ext4, started_on_a_full_disk);
}
