//! Bodies that the handler gets by value: whole and in order however they come, and their memory counts until they go.

use std::time::Duration;

use penstock::config::Limits;

use super::server::{Server, eventually, limits};
use super::{check, rows};

fn bytes(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at * 31 % 251) as u8).collect()
}

fn with_length(path: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

fn in_chunks(path: &str, body: &[u8], size: usize) -> Vec<u8> {
    let head = format!("POST {path} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    let chunk = |chunk: &[u8]| [format!("{:x}\r\n", chunk.len()).as_bytes(), chunk, b"\r\n"].concat();
    let chunks: Vec<u8> = body.chunks(size).flat_map(chunk).collect();
    [head.as_bytes(), &chunks, b"0\r\n\r\n"].concat()
}

#[test]
fn every_row_gets_the_same_answers_when_its_body_is_a_large_one() {
    let server = Server::start_with_large(limits(), 3);
    for row in &rows::all() {
        let len = row.input.len();
        let mut connection = None;
        check(&server, row, &mut connection, &[]);
        let offsets: Vec<usize> = (1..len).step_by(1 + len / 60).collect();
        check(&server, row, &mut connection, &offsets);
        offsets.iter().for_each(|cut| check(&server, row, &mut connection, &[*cut]));
    }
}

#[test]
fn large_body_is_whole_and_what_is_pipelined_behind_it_is_answered_behind_it() {
    let server = Server::start_with_large(limits(), 32 << 10);
    for len in [32 << 10, (32 << 10) + 1, 100_000, 1_000_003, 3_999_999] {
        let body = bytes(len);
        let ways = [
            with_length("/", &body),
            with_length("/slow", &body),
            in_chunks("/", &body, 1000),
            in_chunks("/slow", &body, 70_000),
        ];
        for (way, large) in ways.iter().enumerate() {
            let before = with_length("/", b"before");
            let behind = [with_length("/", b"behind"), with_length("/", &body)].concat();
            let all = [&before[..], large, &behind].concat();
            let mut client = server.connect();
            let cuts: Vec<usize> = (1..all.len()).step_by(77_777).collect();
            let mut sending = client.twin();
            std::thread::scope(|scope| {
                scope.spawn(|| sending.send_cut(&all, cuts));
                for expected in [b"before", &body[..], b"behind", &body] {
                    let (head, answer) = client.long_answer();
                    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
                    let differs = answer.iter().zip(expected).position(|(a, b)| a != b);
                    assert_eq!((answer.len(), differs), (expected.len(), None), "{len} bytes, way {way}");
                }
            });
            client.assert_alive("the end");
        }
    }
    eventually("nothing is held", || server.shared.memory() == 0);
}

#[test]
fn large_body_counts_as_memory_until_it_is_answered_or_nobody_waits() {
    let memory = 400_000;
    let server = Server::start_with_large(Limits { memory, ..limits() }, 32 << 10);
    for round in 0..3 {
        let (mut first, mut second) = (server.connect(), server.connect());
        first.send(&with_length("/slow", &bytes(250_000)));
        eventually("the first is held", || server.shared.memory() >= 240_000);
        second.send(&with_length("/", &bytes(250_000)));
        assert_eq!(second.answer().unwrap().status, 503, "round {round}");
        assert_eq!(first.answer().unwrap().status, 200, "round {round}");
        first.send(&with_length("/slow", &bytes(250_000)));
        eventually("it is held again", || server.shared.memory() >= 240_000);
        drop(first);
        std::thread::sleep(Duration::from_millis(10));
        drop(second);
        eventually("nothing is held", || server.shared.memory() == 0);
    }
}

#[test]
fn drain_waits_for_a_large_body() {
    let server = Server::start_with_large(limits(), 32 << 10);
    let mut client = server.connect();
    client.send(&with_length("/slow", &bytes(100_000)));
    eventually("it is being answered", || server.shared.memory() >= 90_000);
    server.shared.drain();
    let (head, body) = client.long_answer();
    assert!(head.starts_with("HTTP/1.1 200") && head.contains("connection: close"), "{head}");
    assert_eq!(body, bytes(100_000));
    drop(client);
    server.join();
}
