//! A blocking HTTP/1.1 client for the command line: one connection, kept alive, one deadline per request.
//!
//! It never sends a request twice: whether a webhook is repeated is the caller's decision. What a
//! server answers is bounded in size and time. Deliberately absent: TLS, redirects, chunked bodies
//! (the status is taken, the connection is dropped).

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

/// Largest head and body of an answer, unless more is asked for: a gateway's are a few hundred bytes, a proxy's error page a few thousand.
const ANSWER_MAX: usize = 64 << 10;

/// An `http://` address, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url {
    /// `host:port`, as for connecting.
    pub address: String,
    /// Value of the `Host` header.
    pub authority: String,
    /// Path and query.
    pub target: String,
}

impl Url {
    /// Reads `http://host[:port][/path]`; an error says what was expected.
    pub fn parse(text: &str) -> Result<Self, String> {
        let expected = |found: &str| format!("{found} in {text:?}; expected http://host:port/path");
        let rest = text.strip_prefix("http://").ok_or_else(|| expected("no http://"))?;
        let at = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, target) = rest.split_at(at);
        if authority.is_empty() || authority.contains('@') {
            return Err(expected("no plain host"));
        }
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) || target.contains('#') {
            return Err(expected("a blank, a control character, a # or a non-ASCII letter"));
        }
        let bare_v6 = authority.starts_with('[') && authority.ends_with(']');
        let address = match authority.rsplit_once(':') {
            Some((host, port)) if !bare_v6 => {
                port.parse::<u16>().map_err(|_| expected("no port number"))?;
                if host.is_empty() {
                    return Err(expected("no plain host"));
                }
                authority.to_owned()
            }
            _ => format!("{authority}:80"),
        };
        let target = if target.starts_with('/') { target.to_owned() } else { format!("/{target}") };
        Ok(Self { address, authority: authority.to_owned(), target })
    }
}

/// What a server answered.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub body: Vec<u8>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nothing was sent.
    #[error("connect to {address}")]
    Connect { address: String, source: io::Error },
    /// The request may have arrived.
    #[error("no answer from {address} within {} s", limit.as_secs())]
    Late { address: String, limit: Duration },
    /// The request may have arrived.
    #[error("the connection to {address} broke before an answer came")]
    Broken { address: String, source: io::Error },
    #[error("{address} did not answer with HTTP/1.1: {why}")]
    Protocol { address: String, why: String },
}

/// One connection to one server.
#[derive(Debug)]
pub struct Client {
    url: Url,
    limit: Duration,
    answer_max: usize,
    stream: Option<TcpStream>,
}

impl Client {
    /// `limit` holds for each request as a whole: connecting, sending and reading the answer.
    pub fn new(url: Url, limit: Duration) -> Self {
        Self { url, limit, answer_max: ANSWER_MAX, stream: None }
    }

    /// For a server whose answers may have so many bytes.
    pub fn taking(mut self, answer_max: usize) -> Self {
        self.answer_max = answer_max;
        self
    }

    /// Sends one request and reads its answer.
    pub fn request(
        &mut self,
        method: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<Answer, ClientError> {
        let deadline = Instant::now() + self.limit;
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => self.connect(deadline)?,
        };
        let (answer, keep) = self.exchange(&mut stream, deadline, method, headers, body)?;
        self.stream = keep.then_some(stream);
        Ok(answer)
    }

    fn connect(&self, deadline: Instant) -> Result<TcpStream, ClientError> {
        let address = &self.url.address;
        let failed = |source| ClientError::Connect { address: address.clone(), source };
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for peer in address.to_socket_addrs().map_err(failed)? {
            match remaining(deadline).and_then(|left| TcpStream::connect_timeout(&peer, left)) {
                Ok(stream) => {
                    stream.set_nodelay(true).map_err(failed)?;
                    return Ok(stream);
                }
                Err(error) => last = error,
            }
        }
        Err(failed(last))
    }

    fn exchange(
        &self,
        stream: &mut TcpStream,
        deadline: Instant,
        method: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<(Answer, bool), ClientError> {
        let mut head = format!(
            "{method} {} HTTP/1.1\r\nhost: {}\r\ncontent-length: {}\r\n",
            self.url.target,
            self.url.authority,
            body.len()
        );
        for (name, value) in headers {
            head.extend([name, ": ", value, "\r\n"]);
        }
        head.push_str("\r\n");
        let mut bytes = head.into_bytes();
        bytes.extend_from_slice(body);
        // A server may answer and close before it has read all (413): the answer counts, not the failed write.
        let written = write_all(stream, &bytes, deadline);
        match (written, self.read_answer(stream, deadline)) {
            (Err(error), Err(ClientError::Broken { .. })) => Err(self.broken(error)),
            (written, read) => read.map(|(answer, keep)| (answer, keep && written.is_ok())),
        }
    }

    fn read_answer(&self, stream: &mut TcpStream, deadline: Instant) -> Result<(Answer, bool), ClientError> {
        let mut bytes = Vec::new();
        loop {
            let Some((head, length)) = self.head(&bytes)? else {
                self.more(stream, &mut bytes, deadline, "the answer's head")?;
                continue;
            };
            // 1xx are interim: the answer is yet to come.
            if (100..200).contains(&head.status) {
                bytes.drain(..length);
                continue;
            }
            let Some(body) = head.body else {
                return Ok((Answer { status: head.status, body: Vec::new() }, false));
            };
            while bytes.len() < length + body {
                self.more(stream, &mut bytes, deadline, "the answer's body")?;
            }
            let keep = head.keep_alive && bytes.len() == length + body;
            return Ok((Answer { status: head.status, body: bytes[length..length + body].to_vec() }, keep));
        }
    }

    /// Status and framing, and the head's length, once all of it is there.
    fn head(&self, bytes: &[u8]) -> Result<Option<(Head, usize)>, ClientError> {
        let mut space = [httparse::EMPTY_HEADER; 64];
        let mut response = httparse::Response::new(&mut space);
        match response.parse(bytes) {
            Ok(httparse::Status::Partial) => Ok(None),
            Ok(httparse::Status::Complete(length)) => {
                let status = response.code.unwrap_or_default();
                let value = |name: &str| {
                    response.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name))
                };
                let said = |name: &str| {
                    value(name).and_then(|header| std::str::from_utf8(header.value).ok()).map(str::trim)
                };
                let body = match (value("transfer-encoding"), said("content-length")) {
                    _ if matches!(status, 204 | 304) => Some(0),
                    (None, Some(digits)) => {
                        let length = digits.parse::<usize>().ok().filter(|length| *length <= self.answer_max);
                        Some(length.ok_or_else(|| self.odd(format!("content-length {digits:?}")))?)
                    }
                    _ => None,
                };
                let keep_alive = !said("connection").is_some_and(|word| word.eq_ignore_ascii_case("close"));
                Ok(Some((Head { status, body, keep_alive }, length)))
            }
            Err(error) => Err(self.odd(error.to_string())),
        }
    }

    fn more(
        &self,
        stream: &mut TcpStream,
        bytes: &mut Vec<u8>,
        deadline: Instant,
        what: &str,
    ) -> Result<(), ClientError> {
        if bytes.len() > 2 * self.answer_max {
            return Err(self.odd(format!("{what} is too long")));
        }
        let mut chunk = [0; 4096];
        let read = remaining(deadline).and_then(|left| {
            stream.set_read_timeout(Some(left))?;
            stream.read(&mut chunk)
        });
        match read {
            Ok(0) => Err(self.broken(io::ErrorKind::UnexpectedEof.into())),
            Ok(count) => {
                bytes.extend_from_slice(&chunk[..count]);
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            Err(error) => Err(self.broken(error)),
        }
    }

    fn broken(&self, source: io::Error) -> ClientError {
        let address = self.url.address.clone();
        match source.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                ClientError::Late { address, limit: self.limit }
            }
            _ => ClientError::Broken { address, source },
        }
    }

    fn odd(&self, why: String) -> ClientError {
        ClientError::Protocol { address: self.url.address.clone(), why }
    }
}

struct Head {
    status: u16,
    /// `None`: its end is not told in advance.
    body: Option<usize>,
    keep_alive: bool,
}

fn write_all(stream: &mut TcpStream, mut bytes: &[u8], deadline: Instant) -> io::Result<()> {
    while !bytes.is_empty() {
        stream.set_write_timeout(Some(remaining(deadline)?))?;
        match stream.write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => bytes = &bytes[count..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Time left; never zero, which would mean "no limit" to a socket.
fn remaining(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    #[test]
    fn addresses_are_taken_apart_or_refused() {
        let check = |text: &str, expected: Option<(&str, &str, &str)>| {
            let parsed = Url::parse(text).ok();
            let parsed = parsed
                .as_ref()
                .map(|url| (url.address.as_str(), url.authority.as_str(), url.target.as_str()));
            assert_eq!(parsed, expected, "{text}");
        };
        check("http://127.0.0.1:8443/webhook", Some(("127.0.0.1:8443", "127.0.0.1:8443", "/webhook")));
        check("http://gate", Some(("gate:80", "gate", "/")));
        check("http://gate?a=b", Some(("gate:80", "gate", "/?a=b")));
        check("http://[::1]/x", Some(("[::1]:80", "[::1]", "/x")));
        check("http://[::1]:90/x", Some(("[::1]:90", "[::1]:90", "/x")));
        for wrong in
            ["https://gate/", "gate:80", "http://", "http:///x", "http://u:p@gate/", "http://gate:99999/"]
        {
            check(wrong, None);
        }
        check("http://gate/a b", None);
        check("http://gate/\r\nx: y", None);
    }

    /// Answers one connection with `raw` and closes it; returns what the client makes of it.
    fn answered(raw: &'static [u8]) -> Result<Answer, ClientError> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = Url::parse(&format!("http://{}/", listener.local_addr().unwrap())).unwrap();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 1024];
            assert!(stream.read(&mut request).unwrap() > 0);
            stream.write_all(raw).unwrap();
        });
        let answer = Client::new(url, Duration::from_secs(5)).request("POST", &[("a", "b")], b"body");
        server.join().unwrap();
        answer
    }

    #[test]
    fn answers_are_read_within_bounds() {
        let check = |raw: &'static [u8], expected: Option<(u16, &[u8])>| {
            let answer = answered(raw).ok();
            let answer = answer.as_ref().map(|answer| (answer.status, answer.body.as_slice()));
            assert_eq!(answer, expected, "{}", raw.escape_ascii());
        };
        check(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", Some((200, b"ok")));
        check(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 401 No\r\ncontent-length: 0\r\n\r\n", Some((401, b"")));
        check(b"HTTP/1.1 502 Bad\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n", Some((502, b"")));
        check(b"HTTP/1.1 200 OK\r\ncontent-length: 999999999999\r\n\r\n", None);
        check(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nok", None);
        check(b"SSH-2.0-OpenSSH_9.2\r\n", None);
        check(b"", None);
    }

    #[test]
    fn silence_ends_at_the_deadline() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = Url::parse(&format!("http://{}/", listener.local_addr().unwrap())).unwrap();
        let start = Instant::now();
        let answer = Client::new(url, Duration::from_millis(100)).request("GET", &[], b"");
        assert!(matches!(answer, Err(ClientError::Late { .. })), "{answer:?}");
        assert!(start.elapsed() < Duration::from_secs(5));
    }

    #[test]
    fn connection_is_used_again() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = Url::parse(&format!("http://{}/", listener.local_addr().unwrap())).unwrap();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 1024];
            for _ in 0..2 {
                assert!(stream.read(&mut request).unwrap() > 0);
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").unwrap();
            }
        });
        let mut client = Client::new(url, Duration::from_secs(5));
        for _ in 0..2 {
            assert_eq!(client.request("GET", &[], b"").unwrap().status, 200);
        }
        server.join().unwrap();
    }
}
