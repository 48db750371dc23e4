//! Is each authorization call needed? Every one of them is replaced, one at a time, by one that allows everything, in a copy
//! of the sources; the permission matrix has to fail each time. Takes some minutes: part of `cargo xtask verify`.
//!
//! The product has no switch that weakens authorization, so the copy is changed and built: a work tree of git under
//! `target/mutation`, with a target directory of its own. The copy gets three more functions in `policy`, which decide by
//! rules that grant everything to whoever asks; a mutant calls one of them in place of the real one.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

/// Where decisions are asked for. `policy` makes them and is not mutated; tests are not product.
const SOURCES: [&str; 2] = ["crates/server/src", "crates/registry/src"];

/// The functions that decide.
const DECISIONS: [&str; 3] = ["authorize", "authorize_catalog", "authorize_admin"];

/// Files whose calls are left as they are, and why nothing would be seen if they were not.
const LEFT: [(&str, &str); 1] = [(
    "crates/server/src/bootstrap.rs",
    "it shows the credential of the socket itself, before anything is listened on",
)];

/// The functions that the copy of `policy` gets.
const ALLOW_ALL: &str = r#"
mod mutation {
    use std::sync::Arc;

    use oci::{RepositoryName, Timestamp};

    use crate::*;

    fn anything(caller: &Caller) -> (Arc<Rules>, Arc<Caller>) {
        let id = match caller.identity {
            Identity::Subject(id) => id,
            Identity::Anonymous => SubjectId(i64::MAX),
        };
        let subject = Subject {
            id,
            name: "mutant".into(),
            kind: SubjectKind::User,
            administrator: true,
            disabled: false,
            epoch: 0,
            expires_at: None,
        };
        let repository = RepositoryPattern::parse("**").expect("the pattern of everything");
        let grant = Grant {
            id: 0,
            grantee: Grantee::Subject(id),
            verbs: Verbs::ALL,
            repository,
            tags: Vec::new(),
            expires_at: None,
        };
        let caller = Caller { identity: Identity::Subject(id), credential: Credential::Basic, ..caller.clone() };
        (Arc::new(Rules::new(0, vec![subject], vec![grant])), Arc::new(caller))
    }

    /// Allows everything.
    pub fn allow_authorize(
        _: &Arc<Rules>,
        caller: &Arc<Caller>,
        name: &RepositoryName,
        need: Need<'_>,
        now: Timestamp,
    ) -> Result<Access, Refusal> {
        let (rules, caller) = anything(caller);
        authorize(&rules, &caller, name, need, now)
    }

    /// Allows everything.
    pub fn allow_authorize_catalog(
        _: &Arc<Rules>,
        caller: &Arc<Caller>,
        now: Timestamp,
    ) -> Result<CatalogAccess, Refusal> {
        let (rules, caller) = anything(caller);
        authorize_catalog(&rules, &caller, now)
    }

    /// Allows everything.
    pub fn allow_authorize_admin(
        _: &Arc<Rules>,
        caller: &Arc<Caller>,
        now: Timestamp,
    ) -> Result<AdminAccess, Refusal> {
        let (rules, caller) = anything(caller);
        authorize_admin(&rules, &caller, now)
    }
}
pub use mutation::{allow_authorize, allow_authorize_admin, allow_authorize_catalog};
"#;

/// One call that was taken out.
#[derive(Clone, Debug)]
pub struct Mutant {
    /// The file, from the root of the project.
    pub file: PathBuf,
    /// The line of the call, counted from 1.
    pub line: usize,
    /// The function that is called there.
    pub decision: &'static str,
    /// What the matrix said.
    pub verdict: Verdict,
    /// How long that took.
    pub took: Duration,
}

/// What the matrix said about a mutant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It failed, as it should.
    Caught,
    /// It passed: nobody would notice if the call were deleted.
    Survived,
    /// The mutant does not compile, so it says nothing.
    Broken,
}

/// Runs the matrix on the unchanged copy, which has to pass, then on every mutant, and returns all of them with their
/// verdicts. Prints a line for each. The caller fails if any is not [`Verdict::Caught`].
///
/// `root` is the root of the project; what is committed there at HEAD is tested.
pub fn run(root: &Path) -> Result<Vec<Mutant>> {
    let base = root.join("target/mutation");
    let tree = base.join("tree");
    let _copy = Copy::of_head(root, &tree)?;
    let library = tree.join("crates/policy/src/lib.rs");
    let text = fs::read_to_string(&library).with_context(|| format!("reading {}", library.display()))?;
    fs::write(&library, text + ALLOW_ALL)?;

    println!("mutation: building and running the matrix without a change");
    ensure!(verdict(&tree, &base)? == Verdict::Survived, "the matrix fails on the unchanged sources");
    let mut mutants = Vec::new();
    for site in sites(&tree)? {
        if let Some((_, why)) = LEFT.iter().find(|(file, _)| Path::new(file) == site.file) {
            println!("mutation: {}:{} is left: {why}", site.file.display(), site.line);
            continue;
        }
        let path = tree.join(&site.file);
        let original = fs::read_to_string(&path)?;
        fs::write(&path, site.mutate(&original))?;
        let start = Instant::now();
        let verdict = verdict(&tree, &base);
        fs::write(&path, original)?;
        let mutant = Mutant {
            file: site.file,
            line: site.line,
            decision: site.decision,
            verdict: verdict?,
            took: start.elapsed(),
        };
        println!("{}", mutant.describe());
        mutants.push(mutant);
    }
    ensure!(!mutants.is_empty(), "no call of {} was found in {}", DECISIONS.join(", "), SOURCES.join(", "));
    Ok(mutants)
}

impl Mutant {
    /// One line for people.
    pub fn describe(&self) -> String {
        let verdict = match self.verdict {
            Verdict::Caught => "caught",
            Verdict::Survived => "SURVIVED",
            Verdict::Broken => "DOES NOT COMPILE",
        };
        let seconds = self.took.as_secs();
        format!("mutation: {}:{} without {}: {verdict} ({seconds} s)", self.file.display(), self.line, self.decision)
    }
}

/// A place where a decision is asked for.
#[derive(Debug)]
struct Site {
    file: PathBuf,
    line: usize,
    /// Where the name of the function begins in the file.
    start: usize,
    decision: &'static str,
}

impl Site {
    /// The text of the file with the name replaced by that of the function that allows everything, wherever it was imported
    /// from.
    fn mutate(&self, text: &str) -> String {
        let mut before = &text[..self.start];
        before = before.strip_suffix("policy::").unwrap_or(before);
        format!("{before}policy::allow_{}{}", self.decision, &text[self.start + self.decision.len()..])
    }
}

fn sites(tree: &Path) -> Result<Vec<Site>> {
    let mut files = Vec::new();
    for source in SOURCES {
        collect(&tree.join(source), &mut files)?;
    }
    files.sort();
    let mut sites = Vec::new();
    for path in files {
        let text = fs::read_to_string(&path)?;
        let file = path.strip_prefix(tree)?.to_owned();
        sites.extend(calls(product(&text)).into_iter().map(|(start, decision)| Site {
            file: file.clone(),
            line: text[..start].lines().count().max(1),
            start,
            decision,
        }));
    }
    Ok(sites)
}

fn collect(directory: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(directory).with_context(|| format!("reading {}", directory.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "rs")
            && path.file_name().is_none_or(|name| name != "tests.rs")
        {
            files.push(path);
        }
    }
    Ok(())
}

/// What comes before the tests at the foot of a file.
fn product(text: &str) -> &str {
    text.find("\n#[cfg(test)]\nmod ").map_or(text, |end| &text[..end])
}

/// The calls in a text: a name of [`DECISIONS`] as a whole word in front of `(`, outside of comments, and not as a method or
/// in a definition.
fn calls(text: &str) -> Vec<(usize, &'static str)> {
    let mut found = Vec::new();
    let mut offset = 0;
    for line in text.split_inclusive('\n') {
        let code = line.split("//").next().unwrap_or_default();
        for decision in DECISIONS {
            let call = format!("{decision}(");
            for (at, _) in code.match_indices(&call) {
                let before = &code[..at];
                let part_of_a_word =
                    before.chars().next_back().is_some_and(|c| c.is_alphanumeric() || c == '_' || c == '.');
                let defined = before.trim_end().ends_with("fn");
                let another = before.ends_with("::") && !before.ends_with("policy::");
                if !part_of_a_word && !defined && !another {
                    found.push((offset + at, decision));
                }
            }
        }
        offset += line.len();
    }
    found.sort_unstable();
    found
}

/// Builds the copy and runs the matrix in it.
fn verdict(tree: &Path, base: &Path) -> Result<Verdict> {
    let log = fs::File::create(base.join("last.log"))?;
    let cargo = |arguments: &[&str]| -> Result<bool> {
        let status = Command::new(env!("CARGO"))
            .args(arguments)
            .current_dir(tree)
            .env("CARGO_TARGET_DIR", base.join("target"))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log.try_clone()?)
            .status()
            .context("starting cargo")?;
        Ok(status.success())
    };
    let tests = ["test", "--quiet", "--offline", "--package", "server", "--test", "it"];
    if !cargo(&[&tests[..], &["--no-run"]].concat())? {
        return Ok(Verdict::Broken);
    }
    let passed = cargo(&[&tests[..], &["matrix::"]].concat())?;
    Ok(if passed { Verdict::Survived } else { Verdict::Caught })
}

/// A work tree of git, removed when this is dropped. What was built stays, for the next time.
struct Copy {
    root: PathBuf,
    tree: PathBuf,
}

impl Copy {
    fn of_head(root: &Path, tree: &Path) -> Result<Self> {
        let copy = Self { root: root.to_owned(), tree: tree.to_owned() };
        copy.remove();
        fs::create_dir_all(tree.parent().unwrap_or(root))?;
        let added = git(root).args(["worktree", "add", "--detach", "--force"]).arg(tree).arg("HEAD").output()?;
        if !added.status.success() {
            bail!("git worktree add: {}", String::from_utf8_lossy(&added.stderr).trim());
        }
        Ok(copy)
    }

    fn remove(&self) {
        let _ = git(&self.root).args(["worktree", "remove", "--force"]).arg(&self.tree).output();
        let _ = fs::remove_dir_all(&self.tree);
        let _ = git(&self.root).args(["worktree", "prune"]).output();
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        self.remove();
    }
}

fn git(root: &Path) -> Command {
    let mut command = Command::new("git");
    command.current_dir(root).stdin(Stdio::null());
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_calls_and_nothing_else() {
        let text = "\
use policy::authorize;
// authorize(in a comment)
fn authorize_admin(x: u8) {}
let a = authorize(&rules)?;
let b = policy::authorize_catalog(&rules);
let c = state.authorize(x) + reauthorize(y) + other::authorize(z);
";
        let found: Vec<_> =
            calls(text).into_iter().map(|(at, decision)| (text[..at].lines().count(), decision)).collect();
        assert_eq!(found, [(4, "authorize"), (5, "authorize_catalog")]);
        assert_eq!(product("a\n#[cfg(test)]\nmod tests {}"), "a");
    }

    #[test]
    fn replaces_one_call() {
        let text = "let b = policy::authorize_catalog(&rules); authorize(x)";
        let sites = calls(text);
        let site = |n: usize| Site { file: PathBuf::new(), line: 1, start: sites[n].0, decision: sites[n].1 };
        assert_eq!(site(0).mutate(text), "let b = policy::allow_authorize_catalog(&rules); authorize(x)");
        assert_eq!(site(1).mutate(text), "let b = policy::authorize_catalog(&rules); policy::allow_authorize(x)");
    }
}
