//! The targets under libFuzzer. `PORTCULLIS_FUZZ_TARGET` names the one that runs: one program for all of them is linked
//! once. `cargo xtask fuzz` builds and runs it.

#![no_main]

use std::sync::OnceLock;

static TARGET: OnceLock<fn(&[u8])> = OnceLock::new();

fn chosen() -> fn(&[u8]) {
    let name = std::env::var("PORTCULLIS_FUZZ_TARGET").unwrap_or_default();
    let target = fuzz::TARGETS.iter().find(|target| target.name == name);
    target.unwrap_or_else(|| panic!("PORTCULLIS_FUZZ_TARGET names no target: {name:?}")).run
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| TARGET.get_or_init(chosen)(data));
