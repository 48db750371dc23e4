//! The permission matrix: asks the real routers for every cell of `matrix.txt`, which is written by hand.
//!
//! A route of the distribution API without a line does not compile ([`lines_of`]) or fails (`every_route_has_its_lines`);
//! one of the admin API without a line fails.

mod admin_api;
mod distribution;
mod table;

use table::{Row, Table};

/// The whole file.
const FILE: &str = include_str!("matrix.txt");
