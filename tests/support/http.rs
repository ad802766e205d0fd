//! Blocking HTTP/1.1, both sides, just enough for tests. It reads what a correct peer sends and
//! reports everything else as an error; what a wrong request does to the gateway is sent as raw bytes.

use std::io::{self, Error, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// A request or an answer.
#[derive(Debug)]
pub struct Message {
    /// Request line or status line.
    pub first: String,
    /// Names in lower case, in the order they came.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// When its first byte was seen.
    pub began: Instant,
}

impl Message {
    /// The value of a header that must not come twice.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut found = self.headers.iter().filter(|(n, _)| n == name);
        let value = found.next().map(|(_, v)| v.as_str());
        assert!(found.next().is_none(), "header {name} came twice: {:?}", self.headers);
        value
    }

    /// Status of an answer.
    pub fn status(&self) -> u16 {
        let code = self.first.split(' ').nth(1).unwrap_or_default();
        code.parse().unwrap_or_else(|_| panic!("status line {:?}: expected HTTP/1.1 NNN", self.first))
    }

    pub fn closes(&self) -> bool {
        self.header("connection").is_some_and(|v| v.eq_ignore_ascii_case("close"))
    }
}

/// A connection that reads whole messages and keeps what came after them.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    pending: Vec<u8>,
}

impl Connection {
    /// Connects; every read and write then fails after `patience`.
    pub fn open(address: SocketAddr, patience: Duration) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, patience)?;
        stream.set_read_timeout(Some(patience))?;
        stream.set_write_timeout(Some(patience))?;
        Self::over(stream)
    }

    pub fn over(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        Ok(Self { stream, pending: Vec::with_capacity(16 << 10) })
    }

    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Ends it so that the peer sees a reset and not an end.
    pub fn reset(&mut self) {
        socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO)).ok();
        // Both ways at once: the other copies of the socket must not keep it open.
        self.stream.shutdown(std::net::Shutdown::Both).ok();
    }

    pub fn shutdown_write(&self) -> io::Result<()> {
        self.stream.shutdown(std::net::Shutdown::Write)
    }

    /// True when the peer has closed: the next byte does not come.
    pub fn is_closed(&mut self) -> bool {
        let reset = |e: &Error| matches!(e.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe);
        self.pending.is_empty()
            && match self.stream.read(&mut [0; 1]) {
                Ok(read) => read == 0,
                Err(e) => reset(&e),
            }
    }

    /// The next message; `None` when the peer closed between two messages.
    pub fn read(&mut self) -> io::Result<Option<Message>> {
        let mut began = (!self.pending.is_empty()).then(Instant::now);
        let head = loop {
            if let Some(at) = find(&self.pending, b"\r\n\r\n") {
                break at + 4;
            }
            if self.fill()? == 0 {
                return match self.pending.is_empty() {
                    true => Ok(None),
                    false => Err(Error::new(ErrorKind::UnexpectedEof, "closed inside a head")),
                };
            }
            began.get_or_insert_with(Instant::now);
        };
        let text = String::from_utf8_lossy(&self.pending[..head - 4]).into_owned();
        self.pending.drain(..head);
        let mut lines = text.split("\r\n");
        let first = lines.next().unwrap_or_default().to_owned();
        let headers: Vec<(String, String)> = lines
            .map(|line| {
                let (name, value) =
                    line.split_once(':').ok_or_else(|| invalid("header line without colon"))?;
                Ok((name.to_ascii_lowercase(), value.trim().to_owned()))
            })
            .collect::<io::Result<_>>()?;
        let mut message =
            Message { first, headers, body: Vec::new(), began: began.unwrap_or_else(Instant::now) };
        message.body = match (message.header("content-length"), message.header("transfer-encoding")) {
            (Some(length), None) => {
                let length = length.parse().map_err(|_| invalid("content-length is no number"))?;
                self.take(length)?
            }
            (None, Some("chunked")) => self.take_chunks()?,
            (None, None) => Vec::new(),
            _ => return Err(invalid("content-length beside transfer-encoding, or an unknown encoding")),
        };
        Ok(Some(message))
    }

    /// The answer to what was sent; a close before it is an error.
    pub fn answer(&mut self) -> io::Result<Message> {
        self.read()?.ok_or_else(|| Error::new(ErrorKind::UnexpectedEof, "closed before the answer"))
    }

    fn take(&mut self, length: usize) -> io::Result<Vec<u8>> {
        while self.pending.len() < length {
            if self.fill()? == 0 {
                return Err(Error::new(ErrorKind::UnexpectedEof, "closed inside a body"));
            }
        }
        let rest = self.pending.split_off(length);
        Ok(std::mem::replace(&mut self.pending, rest))
    }

    fn take_chunks(&mut self) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let end = loop {
                match find(&self.pending, b"\r\n") {
                    Some(at) => break at,
                    None if self.fill()? == 0 => return Err(invalid("closed inside a chunk")),
                    None => {}
                }
            };
            let line = String::from_utf8_lossy(&self.take(end + 2)?[..end]).into_owned();
            let size = usize::from_str_radix(&line, 16).map_err(|_| invalid("chunk size is no number"))?;
            let chunk = self.take(size + 2)?;
            if size == 0 {
                return Ok(body);
            }
            body.extend_from_slice(&chunk[..size]);
        }
    }

    fn fill(&mut self) -> io::Result<usize> {
        let mut block = [0; 16 << 10];
        let read = self.stream.read(&mut block)?;
        self.pending.extend_from_slice(&block[..read]);
        Ok(read)
    }
}

/// One GET on a connection of its own.
pub fn get(address: SocketAddr, target: &str) -> io::Result<Message> {
    let mut connection = Connection::open(address, Duration::from_secs(5))?;
    connection
        .send(format!("GET {target} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n").as_bytes())?;
    connection.answer()
}

/// A POST of JSON with one more header, as bytes.
pub fn post(target: &str, header: (&str, &str), body: &[u8]) -> Vec<u8> {
    let (name, value) = header;
    let mut bytes = format!(
        "POST {target} HTTP/1.1\r\nhost: gateway.test\r\ncontent-type: application/json\r\n\
         {name}: {value}\r\ncontent-length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

pub fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

fn invalid(why: &'static str) -> Error {
    Error::new(ErrorKind::InvalidData, why)
}
