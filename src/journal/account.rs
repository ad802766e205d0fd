//! What is still needed of the journals, and what may go now. Pure.
//!
//! Counts the parcels of each segment that are not settled: entries come in as they become durable,
//! marks too, so whatever this file believes to be settled is settled after any crash.
//!
//! # What may go, and in which order
//!
//! A segment is *whole*, or *thin* (only what its list names is there), or gone. Its frames are
//! *dropped* when it becomes thin or gone, and with them the marks in them. So the rules are about two
//! things: what is in a segment, and what its marks say about others.
//!
//! 1. Nothing is dropped before it is archived, nor of a journal that is being written the newest
//!    [`KEEP`] segments: they prove the journal's end and hold its numbers.
//! 2. Gone needs all parcels of the segment settled by durable marks. Thin needs its list.
//! 3. A mark is *needed* while recovery, without it, would take a settled parcel for one that waits:
//!    as long as the parcel's segment exists and no list says that the parcel is settled. Before frames
//!    are dropped, every segment that their marks can speak of gets a list that says so
//!    ([`Plan::lists`]), and all these lists are durable before the first floor is written.
//!
//! Of which segments can the marks in a segment of journal A speak? Of A's own up to there. Of
//! journals that nobody writes in this run: their marks are dealt out. And if the segment is of an
//! earlier run (*old*), of the old segments of any journal, since others may have dealt then.
//! The list of a segment counts from when it is durable, thin or not, so two segments that hold each
//! other's marks are no knot: both get their lists, then either may go.
//!
//! The floors of several journals are not one file. Hence a segment of another journal gets a list
//! (an empty one) even if it goes in the same round: its floor may come too late.

use std::collections::{BTreeMap, HashMap};

use super::floor::{Floor, Kept};
use super::frame::JournalId;
use super::marks::ParcelSet;
use super::recover::Span;
use super::{JournalIndex, Mark, Position};
use crate::fault;

/// Newest segments of a journal in use that stay whole.
pub const KEEP: usize = 4;
/// A segment this far behind the newest may be thinned; before that what waits in it is likely to be
/// settled soon, and then all of it goes at once.
pub const PATIENCE: usize = 8;
/// Lists that are written before something is freed: on a full disk there is room for a few.
const LISTS: usize = 4;
/// A segment is thinned when one parcel in so many waits, and again when one in so many of those does.
/// About five parcels share a block: three quarters of the segment are given back, at some 30 us of CPU
/// for each parcel that waits.
const SPARSE: u64 = 16;
/// The same where space is short: half of the segment.
const SPARSE_SHORT: u64 = 4;
/// A segment whose parcels are being settled will be gone soon: it is thinned when so many segments were
/// begun, in all journals, since the last one was, or since the start.
pub const QUIET: u64 = 8;

/// What became durable with one frame.
#[derive(Debug, Clone, Default)]
pub struct Wrote {
    pub journal: JournalId,
    pub position: Position,
    pub next: Position,
    pub first_lsn: u64,
    pub records: u32,
    /// LSN of the first entry; the others follow it.
    pub first_entry: u64,
    pub entries: u32,
    /// Entries with another number of parcels than one: place among the entries, parcels.
    pub wide: Vec<(u32, u16)>,
    pub marks: Vec<(JournalId, Vec<Mark>)>,
}

/// A journal as recovery found it.
#[derive(Debug)]
pub struct Start {
    pub id: JournalId,
    /// An ingest core writes it in this run.
    pub written: bool,
    pub spans: Vec<Span>,
    /// Segments that have a list, and the parcels it names.
    pub listed: Vec<(u64, u64)>,
    /// Parcels that are not settled.
    pub open: ParcelSet,
    pub floor: Option<Floor>,
    pub next_lsn: u64,
    pub next_frame: u64,
}

/// What is to be done now, in this order: all lists, all floors, then the files.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Segments to be given a list, or a new one.
    pub lists: Vec<(JournalIndex, u64)>,
    pub drops: Vec<Drop>,
}

/// What one journal drops.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Drop {
    pub journal: JournalIndex,
    pub gone: Vec<u64>,
    /// Of these the ones that are whole: their files can be used again.
    pub whole: Vec<u64>,
    /// Becomes thin, or is thin and more of it can go.
    pub thin: Vec<u64>,
    /// Nothing is left of a journal that nobody writes: its folder goes too.
    pub vanishes: bool,
}

#[derive(Debug)]
pub struct Account {
    ledgers: Vec<Ledger>,
    index: HashMap<JournalId, JournalIndex>,
    /// Segments begun in this run: the clock of [`QUIET`].
    begun: u64,
}

/// One journal.
#[derive(Debug)]
struct Ledger {
    id: JournalId,
    written: bool,
    segments: BTreeMap<u64, Segment>,
    /// Number of the segment by its first LSN.
    by_lsn: BTreeMap<u64, u64>,
    open: ParcelSet,
    first: u64,
    /// Behind the last record and frame, for when no segment is left that says it.
    next_lsn: u64,
    next_frame: u64,
    vanished: bool,
}

/// One segment that exists.
#[derive(Debug, Clone, Default)]
pub struct Segment {
    pub base_lsn: u64,
    pub next_lsn: u64,
    /// Offset after the last frame with records.
    pub end: u64,
    /// Offset after the last frame with entries: when all before it is archived, the segment is.
    entries_end: u64,
    /// Damaged bytes inside.
    pub holes: Vec<(u64, u64)>,
    /// Of an earlier run.
    pub old: bool,
    pub thin: bool,
    /// Parcels in it; those that wait.
    pub parcels: u64,
    pub open: u64,
    /// Parcels that its durable list names.
    pub listed: Option<u64>,
    /// Parcels that waited when it was last thinned in this run.
    thinned: Option<u64>,
    /// Segments begun when one of its parcels was last settled in this run.
    touched: u64,
    /// Its list could not be made: it is not as it was written. It stays, and all that needs its list.
    stuck: bool,
}

impl Segment {
    /// Recovery would know without any mark what is settled in it.
    fn safe(&self) -> bool {
        self.open == self.listed.unwrap_or(self.parcels)
    }

    fn worth_thinning(&self, begun: u64, short: bool) -> bool {
        let quiet = begun - self.touched >= QUIET;
        let sparse = if short { SPARSE_SHORT } else { SPARSE };
        match (self.thin, self.thinned) {
            _ if !quiet && !short && !fault::planted("thinned-while-it-drains") => false,
            (false, _) => self.open * sparse <= self.parcels,
            (true, Some(then)) => self.open * sparse <= then,
            // Thinned in an earlier run, maybe not to the end.
            (true, None) => true,
        }
    }
}

impl Account {
    pub fn new(starts: Vec<Start>) -> Self {
        let index = starts.iter().enumerate().map(|(at, start)| (start.id, at)).collect();
        Self { ledgers: starts.into_iter().map(Ledger::new).collect(), index, begun: 0 }
    }

    pub fn wrote(&mut self, wrote: &Wrote) {
        if let Some(at) = self.index.get(&wrote.journal) {
            self.begun += u64::from(self.ledgers[*at].entries(wrote));
        }
        for (id, marks) in &wrote.marks {
            // Marks of a journal that has vanished say nothing any more.
            if let Some(at) = self.index.get(id) {
                marks.iter().for_each(|mark| self.ledgers[*at].settled(mark, self.begun));
            }
        }
    }

    /// Whether making its list means reading the segment.
    pub fn needs_scan(&self, journal: JournalIndex, number: u64) -> bool {
        self.segment(journal, number).is_some_and(|segment| segment.listed.is_none() && segment.open > 0)
    }

    /// What may go now. `archived` says for each journal the position before which all is archived;
    /// `short`: space is needed, so patience ends.
    pub fn plan(&self, archived: impl Fn(JournalIndex) -> Position, short: bool) -> Plan {
        let mut plan = Plan::default();
        for (journal, ledger) in self.ledgers.iter().enumerate() {
            plan.drops.extend(ledger.drops(journal, archived(journal), self.begun, short));
        }
        plan.drops.retain(|drop| {
            let lists = self.needed(drop);
            let stuck = lists.iter().any(|(journal, number)| self.ledgers[*journal].segments[number].stuck);
            if !stuck {
                plan.lists.extend(lists);
            }
            !stuck
        });
        plan.lists.sort_unstable();
        plan.lists.dedup();
        plan
    }

    /// Segments that must have a list before a drop.
    fn needed(&self, drop: &Drop) -> Vec<(JournalIndex, u64)> {
        if fault::planted("marks-dropped-without-lists") {
            return drop.thin.iter().map(|number| (drop.journal, *number)).collect();
        }
        let ledger = &self.ledgers[drop.journal];
        let dropped = || drop.gone.iter().chain(&drop.thin);
        let newest = dropped().max().copied().unwrap_or(0);
        let own = ledger.segments.range(..=newest).filter(|(number, segment)| {
            let lacks_list = drop.thin.contains(number) && segment.listed.is_none();
            !drop.gone.contains(number) && (lacks_list || !segment.safe())
        });
        let mut lists: Vec<_> = own.map(|(number, _)| (drop.journal, *number)).collect();
        let old = dropped().any(|number| ledger.segments.get(number).is_some_and(|segment| segment.old));
        for (other, theirs) in self.ledgers.iter().enumerate() {
            if other != drop.journal && (old || !theirs.written) {
                let speak_of = theirs.segments.iter().filter(|(_, segment)| segment.old && !segment.safe());
                lists.extend(speak_of.map(|(number, _)| (other, *number)));
            }
        }
        lists
    }

    /// The list of a segment cannot be made.
    pub fn stuck(&mut self, journal: JournalIndex, number: u64) {
        if let Some(segment) = self.ledgers[journal].segments.get_mut(&number) {
            segment.stuck = true;
        }
    }

    /// The list of a segment is durable and names what waits now.
    pub fn listed(&mut self, journal: JournalIndex, number: u64) {
        if let Some(segment) = self.ledgers[journal].segments.get_mut(&number) {
            segment.listed = Some(segment.open);
        }
    }

    /// The floor that a drop needs. Its first segment's frame number is for the caller to fill in if
    /// that segment exists.
    pub fn floor(&self, drop: &Drop) -> Floor {
        let ledger = &self.ledgers[drop.journal];
        let stays = |number: &u64| !drop.gone.contains(number);
        let behind_gone = drop.gone.iter().max().map_or(0, |number| number + 1);
        let from = ledger.first.max(behind_gone);
        // Numbers may have gaps: it is a segment that exists, if there is one.
        let first = ledger.segments.range(from..).map(|(n, _)| *n).find(stays).unwrap_or(from);
        let kept =
            ledger.segments.iter().filter(|(number, _)| stays(number)).filter_map(|(number, segment)| {
                let thin = segment.thin || drop.thin.contains(number);
                let (base_lsn, next_lsn, end) = (segment.base_lsn, segment.next_lsn, segment.end);
                (*number < first || thin).then_some(Kept { number: *number, base_lsn, next_lsn, end, thin })
            });
        Floor {
            journal: ledger.id,
            first,
            base_lsn: ledger.segments.get(&first).map_or(ledger.next_lsn, |segment| segment.base_lsn),
            first_frame: ledger.next_frame,
            kept: kept.collect(),
        }
    }

    /// The floor of a drop is durable.
    pub fn dropped(&mut self, drop: &Drop, floor: &Floor) {
        let ledger = &mut self.ledgers[drop.journal];
        for number in &drop.gone {
            if let Some(segment) = ledger.segments.remove(number)
                && ledger.by_lsn.get(&segment.base_lsn) == Some(number)
            {
                ledger.by_lsn.remove(&segment.base_lsn);
            }
        }
        for number in &drop.thin {
            if let Some(segment) = ledger.segments.get_mut(number) {
                segment.thin = true;
                segment.thinned = Some(segment.open);
            }
        }
        ledger.first = floor.first;
        ledger.vanished |= drop.vanishes;
    }

    pub fn segment(&self, journal: JournalIndex, number: u64) -> Option<&Segment> {
        self.ledgers[journal].segments.get(&number)
    }

    pub fn is_open(&self, journal: JournalIndex, lsn: u64, slot: u16) -> bool {
        self.ledgers[journal].open.contains(lsn, slot)
    }

    pub fn id(&self, journal: JournalIndex) -> JournalId {
        self.ledgers[journal].id
    }

    /// Thin segments of all journals.
    pub fn thin_segments(&self) -> usize {
        self.ledgers.iter().flat_map(|l| l.segments.values()).filter(|segment| segment.thin).count()
    }
}

impl Ledger {
    fn new(start: Start) -> Self {
        let mut ledger = Self {
            id: start.id,
            written: start.written,
            segments: BTreeMap::new(),
            by_lsn: BTreeMap::new(),
            open: ParcelSet::default(),
            first: start.floor.as_ref().map_or(0, |floor| floor.first),
            next_lsn: start.next_lsn,
            next_frame: start.next_frame,
            vanished: false,
        };
        for span in start.spans {
            ledger.by_lsn.insert(span.lsns.start, span.segment);
            let segment = Segment {
                base_lsn: span.lsns.start,
                next_lsn: span.lsns.end,
                end: span.end,
                entries_end: span.end,
                holes: span.holes,
                old: true,
                thin: span.thin,
                parcels: span.parcels,
                listed: start.listed.iter().find(|(number, _)| *number == span.segment).map(|(_, n)| *n),
                ..Segment::default()
            };
            ledger.segments.insert(span.segment, segment);
        }
        for (lsn, _) in start.open.iter() {
            if let Some(segment) = ledger.segment_of(lsn) {
                segment.open += 1;
            }
        }
        ledger.open = start.open;
        ledger
    }

    fn segment_of(&mut self, lsn: u64) -> Option<&mut Segment> {
        let (_, number) = self.by_lsn.range(..=lsn).next_back()?;
        self.segments.get_mut(number).filter(|segment| lsn < segment.next_lsn)
    }

    /// Whether they begin a segment.
    fn entries(&mut self, wrote: &Wrote) -> bool {
        let number = wrote.position.segment();
        let begins = !self.segments.contains_key(&number);
        if begins {
            self.by_lsn.insert(wrote.first_lsn, number);
        }
        let segment = self
            .segments
            .entry(number)
            .or_insert_with(|| Segment { base_lsn: wrote.first_lsn, ..Segment::default() });
        segment.next_lsn = wrote.first_lsn + u64::from(wrote.records);
        segment.end = wrote.next.offset();
        if wrote.entries > 0 {
            segment.entries_end = segment.end;
        }
        let mut wide = wrote.wide.iter().peekable();
        for place in 0..wrote.entries {
            let slots = wide.next_if(|(at, _)| *at == place).map_or(1, |(_, slots)| *slots);
            segment.parcels += u64::from(slots);
            segment.open += u64::from(slots);
            for slot in 0..slots {
                self.open.insert(wrote.first_entry + u64::from(place), slot);
            }
        }
        begins
    }

    fn settled(&mut self, mark: &Mark, begun: u64) {
        if self.open.remove(mark.lsn, mark.slot)
            && let Some(segment) = self.segment_of(mark.lsn)
        {
            segment.open -= 1;
            segment.touched = begun;
        }
    }

    fn drops(&self, journal: JournalIndex, archived: Position, begun: u64, short: bool) -> Option<Drop> {
        if self.vanished {
            return None;
        }
        let keep = if self.written { KEEP } else { 0 };
        let patient = if self.written && !short { PATIENCE } else { keep };
        let count = self.segments.len();
        let mut drop = Drop { journal, ..Drop::default() };
        let mut lists = 0;
        for (at, (number, segment)) in self.segments.iter().enumerate().take(count.saturating_sub(keep)) {
            // A thin segment was archived when it became thin.
            let archived_yet = segment.thin || Position::new(*number, segment.entries_end) <= archived;
            if !archived_yet && !fault::planted("freed-before-archived") {
                break;
            }
            lists += usize::from(segment.open > 0 && (segment.listed.is_none() || !segment.safe()));
            if lists > LISTS && !(drop.gone.is_empty() && drop.thin.is_empty()) {
                break;
            }
            if segment.open == 0 {
                drop.gone.push(*number);
                drop.whole.extend((!segment.thin).then_some(*number));
            } else if segment.stuck {
                break;
            } else if !segment.thin && segment.listed.is_none() && at + patient >= count {
                // What is behind it could only go after this one has its list.
                break;
            } else if segment.worth_thinning(begun, short) {
                drop.thin.push(*number);
            }
        }
        drop.vanishes = !self.written && drop.gone.len() == count;
        (!drop.gone.is_empty() || !drop.thin.is_empty() || drop.vanishes).then_some(drop)
    }
}
