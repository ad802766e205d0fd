//! A forwarding core, put together and looked after as `forward` does it; its key log as `dedupe::keeper`
//! does it, on the world's disk.

use penstock::forward::bury::bring_back;

use super::*;

/// A forwarding core.
pub(crate) struct Core {
    pub(super) inlet: Inlet,
    pub(super) feed: Rc<Feed>,
    sieve: Rc<Sieve>,
    pub(crate) settler: Rc<Settler>,
    pub(crate) regions: Vec<Rc<Region>>,
    keys: Rc<RefCell<KeyLog>>,
    pub(super) attempts: Rc<Attempts<Line, Shelf>>,
    count: Cell<u32>,
}

struct KeyLog {
    inbox: Inbox<Marks>,
    path: PathBuf,
    busy: bool,
    targets: Rc<Vec<Target>>,
    cells: Arc<ForwardCells>,
}

/// What cores are made from.
pub(super) struct Makes<'a> {
    pub(super) plan: &'a Plan,
    pub(super) machine: &'a Machine,
    pub(super) network: &'a Rc<Network>,
    pub(super) views: &'a [JournalView],
    pub(super) held: &'a Arc<AtomicUsize>,
}

impl Makes<'_> {
    /// As `forward::Forwarder::new` does.
    pub(super) fn core(
        &self,
        core: usize,
        (inlet, dead): (Inlet, Desk),
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
        seen.hold(0);
        let (mut newest, mut files, mut damaged) = (0, 0, false);
        for path in machine.disk.paths(".keys") {
            let bytes = Disk::read(&machine.disk, &path, 0, usize::MAX / 2)?;
            let contents = log::read(&bytes, |record| {
                if ids.contains(&record.region) {
                    seen.recall(record.region, &record.key, record.value, record.minute);
                }
            })?;
            newest = newest.max(contents.newest.unwrap_or(0));
            files += 1;
            damaged |= contents.damaged > 0;
        }
        seen.recalled();
        seen.reach(newest);
        if damaged || expected && files == 0 {
            seen.lose(newest);
        }
        let now = seen.now();
        let (keeper, inbox) = Keeper::pair(now);
        let settler = Rc::new(Settler::new(keeper, views.len(), now, Arc::clone(&cells)));
        let sieve = Rc::new(Sieve::new(seen, exec::now(), Arc::clone(&cells)));
        let shelf = |view: &JournalView| Shelf { machine: (*machine).clone(), dir: view.dir.clone() };
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
            journals: views.iter().map(|view| (view.id, view.end)).collect(),
            settler: Rc::clone(&settler),
            dead: dead.clone(),
            cells: Arc::clone(&cells),
            cutter: RefCell::default(),
            parser: RefCell::default(),
            values: RefCell::new(BytesMut::new()),
            told: Told::default(),
            watch: Rc::default(),
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
            dead.gaps(id).for_each(|(conversation, gap)| region.gap(conversation, gap));
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
            attempts,
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
    pub(super) fn tick(&self) {
        let now = exec::now();
        self.regions.iter().for_each(|region| region.tick(now, None));
        self.settler.tell(self.sieve.tick(now));
        self.feed.hold();
        bring_back(&self.attempts, &self.regions);
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
    pub(super) fn keep(&self, machine: &Machine) -> bool {
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
