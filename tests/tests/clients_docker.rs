//! The docker engine 20.10 of Debian 12 (the classic graph-driver path), started by the test.

use std::fs::File;

use anyhow::{Context, Result, ensure};
use portcullis_tests::{DockerEngine, PASSWORD, Stage, Tool, tried};
use testkit::image::{self, FIVE_PLATFORMS, Image, Recipe};
use testkit::{Noise, Rng, layout, tar};

fn docker(stage: &Stage, engine: &DockerEngine, who: &str) -> Result<Tool> {
    // Debian's client where there are two: a newer one may come first in PATH.
    let program = if std::path::Path::new("/usr/bin/docker").exists() { "/usr/bin/docker" } else { "docker" };
    Ok(stage.tool(program, who)?.always(&["-H", &engine.socket()]))
}

fn logged_in(stage: &Stage, engine: &DockerEngine, who: &str) -> Result<Tool> {
    let tool = docker(stage, engine, who)?;
    tool.run_with(&["login", "-u", who, "--password-stdin", &stage.host()], PASSWORD)?;
    Ok(tool)
}

/// The digest that a push or a pull printed.
fn printed_digest(text: &str) -> Result<String> {
    let (_, rest) = text.split_once("sha256:").with_context(|| format!("no digest in {text}"))?;
    let at = text.find("igest: ").map_or(rest, |at| text[at..].trim_start_matches("igest: sha256:"));
    Ok(format!("sha256:{}", &at[..64]))
}

/// Fails unless the engine has this image under the name, to the last layer.
fn assert_pulled(tool: &Tool, name: &str, image: &Image, manifest: &str) -> Result<()> {
    let inspected = tool.run(&["image", "inspect", name])?.json()?;
    let inspected = &inspected[0];
    ensure!(inspected["Id"] == image.blobs[0].digest.as_str(), "{name} has another config: {inspected:#}");
    let digests = inspected["RepoDigests"].as_array().context("no RepoDigests")?;
    let expected = format!("{}@{manifest}", name.rsplit_once(':').map_or(name, |(repository, _)| repository));
    ensure!(digests.iter().any(|digest| *digest == *expected), "{name}: {digests:?} has no {expected}");
    let config: serde_json::Value = serde_json::from_slice(&image.blobs[0].bytes)?;
    ensure!(inspected["RootFS"]["Layers"] == config["rootfs"]["diff_ids"], "{name} has other layers: {inspected:#}");
    Ok(())
}

#[test]
fn images_of_every_shape_go_there_and_back() -> Result<()> {
    let (stage, engine) = (Stage::plain()?, DockerEngine::start()?);
    let rng = &mut Rng::announced("docker");
    let alice = logged_in(&stage, &engine, "alice")?;
    let five = image::index(rng, &FIVE_PLATFORMS, 50_000)?;
    let images = [
        ("small", Recipe::new().layers(rng, 2, 100_000)?.image()),
        ("sixty", Recipe::new().layers(rng, 60, 20_000)?.image()),
    ];
    for (name, image) in &images {
        stage.client("alice").push_image(&format!("team/{name}"), image, "1")?;
        let (source, target) = (stage.at(&format!("team/{name}:1")), stage.at(&format!("team/{name}-copy:2")));
        alice.run(&["pull", "-q", &source])?;
        assert_pulled(&alice, &source, image, image.manifest.digest.as_str())?;
        alice.run(&["tag", &source, &target])?;
        let pushed = printed_digest(&alice.run(&["push", &target])?.stdout)?;
        let manifest = stage.client("bob").assert_whole(&format!("team/{name}-copy"), "2")?;
        ensure!(manifest["config"]["digest"] == image.blobs[0].digest.as_str(), "{manifest:#}");
        let layers: Vec<&str> =
            manifest["layers"].as_array().into_iter().flatten().filter_map(|layer| layer["digest"].as_str()).collect();
        let wanted: Vec<&str> = image.blobs[1..].iter().map(|layer| layer.digest.as_str()).collect();
        ensure!(layers == wanted, "docker pushed other layers than it pulled: {layers:?} {wanted:?}");
        alice.run(&["image", "rm", "-f", image.blobs[0].digest.as_str()])?;
        let pulled = printed_digest(&alice.run(&["pull", &target])?.stdout)?;
        ensure!(pulled == pushed, "pushed {pushed}, pulled {pulled}");
        assert_pulled(&alice, &target, image, &pushed)?;
        alice.run(&["image", "rm", "-f", image.blobs[0].digest.as_str()])?;
        let by_digest = stage.at(&format!("team/{name}-copy@{pushed}"));
        alice.run(&["pull", "-q", &by_digest])?;
        let id = alice.run(&["image", "inspect", "-f", "{{.Id}}", &by_digest])?;
        ensure!(id.text() == image.blobs[0].digest.as_str(), "{by_digest} has another config: {id:?}");
    }

    stage.client("alice").push_image("team/five", &five, "1")?;
    let remote = stage.at("team/five:1");
    alice.run(&["pull", "-q", &remote])?;
    assert_pulled(&alice, &remote, &five.children[0], five.manifest.digest.as_str())?;
    // This command of 20.10 knows docker's own types only: what docker pushed above.
    let inspected = alice.run(&["manifest", "inspect", "--insecure", &stage.at("team/small-copy:2")])?.json()?;
    ensure!(inspected["config"]["digest"] == images[0].1.blobs[0].digest.as_str(), "{inspected:#}");
    let moved = [tried::LOGIN, tried::PUSH, tried::PULL_BY_TAG, tried::PULL_BY_DIGEST];
    stage.record("docker", &alice, &moved)?;
    stage.record("docker", &alice, &[tried::PLATFORMS, tried::SIXTY_LAYERS, tried::COPY, tried::INSPECT])?;
    stage.close()
}

#[test]
fn a_layer_of_one_gibibyte() -> Result<()> {
    const SIZE: u64 = 1 << 30;
    let (stage, engine) = (Stage::plain()?, DockerEngine::start()?);
    let alice = logged_in(&stage, &engine, "alice")?;
    let archive = stage.path("layer.tar");
    let mut file = File::create(&archive)?;
    tar::write_file(&mut file, "gibibyte", &mut Noise::new(13, SIZE), SIZE, 0o644)?;
    tar::finish(&mut file)?;
    drop(file);
    let remote = stage.at("team/large:1");
    let id = alice.run(&["import", &archive.display().to_string(), &remote])?.text().to_owned();
    let pushed = printed_digest(&alice.run(&["push", &remote])?.stdout)?;
    let manifest = stage.client("bob").assert_whole("team/large", "1")?;
    ensure!(manifest["config"]["digest"] == *id, "{manifest:#} is not of {id}");
    ensure!(manifest["layers"][0]["size"].as_u64() >= Some(SIZE), "the layer was compressed away: {manifest:#}");
    alice.run(&["image", "rm", "-f", &id])?;
    let pulled = printed_digest(&alice.run(&["pull", &remote])?.stdout)?;
    ensure!(pulled == pushed, "pushed {pushed}, pulled {pulled}");
    let inspected = alice.run(&["image", "inspect", &remote])?.json()?;
    ensure!(inspected[0]["Id"] == *id, "{inspected:#} is not {id}");
    let tar_digest = layout::digest_of_file(&archive)?;
    ensure!(inspected[0]["RootFS"]["Layers"][0] == tar_digest.as_str(), "{inspected:#} is not of {tar_digest}");
    stage.record("docker", &alice, &[tried::LARGE_LAYER])?;
    stage.close()
}

#[test]
fn a_cancelled_push_leaves_nothing() -> Result<()> {
    let (stage, engine) = (Stage::hasty()?, DockerEngine::start()?);
    let alice = logged_in(&stage, &engine, "alice")?;
    let remote = stage.at("team/large:1");
    alice.run(&["import", &stage.large_layer()?, &remote])?;
    let push = ["push", &remote];
    stage.cancelled_push(&alice, &push, "team/large")?;
    alice.run(&push)?;
    stage.client("bob").assert_whole("team/large", "1")?;
    stage.record("docker", &alice, &[tried::CANCELLED_PUSH])?;
    stage.close()
}

#[test]
fn refusals_name_their_cause() -> Result<()> {
    let (stage, engine) = (Stage::plain()?, DockerEngine::start()?);
    let rng = &mut Rng::announced("docker");
    let image = Recipe::new().layer(rng, 10_000)?.image();
    stage.client("alice").push_image("team/a", &image, "1")?;
    docker(&stage, &engine, "mallory")?
        .fails_with(&["login", "-u", "alice", "--password-stdin", &stage.host()], "wrong")?
        .names_the_cause(&["unauthorized", "incorrect username or password"])?;
    let (source, target) = (stage.at("team/a:1"), stage.at("team/a:2"));
    let bob = logged_in(&stage, &engine, "bob")?;
    bob.run(&["pull", "-q", &source])?;
    bob.run(&["tag", &source, &target])?;
    bob.fails(&["push", &target])?.names_the_cause(&["denied"])?;
    let carol = logged_in(&stage, &engine, "carol")?;
    carol.fails(&["push", &target])?.names_the_cause(&["denied", "name unknown"])?;
    carol.fails(&["pull", &source])?.names_the_cause(&["denied", "unknown", "not found"])?;
    let nobody = docker(&stage, &engine, "nobody")?;
    nobody.fails(&["push", &target])?.names_the_cause(&["may not see"])?;
    nobody.fails(&["pull", &source])?.names_the_cause(&["may not see"])?;
    let tags = stage.client("bob").send("team/a", "GET", "/v2/team/a/tags/list", &[], testkit::http::Body::None)?;
    ensure!(tags.text().contains(r#"["1"]"#), "a refused push left a tag: {tags:?}");
    stage.record("docker", &carol, &[tried::WRONG_PASSWORD, tried::DENIED_PULL, tried::DENIED_PUSH])?;
    stage.close()
}

/// Whether docker trusts the authority cannot be seen here: it checks no certificate on loopback.
#[test]
fn talks_tls() -> Result<()> {
    let (stage, engine) = (Stage::tls()?, DockerEngine::start()?);
    let alice = logged_in(&stage, &engine, "alice")?;
    let archive = stage.path("layer.tar");
    std::fs::write(&archive, tar::archive(&[("file", &Rng::announced("docker").bytes(50_000))])?)?;
    let remote = stage.at("team/tls:1");
    let id = alice.run(&["import", &archive.display().to_string(), &remote])?.text().to_owned();
    let pushed = printed_digest(&alice.run(&["push", &remote])?.stdout)?;
    alice.run(&["image", "rm", "-f", &id])?;
    let pulled = printed_digest(&alice.run(&["pull", &remote])?.stdout)?;
    ensure!(pulled == pushed, "pushed {pushed}, pulled {pulled}");
    let back = alice.run(&["image", "inspect", "-f", "{{.Id}}", &remote])?;
    ensure!(back.text() == id, "the image came back with another config: {back:?}");
    for tried in [tried::LOGIN, tried::PUSH, tried::PULL_BY_TAG] {
        stage.record_result("docker", &alice, tried, "passed; docker checks no certificate on loopback")?;
    }
    stage.close()
}
