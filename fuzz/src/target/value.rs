//! Sizes, durations, lifetimes, times and what is written into headers; one text each line.

use api::{Lifetime, Time};
use oci::{MAX_ERROR_BODY, MAX_WARNING_BYTES, Timestamp, error_body, warning_values};
use server::config::{ByteSize, duration_text, parse_duration};

use crate::Input;

pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let mut lines = Vec::new();
    while !input.is_empty() {
        lines.push(input.text_line());
    }
    for text in &lines {
        if let Ok(size) = ByteSize::parse(text) {
            assert_eq!(ByteSize::parse(&size.to_string()), Ok(size), "{text}");
        }
        if let Ok(duration) = parse_duration(text) {
            assert_eq!(parse_duration(&duration_text(duration)), Ok(duration), "{text}");
            // What is added to the time of day stays in the calendar.
            let far = Timestamp(4_000_000_000_000).plus(duration);
            assert_eq!(Timestamp::parse(&far.to_string()), Some(far), "{text}");
        }
        if let Ok(lifetime) = text.parse::<Lifetime>() {
            assert_eq!(lifetime.to_string().parse(), Ok(lifetime), "{text}");
            assert_eq!(serde_json::from_value(serde_json::to_value(lifetime).unwrap()).ok(), Some(lifetime));
        }
        if let Some(time) = Timestamp::parse(text) {
            let printed = time.to_string();
            assert_eq!(Timestamp::parse(&printed), Some(time), "{text}");
            let json = serde_json::to_string(&Time(time)).unwrap();
            assert_eq!(serde_json::from_str::<Time>(&json).unwrap(), Time(time), "{text}");
        }
    }
    let warnings = warning_values(lines.iter().map(String::as_str));
    assert!(warnings.iter().map(String::len).sum::<usize>() <= MAX_WARNING_BYTES);
    assert!(warnings.iter().all(|value| http::HeaderValue::from_str(value).is_ok()));
    let entries: Vec<oci::ErrorEntry> =
        lines.iter().map(|line| oci::Error::new(oci::ErrorCode::Unknown, line.clone()).into()).collect();
    let body = error_body(&entries);
    assert!(body.len() <= MAX_ERROR_BODY);
    let json: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert!(!json["errors"].as_array().unwrap().is_empty());
}
