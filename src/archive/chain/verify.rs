//! Whether an archive is what its gateways put there: from its files and public keys alone, without a gateway.
//!
//! The objects are listed before the links are read, so that a gateway that goes on meanwhile does no harm. Nothing that
//! was found is believed or even parsed before it is known who signed it, and an object is read no further than its link
//! says that it goes.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::time::Duration;

use super::super::index::FOLDER as INDEX;
use super::super::shelf::{Entry, EntryKind, Shelf};
use super::{FOLDER, Head};
use crate::config::PublicKey;
use walk::Walk;

mod object;
mod walk;

/// One thing that is not as it was left.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    pub kind: Kind,
    /// File or folder below the archive.
    pub place: String,
    pub what: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// It was there and is not.
    Removed,
    /// It has other bytes than it had.
    Changed,
    /// No gateway put it there.
    Added,
    /// Not where it belongs.
    Moved,
    /// A link that nobody who was named signed.
    Forged,
    /// A gateway wrote something that cannot be right.
    Wrong,
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = match self.kind {
            Kind::Removed => "REMOVED",
            Kind::Changed => "CHANGED",
            Kind::Added => "ADDED",
            Kind::Moved => "MOVED",
            Kind::Forged => "FORGED",
            Kind::Wrong => "WRONG",
        };
        write!(f, "{kind} {}: {}", self.place, self.what)
    }
}

/// One gateway's chain, as far as it could be followed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Proven {
    pub gateway: String,
    pub region: String,
    pub links: u64,
    pub objects: u64,
    pub records: u64,
    /// Of its objects.
    pub bytes: u64,
    /// The newest link, and when it was made.
    pub newest: Option<(Head, String)>,
}

/// What [`verify`] found.
#[derive(Debug, Default)]
pub struct Report {
    pub chains: Vec<Proven>,
    pub problems: Vec<Problem>,
}

/// What an archive is held to.
#[derive(Debug, Default)]
pub struct Expected<'a> {
    pub keys: &'a [Key],
    /// Hashes of links that the chains must have.
    pub heads: &'a [String],
    /// Name of the region; without it that of the first chain.
    pub region: Option<&'a str>,
    /// How long to wait for the links of objects that a gateway may just be sending.
    pub patience: Duration,
}

/// Who may sign.
#[derive(Debug, Clone)]
pub struct Key {
    /// Only for this gateway; `None`: for each.
    pub gateway: Option<String>,
    pub public: PublicKey,
}

const STRANGE: &str = "no gateway makes such a file or folder";
/// What file systems and gateways have beside objects.
const PASSED_OVER: [&str; 2] = [".tmp", "lost+found"];

/// Characters of a place and of what is told of it: both may be a stranger's, and there may be many.
const TOLD_MAX: usize = 400;

/// How far [`verify`] got: objects read, of how many.
pub type Progress<'a> = &'a mut dyn FnMut(u64, u64);

/// Reads all of an archive.
///
/// # Errors
/// Something there cannot be read, so nothing can be said.
pub fn verify<S: Shelf + ?Sized>(
    shelf: &S,
    expected: &Expected<'_>,
    progress: Progress<'_>,
) -> io::Result<Report> {
    let mut verifier = Verifier {
        shelf,
        keys: expected.keys,
        region: expected.region.map(str::to_owned),
        heads: expected.heads.iter().map(String::as_str).collect(),
        report: Report::default(),
        unlinked: BTreeSet::new(),
        walks: BTreeMap::new(),
        listed: 0,
        read: 0,
        progress,
    };
    verifier.list()?;
    verifier.listed = verifier.unlinked.iter().filter(|name| !name.starts_with(INDEX)).count() as u64;
    (verifier.progress)(0, verifier.listed);
    verifier.follow()?;
    verifier.conclude(expected.patience)
}

struct Verifier<'a, S: ?Sized> {
    shelf: &'a S,
    keys: &'a [Key],
    region: Option<String>,
    /// Not found yet.
    heads: BTreeSet<&'a str>,
    report: Report,
    /// Objects and indexes that no link named so far.
    unlinked: BTreeSet<String>,
    /// By gateway.
    walks: BTreeMap<String, Walk>,
    listed: u64,
    read: u64,
    progress: Progress<'a>,
}

impl<S: Shelf + ?Sized> Verifier<'_, S> {
    fn tell(&mut self, kind: Kind, place: impl Into<String>, what: impl Into<String>) {
        let short = |text: String| match text.char_indices().nth(TOLD_MAX) {
            Some((end, _)) => format!("{}...", &text[..end]),
            None => text,
        };
        self.report.problems.push(Problem { kind, place: short(place.into()), what: short(what.into()) });
    }

    /// All objects and indexes, and what is neither that nor a chain.
    fn list(&mut self) -> io::Result<()> {
        for Entry { name, kind, .. } in self.shelf.names("")? {
            let is_folder = kind == EntryKind::Folder;
            match name.as_str() {
                FOLDER if is_folder => {}
                passed if is_folder && PASSED_OVER.contains(&passed) => {}
                INDEX if is_folder => {
                    for Entry { name, kind, .. } in self.shelf.names(INDEX)? {
                        self.list_day(format!("{INDEX}/{name}"), &name, kind)?;
                    }
                }
                _ => self.list_day(name.clone(), &name, kind)?,
            }
        }
        Ok(())
    }

    fn list_day(&mut self, below: String, day: &str, kind: EntryKind) -> io::Result<()> {
        if !is_like(day, b"dt=0000-00-00") || kind != EntryKind::Folder {
            self.tell(Kind::Added, below, STRANGE);
            return Ok(());
        }
        for Entry { name: hour, kind, .. } in self.shelf.names(&below)? {
            let below = format!("{below}/{hour}");
            if !is_like(&hour, b"hour=00") || kind != EntryKind::Folder {
                self.tell(Kind::Added, below, STRANGE);
                continue;
            }
            for Entry { name, kind, .. } in self.shelf.names(&below)? {
                let name = format!("{below}/{name}");
                if kind == EntryKind::File {
                    self.unlinked.insert(name);
                } else {
                    self.tell(Kind::Added, name, STRANGE);
                }
            }
        }
        Ok(())
    }

    /// Follows every chain from where it was left.
    fn follow(&mut self) -> io::Result<()> {
        for Entry { name: gateway, kind, .. } in self.shelf.names(FOLDER)? {
            if kind == EntryKind::Folder {
                let mut walk = self.walks.remove(&gateway).unwrap_or_else(|| Walk::new(&gateway));
                let followed = self.chain(&mut walk);
                self.walks.insert(gateway, walk);
                followed?;
            } else {
                self.tell(Kind::Added, format!("{FOLDER}/{gateway}"), STRANGE);
            }
        }
        Ok(())
    }

    /// What no link names was added, unless it came while we looked.
    #[allow(clippy::disallowed_methods, reason = "whoever verifies has nothing else to do")]
    fn conclude(mut self, patience: Duration) -> io::Result<Report> {
        let mut waited = Duration::ZERO;
        while !self.unlinked.is_empty() {
            self.follow()?;
            if self.unlinked.is_empty() || waited >= patience {
                break;
            }
            let pause = Duration::from_millis(500).min(patience - waited);
            std::thread::sleep(pause);
            waited += pause;
        }
        for object in std::mem::take(&mut self.unlinked) {
            self.tell(Kind::Added, object, "no link names it");
        }
        for head in std::mem::take(&mut self.heads) {
            self.tell(
                Kind::Removed,
                FOLDER,
                format!("no chain has the link {head:.80}: what came up to it was cut off or changed"),
            );
        }
        // A gateway that began in this hour has nothing to link yet.
        let chains = std::mem::take(&mut self.walks).into_values().filter_map(Walk::into_proven);
        self.report.chains = chains.collect();
        if self.report.chains.is_empty() {
            self.tell(Kind::Removed, FOLDER, "there is no chain: nothing can be proven");
        }
        // What was looked at twice is told once.
        self.report.problems.sort();
        self.report.problems.dedup();
        Ok(self.report)
    }
}

/// Whether a name has the bytes of a pattern, and digits where that has zeros.
fn is_like(name: &str, pattern: &[u8]) -> bool {
    let like = |(byte, like): (u8, &u8)| if *like == b'0' { byte.is_ascii_digit() } else { byte == *like };
    name.len() == pattern.len() && name.bytes().zip(pattern).all(like)
}
