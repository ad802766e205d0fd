//! What is put, with its digests.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use crc_fast::checksum;

use crate::archive::chain;
use crate::archive::store::{Body, CRC, Reason, StoreFault, sums};

#[derive(Debug, Clone)]
pub(super) struct Content {
    source: Source,
    pub(super) bytes: u64,
    /// In hex.
    pub(super) sha256: String,
    /// CRC-64/NVME of the whole.
    pub(super) crc: u64,
}

#[derive(Debug, Clone)]
enum Source {
    Bytes(Bytes),
    File(PathBuf),
}

impl Content {
    /// Reads a file once from its first byte to its last: what the disk made of it must not be kept as what it was.
    pub(super) fn of(body: &Body<'_>) -> Result<Self, StoreFault> {
        match body {
            Body::Bytes(bytes) => {
                let bytes = Bytes::copy_from_slice(bytes);
                let (sha256, crc) = (chain::hash(&bytes), checksum(CRC, &bytes));
                Ok(Self { bytes: bytes.len() as u64, source: Source::Bytes(bytes), sha256, crc })
            }
            Body::File { path, bytes, sha256, crc } => {
                let found = File::open(path).and_then(|file| sums(file, |_| Ok(())));
                let (read, found) = found.map_err(|error| unreadable(path, &error))?;
                if (read, found) != (*bytes, *crc) {
                    let path = path.display();
                    let what = format!(
                        "{path} is not what was written there: it has {read} bytes with CRC-64 {found:016x}, not {bytes} \
                         with {crc:016x}"
                    );
                    return Err(StoreFault::new(Reason::Other, what));
                }
                let (source, sha256) = (Source::File(path.to_path_buf()), (*sha256).to_owned());
                Ok(Self { source, bytes: *bytes, sha256, crc: *crc })
            }
        }
    }

    /// Where the upload of a file is noted; bytes have no place for that.
    pub(super) fn notes(&self) -> Option<PathBuf> {
        match &self.source {
            Source::Bytes(_) => None,
            Source::File(path) => {
                let mut notes = path.clone().into_os_string();
                notes.push(".upload");
                Some(notes.into())
            }
        }
    }

    /// A part, `len` bytes from `offset`. A file is read on a thread that may wait for the disk.
    pub(super) async fn part(&self, offset: u64, len: u64) -> Result<Bytes, StoreFault> {
        match &self.source {
            Source::Bytes(bytes) => Ok(bytes.slice(offset as usize..(offset + len) as usize)),
            Source::File(path) => {
                let path = path.clone();
                blocking(move || {
                    let mut part = vec![0; len as usize];
                    let read = File::open(&path).and_then(|file| file.read_exact_at(&mut part, offset));
                    read.map(|()| Bytes::from(part)).map_err(|error| unreadable(&path, &error))
                })
                .await
            }
        }
    }
}

/// Runs what waits for the disk where nobody else waits for it.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreFault> + Send + 'static,
) -> Result<T, StoreFault> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(StoreFault::new(Reason::Other, format!("reading ended: {error}"))))
}

fn unreadable(path: &Path, error: &io::Error) -> StoreFault {
    StoreFault::new(Reason::Other, format!("{} cannot be read: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_not_what_was_written_is_not_put() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("object");
        std::fs::write(&path, b"123456789").unwrap();
        let whole = Content::of(&Body::Bytes(b"123456789")).unwrap();
        // The check value of the algorithm.
        assert_eq!(whole.crc, 0xae8b_1486_0a79_9888);
        let file = |bytes, crc| Content::of(&Body::File { path: &path, bytes, sha256: &whole.sha256, crc });
        let same = file(9, whole.crc).unwrap();
        assert_eq!((same.crc, same.notes()), (whole.crc, Some(folder.path().join("object.upload"))));
        for fault in [file(8, whole.crc), file(9, 7)] {
            assert!(fault.unwrap_err().what.contains("not what was written"));
        }
        std::fs::remove_file(&path).unwrap();
        assert!(file(9, whole.crc).unwrap_err().what.contains("cannot be read"));
    }
}
