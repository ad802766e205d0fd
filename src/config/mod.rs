//! What an operator may write and what it means.
//!
//! `config/penstock.toml` shows every key and is compiled in as the defaults. `section` reads the
//! operator's file over it (unknown keys refused), `resolve` turns it into [`Config`], `cross`
//! checks what settings mean together; every problem is reported at once (`problem`). `value`,
//! `endpoint`, `bucket` and `cores` hold what a single value means. Imports nothing of ours but `route`'s
//! tables of countries and numbers.
//!
//! A [`Config`] leaves nothing undecided: secrets are read, CPUs chosen, URLs taken apart. A key
//! whose feature is not built yet is refused unless it has its default, and never ignored.

use std::ffi::OsString;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;

mod archive;
mod bucket;
mod cores;
mod cross;
mod endpoint;
mod mask;
mod problem;
mod resolve;
mod section;
mod signing_key;
#[cfg(test)]
mod tests;
pub mod value;

pub use cores::Cpus;
pub use mask::{Mask, MaskSet, Masked};
pub use problem::{Invalid, Problem, Warning};
pub use signing_key::{PublicKey, SigningKey};
pub use value::Secret;

/// Every key with its default, remarked for operators.
pub const MANUAL: &str = include_str!("../../config/penstock.toml");

/// What a configuration means depends on: an argument, so that tests can choose it.
#[derive(Debug, Clone)]
pub struct Host {
    /// Folder that relative paths start at.
    pub base: PathBuf,
    pub cpus: Cpus,
    /// Looks an environment variable up.
    pub env: fn(&str) -> Option<OsString>,
    /// False: secrets are not looked up and something else stands in their place. For commands that
    /// need the rules alone and may run where the secrets are not.
    pub read_secrets: bool,
}

impl Host {
    /// This machine and this process.
    pub fn here(base: &Path) -> Self {
        let env = |name: &str| std::env::var_os(name);
        Self { base: base.to_owned(), cpus: Cpus::of_this_process(), env, read_secrets: true }
    }
}

/// A configuration in which nothing is left undecided.
#[derive(Debug, Clone)]
pub struct Config {
    pub gateway: Gateway,
    pub cores: Cores,
    pub listen: Listen,
    pub admin: Admin,
    pub sources: Vec<Source>,
    pub regions: Vec<Region>,
    /// Index into `regions` of the region that gets what no rule claims.
    pub default_region: usize,
    pub journal: Journal,
    pub dedupe: Dedupe,
    pub archive: Archive,
}

impl Config {
    /// Reads a file. That it cannot be read is a problem like any other.
    pub fn load(path: &Path) -> Result<(Self, Vec<Warning>), Invalid> {
        Self::resolve(&read(path)?, &Host::here(folder(path)))
    }

    /// Reads a file for its rules alone, on a machine that may lack the secrets.
    pub fn load_without_secrets(path: &Path) -> Result<(Self, Vec<Warning>), Invalid> {
        Self::resolve(&read(path)?, &Host { read_secrets: false, ..Host::here(folder(path)) })
    }

    /// Reads a text on this machine; relative paths in it start at `base`.
    pub fn from_toml(text: &str, base: &Path) -> Result<(Self, Vec<Warning>), Invalid> {
        Self::resolve(text, &Host::here(base))
    }

    /// Reads a text as it would be read on `host`.
    pub fn resolve(text: &str, host: &Host) -> Result<(Self, Vec<Warning>), Invalid> {
        resolve::resolve(text, host)
    }
}

fn folder(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("."))
}

fn read(path: &Path) -> Result<String, Invalid> {
    std::fs::read_to_string(path).map_err(|error| {
        Invalid(vec![Problem {
            key: path.display().to_string(),
            found: error.to_string(),
            expected: "a configuration in TOML".to_owned(),
            hint: "Name a file that this user may read; config/penstock.toml shows every key.".to_owned(),
        }])
    })
}

#[derive(Debug, Clone)]
pub struct Gateway {
    pub id: String,
    pub data_dir: PathBuf,
}

/// CPU of each core thread, in order; `None` = not pinned.
#[derive(Debug, Clone)]
pub struct Cores {
    pub ingest: Vec<Option<usize>>,
    pub forward: Vec<Option<usize>>,
}

#[derive(Debug, Clone)]
pub struct Listen {
    pub address: SocketAddr,
    /// Peers that may connect; empty = anyone.
    pub allow_from: Vec<IpNet>,
    /// Peers whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<IpNet>,
    pub limits: Limits,
}

#[derive(Debug, Clone)]
pub struct Limits {
    /// Bytes of a request's head.
    pub head: usize,
    /// Bytes of a request's body.
    pub body: usize,
    /// Bytes of all bodies being read, all cores together.
    pub memory: usize,
    /// Open connections, all cores together.
    pub connections: usize,
    /// Open connections of one address; 0 = no limit.
    pub per_peer: usize,
    pub header_timeout: Duration,
    pub body_timeout: Duration,
    pub idle_timeout: Duration,
}

#[derive(Debug, Clone)]
pub struct Admin {
    pub address: SocketAddr,
    /// Who has it may see and change dead letters; `None`: nobody may.
    pub token: Option<Secret>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SourceKind {
    Whatsapp,
    Wasender,
}

#[derive(Debug, Clone)]
pub struct Source {
    pub name: String,
    pub kind: SourceKind,
    pub path: String,
    /// All verify; the first signs what is cut.
    pub secrets: Vec<Secret>,
    pub verify_tokens: Vec<Secret>,
}

#[derive(Debug, Clone)]
pub struct Region {
    pub name: String,
    pub endpoint: Endpoint,
    /// Digits only, without `+`.
    pub prefixes: Vec<String>,
    /// ISO 3166-1 alpha-2, upper case.
    pub countries: Vec<String>,
    pub phone_number_ids: Vec<String>,
    pub accounts: Vec<String>,
    /// Where its archive objects rest; `None` = it archives nothing.
    pub archive: Option<ArchivePlace>,
    /// Standard Webhooks secret.
    pub signing_secret: Option<Secret>,
    pub in_flight: usize,
    /// Of one attempt: connect, send and read the answer.
    pub timeout: Duration,
    pub source_address: Option<IpAddr>,
    /// Tries a second; 0: no limit.
    pub rate: u32,
    pub retry: Retry,
}

/// When a parcel is given up. Both run only while the region accepts others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retry {
    /// Tries; 0: no limit.
    pub attempts: u32,
    pub window: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        Self { attempts: 0, window: Duration::from_hours(24) }
    }
}

/// An `http://` URL, taken apart.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Endpoint {
    /// Name or address literal, without brackets.
    pub host: String,
    pub port: u16,
    /// Value of the `Host` header.
    pub authority: String,
    /// Path and query, starting with `/`.
    pub target: String,
}

#[derive(Debug, Clone)]
pub struct Journal {
    /// Bytes of a segment file.
    pub segment: u64,
    /// Longest wait of the oldest webhook of a commit.
    pub commit_delay: Duration,
    /// False: page cache only.
    pub sync: bool,
    pub on_damage: OnDamage,
}

#[derive(Debug, Clone)]
pub struct Dedupe {
    /// How long an event is remembered.
    pub window: Duration,
    /// Bytes that all cores together may use for it.
    pub memory: u64,
}

/// How archive objects are made, the same for every region.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Archive {
    /// Bytes at which an object is closed.
    pub roll_bytes: u64,
    /// Age at which an object is closed.
    pub roll_after: Duration,
    /// Of zstd.
    pub level: i32,
    /// Without it records are exact.
    pub mask: Option<Mask>,
    pub mixed: Mixed,
    /// Signs the chains; without it there are none.
    pub signing_key: Option<SigningKey>,
    /// Bytes of a part of an object that a bucket takes in parts.
    pub part: u64,
    /// Gets the newest link of each chain besides, once an hour.
    pub heads: Option<ArchivePlace>,
    /// Keeps objects in buckets from being removed or changed.
    pub lock: Option<Lock>,
}

/// Where the archive of a region rests. Displays as its URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ArchivePlace {
    Folder(PathBuf),
    Bucket(BucketPlace),
}

impl ArchivePlace {
    /// As no other place: buckets of different stores may have one name.
    pub fn identity(&self) -> String {
        match self {
            Self::Bucket(bucket) => {
                format!("{} {self}", bucket.access.endpoint.as_deref().unwrap_or_default())
            }
            Self::Folder(_) => self.to_string(),
        }
    }
}

impl fmt::Display for ArchivePlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(folder) => write!(f, "file://{}", folder.display()),
            Self::Bucket(place) => write!(f, "{place}"),
        }
    }
}

/// A path in a bucket of an object store, and how that is reached. Displays as its URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BucketPlace {
    pub kind: StoreKind,
    pub bucket: String,
    /// Without slashes at its ends; empty = the root of the bucket.
    pub prefix: String,
    pub access: Access,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreKind {
    S3,
    Google,
    Azure,
}

/// How a bucket is reached. What is left out is as the environment or the machine says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    /// `http://` or `https://`, without a slash at its end; `None` = the provider's own.
    pub endpoint: Option<String>,
    /// Of S3.
    pub region: Option<String>,
    /// The bucket's name stands in the path, not in the host.
    pub path_style: bool,
    pub keys: Option<Keys>,
}

impl Default for Access {
    fn default() -> Self {
        Self { endpoint: None, region: None, path_style: true, keys: None }
    }
}

/// Key id and key of S3, account and key of Azure; of Google the secret alone, a service account's JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keys {
    pub access: Secret,
    pub secret: Secret,
}

/// Object Lock: how and how long each object is kept from everybody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lock {
    pub mode: LockMode,
    /// From when an object is put.
    pub days: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockMode {
    /// Those whom the store allows it can end it early.
    Governance,
    /// Nobody can.
    Compliance,
}

/// What an archive gets of a webhook over several regions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mixed {
    /// Its own events, as they are handed to the region.
    Split,
    Whole,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnDamage {
    /// Report the exact lost range and go on.
    Continue,
    /// Refuse to start.
    Halt,
}
