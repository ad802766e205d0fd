//! What is noted of an upload in parts, beside the file that it is of, so that the next process goes on with it.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

/// Longest that an upload is gone on with: its lock counts from its beginning, and stores end forgotten uploads.
pub(super) const AGE_MAX: u64 = 6 * 3600;

/// An upload that was begun.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Upload {
    pub(super) what: What,
    pub(super) id: String,
    /// Unix seconds.
    pub(super) begun: u64,
    /// Until when it asked the object to be locked, as it asked.
    pub(super) until: Option<String>,
    pub(super) parts: Vec<Part>,
}

/// What an upload is of: one of anything else is no use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct What {
    /// Of the bucket.
    pub(super) place: String,
    pub(super) key: String,
    pub(super) bytes: u64,
    pub(super) sha256: String,
    /// Bytes of each part but the last.
    pub(super) part: u64,
    /// `compliance 3650`, as configured; empty: no lock.
    pub(super) lock: String,
}

/// A part that the store has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Part {
    /// From 1.
    pub(super) number: u64,
    pub(super) etag: String,
    pub(super) crc: String,
}

impl Upload {
    /// What was noted; `None`: nothing that can be understood, as after a power cut.
    pub(super) fn read(path: &Path) -> Option<Self> {
        serde_json::from_slice(&fs::read(path).ok()?).ok()
    }

    /// Notes it in place of what was noted before. Once this returns it is durable.
    pub(super) fn write(&self, path: &Path) -> io::Result<()> {
        let mut new = path.to_owned().into_os_string();
        new.push(".tmp");
        let mut file = File::create(&new)?;
        file.write_all(&serde_json::to_vec(self)?)?;
        file.sync_all()?;
        fs::rename(&new, path)?;
        match path.parent() {
            Some(folder) => File::open(folder)?.sync_all(),
            None => Ok(()),
        }
    }

    /// Whether to go on with it now, in Unix seconds.
    pub(super) fn is_fresh(&self, now: u64) -> bool {
        now.checked_sub(self.begun).is_some_and(|age| age <= AGE_MAX)
    }
}

/// Nothing is noted any more.
pub(super) fn forget(path: &Path) {
    // If it stays, whoever reads it finds that the upload is no more.
    fs::remove_file(path).ok();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_noted_is_read_and_what_was_cut_is_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("object.upload");
        assert_eq!(Upload::read(&path), None);
        let what = What {
            place: "s3://b/p".into(),
            key: "p/k".into(),
            bytes: 9,
            sha256: "00".into(),
            part: 5,
            lock: String::new(),
        };
        let part = Part { number: 1, etag: "\"e\"".into(), crc: "AAAAAAAAAAA=".into() };
        let upload = Upload { what, id: "id".into(), begun: 1_000, until: None, parts: vec![part] };
        upload.write(&path).unwrap();
        assert_eq!(Upload::read(&path), Some(upload.clone()));
        assert!(upload.is_fresh(1_000) && upload.is_fresh(1_000 + AGE_MAX));
        assert!(!upload.is_fresh(1_001 + AGE_MAX) && !upload.is_fresh(999));
        let whole = fs::read(&path).unwrap();
        fs::write(&path, &whole[..whole.len() - 1]).unwrap();
        assert_eq!(Upload::read(&path), None);
        forget(&path);
        assert!(!path.exists());
    }
}
