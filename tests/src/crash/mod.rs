//! Traffic that remembers what it was promised, for servers that are killed in the middle of it.
//!
//! Each worker has a repository of its own, so that it knows what must be there: what was acknowledged is certain, what was
//! in flight when the server died is one of several possibilities until somebody looks. Contents are shared between
//! repositories, so that deletes and collections of one meet pushes of another.

mod model;
mod script;
mod traffic;
mod worker;

pub use model::Repository;
pub use script::Script;
pub use traffic::{End, Totals, Traffic};

/// A collection each second, which takes what is not referenced after ten: longer than any push here, and short enough that
/// collections have something to take. Every kill leaves uploads behind, which expire.
pub const CONFIG: &str = "\
[gc]
interval = \"1s\"
grace = \"10s\"

[upload]
idle = \"20s\"

[limits]
uploads_per_subject = 10000
";
