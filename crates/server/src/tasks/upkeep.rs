//! Small tasks that keep a server in order.

use std::sync::Arc;
use std::time::Duration;

use oci::Clock;
use registry::{BoxError, Registry};

use super::{Run, Task};
use crate::auth::Auth;
use crate::listen::Tls;
use crate::metrics::Metrics;
use crate::space::Space;

/// Answers to repeated requests of the admin API are kept this long.
const IDEMPOTENCY_TIME: Duration = Duration::from_secs(24 * 60 * 60);
/// Keys that are forgotten at once.
const IDEMPOTENCY_STEP: usize = 500;

/// Copies the database's log into its file every few seconds, so that no commit has to.
pub fn checkpoint(registry: Registry) -> Task {
    let run = move || -> Run {
        let registry = registry.clone();
        Box::pin(async move {
            let done = registry.db().checkpoint().await?;
            Ok(format!("{} of {} pages", done.copied_pages, done.log_pages))
        })
    };
    Task { name: "checkpoint", interval: Duration::from_secs(5), run: Box::new(run) }
}

/// Measures the free space of the store, and takes again what was given up of the reserved space.
pub fn free_space(registry: Registry, space: Space, metrics: Metrics) -> Task {
    let run = move || -> Run {
        let (registry, space, metrics) = (registry.clone(), space.clone(), metrics.clone());
        Box::pin(async move {
            let look = move || Ok::<_, BoxError>((space.take()?, registry.blobs().free_bytes()?));
            let (reserved, free) = tokio::task::spawn_blocking(look).await??;
            metrics.store_free(free);
            Ok(format!("{free} bytes, and {reserved} reserved"))
        })
    };
    Task { name: "free space", interval: Duration::from_secs(5), run: Box::new(run) }
}

/// Writes down logins, wrong logins and refusals.
pub fn journal(auth: Auth, registry: Registry) -> Task {
    let run = move || -> Run {
        let (auth, registry) = (auth.clone(), registry.clone());
        Box::pin(async move {
            auth.journal().flush(registry.db()).await?;
            Ok("written".to_owned())
        })
    };
    Task { name: "journal", interval: Duration::from_secs(2), run: Box::new(run) }
}

/// Forgets old idempotency keys.
pub fn idempotency(registry: Registry, clock: Clock) -> Task {
    let run = move || -> Run {
        let (registry, cutoff) = (registry.clone(), clock().minus(IDEMPOTENCY_TIME));
        Box::pin(async move {
            let mut forgotten = 0;
            loop {
                let step = registry.db().expire_idempotency(cutoff, IDEMPOTENCY_STEP).await?;
                forgotten += step;
                if step < IDEMPOTENCY_STEP as u64 {
                    return Ok(format!("{forgotten} forgotten"));
                }
            }
        })
    };
    Task { name: "idempotency keys", interval: Duration::from_secs(600), run: Box::new(run) }
}

/// Takes up a renewed certificate.
pub fn certificates(tls: Arc<Tls>) -> Task {
    let run = move || -> Run {
        let tls = tls.clone();
        Box::pin(async move {
            let changed = tokio::task::spawn_blocking(move || tls.reload_if_changed()).await??;
            if changed {
                tracing::info!("took up a new TLS certificate");
            }
            Ok(if changed { "renewed" } else { "unchanged" }.to_owned())
        })
    };
    Task { name: "certificate", interval: Duration::from_secs(2), run: Box::new(run) }
}
