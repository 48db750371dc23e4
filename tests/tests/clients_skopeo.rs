//! skopeo of Debian 12: no daemon, no storage of its own; copies between layouts and registries.

use anyhow::{Result, ensure};
use portcullis_tests::{PASSWORD, Stage, Tool, tried};
use testkit::image::{self, FIVE_PLATFORMS, Image, Recipe};
use testkit::{Rng, layout};

const PLAIN: [&str; 2] = ["--src-tls-verify=false", "--dest-tls-verify=false"];

fn skopeo(stage: &Stage, who: &str) -> Result<Tool> {
    let tool = stage.tool("skopeo", who)?;
    tool.run(&["login", "--tls-verify=false", "-u", who, "-p", PASSWORD, &stage.host()])?;
    Ok(tool)
}

/// Writes a layout of this image; its name for skopeo.
fn written(stage: &Stage, name: &str, image: &Image) -> Result<String> {
    layout::write(&stage.path(name), image, "it")?;
    Ok(format!("oci:{}:it", stage.text_path(name)))
}

fn copy(tool: &Tool, from: &str, to: &str, more: &[&str]) -> Result<()> {
    let mut arguments = vec!["copy", "--all"];
    arguments.extend(PLAIN);
    arguments.extend(more);
    arguments.extend([from, to]);
    tool.run(&arguments)?;
    Ok(())
}

#[test]
fn images_of_every_shape_go_there_and_back() -> Result<()> {
    let stage = Stage::plain()?;
    let rng = &mut Rng::announced("skopeo");
    let alice = skopeo(&stage, "alice")?;
    let images = [
        ("small", Recipe::new().layers(rng, 2, 100_000)?.image()),
        ("sixty", Recipe::new().layers(rng, 60, 20_000)?.image()),
        ("five", image::index(rng, &FIVE_PLATFORMS, 50_000)?),
    ];
    for (name, image) in &images {
        let remote = format!("docker://{}", stage.at(&format!("team/{name}:1")));
        copy(&alice, &written(&stage, name, image)?, &remote, &[])?;
        stage.client("bob").assert_serves(&format!("team/{name}"), image)?;
        copy(&alice, &remote, &format!("oci:{}:it", stage.text_path(&format!("{name}-back"))), &[])?;
        layout::assert_holds(&stage.path(&format!("{name}-back")), image)?;
        let by_digest = stage_reference(&stage, &format!("team/{name}@{}", image.manifest.digest));
        copy(&alice, &by_digest, &format!("oci:{}:it", stage.text_path(&format!("{name}-digest"))), &[])?;
        layout::assert_holds(&stage.path(&format!("{name}-digest")), image)?;
        let raw = alice.run(&["inspect", "--raw", "--tls-verify=false", &remote])?;
        ensure!(raw.stdout.as_bytes() == image.manifest.bytes, "inspect --raw gives other bytes");
    }
    let inspected = alice.run(&["inspect", "--tls-verify=false", &stage_reference(&stage, "team/sixty:1")])?.json()?;
    ensure!(inspected["Digest"] == images[1].1.manifest.digest.as_str(), "inspect: {inspected}");
    ensure!(inspected["Layers"].as_array().is_some_and(|layers| layers.len() == 60), "inspect: {inspected}");
    let moved = [tried::LOGIN, tried::PUSH, tried::PULL_BY_TAG, tried::PULL_BY_DIGEST];
    stage.record("skopeo", &alice, &moved)?;
    stage.record("skopeo", &alice, &[tried::PLATFORMS, tried::SIXTY_LAYERS, tried::INSPECT])?;
    stage.close()
}

#[test]
fn copies_lists_and_deletes() -> Result<()> {
    let stage = Stage::plain()?;
    let rng = &mut Rng::announced("skopeo");
    let alice = skopeo(&stage, "alice")?;
    let image = Recipe::new().layers(rng, 3, 50_000)?.image();
    let layout = written(&stage, "image", &image)?;
    let (first, second) = (stage_reference(&stage, "team/a:1"), stage_reference(&stage, "team/b:2"));
    copy(&alice, &layout, &first, &[])?;
    copy(&alice, &layout, &stage_reference(&stage, "team/a:2"), &[])?;
    copy(&alice, &first, &second, &[])?;
    stage.client("bob").assert_serves("team/b", &image)?;

    let tags = alice.run(&["list-tags", "--tls-verify=false", &stage_reference(&stage, "team/a")])?.json()?;
    ensure!(tags["Tags"] == serde_json::json!(["1", "2"]), "list-tags: {tags}");

    alice.run(&["delete", "--tls-verify=false", &second])?;
    alice.fails(&["inspect", "--tls-verify=false", &second])?.names_the_cause(&["unknown"])?;
    stage.client("bob").assert_serves("team/a", &image)?;

    let docker = stage_reference(&stage, "team/docker:1");
    copy(&alice, &layout, &docker, &["--format", "v2s2"])?;
    let raw = alice.run(&["inspect", "--raw", "--tls-verify=false", &docker])?.json()?;
    ensure!(raw["mediaType"] == "application/vnd.docker.distribution.manifest.v2+json", "{raw}");
    let plain_copy = stage.text_path("docker-back");
    copy(&alice, &docker, &format!("dir:{plain_copy}"), &[])?;
    for layer in raw["layers"].as_array().into_iter().flatten().chain([&raw["config"]]) {
        let digest = layer["digest"].as_str().unwrap_or_default();
        let file = stage.path("docker-back").join(digest.trim_start_matches("sha256:"));
        ensure!(layout::digest_of_file(&file)?.as_str() == digest, "{digest} came back with other bytes");
    }
    stage.record("skopeo", &alice, &[tried::COPY, tried::LIST, tried::DELETE, "convert to docker's types and pull"])?;
    stage.close()
}

#[test]
fn a_cancelled_push_leaves_nothing() -> Result<()> {
    let stage = Stage::hasty()?;
    let alice = skopeo(&stage, "alice")?;
    let (source, target) = (format!("oci:{}:it", stage.large_layout()?), stage_reference(&stage, "team/large:1"));
    let push = ["copy", PLAIN[1], &source, &target];
    stage.cancelled_push(&alice, &push, "team/large")?;
    alice.run(&push)?;
    stage.client("bob").assert_whole("team/large", "1")?;
    stage.record("skopeo", &alice, &[tried::CANCELLED_PUSH])?;
    stage.close()
}

#[test]
fn refusals_name_their_cause() -> Result<()> {
    let stage = Stage::plain()?;
    let rng = &mut Rng::announced("skopeo");
    let image = Recipe::new().layer(rng, 10_000)?.image();
    let layout = written(&stage, "image", &image)?;
    stage
        .tool("skopeo", "mallory")?
        .fails(&["login", "--tls-verify=false", "-u", "alice", "-p", "wrong", &stage.host()])?
        .names_the_cause(&["invalid username/password", "unauthorized"])?;
    copy(&skopeo(&stage, "alice")?, &layout, &stage_reference(&stage, "team/a:1"), &[])?;

    let mut push = vec!["copy"];
    push.extend(PLAIN);
    let target = stage_reference(&stage, "team/a:2");
    push.extend([layout.as_str(), target.as_str()]);
    skopeo(&stage, "bob")?.fails(&push)?.names_the_cause(&["denied"])?;
    skopeo(&stage, "carol")?.fails(&push)?.names_the_cause(&["name unknown", "denied", "not known to registry"])?;
    stage.tool("skopeo", "nobody")?.fails(&push)?.names_the_cause(&["may not see"])?;
    let carol = skopeo(&stage, "carol")?;
    carol
        .fails(&["inspect", "--tls-verify=false", &stage_reference(&stage, "team/a:1")])?
        .names_the_cause(&["unknown", "denied"])?;
    let tags = stage.client("bob").send("team/a", "GET", "/v2/team/a/tags/list", &[], testkit::http::Body::None)?;
    ensure!(tags.text().contains(r#"["1"]"#), "a refused push left a tag: {tags:?}");
    stage.record("skopeo", &carol, &[tried::WRONG_PASSWORD, tried::DENIED_PULL, tried::DENIED_PUSH])?;
    stage.close()
}

#[test]
fn trusts_an_own_authority_over_tls() -> Result<()> {
    let stage = Stage::tls()?;
    let rng = &mut Rng::announced("skopeo");
    let image = Recipe::new().layers(rng, 2, 100_000)?.image();
    let layout = written(&stage, "image", &image)?;
    let remote = stage_reference(&stage, "team/tls:1");
    let stranger = stage.tool("skopeo", "stranger")?;
    stranger
        .fails(&["login", "-u", "alice", "-p", PASSWORD, &stage.host()])?
        .names_the_cause(&["certificate signed by unknown authority", "certificate"])?;
    let alice = stage.tool("skopeo", "alice")?.env("SSL_CERT_FILE", &stage.authority()?);
    alice.run(&["login", "-u", "alice", "-p", PASSWORD, &stage.host()])?;
    alice.run(&["copy", &layout, &remote])?;
    alice.run(&["copy", &remote, &format!("oci:{}:it", stage.text_path("back"))])?;
    layout::assert_holds(&stage.path("back"), &image)?;
    let moved = [tried::LOGIN, tried::PUSH, tried::PULL_BY_TAG, tried::UNKNOWN_AUTHORITY];
    stage.record("skopeo", &alice, &moved)?;
    stage.close()
}

fn stage_reference(stage: &Stage, reference: &str) -> String {
    format!("docker://{}", stage.at(reference))
}
