//! Connections are used again, and never for an answer that belongs to nobody.

use std::time::{Duration, Instant};

use penstock::config::Region;
use penstock::forward::client::{Fault, Outcome};
use penstock::http1::BadAnswer;

use crate::support::*;

const FLAG: &str = "penstock-possible-duplicate: true\r\n";

fn text(request: Vec<u8>) -> String {
    String::from_utf8(request).unwrap()
}

#[test]
fn one_connection_carries_attempt_after_attempt() {
    let script = Script::start(|listener| {
        let mut stream = accept(listener);
        for _ in 0..3 {
            request(&mut stream);
            answer(&mut stream, OK);
        }
        closed(&mut stream);
    });
    on_core(&region(script.address), async |core| {
        let opened = [core.deliver(b"1").await, core.deliver(b"2").await, core.deliver(b"3").await];
        assert_eq!(opened.map(|attempt| attempt.opened), [1, 0, 0]);
    });
    script.end();
}

#[test]
fn attempts_at_once_use_a_connection_each_and_leave_them_to_later_ones() {
    let script = Script::start(|listener| {
        let mut streams: Vec<_> = (0..4).map(|_| accept(listener)).collect();
        // Nobody is answered before all have come: they are really at once.
        streams.iter_mut().for_each(|stream| drop(request(stream)));
        streams.iter_mut().for_each(|stream| answer(stream, OK));
        streams
    });
    on_core(&region(script.address), async |core| {
        let all = futures_util::future::join_all((0..4).map(|_| core.deliver(b"{}"))).await;
        assert_eq!(all.iter().map(|attempt| attempt.opened).sum::<u32>(), 4);
        assert_eq!(core.client.idle_len(), 4);
        drop(script.end());
        rest(50).await;
        core.client.reap(Instant::now());
        assert_eq!(core.client.idle_len(), 0, "closed ones do not keep their descriptors");
    });
}

#[test]
fn connection_that_closed_while_idle_is_not_used() {
    let script = Script::start(|listener| {
        let mut stream = accept(listener);
        request(&mut stream);
        answer(&mut stream, OK);
        drop(stream);
        let mut stream = accept(listener);
        let second = request(&mut stream);
        answer(&mut stream, OK);
        second
    });
    on_core(&region(script.address), async |core| {
        core.deliver(b"1").await;
        rest(50).await;
        assert_eq!(core.deliver(b"2").await.opened, 1);
    });
    assert!(!text(script.end()).contains(FLAG), "nothing was sent before");
}

#[test]
fn connection_that_closes_as_we_send_is_replaced_once() {
    let script = Script::start(|listener| {
        let mut stream = accept(listener);
        request(&mut stream);
        answer(&mut stream, OK);
        let lost = request(&mut stream);
        reset(stream);
        let mut stream = accept(listener);
        let repeated = request(&mut stream);
        answer(&mut stream, OK);
        (text(lost), text(repeated))
    });
    on_core(&region(script.address), async |core| {
        core.deliver(b"1").await;
        assert_eq!(core.deliver(b"2").await.opened, 1);
    });
    let (lost, repeated) = script.end();
    assert!(!lost.contains(FLAG));
    assert_eq!(repeated.replace(FLAG, ""), lost, "the same request, the same id");
    assert!(repeated.contains(FLAG), "the region may have taken the first");
}

#[test]
fn second_loss_in_one_attempt_is_the_end_of_it() {
    let script = Script::start(|listener| {
        let mut stream = accept(listener);
        request(&mut stream);
        answer(&mut stream, OK);
        request(&mut stream);
        drop(stream);
        let mut stream = accept(listener);
        request(&mut stream);
        drop(stream);
    });
    on_core(&region(script.address), async |core| {
        core.deliver(b"1").await;
        let attempt = core.send(b"2").await;
        assert_eq!(
            (attempt.outcome, attempt.opened),
            (Outcome::Connection(Fault::Answer(BadAnswer::Closed)), 1)
        );
        assert!(attempt.sent_bytes);
    });
    script.end();
}

#[test]
fn doubt_about_the_first_send_outlives_a_refused_second() {
    let script = Script::start(|listener| {
        let mut stream = accept(listener);
        request(&mut stream);
        answer(&mut stream, OK);
        // No longer listening by the time the connection is lost.
        let listener = socket2::SockRef::from(listener);
        request(&mut stream);
        listener.shutdown(std::net::Shutdown::Both).unwrap();
        reset(stream);
    });
    on_core(&region(script.address), async |core| {
        core.deliver(b"1").await;
        let attempt = core.send(b"2").await;
        assert_eq!(
            attempt.outcome,
            Outcome::Connection(Fault::Connect(std::io::ErrorKind::ConnectionRefused))
        );
        assert!(attempt.sent_bytes, "the lost connection had taken the request");
    });
    script.end();
}

#[test]
fn doubt_about_the_first_send_outlives_another_answer_to_the_second() {
    let script = Script::start(|listener| {
        let mut stream = accept(listener);
        request(&mut stream);
        answer(&mut stream, OK);
        request(&mut stream);
        reset(stream);
        let mut stream = accept(listener);
        request(&mut stream);
        answer(&mut stream, b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n");
    });
    on_core(&region(script.address), async |core| {
        core.deliver(b"1").await;
        let attempt = core.send(b"2").await;
        assert_eq!(attempt.outcome, status(503));
        assert!(attempt.sent_bytes, "the region restarts, and may have taken the first");
    });
    script.end();
}

#[test]
fn request_is_not_repeated_once_an_answer_began() {
    let script = Script::start(|listener| {
        let mut stream = accept(listener);
        request(&mut stream);
        answer(&mut stream, OK);
        request(&mut stream);
        answer(&mut stream, b"HTTP/1.1 2");
        drop(stream);
        pause(50);
        listener.set_nonblocking(true).unwrap();
        listener.accept().map(drop).unwrap_err().kind()
    });
    on_core(&region(script.address), async |core| {
        core.deliver(b"1").await;
        let attempt = core.send(b"2").await;
        assert_eq!(attempt.outcome, Outcome::Connection(Fault::Answer(BadAnswer::Truncated)));
        assert!(attempt.sent_bytes);
    });
    assert_eq!(script.end(), std::io::ErrorKind::WouldBlock);
}

#[test]
fn answer_that_nobody_asked_for_is_nobodys() {
    let script = Script::start(|listener| {
        let mut stream = accept(listener);
        request(&mut stream);
        answer(&mut stream, OK);
        pause(50);
        answer(&mut stream, b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n");
        let mut fresh = accept(listener);
        request(&mut fresh);
        answer(&mut fresh, OK);
        closed(&mut stream);
    });
    on_core(&region(script.address), async |core| {
        core.deliver(b"1").await;
        rest(150).await;
        assert_eq!(core.deliver(b"2").await.opened, 1);
    });
    script.end();
}

#[test]
fn timeout_on_an_old_connection_is_not_repeated() {
    let script = Script::start(|listener| {
        let mut stream = accept(listener);
        request(&mut stream);
        answer(&mut stream, OK);
        request(&mut stream);
        closed(&mut stream);
    });
    let region = Region { timeout: SHORT, ..region(script.address) };
    on_core(&region, async |core| {
        core.deliver(b"1").await;
        let attempt = core.send(b"2").await;
        assert_eq!((attempt.outcome, attempt.sent_bytes, attempt.opened), (Outcome::Timeout, true, 0));
    });
    script.end();
}

#[test]
fn idle_connection_outlives_the_deadline_of_its_attempt() {
    let script = Script::start(|listener| {
        let mut stream = accept(listener);
        for _ in 0..2 {
            request(&mut stream);
            answer(&mut stream, OK);
        }
    });
    let region = Region { timeout: SHORT, ..region(script.address) };
    on_core(&region, async |core| {
        core.deliver(b"1").await;
        rest(2 * SHORT.as_millis() as u64).await;
        core.client.reap(Instant::now());
        assert_eq!(core.deliver(b"2").await.opened, 0);
        core.client.reap(Instant::now() + std::time::Duration::from_secs(30));
        assert_eq!(core.client.idle_len(), 0, "but not for ever");
    });
    script.end();
}

#[test]
#[allow(clippy::disallowed_methods, reason = "shorter than the runtime's timer can wait")]
fn second_answer_right_behind_a_refusal_is_not_the_next_parcels() {
    let script = Script::start(|listener| {
        let mut stream = accept(listener);
        request(&mut stream);
        answer(&mut stream, b"HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n");
        // Read apart from the first, and there before the next parcel.
        std::thread::sleep(Duration::from_micros(100));
        answer(&mut stream, OK);
        let mut fresh = accept(listener);
        request(&mut fresh);
        answer(&mut fresh, OK);
        closed(&mut stream);
    });
    on_core(&region(script.address), async |core| {
        core.send(b"1").await;
        std::thread::sleep(Duration::from_micros(400));
        assert_eq!(core.deliver(b"2").await.opened, 1);
    });
    script.end();
}
