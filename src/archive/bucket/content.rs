//! What is put, with its digests.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{Context, SHA256};
use bytes::Bytes;
use crc_fast::{CrcAlgorithm, Digest};

use crate::archive::store::{Body, Reason, StoreFault};

/// Read at once while a file is digested.
const CHUNK: usize = 256 << 10;

#[derive(Debug, Clone)]
pub(super) struct Content {
    source: Source,
    pub(super) bytes: u64,
    pub(super) sha256: [u8; 32],
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
                let mut sums = Sums::default();
                sums.add(&bytes);
                let (sha256, crc) = sums.finish();
                Ok(Self { bytes: bytes.len() as u64, source: Source::Bytes(bytes), sha256, crc })
            }
            Body::File { path, bytes, sha256 } => {
                let (read, found, crc) = digest(path).map_err(|error| unreadable(path, &error))?;
                if (read, found) != (*bytes, *sha256) {
                    let path = path.display();
                    let what = format!(
                        "{path} is not what was written there: it has {read} bytes with SHA-256 {}, not {bytes} with {}",
                        hex(&found),
                        hex(sha256)
                    );
                    return Err(StoreFault::new(Reason::Other, what));
                }
                Ok(Self { source: Source::File(path.to_path_buf()), bytes: *bytes, sha256: *sha256, crc })
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

    pub(super) fn sha256_hex(&self) -> String {
        hex(&self.sha256)
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

fn digest(path: &Path) -> io::Result<(u64, [u8; 32], u64)> {
    let (mut file, mut chunk) = (File::open(path)?, vec![0; CHUNK]);
    let (mut sums, mut bytes) = (Sums::default(), 0);
    loop {
        match file.read(&mut chunk)? {
            0 => break,
            read => {
                sums.add(&chunk[..read]);
                bytes += read as u64;
            }
        }
    }
    let (sha256, crc) = sums.finish();
    Ok((bytes, sha256, crc))
}

struct Sums {
    sha256: Context,
    crc: Digest,
}

impl Default for Sums {
    fn default() -> Self {
        Self { sha256: Context::new(&SHA256), crc: Digest::new(CrcAlgorithm::Crc64Nvme) }
    }
}

impl Sums {
    fn add(&mut self, bytes: &[u8]) {
        self.sha256.update(bytes);
        self.crc.update(bytes);
    }

    fn finish(self) -> ([u8; 32], u64) {
        (self.sha256.finish().as_ref().try_into().unwrap_or_default(), self.crc.finalize())
    }
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
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
        let file = |bytes, sha256| Content::of(&Body::File { path: &path, bytes, sha256 });
        let same = file(9, whole.sha256).unwrap();
        assert_eq!((same.crc, same.notes()), (whole.crc, Some(folder.path().join("object.upload"))));
        for fault in [file(8, whole.sha256), file(9, [0; 32])] {
            assert!(fault.unwrap_err().what.contains("not what was written"));
        }
        std::fs::remove_file(&path).unwrap();
        assert!(file(9, whole.sha256).unwrap_err().what.contains("cannot be read"));
    }
}
