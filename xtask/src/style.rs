//! The rules of CONTRIBUTING.md that a program can check.

use std::path::Path;

use anyhow::{Result, bail};

use crate::crate_rules;
use crate::sources::{self, Source};

/// Lines of code that a file may have; blank lines and comments do not count.
const MAX_LINES: usize = 600;

/// Fails with every rule that is broken.
pub fn check(root: &Path) -> Result<()> {
    let mut problems = Vec::new();
    for source in sources::all(root)? {
        everywhere(&source, &mut problems);
        if source.path.ends_with(".rs") {
            rust(&source, &mut problems);
        }
        if source.path.ends_with(".md") {
            links(root, &source, &mut problems);
        }
    }
    crate_rules::check(root, &mut problems)?;
    if problems.is_empty() {
        return Ok(());
    }
    bail!("{} problems of style\n{}", problems.len(), problems.join("\n"))
}

/// Paths of somebody's machine and notes to oneself belong into no file.
fn everywhere(source: &Source, problems: &mut Vec<String>) {
    const FORBIDDEN: [&str; 5] =
        [concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X:")];
    if source.path == "Cargo.lock" {
        return;
    }
    for (number, line) in source.text.lines().enumerate() {
        for word in FORBIDDEN.iter().filter(|word| line.contains(*word)) {
            problems.push(format!("{}:{}: `{word}`", source.path, number + 1));
        }
    }
}

fn rust(source: &Source, problems: &mut Vec<String>) {
    let code = source.text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("//")).count();
    if code > MAX_LINES {
        problems.push(format!("{}: {code} lines of code, more than {MAX_LINES}", source.path));
    }
    for name in source.path.trim_end_matches(".rs").split('/') {
        if matches!(name, "utils" | "util" | "helpers" | "misc") {
            problems.push(format!("{}: a name that says nothing: `{name}`", source.path));
        }
    }
    for (number, line) in product_lines(source) {
        let broken = if line.contains("Access::system(") && !may_be_the_system(&source.path) {
            "`Access::system` outside of server::tasks"
        } else if ["Service {", "Service;", "Manager {", "Manager;"].iter().any(|end| is_struct(line, end)) {
            "a struct that is named after doing, not after what it is"
        } else {
            continue;
        };
        problems.push(format!("{}:{number}: {broken}", source.path));
    }
}

/// Background tasks act for nobody; the constructor itself is in `policy`.
fn may_be_the_system(path: &str) -> bool {
    path.starts_with("crates/server/src/tasks") || path.starts_with("crates/policy/src/")
}

/// Code that is not for tests, with line numbers: test modules are at the foot of a file, or in a file of their own.
fn product_lines(source: &Source) -> impl Iterator<Item = (usize, &str)> {
    let for_tests = source.path.starts_with("tests/")
        || source.path.starts_with("xtask/")
        || source.path.starts_with("crates/testkit/")
        || source.path.contains("/tests/")
        || source.path.ends_with("/tests.rs");
    source
        .text
        .lines()
        .enumerate()
        .take_while(|(_, line)| line.trim() != "#[cfg(test)]")
        .filter(move |(_, line)| !for_tests && !line.trim_start().starts_with("//"))
        .map(|(number, line)| (number + 1, line))
}

fn is_struct(line: &str, end: &str) -> bool {
    line.trim_start().trim_start_matches("pub ").starts_with("struct ") && line.trim_end().ends_with(end)
}

/// Every relative link of a page leads to a file.
fn links(root: &Path, source: &Source, problems: &mut Vec<String>) {
    let folder = root.join(&source.path);
    let Some(folder) = folder.parent() else { return };
    for (_, rest) in source.text.match_indices("](").map(|(at, found)| source.text.split_at(at + found.len())) {
        let target = rest.split([')', '#', ' ']).next().unwrap_or("");
        if !target.is_empty()
            && !target.contains("://")
            && !target.starts_with("mailto:")
            && !folder.join(target).exists()
        {
            problems.push(format!("{}: a link leads nowhere: {target}", source.path));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(path: &str, text: &str) -> Vec<String> {
        let source = Source { path: path.to_owned(), text: text.to_owned() };
        let mut problems = Vec::new();
        everywhere(&source, &mut problems);
        rust(&source, &mut problems);
        problems
    }

    #[test]
    fn rules_that_are_broken_are_named() {
        assert_eq!(problems("crates/a/src/b.rs", &"x\n".repeat(601)).len(), 1);
        assert_eq!(problems("crates/a/src/b.rs", &"x\n\n// y\n".repeat(600)), [""; 0]);
        assert_eq!(problems("crates/a/src/utils/b.rs", "").len(), 1);
        assert_eq!(problems("crates/a/src/b.rs", "let a = Access::system(x);").len(), 1);
        assert_eq!(problems("crates/server/src/tasks/gc.rs", "let a = Access::system(x);"), [""; 0]);
        assert_eq!(problems("crates/a/src/b.rs", "#[cfg(test)]\nlet a = Access::system(x);"), [""; 0]);
        assert_eq!(problems("crates/a/src/b.rs", "pub struct PushService {").len(), 1);
        assert_eq!(problems("a.rs", concat!("// TO", "DO later")).len(), 1);
    }
}
