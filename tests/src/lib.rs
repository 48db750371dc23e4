//! What the tests of the built binary share. Each file under `tests/` is one part of `cargo xtask test`, which builds the
//! binary, installs the clients and puts them in `PATH`.

pub mod crash;
pub mod disk_scene;
mod docker_engine;
mod fault_disk;
mod loop_disk;
mod stage;
mod tool;

pub use docker_engine::DockerEngine;
pub use fault_disk::{CHANGING, EVERYTHING, Fault, FaultDisk};
pub use loop_disk::{BoundDisk, LoopDisk};
pub use stage::{PASSWORD, Stage};
pub use tool::{Ran, Tool};
