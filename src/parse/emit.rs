//! Turns what a walk finds into [`Event`]s: computes keys and values.
//!
//! A key is the first 128 bits of SHA-256 over provider, family, number, ids and, where there is no
//! id, the canonical form of what the event says. Keys are stored: their recipe must never change.
//! Senders choose ids, so a key must not be predictable into a collision; hence SHA-256.

use aws_lc_rs::digest::{Context, SHA256, digest};

use super::canonical::Canonical;
use super::says::Says;
use super::walk::{Found, Sink};
use super::{Event, Key};

/// Above this the buffer of canonical forms is given back.
const KEEP_BYTES: usize = 1 << 20;

/// Computes keys and values; keeps its memory between events.
#[derive(Default)]
pub(crate) struct Digester {
    canonical: Canonical,
    bytes: Vec<u8>,
    says: Says,
}

impl Digester {
    fn key(&mut self, found: &Found<'_, '_>) -> Key {
        let identity = &found.identity;
        self.bytes.clear();
        for part in [identity.family, found.number].iter().chain(&identity.parts) {
            // The length keeps ("a", "bc") and ("ab", "c") apart.
            self.bytes.extend_from_slice(&(part.len() as u32).to_le_bytes());
            self.bytes.extend_from_slice(part.as_bytes());
        }
        for value in identity.values.iter().flatten() {
            self.canonical.write(*value, &mut self.bytes);
        }
        let key = cut(digest(&SHA256, &self.bytes).as_ref());
        if self.bytes.capacity() > KEEP_BYTES {
            *self = Self::default();
        }
        key
    }
}

/// Key of a body that is not taken apart.
pub(crate) fn body_key(body: &[u8]) -> Key {
    let mut context = Context::new(&SHA256);
    context.update(b"penstock opaque body");
    context.update(body);
    cut(context.finish().as_ref())
}

/// The first 128 bits of a digest.
pub(crate) fn cut(digest: &[u8]) -> Key {
    let mut key = Key::default();
    for (to, from) in key.iter_mut().zip(digest) {
        *to = *from;
    }
    key
}

/// Gives each event to `visit`.
pub(crate) struct Emit<'v, V> {
    digester: &'v mut Digester,
    visit: &'v mut V,
}

impl<'v, V: FnMut(&Event<'_>)> Emit<'v, V> {
    pub(crate) fn new(digester: &'v mut Digester, visit: &'v mut V) -> Self {
        Self { digester, visit }
    }
}

impl<'t, V: FnMut(&Event<'_>)> Sink<'t> for Emit<'_, V> {
    fn event(&mut self, found: &Found<'_, 't>) {
        let event = Event {
            kind: found.kind,
            key: self.digester.key(found),
            value: self.digester.says.of(found.value),
            users: found.users,
            more_users: found.more_users,
            number: found.number,
            account: found.account,
        };
        (self.visit)(&event);
    }
}
