//! podman of Debian 12, with storage of its own for each test.

use anyhow::{Context, Result, ensure};
use portcullis_tests::{PASSWORD, Stage, Tool, tried};
use testkit::image::{self, FIVE_PLATFORMS, Recipe};
use testkit::{Rng, tar};

const PLAIN: &str = "--tls-verify=false";

/// podman with its own, empty storage.
fn podman(stage: &Stage, who: &str) -> Result<Tool> {
    let root = stage.text_path(&format!("storage-{who}"));
    let run = stage.text_path(&format!("run-{who}"));
    Ok(stage.tool("podman", who)?.always(&[
        "--storage-driver",
        "vfs",
        "--root",
        &root,
        "--runroot",
        &run,
        "--cgroup-manager",
        "cgroupfs",
    ]))
}

fn logged_in(stage: &Stage, who: &str) -> Result<Tool> {
    let tool = podman(stage, who)?;
    tool.run(&["login", PLAIN, "-u", who, "-p", PASSWORD, &stage.host()])?;
    Ok(tool)
}

fn id_of(tool: &Tool, name: &str) -> Result<String> {
    let inspected = tool.run(&["image", "inspect", name])?.json()?;
    Ok(inspected[0]["Id"].as_str().context("inspect gives no Id")?.to_owned())
}

#[test]
fn images_of_every_shape_go_there_and_back() -> Result<()> {
    let stage = Stage::plain()?;
    let rng = &mut Rng::announced("podman");
    let alice = logged_in(&stage, "alice")?;
    let bob = logged_in(&stage, "bob")?;
    let images = [
        ("small", Recipe::new().layers(rng, 2, 100_000)?.image()),
        ("sixty", Recipe::new().layers(rng, 60, 5_000)?.image()),
    ];
    for (name, image) in &images {
        stage.client("alice").push_image(&format!("team/{name}"), image, "1")?;
        let (source, target) = (stage.at(&format!("team/{name}:1")), stage.at(&format!("team/{name}-copy:2")));
        alice.run(&["pull", "-q", PLAIN, &source])?;
        let config = image.blobs[0].digest.hex();
        ensure!(id_of(&alice, &source)? == config, "{name} was pulled with another config");
        let inspected = alice.run(&["image", "inspect", &source])?.json()?;
        ensure!(inspected[0]["Digest"] == image.manifest.digest.as_str(), "{inspected:#}");
        let digest_file = stage.text_path(&format!("{name}.digest"));
        alice.run(&["push", "-q", PLAIN, "--digestfile", &digest_file, &source, &target])?;
        let pushed = std::fs::read_to_string(&digest_file)?;
        let manifest = stage.client("bob").assert_whole(&format!("team/{name}-copy"), &pushed)?;
        ensure!(manifest["config"]["digest"] == image.blobs[0].digest.as_str(), "{manifest:#}");
        // Someone else's storage has none of the layers.
        bob.run(&["pull", "-q", PLAIN, &stage.at(&format!("team/{name}-copy@{pushed}"))])?;
        bob.run(&["image", "rm", "-a", "-f"])?;
        bob.run(&["pull", "-q", PLAIN, &target])?;
        ensure!(id_of(&bob, &target)? == config, "{name} came back with another config");
        let pulled = bob.run(&["image", "inspect", &target])?.json()?;
        ensure!(pulled[0]["Digest"] == *pushed, "pushed {pushed}, pulled {pulled:#}");
        let config: serde_json::Value = serde_json::from_slice(&image.blobs[0].bytes)?;
        ensure!(pulled[0]["RootFS"]["Layers"] == config["rootfs"]["diff_ids"], "{pulled:#}");
    }
    let moved = [tried::LOGIN, tried::PUSH, tried::PULL_BY_TAG, tried::PULL_BY_DIGEST, tried::SIXTY_LAYERS];
    stage.record("podman", &alice, &moved)?;
    stage.close()
}

#[test]
fn indexes_searches_and_lists() -> Result<()> {
    let stage = Stage::plain()?;
    let rng = &mut Rng::announced("podman");
    let alice = logged_in(&stage, "alice")?;
    let five = image::index(rng, &FIVE_PLATFORMS, 20_000)?;
    stage.client("alice").push_image("team/five", &five, "1")?;
    let remote = stage.at("team/five:1");
    alice.run(&["pull", "-q", PLAIN, &remote])?;
    ensure!(id_of(&alice, &remote)? == five.children[0].blobs[0].digest.hex(), "another platform was pulled");

    alice.run(&["manifest", "create", "list"])?;
    for child in &five.children {
        let by_digest = format!("docker://{}", stage.at(&format!("team/five@{}", child.manifest.digest)));
        alice.run(&["manifest", "add", PLAIN, "list", &by_digest])?;
    }
    let inspected = alice.run(&["manifest", "inspect", "list"])?.json()?;
    ensure!(inspected["manifests"].as_array().is_some_and(|children| children.len() == 5), "{inspected:#}");
    let target = format!("docker://{}", stage.at("team/copied:1"));
    alice.run(&["manifest", "push", "-q", "--all", PLAIN, "list", &target])?;
    let copied = stage.client("bob").assert_whole("team/copied", "1")?;
    let children: Vec<&str> =
        copied["manifests"].as_array().into_iter().flatten().filter_map(|child| child["digest"].as_str()).collect();
    let wanted: Vec<&str> = five.children.iter().map(|child| child.manifest.digest.as_str()).collect();
    ensure!(children == wanted, "{copied:#}");

    let found = alice.run(&["search", PLAIN, "--format", "{{.Name}}", &format!("{}/", stage.host())])?;
    let names: Vec<&str> = found.stdout.lines().map(str::trim).collect();
    ensure!(names == [stage.at("team/copied"), stage.at("team/five")], "search: {found:?}");
    let search = ["search", PLAIN, "--list-tags", &stage.at("team/five")];
    let tags = alice.run(&search.map(|argument| argument))?;
    let listed: Vec<&str> = tags.stdout.split_whitespace().skip(2).collect();
    ensure!(listed == [stage.at("team/five").as_str(), "1"], "search --list-tags: {tags:?}");
    stage.record("podman", &alice, &[tried::PLATFORMS, tried::COPY, tried::SEARCH, tried::LIST])?;
    stage.close()
}

#[test]
fn a_cancelled_push_leaves_nothing() -> Result<()> {
    let stage = Stage::hasty()?;
    let alice = logged_in(&stage, "alice")?;
    let remote = stage.at("team/large:1");
    alice.run(&["import", "-q", &stage.large_layer()?, &remote])?;
    let push = ["push", "-q", PLAIN, &remote];
    stage.cancelled_push(&alice, &push, "team/large")?;
    alice.run(&push)?;
    stage.client("bob").assert_whole("team/large", "1")?;
    stage.record("podman", &alice, &[tried::CANCELLED_PUSH])?;
    stage.close()
}

#[test]
fn refusals_name_their_cause() -> Result<()> {
    let stage = Stage::plain()?;
    let rng = &mut Rng::announced("podman");
    let image = Recipe::new().layer(rng, 10_000)?.image();
    stage.client("alice").push_image("team/a", &image, "1")?;
    podman(&stage, "mallory")?
        .fails(&["login", PLAIN, "-u", "alice", "-p", "wrong", &stage.host()])?
        .names_the_cause(&["invalid username/password"])?;
    let (source, target) = (stage.at("team/a:1"), stage.at("team/a:2"));
    let bob = logged_in(&stage, "bob")?;
    bob.run(&["pull", "-q", PLAIN, &source])?;
    bob.fails(&["push", PLAIN, &source, &target])?.names_the_cause(&["denied"])?;
    // carol tries with bob's storage, in which the image is, and her own login.
    let carol = logged_in(&stage, "carol")?;
    carol.fails(&["pull", PLAIN, &source])?.names_the_cause(&["denied", "unknown"])?;
    let login = stage.text_path("home-carol/auth.json");
    bob.fails(&["push", PLAIN, "--authfile", &login, &source, &target])?.names_the_cause(&[
        "denied",
        "name unknown",
        "not known to registry",
    ])?;
    let nothing = stage.text_path("nothing.json");
    std::fs::write(&nothing, "{}")?;
    bob.fails(&["push", PLAIN, "--authfile", &nothing, &source, &target])?.names_the_cause(&["may not see"])?;
    stage.record("podman", &carol, &[tried::WRONG_PASSWORD, tried::DENIED_PULL, tried::DENIED_PUSH])?;
    stage.close()
}

#[test]
fn trusts_an_own_authority_over_tls() -> Result<()> {
    let stage = Stage::tls()?;
    let rng = &mut Rng::announced("podman");
    let certificates = stage.certificates()?;
    let alice = podman(&stage, "alice")?;
    let login = ["login", "-u", "alice", "-p", PASSWORD, &stage.host()];
    alice.fails(&login)?.names_the_cause(&["certificate"])?;
    let mut login = login.to_vec();
    login.extend(["--cert-dir", &certificates]);
    alice.run(&login)?;

    let layer = stage.text_path("layer.tar");
    std::fs::write(&layer, tar::archive(&[("file", &rng.bytes(50_000))])?)?;
    let remote = stage.at("team/tls:1");
    alice.run(&["import", "-q", &layer, &remote])?;
    let id = id_of(&alice, &remote)?;
    alice.fails(&["push", "-q", &remote])?.names_the_cause(&["certificate"])?;
    alice.run(&["push", "-q", "--cert-dir", &certificates, &remote])?;
    alice.run(&["image", "rm", "-f", &id])?;
    alice.run(&["pull", "-q", "--cert-dir", &certificates, &remote])?;
    ensure!(id_of(&alice, &remote)? == id, "the image came back with another config");
    let moved = [tried::LOGIN, tried::PUSH, tried::PULL_BY_TAG, tried::UNKNOWN_AUTHORITY];
    stage.record("podman", &alice, &moved)?;
    stage.close()
}
