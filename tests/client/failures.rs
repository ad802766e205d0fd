//! Regions that do not answer: the attempt ends in time and says whether bytes may have arrived.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use penstock::config::Region;
use penstock::forward::client::{Attempt, Fault, Outcome};
use penstock::http1::BadAnswer;
use socket2::{Domain, Socket, Type};

use crate::support::*;

/// One attempt, with the short timeout; and that it kept to it.
#[track_caller]
fn attempt_at(region: Region, body: &'static [u8]) -> Attempt {
    let start = Instant::now();
    let (attempt, idle) = on_core(&region, async |core| (core.send(body).await, core.client.idle_len()));
    assert!(start.elapsed() < region.timeout + Duration::from_millis(500), "took {:?}", start.elapsed());
    assert_eq!(idle, 0, "a connection that failed is never kept");
    attempt
}

fn short(address: SocketAddr) -> Region {
    Region { timeout: SHORT, ..region(address) }
}

const fn ended(outcome: Outcome, sent_bytes: bool, opened: u32) -> Attempt {
    Attempt { outcome, sent_bytes, opened }
}

const fn connect(kind: ErrorKind) -> Outcome {
    Outcome::Connection(Fault::Connect(kind))
}

#[test]
fn silent_region_ends_at_the_deadline() {
    let script = Script::start(|listener| {
        let mut stream = accept(listener);
        request(&mut stream);
        closed(&mut stream);
    });
    assert_eq!(attempt_at(short(script.address), b"{}"), ended(Outcome::Timeout, true, 1));
    script.end();
}

#[test]
fn trickling_region_ends_at_the_deadline() {
    for text in
        [&OK[..20], b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n1\r\nx\r\n1\r\nx\r\n"]
    {
        let script = Script::start(move |listener| {
            let mut stream = accept(listener);
            request(&mut stream);
            let mut sent = 0;
            for byte in text.chunks(1) {
                pause(25);
                sent += usize::from(stream.write_all(byte).is_ok());
            }
            sent
        });
        assert_eq!(attempt_at(short(script.address), b"{}"), ended(Outcome::Timeout, true, 1));
        assert!(script.end() > 5, "the script did trickle");
    }
}

#[test]
fn region_that_does_not_read_ends_at_the_deadline() {
    let body = vec![b'x'; 32 << 20].leak();
    let script = Script::start(|listener| {
        let stream = accept(listener);
        pause(600);
        drop(stream);
    });
    assert_eq!(attempt_at(short(script.address), body), ended(Outcome::Timeout, true, 1));
    script.end();
}

#[test]
fn close_after_the_request_is_in_doubt_and_not_repeated() {
    for end in [reset, drop] {
        let script = Script::start(move |listener| {
            let mut stream = accept(listener);
            request(&mut stream);
            end(stream);
            listener.set_nonblocking(true).unwrap();
            pause(50);
            listener.accept().unwrap_err().kind()
        });
        let attempt = attempt_at(short(script.address), b"{}");
        assert_eq!(attempt, ended(Outcome::Connection(Fault::Answer(BadAnswer::Closed)), true, 1));
        assert_eq!(script.end(), ErrorKind::WouldBlock, "a fresh connection is not tried twice");
    }
}

const TOO_LARGE: &[u8] = b"HTTP/1.1 413 Too Large\r\ncontent-length: 0\r\n\r\n";

#[test]
fn early_refusal_of_a_long_body_is_heard_at_once() {
    let body = vec![b'x'; 32 << 20].leak();
    // The region goes on without reading; or it closes with a reset, as the kernel does it for unread bytes.
    for stay in [1_500, 0] {
        let script = Script::start(move |listener| {
            let mut stream = accept(listener);
            stream.read_exact(&mut [0; 1_000]).unwrap();
            answer(&mut stream, TOO_LARGE);
            pause(stay);
        });
        let start = Instant::now();
        assert_eq!(attempt_at(region(script.address), body), ended(status(413), false, 1));
        assert!(start.elapsed() < Duration::from_secs(1), "the rest of the body is not waited for");
        script.end();
    }
}

#[test]
fn early_refusal_is_heard_even_when_the_write_fails_first() {
    let body = vec![b'x'; 32 << 20].leak();
    let script = Script::start(move |listener| {
        let mut stream = accept(listener);
        stream.read_exact(&mut [0; 1_000]).unwrap();
        pause(100);
        answer(&mut stream, TOO_LARGE);
        reset(stream);
    });
    on_core(&region(script.address), async |core| {
        monoio::spawn(async {
            rest(50).await;
            // The core is busy while answer and reset arrive, and then sees both at the same time.
            pause(150);
        });
        assert_eq!(core.send(body).await, ended(status(413), false, 1));
    });
    script.end();
}

#[test]
fn refused_connect_sends_nothing() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let attempt = attempt_at(short(address), b"{}");
    assert_eq!(attempt, ended(connect(ErrorKind::ConnectionRefused), false, 0));
}

/// A listener whose queue is full: the kernel drops further SYNs, as a firewall does.
fn full_listener() -> (Socket, Vec<Socket>, SocketAddr) {
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    listener.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
    listener.listen(0).unwrap();
    let address = listener.local_addr().unwrap().as_socket().unwrap();
    let fillers = (0..4)
        .map(|_| {
            let filler = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            filler.set_nonblocking(true).unwrap();
            filler.connect(&address.into()).ok();
            filler
        })
        .collect();
    pause(50);
    (listener, fillers, address)
}

#[test]
fn connect_that_hangs_ends_at_the_deadline() {
    let (_listener, _fillers, address) = full_listener();
    let start = Instant::now();
    assert_eq!(attempt_at(short(address), b"{}"), ended(Outcome::Timeout, false, 0));
    assert!(start.elapsed() >= SHORT, "the connect did hang");
}

#[test]
fn connect_that_hangs_leaves_most_of_a_long_timeout() {
    let (_listener, _fillers, address) = full_listener();
    let start = Instant::now();
    assert_eq!(attempt_at(region(address), b"{}"), ended(Outcome::Timeout, false, 0));
    assert!((1_900..3_000).contains(&start.elapsed().as_millis()), "took {:?}", start.elapsed());
}

#[test]
fn connection_comes_from_the_source_address() {
    let script = Script::start(|listener| {
        let mut stream = accept(listener);
        request(&mut stream);
        answer(&mut stream, OK);
        stream.peer_addr().unwrap().ip()
    });
    let from = |text: &str| Some(text.parse().unwrap());
    let region = Region { source_address: from("127.0.0.2"), ..region(script.address) };
    on_core(&region, async |core| core.deliver(b"{}").await);
    assert_eq!(Some(script.end()), from("127.0.0.2"));

    // TEST-NET-1: on no interface.
    let region = Region { source_address: from("192.0.2.1"), ..region };
    assert_eq!(attempt_at(region, b"{}"), ended(connect(ErrorKind::AddrNotAvailable), false, 0));
}

#[test]
fn name_is_reached_at_the_addresses_it_was_given() {
    let first = Script::start(|listener| {
        let mut stream = accept(listener);
        request(&mut stream);
        answer(&mut stream, OK);
        closed(&mut stream);
    });
    let second = Script::start(|listener| {
        let mut stream = accept(listener);
        request(&mut stream);
        answer(&mut stream, OK);
    });
    let dead = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut region = region(dead);
    region.endpoint.host = "us.example.com".into();
    on_core(&region, async |core| {
        let unknown = core.send(b"{}").await;
        assert_eq!(unknown, ended(Outcome::Connection(Fault::NoAddress), false, 0));
        core.client.set_address(vec![dead, first.address]);
        assert_eq!(core.deliver(b"{}").await.opened, 1, "the next address, in the same attempt");
        core.client.set_address(vec![first.address]);
        assert_eq!(core.client.idle_len(), 1);
        core.client.set_address(vec![second.address]);
        assert_eq!(core.client.idle_len(), 0, "the old address may be somebody else's by now");
        assert_eq!(core.deliver(b"{}").await.opened, 1);
    });
    first.end();
    second.end();
}

#[test]
fn attempts_at_once_each_go_through_all_addresses() {
    let good = Script::start(|listener| {
        for _ in 0..4 {
            let mut stream = accept(listener);
            request(&mut stream);
            answer(&mut stream, b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        }
    });
    let dead = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut region = region(dead);
    region.endpoint.host = "us.example.com".into();
    on_core(&region, async |core| {
        core.client.set_address(vec![dead, good.address]);
        futures_util::future::join_all((0..4).map(|_| core.deliver(b"{}"))).await;
    });
    good.end();
}

#[test]
fn scripts_can_tell_open_from_closed() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let mut stream = accept(&listener);
    drop(client);
    closed(&mut stream);
}
