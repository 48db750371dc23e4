//! What the tests of the built binary share. Each file under `tests/` is one part of `cargo xtask test`, which builds the
//! binary, installs the clients and puts them in `PATH`.

mod buildkit;
mod cancelled;
pub mod crash;
mod docker_engine;
mod loop_disk;
pub mod report;
mod stage;
mod tool;

pub use buildkit::BuildKit;
pub use docker_engine::DockerEngine;
pub use loop_disk::LoopDisk;
pub use report::{Transport, tried};
pub use stage::{PASSWORD, Stage};
pub use tool::{Ran, Tool};
