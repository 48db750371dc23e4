//! Looks at the bytes of an HTTP/1 connection before the HTTP library does, and refuses what two readers could understand
//! in two ways: a request smuggled past a proxy needs such bytes (RFC 9112, 11.2).
//!
//! Only heads are judged. Bodies are followed just far enough to know where the next head begins; the library decodes
//! them. What either of the two does not like ends the connection.

use http::StatusCode;

/// More header lines than this are refused; hyper has room for as many.
const MAX_LINES: usize = 100;
/// The longest line of a chunk's size with its extensions.
const MAX_CHUNK_LINE: usize = 256;

/// Why a head is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// 400, 414, 431 or 505.
    pub status: StatusCode,
    /// In words, for the client.
    pub reason: &'static str,
}

const fn malformed(reason: &'static str) -> Refusal {
    Refusal { status: StatusCode::BAD_REQUEST, reason }
}

/// What happened in the bytes that were looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    /// A head began and is not complete.
    pub head_began: bool,
    /// At least one head was completed.
    pub head_ended: bool,
    /// From this byte on it cannot be told what is body and what would be the next head: the library may not see it, since
    /// it could find an end of the body there, and behind it a head that nobody has judged.
    pub believed: Option<usize>,
}

/// Where in the stream of requests a connection is.
#[derive(Debug)]
pub(crate) struct Framing {
    limit: usize,
    state: State,
    head: Vec<u8>,
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    Head,
    Body(u64),
    ChunkSize(Vec<u8>),
    ChunkData(u64),
    /// The two bytes after a chunk's data, of which this many have come.
    ChunkEnd(u8),
    /// A line of the trailers has this many bytes so far, of this many in all; the last byte.
    Trailer {
        line: usize,
        all: usize,
        last: u8,
    },
    /// The body is not what it should be, and nothing that follows is believed.
    Lost,
}

impl Framing {
    /// At the beginning of a connection; heads longer than `limit` are refused.
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit, state: State::Head, head: Vec::new() }
    }

    /// Whether the end of the body that is being sent cannot be found, so that no further head may be believed.
    pub(crate) fn is_lost(&self) -> bool {
        self.state == State::Lost
    }

    /// Whether a head has begun and is not complete.
    pub(crate) fn in_head(&self) -> bool {
        self.state == State::Head && !self.head.is_empty()
    }

    /// Looks at the next bytes.
    pub(crate) fn see(&mut self, mut bytes: &[u8]) -> Result<Seen, Refusal> {
        let mut seen = Seen::default();
        let all = bytes.len();
        while !bytes.is_empty() {
            let before = all - bytes.len();
            bytes = match &mut self.state {
                State::Head => self.head_bytes(bytes, &mut seen)?,
                State::Body(left) => {
                    let taken = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                    *left -= taken as u64;
                    if *left == 0 {
                        self.state = State::Head;
                    }
                    &bytes[taken..]
                }
                State::Lost => &[],
                _ => self.chunk_bytes(bytes),
            };
            if self.is_lost() {
                seen.believed.get_or_insert(before);
            }
        }
        seen.head_began = self.in_head();
        Ok(seen)
    }

    fn head_bytes<'b>(&mut self, bytes: &'b [u8], seen: &mut Seen) -> Result<&'b [u8], Refusal> {
        let before = self.head.len();
        // One byte more than the limit is enough to know that it is too long.
        let room = (self.limit + 1).saturating_sub(before);
        self.head.extend_from_slice(&bytes[..bytes.len().min(room)]);
        // Empty lines before a request are left over by old clients (RFC 9112, 2.2). All at once: each one alone would
        // move what follows it.
        let empty_lines = self.head.chunks_exact(2).take_while(|line| line == b"\r\n").count();
        self.head.drain(..2 * empty_lines);
        let skipped = before + bytes.len().min(room) - self.head.len();
        let from = before.saturating_sub(3);
        let Some(end) = self.head.get(from..).and_then(|tail| find(tail, b"\r\n\r\n")).map(|at| from + at + 4) else {
            // First what would have been seen in smaller pieces too: the answer must not depend on them.
            bare_line_ends(&self.head, from)?;
            if self.head.len() > self.limit {
                return Err(self.too_long());
            }
            return Ok(&bytes[bytes.len().min(room)..]);
        };
        bare_line_ends(&self.head[..end], from)?;
        if end > self.limit {
            return Err(self.too_long());
        }
        self.state = judge(&self.head[..end])?;
        let consumed = end + skipped - before;
        self.head = Vec::new();
        seen.head_ended = true;
        Ok(&bytes[consumed..])
    }

    fn too_long(&self) -> Refusal {
        if find(&self.head, b"\r\n").is_none() {
            Refusal { status: StatusCode::URI_TOO_LONG, reason: "the request line is too long" }
        } else {
            Refusal {
                status: StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                reason: "the headers are longer than limits.header",
            }
        }
    }

    fn chunk_bytes<'b>(&mut self, bytes: &'b [u8]) -> &'b [u8] {
        match &mut self.state {
            State::ChunkSize(line) => {
                let end = find(bytes, b"\n").map_or(bytes.len(), |at| at + 1);
                let room = (MAX_CHUNK_LINE + 1).saturating_sub(line.len());
                line.extend_from_slice(&bytes[..end.min(room)]);
                if line.ends_with(b"\n") || line.len() > MAX_CHUNK_LINE {
                    self.state = match chunk_size(line) {
                        Some(0) => State::Trailer { line: 0, all: 0, last: 0 },
                        Some(size) => State::ChunkData(size),
                        None => State::Lost,
                    };
                }
                &bytes[end..]
            }
            State::ChunkData(left) => {
                let taken = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                *left -= taken as u64;
                if *left == 0 {
                    self.state = State::ChunkEnd(0);
                }
                &bytes[taken..]
            }
            State::ChunkEnd(came) => {
                self.state = match (*came, bytes.first()) {
                    (0, Some(b'\r')) => State::ChunkEnd(1),
                    (1, Some(b'\n')) => State::ChunkSize(Vec::new()),
                    _ => State::Lost,
                };
                &bytes[1..]
            }
            State::Trailer { line, all, last } => {
                let Some(byte) = bytes.first() else { return bytes };
                let all = *all + 1;
                self.state = match byte {
                    _ if all > self.limit => State::Lost,
                    b'\n' if *last != b'\r' => State::Lost,
                    // An empty line, its CR counted, ends the body.
                    b'\n' if *line == 1 => State::Head,
                    b'\n' => State::Trailer { line: 0, all, last: b'\n' },
                    byte => State::Trailer { line: *line + 1, all, last: *byte },
                };
                &bytes[1..]
            }
            State::Head | State::Body(_) | State::Lost => bytes,
        }
    }
}

/// The number at the beginning of a chunk's line, CR LF at its end. Behind it are at most blanks and an extension (RFC 9112,
/// 7.1.1), with no CR of its own.
fn chunk_size(line: &[u8]) -> Option<u64> {
    let line = line.strip_suffix(b"\r\n")?;
    let (digits, rest) = line.split_at(line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count());
    let extension = rest.iter().find(|byte| !matches!(byte, b' ' | b'\t'));
    if digits.is_empty() || digits.len() > 16 || extension.is_some_and(|byte| *byte != b';') || rest.contains(&b'\r') {
        return None;
    }
    u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

/// Lines end with CR LF and with nothing else. What lies before `from` was looked at before.
fn bare_line_ends(head: &[u8], from: usize) -> Result<(), Refusal> {
    for (at, byte) in head.iter().enumerate().skip(from) {
        let alone = match byte {
            b'\n' => at == 0 || head[at - 1] != b'\r',
            b'\r' => head.get(at + 1).is_some_and(|next| *next != b'\n'),
            0 => true,
            _ => false,
        };
        if alone {
            return Err(malformed("a line of the head does not end with CR LF, or holds a zero byte"));
        }
    }
    Ok(())
}

/// Judges a complete head; what follows it.
fn judge(head: &[u8]) -> Result<State, Refusal> {
    let mut lines = head.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let first = request_line(lines.next().unwrap_or_default())?;
    let mut fields = Fields::default();
    for (count, line) in lines.take_while(|line| !line.is_empty()).enumerate() {
        if count >= MAX_LINES {
            let reason = "there are more than 100 headers";
            return Err(Refusal { status: StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, reason });
        }
        fields.read(line)?;
    }
    if fields.hosts > 1 || first == Version::Http11 && fields.hosts == 0 {
        return Err(malformed("there must be exactly one Host header"));
    }
    match (fields.chunked, fields.length) {
        (true, Some(_)) => Err(malformed("Content-Length and Transfer-Encoding exclude each other")),
        (true, None) if first == Version::Http10 => Err(malformed("HTTP/1.0 has no Transfer-Encoding")),
        (true, None) => Ok(State::ChunkSize(Vec::new())),
        (false, Some(length)) if length > 0 => Ok(State::Body(length)),
        (false, _) => Ok(State::Head),
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Version {
    Http10,
    Http11,
}

fn request_line(line: &[u8]) -> Result<Version, Refusal> {
    let mut parts = line.split(|byte| *byte == b' ');
    let (method, target, version) = (parts.next(), parts.next(), parts.next());
    let (Some(method), Some(target), Some(version), None) = (method, target, version, parts.next()) else {
        return Err(malformed("the request line is not `METHOD TARGET VERSION`"));
    };
    if method.is_empty() || method.len() > 32 || !method.iter().copied().all(is_token) {
        return Err(malformed("the method is not a word"));
    }
    if target.is_empty() || !target.iter().all(|byte| matches!(byte, 0x21..=0x7e)) {
        return Err(malformed("the request target holds bytes that have to be percent-encoded"));
    }
    match version {
        b"HTTP/1.1" => Ok(Version::Http11),
        b"HTTP/1.0" => Ok(Version::Http10),
        _ if version.starts_with(b"HTTP/") => {
            let status = StatusCode::HTTP_VERSION_NOT_SUPPORTED;
            Err(Refusal { status, reason: "the version of HTTP is not known here" })
        }
        _ => Err(malformed("the request line does not end with a version")),
    }
}

#[derive(Default)]
struct Fields {
    hosts: usize,
    length: Option<u64>,
    chunked: bool,
}

impl Fields {
    fn read(&mut self, line: &[u8]) -> Result<(), Refusal> {
        if line.starts_with(b" ") || line.starts_with(b"\t") {
            return Err(malformed("a header is continued on a second line"));
        }
        let Some(colon) = line.iter().position(|byte| *byte == b':') else {
            return Err(malformed("a header has no colon"));
        };
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if name.is_empty() || !name.iter().copied().all(is_token) {
            return Err(malformed("the name of a header is not a word directly before its colon"));
        }
        if value.iter().any(|byte| *byte < 0x20 && *byte != b'\t' || *byte == 0x7f) {
            return Err(malformed("a header holds control characters"));
        }
        if name.eq_ignore_ascii_case(b"host") {
            self.hosts += 1;
        } else if name.eq_ignore_ascii_case(b"content-length") {
            if self.length.is_some() {
                return Err(malformed("there is more than one Content-Length"));
            }
            self.length = Some(length(value).ok_or(malformed("Content-Length is not a number"))?);
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            if self.chunked || !value.eq_ignore_ascii_case(b"chunked") {
                return Err(malformed("the only Transfer-Encoding is `chunked`, once"));
            }
            self.chunked = true;
        }
        Ok(())
    }
}

fn length(value: &[u8]) -> Option<u64> {
    if value.is_empty() || value.len() > 19 || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(value).ok()?.parse().ok()
}

/// A byte of a token (RFC 9110, 5.6.2).
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: usize = 1024;

    /// The verdict, which must not depend on how the bytes are cut.
    fn verdict(bytes: &[u8]) -> Result<State, StatusCode> {
        let whole = pieces(bytes, bytes.len().max(1));
        for size in [1, 2, 3, 7, 64] {
            assert_eq!(pieces(bytes, size), whole, "in pieces of {size}: {}", String::from_utf8_lossy(bytes));
        }
        whole
    }

    fn pieces(bytes: &[u8], size: usize) -> Result<State, StatusCode> {
        let mut framing = Framing::new(LIMIT);
        for piece in bytes.chunks(size) {
            framing.see(piece).map_err(|refusal| refusal.status)?;
        }
        Ok(framing.state)
    }

    fn with_headers(headers: &str) -> Result<State, StatusCode> {
        verdict(format!("PUT /v2/a HTTP/1.1\r\nHost: a\r\n{headers}\r\n").as_bytes())
    }

    #[test]
    fn f01_ambiguous_heads_are_refused() {
        for headers in [
            "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
            "Content-Length: 5\r\nContent-Length: 6\r\n",
            "Content-Length: 5\r\nContent-Length: 5\r\n",
            "Content-Length: 5, 5\r\n",
            "Content-Length: +5\r\n",
            "Content-Length: 0x5\r\n",
            "Content-Length:\r\n",
            "Content-Length: 99999999999999999999\r\n",
            "Transfer-Encoding: chunked, identity\r\n",
            "Transfer-Encoding: identity\r\n",
            "Transfer-Encoding: gzip, chunked\r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding : chunked\r\n",
            "Transfer-Encoding: \x0bchunked\r\n",
            "Host: b\r\n",
            "Content-Length : 5\r\n",
            " Content-Length: 5\r\n",
            "A: b\r\n c\r\n",
            "A: b\nContent-Length: 5\r\n",
            "A: b\rC: d\r\n",
            "A: b\0\r\n",
            "A b\r\n",
            ": b\r\n",
            "A\u{e9}: b\r\n",
        ] {
            assert_eq!(with_headers(headers), Err(StatusCode::BAD_REQUEST), "{headers:?}");
        }
        for head in [
            "GET /v2/ HTTP/1.1\r\n\r\n",
            "GET  /v2/ HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /v2/\tHTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /v2/ \r\nHost: a\r\n\r\n",
            "GET\r\nHost: a\r\n\r\n",
            "GET /\u{fc} HTTP/1.1\r\nHost: a\r\n\r\n",
            "G(T / HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET / http/1.1\r\nHost: a\r\n\r\n",
            "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
            "\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\nHost: a\n\n",
        ] {
            assert_eq!(verdict(head.as_bytes()), Err(StatusCode::BAD_REQUEST), "{head:?}");
        }
        let unknown = Err(StatusCode::HTTP_VERSION_NOT_SUPPORTED);
        assert_eq!(verdict(b"GET / HTTP/2.0\r\nHost: a\r\n\r\n"), unknown);
    }

    #[test]
    fn f08_long_heads_are_refused_before_they_are_stored() {
        let line = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(LIMIT));
        assert_eq!(verdict(line.as_bytes()), Err(StatusCode::URI_TOO_LONG));
        let too_large = Err(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
        assert_eq!(with_headers(&format!("A: {}\r\n", "a".repeat(LIMIT))), too_large);
        assert_eq!(with_headers(&"A:\r\n".repeat(101)), too_large);
        assert_eq!(with_headers(&"A:\r\n".repeat(99)), Ok(State::Head));
        let malformed = [&[b'a'; 20][..], b"\0", &[b'a'; LIMIT]].concat();
        assert_eq!(verdict(&malformed), Err(StatusCode::BAD_REQUEST), "whatever comes first");
        let mut framing = Framing::new(LIMIT);
        assert!(framing.see(&vec![b'a'; 1 << 20]).is_err());
        assert!(framing.head.capacity() < 4 * LIMIT);
    }

    #[test]
    fn requests_follow_each_other() {
        let get = "GET /v2/ HTTP/1.1\r\nHost: a\r\n\r\n";
        let put = "PUT /v2/a HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n\r\n\r\nx";
        let chunked = "PATCH /v2/a HTTP/1.1\r\nHOST: a\r\ntransfer-encoding: Chunked\r\n\r\n\
                       5;x=y\r\nGET /\r\n1A\r\n12345678901234567890123456\r\n0\r\nT: u\r\n\r\n";
        let old = "GET / HTTP/1.0\r\n\r\n";
        let all = [get, put, "\r\n", chunked, get, chunked, put, old, put].concat();
        assert_eq!(verdict(all.as_bytes()), Ok(State::Head));
        let smuggled = [put, "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"].concat();
        assert_eq!(verdict(smuggled.as_bytes()), Err(StatusCode::BAD_REQUEST));
        let behind_chunks = [chunked, "GET / HTTP/1.1\r\n\r\n"].concat();
        assert_eq!(verdict(behind_chunks.as_bytes()), Err(StatusCode::BAD_REQUEST));
    }

    #[test]
    fn f01_of_a_body_whose_end_is_in_doubt_only_the_beginning_is_handed_on() {
        let head = b"PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
        for (good, doubtful) in [
            ("", "00000000000000005\r\nhello\r\n0\r\n\r\n".to_owned()),
            ("", format!("5;{}\r\nhello\r\n0\r\n\r\n", "x".repeat(MAX_CHUNK_LINE))),
            ("5\r\nhello\r\n", "0\n\r\n".to_owned()),
            ("5\r\nhello", "0\r\n\r\n".to_owned()),
            ("0\r\nA: b", "\n\r\n".to_owned()),
        ] {
            let next = "GET /next HTTP/1.1\r\nHost: a\r\n\r\n";
            let all = [head, good.as_bytes(), doubtful.as_bytes(), next.as_bytes()].concat();
            let mut framing = Framing::new(LIMIT);
            let seen = framing.see(&all).unwrap();
            assert_eq!(seen.believed, Some(head.len() + good.len()), "{good:?} {doubtful:?}");
            assert_eq!(framing.see(next.as_bytes()).unwrap().believed, Some(0), "nor anything later");
        }
    }

    #[test]
    fn f01_a_chunk_that_is_wrong_is_the_last_thing_that_is_believed() {
        let head = "PATCH /v2/a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
        for chunk in [
            "5\nhello",
            "fffffffffffffffff\r\n",
            "-5\r\n",
            "\r\n",
            "g\r\n",
            "5\r\nhelloXX",
            "0x5\r\n",
            "0 / HTTP/1.1\r\n",
            "5 x;y\r\n",
            "5;x\ry\r\n",
            &"1".repeat(300),
        ] {
            assert_eq!(verdict([head, chunk].concat().as_bytes()), Ok(State::Lost), "{chunk:?}");
        }
        assert_eq!(chunk_size(b"10 ; a=b\r\n"), Some(16));
    }

    #[test]
    fn empty_lines_cost_what_other_bytes_cost() {
        let mut framing = Framing::new(1 << 20);
        let started = std::time::Instant::now();
        for _ in 0..64 {
            assert_eq!(framing.see(&b"\r\n".repeat(1 << 18)), Ok(Seen::default()));
        }
        assert!(started.elapsed() < std::time::Duration::from_secs(20), "{:?}", started.elapsed());
        assert_eq!(framing.state, State::Head);
        assert!(framing.head.is_empty());
    }

    #[test]
    fn what_was_seen() {
        let mut framing = Framing::new(LIMIT);
        let began = Seen { head_began: true, ..Seen::default() };
        assert_eq!(framing.see(b"GET / HT"), Ok(began));
        assert_eq!(framing.see(b"TP/1.1\r\nHost: a\r\n\r\n"), Ok(Seen { head_ended: true, ..Seen::default() }));
        assert_eq!(framing.see(b"G"), Ok(began));
        assert!(framing.in_head());
        assert_eq!(Framing::new(LIMIT).see(b"\r\n"), Ok(Seen::default()));
    }
}
