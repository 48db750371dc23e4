//! The targets, one a file, each with a function `run`.

pub mod admin;
pub mod authorization;
pub mod conditional;
pub mod config;
pub mod digest;
pub mod form;
pub mod framing;
pub mod host;
pub mod manifest;
pub mod media_type;
pub mod pattern;
pub mod query;
pub mod range;
pub mod reference;
pub mod request;
pub mod route;
pub mod scope;
pub mod token;
pub mod upload;
pub mod value;
