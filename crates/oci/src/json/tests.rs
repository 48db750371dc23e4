use proptest::prelude::*;

use super::*;

/// Reads a whole document as one value of any kind.
fn skip(text: &[u8]) -> Result<String, Error> {
    let mut reader = Reader::open(text)?;
    let value = reader.skip()?.to_owned();
    reader.finish()?;
    Ok(value)
}

#[test]
fn accepts_what_rfc_8259_does() {
    for good in [
        "0",
        "-0",
        "-1.5e+10",
        "1E2",
        "true",
        "false",
        "null",
        "\"\"",
        "[]",
        "{}",
        "[1,2]",
        "{\"a\":1}",
        " [ { \"a\" : [ ] , \"b\" : { } } , \"x\" ] ",
        "\"\\u0041\\ud83d\\ude00\\n\\\\\\\"\\/\"",
        "[[],[[]],{}]",
        "\"ä😀\"",
        "{\"a\":1,\"a\":2}",
    ] {
        assert_eq!(skip(good.as_bytes()).as_deref(), Ok(good.trim()), "{good}");
    }
}

#[test]
fn g05_refuses_what_parsers_disagree_about() {
    for bad in [
        "",
        " ",
        "{",
        "}",
        "[",
        "]",
        "[1",
        "[1,",
        "[1,]",
        "[,1]",
        "{\"a\"}",
        "{\"a\":}",
        "{\"a\":1,}",
        "{,}",
        "{a:1}",
        "{1:1}",
        "[1 2]",
        "{\"a\":1 \"b\":2}",
        "{\"a\":1]",
        "[1}",
        "[]]",
        "{}{}",
        "1 2",
        "NaN",
        "Infinity",
        "-Infinity",
        "nul",
        "nulll",
        "True",
        "'a'",
        "\"a",
        "\"\\\"",
        "\"\\x\"",
        "\"\\u12\"",
        "\"\\u12g4\"",
        "\"\\ud800\"",
        "\"\\ud800x\"",
        "\"\\ud800\\u0041\"",
        "\"\\udc00\"",
        "\"\n\"",
        "\"\0\"",
        "01",
        "-",
        "-01",
        "+1",
        ".5",
        "1.",
        "1e",
        "1e+",
        "0x10",
        "1e999",
        "-1e999",
        "1_000",
        "{}\0",
        "/**/{}",
        "{}//x",
        "{\"a\":1e999}",
        "\u{FEFF}{}",
        "{\"\\u0000\":1}",
        "{\"a\\n\":1}",
        "[{\"x\":{\"\\u009f\":1}}]",
        "\u{a0}{}",
    ] {
        assert_eq!(skip(bad.as_bytes()).map_err(|e| e.code), Err(ErrorCode::ManifestInvalid), "{bad:?}");
    }
    for bad in [&b"\xff\xfe{\0}\0"[..], b"{\0}\0", b"\"\xc3\"", b"\"\xed\xa0\x80\"", b"\"\xc0\xaf\"", b"\xef\xbb\xbf{}"]
    {
        assert_eq!(skip(bad).map_err(|e| e.code), Err(ErrorCode::ManifestInvalid), "{bad:?}");
    }
}

#[test]
fn g06_depth_is_bounded() {
    let nest = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let objects = |depth: usize| format!("{}1{}", "{\"a\":".repeat(depth), "}".repeat(depth));
    assert!(skip(nest(64).as_bytes()).is_ok());
    assert!(skip(objects(64).as_bytes()).is_ok());
    for bad in [nest(65), objects(65), nest(1 << 20), "[".repeat(1 << 20), "{\"a\":".repeat(1 << 20)] {
        assert!(skip(bad.as_bytes()).unwrap_err().message.contains("nests deeper"));
    }
    // Open containers do not add up over siblings.
    let many = format!("[{}]", vec!["[[]]"; 10_000].join(","));
    assert!(skip(many.as_bytes()).is_ok());
}

#[test]
fn integers() {
    let read = |text: &str| Reader::open(text.as_bytes()).and_then(|mut reader| reader.unsigned());
    for (text, value) in [("0", 0), ("7", 7), (" 9223372036854775807", 9_223_372_036_854_775_807)] {
        assert_eq!(read(text), Ok(value));
    }
    for bad in
        ["-1", "-0", "1.0", "1e2", "9223372036854775808", "18446744073709551616", "1e999", "\"1\"", "null", "", "01"]
    {
        assert!(read(bad).is_err(), "{bad}");
    }
}

#[test]
fn keys_are_exact() {
    let mut keys = Keys::new(&["layers", "mediaType"]);
    assert_eq!(keys.note("layers"), Ok(Some("layers")));
    assert_eq!(keys.note("other"), Ok(None));
    assert_eq!(keys.note("other"), Ok(None));
    for bad in ["layers", "Layers", "LAYERS", "layerſ", "mediatype", "MediaType"] {
        assert!(keys.note(bad).is_err(), "{bad}");
    }
    assert_eq!(keys.note("mediaType"), Ok(Some("mediaType")));
}

/// Any JSON value.
fn value() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(serde_json::Value::from),
        any::<i64>().prop_map(serde_json::Value::from),
        any::<f64>().prop_map(serde_json::Value::from),
        ".{0,12}".prop_map(serde_json::Value::from),
    ];
    leaf.prop_recursive(5, 40, 6, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..6).prop_map(serde_json::Value::from),
            proptest::collection::vec(("[a-zäA-Z ]{0,5}", inner), 0..6)
                .prop_map(|fields| serde_json::Value::Object(fields.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn reads_what_serde_writes(value in value()) {
        for text in [serde_json::to_string(&value).unwrap(), serde_json::to_string_pretty(&value).unwrap()] {
            prop_assert_eq!(skip(text.as_bytes()), Ok(text.clone()));
        }
    }

    /// Nothing passes that serde_json, which is strict about the grammar, would refuse.
    #[test]
    fn is_at_least_as_strict_as_serde(text in "[\\[\\]{}\",:0-9eE.+\\- a\\\\ud8cntrfls]{0,24}") {
        if skip(text.as_bytes()).is_ok() {
            prop_assert!(serde_json::from_str::<serde_json::Value>(&text).is_ok(), "{}", text);
        }
    }

    #[test]
    fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
        let _ = skip(&bytes);
    }

    #[test]
    fn strings_have_the_value_that_serde_gives(value in ".{0,40}", ascii: bool) {
        let text = if ascii {
            let units = value.encode_utf16().map(|unit| format!("\\u{unit:04x}")).collect::<String>();
            format!("\"{units}\"")
        } else {
            serde_json::to_string(&value).unwrap()
        };
        let mut reader = Reader::open(text.as_bytes()).unwrap();
        prop_assert_eq!(reader.string().unwrap().into_owned(), value);
        prop_assert!(reader.finish().is_ok());
    }
}
