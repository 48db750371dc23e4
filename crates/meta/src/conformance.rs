//! The suite of the seam.
