//! The chain of one gateway in one archive, at its end.
//!
//! A link that may or may not have become durable is not counted on: after a failure it is looked for, and what is there
//! made durable, before something is linked to it.

use std::collections::{HashMap, HashSet};
use std::io::{self, Read};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::super::disk::Disk;
use super::link::{HourDigest, Link, Named, ObjectLink, Sealed, hash};
use super::{FOLDER, LINK_MAX, LINKS_MAX, file_name, number_of};
use crate::config::SigningKey;
use crate::fault;
use crate::stamp::{Hour, rfc3339};

/// A link: the chain up to it is what has this hash.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    pub number: u64,
    /// SHA-256 of the link's bytes, in hex.
    pub hash: String,
}

/// The chain of one gateway in one region's archive.
#[derive(Debug)]
pub(in crate::archive) struct Chain<D> {
    disk: D,
    root: PathBuf,
    dir: PathBuf,
    unfinished: PathBuf,
    gateway: String,
    region: String,
    key: SigningKey,
    /// Unix milliseconds.
    clock: fn() -> u64,
    /// The newest link that this gateway knows to be one of its own.
    known: Option<Head>,
    end: Option<End>,
}

/// What was read of the end of the chain.
#[derive(Debug)]
struct End {
    newest: Option<Head>,
    /// By journal: the first LSNs of its objects that have a link.
    linked: HashMap<String, HashSet<u64>>,
    /// Numbers of links that were not read, rising.
    older: Vec<u64>,
    /// What the next digest names, and the hour from which on.
    since: Vec<Named>,
    from: Hour,
    /// The next link may be there already: the one with this hash.
    uncertain: Option<String>,
}

/// A link that is there already.
struct Found {
    /// `None`: it is no link, of which whoever verifies the chain is told.
    link: Option<Link>,
    hash: String,
    bytes: Vec<u8>,
}

impl Found {
    fn is_signed_by(&self, key: &SigningKey) -> bool {
        Sealed::open(&self.bytes).is_ok_and(|sealed| sealed.is_signed_by(key.public()))
    }
}

impl<D: Disk> Chain<D> {
    /// `unfinished`: where a link is written to before it has its name. `known`: the newest link that was noted.
    pub(in crate::archive) fn new(
        disk: D,
        root: PathBuf,
        unfinished: PathBuf,
        [gateway, region]: [String; 2],
        key: SigningKey,
        clock: fn() -> u64,
        known: Option<Head>,
    ) -> Self {
        let dir = root.join(FOLDER).join(&gateway);
        Self { disk, root, dir, unfinished, gateway, region, key, clock, known, end: None }
    }

    /// The newest link that is known to be durable.
    pub(in crate::archive) fn head(&self) -> Option<&Head> {
        self.known.as_ref()
    }

    /// Whether the object of that journal that begins with that record has a link. Reads as many links as it takes, all of
    /// them if it has none.
    pub(in crate::archive) fn has(&mut self, journal: &str, first_lsn: u64) -> io::Result<bool> {
        self.end()?;
        loop {
            let Some(end) = &self.end else { return Ok(false) };
            if end.linked.get(journal).is_some_and(|linked| linked.contains(&first_lsn)) {
                return Ok(true);
            }
            let Some(number) = end.older.last().copied() else { return Ok(false) };
            let object = self.read(number)?.and_then(|found| found.link?.object);
            if let Some(end) = &mut self.end {
                end.older.pop();
                object.into_iter().for_each(|object| end.note(&object));
            }
        }
    }

    /// Links an object. Once this returns its link is there whatever happens.
    pub(in crate::archive) fn add(&mut self, object: ObjectLink) -> io::Result<()> {
        self.append(Some(object), None)
    }

    /// Adds the digest of the hours that are over. True if [`Chain::head`] says something else than before.
    pub(in crate::archive) fn tick(&mut self) -> io::Result<bool> {
        let before = self.known.as_ref().map(|head| head.number);
        let now = Hour::of((self.clock)());
        let end = self.end()?;
        // A clock that went back: the hours that come now have no digest yet, whatever was said of those to come.
        end.from = end.from.min(now);
        if end.from < now {
            let (from, until) = (moment(end.from), moment(now));
            let digest = HourDigest { from, until, objects: end.since.clone() };
            self.append(None, Some(digest))?;
            if let Some(head) = &self.known {
                tracing::info!(region = %self.region, link = head.number, hash = %head.hash, "an hour was added to the archive's chain");
            }
        }
        Ok(self.known.as_ref().map(|head| head.number) != before)
    }

    fn append(&mut self, object: Option<ObjectLink>, digest: Option<HourDigest>) -> io::Result<()> {
        let end = self.end()?;
        let number = end.next();
        let previous = end.newest.as_ref().map_or_else(String::new, |newest| newest.hash.clone());
        let path = self.dir.join(file_name(number));
        if number >= LINKS_MAX {
            return Err(io::Error::other(format!(
                "link {} of {} leaves no number; remove it, it is none of this gateway's",
                number - 1,
                self.dir.display()
            )));
        }
        if self.disk.exists(&path)? {
            return Err(io::Error::other(format!(
                "{} was written by somebody else: is there another gateway with this gateway.id?",
                path.display()
            )));
        }
        let at = text_of((self.clock)());
        let mut link = Link::new(self.gateway.clone(), self.region.clone(), number, previous, at);
        (link.object, link.digest) = (object, digest);
        let bytes = link.clone().seal(&self.key)?;
        let hash = hash(&bytes);
        self.end()?.uncertain = Some(hash.clone());
        let mut file = self.disk.create(&self.unfinished)?;
        self.disk.append(&mut file, &bytes)?;
        fault::point("link-written");
        if !fault::planted("link-not-synced") {
            self.disk.sync(&file)?;
        }
        fault::point("link-synced");
        self.disk.rename(&self.unfinished, &path)?;
        fault::point("link-renamed");
        if !fault::planted("link-name-not-synced") {
            self.disk.sync_dir(&self.dir)?;
        }
        fault::point("link-durable");
        self.added(&link, hash);
        Ok(())
    }

    /// The next link is durable.
    fn added(&mut self, link: &Link, hash: String) {
        let head = Head { number: link.number, hash };
        if let Some(end) = &mut self.end {
            end.uncertain = None;
            end.newest = Some(head.clone());
            if let Some(object) = &link.object {
                end.note(object);
                end.since.push(object.named());
            }
            if let Some(digest) = &link.digest {
                end.since.clear();
                end.from = hour_of(&digest.until).unwrap_or(end.from);
            }
        }
        self.known = Some(head);
    }

    /// The end of the chain: read if it is not known, and looked at again if a link was not certainly added.
    fn end(&mut self) -> io::Result<&mut End> {
        match self.end.take() {
            None => {
                let (end, own) = self.load()?;
                // A process may have ended before it could note its newest link.
                let known = self.known.as_ref().map(|known| known.number);
                self.known = own.filter(|own| Some(own.number) > known).or(self.known.take());
                Ok(self.end.insert(end))
            }
            Some(end) if end.uncertain.is_some() => {
                let end = self.end.insert(end);
                let (next, written) = (end.next(), end.uncertain.clone());
                self.disk.sync_dir(&self.dir)?;
                match self.read(next)? {
                    // Others, an old one of our own too, may have been put there.
                    Some(Found { link: Some(link), hash, .. }) if Some(&hash) == written.as_ref() => {
                        self.added(&link, hash);
                    }
                    _ => self.end.iter_mut().for_each(|end| end.uncertain = None),
                }
                self.end.as_mut().ok_or_else(|| io::Error::other("the chain's end is not known"))
            }
            Some(end) => Ok(self.end.insert(end)),
        }
    }

    /// The end of the chain, and its newest link if that is signed with the key of now.
    fn load(&self) -> io::Result<(End, Option<Head>)> {
        let chains = self.root.join(FOLDER);
        self.disk.make_dir(&chains)?;
        self.disk.sync_dir(&self.root)?;
        self.disk.make_dir(&self.dir)?;
        self.disk.sync_dir(&chains)?;
        let mut older: Vec<u64> =
            self.disk.list(&self.dir)?.iter().filter_map(|name| number_of(name)).collect();
        older.sort_unstable();
        // What is seen now may have been written just before a failure.
        self.disk.sync_dir(&self.dir)?;
        let (linked, since) = (HashMap::new(), Vec::new());
        let from = Hour::of((self.clock)());
        let mut end = End { newest: None, linked, older, since, from, uncertain: None };
        let mut own = None;
        while let Some(number) = end.older.pop() {
            let Some(found) = self.read(number)? else { continue };
            if end.newest.is_none() {
                let newest = Head { number, hash: found.hash.clone() };
                own = found.is_signed_by(&self.key).then(|| newest.clone());
                end.newest = Some(newest);
            }
            let Some(link) = found.link else { continue };
            if let Some(digest) = &link.digest
                && let Some(until) = hour_of(&digest.until)
            {
                end.from = until;
                break;
            }
            if let Some(object) = &link.object {
                end.note(object);
                end.since.push(object.named());
            }
            // Without a digest before it the chain began here.
            end.from = hour_of(&link.at).unwrap_or(end.from);
        }
        end.since.reverse();
        self.compare(&mut end)?;
        Ok((end, own))
    }

    /// Whether the chain that was found has the newest link that was noted. If not, what is missing must be seen by
    /// whoever verifies it: no other link takes its number.
    fn compare(&self, end: &mut End) -> io::Result<()> {
        let Some(known) = &self.known else { return Ok(()) };
        let found = self.read(known.number)?.map(|found| found.hash);
        if found.as_ref() == Some(&known.hash) {
            return Ok(());
        }
        tracing::error!(
            region = %self.region, link = known.number, hash = %known.hash,
            "the archive's chain is not the one that this gateway wrote: links were removed or changed; run `penstock archive verify`"
        );
        if end.newest.as_ref().is_none_or(|newest| newest.number <= known.number) {
            end.newest = Some(known.clone());
        }
        Ok(())
    }

    /// `None` if it is missing, which whoever verifies the chain is told.
    fn read(&self, number: u64) -> io::Result<Option<Found>> {
        let path = self.dir.join(file_name(number));
        if !self.disk.exists(&path)? {
            return Ok(None);
        }
        let mut bytes = Vec::new();
        self.disk.read(&path)?.take(LINK_MAX).read_to_end(&mut bytes)?;
        let link = Sealed::open(&bytes).ok().map(|sealed| sealed.link);
        Ok(Some(Found { link, hash: hash(&bytes), bytes }))
    }
}

impl End {
    /// The number of the next link.
    fn next(&self) -> u64 {
        self.newest.as_ref().map_or(0, |newest| newest.number + 1)
    }

    fn note(&mut self, object: &ObjectLink) {
        self.linked.entry(object.journal.clone()).or_default().insert(object.first_lsn);
    }
}

fn moment(hour: Hour) -> String {
    text_of(hour.start_ms())
}

/// Years of five digits are the last one of four.
fn text_of(unix_ms: u64) -> String {
    let text = rfc3339(unix_ms).unwrap_or(*b"9999-12-31T23:59:59.999Z");
    String::from_utf8_lossy(&text).into_owned()
}

fn hour_of(moment: &str) -> Option<Hour> {
    let since = humantime::parse_rfc3339(moment).ok()?.duration_since(std::time::UNIX_EPOCH).ok()?;
    Some(Hour::of(since.as_millis() as u64))
}
