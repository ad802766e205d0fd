//! What an entry of the journal says beside the body: the verdict of verify, parse and route.
//!
//! Written once by intake, straight into the frame; read by forwarding (and by whoever comes later)
//! without parsing the body again. Little endian:
//!
//! ```text
//! version u8 | source kind u8 | secret u8 | flags u8 | source id u32 | received_at u64 | peer ip 16
//! peer port u16 | regions u16 | events u32 | signature 32 | conversations u32 | headers u32 | users u32
//! regions:        (region id u32 | conversations u32 | events u32 | 0 u32)...   one per slot
//! conversations:  u64...                                                        grouped by slot
//! events:         (key 16 | value u64 | slot u16 | kind u8 | user u8)...        in the body's order
//! headers:        "name: value\r\n"...                                          those worth keeping
//! users:          text...                                                       of the events, end to end
//! ```
//!
//! An event's `user` is the length of its text in `users`: 0 for none, 255 for the same text as the last
//! one before it. It is the first user of the event, by the digits of the phone, else by the
//! business-scoped id.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use crate::journal::buffer::AlignedBuf;
use crate::parse::phone::Digits;
use crate::parse::{Key, User};

const VERSION: u8 = 2;
const FIXED: usize = 84;
const REGION: usize = 16;
const EVENT: usize = 28;
/// An event with the same user as the last one that has any. Real texts are shorter: the parser takes
/// phones of up to 15 digits and ids of up to 135 characters.
const SAME_USER: u8 = 255;

/// Stable number of a source or region, from its name: the same over restarts and renumbering.
/// FNV-1a, 32 bits; start-up refuses a configuration in which two names share one.
pub fn name_id(name: &str) -> u32 {
    name.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

/// One event's row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventRow {
    pub key: Key,
    /// What it says: [`crate::parse::Event::value`].
    pub value: u64,
    /// Which of the entry's regions it goes to.
    pub slot: u16,
    pub kind: u8,
}

/// What intake found out about one webhook. Reused from one to the next: nothing is allocated once
/// it has grown.
#[derive(Debug, Default)]
pub struct Verdict {
    pub source: u32,
    pub wasender: bool,
    /// Index of the secret that verified.
    pub secret: u8,
    /// The body was not understood and goes out as it is.
    pub opaque: bool,
    pub received_at_ns: u64,
    pub peer: Option<SocketAddr>,
    /// The HMAC that came with it.
    pub signature: [u8; 32],
    /// Region ids, one per slot.
    pub regions: Vec<u32>,
    /// (slot, conversation), sorted and without repeats once [`Verdict::finish`] ran.
    pub conversations: Vec<(u16, u64)>,
    /// [`Verdict::push`] adds one with its user.
    pub events: Vec<EventRow>,
    pub headers: Vec<u8>,
    pub users: Users,
}

/// Who the events are about.
#[derive(Debug, Default)]
pub struct Users {
    /// By event, as written; events behind the last have none.
    lengths: Vec<u8>,
    texts: Vec<u8>,
    /// Where the last one starts in `texts`.
    last: usize,
}

impl Users {
    fn clear(&mut self) {
        self.lengths.clear();
        self.texts.clear();
        self.last = 0;
    }

    fn push(&mut self, user: &[u8]) {
        let length = match u8::try_from(user.len()) {
            Ok(0) | Err(_) => 0,
            Ok(_) if self.texts.get(self.last..) == Some(user) => SAME_USER,
            Ok(SAME_USER) => 0,
            Ok(length) => {
                self.last = self.texts.len();
                self.texts.extend_from_slice(user);
                length
            }
        };
        self.lengths.push(length);
    }
}

impl Verdict {
    pub fn clear(&mut self) {
        self.regions.clear();
        self.conversations.clear();
        self.events.clear();
        self.headers.clear();
        self.users.clear();
        self.opaque = false;
        self.signature = [0; 32];
    }

    /// The slot of a region, made if it is new.
    pub fn slot(&mut self, region: u32) -> u16 {
        let at = self.regions.iter().position(|r| *r == region).unwrap_or_else(|| {
            self.regions.push(region);
            self.regions.len() - 1
        });
        at as u16
    }

    /// Adds the next event of the body.
    pub fn push(&mut self, event: EventRow, users: &[User<'_>]) {
        self.events.push(event);
        let user = users.first().copied().unwrap_or_default();
        match user.phone.and_then(Digits::parse) {
            Some(digits) => self.users.push(&digits),
            None => self.users.push(user.bsuid.unwrap_or_default().as_bytes()),
        }
    }

    /// Call when all events are in.
    pub fn finish(&mut self) {
        if self.conversations.len() > 1 {
            self.conversations.sort_unstable();
            self.conversations.dedup();
        }
    }

    /// Bytes that [`Verdict::write`] takes.
    pub fn encoded_len(&self) -> usize {
        FIXED
            + self.regions.len() * REGION
            + self.conversations.len() * 8
            + self.events.len() * EVENT
            + self.headers.len()
            + self.users.texts.len()
    }

    pub fn write(&self, out: &mut AlignedBuf) {
        let mut fixed = [0u8; FIXED];
        fixed[0] = VERSION;
        fixed[1] = u8::from(self.wasender);
        fixed[2] = self.secret;
        fixed[3] = u8::from(self.opaque);
        fixed[4..8].copy_from_slice(&self.source.to_le_bytes());
        fixed[8..16].copy_from_slice(&self.received_at_ns.to_le_bytes());
        if let Some(peer) = self.peer {
            let ip = match peer.ip() {
                IpAddr::V4(ip) => ip.to_ipv6_mapped(),
                IpAddr::V6(ip) => ip,
            };
            fixed[16..32].copy_from_slice(&ip.octets());
            fixed[32..34].copy_from_slice(&peer.port().to_le_bytes());
        }
        // Slots and events are bounded by the parser far below these types.
        fixed[34..36].copy_from_slice(&(self.regions.len() as u16).to_le_bytes());
        fixed[36..40].copy_from_slice(&(self.events.len() as u32).to_le_bytes());
        fixed[40..72].copy_from_slice(&self.signature);
        fixed[72..76].copy_from_slice(&(self.conversations.len() as u32).to_le_bytes());
        fixed[76..80].copy_from_slice(&(self.headers.len() as u32).to_le_bytes());
        fixed[80..84].copy_from_slice(&(self.users.texts.len() as u32).to_le_bytes());
        // One piece for all of it: each time a buffer grows it is asked whether it can.
        let (to, rest) = out.extend(self.encoded_len()).split_at_mut(FIXED);
        to.copy_from_slice(&fixed);
        let (rows, rest) = rest.split_at_mut(self.regions.len() * REGION);
        for ((slot, region), row) in (0u16..).zip(&self.regions).zip(rows.chunks_exact_mut(REGION)) {
            let (conversations, events) = self.of_slot(slot);
            row[0..4].copy_from_slice(&region.to_le_bytes());
            row[4..8].copy_from_slice(&conversations.to_le_bytes());
            row[8..12].copy_from_slice(&events.to_le_bytes());
            row[12..].fill(0);
        }
        let (rows, rest) = rest.split_at_mut(self.conversations.len() * 8);
        for ((_, conversation), row) in self.conversations.iter().zip(rows.chunks_exact_mut(8)) {
            row.copy_from_slice(&conversation.to_le_bytes());
        }
        let (rows, rest) = rest.split_at_mut(self.events.len() * EVENT);
        let users = self.users.lengths.iter().copied().chain(std::iter::repeat(0));
        for ((event, user), row) in self.events.iter().zip(users).zip(rows.chunks_exact_mut(EVENT)) {
            row[0..16].copy_from_slice(&event.key);
            row[16..24].copy_from_slice(&event.value.to_le_bytes());
            row[24..26].copy_from_slice(&event.slot.to_le_bytes());
            row[26] = event.kind;
            row[27] = user;
        }
        let (headers, users) = rest.split_at_mut(self.headers.len());
        headers.copy_from_slice(&self.headers);
        users.copy_from_slice(&self.users.texts);
    }

    /// How many conversations and events a slot has. Nearly every webhook is for one region.
    fn of_slot(&self, slot: u16) -> (u32, u32) {
        if self.regions.len() == 1 {
            return (self.conversations.len() as u32, self.events.len() as u32);
        }
        let conversations = self.conversations.iter().filter(|(s, _)| *s == slot).count();
        let events = self.events.iter().filter(|e| e.slot == slot).count();
        (conversations as u32, events as u32)
    }
}

/// The verdict read back, borrowed from the entry.
#[derive(Debug, Clone, Copy)]
pub struct Meta<'a> {
    fixed: &'a [u8],
    regions: &'a [u8],
    conversations: &'a [u8],
    events: &'a [u8],
    headers: &'a [u8],
    users: &'a [u8],
}

/// Why a meta cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MetaFault {
    #[error("entry format {0} is not known to this version; start the version that wrote it")]
    Version(u8),
    #[error("lengths in the entry contradict each other")]
    Lengths,
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

impl<'a> Meta<'a> {
    pub fn read(bytes: &'a [u8]) -> Result<Self, MetaFault> {
        match bytes.first() {
            Some(&VERSION) => {}
            Some(&other) => return Err(MetaFault::Version(other)),
            None => return Err(MetaFault::Lengths),
        }
        let (fixed, rest) = bytes.split_at_checked(FIXED).ok_or(MetaFault::Lengths)?;
        let slots = usize::from(u16::from_le_bytes([fixed[34], fixed[35]]));
        let split = |rest: &'a [u8], len: usize| rest.split_at_checked(len).ok_or(MetaFault::Lengths);
        let (regions, rest) = split(rest, slots * REGION)?;
        let (conversations, rest) = split(rest, u32_at(fixed, 72) as usize * 8)?;
        let (events, rest) = split(rest, u32_at(fixed, 36) as usize * EVENT)?;
        let (headers, users) = split(rest, u32_at(fixed, 76) as usize)?;
        if users.len() != u32_at(fixed, 80) as usize {
            return Err(MetaFault::Lengths);
        }
        let listed: u64 = regions.chunks_exact(REGION).map(|r| u64::from(u32_at(r, 4))).sum();
        if listed * 8 != conversations.len() as u64 {
            return Err(MetaFault::Lengths);
        }
        Ok(Self { fixed, regions, conversations, events, headers, users })
    }

    pub fn source(&self) -> u32 {
        u32_at(self.fixed, 4)
    }

    pub fn wasender(&self) -> bool {
        self.fixed[1] != 0
    }

    pub fn secret(&self) -> u8 {
        self.fixed[2]
    }

    pub fn opaque(&self) -> bool {
        self.fixed[3] != 0
    }

    /// Unix nanoseconds.
    pub fn received_at_ns(&self) -> u64 {
        u64_at(self.fixed, 8)
    }

    pub fn peer(&self) -> SocketAddr {
        let mut ip = [0u8; 16];
        ip.copy_from_slice(&self.fixed[16..32]);
        let ip = Ipv6Addr::from(ip);
        let ip = ip.to_ipv4_mapped().map_or(IpAddr::V6(ip), IpAddr::V4);
        SocketAddr::new(ip, u16::from_le_bytes([self.fixed[32], self.fixed[33]]))
    }

    pub fn signature(&self) -> [u8; 32] {
        let mut signature = [0; 32];
        signature.copy_from_slice(&self.fixed[40..72]);
        signature
    }

    pub fn slots(&self) -> usize {
        self.regions.len() / REGION
    }

    /// Region id of each slot.
    pub fn regions(&self) -> impl Iterator<Item = u32> + 'a {
        self.regions.chunks_exact(REGION).map(|r| u32_at(r, 0))
    }

    /// Conversations of the parcel in `slot`.
    pub fn conversations(&self, slot: u16) -> impl Iterator<Item = u64> + 'a {
        let before: usize =
            self.regions.chunks_exact(REGION).take(usize::from(slot)).map(|r| u32_at(r, 4) as usize).sum();
        let count =
            self.regions.chunks_exact(REGION).nth(usize::from(slot)).map_or(0, |r| u32_at(r, 4) as usize);
        self.conversations.chunks_exact(8).skip(before).take(count).map(|c| u64_at(c, 0))
    }

    pub fn events(&self) -> impl ExactSizeIterator<Item = EventRow> + 'a {
        self.events.chunks_exact(EVENT).map(|e| {
            let mut key = Key::default();
            key.copy_from_slice(&e[..16]);
            EventRow { key, value: u64_at(e, 16), slot: u16::from_le_bytes([e[24], e[25]]), kind: e[26] }
        })
    }

    /// Of each event, in the order of [`Meta::events`]: who it is about, if anybody. Phones are digits alone.
    pub fn users(&self) -> impl Iterator<Item = Option<&'a str>> + 'a {
        let (mut rest, mut last) = (self.users, None);
        self.events.chunks_exact(EVENT).map(move |event| match event[27] {
            0 => None,
            SAME_USER => last,
            length => {
                let (text, behind) = rest.split_at_checked(usize::from(length))?;
                rest = behind;
                last = std::str::from_utf8(text).ok();
                last
            }
        })
    }

    /// Kept headers as they came, one per line.
    pub fn headers(&self) -> &'a [u8] {
        self.headers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdict_reads_back_as_written() {
        let mut verdict = Verdict {
            source: name_id("main"),
            secret: 1,
            received_at_ns: 1_789_400_000_123_456_789,
            peer: Some("192.0.2.7:4711".parse().unwrap()),
            signature: [5; 32],
            ..Verdict::default()
        };
        let (eu, us) = (verdict.slot(name_id("eu")), verdict.slot(name_id("us")));
        assert_eq!(verdict.slot(name_id("eu")), eu);
        for (slot, conversation) in [(us, 9), (eu, 3), (us, 2), (eu, 3)] {
            verdict.conversations.push((slot, conversation));
        }
        let phone = User { phone: Some("+91 98765-00001"), bsuid: Some("IN.1") };
        let bsuid = User { phone: None, bsuid: Some("IN.ENT.22") };
        let long = "9".repeat(300);
        let too_long = User { phone: None, bsuid: Some(&long) };
        let users: [(&[User<'_>], _); 8] = [
            (&[], None),
            (&[phone, bsuid], Some("919876500001")),
            (&[phone], Some("919876500001")),
            (&[], None),
            (&[phone], Some("919876500001")),
            (&[bsuid, phone], Some("IN.ENT.22")),
            (&[too_long], None),
            (&[phone], Some("919876500001")),
        ];
        for (at, (users, _)) in (0..).zip(users) {
            let slot = if at % 2 == 0 { eu } else { us };
            verdict.push(EventRow { key: [at; 16], value: u64::MAX - 1, slot, kind: at }, users);
        }
        verdict.headers.extend_from_slice(b"user-agent: facebookexternalua\r\n");
        verdict.finish();
        let mut buf = AlignedBuf::with_capacity(0);
        verdict.write(&mut buf);
        assert_eq!(buf.len(), verdict.encoded_len());
        let meta = Meta::read(buf.as_slice()).unwrap();
        assert_eq!((meta.source(), meta.secret(), meta.opaque()), (name_id("main"), 1, false));
        assert_eq!(meta.received_at_ns(), 1_789_400_000_123_456_789);
        assert_eq!(meta.peer(), "192.0.2.7:4711".parse().unwrap());
        assert_eq!(meta.signature(), [5; 32]);
        assert_eq!(meta.regions().collect::<Vec<_>>(), [name_id("eu"), name_id("us")]);
        assert_eq!(meta.conversations(eu).collect::<Vec<_>>(), [3]);
        assert_eq!(meta.conversations(us).collect::<Vec<_>>(), [2, 9]);
        assert_eq!(meta.events().collect::<Vec<_>>(), verdict.events);
        assert_eq!(meta.headers(), b"user-agent: facebookexternalua\r\n");
        assert_eq!(meta.users().collect::<Vec<_>>(), users.map(|(_, expected)| expected));
        // Neighbours share a text.
        assert_eq!(verdict.users.texts, b"919876500001IN.ENT.22919876500001");
        for cut in 0..buf.len() {
            assert!(Meta::read(&buf.as_slice()[..cut]).is_err(), "cut at {cut} and not seen");
        }
    }
}
