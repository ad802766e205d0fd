//! An archive in a bucket of an object store.

use std::io::{self, Read};

mod driver;

pub use driver::Driver;

use super::shelf::{Entry, Shelf};
use super::store::{Body, Reason, Store, StoreFault};
use crate::config::{Archive, BucketPlace, Lock};

/// How objects are put, the same for every region.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Bytes of a part; what is larger goes in parts.
    pub part: u64,
    pub lock: Option<Lock>,
}

impl Options {
    pub fn of(archive: &Archive) -> Self {
        Self { part: archive.part, lock: archive.lock }
    }

    /// For whoever puts nothing.
    pub fn to_read() -> Self {
        Self { part: 8 << 20, lock: None }
    }
}

/// The archive of one region in a bucket.
pub struct Bucket {
    place: BucketPlace,
}

impl Bucket {
    /// Takes what the configuration and the environment say; asks nobody yet.
    pub fn open(place: &BucketPlace, _options: Options, _driver: &Driver) -> Result<Self, StoreFault> {
        Ok(Self { place: place.clone() })
    }

    fn not_yet(&self) -> StoreFault {
        StoreFault::new(Reason::Other, format!("{} cannot be reached yet", self.place))
    }
}

impl Store for Bucket {
    fn check(&mut self) -> Result<(), StoreFault> {
        Err(self.not_yet())
    }

    fn put(&mut self, _name: &str, _body: &Body<'_>) -> Result<(), StoreFault> {
        Err(self.not_yet())
    }
}

impl Shelf for Bucket {
    fn names(&self, _below: &str) -> io::Result<Vec<Entry>> {
        Err(io::Error::other(self.not_yet()))
    }

    fn open(&self, _name: &str) -> io::Result<Option<Box<dyn Read>>> {
        Err(io::Error::other(self.not_yet()))
    }

    fn read_at(&self, _name: &str, _offset: u64, _len: u64) -> io::Result<Option<Vec<u8>>> {
        Err(io::Error::other(self.not_yet()))
    }
}
