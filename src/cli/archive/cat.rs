//! `penstock archive cat`: the bodies of records, as they came.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use crate::archive::read::RECORD_MAX;
use crate::cli::FAILED;

#[derive(Debug, clap::Args)]
#[command(after_long_help = MANUAL)]
pub struct Args {
    /// The archive, as region.archive names it, or one of its objects
    #[arg(value_name = "URL")]
    pub archive: String,
    /// Only the record with this id, and nothing behind its body
    #[arg(long, value_name = "ID")]
    pub id: Option<String>,
}

const MANUAL: &str = "\
Prints the body of every record as it came, byte for byte, each with a line
break behind it; of a record with `ranges` those bytes that this archive has.
With --id the one body and nothing else.

Exit codes:
  0  printed
  1  there is no record with that id
  74 something cannot be read

Examples:
  penstock archive cat /srv/archive/eu/dt=2026-09-14/hour=12/edge-1-...jsonl.zst
  penstock archive cat file:///srv/archive/eu --id 0a1b...-4711 | sha256sum";

#[derive(Deserialize)]
struct Record {
    id: String,
    body: Option<String>,
    body_base64: Option<String>,
}

pub fn run(args: &Args) -> anyhow::Result<u8> {
    let path = Path::new(args.archive.strip_prefix("file://").unwrap_or(&args.archive));
    let objects =
        if path.is_file() { vec![path.to_owned()] } else { objects(&super::folder(&args.archive)?)? };
    let mut out = BufWriter::new(io::stdout().lock());
    let mut found = false;
    for object in objects.iter().filter(|object| may_hold(object, args.id.as_deref())) {
        found |= print(object, args.id.as_deref(), &mut out)
            .with_context(|| format!("read {}", object.display()))?;
        if found && args.id.is_some() {
            break;
        }
    }
    out.flush()?;
    Ok(if found || args.id.is_none() { 0 } else { FAILED })
}

/// All objects of an archive, the oldest hour first.
fn objects(root: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut folders = vec![root.to_owned()];
    for prefix in ["dt=", "hour=", ""] {
        let mut below = Vec::new();
        for folder in folders {
            let entries = fs::read_dir(&folder).with_context(|| format!("read {}", folder.display()))?;
            for entry in entries {
                let entry = entry.with_context(|| format!("read {}", folder.display()))?;
                if entry.file_name().to_string_lossy().starts_with(prefix) {
                    below.push(entry.path());
                }
            }
        }
        below.sort_unstable();
        folders = below;
    }
    Ok(folders)
}

/// An object is named by the journal that its records come from, and so are they.
fn may_hold(object: &Path, id: Option<&str>) -> bool {
    let name = object.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let journal = id.and_then(|id| id.rsplit_once('-')).map(|(journal, _)| journal);
    journal.is_none_or(|journal| name.contains(journal))
}

/// Prints what is asked for; true if it was there.
fn print(object: &Path, id: Option<&str>, out: &mut impl Write) -> anyhow::Result<bool> {
    let mut lines = BufReader::new(zstd::Decoder::new(File::open(object)?)?);
    let (mut line, mut found) = (Vec::new(), false);
    loop {
        line.clear();
        if lines.by_ref().take(RECORD_MAX).read_until(b'\n', &mut line)? == 0 {
            return Ok(found);
        }
        let record: Record = serde_json::from_slice(&line).context("what should be a record is not")?;
        if id.is_some_and(|id| id != record.id) {
            continue;
        }
        match (&record.body, &record.body_base64) {
            (Some(text), None) => out.write_all(text.as_bytes())?,
            (None, Some(text)) => out.write_all(&STANDARD.decode(text).context("body_base64 is none")?)?,
            _ => bail!("record {} has not one body", record.id),
        }
        found = true;
        if id.is_some() {
            return Ok(true);
        }
        out.write_all(b"\n")?;
    }
}
