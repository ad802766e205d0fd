//! When objects open and close, and what they are called.

use std::io::Read;

use super::super::pack::{Frames, Name, Pack, Rules};
use super::super::read::Contents;
use super::*;
use crate::parse::tests::Rng;
use crate::stamp::Hour;

const MINUTE_MS: u64 = 60_000;

/// A pack as its strand drives it, and the objects that came out.
struct Driver {
    pack: Pack,
    frames: Frames,
    written: Vec<u8>,
    done: Vec<(Name, Contents, Vec<u8>)>,
    largest: usize,
}

impl Driver {
    fn new(roll_bytes: u64, roll_after_ms: u64) -> Self {
        let pack = Pack::new(Rules::new(roll_bytes, roll_after_ms, 1));
        let frames = Frames::new(1).unwrap();
        Self { pack, frames, written: Vec::new(), done: Vec::new(), largest: 0 }
    }

    fn take(&mut self, lsn: u64, received_ns: u64, line: &[u8], now_ms: u64) {
        let hour = Hour::of(received_ns / 1_000_000);
        if self.pack.ends_before(hour) {
            self.close();
        }
        if self.pack.name().is_none() {
            self.pack.open(Name { hour, first_lsn: lsn }, now_ms);
        }
        self.pack.lines().extend_from_slice(line);
        self.largest = self.largest.max(self.pack.lines().len());
        self.pack.added(lsn);
        if let Some(frame) = self.pack.frame(&mut self.frames, false).unwrap() {
            self.written.extend_from_slice(frame);
        }
        if self.pack.is_full() {
            self.close();
        }
    }

    fn close(&mut self) {
        let name = self.pack.name().unwrap();
        if let Some(frame) = self.pack.frame(&mut self.frames, true).unwrap() {
            self.written.extend_from_slice(frame);
        }
        let contents = self.pack.contents();
        self.pack.end();
        assert_eq!(contents.bytes, self.written.len() as u64);
        self.done.push((name, contents, std::mem::take(&mut self.written)));
    }
}

fn text(object: &[u8]) -> String {
    let mut text = String::new();
    zstd::Decoder::new(object).unwrap().read_to_string(&mut text).unwrap();
    text
}

#[test]
fn an_object_never_crosses_an_hour_whatever_the_clock_does() {
    let mut rng = Rng::from_env();
    for _ in 0..200 {
        let mut driver = Driver::new(1 << 30, 1 << 40);
        let (mut clock, mut hours) = (NOON_NS, Vec::new());
        let count = 1 + rng.below(60) as u64;
        for lsn in 1..=count {
            clock = match rng.below(12) {
                0 => clock + 3600 * SECOND_NS,
                1 => clock - 3600 * SECOND_NS,
                2 => clock - clock % (3600 * SECOND_NS) - 1,
                3 => clock - clock % (3600 * SECOND_NS),
                _ => clock + rng.below(900) as u64 * SECOND_NS,
            };
            hours.push(Hour::of(clock / 1_000_000));
            driver.take(lsn, clock, format!("{lsn}\n").as_bytes(), 0);
        }
        driver.close();
        let mut lines = Vec::new();
        for (name, contents, object) in &driver.done {
            let own: Vec<u64> = text(object).lines().map(|line| line.parse().unwrap()).collect();
            assert_eq!((own[0], own.len() as u64), (name.first_lsn, contents.records));
            assert!(own.iter().all(|lsn| hours[*lsn as usize - 1] == name.hour), "{name:?} {own:?}");
            lines.extend(own);
        }
        assert_eq!(lines, (1..=count).collect::<Vec<_>>(), "all, once, in order");
        // It closes for no other reason here.
        assert_eq!(driver.done.len(), 1 + hours.windows(2).filter(|pair| pair[0] != pair[1]).count());
    }
}

#[test]
fn an_object_closes_at_its_size_and_a_frame_at_its_own() {
    let mut rng = Rng::from_env();
    let mut driver = Driver::new(100_000, 1 << 40);
    let mut raw = 0;
    for lsn in 1..2_000 {
        // Text that shrinks to about three quarters.
        let line: String = (0..1 + rng.below(900)).map(|_| char::from(b'0' + rng.below(64) as u8)).collect();
        raw += line.len() as u64 + 1;
        driver.take(lsn, NOON_NS, format!("{line}\n").as_bytes(), 0);
    }
    driver.close();
    let sizes: Vec<usize> = driver.done.iter().map(|(.., object)| object.len()).collect();
    // A frame holds as much as an object here, so one more may come before it is seen.
    assert!(sizes[..sizes.len() - 1].iter().all(|size| (100_000..200_000).contains(size)), "{sizes:?}");
    assert!(driver.largest < 100_000 + 1_000, "{} bytes were held", driver.largest);
    assert_eq!(driver.done.iter().map(|(_, contents, _)| contents.raw_bytes).sum::<u64>(), raw);
    assert_eq!(driver.done.iter().map(|(_, contents, _)| contents.records).sum::<u64>(), 1_999);
}

#[test]
fn an_object_closes_at_its_age_by_the_clock_that_does_not_jump() {
    let mut driver = Driver::new(1 << 30, 5 * MINUTE_MS);
    assert!(!driver.pack.is_old(u64::MAX), "there is none");
    // What is read after an outage was received long ago: that alone closes nothing.
    driver.take(1, NOON_NS, b"1\n", MINUTE_MS);
    assert!(!driver.pack.is_old(MINUTE_MS));
    assert!(!driver.pack.is_old(6 * MINUTE_MS - 1));
    assert!(driver.pack.is_old(6 * MINUTE_MS));
    assert!(!driver.pack.is_old(0), "before it was opened");
}

#[test]
fn the_same_lines_give_the_same_bytes() {
    let object = || {
        let mut driver = Driver::new(1 << 30, 1 << 40);
        (1..3_000)
            .for_each(|lsn| driver.take(lsn, NOON_NS, format!("{:0900}\n", lsn * 7919).as_bytes(), lsn));
        driver.close();
        driver.done.pop().unwrap().2
    };
    let first = object();
    assert!(first == object());
    assert_eq!(text(&first).len(), 2_999 * 901);
}

#[test]
fn memory_of_all_frames_together_has_a_bound() {
    let held = |packs| {
        let mut driver = Driver { pack: Pack::new(Rules::new(1 << 30, 1 << 40, packs)), ..Driver::new(1, 1) };
        (1..3_000).for_each(|lsn| driver.take(lsn, NOON_NS, &[b'x'; 1000], 0));
        driver.largest
    };
    assert!((1 << 20..(1 << 20) + 1000).contains(&held(1)));
    assert!(held(64) <= (1 << 20) + 1000);
    assert!((256 << 10..(256 << 10) + 1000).contains(&held(256)));
    assert!((64 << 10..(64 << 10) + 1000).contains(&held(100_000)));
}

#[test]
fn a_damaged_object_is_seen_when_it_is_read() {
    let mut driver = Driver::new(1 << 30, 1 << 40);
    (1..100).for_each(|lsn| driver.take(lsn, NOON_NS, format!("{lsn} is a line\n").as_bytes(), 0));
    driver.close();
    let object = driver.done.pop().unwrap().2;
    let whole = text(&object);
    for at in 0..object.len() {
        let mut bad = object.clone();
        bad[at] ^= 0x10;
        let mut out = String::new();
        let read = zstd::Decoder::new(&bad[..]).and_then(|mut decoder| decoder.read_to_string(&mut out));
        // Some bits of a frame's header say nothing about what is in it.
        assert!(read.is_err() || out == whole, "byte {at}");
    }
}
