//! What the tests of the built binary share.
