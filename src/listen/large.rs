//! A large body: kept in the pieces in which it came, given to the handler whole.
//!
//! In one buffer it would have to be copied whenever that grows, for as long as an ordinary request takes in all. Of
//! pieces none is ever copied, and each is only as large as all that came before it: memory is granted for bytes that
//! came, not for a promise.

use super::shared::Grant;

/// Bytes of a first buffer; the provider's median request has 1.2 KiB.
pub(super) const BUFFER: usize = 8 << 10;
/// Bytes that are read at once: the kernel copies them while the core waits.
const PIECE_MAX: usize = 128 << 10;

/// What there is of a large body.
#[derive(Debug, Default)]
pub(super) struct Pieces {
    pieces: Vec<Vec<u8>>,
    len: usize,
    /// Bytes of memory.
    held: usize,
}

impl Pieces {
    pub(super) fn push(&mut self, piece: Vec<u8>) {
        self.len += piece.len();
        self.held += piece.capacity();
        self.pieces.push(piece);
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn held(&self) -> usize {
        self.held
    }

    /// Bytes of the next piece, if `left` are missing.
    pub(super) fn next(&self, left: usize) -> usize {
        self.len.clamp(BUFFER, PIECE_MAX).min(left)
    }

    /// The whole body, with its memory's share of what was granted.
    pub(super) fn whole(self, grant: &mut Grant) -> LargeBody {
        LargeBody { grant: Held(grant.part(self.held)), pieces: self.pieces, len: self.len }
    }
}

/// A body that belongs to whoever has it, on any thread.
#[derive(Debug)]
pub struct LargeBody {
    pieces: Vec<Vec<u8>>,
    len: usize,
    grant: Held,
}

/// What a body takes of the memory that all requests may hold together; given back when it is dropped.
#[derive(Debug)]
pub struct Held(#[allow(dead_code, reason = "it is there to be dropped")] Grant);

impl LargeBody {
    /// One that no connection brought.
    #[cfg(test)]
    pub(crate) fn of(pieces: &[&[u8]], shared: std::sync::Arc<super::Shared>) -> Self {
        let (mut body, mut grant) = (Pieces::default(), Grant::new(shared));
        pieces.iter().for_each(|piece| body.push(piece.to_vec()));
        assert!(grant.resize(body.held()));
        body.whole(&mut grant)
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Appends all of it to `out`.
    pub fn copy_to(&self, out: &mut Vec<u8>) {
        out.reserve(self.len);
        self.pieces.iter().for_each(|piece| out.extend_from_slice(piece));
    }

    /// Forgets the bytes; what they were made into counts in their place.
    pub fn into_held(self) -> Held {
        self.grant
    }
}
