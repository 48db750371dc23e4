//! BuildKit: `buildctl` with a `buildkitd` of the test's own; docker buildx drives the same library.

use std::io::Write as _;

use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use portcullis_tests::{BuildKit, PASSWORD, Stage, Tool, tried};
use serde_json::{Value, json};
use testkit::{Noise, Rng};

const HTTP: &str = "http = true";
const BUSYBOX: &str = "/bin/busybox";

/// `buildctl` of somebody; it has no command to log in, so that the file of docker is written here.
fn buildctl(stage: &Stage, daemon: &BuildKit, who: &str, password: &str) -> Result<Tool> {
    let tool = stage.tool("buildctl", who)?.always(&["--addr", &daemon.address()]);
    let folder = stage.path(&format!("home-{who}/docker"));
    std::fs::create_dir_all(&folder)?;
    let login = base64::engine::general_purpose::STANDARD.encode(format!("{who}:{password}"));
    let config = json!({"auths": {stage.host(): {"auth": login}}});
    std::fs::write(folder.join("config.json"), config.to_string())?;
    Ok(tool)
}

/// A folder to build in, with this Dockerfile, busybox and some random bytes in `data`.
fn context(stage: &Stage, name: &str, dockerfile: &str, rng: &mut Rng) -> Result<String> {
    let folder = stage.path(name);
    std::fs::create_dir_all(&folder)?;
    std::fs::copy(BUSYBOX, folder.join("busybox"))?;
    std::fs::write(folder.join("data"), rng.bytes(100_000))?;
    std::fs::write(folder.join("Dockerfile"), dockerfile)?;
    Ok(folder.display().to_string())
}

const SMALL: &str = "FROM scratch\nCOPY busybox /bin/busybox\nCOPY data /data\n";
const RUNS: &str = "FROM scratch\nCOPY busybox /bin/busybox\nCOPY data /data\n\
                    RUN [\"/bin/busybox\", \"sh\", \"-c\", \"/bin/busybox sha256sum /data > /sum\"]\n";

/// On top of [`RUNS`].
const CHECKS: &str = "RUN [\"/bin/busybox\", \"sha256sum\", \"-c\", \"/sum\"]\n";

fn arguments<'a>(folder: &'a str, output: &'a str, more: &[&'a str]) -> Vec<String> {
    let (context, dockerfile) = (format!("context={folder}"), format!("dockerfile={folder}"));
    let fixed = ["build", "--progress=plain", "--frontend=dockerfile.v0", "--local", &context, "--local", &dockerfile];
    let output = if output.is_empty() { &[][..] } else { &["--output", output] };
    fixed.iter().chain(output).chain(more).map(|argument| (*argument).to_owned()).collect()
}

/// Builds; what buildctl says about the image.
fn build(stage: &Stage, tool: &Tool, folder: &str, output: &str, more: &[&str]) -> Result<Value> {
    let file = stage.text_path("metadata.json");
    let mut arguments = arguments(folder, output, more);
    arguments.extend(["--metadata-file".to_owned(), file.clone()]);
    tool.run(&arguments.iter().map(String::as_str).collect::<Vec<_>>())?;
    Ok(serde_json::from_str(&std::fs::read_to_string(&file)?)?)
}

fn digest_of(metadata: &Value) -> Result<&str> {
    metadata["containerimage.digest"].as_str().with_context(|| format!("no digest in {metadata:#}"))
}

fn image(stage: &Stage, reference: &str) -> String {
    format!("type=image,name={},push=true", stage.at(reference))
}

/// Whether each step that copies or runs was taken from a cache, by what buildctl printed.
fn cached_steps(printed: &str) -> usize {
    printed.lines().filter(|line| line.ends_with(" CACHED")).count()
}

/// Forgets all that the daemon has built and pulled.
fn prune(tool: &Tool) -> Result<()> {
    tool.run(&["prune", "--all"]).map(drop)
}

#[test]
fn images_are_built_pushed_and_built_on() -> Result<()> {
    let stage = Stage::plain()?;
    let daemon = BuildKit::start(&stage, HTTP)?;
    let rng = &mut Rng::announced("buildkit");
    let alice = buildctl(&stage, &daemon, "alice", PASSWORD)?;
    let folder = context(&stage, "base", RUNS, rng)?;
    let built = build(&stage, &alice, &folder, &image(&stage, "team/base:1"), &[])?;
    let digest = digest_of(&built)?;
    let manifest = stage.client("bob").assert_whole("team/base", digest)?;
    ensure!(manifest["layers"].as_array().is_some_and(|layers| layers.len() == 3), "{manifest:#}");
    ensure!(stage.client("bob").assert_whole("team/base", "1")? == manifest, "tag and digest are not the same");

    // The daemon knows where it pushed the layers, and has them mounted from there.
    build(&stage, &alice, &folder, &image(&stage, "team/again:1"), &[])?;
    ensure!(stage.client("bob").assert_whole("team/again", "1")?["layers"] == manifest["layers"], "other layers");
    let mounts = stage.mounts("team/again")?;
    ensure!(mounts >= 3, "{mounts} of 3 layers were mounted");

    // By tag and by digest, into a daemon that has nothing; what is pulled is run.
    for (number, base) in ["team/base:1", &format!("team/base@{digest}")].iter().enumerate() {
        prune(&alice)?;
        let dockerfile = format!("FROM {}\n{CHECKS}", stage.at(base));
        let folder = context(&stage, &format!("derived-{number}"), &dockerfile, rng)?;
        let target = format!("team/derived-{number}");
        let built = build(&stage, &alice, &folder, &image(&stage, &format!("{target}:1")), &[])?;
        let derived = stage.client("bob").assert_whole(&target, digest_of(&built)?)?;
        let layers = derived["layers"].as_array().context("no layers")?;
        ensure!(layers.starts_with(manifest["layers"].as_array().context("no layers")?), "{derived:#}");
    }
    stage.record("buildkit", &alice, &[tried::PUSH, tried::PULL_BY_TAG, tried::PULL_BY_DIGEST, tried::MOUNT])?;
    stage.close()
}

#[test]
fn pushes_by_digest_zstd_and_docker_types() -> Result<()> {
    let stage = Stage::plain()?;
    let daemon = BuildKit::start(&stage, HTTP)?;
    let rng = &mut Rng::announced("buildkit");
    let alice = buildctl(&stage, &daemon, "alice", PASSWORD)?;
    let folder = context(&stage, "app", SMALL, rng)?;

    let by_digest = format!("type=image,name={},push=true,push-by-digest=true", stage.at("team/digest"));
    let built = build(&stage, &alice, &folder, &by_digest, &[])?;
    stage.client("bob").assert_whole("team/digest", digest_of(&built)?)?;
    let target = "/v2/team/digest/tags/list";
    let tags = stage.client("bob").send("team/digest", "GET", target, &[], testkit::http::Body::None)?;
    ensure!(tags.text().contains("[]"), "a push by digest left a tag: {tags:?}");

    for (tag, more, expected) in [
        ("zstd", "compression=zstd,force-compression=true,oci-mediatypes=true", "oci.image.layer.v1.tar+zstd"),
        ("stargz", "compression=estargz,force-compression=true,oci-mediatypes=true", "oci.image.layer.v1.tar+gzip"),
        ("plain", "compression=uncompressed,force-compression=true", "oci.image.layer.v1.tar"),
        ("docker", "oci-mediatypes=false", "docker.image.rootfs.diff.tar.gzip"),
    ] {
        let output = format!("{},{more}", image(&stage, &format!("team/{tag}:1")));
        let built = build(&stage, &alice, &folder, &output, &[])?;
        let manifest = stage.client("bob").assert_whole(&format!("team/{tag}"), digest_of(&built)?)?;
        for layer in manifest["layers"].as_array().context("no layers")? {
            ensure!(layer["mediaType"] == format!("application/vnd.{expected}"), "{tag}: {manifest:#}");
        }
        prune(&alice)?;
        let dockerfile = format!("FROM {}\nRUN [\"/bin/busybox\", \"true\"]\n", stage.at(&format!("team/{tag}:1")));
        let derived = context(&stage, &format!("derived-{tag}"), &dockerfile, rng)?;
        build(&stage, &alice, &derived, &image(&stage, &format!("team/{tag}:derived")), &[])?;
        stage.client("bob").assert_whole(&format!("team/{tag}"), "derived")?;
    }
    let kinds = ["zstd layers", "eStargz layers", "uncompressed layers", "docker's types"];
    stage.record("buildkit", &alice, &["push by digest"])?;
    stage.record("buildkit", &alice, &kinds)?;
    stage.close()
}

/// A program that writes a list of what is in an image, as `attest:sbom` wants one.
const SCANNER: &str = r#"#!/bin/busybox sh
echo '{"_type": "https://in-toto.io/Statement/v0.1", "predicateType": "https://spdx.dev/Document", "subject": [],
  "predicate": {"spdxVersion": "SPDX-2.3", "SPDXID": "SPDXRef-DOCUMENT", "name": "of a test"}}' \
  > "$BUILDKIT_SCAN_DESTINATION/sbom.spdx.json"
"#;

#[test]
fn attestations_and_platforms() -> Result<()> {
    let stage = Stage::plain()?;
    let daemon = BuildKit::start(&stage, HTTP)?;
    let rng = &mut Rng::announced("buildkit");
    let alice = buildctl(&stage, &daemon, "alice", PASSWORD)?;
    // The scanner is an image of the same registry.
    let scanner = context(&stage, "scanner", &format!("{SMALL}COPY scan /scan\nENTRYPOINT [\"/scan\"]\n"), rng)?;
    std::fs::write(stage.path("scanner/scan"), SCANNER)?;
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(stage.path("scanner/scan"), mode)?;
    build(&stage, &alice, &scanner, &image(&stage, "team/scanner:1"), &[])?;

    let folder = context(&stage, "app", SMALL, rng)?;
    let bill = format!("attest:sbom=generator={}", stage.at("team/scanner:1"));
    let more =
        ["--opt", "platform=linux/amd64,linux/arm64", "--opt", "attest:provenance=mode=max", "--opt", bill.as_str()];
    for (name, output) in [("team/app", ""), ("team/artifact", ",oci-artifact=true,oci-mediatypes=true")] {
        let output = format!("{}{output}", image(&stage, &format!("{name}:1")));
        let built = build(&stage, &alice, &folder, &output, &more)?;
        let index = stage.client("bob").assert_whole(name, digest_of(&built)?)?;
        let children = index["manifests"].as_array().context("no children")?;
        ensure!(children.len() == 4, "two platforms and their attestations: {index:#}");
        let (images, attestations): (Vec<&Value>, Vec<&Value>) =
            children.iter().partition(|child| child["platform"]["os"] == "linux");
        ensure!(images.len() == 2 && attestations.len() == 2, "{index:#}");
        for attestation in attestations {
            let of = &attestation["annotations"]["vnd.docker.reference.digest"];
            ensure!(images.iter().any(|image| image["digest"] == *of), "{index:#}");
            let digest = attestation["digest"].as_str().context("no digest")?;
            let manifest = stage.client("bob").assert_whole(name, digest)?;
            let predicates: Vec<&str> = manifest["layers"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(|layer| layer["annotations"]["in-toto.io/predicate-type"].as_str())
                .collect();
            let has = |what: &str| predicates.iter().any(|predicate| predicate.contains(what));
            ensure!(predicates.len() == 2 && has("spdx.dev") && has("slsa.dev/provenance"), "{manifest:#}");
            if name == "team/artifact" {
                assert_refers(&stage, name, &manifest, digest)?;
            }
        }
    }
    stage.record("buildkit", &alice, &[tried::PLATFORMS])?;
    stage.record(
        "buildkit",
        &alice,
        &["attestations: provenance and SBOM", "attestations as artifacts with a subject"],
    )?;
    stage.close()
}

/// Fails unless the registry lists this attestation among what refers to its subject.
fn assert_refers(stage: &Stage, repository: &str, manifest: &Value, digest: &str) -> Result<()> {
    let subject = manifest["subject"]["digest"].as_str().with_context(|| format!("no subject: {manifest:#}"))?;
    let target = format!("/v2/{repository}/referrers/{subject}");
    let answer = stage.client("bob").send(repository, "GET", &target, &[], testkit::http::Body::None)?;
    ensure!(answer.text().contains(digest), "{digest} is not among the referrers of {subject}: {answer:?}");
    Ok(())
}

#[test]
fn a_cache_in_the_registry() -> Result<()> {
    let stage = Stage::plain()?;
    let daemon = BuildKit::start(&stage, HTTP)?;
    let rng = &mut Rng::announced("buildkit");
    let alice = buildctl(&stage, &daemon, "alice", PASSWORD)?;
    let folder = context(&stage, "app", RUNS, rng)?;
    for (name, more, media_type) in [
        ("manifest", "image-manifest=true,oci-mediatypes=true", "application/vnd.oci.image.manifest.v1+json"),
        ("index", "image-manifest=false,oci-mediatypes=true", "application/vnd.oci.image.index.v1+json"),
        (
            "docker",
            "image-manifest=false,oci-mediatypes=false",
            "application/vnd.docker.distribution.manifest.list.v2+json",
        ),
    ] {
        prune(&alice)?;
        let cache = format!("type=registry,ref={}", stage.at(&format!("team/cache:{name}")));
        let export = format!("{cache},mode=max,{more}");
        let output = image(&stage, &format!("team/{name}:1"));
        let built = build(&stage, &alice, &folder, &output, &["--export-cache", &export])?;
        let response = stage.client("bob").manifest("team/cache", name)?.expect_status(200)?;
        ensure!(response.header("content-type") == Some(media_type), "{name}: {response:?}");

        prune(&alice)?;
        let again = arguments(&folder, &output, &["--import-cache", &cache]);
        let ran = alice.run(&again.iter().map(String::as_str).collect::<Vec<_>>())?;
        ensure!(cached_steps(&ran.stderr) == 3, "{name}: not every step came from the cache: {ran:#?}");
        let manifest = stage.client("bob").assert_whole(&format!("team/{name}"), "1")?;
        let first = stage.client("bob").assert_whole(&format!("team/{name}"), digest_of(&built)?)?;
        ensure!(manifest["layers"] == first["layers"], "other layers than without the cache: {manifest:#} {first:#}");
    }
    // A cache that is not there is no error: the build goes on without it.
    let missing = format!("type=registry,ref={}", stage.at("team/cache:missing"));
    build(&stage, &alice, &folder, &image(&stage, "team/missing:1"), &["--import-cache", &missing])?;
    let inline = image(&stage, "team/inline:1");
    prune(&alice)?;
    build(&stage, &alice, &folder, &inline, &["--export-cache", "type=inline"])?;
    prune(&alice)?;
    let cache = format!("type=registry,ref={}", stage.at("team/inline:1"));
    let again = arguments(&folder, &inline, &["--import-cache", &cache]);
    let ran = alice.run(&again.iter().map(String::as_str).collect::<Vec<_>>())?;
    ensure!(cached_steps(&ran.stderr) == 3, "inline: not every step came from the cache: {ran:#?}");
    let kinds = ["cache, image-manifest=true", "cache, image-manifest=false", "cache, docker's types", "inline cache"];
    stage.record("buildkit", &alice, &kinds)?;
    stage.close()
}

#[test]
fn refusals_name_their_cause() -> Result<()> {
    let stage = Stage::plain()?;
    let daemon = BuildKit::start(&stage, HTTP)?;
    let rng = &mut Rng::announced("buildkit");
    let folder = context(&stage, "app", SMALL, rng)?;
    let alice = buildctl(&stage, &daemon, "alice", PASSWORD)?;
    build(&stage, &alice, &folder, &image(&stage, "team/a:1"), &[])?;
    let derived = context(&stage, "derived", &format!("FROM {}\n", stage.at("team/a:1")), rng)?;
    let refused = |tool: &Tool, folder: &str, output: &str, causes: &[&str]| -> Result<()> {
        let arguments = arguments(folder, output, &["--no-cache"]);
        tool.fails(&arguments.iter().map(String::as_str).collect::<Vec<_>>())?.names_the_cause(causes)
    };
    let target = image(&stage, "team/a:2");
    let bob = buildctl(&stage, &daemon, "bob", PASSWORD)?;
    refused(&bob, &folder, &target, &["denied", "insufficient_scope"])?;
    let carol = buildctl(&stage, &daemon, "carol", PASSWORD)?;
    refused(&carol, &folder, &target, &["denied", "not found", "may not see"])?;
    prune(&alice)?;
    refused(&carol, &derived, "", &["denied", "not found", "may not see"])?;
    let nobody = stage.tool("buildctl", "nobody")?.always(&["--addr", &daemon.address()]);
    refused(&nobody, &folder, &target, &["may not see", "not found", "authoriz"])?;
    let tags = stage.client("bob").send("team/a", "GET", "/v2/team/a/tags/list", &[], testkit::http::Body::None)?;
    ensure!(tags.text().contains(r#"["1"]"#), "a refused push left a tag: {tags:?}");
    // The last one: failed logins are paused for a while.
    let wrong = buildctl(&stage, &daemon, "alice", "wrong")?;
    refused(&wrong, &folder, &target, &["401", "unauthorized"])?;
    stage.record("buildkit", &carol, &[tried::WRONG_PASSWORD, tried::DENIED_PULL, tried::DENIED_PUSH])?;
    stage.close()
}

#[test]
fn a_cancelled_push_leaves_nothing() -> Result<()> {
    const SIZE: u64 = 256 << 20;
    let stage = Stage::hasty()?;
    let daemon = BuildKit::start(&stage, HTTP)?;
    let rng = &mut Rng::announced("buildkit");
    let alice = buildctl(&stage, &daemon, "alice", PASSWORD)?;
    let folder = context(&stage, "large", "FROM scratch\nCOPY large /large\n", rng)?;
    let mut file = std::fs::File::create(stage.path("large/large"))?;
    std::io::copy(&mut Noise::new(19, SIZE), &mut file)?;
    file.flush()?;
    // Built first, so that the push is all that is left to do.
    let output = image(&stage, "team/large:1");
    build(&stage, &alice, &folder, &output.replace("push=true", "push=false"), &[])?;
    let push = arguments(&folder, &output, &[]);
    let push: Vec<&str> = push.iter().map(String::as_str).collect();
    stage.cancelled_push(&alice, &push, "team/large")?;
    alice.run(&push)?;
    stage.client("bob").assert_whole("team/large", "1")?;
    stage.record("buildkit", &alice, &[tried::CANCELLED_PUSH])?;
    stage.close()
}

#[test]
fn trusts_an_own_authority_over_tls() -> Result<()> {
    let stage = Stage::tls()?;
    let rng = &mut Rng::announced("buildkit");
    let folder = context(&stage, "app", RUNS, rng)?;
    let output = image(&stage, "team/tls:1");
    // On loopback buildkitd would use plain HTTP if it were not told.
    {
        let stranger = BuildKit::start(&stage, "http = false")?;
        let alice = buildctl(&stage, &stranger, "alice", PASSWORD)?;
        let push = arguments(&folder, &output, &[]);
        let push: Vec<&str> = push.iter().map(String::as_str).collect();
        alice.fails(&push)?.names_the_cause(&["certificate"])?;
    }
    let daemon = BuildKit::start(&stage, &format!("http = false\nca = [\"{}\"]", stage.authority()?))?;
    // buildctl fetches the token for the daemon and has to know the authority too.
    let alice = buildctl(&stage, &daemon, "alice", PASSWORD)?.env("SSL_CERT_FILE", &stage.authority()?);
    let built = build(&stage, &alice, &folder, &output, &[])?;
    let digest = digest_of(&built)?.to_owned();
    for (number, base) in ["team/tls:1", &format!("team/tls@{digest}")].iter().enumerate() {
        prune(&alice)?;
        let dockerfile = format!("FROM {}\n{CHECKS}", stage.at(base));
        let derived = context(&stage, &format!("derived-{number}"), &dockerfile, rng)?;
        build(&stage, &alice, &derived, &image(&stage, &format!("team/derived:{number}")), &[])?;
    }
    let moved = [tried::PUSH, tried::PULL_BY_TAG, tried::PULL_BY_DIGEST, tried::UNKNOWN_AUTHORITY];
    stage.record("buildkit", &alice, &moved)?;
    stage.close()
}
