//! An archive in a bucket of an object store: put once, locked if asked, looked at afterwards, and read.
//!
//! ```text
//! open     from the configuration to a client     driver    the thread that all wait for
//! state    is the bucket what was asked for?      content   what is put, with its digests
//! put      S3: one request, or in parts           parts     begun, noted, gone on with, completed
//! notes    of an upload, beside the local file    standing  what stands there, against what should
//! request  S3: signed, tried a few times          answer    what a store says and means
//! list     S3: what a folder has                  read      names and bytes
//! plain    other stores than S3
//! ```
//!
//! # Invariants
//!
//! - What stands under a name decides, never what a request came to: an answer may be lost, late or wrong.
//! - A name is put over only where versions are kept: what somebody else put there stays.
//! - Nobody is followed to another address: a redirect may lead out of the region.
//! - Memory is bounded per bucket: [`PARALLEL`] parts, each of [`Options::part`] bytes.
//!
//! # Deliberately absent
//!
//! Trying for hours: who ships does it. Folders, which a bucket does not have. `file://`.

use std::sync::Arc;
use std::time::Duration;

use object_store::DynObjectStore;
use object_store::path::Path;

mod answer;
mod content;
mod driver;
mod list;
mod notes;
mod open;
mod parts;
mod plain;
mod put;
mod read;
mod request;
mod standing;
mod state;

pub use driver::Driver;
pub use parts::PARALLEL;

use super::store::{Body, Store, StoreFault};
use crate::config::{Archive, BucketPlace, Lock};
use crate::metrics::archive::Traffic;
use content::Content;
use put::{Outcome, Put};
use request::S3;

/// Longest silence of a store.
const PATIENCE: Duration = Duration::from_secs(30);
/// Longest way of the slowest object, whatever is tried on it: each request has a much shorter limit.
const SLOWEST: u64 = 16 << 10;
/// Name of what is put to see whether anything can be; never an object's.
const PROBE: &str = ".penstock-check";

/// How objects are put, the same for every region.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Bytes of a part; what is larger goes in parts.
    pub part: u64,
    pub lock: Option<Lock>,
    /// Longest silence of a store.
    pub patience: Duration,
}

impl Options {
    pub fn of(archive: &Archive) -> Self {
        Self { part: archive.part, lock: archive.lock, patience: PATIENCE }
    }

    /// For whoever puts nothing.
    pub fn to_read() -> Self {
        Self { part: 8 << 20, lock: None, patience: PATIENCE }
    }
}

/// The archive of one region in a bucket.
pub struct Bucket {
    place: BucketPlace,
    options: Options,
    driver: Driver,
    store: Arc<DynObjectStore>,
    s3: Option<S3>,
    /// What the store took last and did not show as asked.
    doubted: Option<String>,
    traffic: Arc<Traffic>,
}

impl Bucket {
    /// Takes what the configuration and the environment say; asks nobody yet.
    pub fn open(place: &BucketPlace, options: Options, driver: &Driver) -> Result<Self, StoreFault> {
        let _context = driver.enter();
        let client =
            open::open(place, options.patience, options.part).map_err(|fault| about(fault, place, ""))?;
        let (place, driver) = (place.clone(), driver.clone());
        Ok(Self {
            place,
            options,
            driver,
            store: client.store,
            s3: client.s3,
            doubted: None,
            traffic: Arc::default(),
        })
    }

    /// Counts there what goes to the store.
    pub fn counted(mut self, traffic: &Arc<Traffic>) -> Self {
        self.s3.iter_mut().for_each(|s3| s3.traffic = Arc::clone(traffic));
        self.traffic = Arc::clone(traffic);
        self
    }

    fn path(&self, name: &str) -> Path {
        // As it is: what stands in a listing is to be asked for by the same name.
        let key = self.key(name);
        Path::parse(&key).unwrap_or_else(|_| Path::from(key))
    }

    fn key(&self, name: &str) -> String {
        match (self.place.prefix.as_str(), name) {
            ("", name) => name.to_owned(),
            (prefix, "") => prefix.to_owned(),
            (prefix, name) => format!("{prefix}/{name}"),
        }
    }

    /// For several requests, one after the other.
    fn long(&self) -> Duration {
        self.options.patience * 20
    }
}

impl Store for Bucket {
    fn check(&mut self) -> Result<(), StoreFault> {
        let (lock, probe) = (self.options.lock, self.key(PROBE));
        let checked = match self.s3.clone() {
            Some(s3) => {
                let region = self.place.access.region.clone();
                self.driver.wait(self.long(), async move {
                    state::check(&s3, region.as_deref(), lock, &probe).await
                })
            }
            None => {
                let (store, probe) = (self.store.clone(), Path::from(probe));
                self.driver.wait(self.long(), async move { plain::probe(&store, &probe).await })
            }
        };
        checked.map_err(|fault| about(fault, &self.place, ""))
    }

    fn put(&mut self, name: &str, body: &Body<'_>) -> Result<(), StoreFault> {
        let content = Content::of(body)?;
        let limit = self.long() + Duration::from_secs(content.bytes / SLOWEST);
        let part = self.options.part;
        let put = match self.s3.clone() {
            Some(s3) => {
                let (place, key, lock) = (self.place.to_string(), self.key(name), self.options.lock);
                let doubted = self.doubted.as_deref() == Some(name);
                let put = Put { s3, place, key, content, part, lock, doubted };
                match self.driver.wait(limit, put.run()) {
                    Ok(Outcome::Kept) => Ok(()),
                    Ok(Outcome::Doubted(fault)) => {
                        self.doubted = Some(name.to_owned());
                        Err(fault)
                    }
                    Err(fault) => Err(fault),
                }
            }
            None => {
                let (store, path) = (self.store.clone(), self.path(name));
                let traffic = Arc::clone(&self.traffic);
                self.driver
                    .wait(limit, async move { plain::put(&store, &path, &content, part, &traffic).await })
            }
        };
        put.map_err(|fault| about(fault, &self.place, name))
    }
}

/// Says of what it was found.
fn about(fault: StoreFault, place: &BucketPlace, name: &str) -> StoreFault {
    let slash = if name.is_empty() { "" } else { "/" };
    StoreFault { what: format!("{place}{slash}{name}: {}", fault.what), ..fault }
}
