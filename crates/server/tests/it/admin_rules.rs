//! What holds for every request of the admin API.
