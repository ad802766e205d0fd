//! What recovery and freeing ask of a disk, step by step, so that a simulation can end the world
//! between any two of them.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use nix::fcntl::{FallocateFlags, OFlag, fallocate};

use super::buffer::{AlignedBuf, BLOCK};
use super::spare::{self, OpenMode};

/// Files by path. What was not synced may be gone after a crash, names and bytes each on their own.
pub trait Disk {
    /// Names in a folder.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;
    fn size(&self, file: &Path) -> io::Result<u64>;
    /// At most `len` bytes from `at`: less only where the file ends.
    fn read(&self, file: &Path, at: u64, len: usize) -> io::Result<Vec<u8>>;
    /// Makes a file, or replaces what it held.
    fn write(&self, file: &Path, bytes: &[u8]) -> io::Result<()>;
    fn sync(&self, file: &Path) -> io::Result<()>;
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// Gives the space of a part of the file back; zeros are read there.
    fn punch(&self, file: &Path, from: u64, to: u64) -> io::Result<()>;
    /// Writes zeros over the first `len` bytes, durably.
    fn blank(&self, file: &Path, len: usize) -> io::Result<()>;
    /// Gives the space of the file behind its first `len` bytes back, whoever has it open.
    fn cut(&self, file: &Path, len: u64) -> io::Result<()>;
    fn remove(&self, file: &Path) -> io::Result<()>;
    fn remove_dir(&self, dir: &Path) -> io::Result<()>;
}

/// The real one.
#[derive(Debug, Clone, Copy)]
pub struct Local {
    pub mode: OpenMode,
}

impl Local {
    /// Large and aligned reads go around the page cache, as the writer does.
    fn read_direct(file: &Path, at: u64, len: usize) -> io::Result<Vec<u8>> {
        let file = OpenOptions::new().read(true).custom_flags(OFlag::O_DIRECT.bits()).open(file)?;
        let mut buf = AlignedBuf::with_capacity(len);
        buf.set_len(len);
        let mut got = 0;
        while got < len {
            match file.read_at(&mut buf.as_mut_slice()[got..], at + got as u64)? {
                0 => break,
                more => got += more,
            }
        }
        Ok(buf.as_slice()[..got].to_vec())
    }
}

impl Disk for Local {
    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let names = std::fs::read_dir(dir)?.map(|entry| entry.map(|entry| entry.file_name()));
        // A name that is no text is none of ours.
        Ok(names.collect::<io::Result<Vec<_>>>()?.into_iter().filter_map(|n| n.into_string().ok()).collect())
    }

    fn size(&self, file: &Path) -> io::Result<u64> {
        Ok(std::fs::metadata(file)?.len())
    }

    fn read(&self, file: &Path, at: u64, len: usize) -> io::Result<Vec<u8>> {
        let aligned = at.is_multiple_of(BLOCK as u64) && len.is_multiple_of(BLOCK) && len > 0;
        if self.mode == OpenMode::Direct && aligned {
            return Self::read_direct(file, at, len);
        }
        let file = File::open(file)?;
        let len = len.min(file.metadata()?.len().saturating_sub(at) as usize);
        let mut bytes = vec![0; len];
        file.read_exact_at(&mut bytes, at)?;
        Ok(bytes)
    }

    fn write(&self, file: &Path, bytes: &[u8]) -> io::Result<()> {
        OpenOptions::new().write(true).create(true).truncate(true).open(file)?.write_all(bytes)
    }

    fn sync(&self, file: &Path) -> io::Result<()> {
        if self.mode == OpenMode::Unsynced { Ok(()) } else { File::open(file)?.sync_all() }
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        if self.mode == OpenMode::Unsynced { Ok(()) } else { spare::sync_dir(dir) }
    }

    fn punch(&self, file: &Path, from: u64, to: u64) -> io::Result<()> {
        let file = OpenOptions::new().write(true).open(file)?;
        let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        // Segments are far below 8 EiB.
        Ok(fallocate(file, flags, from as i64, to.saturating_sub(from) as i64)?)
    }

    fn blank(&self, file: &Path, len: usize) -> io::Result<()> {
        let file = spare::open(file, self.mode)?;
        let mut zeros = AlignedBuf::with_capacity(len);
        zeros.set_len(len);
        file.write_all_at(zeros.as_slice(), 0)?;
        if self.mode == OpenMode::Buffered { file.sync_data() } else { Ok(()) }
    }

    fn cut(&self, file: &Path, len: u64) -> io::Result<()> {
        OpenOptions::new().write(true).open(file)?.set_len(len)
    }

    fn remove(&self, file: &Path) -> io::Result<()> {
        std::fs::remove_file(file)
    }

    fn remove_dir(&self, dir: &Path) -> io::Result<()> {
        std::fs::remove_dir(dir)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn punched_space_is_given_back_and_may_be_punched_again() {
        let folder = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let file = folder.path().join("file");
        for mode in [OpenMode::Buffered, OpenMode::Direct] {
            let disk = Local { mode };
            disk.write(&file, &vec![7; 64 * BLOCK]).unwrap();
            disk.sync(&file).unwrap();
            let before = std::fs::metadata(&file).unwrap().blocks();
            for _ in 0..2 {
                disk.punch(&file, 8 * BLOCK as u64, 60 * BLOCK as u64).unwrap();
                let after = std::fs::metadata(&file).unwrap();
                assert_eq!((after.blocks(), after.len()), (before - 52 * 8, 64 * BLOCK as u64));
            }
            let bytes = disk.read(&file, 0, 64 * BLOCK).unwrap();
            assert!(bytes[..8 * BLOCK].iter().chain(&bytes[60 * BLOCK..]).all(|b| *b == 7));
            assert!(bytes[8 * BLOCK..60 * BLOCK].iter().all(|b| *b == 0));
            disk.blank(&file, BLOCK).unwrap();
            assert_eq!(disk.read(&file, BLOCK as u64 - 1, 2).unwrap(), [0, 7]);
            assert_eq!(disk.read(&file, 64 * BLOCK as u64 - 5, 100).unwrap(), [7; 5]);
            disk.cut(&file, 5).unwrap();
            assert_eq!(disk.size(&file).unwrap(), 5);
        }
    }
}
