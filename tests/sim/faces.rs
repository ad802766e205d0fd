//! The disk of memory towards recovery, freeing and the archive; and what a whole gateway asks for beside
//! that: writes that take their time, folders, space that ends, bits that turn over.

use std::cell::RefCell;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use penstock::archive;
use penstock::archive::shelf::{Entry, EntryKind};
use penstock::dead;
use penstock::journal::buffer::BLOCK;
use penstock::journal::disk::Disk;

use super::{Change, Flight, Inode, MemoryDisk, State, above, name, text};

impl MemoryDisk {
    pub(crate) fn has_ended(&self) -> bool {
        self.0.borrow().ended
    }

    /// The same files on a disk that never fails: for whoever looks on.
    pub(crate) fn copy(&self) -> Self {
        let state = State { fuse: None, ended: false, full: false, ..self.0.borrow().clone() };
        Self(Rc::new(RefCell::new(state)))
    }

    pub(crate) fn is_full(&self) -> bool {
        self.0.borrow().full
    }

    pub(crate) fn set_full(&self, full: bool) {
        self.0.borrow_mut().full = full;
    }

    /// A write begins; around the page cache (`direct`) it is durable when it ends.
    pub(crate) fn begin(&self, path: &Path, at: u64, bytes: &[u8], direct: bool) -> io::Result<Flight> {
        let mut state = self.0.borrow_mut();
        state.step()?;
        let number = state.number(path)?;
        let flight = Flight { inode: number, from: at as usize, to: at as usize + bytes.len() };
        state.inodes[number].put(flight.from, bytes);
        if direct {
            state.flights.push(flight);
        }
        Ok(flight)
    }

    /// A write around the page cache ends; without success nobody knows what is there.
    pub(crate) fn end(&self, flight: Flight, success: bool) {
        let mut state = self.0.borrow_mut();
        if success {
            state.flights.retain(|other| *other != flight);
            state.inodes[flight.inode].settle(flight.from, flight.to);
        }
    }

    /// A file of zeros.
    pub(crate) fn write_zeros(&self, path: &Path, len: usize) -> io::Result<()> {
        let mut state = self.0.borrow_mut();
        state.step()?;
        let number = state.create(path);
        if len > 0 {
            state.space()?;
        }
        state.inodes[number].len = len;
        state.inodes[number].pages.resize(len.div_ceil(BLOCK), None);
        Ok(())
    }

    pub(crate) fn folder(&self, path: &Path) {
        let mut state = self.0.borrow_mut();
        if !state.names.contains_key(text(path)) {
            state.add(path, Inode { folder: true, ..Inode::default() });
        }
    }

    /// Folders in a folder.
    pub(crate) fn folders(&self, dir: &Path) -> Vec<PathBuf> {
        let state = self.0.borrow();
        let own = state
            .names
            .iter()
            .filter(|(name, inode)| above(name) == text(dir) && state.inodes[**inode].folder);
        own.map(|(name, _)| PathBuf::from(&**name)).collect()
    }

    pub(crate) fn has(&self, path: &Path) -> bool {
        self.0.borrow().names.contains_key(text(path))
    }

    /// A file that grows at its end: the whole of what it holds now, and where that ends.
    pub(crate) fn append_to(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.0.borrow_mut();
        state.step()?;
        state.space()?;
        let inode = state.inode(path)?;
        let at = inode.len;
        inode.put(at, bytes);
        Ok(())
    }

    /// Files whose names end so.
    pub(crate) fn paths(&self, ending: &str) -> Vec<PathBuf> {
        let state = self.0.borrow();
        let names = state.names.keys().filter(|name| name.ends_with(ending));
        names.map(|name| PathBuf::from(&**name)).collect()
    }

    /// A bit of a file turns over, durably.
    pub(crate) fn flip(&self, path: &Path, bit: u64) {
        let at = bit / 8;
        let mut state = self.0.borrow_mut();
        let inode = state.inode(path).unwrap();
        let byte = inode.bytes(at as usize, 1);
        inode.put(at as usize, &[byte[0] ^ (1 << (bit % 8))]);
        inode.settle(at as usize, at as usize + 1);
    }
}

impl Disk for MemoryDisk {
    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let state = self.0.borrow();
        let dir = text(dir);
        let names = state.names.range::<str, _>((std::ops::Bound::Excluded(dir), std::ops::Bound::Unbounded));
        let names = names.take_while(|(name, _)| name.starts_with(dir));
        let own = names.filter(|(name, inode)| above(name) == dir && !state.inodes[**inode].folder);
        Ok(own.map(|(name, _)| name[dir.len() + 1..].to_owned()).collect())
    }

    fn size(&self, file: &Path) -> io::Result<u64> {
        Ok(self.0.borrow_mut().inode(file)?.len as u64)
    }

    fn read(&self, file: &Path, at: u64, len: usize) -> io::Result<Vec<u8>> {
        Ok(self.0.borrow_mut().inode(file)?.bytes(at as usize, len))
    }

    fn write(&self, file: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.0.borrow_mut();
        state.step()?;
        let number = state.create(file);
        state.space()?;
        state.inodes[number].put(0, bytes);
        Ok(())
    }

    fn sync(&self, file: &Path) -> io::Result<()> {
        let mut state = self.0.borrow_mut();
        state.step()?;
        state.inode(file)?.synced();
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.0.borrow_mut();
        state.step()?;
        let number = state.number(from)?;
        state.change(Change::Rename(name(from), name(to), number));
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.0.borrow_mut();
        state.step()?;
        let State { pending, durable, .. } = &mut *state;
        pending.retain(|(folders, change)| {
            let ends = folders.iter().any(|folder| **folder == *text(dir));
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
        state.inode(file)?.zero(from as usize, to as usize);
        Ok(())
    }

    fn blank(&self, file: &Path, len: usize) -> io::Result<()> {
        for block in (0..len).step_by(BLOCK) {
            let mut state = self.0.borrow_mut();
            state.step()?;
            let inode = state.inode(file)?;
            inode.zero(block, block + BLOCK);
            inode.settle(block, block + BLOCK);
        }
        Ok(())
    }

    fn cut(&self, file: &Path, len: u64) -> io::Result<()> {
        let mut state = self.0.borrow_mut();
        state.step()?;
        state.inode(file)?.set_len(len as usize);
        Ok(())
    }

    fn remove(&self, file: &Path) -> io::Result<()> {
        let mut state = self.0.borrow_mut();
        state.step()?;
        state.number(file)?;
        state.change(Change::Remove(name(file)));
        Ok(())
    }

    fn remove_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.0.borrow_mut();
        state.step()?;
        assert!(state.names.keys().all(|name| above(name) != text(dir)), "the folder is not empty");
        if state.names.contains_key(text(dir)) {
            state.change(Change::Remove(name(dir)));
        }
        Ok(())
    }
}

impl archive::disk::Disk for MemoryDisk {
    type File = PathBuf;

    fn create(&self, path: &Path) -> io::Result<PathBuf> {
        let mut state = self.0.borrow_mut();
        state.step()?;
        state.number(path.parent().unwrap())?;
        if state.number(path).is_ok() {
            state.change(Change::Remove(name(path)));
        }
        state.create(path);
        Ok(path.to_owned())
    }

    fn append(&self, file: &mut PathBuf, bytes: &[u8]) -> io::Result<()> {
        self.append_to(file, bytes)
    }

    fn sync(&self, file: &PathBuf) -> io::Result<()> {
        Disk::sync(self, file)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.borrow().number(to.parent().unwrap())?;
        assert!(to.starts_with("/data") || !self.has(to), "{} is written a second time", to.display());
        Disk::rename(self, from, to)
    }

    fn make_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.0.borrow_mut();
        state.step()?;
        state.number(path.parent().unwrap())?;
        if !state.names.contains_key(text(path)) {
            state.add(path, Inode { folder: true, ..Inode::default() });
        }
        Ok(())
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        Disk::sync_dir(self, path)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.0.borrow_mut().step()?;
        Ok(self.has(path))
    }

    fn read(&self, path: &Path, offset: u64) -> io::Result<Box<dyn io::Read>> {
        let mut state = self.0.borrow_mut();
        state.step()?;
        let inode = state.inode(path)?;
        let bytes = inode.bytes(0, inode.len);
        Ok(Box::new(io::Cursor::new(bytes.get(offset as usize..).unwrap_or_default().to_vec())))
    }

    fn list(&self, path: &Path) -> io::Result<Vec<Entry>> {
        self.0.borrow_mut().step()?;
        let files = Disk::list(self, path)?;
        let folders = MemoryDisk::folders(self, path);
        let folders = folders.iter().filter_map(|path| Some(path.file_name()?.to_str()?.to_owned()));
        let entry = |kind| move |name| Entry { name, kind, bytes: 0 };
        Ok(files
            .into_iter()
            .map(entry(EntryKind::File))
            .chain(folders.map(entry(EntryKind::Folder)))
            .collect())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        Disk::remove(self, path)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        Disk::remove(self, path)
    }
}

impl dead::disk::Disk for MemoryDisk {
    fn folders(&self, dir: &Path) -> io::Result<Vec<String>> {
        let folders = MemoryDisk::folders(self, dir);
        Ok(folders.iter().filter_map(|path| Some(path.file_name()?.to_str()?.to_owned())).collect())
    }

    fn files(&self, dir: &Path) -> io::Result<Vec<String>> {
        Disk::list(self, dir)
    }

    fn exists(&self, path: &Path) -> bool {
        self.has(path)
    }

    fn make_folder(&self, dir: &Path) -> io::Result<()> {
        archive::disk::Disk::make_dir(self, dir)
    }

    fn sync_folder(&self, dir: &Path) -> io::Result<()> {
        Disk::sync_dir(self, dir)
    }

    fn create(&self, file: &Path, bytes: &[u8]) -> io::Result<()> {
        Disk::write(self, file, bytes)?;
        Disk::sync(self, file)
    }

    fn size(&self, file: &Path) -> io::Result<u64> {
        Disk::size(self, file)
    }

    fn read(&self, file: &Path, at: u64, len: usize) -> io::Result<Vec<u8>> {
        let bytes = Disk::read(self, file, at, len)?;
        if bytes.len() == len { Ok(bytes) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }

    fn write(&self, file: &Path, at: u64, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.0.borrow_mut();
        state.step()?;
        state.space()?;
        state.inode(file)?.put(at as usize, bytes);
        Ok(())
    }

    fn sync(&self, file: &Path) -> io::Result<()> {
        Disk::sync(self, file)
    }

    fn cut(&self, file: &Path, len: u64) -> io::Result<()> {
        let mut state = self.0.borrow_mut();
        state.step()?;
        state.inode(file)?.set_len(len as usize);
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        Disk::rename(self, from, to)
    }

    fn remove(&self, file: &Path) -> io::Result<()> {
        Disk::remove(self, file)
    }
}
