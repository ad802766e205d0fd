//! What a masked record shows of people: pseudonyms, and of what is not known nothing. Pure.
//!
//! ```text
//! walk    a body without what is masked    names   what each member of it holds
//! class   what values can be               scrub   phones and user ids inside of texts, in any escape
//! token   pseudonyms                       digits  phones however they are written
//! ```
//!
//! Who reads a masked archive and not its key shall find no name, number or word of a user in it. Who
//! writes back ends shall still be able to join it.
//!
//! # What becomes of a body
//!
//! It is read and written anew: white space and escapes are gone, members, their order and their doubles
//! stay.
//!
//! - A person is `phone:<hex>`, `bsuid:`, `lid:` or `group:`, whichever form the identifier came in (`+49 170`,
//!   `49170`, `49170:7@s.whatsapp.net`), and the same in `events[].user`. An id of a message or a call is
//!   `id:` as a whole, since it may hold the phone in base64: the status of a message has the message's.
//! - What a member holds is decided by its name and where it stands (`names`), never by how it looks: a
//!   name looks like a word. Members that are not known, and so whatever a provider adds one day, are
//!   masked (`other:`) wherever anything but "phone" and "bsuid" is: only they can be told by their looks.
//!   Of these members flags, nulls and whole numbers of at most six digits stay. A member's own name is
//!   masked where it is not known and users may have chosen it.
//! - What stays is searched for phones and user ids: digits of any script, 7 or more with what people write
//!   between them, also percent-encoded, as JSON or HTML escapes, and in base64. So "phone" alone masks
//!   numbers in texts, and dates and amounts that look alike with them. Numbers written as words are not
//!   found, nor are names in texts: whoever masks "name" wants "text" as well.
//! - Masked numbers become strings. Times, statuses, types, prices, counts, error codes, and ids and
//!   numbers of the business stay (`display_phone_number` too: it is on the business's own page). Texts of
//!   a provider that may quote users, such as an error's details, are masked like texts. A WASenderApi
//!   session's id and login code may be secrets and are always masked.
//! - Webhooks about templates and accounts have no user: only what looks like a phone or user id is masked
//!   there.
//!
//! A body that is no JSON cannot be masked, nor can one that [`crate::parse`] does not read (numbers of
//! more than 64 bits, more levels than it takes) or that ended the process before: such a record has
//! `"masked":["all"]`, the length of the raw body and an empty body.
//!
//! # What becomes of the rest
//!
//! `events[].key` and the signature are digests of what is masked, and could be searched for it like
//! `sha256`: they are keyed anew. `remote` and `x-forwarded-for` are the provider's addresses and stay.
//! `ranges` are places in the raw body: they tell the length of what is masked.
//!
//! # Invariants
//!
//! The same entry and key give the same bytes; time is linear in the body; recursion ends at the depth of
//! [`crate::parse`]. Pseudonyms of texts and places hold for one record alone, so that common ones cannot
//! be told by their number; all others hold for the archive. Who has the key can prove what was said, and
//! find a phone.
//!
//! Deliberately absent: a way back. What is masked is in no archive; what a region gets is never masked.

mod class;
mod digits;
mod names;
mod scrub;
mod token;
mod walk;

use aws_lc_rs::hmac;

use super::json;
use crate::config::{Mask, MaskSet, Masked};
use crate::parse::Scratch;
use names::Names;
use token::{Kind, Tokens};
use walk::Walk;

/// Kinds whose contents cannot be told by their looks: any of them masks what is not known.
const FREE: MaskSet =
    MaskSet::of(&[Masked::Name, Masked::Text, Masked::Media, Masked::Location, Masked::Contact]);
/// Kinds that ids may hold.
const IDS: MaskSet = MaskSet::of(&[Masked::Phone, Masked::Bsuid]);

/// Above this the buffer is given back after the body.
const KEEP_BYTES: usize = 4 << 20;

/// Masks records. Its memory is reused.
pub(super) struct Masker {
    rules: Rules,
    digest: hmac::Key,
    scratch: Scratch,
    /// The body that was masked last.
    out: Vec<u8>,
}

/// What stands in a masked archive for what somebody looks for, and has the key of.
pub struct Pseudonyms(Tokens);

impl Pseudonyms {
    pub fn new(mask_key: &[u8]) -> Self {
        Self(Tokens::new(mask_key))
    }

    /// Of a phone, a user id, or whatever else an event has for its user.
    pub fn user(&self, user: &str) -> String {
        let mut out = Vec::new();
        if !walk::person(IDS, &self.0, user, true, &mut out) {
            self.0.write(Kind::Id, &[], user.as_bytes(), &mut out);
        }
        String::from_utf8_lossy(&out).into_owned()
    }

    /// Of the id of a message, a call and the like.
    pub fn id(&self, id: &str) -> String {
        let mut out = Vec::new();
        self.0.write(Kind::Id, &[], id.as_bytes(), &mut out);
        String::from_utf8_lossy(&out).into_owned()
    }

    /// Of an event's key, in hex.
    pub fn key(&self, key: &[u8]) -> String {
        let mut out = Vec::new();
        json::hex(&self.0.sign(Kind::Key, &[], key), &mut out);
        String::from_utf8_lossy(&out).into_owned()
    }
}

/// What masks how and where.
struct Rules {
    kinds: MaskSet,
    tokens: Tokens,
    names: Names,
}

impl Masker {
    pub(super) fn new(mask: &Mask) -> Self {
        Self {
            rules: Rules { kinds: mask.kinds, tokens: Tokens::new(mask.key.expose()), names: Names::new() },
            digest: hmac::Key::new(hmac::HMAC_SHA256, mask.key.expose()),
            scratch: Scratch::default(),
            out: Vec::new(),
        }
    }

    /// Appends what stands for a whole body, in hex: HMAC-SHA256 of it with the mask's key.
    pub(super) fn digest(&self, body: &[u8], out: &mut Vec<u8>) {
        json::hex(hmac::sign(&self.digest, body).as_ref(), out);
    }

    /// Appends what stands for an event's key, as long as one.
    pub(super) fn key(&self, key: &[u8], out: &mut Vec<u8>) {
        json::hex(&self.rules.tokens.sign(Kind::Key, &[], key), out);
    }

    /// Appends an event's user as a JSON string.
    pub(super) fn user(&self, user: &str, out: &mut Vec<u8>) {
        let mut masked = Vec::new();
        if !walk::person(self.rules.kinds, &self.rules.tokens, user, false, &mut masked) {
            self.rules.tokens.write(Kind::Id, &[], user.as_bytes(), &mut masked);
        }
        out.push(b'"');
        json::escape(&masked, out);
        out.push(b'"');
    }

    /// Appends the inside of a JSON string for a header's value.
    pub(super) fn header(&self, name: &[u8], value: &str, out: &mut Vec<u8>) {
        let mut masked = Vec::new();
        match name {
            // The application's secret made it, which regions have: whoever knows it could search for the
            // body.
            b"x-hub-signature" | b"x-hub-signature-256" => {
                self.rules.tokens.write(Kind::Signature, &[], value.as_bytes(), &mut masked);
            }
            b"content-type" | b"x-forwarded-for" => masked.extend_from_slice(value.as_bytes()),
            _ => scrub::scrub(self.rules.kinds, &self.rules.tokens, value, &mut masked),
        }
        json::escape(&masked, out);
    }

    /// The body as it may be shown in the record of that journal and number, and what is masked in it; none
    /// if it cannot be read.
    pub(super) fn body(&mut self, body: &[u8], record: (&str, u64)) -> Option<(MaskSet, &[u8])> {
        let Self { rules, scratch, out, .. } = self;
        if out.capacity() > KEEP_BYTES {
            *out = Vec::new();
        }
        out.clear();
        // Pseudonyms are longer than most of what they stand for.
        out.reserve(body.len() + body.len() / 2);
        let record = format!("{}-{}", record.0, record.1);
        let read = scratch.read(body, |document| {
            Walk::new(rules, record.as_bytes(), out).root(document.root());
        });
        read.ok()?;
        Some((rules.kinds, out))
    }
}
