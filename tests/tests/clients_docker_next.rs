//! The current docker engine, which keeps images in a containerd and moves them by containerd's code, driven by the newest
//! docker client in `PATH`.

use std::fs::File;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use portcullis_tests::{DockerEngine, PASSWORD, Stage, Tool, tried};
use testkit::image::{self, FIVE_PLATFORMS, Image, Recipe};
use testkit::{Noise, Rng, layout, tar};

/// The name in the report.
const NAME: &str = "docker-containerd";

fn docker(stage: &Stage, engine: &DockerEngine, who: &str) -> Result<Tool> {
    Ok(stage.tool("docker", who)?.always(&["-H", &engine.socket()]))
}

fn logged_in(stage: &Stage, engine: &DockerEngine, who: &str) -> Result<Tool> {
    let tool = docker(stage, engine, who)?;
    tool.run_with(&["login", "-u", who, "--password-stdin", &stage.host()], PASSWORD)?;
    Ok(tool)
}

/// Records what was tried. The version is that of the engine's module: the program does not know it.
fn record(stage: &Stage, tried: &[&str]) -> Result<()> {
    stage.record(NAME, &stage.tool("dockerd2", "version")?, tried)
}

/// Fails unless the image of this name is this one: in this engine the id of an image is the digest of its manifest or index.
fn assert_pulled(tool: &Tool, name: &str, image: &Image) -> Result<()> {
    let inspected = tool.run(&["image", "inspect", name])?.json()?;
    let (inspected, digest) = (&inspected[0], image.manifest.digest.as_str());
    ensure!(inspected["Id"] == digest, "{name} is not {digest}: {inspected:#}");
    // The layers are unpacked, so their bytes were verified; which they were is in the config.
    let config = image.children.first().unwrap_or(image).blobs[0].bytes.clone();
    let config: serde_json::Value = serde_json::from_slice(&config)?;
    ensure!(inspected["RootFS"]["Layers"] == config["rootfs"]["diff_ids"], "{name} has other layers: {inspected:#}");
    Ok(())
}

/// A tar file of this size, which does not compress.
fn archive(path: &Path, seed: u64, size: u64) -> Result<()> {
    let mut file = File::create(path)?;
    tar::write_file(&mut file, "noise", &mut Noise::new(seed, size), size, 0o644)?;
    tar::finish(&mut file)?;
    Ok(())
}

#[test]
fn images_of_every_shape_go_there_and_back() -> Result<()> {
    let (stage, engine) = (Stage::plain()?, DockerEngine::start_current()?);
    let rng = &mut Rng::announced("docker");
    let alice = logged_in(&stage, &engine, "alice")?;
    let images = [
        ("small", Recipe::new().layers(rng, 2, 100_000)?.image()),
        ("sixty", Recipe::new().layers(rng, 60, 20_000)?.image()),
    ];
    for (name, image) in &images {
        stage.client("alice").push_image(&format!("team/{name}"), image, "1")?;
        let (source, copy) = (stage.at(&format!("team/{name}:1")), format!("team/{name}-copy"));
        alice.run(&["pull", "-q", &source])?;
        assert_pulled(&alice, &source, image)?;
        let target = stage.at(&format!("{copy}:2"));
        alice.run(&["tag", &source, &target])?;
        alice.run(&["push", &target])?;
        stage.client("bob").assert_serves(&copy, image)?;
        alice.run(&["image", "rm", "-f", &source, &target])?;
        let by_digest = stage.at(&format!("{copy}@{}", image.manifest.digest));
        alice.run(&["pull", "-q", &by_digest])?;
        assert_pulled(&alice, &by_digest, image)?;
        alice.run(&["image", "rm", "-f", &by_digest])?;
    }
    ensure!(stage.mounts("team/sixty-copy")? == 61, "not every blob was mounted");

    let five = image::index(rng, &FIVE_PLATFORMS, 50_000)?;
    stage.client("alice").push_image("team/five", &five, "1")?;
    let (remote, target) = (stage.at("team/five:1"), stage.at("team/five-copy:1"));
    alice.run(&["pull", "-q", &remote])?;
    assert_pulled(&alice, &remote, &five)?;
    alice.run(&["pull", "-q", "--platform", "linux/s390x", &remote])?;
    // The index cannot be pushed without its other children, one platform of it can.
    alice.run(&["tag", &remote, &target])?;
    alice.run(&["push", "--platform", "linux/s390x", &target])?;
    stage.client("bob").assert_serves("team/five-copy", &five.children[4])?;
    let inspected = alice.run(&["manifest", "inspect", "--insecure", &remote])?.json()?;
    ensure!(inspected["manifests"].as_array().is_some_and(|children| children.len() == 5), "{inspected:#}");
    record(
        &stage,
        &[
            tried::LOGIN,
            tried::PUSH,
            tried::PULL_BY_TAG,
            tried::PULL_BY_DIGEST,
            tried::PLATFORMS,
            tried::SIXTY_LAYERS,
            tried::COPY,
            tried::MOUNT,
            tried::INSPECT,
        ],
    )?;
    stage.close()
}

#[test]
fn a_large_layer_and_an_interrupted_push() -> Result<()> {
    const SIZE: u64 = 200 << 20;
    let (stage, engine) = (Stage::hasty()?, DockerEngine::start_current()?);
    let alice = logged_in(&stage, &engine, "alice")?;
    let local = stage.path("layer.tar");
    archive(&local, 17, SIZE)?;
    let remote = stage.at("team/large:1");
    alice.run(&["import", &stage.text_path("layer.tar"), &remote])?;
    stage.cancelled_push(&alice, &["push", &remote], "team/large")?;
    alice.run(&["push", &remote])?;
    let manifest = stage.client("bob").assert_whole("team/large", "1")?;
    ensure!(manifest["layers"][0]["size"].as_u64() >= Some(SIZE), "the layer was compressed away: {manifest:#}");
    alice.run(&["image", "rm", "-f", &remote])?;
    alice.run(&["pull", "-q", &remote])?;
    let inspected = alice.run(&["image", "inspect", &remote])?.json()?;
    let tar_digest = layout::digest_of_file(&local)?;
    ensure!(inspected[0]["RootFS"]["Layers"][0] == tar_digest.as_str(), "{inspected:#} is not of {tar_digest}");
    record(&stage, &["a layer of 200 MiB", tried::CANCELLED_PUSH])?;
    stage.close()
}

#[test]
fn refusals_name_their_cause() -> Result<()> {
    let (stage, engine) = (Stage::plain()?, DockerEngine::start_current()?);
    let rng = &mut Rng::announced("docker");
    let image = Recipe::new().layer(rng, 10_000)?.image();
    stage.client("alice").push_image("team/a", &image, "1")?;
    docker(&stage, &engine, "mallory")?
        .fails_with(&["login", "-u", "alice", "--password-stdin", &stage.host()], "wrong")?
        .names_the_cause(&["incorrect username or password", "unauthorized"])?;
    let (source, target) = (stage.at("team/a:1"), stage.at("team/a:2"));
    let bob = logged_in(&stage, &engine, "bob")?;
    bob.run(&["pull", "-q", &source])?;
    bob.run(&["tag", &source, &target])?;
    bob.fails(&["push", &target])?.names_the_cause(&["user:bob may not push to team/a"])?;
    let carol = logged_in(&stage, &engine, "carol")?;
    carol.fails(&["push", &target])?.names_the_cause(&["may not see", "denied"])?;
    carol.fails(&["pull", &source])?.names_the_cause(&["denied", "not found"])?;
    let nobody = docker(&stage, &engine, "nobody")?;
    nobody.fails(&["push", &target])?.names_the_cause(&["may not see", "denied"])?;
    nobody.fails(&["pull", &source])?.names_the_cause(&["denied", "not found"])?;
    let tags = stage.client("bob").send("team/a", "GET", "/v2/team/a/tags/list", &[], NO_BODY)?;
    let tags: serde_json::Value = serde_json::from_slice(&tags.body).context("tags")?;
    ensure!(tags["tags"] == serde_json::json!(["1"]), "a refused push left a tag: {tags:?}");
    record(&stage, &[tried::WRONG_PASSWORD, tried::DENIED_PULL, tried::DENIED_PUSH])?;
    stage.close()
}

/// The engine takes loopback for insecure, so it asks nobody whether to trust the authority; it tries TLS first.
#[test]
fn speaks_tls() -> Result<()> {
    // The test's own client speaks plain HTTP.
    let (stage, engine) = (Stage::tls_and_plain_from("127.0.0.1/32")?, DockerEngine::start_current()?);
    let rng = &mut Rng::announced("docker");
    let alice = logged_in(&stage, &engine, "alice")?;
    let image = Recipe::new().layers(rng, 3, 100_000)?.image();
    stage.client("alice").push_image("team/a", &image, "1")?;
    let (source, target) = (stage.at("team/a:1"), stage.at("team/b:1"));
    alice.run(&["pull", "-q", &source])?;
    assert_pulled(&alice, &source, &image)?;
    alice.run(&["tag", &source, &target])?;
    alice.run(&["push", &target])?;
    let protocol = stage.protocol_of("PUT", "/v2/team/b/manifests/")?;
    stage.client("bob").assert_serves("team/b", &image)?;
    let version = stage.tool("dockerd2", "version")?;
    for tried in [tried::LOGIN, tried::PUSH, tried::PULL_BY_TAG] {
        stage.record_result(NAME, &version, tried, "passed; on loopback any certificate will do")?;
    }
    stage.record_result(NAME, &version, "protocol over TLS", &protocol)?;
    stage.close()
}

const NO_BODY: testkit::http::Body<'static> = testkit::http::Body::None;
