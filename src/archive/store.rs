//! Where a region's archive rests: a folder or a bucket, and what can be wrong with it.

use std::fmt;
use std::io::{self, Read};
use std::path::Path;

use crc_fast::{CrcAlgorithm, Digest};

use crate::metrics::archive::REASONS;

/// What bytes of files are checked with on their way; object stores know it, too.
pub(super) const CRC: CrcAlgorithm = CrcAlgorithm::Crc64Nvme;
/// Bytes of a file that are read at once.
const CHUNK: usize = 256 << 10;

/// Where a region's archive rests. Calls block until it is so or cannot be: for a shipper's own thread.
pub trait Store {
    /// Whether it can give what is configured: it exists, can be written, is versioned and locked as asked. At start and
    /// once an hour.
    fn check(&mut self) -> Result<(), StoreFault>;
    /// Puts something under a name. Once this returns it is there, durable and verified, and the same bytes under that
    /// name are no fault. Other bytes there: what was there stays beside it or below it, and where that cannot be,
    /// nothing is overwritten ([`Reason::Taken`]).
    fn put(&mut self, name: &str, body: &Body<'_>) -> Result<(), StoreFault>;
}

/// What is put into a store.
#[derive(Debug, Clone, Copy)]
pub enum Body<'a> {
    Bytes(&'a [u8]),
    /// A complete local file that nobody changes: its length, its SHA-256 in hex and its CRC-64/NVME, of when it was
    /// written.
    File {
        path: &'a Path,
        bytes: u64,
        sha256: &'a str,
        crc: u64,
    },
}

/// Reads a file to its end and hands out its bytes: their number and CRC-64/NVME. What a disk makes of a file shows
/// there as well as in a SHA-256, which takes 20 times as long.
pub(super) fn sums(
    mut file: impl Read,
    mut each: impl FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<(u64, u64)> {
    let (mut crc, mut bytes, mut chunk) = (Digest::new(CRC), 0, vec![0; CHUNK]);
    loop {
        match file.read(&mut chunk)? {
            0 => return Ok((bytes, crc.finalize())),
            read => {
                crc.update(&chunk[..read]);
                bytes += read as u64;
                each(&chunk[..read])?;
            }
        }
    }
}

/// Why a store did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct StoreFault {
    pub reason: Reason,
    /// For people; without secrets.
    pub what: String,
}

/// What a person would look at first, in the order of [`REASONS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// Credentials, rights or the clock.
    Denied,
    Throttled,
    Unreachable,
    Timeout,
    /// There is no such folder or bucket.
    Missing,
    /// Versioning, lock, retention or region are not as configured.
    Unlocked,
    /// Somebody else's bytes lie under the name.
    Taken,
    Full,
    Other,
}

impl Reason {
    /// As metrics call it.
    pub fn name(self) -> &'static str {
        REASONS[self as usize]
    }

    /// What an operator can do about it.
    pub fn todo(self) -> &'static str {
        match self {
            Self::Denied => "Correct the keys, the rights they give on this bucket, or this machine's clock.",
            Self::Throttled => "Wait, or raise what the store allows.",
            Self::Unreachable => {
                "Correct archive_store.endpoint, the name server, the firewall or the certificates, or start the store."
            }
            Self::Timeout => "Look at the store and the network to it: no answer came in time.",
            Self::Missing => "Make the bucket, or correct its name or archive_store.",
            Self::Unlocked => {
                "Make a bucket with versioning and Object Lock in the configured region, or correct archive.lock or \
                 archive_store.region."
            }
            Self::Taken => {
                "Find out who wrote there: the archive's place must be this region's and this gateway's alone."
            }
            Self::Full => "Make room in the store, or raise the quota.",
            Self::Other => "See what was found; the store's own log may tell more.",
        }
    }
}

const _: () = assert!(Reason::Other as usize + 1 == REASONS.len());

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl StoreFault {
    pub fn new(reason: Reason, what: impl Into<String>) -> Self {
        Self { reason, what: what.into() }
    }
}

impl From<io::Error> for StoreFault {
    fn from(error: io::Error) -> Self {
        let reason = match error.kind() {
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => Reason::Denied,
            io::ErrorKind::NotFound => Reason::Missing,
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Reason::Full,
            io::ErrorKind::TimedOut => Reason::Timeout,
            _ => Reason::Other,
        };
        Self::new(reason, error.to_string())
    }
}
