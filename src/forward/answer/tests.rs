use super::*;

/// What came of reading `bytes`, given `piece` bytes at a time, then the end of the connection.
#[derive(Debug, PartialEq)]
struct Read {
    result: Result<Answer, AnswerError>,
    /// Bytes behind the answer.
    left: usize,
}

fn read(bytes: &[u8], piece: usize) -> Read {
    let mut reader = AnswerReader::new();
    let mut pending = Vec::new();
    let mut rest = bytes;
    loop {
        match reader.step(&pending) {
            Err(error) => return Read { result: Err(error), left: 0 },
            Ok(Step::Done { consumed, answer }) => {
                return Read { result: Ok(answer), left: pending.len() - consumed + rest.len() };
            }
            Ok(Step::More { consumed }) => drop(pending.drain(..consumed)),
        }
        assert!(pending.len() < HEAD_MAX, "what is kept between steps is bounded");
        if rest.is_empty() {
            return Read { result: reader.end(), left: 0 };
        }
        let (now, later) = rest.split_at(piece.min(rest.len()));
        pending.extend_from_slice(now);
        rest = later;
    }
}

/// The same result whatever the pieces are.
#[track_caller]
fn check(bytes: impl AsRef<[u8]>, expected: Result<Answer, AnswerError>) {
    let bytes = bytes.as_ref();
    let whole = read(bytes, usize::MAX);
    let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(200)]);
    assert_eq!(whole.result, expected, "{shown:?}");
    for piece in if bytes.len() < 2_000 { 1..bytes.len().min(40) } else { 997..1_000 } {
        assert_eq!(read(bytes, piece).result, expected, "{piece} bytes at a time: {shown:?}");
    }
}

const fn kept(status: u16) -> Result<Answer, AnswerError> {
    Ok(Answer { status, retry_after: None, reusable: true })
}

const fn closed(status: u16) -> Result<Answer, AnswerError> {
    Ok(Answer { status, retry_after: None, reusable: false })
}

fn framing(bytes: impl AsRef<[u8]>) {
    let bytes = bytes.as_ref();
    for piece in [usize::MAX, 1, 7] {
        let result = read(bytes, piece).result;
        let shown = String::from_utf8_lossy(bytes);
        assert!(matches!(result, Err(AnswerError::Framing(_))), "{piece}: {shown:?}: {result:?}");
    }
}

#[test]
fn status_and_end_are_found() {
    check("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", kept(200));
    check("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", kept(200));
    check("HTTP/1.1 200\r\ncontent-length: 0\r\n\r\n", kept(200));
    check("HTTP/1.1 503 Sorry, \u{e4}\r\nServer: x\r\ncontent-length:   0002  \r\n\r\nno", kept(503));
    check("HTTP/1.1 599 x\r\ncontent-length: 0\r\n\r\n", kept(599));
    check("HTTP/1.1 302 Found\r\nLocation: http://10.0.0.1/\r\ncontent-length: 0\r\n\r\n", kept(302));
}

#[test]
fn answers_without_a_body_end_with_their_head() {
    check("HTTP/1.1 204 No Content\r\n\r\n", kept(204));
    check("HTTP/1.1 204 No Content\r\ncontent-length: 0\r\n\r\n", kept(204));
    check("HTTP/1.1 304 Not Modified\r\ncontent-length: 500\r\n\r\n", kept(304));
    check("HTTP/1.1 204 No Content\r\ncontent-length: 5\r\n\r\n", closed(204));
    check("HTTP/1.1 204 No Content\r\ntransfer-encoding: chunked\r\n\r\n", closed(204));
}

#[test]
fn connection_is_given_up_when_asked() {
    check("HTTP/1.1 200 OK\r\nConnection: close\r\ncontent-length: 0\r\n\r\n", closed(200));
    check("HTTP/1.1 200 OK\r\nconnection: x, CLOSE ,y\r\ncontent-length: 0\r\n\r\n", closed(200));
    check("HTTP/1.1 200 OK\r\nconnection: keep-alive\r\ncontent-length: 0\r\n\r\n", kept(200));
    check("HTTP/1.1 200 OK\r\nconnection: closed\r\ncontent-length: 0\r\n\r\n", kept(200));
    check("HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 0\r\n\r\n", closed(200));
}

#[test]
fn body_without_length_ends_with_the_connection() {
    check("HTTP/1.1 200 OK\r\n\r\nwhatever", closed(200));
    check("HTTP/1.0 200 OK\r\n\r\n", closed(200));
}

#[test]
fn interim_answers_are_skipped_up_to_eight() {
    let early =
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\ncontent-length: 0\r\n\r\n";
    check(format!("{early}HTTP/1.1 201 Created\r\ncontent-length: 1\r\n\r\nx"), kept(201));
    let flood =
        |n| format!("{}HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", "HTTP/1.1 102 P\r\n\r\n".repeat(n));
    check(flood(8), kept(200));
    check(flood(9), Err(AnswerError::TooManyInterim));
    check("HTTP/1.1 100 Continue\r\n\r\n", Err(AnswerError::Truncated));
    framing("HTTP/1.1 101 Switching Protocols\r\nupgrade: h2c\r\n\r\n");
    framing("HTTP/1.1 100 Continue\r\ncontent-length: 3\r\n\r\n");
}

#[test]
fn chunks_end_where_they_say() {
    let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n";
    check(format!("{head}0\r\n\r\n"), kept(200));
    check(format!("{head}3\r\nabc\r\nA;x=\"y z\"\r\n0123456789\r\n00\r\n\r\n"), kept(200));
    check(format!("{head}1\r\na\r\n0\r\nX-Sum: 1\r\nY: 2\r\n\r\n"), kept(200));
    check(format!("{head}5\r\nab"), Err(AnswerError::Truncated));
    check(format!("{head}1\r\na\r\n0\r\n"), Err(AnswerError::Truncated));
    for wrong in [
        "\r\n\r\n",
        "g\r\n",
        "-1\r\n",
        "+1\r\n",
        "0x1\r\n",
        " 1\r\n",
        "1 \r\na",
        "1\na",
        "1\r\nab\r\n",
        "1\r\na\n",
        "1\r\na0\r\n",
        "123456789\r\n",
        "000000000\r\n",
        ";x\r\n",
        "1;a\nb\r\na",
        "1;\0\r\na",
        "0\r\nX: 1\n\r\n",
        "0\r\n\r\r",
        "0\r\nX\0\r\n",
    ] {
        framing(format!("{head}{wrong}"));
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
        "content-length: 1000000000000000",
        "transfer-encoding: gzip, chunked",
        "transfer-encoding: identity",
        "transfer-encoding: chunked\r\ntransfer-encoding: chunked",
    ] {
        framing(format!("HTTP/1.1 200 OK\r\n{headers}\r\n\r\n2\r\nok\r\n0\r\n\r\n"));
    }
    framing("HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n");
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
        check(bytes, Err(AnswerError::NotHttp));
    }
    check("HTTP/1.1 200 OK\nA: b\r\n\r\n", Err(AnswerError::Syntax("line feed without carriage return")));
    check("HTTP/1.1 200 OK\r\nA: b\n\r\n", Err(AnswerError::Syntax("line feed without carriage return")));
    check("HTTP/1.1 200 OK\r\nA: b\n\n", Err(AnswerError::Syntax("line feed without carriage return")));
    for line in ["A : b", " A: b", "A: b\r\n folded", ": b", "A", "A: \0", "A: b\rc", "A\u{e4}: b"] {
        let result = read(format!("HTTP/1.1 200 OK\r\n{line}\r\n\r\n").as_bytes(), 5).result;
        assert!(matches!(result, Err(AnswerError::Syntax(_))), "{line:?}: {result:?}");
    }
}

#[test]
fn early_end_is_never_an_answer() {
    let whole = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    for cut in 0..whole.len() {
        assert_eq!(read(&whole.as_bytes()[..cut], 3).result, Err(AnswerError::Truncated), "after {cut}");
    }
}

#[test]
fn endless_heads_are_cut_at_their_limit() {
    let many = |n| format!("HTTP/1.1 200 OK\r\n{}content-length: 0\r\n\r\n", "a: b\r\n".repeat(n));
    check(many(63), kept(200));
    check(many(64), Err(AnswerError::HeadTooLarge));
    let long = |n| format!("HTTP/1.1 200 OK\r\ncontent-length: 0\r\na: {}\r\n\r\n", "x".repeat(n));
    let fits = HEAD_MAX - long(0).len();
    check(long(fits), kept(200));
    check(long(fits + 1), Err(AnswerError::HeadTooLarge));
    check(long(100_000), Err(AnswerError::HeadTooLarge));
    check(format!("HTTP/1.1 200 {}", "x".repeat(100_000)), Err(AnswerError::HeadTooLarge));
}

#[test]
fn long_bodies_are_cut_and_the_connection_given_up() {
    let body = "x".repeat(BODY_MAX);
    check(format!("HTTP/1.1 200 OK\r\ncontent-length: {BODY_MAX}\r\n\r\n{body}"), kept(200));
    check(format!("HTTP/1.1 200 OK\r\ncontent-length: 1073741824\r\n\r\n{body}"), closed(200));
    check(format!("HTTP/1.1 200 OK\r\n\r\n{body}{body}"), closed(200));
    let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    check(format!("{chunked}40000000\r\n{body}{body}"), closed(200));
    check(format!("{chunked}1;{body}{body}"), closed(200));
    check(format!("{chunked}0\r\nA: {body}{body}"), closed(200));
    check(format!("{chunked}{}", "1\r\nx\r\n".repeat(BODY_MAX)), closed(200));
}

#[test]
fn bytes_behind_the_answer_are_reported() {
    let first = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
    for (behind, left) in [("", 0), ("x", 1), (first, first.len())] {
        assert_eq!(read(format!("{first}{behind}").as_bytes(), usize::MAX), Read { result: kept(200), left });
    }
    let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n!";
    assert_eq!(read(chunked.as_bytes(), usize::MAX).left, 1);
}

#[test]
fn retry_after_is_read_or_ignored() {
    use RetryAfter::{At, Seconds};
    let date = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
    for (value, expected) in [
        ("1", Some(Seconds(1))),
        (" 86400 ", Some(Seconds(86_400))),
        ("99999999999999999999999", Some(Seconds(u64::MAX))),
        ("Sun, 06 Nov 1994 08:49:37 GMT", Some(At(date))),
        ("-1", None),
        ("", None),
        ("soon", None),
        ("1.5", None),
        ("Sun, 06 Nov 1994 08:49:37 CET", None),
        ("Sun, 32 Nov 1994 08:49:37 GMT", None),
        ("Sun, 06 Abc 1994 08:49:37 GMT", None),
        ("Sunday, 06-Nov-94 08:49:37 GMT", None),
        ("S\u{e4}n, 06 Nov 199\u{e4} 8:49:37 GMT", None),
    ] {
        let answer = Answer { status: 503, retry_after: expected, reusable: true };
        check(format!("HTTP/1.1 503 x\r\nretry-after: {value}\r\ncontent-length: 0\r\n\r\n"), Ok(answer));
    }
    assert_eq!(At(date).wait(date - Duration::from_secs(9)), Duration::from_secs(9));
    assert_eq!(At(date).wait(date + Duration::from_secs(9)), Duration::ZERO);
    assert_eq!(Seconds(7).wait(date), Duration::from_secs(7));
}

/// Damaged answers end in an answer or an error, the same for all pieces, and never in a panic.
#[test]
fn random_damage_is_survived() {
    use crate::forward::retry::Rng;
    let base: &[&str] = &[
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nRetry-After: 5\r\n\r\nok",
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    ];
    let seed = 7;
    println!("seed {seed}");
    let mut rng = Rng::new(seed);
    for _ in 0..20_000 {
        let mut bytes = base[rng.below(2) as usize].as_bytes().to_vec();
        for _ in 0..1 + rng.below(3) {
            let at = rng.below(bytes.len() as u64) as usize;
            match rng.below(3) {
                0 => bytes[at] = rng.next_u64() as u8,
                1 => drop(bytes.remove(at)),
                _ => bytes.insert(at, b"\r\n:0; \xFF"[rng.below(7) as usize]),
            }
        }
        let (whole, pieces) = (read(&bytes, usize::MAX), read(&bytes, 1));
        assert_eq!(whole, pieces, "{:?}", String::from_utf8_lossy(&bytes));
    }
}
