//! Answers of regions, good and bad.

use std::time::{Duration, SystemTime};

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

fn check_answer(text: &str, expected: Option<(u16, bool, usize)>) -> Option<Response> {
    let buf = text.as_bytes();
    let whole = answer(buf, []);
    let found = whole.as_ref().ok().map(|response| (response.status, response.reusable, response.consumed));
    assert_eq!(found, expected, "{whole:?}: {}", text[..text.len().min(200)].escape_debug());
    assert_eq!(answer(buf, offsets(buf.len())), whole, "in small pieces: {}", text.escape_debug());
    for cut in offsets(buf.len()) {
        assert_eq!(answer(buf, [cut]), whole, "cut at {cut}: {}", text.escape_debug());
    }
    whole.ok()
}

#[test]
fn answers_are_read_to_their_end() {
    let all =
        |text: &str, status, reusable| check_answer(text, Some((status, reusable, text.len()))).unwrap();
    all("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", 200, true);
    all("HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", 200, true);
    all("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", 200, true);
    all("HTTP/1.1 204 No Content\r\n\r\n", 204, true);
    all("HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n", 204, false);
    all("HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", 304, true);
    all(
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nLink: x\r\n\r\nHTTP/1.1 202 A\r\nContent-Length: 0\r\n\r\n",
        202,
        true,
    );
    all("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok", 200, false);
    all("HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", 200, false);
    assert_eq!(all("HTTP/1.1 200 OK\r\n\r\nuntil the end", 200, false).body, 19..32);
    all("HTTP/1.1 500 Oops\r\nContent-Length: 9\r\n\r\ncut", 500, false);
    all("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhe", 200, false);
    let busy = all("HTTP/1.1 503 Busy\r\nRetry-After: 120\r\nContent-Length: 0\r\n\r\n", 503, true);
    assert_eq!(busy.retry_after, Some(RetryAfter::After(Duration::from_secs(120))));
    let busy = all(
        "HTTP/1.1 503 Busy\r\nRetry-After: Sun, 06 Nov 1994 08:49:37 GMT\r\nContent-Length: 0\r\n\r\n",
        503,
        true,
    );
    let date = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
    assert_eq!(busy.retry_after, Some(RetryAfter::At(date)));
    let vague = all("HTTP/1.1 503 Busy\r\nRetry-After: soon\r\nContent-Length: 0\r\n\r\n", 503, true);
    assert_eq!(vague.retry_after, None);
    let head = "HTTP/1.1 200 OK\r\nContent-Length: 65537\r\n\r\n";
    check_answer(head, Some((200, false, head.len())));
    let first = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    check_answer(&format!("{first}HTTP/1.1 200 OK\r\n"), Some((200, true, first.len())));
}

#[test]
fn endless_bodies_are_cut() {
    let endless = |fields: &str, part: &str| {
        let mut decoder = ResponseDecoder::default();
        let mut buf = format!("HTTP/1.1 200 OK\r\n{fields}\r\n").into_bytes();
        loop {
            assert!(buf.len() < 100_000, "read far enough");
            if let Step::Done(response) = decoder.decode(&buf, false).unwrap() {
                return (response.status, response.reusable);
            }
            buf.extend_from_slice(part.as_bytes());
        }
    };
    assert_eq!(endless("", "some text "), (200, false));
    assert_eq!(endless("Transfer-Encoding: chunked\r\n", "8\r\n12345678\r\n"), (200, false));
}

#[test]
fn garbage_is_no_answer() {
    let interim = "HTTP/1.1 100 Continue\r\n\r\n";
    for text in [
        "",
        "HTTP/1.1 200",
        "hello",
        "\r\nHTTP/1.1 200 OK\r\n\r\n",
        "HTTP/2 200\r\n\r\n",
        "HTTP/1.1 99 X\r\n\r\n",
        "HTTP/1.1 600 X\r\n\r\n",
        "HTTP/1.1 101 Switching\r\n\r\n",
        "HTTP/1.1 200 OK\nContent-Length: 0\n\n",
        "HTTP/1.1 200 OK\r\nX : y\r\n\r\n",
        interim,
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nX",
    ] {
        check_answer(text, None);
    }
    let last = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    check_answer(&format!("{}{last}", interim.repeat(9)), None);
    check_answer(&format!("{}{last}", interim.repeat(8)), Some((200, true, 8 * interim.len() + last.len())));
    check_answer(&format!("HTTP/1.1 200 OK\r\nX: {}", "x".repeat(70_000)), None);
    check_answer(&format!("HTTP/1.1 200 OK\r\n{}: x\r\n\r\n", "x".repeat(70_000)), None);
    assert_eq!(answer(b"", []), Err(BadAnswer::Closed));
    assert_eq!(answer(b"HTTP/1.1 2", []), Err(BadAnswer::Truncated));
}
