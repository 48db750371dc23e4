//! cosign with a local key and no transparency log: signatures and attestations as referrers (bundles, and the older
//! manifests with a subject) and as tags; copies of an image with all that is signed about it.
//!
//! cosign would fetch keys and services of the public instance. It gets empty ones from files, and a proxy that is not there, so
//! that nothing leaves this machine.

use std::fs;

use anyhow::{Context, Result, ensure};
use portcullis_tests::{PASSWORD, Stage, Tool, tried};
use testkit::http::Body;
use testkit::image::{self, FIVE_PLATFORMS, INDEX, Image, Recipe};
use testkit::{Noise, Rng, layout};

const CLIENT: &str = "cosign";
/// Type of the bundles that cosign 3 pushes.
const BUNDLE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
/// Predicate of the attestations here.
const PREDICATE: &str = "https://example.com/round/v1";

/// Without a login.
fn cosign(stage: &Stage, who: &str) -> Result<Tool> {
    let tool = stage.tool("cosign", who)?.env("COSIGN_PASSWORD", "");
    Ok(tool.env("HTTPS_PROXY", "http://127.0.0.1:1").env("NO_PROXY", "localhost,127.0.0.1"))
}

/// Logged in; crane's login, which cosign has too, only stores.
fn logged_in(stage: &Stage, who: &str, password: &str) -> Result<Tool> {
    let tool = cosign(stage, who)?;
    tool.run(&["login", "-u", who, "-p", password, &stage.host()])?;
    Ok(tool)
}

/// A key, and files that say that there are no services.
struct Keys {
    secret: String,
    public: String,
    services: String,
    roots: String,
}

impl Keys {
    fn new(stage: &Stage, name: &str) -> Result<Self> {
        let tool = cosign(stage, "keeper")?;
        let prefix = stage.text_path(name);
        tool.run(&["generate-key-pair", "--output-key-prefix", &prefix])?;
        let (services, roots) = (format!("{prefix}-services.json"), format!("{prefix}-roots.json"));
        tool.run(&["signing-config", "create", "--out", &services])?;
        tool.run(&["trusted-root", "create", "--out", &roots])?;
        Ok(Self { secret: format!("{prefix}.key"), public: format!("{prefix}.pub"), services, roots })
    }

    fn sign<'a>(&'a self, form: Form, what: &'a str) -> Vec<&'a str> {
        let mut arguments = vec!["sign", "--yes", "--key", &self.secret];
        arguments.extend(self.services(form));
        arguments.push(what);
        arguments
    }

    fn attest<'a>(&'a self, form: Form, predicate: &'a str, what: &'a str) -> Vec<&'a str> {
        let mut arguments =
            vec!["attest", "--yes", "--key", &self.secret, "--type", PREDICATE, "--predicate", predicate];
        arguments.extend(self.services(form));
        arguments.push(what);
        arguments
    }

    fn services(&self, form: Form) -> Vec<&str> {
        match form {
            Form::Bundle => vec!["--signing-config", &self.services, "--trusted-root", &self.roots],
            Form::Tag => vec!["--new-bundle-format=false", "--use-signing-config=false", "--tlog-upload=false"],
        }
    }

    fn verify<'a>(&'a self, form: Form, what: &'a str) -> Vec<&'a str> {
        let mut arguments = vec!["verify"];
        arguments.extend(self.checks(form));
        arguments.push(what);
        arguments
    }

    fn verify_attestation<'a>(&'a self, form: Form, what: &'a str) -> Vec<&'a str> {
        let mut arguments = vec!["verify-attestation", "--type", PREDICATE];
        arguments.extend(self.checks(form));
        arguments.push(what);
        arguments
    }

    fn checks(&self, form: Form) -> Vec<&str> {
        let mut arguments = vec!["--key", &self.public, "--insecure-ignore-tlog=true"];
        if form == Form::Tag {
            arguments.push("--new-bundle-format=false");
        }
        arguments
    }
}

/// Where a signature is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    /// In a bundle that refers to the image.
    Bundle,
    /// In a manifest tagged `sha256-<hex>.sig` or `.att`.
    Tag,
}

/// The name of an image by its digest.
fn by_digest(stage: &Stage, repository: &str, image: &Image) -> String {
    stage.at(&format!("{repository}@{}", image.manifest.digest))
}

/// The types of what refers to an image, sorted.
fn referrers(stage: &Stage, repository: &str, image: &Image) -> Result<Vec<String>> {
    let target = format!("/v2/{repository}/referrers/{}", image.manifest.digest);
    let answer = stage.client("bob").send(repository, "GET", &target, &[], Body::None)?.expect_status(200)?;
    let answer: serde_json::Value = serde_json::from_slice(&answer.body)?;
    ensure!(answer["mediaType"] == INDEX, "{answer:#}");
    let listed = answer["manifests"].as_array().context("no manifests")?;
    let mut types: Vec<String> =
        listed.iter().map(|one| one["artifactType"].as_str().unwrap_or_default().to_owned()).collect();
    types.sort_unstable();
    Ok(types)
}

fn tags(stage: &Stage, repository: &str) -> Result<Vec<String>> {
    let target = format!("/v2/{repository}/tags/list");
    let answer = stage.client("bob").send(repository, "GET", &target, &[], Body::None)?.expect_status(200)?;
    let answer: serde_json::Value = serde_json::from_slice(&answer.body)?;
    Ok(serde_json::from_value(answer["tags"].clone())?)
}

#[test]
fn signatures_and_attestations_are_referrers() -> Result<()> {
    let stage = Stage::plain()?;
    let rng = &mut Rng::announced(CLIENT);
    let (keys, strangers) = (Keys::new(&stage, "own")?, Keys::new(&stage, "strange")?);
    let image = Recipe::new().layers(rng, 2, 50_000)?.image();
    stage.client("alice").push_image("team/app", &image, "1")?;
    let alice = logged_in(&stage, "alice", PASSWORD)?;
    let (name, tag) = (by_digest(&stage, "team/app", &image), stage.at("team/app:1"));
    alice.fails(&keys.verify(Form::Bundle, &name))?.names_the_cause(&["no signatures found"])?;

    alice.run(&keys.sign(Form::Bundle, &name))?;
    let bob = logged_in(&stage, "bob", PASSWORD)?;
    bob.run(&keys.verify(Form::Bundle, &name))?.names_the_cause(&[image.manifest.digest.as_str()])?;
    bob.run(&keys.verify(Form::Bundle, &tag))?;
    bob.fails(&strangers.verify(Form::Bundle, &name))?
        .names_the_cause(&["no matching signatures", "failed to verify"])?;
    let predicate = stage.text_path("predicate.json");
    fs::write(&predicate, r#"{"round":1}"#)?;
    alice.run(&keys.attest(Form::Bundle, &predicate, &name))?;
    bob.run(&keys.verify_attestation(Form::Bundle, &name))?;
    ensure!(referrers(&stage, "team/app", &image)? == [BUNDLE, BUNDLE], "other referrers than two bundles");
    ensure!(tags(&stage, "team/app")? == ["1"], "cosign fell back to the tag schema");
    let tree = bob.run(&["tree", &name])?;
    ensure!(tree.stdout.contains(PREDICATE) && tree.stdout.contains("via OCI referrer"), "tree: {tree:?}");

    // What cosign 2 does where it is told to use referrers: the older format, in a manifest with a subject.
    let older = cosign(&stage, "alice")?.env("COSIGN_EXPERIMENTAL", "1");
    let mode = ["--registry-referrers-mode=oci-1-1"];
    older.run(&[keys.sign(Form::Tag, &name).as_slice(), &mode].concat())?;
    let listed = referrers(&stage, "team/app", &image)?;
    ensure!(listed.contains(&"application/vnd.dev.cosign.artifact.sig.v1+json".to_owned()), "referrers: {listed:?}");
    older.run(&[keys.verify(Form::Tag, &name).as_slice(), &["--experimental-oci11"]].concat())?;

    alice.run(&["clean", "-f", "--type", "all", &name])?;
    bob.fails(&keys.verify(Form::Bundle, &name))?.names_the_cause(&["no signatures found"])?;
    ensure!(!referrers(&stage, "team/app", &image)?.contains(&BUNDLE.to_owned()), "a removed bundle is still listed");
    stage.client("bob").assert_serves("team/app", &image)?;
    stage.record(CLIENT, &alice, &[tried::LOGIN, tried::PUSH, tried::PULL_BY_TAG, tried::PULL_BY_DIGEST])?;
    stage.record(CLIENT, &alice, &[tried::REFERRERS, tried::INSPECT, tried::DELETE])?;
    let signed = ["sign and verify: bundle as a referrer", "attest and verify: bundle as a referrer"];
    stage.record(CLIENT, &alice, &signed)?;
    stage.record(CLIENT, &alice, &["sign and verify: older format as a referrer", "tree", "clean"])?;
    stage.close()
}

#[test]
fn signatures_and_attestations_are_tags() -> Result<()> {
    let stage = Stage::plain()?;
    let rng = &mut Rng::announced(CLIENT);
    let keys = Keys::new(&stage, "own")?;
    let image = Recipe::new().layers(rng, 2, 50_000)?.image();
    stage.client("alice").push_image("team/app", &image, "1")?;
    let (alice, bob) = (logged_in(&stage, "alice", PASSWORD)?, logged_in(&stage, "bob", PASSWORD)?);
    let name = by_digest(&stage, "team/app", &image);
    let prefix = format!("sha256-{}", image.manifest.digest.hex());
    let predicate = stage.text_path("predicate.json");
    fs::write(&predicate, r#"{"round":1}"#)?;

    // Twice: the second signature is added to the first, which moves the tag.
    alice.run(&keys.sign(Form::Tag, &name))?;
    let second = Keys::new(&stage, "second")?;
    alice.run(&second.sign(Form::Tag, &name))?;
    alice.run(&keys.attest(Form::Tag, &predicate, &name))?;
    let expected = ["1".to_owned(), format!("{prefix}.att"), format!("{prefix}.sig")];
    ensure!(tags(&stage, "team/app")? == expected, "tags: {:?}", tags(&stage, "team/app")?);
    let signatures = stage.client("bob").assert_whole("team/app", &format!("{prefix}.sig"))?;
    ensure!(signatures["layers"].as_array().map(Vec::len) == Some(2), "{signatures:#}");
    bob.run(&keys.verify(Form::Tag, &name))?;
    bob.run(&second.verify(Form::Tag, &name))?;
    bob.run(&keys.verify_attestation(Form::Tag, &name))?;

    let copied = stage.at("team/copy:1");
    alice.run(&["copy", &name, &copied])?;
    bob.run(&keys.verify(Form::Tag, &copied))?;
    bob.run(&keys.verify_attestation(Form::Tag, &copied))?;
    stage.client("bob").assert_serves("team/copy", &image)?;

    // `save` and `load` are a pull to a layout and a push of it.
    let folder = stage.text_path("saved");
    alice.run(&["save", "--dir", &folder, &name])?;
    layout::assert_holds(&stage.path("saved"), &image)?;
    alice.run(&["load", "--dir", &folder, &stage.at("team/loaded:1")])?;
    stage.client("bob").assert_serves("team/loaded", &image)?;
    bob.run(&keys.verify(Form::Tag, &stage.at("team/loaded:1")))?;

    alice.run(&["clean", "-f", "--type", "all", &name])?;
    ensure!(tags(&stage, "team/app")? == ["1"], "clean left tags: {:?}", tags(&stage, "team/app")?);
    bob.fails(&keys.verify(Form::Tag, &name))?.names_the_cause(&["no signatures found"])?;
    stage.record(CLIENT, &alice, &[tried::COPY, tried::DELETE])?;
    stage.record(CLIENT, &alice, &["sign and verify: tag", "attest and verify: tag", "save and load"])?;
    stage.close()
}

/// An index and its five images are signed; oras and regctl copy the image with its signatures, which still verify.
#[test]
fn signatures_of_several_platforms_are_copied_with_them() -> Result<()> {
    let stage = Stage::plain()?;
    let rng = &mut Rng::announced(CLIENT);
    let keys = Keys::new(&stage, "own")?;
    let five = image::index(rng, &FIVE_PLATFORMS, 20_000)?;
    stage.client("alice").push_image("team/app", &five, "1")?;
    let (alice, bob) = (logged_in(&stage, "alice", PASSWORD)?, logged_in(&stage, "bob", PASSWORD)?);
    let name = by_digest(&stage, "team/app", &five);
    alice.run(&[keys.sign(Form::Bundle, &name).as_slice(), &["--recursive"]].concat())?;
    for image in five.children.iter().chain([&five]) {
        bob.run(&keys.verify(Form::Bundle, &by_digest(&stage, "team/app", image)))?;
    }

    let source = stage.at("team/app:1");
    let (oras, regctl) = (stage.tool("oras", "alice")?, stage.tool("regctl", "alice")?);
    oras.run(&["cp", "-r", "--from-plain-http", "--to-plain-http", &source, &stage.at("team/oras:1")])?;
    regctl.run(&["registry", "set", "--tls", "disabled", "--skip-check", &stage.host()])?;
    regctl.run(&["image", "copy", "--referrers", "--digest-tags", &source, &stage.at("team/regctl:1")])?;
    for repository in ["team/oras", "team/regctl"] {
        stage.client("bob").assert_serves(repository, &five)?;
        for image in five.children.iter().chain([&five]) {
            bob.run(&keys.verify(Form::Bundle, &by_digest(&stage, repository, image)))?;
        }
    }
    stage.record(CLIENT, &alice, &[tried::PLATFORMS, "sign --recursive"])?;
    stage.record(CLIENT, &alice, &["copy with signatures by oras and regctl, verified"])?;
    stage.close()
}

#[test]
fn refusals_name_their_cause() -> Result<()> {
    let stage = Stage::plain()?;
    let rng = &mut Rng::announced(CLIENT);
    let keys = Keys::new(&stage, "own")?;
    let image = Recipe::new().layer(rng, 10_000)?.image();
    stage.client("alice").push_image("team/app", &image, "1")?;
    let name = by_digest(&stage, "team/app", &image);
    // `login` only stores; the first request shows that the password is wrong.
    let mallory = cosign(&stage, "mallory")?;
    mallory.run(&["login", "-u", "alice", "-p", "wrong", &stage.host()])?;
    mallory.fails(&keys.verify(Form::Bundle, &name))?.names_the_cause(&["401", "unauthorized"])?;
    let (bob, carol) = (logged_in(&stage, "bob", PASSWORD)?, logged_in(&stage, "carol", PASSWORD)?);
    let nobody = cosign(&stage, "nobody")?;
    let save = ["save", "--dir", &stage.text_path("saved"), &name];
    for form in [Form::Bundle, Form::Tag] {
        bob.fails(&keys.sign(form, &name))?.names_the_cause(&["denied"])?;
        for tool in [&carol, &nobody] {
            // The bundle's push begins with a HEAD, whose answer has no text.
            tool.fails(&keys.sign(form, &name))?.names_the_cause(&["may not see", "404 not found"])?;
            // To who may not see the image there is none, and so nothing that is signed about it.
            tool.fails(&keys.verify(form, &name))?.names_the_cause(&["no signatures found", "may not see"])?;
            tool.fails(&save)?.names_the_cause(&["may not see"])?;
        }
    }
    ensure!(referrers(&stage, "team/app", &image)?.is_empty(), "a refused signature is there");
    ensure!(tags(&stage, "team/app")? == ["1"], "a refused signature left a tag");
    stage.record(CLIENT, &mallory, &[tried::WRONG_PASSWORD, tried::DENIED_PULL, tried::DENIED_PUSH])?;
    stage.close()
}

/// `upload blob` is the one push of cosign that takes long enough to be cancelled.
#[test]
fn garbage_of_a_cancelled_push_is_collected() -> Result<()> {
    let stage = Stage::hasty()?;
    let alice = logged_in(&stage, "alice", PASSWORD)?;
    let file = stage.text_path("file");
    std::io::copy(&mut Noise::new(17, 96 << 20), &mut fs::File::create(&file)?)?;
    let push = ["upload", "blob", "-f", &file, &stage.at("team/blob:1")];
    stage.cancelled_push(&alice, &push, "team/blob")?;
    alice.run(&push)?;
    let manifest = stage.client("bob").assert_whole("team/blob", "1")?;
    let digest = layout::digest_of_file(stage.path("file").as_path())?;
    ensure!(manifest["layers"][0]["digest"] == digest.as_str(), "{manifest:#} is not of {digest}");
    stage.record(CLIENT, &alice, &["upload blob", tried::CANCELLED_PUSH])?;
    stage.close()
}

#[test]
fn trusts_an_own_authority_over_tls() -> Result<()> {
    let stage = Stage::tls()?;
    let rng = &mut Rng::announced(CLIENT);
    let keys = Keys::new(&stage, "own")?;
    let image = Recipe::new().layer(rng, 10_000)?.image();
    push_over_tls(&stage, &image)?;
    let name = by_digest(&stage, "team/app", &image);
    let alice = logged_in(&stage, "alice", PASSWORD)?;
    alice.fails(&keys.sign(Form::Bundle, &name))?.names_the_cause(&["certificate"])?;
    let authority = format!("--registry-cacert={}", stage.authority()?);
    for form in [Form::Bundle, Form::Tag] {
        alice.run(&[keys.sign(form, &name).as_slice(), &[&authority]].concat())?;
        alice.run(&[keys.verify(form, &name).as_slice(), &[&authority]].concat())?;
        // The other way to tell it.
        alice.clone().env("SSL_CERT_FILE", &stage.authority()?).run(&keys.verify(form, &name))?;
    }
    let tree = alice.run(&["tree", &authority, &name])?;
    ensure!(tree.stdout.contains("via OCI referrer") && tree.stdout.contains(".sig"), "tree: {tree:?}");
    alice.run(&["clean", "-f", "--type", "all", &authority, &name])?;
    alice.fails(&[keys.verify(Form::Bundle, &name).as_slice(), &[&authority]].concat())?;
    stage.record(CLIENT, &alice, &[tried::LOGIN, tried::PUSH, tried::PULL_BY_DIGEST, tried::DELETE])?;
    let signed = ["sign and verify: bundle as a referrer", "sign and verify: tag", "tree", "clean"];
    stage.record(CLIENT, &alice, &signed)?;
    stage.record(CLIENT, &alice, &[tried::UNKNOWN_AUTHORITY])?;
    stage.close()
}

/// The test's own client speaks plain HTTP only.
fn push_over_tls(stage: &Stage, image: &Image) -> Result<()> {
    layout::write(&stage.path("image"), image, "it")?;
    let local = format!("{}:it", stage.text_path("image"));
    let authority = stage.authority()?;
    let user = ["--to-username", "alice", "--to-password", PASSWORD];
    let flags = ["cp", "--from-oci-layout", "--to-plain-http=false", "--to-ca-file", &authority];
    let both = [local.as_str(), &stage.at("team/app:1")];
    stage.tool("oras", "pusher")?.run(&[flags.as_slice(), &user, &both].concat())?;
    Ok(())
}
