//! A proxy on loopback that does to a server's answers what networks and servers do. Everything that no rule is for
//! goes through as it is.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use super::http::{Connection, Message, find};
use super::loopback;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// An error as S3 tells it; the server never hears of the request.
    Error(u16, &'static str),
    /// An error with status 200; the server never hears of the request.
    ErrorIn200,
    /// The server hears of it and its success is told as an error with status 200.
    ErrorIn200AfterSuccess,
    /// The server gets half of the request.
    Cut,
    /// The answer comes without this header.
    Without(&'static str),
    /// The server gets it with one other byte.
    Flip,
    /// The server does what was asked, and its answer is a reset.
    Lost,
    /// The server does what was asked, and nobody is told.
    Late,
    /// Nobody ever answers.
    BlackHole,
    /// 307 to the same place on another port.
    Redirect(u16),
}

/// What is done to requests that begin with this method and have this text in their target.
#[derive(Debug, Clone, Copy)]
struct Rule {
    method: &'static str,
    part: &'static str,
    without: &'static str,
    fault: Fault,
    /// As often as this.
    left: usize,
}

#[derive(Debug, Default)]
struct State {
    rules: Mutex<Vec<Rule>>,
    fired: AtomicUsize,
    requests: Mutex<Vec<String>>,
    ending: AtomicBool,
    /// What is put behind the targets of requests that put something.
    query: &'static str,
}

pub struct Proxy {
    pub port: u16,
    state: Arc<State>,
    thread: Option<JoinHandle<()>>,
}

impl Proxy {
    /// To a server on this port of loopback.
    pub fn start(server: u16) -> Self {
        Self::with_query(server, "")
    }

    /// To a server that takes what is put only with a query of its own, knows only its own address and
    /// gives no ETag for it.
    pub fn with_query(server: u16, query: &'static str) -> Self {
        let listener = TcpListener::bind(loopback(0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(State { query, ..State::default() });
        let shared = Arc::clone(&state);
        let thread = std::thread::spawn(move || {
            for client in listener.incoming() {
                if shared.ending.load(SeqCst) {
                    return;
                }
                let (client, shared) = (client.unwrap(), Arc::clone(&shared));
                // They end with their connections.
                std::thread::spawn(move || serve(client, loopback(server), &shared));
            }
        });
        Self { port, state, thread: Some(thread) }
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// From now on, `times` times: what goes to a target with `part` in it and without `without` (if that is no "").
    pub fn rule(
        &self,
        method: &'static str,
        part: &'static str,
        without: &'static str,
        fault: Fault,
        times: usize,
    ) {
        self.state.rules.lock().unwrap().push(Rule { method, part, without, fault, left: times });
    }

    /// How often a rule was followed.
    pub fn fired(&self) -> usize {
        self.state.fired.load(SeqCst)
    }

    /// First lines of all that came.
    pub fn requests(&self) -> Vec<String> {
        self.state.requests.lock().unwrap().clone()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.state.ending.store(true, SeqCst);
        TcpStream::connect(loopback(self.port)).ok();
        self.thread.take().map(JoinHandle::join);
    }
}

impl State {
    fn due(&self, first: &str) -> Option<Fault> {
        self.requests.lock().unwrap().push(first.to_owned());
        let mut rules = self.rules.lock().unwrap();
        let mut words = first.split(' ');
        let (method, target) = (words.next().unwrap(), words.next().unwrap());
        let rule = rules.iter_mut().find(|rule| {
            rule.left > 0
                && rule.method == method
                && target.contains(rule.part)
                && (rule.without.is_empty() || !target.contains(rule.without))
        })?;
        rule.left -= 1;
        self.fired.fetch_add(1, SeqCst);
        Some(rule.fault)
    }
}

fn serve(client: TcpStream, server: SocketAddr, state: &State) {
    let mut raw = client.try_clone().unwrap();
    let mut connection = Connection::over(client).unwrap();
    let Ok(Some(mut request)) = connection.read() else { return };
    if !state.query.is_empty() {
        renamed(&mut request, server, state.query);
    }
    let answer = match state.due(&request.first) {
        None => {
            let mut answer = exchange(server, &request, request.body.len());
            if !state.query.is_empty() && request.first.starts_with("PUT ") {
                let end = find(&answer, b"\r\n").unwrap() + 2;
                answer.splice(end..end, *b"etag: \"any\"\r\n");
            }
            answer
        }
        Some(Fault::Error(status, code)) => told(status, code, ""),
        Some(Fault::ErrorIn200) => told(200, "InternalError", ""),
        Some(Fault::ErrorIn200AfterSuccess) => {
            exchange(server, &request, request.body.len());
            told(200, "InternalError", "")
        }
        Some(Fault::Cut) => {
            exchange(server, &request, request.body.len() / 2);
            return connection.reset();
        }
        Some(Fault::Without(name)) => {
            let answer = exchange(server, &request, request.body.len());
            let head = find(&answer, b"\r\n\r\n").unwrap() + 2;
            let lines = String::from_utf8_lossy(&answer[..head]).into_owned();
            let other = |line: &&str| !line.to_ascii_lowercase().starts_with(&format!("{name}:"));
            let lines: String = lines.split_inclusive("\r\n").filter(other).collect();
            [lines.as_bytes(), &answer[head..]].concat()
        }
        Some(Fault::Flip) => {
            let middle = request.body.len() / 2;
            request.body[middle] ^= 1;
            exchange(server, &request, request.body.len())
        }
        Some(Fault::Lost) => {
            exchange(server, &request, request.body.len());
            return connection.reset();
        }
        Some(hole @ (Fault::Late | Fault::BlackHole)) => {
            if hole == Fault::Late {
                exchange(server, &request, request.body.len());
            }
            while !state.ending.load(SeqCst) {
                std::thread::sleep(Duration::from_millis(20));
            }
            return;
        }
        Some(Fault::Redirect(port)) => {
            let target = request.first.split(' ').nth(1).unwrap();
            told(307, "TemporaryRedirect", &format!("location: http://127.0.0.1:{port}{target}\r\n"))
        }
    };
    // The client may be gone; each answer ends its connection.
    raw.write_all(&answer).ok();
    raw.shutdown(std::net::Shutdown::Write).ok();
}

/// As if it had been sent to the server itself, and without escapes where none are needed.
fn renamed(request: &mut Message, server: SocketAddr, query: &str) {
    for (escape, plain) in [("%2D", "-"), ("%2E", "."), ("%2F", "/"), ("%3D", "="), ("%5F", "_")] {
        let (target, rest) = request.first.split_once('?').unwrap_or((&request.first, ""));
        let mark = if rest.is_empty() { "" } else { "?" };
        request.first = format!("{}{mark}{rest}", target.replace(escape, plain));
    }
    if request.first.starts_with("PUT ") {
        request.first = request.first.replace(" HTTP/", &format!("{query} HTTP/"));
    }
    for (_, value) in request.headers.iter_mut().filter(|(name, _)| name == "host") {
        *value = server.to_string();
    }
}

/// What the server answers to a request of which it gets so many bytes of the body; nothing if it says nothing.
fn exchange(server: SocketAddr, request: &Message, bytes: usize) -> Vec<u8> {
    let mut head = format!("{}\r\nconnection: close\r\n", request.first);
    for (name, value) in request.headers.iter().filter(|(name, _)| name != "connection") {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    let mut stream = TcpStream::connect(server).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    stream.write_all(head.as_bytes()).ok();
    stream.write_all(&request.body[..bytes]).ok();
    if bytes < request.body.len() {
        stream.shutdown(std::net::Shutdown::Write).ok();
    }
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok();
    answer
}

fn told(status: u16, code: &str, header: &str) -> Vec<u8> {
    let body = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{code}</Code><Message>scripted</Message></Error>"
    );
    format!(
        "HTTP/1.1 {status} Scripted\r\ncontent-type: application/xml\r\ncontent-length: {}\r\n{header}connection: close\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}
