//! Answers as bytes.

use std::borrow::Cow;
use std::time::SystemTime;

use super::Reply;
use crate::http1::Refusal;

/// The value of `Date`, which RFC 9110 6.6.1 asks for; formatted once a second.
pub type Date = [u8; 29];

pub fn date(now: SystemTime) -> Date {
    let mut date = [b' '; 29];
    // Always 29 bytes until the year 10000.
    let text = httpdate::fmt_http_date(now);
    let len = text.len().min(date.len());
    date[..len].copy_from_slice(&text.as_bytes()[..len]);
    date
}

/// Between a request's head and its body.
pub(super) const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// Appends `reply`. `bodiless`: the answer to a HEAD, which says how long the body would be and has none.
pub fn encode(out: &mut Vec<u8>, reply: &Reply, date: &Date, close: bool, bodiless: bool) {
    if reply.status == 200 && reply.headers.is_empty() && reply.body.is_empty() && !close {
        out.extend_from_slice(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\ndate: ");
        out.extend_from_slice(date);
        out.extend_from_slice(b"\r\n\r\n");
        return;
    }
    let mut number = itoa::Buffer::new();
    let reason = http::StatusCode::from_u16(reply.status).ok().and_then(|status| status.canonical_reason());
    let mut put = |parts: &[&str]| parts.iter().for_each(|part| out.extend_from_slice(part.as_bytes()));
    put(&["HTTP/1.1 ", number.format(reply.status), " ", reason.unwrap_or(""), "\r\n"]);
    for (name, value) in reply.headers {
        put(&[name, ": ", value, "\r\n"]);
    }
    // RFC 9110 8.6: none on these.
    let has_body = !matches!(reply.status, 100..=199 | 204 | 304);
    if has_body {
        put(&["content-length: ", number.format(reply.body.len()), "\r\n"]);
    }
    if close {
        put(&["connection: close\r\n"]);
    }
    put(&["date: "]);
    out.extend_from_slice(date);
    out.extend_from_slice(b"\r\n\r\n");
    if has_body && !bodiless {
        out.extend_from_slice(&reply.body);
    }
}

/// What a client is told whose request could not be taken.
pub(super) fn refused(refusal: Refusal) -> Reply {
    const TEXT: (&str, &str) = ("content-type", "text/plain");
    Reply {
        status: refusal.status,
        headers: match refusal.status {
            // Every path here takes one of them.
            405 => &[TEXT, ("allow", "GET, POST")],
            503 => &[TEXT, ("retry-after", "5")],
            _ => &[TEXT],
        },
        body: Cow::Borrowed(refusal.reason.as_bytes()),
        close: true,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn answers_are_complete_messages() {
        let date = date(SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777));
        let check = |reply: Reply, close, bodiless, expected: &str| {
            let mut out = Vec::new();
            encode(&mut out, &reply, &date, close, bodiless);
            let expected =
                expected.replace('\n', "\r\n").replace("D\r", "date: Sun, 06 Nov 1994 08:49:37 GMT\r");
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        };
        let reply = |status, body: &'static str| Reply {
            status,
            headers: &[],
            body: Cow::Borrowed(body.as_bytes()),
            close: false,
        };
        check(reply(200, ""), false, false, "HTTP/1.1 200 OK\ncontent-length: 0\nD\n\n");
        check(reply(200, "ok"), false, false, "HTTP/1.1 200 OK\ncontent-length: 2\nD\n\nok");
        check(reply(200, "ok"), true, true, "HTTP/1.1 200 OK\ncontent-length: 2\nconnection: close\nD\n\n");
        check(reply(204, ""), false, false, "HTTP/1.1 204 No Content\nD\n\n");
        check(
            refused(Refusal::new(405, "No.")),
            true,
            false,
            "HTTP/1.1 405 Method Not Allowed\ncontent-type: text/plain\nallow: GET, POST\ncontent-length: 3\nconnection: close\nD\n\nNo.",
        );
    }
}
