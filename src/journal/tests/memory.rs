//! A disk of memory that can end the world before any step, and then forgets what was not synced.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use super::super::buffer::BLOCK;
use super::super::disk::Disk;

/// SplitMix64.
#[derive(Debug, Clone)]
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n.max(1)
    }

    pub(super) fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

#[derive(Debug, Clone, Default)]
struct Inode {
    now: Vec<u8>,
    durable: Vec<u8>,
    synced: bool,
}

/// A change of names that its folder's sync makes durable.
#[derive(Debug, Clone)]
enum Change {
    Add(PathBuf, u64),
    Remove(PathBuf),
    Rename(PathBuf, PathBuf, u64),
}

#[derive(Debug, Clone, Default)]
struct State {
    inodes: BTreeMap<u64, Inode>,
    names: BTreeMap<PathBuf, u64>,
    durable: BTreeMap<PathBuf, u64>,
    /// With the folders whose sync ends them.
    pending: Vec<(Vec<PathBuf>, Change)>,
    /// Steps until the world ends.
    fuse: Option<u64>,
    steps: u64,
}

#[derive(Debug, Clone, Default)]
pub(super) struct MemoryDisk(RefCell<State>);

fn parent(path: &Path) -> PathBuf {
    path.parent().unwrap().to_owned()
}

fn missing() -> io::Error {
    io::Error::from(io::ErrorKind::NotFound)
}

impl State {
    fn step(&mut self) -> io::Result<()> {
        self.steps += 1;
        match &mut self.fuse {
            Some(0) => Err(io::Error::other("the world has ended")),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn inode(&mut self, path: &Path) -> io::Result<&mut Inode> {
        let number = self.names.get(path).ok_or_else(missing)?;
        Ok(self.inodes.get_mut(number).unwrap())
    }

    fn apply(names: &mut BTreeMap<PathBuf, u64>, change: &Change) {
        match change {
            Change::Add(path, inode) => drop(names.insert(path.clone(), *inode)),
            Change::Remove(path) => drop(names.remove(path)),
            Change::Rename(from, to, inode) => {
                names.remove(from);
                names.insert(to.clone(), *inode);
            }
        }
    }

    fn change(&mut self, folders: Vec<PathBuf>, change: Change) {
        Self::apply(&mut self.names, &change);
        self.pending.push((folders, change));
    }
}

impl MemoryDisk {
    /// The world ends before step `steps` from now; `None`: it goes on.
    pub(super) fn set_fuse(&self, steps: Option<u64>) {
        self.0.borrow_mut().fuse = steps;
    }

    pub(super) fn steps(&self) -> u64 {
        self.0.borrow().steps
    }

    /// After a power cut: of what was not synced, any part. After a kill (`power` false): all of it.
    pub(super) fn crash(&self, random: &mut Random, power: bool) {
        let mut state = self.0.borrow_mut();
        let State { inodes, names, durable, pending, fuse, .. } = &mut *state;
        *fuse = None;
        for (_, change) in pending.drain(..) {
            if !power || random.one_in(2) {
                State::apply(durable, &change);
            }
        }
        names.clone_from(durable);
        for inode in inodes.values_mut().filter(|inode| !inode.synced) {
            if power && inode.now.len() != inode.durable.len() {
                if random.one_in(2) {
                    inode.now.clone_from(&inode.durable);
                }
            } else if power {
                let old = inode.durable.chunks(BLOCK);
                for (now, old) in inode.now.chunks_mut(BLOCK).zip(old) {
                    if random.one_in(2) {
                        now.copy_from_slice(old);
                    }
                }
            }
            inode.durable.clone_from(&inode.now);
            inode.synced = true;
        }
    }

    /// Durable at once, as the writer's own writes are. Not a step of freeing.
    pub(super) fn put(&self, path: &Path, at: u64, bytes: &[u8]) {
        let mut state = self.0.borrow_mut();
        let inode = state.inode(path).unwrap();
        for side in [&mut inode.now, &mut inode.durable] {
            side[at as usize..at as usize + bytes.len()].copy_from_slice(bytes);
        }
    }

    /// A file of zeros, durable with its name.
    pub(super) fn make(&self, path: &Path, len: usize) {
        let mut state = self.0.borrow_mut();
        let number = state.inodes.len() as u64;
        let inode = Inode { now: vec![0; len], durable: vec![0; len], synced: true };
        assert!(state.inodes.insert(number, inode).is_none());
        state.names.insert(path.to_owned(), number);
        state.durable.insert(path.to_owned(), number);
    }

    /// All files with what they hold.
    pub(super) fn files(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let state = self.0.borrow();
        state.names.iter().map(|(path, inode)| (path.clone(), state.inodes[inode].now.clone())).collect()
    }
}

impl Disk for &MemoryDisk {
    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let state = self.0.borrow();
        let names = state.names.keys().filter(|path| path.parent() == Some(dir));
        Ok(names.map(|path| path.file_name().unwrap().to_str().unwrap().to_owned()).collect())
    }

    fn size(&self, file: &Path) -> io::Result<u64> {
        Ok(self.0.borrow_mut().inode(file)?.now.len() as u64)
    }

    fn read(&self, file: &Path, at: u64, len: usize) -> io::Result<Vec<u8>> {
        let mut state = self.0.borrow_mut();
        let bytes = &state.inode(file)?.now;
        let at = bytes.len().min(at as usize);
        Ok(bytes[at..bytes.len().min(at + len)].to_vec())
    }

    fn write(&self, file: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.0.borrow_mut();
        state.step()?;
        if !state.names.contains_key(file) {
            let number = state.inodes.len() as u64;
            state.inodes.insert(number, Inode::default());
            state.change(vec![parent(file)], Change::Add(file.to_owned(), number));
        }
        let inode = state.inode(file)?;
        (inode.now, inode.synced) = (bytes.to_vec(), false);
        Ok(())
    }

    fn sync(&self, file: &Path) -> io::Result<()> {
        let mut state = self.0.borrow_mut();
        state.step()?;
        let inode = state.inode(file)?;
        inode.durable.clone_from(&inode.now);
        inode.synced = true;
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.0.borrow_mut();
        state.step()?;
        let number = *state.names.get(from).ok_or_else(missing)?;
        state.change(vec![parent(from), parent(to)], Change::Rename(from.to_owned(), to.to_owned(), number));
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.0.borrow_mut();
        state.step()?;
        let State { pending, durable, .. } = &mut *state;
        pending.retain(|(folders, change)| {
            let ends = folders.iter().any(|folder| folder == dir);
            if ends {
                State::apply(durable, change);
            }
            !ends
        });
        Ok(())
    }

    fn punch(&self, file: &Path, from: u64, to: u64) -> io::Result<()> {
        let mut state = self.0.borrow_mut();
        state.step()?;
        let inode = state.inode(file)?;
        inode.now[from as usize..to as usize].fill(0);
        inode.synced = false;
        Ok(())
    }

    fn blank(&self, file: &Path, len: usize) -> io::Result<()> {
        for block in (0..len).step_by(BLOCK) {
            let mut state = self.0.borrow_mut();
            state.step()?;
            let inode = state.inode(file)?;
            inode.now[block..block + BLOCK].fill(0);
            inode.durable[block..block + BLOCK].fill(0);
        }
        Ok(())
    }

    fn cut(&self, file: &Path) -> io::Result<()> {
        let mut state = self.0.borrow_mut();
        state.step()?;
        let inode = state.inode(file)?;
        (inode.now, inode.synced) = (Vec::new(), false);
        Ok(())
    }

    fn remove(&self, file: &Path) -> io::Result<()> {
        let mut state = self.0.borrow_mut();
        state.step()?;
        state.names.get(file).ok_or_else(missing)?;
        state.change(vec![parent(file)], Change::Remove(file.to_owned()));
        Ok(())
    }

    fn remove_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.0.borrow_mut();
        state.step()?;
        // Folders are where their files are.
        assert!(state.names.keys().all(|path| path.parent() != Some(dir)), "the folder is not empty");
        Ok(())
    }
}
