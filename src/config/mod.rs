//! What an operator may write and what it means.
//!
//! `file` mirrors the TOML (unknown keys refused), `resolve` turns it into [`Config`] and reports
//! every problem at once, `value` holds sizes, durations and secrets. Imports nothing of ours
//! but the calling-code table of `route`.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

pub mod value;

pub use value::Secret;

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
    /// Standard Webhooks secret.
    pub signing_secret: Option<Secret>,
    pub in_flight: usize,
    /// Of one attempt: connect, send and read the answer.
    pub timeout: Duration,
    pub source_address: Option<IpAddr>,
}

/// An `http://` URL, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
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

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnDamage {
    /// Report the exact lost range and go on.
    Continue,
    /// Refuse to start.
    Halt,
}
