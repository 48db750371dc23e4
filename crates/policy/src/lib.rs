//! Decides whether a subject may do something, and says why; pure functions over data.
