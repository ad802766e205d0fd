//! From an entry to one line of an archive object: what the region has of the webhook, as JSON. Pure.
//!
//! ```text
//! {"v":1,"id":"<journal>-<lsn>","gateway","source","region","regions":[],"received_at","remote","headers":{},
//!  "events":[{"key","kind","user"}],"sha256","ranges":[[offset,length]],"body" or "body_base64"}
//! ```
//!
//! Invariants: the same entry gives the same bytes; the decoded `body` is exactly what came, or with
//! `ranges` exactly those bytes of it; `sha256` is always that of the whole body. A record of a part
//! lists the events of that part alone. Deliberately absent: what messages say.

use std::io::Write;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::stamp;
use super::users::Users;
use crate::config::{Config, Mixed, SourceKind};
use crate::cut::{Cutter, Ranges};
use crate::entry::{Meta, name_id};
use crate::parse::EventKind;

/// An entry of a journal.
#[derive(Clone, Copy)]
pub struct Webhook<'a> {
    /// The journal's id in hex.
    pub journal: &'a str,
    pub lsn: u64,
    pub meta: Meta<'a>,
    pub body: &'a [u8],
}

/// Why there is no record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecordFault {
    #[error(
        "entry {0} waits: this version finds no event of the region in its webhook; start the version that stored it"
    )]
    NoEvents(u64),
}

/// Writes records. Its memory is reused.
pub struct Records {
    /// As JSON strings, quotes included.
    gateway: Vec<u8>,
    sources: Vec<(u32, Vec<u8>)>,
    regions: Vec<(u32, Vec<u8>)>,
    default_region: usize,
    mixed: Mixed,
    users: Users,
    cutter: Cutter,
    ranges: Ranges,
}

impl Records {
    pub fn new(config: &Config) -> Self {
        let named = |name: &String| (name_id(name), quoted(name));
        Self {
            gateway: quoted(&config.gateway.id),
            sources: config.sources.iter().map(|source| named(&source.name)).collect(),
            regions: config.regions.iter().map(|region| named(&region.name)).collect(),
            default_region: config.default_region,
            mixed: config.archive.mixed,
            users: Users::default(),
            cutter: Cutter::new(),
            ranges: Ranges::default(),
        }
    }

    /// The region of an id in an entry. One that is no longer configured leads to the default region.
    pub fn region(&self, id: u32) -> usize {
        self.regions.iter().position(|(other, _)| *other == id).unwrap_or(self.default_region)
    }

    /// Appends the record for `region`, which is one of the webhook's, and a line break. On a fault
    /// nothing is appended.
    pub fn write(
        &mut self,
        webhook: &Webhook<'_>,
        region: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), RecordFault> {
        let Webhook { journal, lsn, meta, body } = *webhook;
        let kind = if meta.wasender() { SourceKind::Wasender } else { SourceKind::Whatsapp };
        // Slots are few: nearly every webhook has one.
        let own: Vec<bool> = meta.regions().map(|id| self.region(id) == region).collect();
        let is_own = |slot: u16| own.get(usize::from(slot)).copied().unwrap_or(false);
        let part = self.mixed == Mixed::Split && own.contains(&false);
        if part {
            let slots: Vec<u16> = meta.events().map(|event| event.slot).collect();
            let keep = |event: usize| slots.get(event).is_some_and(|slot| is_own(*slot));
            let is_default = region == self.default_region;
            if self.cutter.ranges(kind, body, keep, is_default, &mut self.ranges).events == 0 {
                return Err(RecordFault::NoEvents(lsn));
            }
        }
        self.users.read(kind, body);

        put(out, format_args!("{{\"v\":1,\"id\":\"{journal}-{lsn}\",\"gateway\":"));
        out.extend_from_slice(&self.gateway);
        out.extend_from_slice(b",\"source\":");
        match self.sources.iter().find(|(id, _)| *id == meta.source()) {
            Some((_, name)) => out.extend_from_slice(name),
            // Configured no more: its number is all there is.
            None => put(out, format_args!("\"#{:08x}\"", meta.source())),
        }
        out.extend_from_slice(b",\"region\":");
        out.extend_from_slice(&self.regions[region].1);
        out.extend_from_slice(b",\"regions\":[");
        self.write_regions(&meta, out);
        out.extend_from_slice(b"],\"received_at\":\"");
        stamp::write(meta.received_at_ns(), out);
        let peer = meta.peer();
        match peer.port() {
            // Seen through a proxy: its port is not known.
            0 => put(out, format_args!("\",\"remote\":\"{}\"", peer.ip())),
            _ => put(out, format_args!("\",\"remote\":\"{peer}\"")),
        }
        out.extend_from_slice(b",\"headers\":{");
        write_headers(meta.headers(), out);
        out.extend_from_slice(b"},\"events\":[");
        let mut first = true;
        for (at, event) in meta.events().enumerate().filter(|(_, event)| !part || is_own(event.slot)) {
            out.extend_from_slice(if first { b"{\"key\":\"" } else { b",{\"key\":\"" });
            first = false;
            write_hex(&event.key, out);
            let name = EventKind::ALL.get(usize::from(event.kind)).map_or("unknown", |(_, name)| name);
            put(out, format_args!("\",\"kind\":\"{name}\",\"user\":"));
            match self.users.get(at) {
                Some(user) => write_string(user, out),
                None => out.extend_from_slice(b"null"),
            }
            out.push(b'}');
        }
        out.extend_from_slice(b"],\"sha256\":\"");
        write_hex(digest(&SHA256, body).as_ref(), out);
        out.push(b'"');
        if part {
            self.write_part(body, out);
        } else {
            match std::str::from_utf8(body) {
                Ok(text) => {
                    out.extend_from_slice(b",\"body\":");
                    write_string(text, out);
                }
                Err(_) => write_base64(body, out),
            }
        }
        out.extend_from_slice(b"}\n");
        Ok(())
    }

    /// Every region concerned, once.
    fn write_regions(&self, meta: &Meta<'_>, out: &mut Vec<u8>) {
        for (at, id) in meta.regions().enumerate() {
            let region = self.region(id);
            if meta.regions().take(at).any(|before| self.region(before) == region) {
                continue;
            }
            if at > 0 {
                out.push(b',');
            }
            out.extend_from_slice(&self.regions[region].1);
        }
    }

    fn write_part(&self, body: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(b",\"ranges\":[");
        for (at, range) in self.ranges.as_slice().iter().enumerate() {
            let comma = if at > 0 { "," } else { "" };
            put(out, format_args!("{comma}[{},{}]", range.start, range.len()));
        }
        out.push(b']');
        // What was taken apart is JSON, and so is the part, both in UTF-8; ranges never end inside of a character.
        if self.ranges.of(body).all(|piece| std::str::from_utf8(piece).is_ok()) {
            out.extend_from_slice(b",\"body\":\"");
            self.ranges.of(body).for_each(|piece| escape(piece, out));
            out.push(b'"');
        } else {
            let part: Vec<u8> = self.ranges.of(body).flatten().copied().collect();
            write_base64(&part, out);
        }
    }
}

/// Kept headers, `name: value` lines, as members; the values of one that came several times are joined by commas.
fn write_headers(lines: &[u8], out: &mut Vec<u8>) {
    let fields = || {
        lines.split(|byte| *byte == b'\n').filter_map(|line| {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            let colon = memchr::memchr(b':', line)?;
            Some((&line[..colon], line[colon + 1..].trim_ascii()))
        })
    };
    for (at, (name, value)) in fields().enumerate() {
        if fields().take(at).any(|(before, _)| before == name) {
            continue;
        }
        out.extend_from_slice(if at > 0 { b",\"" } else { b"\"" });
        escape(name, out);
        out.extend_from_slice(b"\":\"");
        // Headers may hold any byte; JSON may not.
        escape(String::from_utf8_lossy(value).as_bytes(), out);
        for (_, more) in fields().skip(at + 1).filter(|(other, _)| *other == name) {
            out.extend_from_slice(b", ");
            escape(String::from_utf8_lossy(more).as_bytes(), out);
        }
        out.push(b'"');
    }
}

fn write_base64(body: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(b",\"body_base64\":\"");
    out.extend_from_slice(STANDARD.encode(body).as_bytes());
    out.push(b'"');
}

fn write_hex(bytes: &[u8], out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for byte in bytes {
        out.extend_from_slice(&[DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
    }
}

fn quoted(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    write_string(text, &mut out);
    out
}

fn write_string(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    escape(text.as_bytes(), out);
    out.push(b'"');
}

/// What stands behind the backslash for a byte that a JSON string cannot hold as it is; 0 = it can.
const ESCAPES: [u8; 256] = {
    let mut table = [0; 256];
    let mut at = 0;
    while at < 0x20 {
        table[at] = b'u';
        at += 1;
    }
    table[b'"' as usize] = b'"';
    table[b'\\' as usize] = b'\\';
    table[b'\n' as usize] = b'n';
    table[b'\r' as usize] = b'r';
    table[b'\t' as usize] = b't';
    table
};

/// Appends the inside of a JSON string. `text` is UTF-8, or a part of it between two characters.
fn escape(text: &[u8], out: &mut Vec<u8>) {
    out.reserve(text.len() + text.len() / 4);
    let mut rest = text;
    while let Some(at) = rest.iter().position(|byte| ESCAPES[usize::from(*byte)] != 0) {
        let (plain, special) = rest.split_at(at);
        out.extend_from_slice(plain);
        let byte = special[0];
        match ESCAPES[usize::from(byte)] {
            b'u' => put(out, format_args!("\\u{byte:04x}")),
            short => out.extend_from_slice(&[b'\\', short]),
        }
        rest = &special[1..];
    }
    out.extend_from_slice(rest);
}

fn put(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    // A vector takes everything.
    out.write_fmt(text).ok();
}
