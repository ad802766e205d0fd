//! Whether an archive is what its gateways put there: from files and public keys alone, without a gateway.
//!
//! The objects are listed before the links are read, so that a gateway that goes on meanwhile does no harm.

use std::collections::{BTreeSet, HashSet};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::super::disk::Disk;
use super::link::{HourDigest, Named, ObjectLink, Sealed, hash};
use super::{FOLDER, Head, LINK_MAX, file_name, number_of};
use crate::config::PublicKey;

mod object;

/// One thing that is not as it was left.
#[derive(Debug, Clone, PartialEq, Eq)]
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
#[derive(Debug, Clone, PartialEq, Eq)]
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

const STRANGE: &str = "no gateway makes such a file or folder";

/// Characters of a place and of what is told of it: both may be a stranger's, and there may be many.
const TOLD_MAX: usize = 400;

/// How far [`verify`] got: objects read, of how many.
pub type Progress<'a> = &'a mut dyn FnMut(u64, u64);

/// Reads all of an archive. `heads`: hashes of links that the chains must have.
///
/// # Errors
/// Something there cannot be read, so nothing can be said.
pub fn verify<D: Disk>(
    disk: &D,
    root: &Path,
    keys: &[PublicKey],
    heads: &[String],
    progress: Progress<'_>,
) -> io::Result<Report> {
    let mut verifier = Verifier {
        disk,
        root,
        keys,
        heads: heads.iter().map(String::as_str).collect(),
        report: Report::default(),
        unlinked: BTreeSet::new(),
        read: 0,
        progress,
    };
    verifier.list()?;
    let listed = verifier.unlinked.len() as u64;
    (verifier.progress)(0, listed);
    for gateway in verifier.names(FOLDER)? {
        verifier.chain(&gateway, listed)?;
    }
    verifier.conclude()
}

struct Verifier<'a, D> {
    disk: &'a D,
    root: &'a Path,
    keys: &'a [PublicKey],
    /// Not found yet.
    heads: BTreeSet<&'a str>,
    report: Report,
    /// Objects that no link named so far.
    unlinked: BTreeSet<String>,
    read: u64,
    progress: Progress<'a>,
}

/// What must hold from one link to the next.
#[derive(Default)]
struct Walk {
    region: Option<String>,
    /// Of the link before; `None` if there is none to compare with.
    previous: Option<String>,
    /// Objects that have a link.
    linked: HashSet<String>,
    /// Objects since the last digest, and up to when that was.
    since: Vec<Named>,
    until: Option<String>,
    /// A link is missing or unreadable: what was in it is not known.
    gap: bool,
}

impl<D: Disk> Verifier<'_, D> {
    fn tell(&mut self, kind: Kind, place: impl Into<String>, what: impl Into<String>) {
        let short = |text: String| match text.char_indices().nth(TOLD_MAX) {
            Some((end, _)) => format!("{}...", &text[..end]),
            None => text,
        };
        self.report.problems.push(Problem { kind, place: short(place.into()), what: short(what.into()) });
    }

    /// All objects, and what is neither an object nor a chain.
    fn list(&mut self) -> io::Result<()> {
        for day in self.names("")? {
            match day.as_str() {
                FOLDER | ".tmp" => {}
                _ if day.starts_with("dt=") => self.list_day(&day)?,
                _ => self.tell(Kind::Added, day, STRANGE),
            }
        }
        Ok(())
    }

    fn list_day(&mut self, day: &str) -> io::Result<()> {
        for hour in self.names(day)? {
            let below = format!("{day}/{hour}");
            if hour.starts_with("hour=") {
                let names = self.names(&below)?;
                self.unlinked.extend(names.into_iter().map(|name| format!("{below}/{name}")));
            } else {
                self.tell(Kind::Added, below, STRANGE);
            }
        }
        Ok(())
    }

    /// What is in a folder, in order; nothing if there is no such folder.
    fn names(&mut self, below: &str) -> io::Result<Vec<String>> {
        let folder = self.root.join(below);
        if !self.disk.exists(&folder)? {
            // An archive without chains is one; whatever else was listed and is not there leads nowhere.
            if below != FOLDER {
                self.tell(Kind::Added, below, STRANGE);
            }
            return Ok(Vec::new());
        }
        match self.disk.list(&folder) {
            Ok(mut names) => {
                names.sort_unstable();
                // The file's own name cannot be told, and so it cannot be looked into.
                for name in names.extract_if(.., |name| name.contains(char::REPLACEMENT_CHARACTER)) {
                    self.tell(Kind::Added, Path::new(below).join(name).to_string_lossy(), STRANGE);
                }
                Ok(names)
            }
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
                self.tell(Kind::Added, below, STRANGE);
                Ok(Vec::new())
            }
            Err(error) => Err(error),
        }
    }

    fn bytes(&self, path: &Path) -> io::Result<Option<Vec<u8>>> {
        if !self.disk.exists(path)? {
            return Ok(None);
        }
        let mut bytes = Vec::new();
        match self.disk.read(path).and_then(|file| file.take(LINK_MAX).read_to_end(&mut bytes)) {
            // A folder in place of a link is no link.
            Err(error) if error.kind() != io::ErrorKind::IsADirectory => Err(error),
            _ => Ok(Some(bytes)),
        }
    }

    /// Follows one gateway's chain from its first link.
    fn chain(&mut self, gateway: &str, listed: u64) -> io::Result<()> {
        let below = format!("{FOLDER}/{gateway}");
        let dir = self.root.join(&below);
        let mut numbers = Vec::new();
        for name in self.names(&below)? {
            match number_of(&name) {
                Some(number) => numbers.push(number),
                None => self.tell(Kind::Added, format!("{below}/{name}"), "it is not called like a link"),
            }
        }
        // A gateway that began in this hour has nothing to link yet.
        if numbers.is_empty() {
            return Ok(());
        }
        numbers.sort_unstable();
        let (links, objects, records, bytes) = (0, 0, 0, 0);
        let (region, gateway) = (String::new(), gateway.to_owned());
        let mut proven = Proven { gateway, region, links, objects, records, bytes, newest: None };
        let mut walk = Walk::default();
        let mut next = 0;
        for number in numbers {
            if number > next {
                let what = match number - next {
                    1 => "the chain goes on behind it".to_owned(),
                    missing => {
                        let last = file_name(number - 1);
                        format!(
                            "it and the links up to {last}, {missing} in all; the chain goes on behind them"
                        )
                    }
                };
                self.tell(Kind::Removed, format!("{below}/{}", file_name(next)), what);
                (walk.previous, walk.gap) = (None, true);
            }
            next = number + 1;
            self.link(&dir, number, &mut walk, &mut proven, listed)?;
        }
        proven.region = walk.region.unwrap_or_default();
        self.report.chains.push(proven);
        Ok(())
    }

    fn link(
        &mut self,
        dir: &Path,
        number: u64,
        walk: &mut Walk,
        proven: &mut Proven,
        listed: u64,
    ) -> io::Result<()> {
        let place = format!("{FOLDER}/{}/{}", proven.gateway, file_name(number));
        let bytes = self.bytes(&dir.join(file_name(number)))?.unwrap_or_default();
        let hash = hash(&bytes);
        self.heads.remove(hash.as_str());
        let previous = walk.previous.replace(hash.clone());
        let sealed = match Sealed::open(&bytes) {
            Ok(sealed) => sealed,
            Err(fault) => {
                self.tell(Kind::Changed, place, fault.to_string());
                walk.gap = true;
                return Ok(());
            }
        };
        match self.keys.iter().find(|key| key.id() == sealed.link.key) {
            Some(key) if sealed.is_signed_by(*key) => {}
            Some(_) => self.tell(Kind::Forged, &place, "its signature is not one of what it says"),
            None => {
                let what = format!("its key {:.40} is none of those given", sealed.link.key);
                self.tell(Kind::Forged, &place, what);
            }
        }
        let link = sealed.link;
        if number == 0 && !link.previous.is_empty() || previous.is_some_and(|hash| hash != link.previous) {
            self.tell(Kind::Changed, &place, "the link before it is not the one that it was made behind");
        }
        let region = walk.region.get_or_insert_with(|| link.region.clone());
        if link.number != number || link.gateway != proven.gateway || link.region != *region {
            let what = format!("it is link {} of {} in {}", link.number, link.gateway, link.region);
            self.tell(Kind::Moved, &place, what);
        }
        proven.links += 1;
        proven.newest = Some((Head { number, hash }, link.at.clone()));
        match (&link.object, &link.digest) {
            (Some(object), None) => self.object(&place, object, walk, proven, listed),
            (None, Some(digest)) => {
                self.digest(&place, digest, walk);
                Ok(())
            }
            _ => {
                self.tell(Kind::Wrong, place, "it is neither an object's nor a digest");
                Ok(())
            }
        }
    }

    fn object(
        &mut self,
        link: &str,
        object: &ObjectLink,
        walk: &mut Walk,
        proven: &mut Proven,
        listed: u64,
    ) -> io::Result<()> {
        if !walk.linked.insert(object.name.clone()) {
            self.tell(Kind::Wrong, link, format!("{} has a link already", object.name));
        }
        walk.since.push(object.named());
        let expected = object::Expected { gateway: &proven.gateway, region: walk.region.as_deref(), object };
        if !expected.is_named() {
            self.tell(Kind::Wrong, link, format!("{:?} is no name of an object of it", object.name));
            return Ok(());
        }
        let path = self.root.join(&object.name);
        if !self.disk.exists(&path)? {
            self.unlinked.remove(&object.name);
            self.tell(Kind::Removed, &object.name, format!("{} records of {link}", object.records));
            return Ok(());
        }
        if let Err(what) = expected.compare(self.disk.read(&path)?) {
            self.tell(Kind::Changed, &object.name, format!("{what} ({link})"));
        }
        proven.objects += 1;
        proven.records += object.records;
        proven.bytes += object.bytes;
        if self.unlinked.remove(&object.name) {
            self.read += 1;
            (self.progress)(self.read, listed);
        }
        Ok(())
    }

    fn digest(&mut self, place: &str, digest: &HourDigest, walk: &mut Walk) {
        let since = std::mem::take(&mut walk.since);
        let before = walk.until.replace(digest.until.clone());
        // What was in a link that is missing nobody knows.
        if std::mem::take(&mut walk.gap) {
            let named = |object: &&Named| !since.contains(object);
            for object in digest.objects.iter().filter(named) {
                self.tell(Kind::Removed, &object.name, format!("its link; {place} names it"));
                self.unlinked.remove(&object.name);
            }
            return;
        }
        if since != digest.objects {
            self.tell(Kind::Wrong, place, "it does not name the objects since the last digest");
        }
        // A clock may have gone back.
        if before.is_some_and(|until| until < digest.from) || digest.from >= digest.until {
            self.tell(Kind::Wrong, place, "its hours do not follow those of the last digest");
        }
    }

    /// What no link names was added, unless it came while we looked.
    fn conclude(mut self) -> io::Result<Report> {
        if !self.unlinked.is_empty() {
            for at in 0..self.report.chains.len() {
                self.look_again(at)?;
            }
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
        if self.report.chains.is_empty() {
            self.tell(Kind::Removed, FOLDER, "there is no chain: nothing can be proven");
        }
        self.report.problems.sort_by(|a, b| (a.kind, &a.place).cmp(&(b.kind, &b.place)));
        Ok(self.report)
    }

    fn look_again(&mut self, chain: usize) -> io::Result<()> {
        let Proven { gateway, newest: Some((newest, _)), .. } = &self.report.chains[chain] else {
            return Ok(());
        };
        let dir: PathBuf = self.root.join(FOLDER).join(gateway);
        let mut number = newest.number + 1;
        while let Some(bytes) = self.bytes(&dir.join(file_name(number)))? {
            let object = Sealed::open(&bytes).ok().and_then(|sealed| sealed.link.object);
            object.into_iter().for_each(|object| {
                self.unlinked.remove(&object.name);
            });
            number += 1;
        }
        Ok(())
    }
}
