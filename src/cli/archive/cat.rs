//! `penstock archive cat`: the bodies of records, as they came.

use std::borrow::Cow;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use super::bar::Bar;
use super::search::Trouble;
use crate::archive::search::{Ahead, Object, Query, objects, search};
use crate::archive::shelf::{EntryKind, Shelf};
use crate::cli::{FAILED, Failure, USAGE};

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
break behind it; of a record with `ranges` those bytes that this archive has,
of one with `masked` what it shows. With --id the one body and nothing else.
What cannot be read is told, and the rest printed. To find records by message
id, user or time, use search.

Exit codes:
  0  printed
  1  there is no record with that id
  74 something cannot be read

Examples:
  penstock archive cat /srv/archive/eu/dt=2026-09-14/hour=12/edge-1-...jsonl.zst
  penstock archive cat file:///srv/archive/eu --id 0a1b...-4711 | sha256sum";

pub fn run(args: &Args) -> anyhow::Result<u8> {
    let (shelf, only) = place(&args.archive)?;
    let record = args.id.as_deref().map(record);
    // Bodies are on their way to somebody who wants all of them: nothing is left to an index.
    let query = Query { record: record.transpose()?, whole: args.id.is_none(), ..Query::default() };
    let (mut trouble, mut bar) = (Trouble::default(), Bar::new());
    let found = match only {
        Some(object) => vec![object],
        None => objects(shelf.as_ref(), &query, &mut |told| trouble.tell(&told))?,
    };
    let mut out = BufWriter::new(io::stdout().lock());
    let mut printed = false;
    for (at, (object, index)) in (0..).zip(Ahead::new(shelf.as_ref(), &found, &query)) {
        bar.draw(at, found.len() as u64);
        let mut told = |told| trouble.tell(&told);
        let on = search(shelf.as_ref(), (object, index), &query, &mut told, &mut |line| {
            out.write_all(&body(line)?)?;
            printed = true;
            if args.id.is_none() {
                out.write_all(b"\n")?;
            }
            Ok(args.id.is_none())
        })?;
        if !on {
            break;
        }
    }
    bar.clear();
    out.flush()?;
    Ok(trouble.code(if printed || args.id.is_none() { 0 } else { FAILED }, printed && args.id.is_some()))
}

/// Journal and LSN.
fn record(id: &str) -> Result<(String, u64), Failure> {
    let parts = id.rsplit_once('-').and_then(|(journal, lsn)| Some((journal.to_owned(), lsn.parse().ok()?)));
    parts.ok_or_else(|| {
        let told =
            format!("--id is {id:?}, expected a record's, <journal>-<lsn>; search finds it by other ids");
        Failure::new(USAGE, told)
    })
}

/// The archive, and the object if it is one that was named.
fn place(text: &str) -> anyhow::Result<(Box<dyn Shelf>, Option<Object>)> {
    let is_object =
        text.ends_with(".jsonl.zst") || Path::new(text.strip_prefix("file://").unwrap_or(text)).is_file();
    let (folder, name) = match text.rsplit_once('/') {
        _ if !is_object => return Ok((super::shelf(text)?, None)),
        Some(("", name)) => ("/", name),
        Some(split) => split,
        None => (".", text),
    };
    let shelf = super::shelf(folder)?;
    let entry =
        shelf.names("")?.into_iter().find(|entry| entry.name == name && entry.kind == EntryKind::File);
    let Some(entry) = entry else {
        return Err(Failure::new(
            USAGE,
            format!("there is no file {text}; name an archive or one of its objects"),
        )
        .into());
    };
    Ok((shelf, Some(Object { name: entry.name, bytes: entry.bytes })))
}

/// The body of a record, as it came.
pub(super) fn body(line: &[u8]) -> io::Result<Vec<u8>> {
    #[derive(Deserialize)]
    struct Record<'a> {
        #[serde(borrow)]
        body: Option<Cow<'a, str>>,
        body_base64: Option<String>,
    }
    let wrong = |what: String| io::Error::new(io::ErrorKind::InvalidData, what);
    let record: Record<'_> = serde_json::from_slice(line)
        .map_err(|error| wrong(format!("what should be a record is not: {error}")))?;
    match (record.body, record.body_base64) {
        (Some(text), None) => Ok(text.into_owned().into_bytes()),
        (None, Some(text)) => {
            STANDARD.decode(text).map_err(|error| wrong(format!("body_base64 is none: {error}")))
        }
        _ => Err(wrong("a record has not one body".to_owned())),
    }
}
