//! What the tests of the built binary share. Each file under `tests/` is one part of `cargo xtask test`, which builds the
//! binary, installs the clients and puts them in `PATH`.

pub mod block_disk;
mod buildkit;
mod cancelled;
mod containerd;
pub mod crash;
mod daemon;
pub mod disk_scene;
mod docker_engine;
mod fault_disk;
mod fault_plan;
mod guide;
mod loop_disk;
pub mod moments;
pub mod proxy;
pub mod report;
mod stage;
pub mod strace;
mod tool;

pub use buildkit::BuildKit;
pub use containerd::{Containerd, Line};
pub use daemon::Daemon;
pub use docker_engine::DockerEngine;
pub use fault_disk::FaultDisk;
pub use fault_plan::{CHANGING, EVERYTHING, Fault};
pub use guide::{Guide, Shell};
pub use loop_disk::{BoundDisk, LoopDisk};
pub use report::{Transport, tried};
pub use stage::{PASSWORD, Stage};
pub use tool::{Ran, Tool};
