//! The least HTTP/1.1 that both ends of a measurement need: heads, `Content-Length`, keep-alive.
//!
//! Not strict and not meant for strangers: it talks to our own programs on loopback.

use std::io;

use monoio::buf::IoBufMut;
use monoio::io::AsyncReadRent;
use monoio::net::TcpStream;

/// Room for one message of either side; one read mostly fills it.
const BUFFER: usize = 16 << 10;

/// Bytes that came and were not taken yet.
pub struct Incoming {
    bytes: Vec<u8>,
}

impl Incoming {
    pub fn new() -> Self {
        Self { bytes: Vec::with_capacity(BUFFER) }
    }

    /// Reads until `end_of` finds a whole message at the start and returns what it found, with the message's
    /// length; `None` when the peer has closed between messages.
    pub async fn message<T>(
        &mut self,
        stream: &mut TcpStream,
        end_of: impl Fn(&[u8]) -> io::Result<Option<(T, usize)>>,
    ) -> io::Result<Option<(T, usize)>> {
        loop {
            if !self.bytes.is_empty()
                && let Some(found) = end_of(&self.bytes)?
            {
                return Ok(Some(found));
            }
            let filled = self.bytes.len();
            if filled == self.bytes.capacity() {
                self.bytes.reserve(filled);
            }
            let bytes = std::mem::take(&mut self.bytes);
            let (read, bytes) = stream.read(bytes.slice_mut(filled..)).await;
            self.bytes = bytes.into_inner();
            if read? == 0 {
                return if filled == 0 { Ok(None) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
            }
        }
    }

    pub fn take(&mut self, length: usize) {
        self.bytes.drain(..length);
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// A whole request at the start of `bytes`: nothing besides its length.
pub fn request(bytes: &[u8]) -> io::Result<Option<((), usize)>> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut head = httparse::Request::new(&mut headers);
    let httparse::Status::Complete(length) = head.parse(bytes).map_err(io::Error::other)? else {
        return Ok(None);
    };
    whole(bytes, length, head.headers).map(|end| end.map(|end| ((), end)))
}

/// A whole answer at the start of `bytes`: its status and length.
pub fn answer(bytes: &[u8]) -> io::Result<Option<(u16, usize)>> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut head = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(length) = head.parse(bytes).map_err(io::Error::other)? else {
        return Ok(None);
    };
    let status = head.code.unwrap_or(0);
    whole(bytes, length, head.headers).map(|end| end.map(|end| (status, end)))
}

/// Value of a header in a message that is known to be whole.
pub fn header<'a>(message: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    httparse::Request::new(&mut headers).parse(message).ok()?;
    headers.iter().find(|header| header.name.eq_ignore_ascii_case(name)).map(|header| header.value)
}

fn whole(bytes: &[u8], head: usize, headers: &[httparse::Header<'_>]) -> io::Result<Option<usize>> {
    let length = headers.iter().find(|header| header.name.eq_ignore_ascii_case("content-length"));
    let body = match length {
        Some(header) => std::str::from_utf8(header.value).ok().and_then(|text| text.parse().ok()),
        None => Some(0_usize),
    };
    let end = head + body.ok_or_else(|| io::Error::other("content-length is no number"))?;
    Ok((bytes.len() >= end).then_some(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_ends_where_its_length_says() {
        let check = |bytes: &str, end: Option<usize>| {
            assert_eq!(request(bytes.as_bytes()).unwrap().map(|(_, end)| end), end, "{bytes:?}");
        };
        let head = "POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\n";
        check("POST / HTTP/1.1\r\nContent-", None);
        check(head, None);
        check(&format!("{head}ab"), None);
        check(&format!("{head}abc"), Some(head.len() + 3));
        check(&format!("{head}abcPOST"), Some(head.len() + 3));
        let found = answer(b"HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n").unwrap();
        assert_eq!(found.map(|(status, _)| status), Some(503));
        assert!(request(b"POST / HTTP/1.1\r\nContent-Length: x\r\n\r\n").is_err());
    }
}
