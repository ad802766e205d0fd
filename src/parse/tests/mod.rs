//! Tests of the parser: samples with known answers, and random bodies against a slow reference.

use std::fs;
use std::ops::Range;

use super::*;

pub(crate) mod random;
mod reference;
mod reference_wasender;
mod samples;
pub(crate) mod style;

/// SplitMix64: seeded, so that a failure can be run again.
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Seeded by `SIM_SEED`, else by the clock; prints the seed.
    pub(crate) fn from_env() -> Self {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        let seed = std::env::var("SIM_SEED").map_or(now.as_nanos() as u64, |seed| seed.parse().unwrap());
        println!("SIM_SEED={seed}");
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    pub(crate) fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    pub(crate) fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }
}

/// An event that outlives its visit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Owned {
    pub(crate) kind: EventKind,
    pub(crate) key: Key,
    pub(crate) value: u64,
    pub(crate) users: Vec<(Option<String>, Option<String>)>,
    pub(crate) more_users: bool,
    pub(crate) number: String,
    pub(crate) account: String,
    /// The event's own JSON element in the raw body.
    pub(crate) range: Range<usize>,
}

pub(crate) fn parse(kind: SourceKind, body: &[u8]) -> (Parsed, Vec<Owned>) {
    let mut events = Vec::new();
    let mut ranges = ranges(kind, body).into_iter();
    let mut next = || ranges.next().expect("an event for each value");
    let parsed = Parser::new().parse(kind, body, &mut |event| events.push(owned(event, next())));
    assert_eq!(ranges.next(), None, "a value for each event");
    (parsed, events)
}

/// Where the events lie, as who cuts a body finds them.
fn ranges(kind: SourceKind, body: &[u8]) -> Vec<Range<usize>> {
    struct Places<'t>(Spans<'t>, Vec<Range<usize>>);
    impl<'t> Sink<'t> for Places<'t> {
        fn event(&mut self, found: &Found<'_, 't>) {
            self.1.push(self.0.of(found.value));
        }
    }
    let mut index = Index::default();
    let walked = Scratch::default().read(body, |document| {
        let mut places = Places(document.spans(), Vec::new());
        walk(kind, document, &mut index, &mut places).map(|_| places.1)
    });
    walked.and_then(|ranges| ranges).unwrap_or_else(|_| std::iter::once(0..body.len()).collect())
}

fn owned(event: &Event<'_>, range: Range<usize>) -> Owned {
    let text = |text: Option<&str>| text.map(String::from);
    Owned {
        kind: event.kind,
        key: event.key,
        value: event.value,
        users: event.users.iter().map(|user| (text(user.phone), text(user.bsuid))).collect(),
        more_users: event.more_users,
        number: event.number.into(),
        account: event.account.into(),
        range,
    }
}

/// All sample bodies: name, source, bytes.
pub(crate) fn sample_bodies() -> Vec<(String, SourceKind, Vec<u8>)> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/payloads");
    let mut bodies: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .map(|path| {
            let name = path.file_name().unwrap().to_str().unwrap().to_string();
            let wasender = name.starts_with("wasender");
            let kind = if wasender { SourceKind::Wasender } else { SourceKind::Whatsapp };
            (name, kind, fs::read(&path).unwrap())
        })
        .collect();
    bodies.sort_by(|a, b| a.0.cmp(&b.0));
    assert!(bodies.len() > 80, "{} bodies", bodies.len());
    bodies
}
