//! Bytes of the dead letters' files. Pure.
//!
//! ```text
//! N.letters:  header 32 | letter...            the webhooks, as they came
//! N.index:    header 32 | (entry | change)...   all that a list shows, without the webhooks
//! header:     "PENSTDLT" or "PENSTDIX" | version u32 | 0 u32 | salt u64 | 0 u32 | crc32c u32
//! piece:      salt u64 | crc32c u32 | length u32 | fields | zeros up to a multiple of 8
//! entry:      1 u8 | reason u8 | slot u16 | part u16 | status u16 | source u32 | attempts u32 | id u64
//!             | place u64 | place's length u32 | body u32 | journal id 16 | lsn u64 | first tried u64
//!             | died u64 | received u64 | conversations u32 | users u32 | events u32 | places u32
//!             | conversation u64... | user u64... | place of an event u32...
//! letter:     as an entry | the journal's record
//! change:     kind u8 | reason u8 | status u16 | number u32 | id u64 | at u64 | conversation u64
//! ```
//!
//! Little endian; times are Unix milliseconds. The CRC covers the length and the fields. Pieces begin on
//! multiples of 8 bytes with their file's random salt, so that behind a damaged one the next is found, and
//! nothing that a webhook says can pass for a piece. Files are only ever appended to: what is wrong at the end was
//! never finished, and what is wrong before a good piece is damage.

use crc_fast::crc32_iscsi;

use super::{Failure, Letter, LetterId, Reason};
use crate::journal::JournalId;

const VERSION: u32 = 1;
/// Bytes before the first piece.
pub const HEADER: usize = 32;
/// Bytes of a piece before its fields.
pub const PREFIX: usize = 16;
const ENTRY: usize = 104;
const CHANGE: usize = 32;
const ENTRY_KIND: u8 = 1;

/// Which of a segment's two files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    Letters,
    Index,
}

impl FileKind {
    fn magic(self) -> &'static [u8; 8] {
        match self {
            Self::Letters => b"PENSTDLT",
            Self::Index => b"PENSTDIX",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HeaderFault {
    #[error("the header is damaged")]
    Damaged,
    #[error("format {0} is not known to this version; start the version that wrote it")]
    Newer(u32),
}

pub fn header(kind: FileKind, salt: u64) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    header[..8].copy_from_slice(kind.magic());
    header[8..12].copy_from_slice(&VERSION.to_le_bytes());
    header[16..24].copy_from_slice(&salt.to_le_bytes());
    let crc = crc32_iscsi(&header[..HEADER - 4]);
    header[HEADER - 4..].copy_from_slice(&crc.to_le_bytes());
    header
}

/// The salt of a file.
pub fn read_header(file: &[u8], kind: FileKind) -> Result<u64, HeaderFault> {
    let header = file.get(..HEADER).ok_or(HeaderFault::Damaged)?;
    let good = header.starts_with(kind.magic()) && crc32_iscsi(&header[..HEADER - 4]) == u32_at(header, 28);
    match u32_at(header, 8) {
        VERSION if good => Ok(u64_at(header, 16)),
        newer if good => Err(HeaderFault::Newer(newer)),
        _ => Err(HeaderFault::Damaged),
    }
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

/// Appends a piece; its length with the zeros.
pub fn push(salt: u64, out: &mut Vec<u8>, fields: impl FnOnce(&mut Vec<u8>)) -> usize {
    let start = out.len();
    out.extend_from_slice(&salt.to_le_bytes());
    out.extend_from_slice(&[0; 8]);
    fields(out);
    let length = (out.len() - start - PREFIX) as u32;
    out[start + 12..start + 16].copy_from_slice(&length.to_le_bytes());
    let crc = crc32_iscsi(&out[start + 12..]);
    out[start + 8..start + 12].copy_from_slice(&crc.to_le_bytes());
    out.resize(start + (out.len() - start).next_multiple_of(8), 0);
    out.len() - start
}

/// The fields of the piece at the start of `bytes`, and its length with the zeros.
pub fn piece(salt: u64, bytes: &[u8]) -> Option<(&[u8], usize)> {
    let prefix = bytes.get(..PREFIX)?;
    if u64_at(prefix, 0) != salt {
        return None;
    }
    let length = u32_at(prefix, 12) as usize;
    let fields = bytes.get(PREFIX..PREFIX.checked_add(length)?)?;
    if crc32_iscsi(&bytes[12..PREFIX + length]) != u32_at(prefix, 8) {
        return None;
    }
    let whole = (PREFIX + length).next_multiple_of(8);
    let zeros = bytes.get(PREFIX + length..whole)?;
    zeros.iter().all(|byte| *byte == 0).then_some((fields, whole))
}

/// Length of a piece with the zeros, as its first bytes say.
pub fn piece_len(prefix: &[u8; PREFIX]) -> usize {
    (PREFIX + u32_at(prefix, 12) as usize).next_multiple_of(8)
}

/// What stands in a part of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found<'a> {
    /// With the place of the piece in the file, and its length.
    Piece {
        at: usize,
        len: usize,
        fields: &'a [u8],
    },
    Damaged {
        at: usize,
        len: usize,
    },
}

/// Visits `bytes`, which stand in their file from `from` on; how many of them at the end were never
/// finished.
pub fn walk<'a>(salt: u64, bytes: &'a [u8], from: usize, mut visit: impl FnMut(Found<'a>)) -> usize {
    let mut at = 0;
    while at < bytes.len() {
        if let Some((fields, len)) = piece(salt, &bytes[at..]) {
            visit(Found::Piece { at: from + at, len, fields });
            at += len;
            continue;
        }
        let next = (at + 8..bytes.len()).step_by(8).find(|next| piece(salt, &bytes[*next..]).is_some());
        let Some(next) = next else { break };
        visit(Found::Damaged { at: from + at, len: next - at });
        at = next;
    }
    bytes.len() - at
}

/// One letter as the index has it, borrowed from there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row<'a> {
    fixed: &'a [u8],
    conversations: &'a [u8],
    users: &'a [u8],
    events: &'a [u8],
}

impl<'a> Row<'a> {
    /// From the fields of an entry or a letter, with what is behind it.
    pub fn read(fields: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let (fixed, rest) = fields.split_at_checked(ENTRY)?;
        if fixed[0] != ENTRY_KIND || Reason::from_byte(fixed[1]).is_none() {
            return None;
        }
        let count = |at: usize, size: usize| (u32_at(fixed, at) as usize).checked_mul(size);
        let (conversations, rest) = rest.split_at_checked(count(88, 8)?)?;
        let (users, rest) = rest.split_at_checked(count(92, 8)?)?;
        let (events, rest) = rest.split_at_checked(count(100, 4)?)?;
        Some((Self { fixed, conversations, users, events }, rest))
    }

    pub fn id(&self) -> LetterId {
        LetterId(u64_at(self.fixed, 16))
    }

    /// Where the letter is in its file, and its bytes there.
    pub fn place(&self) -> (u64, u32) {
        (u64_at(self.fixed, 24), u32_at(self.fixed, 32))
    }

    /// Bytes of the webhook's body.
    pub fn body_len(&self) -> u32 {
        u32_at(self.fixed, 36)
    }

    pub fn journal(&self) -> JournalId {
        let mut id = JournalId::default();
        id.copy_from_slice(&self.fixed[40..56]);
        id
    }

    pub fn lsn(&self) -> u64 {
        u64_at(self.fixed, 56)
    }

    pub fn slot(&self) -> u16 {
        u16_at(self.fixed, 2)
    }

    pub fn part(&self) -> u16 {
        u16_at(self.fixed, 4)
    }

    pub fn source(&self) -> u32 {
        u32_at(self.fixed, 8)
    }

    /// As it was when it died first.
    pub fn failure(&self) -> Failure {
        Failure {
            // Looked at by `read`.
            reason: Reason::from_byte(self.fixed[1]).unwrap_or(Reason::Refused),
            status: u16_at(self.fixed, 6),
            attempts: u32_at(self.fixed, 12),
            at_ms: u64_at(self.fixed, 72),
        }
    }

    pub fn first_tried_ms(&self) -> u64 {
        u64_at(self.fixed, 64)
    }

    pub fn received_at_ms(&self) -> u64 {
        u64_at(self.fixed, 80)
    }

    pub fn conversations(&self) -> impl ExactSizeIterator<Item = u64> + 'a {
        self.conversations.chunks_exact(8).map(|bytes| u64_at(bytes, 0))
    }

    /// Keyed hashes, each once.
    pub fn users(&self) -> impl ExactSizeIterator<Item = u64> + 'a {
        self.users.chunks_exact(8).map(|bytes| u64_at(bytes, 0))
    }

    /// How many events it has.
    pub fn event_count(&self) -> u32 {
        u32_at(self.fixed, 96)
    }

    /// As in [`Letter::events`].
    pub fn events(&self) -> impl ExactSizeIterator<Item = u32> + 'a {
        self.events.chunks_exact(4).map(|bytes| u32_at(bytes, 0))
    }
}

/// What the store adds to a letter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Added {
    pub id: LetterId,
    pub body_len: u32,
    /// Keyed hashes, each once.
    pub users: Vec<u64>,
    pub event_count: u32,
}

/// Appends a letter to its file's bytes; `place` is where it comes to stand.
pub fn push_letter(salt: u64, letter: &Letter, added: &Added, place: u64, out: &mut Vec<u8>) -> usize {
    push(salt, out, |out| {
        // Of itself it knows only where it begins.
        entry(letter, added, (place, 0), out);
        out.extend_from_slice(&letter.record);
    })
}

/// Appends its entry to the index.
pub fn push_entry(salt: u64, letter: &Letter, added: &Added, place: (u64, u32), out: &mut Vec<u8>) -> usize {
    push(salt, out, |out| entry(letter, added, place, out))
}

/// Appends the entry of a letter that was read from its file.
pub fn push_entry_again(salt: u64, row: &Row<'_>, place: (u64, u32), out: &mut Vec<u8>) -> usize {
    push(salt, out, |out| {
        let start = out.len();
        [row.fixed, row.conversations, row.users, row.events].iter().for_each(|b| out.extend_from_slice(b));
        out[start + 24..start + 32].copy_from_slice(&place.0.to_le_bytes());
        out[start + 32..start + 36].copy_from_slice(&place.1.to_le_bytes());
    })
}

fn entry(letter: &Letter, added: &Added, place: (u64, u32), out: &mut Vec<u8>) {
    let mut fixed = [0; ENTRY];
    fixed[0] = ENTRY_KIND;
    fixed[1] = letter.last.reason as u8;
    fixed[2..4].copy_from_slice(&letter.slot.to_le_bytes());
    fixed[4..6].copy_from_slice(&letter.part.to_le_bytes());
    fixed[6..8].copy_from_slice(&letter.last.status.to_le_bytes());
    fixed[8..12].copy_from_slice(&letter.source.to_le_bytes());
    fixed[12..16].copy_from_slice(&letter.last.attempts.to_le_bytes());
    fixed[16..24].copy_from_slice(&added.id.0.to_le_bytes());
    fixed[24..32].copy_from_slice(&place.0.to_le_bytes());
    fixed[32..36].copy_from_slice(&place.1.to_le_bytes());
    fixed[36..40].copy_from_slice(&added.body_len.to_le_bytes());
    fixed[40..56].copy_from_slice(&letter.journal);
    fixed[56..64].copy_from_slice(&letter.lsn.to_le_bytes());
    fixed[64..72].copy_from_slice(&letter.first_tried_ms.to_le_bytes());
    fixed[72..80].copy_from_slice(&letter.last.at_ms.to_le_bytes());
    fixed[80..88].copy_from_slice(&letter.received_at_ms.to_le_bytes());
    fixed[88..92].copy_from_slice(&(letter.conversations.len() as u32).to_le_bytes());
    fixed[92..96].copy_from_slice(&(added.users.len() as u32).to_le_bytes());
    fixed[96..100].copy_from_slice(&added.event_count.to_le_bytes());
    fixed[100..104].copy_from_slice(&(letter.events.len() as u32).to_le_bytes());
    out.extend_from_slice(&fixed);
    for long in letter.conversations.iter().chain(&added.users) {
        out.extend_from_slice(&long.to_le_bytes());
    }
    letter.events.iter().for_each(|place| out.extend_from_slice(&place.to_le_bytes()));
}

/// What happened since a letter was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// The region has it.
    Replayed,
    /// A person gave it up.
    Dropped,
    /// It is to go out again, at so many a second.
    Ordered { rate: u32 },
    /// That order was taken back.
    Kept,
    /// It went out and failed: it waits for a person again.
    Failed(Failure),
    /// From now on so many parcels of this conversation are given up of which its region was not told,
    /// the letter the first of them.
    Gap { conversation: u64, count: u32 },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    pub what: What,
    pub id: LetterId,
    /// Unix milliseconds.
    pub at_ms: u64,
}

impl Change {
    pub fn push(&self, salt: u64, out: &mut Vec<u8>) -> usize {
        let (kind, number, conversation) = match self.what {
            What::Replayed => (2, 0, 0),
            What::Dropped => (3, 0, 0),
            What::Ordered { rate } => (4, rate, 0),
            What::Kept => (5, 0, 0),
            What::Failed(failure) => (6, failure.attempts, 0),
            What::Gap { conversation, count } => (7, count, conversation),
        };
        let mut bytes = [0; CHANGE];
        bytes[0] = kind;
        let mut at_ms = self.at_ms;
        if let What::Failed(failure) = self.what {
            at_ms = failure.at_ms;
            bytes[1] = failure.reason as u8;
            bytes[2..4].copy_from_slice(&failure.status.to_le_bytes());
        }
        bytes[4..8].copy_from_slice(&number.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.id.0.to_le_bytes());
        bytes[16..24].copy_from_slice(&at_ms.to_le_bytes());
        bytes[24..32].copy_from_slice(&conversation.to_le_bytes());
        push(salt, out, |out| out.extend_from_slice(&bytes))
    }

    pub fn read(bytes: &[u8]) -> Option<Self> {
        if bytes.len() != CHANGE {
            return None;
        }
        let (number, at_ms) = (u32_at(bytes, 4), u64_at(bytes, 16));
        let what = match bytes[0] {
            2 => What::Replayed,
            3 => What::Dropped,
            4 => What::Ordered { rate: number },
            5 => What::Kept,
            6 => What::Failed(Failure {
                reason: Reason::from_byte(bytes[1])?,
                status: u16_at(bytes, 2),
                attempts: number,
                at_ms,
            }),
            7 => What::Gap { conversation: u64_at(bytes, 24), count: number },
            _ => return None,
        };
        Some(Self { what, id: LetterId(u64_at(bytes, 8)), at_ms })
    }
}
