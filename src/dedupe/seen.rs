//! Which events were seen within the window: exact, small, and pure.
//!
//! A key is remembered per region with the value it came with; the same key with several values stands
//! there several times. An event costs at most 32 bytes, slots that are free included, beside some 24
//! bytes for each 128 KiB that the bound allows; memory comes as it is needed, one shard at a time, so that
//! no growth takes longer than to copy 128 KiB.
//!
//! Time is the minutes of a clock that the caller advances. Keys older than the window are *dead*: not
//! there for whoever asks, and dropped when their shard is written anew, at the latest by [`Seen::sweep`].
//! What was alive when the oldest of what still waits came is held ([`Seen::hold`]): a repeat that waits
//! longer than the window is still one.
//! When the bound is reached the oldest minutes die early; from then on, for one window,
//! [`Seen::forgets`] says that an answer of "new" may be wrong, and [`Seen::forgets_held`] says it of what has
//! waited. It is never wrong the other way: nothing is a repeat unless its 128 bits of SHA-256 and its value were seen.
//!
//! Keys are multiplied by a number that the caller draws for each process, so that a sender, who chooses
//! ids, cannot choose places.

use std::collections::VecDeque;
use std::time::Duration;

use super::slots::{Found, Id, Slots, capacity_for, size};
use crate::fault;
use crate::parse::Key;

/// Bytes of a shard when the bound is reached.
const SHARD: usize = 128 * 1024;
/// Shards at least: the eight bits of a key that are not stored choose among them.
const BITS_MIN: u32 = 8;
/// A shard may have so many slots also beyond the bound: it must be able to hold something.
const FEW: usize = 16;
/// The clock may go on by this before all that is dead must be gone: ages are kept in 16 bits, and the
/// longest window, 43,200 minutes, leaves room for two of these.
const STRIDE: u32 = 8192;
/// No key is held longer: 34 days.
const OLDEST: u32 = u16::MAX as u32 - 2 * STRIDE;
/// Calls of [`Seen::sweep`] for a round over all shards.
const ROUND: usize = 4096;

/// Whether an event was seen before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sighting {
    New,
    /// The same key and the same value.
    Repeat,
    /// The same key with another value; this one is remembered too.
    Changed,
}

/// How many events there will be in each shard.
#[derive(Debug)]
pub struct Expected {
    mixer: u128,
    bits: u32,
    shards: Vec<u32>,
}

impl Expected {
    pub fn add(&mut self, region: u32, key: &Key) {
        self.shards[(mixed(self.mixer, region, key) >> (128 - self.bits)) as usize] += 1;
    }
}

fn mixed(mixer: u128, region: u32, key: &Key) -> u128 {
    let prefix = if fault::planted("key-cut-short") { u128::MAX >> 112 } else { u128::MAX };
    ((u128::from_le_bytes(*key) & prefix) ^ u128::from(region)).wrapping_mul(mixer)
}

/// The events that one forwarding core has seen.
#[derive(Debug)]
pub struct Seen {
    mixer: u128,
    /// Bits of a mixed key that choose the shard.
    bits: u32,
    shards: Box<[Slots]>,
    /// Minutes.
    window: u32,
    /// The clock and the minutes that evictions put before it.
    now: u32,
    extra: u32,
    /// Minute of the clock: what was alive then does not die of age.
    held: u32,
    /// What is older is dead.
    floor: u32,
    /// Living keys by minute, from `floor` to `now`.
    by_minute: VecDeque<u32>,
    keys: usize,
    /// Bytes of all shards.
    bytes: usize,
    bound: usize,
    evicted: u64,
    /// The newest minute of which keys may be missing.
    lost: Option<u32>,
    next_swept: usize,
    /// When the last round over all shards began.
    round_began: u32,
}

impl Seen {
    /// Remembers for `window` (rounded up to minutes, at most 30 days), in at most `bound` bytes.
    /// `mixer` is random; its lowest bit is set here.
    pub fn new(window: Duration, bound: usize, mixer: u128) -> Self {
        let window = u32::try_from(window.as_secs().div_ceil(60)).unwrap_or(u32::MAX).clamp(1, 30 * 24 * 60);
        let bits = (bound / SHARD).max(1).next_power_of_two().ilog2().max(BITS_MIN);
        let shards: Box<[Slots]> = (0..1usize << bits).map(|_| Slots::default()).collect();
        let own = shards.len() * size_of::<Slots>();
        Self {
            mixer: mixer | 1,
            bits,
            shards,
            window,
            now: 0,
            extra: 0,
            held: u32::MAX,
            floor: 0,
            by_minute: VecDeque::from([0]),
            keys: 0,
            bytes: own,
            bound: bound.max(own),
            evicted: 0,
            lost: None,
            next_swept: 0,
            round_began: 0,
        }
    }

    /// Asks for an event of `region` and remembers it.
    pub fn claim(&mut self, region: u32, key: &Key, value: u64) -> Sighting {
        let value = if fault::planted("value-not-compared") { 0 } else { value };
        let region = if fault::planted("regions-share-keys") { 0 } else { region };
        self.see(region, key, value, self.now)
    }

    /// For counting what [`Seen::recall`] will bring.
    pub fn expected(&self) -> Expected {
        Expected { mixer: self.mixer, bits: self.bits, shards: vec![0; self.shards.len()] }
    }

    /// Makes every shard at its size, or all of them smaller by the same share if that is more than the bound
    /// allows. Grown step by step, a table of gigabytes would leave as much behind in the allocator.
    pub fn prepare(&mut self, expected: &Expected) {
        let wanted: usize = expected.shards.iter().map(|count| size(capacity_for(*count as usize))).sum();
        let share = (self.bound.saturating_sub(self.bytes) as f64 / wanted.max(1) as f64).min(1.0);
        for (at, count) in expected.shards.iter().enumerate() {
            let capacity = capacity_for((f64::from(*count) * share) as usize);
            let more = size(capacity).saturating_sub(size(self.shards[at].capacity()));
            if more > 0 && self.bytes + more <= self.bound {
                self.rewrite(at, capacity);
            }
        }
    }

    /// Remembers an event that was seen at `minute`, maybe before or after what is here already. Call
    /// [`Seen::prepare`] before the first and [`Seen::recalled`] after the last one.
    pub fn recall(&mut self, region: u32, key: &Key, value: u64, minute: u32) {
        self.reach(minute);
        let minute = minute + self.extra;
        if minute >= self.floor {
            self.see(region, key, value, minute);
        }
    }

    /// All that is to be recalled is here: gives back what was taken for what died meanwhile.
    pub fn recalled(&mut self) {
        for at in 0..self.shards.len() {
            let needed = capacity_for(self.shards[at].live(self.alive()));
            if needed < self.shards[at].capacity() {
                self.rewrite(at, needed);
            }
        }
    }

    fn see(&mut self, region: u32, key: &Key, value: u64, minute: u32) -> Sighting {
        let mixed = mixed(self.mixer, region, key);
        let at = (mixed >> (128 - self.bits)) as usize;
        let id = Id::new(mixed, self.bits);
        let mut found = self.shards[at].find(id, value, self.alive());
        if found != Found::Same && self.shards[at].used() >= self.shards[at].most() {
            self.make_room(at);
            // Not in between, since what it looks for may just have been evicted.
            let Found::Absent { free, .. } = self.shards[at].find(id, value, self.alive()) else {
                return Sighting::Repeat;
            };
            found = match found {
                Found::Absent { other, .. } => Found::Absent { other, free },
                Found::Same => found,
            };
        }
        let Found::Absent { other, free } = found else { return Sighting::Repeat };
        // Room was made, and what the eviction left is younger than `minute` at worst.
        if let Some(slot) = free
            && let Some(count) = self.by_minute.get_mut((minute.max(self.floor) - self.floor) as usize)
        {
            *count += 1;
            self.keys += 1;
            self.shards[at].put(slot, id, value, minute.max(self.floor) as u16);
        }
        if other { Sighting::Changed } else { Sighting::New }
    }

    fn alive(&self) -> impl Fn(u16) -> bool + use<> {
        let (now, oldest) = (self.now as u16, self.now - self.floor);
        move |minute| u32::from(now.wrapping_sub(minute)) <= oldest
    }

    /// Writes a full shard anew, larger if need be; evicts if that is not allowed.
    fn make_room(&mut self, at: usize) {
        let capacity = self.shards[at].capacity();
        let live = self.shards[at].live(self.alive());
        if live * 8 <= self.shards[at].most() * 7 && live < capacity {
            return self.rewrite(at, capacity);
        }
        let larger = capacity_for(live + 1).max(capacity + 1);
        if larger <= FEW || self.bytes + size(larger) - size(capacity) <= self.bound {
            return self.rewrite(at, larger);
        }
        loop {
            self.evict();
            if self.shards[at].live(self.alive()) * 16 <= self.shards[at].most() * 15 {
                return self.rewrite(at, capacity);
            }
        }
    }

    fn rewrite(&mut self, at: usize, capacity: usize) {
        let (bits, alive) = (self.bits, self.alive());
        self.bytes -= size(self.shards[at].capacity());
        self.shards[at].rewrite(capacity, bits, alive);
        self.bytes += size(capacity);
    }

    /// Lets a sixteenth of the keys die, or what the oldest minute has.
    fn evict(&mut self) {
        let enough = self.keys - self.keys / 16;
        loop {
            if self.floor == self.now {
                // All that is left came in this minute: it is over.
                self.now += 1;
                self.extra += 1;
                self.by_minute.push_back(0);
                self.lost = Some(self.now);
            }
            let gone = self.by_minute.pop_front().unwrap_or(0) as usize;
            self.lost = self.lost.max(Some(self.floor));
            self.floor += 1;
            self.keys -= gone;
            self.evicted += gone as u64;
            if self.keys < enough || self.keys == 0 {
                return;
            }
        }
    }

    /// The clock goes on.
    pub fn pass(&mut self, minutes: u32) {
        self.reach(self.now().saturating_add(minutes));
    }

    /// The clock goes on to `minute`, if it is not there yet.
    pub fn reach(&mut self, minute: u32) {
        let minute = minute.saturating_add(self.extra);
        while self.now < minute {
            let step = (minute - self.now).min(STRIDE);
            self.now += step;
            self.by_minute.extend((0..step).map(|_| 0));
            self.age();
            if self.now - self.round_began >= STRIDE {
                self.round_began = self.now;
                self.next_swept = 0;
                (0..self.shards.len()).for_each(|at| self.clean(at));
            }
        }
    }

    /// What is alive at this minute of the clock does not die of age, until this is called again; what the
    /// clock had let die already stays so.
    pub fn hold(&mut self, minute: u32) {
        self.held = if fault::planted("keys-not-held") { u32::MAX } else { minute };
        self.age();
    }

    /// Lets die what is older than the window and not held.
    fn age(&mut self) {
        let window = if fault::planted("keys-die-early") { self.window / 2 } else { self.window };
        let horizon = self.horizon().saturating_sub(window);
        while self.floor < horizon.max(self.now.saturating_sub(OLDEST)) {
            let gone = self.by_minute.pop_front().unwrap_or(0) as usize;
            if gone > 0 && self.floor >= horizon {
                self.lost = self.lost.max(Some(self.floor));
            }
            self.keys -= gone;
            self.floor += 1;
        }
    }

    /// The window of what may be asked reaches back from here.
    fn horizon(&self) -> u32 {
        self.now.min(self.held.saturating_add(self.extra))
    }

    /// Gives the memory of dead keys back, in some shards; call several times a second.
    pub fn sweep(&mut self) {
        for _ in 0..self.shards.len().div_ceil(ROUND) {
            if self.next_swept == 0 {
                self.round_began = self.now;
            }
            self.clean(self.next_swept);
            self.next_swept = (self.next_swept + 1) % self.shards.len();
        }
    }

    fn clean(&mut self, at: usize) {
        let used = self.shards[at].used();
        if used == 0 {
            return;
        }
        let live = self.shards[at].live(self.alive());
        let needed = capacity_for(live);
        if (used - live) * 8 > used || needed * 5 < self.shards[at].capacity() * 4 {
            self.rewrite(at, needed.min(self.shards[at].capacity()));
        }
    }

    /// Keys were lost, nobody knows which; none of them is younger than this minute of the clock.
    pub fn lose(&mut self, minute: u32) {
        self.lost = self.lost.max(Some(minute.saturating_add(self.extra)));
    }

    /// Whether something within the window before now may be forgotten.
    pub fn forgets(&self) -> bool {
        self.lost.is_some_and(|minute| minute.saturating_add(self.window) >= self.now)
    }

    /// Whether something within the window before the minute that is held may be forgotten.
    pub fn forgets_held(&self) -> bool {
        self.lost.is_some_and(|minute| minute.saturating_add(self.window) >= self.horizon())
    }

    /// Keys of before this minute of the clock are not needed any more.
    pub fn oldest(&self) -> u32 {
        let held = (self.horizon() - self.extra).saturating_sub(self.window);
        held.max(self.now().saturating_sub(OLDEST))
    }

    /// Minutes that a key is remembered.
    pub fn window(&self) -> u32 {
        self.window
    }

    /// Minutes of the clock.
    pub fn now(&self) -> u32 {
        self.now - self.extra
    }

    /// Keys that are remembered.
    pub fn keys(&self) -> usize {
        self.keys
    }

    /// Bytes in use.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Keys that died early.
    pub fn evicted(&self) -> u64 {
        self.evicted
    }
}
