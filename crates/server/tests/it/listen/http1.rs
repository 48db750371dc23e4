//! HTTP/1 as bytes: forms of requests that few clients send, and floods.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{Served, read_head, read_to_end, request};

// security: F-01
#[tokio::test]
async fn f01_further_heads_that_can_be_read_in_two_ways() {
    let served = Served::new(&[]).await;
    let smuggled = request("GET /smuggled", "");
    let heads = [
        "Content-Length: 5\r\nContent-Length: 5\r\n",
        "Content-Length: 5, 5\r\n",
        "Content-Length: +5\r\n",
        "Content-Length: -5\r\n",
        "Content-Length: 0x5\r\n",
        "Content-Length: 5 5\r\n",
        "Content-Length: 18446744073709551621\r\n",
        "Content-Length:\r\n",
        "Content-Length: 5\r\nTransfer-Encoding: identity\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding: \x0bchunked\r\n",
        "Transfer-Encoding: \"chunked\"\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: gzip, chunked\r\n",
        "Transfer-Encoding\t: chunked\r\n",
        "\tfolded: yes\r\n",
        " Content-Length: 5\r\n",
        "A: b\rTransfer-Encoding: chunked\r\n",
        "A: b\r\r\n",
        "A: b\0\r\n",
        "no colon\r\n",
        ": no name\r\n",
        "na(me: x\r\n",
    ];
    for headers in heads {
        let answer = served.raw(format!("{}0\r\n\r\n{smuggled}", request("POST /echo", headers))).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{headers:?}: {answer}");
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{headers:?}: {answer}");
    }
    // 400 of the library, 505 of our own: whoever has seen enough of it first.
    for (head, status) in [
        ("POST /echo HTTP/1.0\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        ("GET  / HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        ("GET / HTTP/1.1 \r\nHost: localhost\r\n\r\n", 400),
        ("GET /\r\nHost: localhost\r\n\r\n", 400),
        ("GET\t/\tHTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        ("G(T / HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        ("GET /\u{e4} HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        ("GET / HTTP/1.11\r\nHost: localhost\r\n\r\n", 505),
        ("GET / HTTP/3.0\r\nHost: localhost\r\n\r\n", 505),
        ("GET / http/1.1\r\nHost: localhost\r\n\r\n", 400),
    ] {
        let answer = served.raw(format!("{head}{smuggled}")).await;
        let refused = ["HTTP/1.1 400 ".to_owned(), format!("HTTP/1.1 {status} ")];
        assert!(refused.iter().any(|line| answer.starts_with(line)), "{head:?}: {answer}");
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{head:?}: {answer}");
    }
}

// security: F-01
#[tokio::test]
async fn f01_chunk_extensions_and_trailers_are_skipped_within_bounds() {
    let served = Served::new(&[]).await;
    let smuggled = request("GET /smuggled", "");
    let head = request("PUT /echo", "Transfer-Encoding: chunked\r\n");
    let last = request("GET /last", "Connection: close\r\n");
    for chunks in [
        "5;a=b;c=\"d;e\"\r\nhello\r\n0;x\r\n\r\n",
        "005\r\nhello\r\n000\r\n\r\n",
        "5\r\nhello\r\n0\r\nTrailer-One: x\r\nContent-Length: 70\r\nTransfer-Encoding: chunked\r\n\r\n",
    ] {
        let answer = served.raw(format!("{head}{chunks}{last}")).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.contains("\r\n\r\nhello"), "{chunks:?}: {answer}");
        assert_eq!(
            answer.matches("HTTP/1.1 ").count(),
            2,
            "what follows is a request of its own: {chunks:?}: {answer}"
        );
    }
    // Longer than is looked at, and short enough for the library.
    let longer = format!("5;{}\r\nhello\r\n0\r\n\r\n", "x".repeat(300));
    let long = format!("5;{}\r\nhello\r\n0\r\n\r\n", "x".repeat(20_000));
    let many = format!("{}0\r\n\r\n", format!("1;{}\r\nx\r\n", "y".repeat(240)).repeat(200));
    let trailers = format!("5\r\nhello\r\n0\r\n{}\r\n", "A: b\r\n".repeat(20_000));
    for chunks in [
        longer.as_str(),
        &long,
        &many,
        &trailers,
        "5;a=b\nhello\r\n0\r\n\r\n",
        "5;a\rb\r\nhello\r\n0\r\n\r\n",
        "5\r\nhello\r\n0\r\nA: b\n\r\n",
        "0x5\r\nhello\r\n0\r\n\r\n",
        "5 \u{b}\r\nhello\r\n0\r\n\r\n",
        "00000000000000005\r\nhello\r\n0\r\n\r\n",
        "5\r\nhello0\r\n\r\n",
        "5\r\nhello\r\n\r\n",
    ] {
        let answer = served.raw(format!("{head}{chunks}{smuggled}")).await;
        let shown = &chunks[..chunks.len().min(40)];
        assert!(answer.contains("the body failed"), "{shown:?}: {answer}");
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{shown:?}: {answer}");
    }
}

// security: F-03
#[tokio::test]
async fn f03_targets_with_a_host_and_without_a_path() {
    let served = Served::new(&[]).await;
    let close = "Connection: close\r\n";
    // An absolute target is what a proxy would get; it reaches the handler whole, which compares it with Host (F-03).
    let answer = served.raw(request("GET http://localhost:5000/?x", close)).await;
    assert!(answer.contains("GET http://localhost:5000/?x "), "{answer}");
    for (line, statuses) in [
        ("CONNECT evil.example:443", &["400", "404", "405"][..]),
        ("GET evil.example:443", &["400", "404"]),
        ("GET *", &["400", "404"]),
        ("OPTIONS *", &["200", "400", "404", "405"]),
        ("GET //evil.example/x", &["400", "404"]),
        ("GET x", &["400", "404"]),
        ("GET http://", &["400"]),
        ("GET http:///x", &["400", "404"]),
        ("GET /#fragment", &["200", "400"]),
    ] {
        let answer = served.raw(request(line, close)).await;
        let status = answer.get(9..12).unwrap_or_default();
        assert!(answer.starts_with("HTTP/1.1 ") && statuses.contains(&status), "{line}: {answer}");
        assert!(!answer.to_ascii_lowercase().contains("location:"), "{line}: {answer}");
    }
    // The connection of a CONNECT is no tunnel: what comes next is a request again, or nothing is answered.
    let tunnel = request("CONNECT evil.example:443", "") + &request("GET /", close);
    let answer = served.raw(tunnel).await;
    assert!(!answer.starts_with("HTTP/1.1 2"), "{answer}");
}

// security: F-08
#[tokio::test]
async fn f08_floods_of_headers_are_refused_while_they_come() {
    let served = Served::new(&[]).await;
    let many = "A: b\r\n".repeat(1000);
    let answer = served.raw(request("GET /", &many)).await;
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
    for endless in ["GET / HTTP/1.1\r\nHost: localhost\r\nA: ", "GET /", "GET / HTTP/1.1\r\nHost: localhost\r\n"] {
        let line = if endless.ends_with("\r\n") { "A: b\r\n" } else { "aaaaaa" };
        let mut stream = served.connect().await;
        stream.write_all(endless.as_bytes()).await.unwrap();
        let mut sent = 0;
        let piece = line.repeat(4096);
        // It is answered long before a mebibyte has come, and what still comes is not kept.
        let mut answer = [0; 12];
        let (mut reader, mut writer) = stream.split();
        let flood = async {
            while sent < 64 << 20 {
                if writer.write_all(piece.as_bytes()).await.is_err() {
                    break;
                }
                sent += piece.len();
                tokio::task::yield_now().await;
            }
            std::future::pending::<()>().await;
        };
        let read = tokio::time::timeout(Duration::from_secs(10), reader.read_exact(&mut answer));
        tokio::select! { () = flood => {}, read = read => { read.expect("an answer comes").unwrap(); } }
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert!(answer.ends_with(" 431") || answer.ends_with(" 414"), "{endless:?}: {answer}");
        assert!(sent < 64 << 20, "it was answered only at the end");
    }
}

// security: F-11
#[tokio::test]
async fn f11_connections_that_are_closed_on_one_side() {
    let served = Served::new(&[]).await;
    // Who has asked and sends no more still gets the answer.
    let mut stream = served.connect().await;
    stream.write_all(request("GET /slow", "").as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    let answer = read_to_end(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("slow"), "{answer}");
    let mut stream = served.connect().await;
    let sized = request("PUT /echo", "Content-Length: 5\r\n") + "hello";
    stream.write_all((sized.clone() + &sized).as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    let answer = read_to_end(&mut stream).await;
    assert_eq!(answer.matches("hello").count(), 2, "{answer}");
    // A request without its end is none, and nobody waits for the rest of it.
    let began = Instant::now();
    for part in ["", "GET / HT", "GET / HTTP/1.1\r\nHost: localhost\r\n"] {
        let mut stream = served.connect().await;
        stream.write_all(part.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        let answer = read_to_end(&mut stream).await;
        assert!(!answer.contains(" 200 "), "{part:?}: {answer}");
    }
    for part in ["Content-Length: 100\r\n", "Transfer-Encoding: chunked\r\n"] {
        let mut stream = served.connect().await;
        stream.write_all((request("PUT /echo", part) + "5\r\nhel").as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        let answer = read_to_end(&mut stream).await;
        assert!(answer.is_empty() || answer.contains("the body failed"), "{part:?}: {answer}");
    }
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    let none = "portcullis_connections{listener=\"main\"} 0";
    while !served.metrics.text().contains(none) {
        assert!(began.elapsed() < Duration::from_secs(10), "{}", served.metrics.text());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn q15_a_refusal_of_a_small_body_leaves_the_connection_open() {
    let served = Served::new(&[]).await;
    let mut stream = served.connect().await;
    for _ in 0..3 {
        let refused = request("PATCH /refuse", "Content-Length: 5\r\n") + "hello";
        stream.write_all(refused.as_bytes()).await.unwrap();
        let head = read_head(&mut stream).await;
        assert!(
            head.starts_with("HTTP/1.1 401 ") && !head.to_ascii_lowercase().contains("connection: close"),
            "{head}"
        );
        stream.read_exact(&mut [0; 2]).await.unwrap();
    }
    stream.write_all(request("GET /", "Connection: close\r\n").as_bytes()).await.unwrap();
    assert!(read_to_end(&mut stream).await.starts_with("HTTP/1.1 200 OK\r\n"), "the next request is answered");
}

/// More requests than anybody reads answers of: they wait in the client's socket, not here.
#[tokio::test]
async fn f11_requests_whose_answers_nobody_reads_are_not_taken_in() {
    let settings = [("PORTCULLIS_LIMITS__PROGRESS", "1KiB"), ("PORTCULLIS_LIMITS__PROGRESS_TIME", "800ms")];
    let served = Served::new(&settings).await;
    let mut stream = served.connect().await;
    let requests = request("GET /endless", "") + &request("GET /", "").repeat(1000);
    let (mut sent, began) = (0, Instant::now());
    while began.elapsed() < Duration::from_secs(10) {
        let write = tokio::time::timeout(Duration::from_millis(500), stream.write(requests.as_bytes()));
        match write.await {
            Ok(Ok(count)) => sent += count,
            Ok(Err(_)) => break,
            Err(_) if served.closed("progress") > 0 => break,
            Err(_) => {}
        }
    }
    assert!(sent < 32 << 20, "{sent} bytes of requests were taken in");
    assert_eq!(served.closed("progress"), 1, "and the connection ends");
    let answer = served.raw(request("GET /", "Connection: close\r\n")).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "others are served: {answer}");
}
