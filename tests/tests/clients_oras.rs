//! oras: artifacts, referrers, copies with their referrers; helm and notation use the same library.

use anyhow::{Context, Result, ensure};
use portcullis_tests::{PASSWORD, Stage, Tool, tried};
use testkit::image::{self, FIVE_PLATFORMS, Image, Recipe};
use testkit::{Rng, layout};

fn oras(stage: &Stage, who: &str) -> Result<Tool> {
    let tool = stage.tool("oras", who)?;
    tool.run(&["login", "--plain-http", "-u", who, "-p", PASSWORD, &stage.host()])?;
    Ok(tool)
}

fn there_and_back(stage: &Stage, tool: &Tool, name: &str, image: &Image) -> Result<()> {
    layout::write(&stage.path(name), image, "it")?;
    let (local, remote) = (format!("{}:it", stage.text_path(name)), stage.at(&format!("team/{name}:1")));
    tool.run(&["cp", "--from-oci-layout", "--to-plain-http", &local, &remote])?;
    stage.client("bob").assert_serves(&format!("team/{name}"), image)?;
    let back = stage.text_path(&format!("{name}-back"));
    tool.run(&["cp", "--from-plain-http", "--to-oci-layout", &remote, &format!("{back}:it")])?;
    layout::assert_holds(&stage.path(&format!("{name}-back")), image)?;
    let by_digest = stage.at(&format!("team/{name}@{}", image.manifest.digest));
    let back = stage.text_path(&format!("{name}-digest"));
    tool.run(&["cp", "--from-plain-http", "--to-oci-layout", &by_digest, &format!("{back}:it")])?;
    layout::assert_holds(&stage.path(&format!("{name}-digest")), image)
}

#[test]
fn images_of_every_shape_go_there_and_back() -> Result<()> {
    let stage = Stage::plain()?;
    let rng = &mut Rng::announced("oras");
    let alice = oras(&stage, "alice")?;
    there_and_back(&stage, &alice, "small", &Recipe::new().layers(rng, 2, 100_000)?.image())?;
    there_and_back(&stage, &alice, "sixty", &Recipe::new().layers(rng, 60, 20_000)?.image())?;
    there_and_back(&stage, &alice, "five", &image::index(rng, &FIVE_PLATFORMS, 50_000)?)?;
    let moved = [tried::LOGIN, tried::PUSH, tried::PULL_BY_TAG, tried::PULL_BY_DIGEST];
    stage.record("oras", &alice, &moved)?;
    stage.record("oras", &alice, &[tried::PLATFORMS, tried::SIXTY_LAYERS])?;
    stage.close()
}

#[test]
fn artifacts_are_attached_and_discovered() -> Result<()> {
    let stage = Stage::plain()?;
    let rng = &mut Rng::announced("oras");
    let alice = oras(&stage, "alice")?;
    let image = Recipe::new().layers(rng, 2, 50_000)?.image();
    stage.client("alice").push_image("team/app", &image, "1")?;
    let subject = stage.at("team/app:1");

    let contents = rng.bytes(300_000);
    std::fs::write(stage.path("report.bin"), &contents)?;
    let file = "report.bin:application/x-report";
    let folder = stage.path("");
    let attach = |more: &[&str]| -> Result<String> {
        let mut arguments = vec!["attach", "--plain-http", "--format", "json", "--artifact-type"];
        arguments.extend(more);
        arguments.extend([subject.as_str(), file]);
        let output = alice.command(&arguments).current_dir(&folder).output()?;
        ensure!(output.status.success(), "oras attach: {}", String::from_utf8_lossy(&output.stderr));
        let answer: serde_json::Value = serde_json::from_slice(&output.stdout)?;
        Ok(answer["digest"].as_str().context("attach names no digest")?.to_owned())
    };
    let report = attach(&["application/vnd.example.report", "--annotation", "round=1"])?;
    let bill = attach(&["application/vnd.example.bill"])?;

    let discovered = alice.run(&["discover", "--plain-http", "--format", "json", &subject])?.json()?;
    let mut found: Vec<&str> = referrers(&discovered).iter().filter_map(|entry| entry["digest"].as_str()).collect();
    found.sort_unstable();
    let mut attached = [report.as_str(), bill.as_str()];
    attached.sort_unstable();
    ensure!(found == attached, "discover: {discovered:#}");
    let one =
        ["discover", "--plain-http", "--format", "json", "--artifact-type", "application/vnd.example.bill", &subject];
    let one = alice.run(&one)?.json()?;
    ensure!(referrers(&one).len() == 1 && referrers(&one)[0]["digest"] == bill.as_str(), "discover: {one:#}");
    // A registry without the referrers API would have been given a tag for the list.
    let tags = alice.run(&["repo", "tags", "--plain-http", &stage.at("team/app")])?;
    ensure!(tags.text() == "1", "oras fell back to the tag schema: {tags:?}");

    let pulled = stage.text_path("pulled");
    alice.run(&["pull", "--plain-http", "-o", &pulled, &stage.at(&format!("team/app@{report}"))])?;
    ensure!(std::fs::read(stage.path("pulled/report.bin"))? == contents, "the artifact came back with other bytes");

    alice.run(&["cp", "-r", "--from-plain-http", "--to-plain-http", &subject, &stage.at("team/copy:1")])?;
    stage.client("bob").assert_serves("team/copy", &image)?;
    let copied = ["discover", "--plain-http", "--format", "json", &stage.at("team/copy:1")];
    ensure!(referrers(&alice.run(&copied.map(|argument| argument))?.json()?).len() == 2, "cp -r left referrers behind");

    alice.run(&["manifest", "delete", "--plain-http", "-f", &stage.at(&format!("team/app@{bill}"))])?;
    let left = alice.run(&["discover", "--plain-http", "--format", "json", &subject])?.json()?;
    ensure!(referrers(&left).len() == 1, "a deleted referrer is still listed: {left:#}");
    stage.record("oras", &alice, &[tried::REFERRERS, "copy with referrers"])?;
    stage.close()
}

/// The entries of `oras discover --format json`, which newer versions call `referrers` and older ones `manifests`.
fn referrers(answer: &serde_json::Value) -> &[serde_json::Value] {
    answer["referrers"].as_array().or_else(|| answer["manifests"].as_array()).map_or(&[], Vec::as_slice)
}

#[test]
fn lists_repositories_and_tags_and_deletes() -> Result<()> {
    let stage = Stage::plain()?;
    let rng = &mut Rng::announced("oras");
    let alice = oras(&stage, "alice")?;
    let image = Recipe::new().layer(rng, 50_000)?.image();
    stage.client("alice").push_image("team/a", &image, "1")?;
    stage.client("alice").push_image("team/b/c", &image, "1")?;
    alice.run(&["tag", "--plain-http", &stage.at("team/a:1"), "2", "3"])?;
    let tags = alice.run(&["repo", "tags", "--plain-http", &stage.at("team/a")])?;
    ensure!(tags.text() == "1\n2\n3", "tags: {tags:?}");
    let repositories = alice.run(&["repo", "ls", "--plain-http", &stage.host()])?;
    ensure!(repositories.text() == "team/a\nteam/b/c", "repositories: {repositories:?}");
    let manifest = alice.run(&["manifest", "fetch", "--plain-http", &stage.at("team/a:3")])?;
    ensure!(manifest.text().as_bytes() == image.manifest.bytes, "manifest fetch: {manifest:?}");
    alice.run(&["manifest", "delete", "--plain-http", "-f", &stage.at("team/a:1")])?;
    alice
        .fails(&["manifest", "fetch", "--plain-http", &stage.at("team/a:1")])?
        .names_the_cause(&["not found", "unknown"])?;
    stage.client("bob").assert_serves("team/b/c", &image)?;
    stage.record("oras", &alice, &[tried::LIST, tried::INSPECT, tried::DELETE, "tag"])?;
    stage.close()
}

#[test]
fn a_cancelled_push_leaves_nothing() -> Result<()> {
    let stage = Stage::hasty()?;
    let alice = oras(&stage, "alice")?;
    let (source, remote) = (format!("{}:it", stage.large_layout()?), stage.at("team/large:1"));
    let push = ["cp", "--from-oci-layout", "--to-plain-http", &source, &remote];
    stage.cancelled_push(&alice, &push, "team/large")?;
    alice.run(&push)?;
    stage.client("bob").assert_whole("team/large", "1")?;
    stage.record("oras", &alice, &[tried::CANCELLED_PUSH])?;
    stage.close()
}

#[test]
fn refusals_name_their_cause() -> Result<()> {
    let stage = Stage::plain()?;
    let rng = &mut Rng::announced("oras");
    let image = Recipe::new().layer(rng, 10_000)?.image();
    stage.client("alice").push_image("team/a", &image, "1")?;
    stage
        .tool("oras", "mallory")?
        .fails(&["login", "--plain-http", "-u", "alice", "-p", "wrong", &stage.host()])?
        .names_the_cause(&["401", "unauthorized"])?;
    layout::write(&stage.path("image"), &image, "it")?;
    let (local, remote) = (format!("{}:it", stage.text_path("image")), stage.at("team/a:2"));
    let push = ["cp", "--from-oci-layout", "--to-plain-http", &local, &remote];
    oras(&stage, "bob")?.fails(&push)?.names_the_cause(&["denied"])?;
    oras(&stage, "carol")?.fails(&push)?.names_the_cause(&["name unknown", "name_unknown", "denied"])?;
    stage.tool("oras", "nobody")?.fails(&push)?.names_the_cause(&["may not see"])?;
    let carol = oras(&stage, "carol")?;
    let back = format!("{}:it", stage.text_path("back"));
    carol.fails(&["cp", "--from-plain-http", "--to-oci-layout", &stage.at("team/a:1"), &back])?.names_the_cause(&[
        "unknown",
        "denied",
        "not found",
    ])?;
    let tags = oras(&stage, "bob")?.run(&["repo", "tags", "--plain-http", &stage.at("team/a")])?;
    ensure!(tags.text() == "1", "a refused push left a tag: {tags:?}");
    stage.record("oras", &carol, &[tried::WRONG_PASSWORD, tried::DENIED_PULL, tried::DENIED_PUSH])?;
    stage.close()
}

#[test]
fn trusts_an_own_authority_over_tls() -> Result<()> {
    let stage = Stage::tls()?;
    let rng = &mut Rng::announced("oras");
    let image = Recipe::new().layers(rng, 2, 100_000)?.image();
    layout::write(&stage.path("image"), &image, "it")?;
    let (local, remote, authority) =
        (format!("{}:it", stage.text_path("image")), stage.at("team/tls:1"), stage.authority()?);
    stage
        .tool("oras", "stranger")?
        .fails(&["login", "--plain-http=false", "-u", "alice", "-p", PASSWORD, &stage.host()])?
        .names_the_cause(&["certificate"])?;
    let alice = stage.tool("oras", "alice")?;
    alice.run(&[
        "login",
        "--plain-http=false",
        "--ca-file",
        &authority,
        "-u",
        "alice",
        "-p",
        PASSWORD,
        &stage.host(),
    ])?;
    alice.run(&["cp", "--from-oci-layout", "--to-plain-http=false", "--to-ca-file", &authority, &local, &remote])?;
    let back = format!("{}:it", stage.text_path("back"));
    alice.run(&["cp", "--to-oci-layout", "--from-plain-http=false", "--from-ca-file", &authority, &remote, &back])?;
    layout::assert_holds(&stage.path("back"), &image)?;
    let moved = [tried::LOGIN, tried::PUSH, tried::PULL_BY_TAG, tried::UNKNOWN_AUTHORITY];
    stage.record("oras", &alice, &moved)?;
    stage.close()
}
