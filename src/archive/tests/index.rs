//! Indexes hide no record, whatever the records are and whatever stands where an index should.

use std::collections::BTreeMap;
use std::io::{self, Read};

use super::super::index::line::Lines;
use super::super::index::{Damage, Index, name_of, of};
use super::super::pack::{Frames, Name, Pack, Rules};
use super::super::record::Records;
use super::super::search::{self, Ahead, Object, Query, Told, objects, record_id};
use super::super::shelf::{Entry, EntryKind, Shelf};
use super::*;
use crate::parse::tests::Rng;
use crate::stamp::Hour;

/// Files by name.
#[derive(Default)]
struct Memory(BTreeMap<String, Vec<u8>>);

impl Shelf for Memory {
    fn names(&self, below: &str) -> io::Result<Vec<Entry>> {
        let prefix = if below.is_empty() { String::new() } else { format!("{below}/") };
        let mut found: Vec<Entry> = Vec::new();
        for (name, bytes) in &self.0 {
            let Some(rest) = name.strip_prefix(&prefix) else { continue };
            let entry = match rest.split_once('/') {
                Some((folder, _)) => Entry { name: folder.to_owned(), kind: EntryKind::Folder, bytes: 0 },
                None => Entry { name: rest.to_owned(), kind: EntryKind::File, bytes: bytes.len() as u64 },
            };
            if found.last() != Some(&entry) {
                found.push(entry);
            }
        }
        Ok(found)
    }

    fn open(&self, name: &str) -> io::Result<Option<Box<dyn Read>>> {
        Ok(self.0.get(name).map(|bytes| Box::new(io::Cursor::new(bytes.clone())) as Box<dyn Read>))
    }

    fn read_at(&self, name: &str, offset: u64, len: u64) -> io::Result<Option<Vec<u8>>> {
        let part = |bytes: &Vec<u8>| {
            let bytes = bytes.get(offset as usize..).unwrap_or_default();
            bytes[..bytes.len().min(len as usize)].to_vec()
        };
        Ok(self.0.get(name).map(part))
    }
}

/// What a record can be found by.
struct Known {
    id: String,
    wamid: String,
    user: String,
    bsuid: String,
    received_ms: u64,
    source: &'static str,
}

/// An archive of random webhooks in objects of a few frames, and what is in it.
fn archive(rng: &mut Rng) -> (Memory, Vec<Known>) {
    let config = config("mixed = \"whole\"");
    let (mut records, mut frames) = (Records::new(&config), Frames::new(1).unwrap());
    // Frames of a few records: as large as an object may be.
    let mut pack = Pack::new(Rules::new(1 + rng.below(6000) as u64, 1 << 40, 1));
    let (mut shelf, mut known, mut written) = (Memory::default(), Vec::new(), Vec::new());
    let mut clock = NOON_NS + rng.below(1000) as u64 * 1_000_000;
    let close = |pack: &mut Pack, frames: &mut Frames, written: &mut Vec<u8>, shelf: &mut Memory| {
        let Some(name) = pack.name() else { return };
        if let Some(frame) = pack.frame(frames, true).unwrap() {
            written.extend_from_slice(frame);
        }
        let [day, hour] = name.hour.folders();
        let object = format!("{day}/{hour}/edge-{JOURNAL}-{}.jsonl.zst", name.first_lsn);
        let index = pack.index();
        assert_eq!(of(written.as_slice()).unwrap(), index, "made again it is the same");
        shelf.0.insert(name_of(&object).unwrap(), index);
        shelf.0.insert(object, std::mem::take(written));
        pack.end();
    };
    for lsn in 1..=1 + rng.below(120) as u64 {
        clock += rng.below(300) as u64 * SECOND_NS;
        // With slashes and what else JSON may escape.
        let wamid = format!("wamid.{}{:x}", rng.pick(&["", "/", "a/b\"", "\\", "\u{e9}\t"]), rng.next());
        let user = format!("1202555{:04}", rng.below(10_000));
        let bsuid = format!("US.{}", rng.below(1000));
        let quoted = serde_json::to_string(&wamid).unwrap();
        let quoted = if rng.one_in(2) { quoted.replace('/', "\\/") } else { quoted };
        let blank = rng.pick(&["", " ", "\n\t "]);
        let body = match rng.below(8) {
            // A body that is no UTF-8.
            0 => format!("{{\"id\":{quoted},\"user\":\"\u{0}\",\"wa_id\":\"{user}\",\"user_id\":\"{bsuid}\"}}")
                .into_bytes()
                .into_iter()
                .map(|byte| if byte == 0 { 0xff } else { byte })
                .collect(),
            _ => format!(
                "{{\"object\":\"whatsapp_business_account\",\"entry\":[{{\"id\":\"1\",\"changes\":[{{\"field\":\"messages\",\
                 \"value\":{{\"metadata\":{{\"phone_number_id\":\"5\"}},\"messages\":[{{\"from\":\"{user}\",\
                 \"from_user_id\":\"{bsuid}\",\"id\"{blank}:{blank}{quoted},\"text\":{{\"body\":\"my id\\\" :\\\"\"}}}}]}}}}]}}]}}"
            )
            .into_bytes(),
        };
        let mut verdict = verdict(SourceKind::Whatsapp, &body, clock, |_| "us");
        let source = rng.pick(&["main", "sessions"]);
        verdict.source = name_id(source);
        let meta = meta_of(&verdict);
        let hour = Hour::of(clock / 1_000_000);
        if pack.ends_before(hour) {
            close(&mut pack, &mut frames, &mut written, &mut shelf);
        }
        if pack.name().is_none() {
            pack.open(Name { hour, first_lsn: lsn }, 0);
        }
        records.write(&webhook(lsn, &meta, &body, &BodyDigest::default()), 0, pack.lines()).unwrap();
        pack.added(lsn);
        if let Some(frame) = pack.frame(&mut frames, rng.one_in(3)).unwrap() {
            written.extend_from_slice(frame);
        }
        if pack.is_full() {
            close(&mut pack, &mut frames, &mut written, &mut shelf);
        }
        let id = format!("{JOURNAL}-{lsn}");
        known.push(Known { id, wamid, user, bsuid, received_ms: clock / 1_000_000, source });
    }
    close(&mut pack, &mut frames, &mut written, &mut shelf);
    (shelf, known)
}

/// Ids of the records found, sorted, and how many objects were read whole.
fn found(shelf: &Memory, query: &Query) -> (Vec<String>, usize) {
    let (mut ids, mut whole) = (Vec::new(), 0);
    let mut told = |told| match told {
        Told::Whole { .. } => whole += 1,
        other => panic!("{other:?}"),
    };
    let objects = objects(shelf, query, &mut told).unwrap();
    for (object, index) in Ahead::new(shelf, &objects, query) {
        let mut each = |line: &[u8]| {
            ids.push(Lines::default().read(line).unwrap().id.to_owned());
            Ok(true)
        };
        assert!(search::search(shelf, (object, index), query, &mut told, &mut each).unwrap());
    }
    ids.sort_unstable();
    (ids, whole)
}

/// Whether a query is to find it.
type Is<'a> = &'a dyn Fn(&Known) -> bool;

fn assert_finds(shelf: &Memory, known: &[Known], rng: &mut Rng) {
    for one in known {
        let near = Known {
            received_ms: one.received_ms.saturating_sub(rng.below(600_000) as u64),
            ..Known {
                id: String::new(),
                wamid: String::new(),
                user: String::new(),
                bsuid: String::new(),
                ..*one
            }
        };
        let queries: [(Query, Is<'_>); 6] = [
            (Query { record: record_id(&one.id), ..Query::default() }, &|other| other.id == one.id),
            (Query { ids: vec![one.wamid.clone()], ..Query::default() }, &|other| other.wamid == one.wamid),
            (
                Query { users: vec![search::user(&format!(" 00{} ", one.user))], ..Query::default() },
                &|other| other.user == one.user,
            ),
            (Query { users: vec![one.bsuid.clone()], ..Query::default() }, &|other| other.bsuid == one.bsuid),
            (
                Query {
                    source: Some(one.source.to_owned()),
                    from_ms: Some(near.received_ms),
                    ..Query::default()
                },
                &|other| other.source == one.source && other.received_ms >= near.received_ms,
            ),
            (
                Query {
                    until_ms: Some(one.received_ms + 1),
                    users: vec![one.user.clone(), one.bsuid.clone()],
                    ..Query::default()
                },
                &|other| {
                    other.received_ms <= one.received_ms
                        && (other.user == one.user || other.bsuid == one.bsuid)
                },
            ),
        ];
        for (query, is) in queries {
            let mut expected: Vec<String> =
                known.iter().filter(|other| is(other)).map(|other| other.id.clone()).collect();
            expected.sort_unstable();
            assert_eq!(found(shelf, &query).0, expected, "{query:?}");
        }
    }
}

#[test]
fn a_search_finds_exactly_the_records_there_are() {
    let mut rng = Rng::from_env();
    for _ in 0..20 {
        let (shelf, known) = archive(&mut rng);
        assert_finds(&shelf, &known, &mut rng);
        let none = Query { ids: vec!["wamid.none".to_owned()], ..Query::default() };
        assert_eq!(found(&shelf, &none), (Vec::new(), 0));
    }
}

#[test]
fn an_index_that_is_missing_cut_changed_or_anothers_hides_no_record() {
    let mut rng = Rng::from_env();
    for _ in 0..20 {
        let (mut shelf, known) = archive(&mut rng);
        let indexes: Vec<String> =
            shelf.0.keys().filter(|name| name.starts_with("index/")).cloned().collect();
        let all: Vec<Vec<u8>> = indexes.iter().map(|name| shelf.0[name].clone()).collect();
        for name in &indexes {
            let another = rng.pick(&all).clone();
            let bytes = shelf.0.get_mut(name).unwrap();
            match rng.below(4) {
                0 => {
                    shelf.0.remove(name);
                }
                1 => bytes.truncate(rng.below(bytes.len())),
                2 => {
                    let at = rng.below(bytes.len());
                    bytes[at] ^= 1 << rng.below(8);
                }
                _ => *bytes = another,
            }
        }
        assert_finds(&shelf, &known, &mut rng);
    }
}

#[test]
fn whatever_stands_where_an_index_should_it_is_refused_in_bounded_memory() {
    let mut rng = Rng::from_env();
    let (shelf, _) = archive(&mut rng);
    let (name, index) = shelf.0.iter().find(|(name, _)| name.starts_with("index/")).unwrap();
    let object = shelf.0[&name.replacen("index/", "", 1).replace(".idx", ".jsonl.zst")].len() as u64;
    assert!(Index::read(index, object).is_ok());
    assert_eq!(Index::read(index, object + 1).err(), Some(Damage::OtherObject(object)));
    for cut in 0..index.len() {
        assert!(Index::read(&index[..cut], object).is_err());
    }
    for _ in 0..20_000 {
        // With a checksum that fits, so that lengths are believed to have been written.
        let mut bytes = index[..index.len() - 4].to_vec();
        for _ in 0..1 + rng.below(4) {
            let at = if rng.one_in(2) { rng.below(bytes.len()) } else { rng.below(bytes.len().min(128)) };
            bytes[at] = *rng.pick(&[0, 1, 255, bytes[at] ^ 1]);
        }
        let crc = crc_fast::crc32_iscsi(&bytes);
        bytes.extend_from_slice(&crc.to_le_bytes());
        if let Ok(read) = Index::read(&bytes, object) {
            let text = search_text("wamid.x");
            read.frames().for_each(|(frame, filter)| {
                assert!(frame.offset < object);
                filter.may_have(text);
                filter.may_be_from("main");
            });
        }
    }
    let mut rng_bytes = vec![0; 4096];
    for _ in 0..1000 {
        rng_bytes.iter_mut().for_each(|byte| *byte = rng.next() as u8);
        assert!(Index::read(&rng_bytes, object).is_err());
    }
}

fn search_text(text: &str) -> super::super::index::Text {
    super::super::index::Text::of(text)
}

#[test]
fn a_line_that_is_no_record_makes_its_frame_one_that_is_always_read() {
    let mut rng = Rng::from_env();
    let (shelf, known) = archive(&mut rng);
    let (name, bytes) = shelf.0.iter().find(|(name, _)| name.starts_with("dt=")).unwrap();
    let mut text = b"{\"v\":2,\"id\":\"of another version\"}\n".to_vec();
    zstd::Decoder::new(bytes.as_slice()).unwrap().read_to_end(&mut text).unwrap();
    let object = zstd::encode_all(text.as_slice(), 1).unwrap();
    let index = of(object.as_slice()).unwrap();
    let read = Index::read(&index, object.len() as u64).unwrap();
    let (_, filter) = read.frames().next().unwrap();
    assert!(filter.may_have(search_text("anything")) && filter.may_be_from("anybody"));
    let mut other = Memory::default();
    other.0.insert(name_of(name).unwrap(), index);
    other.0.insert(name.clone(), object.clone());
    let first = known
        .iter()
        .find(|one| name.ends_with(&format!("-{}.jsonl.zst", one.id.rsplit('-').next().unwrap())));
    let query = Query { ids: vec![first.unwrap().wamid.clone()], ..Query::default() };
    let (mut unread, mut lines) = (0, 0);
    let object = Object { name: name.clone(), bytes: object.len() as u64 };
    let mut told = |told: Told| unread += u32::from(matches!(told, Told::Unread { .. }));
    let index = Ahead::new(&other, std::slice::from_ref(&object), &query).next().unwrap().1;
    search::search(&other, (&object, index), &query, &mut told, &mut |_| {
        lines += 1;
        Ok(true)
    })
    .unwrap();
    assert_eq!((unread, lines), (1, 1), "told, and the rest is read");
}

#[test]
fn phones_are_looked_for_as_records_have_them() {
    for written in ["+49 170 1234567", "0049 (170) 123-4567", "491701234567", " 49 170 1234567 "] {
        assert_eq!(search::user(written), "491701234567");
    }
    assert_eq!(search::user(" US.ENT.123 "), "US.ENT.123");
    assert_eq!(search::user("00"), "00");
    let journal = JOURNAL.to_owned();
    assert_eq!(record_id(&format!("{JOURNAL}-7")), Some((journal, 7)));
    for odd in ["wamid.a-7", "7", JOURNAL, &format!("{JOURNAL}-x")] {
        assert_eq!(record_id(odd), None);
    }
}
