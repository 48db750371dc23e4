//! The files of the project, and the tests in them.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::process::output;

/// A file of the project.
pub struct Source {
    /// Path below the root, with `/`.
    pub path: String,
    /// Its text.
    pub text: String,
}

/// Every text file that is tracked or could be.
pub fn all(root: &Path) -> Result<Vec<Source>> {
    let mut list = Command::new("git");
    list.current_dir(root).args(["ls-files", "--cached", "--others", "--exclude-standard", "-z"]);
    let mut sources = Vec::new();
    for path in output(&mut list)?.split('\0').filter(|path| !path.is_empty()) {
        // Deleted and binary files have no text.
        if let Ok(text) = std::fs::read_to_string(root.join(path)) {
            sources.push(Source { path: path.to_owned(), text });
        }
    }
    sources.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(sources)
}

/// The Rust files.
pub fn rust(root: &Path) -> Result<Vec<Source>> {
    Ok(all(root)?.into_iter().filter(|source| source.path.ends_with(".rs")).collect())
}

/// The name of the function that a line begins.
pub fn function_name(line: &str) -> Option<&str> {
    let line = line.trim_start().trim_start_matches("pub ").trim_start_matches("async ");
    let name = line.strip_prefix("fn ")?;
    Some(name.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next().unwrap_or(name))
}

/// What follows the slashes of a line that is a comment.
pub fn comment(line: &str) -> Option<&str> {
    Some(line.trim_start().strip_prefix("//")?.trim_start_matches(['/', '!']).trim())
}

/// A cell of a table: the test and where it is.
pub fn test_cell(name: &str, path: &str) -> String {
    format!("`{name}` ({path})")
}

/// Fails unless the file has this text; says how to mend it.
pub fn assert_generated(root: &Path, path: &str, text: &str) -> Result<()> {
    let found = std::fs::read_to_string(root.join(path)).unwrap_or_default();
    anyhow::ensure!(found == text, "{path} is not up to date: run `cargo xtask generate`");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_and_comments_are_found() {
        assert_eq!(function_name("    pub async fn q01_abc(world: &World) {"), Some("q01_abc"));
        assert_eq!(function_name("fn b() -> Result<()> {"), Some("b"));
        assert_eq!(function_name("let fn_a = 1;"), None);
        assert_eq!(comment("    /// security: A-01"), Some("security: A-01"));
        assert_eq!(comment("let a = 1; // b"), None);
    }
}
