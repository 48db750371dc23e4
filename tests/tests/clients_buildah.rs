//! buildah of Debian 12, with storage of its own for each test; nothing is run inside of its containers.

use anyhow::{Context, Result, ensure};
use portcullis_tests::{PASSWORD, Stage, Tool, tried};
use testkit::Rng;

const PLAIN: &str = "--tls-verify=false";

fn buildah(stage: &Stage, who: &str) -> Result<Tool> {
    let (root, run) = (stage.text_path(&format!("storage-{who}")), stage.text_path(&format!("run-{who}")));
    Ok(stage.tool("buildah", who)?.always(&["--storage-driver", "vfs", "--root", &root, "--runroot", &run]))
}

fn logged_in(stage: &Stage, who: &str) -> Result<Tool> {
    let tool = buildah(stage, who)?;
    tool.run(&["login", PLAIN, "-u", who, "-p", PASSWORD, &stage.host()])?;
    Ok(tool)
}

/// Builds an image from nothing: a layer for each size, of that many random bytes.
fn build(stage: &Stage, tool: &Tool, name: &str, rng: &mut Rng, sizes: &[usize], more: &[&str]) -> Result<String> {
    let mut base = "scratch".to_owned();
    for (number, size) in sizes.iter().enumerate() {
        let file = format!("{name}-{number}");
        std::fs::write(stage.path(&file), rng.bytes(*size))?;
        let container = tool.run(&["from", "--pull-never", &base])?.text().to_owned();
        tool.run(&["copy", &container, &stage.text_path(&file), &format!("/{file}")])?;
        let mut configure = vec!["config", "--cmd", r#"["/nothing"]"#, "--label", "made=by a test"];
        configure.extend(more);
        configure.push(&container);
        tool.run(&configure)?;
        base = format!("localhost/{name}-{number}:1");
        tool.run(&["commit", "-q", "--rm", &container, &base])?;
    }
    Ok(base)
}

fn id_of(tool: &Tool, name: &str) -> Result<String> {
    let inspected = tool.run(&["inspect", "--type", "image", name])?.json()?;
    Ok(inspected["FromImageID"].as_str().context("inspect gives no FromImageID")?.to_owned())
}

/// Pushes; the digest that buildah says the manifest has.
fn push(stage: &Stage, tool: &Tool, more: &[&str], image: &str, remote: &str) -> Result<String> {
    let file = stage.text_path("digest");
    let mut arguments = vec!["push", "-q", "--digestfile", &file];
    arguments.extend(more);
    arguments.extend([image, remote]);
    tool.run(&arguments)?;
    Ok(std::fs::read_to_string(&file)?)
}

#[test]
fn images_from_nothing_go_there_and_back() -> Result<()> {
    let stage = Stage::plain()?;
    let rng = &mut Rng::announced("buildah");
    let (alice, bob) = (logged_in(&stage, "alice")?, logged_in(&stage, "bob")?);
    let image = build(&stage, &alice, "app", rng, &[50_000, 200_000, 10], &[])?;
    let id = id_of(&alice, &image)?;
    for (tag, more) in [
        ("oci", &["--format", "oci"][..]),
        ("docker", &["--format", "v2s2"]),
        ("uncompressed", &["--disable-compression"]),
    ] {
        let mut more = more.to_vec();
        more.push(PLAIN);
        let remote = stage.at(&format!("team/app:{tag}"));
        let digest = push(&stage, &alice, &more, &image, &format!("docker://{remote}"))?;
        let manifest = stage.client("bob").assert_whole("team/app", &digest)?;
        ensure!(manifest["layers"].as_array().is_some_and(|layers| layers.len() == 3), "{manifest:#}");
        let by_digest = stage.at(&format!("team/app@{digest}"));
        // Someone else's storage has none of the layers.
        for name in [remote, by_digest] {
            bob.run(&["pull", "-q", PLAIN, &name])?;
            let pulled = bob.run(&["inspect", "--type", "image", &name])?.json()?;
            ensure!(pulled["FromImageDigest"] == *digest, "pushed {digest}, pulled {pulled:#}");
            // Only a manifest of the same kind has the same config.
            ensure!(tag != "oci" || id_of(&bob, &name)? == id, "{name} came back with another config");
            bob.run(&["rmi", "-a", "-f"])?;
        }
    }
    stage.record("buildah", &alice, &[tried::LOGIN, tried::PUSH, tried::PULL_BY_TAG, tried::PULL_BY_DIGEST])?;
    stage.record("buildah", &alice, &["push in docker's types", "push uncompressed layers"])?;
    stage.close()
}

#[test]
fn builds_on_what_it_pulled_and_mounts_its_layers() -> Result<()> {
    let stage = Stage::plain()?;
    let rng = &mut Rng::announced("buildah");
    let alice = logged_in(&stage, "alice")?;
    let image = build(&stage, &alice, "base", rng, &[100_000, 100_000], &[])?;
    push(&stage, &alice, &[PLAIN], &image, &format!("docker://{}", stage.at("team/base:1")))?;
    alice.run(&["rmi", "-a", "-f"])?;
    let base = stage.at("team/base:1");
    let container = alice.run(&["from", PLAIN, &base])?.text().to_owned();
    std::fs::write(stage.path("more"), rng.bytes(20_000))?;
    alice.run(&["add", &container, &stage.text_path("more"), "/more"])?;
    alice.run(&["commit", "-q", PLAIN, &container, &format!("docker://{}", stage.at("team/derived:1"))])?;
    let manifest = stage.client("bob").assert_whole("team/derived", "1")?;
    ensure!(manifest["layers"].as_array().is_some_and(|layers| layers.len() == 3), "{manifest:#}");
    ensure!(stage.mounts("team/derived")? == 2, "the layers of the base were not mounted");
    stage.record("buildah", &alice, &[tried::MOUNT, "from a pulled image, commit to the registry"])?;
    stage.close()
}

#[test]
fn zstd_layers_there_and_back() -> Result<()> {
    let stage = Stage::plain()?;
    let rng = &mut Rng::announced("buildah");
    let (alice, bob) = (logged_in(&stage, "alice")?, logged_in(&stage, "bob")?);
    let image = build(&stage, &alice, "zstd", rng, &[300_000, 300_000], &[])?;
    let remote = stage.at("team/zstd:1");
    let digest = push(&stage, &alice, &[PLAIN, "--compression-format", "zstd"], &image, &format!("docker://{remote}"))?;
    let manifest = stage.client("bob").assert_whole("team/zstd", &digest)?;
    let types: Vec<&str> =
        manifest["layers"].as_array().into_iter().flatten().filter_map(|layer| layer["mediaType"].as_str()).collect();
    ensure!(types == ["application/vnd.oci.image.layer.v1.tar+zstd"; 2], "{manifest:#}");
    bob.run(&["pull", "-q", PLAIN, &remote])?;
    ensure!(id_of(&bob, &remote)? == id_of(&alice, &image)?, "the image came back with another config");
    stage.record("buildah", &alice, &["zstd layers"])?;
    stage.close()
}

#[test]
fn lists_of_platforms() -> Result<()> {
    let stage = Stage::plain()?;
    let rng = &mut Rng::announced("buildah");
    let (alice, bob) = (logged_in(&stage, "alice")?, logged_in(&stage, "bob")?);
    alice.run(&["manifest", "create", "list"])?;
    let platforms = ["amd64", "arm64", "s390x"];
    for architecture in platforms {
        let image = build(&stage, &alice, architecture, rng, &[30_000], &["--arch", architecture])?;
        alice.run(&["manifest", "add", "list", &image])?;
    }
    let remote = stage.at("team/list:1");
    let file = stage.text_path("list-digest");
    let target = format!("docker://{remote}");
    let push = ["manifest", "push", "-q", "--all", PLAIN, "--digestfile", &file, "list", &target];
    alice.run(&push)?;
    let digest = std::fs::read_to_string(&file)?;
    let index = stage.client("bob").assert_whole("team/list", &digest)?;
    let mut found: Vec<&str> = index["manifests"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|child| child["platform"]["architecture"].as_str())
        .collect();
    found.sort_unstable();
    ensure!(found == platforms, "{index:#}");
    bob.run(&["pull", "-q", PLAIN, "--arch", "arm64", &remote])?;
    let pulled = bob.run(&["inspect", "--type", "image", &remote])?.json()?;
    ensure!(pulled["OCIv1"]["architecture"] == "arm64", "another platform was pulled: {pulled:#}");
    stage.record("buildah", &alice, &[tried::PLATFORMS])?;
    stage.close()
}

#[test]
fn refusals_name_their_cause() -> Result<()> {
    let stage = Stage::plain()?;
    let rng = &mut Rng::announced("buildah");
    buildah(&stage, "mallory")?
        .fails(&["login", PLAIN, "-u", "alice", "-p", "wrong", &stage.host()])?
        .names_the_cause(&["invalid username/password"])?;
    let alice = logged_in(&stage, "alice")?;
    let image = build(&stage, &alice, "a", rng, &[10_000], &[])?;
    let (source, target) = (stage.at("team/a:1"), format!("docker://{}", stage.at("team/a:2")));
    push(&stage, &alice, &[PLAIN], &image, &format!("docker://{source}"))?;
    let (bob, carol) = (logged_in(&stage, "bob")?, logged_in(&stage, "carol")?);
    bob.run(&["pull", "-q", PLAIN, &source])?;
    bob.fails(&["push", PLAIN, &source, &target])?.names_the_cause(&["denied"])?;
    carol.fails(&["pull", PLAIN, &source])?.names_the_cause(&["denied", "unknown"])?;
    // bob's storage has the image; the logins are carol's and nobody's.
    let login = stage.text_path("home-carol/auth.json");
    bob.fails(&["push", PLAIN, "--authfile", &login, &source, &target])?.names_the_cause(&[
        "denied",
        "name unknown",
        "not known to registry",
    ])?;
    let nothing = stage.text_path("nothing.json");
    std::fs::write(&nothing, "{}")?;
    bob.fails(&["push", PLAIN, "--authfile", &nothing, &source, &target])?.names_the_cause(&["may not see"])?;
    let tags = stage.client("bob").send("team/a", "GET", "/v2/team/a/tags/list", &[], testkit::http::Body::None)?;
    ensure!(tags.text().contains(r#"["1"]"#), "a refused push left a tag: {tags:?}");
    stage.record("buildah", &carol, &[tried::WRONG_PASSWORD, tried::DENIED_PULL, tried::DENIED_PUSH])?;
    stage.close()
}

#[test]
fn a_cancelled_push_leaves_nothing() -> Result<()> {
    let stage = Stage::hasty()?;
    let alice = logged_in(&stage, "alice")?;
    let container = alice.run(&["from", "scratch"])?.text().to_owned();
    alice.run(&["add", &container, &stage.large_layer()?, "/"])?;
    alice.run(&["commit", "-q", "--rm", &container, "large"])?;
    let target = format!("docker://{}", stage.at("team/large:1"));
    let push = ["push", "-q", PLAIN, "large", &target];
    stage.cancelled_push(&alice, &push, "team/large")?;
    alice.run(&push)?;
    stage.client("bob").assert_whole("team/large", "1")?;
    stage.record("buildah", &alice, &[tried::CANCELLED_PUSH])?;
    stage.close()
}

#[test]
fn trusts_an_own_authority_over_tls() -> Result<()> {
    let stage = Stage::tls()?;
    let rng = &mut Rng::announced("buildah");
    let certificates = stage.certificates()?;
    let alice = buildah(&stage, "alice")?;
    let host = stage.host();
    alice.fails(&["login", "-u", "alice", "-p", PASSWORD, &host])?.names_the_cause(&["certificate"])?;
    alice.run(&["login", "--cert-dir", &certificates, "-u", "alice", "-p", PASSWORD, &host])?;
    let image = build(&stage, &alice, "tls", rng, &[50_000], &[])?;
    let id = id_of(&alice, &image)?;
    let remote = stage.at("team/tls:1");
    let target = format!("docker://{remote}");
    alice.fails(&["push", "-q", &image, &target])?.names_the_cause(&["certificate"])?;
    let digest = push(&stage, &alice, &["--cert-dir", &certificates], &image, &target)?;
    alice.run(&["rmi", "-a", "-f"])?;
    for name in [remote, stage.at(&format!("team/tls@{digest}"))] {
        alice.run(&["pull", "-q", "--cert-dir", &certificates, &name])?;
        ensure!(id_of(&alice, &name)? == id, "the image came back with another config");
    }
    let moved = [tried::LOGIN, tried::PUSH, tried::PULL_BY_TAG, tried::PULL_BY_DIGEST, tried::UNKNOWN_AUTHORITY];
    stage.record("buildah", &alice, &moved)?;
    stage.close()
}
