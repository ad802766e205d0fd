//! Carries out what a check proposes. What is replaced goes aside first, durably: a repair that was wrong
//! can be taken back. The data folder must be this process's own ([`own`]).
//!
//! ```text
//! <data_dir>/aside/<time>/<journal>/<file>    what was there; N.seg.header = its first two blocks
//! ```

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use nix::fcntl::{Flock, FlockArg};

use super::super::disk::Local;
use super::super::folder::replace;
use super::super::spare::{OpenMode, sync_dir};
use super::{Finding, Remedy};

/// Synced, through the page cache: files are small and nobody else has them open.
const DISK: Local = Local { mode: OpenMode::Buffered };

/// The lock of a data folder, if no gateway holds it. `None`: one does.
pub fn own(data_dir: &Path) -> io::Result<Option<Flock<File>>> {
    // Read only, and made by nobody who only looks.
    match File::open(data_dir.join("lock")) {
        Ok(file) => Ok(Flock::lock(file, FlockArg::LockExclusiveNonblock).ok()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let file =
                File::options().write(true).create(true).truncate(false).open(data_dir.join("lock"))?;
            Ok(Flock::lock(file, FlockArg::LockExclusiveNonblock).ok())
        }
        Err(error) => Err(error),
    }
}

/// Whether a gateway holds the data folder.
pub fn in_use(data_dir: &Path) -> io::Result<bool> {
    match File::open(data_dir.join("lock")) {
        // Given back at once: a gateway that starts in this moment tries again.
        Ok(file) => Ok(Flock::lock(file, FlockArg::LockSharedNonblock).is_err()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// The folder that takes what is replaced in this run.
#[derive(Debug)]
pub struct Aside {
    data_dir: PathBuf,
    dir: PathBuf,
}

impl Aside {
    pub fn new(data_dir: &Path) -> Self {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let root = data_dir.join("aside");
        Self { data_dir: data_dir.to_owned(), dir: root.join(now.as_millis().to_string()) }
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Carries out the remedies of `findings`, all of which come from one check.
    pub fn repair(&self, findings: &[&Finding]) -> io::Result<()> {
        // Files that change their names first all leave theirs: two of them may have been swapped.
        let mut renamed = Vec::new();
        for finding in findings {
            match &finding.remedy {
                Some(Remedy::Rename { to }) => renamed.push((self.away(&finding.file)?, to)),
                Some(Remedy::Away) => drop(self.away(&finding.file)?),
                Some(Remedy::Write { .. } | Remedy::Patch { .. }) | None => {}
            }
        }
        for (from, to) in renamed {
            fs::rename(&from, to)?;
            sync_parent(to)?;
            sync_parent(&from)?;
        }
        for finding in findings {
            match &finding.remedy {
                Some(Remedy::Write { bytes }) => {
                    if finding.file.exists() {
                        fs::copy(&finding.file, self.place(&finding.file, "")?)?;
                    }
                    self.sync(&finding.file)?;
                    replace(&DISK, &finding.file, bytes)?;
                    sync_parent(&finding.file)?;
                }
                Some(Remedy::Patch { bytes }) => {
                    let file = File::options().read(true).write(true).open(&finding.file)?;
                    let mut old = vec![0; bytes.len()];
                    file.read_exact_at(&mut old, 0)?;
                    let copy = self.place(&finding.file, ".header")?;
                    fs::write(&copy, old)?;
                    File::open(&copy)?.sync_all()?;
                    self.sync(&finding.file)?;
                    file.write_all_at(bytes, 0)?;
                    file.sync_all()?;
                }
                Some(Remedy::Away | Remedy::Rename { .. }) | None => {}
            }
        }
        Ok(())
    }

    /// Moves a file out of its folder. Where it is now.
    fn away(&self, file: &Path) -> io::Result<PathBuf> {
        let to = self.place(file, "")?;
        fs::rename(file, &to)?;
        sync_parent(file)?;
        sync_parent(&to)?;
        Ok(to)
    }

    /// Where a file's old content goes: in a folder named like its own.
    fn place(&self, file: &Path, suffix: &str) -> io::Result<PathBuf> {
        let name = |path: Option<&Path>| path.and_then(Path::file_name).unwrap_or_default().to_owned();
        let dir = self.dir.join(name(file.parent()));
        fs::create_dir_all(&dir)?;
        let mut last = name(Some(file));
        last.push(suffix);
        Ok(dir.join(last))
    }

    /// The copy of a file is durable, with its name.
    fn sync(&self, file: &Path) -> io::Result<()> {
        let copy = self.place(file, "")?;
        if copy.exists() {
            File::open(&copy)?.sync_all()?;
        }
        sync_parent(&copy)?;
        [&self.dir, &self.data_dir.join("aside"), &self.data_dir]
            .into_iter()
            .try_for_each(|dir| sync_dir(dir))
    }
}

fn sync_parent(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), sync_dir)
}
