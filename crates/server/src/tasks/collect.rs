//! Garbage collection; it ends upload sessions that nobody goes on with, too.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use oci::RepositoryName;
use policy::Access;
use registry::{Authority, Registry, gc};

use super::{Run, Task};
use crate::metrics::Metrics;

/// A collection every `interval`. One that an administrator has started is waited for.
pub fn collection(registry: Registry, interval: Duration, grace: Duration, metrics: Metrics) -> Task {
    let runs = Arc::new(AtomicU64::new(0));
    let run = move || -> Run {
        let (registry, metrics) = (registry.clone(), metrics.clone());
        let number = runs.fetch_add(1, Ordering::Relaxed);
        Box::pin(async move {
            // The name says only whose access it is: a collection is about no repository.
            let name = RepositoryName::parse("portcullis")?;
            let access = Access::system(name, format!("gc-{number}"));
            let report = gc::run(&registry, Authority::System(&access), grace, &|_| {}).await?;
            metrics.gc_deleted(report.deleted_bytes);
            Ok(format!(
                "{} uploads, {} manifests, {} blobs, {} bytes{}",
                report.expired_uploads,
                report.deleted_manifests,
                report.deleted_blobs,
                report.deleted_bytes,
                if report.held { "; bytes left for the next run, a backup is being made" } else { "" }
            ))
        })
    };
    Task { name: "gc", interval, run: Box::new(run) }
}
