//! The official conformance suite (opencontainers/distribution-spec, `conformance`), judged from its `junit.xml`: the
//! suite's own exit state hides skips.

use std::fs;

use anyhow::{Context, Result, ensure};
use testkit::{Options, Server};

/// Results that the strictest form has when nothing is left out.
const STRICTEST: usize = 830;

struct Form<'a> {
    name: &'a str,
    config: &'a str,
    environment: &'a [(&'a str, &'a str)],
}

/// Status and name of every test that did not pass, and the number of those that did.
fn judge(junit: &str) -> Result<(usize, Vec<String>)> {
    let document = roxmltree::Document::parse(junit)?;
    let suite =
        document.descendants().find(|node| node.has_tag_name("testsuite")).context("junit.xml has no testsuite")?;
    let mut passed = 0;
    let mut others = Vec::new();
    for count in ["failures", "errors", "skipped", "disabled"] {
        match suite.attribute(count).unwrap_or("0") {
            "0" => {}
            number => others.push(format!("{number} {count}")),
        }
    }
    for case in suite.descendants().filter(|node| node.has_tag_name("testcase")) {
        match case.attribute("status") {
            Some("passed") => passed += 1,
            status => {
                let text = |tag| case.children().find(|node| node.has_tag_name(tag)).and_then(|node| node.text());
                let why = text("system-out").or_else(|| text("system-err")).unwrap_or("").trim().lines().next();
                let name = case.attribute("name").unwrap_or("");
                others.push(format!("{}: {name}: {}", status.unwrap_or("no status"), why.unwrap_or("")));
            }
        }
    }
    Ok((passed, others))
}

/// Runs the suite; how many tests passed, all of them.
fn run(form: &Form<'_>) -> Result<usize> {
    let server = Server::start(Options { config: form.config.to_owned(), ..Options::default() })?;
    let results = tempfile::tempdir()?;
    // A user who may do everything, but no administrator.
    server.add_user("conformance", "a long password")?;
    server.grant("user:conformance", "maintainer", "conf/**")?;
    let output = std::process::Command::new("conformance")
        .current_dir(results.path())
        .env("OCI_REGISTRY", server.host())
        .env("OCI_TLS", "disabled")
        .env("OCI_REPO1", "conf/one")
        .env("OCI_REPO2", "conf/two")
        .env("OCI_USERNAME", "conformance")
        .env("OCI_PASSWORD", "a long password")
        .env("OCI_RESULTS_DIR", results.path())
        .envs(form.environment.iter().copied())
        .output()
        .context("cannot start conformance; `cargo xtask test --only conformance` installs it")?;
    let junit = fs::read_to_string(results.path().join("junit.xml"))
        .with_context(|| format!("no results: {}", String::from_utf8_lossy(&output.stderr)))?;
    let (passed, others) = judge(&junit)?;
    eprintln!("{}: {passed} passed, {} did not", form.name, others.len());
    ensure!(others.is_empty(), "{} ({passed} passed):\n{}", form.name, others.join("\n"));
    ensure!(output.status.success(), "{}: the suite ended with {}", form.name, output.status);
    server.assert_clean()?;
    Ok(passed)
}

const DEV: [(&str, &str); 2] = [("OCI_VERSION", "dev"), ("OCI_DATA_SPARSE", "true")];

#[test]
fn the_strictest_form_over_bearer() -> Result<()> {
    let config = "[content]\nsparse_images = true\n";
    let passed = run(&Form { name: "strictest form, Bearer", config, environment: &DEV })?;
    ensure!(passed >= STRICTEST, "only {passed} results");
    Ok(())
}

#[test]
fn the_strictest_form_over_basic() -> Result<()> {
    let config = "[content]\nsparse_images = true\n\n[auth]\nchallenge = \"basic\"\n";
    let passed = run(&Form { name: "strictest form, Basic", config, environment: &DEV })?;
    ensure!(passed >= STRICTEST, "only {passed} results");
    Ok(())
}

#[test]
fn the_default_configuration() -> Result<()> {
    let environment = [("OCI_VERSION", "dev"), ("OCI_DATA_SPARSE", "false")];
    let passed = run(&Form { name: "default configuration", config: "", environment: &environment })?;
    ensure!(passed >= STRICTEST - 60, "only {passed} results");
    Ok(())
}

#[test]
fn a_skip_is_no_pass() -> Result<()> {
    let junit = r#"<testsuites><testsuite failures="0" errors="0" skipped="1" disabled="0">
        <testcase name="a" status="passed"/>
        <testcase name="b" status="skipped"><system-out>not supported</system-out></testcase>
    </testsuite></testsuites>"#;
    let (passed, others) = judge(junit)?;
    ensure!(passed == 1 && others == ["1 skipped", "skipped: b: not supported"], "{others:?}");
    Ok(())
}
