//! A blocking HTTP/1.1 client over a plain socket: what a library would hide stays visible.

use std::fmt;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// How long a test waits for a byte before it calls the server stuck.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Longest body that [`Connection::send`] keeps in memory.
const MAX_BODY: u64 = 64 << 20;

/// What to send after the headers.
pub enum Body<'a> {
    /// Nothing, and no `Content-Length`.
    None,
    /// These bytes with their `Content-Length`.
    Bytes(&'a [u8]),
    /// This many bytes of a reader, with their `Content-Length`.
    Sized(&'a mut dyn Read, u64),
    /// All of a reader, chunked.
    Chunked(&'a mut dyn Read),
}

/// An answer.
#[derive(Clone)]
pub struct Response {
    /// Status code.
    pub status: u16,
    /// Header lines in order, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body, unless it went elsewhere.
    pub body: Vec<u8>,
}

impl Response {
    /// The first header of this (lower-case) name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Fails with the whole answer unless the status is this one.
    pub fn expect_status(self, status: u16) -> io::Result<Self> {
        if self.status == status {
            return Ok(self);
        }
        Err(io::Error::other(format!("status {status} expected: {self:?}")))
    }
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?} {}", self.status, self.headers, self.text().chars().take(500).collect::<String>())
    }
}

/// One connection, kept alive between requests.
pub struct Connection {
    stream: BufReader<TcpStream>,
    host: String,
}

impl Connection {
    /// Connects; `host` is what the requests call the server.
    pub fn open(address: SocketAddr, host: &str) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream: BufReader::with_capacity(256 << 10, stream), host: host.to_owned() })
    }

    /// The socket.
    pub fn socket(&self) -> &TcpStream {
        self.stream.get_ref()
    }

    /// Sends a request and reads the answer into memory.
    pub fn send(
        &mut self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: Body<'_>,
    ) -> io::Result<Response> {
        let mut bytes = Vec::new();
        let mut response = self.send_to(method, target, headers, body, &mut Bounded(&mut bytes))?;
        response.body = bytes;
        Ok(response)
    }

    /// Sends a request and writes the body of the answer to `sink`.
    pub fn send_to(
        &mut self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: Body<'_>,
        sink: &mut dyn Write,
    ) -> io::Result<Response> {
        let sent = self.write_request(method, target, headers, body);
        // A server that refuses a body early answers and closes: the answer matters more than the broken pipe.
        match (self.read_response(method, sink), sent) {
            (Ok(response), _) => Ok(response),
            (Err(_), Err(error)) | (Err(error), Ok(())) => Err(error),
        }
    }

    fn write_request(
        &mut self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: Body<'_>,
    ) -> io::Result<()> {
        let mut head = format!("{method} {target} HTTP/1.1\r\nHost: {}\r\n", self.host);
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        match &body {
            Body::None => {}
            Body::Bytes(bytes) => head.push_str(&format!("Content-Length: {}\r\n", bytes.len())),
            Body::Sized(_, length) => head.push_str(&format!("Content-Length: {length}\r\n")),
            Body::Chunked(_) => head.push_str("Transfer-Encoding: chunked\r\n"),
        }
        head.push_str("\r\n");
        let socket = self.stream.get_mut();
        socket.write_all(head.as_bytes())?;
        match body {
            Body::None => Ok(()),
            Body::Bytes(bytes) => socket.write_all(bytes),
            Body::Sized(reader, length) => copy(&mut reader.take(length), socket, |_| String::new(), ""),
            Body::Chunked(reader) => {
                copy(reader, socket, |length| format!("{length:x}\r\n"), "\r\n")?;
                socket.write_all(b"0\r\n\r\n")
            }
        }
    }

    /// Reads one answer to a request of this method; skips `100 Continue`.
    pub fn read_response(&mut self, method: &str, sink: &mut dyn Write) -> io::Result<Response> {
        loop {
            let (status, headers) = self.read_head()?;
            if status == 100 {
                continue;
            }
            let response = Response { status, headers, body: Vec::new() };
            let chunked = response.header("transfer-encoding").is_some_and(|value| value.contains("chunked"));
            if method == "HEAD" || matches!(status, 204 | 304) {
                // no body follows
            } else if chunked {
                self.read_chunks(sink)?;
            } else if let Some(length) = response.header("content-length") {
                let length: u64 = length.parse().map_err(io::Error::other)?;
                copy_exactly(&mut self.stream, sink, length)?;
            } else {
                io::copy(&mut self.stream, sink)?;
            }
            return Ok(response);
        }
    }

    fn read_head(&mut self) -> io::Result<(u16, Vec<(String, String)>)> {
        let line = self.read_line()?;
        let status = line
            .split(' ')
            .nth(1)
            .and_then(|code| code.parse().ok())
            .ok_or_else(|| io::Error::other(format!("not a status line: {line:?}")))?;
        let mut headers = Vec::new();
        loop {
            let line = self.read_line()?;
            if line.is_empty() {
                return Ok((status, headers));
            }
            let (name, value) =
                line.split_once(':').ok_or_else(|| io::Error::other(format!("not a header: {line:?}")))?;
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
    }

    fn read_line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        if (&mut self.stream).take(64 << 10).read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        match line.strip_suffix("\r\n") {
            Some(line) => Ok(line.to_owned()),
            None => Err(io::Error::other(format!("line without its end: {line:?}"))),
        }
    }

    fn read_chunks(&mut self, sink: &mut dyn Write) -> io::Result<()> {
        loop {
            let line = self.read_line()?;
            let length = u64::from_str_radix(line.split(';').next().unwrap_or("").trim(), 16)
                .map_err(|_| io::Error::other(format!("not a chunk length: {line:?}")))?;
            copy_exactly(&mut self.stream, sink, length)?;
            self.read_line()?;
            if length == 0 {
                return Ok(());
            }
        }
    }
}

fn copy_exactly(from: &mut dyn Read, to: &mut dyn Write, length: u64) -> io::Result<()> {
    let mut buffer = vec![0; 256 << 10];
    let mut left = length;
    while left > 0 {
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        match from.read(&mut buffer[..most])? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => {
                to.write_all(&buffer[..count])?;
                left -= count as u64;
            }
        }
    }
    Ok(())
}

fn copy(from: &mut dyn Read, to: &mut TcpStream, before: impl Fn(usize) -> String, after: &str) -> io::Result<()> {
    let mut buffer = vec![0; 256 << 10];
    loop {
        let count = from.read(&mut buffer)?;
        if count == 0 {
            return Ok(());
        }
        to.write_all(before(count).as_bytes())?;
        to.write_all(&buffer[..count])?;
        to.write_all(after.as_bytes())?;
    }
}

/// A body kept in memory, within bounds.
struct Bounded<'a>(&'a mut Vec<u8>);

impl Write for Bounded<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if (self.0.len() + bytes.len()) as u64 > MAX_BODY {
            return Err(io::Error::other("the answer is too long to keep in memory"));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_lengths_chunks_and_early_answers() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = std::thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            let mut reader = BufReader::new(stream);
            for answer in [
                "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 Created\r\nContent-Length: 2\r\nX-A: b\r\n\r\nhi",
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
                "HTTP/1.1 413 Content Too Large\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
            ] {
                let mut line = String::new();
                while line != "\r\n" {
                    line.clear();
                    reader.read_line(&mut line).unwrap();
                }
                reader.get_mut().write_all(answer.as_bytes()).unwrap();
            }
        });
        let mut connection = Connection::open(address, "localhost").unwrap();
        let first = connection.send("POST", "/a", &[], Body::None).unwrap();
        assert_eq!((first.status, first.header("x-a"), &*first.text()), (201, Some("b"), "hi"));
        assert_eq!(connection.send("GET", "/b", &[], Body::None).unwrap().text(), "abc");
        assert_eq!(connection.send("PUT", "/c", &[], Body::Bytes(&[0; 100])).unwrap().status, 413);
        server.join().unwrap();
    }
}
