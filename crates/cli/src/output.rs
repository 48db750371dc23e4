//! Data on standard output, messages on standard error.

use std::io::{self, IsTerminal, Write};

use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;

use crate::error::Error;

/// How this invocation prints.
#[derive(Clone, Copy, Debug)]
pub struct Output {
    json: bool,
    quiet: bool,
    color: bool,
}

impl Output {
    /// `color` is a wish; it also takes a terminal on standard error.
    pub fn new(json: bool, quiet: bool, color: bool) -> Self {
        Self { json, quiet, color: color && io::stderr().is_terminal() }
    }

    /// Whether data is wanted as JSON.
    pub fn json(&self) -> bool {
        self.json
    }

    /// Whether messages are unwanted.
    pub fn quiet(&self) -> bool {
        self.quiet
    }

    /// Whether progress may be drawn: somebody looks, and wants to.
    pub fn shows_progress(&self) -> bool {
        !self.quiet && !self.json && io::stderr().is_terminal()
    }

    /// One JSON value and a line feed on standard output.
    pub fn value(&self, value: &impl Serialize) -> Result<(), Error> {
        let mut text = serde_json::to_string_pretty(value)
            .map_err(|e| Error::Stream { action: "render JSON", source: io::Error::other(e) })?;
        text.push('\n');
        self.text(&text)
    }

    /// Text on standard output, as it is.
    pub fn text(&self, text: &str) -> Result<(), Error> {
        self.bytes(text.as_bytes())
    }

    /// Bytes on standard output, as they are.
    pub fn bytes(&self, bytes: &[u8]) -> Result<(), Error> {
        let mut out = io::stdout().lock();
        out.write_all(bytes).and_then(|()| out.flush()).map_err(|source| match source.kind() {
            io::ErrorKind::BrokenPipe => Error::OutputClosed,
            _ => Error::Stream { action: "write to standard output", source },
        })
    }

    /// A message for the person at the terminal; not for scripts.
    pub fn note(&self, text: &str) {
        if !self.quiet {
            to_stderr(text);
        }
    }

    /// The two lines, or the JSON object, that every failing command ends with.
    pub fn error(&self, error: &Error) {
        if self.json {
            to_stderr(&error.to_json().to_string());
            return;
        }
        let (bold, help, off) = (self.paint("\x1b[1;31m"), self.paint("\x1b[1;36m"), self.paint("\x1b[0m"));
        to_stderr(&format!("{bold}error:{off} {}", printable_lines(&error.chain())));
        if let Some(next) = error.help() {
            to_stderr(&format!("{help}help:{off} {}", printable_lines(&next)));
        }
    }

    fn paint(&self, code: &'static str) -> &'static str {
        if self.color { code } else { "" }
    }
}

/// A table for people: a header line, columns padded with spaces, nothing else.
pub fn table(header: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(header.iter().copied());
    for row in rows {
        table.add_row(row.iter().map(|cell| printable(cell)));
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    lines_trimmed(&table.to_string())
}

/// Names and values under each other, for `show`.
pub fn fields(rows: &[(&str, String)]) -> String {
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    rows.iter().fold(String::new(), |mut text, (name, value)| {
        text.push_str(format!("{name:<width$}  {}", printable(value)).trim_end());
        text.push('\n');
        text
    })
}

/// Text from elsewhere without control characters: a terminal would obey them.
pub fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// A time to the second, in UTC.
pub fn time(time: api::Time) -> String {
    let text = time.to_string();
    text.split_once('.').map_or(text.clone(), |(seconds, _)| format!("{seconds}Z"))
}

/// `yes` or `no`.
pub fn yes_no(value: bool) -> String {
    if value { "yes" } else { "no" }.to_owned()
}

/// Bytes in the largest unit below them, with one digit behind the point.
pub fn bytes(count: u64) -> String {
    let units = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let mut unit = "B";
    let (mut whole, mut rest) = (count, 0);
    for larger in units {
        if whole < 1024 {
            break;
        }
        (rest, whole, unit) = (whole % 1024, whole / 1024, larger);
    }
    if unit == "B" { format!("{count} B") } else { format!("{whole}.{} {unit}", rest * 10 / 1024) }
}

/// Milliseconds, or seconds with one digit behind the point.
pub fn duration(milliseconds: u64) -> String {
    if milliseconds < 1000 {
        return format!("{milliseconds} ms");
    }
    format!("{}.{} s", milliseconds / 1000, milliseconds % 1000 / 100)
}

fn printable_lines(text: &str) -> String {
    text.lines().map(printable).collect::<Vec<_>>().join("\n")
}

fn lines_trimmed(text: &str) -> String {
    text.lines().fold(String::new(), |mut all, line| {
        all.push_str(line.trim_end());
        all.push('\n');
        all
    })
}

fn to_stderr(text: &str) {
    // A closed standard error is nothing that could be reported anywhere.
    _ = writeln!(io::stderr().lock(), "{text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_have_a_header_and_no_borders() {
        let text = table(&["NAME", "ROLE"], [vec!["alice".into(), "reader".into()], vec!["bob".into(), String::new()]]);
        assert_eq!(text, "NAME   ROLE\nalice  reader\nbob\n");
        assert_eq!(
            fields(&[("name", "alice".into()), ("administrator", "no".into())]),
            "name           alice\nadministrator  no\n"
        );
    }

    #[test]
    fn numbers_are_for_people() {
        for (count, text) in
            [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (5 << 30, "5.0 GiB"), (u64::MAX, "15.9 EiB")]
        {
            assert_eq!(bytes(count), text);
        }
        assert_eq!((duration(999), duration(61_250)), ("999 ms".to_owned(), "61.2 s".to_owned()));
        assert_eq!(time(api::Time(oci::Timestamp(1_795_514_400_250))), "2026-11-24T10:00:00Z");
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        assert_eq!(printable("a\x1b[31mb"), "a\u{fffd}[31mb");
    }
}
