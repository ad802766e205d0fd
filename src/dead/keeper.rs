//! Who owns the dead letters while the gateway runs: a thread, or a simulation.
//!
//! What came meanwhile is written together and synced once. When there is no space, letters wait here and their
//! parcels stay unsettled; any other error ends the process, as in the journal: what a failed sync left
//! behind is not known. One thread for all cores: a letter is rare, and a region that floods this place
//! is refused by its own workers, each of which waits for its letter.

use std::collections::{HashMap, HashSet, VecDeque};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender};
use tokio::sync::oneshot;

use super::damage::Damage;
use super::desk::{Desk, Found, Held, Order};
use super::disk::{Disk, Os};
use super::graves::Graves;
use super::office::{Ask, Deed, Done, Office, Page, Shown};
use super::{Card, Filter, Letter, LetterId, Replay, State, What};
use crate::fault;
use crate::journal::JournalId;
use crate::journal::spare::is_full;
use crate::metrics::dead::DeadCells;

/// Pause before a full disk is tried again.
const FULL: Duration = Duration::from_millis(500);
/// How often replays are looked at that are due.
const PACE: Duration = Duration::from_millis(10);
/// How often segments are looked at that may go,
const LOOK: Duration = Duration::from_secs(10);
/// and for how long after the last letter they stay: its mark must be durable by then, since the next
/// start knows only from the letter that its parcel is not to be tried. A mark that was missing at the start
/// comes when its region gets that far, so these letters stay until the next one: see [`Graves::parcels`].
const STAY: Duration = Duration::from_secs(60);
/// Letters of a region that are out again at a time.
const OUT_MAX: usize = 64;
/// Replays that were late are caught up with at most this far.
const BEHIND: Duration = Duration::from_millis(50);

/// A region that letters can go out to.
#[derive(Debug, Clone)]
pub struct Way {
    /// `entry::name_id` of its name.
    pub id: u32,
    pub name: String,
    /// The forwarding core that owns it.
    pub core: usize,
}

/// When something happens.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    pub now: Instant,
    pub unix_ms: u64,
}

/// What a keeper is made from.
pub struct Start<'a, D = Os> {
    pub graves: Graves<D>,
    /// In the order of the configuration, as `cells` are.
    pub regions: Vec<Way>,
    pub forward_cores: usize,
    /// Whether the journals have that parcel and no mark of it.
    pub unsettled: &'a dyn Fn(&JournalId, u64, u16) -> bool,
    pub cells: Arc<Vec<DeadCells>>,
}

fn found<D: Disk>(
    graves: &mut Graves<D>,
    unsettled: &dyn Fn(&JournalId, u64, u16) -> bool,
) -> io::Result<Found> {
    let mut held: HashMap<(JournalId, u64, u16), Held> = HashMap::new();
    graves.parcels(|journal, lsn, slot, events| {
        if !unsettled(&journal, lsn, slot) {
            return false;
        }
        let places: Vec<u32> = events.collect();
        let all = held.entry((journal, lsn, slot)).or_insert_with(|| Held::Events(Vec::new()));
        match all {
            Held::Events(_) if places.is_empty() => *all = Held::Whole,
            Held::Events(all) => {
                all.extend(places);
                all.sort_unstable();
                all.dedup();
            }
            Held::Whole => {}
        }
        true
    })?;
    let gaps = graves.gaps().map(|(region, conversation, gap)| ((region, conversation), gap));
    Ok(Found { held, gaps: gaps.collect() })
}

/// Letters of one region that are to go out.
#[derive(Debug, Default)]
struct Line {
    waiting: VecDeque<(LetterId, u32)>,
    out: HashSet<LetterId>,
    /// When the next one may go.
    next: Option<Instant>,
}

/// All that is done with the dead letters.
pub struct Keeper<D = Os> {
    pub(super) orders: Receiver<Order>,
    graves: Graves<D>,
    regions: Vec<Way>,
    /// By core.
    replays: Vec<Sender<Replay>>,
    /// By name of the region.
    lines: HashMap<String, Line>,
    /// What is not durable.
    letters: Vec<(LetterId, Box<Letter>, oneshot::Sender<LetterId>)>,
    changes: Vec<(LetterId, What)>,
    told: Vec<(u32, u64)>,
    /// There is no space; when to try again.
    full: Option<Instant>,
    last_letter: Instant,
    last_look: Instant,
    done: Arc<AtomicU64>,
    cells: Arc<Vec<DeadCells>>,
}

/// Counts a damage that is told.
fn note(regions: &[Way], cells: &[DeadCells], damage: &Damage) {
    let at = regions.iter().position(|way| way.name == damage.region());
    if let Some(cells) = at.and_then(|at| cells.get(at)) {
        cells.damaged.add(1);
    }
}

impl<D: Disk> Keeper<D> {
    /// The keeper, a desk per forwarding core, and the office.
    pub fn new(start: Start<'_, D>, now: Instant) -> io::Result<(Self, Vec<Desk>, Office)> {
        let Start { mut graves, regions, forward_cores, unsettled, cells } = start;
        let (give, orders) = crossbeam_channel::unbounded();
        let found = Arc::new(found(&mut graves, unsettled)?);
        let (sent, done) = (Arc::default(), Arc::default());
        let (replays_to, replays): (Vec<_>, Vec<_>) =
            (0..forward_cores).map(|_| crossbeam_channel::unbounded()).unzip();
        let desk = |replays| Desk {
            orders: give.clone(),
            replays,
            found: Arc::clone(&found),
            sent: Arc::clone(&sent),
            done: Arc::clone(&done),
        };
        let desks = replays.into_iter().map(desk).collect();
        let mut keeper = Self {
            orders,
            graves,
            lines: regions.iter().map(|way| (way.name.clone(), Line::default())).collect(),
            regions,
            replays: replays_to,
            letters: Vec::new(),
            changes: Vec::new(),
            told: Vec::new(),
            full: None,
            last_letter: now,
            last_look: now,
            done,
            cells,
        };
        keeper.graves.damages.iter().for_each(|damage| keeper.note(damage));
        keeper.begin();
        Ok((keeper, desks, Office(give)))
    }

    fn begin(&mut self) {
        let mut homeless = 0;
        for (region, id, rate) in self.graves.ordered() {
            match self.lines.get_mut(region) {
                Some(line) => line.waiting.push_back((id, rate)),
                None => homeless += 1,
            }
        }
        let (going, unknown) = (self.lines.values().map(|line| line.waiting.len()).sum::<usize>(), homeless);
        if going + unknown > 0 {
            tracing::info!(
                going,
                unknown_region = unknown,
                "dead letters are going out again, as was ordered"
            );
        }
        self.count();
    }

    /// How long nothing needs to be done if nobody orders anything.
    pub fn pause(&self) -> Duration {
        match self.full {
            Some(_) => FULL,
            None if self.lines.values().any(|line| !line.waiting.is_empty()) => PACE,
            None => LOOK,
        }
    }

    /// Whether nothing was ordered that is not done.
    pub fn is_idle(&self) -> bool {
        self.orders.is_empty() && self.letters.is_empty() && self.changes.is_empty() && self.told.is_empty()
    }

    /// Takes what was ordered, makes it durable, and sends out what is due.
    pub fn turn(&mut self, at: Moment) -> io::Result<()> {
        while let Ok(order) = self.orders.try_recv() {
            self.take(order, at);
        }
        if self.full.is_none_or(|again| again <= at.now) {
            let written = self.write(at);
            self.has_space(written, at)?;
        }
        self.send_out(at);
        let since = |then| at.now.saturating_duration_since(then);
        if since(self.last_look) >= LOOK && since(self.last_letter) >= STAY && self.full.is_none() {
            self.last_look = at.now;
            let retired = self.graves.retire(at.unix_ms);
            self.has_space(retired, at)?;
            self.count();
        }
        Ok(())
    }

    pub(super) fn take(&mut self, order: Order, at: Moment) {
        match order {
            Order::Bury(letter, answer) => {
                let id = self.graves.name(letter.last.at_ms);
                self.letters.push((id, letter, answer));
            }
            Order::Replayed(id) => {
                fault::point("letter-replayed");
                self.changes.push((id, What::Replayed));
            }
            Order::FailedAgain(id, failure) => self.changes.push((id, What::Failed(failure))),
            Order::TakeBack(id) => self.changes.push((id, What::Kept)),
            Order::GapTold { region, conversation } => self.told.push((region, conversation)),
            // Who asked may be gone.
            Order::Record(id, answer) => answer.send(self.record(id, at)).unwrap_or_default(),
            Order::Ask(ask) => self.answer(ask, at),
        }
    }

    /// A letter that is to go out; `None`: it is not, or it cannot.
    fn read(&mut self, id: LetterId, at: Moment) -> Option<(Card, Bytes)> {
        if self.graves.state(id) != Some(State::Ordered) {
            return None;
        }
        match self.graves.letter(id) {
            Ok(Some((card, Ok(record)))) => Some((card, record)),
            Ok(Some((_, Err(damage)))) => {
                tracing::error!(%damage, "a dead letter cannot go out; it stays where it is");
                self.note(&damage);
                if let Err(error) = self.graves.change(What::Kept, &[id], at.unix_ms) {
                    tracing::error!(%error, "the order to send a damaged letter could not be taken back");
                }
                None
            }
            Ok(None) => {
                tracing::error!(
                    letter = id.0,
                    "a dead letter is not in its index any more, and cannot go out"
                );
                None
            }
            Err(error) => {
                tracing::error!(%error, "a dead letter cannot be read; it goes out after the next start");
                None
            }
        }
    }

    /// What is in a letter that is out, if it is still to go out.
    fn record(&mut self, id: LetterId, at: Moment) -> Option<Bytes> {
        let read = self.read(id, at);
        if read.is_none() {
            self.lines.values_mut().for_each(|line| {
                line.out.remove(&id);
            });
        }
        read.map(|(_, record)| record)
    }

    /// Makes durable what has come, and lets go on who waits for it.
    fn write(&mut self, at: Moment) -> io::Result<()> {
        let idle = self.letters.is_empty() && self.changes.is_empty() && self.told.is_empty();
        // First: what was told is of letters that were durable before, and not of those that come now.
        while let Some((region, conversation)) = self.told.first().copied() {
            self.graves.told(region, conversation, at.unix_ms)?;
            self.told.remove(0);
            self.done.fetch_add(1, SeqCst);
        }
        for way in &self.regions {
            let mine = |letter: &Letter| letter.region == way.id;
            let batch: Vec<(LetterId, &Letter)> = self
                .letters
                .iter()
                .map(|(id, letter, _)| (*id, &**letter))
                .filter(|(_, letter)| mine(letter))
                .collect();
            if batch.is_empty() {
                continue;
            }
            self.graves.bury(&way.name, &batch)?;
            fault::point("letter-durable");
            self.last_letter = at.now;
            for (id, _, answer) in self.letters.extract_if(.., |(_, letter, _)| letter.region == way.id) {
                // The core stopped meanwhile.
                answer.send(id).ok();
            }
        }
        while let Some((_, first)) = self.changes.first().copied() {
            let run = self.changes.iter().take_while(|(_, what)| *what == first).count();
            let ids: Vec<LetterId> = self.changes[..run].iter().map(|(id, _)| *id).collect();
            self.graves.change(first, &ids, at.unix_ms)?;
            for id in &ids {
                self.lines.values_mut().for_each(|line| {
                    line.out.remove(id);
                });
            }
            self.changes.drain(..run);
            self.done.fetch_add(run as u64, SeqCst);
        }
        if !idle {
            self.count();
        }
        Ok(())
    }

    /// Notes that there is space or none; another error is handed on.
    fn has_space(&mut self, written: io::Result<()>, at: Moment) -> io::Result<()> {
        match written {
            Ok(()) => {
                if self.full.take().is_some() {
                    tracing::info!("the dead letters have space again");
                }
                Ok(())
            }
            Err(error) if is_full(&error) => {
                if self.full.replace(at.now + FULL).is_none() {
                    tracing::error!(
                        "no space for dead letters: parcels that are given up stay unsettled, and their conversations wait, until there is"
                    );
                }
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    fn send_out(&mut self, at: Moment) {
        for way in 0..self.regions.len() {
            while let Some(id) = self.due(way, at.now) {
                let Some((card, record)) = self.read(id, at) else { continue };
                let Way { id: region, name, core } = &self.regions[way];
                let replay = Replay {
                    id,
                    region: *region,
                    slot: card.slot,
                    part: card.part,
                    attempts: card.last.attempts,
                    conversations: card.conversations,
                    events: card.events,
                    record,
                };
                if let Some(line) = self.lines.get_mut(name) {
                    line.out.insert(id);
                }
                // A core that has stopped takes nothing more; the next start does.
                self.replays[*core].send(replay).ok();
            }
        }
    }

    /// The next letter that may go out to a region now.
    fn due(&mut self, way: usize, now: Instant) -> Option<LetterId> {
        let line = self.lines.get_mut(&self.regions[way].name)?;
        while line.out.len() < OUT_MAX && line.next.is_none_or(|next| next <= now) {
            let (id, rate) = line.waiting.pop_front()?;
            if self.graves.state(id) == Some(State::Ordered) && !line.out.contains(&id) {
                let from = line.next.map_or(now, |next| next.max(now.checked_sub(BEHIND).unwrap_or(now)));
                line.next = Some(from + Duration::from_secs(1) / rate.max(1));
                return Some(id);
            }
        }
        None
    }

    fn answer(&mut self, ask: Ask, at: Moment) {
        let words = |error: io::Error| format!("the dead letters cannot be read or written: {error}");
        // Whoever asked may be gone: that is no matter.
        match ask {
            Ask::List { filter, user, limit, answer } => {
                let page = self.matched(filter, user).and_then(|ids| {
                    Ok(Page { count: ids.len(), cards: self.graves.cards(&ids[..ids.len().min(limit)])? })
                });
                answer.send(page.map_err(words)).ok();
            }
            Ask::Show(id, answer) => {
                let shown = self.graves.letter(id).map(|letter| {
                    letter.map(|(card, record)| Shown {
                        card,
                        record: record.map_err(|damage| damage.to_string()),
                    })
                });
                answer.send(shown.map_err(words)).ok();
            }
            Ask::Do { deed, filter, user, dry_run, answer } => {
                answer.send(self.act(deed, filter, user, dry_run, at).map_err(words)).ok();
            }
        }
    }

    fn matched(&self, mut filter: Filter, user: Option<String>) -> io::Result<Vec<LetterId>> {
        filter.user = user.map(|user| self.graves.user(&user)).or(filter.user);
        self.graves.matched(&filter)
    }

    fn act(
        &mut self,
        deed: Deed,
        filter: Filter,
        user: Option<String>,
        dry_run: bool,
        at: Moment,
    ) -> io::Result<Done> {
        let mut ids = self.matched(filter, user)?;
        let (count, mut homeless) = (ids.len(), 0);
        let what = match deed {
            Deed::Replay { rate } => {
                ids.retain(|id| {
                    self.graves.region(*id).is_some_and(|region| self.lines.contains_key(region))
                });
                homeless = count - ids.len();
                What::Ordered { rate }
            }
            Deed::Keep => What::Kept,
            Deed::Drop => What::Dropped,
        };
        if dry_run {
            return Ok(Done { count, changed: 0, homeless });
        }
        let waiting: Vec<LetterId> =
            ids.iter().filter(|id| self.graves.state(**id) == Some(State::Waiting)).copied().collect();
        let changed = self.graves.change(what, &ids, at.unix_ms);
        if let What::Ordered { rate } = what {
            // On a full disk the order may be written for some of them only.
            for id in waiting {
                if self.graves.state(id) == Some(State::Ordered)
                    && let Some(line) = self.graves.region(id).and_then(|region| self.lines.get_mut(region))
                {
                    line.waiting.push_back((id, rate));
                }
            }
        }
        if matches!(what, What::Kept | What::Dropped) {
            // Ordered again they may be to go at another rate.
            let (lines, graves) = (&mut self.lines, &self.graves);
            for line in lines.values_mut() {
                line.waiting.retain(|(id, _)| graves.state(*id) == Some(State::Ordered));
            }
        }
        self.count();
        Ok(Done { count, changed: changed?, homeless })
    }

    fn note(&self, damage: &Damage) {
        note(&self.regions, &self.cells, damage);
    }

    fn count(&self) {
        for stock in self.graves.stocks() {
            let at = self.regions.iter().position(|way| way.name == stock.region);
            if let Some(cells) = at.and_then(|at| self.cells.get(at)) {
                cells.letters.set(stock.letters as u64);
                cells.bytes.set(stock.bytes);
            }
        }
    }
}
