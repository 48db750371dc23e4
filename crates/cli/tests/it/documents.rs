//! Pages that are made from the program are what the program says. `UPDATE=1` in the environment rewrites them.

use std::path::Path;

use crate::harness::{Sandbox, read};

#[track_caller]
fn page_is(name: &str, arguments: &[&str]) {
    let text = Sandbox::new().run(arguments).succeeded().stdout;
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference").join(name);
    if std::env::var_os("UPDATE").is_some_and(|value| value == "1") {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        return;
    }
    let there = if path.exists() { read(&path) } else { String::new() };
    assert!(there == text, "docs/reference/{name} is not what the program says: run the tests with UPDATE=1");
}

#[test]
fn commands() {
    page_is("commands.md", &["man", "--markdown"]);
}

#[test]
fn configuration() {
    page_is("configuration.md", &["config", "reference"]);
}

#[test]
fn errors() {
    page_is("errors.md", &["man", "--errors"]);
}
