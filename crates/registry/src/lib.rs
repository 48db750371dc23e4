//! The operations of the registry, each of which takes proof of access.
