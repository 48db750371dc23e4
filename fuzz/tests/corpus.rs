//! Every target over its inputs: what was written by hand, what once failed, and what the fuzzer found worth keeping.

use std::path::Path;

use fuzz::TARGETS;

// Its other user is the task that runs the fuzzer.
#[path = "../../xtask/src/packed.rs"]
mod packed;

fn inputs(folder: &str, target: &str) -> Vec<Vec<u8>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder).join(format!("{target}.txt"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    packed::read(&text).unwrap_or_else(|line| panic!("{}:{line}: no input", path.display()))
}

fn run(name: &str) {
    let Some(target) = TARGETS.iter().find(|target| target.name == name) else { panic!("no target {name}") };
    let seeds = inputs("seeds", name);
    assert!(seeds.len() >= 3, "{name} has too few seeds");
    (target.run)(b"");
    for input in seeds.iter().chain(&inputs("corpus", name)) {
        // Tells which one it was, where one panics.
        eprintln!("\"{}\"", input.escape_ascii());
        (target.run)(input);
    }
}

macro_rules! tests {
    ($($name:ident)+) => {
        $(#[test]
        fn $name() {
            run(stringify!($name));
        })+

        #[test]
        fn none_is_left_out() {
            assert_eq!(TARGETS.iter().map(|target| target.name).collect::<Vec<_>>(), [$(stringify!($name)),+]);
        }
    };
}

tests! {
    admin authorization conditional config digest form framing host manifest media_type pattern query range reference
    request route scope token upload value
}
