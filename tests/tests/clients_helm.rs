//! helm 3 and helm 4: charts, versions resolved from tags, provenance files.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use portcullis_tests::{PASSWORD, Stage, Tool, tried};
use testkit::Rng;
use testkit::http::Body;
use testkit::image::Blob;

/// One of the two programs, and how the report calls it.
#[derive(Clone, Copy)]
struct Helm {
    program: &'static str,
    client: &'static str,
}

const HELM_3: Helm = Helm { program: "helm3", client: "helm-3" };
const HELM_4: Helm = Helm { program: "helm4", client: "helm-4" };

impl Helm {
    /// At home in a folder of its own; helm keeps its login, its cache and its configuration there.
    fn of(self, stage: &Stage, who: &str) -> Result<Tool> {
        stage.tool(self.program, who)
    }

    fn logged_in(self, stage: &Stage, who: &str) -> Result<Tool> {
        let tool = self.of(stage, who)?;
        let login = ["registry", "login", "--plain-http", "-u", who, "--password-stdin", &stage.host()];
        tool.run_with(&login, PASSWORD)?;
        Ok(tool)
    }
}

/// The source of a chart called `web`: one object that shows the version.
fn write_chart(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder.join("templates"))?;
    fs::write(folder.join("Chart.yaml"), "apiVersion: v2\nname: web\nversion: 0.0.1\n")?;
    let object = "kind: ConfigMap\napiVersion: v1\nmetadata:\n  name: v{{ .Chart.Version }}\n";
    fs::write(folder.join("templates/object.yaml"), object)?;
    Ok(())
}

/// Packages the chart as this version; where the archive is.
fn package(stage: &Stage, tool: &Tool, version: &str, more: &[&str]) -> Result<PathBuf> {
    let (source, folder) = (stage.path("web"), stage.path("packages"));
    if !source.exists() {
        write_chart(&source)?;
    }
    let (source, target) = (source.display().to_string(), folder.display().to_string());
    tool.run(&[&["package", &source, "--version", version, "-d", &target], more].concat())?;
    Ok(folder.join(format!("web-{version}.tgz")))
}

/// `oci://HOST/NAME`.
fn url(stage: &Stage, name: &str) -> String {
    format!("oci://{}", stage.at(name))
}

fn push(stage: &Stage, tool: &Tool, archive: &Path, more: &[&str]) -> Result<()> {
    tool.run(&[&["push", &archive.display().to_string(), &url(stage, "team/charts")], more].concat())?;
    Ok(())
}

/// Pulls into an empty folder; the folder.
fn pull(stage: &Stage, tool: &Tool, chart: &str, more: &[&str]) -> Result<PathBuf> {
    let folder = stage.path("pulled");
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    fs::create_dir(&folder)?;
    tool.run(&[&["pull", chart, "-d", &folder.display().to_string()], more].concat())?;
    Ok(folder)
}

fn same_bytes(one: &Path, other: &Path) -> Result<()> {
    let read = |path: &Path| fs::read(path).with_context(|| path.display().to_string());
    ensure!(read(one)? == read(other)?, "{} and {} differ", one.display(), other.display());
    Ok(())
}

/// Versions are tags, with `_` for the `+` that a tag may not have; ranges are resolved from the list of tags.
fn charts_go_there_and_back(helm: Helm) -> Result<()> {
    let stage = Stage::plain()?;
    let alice = helm.logged_in(&stage, "alice")?;
    let mut archives = Vec::new();
    for version in ["0.1.0+build.5", "0.2.0", "1.0.0", "1.1.0-rc.1"] {
        let archive = package(&stage, &alice, version, &[])?;
        push(&stage, &alice, &archive, &["--plain-http"])?;
        archives.push(archive);
    }
    let tags = stage.client("bob").send("team/charts/web", "GET", "/v2/team/charts/web/tags/list", &[], Body::None)?;
    let expected = r#""tags":["0.1.0_build.5","0.2.0","1.0.0","1.1.0-rc.1"]"#;
    ensure!(tags.text().contains(expected), "tags: {tags:?}");
    let manifest = stage.client("bob").assert_whole("team/charts/web", "0.1.0_build.5")?;
    ensure!(manifest["config"]["mediaType"] == "application/vnd.cncf.helm.config.v1+json", "{manifest:#}");
    let layer = Blob::new(fs::read(&archives[0])?).digest;
    ensure!(manifest["layers"][0]["digest"] == layer.as_str(), "the chart is not the layer: {manifest:#}");

    let bob = helm.logged_in(&stage, "bob")?;
    let chart = url(&stage, "team/charts/web");
    for (version, found) in [("0.1.0+build.5", 0), ("0.2.0", 1), (">=0.1.0 <0.3.0", 1), ("", 2), (">=1.1.0-0", 3)] {
        let flags = ["--plain-http", "--version", version];
        let folder = pull(&stage, &bob, &chart, if version.is_empty() { &flags[..1] } else { &flags })?;
        same_bytes(&folder.join(archives[found].file_name().unwrap_or_default()), &archives[found])?;
    }
    let head = stage.client("bob").manifest("team/charts/web", "1.0.0")?.expect_status(200)?;
    let digest = head.header("docker-content-digest").context("no digest")?;
    let folder = pull(&stage, &bob, &format!("{chart}@{digest}"), &["--plain-http"])?;
    let pulled = fs::read_dir(&folder)?.next().context("nothing was pulled")??.path();
    same_bytes(&pulled, &archives[2])?;

    let shown = bob.run(&["show", "chart", &chart, "--plain-http", "--version", "^0"])?;
    ensure!(shown.stdout.contains("version: 0.2.0"), "show chart: {shown:?}");
    let rendered = bob.run(&["template", "it", &chart, "--plain-http", "--version", "~0.1"])?;
    ensure!(rendered.stdout.contains("name: v0.1.0+build.5"), "template: {rendered:?}");
    bob.run(&["registry", "logout", &stage.host()])?;
    bob.fails(&["show", "chart", &chart, "--plain-http"])?.names_the_cause(&["may not see"])?;
    stage.record(helm.client, &alice, &[tried::LOGIN, tried::PUSH, tried::PULL_BY_TAG, tried::PULL_BY_DIGEST])?;
    let further = ["version with +, stored as _", "version ranges from the list of tags", "template", "log out"];
    stage.record(helm.client, &alice, &[tried::INSPECT])?;
    stage.record(helm.client, &alice, &further)?;
    stage.close()
}

#[test]
fn charts_go_there_and_back_with_3() -> Result<()> {
    charts_go_there_and_back(HELM_3)
}

#[test]
fn charts_go_there_and_back_with_4() -> Result<()> {
    charts_go_there_and_back(HELM_4)
}

/// A key of its own, made for this test; the files with the secret and the public half.
fn key(stage: &Stage) -> Result<[String; 2]> {
    // A short path: gpg's agent has a socket there.
    let home = tempfile::Builder::new().prefix("pcg").tempdir_in("/tmp")?;
    let gpg = |arguments: &[&str]| -> Result<Vec<u8>> {
        let mut command = Command::new("gpg");
        let output = command.arg("--homedir").arg(home.path()).args(["--batch", "-q"]).args(arguments).output()?;
        ensure!(output.status.success(), "gpg {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(output.stdout)
    };
    gpg(&["--passphrase", "", "--quick-gen-key", "tester <tester@example.com>", "rsa2048", "sign", "never"])?;
    let files = [stage.text_path("secret.gpg"), stage.text_path("public.gpg")];
    fs::write(&files[0], gpg(&["--export-secret-keys"])?)?;
    fs::write(&files[1], gpg(&["--export"])?)?;
    let _ = Command::new("gpgconf").arg("--homedir").arg(home.path()).args(["--kill", "all"]).status();
    Ok(files)
}

/// The provenance file is a second layer.
fn provenance_comes_with_its_chart(helm: Helm) -> Result<()> {
    let stage = Stage::plain()?;
    let [secret, public] = key(&stage)?;
    let alice = helm.logged_in(&stage, "alice")?;
    let archive = package(&stage, &alice, "2.0.0", &["--sign", "--key", "tester", "--keyring", &secret])?;
    push(&stage, &alice, &archive, &["--plain-http"])?;
    let manifest = stage.client("bob").assert_whole("team/charts/web", "2.0.0")?;
    let types: Vec<_> =
        manifest["layers"].as_array().into_iter().flatten().map(|layer| layer["mediaType"].as_str()).collect();
    ensure!(types.contains(&Some("application/vnd.cncf.helm.chart.provenance.v1.prov")), "{manifest:#}");
    let chart = url(&stage, "team/charts/web");
    let flags = ["--plain-http", "--version", "2.0.0", "--verify", "--keyring", &public];
    let folder = pull(&stage, &alice, &chart, &flags)?;
    same_bytes(&folder.join("web-2.0.0.tgz"), &archive)?;
    same_bytes(&folder.join("web-2.0.0.tgz.prov"), &archive.with_extension("tgz.prov"))?;

    let unsigned = package(&stage, &alice, "2.0.1", &[])?;
    push(&stage, &alice, &unsigned, &["--plain-http"])?;
    let verify = ["pull", &chart, "--plain-http", "--version", "2.0.1", "--verify", "--keyring", &public];
    alice.fails(&verify)?.names_the_cause(&["provenance"])?;
    stage.record(helm.client, &alice, &["provenance file, verified"])?;
    stage.close()
}

#[test]
fn provenance_comes_with_its_chart_with_3() -> Result<()> {
    provenance_comes_with_its_chart(HELM_3)
}

#[test]
fn provenance_comes_with_its_chart_with_4() -> Result<()> {
    provenance_comes_with_its_chart(HELM_4)
}

fn refusals_name_their_cause(helm: Helm) -> Result<()> {
    let stage = Stage::plain()?;
    let alice = helm.logged_in(&stage, "alice")?;
    let archive = package(&stage, &alice, "1.0.0", &[])?;
    push(&stage, &alice, &archive, &["--plain-http"])?;
    let mallory = helm.of(&stage, "mallory")?;
    mallory
        .fails_with(&["registry", "login", "--plain-http", "-u", "alice", "--password-stdin", &stage.host()], "wrong")?
        .names_the_cause(&["the name or the secret is wrong"])?;
    let (bob, carol) = (helm.logged_in(&stage, "bob")?, helm.logged_in(&stage, "carol")?);
    let local = package(&stage, &alice, "1.0.1", &[])?.display().to_string();
    let (charts, chart) = (url(&stage, "team/charts"), url(&stage, "team/charts/web"));
    let push = ["push", &local, &charts, "--plain-http"];
    bob.fails(&push)?.names_the_cause(&["denied"])?;
    carol.fails(&push)?.names_the_cause(&["may not see"])?;
    mallory.fails(&push)?.names_the_cause(&["may not see"])?;
    carol.fails(&["show", "chart", &chart, "--plain-http"])?.names_the_cause(&["may not see"])?;
    // With a version helm asks for the manifest at once, by HEAD, whose answer has no text.
    let exact = ["pull", &chart, "--plain-http", "--version", "1.0.0"];
    carol.fails(&exact)?.names_the_cause(&["not found", "denied"])?;
    let tags = stage.client("bob").send("team/charts/web", "GET", "/v2/team/charts/web/tags/list", &[], Body::None)?;
    ensure!(tags.text().contains(r#"["1.0.0"]"#), "a refused push left a tag: {tags:?}");
    stage.record(helm.client, &mallory, &[tried::WRONG_PASSWORD, tried::DENIED_PULL, tried::DENIED_PUSH])?;
    stage.close()
}

#[test]
fn refusals_name_their_cause_with_3() -> Result<()> {
    refusals_name_their_cause(HELM_3)
}

#[test]
fn refusals_name_their_cause_with_4() -> Result<()> {
    refusals_name_their_cause(HELM_4)
}

/// A chart as large as helm takes: files of at most 5 MiB that do not compress.
fn garbage_of_a_cancelled_push_is_collected(helm: Helm) -> Result<()> {
    let stage = Stage::hasty()?;
    let rng = &mut Rng::announced(helm.client);
    let alice = helm.logged_in(&stage, "alice")?;
    write_chart(&stage.path("web"))?;
    for number in 0..10 {
        fs::write(stage.path(&format!("web/data-{number}")), rng.bytes(5_000_000))?;
    }
    let archive = package(&stage, &alice, "1.0.0", &[])?;
    let (local, charts) = (archive.display().to_string(), url(&stage, "team/charts"));
    stage.cancelled_push(&alice, &["push", &local, &charts, "--plain-http"], "team/charts/web")?;
    push(&stage, &alice, &archive, &["--plain-http"])?;
    let folder = pull(&stage, &alice, &url(&stage, "team/charts/web"), &["--plain-http"])?;
    same_bytes(&folder.join("web-1.0.0.tgz"), &archive)?;
    stage.record(helm.client, &alice, &[tried::CANCELLED_PUSH])?;
    stage.close()
}

#[test]
fn garbage_of_a_cancelled_push_is_collected_with_3() -> Result<()> {
    garbage_of_a_cancelled_push_is_collected(HELM_3)
}

#[test]
fn garbage_of_a_cancelled_push_is_collected_with_4() -> Result<()> {
    garbage_of_a_cancelled_push_is_collected(HELM_4)
}

fn trusts_an_own_authority_over_tls(helm: Helm) -> Result<()> {
    let stage = Stage::tls()?;
    let (host, authority) = (stage.host(), stage.authority()?);
    let login = ["registry", "login", "-u", "alice", "--password-stdin", &host];
    helm.of(&stage, "stranger")?.fails_with(&login, PASSWORD)?.names_the_cause(&["certificate"])?;
    let alice = helm.of(&stage, "alice")?;
    let trust = ["--ca-file", authority.as_str()];
    alice.run_with(&[login.as_slice(), &trust].concat(), PASSWORD)?;
    let archive = package(&stage, &alice, "1.0.0", &[])?;
    push(&stage, &alice, &archive, &trust)?;
    let chart = url(&stage, "team/charts/web");
    let folder = pull(&stage, &alice, &chart, &[trust.as_slice(), &["--version", "^1"]].concat())?;
    same_bytes(&folder.join("web-1.0.0.tgz"), &archive)?;
    alice.run(&[["show", "chart", &chart].as_slice(), &trust].concat())?;
    let moved = [tried::LOGIN, tried::PUSH, tried::PULL_BY_TAG, tried::UNKNOWN_AUTHORITY];
    stage.record(helm.client, &alice, &moved)?;
    stage.close()
}

#[test]
fn trusts_an_own_authority_over_tls_with_3() -> Result<()> {
    trusts_an_own_authority_over_tls(HELM_3)
}

#[test]
fn trusts_an_own_authority_over_tls_with_4() -> Result<()> {
    trusts_an_own_authority_over_tls(HELM_4)
}
