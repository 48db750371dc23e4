//! HTTP, authentication, configuration, background tasks and metrics.
