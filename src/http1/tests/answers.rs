//! Answers of regions, good and bad.

use std::time::{Duration, SystemTime};

use super::super::response::{BODY_MAX, HEADS_MAX};
use super::super::*;
use super::offsets;

/// Feeds `buf` in pieces that end at `cuts`, then the end of the stream.
pub(super) fn answer(buf: &[u8], cuts: impl IntoIterator<Item = usize>) -> Result<Response, BadAnswer> {
    let mut decoder = ResponseDecoder::default();
    for end in cuts.into_iter().chain([buf.len()]) {
        if let Step::Done(response) = decoder.decode(&buf[..end], false)? {
            return Ok(response);
        }
    }
    match decoder.decode(buf, true)? {
        Step::Done(response) => Ok(response),
        Step::NeedMore => panic!("asks for more after the end"),
    }
}

/// Status, whether the connection can be used again, and bytes taken; the same however it arrives.
#[track_caller]
fn check(buf: impl AsRef<[u8]>, expected: Result<(u16, bool, usize), BadAnswer>) -> Option<Response> {
    let buf = buf.as_ref();
    let whole = answer(buf, []);
    let shown = || buf[..buf.len().min(200)].escape_ascii().to_string();
    let found = whole.clone().map(|response| (response.status, response.reusable, response.consumed));
    assert_eq!(found, expected, "{}", shown());
    assert_eq!(answer(buf, offsets(buf.len())), whole, "in small pieces: {}", shown());
    for cut in offsets(buf.len()) {
        assert_eq!(answer(buf, [cut]), whole, "cut at {cut}: {}", shown());
    }
    whole.ok()
}

/// All of `text` is one answer, and the connection can be used again.
#[track_caller]
fn kept(text: impl AsRef<[u8]>, status: u16) -> Option<Response> {
    let text = text.as_ref();
    check(text, Ok((status, true, text.len())))
}

/// All of `text` is one answer, and the connection must be closed.
#[track_caller]
fn closed(text: impl AsRef<[u8]>, status: u16) -> Option<Response> {
    let text = text.as_ref();
    check(text, Ok((status, false, text.len())))
}

#[track_caller]
fn refused(text: impl AsRef<[u8]>, error: BadAnswer) {
    check(text, Err(error));
}

/// The end of the answer is in doubt.
#[track_caller]
fn doubtful(text: impl AsRef<[u8]>) {
    let text = text.as_ref();
    let error = answer(text, []).unwrap_err();
    assert!(matches!(error, BadAnswer::Framing(_)), "{error:?}: {}", text.escape_ascii());
    refused(text, error);
}

#[test]
fn status_and_end_are_found() {
    kept("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", 200);
    kept("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", 200);
    kept("HTTP/1.1 200\r\ncontent-length: 0\r\n\r\n", 200);
    kept("HTTP/1.1 503 Sorry, \u{e4}\r\nServer: x\r\ncontent-length:   0002  \r\n\r\nno", 503);
    kept("HTTP/1.1 599 x\r\ncontent-length: 0\r\n\r\n", 599);
    kept("HTTP/1.1 302 Found\r\nLocation: http://10.0.0.1/\r\ncontent-length: 0\r\n\r\n", 302);
}

#[test]
fn answers_without_a_body_end_with_their_head() {
    kept("HTTP/1.1 204 No Content\r\n\r\n", 204);
    kept("HTTP/1.1 204 No Content\r\ncontent-length: 0\r\n\r\n", 204);
    kept("HTTP/1.1 304 Not Modified\r\ncontent-length: 500\r\n\r\n", 304);
    closed("HTTP/1.1 204 No Content\r\ncontent-length: 5\r\n\r\n", 204);
    closed("HTTP/1.1 204 No Content\r\ntransfer-encoding: chunked\r\n\r\n", 204);
}

#[test]
fn connection_is_given_up_when_asked() {
    closed("HTTP/1.1 200 OK\r\nConnection: close\r\ncontent-length: 0\r\n\r\n", 200);
    closed("HTTP/1.1 200 OK\r\nconnection: x, CLOSE ,y\r\ncontent-length: 0\r\n\r\n", 200);
    kept("HTTP/1.1 200 OK\r\nconnection: keep-alive\r\ncontent-length: 0\r\n\r\n", 200);
    kept("HTTP/1.1 200 OK\r\nconnection: closed\r\ncontent-length: 0\r\n\r\n", 200);
    closed("HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 0\r\n\r\n", 200);
}

#[test]
fn body_without_length_ends_with_the_connection() {
    let text = closed("HTTP/1.1 200 OK\r\n\r\nuntil the end", 200).unwrap();
    assert_eq!(text.body, 19..32);
    closed("HTTP/1.0 200 OK\r\n\r\n", 200);
    let mut decoder = ResponseDecoder::default();
    assert_eq!(decoder.decode(b"HTTP/1.1 200 OK\r\n\r\nuntil", false), Ok(Step::NeedMore));
}

#[test]
fn interim_answers_are_skipped_up_to_eight() {
    let early =
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\ncontent-length: 0\r\n\r\n";
    kept(format!("{early}HTTP/1.1 201 Created\r\ncontent-length: 1\r\n\r\nx"), 201);
    let flood =
        |n| format!("{}HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", "HTTP/1.1 102 P\r\n\r\n".repeat(n));
    kept(flood(8), 200);
    refused(flood(9), BadAnswer::TooManyInterim);
    refused("HTTP/1.1 100 Continue\r\n\r\n", BadAnswer::Truncated);
    doubtful("HTTP/1.1 101 Switching Protocols\r\nupgrade: h2c\r\n\r\n");
    doubtful("HTTP/1.1 100 Continue\r\ncontent-length: 3\r\n\r\n");
    doubtful("HTTP/1.1 100 Continue\r\ntransfer-encoding: chunked\r\n\r\n");
}

#[test]
fn chunks_end_where_they_say() {
    let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n";
    kept(format!("{head}0\r\n\r\n"), 200);
    kept(format!("{head}3\r\nabc\r\nA;x=\"y z\"\r\n0123456789\r\n00\r\n\r\n"), 200);
    kept(format!("{head}1\r\na\r\n0\r\nX-Sum: 1\r\nY: 2\r\n\r\n"), 200);
    // What is wrong inside chunks is the business of the chunk reader's own tests.
    for wrong in
        ["\r\n\r\n", "g\r\n", "1\r\nab\r\n", "1\r\na0\r\n", "0\r\nX: 1\n\r\n", "0\r\nHost: x\r\n\r\n"]
    {
        doubtful(format!("{head}{wrong}"));
    }
}

#[test]
fn conflicting_lengths_are_refused() {
    for headers in [
        "content-length: 2\r\ntransfer-encoding: chunked",
        "transfer-encoding: chunked\r\ncontent-length: 2",
        "content-length: 2\r\ncontent-length: 2",
        "content-length: 2\r\nContent-Length: 3",
        "content-length: 2, 2",
        "content-length: +2",
        "content-length: -2",
        "content-length: 0x2",
        "content-length:",
        "content-length: 10000000000000000000",
        "transfer-encoding: gzip, chunked",
        "transfer-encoding: identity",
        "transfer-encoding: chunked\r\ntransfer-encoding: chunked",
    ] {
        doubtful(format!("HTTP/1.1 200 OK\r\n{headers}\r\n\r\n2\r\nok\r\n0\r\n\r\n"));
    }
    doubtful("HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n");
}

#[test]
fn what_is_no_head_is_refused() {
    for bytes in [
        "\x15\x03\x01\0\x02\x02\x16", // a TLS alert
        "SSH-2.0-OpenSSH\r\n",
        "\r\nHTTP/1.1 200 OK\r\n\r\n",
        "HTTP/2 200\r\n\r\n",
        "HTTP/1.2 200 OK\r\n\r\n",
        "HTTP/1.1 20 OK\r\n\r\n",
        "HTTP/1.1 2000 OK\r\n\r\n",
        "HTTP/1.1 099 OK\r\n\r\n",
        "HTTP/1.1 600 OK\r\n\r\n",
        "ok",
    ] {
        refused(bytes, BadAnswer::NotHttp);
    }
    let bare = BadAnswer::Syntax("a line end is not CR LF");
    for text in ["OK\nA: b\r\n\r\n", "OK\r\nA: b\n\r\n", "OK\r\nA: b\n\n", "OK\r\nA: b\rc\r\n\r\n"] {
        refused(format!("HTTP/1.1 200 {text}"), bare);
    }
    for line in ["A : b", " A: b", "A: b\r\n folded", ": b", "A", "A: \0", "A\u{e4}: b"] {
        let text = format!("HTTP/1.1 200 OK\r\n{line}\r\n\r\n");
        let error = answer(text.as_bytes(), []).unwrap_err();
        assert!(matches!(error, BadAnswer::Syntax(_)), "{line:?}: {error:?}");
        refused(text, error);
    }
}

#[test]
fn early_end_is_never_an_answer() {
    assert_eq!(answer(b"", []), Err(BadAnswer::Closed));
    for whole in [
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n",
    ] {
        for cut in 1..whole.len() {
            assert_eq!(answer(&whole.as_bytes()[..cut], 0..cut), Err(BadAnswer::Truncated), "after {cut}");
        }
    }
}

#[test]
fn endless_heads_are_cut_at_their_limit() {
    let many = |n| format!("HTTP/1.1 200 OK\r\n{}content-length: 0\r\n\r\n", "a: b\r\n".repeat(n));
    kept(many(63), 200);
    refused(many(64), BadAnswer::HeadTooLarge);
    let long = |n| format!("HTTP/1.1 200 OK\r\ncontent-length: 0\r\na: {}\r\n\r\n", "x".repeat(n));
    let fits = HEADS_MAX - long(0).len();
    kept(long(fits), 200);
    refused(long(fits + 1), BadAnswer::HeadTooLarge);
    let endless = "x".repeat(100_000);
    refused(long(100_000), BadAnswer::HeadTooLarge);
    refused(format!("HTTP/1.1 200 {endless}"), BadAnswer::HeadTooLarge);
    refused(format!("HTTP/1.1 200 OK\r\n{endless}"), BadAnswer::HeadTooLarge);
}

#[test]
fn long_bodies_are_cut_and_the_connection_given_up() {
    let body = "x".repeat(BODY_MAX);
    kept(format!("HTTP/1.1 200 OK\r\ncontent-length: {BODY_MAX}\r\n\r\n{body}"), 200);
    // Announced as too long, not a byte of it is waited for.
    for length in [BODY_MAX + 1, 1 << 30] {
        closed(format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n"), 200);
    }
    let cut = |head: &str, rest: &str| {
        check(format!("{head}{rest}"), Ok((200, false, head.len() + BODY_MAX)));
    };
    cut("HTTP/1.1 200 OK\r\n\r\n", &body.repeat(2));
    let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    cut(chunked, &format!("40000000\r\n{body}{body}"));
    cut(chunked, &"1\r\nx\r\n".repeat(BODY_MAX));
    // Broken, but only behind what is read.
    cut(chunked, &format!("{BODY_MAX:x}\r\n{body}broken"));
    // Framing has limits of its own, far below.
    doubtful(format!("{chunked}1;{body}"));
    doubtful(format!("{chunked}0\r\nA: {body}"));
}

#[test]
fn bytes_behind_the_answer_are_left() {
    let first = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
    for behind in ["x", "HTTP/1.1 200 OK\r\n", first] {
        check(format!("{first}{behind}"), Ok((200, true, first.len())));
    }
    let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n";
    check(format!("{chunked}!"), Ok((200, true, chunked.len())));
}

#[test]
fn end_of_the_connection_with_the_answer_is_noticed() {
    let mut decoder = ResponseDecoder::default();
    let step = decoder.decode(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", true);
    assert!(matches!(step, Ok(Step::Done(Response { status: 200, reusable: false, .. }))), "{step:?}");
}

#[test]
fn retry_after_is_read_or_ignored() {
    use RetryAfter::{After, At};
    let seconds = |s| Some(After(Duration::from_secs(s)));
    let date = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
    for (value, expected) in [
        ("1", seconds(1)),
        (" 86400 ", seconds(86_400)),
        ("99999999999999999999999", seconds(u64::MAX)),
        ("Sun, 06 Nov 1994 08:49:37 GMT", Some(At(date))),
        ("Sunday, 06-Nov-94 08:49:37 GMT", Some(At(date))),
        ("Sun Nov  6 08:49:37 1994", Some(At(date))),
        ("-1", None),
        ("", None),
        ("soon", None),
        ("1.5", None),
        ("Sun, 06 Nov 1994 08:49:37 CET", None),
        ("Sun, 32 Nov 1994 08:49:37 GMT", None),
        ("Sun, 06 Abc 1994 08:49:37 GMT", None),
        ("S\u{e4}n, 06 Nov 199\u{e4} 8:49:37 GMT", None),
    ] {
        let busy = format!("HTTP/1.1 503 x\r\nretry-after: {value}\r\ncontent-length: 0\r\n\r\n");
        assert_eq!(kept(busy, 503).unwrap().retry_after, expected, "{value:?}");
    }
    assert_eq!(At(date).wait(date - Duration::from_secs(9)), Duration::from_secs(9));
    assert_eq!(At(date).wait(date + Duration::from_secs(9)), Duration::ZERO);
    assert_eq!(After(Duration::from_secs(7)).wait(date), Duration::from_secs(7));
}
