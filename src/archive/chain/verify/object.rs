//! Whether an object is what its link says.

use std::cell::Cell;
use std::io::{self, Read};

use aws_lc_rs::digest::SHA256;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::super::super::read::contents;
use super::super::link::{ObjectLink, hex};
use super::is_like;

/// What a link says of an object.
pub(super) struct Claim<'a> {
    pub(super) gateway: &'a str,
    pub(super) region: Option<&'a str>,
    pub(super) object: &'a ObjectLink,
}

/// What is compared of a record.
#[derive(Deserialize)]
struct Record {
    id: String,
    gateway: String,
    region: String,
    received_at: String,
    /// Not under a mask.
    sha256: Option<String>,
    ranges: Option<IgnoredAny>,
    body: Option<String>,
    body_base64: Option<String>,
}

/// Tells a fault of reading from one of what was read.
struct Noticed<'a, R> {
    object: R,
    error: &'a Cell<Option<io::ErrorKind>>,
}

impl<R: Read> Read for Noticed<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.object.read(buffer).inspect_err(|error| self.error.set(Some(error.kind())))
    }
}

impl Claim<'_> {
    /// Whether the object is called what this gateway would call it, and so lies within the archive.
    pub(super) fn is_named(&self) -> bool {
        let ObjectLink { name, journal, first_lsn, .. } = self.object;
        let is_id = journal.len() == 32 && journal.bytes().all(|byte| byte.is_ascii_hexdigit());
        let file = format!("{}-{journal}-{first_lsn}.jsonl.zst", self.gateway);
        let Some((hour, named)) = name.split_at_checked("dt=2026-09-14/hour=12".len()) else { return false };
        is_id && is_like(hour, b"dt=0000-00-00/hour=00") && named.strip_prefix('/') == Some(&file)
    }

    /// `Err`: what is different.
    pub(super) fn compare(&self, object: impl Read) -> io::Result<Result<(), String>> {
        let link = self.object;
        let unread = Cell::new(None);
        let object = Noticed { object, error: &unread };
        let found =
            contents(&link.journal, object, (link.bytes, link.raw_bytes), |record| self.record(record));
        let found = match (found, unread.take()) {
            // It could not be read, which says nothing about what is there.
            (Err(error), Some(kind)) => return Err(io::Error::new(kind, error)),
            (Err(fault), None) => return Ok(Err(fault.to_string())),
            (Ok(found), _) => found,
        };
        let now = ObjectLink::new(link.name.clone(), link.journal.clone(), &found);
        let now = ObjectLink { index: link.index.clone(), ..now };
        if now == *link {
            return Ok(Ok(()));
        }
        let mut what = Vec::new();
        for (name, was, is) in [
            ("records", link.records, now.records),
            ("first LSN", link.first_lsn, now.first_lsn),
            ("last LSN", link.last_lsn, now.last_lsn),
            ("raw bytes", link.raw_bytes, now.raw_bytes),
            ("bytes", link.bytes, now.bytes),
        ] {
            if was != is {
                what.push(format!("{name} {is}, were {was}"));
            }
        }
        if link.merkle_root != now.merkle_root {
            what.push("its records are others".to_owned());
        } else if link.sha256 != now.sha256 {
            what.push("the same records, compressed in another way".to_owned());
        }
        Ok(Err(what.join("; ")))
    }

    fn record(&self, record: &[u8]) -> io::Result<()> {
        let wrong = |what: String| io::Error::new(io::ErrorKind::InvalidData, what);
        let record: Record =
            serde_json::from_slice(record).map_err(|error| wrong(format!("not a record: {error}")))?;
        let id = &record.id;
        if record.gateway != self.gateway || self.region.is_some_and(|region| region != record.region) {
            return Err(wrong(format!("record {id} is one of {} in {}", record.gateway, record.region)));
        }
        let hour = record.received_at.get(..13).map(|hour| hour.replace('T', "/hour="));
        if hour.is_none_or(|hour| !self.object.name.starts_with(&format!("dt={hour}/"))) {
            return Err(wrong(format!("record {id} is of {}", record.received_at)));
        }
        let body = match (record.body, record.body_base64) {
            (Some(text), None) => text.into_bytes(),
            (None, Some(text)) => {
                STANDARD.decode(text).map_err(|error| wrong(format!("record {id}: {error}")))?
            }
            _ => return Err(wrong(format!("record {id} has not one body"))),
        };
        // Of a part its ranges tell.
        let digest = record.sha256.filter(|_| record.ranges.is_none());
        if digest.is_some_and(|is| is != hex(aws_lc_rs::digest::digest(&SHA256, &body).as_ref())) {
            return Err(wrong(format!("record {id} holds another body than the one of its digest")));
        }
        Ok(())
    }
}
