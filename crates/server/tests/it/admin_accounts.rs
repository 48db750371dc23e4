//! Users, robots and grants through the admin API.
