//! umoci of Debian 12: it makes and changes layouts on disk only; skopeo moves them.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use portcullis_tests::{PASSWORD, Stage, Tool, tried};
use serde_json::Value;
use testkit::{Rng, layout};

const PLAIN: [&str; 2] = ["--src-tls-verify=false", "--dest-tls-verify=false"];

fn skopeo(stage: &Stage, who: &str, login: &[&str]) -> Result<Tool> {
    let tool = stage.tool("skopeo", who)?;
    let mut arguments = vec!["login"];
    arguments.extend(login);
    let host = stage.host();
    arguments.extend(["-u", who, "-p", PASSWORD, &host]);
    tool.run(&arguments)?;
    Ok(tool)
}

/// A layout with the images `one`, of a layer, and `two`, of one more.
fn made(stage: &Stage, umoci: &Tool, rng: &mut Rng) -> Result<String> {
    let folder = stage.text_path("made");
    let (one, two) = (format!("{folder}:one"), format!("{folder}:two"));
    umoci.run(&["init", "--layout", &folder])?;
    umoci.run(&["new", "--image", &one])?;
    for (name, size) in [("first", 100_000), ("second", 300_000)] {
        let source = stage.path(name);
        std::fs::create_dir_all(source.join("deep/er"))?;
        std::fs::write(source.join("deep/er").join(name), rng.bytes(size))?;
        std::fs::write(source.join("empty"), "")?;
        let mut insert = vec!["insert", "--rootless", "--image", if name == "first" { &one } else { &two }];
        let (source, target) = (source.display().to_string(), format!("/{name}"));
        insert.extend([source.as_str(), target.as_str()]);
        umoci.run(&insert)?;
        if name == "first" {
            umoci.run(&["config", "--image", &one, "--config.cmd", "/first", "--author", "a test"])?;
            umoci.run(&["tag", "--image", &one, "two"])?;
        }
    }
    umoci.run(&["gc", "--layout", &folder])?;
    Ok(folder)
}

fn copy(tool: &Tool, from: &str, to: &str, more: &[&str]) -> Result<()> {
    let mut arguments = vec!["copy"];
    arguments.extend(more);
    arguments.extend([from, to]);
    tool.run(&arguments).map(drop)
}

/// The digest that a layout has under this name.
fn digest_in(folder: &str, name: &str) -> Result<String> {
    let index: Value = serde_json::from_slice(&std::fs::read(format!("{folder}/index.json"))?)?;
    let entries = index["manifests"].as_array().context("no manifests")?;
    let entry = entries.iter().find(|entry| entry["annotations"]["org.opencontainers.image.ref.name"] == name);
    let digest = entry.and_then(|entry| entry["digest"].as_str());
    digest.map(str::to_owned).with_context(|| format!("{name} is not in {index:#}"))
}

/// All files of an unpacked image, with what is in them.
fn unpacked(stage: &Stage, umoci: &Tool, image: &str, name: &str) -> Result<BTreeMap<String, Vec<u8>>> {
    let bundle = stage.text_path(name);
    umoci.run(&["unpack", "--rootless", "--image", image, &bundle])?;
    let mut files = BTreeMap::new();
    let mut folders = vec![stage.path(name).join("rootfs")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            match path.is_dir() {
                true => folders.push(path),
                false => {
                    let below = path.strip_prefix(stage.path(name))?.display().to_string();
                    files.insert(below, std::fs::read(&path)?);
                }
            }
        }
    }
    Ok(files)
}

#[test]
fn layouts_go_there_and_back_with_the_same_bytes() -> Result<()> {
    let stage = Stage::plain()?;
    let rng = &mut Rng::announced("umoci");
    let umoci = stage.tool("umoci", "alice")?;
    let (alice, bob) =
        (skopeo(&stage, "alice", &["--tls-verify=false"])?, skopeo(&stage, "bob", &["--tls-verify=false"])?);
    let folder = made(&stage, &umoci, rng)?;
    let back = stage.text_path("back");
    for name in ["one", "two"] {
        let (local, remote) =
            (format!("oci:{folder}:{name}"), format!("docker://{}", stage.at(&format!("team/app:{name}"))));
        copy(&alice, &local, &remote, &PLAIN)?;
        let digest = digest_in(&folder, name)?;
        // umoci writes manifests without `mediaType`: the server has to keep the type of the request.
        let manifest = stage.client("bob").assert_whole("team/app", &digest)?;
        ensure!(
            manifest.get("mediaType").is_none(),
            "the manifest says its type, so that this tests nothing: {manifest:#}"
        );
        let answer = stage.client("bob").manifest("team/app", name)?.expect_status(200)?;
        ensure!(answer.header("content-type") == Some(testkit::image::MANIFEST), "{answer:?}");
        copy(&bob, &remote, &format!("oci:{back}:{name}"), &PLAIN)?;
        let by_digest = format!("docker://{}", stage.at(&format!("team/app@{digest}")));
        copy(&bob, &by_digest, &format!("oci:{back}-digest:{name}"), &PLAIN)?;
        for pulled in [&back, &format!("{back}-digest")] {
            ensure!(digest_in(pulled, name)? == digest, "{name} came back with another manifest");
        }
    }
    let blobs = layout::digests(&stage.path("made"))?;
    for pulled in ["back", "back-digest"] {
        ensure!(layout::digests(&stage.path(pulled))? == blobs, "{pulled} has other blobs than were pushed");
        let before = unpacked(&stage, &umoci, &format!("{folder}:two"), &format!("bundle-before-{pulled}"))?;
        let after = unpacked(&stage, &umoci, &format!("{}:two", stage.text_path(pulled)), &format!("bundle-{pulled}"))?;
        ensure!(before.len() == 4 && before == after, "{pulled}: other files: {:?}", after.keys());
    }
    let stat = umoci.run(&["stat", "--json", "--image", &format!("{back}:two")])?.json()?;
    ensure!(stat["history"].as_array().is_some_and(|history| history.len() == 3), "{stat:#}");
    stage.record("umoci", &umoci, &[tried::PUSH, tried::PULL_BY_TAG, tried::PULL_BY_DIGEST])?;
    stage.record("umoci", &umoci, &["manifests without mediaType", "unpack what was pulled"])?;
    stage.close()
}

#[test]
fn a_pulled_image_is_changed_and_pushed_again() -> Result<()> {
    let stage = Stage::plain()?;
    let rng = &mut Rng::announced("umoci");
    let umoci = stage.tool("umoci", "alice")?;
    let alice = skopeo(&stage, "alice", &["--tls-verify=false"])?;
    let folder = made(&stage, &umoci, rng)?;
    let remote = format!("docker://{}", stage.at("team/app:1"));
    copy(&alice, &format!("oci:{folder}:two"), &remote, &PLAIN)?;
    let pulled = stage.text_path("pulled");
    copy(&alice, &remote, &format!("oci:{pulled}:it"), &PLAIN)?;
    let before = unpacked(&stage, &umoci, &format!("{pulled}:it"), "bundle")?;
    std::fs::write(stage.path("bundle/rootfs/new"), rng.bytes(50_000))?;
    std::fs::remove_file(stage.path("bundle/rootfs/first/empty"))?;
    umoci.run(&["repack", "--image", &format!("{pulled}:changed"), &stage.text_path("bundle")])?;
    let target = format!("docker://{}", stage.at("team/app:2"));
    copy(&alice, &format!("oci:{pulled}:changed"), &target, &PLAIN)?;
    let manifest = stage.client("bob").assert_whole("team/app", "2")?;
    ensure!(manifest["layers"].as_array().is_some_and(|layers| layers.len() == 3), "{manifest:#}");
    copy(&alice, &target, &format!("oci:{pulled}-again:it"), &PLAIN)?;
    let after = unpacked(&stage, &umoci, &format!("{pulled}-again:it"), "bundle-again")?;
    // One more file, and one that a whiteout hides.
    ensure!(after.len() == before.len() && after.contains_key("rootfs/new"), "{:?}", after.keys());
    ensure!(!after.contains_key("rootfs/first/empty"), "the whiteout was lost: {:?}", after.keys());
    stage.record("umoci", &umoci, &["repack what was pulled, push again"])?;
    stage.close()
}

#[test]
fn refusals_name_their_cause() -> Result<()> {
    let stage = Stage::plain()?;
    let rng = &mut Rng::announced("umoci");
    let umoci = stage.tool("umoci", "alice")?;
    let local = format!("oci:{}:two", made(&stage, &umoci, rng)?);
    let alice = skopeo(&stage, "alice", &["--tls-verify=false"])?;
    let remote = format!("docker://{}", stage.at("team/app:1"));
    copy(&alice, &local, &remote, &PLAIN)?;
    let target = format!("docker://{}", stage.at("team/app:2"));
    let push = ["copy", PLAIN[1], &local, &target];
    skopeo(&stage, "bob", &["--tls-verify=false"])?.fails(&push)?.names_the_cause(&["denied"])?;
    let carol = skopeo(&stage, "carol", &["--tls-verify=false"])?;
    carol.fails(&push)?.names_the_cause(&["name unknown", "denied", "not known to registry"])?;
    let pull = ["copy", PLAIN[0], &remote, &format!("oci:{}:it", stage.text_path("back"))];
    carol.fails(&pull)?.names_the_cause(&["unknown", "denied"])?;
    stage.record("umoci", &umoci, &[tried::DENIED_PULL, tried::DENIED_PUSH])?;
    stage.close()
}

#[test]
fn trusts_an_own_authority_over_tls() -> Result<()> {
    let stage = Stage::tls()?;
    let rng = &mut Rng::announced("umoci");
    let umoci = stage.tool("umoci", "alice")?;
    let folder = made(&stage, &umoci, rng)?;
    let certificates = stage.certificates()?;
    let alice = skopeo(&stage, "alice", &["--cert-dir", &certificates])?;
    let (local, remote) = (format!("oci:{folder}:two"), format!("docker://{}", stage.at("team/tls:1")));
    alice.fails(&["copy", &local, &remote])?.names_the_cause(&["certificate"])?;
    copy(&alice, &local, &remote, &["--dest-cert-dir", &certificates])?;
    let back = stage.text_path("back");
    let by_digest = format!("docker://{}", stage.at(&format!("team/tls@{}", digest_in(&folder, "two")?)));
    for (name, source) in [("two", &remote), ("digest", &by_digest)] {
        copy(&alice, source, &format!("oci:{back}:{name}"), &["--src-cert-dir", &certificates])?;
        ensure!(digest_in(&back, name)? == digest_in(&folder, "two")?, "{name}: came back with another manifest");
    }
    layout::digests(&stage.path("back"))?;
    let (before, after) = (
        unpacked(&stage, &umoci, &format!("{folder}:two"), "bundle-before")?,
        unpacked(&stage, &umoci, &format!("{back}:two"), "bundle")?,
    );
    ensure!(before == after, "other files: {:?}", after.keys());
    let moved = [tried::PUSH, tried::PULL_BY_TAG, tried::PULL_BY_DIGEST, tried::UNKNOWN_AUTHORITY];
    stage.record("umoci", &umoci, &moved)?;
    stage.close()
}
