//! The chain of one gateway in one archive, at its end.
//!
//! ```text
//! <data_dir>/archive/chain/<region>-<place>    where its end is, and the link that is under way
//! ```
//!
//! A link is noted here, whole and signed, before it is put into the archive: so no number is ever signed twice, and
//! whoever was killed in between puts the same bytes there. What lies in the archive is not asked, except by a gateway
//! that has no note: then only links count that its own key signed, each named by the one behind it.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::super::disk::Disk;
use super::super::note::{self, Stage};
use super::super::shelf::{EntryKind, Shelf};
use super::super::store::{Body, Reason, Store, StoreFault};
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

/// Who writes which chain where.
#[derive(Debug, Clone)]
pub struct Signer {
    pub key: SigningKey,
    pub gateway: String,
    pub region: String,
    /// Of the archive: another one has another chain.
    pub place: String,
    /// Unix milliseconds.
    pub clock: fn() -> u64,
}

/// The chain of one gateway in one region's archive.
#[derive(Debug)]
pub struct Chain<D> {
    disk: D,
    note: PathBuf,
    data_dir: PathBuf,
    signer: Signer,
    end: Option<End>,
    /// The link that is under way is noted, durably.
    noted: bool,
    /// What the archive has was compared with what is noted.
    compared: bool,
    /// What the next digest names, if all of it is known.
    since: Option<Vec<Named>>,
    /// The newest link that is worth keeping elsewhere: of a digest, or that was there at the start. Until it is told.
    newest: Option<Newest>,
}

/// A link that is durable in the archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Newest {
    pub number: u64,
    pub link: Vec<u8>,
}

/// The end of the chain, as it is noted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct End {
    v: u32,
    place: String,
    /// The newest link that is durable in the archive.
    head: Option<Head>,
    /// The hour whose digest is next, RFC 3339.
    from: String,
    /// By journal: the last LSN that has a link.
    linked: BTreeMap<String, u64>,
    /// The link behind the head: it may be there or not.
    next: Option<String>,
}

/// What a gateway noted of the objects that are in an archive.
#[derive(Debug, Default)]
pub struct Linked {
    /// By journal: the last LSN that has a link, durably.
    pub last: BTreeMap<String, u64>,
    /// The object whose link is under way: it may have it or not, and is in the archive.
    pub next: Option<ObjectLink>,
}

/// As the gateway noted it; that there is no note is no error.
pub fn linked<D: Disk>(disk: &D, data_dir: &Path, region: &str, place: &str) -> Linked {
    let end =
        note::load::<_, End>(disk, &note_of(data_dir, region, place)).ok().flatten().map(|(end, _)| end);
    let Some(end) = end.filter(|end| end.place == place) else { return Linked::default() };
    let next = end.next.and_then(|next| Sealed::split(next.as_bytes()).ok()?.link().ok()?.object);
    Linked { last: end.linked, next }
}

/// Of each place its own: whoever comes back to an archive knows where its chain ended.
fn note_of(data_dir: &Path, region: &str, place: &str) -> PathBuf {
    data_dir.join("archive").join(FOLDER).join(format!("{region}-{}", short(place)))
}

/// A short name of a place, which no other has.
pub fn short(place: &str) -> String {
    hash(place.as_bytes()).chars().take(16).collect()
}

impl End {
    /// The object has a link.
    fn count(&mut self, object: &ObjectLink) {
        let last = self.linked.entry(object.journal.clone()).or_default();
        *last = object.last_lsn.max(*last);
    }
}

impl<D: Disk> Chain<D> {
    pub fn new(disk: D, data_dir: &Path, signer: Signer) -> Self {
        let note = note_of(data_dir, &signer.region, &signer.place);
        Self {
            disk,
            note,
            data_dir: data_dir.to_owned(),
            signer,
            end: None,
            noted: true,
            compared: false,
            since: None,
            newest: None,
        }
    }

    /// The newest link that is known to be durable.
    pub fn head(&self) -> Option<&Head> {
        self.end.as_ref()?.head.as_ref()
    }

    /// Links an object, unless it has a link. Once this returns its link is there whatever happens.
    pub fn add(&mut self, store: &mut (impl Store + Shelf), object: &ObjectLink) -> Result<(), StoreFault> {
        if self.has(store, object)? {
            return Ok(());
        }
        self.append(store, Some(object.clone()), None)
    }

    /// Whether an object has a link.
    pub fn has(&mut self, store: &mut (impl Store + Shelf), object: &ObjectLink) -> Result<bool, StoreFault> {
        let end = self.settled(store)?;
        let is_counted = end.linked.get(&object.journal).is_some_and(|last| object.last_lsn <= *last);
        let is_named = |since: &Vec<Named>| since.contains(&object.named());
        Ok(is_counted || self.since.as_ref().is_some_and(is_named))
    }

    /// Adds the digest of the hours that are over. A link that came since to be the newest one worth keeping elsewhere.
    pub fn tick(&mut self, store: &mut (impl Store + Shelf)) -> Result<Option<Newest>, StoreFault> {
        let now = Hour::of((self.signer.clock)());
        let end = self.settled(store)?;
        // A clock that went back: the hours that come now have no digest yet, whatever was said of those to come.
        let from = hour_of(&end.from).unwrap_or(now).min(now);
        end.from = moment(from);
        if from != now {
            let objects = self.since(store)?;
            let digest = HourDigest { from: moment(from), until: moment(now), objects };
            self.append(store, None, Some(digest))?;
        }
        Ok(self.newest.take())
    }

    fn append(
        &mut self,
        store: &mut (impl Store + Shelf),
        object: Option<ObjectLink>,
        digest: Option<HourDigest>,
    ) -> Result<(), StoreFault> {
        let Signer { key, gateway, region, clock, .. } = self.signer.clone();
        let Some(end) = &mut self.end else { return Ok(()) };
        let number = end.head.as_ref().map_or(0, |head| head.number + 1);
        let previous = end.head.as_ref().map_or_else(String::new, |head| head.hash.clone());
        let mut link = Link::new(gateway, region, number, previous, text_of(clock()));
        (link.object, link.digest) = (object, digest);
        let bytes = link.seal(&key).map_err(io::Error::from)?;
        end.next = Some(String::from_utf8_lossy(&bytes).into_owned());
        self.noted = false;
        self.settled(store).map(drop)
    }

    /// The end of the chain, with nothing under way.
    fn settled(&mut self, store: &mut (impl Store + Shelf)) -> Result<&mut End, StoreFault> {
        if !std::mem::replace(&mut self.compared, true)
            && let Err(fault) = self.begin(store)
        {
            self.compared = false;
            return Err(fault);
        }
        if let Some(End { head, next: Some(next), .. }) = &self.end {
            let number = head.as_ref().map_or(0, |head| head.number + 1);
            let name = self.place_of(number)?;
            if !self.noted {
                self.save()?;
                self.noted = true;
            }
            store.put(&name, &Body::Bytes(next.as_bytes()))?;
            let next = next.clone();
            self.added(&next);
        }
        self.end.as_mut().ok_or_else(|| StoreFault::new(Reason::Other, "the chain's end is not known"))
    }

    /// The link behind the head is durable.
    fn added(&mut self, bytes: &str) {
        let Some(end) = &mut self.end else { return };
        end.next = None;
        let Ok(link) = Sealed::split(bytes.as_bytes()).and_then(|sealed| sealed.link()) else { return };
        let head = Head { number: link.number, hash: hash(bytes.as_bytes()) };
        if let Some(object) = &link.object {
            end.count(object);
            self.since.iter_mut().for_each(|since| since.push(object.named()));
        }
        if let Some(digest) = &link.digest {
            end.from.clone_from(&digest.until);
            self.since = Some(Vec::new());
            self.newest = Some(Newest { number: link.number, link: bytes.as_bytes().to_vec() });
            tracing::info!(region = %self.signer.region, link = head.number, hash = %head.hash, "an hour was added to the archive's chain");
        }
        end.head = Some(head);
    }

    /// Reads the note, or what there is in the archive; and compares them.
    fn begin(&mut self, store: &impl Shelf) -> Result<(), StoreFault> {
        let noted = note::load::<_, End>(&self.disk, &self.note).unwrap_or_else(|error| {
            tracing::error!(region = %self.signer.region, %error, "the note of the archive's chain cannot be read; looking for its end in the archive");
            None
        });
        let noted = noted.map(|(end, _)| end).filter(|end| end.v == 1 && end.place == self.signer.place);
        let is_noted = noted.is_some();
        let end = match noted {
            Some(end) => end,
            None => self.adopt(store)?,
        };
        self.end = Some(end);
        if !is_noted {
            // What has a link since the last digest is all that is known of what has one.
            self.since(store)?;
        }
        if is_noted && let Some(head) = self.head().cloned() {
            let found = self.read(store, head.number)?.filter(|bytes| hash(bytes) == head.hash);
            if let Some(link) = found {
                self.newest = Some(Newest { number: head.number, link });
            } else {
                tracing::error!(
                    region = %self.signer.region, link = head.number, hash = %head.hash,
                    "the archive's chain is not the one that this gateway wrote: links were removed or changed; run `penstock archive verify`"
                );
            }
        }
        self.catch_up(store)
    }

    /// A data folder of before, put back: the links that came after it are there, and nobody else can have made them.
    fn catch_up(&mut self, store: &impl Shelf) -> Result<(), StoreFault> {
        loop {
            let Some(end) = &self.end else { return Ok(()) };
            let number = end.head.as_ref().map_or(0, |head| head.number + 1);
            let previous = end.head.as_ref().map_or("", |head| &head.hash);
            let bytes = self.read(store, number)?;
            let own = bytes.as_ref().and_then(|bytes| self.own(bytes, number));
            let (Some(link), Some(bytes)) = (own, bytes) else { return Ok(()) };
            if link.previous != previous {
                return Ok(());
            }
            let is_next = end.next.as_ref().is_some_and(|next| next.as_bytes() == bytes);
            let linked = end.linked.clone();
            if !is_next {
                tracing::error!(
                    region = %self.signer.region, link = number,
                    "the archive has a link that this data folder does not know: it is one of before; going on behind it"
                );
            }
            self.added(&String::from_utf8_lossy(&bytes));
            if let Some(end) = self.end.as_mut().filter(|_| !is_next) {
                // What came after that folder is not in its journals: their numbers are given again, to others.
                end.linked = linked;
            }
        }
    }

    /// The chain's end as the archive has it, as far as this gateway's key signed it.
    fn adopt(&mut self, store: &impl Shelf) -> Result<End, StoreFault> {
        let folder = format!("{FOLDER}/{}", self.signer.gateway);
        let names = store.names(&folder)?.into_iter().filter(|entry| entry.kind == EntryKind::File);
        let mut numbers: Vec<u64> = names.filter_map(|entry| number_of(&entry.name)).collect();
        numbers.sort_unstable();
        let there = numbers.len();
        let from = moment(Hour::of((self.signer.clock)()));
        let mut end = End { v: 1, place: self.signer.place.clone(), from, ..End::default() };
        let mut newest = None;
        while let Some(number) = numbers.pop() {
            if let Some(bytes) = self.read(store, number)?
                && self.own(&bytes, number).is_some()
            {
                newest = Some(Head { number, hash: hash(&bytes) });
                break;
            }
        }
        if newest.is_none() && there > 0 {
            let what = format!(
                "{folder} has {there} links, and none that this key signed for this region: give the gateway the key that did, or \
                 archive into an empty folder or bucket, where a chain can begin"
            );
            return Err(StoreFault::new(Reason::Taken, what));
        }
        end.head.clone_from(&newest);
        // Back to the last digest, which tells the hour.
        let mut next = newest;
        while let Some(Head { number, hash: expected }) = next.take() {
            let Some(bytes) = self.read(store, number)?.filter(|bytes| hash(bytes) == expected) else {
                break;
            };
            let Ok(link) = Sealed::split(&bytes).and_then(|sealed| sealed.link()) else { break };
            if let Some(digest) = link.digest {
                end.from = digest.until;
                break;
            }
            // Without a digest before it the chain began here.
            end.from = hour_of(&link.at).map_or(end.from, moment);
            next = number.checked_sub(1).map(|number| Head { number, hash: link.previous });
        }
        Ok(end)
    }

    /// The objects since the last digest.
    fn since(&mut self, store: &impl Shelf) -> Result<Vec<Named>, StoreFault> {
        if let Some(since) = &self.since {
            return Ok(since.clone());
        }
        let mut since = Vec::new();
        let mut next = self.head().cloned();
        while let Some(Head { number, hash: expected }) = next.take() {
            // What is missing or changed whoever verifies is told.
            let Some(bytes) = self.read(store, number)?.filter(|bytes| hash(bytes) == expected) else {
                break;
            };
            let Ok(link) = Sealed::split(&bytes).and_then(|sealed| sealed.link()) else { break };
            if link.digest.is_some() {
                break;
            }
            since.extend(link.object.as_ref().map(ObjectLink::named));
            next = number.checked_sub(1).map(|number| Head { number, hash: link.previous });
        }
        since.reverse();
        Ok(self.since.insert(since).clone())
    }

    /// A link, if this gateway made it.
    fn own(&self, bytes: &[u8], number: u64) -> Option<Link> {
        let sealed = Sealed::split(bytes).ok()?;
        let link = sealed.is_signed_by(self.signer.key.public()).then(|| sealed.link())?.ok()?;
        let Signer { gateway, region, .. } = &self.signer;
        (link.number == number && link.gateway == *gateway && link.region == *region).then_some(link)
    }

    fn save(&self) -> io::Result<()> {
        let archive = self.data_dir.join("archive");
        let folder = archive.join(FOLDER);
        if !self.disk.exists(&folder)? {
            self.disk.make_dir(&archive)?;
            self.disk.sync_dir(&self.data_dir)?;
            self.disk.make_dir(&folder)?;
            self.disk.sync_dir(&archive)?;
        }
        note::save(&self.disk, &self.note, &self.end, &[], |stage| {
            if stage == Stage::Durable {
                fault::point("link-noted");
            }
            true
        })
    }

    fn place_of(&self, number: u64) -> Result<String, StoreFault> {
        if number < LINKS_MAX {
            return Ok(format!("{FOLDER}/{}/{}", self.signer.gateway, file_name(number)));
        }
        Err(StoreFault::new(Reason::Other, format!("there is no number for link {number}")))
    }

    /// `None` if it is missing or no file.
    fn read(&self, store: &impl Shelf, number: u64) -> Result<Option<Vec<u8>>, StoreFault> {
        let Ok(name) = self.place_of(number) else { return Ok(None) };
        let Some(file) = store.open(&name)? else { return Ok(None) };
        let mut bytes = Vec::new();
        file.take(LINK_MAX).read_to_end(&mut bytes)?;
        Ok(Some(bytes))
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
