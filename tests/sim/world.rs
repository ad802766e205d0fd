//! A seed's world: a provider that repeats itself, regions that come and go, a disk that fails, and one
//! process after the other, to the end of it all.

use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use penstock::entry::{EventRow, Verdict, name_id};
use penstock::handoff::Limits;
use penstock::journal::disk::Disk;
use penstock::parse::{Parsed, Parser, conversations};

use super::disk::{MemoryDisk, Random};
use super::exec::{self, Exec, elapsed};
use super::ground::{DiskRules, Machine};
use super::life::{Ended, Life, Plan};
use super::network::{Mode, Network};
use super::truth::{REGIONS, Truth};
use super::{archives, configs};

/// What came of a seed.
#[derive(Debug, Clone, Default)]
pub(crate) struct Report {
    pub(crate) trace: u64,
    pub(crate) violations: Vec<String>,
    pub(crate) crashes: u64,
    pub(crate) power_cuts: u64,
    pub(crate) stops: u64,
    pub(crate) outages: u64,
    pub(crate) time: Duration,
    pub(crate) events: u64,
    pub(crate) acked: u64,
    pub(crate) takes: u64,
    pub(crate) repeats: u64,
    pub(crate) polls: u64,
    pub(crate) deaths: u64,
    pub(crate) recoveries_cut: u64,
    pub(crate) webhooks: u64,
    pub(crate) archives: u64,
    pub(crate) flips: u64,
}

impl Report {
    pub(crate) fn add(&mut self, other: &Self) {
        self.crashes += other.crashes;
        self.power_cuts += other.power_cuts;
        self.recoveries_cut += other.recoveries_cut;
        self.stops += other.stops;
        self.outages += other.outages;
        self.time += other.time;
        self.webhooks += other.webhooks;
        self.events += other.events;
        self.acked += other.acked;
        self.takes += other.takes;
        self.repeats += other.repeats;
        self.polls += other.polls;
        self.deaths += other.deaths;
        self.archives += other.archives;
        self.flips += other.flips;
    }
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { crashes, power_cuts, recoveries_cut, stops, outages, time, .. } = self;
        let Self { webhooks, events, acked, takes, repeats, polls, deaths, archives, flips, .. } = self;
        let days = time.as_secs_f64() / 86_400.0;
        write!(
            f,
            "{days:.1} days, {crashes} crashes ({power_cuts} of power, {recoveries_cut} in a start), {stops} stops, \
             {outages} outages; {webhooks} webhooks with {events} events, {acked} acknowledged, {takes} parcels taken, \
             {repeats} events again, {deaths} given up, {flips} bits flipped; {archives} worlds with archives; {polls} turns"
        )
    }
}

struct World {
    random: Random,
    truth: Rc<Truth>,
    disk: MemoryDisk,
    network: Rc<Network>,
    rules: Rc<RefCell<DiskRules>>,
    dice: Rc<RefCell<Random>>,
    plan: Plan,
    conversations: u32,
    /// Webhooks yet to be sent for the first time.
    to_make: u64,
    /// Little happens beside the traffic.
    calm: bool,
    damaging: bool,
    sends: BinaryHeap<Reverse<(Duration, usize)>>,
    next_make: Duration,
    /// Sent and not answered.
    open: Rc<RefCell<BTreeMap<usize, u32>>>,
    answered: Rc<RefCell<Vec<usize>>>,
    next_fault: Duration,
    outage_ends: [Option<Duration>; REGIONS.len()],
    healing: bool,
    done_since: Option<Duration>,
    parser: Parser,
    verdict: Verdict,
    report: Report,
}

/// One frame beyond the bound for each core that hands over, and what its readers keep.
const HELD_BEYOND: usize = 3 << 20;

/// Turns of one life's loop: some thousands are common.
const ROUNDS_MAX: u64 = 1_000_000;

/// Events of one webhook.
const EVENTS_MAX: u64 = 9;

/// How a life came to its end.
enum End {
    Crash,
    /// In good order.
    Clean,
    Over,
}

pub(crate) fn run(seed: u64, loud: bool) -> Report {
    exec::begin();
    let mut world = World::new(seed, loud);
    world.live();
    let mut report = world.report;
    let (events, acked, takes, repeats) = world.truth.counts();
    (report.events, report.acked, report.takes, report.repeats) = (events, acked, takes, repeats);
    report.deaths = world.truth.deaths();
    report.webhooks = world.truth.webhooks() as u64;
    report.archives = u64::from(world.plan.archives);
    report.trace = world.truth.trace();
    report.violations = world.truth.violations();
    report.time = elapsed();
    report
}

impl World {
    fn new(seed: u64, loud: bool) -> Self {
        let mut random = Random(seed ^ 0x5eed);
        let truth = Rc::new(Truth::new(loud));
        let disk = MemoryDisk::default();
        for folder in ["/data", "/data/journal", "/data/keys", "/us", "/in", "/br"] {
            disk.folder(Path::new(folder));
            let above = Path::new(folder).parent().unwrap();
            Disk::sync_dir(&disk, above).unwrap();
        }
        let big = random.one_in(16);
        let size = if big { 60 + random.below(300) } else { 4 + random.below(24) };
        let status = [400, 404, 422, 500][random.below(4) as usize];
        let network = Rc::new(Network::new(Rc::clone(&truth), status));
        let conversations = 1 + random.below(if big { 60 } else { 8 }) as u32;
        if random.one_in(3) {
            let poison = random.below(u64::from(conversations)) as u32;
            network.poison.borrow_mut().insert(poison);
            truth.poison(poison);
        }
        // A poison dies only where much else is taken for minutes.
        let calm = big && random.one_in(2);
        let archives = random.one_in(3);
        let plan = Plan {
            config: configs::of(archives, random.one_in(4)),
            ingest: 1,
            forward: 1,
            segment: 0,
            limits: Limits::default(),
            memory: 1 << 20,
            archives,
            doorbell: configs::doorbell(),
        };
        let rules = DiskRules { direct: random.one_in(2), slow: false, fails: 0, shorts: 0 };
        let dice = Rc::new(RefCell::new(Random(random.next())));
        Self {
            truth,
            disk,
            network,
            rules: Rc::new(RefCell::new(rules)),
            dice,
            plan,
            conversations,
            to_make: size,
            calm,
            damaging: random.one_in(12),
            sends: BinaryHeap::new(),
            next_make: Duration::ZERO,
            open: Rc::default(),
            answered: Rc::default(),
            next_fault: Duration::from_millis(random.below(800)),
            outage_ends: [None; REGIONS.len()],
            healing: false,
            done_since: None,
            parser: Parser::new(),
            verdict: Verdict::default(),
            report: Report::default(),
            random,
        }
    }

    fn live(&mut self) {
        let mut crashes = 1 + self.random.below(6);
        loop {
            let last = crashes == 0;
            crashes = crashes.saturating_sub(1);
            let Some(life) = self.start() else { return };
            let end = self.one_life(&life, last);
            self.report.polls += life.exec().polls.get();
            life.exec().end();
            drop(life);
            match end {
                End::Over => {
                    self.check();
                    return;
                }
                End::Clean => self.report.stops += 1,
                End::Crash => self.crash(),
            }
            if !self.truth.violations().is_empty() {
                return;
            }
        }
    }

    fn crash(&mut self) {
        let power = self.random.one_in(2);
        self.truth.note(format_args!("crash, power cut: {power}"));
        self.truth.crashed();
        self.disk.crash(&mut self.random, power);
        if self.damaging && self.random.one_in(2) {
            self.flip();
        }
        self.report.crashes += 1;
        self.report.power_cuts += u64::from(power);
        // The provider got no answer and repeats itself.
        let open: Vec<usize> = std::mem::take(&mut *self.open.borrow_mut()).into_keys().collect();
        for webhook in open {
            self.again(webhook);
        }
        exec::go_to(elapsed() + Duration::from_millis(self.random.below(2000)));
    }

    /// A bit of a segment that others follow turns over: the very last frame would look torn, which is the
    /// journal's honest limit.
    fn flip(&mut self) {
        let used = |path: &PathBuf| {
            let head = Disk::read(&self.disk, path, 0, 8).unwrap_or_default();
            head.iter().any(|byte| *byte != 0)
        };
        let paths: Vec<PathBuf> = self.disk.paths(".seg").into_iter().filter(used).collect();
        let followed: Vec<&PathBuf> =
            paths.windows(2).filter(|two| two[0].parent() == two[1].parent()).map(|two| &two[0]).collect();
        if followed.is_empty() {
            return;
        }
        let path = followed[self.random.below(followed.len() as u64) as usize].clone();
        let bits = Disk::size(&self.disk, &path).unwrap_or(0) * 8;
        let bit = self.random.below(bits);
        if bits > 0 {
            self.truth.damage();
            self.truth.note(format_args!("bit {bit} of {} turns over", path.display()));
            self.disk.flip(&path, bit);
            self.report.flips += 1;
        }
    }

    /// The provider sends it again later.
    fn again(&mut self, webhook: usize) {
        let wait = Duration::from_millis(50 + self.random.below(6000));
        self.sends.push(Reverse((elapsed() + wait, webhook)));
    }

    /// A process that takes webhooks; the world may end in its start, several times.
    fn start(&mut self) -> Option<Life> {
        for round in 0..64 {
            let random = &mut self.random;
            let plan = Plan {
                ingest: 1 + random.below(3) as usize,
                forward: 1 + random.below(3) as usize,
                segment: [16, 24, 48][random.below(3) as usize] * 4096,
                limits: Limits {
                    frames: 1 + random.below(6) as usize,
                    held_bytes: if random.one_in(4) { 20_000 } else { 1 << 20 },
                    window: 2 + random.below(30) as usize,
                    kept: random.below(12) as usize,
                },
                ..self.plan.clone()
            };
            let fuse = (round < 32 && random.one_in(3)).then(|| random.below(40));
            self.disk.set_fuse(fuse);
            let machine = Machine {
                exec: Rc::new(Exec::default()),
                disk: self.disk.clone(),
                random: Rc::clone(&self.dice),
                rules: Rc::clone(&self.rules),
            };
            let exec = Rc::clone(&machine.exec);
            self.truth.note(format_args!(
                "start {} + {} cores, segments of {}, {:?}",
                plan.ingest, plan.forward, plan.segment, plan.limits
            ));
            match Life::start(plan, machine, &self.network) {
                Ok(life) => {
                    self.disk.set_fuse(None);
                    return Some(life);
                }
                Err(Ended(why)) => {
                    exec.end();
                    if !self.disk.has_ended() {
                        self.truth.wrong(format!("I8: no start: {why}"));
                        return None;
                    }
                    self.truth.note(format_args!("the start ended: {why}"));
                    self.report.recoveries_cut += 1;
                    self.crash();
                }
            }
        }
        self.truth.wrong("I8: never ready again".to_owned());
        None
    }

    fn one_life(&mut self, life: &Life, last: bool) -> End {
        // When it ends: after so many turns, before a step of the disk, or in good order after a while.
        let (mut turns, mut stop_at) = (u64::MAX, Duration::MAX);
        if !last {
            match self.random.below(8) {
                0..4 => turns = 1 + self.random.below(if self.calm { 30_000 } else { 600 }),
                4..7 => self.disk.set_fuse(Some(self.random.below(if self.calm { 4000 } else { 160 }))),
                _ => stop_at = elapsed() + Duration::from_millis(self.random.below(3000)),
            }
        }
        let born = elapsed();
        let patience = match (last, self.calm) {
            (true, _) => Duration::from_hours(12),
            (false, true) => Duration::from_mins(20),
            (false, false) => Duration::from_secs(40),
        };
        let mut gap = Duration::from_millis(20);
        let (mut next_tick, mut next_free) = (elapsed(), elapsed());
        let mut rounds = 0u64;
        loop {
            rounds += 1;
            if rounds > ROUNDS_MAX {
                self.truth.wrong(format!("I8: nothing gets on: {} wait", life.waiting()));
                return End::Crash;
            }
            let held = life.held.load(std::sync::atomic::Ordering::Relaxed);
            let most = life.plan.limits.held_bytes + HELD_BEYOND;
            if held > most {
                self.truth.wrong(format!("I7: {held} bytes of frames are held, at most {most}"));
            }
            let mut quiet = true;
            while life.exec().turn(&mut self.random) {
                quiet = false;
                turns = turns.saturating_sub(1);
                if turns == 0 || life.failed.get() || self.disk.has_ended() {
                    return End::Crash;
                }
                if self.random.one_in(4) {
                    life.pump();
                }
            }
            self.take_answers();
            if life.pump() || !quiet {
                gap = Duration::from_millis(20);
                continue;
            }
            if last && self.done(life) {
                return self.stop(life, true);
            }
            if elapsed() > stop_at {
                return self.stop(life, false);
            }
            if elapsed() > born + patience {
                if last {
                    let owed = self.truth.owed();
                    self.truth.wrong(format!("I3: never delivered: {owed:?}"));
                }
                return End::Crash;
            }
            let mut next = next_tick.min(next_free);
            next = life.exec().next().map_or(next, |at| next.min(at));
            if let Some(Reverse((at, _))) = self.sends.peek() {
                next = next.min(*at);
            }
            if self.to_make > 0 {
                next = next.min(self.next_make);
            }
            if !self.healing {
                next = next.min(self.next_fault);
            }
            exec::go_to(next);
            life.exec().wake();
            self.provider(life);
            self.faults(last);
            self.truth.trouble(self.disk.is_full() || self.rules.borrow().slow);
            if elapsed() >= next_tick {
                life.tick();
                next_tick = elapsed() + gap;
                gap = (gap * 3 / 2).min(Duration::from_secs(2));
            }
            if elapsed() >= next_free {
                let (free, archive) = (self.random.one_in(2), self.random.one_in(2));
                if free && !life.make_and_free() || archive && !life.archive(false) {
                    return End::Crash;
                }
                next_free = elapsed() + (gap * 4).max(Duration::from_millis(100));
            }
        }
    }

    /// Nothing is left to do.
    fn done(&mut self, life: &Life) -> bool {
        if self.to_make > 0 || !self.sends.is_empty() || !self.open.borrow().is_empty() {
            return false;
        }
        if !self.healing {
            self.heal();
        }
        if !self.truth.owed().is_empty() && !self.truth.is_damaged() {
            return false;
        }
        if life.waiting() > 0 {
            return false;
        }
        // After a failure the archive pauses for up to 30 s; an object closes after 2 s.
        let patience = if self.plan.archives || self.truth.is_damaged() { 45 } else { 0 };
        let since = *self.done_since.get_or_insert_with(elapsed);
        elapsed() >= since + Duration::from_secs(patience)
    }

    fn heal(&mut self) {
        self.healing = true;
        self.truth.note(format_args!("all is well from now on"));
        self.network.poison.borrow_mut().clear();
        (0..REGIONS.len()).for_each(|region| self.network.set(region, Mode::Up));
        let mut rules = self.rules.borrow_mut();
        (rules.slow, rules.fails, rules.shorts) = (false, 0, 0);
        self.disk.set_full(false);
    }

    fn take_answers(&mut self) {
        let answered = std::mem::take(&mut *self.answered.borrow_mut());
        for webhook in answered {
            // An answer is lost now and then, and the provider repeats what was stored.
            if self.random.one_in(12) {
                self.again(webhook);
            }
        }
    }

    fn provider(&mut self, life: &Life) {
        while let Some(Reverse((at, webhook))) = self.sends.peek().copied() {
            if at > elapsed() {
                break;
            }
            self.sends.pop();
            self.send(life, webhook);
        }
        while self.to_make > 0 && self.next_make <= elapsed() {
            self.to_make -= 1;
            let pause = match self.random.below(4) {
                0 | 1 => self.random.below(3),
                2 => self.random.below(60),
                _ => self.random.below(1500),
            };
            let pause = if self.calm { pause * 8 } else { pause };
            self.next_make = elapsed() + Duration::from_millis(pause);
            let webhook = self.make();
            self.send(life, webhook);
        }
    }

    /// A new webhook: new events, sometimes with old ones among them.
    fn make(&mut self) -> usize {
        let count = if self.random.one_in(3) { 1 + self.random.below(5) } else { 1 };
        let mut events = Vec::new();
        let base = self.random.below(u64::from(self.conversations)) as u32;
        for _ in 0..count {
            let stray = self.random.one_in(3);
            let conversation =
                if stray { self.random.below(u64::from(self.conversations)) as u32 } else { base };
            events.push(self.truth.new_event(conversation));
        }
        if self.truth.webhooks() > 0 && self.random.one_in(8) {
            let old = self.random.below(self.truth.webhooks() as u64) as usize;
            let mut more = self.truth.webhook(old, |webhook| webhook.events.clone());
            more.truncate(1 + self.random.below(4) as usize);
            // Old ones first: so they were made.
            more.append(&mut events);
            events = more;
        }
        let padding = if self.random.one_in(10) { self.random.below(9000) as usize } else { 0 };
        self.truth.new_webhook(events, padding)
    }

    fn send(&mut self, life: &Life, number: usize) {
        let body = self.truth.webhook(number, |webhook| Rc::clone(&webhook.body));
        let at = self.random.below(life.journals.len() as u64) as usize;
        let journal = &life.journals[at];
        // As intake does, without the signature.
        let verdict = &mut self.verdict;
        verdict.clear();
        verdict.source = name_id("main");
        verdict.received_at_ns = exec::unix_ns();
        verdict.signature[..8].copy_from_slice(&(number as u64).to_le_bytes());
        let config = &life.plan.config;
        let mut owners = 0u64;
        let parsed = self.parser.parse(config.sources[0].kind, &body, &mut |event| {
            let phone = event.users.first().and_then(|user| user.phone).unwrap_or_default();
            let region = REGIONS.iter().position(|(_, prefix)| phone.starts_with(prefix)).unwrap_or(0);
            owners |= 1 << (region % life.plan.forward);
            let slot = verdict.slot(name_id(REGIONS[region].0));
            let row = EventRow { key: event.key, value: event.value, slot, kind: event.kind as u8 };
            verdict.push(row, event.users);
            verdict.conversations.extend(conversations(event.number, event.users).map(|c| (slot, c)));
        });
        assert!(!matches!(parsed, Parsed::Opaque(_)), "the simulation's own webhooks are understood");
        verdict.finish();
        let seq = life.seq.get();
        life.seq.set(seq + 1);
        let slots = verdict.regions.len() as u16;
        if !journal.accepting() {
            self.truth.note(format_args!("webhook {number} answered 503"));
            self.again(number);
            return;
        }
        let appended =
            journal.append(seq, slots, owners, verdict.encoded_len(), |out| verdict.write(out), &body);
        match appended {
            Ok(ticket) => {
                self.truth.sent(number);
                let events = self.truth.webhook(number, |webhook| webhook.events.clone());
                self.truth.note(format_args!("webhook {number} {events:?} to journal {at}, seq {seq}"));
                *self.open.borrow_mut().entry(number).or_default() += 1;
                let (truth, open) = (Rc::clone(&self.truth), Rc::clone(&self.open));
                let answered = Rc::clone(&self.answered);
                life.exec().spawn(async move {
                    if ticket.await.is_ok() {
                        truth.acked(number);
                        truth.note(format_args!("webhook {number} answered 200"));
                        let mut open = open.borrow_mut();
                        if let Some(count) = open.get_mut(&number) {
                            *count -= 1;
                            if *count == 0 {
                                open.remove(&number);
                            }
                        }
                        answered.borrow_mut().push(number);
                    }
                });
            }
            Err(_) => {
                self.truth.note(format_args!("webhook {number} answered 503"));
                self.again(number);
            }
        }
    }

    fn faults(&mut self, last: bool) {
        for region in 0..REGIONS.len() {
            if self.outage_ends[region].is_some_and(|end| end <= elapsed()) {
                self.outage_ends[region] = None;
                self.network.set(region, Mode::Up);
            }
        }
        if self.healing || elapsed() < self.next_fault {
            return;
        }
        let random = &mut self.random;
        let often = if self.calm { 120_000 } else { 2500 };
        self.next_fault = elapsed() + Duration::from_millis(50 + random.below(often));
        match random.below(10) {
            0..6 => {
                let region = random.below(REGIONS.len() as u64) as usize;
                let mode = match random.below(8) {
                    0 | 1 => Mode::Gone,
                    2 => Mode::Says([500, 503, 429][random.below(3) as usize]),
                    3 => Mode::Says([401, 403, 404][random.below(3) as usize]),
                    4 => Mode::Brown(50, 500),
                    5 => Mode::Silent,
                    6 => Mode::Brown(10, 503),
                    _ => Mode::Slow,
                };
                let longest = if random.one_in(6) { 600_000 } else { 4000 };
                self.outage_ends[region] = Some(elapsed() + Duration::from_millis(random.below(longest)));
                self.network.set(region, mode);
                self.report.outages += 1;
            }
            6 => {
                let slow = random.one_in(2);
                self.rules.borrow_mut().slow = slow;
                self.truth.note(format_args!("disk slow: {slow}"));
            }
            7 if !last => {
                let fails = if random.one_in(3) { 1 + random.below(30) } else { 0 };
                let shorts = if random.one_in(6) { 1 + random.below(30) } else { 0 };
                let mut rules = self.rules.borrow_mut();
                (rules.fails, rules.shorts) = (fails, shorts);
                self.truth.note(format_args!("disk fails {fails}, short {shorts}"));
            }
            7 => {
                let mut rules = self.rules.borrow_mut();
                (rules.fails, rules.shorts) = (0, 0);
            }
            _ => {
                let full = random.one_in(2);
                self.disk.set_full(full);
                self.truth.note(format_args!("disk full: {full}"));
            }
        }
    }

    /// The process is asked to stop, in the order of `shard`. It ends clean, or as after a crash.
    fn stop(&mut self, life: &Life, over: bool) -> End {
        self.truth.note(format_args!("stop"));
        life.stop_forwarding();
        let ended = || self.disk.has_ended() || life.failed.get();
        let until = |patience: Duration, random: &mut Random, done: &dyn Fn() -> bool| {
            let end = elapsed() + patience;
            while !done() && !ended() && elapsed() < end {
                while life.exec().turn(random) && !ended() {}
                if !life.pump() {
                    life.make_and_free();
                    let next = elapsed() + Duration::from_millis(2);
                    exec::go_to(life.exec().next().map_or(next, |at| at.min(next)));
                    life.exec().wake();
                }
            }
            done()
        };
        let mut random = Random(self.random.next());
        let patience = |ms| if over { Duration::from_secs(60) } else { Duration::from_millis(ms) };
        let mut clean = until(patience(2600), &mut random, &|| life.busy() == 0);
        clean &= until(patience(400), &mut random, &|| life.settled());
        clean &= !life.uncertain();
        life.seal();
        let count = life.journals.len();
        clean &= until(patience(1000), &mut random, &|| life.finished.get() == count);
        clean &= life.journals.iter().all(|journal| journal.all_marked());
        if ended() || !life.archive(true) {
            return if over { self.unclean(life) } else { End::Crash };
        }
        self.take_answers();
        let unanswered = !self.open.borrow().is_empty();
        if !clean || unanswered || life.leave_clean().is_err() {
            return if over { self.unclean(life) } else { End::Crash };
        }
        self.truth.note(format_args!("stopped"));
        // Nothing that it said afterwards is in doubt.
        self.disk.crash(&mut self.random, true);
        if over { End::Over } else { End::Clean }
    }

    fn unclean(&self, life: &Life) -> End {
        self.truth.wrong(format!(
            "I8: a process at rest does not stop: busy {}, settled {}, uncertain {}",
            life.busy(),
            life.settled(),
            life.uncertain()
        ));
        End::Over
    }

    /// What is left on the disk when all is done.
    fn check(&mut self) {
        let owed = self.truth.owed();
        if owed.len() as u64 > self.truth.reported_lost() * EVENTS_MAX {
            self.truth.wrong(format!("I1: lost: {owed:?}"));
        }
        if self.plan.archives {
            let whole = self.plan.config.archive.mixed == penstock::config::Mixed::Whole;
            archives::check(&self.disk, &self.truth, whole);
        }
    }
}
