//! One object after the other: when one opens, what it is called, when it closes. Pure.
//!
//! Lines are collected into a frame of zstd, and frames into an object. The caller asks what is due
//! (a frame to write, an object to close) and does it; a pack never holds more than one frame and the
//! line that filled it.
//!
//! Invariants: an object's name comes from its first record alone, so whoever makes it again calls it
//! the same; no object has records of two hours; the same lines give the same frames.

use std::io;

use zstd::bulk::Compressor;
use zstd::zstd_safe::{CParameter, ParamSwitch};

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
}

impl Rules {
    /// For that many packs: together they keep to a bound, except where there are thousands.
    pub fn new(roll_bytes: u64, roll_after_ms: u64, packs: usize) -> Self {
        let frame = (MEMORY / packs.max(1)).clamp(FRAME_MIN, FRAME);
        Self { roll_bytes, roll_after_ms, frame: frame.min(usize::try_from(roll_bytes).unwrap_or(FRAME)) }
    }
}

/// Names an object among those of one journal and region.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Name {
    pub hour: Hour,
    pub first_lsn: u64,
}

/// What a closed object has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sums {
    pub records: u64,
    /// Before compression.
    pub raw_bytes: u64,
    pub stored_bytes: u64,
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
#[derive(Debug)]
pub struct Pack {
    rules: Rules,
    lines: Vec<u8>,
    open: Option<Open>,
}

#[derive(Debug, Clone, Copy)]
struct Open {
    name: Name,
    opened_ms: u64,
    sums: Sums,
}

impl Pack {
    pub fn new(rules: Rules) -> Self {
        Self { rules, lines: Vec::new(), open: None }
    }

    pub fn name(&self) -> Option<Name> {
        self.open.map(|open| open.name)
    }

    /// Whether the open object must be closed before a record of that hour comes.
    pub fn ends_before(&self, hour: Hour) -> bool {
        self.open.is_some_and(|open| open.name.hour != hour)
    }

    /// Opens an object.
    pub fn open(&mut self, name: Name, now_ms: u64) {
        self.lines.clear();
        self.open = Some(Open { name, opened_ms: now_ms, sums: Sums::default() });
    }

    /// For one record to be appended to; then call [`Pack::added`].
    pub fn lines(&mut self) -> &mut Vec<u8> {
        &mut self.lines
    }

    pub fn added(&mut self) {
        if let Some(open) = &mut self.open {
            open.sums.records += 1;
        }
    }

    /// The frame that is due, compressed: a full one, or with `all` whatever there is.
    pub fn frame<'f>(&mut self, frames: &'f mut Frames, all: bool) -> io::Result<Option<&'f [u8]>> {
        let Some(open) = &mut self.open else { return Ok(None) };
        if self.lines.is_empty() || !all && self.lines.len() < self.rules.frame {
            return Ok(None);
        }
        let frame = frames.compress(&self.lines)?;
        open.sums.raw_bytes += self.lines.len() as u64;
        open.sums.stored_bytes += frame.len() as u64;
        self.lines.clear();
        // One webhook of megabytes must not keep them for ever.
        self.lines.shrink_to(2 * self.rules.frame);
        Ok(Some(frame))
    }

    /// Whether the open object is large enough, with all frames that were due written.
    pub fn is_full(&self) -> bool {
        self.open.is_some_and(|open| open.sums.stored_bytes >= self.rules.roll_bytes)
    }

    /// Whether the open object is old enough.
    pub fn is_old(&self, now_ms: u64) -> bool {
        self.open.is_some_and(|open| now_ms.saturating_sub(open.opened_ms) >= self.rules.roll_after_ms)
    }

    /// Ends the object, closed or given up; what it had.
    pub fn end(&mut self) -> Sums {
        self.lines = Vec::new();
        self.open.take().map(|open| open.sums).unwrap_or_default()
    }
}
