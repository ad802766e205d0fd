//! What can be wrong with the files of the dead letters.

use std::io;
use std::path::{Path, PathBuf};

use super::record::HeaderFault;

/// Something on the disk that is not as it was written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{} byte {at}: {what} ({len} bytes)", path.display())]
pub struct Damage {
    pub path: PathBuf,
    pub at: u64,
    pub len: u64,
    pub what: &'static str,
}

impl Damage {
    /// The region whose letters they are.
    pub fn region(&self) -> &str {
        self.path.parent().and_then(Path::file_name).and_then(|name| name.to_str()).unwrap_or_default()
    }
}

/// Why the dead letters cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum DeadError {
    #[error("{what} {}: {source}", path.display())]
    Io { what: &'static str, path: PathBuf, source: io::Error },
    #[error("{}: {source}", path.display())]
    Newer { path: PathBuf, source: HeaderFault },
}

pub(super) fn failed<'a>(what: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> DeadError + 'a {
    move |source| DeadError::Io { what, path: path.to_owned(), source }
}
