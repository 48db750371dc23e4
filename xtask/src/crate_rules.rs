//! Which crate may use which: the table of ARCHITECTURE.md, checked against what cargo says.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::process::{cargo, output};

/// A crate, the crates of ours that it may use, and crates of others that it must not.
struct Rule {
    name: &'static str,
    ours: &'static [&'static str],
    never: &'static [&'static str],
}

const SQL: &[&str] = &["rusqlite", "tokio-postgres"];
const PURE: &[&str] = &["tokio", "rusqlite", "tokio-postgres", "axum", "hyper", "rustix", "http", "clap"];

const RULES: &[Rule] = &[
    Rule { name: "oci", ours: &[], never: PURE },
    Rule { name: "policy", ours: &["oci"], never: PURE },
    Rule { name: "blobs", ours: &["oci"], never: &["rusqlite", "tokio-postgres", "axum", "hyper"] },
    Rule { name: "meta", ours: &["oci"], never: &["axum", "hyper"] },
    Rule {
        name: "registry",
        ours: &["oci", "policy", "blobs", "meta"],
        never: &["axum", "hyper", "rusqlite", "tokio-postgres", "clap"],
    },
    Rule { name: "api", ours: &["oci"], never: &["tokio", "rusqlite", "axum", "hyper", "clap"] },
    Rule { name: "server", ours: &["oci", "policy", "blobs", "meta", "registry", "api"], never: SQL },
    Rule { name: "portcullis", ours: &["api", "oci", "server"], never: SQL },
];

/// Development only: they may use anything, and nothing else may use them.
const DEVELOPMENT: [&str; 5] = ["testdb", "testkit", "portcullis-tests", "portcullis-fuzz", "xtask"];

/// Adds what breaks a rule to `problems`.
pub fn check(root: &Path, problems: &mut Vec<String>) -> Result<()> {
    let text = output(&mut cargo(root, &["metadata", "--no-deps", "--format-version", "1", "--offline"]))?;
    let metadata: Value = serde_json::from_str(&text)?;
    let packages = metadata["packages"].as_array().context("cargo metadata lists no packages")?;
    let ours: Vec<&str> = packages.iter().filter_map(|package| package["name"].as_str()).collect();
    ensure!(ours.len() == RULES.len() + DEVELOPMENT.len(), "crates without a rule: {ours:?}");
    for package in packages {
        let name = package["name"].as_str().unwrap_or_default();
        let dependencies = package["dependencies"].as_array().context("a package lists no dependencies")?;
        // `kind` is null for those that are not for tests or build scripts only.
        let used: Vec<&str> = dependencies
            .iter()
            .filter(|dependency| dependency["kind"].is_null())
            .filter_map(|dependency| dependency["name"].as_str())
            .collect();
        problems.extend(broken(name, &used, &ours));
    }
    Ok(())
}

fn broken(name: &str, used: &[&str], ours: &[&str]) -> Vec<String> {
    let mut problems = Vec::new();
    let Some(rule) = RULES.iter().find(|rule| rule.name == name) else {
        if !DEVELOPMENT.contains(&name) {
            problems.push(format!("{name} is in no rule of ARCHITECTURE.md"));
        }
        return problems;
    };
    for dependency in used {
        if rule.never.contains(dependency) || (ours.contains(dependency) && !rule.ours.contains(dependency)) {
            problems.push(format!("{name} must not use {dependency} (ARCHITECTURE.md)"));
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_breaks_the_table_is_named() {
        let ours = ["oci", "policy", "meta", "server", "testkit"];
        assert_eq!(broken("policy", &["oci", "serde"], &ours), [""; 0]);
        assert_eq!(broken("policy", &["meta"], &ours).len(), 1);
        assert_eq!(broken("server", &["rusqlite", "testkit"], &ours).len(), 2);
        assert_eq!(broken("strange", &[], &ours).len(), 1);
        assert_eq!(broken("testkit", &["server"], &ours), [""; 0]);
    }
}
