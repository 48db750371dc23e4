use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use oci::Reference;
use registry::backup::{Before, Report, create, restore, verify};
use registry::push::{self, Position};
use registry::{Authority, Error, Registry, delete, fsck, gc, pull};

use crate::common::*;

async fn backup(world: &World, folder: &Path) -> Result<Report, Error> {
    create(&world.registry, Authority::DataDirectory, world.folder.path(), folder, &|_| {}).await
}

async fn check(world: &World, folder: &Path) -> Result<Report, Error> {
    verify(folder, &clock(&world.now), &random(), &|_| {}).await
}

async fn filled() -> (World, Image, Vec<u8>) {
    let world = world().await;
    let alice = world.access(ALICE, "a/b");
    let content = bytes(300_000);
    let layer = world.push_blob(&alice, &content).await;
    let config = world.push_blob(&alice, b"config").await;
    let manifest = image(&config, std::slice::from_ref(&layer));
    let digest = world.push_manifest(&alice, "v1", &manifest).await.unwrap().digest;
    (world, Image { config, layer, digest, bytes: manifest }, content)
}

#[tokio::test]
async fn a_backup_comes_back() {
    let (world, image, content) = filled().await;
    let alice = world.access(ALICE, "a/b");
    let id = push::start(&world.registry, &alice, None).await.unwrap().id;
    push::append(&world.registry, &alice, &id, Position::default(), body(&bytes(50_000))).await.unwrap();
    let outside = tempfile::tempdir().unwrap();
    let folder = outside.path().join("backup");
    let report = backup(&world, &folder).await.unwrap();
    assert_eq!((report.blobs, report.bytes), (1, 300_000));
    assert!(report.missing.is_empty());
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&folder), mode(&folder.join("meta.db"))), (0o700, 0o600));
    let mut names: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["backup.json", "blobs", "format.json", "meta.db"]);
    assert_eq!(check(&world, &folder).await.unwrap(), report);
    // Not over another one.
    assert!(matches!(backup(&world, &folder).await, Err(Error::Conflict { .. })));

    // What comes after is not in it, nor is what is deleted after gone from it.
    world.push_image(&alice, "later", "later").await;
    delete::manifest(&world.registry, &alice, &Reference::Digest(image.digest.clone())).await.unwrap();
    world.pass(GRACE * 2);
    gc::run(&world.registry, Authority::DataDirectory, GRACE, &|_| {}).await.unwrap();
    assert!(world.read_blob(&alice, &image.layer).await.is_err());

    let data = outside.path().join("data");
    let (clock, random) = (clock(&world.now), random());
    assert_eq!(restore(&folder, &data, &clock, &random, &|_| {}).await.unwrap(), (report, Before::Absent));
    assert!(matches!(restore(&folder, &data, &clock, &random, &|_| {}).await, Err(Error::Conflict { .. })));
    assert_eq!(fs::read(data.join("format.json")).unwrap(), fs::read(world.folder.path().join("format.json")).unwrap());
    let db = meta::Db::open_sqlite(&data.join("meta.db"), clock.clone(), random.clone()).unwrap();
    assert_eq!(db.store_id(), world.registry.db().store_id());
    let blobs = blobs::Blobs::open_fs(&data.join("blobs")).unwrap();
    let registry = Registry::new(db, blobs, settings(), clock, random);
    let restored = World { registry, ..world };
    assert_eq!(restored.read_blob(&alice, &image.layer).await.unwrap(), content);
    let tag = Reference::parse("v1").unwrap();
    assert_eq!(pull::manifest(&restored.registry, &alice, &tag).await.unwrap().bytes, image.bytes);
    assert!(pull::manifest(&restored.registry, &alice, &Reference::parse("later").unwrap()).await.is_err());
    // Sessions do not come back.
    assert!(matches!(push::status(&restored.registry, &alice, &id).await, Err(Error::UploadUnknown)));
    let report = fsck::check(&restored.registry, Authority::DataDirectory, &|_| {}).await.unwrap();
    assert!(report.findings.is_empty(), "{:?}", report.findings);
}

/// Links, not copies: a backup takes no space for bytes.
#[tokio::test]
async fn files_are_linked() {
    let (world, ..) = filled().await;
    let folder = world.folder.path().join("backup");
    backup(&world, &folder).await.unwrap();
    assert_eq!(fs::metadata(&world.files()[0]).unwrap().nlink(), 2);
    world.faults.fail_op("link", rustix::io::Errno::XDEV);
    let copy = world.folder.path().join("copy");
    backup(&world, &copy).await.unwrap();
    assert_eq!(fs::metadata(&world.files()[0]).unwrap().nlink(), 2);
    check(&world, &copy).await.unwrap();
}

/// U-03: what is wrong with a backup is found before anything is made of it.
#[tokio::test]
async fn u03_damaged_backups() {
    let (world, ..) = filled().await;
    let outside = tempfile::tempdir().unwrap();
    world.faults.fail_op("link", rustix::io::Errno::XDEV);
    type Damage = fn(&Path, &Path);
    let damages: [Damage; 5] = [
        |_, blob| fs::remove_file(blob).unwrap(),
        |_, blob| fs::write(blob, bytes(299_999)).unwrap(),
        |_, blob| fs::write(blob, [&bytes(299_999)[..], b"x"].concat()).unwrap(),
        |folder, _| {
            let mut bytes = fs::read(folder.join("meta.db")).unwrap();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            fs::write(folder.join("meta.db"), bytes).unwrap();
        },
        |folder, _| fs::remove_file(folder.join("backup.json")).unwrap(),
    ];
    for (n, damage) in damages.into_iter().enumerate() {
        let folder = outside.path().join(format!("backup{n}"));
        backup(&world, &folder).await.unwrap();
        let original = world.files().pop().unwrap();
        damage(&folder, &folder.join("blobs").join(original.strip_prefix(world.folder.path().join("blobs")).unwrap()));
        assert!(matches!(check(&world, &folder).await, Err(Error::Conflict { .. })), "{n}");
        let data = outside.path().join(format!("data{n}"));
        let restored = restore(&folder, &data, &clock(&world.now), &random(), &|_| {}).await;
        assert!(matches!(restored, Err(Error::Conflict { .. })), "{n}");
        assert!(!data.exists(), "what was made is removed");
        fs::create_dir(&data).unwrap();
        restore(&folder, &data, &clock(&world.now), &random(), &|_| {}).await.unwrap_err();
        assert_eq!(fs::read_dir(&data).unwrap().count(), 0, "and a folder that was there stays, empty");
    }
}

/// A store with a damaged blob can be backed up and restored all the same: the blob is told.
#[tokio::test]
async fn a_damaged_store() {
    let (world, image, _) = filled().await;
    fs::remove_file(&world.files()[0]).unwrap();
    let folder = world.folder.path().join("backup");
    let report = backup(&world, &folder).await.unwrap();
    assert_eq!((report.blobs, report.missing.clone()), (0, vec![image.layer.to_string()]));
    assert_eq!(check(&world, &folder).await.unwrap(), report);
    let data = world.folder.path().join("data");
    assert_eq!(restore(&folder, &data, &clock(&world.now), &random(), &|_| {}).await.unwrap().0, report);
}

/// A disk for backups is mounted on the folder that is named: it cannot be renamed onto, and is copied into.
#[tokio::test]
async fn a_backup_is_taken_into_a_folder_on_which_a_disk_is_mounted() {
    use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
    assert!(rustix::process::getuid().is_root(), "this test has to mount a file system as root");
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    fs::create_dir_all(from.join("blobs")).unwrap();
    fs::create_dir(&to).unwrap();
    fs::write(from.join("blobs/one"), "bytes").unwrap();
    fs::write(from.join("backup.json"), "{}").unwrap();
    mount("none", &to, "tmpfs", MountFlags::empty(), None).unwrap();
    let taken = registry::backup::relocate(&from, &to).await;
    let found = (fs::read_to_string(to.join("blobs/one")).ok(), to.join("backup.json").exists(), from.exists());
    unmount(&to, UnmountFlags::empty()).unwrap();
    taken.unwrap();
    assert_eq!(found, (Some("bytes".to_owned()), true, false));
}
