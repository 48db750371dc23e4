//! The configuration: a file, then, behind a line `---`, variables of the environment, one `NAME=VALUE` each line.

use std::collections::BTreeMap;
use std::path::Path;

use server::config::{Config, Environment, Flags, Problem, Raw};

use crate::Input;

// security: B-18
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let mut file = Vec::new();
    while !input.is_empty() {
        let line = input.line();
        if line == b"---" {
            break;
        }
        file.extend_from_slice(line);
        file.push(b'\n');
    }
    let mut variables = BTreeMap::new();
    while !input.is_empty() {
        if let Some((name, value)) = input.text_line().split_once('=') {
            variables.insert(name.to_owned(), value.to_owned());
        }
    }
    // Which file is read is for this target to say; other files than those that it makes are not.
    variables.retain(|name, _| !name.to_ascii_lowercase().contains("_file") && name != "PORTCULLIS_CONFIG");
    if file.windows(5).any(|word| word == b"_file") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("portcullis.toml");
    let environment = Environment(variables);
    let found = load(&path, &file, &environment);
    match &found {
        Ok(config) => accepted(config, &path),
        Err(problems) => {
            assert!(!problems.is_empty());
            for problem in problems {
                assert!(!problem.message.is_empty() && problem.to_string().len() < 20_000, "{problem}");
            }
        }
    }
    one_more(&path, &file, &environment, found.err().unwrap_or_default().len());
}

fn load(path: &Path, file: &[u8], environment: &Environment) -> Result<Config, Vec<Problem>> {
    std::fs::write(path, file).unwrap();
    let flags = Flags { config: Some(path.to_owned()), ..Flags::default() };
    Raw::gather(&flags, environment).check()
}

/// What is in force, written as a file, is in force again.
fn accepted(config: &Config, path: &Path) {
    let again = |config: &Config| {
        // Secrets are not shown; this one has one value only.
        let shown = config.show().replace("\"(not shown)\"", "\"sqlite\"");
        load(path, shown.as_bytes(), &Environment(BTreeMap::new()))
            .unwrap_or_else(|problems| panic!("{problems:?}\n{shown}"))
    };
    let second = again(config);
    let third = again(&second);
    let sections = |config: &Config| {
        format!(
            "{:?} {:?} {:?} {:?}",
            config.server,
            config.auth,
            config.limits,
            (&config.log, &config.gc, &config.admin)
        )
    };
    assert_eq!(sections(&second), sections(config));
    // Paths are relative to the file only once.
    let values = |config: &Config| config.settings().iter().map(|s| (s.key, s.value.clone())).collect::<Vec<_>>();
    assert_eq!(values(&third), values(&second));
    let _ = config.refuse_unsafe();
    assert!(!config.server.urls().is_empty() || config.server.listen.port() == 0);
}

/// A setting that does not exist is one problem more, whatever else is wrong.
fn one_more(path: &Path, file: &[u8], environment: &Environment, before: usize) {
    let mut longer = b"nonsense_of_the_target = 1\n".to_vec();
    longer.extend_from_slice(file);
    let problems = load(path, &longer, environment).err().unwrap_or_default();
    let readable = std::str::from_utf8(file).is_ok() && file.len() < 1 << 19;
    let syntax = problems.iter().any(|problem| problem.key.is_empty());
    if readable && !syntax {
        assert_eq!(problems.len(), before + 1, "{problems:?}");
        assert!(problems.iter().any(|problem| problem.key == "nonsense_of_the_target"));
    }
}
