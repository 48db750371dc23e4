//! crane: go-containerregistry, which ko, kaniko and cosign are built on.

use std::fs::File;

use anyhow::{Result, ensure};
use portcullis_tests::{PASSWORD, Stage, Tool, tried};
use testkit::image::{self, FIVE_PLATFORMS, Recipe};
use testkit::{Noise, Rng, layout, tar};

fn crane(stage: &Stage, who: &str) -> Result<Tool> {
    let tool = stage.tool("crane", who)?;
    tool.run(&["auth", "login", "-u", who, "-p", PASSWORD, &stage.host()])?;
    Ok(tool)
}

#[test]
fn images_of_every_shape_go_there_and_back() -> Result<()> {
    let stage = Stage::plain()?;
    let rng = &mut Rng::announced("crane");
    let alice = crane(&stage, "alice")?;
    let base = Recipe::new().layers(rng, 2, 100_000)?.image();
    let images = [
        ("small", base.clone()),
        ("sixty", Recipe::new().layers(rng, 60, 20_000)?.image()),
        ("five", image::index(rng, &FIVE_PLATFORMS, 50_000)?),
        ("artifact", Recipe::new().layer(rng, 5_000)?.subject(&base).artifact("application/vnd.example.report")),
    ];
    for (name, image) in &images {
        let remote = stage.at(&format!("team/{name}:1"));
        layout::write(&stage.path(name), image, "it")?;
        alice.run(&["push", "--index", &stage.text_path(name), &remote])?;
        // `push --index` pushes the layout's own index.json; its only entry is the image.
        let by_digest = stage.at(&format!("team/{name}@{}", image.manifest.digest));
        alice.run(&["tag", &by_digest, "it"])?;
        stage.client("bob").assert_serves(&format!("team/{name}"), image)?;
        let digest = alice.run(&["digest", &stage.at(&format!("team/{name}:it"))])?;
        ensure!(digest.text() == image.manifest.digest.as_str(), "digest: {digest:?}");
        let manifest = alice.run(&["manifest", &by_digest])?;
        ensure!(manifest.text().as_bytes() == image.manifest.bytes, "manifest: {manifest:?}");
        let back = stage.text_path(&format!("{name}-back"));
        alice.run(&["pull", "--format=oci", &by_digest, &back])?;
        layout::assert_holds(&stage.path(&format!("{name}-back")), image)?;
        alice.run(&[
            "pull",
            "--format=oci",
            &stage.at(&format!("team/{name}:it")),
            &stage.text_path(&format!("{name}-tag")),
        ])?;
        layout::assert_holds(&stage.path(&format!("{name}-tag")), image)?;
    }
    alice.run(&["validate", "--remote", &stage.at("team/sixty:it")])?;
    let config = alice.run(&["config", &stage.at("team/small:it")])?;
    ensure!(config.text().as_bytes() == base.blobs[0].bytes, "config: {config:?}");
    let moved = [tried::LOGIN, tried::PUSH, tried::PULL_BY_TAG, tried::PULL_BY_DIGEST, tried::INSPECT];
    stage.record("crane", &alice, &moved)?;
    stage.record("crane", &alice, &[tried::PLATFORMS, tried::SIXTY_LAYERS, "an artifact with a subject"])?;
    stage.close()
}

#[test]
fn copies_lists_changes_and_deletes() -> Result<()> {
    let stage = Stage::plain()?;
    let rng = &mut Rng::announced("crane");
    let alice = crane(&stage, "alice")?;
    let image = Recipe::new().layers(rng, 3, 50_000)?.image();
    stage.client("alice").push_image("team/a", &image, "1")?;
    alice.run(&["cp", &stage.at("team/a:1"), &stage.at("team/b:2")])?;
    stage.client("bob").assert_serves("team/b", &image)?;
    alice.run(&["tag", &stage.at("team/a:1"), "also"])?;
    let tags = alice.run(&["ls", &stage.at("team/a")])?;
    ensure!(tags.text() == "1\nalso", "ls: {tags:?}");
    let catalog = alice.run(&["catalog", &stage.host()])?;
    ensure!(catalog.text() == "team/a\nteam/b", "catalog: {catalog:?}");
    let nothing = crane(&stage, "carol")?.run(&["catalog", &stage.host()])?;
    ensure!(nothing.text().is_empty(), "catalog of someone without grants: {nothing:?}");

    let changed =
        alice.run(&["mutate", "-l", "key=value", "-t", &stage.at("team/a:changed"), &stage.at("team/a:1")])?;
    let inspected = alice.run(&["config", &stage.at("team/a:changed")])?.json()?;
    ensure!(inspected["config"]["Labels"]["key"] == "value", "{changed:?} {inspected}");
    let index = ["index", "append", "-t", &stage.at("team/a:index"), "-m", &stage.at("team/a:1")];
    alice.run(&index.map(|argument| argument))?;
    alice.run(&["validate", "--remote", &stage.at("team/a:index")])?;

    alice.run(&["delete", &stage.at(&format!("team/b@{}", image.manifest.digest))])?;
    alice.fails(&["digest", &stage.at("team/b:2")])?.names_the_cause(&["404", "unknown"])?;
    stage.client("bob").assert_serves("team/a", &image)?;
    stage.record("crane", &alice, &[tried::COPY, tried::LIST, tried::DELETE, "mutate", "index append", "validate"])?;
    stage.close()
}

#[test]
fn a_layer_of_one_gibibyte() -> Result<()> {
    const SIZE: u64 = 1 << 30;
    let stage = Stage::plain()?;
    let alice = crane(&stage, "alice")?;
    let archive = stage.path("layer.tar");
    let mut file = File::create(&archive)?;
    tar::write_file(&mut file, "gibibyte", &mut Noise::new(11, SIZE), SIZE, 0o644)?;
    tar::finish(&mut file)?;
    drop(file);
    let (local, remote) = (archive.display().to_string(), stage.at("team/large:1"));
    alice.run(&["append", "--oci-empty-base", "-f", &local, "-t", &remote])?;
    let manifest = alice.run(&["manifest", &remote])?.json()?;
    let back = stage.text_path("back");
    alice.run(&["pull", "--format=oci", &remote, &back])?;
    let pulled = layout::digests(&stage.path("back"))?;
    let layer = &manifest["layers"][0];
    let name = layer["digest"].as_str().unwrap_or_default().trim_start_matches("sha256:");
    ensure!(pulled.get(name).copied() == layer["size"].as_u64(), "{manifest} {pulled:?}");
    ensure!(layer["size"].as_u64() >= Some(SIZE), "the layer was compressed away: {manifest}");
    let config = alice.run(&["config", &remote])?.json()?;
    let tar_digest = layout::digest_of_file(&archive)?;
    ensure!(config["rootfs"]["diff_ids"][0] == tar_digest.as_str(), "{config} is not of {tar_digest}");
    stage.record("crane", &alice, &[tried::LARGE_LAYER])?;
    stage.close()
}

#[test]
fn a_cancelled_push_leaves_nothing() -> Result<()> {
    let stage = Stage::hasty()?;
    let alice = crane(&stage, "alice")?;
    let (source, remote) = (stage.large_layout()?, stage.at("team/large:1"));
    let push = ["push", &source, &remote];
    stage.cancelled_push(&alice, &push, "team/large")?;
    alice.run(&push)?;
    stage.client("bob").assert_whole("team/large", "1")?;
    stage.record("crane", &alice, &[tried::CANCELLED_PUSH])?;
    stage.close()
}

#[test]
fn refusals_name_their_cause() -> Result<()> {
    let stage = Stage::plain()?;
    let rng = &mut Rng::announced("crane");
    let image = Recipe::new().layer(rng, 10_000)?.image();
    stage.client("alice").push_image("team/a", &image, "1")?;
    // `auth login` only stores; the first request shows that the password is wrong.
    let mallory = stage.tool("crane", "mallory")?;
    mallory.run(&["auth", "login", "-u", "alice", "-p", "wrong", &stage.host()])?;
    mallory.fails(&["ls", &stage.at("team/a")])?.names_the_cause(&["401", "unauthorized"])?;

    layout::write(&stage.path("image"), &image, "it")?;
    let (local, remote) = (stage.text_path("image"), stage.at("team/a:2"));
    crane(&stage, "bob")?.fails(&["push", &local, &remote])?.names_the_cause(&["denied"])?;
    crane(&stage, "carol")?.fails(&["push", &local, &remote])?.names_the_cause(&["name_unknown", "denied"])?;
    crane(&stage, "carol")?.fails(&["manifest", &stage.at("team/a:1")])?.names_the_cause(&["unknown", "denied"])?;
    stage.tool("crane", "nobody")?.fails(&["push", &local, &remote])?.names_the_cause(&["may not see"])?;
    let tags = crane(&stage, "bob")?.run(&["ls", &stage.at("team/a")])?;
    ensure!(tags.text() == "1", "a refused push left a tag: {tags:?}");
    stage.record("crane", &mallory, &[tried::WRONG_PASSWORD, tried::DENIED_PULL, tried::DENIED_PUSH])?;
    stage.close()
}

#[test]
fn trusts_an_own_authority_over_tls() -> Result<()> {
    let stage = Stage::tls()?;
    let rng = &mut Rng::announced("crane");
    let image = Recipe::new().layers(rng, 2, 100_000)?.image();
    layout::write(&stage.path("image"), &image, "it")?;
    let remote = stage.at("team/tls:1");
    let stranger = crane(&stage, "stranger")?;
    stranger.fails(&["ls", &stage.at("team/tls")])?.names_the_cause(&["certificate"])?;
    let alice = crane(&stage, "alice")?.env("SSL_CERT_FILE", &stage.authority()?);
    alice.run(&["push", &stage.text_path("image"), &remote])?;
    alice.run(&["pull", "--format=oci", &remote, &stage.text_path("back")])?;
    layout::assert_holds(&stage.path("back"), &image)?;
    let moved = [tried::LOGIN, tried::PUSH, tried::PULL_BY_TAG, tried::UNKNOWN_AUTHORITY];
    stage.record("crane", &alice, &moved)?;
    stage.close()
}
