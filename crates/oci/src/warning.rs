//! The `Warning` header, which podman and containerd parse strictly and print.

/// How many bytes the values of all `Warning` lines of a response may have together (the specification, "Warnings").
pub const MAX_WARNING_BYTES: usize = 4096;

/// The values of the `Warning` lines, one a text: `299 - "text"`. What is not printable ASCII becomes `?`; a text that
/// does not fit within [`MAX_WARNING_BYTES`] is cut with `...`, and those after it are left out.
pub fn warning_values<'a>(texts: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    let mut left = MAX_WARNING_BYTES;
    let mut values = Vec::new();
    for text in texts {
        let Some(room) = left.checked_sub(FRAME.len()) else { break };
        let (quoted, cut) = quote(text, room);
        if cut && quoted.len() <= MARK.len() {
            break;
        }
        let value = format!("299 - \"{quoted}\"");
        left -= value.len();
        values.push(value);
        if cut {
            break;
        }
    }
    values
}

const FRAME: &str = "299 - \"\"";
const MARK: &str = "...";

/// `text` as the inside of a quoted string of at most `room` bytes, and whether it was cut.
fn quote(text: &str, room: usize) -> (String, bool) {
    let mut quoted = String::new();
    // Where to cut so that the mark still fits.
    let mut safe = 0;
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            ' '..='~' => quoted.push(c),
            _ => quoted.push('?'),
        }
        if quoted.len() > room {
            quoted.truncate(safe);
            if room >= MARK.len() {
                quoted.push_str(MARK);
            }
            return (quoted, true);
        }
        if quoted.len() + MARK.len() <= room {
            safe = quoted.len();
        }
    }
    (quoted, false)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn form() {
        assert_eq!(warning_values(["soon \"gone\" \\ ä\r\n"]), [r#"299 - "soon \"gone\" \\ ???""#]);
        assert_eq!(warning_values(["a", "b"]), [r#"299 - "a""#, r#"299 - "b""#]);
        let long = "x".repeat(5000);
        let values = warning_values(["first", &long, "third"]);
        assert_eq!(values.len(), 2);
        assert_eq!(values.iter().map(String::len).sum::<usize>(), MAX_WARNING_BYTES);
        assert!(values[1].ends_with("x...\""));
    }

    proptest! {
        #[test]
        fn bounded_and_well_formed(texts in proptest::collection::vec("\\PC{0,900}|[\"\\\\]{0,900}", 0..12)) {
            let values = warning_values(texts.iter().map(String::as_str));
            prop_assert!(values.iter().map(String::len).sum::<usize>() <= MAX_WARNING_BYTES);
            for value in &values {
                let inside = value.strip_prefix("299 - \"").unwrap().strip_suffix('"').unwrap();
                let mut chars = inside.chars();
                while let Some(c) = chars.next() {
                    prop_assert!((' '..='~').contains(&c) && c != '"');
                    if c == '\\' {
                        prop_assert!(matches!(chars.next(), Some('"' | '\\')));
                    }
                }
            }
        }
    }
}
