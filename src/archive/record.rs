//! From an entry to one line of an archive object: what the region has of the webhook, as JSON. Pure.
//!
//! ```text
//! {"v":1,"id":"<journal>-<lsn>","gateway","source","region","regions":[],"received_at","remote","headers":{},
//!  "events":[{"key","kind","user"}],"sha256","ranges":[[offset,length]],"body" or "body_base64"}
//! ```
//!
//! Under a mask (see [`super::mask`] for what becomes of each member) `"hmac_sha256"` stands where
//! `"sha256"` does, and `"masked":["phone",...]` before `"body"`; of a body that cannot be masked
//! `"masked":["all"],"length"` and an empty body.
//!
//! Invariants: the same entry gives the same bytes; the decoded `body` is exactly what came, or with
//! `ranges` exactly those bytes of it, unless there is a mask; `sha256` is always that of the whole body. A
//! record of a part lists the events of that part alone. Deliberately absent: what messages say.

// Addresses, not sockets.
use core::net::{IpAddr, SocketAddr};

use std::borrow::Cow;
use std::cell::OnceCell;

use aws_lc_rs::digest::{Digest, SHA256, digest};

use super::json;
use super::mask::Masker;
use crate::config::{Config, Mixed, SourceKind};
use crate::cut::{Cutter, Ranges};
use crate::entry::{Meta, name_id};
use crate::parse::EventKind;
use crate::stamp;

/// An entry of a journal.
#[derive(Clone, Copy)]
pub struct Webhook<'a> {
    /// The journal's id in hex.
    pub journal: &'a str,
    pub lsn: u64,
    /// Of the region among the webhook's.
    pub slot: u16,
    pub meta: Meta<'a>,
    pub body: &'a [u8],
    pub sha256: &'a BodyDigest,
    /// As it came, in base64 and without its events: taking it apart would end the process.
    pub raw: bool,
}

/// SHA-256 of a body, made when the first record wants it: a webhook may have records in several regions.
#[derive(Default)]
pub struct BodyDigest(OnceCell<Digest>);

impl BodyDigest {
    fn of(&self, body: &[u8]) -> &[u8] {
        self.0.get_or_init(|| digest(&SHA256, body)).as_ref()
    }
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
    mask: Option<Masker>,
    headers: Vec<Header>,
    cutter: Cutter,
    ranges: Ranges,
}

impl Records {
    pub fn new(config: &Config) -> Self {
        let named = |name: &String| (name_id(name), json::quoted(name));
        Self {
            gateway: json::quoted(&config.gateway.id),
            sources: config.sources.iter().map(|source| named(&source.name)).collect(),
            regions: config.regions.iter().map(|region| named(&region.name)).collect(),
            default_region: config.default_region,
            mixed: config.archive.mixed,
            mask: config.archive.mask.as_ref().map(Masker::new),
            headers: vec![Header::default(); HEADERS],
            cutter: Cutter::new(),
            ranges: Ranges::default(),
        }
    }

    /// The region of an id in an entry. One that is no longer configured leads to the default region.
    pub fn region(&self, id: u32) -> usize {
        self.regions.iter().position(|(other, _)| *other == id).unwrap_or(self.default_region)
    }

    /// Whether the regions of a webhook get parts of it, which only taking it apart can tell.
    pub fn is_split(&self, meta: &Meta<'_>) -> bool {
        let mut regions = meta.regions().map(|id| self.region(id));
        let first = regions.next();
        self.mixed == Mixed::Split && regions.any(|region| Some(region) != first)
    }

    /// Appends the record for `region`, which is one of the webhook's, and a line break. On a fault
    /// nothing is appended.
    pub fn write(
        &mut self,
        webhook: &Webhook<'_>,
        region: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), RecordFault> {
        let Webhook { journal, lsn, meta, body, sha256, raw, .. } = *webhook;
        let kind = if meta.wasender() { SourceKind::Wasender } else { SourceKind::Whatsapp };
        let part = !raw && self.mixed == Mixed::Split && meta.regions().any(|id| self.region(id) != region);
        // Nearly every webhook is one region's alone.
        let own: Vec<bool> = match part {
            true => meta.regions().map(|id| self.region(id) == region).collect(),
            false => Vec::new(),
        };
        let is_own = |slot: u16| own.get(usize::from(slot)).copied().unwrap_or(false);
        if part {
            let slots: Vec<u16> = meta.events().map(|event| event.slot).collect();
            let keep = |event: usize| slots.get(event).is_some_and(|slot| is_own(*slot));
            let is_default = region == self.default_region;
            if self.cutter.ranges(kind, body, keep, is_default, &mut self.ranges).events == 0 {
                return Err(RecordFault::NoEvents(lsn));
            }
        }

        // Once for nearly all: what is not the body takes about that much, and a body has many quotes.
        out.reserve(body.len() + body.len() / 4 + 1024);
        out.extend_from_slice(b"{\"v\":1,\"id\":\"");
        out.extend_from_slice(journal.as_bytes());
        out.push(b'-');
        json::number(lsn, out);
        out.extend_from_slice(b"\",\"gateway\":");
        out.extend_from_slice(&self.gateway);
        out.extend_from_slice(b",\"source\":");
        match self.sources.iter().find(|(id, _)| *id == meta.source()) {
            Some((_, name)) => out.extend_from_slice(name),
            // Configured no more: its number is all there is.
            None => json::put(out, format_args!("\"#{:08x}\"", meta.source())),
        }
        out.extend_from_slice(b",\"region\":");
        out.extend_from_slice(&self.regions[region].1);
        out.extend_from_slice(b",\"regions\":[");
        self.write_regions(&meta, out);
        out.extend_from_slice(b"],\"received_at\":\"");
        // Nanoseconds in 64 bits end in the year 2554, so there is one.
        if let Some(moment) = stamp::rfc3339(meta.received_at_ns() / 1_000_000) {
            out.extend_from_slice(&moment);
        }
        out.extend_from_slice(b"\",\"remote\":\"");
        write_peer(meta.peer(), out);
        out.push(b'"');
        out.extend_from_slice(b",\"headers\":{");
        write_headers(meta.headers(), self.mask.as_ref(), &mut self.headers, out);
        out.extend_from_slice(b"},\"events\":[");
        let mut first = true;
        let events = meta.events().zip(meta.users());
        for (event, user) in events.filter(|(event, _)| !raw && (!part || is_own(event.slot))) {
            out.extend_from_slice(if first { b"{\"key\":\"" } else { b",{\"key\":\"" });
            first = false;
            match &self.mask {
                None => json::hex(&event.key, out),
                Some(mask) => mask.key(&event.key, out),
            }
            let name = EventKind::ALL.get(usize::from(event.kind)).map_or("unknown", |(_, name)| name);
            out.extend_from_slice(b"\",\"kind\":\"");
            out.extend_from_slice(name.as_bytes());
            out.extend_from_slice(b"\",\"user\":");
            match (user, &self.mask) {
                (Some(user), None) => json::string(user, out),
                (Some(user), Some(mask)) => mask.user(user, out),
                (None, _) => out.extend_from_slice(b"null"),
            }
            out.push(b'}');
        }
        if self.mask.is_some() {
            self.write_masked(webhook, part, out);
        } else {
            out.extend_from_slice(b"],\"sha256\":\"");
            json::hex(sha256.of(body), out);
            out.push(b'"');
            if part {
                self.write_part(body, out);
            } else {
                let start = out.len();
                out.extend_from_slice(b",\"body\":");
                if raw || !json::utf8(body, out) {
                    out.truncate(start);
                    write_base64(body, out);
                }
            }
        }
        out.extend_from_slice(b"}\n");
        Ok(())
    }

    /// All from the end of the events to that of the body.
    fn write_masked(&mut self, webhook: &Webhook<'_>, part: bool, out: &mut Vec<u8>) {
        let Some(mask) = &mut self.mask else { return };
        let Webhook { journal, lsn, body, raw, .. } = *webhook;
        out.extend_from_slice(b"],\"hmac_sha256\":\"");
        mask.digest(body, out);
        out.push(b'"');
        let kept: Cow<'_, [u8]> = match part {
            true => self.ranges.of(body).flatten().copied().collect::<Vec<u8>>().into(),
            false => body.into(),
        };
        if part {
            write_ranges(&self.ranges, out);
        }
        out.extend_from_slice(b",\"masked\":[");
        // What ended the process is not read again.
        let masked = if raw { None } else { mask.body(&kept, (journal, lsn)) };
        let Some((kinds, text)) = masked else {
            return json::put(out, format_args!("\"all\"],\"length\":{},\"body\":\"\"", body.len()));
        };
        for (at, name) in kinds.names().enumerate() {
            let comma = if at > 0 { "," } else { "" };
            json::put(out, format_args!("{comma}\"{name}\""));
        }
        out.extend_from_slice(b"],\"body\":\"");
        json::escape(text, out);
        out.push(b'"');
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
        write_ranges(&self.ranges, out);
        // What was taken apart is JSON, and so is the part, both in UTF-8; ranges never end inside of a
        // character.
        if self.ranges.of(body).all(|piece| std::str::from_utf8(piece).is_ok()) {
            out.extend_from_slice(b",\"body\":\"");
            self.ranges.of(body).for_each(|piece| json::escape(piece, out));
            out.push(b'"');
        } else {
            let part: Vec<u8> = self.ranges.of(body).flatten().copied().collect();
            write_base64(&part, out);
        }
    }
}

fn write_ranges(ranges: &Ranges, out: &mut Vec<u8>) {
    out.extend_from_slice(b",\"ranges\":[");
    for (at, range) in ranges.as_slice().iter().enumerate() {
        let comma = if at > 0 { "," } else { "" };
        json::put(out, format_args!("{comma}[{},{}]", range.start, range.len()));
    }
    out.push(b']');
}

fn write_base64(body: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(b",\"body_base64\":\"");
    json::base64(body, out);
    out.push(b'"');
}

/// Headers of a webhook whose members are remembered.
const HEADERS: usize = 8;

/// A header that came in the last webhook: most of them come again, in the same order.
#[derive(Clone, Default)]
struct Header {
    line: Vec<u8>,
    member: Vec<u8>,
}

/// Kept headers, `name: value` lines, as members; the values of one that came several times are joined by
/// commas.
fn write_headers(lines: &[u8], mask: Option<&Masker>, last: &mut [Header], out: &mut Vec<u8>) {
    let fields: Vec<Field<'_>> = Fields { lines }.collect();
    // Headers may hold any byte; JSON may not. Hardly one is not ASCII.
    let plain = lines.is_ascii();
    let write = |name: &[u8], value: &[u8], out: &mut Vec<u8>| match (mask, plain) {
        (None, true) => json::escape(value, out),
        (None, false) => json::escape(String::from_utf8_lossy(value).as_bytes(), out),
        (Some(mask), _) => mask.header(name, &String::from_utf8_lossy(value), out),
    };
    for (at, Field { line, name, value }) in fields.iter().enumerate() {
        if fields.iter().take(at).any(|before| before.name == *name) {
            continue;
        }
        if at > 0 {
            out.push(b',');
        }
        let mut more = fields.iter().skip(at + 1).filter(|other| other.name == *name).peekable();
        let mut last = last.get_mut(at).filter(|_| more.peek().is_none());
        if let Some(last) = last.as_ref().filter(|last| last.line == *line) {
            out.extend_from_slice(&last.member);
            continue;
        }
        let start = out.len();
        out.push(b'"');
        json::escape(name, out);
        out.extend_from_slice(b"\":\"");
        write(name, value, out);
        for Field { value, .. } in more {
            out.extend_from_slice(b", ");
            write(name, value, out);
        }
        out.push(b'"');
        if let Some(last) = &mut last {
            last.line.clear();
            last.line.extend_from_slice(line);
            last.member.clear();
            last.member.extend_from_slice(out.get(start..).unwrap_or_default());
        }
    }
}

struct Field<'a> {
    line: &'a [u8],
    name: &'a [u8],
    value: &'a [u8],
}

/// Each line.
struct Fields<'a> {
    lines: &'a [u8],
}

impl<'a> Iterator for Fields<'a> {
    type Item = Field<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        let end = memchr::memchr(b'\n', self.lines)?;
        let (line, rest) = self.lines.split_at(end + 1);
        self.lines = rest;
        let colon = memchr::memchr(b':', line).unwrap_or(line.len());
        let (name, value) = line.split_at(colon);
        Some(Field { line, name, value: value.strip_prefix(b":").unwrap_or(value).trim_ascii() })
    }
}

/// `address:port`, or the address alone where the port is not known: the caller was seen through a proxy.
fn write_peer(peer: SocketAddr, out: &mut Vec<u8>) {
    match peer.ip() {
        // The formatter of the standard library takes longer than all else in a record but its body.
        IpAddr::V4(ip) => {
            for (at, octet) in ip.octets().into_iter().enumerate() {
                if at > 0 {
                    out.push(b'.');
                }
                json::number(u64::from(octet), out);
            }
        }
        IpAddr::V6(ip) if peer.port() == 0 => json::put(out, format_args!("{ip}")),
        IpAddr::V6(ip) => json::put(out, format_args!("[{ip}]")),
    }
    if peer.port() != 0 {
        out.push(b':');
        json::number(u64::from(peer.port()), out);
    }
}
