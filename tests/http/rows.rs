//! Requests and what must become of them: status of each answer, then kept or closed.

pub(crate) enum Then {
    Kept,
    Closed,
    /// Closed, though the last answer could not say so yet.
    Dropped,
}

use Then::{Closed, Dropped, Kept};

pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) input: Vec<u8>,
    pub(crate) answers: Vec<u16>,
    pub(crate) then: Then,
}

/// A POST to `/` with `fields` after its Host, each ended by CRLF, and whatever follows the head.
fn post(fields: &str, rest: &str) -> String {
    format!("POST / HTTP/1.1\r\nHost: a.example\r\n{fields}\r\n{rest}")
}

fn chunked(rest: &str) -> String {
    post("Transfer-Encoding: chunked\r\n", rest)
}

fn get(line: &str) -> String {
    format!("{line}\r\nHost: a\r\n\r\n")
}

pub(crate) fn all() -> Vec<Row> {
    let ok = post("Content-Length: 5\r\n", "hello");
    let body = |len: usize| "b".repeat(len);
    let mut rows = Vec::new();
    let mut row = |name, input: String, answers: &[u16], then| {
        rows.push(Row { name, input: input.into_bytes(), answers: answers.to_vec(), then });
    };
    row("length", ok.clone(), &[200], Kept);
    row("chunks", chunked("2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n"), &[200], Kept);
    row("HTTP/1.0", "POST / HTTP/1.0\r\nContent-Length: 5\r\n\r\nhello".into(), &[200], Closed);
    row("no host", "GET / HTTP/1.1\r\n\r\n".into(), &[400], Closed);
    row("two hosts", post("Host: b\r\nContent-Length: 1\r\n", "x"), &[400], Closed);
    row("bad host", "GET / HTTP/1.1\r\nHost: a b\r\n\r\n".into(), &[400], Closed);
    row("another host", "GET / HTTP/1.1\r\nHost: 10.0.0.1:99\r\n\r\n".into(), &[200], Kept);
    row("absolute form", get("GET http://b.example/ HTTP/1.1"), &[200], Kept);
    row("CONNECT", get("CONNECT a:443 HTTP/1.1"), &[405], Closed);
    row("TRACE", get("TRACE / HTTP/1.1"), &[405], Closed);
    row("PUT, body read away", ok.replace("POST", "PUT"), &[405], Kept);
    row("DELETE without body", get("DELETE / HTTP/1.1"), &[405], Kept);
    row("unknown method", get("BREW / HTTP/1.1"), &[405], Closed);
    row("lower-case method", get("get / HTTP/1.1"), &[405], Closed);
    row("long method", get(&format!("{} / HTTP/1.1", "G".repeat(17))), &[405], Closed);
    row("long target", get(&format!("GET /{} HTTP/1.1", body(8192))), &[414], Closed);
    row("control in target", get("GET /\x01 HTTP/1.1"), &[400], Closed);
    row("non-ASCII target", get("GET /\u{e9} HTTP/1.1"), &[400], Closed);
    row("path tricks", get("GET /%2e%2e//%00 HTTP/1.1"), &[404], Kept);
    row("admin path", get("GET /metrics HTTP/1.1"), &[404], Kept);
    row("two spaces", get("GET  / HTTP/1.1"), &[400], Closed);
    row("tab", get("GET\t/ HTTP/1.1"), &[400], Closed);
    row("HTTP/1.32", get("GET / HTTP/1.32"), &[400], Closed);
    row("lower-case http", get("GET / http/1.1"), &[400], Closed);
    row("HTTP/3.0", get("GET / HTTP/3.0"), &[505], Closed);
    row("HTTP/2 preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".into(), &[505], Closed);
    row("HTTP/0.9", "GET /\r\n".into(), &[400], Closed);
    row("TLS hello", "\x16\x03\x01\x02\0\x01\0\x01".into(), &[400], Closed);
    row("one empty line before", format!("\r\n{ok}"), &[200], Kept);
    row("fifty empty lines before", format!("{}{ok}", "\r\n".repeat(50)), &[400], Closed);
    row("bare LF", ok.replace("\r\n", "\n"), &[400], Closed);
    row("bare CR", ok.replace("a.example\r\n", "a.example\r"), &[400], Closed);
    row("CR in value", post("X: a\rb\r\nContent-Length: 5\r\n", "hello"), &[400], Closed);
    row("NUL in value", post("X: a\0b\r\nContent-Length: 5\r\n", "hello"), &[400], Closed);
    row("blank before colon", post("Content-Length : 5\r\n", "hello"), &[400], Closed);
    row("folded line", post("X: a\r\n b\r\nContent-Length: 5\r\n", "hello"), &[400], Closed);
    row("blank before first field", "GET / HTTP/1.1\r\n Host: a\r\n\r\n".into(), &[400], Closed);
    row("empty name", post(": x\r\nContent-Length: 5\r\n", "hello"), &[400], Closed);
    row("no colon", post("hello\r\nContent-Length: 5\r\n", "hello"), &[400], Closed);
    row("delimiter in name", post("a(b): x\r\nContent-Length: 5\r\n", "hello"), &[400], Closed);
    row("lookalike of a length", post("Content_Length: 9\r\nContent-Length: 5\r\n", "hello"), &[200], Kept);
    row("large head", post(&"X: y\r\n".repeat(3000), ""), &[431], Closed);
    row("65 fields", post(&"X: y\r\n".repeat(64), ""), &[431], Closed);
    row("large field", post(&format!("X: {}\r\n", body(8192)), ""), &[431], Closed);
    row(
        "length and chunks",
        post("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", "hello"),
        &[400],
        Closed,
    );
    row(
        "chunks and length",
        post("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", "0\r\n\r\n"),
        &[400],
        Closed,
    );
    row("two lengths", post("Content-Length: 3\r\nContent-Length: 5\r\n", "hello"), &[400], Closed);
    row("one length twice", post("Content-Length: 5\r\nContent-Length: 5\r\n", "hello"), &[400], Closed);
    row("list of lengths", post("Content-Length: 5, 5\r\n", "hello"), &[400], Closed);
    row("signed length", post("Content-Length: +5\r\n", "hello"), &[400], Closed);
    row("length with zeros", post("Content-Length: 0005\r\n", "hello"), &[200], Kept);
    row("length beyond numbers", post("Content-Length: 9223372036854775808\r\n", ""), &[400], Closed);
    row("length beyond the limit", post("Content-Length: 4194305\r\n", "hello"), &[413], Closed);
    row("chunk beyond the limit", chunked("400001\r\nhello"), &[413], Closed);
    row("gzip coding", post("Transfer-Encoding: gzip\r\n", "hello"), &[501], Closed);
    row("chunked not last", post("Transfer-Encoding: chunked, gzip\r\n", "hello"), &[400], Closed);
    row(
        "chunked twice",
        post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", ""),
        &[400],
        Closed,
    );
    row("coding with 0xa0", post("Transfer-Encoding: \u{a0}chunked\r\n", ""), &[400], Closed);
    row(
        "coding in 1.0",
        "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".into(),
        &[400],
        Closed,
    );
    row("empty chunk size", chunked("\r\n\r\n"), &[400], Closed);
    row("signed chunk size", chunked("+5\r\nhello\r\n0\r\n\r\n"), &[400], Closed);
    row("long chunk size", chunked("00000000000000005\r\nhello\r\n0\r\n\r\n"), &[400], Closed);
    row("chunk too long", chunked("5\r\nhelloX\r\n0\r\n\r\n"), &[400], Closed);
    row("chunk ended by LF", chunked("5\r\nhello\n0\r\n\r\n"), &[400], Closed);
    row("chunk extension", chunked("5;a=b\r\nhello\r\n0\r\n\r\n"), &[200], Kept);
    row("large chunk extension", chunked(&format!("5;{}\r\nhello\r\n0\r\n\r\n", body(1024))), &[400], Closed);
    row("tiny chunks", chunked(&"1\r\nx\r\n".repeat(70_000)), &[400], Closed);
    row("trailer", chunked("5\r\nhello\r\n0\r\nX: y\r\n\r\n"), &[200], Kept);
    row("trailer that frames", chunked("5\r\nhello\r\n0\r\nContent-Length: 1\r\n\r\n"), &[400], Closed);
    row("nine trailers", chunked(&format!("0\r\n{}\r\n", "X: y\r\n".repeat(9))), &[400], Closed);
    row("bytes after the body", format!("{ok}X\r\n"), &[200, 400], Closed);
    row("two requests", format!("{ok}{ok}"), &[200, 200], Kept);
    row("hundred requests", ok.repeat(100), &[200; 100], Kept);
    row("valid, refused, valid", format!("{ok}{}{ok}", ok.replace("POST", "PUT")), &[200, 405, 200], Kept);
    row("valid, then invalid", format!("{ok}GET / HTTP/1.1\r\n\r\n{ok}"), &[200, 400], Closed);
    row(
        "close, then more",
        format!("{}{ok}", post("Content-Length: 5\r\nConnection: close\r\n", "hello")),
        &[200],
        Closed,
    );
    row(
        "GET with body",
        "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello".into(),
        &[400],
        Closed,
    );
    row("POST without length", post("", ""), &[411], Closed);
    row("other expectation", post("Expect: 200-ok\r\nContent-Length: 5\r\n", "hello"), &[417], Closed);
    row(
        "upgrade",
        post("Connection: upgrade\r\nUpgrade: h2c\r\nContent-Length: 5\r\n", "hello"),
        &[200],
        Kept,
    );
    row(
        "connection names length",
        post("Connection: content-length\r\nContent-Length: 5\r\n", "hello"),
        &[400],
        Closed,
    );
    row(
        "404 with small body",
        post("Content-Length: 65536\r\n", &body(65536)).replace("T / ", "T /x "),
        &[404],
        Kept,
    );
    row(
        "404 with large body",
        post("Content-Length: 65537\r\n", &body(65537)).replace("T / ", "T /x "),
        &[404],
        Closed,
    );
    row("404 with chunks", chunked("5\r\nhello\r\n0\r\n\r\n").replace("T / ", "T /x "), &[404], Kept);
    row("404 with bad chunks", chunked("X\r\n").replace("T / ", "T /x "), &[404], Dropped);
    row("HEAD", get("HEAD /now HTTP/1.1"), &[200], Kept);
    row("large body", post("Content-Length: 50000\r\n", &body(50_000)), &[200], Kept);
    rows
}
