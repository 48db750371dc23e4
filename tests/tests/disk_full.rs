//! Full disks: of the store, of the database, of both, without inodes. Pushes are refused in time, all else goes on, and so do
//! pushes when there is room.

use anyhow::{Context, Result, ensure};
use portcullis_tests::disk_scene::{DiskScene, KEPT, answers, go_on, push};
use portcullis_tests::{BoundDisk, LoopDisk};
use testkit::client::Login;
use testkit::http::Body;

const CONFIG: &str = "[storage]\nreserve = \"8MiB\"\n";
const MIB: u64 = 1 << 20;

/// What has to go on when pushes are refused: logins, deletions, accounts, the audit trail.
fn all_else_goes_on(scene: &mut DiskScene) -> Result<()> {
    scene.serves()?;
    scene.server.add_user("late", "correct horse battery staple")?;
    let mut late = scene.server.client(Login::Bearer("late".to_owned(), "correct horse battery staple".to_owned()));
    late.authorization("team/kept")?.context("no token")?;
    scene.server.run(&["user", "remove", "late", "--yes"])?;
    ensure!(scene.server.run(&["event", "list"])?.contains("late"), "the audit trail has it");
    ensure!(scene.client.delete_manifest("team/old", "1")? == 202, "a deletion\n{}", scene.server.log_tail());
    Ok(())
}

/// Pushes fill the disk up to the mark. A session outlives that, and goes on when collection has made room.
fn filled_by_pushes(kind: &str) -> Result<()> {
    let disk = LoopDisk::sized(kind, 320 * MIB, &[])?;
    let mut scene =
        DiskScene::new(&format!("filled by pushes, {kind}"), Some(disk.mount_point().join("data")), CONFIG)?;
    let old = testkit::image::Recipe::new().layer(&mut scene.rng, 12 << 20)?.image();
    scene.client.push_image("team/old", &old, "1")?;
    let theirs = disk.fill(40 * MIB)?;
    let (refused, location, bytes, digest) = loop {
        let (bytes, digest) = scene.bytes(5 << 20);
        let (response, location) = scene.push(&bytes, &digest)?;
        if response.status != 201 {
            break (response, location, bytes, digest);
        }
    };
    answers(&refused, 507)?;
    let free = disk.free()?;
    ensure!(free > 4 * MIB, "refused before the disk is full: {free} bytes are free");
    // What came of the refused one may have been cut off again.
    disk.fill(7 * MIB)?;
    scene.becomes(503, "\"store\":\"full\"")?;
    let target = format!("/v2/team/new/blobs/uploads/?digest={digest}");
    answers(&scene.client.send("team/new", "POST", &target, &[], Body::Bytes(&bytes))?, 507)?;
    scene.client.reconnect();
    let manifest = scene.client.put_manifest(KEPT, "2", scene.kept.media_type, &scene.kept.manifest.bytes)?;
    answers(&manifest, 507)?;
    all_else_goes_on(&mut scene)?;
    ensure!(scene.metric("portcullis_storage_failures_total{kind=\"full\"}")? >= 3.0);
    ensure!(scene.logged("the disk is full: pushes are refused")? == 1);
    // What was deleted makes room. A grace of nothing would take the session as well.
    std::thread::sleep(std::time::Duration::from_millis(1100));
    scene.server.run(&["gc", "run", "--wait", "--grace", "1s"])?;
    let offset = go_on(&mut scene.client, &location.context("no session")?, &bytes, &digest)?;
    eprintln!("{kind}: refused with {free} bytes free; the upload went on at {offset}");
    std::fs::remove_file(theirs)?;
    scene.has_recovered()?;
    scene.server.kill();
    Ok(())
}

// security: O-01
#[test]
fn filled_by_pushes_ext4() -> Result<()> {
    filled_by_pushes("ext4")
}

// security: O-01
#[test]
fn filled_by_pushes_xfs() -> Result<()> {
    filled_by_pushes("xfs")
}

/// The store has a disk of its own, which others fill to the last byte; the database's has room.
// security: O-01
#[test]
fn only_the_store_is_full() -> Result<()> {
    let disk = BoundDisk::new("ext4", 128 * MIB, &["-m", "0"])?;
    let mut scene = DiskScene::new("only the store is full", Some(disk.data_dir()), CONFIG)?;
    let old = testkit::image::Recipe::new().layer(&mut scene.rng, 100_000)?.image();
    scene.client.push_image("team/old", &old, "1")?;
    let (bytes, digest) = scene.bytes(900_000);
    let location = scene.client.start("team/new")?;
    let theirs = disk.disk().fill(0)?;
    std::thread::sleep(std::time::Duration::from_millis(1100));
    answers(&scene.push(&bytes, &digest)?.0, 507)?;
    scene.becomes(503, "\"store\":\"full\"")?;
    all_else_goes_on(&mut scene)?;
    std::fs::remove_file(theirs)?;
    go_on(&mut scene.client, &location, &bytes, &digest)?;
    scene.has_recovered()
}

/// The database's disk is full and the store's has room: pushes stop before what is reserved for the ways out is used up.
// security: O-01
#[test]
fn only_the_database_is_full() -> Result<()> {
    let small = LoopDisk::sized("ext4", 64 * MIB, &["-m", "0"])?;
    let store = BoundDisk::within(&small, "ext4", 256 * MIB)?;
    let mut scene = DiskScene::new("only the database is full", Some(store.data_dir()), CONFIG)?;
    let old = testkit::image::Recipe::new().layer(&mut scene.rng, 100_000)?.image();
    scene.client.push_image("team/old", &old, "1")?;
    let (bytes, digest) = scene.bytes(900_000);
    let location = scene.client.start("team/new")?;
    let theirs = small.fill(0)?;
    std::thread::sleep(std::time::Duration::from_millis(1100));
    answers(&scene.push(&bytes, &digest)?.0, 507)?;
    answers(&scene.push(&bytes[..100], &digest)?.0, 507)?;
    scene.becomes(503, "\"store\":\"full\"")?;
    all_else_goes_on(&mut scene)?;
    std::fs::remove_file(theirs)?;
    go_on(&mut scene.client, &location, &bytes, &digest)?;
    scene.has_recovered()?;
    scene.server.kill();
    Ok(())
}

// security: O-01
#[test]
fn no_inodes_left() -> Result<()> {
    let disk = BoundDisk::new("ext4", 128 * MIB, &["-N", "400"])?;
    let mut scene = DiskScene::new("no inodes left", Some(disk.data_dir()), CONFIG)?;
    let folder = disk.mount_point().join("somebody-else");
    std::fs::create_dir(&folder)?;
    let mut made = 0;
    while std::fs::File::create(folder.join(made.to_string())).is_ok() {
        made += 1;
    }
    let (bytes, digest) = scene.bytes(900_000);
    let (response, location) = scene.push(&bytes, &digest)?;
    answers(&response, 507)?;
    scene.becomes(503, "\"store\":\"full\"")?;
    scene.serves()?;
    // What needs no file of its own is taken.
    let (small, small_digest) = scene.bytes(10_000);
    ensure!(push(&mut scene.client, "team/new", &small, &small_digest)?.0.status == 201);
    std::fs::remove_dir_all(&folder)?;
    go_on(&mut scene.client, &location.context("no session")?, &bytes, &digest)?;
    scene.has_recovered()
}
