//! `penstock archive search`: finds records by message id, user, time and source.

use std::fs;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::PathBuf;
use std::time::SystemTime;

use anyhow::Context;

use super::bar::Bar;
use super::cat;
use super::verify::visible;
use crate::archive::index::line::Lines;
use crate::archive::mask::Pseudonyms;
use crate::archive::search::{self as find, Ahead, Query, Told, objects, record_id};
use crate::cli::{FAILED, Failure, IO, USAGE};
use crate::stamp;

#[derive(Debug, clap::Args)]
#[command(after_long_help = MANUAL)]
pub struct Args {
    /// The archive, as region.archive names it
    #[arg(value_name = "URL")]
    pub archive: String,
    /// Id of a message, status, call or the like (wamid...), or of a record (JOURNAL-LSN)
    #[arg(long, value_name = "ID")]
    pub id: Option<String>,
    /// Phone number or business-scoped id
    #[arg(long, value_name = "USER")]
    pub user: Option<String>,
    /// Name of a source
    #[arg(long, value_name = "NAME")]
    pub source: Option<String>,
    /// Received then or later: 2026-09-14T12:00:00Z, 2026-09-14, or a time ago such as 2h
    #[arg(long, value_name = "TIME")]
    pub from: Option<String>,
    /// Received before
    #[arg(long, value_name = "TIME")]
    pub until: Option<String>,
    /// Key of an event, 32 hex digits
    #[arg(long, value_name = "KEY")]
    pub key: Option<String>,
    /// Key of the pseudonyms of a masked archive (archive.mask_key), in a file
    #[arg(long, value_name = "FILE")]
    pub mask_key: Option<PathBuf>,
    /// Print whole records, one JSON a line
    #[arg(long, conflicts_with = "body")]
    pub json: bool,
    /// Print the raw bodies, each with a line break behind it
    #[arg(long)]
    pub body: bool,
    /// Stop after that many records
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub limit: Option<u64>,
    /// Read every object of the time, whatever its index says
    #[arg(long)]
    pub no_index: bool,
}

const MANUAL: &str = "\
Finds the records for which all that is given is true, and prints of each when
it was received, its id, its source, its kinds of events and its object. The
oldest hour comes first, and within an object the order of arrival.

--id finds a text wherever the body has it under a name that ends in `id`: the
message itself, each of its statuses, and answers to it. --user finds it there
(wa_id, user_id, recipient_id ...) and as the user of an event. A phone number
may be written with +, 00, blanks and dashes.

In a masked archive give the key of its pseudonyms, and look for what you know:
the pseudonyms are looked for, too.

An index beside each object says which parts of it to read, and --from and
--until which hours. An object whose index is missing or damaged is read whole,
which is told on stderr. Where someone may have changed indexes, verify the
archive first, or search with --no-index.

Exit codes:
  0  found
  1  nothing found
  74 something cannot be read: there may be more than what was found

Examples:
  penstock archive search file:///srv/archive/eu --id wamid.HBgLMTY1...
  penstock archive search /mnt/copy --user '+49 170 1234567' --from 2026-09-14
  penstock archive search /mnt/copy --user 491701234567 --json | jq .received_at";

pub fn run(args: &Args) -> anyhow::Result<u8> {
    let mut query = query(args, SystemTime::now())?;
    if let Some(path) = &args.mask_key {
        let key = fs::read(path).with_context(|| format!("read {}", path.display()))?;
        masked(&mut query, &Pseudonyms::new(without_line_break(&key)));
    }
    let shelf = super::shelf(&args.archive)?;
    let (mut trouble, mut bar) = (Trouble::default(), Bar::new());
    let all = objects(shelf.as_ref(), &query, &mut |told| trouble.tell(&told))?;
    let mut out = BufWriter::new(io::stdout().lock());
    let (mut found, mut lines) = (0u64, Lines::default());
    // Of one record there is one.
    let limit = args.limit.or(query.record.is_some().then_some(1));
    for (at, (object, index)) in (0..).zip(Ahead::new(shelf.as_ref(), &all, &query)) {
        bar.draw(at, all.len() as u64);
        let mut told = |told| trouble.tell(&told);
        let on = find::search(shelf.as_ref(), (object, index), &query, &mut told, &mut |line| {
            bar.clear();
            found += 1;
            if args.json {
                out.write_all(line)?;
                out.write_all(b"\n")?;
            } else if args.body {
                out.write_all(&cat::body(line)?)?;
                out.write_all(b"\n")?;
            } else {
                write_short(line, &object.name, &mut lines, &mut out)?;
            }
            Ok(limit.is_none_or(|limit| found < limit))
        })?;
        if !on {
            break;
        }
    }
    bar.clear();
    out.flush()?;
    let complete = limit.is_some_and(|limit| found >= limit);
    Ok(trouble.code(if found > 0 { 0 } else { FAILED }, complete))
}

fn query(args: &Args, now: SystemTime) -> Result<Query, Failure> {
    let wanted = [&args.id, &args.user, &args.source, &args.from, &args.until, &args.key];
    if wanted.iter().all(|wanted| wanted.is_none()) {
        let told = "nothing is looked for; give --id, --user, --source, --key, --from or --until";
        return Err(Failure::new(USAGE, told.to_owned()));
    }
    let key = args.key.as_ref().map(|key| key.to_ascii_lowercase());
    if let Some(key) = &key
        && !(key.len() == 32 && key.bytes().all(|byte| byte.is_ascii_hexdigit()))
    {
        return Err(Failure::new(
            USAGE,
            format!("--key is {key:?}, expected the 32 hex digits of an event's key"),
        ));
    }
    let record = args.id.as_deref().and_then(record_id);
    Ok(Query {
        ids: args.id.iter().filter(|_| record.is_none()).cloned().collect(),
        record,
        users: args.user.iter().map(|user| find::user(user)).collect(),
        keys: key.into_iter().collect(),
        source: args.source.clone(),
        from_ms: args.from.as_deref().map(|text| moment("--from", text, now)).transpose()?,
        until_ms: args.until.as_deref().map(|text| moment("--until", text, now)).transpose()?,
        whole: args.no_index,
    })
}

/// As the configuration reads a key from a file.
fn without_line_break(key: &[u8]) -> &[u8] {
    key.strip_suffix(b"\n").map_or(key, |key| key.strip_suffix(b"\r").unwrap_or(key))
}

/// As a masked archive has it, too: records of before the mask are as they came.
fn masked(query: &mut Query, pseudonyms: &Pseudonyms) {
    let also = |any: &mut Vec<String>, masked: &dyn Fn(&str) -> String| {
        let more: Vec<String> = any.iter().map(|text| masked(text)).collect();
        any.extend(more);
    };
    also(&mut query.ids, &|id| pseudonyms.id(id));
    also(&mut query.users, &|user| pseudonyms.user(user));
    let bytes = |key: &str| {
        (0..key.len() / 2)
            .filter_map(|at| u8::from_str_radix(key.get(2 * at..2 * at + 2)?, 16).ok())
            .collect::<Vec<u8>>()
    };
    also(&mut query.keys, &|key| pseudonyms.key(&bytes(key)));
}

/// Unix milliseconds.
fn moment(option: &str, text: &str, now: SystemTime) -> Result<u64, Failure> {
    let ago = humantime::parse_duration(text).ok().and_then(|ago| now.checked_sub(ago));
    let at = ago
        .or_else(|| humantime::parse_rfc3339_weak(text).ok())
        .or_else(|| humantime::parse_rfc3339_weak(&format!("{text} 00:00:00")).ok());
    let ms =
        at.and_then(|at| u64::try_from(at.duration_since(SystemTime::UNIX_EPOCH).ok()?.as_millis()).ok());
    ms.ok_or_else(|| {
        let told = format!(
            "{option} is {text:?}, expected 2026-09-14T12:00:00Z, 2026-09-14 or a time ago such as 2h"
        );
        Failure::new(USAGE, told)
    })
}

/// One line of text.
fn write_short(record: &[u8], object: &str, lines: &mut Lines, out: &mut impl Write) -> io::Result<()> {
    let Some(line) = lines.read(record) else { return Ok(()) };
    let mut kinds: Vec<String> = Vec::new();
    for event in line.events() {
        let kind = event.kind();
        if !kinds.iter().any(|known| *known == kind) {
            kinds.push(kind.into_owned());
        }
    }
    let moment = stamp::rfc3339(line.received_ms).unwrap_or([b'-'; 24]);
    let source = line.source();
    let told = format!(
        "{}  {}  {}  {}  {object}",
        String::from_utf8_lossy(&moment),
        line.id,
        String::from_utf8_lossy(&source),
        if kinds.is_empty() { "-".to_owned() } else { kinds.join(",") },
    );
    writeln!(out, "{}", visible(&told))
}

/// Tells on stderr what is in the way of reading.
#[derive(Default)]
pub(super) struct Trouble {
    unread: bool,
    whole: u64,
}

impl Trouble {
    /// Objects that are named as read whole; of more only some are.
    const WHOLE_MAX: u64 = 5;

    pub(super) fn tell(&mut self, told: &Told) {
        let text = match told {
            Told::Nothing => {
                "there is not one object; is this what region.archive names, with all its folders?".to_owned()
            }
            Told::Stray(name) => format!("{name} is nothing that a gateway leaves there; passed over"),
            Told::Whole { object, why } => {
                self.whole += 1;
                match self.whole {
                    0..Self::WHOLE_MAX => format!("{object} is read whole: {why}"),
                    Self::WHOLE_MAX => format!("{object} is read whole: {why} (others like it are not told)"),
                    _ => return,
                }
            }
            Told::Unread { name, error } => {
                self.unread = true;
                format!("{name} cannot be read, or not all of it: {error}")
            }
        };
        // A bar may stand there. Whoever closed it does not look.
        let start = if io::stderr().is_terminal() { "\r\x1b[K" } else { "" };
        writeln!(io::stderr(), "{start}{}", visible(&text)).ok();
    }

    /// The exit code, if it were `code` without trouble. `complete`: nothing that was unread can matter.
    pub(super) fn code(&self, code: u8, complete: bool) -> u8 {
        if self.unread && !complete { IO } else { code }
    }
}
