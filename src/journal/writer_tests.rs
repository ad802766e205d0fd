//! The writer at the edge of its space.

use std::cell::{Cell, RefCell};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::buffer::{AlignedBuf, BufferPool};
use super::encoded::Encoded;
use super::frame::{self, FrameFault};
use super::record::{self, Mark, Record, Settled};
use super::recover::Lost;
use super::spare::{self, OpenMode};
use super::writer::{Journal, Seed};
use crate::wake::Yield;

const SEGMENT: u64 = 2 * 1024 * 1024;

/// A new journal on a full disk: there is no segment to write to, and nobody makes one.
fn seed(dir: &Path) -> Seed {
    Seed {
        id: [1; 16],
        spares: Vec::new(),
        dir: dir.to_owned(),
        next_frame: 1,
        next_lsn: 1,
        chain: [0; 16],
        last_segment: 0,
        last_end: 0,
        damage: Vec::new(),
        mode: OpenMode::Buffered,
        segment_bytes: SEGMENT,
        commit_delay: Duration::from_millis(2),
    }
}

#[test]
fn marks_that_piled_up_never_take_the_room_of_a_webhook_that_was_let_in() {
    let (done_to, done) = std::sync::mpsc::channel();
    // On a thread of its own: a writer that finds no room for what it let in never gives its core back.
    std::thread::spawn(move || {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().to_owned();
        let seed = Seed {
            // The last one is for marks.
            spares: [1, 2].map(|n| spare::make(&dir, n, SEGMENT, OpenMode::Buffered).unwrap()).into(),
            ..seed(&dir)
        };
        // Nobody makes further segments: the disk is full.
        let (orders, _unanswered) = crossbeam_channel::unbounded();
        let mut runtime =
            monoio::RuntimeBuilder::<monoio::IoUringDriver>::new().enable_timer().build().unwrap();
        runtime.block_on(async {
            let pool = BufferPool::new(2, Arc::default());
            let (wrote, _unread) = crossbeam_channel::unbounded();
            let journal = Journal::new(seed, orders, wrote, pool, Arc::default());
            let mark = Mark { lsn: 1, slot: 0, outcome: Settled::Delivered, tag: 0 };
            // More than a segment takes.
            (0..SEGMENT / 4096).for_each(|_| journal.append_marks([1; 16], vec![mark; 256]));
            let append = |seq| {
                journal
                    .append(seq, 1, 0, 0, |_| (), &[b'x'; 500_000])
                    .unwrap_or_else(|full| panic!("{seq}: {full}"))
            };
            let first = append(1);
            let written = Rc::new(Cell::new(0));
            monoio::spawn({
                let (journal, written) = (Rc::clone(&journal), Rc::clone(&written));
                journal.run(move |frame| written.set(written.get() + frame.entries.len()))
            });
            let aside = Yield::new().unwrap();
            while journal.spares_ready() > 1 {
                aside.now().await.unwrap();
            }
            // The segment is being taken into use.
            assert_eq!(written.get(), 0, "too late to see what this test is about");
            let second = append(2);
            first.await.unwrap();
            second.await.unwrap();
            assert_eq!(written.get(), 2);
        });
        done_to.send(()).unwrap();
    });
    done.recv_timeout(Duration::from_secs(10)).expect("both webhooks are durable");
}

#[test]
fn entries_encoded_ahead_stand_among_the_others_in_the_order_in_which_they_came() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().to_owned();
    let spares = [1, 2].map(|n| spare::make(&dir, n, SEGMENT, OpenMode::Buffered).unwrap()).into();
    let seed = Seed { spares, ..seed(&dir) };
    let (orders, _unanswered) = crossbeam_channel::unbounded();
    let mut runtime = monoio::RuntimeBuilder::<monoio::IoUringDriver>::new().enable_timer().build().unwrap();
    runtime.block_on(async {
        let (wrote, told) = crossbeam_channel::unbounded();
        let journal = Journal::new(seed, orders, wrote, BufferPool::new(2, Arc::default()), Arc::default());
        let meta = |buf: &mut AlignedBuf| buf.extend_from_slice(b"meta");
        let lens = [200_000, 10, 20_000];
        let body = move |seq: u64| vec![b'0' + seq as u8; lens[seq as usize % 3]];
        let mut tickets = Vec::new();
        for seq in 1..=9 {
            let ticket = match seq {
                1 | 4 | 7 => journal.append(seq, seq as u16, seq, 4, meta, &body(seq)),
                _ => journal.append_encoded(seq, seq, Encoded::new(seq as u16, 4, meta, &body(seq))),
            };
            tickets.push(ticket.unwrap_or_else(|full| panic!("{seq}: {full}")));
        }
        let too_much = Encoded::new(1, 4, meta, &[0; 500_000]);
        assert!(journal.append_encoded(10, 10, too_much).is_err(), "more than two batches fit in a segment");
        let mark = Mark { lsn: 1, slot: 0, outcome: Settled::Delivered, tag: 0 };
        journal.append_marks([1; 16], vec![mark; 3]);
        let seen = Rc::new(RefCell::new(Vec::new()));
        monoio::spawn({
            let (journal, seen) = (Rc::clone(&journal), Rc::clone(&seen));
            journal.run(move |committed| {
                let (header, _) = frame::read(&committed.frame).unwrap();
                assert_eq!(header.next_lsn() - header.first_lsn, u64::from(header.records));
                for at in committed.entries.iter() {
                    let bytes = &committed.frame[at.offset as usize..][..at.len as usize];
                    let (Record::Entry(entry), _) = record::read(bytes).unwrap() else { panic!("no entry") };
                    assert_eq!((at.tag, u64::from(entry.slots)), (entry.seq, entry.seq));
                    assert!(entry.meta == b"meta" && entry.body == body(entry.seq));
                    seen.borrow_mut().push((at.lsn, entry.seq));
                }
            })
        });
        for (written, ticket) in (1..).zip(tickets) {
            ticket.await.unwrap();
            assert!(seen.borrow().len() >= written);
        }
        assert!(seen.borrow().is_sorted());
        assert_eq!(
            seen.borrow().iter().map(|(_, seq)| *seq).collect::<Vec<_>>(),
            (1..=9).collect::<Vec<_>>()
        );
        let told: Vec<_> = told.try_iter().collect();
        assert_eq!(told.iter().map(|wrote| wrote.marks.len()).sum::<usize>(), 1);
        let parcels = told.iter().flat_map(|wrote| &wrote.wide).map(|(_, slots)| *slots).collect::<Vec<_>>();
        assert_eq!(parcels, (2..=9).collect::<Vec<_>>());
    });
}

/// Segments of another size are removed at a start, and with a full disk none may take their place.
#[test]
fn spares_that_are_missing_between_those_found_are_ordered_like_any_others() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().to_owned();
    let found = spare::make(&dir, 4, SEGMENT, OpenMode::Buffered).unwrap();
    let seed = Seed { spares: vec![found], last_segment: 1, last_end: 12288, ..seed(&dir) };
    let (orders, ordered) = crossbeam_channel::unbounded();
    let mut runtime = monoio::RuntimeBuilder::<monoio::IoUringDriver>::new().enable_timer().build().unwrap();
    runtime.block_on(async {
        let (wrote, _unread) = crossbeam_channel::unbounded();
        let journal = Journal::new(seed, orders, wrote, BufferPool::new(2, Arc::default()), Arc::default());
        assert_eq!(ordered.try_iter().map(|order| order.number).collect::<Vec<_>>(), [5, 6]);
        assert_eq!(journal.spares_ready(), 1);
    });
}

#[test]
fn a_report_of_damage_on_a_full_disk_leaves_the_core_to_others_and_to_its_stop() {
    let (done_to, done) = std::sync::mpsc::channel();
    // On a thread of its own: a writer that never waits never gives its core back.
    std::thread::spawn(move || {
        let folder = tempfile::tempdir().unwrap();
        let lost = Lost { first_lsn: 1, last_lsn: 2, segment: 1, at: 8192, fault: FrameFault::PayloadCrc };
        let seed = Seed {
            next_frame: 4,
            next_lsn: 3,
            last_segment: 1,
            last_end: 12288,
            damage: vec![lost],
            ..seed(folder.path())
        };
        let (orders, _unanswered) = crossbeam_channel::unbounded();
        let mut runtime =
            monoio::RuntimeBuilder::<monoio::IoUringDriver>::new().enable_timer().build().unwrap();
        runtime.block_on(async {
            let (wrote, _unread) = crossbeam_channel::unbounded();
            let journal =
                Journal::new(seed, orders, wrote, BufferPool::new(2, Arc::default()), Arc::default());
            let writing = monoio::spawn(Rc::clone(&journal).run(|_| panic!("nothing can be written")));
            let aside = Yield::new().unwrap();
            for _ in 0..10 {
                aside.now().await.unwrap();
            }
            journal.stop();
            writing.await.unwrap();
        });
        done_to.send(()).unwrap();
    });
    done.recv_timeout(Duration::from_secs(10)).expect("the core has its turn");
}
