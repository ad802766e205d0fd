//! A request's head: request line, fields, and what they say about the body.

use std::mem::MaybeUninit;

use super::fields::{
    Coding, Codings, content_length, is_end_to_end, is_host, is_lookalike, is_token, members,
};
use super::scan::line_ends_are_whole;
use super::{FIELDS_MAX, Framing, Refusal, RequestHead, Scan};

/// Room for the fields of one head, on the caller's stack; start from [`NO_HEADERS`].
pub type Headers<'a> = [MaybeUninit<httparse::Header<'a>>; FIELDS_MAX];

/// Empty room for fields. Not initialised, because 2 KiB of zeros per request would be a sixth of the parse.
pub const NO_HEADERS: Headers<'static> = [const { MaybeUninit::uninit() }; FIELDS_MAX];

/// Bytes of a target (RFC 9112 3 recommends at least 8,000).
const TARGET_MAX: usize = 8 << 10;
/// Bytes of a method; the longest registered one has 17 and no business here.
const METHOD_MAX: usize = 16;
/// Bytes of a request line without its CRLF.
const LINE_MAX: usize = METHOD_MAX + 1 + TARGET_MAX + 1 + "HTTP/1.1".len();
/// Bytes of one field, name and value.
const FIELD_MAX: usize = 8 << 10;

/// Limits of one request.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes of the head.
    pub head: usize,
    /// Bytes of the body, without chunk framing.
    pub body: usize,
}

/// The head at the start of `buf` and its length in bytes; `None` if more must be read first.
///
/// `scan` remembers how far earlier calls looked; it belongs to this head.
pub fn parse_request<'a>(
    buf: &'a [u8],
    headers: &'a mut Headers<'a>,
    scan: &mut Scan,
    limits: Limits,
) -> Result<Option<(RequestHead<'a>, usize)>, Refusal> {
    let window = &buf[..buf.len().min(limits.head)];
    // Nearly every head arrives whole and plain: then httparse finds its end too. Anything else goes
    // line by line, so that the first line that is wrong decides, as it does for a head that trickles in.
    let plain = scan.is_fresh() && !matches!(window.first(), Some(b'\r' | b'\n'));
    let start = if plain { Some(0) } else { by_lines(window, scan, limits)? };
    let Some(start) = start else { return Ok(None) };
    let mut request = httparse::Request::new(&mut []);
    let used = match request.parse_with_uninit_headers(&window[start..], headers) {
        Ok(httparse::Status::Complete(used)) if line_ends_are_whole(&window[start..start + used]) => used,
        _ if plain && by_lines(window, scan, limits)?.is_none() => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => return Err(Refusal::new(431, "More than 64 header fields.")),
        _ => return Err(Refusal::bad("A header line is malformed.")),
    };
    let (Some(method), Some(target), Some(version)) = (request.method, request.path, request.version) else {
        return Err(BAD_LINE);
    };
    check_method(method.as_bytes())?;
    check_target(target.as_bytes())?;
    let head = interpret(method, target, version, request.headers, limits)?;
    Ok(Some((head, start + used)))
}

const LONG_TARGET: Refusal = Refusal::new(414, "The target is longer than 8 KiB.");
const BARE_LINE_END: Refusal = Refusal::bad("A line end is not CR LF.");
const BAD_LINE: Refusal = Refusal::bad("The request line is malformed.");

/// Where the head starts, once all its lines are there.
fn by_lines(window: &[u8], scan: &mut Scan, limits: Limits) -> Result<Option<usize>, Refusal> {
    let full = window.len() == limits.head;
    let Some(start) = request_line(window, scan)? else {
        return if full { Err(LONG_TARGET) } else { Ok(None) };
    };
    match scan.head_end(window).map_err(|_| BARE_LINE_END)? {
        Some(_) => Ok(Some(start)),
        None if full => Err(Refusal::new(431, "The head is too large.")),
        None => Ok(None),
    }
}

/// Checks the request line as soon as it is there; says where it starts.
fn request_line(window: &[u8], scan: &mut Scan) -> Result<Option<usize>, Refusal> {
    // One empty line before a request is allowed: old clients send it after a body (RFC 9112 2.2).
    let start = if window.starts_with(b"\r\n") { 2 } else { 0 };
    if scan.lines() > usize::from(start > 0) {
        return Ok(Some(start));
    }
    let window = &window[..window.len().min(start + LINE_MAX + 2)];
    if window.get(start).is_some_and(|first| *first != b'\r' && !is_token(&[*first])) {
        return Err(BAD_LINE);
    }
    while let Some(line) = scan.line(window).map_err(|_| BARE_LINE_END)? {
        if line.start == start {
            check_request_line(&window[line])?;
            return Ok(Some(start));
        }
    }
    if window.len() < start + LINE_MAX + 2 {
        return Ok(None);
    }
    match window[start..].iter().position(|&b| b == b' ') {
        Some(end) => check_method(&window[start..start + end]).and(Err(LONG_TARGET)),
        None => check_method(&window[start..]).and(Err(BAD_LINE)),
    }
}

fn check_request_line(line: &[u8]) -> Result<(), Refusal> {
    let mut words = line.split(|&b| b == b' ');
    let (Some(method), Some(target), Some(version), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(BAD_LINE);
    };
    match version {
        b"HTTP/1.1" | b"HTTP/1.0" => {}
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
            if major.is_ascii_digit() && minor.is_ascii_digit() =>
        {
            return Err(Refusal::new(505, "Only HTTP/1.1 and HTTP/1.0 are spoken here."));
        }
        _ => return Err(BAD_LINE),
    }
    check_method(method)?;
    check_target(target)
}

/// Methods that a handler may see. What the others mean for the connection is not known (or, for
/// CONNECT, is that this is no HTTP any more), so they are refused here.
fn check_method(method: &[u8]) -> Result<(), Refusal> {
    match method {
        b"GET" | b"HEAD" | b"POST" | b"PUT" | b"DELETE" | b"PATCH" | b"OPTIONS" => Ok(()),
        _ if is_token(method) => Err(Refusal::new(405, "This method is not taken here.")),
        _ => Err(BAD_LINE),
    }
}

fn check_target(target: &[u8]) -> Result<(), Refusal> {
    if target.len() > TARGET_MAX {
        return Err(LONG_TARGET);
    }
    // Without branches, for the compiler. A fragment never leaves a client (RFC 9110 7.1).
    let bad = target.iter().fold(target.is_empty(), |bad, b| bad | !matches!(b, b'!'..=b'~') | (*b == b'#'));
    if bad { Err(Refusal::bad("The target holds a byte that no target may hold.")) } else { Ok(()) }
}

/// What the fields say, taken together.
fn interpret<'a>(
    method: &'a str,
    target: &'a str,
    version: u8,
    headers: &'a [httparse::Header<'a>],
    limits: Limits,
) -> Result<RequestHead<'a>, Refusal> {
    let mut length = None;
    let mut codings = Codings::default();
    let (mut hosts, mut close, mut expect_continue, mut expects_more, mut lookalikes) =
        (0, false, false, false, 0);
    for header in headers {
        let (name, value) = (header.name.as_bytes(), header.value);
        if name.len() + value.len() > FIELD_MAX {
            return Err(Refusal::new(431, "A header field is larger than 8 KiB."));
        }
        match name.len() {
            4 if name.eq_ignore_ascii_case(b"host") => {
                hosts += 1;
                if !is_host(value) {
                    return Err(Refusal::bad("The Host is no name or address."));
                }
            }
            6 if name.eq_ignore_ascii_case(b"expect") => {
                let known = value.eq_ignore_ascii_case(b"100-continue");
                expect_continue |= known;
                expects_more |= !known;
            }
            10 if name.eq_ignore_ascii_case(b"connection") => {
                for option in members(value) {
                    close |= option.eq_ignore_ascii_case(b"close");
                    if is_end_to_end(option) {
                        return Err(Refusal::bad(
                            "Connection names a field that must not be dropped on the way.",
                        ));
                    }
                }
            }
            14 if name.eq_ignore_ascii_case(b"content-length") => {
                let Some(bytes) = content_length(value) else {
                    return Err(Refusal::bad("The Content-Length is no number."));
                };
                if length.replace(bytes).is_some() {
                    return Err(Refusal::bad("There are several Content-Lengths."));
                }
            }
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => codings.add(value),
            _ => lookalikes += u32::from(is_lookalike(name)),
        }
    }
    let absolute = !target.starts_with('/');
    let target = if absolute { origin_form(target)? } else { target };
    if hosts > 1 || (hosts == 0 && version == 1) {
        return Err(Refusal::bad("There must be exactly one Host."));
    }
    let framing = framing(method, version, length, codings.verdict(), limits)?;
    if expects_more && version == 1 {
        return Err(Refusal::new(417, "Only 100-continue can be expected."));
    }
    Ok(RequestHead {
        method,
        target,
        headers,
        framing,
        keep_alive: version == 1 && !close,
        // A client of HTTP/1.0 does not know interim answers (RFC 9110 10.1.1).
        expect_continue: expect_continue && version == 1,
        lookalikes,
    })
}

/// RFC 9112 6.3, without its leniencies.
fn framing(
    method: &str,
    version: u8,
    length: Option<u64>,
    coding: Coding,
    limits: Limits,
) -> Result<Framing, Refusal> {
    let framing = match (coding, length) {
        (Coding::Absent, None) => Framing::None,
        (Coding::Absent, Some(bytes)) => match usize::try_from(bytes) {
            Ok(bytes) if bytes <= limits.body => Framing::Length(bytes),
            _ if matches!(method, "GET" | "HEAD") => return Err(BODY_OF_GET),
            _ => return Err(Refusal::new(413, "The body is too large.")),
        },
        (_, Some(_)) => return Err(Refusal::bad("Content-Length and Transfer-Encoding exclude each other.")),
        (_, None) if version == 0 => return Err(Refusal::bad("HTTP/1.0 knows no Transfer-Encoding.")),
        (Coding::Chunked, None) => Framing::Chunked,
        (Coding::Invalid, None) => return Err(Refusal::bad("The Transfer-Encoding is malformed.")),
        (Coding::Unknown, None) => {
            return Err(Refusal::new(501, "Chunked is the only transfer coding known here."));
        }
    };
    match (method, framing) {
        ("GET" | "HEAD", Framing::Chunked | Framing::Length(1..)) => Err(BODY_OF_GET),
        ("POST", Framing::None) => Err(Refusal::new(411, "A POST needs a Content-Length or chunks.")),
        _ => Ok(framing),
    }
}

const BODY_OF_GET: Refusal = Refusal::bad("A GET has no body.");

/// The path of an absolute-form target. Its host is checked and then as unimportant as `Host`.
fn origin_form(target: &str) -> Result<&str, Refusal> {
    const BAD: Refusal = Refusal::bad("The target is neither a path nor a URL.");
    let (scheme, rest) = target.split_once("://").ok_or(BAD)?;
    if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
        return Err(BAD);
    }
    let (host, path) = match rest.find(['/', '?']) {
        Some(at) => rest.split_at(at),
        None => (rest, "/"),
    };
    // `http://host?query` means `/?query`, which is not in the bytes; nobody sends it.
    if !is_host(host.as_bytes()) || path.starts_with('?') { Err(BAD) } else { Ok(path) }
}
