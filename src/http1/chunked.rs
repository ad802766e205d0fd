//! A chunked body, taken apart as it arrives (RFC 9112 7.1).
//!
//! Extensions are skipped, trailers are checked and dropped. What the framing may cost is bounded,
//! so that a million chunks of one byte are refused long before they are all read.

use super::Refusal;
use super::fields::{is_end_to_end, is_lookalike};
use super::scan::Scan;

/// Bytes of all chunk extensions of one message.
const EXTENSIONS_MAX: usize = 1 << 10;
/// Digits of a chunk's size: those of 2^64 - 1.
const DIGITS_MAX: u32 = 16;
/// Trailer fields, and bytes of them.
const TRAILERS_MAX: usize = 8;
const TRAILER_BYTES_MAX: usize = 4 << 10;
/// Framing may cost this, and four bytes for each byte of the body.
const OVERHEAD_FREE: usize = 64 << 10;

/// How far [`Chunked::decode`] came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Bytes of the input that are used up.
    pub consumed: usize,
    /// The body and its trailers are over.
    pub done: bool,
}

/// A chunked body being read.
#[derive(Debug)]
pub struct Chunked {
    state: State,
    /// Bytes of chunk data announced so far; never above `limit`.
    body: usize,
    limit: usize,
    extensions: usize,
    overhead: usize,
}

#[derive(Debug, Clone, Copy)]
enum State {
    Size { digits: u32, size: u64 },
    Extension { size: u64 },
    SizeEnd { size: u64 },
    Data { left: usize },
    DataCr,
    DataLf,
    Trailers(Scan),
    Done,
}

const NEW_CHUNK: State = State::Size { digits: 0, size: 0 };
const BAD_SIZE: Refusal = Refusal::bad("A chunk size is malformed.");
const BAD_END: Refusal = Refusal::bad("A chunk does not end with CR LF.");
const BAD_TRAILER: Refusal = Refusal::bad("A trailer is malformed or forbidden.");

impl Chunked {
    /// A body of at most `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self { state: NEW_CHUNK, body: 0, limit, extensions: 0, overhead: 0 }
    }

    /// Bytes of body that the chunks seen so far announce.
    pub fn announced(&self) -> usize {
        self.body
    }

    /// Reads on, giving chunk data to `sink`. What is not consumed must be given again, with more after it.
    pub fn decode(&mut self, input: &[u8], mut sink: impl FnMut(&[u8])) -> Result<Progress, Refusal> {
        let mut at = 0;
        while let Some(&byte) = input.get(at) {
            self.state = match self.state {
                State::Data { left } => {
                    let take = left.min(input.len() - at);
                    sink(&input[at..at + take]);
                    at += take;
                    if take < left { State::Data { left: left - take } } else { State::DataCr }
                }
                State::Trailers(scan) => {
                    let (consumed, scan) = trailers(&input[at..], scan)?;
                    at += consumed;
                    match scan {
                        Some(scan) => {
                            self.state = State::Trailers(scan);
                            break;
                        }
                        None => State::Done,
                    }
                }
                State::Done => break,
                framing => {
                    at += 1;
                    self.overhead += 1;
                    self.framing(framing, byte)?
                }
            };
        }
        Ok(Progress { consumed: at, done: matches!(self.state, State::Done) })
    }

    /// One byte that is no data.
    fn framing(&mut self, state: State, byte: u8) -> Result<State, Refusal> {
        Ok(match (state, byte) {
            (State::Size { digits, size }, _) if byte.is_ascii_hexdigit() => {
                if digits == DIGITS_MAX {
                    return Err(BAD_SIZE);
                }
                let digit = (byte as char).to_digit(16).unwrap_or(0);
                State::Size { digits: digits + 1, size: size << 4 | u64::from(digit) }
            }
            (State::Size { digits: 0, .. }, _) => return Err(BAD_SIZE),
            (State::Size { size, .. } | State::Extension { size }, b'\r') => State::SizeEnd { size },
            (State::Size { size, .. }, b';') | (State::Extension { size }, b'\t' | b' '..=b'~' | 0x80..) => {
                self.extensions += 1;
                if self.extensions > EXTENSIONS_MAX {
                    return Err(Refusal::bad("The chunk extensions are too large."));
                }
                State::Extension { size }
            }
            (State::SizeEnd { size: 0 }, b'\n') => State::Trailers(Scan::default()),
            (State::SizeEnd { size }, b'\n') => State::Data { left: self.announce(size)? },
            (State::DataCr, b'\r') => State::DataLf,
            (State::DataLf, b'\n') => NEW_CHUNK,
            (State::DataCr | State::DataLf, _) => return Err(BAD_END),
            _ => return Err(BAD_SIZE),
        })
    }

    fn announce(&mut self, size: u64) -> Result<usize, Refusal> {
        if size > i64::MAX as u64 {
            return Err(BAD_SIZE);
        }
        let size = usize::try_from(size).unwrap_or(usize::MAX);
        if size > self.limit - self.body {
            return Err(Refusal::new(413, "The body is too large."));
        }
        self.body += size;
        if self.overhead > OVERHEAD_FREE.saturating_add(self.body.saturating_mul(4)) {
            return Err(Refusal::bad("The chunks are too small for what they carry."));
        }
        Ok(size)
    }
}

/// Consumed bytes and how far the trailers were scanned, or `None` once they are over.
fn trailers(input: &[u8], mut scan: Scan) -> Result<(usize, Option<Scan>), Refusal> {
    let window = &input[..input.len().min(TRAILER_BYTES_MAX)];
    while let Some(line) = scan.line(window).map_err(|_| BAD_TRAILER)? {
        if line.is_empty() {
            let end = line.end + 2;
            let mut fields = [httparse::EMPTY_HEADER; TRAILERS_MAX];
            let (used, fields) = match httparse::parse_headers(&window[..end], &mut fields) {
                Ok(httparse::Status::Complete(parsed)) => parsed,
                _ => return Err(BAD_TRAILER),
            };
            let forbidden = |name: &[u8]| is_end_to_end(name) || is_lookalike(name);
            if used != end || fields.iter().any(|field| forbidden(field.name.as_bytes())) {
                return Err(BAD_TRAILER);
            }
            return Ok((end, None));
        }
    }
    if window.len() == TRAILER_BYTES_MAX { Err(BAD_TRAILER) } else { Ok((0, Some(scan))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Decodes `input` cut into pieces that end at `cuts`; the body and how many bytes it took.
    fn decode(input: &[u8], cuts: &[usize], limit: usize) -> Result<Option<(Vec<u8>, usize)>, u16> {
        let mut chunked = Chunked::new(limit);
        let (mut body, mut start) = (Vec::new(), 0);
        for &end in cuts.iter().chain([&input.len()]) {
            let progress = chunked
                .decode(&input[start..end], |data| body.extend_from_slice(data))
                .map_err(|refusal| refusal.status)?;
            start += progress.consumed;
            if progress.done {
                return Ok(Some((body, start)));
            }
        }
        Ok(None)
    }

    /// The same verdict whole, byte by byte and cut in two anywhere.
    fn check(input: &[u8], expected: Result<Option<&[u8]>, u16>) {
        let bytes: Vec<usize> = (0..input.len()).collect();
        for cuts in bytes.iter().map(std::slice::from_ref).chain([&[][..], &bytes[..]]) {
            let found = decode(input, cuts, 100);
            let body = found.as_ref().map(|done| done.as_ref().map(|(body, _)| body.as_slice()));
            assert_eq!(
                body.map_err(|status| *status),
                expected,
                "{:?} cut at {cuts:?}",
                input.escape_ascii()
            );
        }
    }

    #[test]
    fn bodies_are_taken_apart_however_they_arrive() {
        check(b"5\r\nhello\r\n0\r\n\r\n", Ok(Some(b"hello")));
        check(b"0\r\n\r\n", Ok(Some(b"")));
        check(b"2\r\nhe\r\n003;a=b\r\nllo\r\n0;x\r\nTrailer: x\r\nb: c\r\n\r\n", Ok(Some(b"hello")));
        check(b"A\r\n0123456789\r\n00\r\n\r\n", Ok(Some(b"0123456789")));
        check(b"5\r\nhello\r\n0\r\n", Ok(None));
        check(b"64\r\n", Ok(None));
        assert_eq!(
            decode(b"1\r\nx\r\n0\r\n\r\nGET /", &[], 9),
            Ok(Some((b"x".to_vec(), 11))),
            "the rest stays"
        );
    }

    #[test]
    fn bad_framing_is_refused_however_it_arrives() {
        let sizes = ["", "+5", "-5", "0x5", "5_0", " 5", "5 ", "G", "5\t", "5 ;a", "00000000000000005"];
        for size in sizes {
            check(format!("{size}\r\nhello\r\n0\r\n\r\n").as_bytes(), Err(400));
        }
        check(b"FFFFFFFFFFFFFFFD\r\n", Err(400));
        check(b"65\r\n", Err(413));
        check(b"60\r\n", Ok(None));
        for text in [
            "5\nhello\r\n",
            "5\r\nhelloX\n",
            "5\r\nhello\n",
            "5\r\nhello\rX",
            "5;a\rb\r\n",
            "5;a\nb",
            "5;\0\r\n",
        ] {
            check(text.as_bytes(), Err(400));
        }
        for name in ["Content-Length", "transfer-encoding", "Host", "X-Hub-Signature-256", "content_length"] {
            check(format!("0\r\n{name}: 1\r\n\r\n").as_bytes(), Err(400));
        }
        check(b"0\r\nno colon\r\n\r\n", Err(400));
        check(b"0\r\na: b\n\r\n", Err(400));
        check(format!("0\r\n{}\r\n", "a: b\r\n".repeat(8)).as_bytes(), Ok(Some(b"")));
        check(format!("0\r\n{}\r\n", "a: b\r\n".repeat(9)).as_bytes(), Err(400));
        check(format!("5;{}\r\n", "e".repeat(1024)).as_bytes(), Err(400));
        check(format!("5;{}\r\n", "e".repeat(1023)).as_bytes(), Ok(None));
    }

    #[test]
    fn what_framing_costs_is_bounded() {
        let tiny = b"1\r\nx\r\n".repeat(1_000_000);
        let mut chunked = Chunked::new(4 << 20);
        let mut body = 0;
        let error = chunked.decode(&tiny, |data| body += data.len()).unwrap_err();
        assert_eq!((error.status, body / 1000), (400, 65), "refused after 64 Ki chunks");
        let fair = b"10\r\n0123456789abcdef\r\n".repeat(100_000);
        assert!(Chunked::new(4 << 20).decode(&fair, |_| ()).is_ok());
        let long = [&b"0\r\na: "[..], &b"x".repeat(9000)].concat();
        assert_eq!(decode(&long, &[], 9), Err(400), "trailers have a limit too");
    }
}
