//! Follows one gateway's chain, from link to link.

use std::collections::HashMap;
use std::io::{self, Read};

use aws_lc_rs::digest::{Context, SHA256};

use super::super::super::index::name_of;
use super::super::super::shelf::{Entry, EntryKind, Shelf};
use super::super::link::{HourDigest, Link, LinkFault, Named, ObjectLink, Sealed, hash, hex};
use super::super::{FOLDER, Head, LINK_MAX, file_name, number_of};
use super::object::Claim;
use super::{Kind, Proven, STRANGE, Verifier};

/// A link that nobody signed is looked into, to say what it is, if it is no longer.
const UNSIGNED_MAX: usize = 1 << 20;

/// No object is larger than a configuration may say, but for its last frame; one that is was changed.
const OBJECT_MAX: u64 = 65 << 30;

/// What must hold from one link to the next.
#[derive(Debug, Default)]
pub(super) struct Walk {
    proven: Proven,
    /// Number of the next link.
    next: u64,
    region: Option<String>,
    /// Of the link before; `None` if there is none to compare with.
    previous: Option<String>,
    /// Keys that signed, in the order of their first links.
    keys: Vec<String>,
    /// Objects that have a link, and their digests.
    linked: HashMap<String, String>,
    /// Objects since the last digest, and up to when that was.
    since: Vec<Named>,
    until: Option<String>,
    /// A link is missing or unreadable: what was in it is not known.
    gap: bool,
}

impl Walk {
    pub(super) fn new(gateway: &str) -> Self {
        Self { proven: Proven { gateway: gateway.to_owned(), ..Proven::default() }, ..Self::default() }
    }

    /// `None` if there is no link.
    pub(super) fn into_proven(self) -> Option<Proven> {
        let region = self.region.unwrap_or_default();
        (self.next > 0).then_some(Proven { region, ..self.proven })
    }
}

impl<S: Shelf + ?Sized> Verifier<'_, S> {
    pub(super) fn chain(&mut self, walk: &mut Walk) -> io::Result<()> {
        let below = format!("{FOLDER}/{}", walk.proven.gateway);
        let mut numbers = Vec::new();
        for Entry { name, kind, .. } in self.shelf.names(&below)? {
            match number_of(&name) {
                Some(number) if kind == EntryKind::File => numbers.push(number),
                Some(_) => self.tell(Kind::Added, format!("{below}/{name}"), STRANGE),
                None => self.tell(Kind::Added, format!("{below}/{name}"), "it is not called like a link"),
            }
        }
        numbers.sort_unstable();
        let known = walk.next;
        for number in numbers.into_iter().filter(|number| *number >= known) {
            let next = walk.next;
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
            self.link(number, walk)?;
            walk.next = number + 1;
        }
        Ok(())
    }

    fn link(&mut self, number: u64, walk: &mut Walk) -> io::Result<()> {
        let place = format!("{FOLDER}/{}/{}", walk.proven.gateway, file_name(number));
        let mut bytes = Vec::new();
        if let Some(file) = self.shelf.open(&place)? {
            file.take(LINK_MAX).read_to_end(&mut bytes)?;
        }
        let hash = hash(&bytes);
        self.heads.remove(hash.as_str());
        let previous = walk.previous.replace(hash.clone());
        let link = match self.believed(&place, &bytes, walk) {
            Ok(Some(link)) => link,
            Ok(None) => {
                walk.gap = true;
                return Ok(());
            }
            Err(what) => {
                self.tell(Kind::Changed, place, what.to_string());
                walk.gap = true;
                return Ok(());
            }
        };
        if number == 0 && !link.previous.is_empty() || previous.is_some_and(|hash| hash != link.previous) {
            self.tell(Kind::Changed, &place, "the link before it is not the one that it was made behind");
        }
        let region = self.region.get_or_insert_with(|| link.region.clone());
        walk.region.get_or_insert_with(|| region.clone());
        if link.number != number || link.gateway != walk.proven.gateway || link.region != *region {
            let what = format!("it is link {} of {} in {}", link.number, link.gateway, link.region);
            self.tell(Kind::Moved, &place, what);
        }
        walk.proven.links += 1;
        walk.proven.newest = Some((Head { number, hash }, link.at.clone()));
        match (&link.object, &link.digest) {
            (Some(object), None) => self.object(&place, object, walk),
            (None, Some(digest)) => self.digest(&place, digest, walk),
            _ => {
                self.tell(Kind::Wrong, place, "it is neither an object's nor a digest");
                Ok(())
            }
        }
    }

    /// What a link says if somebody signed it who may; `None` if nobody did, which is told.
    fn believed(&mut self, place: &str, bytes: &[u8], walk: &mut Walk) -> Result<Option<Link>, LinkFault> {
        let sealed = Sealed::split(bytes)?;
        let may =
            |key: &&super::Key| key.gateway.as_ref().is_none_or(|gateway| *gateway == walk.proven.gateway);
        let signer = self.keys.iter().filter(may).find(|key| sealed.is_signed_by(key.public));
        let Some(signer) = signer.map(|key| key.public.id()) else {
            if sealed.is_longer(UNSIGNED_MAX) {
                return Err(LinkFault::Unsigned);
            }
            let link = sealed.link()?;
            let what = if self.keys.iter().filter(may).any(|key| key.public.id() == link.key) {
                "its signature is not one of what it says".to_owned()
            } else {
                format!("its key {:.40} is none of those given for {}", link.key, walk.proven.gateway)
            };
            self.tell(Kind::Forged, place, what);
            return Ok(None);
        };
        let link = sealed.link()?;
        if link.key != signer {
            self.tell(Kind::Wrong, place, format!("it was signed with {signer} and says {:.40}", link.key));
        }
        match walk.keys.iter().position(|key| *key == signer) {
            None => walk.keys.push(signer),
            Some(at) if at + 1 < walk.keys.len() => {
                self.tell(
                    Kind::Wrong,
                    place,
                    format!("{signer} signed it, and the gateway had another key by then"),
                );
            }
            Some(_) => {}
        }
        Ok(Some(link))
    }

    fn object(&mut self, link: &str, object: &ObjectLink, walk: &mut Walk) -> io::Result<()> {
        walk.since.push(object.named());
        match walk.linked.insert(object.name.clone(), object.sha256.clone()) {
            // A gateway that lost its notes says the same once more.
            Some(before) if before == object.sha256 => return Ok(()),
            Some(_) => self.tell(Kind::Wrong, link, format!("{} has another link already", object.name)),
            None => {}
        }
        let claim = Claim { gateway: &walk.proven.gateway, region: walk.region.as_deref(), object };
        if !claim.is_named() {
            self.tell(Kind::Wrong, link, format!("{:?} is no name of an object of it", object.name));
            return Ok(());
        }
        let is_listed = self.unlinked.remove(&object.name);
        self.index(link, object)?;
        let Some(file) = self.shelf.open(&object.name)? else {
            self.tell(Kind::Removed, &object.name, format!("{} records of {link}", object.records));
            return Ok(());
        };
        if let Err(what) = claim.compare(file)? {
            self.tell(Kind::Changed, &object.name, format!("{what} ({link})"));
        }
        walk.proven.objects += 1;
        walk.proven.records += object.records;
        walk.proven.bytes += object.bytes;
        if is_listed {
            self.read += 1;
            (self.progress)(self.read, self.listed);
        }
        Ok(())
    }

    /// Whether an object's index is what was put beside it.
    fn index(&mut self, link: &str, object: &ObjectLink) -> io::Result<()> {
        let Some(index) = &object.index else { return Ok(()) };
        let name = object.index_name();
        self.unlinked.remove(&name);
        match self.sha256(&name, index.bytes)? {
            None => self.tell(Kind::Removed, name, format!("the index of an object ({link})")),
            Some(found) if found != index.sha256 => {
                self.tell(Kind::Changed, name, format!("it is not the index that was put there ({link})"));
            }
            Some(_) => {}
        }
        Ok(())
    }

    /// Of a file that should have so many bytes.
    fn sha256(&self, name: &str, bytes: u64) -> io::Result<Option<String>> {
        let Some(file) = self.shelf.open(name)? else { return Ok(None) };
        let (mut file, mut context, mut chunk) =
            (file.take(bytes.saturating_add(1)), Context::new(&SHA256), vec![0; 64 << 10]);
        loop {
            match file.read(&mut chunk)? {
                0 => return Ok(Some(hex(context.finish().as_ref()))),
                read => context.update(&chunk[..read]),
            }
        }
    }

    fn digest(&mut self, place: &str, digest: &HourDigest, walk: &mut Walk) -> io::Result<()> {
        let since = std::mem::take(&mut walk.since);
        let before = walk.until.replace(digest.until.clone());
        // What was in a link that is missing nobody knows.
        if std::mem::take(&mut walk.gap) {
            for object in digest.objects.iter().filter(|object| !since.contains(object)) {
                self.tell(Kind::Removed, &object.name, format!("its link; {place} names it"));
                self.unlinked.remove(&object.name);
                name_of(&object.name).inspect(|index| {
                    self.unlinked.remove(index);
                });
                match self.sha256(&object.name, OBJECT_MAX)? {
                    Some(found) if found == object.sha256 => {}
                    Some(_) => {
                        self.tell(Kind::Changed, &object.name, format!("its digest is another one ({place})"))
                    }
                    None => {
                        self.tell(Kind::Removed, &object.name, format!("and the object itself ({place})"))
                    }
                }
            }
            return Ok(());
        }
        if since != digest.objects {
            self.tell(Kind::Wrong, place, "it does not name the objects since the last digest");
        }
        // A clock may have gone back.
        if before.is_some_and(|until| until < digest.from) || digest.from >= digest.until {
            self.tell(Kind::Wrong, place, "its hours do not follow those of the last digest");
        }
        Ok(())
    }
}
