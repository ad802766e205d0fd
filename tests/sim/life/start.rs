//! The start: recovery, segments to go on in, cores; as `store::open_store` and `shard` do it.

use penstock::archive::shipper::dock;
use penstock::config::ArchivePlace;
use penstock::dead::{self, Way};

use super::*;

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

/// Parcels that a start would take up again.
pub(crate) fn left_open(disk: &MemoryDisk) -> Result<usize, Ended> {
    let (found, ..) = recover(disk)?;
    Ok(found.iter().map(|journal| journal.open.iter().count()).sum())
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
pub(super) fn make(disk: &MemoryDisk, dir: &Path, number: u64, bytes: u64) -> io::Result<PathBuf> {
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

/// As `shard::letters` does.
fn letters(
    plan: &Plan,
    found: &[FoundJournal],
    disk: &MemoryDisk,
) -> Result<(LetterKeeper<MemoryDisk>, Vec<Desk>, Office), Ended> {
    let way = |(at, (name, _)): (usize, &(&str, &str))| Way {
        id: name_id(name),
        name: (*name).to_owned(),
        core: at % plan.forward,
    };
    let unsettled = |id: &JournalId, lsn, slot| {
        found.iter().any(|journal| journal.id == *id && journal.open.contains(lsn, slot))
    };
    let start = dead::Start {
        graves: Graves::on(disk.clone(), Path::new("/data"))?,
        regions: REGIONS.iter().enumerate().map(way).collect(),
        forward_cores: plan.forward,
        unsettled: &unsettled,
        cells: Arc::default(),
    };
    Ok(LetterKeeper::new(start, exec::now())?)
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
        let (letters, desks, office) = letters(&plan, &found, &disk)?;
        truth.look_at_letters(&disk);
        for (core, ways) in inlets.into_iter().zip(desks).enumerate() {
            let makes = Makes { plan: &plan, machine: &machine, network, views: &views, held: &held };
            cores.push(makes.core(core, ways, Rc::clone(&targets), expected)?);
        }
        let archive = if plan.archives {
            let known = views.iter().map(|view| (view.id, Arc::clone(&view.archived)));
            let cells: Arc<Vec<ArchiveCells>> = Arc::new(REGIONS.map(|_| ArchiveCells::default()).into());
            let (mut docks, mut shippers) = (Vec::new(), Vec::new());
            for (at, region) in plan.config.regions.iter().enumerate() {
                let Some(ArchivePlace::Folder(root)) = region.archive.clone() else { continue };
                let (dock, pier) = dock();
                docks.push(Some(dock));
                let store = Folder::new(disk.clone(), root, "sim".to_owned());
                let cells = (Arc::clone(&cells), at);
                shippers.push(Shipper::new(store, disk.clone(), None, pier, cells, region.name.clone()));
            }
            let archiver = Archiver::new(&disk, &plan.config, known, cells, docks)?;
            Some(Rc::new(RefCell::new((archiver, shippers))))
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
            letters: RefCell::new(letters),
            office,
            truth: Rc::clone(truth),
        };
        Ok(life)
    }
}
