//! A strict JSON reader over bytes in memory.
//!
//! It exists because the usual parsers disagree about what they let pass (duplicate keys, other case, lone surrogates,
//! numbers out of range), and a registry must not accept a document that two clients read differently. Nothing is built
//! from the document but what the caller asks for, and nothing here recurses, so depth and size cost no memory.

use std::borrow::Cow;

use crate::error::{Error, ErrorCode, excerpt};

/// How deep objects and arrays may nest. The deepest place that the specifications know is 5.
pub(crate) const MAX_DEPTH: u32 = 64;

/// A position in a JSON document. Each method reads the next value and leaves the position behind it.
pub(crate) struct Reader<'a> {
    text: &'a str,
    at: usize,
    depth: u32,
}

impl<'a> Reader<'a> {
    /// A reader at the start of `bytes`, which must be UTF-8 without a byte order mark.
    pub(crate) fn open(bytes: &'a [u8]) -> Result<Self, Error> {
        if bytes.starts_with(b"\xEF\xBB\xBF") {
            return Err(invalid("it begins with a byte order mark"));
        }
        let text = std::str::from_utf8(bytes).map_err(|e| invalid(&format!("no UTF-8 at byte {}", e.valid_up_to())))?;
        Ok(Self { text, at: 0, depth: 0 })
    }

    /// Ends the document: only white space may follow.
    pub(crate) fn finish(mut self) -> Result<(), Error> {
        self.space();
        if self.at == self.text.len() { Ok(()) } else { Err(self.unexpected("the end of the document")) }
    }

    /// Reads an object; `field` is called with each key and must read exactly its value.
    pub(crate) fn object(&mut self, mut field: impl FnMut(&mut Self, &str) -> Result<(), Error>) -> Result<(), Error> {
        if !self.eat(b'{') {
            return Err(self.unexpected("an object"));
        }
        self.enter()?;
        if !self.eat(b'}') {
            loop {
                let key = self.key()?;
                field(self, &key)?;
                if self.eat(b'}') {
                    break;
                }
                if !self.eat(b',') {
                    return Err(self.unexpected("',' or '}'"));
                }
            }
        }
        self.depth -= 1;
        Ok(())
    }

    /// Reads an array; `item` is called for each element and must read exactly that.
    pub(crate) fn array(&mut self, mut item: impl FnMut(&mut Self) -> Result<(), Error>) -> Result<(), Error> {
        if !self.eat(b'[') {
            return Err(self.unexpected("an array"));
        }
        self.enter()?;
        if !self.eat(b']') {
            loop {
                item(self)?;
                if self.eat(b']') {
                    break;
                }
                if !self.eat(b',') {
                    return Err(self.unexpected("',' or ']'"));
                }
            }
        }
        self.depth -= 1;
        Ok(())
    }

    /// Reads a string and gives its value.
    pub(crate) fn string(&mut self) -> Result<Cow<'a, str>, Error> {
        let raw = self.raw_string()?;
        Ok(if raw.contains('\\') { Cow::Owned(unescape(raw)) } else { Cow::Borrowed(raw) })
    }

    /// Reads an integer that is not negative, written without fraction and exponent, up to 2^63 - 1 as Go reads it.
    pub(crate) fn unsigned(&mut self) -> Result<u64, Error> {
        self.space();
        let start = self.at;
        if !matches!(self.byte(), Some(b'-' | b'0'..=b'9')) {
            return Err(self.unexpected("an integer"));
        }
        self.number()?;
        let text = &self.text[start..self.at];
        let value = if text.bytes().all(|c| c.is_ascii_digit()) { text.parse().ok() } else { None };
        value
            .filter(|value| i64::try_from(*value).is_ok())
            .ok_or_else(|| invalid(&format!("'{}' is not an integer from 0 to 2^63 - 1", excerpt(text))))
    }

    /// Reads `null` if that is next, and says whether it did.
    pub(crate) fn null(&mut self) -> Result<bool, Error> {
        self.space();
        if self.byte() != Some(b'n') {
            return Ok(false);
        }
        self.word("null")?;
        Ok(true)
    }

    /// Reads any value and gives its text, as it stands.
    pub(crate) fn skip(&mut self) -> Result<&'a str, Error> {
        self.space();
        let (start, outer) = (self.at, self.depth);
        // One bit for each container that is open within this value, the innermost lowest: 1 is an object.
        let mut objects = 0_u64;
        loop {
            match self.byte() {
                Some(b'{') => {
                    self.at += 1;
                    self.enter()?;
                    objects = (objects << 1) | 1;
                    if !self.eat(b'}') {
                        self.key()?;
                        self.space();
                        continue;
                    }
                    (self.depth, objects) = (self.depth - 1, objects >> 1);
                }
                Some(b'[') => {
                    self.at += 1;
                    self.enter()?;
                    objects <<= 1;
                    if !self.eat(b']') {
                        continue;
                    }
                    (self.depth, objects) = (self.depth - 1, objects >> 1);
                }
                _ => self.scalar()?,
            }
            loop {
                if self.depth == outer {
                    return Ok(&self.text[start..self.at]);
                }
                let (in_object, close) = if objects & 1 == 1 { (true, b'}') } else { (false, b']') };
                if self.eat(b',') {
                    if in_object {
                        self.key()?;
                    }
                    self.space();
                    break;
                }
                if !self.eat(close) {
                    return Err(self.unexpected(if in_object { "',' or '}'" } else { "',' or ']'" }));
                }
                (self.depth, objects) = (self.depth - 1, objects >> 1);
            }
        }
    }

    /// Gives the text, as it stands, of what `read` reads.
    pub(crate) fn verbatim(&mut self, read: impl FnOnce(&mut Self) -> Result<(), Error>) -> Result<&'a str, Error> {
        self.space();
        let start = self.at;
        read(self)?;
        Ok(&self.text[start..self.at])
    }

    /// Reads a key and the colon behind it.
    fn key(&mut self) -> Result<Cow<'a, str>, Error> {
        let key = self.string()?;
        if key.chars().any(char::is_control) {
            return Err(invalid(&format!("the key '{}' has control characters", excerpt(&key))));
        }
        if self.eat(b':') { Ok(key) } else { Err(self.unexpected("':'")) }
    }

    fn scalar(&mut self) -> Result<(), Error> {
        match self.byte() {
            Some(b'"') => self.raw_string().map(drop),
            Some(b't') => self.word("true"),
            Some(b'f') => self.word("false"),
            Some(b'n') => self.word("null"),
            Some(b'-' | b'0'..=b'9') => self.number(),
            _ => Err(self.unexpected("a value")),
        }
    }

    fn word(&mut self, word: &str) -> Result<(), Error> {
        if !self.text[self.at..].starts_with(word) {
            return Err(self.unexpected("a value"));
        }
        self.at += word.len();
        Ok(())
    }

    /// RFC 8259 section 6; a number that no double can hold is refused, since readers disagree about it.
    fn number(&mut self) -> Result<(), Error> {
        let start = self.at;
        self.at += usize::from(self.byte() == Some(b'-'));
        match self.digits() {
            0 => return Err(self.unexpected("a digit")),
            1 => {}
            _ if self.text[start..].trim_start_matches('-').starts_with('0') => {
                return Err(invalid(&format!("a number begins with 0 at byte {start}")));
            }
            _ => {}
        }
        if self.byte() == Some(b'.') {
            self.at += 1;
            if self.digits() == 0 {
                return Err(self.unexpected("a digit"));
            }
        }
        if matches!(self.byte(), Some(b'e' | b'E')) {
            self.at += 1;
            self.at += usize::from(matches!(self.byte(), Some(b'+' | b'-')));
            if self.digits() == 0 {
                return Err(self.unexpected("a digit"));
            }
        }
        let text = &self.text[start..self.at];
        match text.parse::<f64>() {
            Ok(value) if value.is_finite() => Ok(()),
            _ => Err(invalid(&format!("the number '{}' is out of range", excerpt(text)))),
        }
    }

    fn digits(&mut self) -> usize {
        let count = self.text.as_bytes()[self.at..].iter().take_while(|c| c.is_ascii_digit()).count();
        self.at += count;
        count
    }

    /// Reads a string and gives what stands between its quotes, checked.
    fn raw_string(&mut self) -> Result<&'a str, Error> {
        if !self.eat(b'"') {
            return Err(self.unexpected("a string"));
        }
        let (text, start) = (self.text, self.at);
        loop {
            let rest = &text.as_bytes()[self.at..];
            let Some(plain) = rest.iter().position(|c| matches!(c, b'"' | b'\\' | 0..=0x1F)) else {
                return Err(invalid("it ends within a string"));
            };
            self.at += plain;
            match rest[plain] {
                b'"' => {
                    let raw = &text[start..self.at];
                    self.at += 1;
                    return Ok(raw);
                }
                b'\\' => self.escape()?,
                _ => return Err(invalid(&format!("a bare control character in a string at byte {}", self.at))),
            }
        }
    }

    fn escape(&mut self) -> Result<(), Error> {
        let bad = |at: usize| invalid(&format!("a bad escape in a string at byte {at}"));
        let (rest, at) = (&self.text.as_bytes()[self.at..], self.at);
        self.at += match rest.get(1) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => 2,
            Some(b'u') => match hex4(rest, 2).ok_or_else(|| bad(at))? {
                0xD800..=0xDBFF => {
                    let low = if rest.get(6..8) == Some(b"\\u") { hex4(rest, 8) } else { None };
                    low.filter(|low| (0xDC00..=0xDFFF).contains(low)).ok_or_else(|| bad(at))?;
                    12
                }
                0xDC00..=0xDFFF => return Err(bad(at)),
                _ => 6,
            },
            _ => return Err(bad(at)),
        };
        Ok(())
    }

    fn enter(&mut self) -> Result<(), Error> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(invalid(&format!("it nests deeper than {MAX_DEPTH}")));
        }
        self.space();
        Ok(())
    }

    /// Takes `wanted` if it is the next byte that is not white space.
    fn eat(&mut self, wanted: u8) -> bool {
        self.space();
        let found = self.byte() == Some(wanted);
        self.at += usize::from(found);
        found
    }

    fn space(&mut self) {
        let rest = &self.text.as_bytes()[self.at..];
        self.at += rest.iter().take_while(|c| matches!(c, b' ' | b'\t' | b'\n' | b'\r')).count();
    }

    fn byte(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn unexpected(&self, wanted: &str) -> Error {
        match self.text.get(self.at..).and_then(|rest| rest.chars().next()) {
            Some(c) => invalid(&format!("expected {wanted} at byte {}, found '{}'", self.at, c.escape_debug())),
            None => invalid(&format!("expected {wanted} at byte {}, found the end", self.at)),
        }
    }
}

/// Four hexadecimal digits at `from`.
fn hex4(bytes: &[u8], from: usize) -> Option<u32> {
    bytes.get(from..from + 4)?.iter().try_fold(0, |value, c| Some(value * 16 + char::from(*c).to_digit(16)?))
}

/// The value of a string whose escapes have been checked.
fn unescape(raw: &str) -> String {
    let (mut out, mut rest) = (String::with_capacity(raw.len()), raw);
    while let Some((plain, escaped)) = rest.split_once('\\') {
        out.push_str(plain);
        let bytes = escaped.as_bytes();
        let (c, length) = match bytes.first() {
            Some(b'b') => ('\u{8}', 1),
            Some(b'f') => ('\u{C}', 1),
            Some(b'n') => ('\n', 1),
            Some(b'r') => ('\r', 1),
            Some(b't') => ('\t', 1),
            Some(b'u') => match (hex4(bytes, 1), hex4(bytes, 7)) {
                (Some(high @ 0xD800..=0xDBFF), Some(low)) => {
                    let code = 0x1_0000 + ((high - 0xD800) << 10) + low.wrapping_sub(0xDC00);
                    (char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER), 11)
                }
                (Some(code), _) => (char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER), 5),
                (None, _) => (char::REPLACEMENT_CHARACTER, 1),
            },
            Some(c) => (char::from(*c), 1),
            None => break,
        };
        out.push(c);
        rest = &escaped[length..];
    }
    out.push_str(rest);
    out
}

/// The keys of one kind of object that are read. Refuses one that comes twice, and one that a reader which ignores case
/// would take for one of them.
pub(crate) struct Keys {
    names: &'static [&'static str],
    seen: u32,
}

impl Keys {
    /// None seen yet; at most 32 names.
    pub(crate) fn new(names: &'static [&'static str]) -> Self {
        Self { names, seen: 0 }
    }

    /// The name that `key` is, or `None` when it is not one that is read.
    pub(crate) fn note(&mut self, key: &str) -> Result<Option<&'static str>, Error> {
        let Some((index, name)) = self.names.iter().enumerate().find(|(_, name)| folds_to(key, name)) else {
            return Ok(None);
        };
        if key != *name {
            return Err(invalid(&format!("the key '{}' must be written '{name}'", excerpt(key))));
        }
        if self.seen & (1 << index) != 0 {
            return Err(invalid(&format!("the key '{name}' comes twice in one object")));
        }
        self.seen |= 1 << index;
        Ok(Some(name))
    }
}

/// Whether Go's `encoding/json` takes `key` for `name`: it folds by Unicode, where two letters beyond ASCII fold into it.
fn folds_to(key: &str, name: &str) -> bool {
    let fold = |c: char| match c {
        'ſ' => 's',
        '\u{212A}' => 'k',
        c => c.to_ascii_lowercase(),
    };
    key.chars().map(fold).eq(name.chars().map(fold))
}

/// `MANIFEST_INVALID` with this reason.
pub(crate) fn invalid(why: &str) -> Error {
    Error::new(ErrorCode::ManifestInvalid, format!("the manifest is not valid: {why}"))
}

#[cfg(test)]
mod tests;
