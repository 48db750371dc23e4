//! What the tests of the built binary share. Each file under `tests/` is one part of `cargo xtask test`, which builds the
//! binary, installs the clients and puts them in `PATH`.

pub mod crash;
mod docker_engine;
mod guide;
mod loop_disk;
mod stage;
mod tool;

pub use docker_engine::DockerEngine;
pub use guide::{Guide, Shell};
pub use loop_disk::LoopDisk;
pub use stage::{PASSWORD, Stage};
pub use tool::{Ran, Tool};
