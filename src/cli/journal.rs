//! `penstock journal inspect`: what a journal holds, readable.
#![allow(clippy::print_stdout)]

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::Context;

use super::folder::FolderArgs;
use super::{FAILED, Failure, IO};
use crate::entry::Meta;
use crate::journal::disk::{Disk, Local};
use crate::journal::folder::{self, Folder};
use crate::journal::frame::{self, FIRST_FRAME, FrameKind};
use crate::journal::marks::ParcelSet;
use crate::journal::record::{Entry, Record};
use crate::journal::recover::{self, Recovered, Span};
use crate::journal::spare::{OpenMode, segment_path};
use crate::journal::store::{hex, parse_id};
use crate::journal::{JournalId, Position};

pub mod fsck;

/// Reads as any other program would.
pub(super) const DISK: Local = Local { mode: OpenMode::Unsynced };
/// A running gateway frees segments while they are looked at: then the look is taken again.
const LOOKS: usize = 5;

const MANUAL: &str = "\
Reads the journals of a data folder and changes nothing; a running gateway is
not disturbed, and its newest frame may then look torn. Says what is there, what
is settled and what is damaged. Of a thin segment only what still waits is
there, and only that is shown; what lies below the floor is gone, since all of
it was settled. Phones and texts are not shown, except by --body.

Exit codes:
  0 all is well, 1 something is damaged, or no entry has the LSN of --body,
  74 the folder cannot be read

Examples:
  penstock journal inspect --config /etc/penstock/penstock.toml
  penstock journal inspect --data-dir /var/lib/penstock --entries --waiting
  penstock journal inspect --data-dir /var/lib/penstock --body 4711";

#[derive(Debug, clap::Args)]
#[command(after_long_help = MANUAL)]
pub struct Args {
    #[command(flatten)]
    pub folder: FolderArgs,
    /// Only this journal (the start of its id is enough)
    #[arg(long, value_name = "ID")]
    pub journal: Option<String>,
    /// One line per frame
    #[arg(long)]
    pub frames: bool,
    /// One line per entry
    #[arg(long)]
    pub entries: bool,
    /// Of the entries only those that are not settled
    #[arg(long, requires = "entries")]
    pub waiting: bool,
    /// Print the raw body of the entry with this LSN, and nothing else
    #[arg(long, value_name = "LSN", conflicts_with_all = ["frames", "entries"])]
    pub body: Option<u64>,
}

pub fn run(args: &Args) -> anyhow::Result<u8> {
    let root = args.folder.find()?.0.join("journal");
    let mut journals = journals(&root)?;
    if let Some(start) = &args.journal {
        journals.retain(|(id, _)| hex(id).starts_with(start.as_str()));
    }
    if journals.is_empty() {
        println!("no journal in {}", root.display());
        return Ok(0);
    }
    if let Some(lsn) = args.body {
        return print_bodies(args, &journals, lsn);
    }
    let mut settled = settled(&journals)?;
    let mut damaged = false;
    for (id, path) in &journals {
        let settled = settled.remove(id).unwrap_or_default();
        damaged |= print_journal(args, id, path, &settled)?;
    }
    Ok(if damaged { FAILED } else { 0 })
}

fn steady<T>(mut look: impl FnMut() -> anyhow::Result<T>) -> anyhow::Result<T> {
    for _ in 1..LOOKS {
        match look() {
            Err(error) if is_gone(&error) => {}
            done => return done,
        }
    }
    look()
}

fn is_gone(error: &anyhow::Error) -> bool {
    let gone = |io: &std::io::Error| io.kind() == std::io::ErrorKind::NotFound;
    error.chain().any(|cause| cause.downcast_ref::<std::io::Error>().is_some_and(gone))
}

/// The data folder: named by itself, or by its configuration.
/// The journals in a folder, by id.
pub(super) fn journals(root: &Path) -> anyhow::Result<Vec<(JournalId, PathBuf)>> {
    let mut journals = Vec::new();
    for entry in std::fs::read_dir(root).with_context(|| format!("list {}", root.display()))? {
        let path = entry?.path();
        if let Some(id) = path.file_name().and_then(|name| name.to_str()).and_then(parse_id) {
            journals.push((id, path));
        }
    }
    journals.sort();
    Ok(journals)
}

/// What is settled of each journal: marks may stand in another one than the entries they settle.
pub(super) fn settled(journals: &[(JournalId, PathBuf)]) -> anyhow::Result<HashMap<JournalId, ParcelSet>> {
    let mut settled: HashMap<JournalId, ParcelSet> = HashMap::new();
    for (id, path) in journals {
        let marks = steady(|| {
            let mut marks: HashMap<JournalId, ParcelSet> = HashMap::new();
            walk(id, path, |_, _, _, record| {
                if let Record::Marks(found) = record {
                    let set = marks.entry(found.journal).or_default();
                    found.iter().for_each(|mark| {
                        set.insert(mark.lsn, mark.slot);
                    });
                }
            })?;
            Ok(marks)
        })?;
        marks.into_iter().for_each(|(id, set)| settled.entry(id).or_default().insert_all(set));
    }
    Ok(settled)
}

/// What lies in a journal's folder, and its records in order.
pub(super) fn walk(
    id: &JournalId,
    dir: &Path,
    mut visit: impl FnMut(&Folder, Position, u64, &Record<'_>),
) -> anyhow::Result<(Folder, Recovered)> {
    let failed = |error: anyhow::Error| {
        if is_gone(&error) {
            return error;
        }
        Failure::new(IO, format!("journal {}: {error}", dir.display())).into()
    };
    let folder = Folder::look(&DISK, dir, id).map_err(|error| failed(error.into()))?;
    let recovered = recover::recover(
        &folder.numbers,
        folder.floor.as_ref(),
        |number, part| folder::load(&DISK, dir, number, part),
        |position, lsn, record| visit(&folder, position, lsn, record),
    )
    .map_err(|error| failed(error.into()))?;
    Ok((folder, recovered))
}

/// The entries of a journal, counted.
#[derive(Default)]
struct Sums {
    entries: u64,
    waiting: u64,
    bytes: u64,
    lines: Vec<String>,
}

/// True if something is damaged.
fn print_journal(args: &Args, id: &JournalId, dir: &Path, settled: &ParcelSet) -> anyhow::Result<bool> {
    let (folder, recovered, sums) = steady(|| {
        let mut sums = Sums::default();
        let (folder, recovered) = walk(id, dir, |folder, position, lsn, record| {
            let Record::Entry(entry) = record else { return };
            sums.entries += 1;
            sums.bytes += entry.body.len() as u64;
            let listed = folder.listed.covers(lsn);
            let waits = |slot: &u16| {
                !settled.contains(lsn, *slot) && (!listed || folder.listed.open.contains(lsn, *slot))
            };
            let open = (0..entry.slots).filter(waits).count();
            sums.waiting += open as u64;
            if args.entries && (open > 0 || !args.waiting) {
                sums.lines.push(entry_line(position, lsn, entry, open));
            }
        })?;
        Ok((folder, recovered, sums))
    })?;
    println!("journal {}", hex(id));
    println!("  next LSN {}, next frame {}", recovered.next_lsn, recovered.next_frame);
    let Sums { entries, waiting, bytes, lines } = sums;
    println!("  entries  {entries} ({bytes} bytes of bodies), parcels waiting {waiting}");
    if let Some(floor) = &folder.floor {
        let kept = floor.kept.iter().filter(|kept| kept.number < floor.first).count();
        println!("  floor    segments below {} are gone (all was settled), but for {kept}", floor.first);
    }
    for span in &recovered.spans {
        print_segment(dir, span);
        for (from, to) in &span.holes {
            println!("           damaged from byte {from} to {to}");
        }
        if args.frames && !span.thin {
            print_frames(dir, span);
        }
    }
    for spare in &recovered.spares {
        println!("  segment  {spare:>6}  made ahead");
    }
    for (segment, fault) in &folder.unread {
        println!("  DAMAGED  the list of what waits in segment {segment}: {fault}; the segment is whole");
    }
    if let Some((segment, at)) = recovered.torn {
        println!(
            "  segment {segment} ends in an unfinished write at byte {at}; nothing in it was acknowledged"
        );
    }
    for lost in &recovered.lost {
        let fault = &lost.fault;
        if lost.last_lsn < lost.first_lsn {
            println!("  DAMAGED  segment {} byte {}: {fault}; no record is lost", lost.segment, lost.at);
        } else {
            println!(
                "  DAMAGED  segment {} byte {}: {fault}; records {} to {} are lost",
                lost.segment, lost.at, lost.first_lsn, lost.last_lsn
            );
        }
    }
    lines.iter().for_each(|line| println!("{line}"));
    Ok(!recovered.lost.is_empty() || !folder.unread.is_empty())
}

fn print_segment(dir: &Path, span: &Span) {
    let Span { segment, end, parcels, .. } = span;
    if span.thin {
        // Gone meanwhile: then nothing of it is on the disk.
        let on_disk = std::fs::metadata(segment_path(dir, *segment)).map_or(0, |file| file.blocks() * 512);
        println!(
            "  segment  {segment:>6}  {end:>12} bytes used, thin: {on_disk} of them kept for {parcels} parcels"
        );
    } else {
        println!("  segment  {segment:>6}  {end:>12} bytes used");
    }
}

fn entry_line(position: Position, lsn: u64, entry: &Entry<'_>, open: usize) -> String {
    let place = position.to_string();
    let Ok(meta) = Meta::read(entry.meta) else {
        return format!("  entry    {lsn:>8}  at {place:<16}  written by another version");
    };
    let at = time(meta.received_at_ns());
    let what =
        if meta.opaque() { "not understood".to_owned() } else { format!("{} events", meta.events().len()) };
    let state = if open == 0 { "settled".to_owned() } else { format!("{open} of {} waiting", entry.slots) };
    format!(
        "  entry    {lsn:>8}  seq {:>8}  at {place:<16}  {at}  {:>7} bytes  {what}, {} regions, {state}",
        entry.seq,
        entry.body.len(),
        meta.slots(),
    )
}

fn print_frames(dir: &Path, span: &Span) {
    let path = segment_path(dir, span.segment);
    let Ok(bytes) = DISK.size(&path).and_then(|len| DISK.read(&path, 0, len as usize)) else {
        return println!("    gone meanwhile");
    };
    let mut at = FIRST_FRAME;
    while at < span.end {
        if let Some((_, to)) = span.holes.iter().find(|(from, to)| (*from..*to).contains(&at)) {
            at = *to;
            continue;
        }
        let Ok((header, _)) = frame::read(bytes.get(at as usize..).unwrap_or_default()) else { break };
        let kind = match header.kind {
            FrameKind::Commit => "commit",
            FrameKind::Tick => "tick",
            FrameKind::Seal => "seal",
        };
        println!(
            "    frame  {:>8}  at {at:>10}  {}  {kind:<6}  {:>5} records from LSN {:<8}  {:>8} bytes",
            header.number,
            time(header.written_at),
            header.records,
            header.first_lsn,
            header.padded,
        );
        at += u64::from(header.padded);
    }
}

/// The body of the entry with that LSN, of the one journal that has it.
fn print_bodies(args: &Args, journals: &[(JournalId, PathBuf)], lsn: u64) -> anyhow::Result<u8> {
    use std::io::Write;
    let mut found = Vec::new();
    let mut other = false;
    for (id, dir) in journals {
        let (body, there) = steady(|| body(id, dir, lsn))?;
        other |= there;
        found.extend(body.map(|body| (hex(id), body)));
    }
    match &found[..] {
        [(_, body)] => {
            std::io::stdout().write_all(body)?;
            Ok(0)
        }
        [] if other => {
            anyhow::bail!(
                "the record with LSN {lsn} is no webhook: it is one of the journal's own, such as marks"
            )
        }
        [] => anyhow::bail!(
            "no entry with LSN {lsn} is here{}: it was settled and freed, was lost, or never was; --entries lists them",
            args.journal.as_ref().map_or(String::new(), |id| format!(" in journal {id}"))
        ),
        several => {
            let ids: Vec<&str> = several.iter().map(|(id, _)| &id[..8]).collect();
            anyhow::bail!(
                "{} journals have an entry with LSN {lsn}: name one with --journal ({})",
                ids.len(),
                ids.join(", ")
            )
        }
    }
}

/// The body of an entry, and whether the LSN is that of some other record.
fn body(id: &JournalId, dir: &Path, lsn: u64) -> anyhow::Result<(Option<Vec<u8>>, bool)> {
    let (mut body, mut other) = (None, false);
    walk(id, dir, |_, _, at, record| match record {
        Record::Entry(entry) if at == lsn => body = Some(entry.body.to_vec()),
        _ => other |= at == lsn,
    })?;
    Ok((body, other))
}

fn time(unix_ns: u64) -> String {
    let at = SystemTime::UNIX_EPOCH + Duration::from_nanos(unix_ns);
    humantime::format_rfc3339_millis(at).to_string()
}
