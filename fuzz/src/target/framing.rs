//! The bytes of an HTTP/1 connection. A byte that says how they are cut, then the bytes; `~` stands for CR LF.
//!
//! Whoever reads them has to see the same requests: in pieces of any size, and with another library's reading of each head
//! and this file's of each body.

use server::fuzzing::{Framed, framing};

use crate::Input;

const LIMIT: usize = 512;

// security: F-01, F-08
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let size = 2 + input.below(30);
    let mut bytes = Vec::new();
    for byte in input.rest() {
        match byte {
            b'~' => bytes.extend_from_slice(b"\r\n"),
            byte => bytes.push(*byte),
        }
    }
    let single = framing(LIMIT, bytes.chunks(1));
    for other in [framing(LIMIT, bytes.chunks(size)), framing(LIMIT, [bytes.as_slice()])] {
        assert_eq!((other.refused, &other.state, other.lost), (single.refused, &single.state, single.lost));
        // Of the heads that ended in one piece only one is told.
        assert!(other.ends.len() <= single.ends.len());
    }
    compare(&bytes, &single);
}

fn compare(bytes: &[u8], framed: &Framed) {
    let mut at = 0;
    for (index, end) in framed.ends.iter().enumerate() {
        while bytes[at..].starts_with(b"\r\n") {
            at += 2;
        }
        let mut headers = [httparse::EMPTY_HEADER; 128];
        let mut request = httparse::Request::new(&mut headers);
        let length = match request.parse(&bytes[at..]) {
            Ok(httparse::Status::Complete(length)) => length,
            Ok(httparse::Status::Partial) => panic!("a head that the library does not see the end of: {index}"),
            // What the library refuses ends the connection.
            Err(_) => return,
        };
        assert_eq!(at + length, *end, "head {index}");
        assert!(length <= LIMIT);
        let body = body(&request);
        at += length;
        let Some(taken) = body.length(&bytes[at..]) else {
            assert_eq!(index + 1, framed.ends.len(), "a request is seen within a body");
            return;
        };
        at += taken;
    }
    if framed.refused.is_none() && !framed.lost && !framed.ends.is_empty() {
        assert!(at <= bytes.len());
    }
}

#[derive(Debug)]
enum Body {
    Length(usize),
    Chunks,
}

/// RFC 9112 section 6.3. In what was accepted nothing may be said twice.
fn body(request: &httparse::Request<'_, '_>) -> Body {
    let values = |name: &str| -> Vec<&[u8]> {
        request
            .headers
            .iter()
            .filter(|header| header.name.eq_ignore_ascii_case(name))
            .map(|header| header.value)
            .collect()
    };
    assert!(values("host").len() <= 1 && (request.version == Some(0) || values("host").len() == 1));
    match (values("transfer-encoding").as_slice(), values("content-length").as_slice()) {
        ([], []) => Body::Length(0),
        ([], [length]) => Body::Length(std::str::from_utf8(length).unwrap().trim().parse().unwrap_or(usize::MAX)),
        ([encoding], []) => {
            assert!(request.version == Some(1) && encoding.trim_ascii().eq_ignore_ascii_case(b"chunked"));
            Body::Chunks
        }
        (encodings, lengths) => panic!("accepted, with {encodings:?} and {lengths:?}"),
    }
}

impl Body {
    /// How many of the bytes are the body; `None` when its end is not there, or it is malformed.
    fn length(&self, bytes: &[u8]) -> Option<usize> {
        match self {
            Self::Length(length) => (*length <= bytes.len()).then_some(*length),
            Self::Chunks => chunks(bytes),
        }
    }
}

/// RFC 9112 section 7.1.
fn chunks(bytes: &[u8]) -> Option<usize> {
    let line = |from: usize| Some(from + bytes.get(from..)?.windows(2).position(|pair| pair == b"\r\n")?);
    let mut at = 0;
    loop {
        let end = line(at)?;
        let digits = bytes[at..end].iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
        let after = bytes[at + digits..end].trim_ascii_start();
        if digits == 0 || !(after.is_empty() || after[0] == b';') {
            return None;
        }
        let size = usize::from_str_radix(std::str::from_utf8(&bytes[at..at + digits]).ok()?, 16).ok()?;
        at = end + 2;
        if size == 0 {
            break;
        }
        let data_end = at.checked_add(size)?;
        if bytes.get(data_end..data_end.checked_add(2)?)? != b"\r\n" {
            return None;
        }
        at = data_end + 2;
    }
    loop {
        let end = line(at)?;
        if end == at {
            return Some(at + 2);
        }
        at = end + 2;
    }
}
