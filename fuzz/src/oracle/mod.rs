//! What the parsers are compared with: the specifications' own expressions, run by an automaton, and the slowest readings.

pub mod json;
pub mod manifest;

use std::sync::OnceLock;

use regex_automata::Anchored;
use regex_automata::dfa::{Automaton, StartKind, dense};
use regex_automata::util::start::Config;
use regex_automata::util::syntax;

/// A regular expression over bytes, compiled once.
pub struct Grammar {
    expression: &'static str,
    automaton: OnceLock<dense::DFA<Vec<u32>>>,
}

/// `<name>` of the distribution specification, "Pulling manifests".
pub static NAME: Grammar = Grammar::new(r"[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(\/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*");
/// A tag as `<reference>` of the distribution specification, "Pulling manifests".
pub static TAG: Grammar = Grammar::new(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}");
/// Digests of the registered algorithms (image specification, `descriptor.md`).
pub static DIGEST: Grammar = Grammar::new(r"sha256:[a-f0-9]{64}|sha512:[a-f0-9]{128}");
/// `Content-Range` of an upload (distribution specification, "Pushing a blob in chunks").
pub static CONTENT_RANGE: Grammar = Grammar::new(r"[0-9]+-[0-9]+");
/// `type-name "/" subtype-name` of RFC 6838 section 4.2, of the one type that is accepted.
pub static APPLICATION_TYPE: Grammar =
    Grammar::new(r"[aA][pP][pP][lL][iI][cC][aA][tT][iI][oO][nN]/[a-zA-Z0-9][a-zA-Z0-9!#$&^_.+-]*");

impl Grammar {
    const fn new(expression: &'static str) -> Self {
        Self { expression, automaton: OnceLock::new() }
    }

    /// Whether all of `text` is in it.
    pub fn matches(&self, text: &str) -> bool {
        let automaton = self.automaton.get_or_init(|| {
            dense::Builder::new()
                .configure(dense::Config::new().start_kind(StartKind::Anchored))
                .syntax(syntax::Config::new().unicode(false).utf8(false))
                .build(self.expression)
                .expect("an expression of a specification")
        });
        let start = automaton.start_state(&Config::new().anchored(Anchored::Yes)).expect("an anchored start");
        let end = text.bytes().fold(start, |state, byte| automaton.next_state(state, byte));
        automaton.is_match_state(automaton.next_eoi_state(end))
    }
}

/// `%XX` replaced everywhere; `None` when a `%` begins no escape or the result is no UTF-8.
pub fn percent_decoded(text: &str) -> Option<String> {
    let bytes = text.as_bytes();
    let (mut decoded, mut at) = (Vec::new(), 0);
    while let Some(byte) = bytes.get(at) {
        if *byte == b'%' {
            let digits = bytes.get(at + 1..at + 3)?;
            let value = digits.iter().try_fold(0, |value, c| Some(value * 16 + char::from(*c).to_digit(16)?))?;
            decoded.push(u8::try_from(value).ok()?);
            at += 3;
        } else {
            decoded.push(*byte);
            at += 1;
        }
    }
    String::from_utf8(decoded).ok()
}

/// Whether `text` is `pattern` with each `*` for any run of characters: a table of all prefixes.
pub fn glob(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let mut row = vec![false; text.len() + 1];
    row[0] = true;
    for p in pattern {
        let above = row.clone();
        row[0] = *p == b'*' && above[0];
        for at in 1..=text.len() {
            row[at] = if *p == b'*' { above[at] || row[at - 1] } else { above[at - 1] && text[at - 1] == *p };
        }
    }
    row[text.len()]
}
