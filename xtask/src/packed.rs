//! Inputs as text: one a line, in double quotes, with the escapes of [`u8::escape_ascii`]. Blank lines and lines that begin
//! with `#` are for people.

use std::fmt::Write as _;

/// The text of these inputs.
pub fn write<'a>(inputs: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut text = String::new();
    for input in inputs {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "\"{}\"", input.escape_ascii());
    }
    text
}

/// The inputs of such a text; the number of the first line that is none.
pub fn read(text: &str) -> Result<Vec<Vec<u8>>, usize> {
    let lines = text.lines().enumerate().filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    lines.map(|(number, line)| input(line).ok_or(number + 1)).collect()
}

fn input(line: &str) -> Option<Vec<u8>> {
    let mut rest = line.strip_prefix('"')?.strip_suffix('"')?.as_bytes();
    let mut bytes = Vec::with_capacity(rest.len());
    while let Some((first, after)) = rest.split_first() {
        let (byte, length) = match (first, after.first()) {
            (b'"', _) => return None,
            (b'\\', Some(b'n')) => (b'\n', 1),
            (b'\\', Some(b'r')) => (b'\r', 1),
            (b'\\', Some(b't')) => (b'\t', 1),
            (b'\\', Some(b'x')) => {
                let digits = std::str::from_utf8(after.get(1..3)?).ok()?;
                (u8::from_str_radix(digits, 16).ok()?, 3)
            }
            (b'\\', Some(byte @ (b'\\' | b'"' | b'\''))) => (*byte, 1),
            (b'\\', _) => return None,
            (byte, _) => (*byte, 0),
        };
        bytes.push(byte);
        rest = after.get(length..)?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips() {
        let all: Vec<u8> = (0..=255).collect();
        let text = write([&all[..], b"", b"a \"b\"\n# c"]);
        assert_eq!(text.lines().count(), 3);
        assert_eq!(read(&format!("# about\n\n{text}")).unwrap(), [&all[..], b"", b"a \"b\"\n# c"]);
        for (bad, line) in [("a", 1), ("\"a", 1), ("\"a\"\n\"\\q\"", 2), ("\"a\"b\"", 1), ("\"\\x4\"", 1)] {
            assert_eq!(read(bad), Err(line), "{bad}");
        }
    }
}
