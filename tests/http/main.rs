//! The listener on loopback: rows of requests whole and cut, then time, caps, drain and panics.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "helpers of tests may fail loudly and wait"
)]

use std::time::{Duration, Instant};

use penstock::config::Limits;
use penstock::listen::Patience;

mod large;
mod rows;
mod server;

use rows::{Row, Then};
use server::{Client, Server, eventually, limits};

/// Sends a row in pieces and checks every answer. A kept connection is used again for the next way to cut it.
fn check(server: &Server, row: &Row, connection: &mut Option<Client>, cuts: &[usize]) {
    let what = format!("{} cut at {:?}", row.name, &cuts[..cuts.len().min(3)]);
    let mut client = connection.take().unwrap_or_else(|| server.connect());
    client.send_cut(&row.input, cuts.iter().copied());
    for (i, expected) in row.answers.iter().enumerate() {
        let answer = client.answer().unwrap_or_else(|| panic!("no answer {i}: {what}"));
        assert_eq!(answer.status, *expected, "answer {i}: {what}");
        let last = i + 1 == row.answers.len();
        assert_eq!(answer.closes, last && matches!(row.then, Then::Closed), "answer {i}: {what}");
        assert_eq!(answer.head.contains("\r\nallow: "), *expected == 405, "{what}");
    }
    match row.then {
        Then::Kept => {
            client.assert_alive(&what);
            *connection = Some(client);
        }
        Then::Closed | Then::Dropped => {
            client.finish_sending_if_open();
            assert_eq!(client.rest().escape_ascii().to_string(), "", "after the last answer: {what}");
        }
    }
}

#[test]
fn every_row_gets_its_answers_however_it_is_cut() {
    let server = Server::start(limits());
    let rows = rows::all();
    std::thread::scope(|scope| {
        for part in rows.chunks(rows.len().div_ceil(8)) {
            let server = &server;
            scope.spawn(move || {
                for row in part {
                    let len = row.input.len();
                    let mut connection = None;
                    check(server, row, &mut connection, &[]);
                    // Every offset of a short request; a sample of a long one.
                    let offsets: Vec<usize> = (1..len).step_by(1 + len / 200).collect();
                    check(server, row, &mut connection, &offsets);
                    offsets.iter().for_each(|cut| check(server, row, &mut connection, &[*cut]));
                }
            });
        }
    });
    assert!(server.cells.lookalike_fields.get() > 0);
    assert!(server.cells.requests_refused.get() > 1000);
    assert!(server.cells.ack_seconds.read().0.iter().sum::<u64>() > 1000);
}

const REQUEST: &[u8] = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello";

#[test]
fn body_at_the_limit_is_taken_and_one_byte_more_is_not() {
    let server = Server::start(limits());
    for (len, status) in [(4 << 20, 200), ((4 << 20) + 1, 413)] {
        let body = vec![b'b'; len];
        let mut client = server.connect();
        client.send(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {len}\r\n\r\n").as_bytes());
        client.send(&body);
        let answer = client.answer().unwrap();
        assert_eq!(answer.status, status);
        let mut client = server.connect();
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
        for part in body.chunks(100_000) {
            client.send(format!("{:x}\r\n", part.len()).as_bytes());
            client.send(part);
            client.send(b"\r\n");
        }
        client.send(b"0\r\n\r\n");
        assert_eq!(client.answer().unwrap().status, status, "in chunks");
    }
    drop(server);
}

#[test]
fn refused_client_can_finish_sending_and_sees_a_clean_end() {
    let server = Server::start(limits());
    let mut client = server.connect();
    client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4194305\r\n\r\n");
    for part in 0..20 {
        std::thread::sleep(Duration::from_millis(2));
        assert!(client.send(&[b'b'; 10_000]), "reset at part {part}");
    }
    assert_eq!(client.answer().unwrap().status, 413);
    client.finish_sending();
    assert!(client.ends_cleanly());
}

#[test]
fn incomplete_requests_are_closed_without_an_answer() {
    let server = Server::start(limits());
    for len in 0..REQUEST.len() {
        let mut client = server.connect();
        client.send(&REQUEST[..len]);
        client.finish_sending();
        assert!(client.answer().is_none(), "{len} bytes");
    }
    assert_eq!(server.cells.ack_seconds.read().0.iter().sum::<u64>(), 0, "nothing reached the handler");
}

#[test]
fn half_closed_client_gets_its_answer() {
    let server = Server::start(limits());
    let mut client = server.connect();
    client.send(&[REQUEST, REQUEST].concat());
    client.finish_sending();
    assert_eq!(client.answer().unwrap().status, 200);
    assert_eq!(client.answer().unwrap().status, 200);
    assert!(client.answer().is_none());
}

#[test]
fn expectation_is_answered_before_the_body() {
    let server = Server::start(limits());
    let head = "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n";
    for (framing, body) in
        [("Content-Length: 5", "hello"), ("Transfer-Encoding: chunked", "5\r\nhello\r\n0\r\n\r\n")]
    {
        let mut client = server.connect();
        client.send(format!("{head}{framing}\r\n\r\n").as_bytes());
        let interim = client.bytes(b"HTTP/1.1 100 Continue\r\n\r\n".len());
        assert_eq!(interim, b"HTTP/1.1 100 Continue\r\n\r\n");
        client.send(body.as_bytes());
        let answer = client.answer().unwrap();
        assert_eq!((answer.status, answer.body.as_slice()), (200, &b"hello"[..]));
        client.assert_alive("100-continue");
    }
    let mut client = server.connect();
    client.send(format!("{head}Content-Length: 5\r\n\r\nhello").replace("POST / ", "POST /x ").as_bytes());
    let answer = client.answer().unwrap();
    assert_eq!((answer.status, answer.closes), (404, true), "refused: final answer at once");
    assert!(!answer.head.contains("100 Continue"));
}

/// Limits and patience that run out within half a second.
fn hurried() -> (Limits, Patience) {
    let ms = Duration::from_millis;
    let limits = Limits { header_timeout: ms(400), body_timeout: ms(900), idle_timeout: ms(600), ..limits() };
    (limits, Patience { send: ms(500), slow_body: ms(400), linger: ms(300), drain: ms(1500) })
}

#[test]
fn slow_heads_and_bodies_get_408() {
    let (limits, patience) = hurried();
    let server = Server::with(limits, &[], patience);
    let trickle = |text: &str, pause, bytes: usize| {
        let mut client = server.connect();
        let start = Instant::now();
        client.send(text.as_bytes());
        // Even a client that goes on sending is answered at the deadline.
        while start.elapsed() < Duration::from_millis(1400) && !client.has_answer() {
            client.send(&b"x".repeat(bytes));
            std::thread::sleep(Duration::from_millis(pause));
        }
        let waited = start.elapsed().as_millis();
        let answer = client.answer().unwrap();
        assert_eq!((answer.status, answer.closes), (408, true), "{text}");
        waited
    };
    let head = trickle("POST / HTTP/1.1\r\nX: ", 40, 1);
    assert!((390..700).contains(&head), "head: {head} ms");
    let slow = trickle("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n", 40, 1);
    assert!((390..800).contains(&slow), "slow body: {slow} ms");
    let long = trickle("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n", 20, 400);
    assert!((890..1300).contains(&long), "long body: {long} ms");
    assert_eq!(server.cells.connections_timed_out.get(), 3);
}

#[test]
fn idle_connections_are_closed_silently() {
    let (limits, patience) = hurried();
    let server = Server::with(limits, &[], patience);
    let mut used = server.connect();
    used.assert_alive("the first request");
    used.send(b"\r\n");
    let mut unused = server.connect();
    let start = Instant::now();
    assert!(used.rest().is_empty() && unused.rest().is_empty());
    assert!((500..900).contains(&start.elapsed().as_millis()), "{:?}", start.elapsed());
    assert_eq!(server.cells.connections_timed_out.get(), 2);
}

#[test]
fn slow_reader_is_dropped() {
    let (limits, patience) = hurried();
    let server = Server::with(limits, &[], patience);
    let mut client = server.connect();
    client.send(b"GET /big HTTP/1.1\r\nHost: a\r\n\r\n");
    eventually("the answer is being sent", || server.cells.ack_seconds.read().1 > 0);
    eventually("the connection is closed", || server.shared.connections() == 0);
    assert_eq!(server.cells.connections_timed_out.get(), 1);
    drop(client);
}

#[test]
fn panic_closes_only_its_connection() {
    let server = Server::start(limits());
    let mut other = server.connect();
    other.assert_alive("the start");
    let mut client = server.connect();
    client.send(b"GET /panic HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(client.answer().is_none());
    assert_eq!(server.cells.panics.get(), 1);
    other.assert_alive("another connection's panic");
    server.connect().assert_alive("a panic");
    drop(other);
    eventually("all are counted out", || {
        server.shared.connections() == 0 && server.cells.connections_open.get() == 0
    });
}

#[test]
fn full_house_closes_the_longest_idle_or_turns_away() {
    let server = Server::start(Limits { connections: 3, ..limits() });
    let mut clients: Vec<Client> = (0..3).map(|_| server.connect()).collect();
    for client in &mut clients {
        client.assert_alive("the start");
        std::thread::sleep(Duration::from_millis(5));
    }
    clients[0].assert_alive("being the oldest");
    let mut late = server.connect();
    late.assert_alive("somebody made room");
    assert!(clients[1].rest().is_empty(), "the longest idle was closed");
    eventually("it is counted out", || server.shared.connections() == 3);
    for client in [&mut clients[0], &mut late] {
        client.send(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
    }
    clients[2].send(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
    std::thread::sleep(Duration::from_millis(50));
    assert!(server.connect().answer().is_none(), "all are busy");
    assert_eq!(server.cells.connections_refused.get(), 1);
    for client in [&mut clients[0], &mut late] {
        assert_eq!(client.answer().unwrap().status, 200);
        client.assert_alive("the rush");
    }
}

#[test]
fn strangers_and_crowds_of_one_peer_are_turned_away() {
    let server = Server::with(limits(), &["10.0.0.0/8"], Patience::default());
    assert!(server.connect().answer().is_none());
    let server = Server::start(Limits { per_peer: 2, ..limits() });
    let (mut first, mut second) = (server.connect(), server.connect());
    first.assert_alive("1 of 2");
    second.assert_alive("2 of 2");
    assert!(server.connect().answer().is_none());
    drop(second);
    eventually("one has left", || server.shared.connections() == 1);
    server.connect().assert_alive("room again");
    assert_eq!(server.cells.connections_refused.get(), 1);
}

#[test]
fn memory_for_bodies_is_bounded_and_comes_back() {
    let server = Server::start(Limits { memory: 256 << 10, ..limits() });
    let post = |len: usize, kind: &str| {
        let framing = if kind == "chunks" {
            "Transfer-Encoding: chunked".into()
        } else {
            format!("Content-Length: {len}")
        };
        let mut client = server.connect();
        client.send(format!("POST / HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n").as_bytes());
        if kind == "chunks" {
            client.send(format!("{len:x}\r\n").as_bytes());
        }
        client.send(&vec![b'b'; len]);
        if kind == "chunks" {
            client.send(b"\r\n0\r\n\r\n");
        }
        client
    };
    for round in 0..5 {
        for kind in ["length", "chunks"] {
            let mut client = post(1 << 20, kind);
            let answer = client.answer().unwrap();
            assert_eq!((answer.status, answer.closes), (503, true), "{kind}, round {round}");
            assert!(answer.head.contains("\r\nretry-after: "));
            assert_eq!(post(60_000, kind).answer().unwrap().status, 200, "{kind}, round {round}");
        }
    }
    // A promise alone takes nothing from the others.
    let mut promises: Vec<Client> = (0..20).map(|_| server.connect()).collect();
    for client in &mut promises {
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4000000\r\n\r\n");
    }
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(post(60_000, "length").answer().unwrap().status, 200);
}

#[test]
fn drain_finishes_what_was_begun_and_returns() {
    let (limits, patience) = hurried();
    let server = Server::with(Limits { idle_timeout: Duration::from_secs(20), ..limits }, &[], patience);
    let (mut idle, mut busy) = (server.connect(), server.connect());
    idle.assert_alive("the start");
    busy.send(b"POST /slow HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello");
    std::thread::sleep(Duration::from_millis(100));
    let start = Instant::now();
    server.shared.drain();
    assert!(idle.rest().is_empty());
    assert!(start.elapsed() < Duration::from_millis(300), "idle ones are closed at once");
    let answer = busy.answer().unwrap();
    assert_eq!((answer.status, answer.body.as_slice(), answer.closes), (200, &b"hello"[..], true));
    assert!(std::net::TcpStream::connect(server.address).is_err(), "nothing new is accepted");
    drop(busy);
    server.join();
    assert!(start.elapsed() < Duration::from_millis(1000), "{:?}", start.elapsed());
}

#[test]
fn drain_does_not_wait_for_ever() {
    let (limits, patience) = hurried();
    let server = Server::with(Limits { header_timeout: Duration::from_secs(20), ..limits }, &[], patience);
    let mut stuck = server.connect();
    stuck.send(b"POST / HT");
    std::thread::sleep(Duration::from_millis(50));
    let start = Instant::now();
    server.shared.drain();
    server.join();
    assert!((1400..2000).contains(&start.elapsed().as_millis()), "{:?}", start.elapsed());
}

/// Allocations on the listener's thread while it serves `requests` requests one by one, and two connections' setup.
fn allocations(request: &'static [u8], requests: usize) -> u64 {
    let counted = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0));
    let result = std::sync::Arc::clone(&counted);
    let server = Server::run(limits(), &[], Patience::default(), usize::MAX, move |serve| {
        let info = allocation_counter::measure(serve);
        result.store(info.count_total, std::sync::atomic::Ordering::SeqCst);
    });
    let mut client = server.connect();
    for _ in 0..requests {
        client.send(request);
        assert_eq!(client.answer().unwrap().status, 200);
    }
    // The drain must not depend on when the peer's end is seen.
    drop(client);
    eventually("the connection is closed", || server.shared.connections() == 0);
    server.shared.drain();
    server.join();
    counted.load(std::sync::atomic::Ordering::SeqCst)
}

#[test]
fn request_in_steady_state_costs_no_allocation() {
    let request = b"POST /now HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello";
    let (few, many) = (allocations(request, 100), allocations(request, 5100));
    // The sweep allocates a little while it runs, however many requests there are.
    assert!(many < few + 200, "{few} allocations for 100 requests, {many} for 5,100");
}
