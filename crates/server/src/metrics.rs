//! Counters for Prometheus. Labels are words of this program, never text from outside: no repository, no user.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::{Method, StatusCode};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeLabelValue, LabelValueEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::state::Listener;

/// The type of the text that [`Metrics::text`] makes.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Upper bounds in seconds: from an answer out of memory to a layer of many gigabytes.
const SECONDS: [f64; 14] = [0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 15.0, 60.0, 300.0, 1800.0];

/// All counters of this server. Clones are the same.
#[derive(Clone)]
pub struct Metrics(Arc<Inner>);

struct Inner {
    registry: Mutex<Registry>,
    requests: Family<RequestLabels, Counter>,
    seconds: Family<RouteLabel, Histogram, fn() -> Histogram>,
    blob_bytes: Family<DirectionLabel, Counter>,
    uploads_active: Gauge,
    store_free_bytes: Gauge,
    gc_deleted_bytes: Counter,
    read_only: Gauge,
    damaged_blobs: Counter,
    storage_failures: Family<FailureLabel, Counter>,
    connections: Family<ListenerLabel, Gauge>,
    connections_closed: Family<ClosedLabel, Counter>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    route: &'static str,
    method: &'static str,
    code: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteLabel {
    route: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DirectionLabel {
    direction: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ListenerLabel {
    listener: Listener,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FailureLabel {
    kind: StorageFailure,
}

/// Why disk or database could not do what a request needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StorageFailure {
    /// No space.
    Full,
    /// It can only be read.
    ReadOnly,
    /// Errors of the disk, or no answer in time.
    Unavailable,
}

impl EncodeLabelValue for StorageFailure {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
        let text = match self {
            Self::Full => "full",
            Self::ReadOnly => "read_only",
            Self::Unavailable => "unavailable",
        };
        EncodeLabelValue::encode(&text, encoder)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ClosedLabel {
    reason: Closed,
}

/// Why the server closed a connection that the client would have kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Closed {
    /// The handshake or the head of a request took too long.
    HeaderTime,
    /// No request for too long.
    Idle,
    /// A body came, or an answer was taken, too slowly.
    Progress,
    /// Room was needed for others.
    Limit,
    /// The peer may not speak plain HTTP, or is not the owner of the socket.
    Peer,
    /// The TLS handshake failed.
    Handshake,
    /// The bytes were no HTTP that can be understood in only one way.
    Malformed,
}

impl EncodeLabelValue for Closed {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
        let text = match self {
            Self::HeaderTime => "header_time",
            Self::Idle => "idle",
            Self::Progress => "progress",
            Self::Limit => "limit",
            Self::Peer => "peer",
            Self::Handshake => "handshake",
            Self::Malformed => "malformed",
        };
        EncodeLabelValue::encode(&text, encoder)
    }
}

impl EncodeLabelValue for Listener {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
        EncodeLabelValue::encode(&self.as_str(), encoder)
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// All at zero.
    pub fn new() -> Self {
        let seconds: fn() -> Histogram = || Histogram::new(SECONDS);
        let inner = Inner {
            registry: Mutex::default(),
            requests: Family::default(),
            seconds: Family::new_with_constructor(seconds),
            blob_bytes: Family::default(),
            uploads_active: Gauge::default(),
            store_free_bytes: Gauge::default(),
            gc_deleted_bytes: Counter::default(),
            read_only: Gauge::default(),
            damaged_blobs: Counter::default(),
            storage_failures: Family::default(),
            connections: Family::default(),
            connections_closed: Family::default(),
        };
        let mut registry = Registry::with_prefix("portcullis");
        let r = &mut registry;
        r.register("http_requests", "Answered requests", inner.requests.clone());
        r.register(
            "http_request_seconds",
            "Time from a request's head to the head of its answer",
            inner.seconds.clone(),
        );
        r.register("blob_bytes", "Bytes of blobs received (in) and sent (out)", inner.blob_bytes.clone());
        r.register("uploads_active", "Requests that carry bytes of an upload right now", inner.uploads_active.clone());
        r.register("store_free_bytes", "Free bytes on the disk of the store", inner.store_free_bytes.clone());
        r.register("gc_deleted_bytes", "Bytes that collections have removed", inner.gc_deleted_bytes.clone());
        r.register("read_only", "1 while server.mode is read-only, else 0", inner.read_only.clone());
        r.register("damaged_blobs", "Reads that found a blob damaged", inner.damaged_blobs.clone());
        let help = "Requests that disk or database failed, by kind";
        r.register("storage_failures", help, inner.storage_failures.clone());
        r.register("connections", "Open connections", inner.connections.clone());
        r.register("connections_closed", "Connections closed by the server's limits", inner.connections_closed.clone());
        *inner.registry.lock().unwrap_or_else(PoisonError::into_inner) = registry;
        Self(Arc::new(inner))
    }

    /// An answered request. `route` is the endpoint's name.
    pub fn request(&self, route: &'static str, method: &Method, code: StatusCode, time: Duration) {
        let labels = RequestLabels { route, method: method_label(method), code: code.as_u16() };
        self.0.requests.get_or_create(&labels).inc();
        self.0.seconds.get_or_create(&RouteLabel { route }).observe(time.as_secs_f64());
    }

    /// Counts bytes of blobs received.
    pub fn blob_bytes_in(&self) -> Counter {
        self.0.blob_bytes.get_or_create(&DirectionLabel { direction: "in" }).clone()
    }

    /// Counts bytes of blobs sent.
    pub fn blob_bytes_out(&self) -> Counter {
        self.0.blob_bytes.get_or_create(&DirectionLabel { direction: "out" }).clone()
    }

    /// One more upload is receiving, until the result is dropped.
    pub fn upload(&self) -> Held {
        Held::new(self.0.uploads_active.clone())
    }

    /// Free bytes of the store.
    pub fn store_free(&self, bytes: u64) {
        self.0.store_free_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// A collection removed this many bytes.
    pub fn gc_deleted(&self, bytes: u64) {
        self.0.gc_deleted_bytes.inc_by(bytes);
    }

    /// Whether the server is in read-only mode.
    pub fn read_only(&self, read_only: bool) {
        self.0.read_only.set(i64::from(read_only));
    }

    /// A blob was found damaged.
    pub fn damaged(&self) {
        self.0.damaged_blobs.inc();
    }

    /// Disk or database could not do what a request needed.
    pub fn storage_failure(&self, kind: StorageFailure) {
        self.0.storage_failures.get_or_create(&FailureLabel { kind }).inc();
    }

    /// One more connection, until the result is dropped.
    pub fn connection(&self, listener: Listener) -> Held {
        Held::new(self.0.connections.get_or_create(&ListenerLabel { listener }).clone())
    }

    /// The server closed a connection.
    pub fn connection_closed(&self, reason: Closed) {
        self.0.connections_closed.get_or_create(&ClosedLabel { reason }).inc();
    }

    /// Shows the writer's groups of this database.
    pub fn watch_writer(&self, db: meta::Db) {
        self.lock().register_collector(Box::new(Writer(db)));
    }

    /// Everything, as Prometheus reads it.
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = prometheus_client::encoding::text::encode(&mut text, &self.lock());
        text
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Registry> {
        self.0.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Something that a gauge counts while it is there.
#[derive(Debug)]
pub struct Held(Gauge);

impl Held {
    fn new(gauge: Gauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// The sizes of the writer's groups, which the database counts itself.
#[derive(Debug)]
struct Writer(meta::Db);

impl Collector for Writer {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let stats = self.0.stats();
        let mut buckets: Vec<(f64, u64)> = Vec::with_capacity(stats.group_sizes.len() + 1);
        let mut counted = 0;
        for (bound, count) in meta::GROUP_SIZE_BOUNDS.iter().zip(stats.group_sizes) {
            counted += count;
            #[allow(clippy::cast_precision_loss, reason = "bounds are small")]
            buckets.push((*bound as f64, count));
        }
        buckets.push((f64::INFINITY, stats.synced_commits.saturating_sub(counted)));
        let help = "Transactions that shared one durable commit";
        let mut metric = encoder.encode_descriptor("writer_group_size", help, None, MetricType::Histogram)?;
        #[allow(clippy::cast_precision_loss, reason = "a sum for a rate")]
        metric.encode_histogram::<NoLabelSet>(stats.synced_transactions as f64, stats.synced_commits, &buckets, None)
    }
}

fn method_label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_labels_are_those_of_the_interface() {
        let metrics = Metrics::new();
        metrics.request("blob", &Method::GET, StatusCode::OK, Duration::from_millis(3));
        metrics.request("blob", &Method::from_bytes(b"BREW").unwrap(), StatusCode::OK, Duration::ZERO);
        metrics.blob_bytes_in().inc_by(5);
        metrics.blob_bytes_out().inc_by(7);
        metrics.gc_deleted(11);
        metrics.store_free(13);
        metrics.connection_closed(Closed::Idle);
        let held = metrics.upload();
        let connection = metrics.connection(Listener::Main);
        let text = metrics.text();
        for line in [
            "portcullis_http_requests_total{route=\"blob\",method=\"GET\",code=\"200\"} 1",
            "portcullis_http_requests_total{route=\"blob\",method=\"other\",code=\"200\"} 1",
            "portcullis_http_request_seconds_count{route=\"blob\"} 2",
            "portcullis_blob_bytes_total{direction=\"in\"} 5",
            "portcullis_blob_bytes_total{direction=\"out\"} 7",
            "portcullis_gc_deleted_bytes_total 11",
            "portcullis_store_free_bytes 13",
            "portcullis_uploads_active 1",
            "portcullis_connections{listener=\"main\"} 1",
            "portcullis_connections_closed_total{reason=\"idle\"} 1",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
        drop((held, connection));
        assert!(metrics.text().contains("portcullis_uploads_active 0"));
    }
}
