//! Bytes that change on the disk: never served as good where that can be known, found by `fsck` with the repositories that
//! they are in, and healed by pushing them again.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use oci::Digest;
use portcullis_tests::LoopDisk;
use portcullis_tests::disk_scene::{DiskScene, KEPT, system};
use testkit::http::Body;

const REPOSITORIES: [&str; 2] = ["team/first", "team/second"];

/// What happens to the file of a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    Truncated,
    Extended,
    Flipped,
    Zeroed,
    Missing,
    Folder,
    Link,
    Pipe,
}

const CHANGES: [Change; 8] = [
    Change::Truncated,
    Change::Extended,
    Change::Flipped,
    Change::Zeroed,
    Change::Missing,
    Change::Folder,
    Change::Link,
    Change::Pipe,
];

impl Change {
    /// Only the content tells.
    fn is_silent(self) -> bool {
        matches!(self, Self::Flipped | Self::Zeroed)
    }

    fn make(self, path: &Path) -> Result<()> {
        let (time, file) = (fs::metadata(path)?.modified()?, File::options().read(true).write(true).open(path)?);
        let length = file.metadata()?.len();
        match self {
            Self::Truncated => file.set_len(length - 1)?,
            Self::Extended => file.set_len(length + 1)?,
            Self::Flipped => flip(&file, length / 2)?,
            Self::Zeroed => file.write_all_at(&vec![0; usize::try_from(length)?], 0)?,
            Self::Missing | Self::Folder | Self::Link | Self::Pipe => fs::remove_file(path)?,
        }
        match self {
            Self::Folder => fs::create_dir(path)?,
            Self::Link => std::os::unix::fs::symlink("/etc/hostname", path)?,
            Self::Pipe => system("mkfifo", &[&path.display().to_string()])?,
            Self::Missing => {}
            _ => file.set_modified(time)?,
        }
        Ok(())
    }
}

fn flip(file: &File, at: u64) -> Result<()> {
    let mut byte = [0];
    file.read_exact_at(&mut byte, at)?;
    file.write_all_at(&[byte[0] ^ 1], at)?;
    Ok(file.sync_all()?)
}

/// The newest file of the store with exactly these bytes: earlier ones are garbage.
fn file_of(scene: &DiskScene, bytes: &[u8]) -> Result<PathBuf> {
    let mut newest = None;
    for folder in fs::read_dir(scene.server.data_dir().join("blobs"))? {
        for entry in fs::read_dir(folder?.path())? {
            let path = entry?.path();
            if path.is_file() && fs::read(&path)? == bytes {
                newest = newest.max(Some((fs::metadata(&path)?.modified()?, path)));
            }
        }
    }
    Ok(newest.context("no file has these bytes")?.1)
}

/// The findings of `fsck` about a digest: their codes and messages.
fn findings(scene: &DiskScene, digest: &Digest) -> Result<Vec<(String, String)>> {
    let output = scene.server.output(&["fsck", "--json"])?;
    let report: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let findings = report["findings"].as_array().context("no findings")?;
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let about = findings.iter().filter(|finding| finding["digest"] == digest.as_str());
    Ok(about.map(|finding| (text(&finding["code"]), text(&finding["message"]))).collect())
}

/// What a pull gives: an error that names no file, or, where it cannot be known, bytes that the client finds wrong.
fn pull(scene: &mut DiskScene, digest: &Digest, may_be_served: bool) -> Result<()> {
    for repository in REPOSITORIES {
        let response = scene.client.blob(repository, digest)?;
        match response.status {
            500 => ensure!(response.text().contains("UNKNOWN") && !response.text().contains("blobs"), "{response:?}"),
            200 => {
                let actual = oci::Hasher::digest(oci::Algorithm::Sha256, &response.body);
                ensure!(may_be_served && actual != *digest, "{repository}: served: {response:?}");
            }
            _ => bail!("{repository}: {response:?}"),
        }
    }
    Ok(())
}

fn head(scene: &mut DiskScene, digest: &Digest) -> Result<u16> {
    let target = format!("/v2/{}/blobs/{digest}", REPOSITORIES[0]);
    Ok(scene.client.send(REPOSITORIES[0], "HEAD", &target, &[], Body::None)?.status)
}

fn every_change(verify_reads: bool) -> Result<()> {
    let config = format!("[storage]\nverify_reads = {verify_reads}\n");
    let mut scene = DiskScene::new(&format!("damage, verified {verify_reads}"), None, &config)?;
    for change in CHANGES {
        let (bytes, digest) = scene.bytes(300_000);
        for repository in REPOSITORIES {
            scene.client.push_blob(repository, &digest, &bytes)?;
        }
        let path = file_of(&scene, &bytes)?;
        change.make(&path)?;
        let unknown = change.is_silent() && !verify_reads;
        pull(&mut scene, &digest, unknown).with_context(|| format!("{change:?}"))?;
        ensure!(head(&mut scene, &digest)? == if unknown { 200 } else { 404 }, "{change:?}");
        let found = findings(&scene, &digest)?;
        let code = if change == Change::Missing { "blob_missing" } else { "blob_damaged" };
        ensure!(found.len() == 1 && found[0].0 == code, "{change:?}: {found:?}");
        ensure!(REPOSITORIES.iter().all(|name| found[0].1.contains(name)), "{change:?}: {found:?}");
        // Now it is known: it is not served any more, and who may push it is asked for it.
        pull(&mut scene, &digest, false).with_context(|| format!("{change:?}, known"))?;
        ensure!(head(&mut scene, &digest)? == 404, "{change:?}: a client would not push it again");
        let mount = format!("/v2/team/third/blobs/uploads/?mount={digest}&from={}", REPOSITORIES[0]);
        let mounted = scene.client.send("team/third", "POST", &mount, &[], Body::Bytes(b""))?;
        ensure!(mounted.status == 202, "{change:?}: {mounted:?}");
        // One push heals it everywhere.
        scene.client.push_blob(REPOSITORIES[1], &digest, &bytes)?;
        for repository in REPOSITORIES {
            ensure!(scene.client.blob(repository, &digest)?.body == bytes, "{change:?}: {repository} is not healed");
        }
        ensure!(findings(&scene, &digest)?.is_empty(), "{change:?}");
    }
    ensure!(scene.metric("portcullis_damaged_blobs_total")? >= 6.0);
    // Sessions of the refused mounts and the replaced files go.
    scene.has_recovered()
}

// security: O-09, O-10, O-13
#[test]
fn every_change_of_a_file() -> Result<()> {
    every_change(false)
}

// security: O-09, O-10, O-13
#[test]
fn every_change_of_a_file_with_verified_reads() -> Result<()> {
    every_change(true)
}

/// The disk holds other bytes than the kernel has in memory: pulls are served what was pushed, and `fsck` finds it anyway.
// security: O-11
#[test]
fn a_byte_that_is_wrong_on_the_disk_alone() -> Result<()> {
    let disk = LoopDisk::sized("ext4", 64 << 20, &[])?;
    let mut scene = DiskScene::new("wrong on the disk alone", Some(disk.mount_point().join("data")), "")?;
    let (bytes, digest) = scene.bytes(300_000);
    // Once: a second push would leave a second file with these bytes until it is collected.
    scene.client.push_blob(REPOSITORIES[0], &digest, &bytes)?;
    let mount = format!("/v2/{}/blobs/uploads/?mount={digest}&from={}", REPOSITORIES[1], REPOSITORIES[0]);
    scene.client.send(REPOSITORIES[1], "POST", &mount, &[], Body::Bytes(b""))?.expect_status(201)?;
    let path = file_of(&scene, &bytes)?;
    flip_after(&disk.image(), &bytes[100_000..100_064])?;
    ensure!(fs::read(&path)? == bytes, "the right bytes are not in memory any more");
    ensure!(scene.client.blob(REPOSITORIES[0], &digest)?.body == bytes);
    let found = findings(&scene, &digest)?;
    ensure!(found.len() == 1 && found[0].0 == "blob_damaged", "{found:?}");
    pull(&mut scene, &digest, false)?;
    scene.client.push_blob(REPOSITORIES[1], &digest, &bytes)?;
    ensure!(findings(&scene, &digest)?.is_empty());
    scene.has_recovered()
}

/// A flipped byte in the database: in a small blob, in a manifest, and in its first page.
// security: O-09, Q-05
#[test]
fn a_flipped_byte_in_the_database() -> Result<()> {
    let mut scene = DiskScene::new("a flipped byte in the database", None, "")?;
    let (small, digest) = scene.bytes(3_000);
    for repository in REPOSITORIES {
        scene.client.push_blob(repository, &digest, &small)?;
    }
    let (manifest, manifest_digest) = (scene.kept.manifest.bytes.clone(), scene.kept.manifest.digest.clone());
    let config = scene.kept.blobs[0].clone();
    ensure!(scene.server.stop()?.success());
    let database = scene.server.data_dir().join("meta.db");
    // Part of a row's content lies in one page: its first bytes do.
    flip_after(&database, &small[..64])?;
    flip_after(&database, &manifest[..64])?;
    scene.relaunch()?;
    pull(&mut scene, &digest, false)?;
    let answer = scene.client.manifest(KEPT, "1")?;
    ensure!(answer.status == 500 && answer.text().contains("UNKNOWN"), "{answer:?}");
    ensure!(scene.client.blob(KEPT, &config.digest)?.body == config.bytes, "all else is served");
    let found = findings(&scene, &digest)?;
    ensure!(found.len() == 1 && REPOSITORIES.iter().all(|name| found[0].1.contains(name)), "{found:?}");
    let found = findings(&scene, &manifest_digest)?;
    ensure!(found.len() == 1 && found[0].0 == "manifest_damaged", "{found:?}");
    scene.client.push_blob(REPOSITORIES[0], &digest, &small)?;
    scene.client.put_manifest(KEPT, "1", scene.kept.media_type, &manifest)?.expect_status(201)?;
    for repository in REPOSITORIES {
        ensure!(scene.client.blob(repository, &digest)?.body == small, "{repository} is not healed");
    }
    scene.has_recovered()?;
    ensure!(scene.server.stop()?.success());
    let file = File::options().read(true).write(true).open(&database)?;
    flip(&file, 3)?;
    let error = scene.relaunch().err().context("started with a damaged database")?;
    ensure!(format!("{error:#}").contains("damaged"), "{error:#}");
    flip(&file, 3)?;
    scene.relaunch()?;
    scene.has_recovered()
}

/// Flips a byte behind the first place where these bytes are.
fn flip_after(path: &Path, bytes: &[u8]) -> Result<()> {
    let content = fs::read(path)?;
    let at = content
        .windows(bytes.len())
        .position(|window| window == bytes)
        .with_context(|| format!("{} bytes hold no {:?}", content.len(), &bytes[..8]))?;
    flip(&File::options().read(true).write(true).open(path)?, (at + bytes.len() / 2) as u64)
}
