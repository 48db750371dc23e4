//! Logs: one line an event on standard error, for people or as JSON.
//!
//! Lines go through a bounded queue to a thread of their own, since whoever reads standard error may stop reading, and
//! requests must not wait for that. Lines that do not fit are counted and the count is logged. Control characters are
//! escaped, so that no text from outside can begin a line.

use std::fmt::{self, Write as _};
use std::io::{self, IsTerminal as _, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use oci::Clock;
use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, MakeWriter};
use tracing_subscriber::registry::LookupSpan;

use crate::config::{LogConfig, LogFormat};
use crate::listen::current_request_id;

/// Lines that wait for standard error.
const QUEUE: usize = 8192;
/// How long the end of the process waits for the last lines.
const FLUSH_TIME: Duration = Duration::from_secs(1);
/// The longest value of a field, in bytes.
const VALUE_LIMIT: usize = 8 << 10;
/// Libraries that are quiet unless a filter names them.
const LIBRARIES: [&str; 5] = ["h2", "hyper", "hyper_util", "rustls", "tower"];
/// Target of the lines that are logged whatever the level: scripts wait for them.
pub const ALWAYS: &str = "portcullis";

/// The filter of a level, or of levels by target: `info`, `info,registry=debug`.
///
/// # Errors
/// Says what is no level.
pub fn filter(text: &str) -> Result<EnvFilter, String> {
    let level = |word: &str| matches!(word, "off" | "error" | "warn" | "info" | "debug" | "trace");
    for part in text.split(',') {
        let word = part.rsplit('=').next().unwrap_or(part).trim();
        if !level(word) {
            return Err(format!("`{word}` is none of off, error, warn, info, debug, trace"));
        }
    }
    let mut directives = format!("{text},{ALWAYS}=info");
    // What the libraries below us tell in detail is about bytes of other people, not about this program.
    for library in LIBRARIES.iter().filter(|library| !text.contains(**library)) {
        directives.extend([",", library, "=info"]);
    }
    EnvFilter::builder().parse(directives).map_err(|error| error.to_string())
}

/// Keeps the log going; dropping it waits a moment for the lines that are still queued.
#[derive(Debug)]
pub struct Guard(Option<SyncSender<Item>>);

impl Drop for Guard {
    fn drop(&mut self) {
        let Some(sender) = &self.0 else { return };
        let (done, finished) = sync_channel(1);
        if sender.try_send(Item::Flush(done)).is_ok() {
            let _ = finished.recv_timeout(FLUSH_TIME);
        }
    }
}

/// Starts logging for the process. A second call, as tests make it, leaves the first log in place.
///
/// # Errors
/// When the thread cannot be started.
pub fn start(config: &LogConfig, clock: Clock) -> Result<Guard, io::Error> {
    let json = match config.format {
        LogFormat::Json => true,
        LogFormat::Pretty => false,
        LogFormat::Auto => !io::stderr().is_terminal(),
    };
    let filter = filter(&config.level).unwrap_or_else(|_| EnvFilter::new("info"));
    let (sender, receiver) = sync_channel(QUEUE);
    let dropped = Arc::new(AtomicU64::new(0));
    let lines = Lines { sender: sender.clone(), dropped: dropped.clone() };
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_env_filter(filter)
        .with_writer(lines)
        .event_format(Form { json, clock })
        .finish();
    if tracing::subscriber::set_global_default(subscriber).is_err() {
        return Ok(Guard(None));
    }
    std::thread::Builder::new().name("log".to_owned()).spawn(move || write_lines(&receiver, &dropped))?;
    Ok(Guard(Some(sender)))
}

/// An event of the audit trail that cannot be written to the database, because nothing is: the log is all that has it, so
/// no level leaves it out.
pub fn event(event: &meta::NewEvent) {
    let actor = &event.actor;
    tracing::info!(
        target: ALWAYS,
        action = event.action.as_str(),
        outcome = event.outcome.as_str(),
        subject = actor.name,
        credential = actor.credential,
        source = actor.source,
        request_id = actor.request_id,
        repository = event.repository.as_deref().unwrap_or_default(),
        detail = event.detail.as_ref().map(ToString::to_string).unwrap_or_default(),
        "event"
    );
}

enum Item {
    Line(Vec<u8>),
    Flush(SyncSender<()>),
}

impl fmt::Debug for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Item")
    }
}

fn write_lines(receiver: &Receiver<Item>, dropped: &AtomicU64) {
    while let Ok(item) = receiver.recv() {
        let mut err = io::stderr().lock();
        match item {
            Item::Line(line) => {
                // Nowhere to report that the log cannot be written.
                let _ = err.write_all(&line);
            }
            Item::Flush(done) => {
                let _ = done.send(());
            }
        }
        let lost = dropped.swap(0, Ordering::Relaxed);
        if lost > 0 {
            let _ = writeln!(err, "{lost} log lines were dropped: standard error was not read fast enough");
        }
    }
}

/// Makes the writer of one line.
struct Lines {
    sender: SyncSender<Item>,
    dropped: Arc<AtomicU64>,
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = &'a Lines;
    fn make_writer(&'a self) -> Self::Writer {
        self
    }
}

impl io::Write for &Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) =
            self.sender.try_send(Item::Line(line.to_vec()))
        {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// How a line looks.
struct Form {
    json: bool,
    clock: Clock,
}

impl<S, N> FormatEvent<S, N> for Form
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut fields = Fields::default();
        event.record(&mut fields);
        if let Some(id) = current_request_id()
            && !fields.0.contains_key("request_id")
        {
            fields.0.insert("request_id".to_owned(), Value::String(id));
        }
        let line = line(self.json, &(self.clock)().to_string(), event.metadata().level().as_str(), fields.0);
        writer.write_str(&line)
    }
}

fn line(json: bool, time: &str, level: &str, mut fields: Map<String, Value>) -> String {
    let message = match fields.shift_remove("message") {
        Some(Value::String(message)) => message,
        Some(other) => other.to_string(),
        None => String::new(),
    };
    if json {
        let mut object = Map::new();
        object.insert("time".to_owned(), Value::String(time.to_owned()));
        object.insert("level".to_owned(), Value::String(level.to_ascii_lowercase()));
        object.insert("message".to_owned(), Value::String(message));
        object.append(&mut fields);
        return format!("{}\n", Value::Object(object));
    }
    let mut line = format!("{time} {level:<5} {}", Escaped(&message));
    for (name, value) in &fields {
        let _ = match value {
            Value::String(text) if text.is_empty() || text.contains([' ', '"', '=']) => {
                write!(line, " {name}=\"{}\"", Escaped(&text.replace('"', "\\\"")))
            }
            Value::String(text) => write!(line, " {name}={}", Escaped(text)),
            other => write!(line, " {name}={other}"),
        };
    }
    line.push('\n');
    line
}

/// Text without control characters, and without what turns the direction of writing.
struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            if c.is_control()
                || matches!(c, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
            {
                write!(f, "{}", c.escape_default())?;
            } else {
                f.write_char(c)?;
            }
        }
        Ok(())
    }
}

#[derive(Default)]
struct Fields(Map<String, Value>);

impl Fields {
    fn put(&mut self, field: &Field, value: Value) {
        self.0.insert(field.name().to_owned(), value);
    }

    fn put_text(&mut self, field: &Field, mut text: String) {
        if text.len() > VALUE_LIMIT {
            text.truncate(text.floor_char_boundary(VALUE_LIMIT));
            text.push('…');
        }
        self.put(field, Value::String(text));
    }
}

impl Visit for Fields {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, Value::from(value));
    }
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, Value::from(value));
    }
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, Value::from(value));
    }
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, Value::from(value));
    }
    fn record_str(&mut self, field: &Field, value: &str) {
        self.put_text(field, value.to_owned());
    }
    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.put_text(field, chain(value));
    }
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put_text(field, format!("{value:?}"));
    }
}

/// An error with all its causes, in one line.
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let _ = write!(text, ": {error}");
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(pairs: &[(&str, Value)]) -> Map<String, Value> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect()
    }

    // security: M-03
    #[test]
    fn m03_text_from_outside_cannot_begin_a_line() {
        let evil = "x\n2026-01-01T00:00:00Z INFO forged\r\u{1b}[2J\u{202e}";
        let fields = || fields(&[("message", Value::from(evil)), ("path", Value::from(evil)), ("n", Value::from(7))]);
        for json in [false, true] {
            let line = line(json, "T", "INFO", fields());
            assert_eq!(line.matches('\n').count(), 1, "{line}");
            assert!(line.ends_with('\n') && !line.contains(['\r', '\u{1b}']), "{line}");
        }
        assert!(line(false, "T", "INFO", fields()).contains(" n=7"));
    }

    #[test]
    fn forms() {
        let fields = || {
            fields(&[
                ("message", Value::from("ready")),
                ("main", Value::from("127.0.0.1:1")),
                ("q", Value::from("a \"b")),
            ])
        };
        assert_eq!(line(false, "T", "INFO", fields()), "T INFO  ready main=127.0.0.1:1 q=\"a \\\"b\"\n");
        assert_eq!(
            line(true, "T", "INFO", fields()),
            "{\"time\":\"T\",\"level\":\"info\",\"message\":\"ready\",\"main\":\"127.0.0.1:1\",\"q\":\"a \\\"b\"}\n"
        );
    }

    #[test]
    fn filters() {
        for text in ["info", "error", "info,registry=debug", "off"] {
            assert!(filter(text).is_ok(), "{text}");
        }
        for text in ["", "verbose", "info,x", "registry=loud"] {
            assert!(filter(text).is_err(), "{text}");
        }
    }

    #[test]
    fn errors_are_logged_with_their_causes() {
        #[derive(Debug, thiserror::Error)]
        #[error("outer")]
        struct Outer(#[source] io::Error);
        assert_eq!(chain(&Outer(io::Error::other("inner"))), "outer: inner");
    }

    #[test]
    fn i16_a_reader_that_stands_still_costs_lines_and_no_time() {
        let (sender, receiver) = sync_channel(2);
        let lines = Lines { sender, dropped: Arc::default() };
        for _ in 0..5 {
            assert_eq!((&lines).write(b"line\n").unwrap(), 5);
        }
        assert_eq!(lines.dropped.load(Ordering::Relaxed), 3);
        drop(receiver);
    }
}
