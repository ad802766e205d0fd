//! What is sent, byte for byte, and what is made of each answer.

use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use penstock::config::Secret;
use penstock::forward::client::{Fault, Outcome};
use penstock::http1::BadAnswer;

use crate::support::*;

#[test]
fn region_receives_the_contract_byte_for_byte() {
    let script = Script::start(|listener| {
        let mut stream = accept(listener);
        let first = request(&mut stream);
        answer(&mut stream, OK);
        first
    });
    let mut region = region(script.address);
    region.signing_secret = Some(Secret::new("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"));
    on_core(&region, async |core| core.deliver(br#"{"a":1}"#).await);
    // Id and signature were computed by other means (Python's hashlib and hmac).
    let expected = format!(
        "POST /webhook?a=b HTTP/1.1\r\n\
         content-length: 7\r\n\
         host: us.example.com\r\n\
         content-type: application/json\r\n\
         x-hub-signature-256: sha256={}\r\n\
         webhook-id: msg_284b3bd230321c5c2a03cb33e93f7322\r\n\
         webhook-timestamp: 1700000060\r\n\
         penstock-gateway: edge-1\r\n\
         penstock-source: main\r\n\
         penstock-region: us-east\r\n\
         penstock-received-at: 2023-11-14T22:13:20.123Z\r\n\
         penstock-attempt: 1\r\n\
         webhook-signature: v1,nDuG9Q7sMz51lXd4EZ3rDEhCxhXuIy6x8MLKf2J9irU=\r\n\
         \r\n\
         {{\"a\":1}}",
        "ab".repeat(32)
    );
    assert_eq!(String::from_utf8(script.end()).unwrap(), expected);
}

#[test]
fn long_body_arrives_unchanged() {
    let body: &'static [u8] =
        (0..3_000_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect::<Vec<_>>().leak();
    let script = Script::start(|listener| {
        let mut stream = accept(listener);
        let request = request(&mut stream);
        answer(&mut stream, OK);
        request
    });
    on_core(&region(script.address), async |core| core.deliver(body).await);
    let request = script.end();
    assert!(request.ends_with(body), "of {} bytes", request.len());
}

/// The region reads a request, does `play`, and then waits until we have closed, if it should.
#[track_caller]
fn check(play: impl FnOnce(&mut TcpStream) + Send + 'static, expected: Outcome, kept: bool) {
    let script = Script::start(move |listener| {
        let mut stream = accept(listener);
        request(&mut stream);
        play(&mut stream);
        stream
    });
    let mut region = region(script.address);
    region.timeout = Duration::from_secs(5);
    let start = Instant::now();
    let (attempt, idle) = on_core(&region, async |core| (core.send(b"{}").await, core.client.idle_len()));
    assert_eq!(attempt.outcome, expected);
    assert_eq!(attempt.sent_bytes, !matches!(expected, Outcome::Answered { .. }));
    assert_eq!(idle, usize::from(kept), "connections kept");
    assert!(start.elapsed() < region.timeout, "ended by itself, not by the deadline");
    drop(script.end());
}

#[track_caller]
fn check_bytes(bytes: &'static str, expected: Outcome, kept: bool) {
    check(move |stream| answer(stream, bytes.as_bytes()), expected, kept);
}

const fn fault(error: BadAnswer) -> Outcome {
    Outcome::Connection(Fault::Answer(error))
}

#[test]
fn answers_that_end_cleanly_keep_the_connection() {
    check_bytes("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", status(200), true);
    check_bytes("HTTP/1.1 204 No Content\r\n\r\n", status(204), true);
    check_bytes(
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n0\r\nA: b\r\n\r\n",
        status(200),
        true,
    );
    check_bytes(
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n\
         HTTP/1.1 201 Created\r\ncontent-length: 1\r\n\r\nx",
        status(201),
        true,
    );
    check_bytes("HTTP/1.1 500 Oops\r\ncontent-length: 4\r\n\r\noops", status(500), true);
}

#[test]
fn redirect_is_an_answer_and_not_followed() {
    // The target would accept a connection; the script's listener is the only one that sees any.
    let elsewhere = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    elsewhere.set_nonblocking(true).unwrap();
    let to = elsewhere.local_addr().unwrap();
    let redirect = format!("HTTP/1.1 307 Moved\r\nlocation: http://{to}/\r\ncontent-length: 0\r\n\r\n");
    check(move |stream| answer(stream, redirect.as_bytes()), status(307), true);
    assert_eq!(elsewhere.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
}

#[test]
fn retry_after_is_handed_on() {
    let after = |secs| Outcome::Answered { status: 503, retry_after: Some(Duration::from_secs(secs)) };
    check_bytes("HTTP/1.1 503 Busy\r\nretry-after: 17\r\ncontent-length: 0\r\n\r\n", after(17), true);
    check_bytes(
        "HTTP/1.1 503 Busy\r\nretry-after: Sun, 06 Nov 1994 08:49:37 GMT\r\ncontent-length: 0\r\n\r\n",
        after(0),
        true,
    );
    check_bytes("HTTP/1.1 503 Busy\r\nretry-after: -1\r\ncontent-length: 0\r\n\r\n", status(503), true);
}

#[test]
fn answers_that_leave_a_doubt_close_the_connection() {
    check_bytes("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n", status(200), false);
    check_bytes("HTTP/1.0 200 OK\r\ncontent-length: 0\r\n\r\n", status(200), false);
    // Two answers at once: the second is nobody's.
    check_bytes(
        "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
        status(200),
        false,
    );
    check(
        |stream| {
            answer(stream, b"HTTP/1.1 200 OK\r\n\r\nuntil the end");
            stream.shutdown(std::net::Shutdown::Write).unwrap();
        },
        status(200),
        false,
    );
}

#[test]
fn broken_answers_are_no_answers() {
    check_bytes(
        "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        fault(BadAnswer::Framing("Content-Length and Transfer-Encoding together")),
        false,
    );
    check_bytes("SSH-2.0-OpenSSH_9.2\r\n", fault(BadAnswer::NotHttp), false);
    let cut = |bytes: &'static str| {
        move |stream: &mut TcpStream| {
            answer(stream, bytes.as_bytes());
            stream.shutdown(std::net::Shutdown::Write).unwrap();
        }
    };
    check(cut("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nabc"), fault(BadAnswer::Truncated), false);
    check(cut("HTTP/1.1 200 OK\r\ncontent-"), fault(BadAnswer::Truncated), false);
    check(cut("HTTP/1.1 100 Continue\r\n\r\n"), fault(BadAnswer::Truncated), false);
}

/// Writes `piece` until the client closes; returns how much it took.
fn flood(stream: &mut TcpStream, piece: &[u8]) -> usize {
    let mut taken = 0;
    while taken < 1 << 30 && stream.write_all(piece).is_ok() {
        taken += piece.len();
    }
    taken
}

#[test]
fn endless_answers_are_cut() {
    // What the kernel's buffers on both sides hold, generously.
    const BUFFERED: usize = 64 << 20;
    let check_flood = |start: &'static str, piece: &'static [u8], expected, kept| {
        check(
            move |stream| {
                answer(stream, start.as_bytes());
                assert!(flood(stream, &piece.repeat(1_000)) < BUFFERED, "{start:?} was read on and on");
            },
            expected,
            kept,
        );
    };
    check_flood("HTTP/1.1 200 OK\r\ncontent-length: 1073741824\r\n\r\n", b"x", status(200), false);
    check_flood("HTTP/1.1 200 OK\r\n\r\n", b"x", status(200), false);
    check_flood("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", b"1\r\nx\r\n", status(200), false);
    check_flood("HTTP/1.1 200 OK\r\na: ", b"x", fault(BadAnswer::HeadTooLarge), false);
    check_flood("HTTP/1.1 200 OK\r\n", b"a: b\r\n", fault(BadAnswer::HeadTooLarge), false);
    check_flood("", b"HTTP/1.1 100 Continue\r\n\r\n", fault(BadAnswer::TooManyInterim), false);
}
