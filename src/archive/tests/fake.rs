//! A file system in memory that can lose its power at any step: then nothing is left but what was synced,
//! or also some of the rest, as disks do.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Cursor, Error, Read};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::super::disk::Disk;
use super::super::shelf::{Entry, EntryKind};
use crate::parse::tests::Rng;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Node {
    Folder,
    File(usize),
}

#[derive(Debug, Clone, Default)]
struct Inode {
    bytes: Vec<u8>,
    synced: usize,
}

/// What survives a crash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Crash {
    /// kill -9: all that was written.
    Process,
    /// Only what was synced.
    Strict,
    /// That, and any of the rest.
    Some,
}

#[derive(Debug, Default)]
struct State {
    inodes: Vec<Inode>,
    live: BTreeMap<PathBuf, Node>,
    durable: BTreeMap<PathBuf, Node>,
    /// Steps until the end; `None` = never.
    left: Option<usize>,
    taken: usize,
    /// One of so many steps fails, without an end of everything; 0 = none does.
    faulty: usize,
    rng: u64,
    /// Files whose sectors cannot be read any more.
    broken: BTreeSet<PathBuf>,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Fake(Rc<RefCell<State>>);

impl Fake {
    pub(super) fn with_folders(folders: &[&str]) -> Self {
        let fake = Self::default();
        {
            let mut state = fake.0.borrow_mut();
            for folder in folders {
                state.live.insert(folder.into(), Node::Folder);
                state.durable.insert(folder.into(), Node::Folder);
            }
        }
        fake
    }

    /// After so many more steps every call fails.
    pub(super) fn die_after(&self, steps: Option<usize>) {
        self.0.borrow_mut().left = steps;
    }

    pub(super) fn fail_one_in(&self, faulty: usize, seed: u64) {
        let mut state = self.0.borrow_mut();
        (state.faulty, state.rng) = (faulty, seed);
    }

    /// It cannot be read any more, until it is written anew.
    pub(super) fn break_file(&self, path: &Path) {
        self.0.borrow_mut().broken.insert(path.to_owned());
    }

    pub(super) fn is_dead(&self) -> bool {
        self.0.borrow().left == Some(0)
    }

    pub(super) fn taken(&self) -> usize {
        self.0.borrow().taken
    }

    /// The disk as it is found after the crash.
    pub(super) fn after(&self, crash: Crash, rng: &mut Rng) -> Self {
        let state = self.0.borrow();
        let keep = |rng: &mut Rng| match crash {
            Crash::Process => true,
            Crash::Strict => false,
            Crash::Some => rng.one_in(2),
        };
        let mut inodes = state.inodes.clone();
        for inode in &mut inodes {
            if !keep(rng) {
                let more = inode.bytes.len().saturating_sub(inode.synced);
                let torn = if crash == Crash::Some { rng.below(more + 1) } else { 0 };
                inode.bytes.truncate(inode.synced + torn);
            }
            inode.synced = inode.bytes.len();
        }
        let mut names = state.durable.clone();
        for (path, node) in &state.live {
            if state.durable.get(path) != Some(node) && keep(rng) {
                names.insert(path.clone(), *node);
            }
        }
        for path in state.durable.keys() {
            if !state.live.contains_key(path) && keep(rng) {
                names.remove(path);
            }
        }
        // Nothing is found whose folder is not there.
        let there = |path: &Path, names: &BTreeMap<PathBuf, Node>| {
            path.ancestors()
                .skip(1)
                .filter(|folder| *folder != Path::new("/"))
                .all(|folder| names.contains_key(folder))
        };
        let kept: BTreeMap<PathBuf, Node> = names
            .iter()
            .filter(|(path, _)| there(path, &names))
            .map(|(path, node)| (path.clone(), *node))
            .collect();
        let state = State { inodes, live: kept.clone(), durable: kept, ..State::default() };
        Self(Rc::new(RefCell::new(state)))
    }

    /// All files with what is in them.
    pub(super) fn files(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let state = self.0.borrow();
        let file = |(path, node): (&PathBuf, &Node)| match node {
            Node::File(inode) => Some((path.clone(), state.inodes[*inode].bytes.clone())),
            Node::Folder => None,
        };
        state.live.iter().filter_map(file).collect()
    }

    /// Counts a step; fails if it is not to happen.
    fn step(&self) -> io::Result<()> {
        let mut state = self.0.borrow_mut();
        if let Some(left) = state.left {
            if left == 0 {
                return Err(Error::other("no power"));
            }
            state.left = Some(left - 1);
            if left == 1 {
                return Err(Error::other("power cut"));
            }
        }
        state.taken += 1;
        if state.faulty > 0 {
            state.rng =
                state.rng.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            if (state.rng >> 33).is_multiple_of(state.faulty as u64) {
                return Err(Error::from(io::ErrorKind::StorageFull));
            }
        }
        Ok(())
    }

    fn node(&self, path: &Path) -> io::Result<Node> {
        self.0.borrow().live.get(path).copied().ok_or_else(|| Error::from(io::ErrorKind::NotFound))
    }

    fn has_folder(&self, path: &Path) -> io::Result<()> {
        match path.parent() {
            Some(folder) if folder != Path::new("/") => match self.node(folder)? {
                Node::Folder => Ok(()),
                Node::File(_) => Err(Error::from(io::ErrorKind::NotADirectory)),
            },
            _ => Ok(()),
        }
    }
}

impl Disk for Fake {
    type File = usize;

    fn create(&self, path: &Path) -> io::Result<usize> {
        self.step()?;
        self.has_folder(path)?;
        let mut state = self.0.borrow_mut();
        state.broken.remove(path);
        state.inodes.push(Inode::default());
        let inode = state.inodes.len() - 1;
        state.live.insert(path.to_owned(), Node::File(inode));
        Ok(inode)
    }

    fn append(&self, file: &mut usize, bytes: &[u8]) -> io::Result<()> {
        let step = self.step();
        // A write that fails may have written half.
        let len = if step.is_ok() { bytes.len() } else { bytes.len() / 2 };
        if step.is_ok() || !self.is_dead() {
            self.0.borrow_mut().inodes[*file].bytes.extend_from_slice(&bytes[..len]);
        }
        step
    }

    fn sync(&self, file: &usize) -> io::Result<()> {
        self.step()?;
        let mut state = self.0.borrow_mut();
        let inode = &mut state.inodes[*file];
        inode.synced = inode.bytes.len();
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.step()?;
        self.has_folder(to)?;
        let node = self.node(from)?;
        let mut state = self.0.borrow_mut();
        state.live.remove(from);
        assert!(
            to.starts_with("/data/archive") || !state.live.contains_key(to),
            "{} is written a second time",
            to.display()
        );
        state.live.insert(to.to_owned(), node);
        Ok(())
    }

    fn make_dir(&self, path: &Path) -> io::Result<()> {
        self.step()?;
        self.has_folder(path)?;
        self.0.borrow_mut().live.insert(path.to_owned(), Node::Folder);
        Ok(())
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.step()?;
        self.node(path)?;
        let mut state = self.0.borrow_mut();
        let own: Vec<(PathBuf, Node)> = state
            .live
            .iter()
            .filter(|(p, _)| p.parent() == Some(path))
            .map(|(p, n)| (p.clone(), *n))
            .collect();
        state.durable.retain(|p, _| p.parent() != Some(path));
        state.durable.extend(own);
        Ok(())
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.step()?;
        Ok(self.node(path).is_ok())
    }

    fn read(&self, path: &Path, offset: u64) -> io::Result<Box<dyn Read>> {
        self.step()?;
        if self.0.borrow().broken.contains(path) {
            return Err(Error::other("input/output error"));
        }
        match self.node(path)? {
            Node::File(inode) => {
                let mut file = Cursor::new(self.0.borrow().inodes[inode].bytes.clone());
                file.set_position(offset);
                Ok(Box::new(file))
            }
            Node::Folder => Err(Error::from(io::ErrorKind::IsADirectory)),
        }
    }

    fn list(&self, path: &Path) -> io::Result<Vec<Entry>> {
        self.step()?;
        if let Node::File(_) = self.node(path)? {
            return Err(Error::from(io::ErrorKind::NotADirectory));
        }
        let state = self.0.borrow();
        let own = state.live.iter().filter(|(p, _)| p.parent() == Some(path));
        let entry = |(path, node): (&PathBuf, &Node)| {
            let (kind, bytes) = match node {
                Node::Folder => (EntryKind::Folder, 0),
                Node::File(inode) => (EntryKind::File, state.inodes[*inode].bytes.len() as u64),
            };
            Some(Entry { name: path.file_name()?.to_str()?.to_owned(), kind, bytes })
        };
        Ok(own.filter_map(entry).collect())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.step()?;
        self.0.borrow_mut().live.remove(path).map(|_| ()).ok_or_else(|| Error::from(io::ErrorKind::NotFound))
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.remove(path)
    }
}
