//! containerd of Debian (1.6) and of its current line (2.x), each with its own `ctr`. 2.x pulls and pushes in two ways: by the
//! transfer service of the daemon, and by the client itself (`--local`), as nerdctl and older programs do.

use std::fs;

use anyhow::{Result, ensure};
use portcullis_tests::{Containerd, Line, PASSWORD, Stage, Tool, tried};
use testkit::Rng;
use testkit::image::{self, FIVE_PLATFORMS, Image, Recipe};

/// A way to pull and push: the flags that select it.
type Way = &'static [&'static str];
const SERVICE: Way = &[];
const LOCAL: Way = &["--local"];

fn ways(line: Line) -> &'static [Way] {
    match line {
        Line::Debian => &[SERVICE],
        Line::Current => &[SERVICE, LOCAL],
    }
}

fn user(who: &str) -> String {
    format!("{who}:{PASSWORD}")
}

/// `ctr images COMMAND`.
fn images<'a>(command: &'a str, way: Way, flags: &[&'a str], references: &[&'a str]) -> Vec<&'a str> {
    [&["images", command], way, flags, references].concat()
}

/// Fails unless the content store has every one of these blobs and manifests, and their bytes are right.
fn assert_has(ctr: &Tool, image: &Image) -> Result<()> {
    for blob in image.all_blobs() {
        let got = ctr.command(&["content", "get", blob.digest.as_str()]).output()?;
        ensure!(got.status.success() && got.stdout == blob.bytes, "containerd has other bytes of {}", blob.digest);
    }
    Ok(())
}

/// Pulls, pushes under another name and pulls that elsewhere, in each way that there is; one of the images has `many` layers.
fn round_trips(line: Line, flags: &[&str], stage: &Stage, containerd: &Containerd, many: usize) -> Result<Tool> {
    let rng = &mut Rng::announced("containerd");
    let (alice, bob) = (user("alice"), user("bob"));
    let shapes = [
        ("small", Recipe::new().layers(rng, 2, 3_000_000)?.image()),
        ("many", Recipe::new().layers(rng, many, 20_000)?.image()),
        ("five", image::index(rng, &FIVE_PLATFORMS, 50_000)?),
    ];
    let mut client = "alice".to_owned();
    for (number, way) in ways(line).iter().enumerate() {
        for (name, image) in &shapes {
            let repository = format!("team/{name}-{number}");
            client = format!("alice-{name}-{number}");
            stage.client("alice").push_image(&repository, image, "1")?;
            let (source, target) = (stage.at(&format!("{repository}:1")), stage.at(&format!("{repository}-copy:2")));
            let all = [flags, &["--all-platforms", "--user", &alice]].concat();
            let ctr = containerd.ctr(stage, &client)?;
            ctr.run(&images("pull", way, &all, &[&source]))?;
            assert_has(&ctr, image)?;
            ctr.run(&["images", "tag", &source, &target])?;
            let sender = [flags, &["--user", &alice]].concat();
            ctr.run(&images("push", way, &sender, &[&target]))?;
            stage.client("bob").assert_serves(&format!("{repository}-copy"), image)?;
            // Another namespace has nothing of it; by digest.
            let by_digest = stage.at(&format!("{repository}-copy@{}", image.manifest.digest));
            let other = containerd.ctr(stage, &format!("bob-{name}-{number}"))?;
            let reader = [flags, &["--all-platforms", "--user", &bob]].concat();
            other.run(&images("pull", way, &reader, &[&by_digest]))?;
            assert_has(&other, image)?;
        }
    }
    // One platform of the index, and nothing of the others.
    let ctr = containerd.ctr(stage, "one-platform")?;
    let reader = [flags, &["--platform", "linux/arm64", "--user", &bob]].concat();
    ctr.run(&images("pull", SERVICE, &reader, &[&stage.at("team/five-0:1")]))?;
    assert_has(&ctr, &shapes[2].1.children[1])?;
    let layer = shapes[2].1.children[0].blobs[1].digest.clone();
    ctr.fails(&["content", "get", layer.as_str()])?.names_the_cause(&["not found"])?;
    containerd.ctr(stage, &client)
}

fn over_http(line: Line) -> Result<()> {
    let (stage, containerd) = (Stage::plain()?, Containerd::start(line)?);
    let ctr = round_trips(line, &["--plain-http"], &stage, &containerd, 60)?;
    stage.record(
        line.name(),
        &ctr,
        &[
            tried::LOGIN,
            tried::PUSH,
            tried::PULL_BY_TAG,
            tried::PULL_BY_DIGEST,
            tried::PLATFORMS,
            tried::SIXTY_LAYERS,
            tried::COPY,
        ],
    )?;
    stage.close()
}

#[test]
fn images_of_every_shape_go_there_and_back_with_1_6() -> Result<()> {
    over_http(Line::Debian)
}

#[test]
fn images_of_every_shape_go_there_and_back_with_2() -> Result<()> {
    over_http(Line::Current)
}

/// A folder for `--hosts-dir` that names our authority.
fn hosts(stage: &Stage) -> Result<String> {
    let folder = stage.path("hosts").join(stage.host());
    fs::create_dir_all(&folder)?;
    let url = format!("https://{}", stage.host());
    let text = format!("server = \"{url}\"\n[host.\"{url}\"]\nca = \"{}\"\n", stage.authority()?);
    fs::write(folder.join("hosts.toml"), text)?;
    Ok(stage.text_path("hosts"))
}

fn over_tls(line: Line) -> Result<()> {
    // The test's own client speaks plain HTTP.
    let (stage, containerd) = (Stage::tls_and_plain_from("127.0.0.1/32")?, Containerd::start(line)?);
    let hosts = hosts(&stage)?;
    let ctr = round_trips(line, &["--hosts-dir", &hosts], &stage, &containerd, 5)?;
    let (alice, authority, source) = (user("alice"), stage.authority()?, stage.at("team/many-0:1"));
    let other = containerd.ctr(&stage, "authority")?;
    let way = if line == Line::Current { LOCAL } else { SERVICE };
    let flags = ["--tlscacert", &authority, "--max-concurrent-downloads", "4", "--user", &alice];
    other.run(&images("pull", way, &flags, &[&source]))?;
    let protocol = stage.protocol_of("GET", "/v2/team/many-0/manifests/")?;
    stage.record_result(line.name(), &ctr, "protocol over TLS", &protocol)?;
    stage.record(line.name(), &ctr, &[tried::PUSH, tried::PULL_BY_TAG, tried::PULL_BY_DIGEST, tried::PLATFORMS])?;
    stage.close()
}

#[test]
fn trusts_an_own_authority_over_tls_with_1_6() -> Result<()> {
    over_tls(Line::Debian)
}

#[test]
fn trusts_an_own_authority_over_tls_with_2() -> Result<()> {
    over_tls(Line::Current)
}

/// The transfer service of 2.x fetches one layer by many open-ended ranges at a time and drops each after its piece (Q62).
#[test]
fn a_layer_is_fetched_in_parallel_by_open_ranges() -> Result<()> {
    let (stage, containerd) = (Stage::plain()?, Containerd::start(Line::Current)?);
    let rng = &mut Rng::announced("containerd");
    let image = Recipe::new().layer(rng, 24_000_000)?.image();
    stage.client("alice").push_image("team/large", &image, "1")?;
    let ctr = containerd.ctr(&stage, "parallel")?;
    let flags = ["--plain-http", "--user", &user("bob")];
    ctr.run(&images("pull", SERVICE, &flags, &[&stage.at("team/large:1")]))?;
    assert_has(&ctr, &image)?;
    let layer = format!("/v2/team/large/blobs/{}", image.blobs[1].digest);
    let ranges = stage.requests()?.iter().filter(|line| line["path"] == *layer && line["status"] == 206).count();
    ensure!(ranges > 4, "the layer was fetched by {ranges} ranges");
    stage.record_result(Line::Current.name(), &ctr, "one layer by ranges in parallel", "passed")?;
    stage.close()
}

fn refusals(line: Line) -> Result<()> {
    let (stage, containerd) = (Stage::plain()?, Containerd::start(line)?);
    let rng = &mut Rng::announced("containerd");
    let image = Recipe::new().layer(rng, 10_000)?.image();
    let other = Recipe::new().layer(rng, 10_000)?.image();
    stage.client("alice").push_image("team/a", &image, "1")?;
    stage.client("alice").push_image("team/other", &other, "1")?;
    let ctr = containerd.ctr(&stage, "refusals")?;
    let (source, target) = (stage.at("team/a:1"), stage.at("team/other:2"));
    let (bob, carol) = (user("bob"), user("carol"));
    // 1.6 prints the status of an answer, later ones its message too.
    let says = |message: &'static str, status: &'static str| match line {
        Line::Debian => [status],
        Line::Current => [message],
    };
    for way in ways(line) {
        let try_as = |who: &str, command: &str, reference: &str| {
            ctr.fails(&images(command, way, &["--plain-http", "--user", who], &[reference]))
        };
        try_as("alice:wrong", "pull", &source)?.names_the_cause(&["401 unauthorized"])?;
        ctr.run(&images("pull", way, &["--plain-http", "--user", &bob], &[&source]))?;
        ctr.run(&["images", "tag", "--force", &source, &target])?;
        try_as(&bob, "push", &target)?
            .names_the_cause(&says("user:bob may not push to team/other", "403 forbidden"))?;
        try_as("alice:wrong", "push", &target)?.names_the_cause(&["401 unauthorized"])?;
        try_as(&carol, "push", &target)?.names_the_cause(&says("you may not see it", "404 not found"))?;
        // Each containerd makes "not found" of a 404, whatever its body says.
        try_as(&carol, "pull", &source)?.names_the_cause(&["not found"])?;
        let nobody = |command, reference| ctr.fails(&images(command, way, &["--plain-http"], &[reference]));
        nobody("pull", &source)?.names_the_cause(&["not found", "401 unauthorized"])?;
        nobody("push", &target)?.names_the_cause(&says("you may not see it", "404 not found"))?;
    }
    let tags =
        stage.client("bob").send("team/other", "GET", "/v2/team/other/tags/list", &[], testkit::http::Body::None)?;
    ensure!(tags.text().contains(r#"["1"]"#), "a refused push left a tag: {tags:?}");
    stage.record(line.name(), &ctr, &[tried::WRONG_PASSWORD, tried::DENIED_PULL, tried::DENIED_PUSH])?;
    stage.close()
}

#[test]
fn refusals_name_their_cause_with_1_6() -> Result<()> {
    refusals(Line::Debian)
}

#[test]
fn refusals_name_their_cause_with_2() -> Result<()> {
    refusals(Line::Current)
}

/// Both halves: a cancelled pull leaves the server as it was, a cancelled push leaves garbage, which is collected.
fn cancelled(line: Line) -> Result<()> {
    let (stage, containerd) = (Stage::hasty()?, Containerd::start(line)?);
    let rng = &mut Rng::announced("containerd");
    let image = Recipe::new().layers(rng, 4, 16 << 20)?.image();
    stage.client("alice").push_image("team/a", &image, "1")?;
    stage.server.grant("user:carol", "writer", "team/b")?;
    let (alice, carol) = (user("alice"), user("carol"));
    let flags = ["--plain-http", "--user", &alice];
    let (source, target) = (stage.at("team/a:1"), stage.at("team/b:1"));
    let mut ctr = containerd.ctr(&stage, "cancelled")?;
    for (number, way) in ways(line).iter().enumerate() {
        ctr = containerd.ctr(&stage, &format!("cancelled-{number}"))?;
        containerd.interrupt_pull(ctr.command(&images("pull", way, &flags, &[&source])))?;
        ctr.run(&images("pull", way, &flags, &[&source]))?;
        assert_has(&ctr, &image)?;
        // Who may not read team/a has to send everything: nothing is mounted.
        ctr.run(&["images", "tag", &source, &target])?;
        let push = images("push", way, &["--plain-http", "--user", &carol], &[&target]);
        stage.cancelled_push(&ctr, &push, "team/b")?;
    }
    stage.client("bob").assert_serves("team/a", &image)?;
    ctr.run(&images("push", SERVICE, &flags, &[&target]))?;
    stage.client("bob").assert_serves("team/b", &image)?;
    stage.record(line.name(), &ctr, &["cancelled pull", tried::CANCELLED_PUSH])?;
    stage.close()
}

#[test]
fn garbage_of_a_cancelled_push_is_collected_with_1_6() -> Result<()> {
    cancelled(Line::Debian)
}

#[test]
fn garbage_of_a_cancelled_push_is_collected_with_2() -> Result<()> {
    cancelled(Line::Current)
}

/// As a mirror of another registry (`?ns=docker.io`) nobody gets our image of the same name; as a mirror of ourselves
/// (`?ns=` with a name of ours) everybody does.
#[test]
fn q82_a_mirror_of_another_registry_serves_nothing_of_ours() -> Result<()> {
    let stage = Stage::plain()?;
    let rng = &mut Rng::announced("containerd");
    let image = Recipe::new().layer(rng, 10_000)?.image();
    stage.client("alice").push_image("team/a", &image, "1")?;
    let url = format!("http://{}", stage.host());
    let other_name = stage.host().replace("localhost", "127.0.0.1");
    for name in ["other.example", &other_name] {
        let folder = stage.path("hosts").join(name);
        fs::create_dir_all(&folder)?;
        let text = format!("server = \"{url}\"\n[host.\"{url}\"]\ncapabilities = [\"pull\", \"resolve\"]\n");
        fs::write(folder.join("hosts.toml"), text)?;
    }
    let hosts = stage.text_path("hosts");
    for line in [Line::Debian, Line::Current] {
        let containerd = Containerd::start(line)?;
        for (number, way) in ways(line).iter().enumerate() {
            let ctr = containerd.ctr(&stage, &format!("mirror-{number}"))?;
            let (bob, foreign) = (user("bob"), "other.example/team/a:1");
            let flags = ["--hosts-dir", &hosts, "--user", &bob];
            ctr.fails(&images("pull", way, &flags, &[foreign]))?.names_the_cause(&["not found"])?;
            ctr.run(&images("pull", way, &flags, &[&format!("{other_name}/team/a:1")]))?;
            assert_has(&ctr, &image)?;
            stage.record(line.name(), &ctr, &["as a mirror, `?ns=`"])?;
        }
    }
    stage.close()
}
