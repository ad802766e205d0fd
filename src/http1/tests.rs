//! Every head and answer gives the same verdict whole, byte by byte and cut in two; nothing is taken that httparse refuses.

use super::*;

mod answers;
mod mutants;

const LIMITS: Limits = Limits { head: 16 << 10, body: 4 << 20 };

/// What a head came to: method, target, framing, keep-alive, expect, bytes; or the status of its refusal.
type Verdict = Result<Option<(String, String, Framing, bool, bool, usize)>, u16>;

fn verdict(buf: &[u8], scan: &mut Scan) -> Verdict {
    let mut headers = NO_HEADERS;
    match parse_request(buf, &mut headers, scan, LIMITS) {
        Err(refusal) => Err(refusal.status),
        Ok(None) => Ok(None),
        Ok(Some((head, used))) => {
            let texts = (head.method.to_owned(), head.target.to_owned());
            Ok(Some((texts.0, texts.1, head.framing, head.keep_alive, head.expect_continue, used)))
        }
    }
}

/// The verdict on `buf` when it arrives in pieces that end at `cuts`.
fn in_pieces(buf: &[u8], cuts: impl IntoIterator<Item = usize>) -> Verdict {
    let mut scan = Scan::default();
    for end in cuts.into_iter().chain([buf.len()]) {
        let found = verdict(&buf[..end], &mut scan);
        if found != Ok(None) {
            return found;
        }
    }
    Ok(None)
}

/// Every offset of a short input, some of a long one.
fn offsets(len: usize) -> impl Iterator<Item = usize> {
    (0..len).step_by(1 + len / 400)
}

fn same_however_cut(buf: &[u8]) -> Verdict {
    let whole = in_pieces(buf, []);
    let shown = || buf[..buf.len().min(200)].escape_ascii().to_string();
    assert_eq!(in_pieces(buf, offsets(buf.len())), whole, "in small pieces: {}", shown());
    for cut in offsets(buf.len()) {
        assert_eq!(in_pieces(buf, [cut]), whole, "cut at {cut}: {}", shown());
    }
    whole
}

fn check(head: &str, expected: Result<Framing, u16>) {
    let found = same_however_cut(head.as_bytes());
    let framing = found.clone().map(|taken| taken.map(|taken| taken.2));
    assert_eq!(framing, expected.map(Some), "{}", head.escape_debug());
    if found.is_ok() {
        let longer = same_however_cut(format!("{head}\n\r\n\rGET").as_bytes());
        assert_eq!(longer, found, "what follows the head is not its business");
    }
}

/// A POST with `fields`, each ended by CRLF.
fn post(fields: &str) -> String {
    format!("POST /webhook HTTP/1.1\r\nHost: a.example\r\n{fields}\r\n")
}

#[test]
fn good_heads_are_taken() {
    check(&post("Content-Length: 5\r\n"), Ok(Framing::Length(5)));
    check(&post("content-length: \t 0005 \r\n"), Ok(Framing::Length(5)));
    check(&post("Content-Length: 4194304\r\n"), Ok(Framing::Length(4 << 20)));
    check(&post("TRANSFER-ENCODING: CHUNKED\r\n"), Ok(Framing::Chunked));
    check(&format!("\r\n{}", post("Content-Length: 0\r\n")), Ok(Framing::Length(0)));
    check("GET /webhook?hub.mode=subscribe HTTP/1.1\r\nhost: [::1]:80\r\n\r\n", Ok(Framing::None));
    check("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", Ok(Framing::Length(0)));
    check("GET /%00/../x//y HTTP/1.0\r\n\r\n", Ok(Framing::None));
    check(
        "DELETE / HTTP/1.1\r\nHost: a\r\nUpgrade: h2c\r\nConnection: upgrade, te\r\n\r\n",
        Ok(Framing::None),
    );
    check(&post("Content-Length: 1\r\nX: \u{e9}\r\nEmpty:\r\n"), Ok(Framing::Length(1)));
    check(&post(&format!("Content-Length: 1\r\n{}", "A: b\r\n".repeat(62))), Ok(Framing::Length(1)));
    check(&format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(8191)), Ok(Framing::None));
    check(&post(&format!("Content-Length: 1\r\nA: {}\r\n", "x".repeat(8190))), Ok(Framing::Length(1)));
}

#[test]
fn request_lines_in_doubt_are_refused() {
    let line = |line: &str, status| check(&format!("{line}\r\nHost: a\r\n\r\n"), Err(status));
    for method in ["CONNECT", "TRACE", "FOO", "get", "Post", "PROPFIND", "A-METHOD-THAT-IS-TOO-LONG"] {
        line(&format!("{method} / HTTP/1.1"), 405);
    }
    line("CONNECT a:443 HTTP/1.1", 405);
    for target in [
        "*",
        "webhook",
        "ftp://a/",
        "http://",
        "http://u@a/",
        "http://a?q",
        "/a#b",
        "/\u{e9}",
        "/a\tb",
        "/\0",
    ] {
        line(&format!("GET {target} HTTP/1.1"), 400);
    }
    for text in [
        "GET  / HTTP/1.1",
        "GET /  HTTP/1.1",
        "GET\t/ HTTP/1.1",
        " GET / HTTP/1.1",
        "GET / HTTP/1.1 ",
        "GET /",
        "GET",
        "/",
    ] {
        line(text, 400);
    }
    for version in ["HTTP/1.32", "HTTP/1.1x", "http/1.1", "HTTP/1,1", "HTTP/1", "HTTPS/1.1", "XXXX/1.1"] {
        line(&format!("GET / {version}"), 400);
    }
    for version in ["HTTP/2.0", "HTTP/3.0", "HTTP/1.2", "HTTP/0.9"] {
        line(&format!("GET / {version}"), 505);
    }
    check("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Err(505));
    check("GET /\r\n", Err(400));
    check("\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", Err(400));
    check("\x16\x03\x01\x02\0\x01\0", Err(400));
    for filler in [8192, 8300, 20_000] {
        check(&format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(filler)), Err(414));
    }
    check(&"X".repeat(9000), Err(405));
    check(&format!("GET /{}\r{} HTTP/1.1\r\n\r\n", "x".repeat(8300), "x".repeat(99)), Err(414));
}

#[test]
fn field_lines_in_doubt_are_refused() {
    for fields in [
        "X : y\r\n",
        "X\t: y\r\n",
        " X: y\r\n",
        "X: y\r\n z\r\n",
        ": y\r\n",
        "no colon\r\n",
        "X\u{e9}: y\r\n",
        "X(: y\r\n",
        "X\0: y\r\n",
        "X: \0\r\n",
        "X: a\x01b\r\n",
        "X: a\rb\r\n",
        "X: a\nb\r\n",
        "X: y\n",
        "\n",
        "X: y\r\r\n",
        "X\r\n: y\r\n",
        "X: a\x7fb\r\n",
    ] {
        check(&post(&format!("Content-Length: 1\r\n{fields}")), Err(400));
    }
    check(&post("Content-Length: 1\r\nX: y\r\n").replace("\r\n", "\n"), Err(400));
    check(&post("Content-Length: 1\r\nX: y\r\n").replace("\r\n", "\r"), Err(400));
    check("GET / HTTP/1.1\r\n Host: a\r\n\r\n", Err(400));
    check(&post(&"A: b\r\n".repeat(64)), Err(431));
    check(&post(&format!("A: {}\r\n", "x".repeat(8192))), Err(431));
    check(&post(&format!("{}: x\r\n", "x".repeat(8192))), Err(431));
    check(&post(&format!("A: {0}\r\nB: {0}\r\nC: {0}\r\n", "x".repeat(8000))), Err(431));
    check(&post(&format!("A: {}", "x".repeat(70_000))), Err(431));
}

#[test]
fn hosts_in_doubt_are_refused() {
    check("GET / HTTP/1.1\r\n\r\n", Err(400));
    check("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", Err(400));
    check("GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n", Err(400));
    for host in ["", "a b", "a/b", "u@a", "a:b", "[::1"] {
        check(&format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"), Err(400));
    }
}

#[test]
fn framing_in_doubt_is_refused() {
    let fields = |fields: &str, status| check(&post(fields), Err(status));
    for length in [
        "+5",
        "-1",
        "0x10",
        "5_0",
        "1e3",
        "5 5",
        "",
        "5x",
        "5, 5",
        "9223372036854775808",
        "99999999999999999999",
    ] {
        fields(&format!("Content-Length: {length}\r\n"), 400);
    }
    fields("Content-Length: 5\r\nContent-Length: 5\r\n", 400);
    fields("Content-Length: 5\r\nContent-Length: 6\r\n", 400);
    fields("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", 400);
    fields("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", 400);
    fields("Transfer-Encoding: gzip\r\nContent-Length: 5\r\n", 400);
    fields("Content-Length: 4194305\r\n", 413);
    fields("Content-Length: 9223372036854775807\r\n", 413);
    for coding in ["gzip", "identity", "xchunked", "\"chunked\"", "gzip, chunked"] {
        fields(&format!("Transfer-Encoding: {coding}\r\n"), 501);
    }
    fields("Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n", 501);
    for coding in
        ["chunked, gzip", "chunked, chunked", ", chunked", "chunked,", "", "\u{b}chunked", "chunked\u{a0}"]
    {
        fields(&format!("Transfer-Encoding: {coding}\r\n"), 400);
    }
    fields("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", 400);
    check("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", Err(400));
    fields("", 411);
    check("POST / HTTP/1.0\r\n\r\n", Err(411));
    check("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n", Err(400));
    check("GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", Err(400));
    fields("Content-Length: 1\r\nExpect: 200-ok\r\n", 417);
    for name in ["Content-Length", "transfer-encoding", "x-hub-signature-256", "Host"] {
        fields(&format!("Content-Length: 1\r\nConnection: close, {name}\r\n"), 400);
    }
}

#[test]
fn heads_say_what_becomes_of_the_connection() {
    let check = |head: &str, keep_alive, expect| {
        let (_, _, _, keep, expected, used) = same_however_cut(head.as_bytes()).unwrap().unwrap();
        assert_eq!((keep, expected, used), (keep_alive, expect, head.len()), "{head}");
    };
    check(&post("Content-Length: 1\r\nExpect: 100-Continue\r\n"), true, true);
    check(&post("Content-Length: 1\r\nConnection: keep-alive, CLOSE\r\n"), false, false);
    check("GET / HTTP/1.0\r\nConnection: keep-alive\r\nExpect: 100-continue\r\n\r\n", false, false);
}

#[test]
fn absolute_targets_are_reduced_to_their_path() {
    for (target, path) in [("http://a.example/x?y", "/x?y"), ("HTTPS://[::1]:8443/", "/"), ("http://a", "/")]
    {
        let head = format!("GET {target} HTTP/1.1\r\nHost: other\r\n\r\n");
        assert_eq!(same_however_cut(head.as_bytes()).unwrap().unwrap().1, path);
    }
}

#[test]
fn fields_are_found_once_and_doubles_reported() {
    let text =
        post("Content-Length: 1\r\nX-Hub-Signature-256: a\r\nTwo: 1\r\ntwo: 2\r\nx_hub_signature_256: b\r\n");
    let mut headers = NO_HEADERS;
    let (head, _) =
        parse_request(text.as_bytes(), &mut headers, &mut Scan::default(), LIMITS).unwrap().unwrap();
    assert_eq!(head.header("x-hub-signature-256"), Field::One(b"a"));
    assert_eq!((head.header("TWO"), head.header("three")), (Field::Several, Field::Missing));
    assert_eq!(head.lookalikes, 1);
}
