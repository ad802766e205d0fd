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
use super::life::{Ended, Life, Plan, left_open};
use super::network::{Mode, Network};
use super::truth::{REGIONS, Truth};
use super::{archives, configs};

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
    /// There is more traffic than regions take at once.
    busy: bool,
    /// All conversations are of this region, and one is poison: it comes to be given up.
    deadly: Option<u32>,
    damaging: bool,
    sends: BinaryHeap<Reverse<(Duration, usize)>>,
    next_make: Duration,
    /// Sent and not answered.
    open: Rc<RefCell<BTreeMap<usize, u32>>>,
    answered: Rc<RefCell<Vec<usize>>>,
    next_fault: Duration,
    next_order: Duration,
    outage_ends: [Option<Duration>; REGIONS.len()],
    full_ends: Option<Duration>,
    healing: bool,
    done_since: Option<Duration>,
    parser: Parser,
    verdict: Verdict,
    report: Report,
}

mod person;
mod provider;
mod report;
mod weather;

pub(crate) use report::Report;

/// One frame beyond the bound for each core that hands over, and what its readers keep.
const HELD_BEYOND: usize = 3 << 20;

/// Turns of one life's loop: some thousands are common.
const ROUNDS_MAX: u64 = 200_000;

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
    (report.letters, report.replayed, report.dropped) =
        world.truth.letters(|letters| (letters.count, letters.replayed, letters.dropped));
    report.webhooks = world.truth.webhooks() as u64;
    report.archives = u64::from(world.plan.archives);
    report.ahead_worlds = u64::from(report.ahead > 0);
    report.trace = world.truth.trace();
    report.violations = world.truth.violations();
    report.time = elapsed();
    report
}

/// A conversation, moved to a region if all are to be there.
fn at_region(conversation: u32, region: Option<u32>) -> u32 {
    region.map_or(conversation, |region| conversation * REGIONS.len() as u32 + region)
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
        let deadly = random.one_in(60).then(|| random.below(REGIONS.len() as u64) as u32);
        let big = deadly.is_some() || random.one_in(16);
        // Much traffic of many, and regions that take their time with what piled up.
        let busy = !big && random.one_in(20);
        let size = match (big, busy) {
            (true, _) => 60 + random.below(if deadly.is_some() { 500 } else { 300 }),
            (_, true) => 60 + random.below(400),
            _ => 4 + random.below(24),
        };
        let status = [400, 404, 422, 500][random.below(4) as usize];
        let network = Rc::new(Network::new(Rc::clone(&truth), status, busy));
        let conversations = match (big, busy) {
            (true, _) => 1 + random.below(60) as u32,
            (_, true) => 20 + random.below(200) as u32,
            _ => 1 + random.below(8) as u32,
        };
        if deadly.is_some() || random.one_in(3) {
            let poison = at_region(random.below(u64::from(conversations)) as u32, deadly);
            network.poison.borrow_mut().insert(poison);
            truth.poison(poison);
        }
        // A poison dies only where much else is taken for minutes.
        let calm = deadly.is_some() || big && random.one_in(2);
        truth.letters(|letters| letters.dropping = random.one_in(4));
        let brief = calm && network.poison.borrow().is_empty() && random.one_in(2);
        if brief {
            truth.remembers(Duration::from_mins(1));
        }
        let archives = random.one_in(3);
        let plan = Plan {
            config: configs::of(archives, random.one_in(4), brief),
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
            busy,
            deadly,
            damaging: random.one_in(12),
            sends: BinaryHeap::new(),
            next_make: Duration::ZERO,
            open: Rc::default(),
            answered: Rc::default(),
            next_fault: Duration::from_millis(random.below(800)),
            next_order: Duration::ZERO,
            outage_ends: [None; REGIONS.len()],
            full_ends: None,
            healing: false,
            done_since: None,
            parser: Parser::new(),
            verdict: Verdict::default(),
            report: Report::default(),
            random,
        }
    }

    fn live(&mut self) {
        let mut crashes = if self.busy { self.random.below(3) } else { 1 + self.random.below(6) };
        loop {
            let last = crashes == 0;
            crashes = crashes.saturating_sub(1);
            let Some(life) = self.start() else { return };
            let end = self.one_life(&life, last);
            self.report.polls += life.exec().polls.get();
            self.report.ahead += life.ahead();
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

    /// A process that takes webhooks; the world may end in its start, several times.
    fn start(&mut self) -> Option<Life> {
        for round in 0..64 {
            let random = &mut self.random;
            // With few of them channels overflow all the time.
            let frames = if self.busy && random.one_in(2) { 60 } else { 6 };
            let plan = Plan {
                ingest: 1 + random.below(3) as usize,
                forward: 1 + random.below(3) as usize,
                segment: [16, 24, 48][random.below(3) as usize] * 4096,
                limits: Limits {
                    frames: 1 + random.below(frames) as usize,
                    held_bytes: if random.one_in(4) { 20_000 } else { 1 << 20 },
                    window: 2 + random.below(if self.busy { 10 } else { 30 }) as usize,
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
                0..4 => turns = 1 + self.random.below(if self.calm || self.busy { 30_000 } else { 600 }),
                4..7 => self.disk.set_fuse(Some(self.random.below(if self.calm || self.busy {
                    4000
                } else {
                    160
                }))),
                // Often before it has taken up what it found.
                _ if self.random.one_in(2) => stop_at = elapsed(),
                _ => stop_at = elapsed() + Duration::from_millis(self.random.below(3000)),
            }
        }
        let born = elapsed();
        let patience = match (last, self.calm) {
            (true, _) => Duration::from_hours(3),
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
                // While nothing happens ticks come more and more rarely: they would find nothing.
                gap = Duration::from_millis(20);
                next_tick = next_tick.min(elapsed() + gap);
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
                    self.truth.wrong(format!("I3: never delivered: {owed:?}; {}", life.tell()));
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
            self.person(life);
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
        if life.waiting() > 0 || !self.truth.letters(|letters| letters.is_empty()) {
            return false;
        }
        // After a failure the archive pauses for up to 30 s; an object closes after 2 s.
        let patience = if self.plan.archives || self.truth.is_damaged() { 45 } else { 5 };
        let since = *self.done_since.get_or_insert_with(elapsed);
        elapsed() >= since + Duration::from_secs(patience)
    }

    /// The process is asked to stop, in the order of `shard`. It ends clean, or as after a crash.
    fn stop(&mut self, life: &Life, over: bool) -> End {
        self.truth.note(format_args!("stop"));
        life.stop_forwarding();
        // While nothing happened its thread was looked after more and more rarely.
        life.make_and_free();
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
            "I8: a process at rest does not stop: busy {}, settled {}, uncertain {}, failed {}, {} of {} journals \
             ended, all marked {}, unanswered {:?}",
            life.busy(),
            life.settled(),
            life.uncertain(),
            life.failed.get(),
            life.finished.get(),
            life.journals.len(),
            life.journals.iter().all(|journal| journal.all_marked()),
            self.open.borrow()
        ));
        End::Over
    }

    /// What is left on the disk when all is done.
    fn check(&mut self) {
        let owed = self.truth.owed();
        if owed.len() as u64 > self.truth.reported_lost() * EVENTS_MAX {
            self.truth.wrong(format!("I1: lost: {owed:?}"));
        }
        match left_open(&self.disk) {
            Ok(0) => {}
            Ok(open) if self.truth.is_damaged() => {
                self.truth.note(format_args!("{open} parcels have no mark"))
            }
            Ok(open) => self.truth.wrong(format!("I3: {open} parcels are settled and have no mark")),
            Err(Ended(why)) => self.truth.wrong(format!("I8: no start: {why}")),
        }
        if self.plan.archives {
            let whole = self.plan.config.archive.mixed == penstock::config::Mixed::Whole;
            archives::check(&self.disk, &self.truth, whole);
        }
    }
}
