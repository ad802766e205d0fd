//! `penstock journal inspect`: what a journal holds, readable.
#![allow(clippy::print_stdout)]

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::Context;

use super::{CONFIG, FAILED, Failure, IO};
use crate::config::Config;
use crate::entry::Meta;
use crate::journal::frame::{self, FIRST_FRAME, FrameKind};
use crate::journal::marks::SettledSet;
use crate::journal::record::{Entry, Record};
use crate::journal::recover::{self, Part, Recovered, Span};
use crate::journal::store::{hex, load, parse_id, segment_numbers};
use crate::journal::{JournalId, Position};

const MANUAL: &str = "\
Reads the journals of a data folder and changes nothing; a running gateway is
not disturbed, and its newest frame may then look torn. Says what is there, what
is settled and what is damaged. Phones and texts are not shown, except by
--body.

Exit codes:
  0 all is well, 1 something is damaged, 74 the folder cannot be read

Examples:
  penstock journal inspect --config /etc/penstock/penstock.toml
  penstock journal inspect --data-dir /var/lib/penstock --entries --waiting
  penstock journal inspect --data-dir /var/lib/penstock --body 4711";

#[derive(Debug, clap::Args)]
#[command(after_long_help = MANUAL)]
pub struct Args {
    /// The configuration that names the data folder
    #[arg(long, value_name = "FILE", required_unless_present = "data_dir")]
    pub config: Option<PathBuf>,
    /// The data folder itself
    #[arg(long, value_name = "DIR", conflicts_with = "config")]
    pub data_dir: Option<PathBuf>,
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
    let root = data_dir(args)?.join("journal");
    let mut journals = journals(&root)?;
    if let Some(start) = &args.journal {
        journals.retain(|(id, _)| hex(id).starts_with(start.as_str()));
    }
    if journals.is_empty() {
        println!("no journal in {}", root.display());
        return Ok(0);
    }
    let mut settled = settled(&journals)?;
    let mut damaged = false;
    for (id, path) in &journals {
        let settled = settled.remove(id).unwrap_or_default();
        if let Some(lsn) = args.body {
            print_body(path, lsn)?;
            continue;
        }
        damaged |= print_journal(args, &hex(id), path, &settled)?;
    }
    Ok(if damaged { FAILED } else { 0 })
}

fn data_dir(args: &Args) -> anyhow::Result<PathBuf> {
    if let Some(dir) = &args.data_dir {
        return Ok(dir.clone());
    }
    let path = args.config.as_deref().unwrap_or(Path::new("penstock.toml"));
    let (config, _) = Config::load(path).map_err(|invalid| Failure::new(CONFIG, invalid.to_string()))?;
    Ok(config.gateway.data_dir)
}

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
pub(super) fn settled(journals: &[(JournalId, PathBuf)]) -> anyhow::Result<HashMap<JournalId, SettledSet>> {
    let mut settled: HashMap<_, SettledSet> = HashMap::new();
    for (_, path) in journals {
        walk(path, |_, _, record| {
            if let Record::Marks(marks) = record {
                let set = settled.entry(marks.journal).or_default();
                marks.iter().for_each(|mark| {
                    set.insert(mark.lsn, mark.slot);
                });
            }
        })?;
    }
    Ok(settled)
}

/// Every record of a journal in order, and what recovery would make of it.
pub(super) fn walk(dir: &Path, visit: impl FnMut(Position, u64, &Record<'_>)) -> anyhow::Result<Recovered> {
    let numbers = segment_numbers(dir, false)?;
    recover::recover(&numbers, |number, part| load(dir, number, part), visit)
        .map_err(|error| Failure::new(IO, format!("journal {}: {error}", dir.display())).into())
}

/// True if something is damaged.
fn print_journal(args: &Args, id: &str, dir: &Path, settled: &SettledSet) -> anyhow::Result<bool> {
    let (mut entries, mut waiting, mut bytes) = (0u64, 0u64, 0u64);
    let mut lines = Vec::new();
    let recovered = walk(dir, |position, lsn, record| {
        if let Record::Entry(entry) = record {
            entries += 1;
            bytes += entry.body.len() as u64;
            let open = (0..entry.slots).filter(|slot| !settled.contains(lsn, *slot)).count();
            waiting += open as u64;
            if args.entries && (open > 0 || !args.waiting) {
                lines.push(entry_line(position, lsn, entry, open));
            }
        }
    })?;
    println!("journal {id}");
    println!("  next LSN {}, next frame {}", recovered.next_lsn, recovered.next_frame);
    println!("  entries  {entries} ({bytes} bytes of bodies), parcels waiting {waiting}");
    for span in &recovered.spans {
        println!("  segment  {:>6}  {:>12} bytes used", span.segment, span.end);
        for (from, to) in &span.holes {
            println!("           damaged from byte {from} to {to}");
        }
        if args.frames {
            print_frames(dir, span)?;
        }
    }
    for spare in &recovered.spares {
        println!("  segment  {spare:>6}  made ahead");
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
    Ok(!recovered.lost.is_empty())
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

fn print_frames(dir: &Path, span: &Span) -> anyhow::Result<()> {
    let bytes = load(dir, span.segment, Part::Whole)?;
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
    Ok(())
}

fn print_body(dir: &Path, lsn: u64) -> anyhow::Result<()> {
    use std::io::Write;
    let mut body = None;
    walk(dir, |_, at, record| {
        if let Record::Entry(entry) = record
            && at == lsn
        {
            body = Some(entry.body.to_vec());
        }
    })?;
    if let Some(body) = body {
        std::io::stdout().write_all(&body)?;
    }
    Ok(())
}

fn time(unix_ns: u64) -> String {
    let at = SystemTime::UNIX_EPOCH + Duration::from_nanos(unix_ns);
    humantime::format_rfc3339_millis(at).to_string()
}
