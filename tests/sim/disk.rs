//! A disk of memory that can end the world before any step, and then forgets what was not synced: pages
//! and names each on their own, and pages that were being written also by halves.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use penstock::journal::buffer::BLOCK;

#[path = "faces.rs"]
mod faces;

/// SplitMix64.
#[derive(Debug, Clone)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.next() % n.max(1)
    }

    pub(crate) fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

/// `None`: zeros.
type Page = Option<Rc<[u8; BLOCK]>>;

#[derive(Debug, Clone, Default)]
struct Inode {
    folder: bool,
    pages: Vec<Page>,
    len: usize,
    /// What is durable of the pages that were changed since, and the length.
    old: BTreeMap<usize, Page>,
    old_len: usize,
}

impl Inode {
    fn bytes(&self, at: usize, len: usize) -> Vec<u8> {
        let (at, end) = (at.min(self.len), (at + len).min(self.len));
        let mut out = Vec::with_capacity(end.saturating_sub(at));
        let mut from = at;
        while from < end {
            let (page, skip) = (from / BLOCK, from % BLOCK);
            let count = (BLOCK - skip).min(end - from);
            match self.pages.get(page) {
                Some(Some(page)) => out.extend_from_slice(&page[skip..skip + count]),
                _ => out.resize(out.len() + count, 0),
            }
            from += count;
        }
        out
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        let end = at + bytes.len();
        self.len = self.len.max(end);
        self.pages.resize(self.len.div_ceil(BLOCK).max(self.pages.len()), None);
        let mut from = at;
        while from < end {
            let (number, skip) = (from / BLOCK, from % BLOCK);
            let count = (BLOCK - skip).min(end - from);
            let page = &mut self.pages[number];
            self.old.entry(number).or_insert_with(|| page.clone());
            let mut new = page.as_deref().copied().unwrap_or([0; BLOCK]);
            new[skip..skip + count].copy_from_slice(&bytes[from - at..from - at + count]);
            *page = Some(Rc::new(new));
            from += count;
        }
    }

    fn zero(&mut self, from: usize, to: usize) {
        for number in from / BLOCK..to.min(self.len).div_ceil(BLOCK) {
            let page = &mut self.pages[number];
            self.old.entry(number).or_insert_with(|| page.clone());
            *page = None;
        }
    }

    fn set_len(&mut self, len: usize) {
        self.zero(len.next_multiple_of(BLOCK), self.len);
        self.len = len;
    }

    fn synced(&mut self) {
        self.old.clear();
        self.old_len = self.len;
    }

    /// Pages from `from` to `to` are durable.
    fn settle(&mut self, from: usize, to: usize) {
        for number in from / BLOCK..to.div_ceil(BLOCK) {
            self.old.remove(&number);
        }
    }

    /// A page whose write was cut off: old, new, or new up to some byte.
    fn tear(&mut self, number: usize, random: &mut Random) {
        let Some(old) = self.old.get(&number).cloned() else { return };
        match random.below(4) {
            0 | 1 => self.pages[number] = old,
            2 => {}
            _ => {
                let mut torn = old.as_deref().copied().unwrap_or([0; BLOCK]);
                let new = self.pages[number].as_deref().copied().unwrap_or([0; BLOCK]);
                let cut = random.below(BLOCK as u64 + 1) as usize;
                torn[..cut].copy_from_slice(&new[..cut]);
                self.pages[number] = Some(Rc::new(torn));
            }
        }
    }
}

/// A path: compared as text, which is what most of the time would go to.
type Name = Rc<str>;

fn name(path: &Path) -> Name {
    path.to_str().expect("a path of the simulation").into()
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path of the simulation")
}

/// The folder that a file or folder is in.
fn above(name: &str) -> &str {
    match name.rsplit_once('/') {
        Some(("", _)) | None => "/",
        Some((above, _)) => above,
    }
}

/// A change of names that its folder's sync makes durable.
#[derive(Debug, Clone)]
enum Change {
    Add(Name, usize),
    Remove(Name),
    Rename(Name, Name, usize),
}

/// A write that goes around the page cache and is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Flight {
    inode: usize,
    from: usize,
    to: usize,
}

#[derive(Debug, Clone, Default)]
struct State {
    inodes: Vec<Inode>,
    names: BTreeMap<Name, usize>,
    durable: BTreeMap<Name, usize>,
    /// With the folders whose sync ends them.
    pending: Vec<([Name; 2], Change)>,
    flights: Vec<Flight>,
    /// Steps until the world ends.
    fuse: Option<u64>,
    steps: u64,
    ended: bool,
    full: bool,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct MemoryDisk(Rc<RefCell<State>>);

fn missing() -> io::Error {
    io::Error::from(io::ErrorKind::NotFound)
}

impl State {
    fn step(&mut self) -> io::Result<()> {
        self.steps += 1;
        match &mut self.fuse {
            Some(0) => {
                self.ended = true;
                Err(io::Error::other("the world has ended"))
            }
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn space(&self) -> io::Result<()> {
        if self.full { Err(io::Error::from(io::ErrorKind::StorageFull)) } else { Ok(()) }
    }

    fn number(&self, path: &Path) -> io::Result<usize> {
        self.names.get(text(path)).copied().ok_or_else(missing)
    }

    fn inode(&mut self, path: &Path) -> io::Result<&mut Inode> {
        let number = self.number(path)?;
        Ok(&mut self.inodes[number])
    }

    fn apply(names: &mut BTreeMap<Name, usize>, change: &Change) {
        match change {
            Change::Add(path, inode) => drop(names.insert(path.clone(), *inode)),
            Change::Remove(path) => drop(names.remove(path)),
            Change::Rename(from, to, inode) => {
                names.remove(from);
                names.insert(to.clone(), *inode);
            }
        }
    }

    fn change(&mut self, change: Change) {
        Self::apply(&mut self.names, &change);
        let folders = match &change {
            Change::Add(name, _) | Change::Remove(name) => [name, name],
            Change::Rename(from, to, _) => [from, to],
        };
        self.pending.push((folders.map(|name| above(name).into()), change));
    }

    fn add(&mut self, path: &Path, inode: Inode) -> usize {
        self.inodes.push(inode);
        let number = self.inodes.len() - 1;
        self.change(Change::Add(name(path), number));
        number
    }

    /// A new file, or one that is emptied.
    fn create(&mut self, path: &Path) -> usize {
        match self.number(path) {
            Ok(number) => {
                self.inodes[number].set_len(0);
                number
            }
            Err(_) => self.add(path, Inode::default()),
        }
    }
}

impl MemoryDisk {
    /// The world ends before step `steps` from now; `None`: it goes on.
    pub(crate) fn set_fuse(&self, steps: Option<u64>) {
        self.0.borrow_mut().fuse = steps;
    }

    pub(crate) fn steps(&self) -> u64 {
        self.0.borrow().steps
    }

    /// After a power cut: of what was not synced, any part. After a kill (`power` false): all of it, and
    /// any part of what was being written around the page cache.
    pub(crate) fn crash(&self, random: &mut Random, power: bool) {
        let mut state = self.0.borrow_mut();
        let State { inodes, names, durable, pending, flights, fuse, ended, .. } = &mut *state;
        (*fuse, *ended) = (None, false);
        for (_, change) in pending.drain(..) {
            if !power || random.one_in(2) {
                State::apply(durable, &change);
            }
        }
        names.clone_from(durable);
        for flight in flights.drain(..) {
            let inode = &mut inodes[flight.inode];
            for number in flight.from / BLOCK..flight.to.div_ceil(BLOCK) {
                inode.tear(number, random);
                inode.old.remove(&number);
            }
        }
        for inode in inodes.iter_mut().filter(|inode| !inode.old.is_empty() || inode.len != inode.old_len) {
            if power {
                let numbers: Vec<usize> = inode.old.keys().copied().collect();
                numbers.into_iter().for_each(|number| inode.tear(number, random));
                if inode.len != inode.old_len && random.one_in(2) {
                    inode.len = inode.old_len;
                    inode.pages.resize(inode.len.div_ceil(BLOCK).max(inode.pages.len()), None);
                }
            }
            inode.synced();
        }
        // Nothing is found whose folder is not there.
        let mut folders = BTreeSet::from([Name::from("/")]);
        // A folder comes before what is in it.
        names.retain(|name, inode| {
            let stays = folders.contains(above(name));
            if stays && inodes[*inode].folder {
                folders.insert(Rc::clone(name));
            }
            stays
        });
        durable.clone_from(names);
    }

    /// Durable at once. Not a step.
    pub(crate) fn put(&self, path: &Path, at: u64, bytes: &[u8]) {
        let mut state = self.0.borrow_mut();
        let inode = state.inode(path).unwrap();
        inode.put(at as usize, bytes);
        inode.settle(at as usize, at as usize + bytes.len());
    }

    /// A file of zeros, durable with its name.
    pub(crate) fn make(&self, path: &Path, len: usize) {
        let mut state = self.0.borrow_mut();
        let pages = vec![None; len.div_ceil(BLOCK)];
        state.inodes.push(Inode { pages, len, old_len: len, ..Inode::default() });
        let number = state.inodes.len() - 1;
        state.names.insert(name(path), number);
        state.durable.insert(name(path), number);
        drop(state);
        path.parent().into_iter().for_each(|dir| self.make_folder(dir));
    }

    /// A folder with all that it is in, durable.
    pub(crate) fn make_folder(&self, path: &Path) {
        let mut state = self.0.borrow_mut();
        for folder in path.ancestors().filter(|folder| *folder != Path::new("/")) {
            if !state.names.contains_key(text(folder)) {
                state.inodes.push(Inode { folder: true, ..Inode::default() });
                let number = state.inodes.len() - 1;
                state.names.insert(name(folder), number);
                state.durable.insert(name(folder), number);
            }
        }
    }

    /// All files with what they hold.
    pub(crate) fn files(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let state = self.0.borrow();
        let files = state.names.iter().filter(|(_, inode)| !state.inodes[**inode].folder);
        files
            .map(|(name, inode)| {
                (PathBuf::from(&**name), state.inodes[*inode].bytes(0, state.inodes[*inode].len))
            })
            .collect()
    }
}
