//! One process, from its start on what the disk holds to its end: the shipped parts put together as
//! `shard` and `forward` put them together, on the world's own ground.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use bytes::BytesMut;
use crossbeam_channel::Receiver;
use penstock::archive::archiver::{Archiver, Read};
use penstock::config::Config;
use penstock::dedupe::{Inbox, Keeper, Seen as SeenKeys, log};
use penstock::entry::name_id;
use penstock::forward::attempt::{self, Attempts, RegionDesk, SourceDesk};
use penstock::forward::envelopes;
use penstock::forward::feed::{Feed, Taken};
use penstock::forward::region::{self, Region};
use penstock::forward::settle::{self, MarkBatch, Marks, Settler, Target};
use penstock::forward::sift::Sieve;
use penstock::forward::told::Told;
use penstock::handoff::{self, Handoff, Inlet, Limits};
use penstock::journal::account::{Account, Wrote};
use penstock::journal::disk::Disk;
use penstock::journal::free::{Freeing, Place, Round};
use penstock::journal::marks::ParcelSet;
use penstock::journal::read::{JournalReader, RecordReader};
use penstock::journal::recover::Recovered;
use penstock::journal::spare::{Order, Spare, segment_path};
use penstock::journal::store::{Folders, FoundJournal, Seen, hex, parse_id};
use penstock::journal::view::{Archived, JournalView, Published};
use penstock::journal::writer::Seed;
use penstock::journal::{Journal, JournalId, Position};
use penstock::metrics::archive::ArchiveCells;
use penstock::metrics::{ForwardCells, IngestCells, RegionCells};
use penstock::verify::Verifier;
use penstock::wake::{Doorbell, Notify};

use super::configs;
use super::disk::MemoryDisk;
use super::exec::{self, Exec};
use super::ground::{Machine, Shelf};
use super::letters;
use super::network::{Line, Network};
use super::truth::{REGIONS, Truth};

const ROOT: &str = "/data/journal";
const KEYS: &str = "/data/keys";
const CLEAN: &str = "/data/clean";

/// What a process is started with.
#[derive(Clone)]
pub(crate) struct Plan {
    pub(crate) config: Arc<Config>,
    pub(crate) ingest: usize,
    pub(crate) forward: usize,
    pub(crate) segment: u64,
    pub(crate) limits: Limits,
    pub(crate) memory: usize,
    pub(crate) archives: bool,
    pub(crate) doorbell: Doorbell,
}

/// The world ended meanwhile, or the disk refused.
#[derive(Debug)]
pub(crate) struct Ended(pub(crate) String);

impl<E: std::fmt::Display> From<E> for Ended {
    fn from(error: E) -> Self {
        Self(error.to_string())
    }
}

/// A forwarding core.
pub(crate) struct Core {
    inlet: Inlet,
    feed: Rc<Feed>,
    sieve: Rc<Sieve>,
    pub(crate) settler: Rc<Settler>,
    pub(crate) regions: Vec<Rc<Region>>,
    keys: Rc<RefCell<KeyLog>>,
    dead: Receiver<penstock::dead::desk::Order>,
    count: Cell<u32>,
}

struct KeyLog {
    inbox: Inbox<Marks>,
    path: PathBuf,
    busy: bool,
    targets: Rc<Vec<Target>>,
    cells: Arc<ForwardCells>,
}

pub(crate) struct Life {
    pub(crate) machine: Machine,
    pub(crate) journals: Vec<Rc<Journal<Machine>>>,
    marks: Vec<Receiver<MarkBatch>>,
    pub(crate) cores: Vec<Core>,
    orders: Receiver<Order<PathBuf>>,
    waiting: RefCell<Vec<Order<PathBuf>>>,
    wrote: Receiver<Wrote>,
    freeing: RefCell<Freeing<MemoryDisk>>,
    short: Cell<bool>,
    archive: Option<Rc<RefCell<Archiver<MemoryDisk>>>>,
    pub(crate) views: Vec<JournalView>,
    pub(crate) held: Arc<AtomicUsize>,
    /// A journal could not be written: the process ends.
    pub(crate) failed: Rc<Cell<bool>>,
    pub(crate) finished: Rc<Cell<usize>>,
    pub(crate) seq: Cell<u64>,
    pub(crate) plan: Plan,
    stopping: Rc<Cell<bool>>,
    letters: Cell<u64>,
    truth: Rc<Truth>,
}

/// Recovers what there is; as `store::open_store` does.
fn recover(disk: &MemoryDisk) -> Result<(Vec<FoundJournal>, u64, u64), Ended> {
    let mut dirs: Vec<(JournalId, PathBuf)> = Vec::new();
    for dir in disk.folders(Path::new(ROOT)) {
        let id = dir.file_name().and_then(|name| name.to_str()).and_then(parse_id);
        match id {
            Some(_) if Disk::list(disk, &dir)?.is_empty() => disk.remove_dir(&dir)?,
            Some(id) => dirs.push((id, dir)),
            None => {}
        }
    }
    let folders = Folders::look(disk, dirs, true)?;
    let mut entries = 0;
    let (found, max_seq) = folders.recover(disk, &mut |seen| {
        if let Seen::Entry(_) = seen {
            entries += 1;
        }
    })?;
    for journal in &found {
        for number in &journal.recovered.void {
            disk.remove(&segment_path(&journal.dir, *number))?;
        }
    }
    Ok((found, max_seq, entries))
}

/// Segments to go on in; as `FoundJournal::spares` does.
fn spares(disk: &MemoryDisk, journal: &FoundJournal, bytes: u64) -> Result<Vec<Spare<PathBuf>>, Ended> {
    let used = journal.last_segment();
    let mut last = used.max(journal.recovered.void.last().copied().unwrap_or(0));
    let mut spares = Vec::new();
    for &number in &journal.recovered.spares {
        let path = segment_path(&journal.dir, number);
        if number > used && Disk::size(disk, &path)? == bytes {
            spares.push(Spare { number, file: path });
            last = last.max(number);
        } else {
            disk.remove(&path)?;
        }
    }
    while spares.len() < 2 {
        last += 1;
        match make(disk, &journal.dir, last, bytes) {
            Ok(file) => spares.push(Spare { number: last, file }),
            Err(error) if error.kind() == io::ErrorKind::StorageFull => break,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(spares)
}

/// A segment of zeros; as `spare::make` does.
fn make(disk: &MemoryDisk, dir: &Path, number: u64, bytes: u64) -> io::Result<PathBuf> {
    let temporary = dir.join(format!("{number:010}.tmp"));
    let path = segment_path(dir, number);
    if let Err(error) = disk.write_zeros(&temporary, bytes as usize) {
        Disk::remove(disk, &temporary).ok();
        return Err(error);
    }
    Disk::sync(disk, &temporary)?;
    Disk::rename(disk, &temporary, &path)?;
    Disk::sync_dir(disk, dir)?;
    Ok(path)
}

fn new_journal(machine: &Machine) -> Result<FoundJournal, Ended> {
    let mut id = JournalId::default();
    penstock::journal::ground::Ground::draw(machine, &mut id)?;
    let dir = Path::new(ROOT).join(hex(&id));
    machine.disk.folder(&dir);
    Disk::sync_dir(&machine.disk, Path::new(ROOT))?;
    Ok(FoundJournal {
        id,
        dir,
        recovered: Recovered { journal: Some(id), next_frame: 1, next_lsn: 1, ..Recovered::default() },
        settled: ParcelSet::default(),
        open: ParcelSet::default(),
        floor: None,
        listed: Vec::new(),
        new_damage: Vec::new(),
    })
}

impl Life {
    pub(crate) fn start(plan: Plan, machine: Machine, network: &Rc<Network>) -> Result<Self, Ended> {
        let disk = machine.disk.clone();
        let (mut found, max_seq, entries) = recover(&disk)?;
        let truth = &network.truth;
        truth.note(format_args!("found {} journals, {entries} entries, seq {max_seq}", found.len()));
        while found.len() < plan.ingest {
            found.push(new_journal(&machine)?);
        }
        let clean = disk.has(Path::new(CLEAN));
        if clean {
            Disk::remove(&disk, Path::new(CLEAN))?;
            Disk::sync_dir(&disk, Path::new("/data"))?;
        }
        for journal in &found {
            for lost in &journal.new_damage {
                truth.note(format_args!("lost {} to {}: {}", lost.first_lsn, lost.last_lsn, lost.fault));
            }
            truth.damaged(&journal.new_damage);
        }
        let published: Vec<Arc<Published>> =
            found.iter().take(plan.ingest).map(|journal| Arc::new(Published::new(journal.end()))).collect();
        let archived = || Arc::new(if plan.archives { Archived::not_yet() } else { Archived::never_asked() });
        let views: Vec<JournalView> = found
            .iter()
            .enumerate()
            .map(|(index, journal)| JournalView {
                id: journal.id,
                dir: journal.dir.clone(),
                mode: penstock::journal::spare::OpenMode::Direct,
                spans: Arc::new(journal.recovered.spans.clone()),
                end: journal.end(),
                clean,
                settled: Arc::new(journal.settled.clone()),
                published: published.get(index).cloned(),
                archived: archived(),
                segments: Arc::new(journal.segments()),
            })
            .collect();
        let place = |view: &JournalView| Place {
            dir: view.dir.clone(),
            segments: Arc::clone(&view.segments),
            archived: Arc::clone(&view.archived),
        };
        let starts = found.iter().enumerate().map(|(at, journal)| journal.start(at < plan.ingest));
        let account = Account::new(starts.collect());
        let places = views.iter().map(place).collect();
        let freeing = Freeing::new(disk.clone(), ROOT.into(), account, places);

        let (pool, held) = configs::pool();
        let (orders_to, orders) = crossbeam_channel::unbounded();
        let (wrote_to, wrote) = crossbeam_channel::unbounded();
        let (outlets, inlets): (Vec<_>, Vec<_>) =
            (0..plan.forward).map(|_| handoff::channel(plan.doorbell.clone(), plan.limits)).unzip();
        let (mark_outlets, marks): (Vec<_>, Vec<_>) =
            (0..plan.ingest).map(|_| settle::channel(plan.doorbell.clone())).unzip();
        let (failed, finished) = (Rc::new(Cell::new(false)), Rc::new(Cell::new(0)));
        let mut journals = Vec::new();
        let spares: Vec<_> = found
            .iter()
            .take(plan.ingest)
            .map(|j| spares(&disk, j, plan.segment))
            .collect::<Result<_, _>>()?;
        for (core, (journal, spares)) in found.iter().take(plan.ingest).zip(spares).enumerate() {
            let seed = Seed {
                id: journal.id,
                dir: journal.dir.clone(),
                next_frame: journal.recovered.next_frame,
                next_lsn: journal.recovered.next_lsn,
                chain: journal.recovered.chain,
                last_segment: journal.last_segment(),
                last_end: journal.recovered.spans.last().map_or(0, |span| span.end),
                spares,
                damage: journal.new_damage.clone(),
                mode: if machine.rules.borrow().direct {
                    penstock::journal::spare::OpenMode::Direct
                } else {
                    penstock::journal::spare::OpenMode::Buffered
                },
                segment_bytes: plan.segment,
                commit_delay: Duration::from_millis(2),
            };
            let cells = Arc::new(IngestCells::default());
            let writer = Journal::on(
                machine.clone(),
                seed,
                orders_to.clone(),
                wrote_to.clone(),
                pool.clone(),
                Arc::clone(&cells),
            );
            let handoff = Handoff::new(
                core,
                Arc::clone(&published[core]),
                outlets.clone(),
                Arc::clone(&held),
                plan.limits,
                cells,
            );
            let (running, failed, finished) = (Rc::clone(&writer), Rc::clone(&failed), Rc::clone(&finished));
            machine.exec.spawn(async move {
                match running.run(|committed| handoff.committed(committed)).await {
                    Ok(()) => finished.set(finished.get() + 1),
                    Err(_) => failed.set(true),
                }
            });
            journals.push(writer);
        }
        let targets: Rc<Vec<Target>> = Rc::new(
            found
                .iter()
                .enumerate()
                .map(|(index, journal)| Target {
                    journal: journal.id,
                    outlet: mark_outlets[index % plan.ingest].clone(),
                })
                .collect(),
        );
        let stopping = Rc::new(Cell::new(false));
        let mut cores = Vec::new();
        let expected = found.iter().any(|journal| journal.settled.end() > 0);
        for (core, inlet) in inlets.into_iter().enumerate() {
            let makes = Makes { plan: &plan, machine: &machine, network, views: &views, held: &held };
            cores.push(makes.core(core, inlet, Rc::clone(&targets), expected)?);
        }
        let archive = if plan.archives {
            let known = views.iter().map(|view| (view.id, Arc::clone(&view.archived)));
            let cells = Arc::new(REGIONS.map(|_| ArchiveCells::default()).into());
            Some(Rc::new(RefCell::new(Archiver::new(&disk, &plan.config, known, cells)?)))
        } else {
            None
        };
        let life = Self {
            machine,
            journals,
            marks,
            cores,
            orders,
            waiting: RefCell::default(),
            wrote,
            freeing: RefCell::new(freeing),
            short: Cell::new(false),
            archive,
            views,
            held,
            failed,
            finished,
            seq: Cell::new(max_seq + 1),
            plan,
            stopping,
            letters: Cell::new(0),
            truth: Rc::clone(truth),
        };
        Ok(life)
    }
}

/// What cores are made from.
struct Makes<'a> {
    plan: &'a Plan,
    machine: &'a Machine,
    network: &'a Rc<Network>,
    views: &'a [JournalView],
    held: &'a Arc<AtomicUsize>,
}

impl Makes<'_> {
    /// As `forward::Forwarder::new` does.
    fn core(
        &self,
        core: usize,
        inlet: Inlet,
        targets: Rc<Vec<Target>>,
        expected: bool,
    ) -> Result<Core, Ended> {
        let Self { plan, machine, network, views, held } = self;
        let config = &plan.config;
        let cells = Arc::new(ForwardCells {
            regions: REGIONS.map(|_| RegionCells::default()).into(),
            ..ForwardCells::default()
        });
        let owned: Vec<usize> = (0..REGIONS.len()).filter(|region| region % plan.forward == core).collect();
        let ids: Vec<u32> = owned.iter().map(|region| name_id(REGIONS[*region].0)).collect();
        let mixer = u128::from(machine.below(u64::MAX)) << 64 | u128::from(machine.below(u64::MAX));
        let mut seen = SeenKeys::new(config.dedupe.window, plan.memory / plan.forward, mixer);
        let (mut newest, mut files) = (0, 0);
        for path in machine.disk.paths(".keys") {
            let bytes = Disk::read(&machine.disk, &path, 0, usize::MAX / 2)?;
            let contents = log::read(&bytes, |record| {
                if ids.contains(&record.region) {
                    seen.recall(record.region, &record.key, record.value, record.minute);
                }
            })?;
            newest = newest.max(contents.newest.unwrap_or(0));
            files += 1;
            if contents.damaged > 0 {
                seen.lose();
            }
        }
        seen.recalled();
        seen.reach(newest);
        if expected && files == 0 {
            seen.lose();
        }
        let now = seen.now();
        let (keeper, inbox) = Keeper::pair(now);
        let settler = Rc::new(Settler::new(keeper, views.len(), now, Arc::clone(&cells)));
        let sieve = Rc::new(Sieve::new(seen, exec::now(), Arc::clone(&cells)));
        let shelf = |view: &JournalView| Shelf { machine: (*machine).clone(), dir: view.dir.clone() };
        let (dead, orders, _replays) = penstock::dead::desk::channel(letters::load(&machine.disk)?);
        let mut desks = Vec::new();
        for region in 0..REGIONS.len() {
            desks.push(if owned.contains(&region) {
                let client = Line { machine: (*machine).clone(), network: Rc::clone(network), region };
                let envelopes = envelopes(config, region)?;
                Some(RegionDesk { client, envelopes, is_default: region == config.default_region })
            } else {
                None
            });
        }
        let attempts = Rc::new(Attempts {
            sources: config
                .sources
                .iter()
                .map(|source| SourceDesk { id: name_id(&source.name), verifier: Verifier::new(source) })
                .collect(),
            regions: desks,
            records: views.iter().map(|view| RecordReader::over(shelf(view))).collect(),
            journals: views.iter().map(|view| view.id).collect(),
            settler: Rc::clone(&settler),
            dead: dead.clone(),
            watch: Rc::default(),
            cells: Arc::clone(&cells),
            cutter: RefCell::default(),
            parser: RefCell::default(),
            values: RefCell::new(BytesMut::new()),
            told: Told::default(),
        });
        let room = Rc::new(Notify::default());
        let mut by_id: HashMap<u32, Option<Rc<Region>>> =
            REGIONS.iter().map(|(name, _)| (name_id(name), None)).collect();
        let mut regions = Vec::new();
        for &index in &owned {
            let id = name_id(REGIONS[index].0);
            let (workers, exec) = (Rc::clone(&attempts), Rc::clone(&machine.exec));
            let region = Region::new(
                region::Settings {
                    index,
                    id,
                    name: REGIONS[index].0.to_owned(),
                    rules: penstock::forward::rules(&config.regions[index], plan.limits),
                    held_bytes: plan.limits.held_bytes,
                    seed: machine.below(u64::MAX),
                    clock: exec::now,
                },
                Rc::clone(&room),
                Arc::clone(held),
                Arc::clone(&cells),
                move |region| exec.spawn(attempt::worker(Rc::clone(&workers), region)),
            );
            dead.gaps(id).for_each(|(conversation, count)| region.gap(conversation, count));
            by_id.insert(id, Some(Rc::clone(&region)));
            regions.push(region);
        }
        let orphans = regions.iter().find(|r| r.index == config.default_region).cloned();
        let feed = Rc::new(Feed::new(
            views.to_vec(),
            by_id,
            orphans,
            (Rc::clone(&sieve), Rc::clone(&settler), dead),
            Rc::default(),
            configs::pool().0,
            room,
        ));
        let readers = views.iter().map(|view| JournalReader::over(view, shelf(view))).collect();
        let (catching, pace) = (Rc::clone(&feed), (*machine).clone());
        machine.exec.spawn(async move {
            catching.catch_up(readers, &pace).await.ok();
        });
        let path = self.key_file(core);
        let keys = KeyLog { inbox, path, busy: false, targets, cells };
        Ok(Core {
            inlet,
            feed,
            sieve,
            settler,
            regions,
            keys: Rc::new(RefCell::new(keys)),
            dead: orders,
            count: Cell::new(0),
        })
    }

    /// A new file of the key log.
    fn key_file(&self, core: usize) -> PathBuf {
        let disk = &self.machine.disk;
        let number =
            disk.paths(".keys").last().and_then(|path| path.file_stem()?.to_str()?.parse::<u64>().ok());
        Path::new(KEYS).join(format!("{:08}.keys", number.unwrap_or(0) + 1 + core as u64))
    }
}

impl Core {
    /// Every 20 ms; as `forward::tick` does.
    fn tick(&self) {
        let now = exec::now();
        self.regions.iter().for_each(|region| region.tick(now));
        self.settler.tell(self.sieve.tick(now));
        let count = self.count.get() + 1;
        self.count.set(count);
        if count.is_multiple_of(2) {
            self.settler.flush();
        }
        if count.is_multiple_of(50) {
            self.feed.look_again();
        }
    }

    /// The key log's thread, if it has something to do.
    fn keep(&self, machine: &Machine) -> bool {
        let mut keys = self.keys.borrow_mut();
        if keys.busy || !keys.inbox.take() {
            return false;
        }
        keys.busy = true;
        let KeyLog { inbox, targets, cells, .. } = &mut *keys;
        // What could not go on before.
        inbox.go_on(|marks| settle::pass_on(targets, marks, cells));
        drop(keys);
        let (keys, machine) = (Rc::clone(&self.keys), machine.clone());
        machine.exec.clone().spawn(async move {
            let (blocks, path) = {
                let keys = keys.borrow();
                (keys.inbox.blocks(), keys.path.clone())
            };
            // A full disk, or the end of the world: nothing goes on.
            while !blocks.is_empty() {
                machine.exec.sleep(machine.latency()).await;
                if append(&machine, &path, &blocks).await.is_ok() {
                    keys.borrow_mut().inbox.written();
                    break;
                }
                machine.exec.sleep(Duration::from_millis(500)).await;
            }
            loop {
                {
                    let mut all = keys.borrow_mut();
                    let KeyLog { inbox, targets, cells, .. } = &mut *all;
                    if blocks.is_empty() {
                        inbox.written();
                    }
                    let mut stuck = false;
                    inbox.go_on(|marks| {
                        let done = settle::pass_on(targets, marks, cells);
                        stuck |= !done;
                        done
                    });
                    if !stuck {
                        all.busy = false;
                        return;
                    }
                }
                machine.exec.sleep(Duration::from_millis(10)).await;
            }
        });
        true
    }
}

/// Durably, at the end of the file; as the key log's thread does.
async fn append(machine: &Machine, path: &Path, blocks: &[u8]) -> io::Result<()> {
    let disk = &machine.disk;
    if !disk.has(path) {
        disk.write_zeros(path, 0)?;
        let made = disk.append_to(path, &log::header());
        let made = made.and_then(|()| Disk::sync(disk, path));
        if let Err(error) = made.and_then(|()| Disk::sync_dir(disk, Path::new(KEYS))) {
            Disk::remove(disk, path).ok();
            return Err(error);
        }
    }
    disk.append_to(path, blocks)?;
    machine.exec.sleep(machine.latency()).await;
    Disk::sync(disk, path)
}

impl Life {
    pub(crate) fn exec(&self) -> &Rc<Exec> {
        &self.machine.exec
    }

    /// Looks into all channels, in any order. True if there was something.
    pub(crate) fn pump(&self) -> bool {
        let mut any = false;
        let (ingest, forward) = (self.marks.len(), self.cores.len());
        let start = self.machine.below((ingest + forward * 2) as u64) as usize;
        for turn in 0..ingest + forward * 2 {
            let at = (start + turn) % (ingest + forward * 2);
            if at < ingest {
                while let Ok((id, marks)) = self.marks[at].try_recv() {
                    self.journals[at].append_marks(id, marks);
                    any = true;
                }
            } else if at < ingest + forward {
                let core = &self.cores[at - ingest];
                if !self.stopping.get() && (!core.inlet.idle() || self.machine.one_in(16)) {
                    any |= !core.inlet.idle();
                    while core.feed.look(&core.inlet) == Taken::More {}
                }
            } else {
                let core = &self.cores[at - ingest - forward];
                any |= core.keep(&self.machine);
                while let Ok(order) = core.dead.try_recv() {
                    let number = self.letters.get() + 1;
                    self.letters.set(number);
                    letters::carry_out(order, number, &self.machine, &self.truth);
                    any = true;
                }
            }
        }
        any
    }

    pub(crate) fn tick(&self) {
        self.cores.iter().for_each(Core::tick);
    }

    /// The thread that makes segments and frees them; as `spare::Maker` does. False if the world ended.
    pub(crate) fn make_and_free(&self) -> bool {
        for wrote in self.wrote.try_iter() {
            self.freeing.borrow_mut().wrote(&wrote);
        }
        self.waiting.borrow_mut().extend(self.orders.try_iter());
        loop {
            match self.freeing.borrow_mut().round(self.short.get()) {
                Ok(Round::Partly) => continue,
                Ok(_) => break,
                Err(_) if self.machine.disk.has_ended() => return false,
                Err(_) => break,
            }
        }
        let disk = &self.machine.disk;
        while !self.waiting.borrow().is_empty() {
            let order = self.waiting.borrow_mut().remove(0);
            let path = segment_path(&order.dir, order.number);
            let reused = self.freeing.borrow_mut().reuse(&order.dir, order.number, order.bytes);
            let made = match reused {
                Ok(true) => Ok(path),
                _ => make(disk, &order.dir, order.number, order.bytes),
            };
            if disk.has_ended() {
                return false;
            }
            match made {
                Ok(file) => {
                    self.short.set(false);
                    order.reply.send(Spare { number: order.number, file }).ok();
                }
                Err(_) => {
                    self.short.set(true);
                    self.waiting.borrow_mut().insert(0, order);
                    break;
                }
            }
        }
        true
    }

    fn ends(&self) -> Vec<Position> {
        self.views.iter().map(|view| view.published.as_ref().map_or(view.end, |p| p.durable())).collect()
    }

    /// The archiver reads on in every journal; as `archive::run` does. False if the world ended.
    pub(crate) fn archive(&self, finish: bool) -> bool {
        let Some(archiver) = &self.archive else { return true };
        let mut archiver = archiver.borrow_mut();
        let (ends, now_ms) = (self.ends(), exec::elapsed().as_millis() as u64);
        let still = Machine { exec: Rc::new(Exec::default()), ..self.machine.clone() };
        for (journal, view) in self.views.iter().enumerate() {
            for place in archiver.places(journal, ends[journal], now_ms) {
                let shelf = Shelf { machine: still.clone(), dir: view.dir.clone() };
                let mut reader = JournalReader::over(view, super::ground::Quick(shelf));
                let mut asked = place;
                for _ in 0..if finish { usize::MAX } else { 1 + self.machine.below(8) as usize } {
                    let frame = reader.frame(asked, ends[journal]);
                    let Some(Ok(Some(frame))) = futures_util::FutureExt::now_or_never(frame) else { break };
                    let read = Read {
                        asked,
                        position: frame.position,
                        next: frame.next,
                        written_ms: frame.written_at / 1_000_000,
                        bytes: &frame.bytes,
                        entries: &frame.entries,
                    };
                    archiver.take(journal, &read, now_ms).expect("an entry can be read");
                    asked = frame.next;
                }
            }
        }
        if finish {
            archiver.finish(&ends, now_ms);
        } else {
            archiver.tick(&ends, now_ms);
        }
        !self.machine.disk.has_ended()
    }

    // The stop, in its order.

    pub(crate) fn stop_forwarding(&self) {
        self.stopping.set(true);
        for core in &self.cores {
            core.feed.stop();
            core.regions.iter().for_each(|region| region.stop());
        }
    }

    pub(crate) fn busy(&self) -> usize {
        self.cores.iter().flat_map(|core| &core.regions).map(|region| region.busy()).sum()
    }

    pub(crate) fn waiting(&self) -> usize {
        self.cores.iter().flat_map(|core| &core.regions).map(|region| region.waiting()).sum()
    }

    pub(crate) fn settled(&self) -> bool {
        self.cores.iter().all(|core| {
            core.settler.flush();
            core.settler.idle()
        })
    }

    pub(crate) fn uncertain(&self) -> bool {
        self.cores.iter().flat_map(|core| &core.regions).any(|region| region.uncertain())
    }

    pub(crate) fn seal(&self) {
        self.journals.iter().for_each(|journal| journal.stop());
    }

    /// As `Store::leave_clean` does.
    pub(crate) fn leave_clean(&self) -> io::Result<()> {
        let disk = &self.machine.disk;
        disk.write_zeros(Path::new(CLEAN), 0)?;
        Disk::sync(disk, Path::new(CLEAN))?;
        Disk::sync_dir(disk, Path::new("/data"))
    }
}
