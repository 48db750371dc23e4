//! regctl (regclient): tries a mount without a source first, a full PUT next, chunks that resume last; copies whatever refers
//! to an image with it; deletes tags by their names.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, anyhow, ensure};
use portcullis_tests::{PASSWORD, Stage, Tool, tried};
use testkit::http::Body;
use testkit::image::{self, Blob, FIVE_PLATFORMS, Image, Recipe};
use testkit::{Rng, layout};

const CLIENT: &str = "regctl";

/// Named after its `who`, so that each has a configuration of its own.
fn regctl(stage: &Stage, who: &str) -> Result<Tool> {
    let tool = stage.tool("regctl", who)?;
    tool.run(&["registry", "set", "--tls", "disabled", "--skip-check", &stage.host()])?;
    Ok(tool)
}

fn logged_in(stage: &Stage, who: &str) -> Result<Tool> {
    let tool = regctl(stage, who)?;
    tool.run_with(&["registry", "login", "-u", who, "--pass-stdin", &stage.host()], PASSWORD)?;
    Ok(tool)
}

/// How regctl names a layout on disk.
fn layout_name(path: &Path, tag: &str) -> String {
    format!("ocidir://{}:{tag}", path.display())
}

fn there_and_back(stage: &Stage, tool: &Tool, name: &str, image: &Image) -> Result<()> {
    layout::write(&stage.path(name), image, "it")?;
    let remote = stage.at(&format!("team/{name}:1"));
    tool.run(&["image", "copy", &layout_name(&stage.path(name), "it"), &remote])?;
    stage.client("bob").assert_serves(&format!("team/{name}"), image)?;
    let digest = tool.run(&["image", "digest", &remote])?;
    ensure!(digest.text() == image.manifest.digest.as_str(), "digest: {digest:?}");
    let by_digest = stage.at(&format!("team/{name}@{}", image.manifest.digest));
    for (source, back) in [(&remote, format!("{name}-tag")), (&by_digest, format!("{name}-digest"))] {
        tool.run(&["image", "copy", source, &layout_name(&stage.path(&back), "it")])?;
        layout::assert_holds(&stage.path(&back), image)?;
    }
    Ok(())
}

#[test]
fn images_of_every_shape_go_there_and_back() -> Result<()> {
    let stage = Stage::plain()?;
    let rng = &mut Rng::announced(CLIENT);
    let alice = logged_in(&stage, "alice")?;
    let base = Recipe::new().layers(rng, 2, 100_000)?.image();
    there_and_back(&stage, &alice, "small", &base)?;
    there_and_back(&stage, &alice, "sixty", &Recipe::new().layers(rng, 60, 20_000)?.image())?;
    there_and_back(&stage, &alice, "five", &image::index(rng, &FIVE_PLATFORMS, 50_000)?)?;
    let artifact = Recipe::new().layer(rng, 5_000)?.subject(&base).artifact("application/vnd.example.report");
    there_and_back(&stage, &alice, "artifact", &artifact)?;
    let moved = [tried::LOGIN, tried::PUSH, tried::PULL_BY_TAG, tried::PULL_BY_DIGEST];
    stage.record(CLIENT, &alice, &moved)?;
    stage.record(CLIENT, &alice, &[tried::PLATFORMS, tried::SIXTY_LAYERS, "an artifact with a subject"])?;
    stage.close()
}

/// The digests that `artifact list` shows for a subject, in the order of their bytes.
fn referrers(tool: &Tool, subject: &str, more: &[&str]) -> Result<Vec<String>> {
    let mut arguments = vec!["artifact", "list", "--format", "{{range .Descriptors}}{{println .Digest}}{{end}}"];
    arguments.extend(more);
    arguments.push(subject);
    let mut found: Vec<String> = tool.run(&arguments)?.stdout.split_whitespace().map(str::to_owned).collect();
    found.sort_unstable();
    Ok(found)
}

/// Attaches these bytes to an image; the digest of the manifest.
fn attach(tool: &Tool, subject: &str, artifact_type: &str, text: &str) -> Result<String> {
    let flags = ["artifact", "put", "--artifact-type", artifact_type, "--annotation", "round=1"];
    let more = ["--subject", subject, "--format", "{{.Manifest.GetDescriptor.Digest}}"];
    Ok(tool.run_with(&[flags.as_slice(), &more].concat(), text)?.text().to_owned())
}

#[test]
fn artifacts_are_attached_listed_and_copied_with_their_image() -> Result<()> {
    let (stage, other) = (Stage::plain()?, Stage::plain()?);
    let rng = &mut Rng::announced(CLIENT);
    let alice = logged_in(&stage, "alice")?;
    let image = Recipe::new().layers(rng, 2, 50_000)?.image();
    stage.client("alice").push_image("team/app", &image, "1")?;
    let subject = stage.at("team/app:1");

    let report = attach(&alice, &subject, "application/vnd.example.report", "all is well")?;
    let bill = attach(&alice, &subject, "application/vnd.example.bill", "one of each")?;
    let mut both = vec![report.clone(), bill.clone()];
    both.sort_unstable();
    ensure!(referrers(&alice, &subject, &[])? == both, "artifact list shows other referrers than {both:?}");
    let filter = ["--filter-artifact-type", "application/vnd.example.bill"];
    ensure!(referrers(&alice, &subject, &filter)? == [bill.clone()], "the filter lets others through");
    let text = alice.run(&["artifact", "get", &stage.at(&format!("team/app@{report}"))])?;
    ensure!(text.text() == "all is well", "artifact get: {text:?}");

    // What older tools name after the digest that it belongs to.
    let signature = Recipe::new().layer(rng, 1_000)?.artifact("application/vnd.example.signature");
    let tag = format!("sha256-{}.sig", image.manifest.digest.hex());
    stage.client("alice").push_image("team/app", &signature, &tag)?;
    let tags = alice.run(&["tag", "ls", &stage.at("team/app")])?;
    ensure!(tags.text() == format!("1\n{tag}"), "regctl fell back to the tag schema: {tags:?}");

    let copied = stage.at("team/copy:1");
    let flags = ["image", "copy", "--referrers", "--digest-tags"];
    alice.run(&[flags.as_slice(), &[&subject, &copied]].concat())?;
    stage.client("bob").assert_serves("team/copy", &image)?;
    stage.client("bob").assert_serves("team/copy", &signature)?;
    ensure!(referrers(&alice, &copied, &[])? == both, "the copy has other referrers");
    let mounts = stage.mounts("team/copy")?;
    ensure!(mounts >= image.blobs.len(), "{mounts} blobs were mounted, the image alone has {}", image.blobs.len());

    let abroad = other.at("team/abroad:1");
    alice.run(&["registry", "set", "--tls", "disabled", "--skip-check", &other.host()])?;
    alice.run_with(&["registry", "login", "-u", "alice", "--pass-stdin", &other.host()], PASSWORD)?;
    alice.run(&[flags.as_slice(), &[&subject, &abroad]].concat())?;
    other.client("bob").assert_serves("team/abroad", &image)?;
    other.client("bob").assert_serves("team/abroad", &signature)?;
    ensure!(referrers(&alice, &abroad, &[])? == both, "the copy in the other registry has other referrers");
    let back = layout_name(&stage.path("back"), "it");
    alice.run(&[flags.as_slice(), &[&abroad, &back]].concat())?;
    layout::assert_holds(&stage.path("back"), &image)?;
    layout::assert_holds(&stage.path("back"), &signature)?;
    ensure!(referrers(&alice, &back, &[])? == both, "the layout has other referrers");

    alice.run(&["manifest", "delete", "--referrers", &stage.at(&format!("team/app@{bill}"))])?;
    ensure!(referrers(&alice, &subject, &[])? == [report], "a deleted referrer is still listed");
    stage.record(CLIENT, &alice, &[tried::REFERRERS, tried::COPY, tried::MOUNT])?;
    stage.record(CLIENT, &alice, &["copy with referrers and digest tags", "copy between registries"])?;
    other.close()?;
    stage.close()
}

#[test]
fn lists_changes_and_deletes() -> Result<()> {
    let stage = Stage::plain()?;
    let rng = &mut Rng::announced(CLIENT);
    let alice = logged_in(&stage, "alice")?;
    let image = Recipe::new().layers(rng, 2, 50_000)?.image();
    let five = image::index(rng, &FIVE_PLATFORMS, 10_000)?;
    stage.client("alice").push_image("team/a", &image, "1")?;
    stage.client("alice").push_image("team/b/c", &five, "1")?;
    alice.run(&["image", "copy", &stage.at("team/a:1"), &stage.at("team/a:2")])?;
    let tags = alice.run(&["tag", "ls", &stage.at("team/a")])?;
    ensure!(tags.text() == "1\n2", "tag ls: {tags:?}");
    let repositories = alice.run(&["repo", "ls", &stage.host()])?;
    ensure!(repositories.text() == "team/a\nteam/b/c", "repo ls: {repositories:?}");
    let nothing = logged_in(&stage, "carol")?.run(&["repo", "ls", &stage.host()])?;
    ensure!(nothing.text().is_empty(), "repositories of someone without grants: {nothing:?}");
    let config = alice.run(&["image", "inspect", "--format", "raw-body", &stage.at("team/a:1")])?;
    ensure!(config.text().as_bytes() == image.blobs[0].bytes, "inspect: {config:?}");
    let manifest = alice.run(&["manifest", "get", "--format", "raw-body", &stage.at("team/b/c:1")])?;
    ensure!(manifest.text().as_bytes() == five.manifest.bytes, "manifest get: {manifest:?}");

    let blob = Blob::new(rng.bytes(70_000).iter().map(|byte| b'a' + byte % 26).collect());
    let text = String::from_utf8(blob.bytes.clone())?;
    let put = alice.run_with(&["blob", "put", &stage.at("team/a")], &text)?;
    ensure!(put.text() == blob.digest.as_str(), "blob put: {put:?}");
    let got = alice.run(&["blob", "get", &stage.at("team/a"), blob.digest.as_str()])?;
    ensure!(got.stdout == text, "blob get gave {} bytes of {}", got.stdout.len(), text.len());

    alice.run(&["image", "mod", &stage.at("team/a:1"), "--create", "labelled", "--label", "key=value"])?;
    let labels = alice.run(&["image", "inspect", &stage.at("team/a:labelled")])?.json()?;
    ensure!(labels["config"]["Labels"]["key"] == "value", "image mod: {labels}");
    alice.run(&["index", "create", "--ref", &stage.at("team/a:1"), &stage.at("team/a:index")])?;
    let index = stage.client("bob").assert_whole("team/a", "index")?;
    ensure!(index["manifests"][0]["digest"] == image.manifest.digest.as_str(), "index create: {index}");

    alice.run(&["tag", "delete", &stage.at("team/a:2")])?;
    let tags = alice.run(&["tag", "ls", &stage.at("team/a")])?;
    ensure!(tags.text() == "1\nindex\nlabelled", "after tag delete: {tags:?}");
    stage.client("bob").assert_serves("team/a", &image)?;
    // Where DELETE of a tag is not 202, regctl pushes a manifest of nothing over the tag and deletes that.
    let writes = stage.requests()?;
    let of_tag = writes.iter().filter(|line| line["path"] == "/v2/team/a/manifests/2" && line["method"] != "HEAD");
    let of_tag: Vec<_> = of_tag
        .filter(|line| line["status"] != 401)
        .map(|line| format!("{} {}", line["method"], line["status"]))
        .collect();
    ensure!(of_tag == [r#""PUT" 201"#, r#""DELETE" 202"#], "tag delete took another way: {of_tag:?}");

    alice.run(&["manifest", "delete", "--force-tag-dereference", &stage.at("team/a:1")])?;
    alice.fails(&["manifest", "get", &stage.at("team/a:1")])?.names_the_cause(&["not found", "404"])?;
    let by_digest = stage.at(&format!("team/b/c@{}", five.children[0].manifest.digest));
    alice.run(&["image", "copy", &by_digest, &layout_name(&stage.path("child"), "it")])?;
    layout::assert_holds(&stage.path("child"), &five.children[0])?;
    stage.record(CLIENT, &alice, &[tried::LIST, tried::INSPECT, tried::DELETE])?;
    stage.record(CLIENT, &alice, &["blob put and get", "image mod", "index create", "delete of one tag of two"])?;
    stage.close()
}

#[test]
fn refusals_name_their_cause() -> Result<()> {
    let stage = Stage::plain()?;
    let rng = &mut Rng::announced(CLIENT);
    let image = Recipe::new().layer(rng, 10_000)?.image();
    stage.client("alice").push_image("team/a", &image, "1")?;
    let mallory = regctl(&stage, "mallory")?;
    mallory
        .fails_with(&["registry", "login", "-u", "alice", "--pass-stdin", &stage.host()], "wrong")?
        .names_the_cause(&["unauthorized"])?;

    layout::write(&stage.path("image"), &image, "it")?;
    let (local, source, target) = (layout_name(&stage.path("image"), "it"), stage.at("team/a:1"), stage.at("team/a:2"));
    let push = ["image", "copy", &local, &target];
    let (bob, carol) = (logged_in(&stage, "bob")?, logged_in(&stage, "carol")?);
    bob.fails(&push)?.names_the_cause(&["denied"])?;
    carol.fails(&push)?.names_the_cause(&["not found", "name_unknown", "denied"])?;
    carol.fails(&["image", "copy", &source, &layout_name(&stage.path("taken"), "it")])?.names_the_cause(&[
        "not found",
        "name_unknown",
        "denied",
    ])?;
    carol.fails(&["tag", "ls", &stage.at("team/a")])?.names_the_cause(&["not found", "name_unknown", "denied"])?;
    bob.fails(&["tag", "delete", &source])?.names_the_cause(&["denied"])?;
    let nobody = regctl(&stage, "nobody")?;
    nobody.fails(&push)?.names_the_cause(&["unauthorized", "may not see"])?;
    nobody.fails(&["manifest", "get", &source])?.names_the_cause(&["unauthorized", "may not see"])?;
    let tags = bob.run(&["tag", "ls", &stage.at("team/a")])?;
    ensure!(tags.text() == "1", "a refused push or delete changed the tags: {tags:?}");
    stage.record(CLIENT, &mallory, &[tried::WRONG_PASSWORD, tried::DENIED_PULL, tried::DENIED_PUSH])?;
    stage.close()
}

#[test]
fn garbage_of_a_cancelled_push_is_collected() -> Result<()> {
    let stage = Stage::hasty()?;
    let rng = &mut Rng::announced(CLIENT);
    let alice = logged_in(&stage, "alice")?;
    let image = Recipe::new().layers(rng, 4, 24 << 20)?.image();
    layout::write(&stage.path("image"), &image, "it")?;
    let (local, remote) = (layout_name(&stage.path("image"), "it"), stage.at("team/a:1"));
    stage.cancelled_push(&alice, &["image", "copy", &local, &remote], "team/a")?;
    alice.run(&["image", "copy", &local, &remote])?;
    stage.client("bob").assert_serves("team/a", &image)?;
    stage.record(CLIENT, &alice, &[tried::CANCELLED_PUSH])?;
    stage.close()
}

/// 429 while all upload sessions that one may have are open: regctl waits as long as it is told to, and goes on by itself. 503
/// while somebody else holds the database: regctl knows that one not as something that passes, so what it prints has to say it.
// security: Q-01
#[test]
fn goes_on_by_itself_after_429_and_shows_503() -> Result<()> {
    let mut stage = Stage::plain_with("[limits]\nuploads_per_subject = 1\n")?;
    // A collection would meet the locked database too, and fail.
    stage.stop_collecting()?;
    let alice = logged_in(&stage, "alice")?;
    let (repository, text) = (stage.at("team/a"), "a blob of some words");
    let push = ["blob", "put", &repository];
    let mut client = stage.client("alice");
    let open = client.start("team/a")?;
    std::thread::scope(|scope| {
        let pushing = scope.spawn(|| alice.run_with(&push, text));
        while !stage.requests()?.iter().any(|line| line["status"] == 429) {
            ensure!(!pushing.is_finished(), "regctl ended without an answer 429");
            std::thread::sleep(Duration::from_millis(20));
        }
        client.send("team/a", "DELETE", &open, &[], Body::None)?.expect_status(204)?;
        pushing.join().map_err(|_| anyhow!("regctl's thread panicked"))??;
        Ok(())
    })?;
    let digest = Blob::new(text.as_bytes().to_vec()).digest;
    let got = client.blob("team/a", &digest)?.expect_status(200)?;
    ensure!(got.text() == text, "the blob has other bytes: {got:?}");

    let database = rusqlite::Connection::open(stage.server.data_dir().join("meta.db"))?;
    database.execute_batch("BEGIN IMMEDIATE")?;
    alice.fails_with(&push, "other words")?.names_the_cause(&["try again"])?;
    let still = client.blob("team/a", &digest)?.expect_status(200)?;
    ensure!(still.text() == text, "pulls do not go on meanwhile: {still:?}");
    database.execute_batch("ROLLBACK")?;
    alice.run_with(&push, "other words")?;
    stage.record(CLIENT, &alice, &["429 with Retry-After: waits, goes on by itself"])?;
    let result = "passed: the message says to try again, regctl does not by itself";
    stage.record_result(CLIENT, &alice, "503 while the database is locked", result)?;
    stage.close()
}

#[test]
fn trusts_an_own_authority_over_tls() -> Result<()> {
    let stage = Stage::tls()?;
    let rng = &mut Rng::announced(CLIENT);
    let image = Recipe::new().layers(rng, 2, 100_000)?.image();
    layout::write(&stage.path("image"), &image, "it")?;
    let (local, remote) = (layout_name(&stage.path("image"), "it"), stage.at("team/tls:1"));
    let stranger = stage.tool("regctl", "stranger")?;
    stranger.run(&["registry", "set", "--tls", "enabled", "--skip-check", &stage.host()])?;
    stranger
        .fails_with(&["registry", "login", "-u", "alice", "--pass-stdin", &stage.host()], PASSWORD)?
        .names_the_cause(&["certificate"])?;
    let alice = stage.tool("regctl", "alice")?;
    let authority = std::fs::read_to_string(stage.authority()?)?;
    let set = ["registry", "set", "--tls", "enabled", "--skip-check", "--cacert", &authority, &stage.host()];
    alice.run(&set)?;
    alice.run_with(&["registry", "login", "-u", "alice", "--pass-stdin", &stage.host()], PASSWORD)?;
    alice.run(&["image", "copy", &local, &remote])?;
    alice.run(&["image", "copy", &remote, &layout_name(&stage.path("back"), "it")])?;
    layout::assert_holds(&stage.path("back"), &image)?;
    let moved = [tried::LOGIN, tried::PUSH, tried::PULL_BY_TAG, tried::UNKNOWN_AUTHORITY];
    stage.record(CLIENT, &alice, &moved)?;
    stage.close()
}
