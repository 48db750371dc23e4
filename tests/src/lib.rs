//! What the tests of the built binary share. Each file under `tests/` is one part of `cargo xtask test`, which builds the
//! binary, installs the clients and puts them in `PATH`.

mod docker_engine;
mod stage;
mod tool;

pub use docker_engine::DockerEngine;
pub use stage::{PASSWORD, Stage};
pub use tool::{Ran, Tool};
