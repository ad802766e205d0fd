//! `penstock journal fsck`: what is wrong in a data folder, what it means, and what can be done.
#![allow(clippy::print_stdout)]

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{DISK, journals, steady};
use crate::archive;
use crate::cli::folder::FolderArgs;
use crate::cli::{FAILED, Failure, IO, UNAVAILABLE};
use crate::dedupe;
use crate::journal::check::repair::{Aside, in_use, own};
use crate::journal::check::{self, Checked, Finding, Level, Remedy};

const MANUAL: &str = "\
Reads all of a data folder's journals, the lists and floors beside them, the key
log and how far the archive is. Says what is not as it was written: where, what
it means for webhooks that were answered 200, what the next start does by
itself, and what --repair would do. Changes nothing without --repair, and
--repair keeps whatever it replaces in DIR/aside.

  note    nothing is lost, and the next start sees to it (after a kill, say)
  damage  something is lost, or one copy of two is
  stops   the next start would end before it takes a webhook

What is named as lost comes back only with a copy of the file: put it in its
place before the next start, which reports what is missing and goes on.

While a gateway runs here, only what two looks agree on is said, and nothing is
repaired: its newest segment is in motion.

Exit codes:
  0 nothing but notes, 1 damage, or a start that would be refused (with
  --repair: what is left of it), 64 usage, 69 --repair while a gateway runs,
  74 the folder cannot be read or written, 78 bad configuration

Examples:
  penstock journal fsck --data-dir /var/lib/penstock
  penstock journal fsck --config /etc/penstock/penstock.toml --json
  penstock journal fsck --data-dir /var/lib/penstock --repair";

/// Between two looks at a folder that is being written.
const PAUSE: Duration = Duration::from_millis(500);

#[derive(Debug, clap::Args)]
#[command(after_long_help = MANUAL)]
pub struct Args {
    #[command(flatten)]
    pub folder: FolderArgs,
    /// Put right what can be put right; the gateway must be stopped
    #[arg(long)]
    pub repair: bool,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// What one look found.
struct Look {
    journals: Vec<Checked>,
    /// Of the files that are no journal's.
    others: Vec<Finding>,
}

impl Look {
    fn findings(&self) -> impl Iterator<Item = &Finding> {
        self.journals.iter().flat_map(|journal| &journal.findings).chain(&self.others)
    }
}

pub fn run(args: &Args) -> anyhow::Result<u8> {
    let folder = args.folder.find()?.0;
    if !folder.join("journal").is_dir() {
        let text = format!(
            "{}: no data folder, it has no folder `journal`; name the one of [gateway] data_dir",
            folder.display()
        );
        return Err(Failure::new(IO, text).into());
    }
    let failed = |source: io::Error| {
        Failure::new(IO, format!("cannot look into {}", folder.display())).because(source)
    };
    let _own = match args.repair {
        true => Some(own(&folder).map_err(failed)?.ok_or_else(|| {
            let text = format!("a gateway runs on {}: stop it first, nothing was changed", folder.display());
            Failure::new(UNAVAILABLE, text)
        })?),
        false => None,
    };
    let running = !args.repair && in_use(&folder).map_err(failed)?;
    let mut look = steady(|| look(&folder))?;
    if running {
        #[allow(clippy::disallowed_methods)] // A command with nothing else to do.
        std::thread::sleep(PAUSE);
        let again = steady(|| self::look(&folder))?;
        let stays = |finding: &Finding| {
            finding.level > Level::Note && again.findings().any(|other| finding.is_like(other))
        };
        look.journals.iter_mut().for_each(|journal| journal.findings.retain(stays));
        look.others.retain(stays);
    }
    let todo: Vec<&Finding> = look.findings().filter(|finding| finding.remedy.is_some()).collect();
    let mut aside = None;
    if args.repair && !todo.is_empty() {
        let to = Aside::new(&folder);
        to.repair(&todo).map_err(|source| {
            let text = format!("a repair was not finished; what it replaced is in {}", to.dir().display());
            Failure::new(IO, text).because(source)
        })?;
        aside = Some(to.dir().to_owned());
    }
    let after = if aside.is_some() { Some(self::look(&folder)?) } else { None };
    if args.json {
        print_json(&folder, running, &look, after.as_ref(), aside.as_deref());
    } else {
        print(running, &look, after.as_ref(), aside.as_deref());
    }
    let bad = after.as_ref().unwrap_or(&look).findings().any(|finding| finding.level > Level::Note);
    Ok(if bad { FAILED } else { 0 })
}

fn look(folder: &Path) -> anyhow::Result<Look> {
    let dirs = journals(&folder.join("journal"))?;
    let journals = check::check(&DISK, &dirs)?;
    let mut others = Vec::new();
    keys(folder, &mut others)?;
    for journal in &journals {
        progress(folder, journal, &mut others);
    }
    Ok(Look { journals, others })
}

fn finding(
    level: Level,
    file: PathBuf,
    found: String,
    means: &str,
    start: &str,
    remedy: Option<Remedy>,
) -> Finding {
    let (means, start) = (means.to_owned(), start.to_owned());
    Finding { level, file, at: None, lsns: None, found, means, start, remedy }
}

/// The key log: what it lost may be delivered twice.
fn keys(folder: &Path, findings: &mut Vec<Finding>) -> anyhow::Result<()> {
    let dir = folder.join("keys");
    if !dir.is_dir() {
        return Ok(());
    }
    for entry in std::fs::read_dir(&dir)? {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != "keys") {
            continue;
        }
        match dedupe::log::read(&std::fs::read(&path)?, |_| ()) {
            Ok(contents) if contents.damaged > 0 => findings.push(finding(
                Level::Damage,
                path,
                format!("{} bytes of the key log are damaged", contents.damaged),
                "nothing is lost: events that were delivered within dedupe.window may be delivered once more if the \
                 provider repeats them",
                "reads the rest, and new parcels say for one window that they may be repeats",
                None,
            )),
            Ok(contents) if contents.torn > 0 => findings.push(finding(
                Level::Note,
                path,
                format!("the last {} bytes of the key log were not finished", contents.torn),
                "nothing: the parcels in question were not settled yet",
                "leaves them out",
                None,
            )),
            Ok(_) => {}
            Err(newer) => findings.push(finding(
                Level::Stops,
                path,
                newer.to_string(),
                "nothing is lost",
                "refuses to start",
                None,
            )),
        }
    }
    Ok(())
}

/// How far the archive says that it is in a journal.
fn progress(folder: &Path, journal: &Checked, findings: &mut Vec<Finding>) {
    let file = journal.archive_progress(folder);
    let (means, start, text) = match archive::noted(folder, &crate::journal::store::hex(&journal.id)) {
        Ok(rows) => {
            let Some((region, at)) =
                rows.into_iter().max_by_key(|(_, at)| *at).filter(|(_, at)| *at > journal.end)
            else {
                return;
            };
            (
                "the archive would leave out what is written up to there",
                "believes it",
                format!(
                    "region {region} is archived up to {at}, and the journal ends at {}: it is an older copy, or lost its end",
                    journal.end
                ),
            )
        }
        Err(error) => (
            "nothing is lost: what is still in the journal is archived anew",
            "archives the journal anew: objects that begin with the same webhook are recognised, others may repeat webhooks",
            format!("how far the journal is archived cannot be read: {error}"),
        ),
    };
    findings.push(finding(Level::Damage, file, text, means, start, Some(Remedy::Away)));
}

fn level(level: Level) -> &'static str {
    match level {
        Level::Note => "note",
        Level::Damage => "damage",
        Level::Stops => "stops",
    }
}

fn print(running: bool, look: &Look, after: Option<&Look>, aside: Option<&Path>) {
    for finding in look.findings() {
        print_finding(finding);
    }
    if running {
        println!(
            "a gateway runs here: its newest segment is in motion, so only what two looks agree on is said; stop it for all"
        );
    }
    if let Some(aside) = aside {
        println!("repaired; what was replaced is in {}", aside.display());
    }
    if let Some(after) = after {
        let left: Vec<&Finding> = after.findings().filter(|finding| finding.level > Level::Note).collect();
        if !left.is_empty() {
            println!("left after the repair:");
            left.into_iter().for_each(print_finding);
        }
    }
    let look = after.unwrap_or(look);
    let sum = |of: fn(&Checked) -> u64| look.journals.iter().map(of).sum::<u64>();
    let count = |wanted| look.findings().filter(|finding| finding.level == wanted).count();
    println!(
        "{} journals, {} segments, {} entries: {} stop a start, {} damaged, {} notes",
        look.journals.len(),
        sum(|journal| journal.segments),
        sum(|journal| journal.entries),
        count(Level::Stops),
        count(Level::Damage),
        count(Level::Note),
    );
}

fn print_finding(finding: &Finding) {
    let Finding { file, at, lsns, found, means, start, remedy, .. } = finding;
    let at = at.map_or(String::new(), |at| format!(", byte {at}"));
    let lsns = lsns.map_or(String::new(), |(first, last)| format!(", LSN {first} to {last}"));
    println!("{:<6}  {}{at}{lsns}", level(finding.level), file.display());
    println!("  found     {found}");
    println!("  means     {means}");
    println!("  a start   {start}");
    if let Some(remedy) = remedy {
        println!("  --repair  {}", remedy.describe());
    }
}

fn print_json(folder: &Path, running: bool, look: &Look, after: Option<&Look>, aside: Option<&Path>) {
    let findings = |look: &Look| -> Vec<serde_json::Value> { look.findings().map(json).collect() };
    let journals: Vec<_> = look
        .journals
        .iter()
        .map(|journal| {
            serde_json::json!({
                "id": crate::journal::store::hex(&journal.id),
                "segments": journal.segments,
                "entries": journal.entries,
                "next_lsn": journal.next_lsn,
            })
        })
        .collect();
    println!(
        "{}",
        serde_json::json!({
            "data_dir": folder,
            "running": running,
            "journals": journals,
            "findings": findings(look),
            "aside": aside,
            "left": after.map(findings),
        })
    );
}

fn json(finding: &Finding) -> serde_json::Value {
    serde_json::json!({
        "level": level(finding.level),
        "file": finding.file,
        "at": finding.at,
        "first_lsn": finding.lsns.map(|(first, _)| first),
        "last_lsn": finding.lsns.map(|(_, last)| last),
        "found": finding.found,
        "means": finding.means,
        "start": finding.start,
        "repair": finding.remedy.as_ref().map(Remedy::describe),
    })
}
