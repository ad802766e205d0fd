//! One object after the other: when one opens, what it is called, when it closes. Pure.
//!
//! Lines are collected into a frame of zstd, and frames into an object. The caller asks what is due
//! (a frame to write, an object to close) and does it; a pack never holds more than one frame and the
//! line that filled it.
//!
//! Invariants: an object's name comes from its first record alone, so whoever makes it again calls it
//! the same; no object has records of two hours; the same lines give the same frames.

use std::io;

use aws_lc_rs::digest::{Context, SHA256};
use crc_fast::Digest;
use zstd::bulk::Compressor;
use zstd::zstd_safe::{CParameter, ParamSwitch};

use super::chain::merkle::Tree;
use super::index::IndexBuilder;
use super::read::Contents;
use super::store::CRC;
use crate::stamp::Hour;

/// What a frame holds before compression: larger ones gain nothing, smaller ones compress worse.
const FRAME: usize = 1 << 20;
/// For the frames of all packs together.
const MEMORY: usize = 64 << 20;
const FRAME_MIN: usize = 64 << 10;

/// What level 1 is here. Lines of an archive are like those before them and hold much that is random: one
/// window of 256 KiB and a table of 16 KiB have what there is to find and stay in the caches, and larger
/// steps pass over digests. Takes a third less time than zstd's own level 1, for a tenth more bytes.
const LEVEL_1: [CParameter; 5] = [
    CParameter::WindowLog(18),
    CParameter::HashLog(12),
    CParameter::MinMatch(7),
    CParameter::TargetLength(4),
    // Steps alone would turn this off.
    CParameter::LiteralCompressionMode(ParamSwitch::Enable),
];

/// When objects close.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// Bytes of an object.
    pub roll_bytes: u64,
    /// Milliseconds since it was opened.
    pub roll_after_ms: u64,
    /// Bytes of lines in a frame.
    frame: usize,
    /// Whether a chain wants a Merkle tree of what objects have.
    proven: bool,
}

impl Rules {
    /// For that many packs: together they keep to a bound, except where there are thousands.
    pub fn new(roll_bytes: u64, roll_after_ms: u64, packs: usize) -> Self {
        let frame = (MEMORY / packs.max(1)).clamp(FRAME_MIN, FRAME);
        let frame = frame.min(usize::try_from(roll_bytes).unwrap_or(FRAME));
        Self { roll_bytes, roll_after_ms, frame, proven: false }
    }

    /// With a Merkle tree of what objects have, for a chain.
    pub fn proven(self, proven: bool) -> Self {
        Self { proven, ..self }
    }
}

/// Names an object among those of one journal and region.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Name {
    pub hour: Hour,
    pub first_lsn: u64,
}

impl Name {
    /// Its file, without what says how it is compressed.
    pub fn file(&self, gateway: &str, journal: &str) -> String {
        format!("{gateway}-{journal}-{}", self.first_lsn)
    }

    /// Its place in an archive.
    pub fn object(&self, gateway: &str, journal: &str) -> String {
        let [day, hour] = self.hour.folders();
        format!("{day}/{hour}/{}.jsonl.zst", self.file(gateway, journal))
    }
}

/// Compresses frames; one for all packs.
pub struct Frames {
    zstd: Compressor<'static>,
    out: Vec<u8>,
}

impl Frames {
    pub fn new(level: i32) -> io::Result<Self> {
        let mut zstd = Compressor::new(level)?;
        // Whoever reads a frame, years later, can tell whether it is what was written.
        zstd.include_checksum(true)?;
        if level == 1 {
            LEVEL_1.into_iter().try_for_each(|parameter| zstd.set_parameter(parameter))?;
        }
        Ok(Self { zstd, out: Vec::new() })
    }

    fn compress(&mut self, lines: &[u8]) -> io::Result<&[u8]> {
        self.out.clear();
        self.out.reserve(zstd::zstd_safe::compress_bound(lines.len()));
        self.zstd.compress_to_buffer(lines, &mut self.out)?;
        Ok(&self.out)
    }
}

/// The objects of one region and journal.
pub struct Pack {
    rules: Rules,
    lines: Vec<u8>,
    /// Where the newest line begins.
    newest: usize,
    index: IndexBuilder,
    open: Option<Open>,
}

struct Open {
    name: Name,
    opened_ms: u64,
    /// But for its digests.
    contents: Contents,
    sha256: Context,
    crc: Digest,
    /// Where a chain wants it.
    tree: Option<Tree>,
}

impl Pack {
    pub fn new(rules: Rules) -> Self {
        Self { rules, lines: Vec::new(), newest: 0, index: IndexBuilder::default(), open: None }
    }

    pub fn name(&self) -> Option<Name> {
        self.open.as_ref().map(|open| open.name)
    }

    /// Whether the open object must be closed before a record of that hour comes.
    pub fn ends_before(&self, hour: Hour) -> bool {
        self.open.as_ref().is_some_and(|open| open.name.hour != hour)
    }

    /// Opens an object.
    pub fn open(&mut self, name: Name, now_ms: u64) {
        self.lines.clear();
        self.index.clear();
        self.open = Some(Open {
            name,
            opened_ms: now_ms,
            contents: Contents::default(),
            sha256: Context::new(&SHA256),
            crc: Digest::new(CRC),
            tree: self.rules.proven.then(Tree::default),
        });
    }

    /// For one record to be appended to; then call [`Pack::added`].
    pub fn lines(&mut self) -> &mut Vec<u8> {
        self.newest = self.lines.len();
        &mut self.lines
    }

    pub fn added(&mut self, lsn: u64) {
        let Some(open) = &mut self.open else { return };
        if open.contents.records == 0 {
            open.contents.first_lsn = lsn;
        }
        open.contents.last_lsn = lsn;
        open.contents.records += 1;
        let line = self.lines.get(self.newest..).unwrap_or_default();
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        self.index.record(line);
        if let Some(tree) = &mut open.tree {
            tree.push_record(line);
        }
    }

    /// The frame that is due, compressed: a full one, or with `all` whatever there is.
    pub fn frame<'f>(&mut self, frames: &'f mut Frames, all: bool) -> io::Result<Option<&'f [u8]>> {
        let Some(open) = &mut self.open else { return Ok(None) };
        if self.lines.is_empty() || !all && self.lines.len() < self.rules.frame {
            return Ok(None);
        }
        let frame = frames.compress(&self.lines)?;
        open.contents.raw_bytes += self.lines.len() as u64;
        open.contents.bytes += frame.len() as u64;
        self.index.frame(frame.len() as u64);
        open.sha256.update(frame);
        open.crc.update(frame);
        self.lines.clear();
        // One webhook of megabytes must not keep them for ever.
        self.lines.shrink_to(2 * self.rules.frame);
        Ok(Some(frame))
    }

    /// Whether the open object is large enough, with all frames that were due written.
    pub fn is_full(&self) -> bool {
        self.open.as_ref().is_some_and(|open| open.contents.bytes >= self.rules.roll_bytes)
    }

    /// Whether the open object is old enough.
    pub fn is_old(&self, now_ms: u64) -> bool {
        let roll_after_ms = self.rules.roll_after_ms;
        self.open.as_ref().is_some_and(|open| now_ms.saturating_sub(open.opened_ms) >= roll_after_ms)
    }

    /// What the object has, as far as its frames are written.
    pub fn contents(&self) -> Contents {
        let Some(open) = &self.open else { return Contents::default() };
        let mut contents = open.contents;
        contents.sha256 = open.sha256.clone().finish().as_ref().try_into().unwrap_or_default();
        contents.merkle_root = open.tree.as_ref().map(Tree::root);
        contents
    }

    /// The CRC of the object's bytes, as far as its frames are written: for whoever reads them again.
    pub fn crc(&self) -> u64 {
        self.open.as_ref().map_or(0, |open| open.crc.finalize())
    }

    /// The index of the object, as far as its frames are written.
    pub fn index(&self) -> Vec<u8> {
        self.index.finish()
    }

    /// Ends the object, closed or given up.
    pub fn end(&mut self) {
        self.lines = Vec::new();
        self.index = IndexBuilder::default();
        self.open = None;
    }
}
