//! Page-aligned buffers for `O_DIRECT`, and the pool they return to.
//!
//! Direct I/O wants memory, offset and length on block borders; `Vec<u8>` promises none of that.
//! Hence the `unsafe` here: monoio's buffer traits are unsafe traits, and
//! viewing a vector of 4 KiB blocks as bytes needs two slice casts. What it buys: one write
//! operation that is durable when it completes, and a frame that forwarding reads without a copy.
#![allow(unsafe_code)]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender};
use monoio::buf::{IoBuf, IoBufMut};

/// Alignment and granularity of all journal I/O. 4 KiB is the largest logical block of the disks in use.
pub const BLOCK: usize = 4096;

#[repr(C, align(4096))]
#[derive(Clone)]
struct Block([u8; BLOCK]);

/// Bytes whose memory starts on a [`BLOCK`] border. The first `len` are in use.
pub struct AlignedBuf {
    blocks: Vec<Block>,
    len: usize,
}

impl AlignedBuf {
    /// Room for at least `capacity` bytes, zeroed.
    pub fn with_capacity(capacity: usize) -> Self {
        let mut buf = Self { blocks: Vec::new(), len: 0 };
        buf.reserve_total(capacity);
        buf
    }

    pub fn capacity(&self) -> usize {
        self.blocks.len() * BLOCK
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Grows to hold `total` bytes; doubles, so that appending stays linear.
    pub fn reserve_total(&mut self, total: usize) {
        let need = total.div_ceil(BLOCK);
        if need > self.blocks.len() {
            self.blocks.resize(need.max(self.blocks.len() * 2), Block([0; BLOCK]));
        }
    }

    /// Sets the length, growing as needed. Bytes that were not written since the buffer was made
    /// hold zeros or what an earlier use left.
    pub fn set_len(&mut self, len: usize) {
        self.reserve_total(len);
        self.len = len;
    }

    pub fn extend_from_slice(&mut self, bytes: &[u8]) {
        self.extend(bytes.len()).copy_from_slice(bytes);
    }

    /// Appends `more` bytes for the caller to fill; until then they hold anything.
    pub fn extend(&mut self, more: usize) -> &mut [u8] {
        let at = self.len;
        self.set_len(at + more);
        &mut self.as_mut_slice()[at..]
    }

    /// Fills with zeros up to the next block border.
    pub fn pad_to_block(&mut self) {
        let at = self.len;
        self.set_len(at.next_multiple_of(BLOCK));
        self.as_mut_slice()[at..].fill(0);
    }

    pub fn as_slice(&self) -> &[u8] {
        // SAFETY: `blocks` holds `blocks.len() * BLOCK` initialised bytes (`Block` is `repr(C)`
        // around a byte array of exactly its size, so there is no padding), `len` never exceeds
        // that, and the lifetime is that of `&self`.
        unsafe { std::slice::from_raw_parts(self.blocks.as_ptr().cast(), self.len) }
    }

    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: as in `as_slice`; `&mut self` makes the borrow exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.blocks.as_mut_ptr().cast(), self.len) }
    }
}

// SAFETY: the pointer is that of the vector's heap memory, which does not move while the driver
// owns the value (the vector is not touched until the operation completes and gives it back), and
// the first `len` bytes are initialised.
unsafe impl IoBuf for AlignedBuf {
    fn read_ptr(&self) -> *const u8 {
        self.blocks.as_ptr().cast()
    }

    fn bytes_init(&self) -> usize {
        self.len
    }
}

// SAFETY: as for `IoBuf`; `bytes_total` is what the vector really holds, all of it initialised, so
// any `set_init` up to it is sound.
unsafe impl IoBufMut for AlignedBuf {
    fn write_ptr(&mut self) -> *mut u8 {
        self.blocks.as_mut_ptr().cast()
    }

    fn bytes_total(&mut self) -> usize {
        self.capacity()
    }

    unsafe fn set_init(&mut self, pos: usize) {
        self.len = pos;
    }
}
/// Frames of up to so many blocks are copied for their readers: about a microsecond, against holding 256 KiB.
const COPY_BLOCKS: usize = 4;
/// Unused buffers kept for such copies, by blocks.
const COPIES: usize = 64;

/// Frame buffers on their way round: filled by an ingest core, written, read by forwarding cores,
/// and back. Keeps the memory warm (a fresh megabyte costs 256 page faults) and counts what is out.
#[derive(Clone)]
pub struct BufferPool(Arc<Pool>);

struct Pool {
    full: Shelf,
    /// For copies, by blocks less one.
    small: [Shelf; COPY_BLOCKS],
    held: Arc<AtomicUsize>,
}

/// Unused buffers.
struct Shelf {
    give: Sender<AlignedBuf>,
    take: Receiver<AlignedBuf>,
}

impl Shelf {
    fn new(most: usize) -> Self {
        let (give, take) = crossbeam_channel::bounded(most);
        Self { give, take }
    }
}

/// What a pooled buffer starts with: a commit at 100,000 webhooks a second and 1 ms is about this.
const START: usize = 256 * 1024;
/// Larger ones (one 3 MB webhook makes one) and smaller ones are given back to the allocator.
const KEEP: std::ops::RangeInclusive<usize> = START..=2 * 1024 * 1024;

impl BufferPool {
    /// Keeps at most `spare` unused buffers. `held` counts the bytes that readers hold.
    pub fn new(spare: usize, held: Arc<AtomicUsize>) -> Self {
        let small = std::array::from_fn(|_| Shelf::new(COPIES));
        Self(Arc::new(Pool { full: Shelf::new(spare), small, held }))
    }

    /// An empty buffer.
    pub fn get(&self) -> AlignedBuf {
        let mut buf = self.0.full.take.try_recv().unwrap_or_else(|_| AlignedBuf::with_capacity(START));
        buf.set_len(0);
        buf
    }

    /// Takes a buffer back.
    pub fn put(&self, buf: AlignedBuf) {
        let shelf = if KEEP.contains(&buf.capacity()) {
            Some(&self.0.full)
        } else {
            (buf.capacity() / BLOCK).checked_sub(1).and_then(|class| self.0.small.get(class))
        };
        if let Some(shelf) = shelf {
            // Full: the buffer is dropped.
            shelf.give.try_send(buf).ok();
        }
    }

    /// Lends a buffer to any number of readers on any core; it comes back when the last is done.
    /// A small one is copied instead: a waiting webhook should not hold a frame's worth of memory.
    pub fn share(&self, buf: AlignedBuf) -> Bytes {
        let class = buf.len().div_ceil(BLOCK).saturating_sub(1);
        let lent = match self.0.small.get(class) {
            Some(shelf) => {
                let room = || AlignedBuf::with_capacity((class + 1) * BLOCK);
                let mut copy = shelf.take.try_recv().unwrap_or_else(|_| room());
                copy.set_len(0);
                copy.extend_from_slice(buf.as_slice());
                self.put(buf);
                copy
            }
            None => buf,
        };
        self.0.held.fetch_add(lent.capacity(), Relaxed);
        Bytes::from_owner(Lent { buf: Some(lent), pool: self.clone() })
    }
}

struct Lent {
    buf: Option<AlignedBuf>,
    pool: BufferPool,
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        self.buf.as_ref().map_or(&[], AlignedBuf::as_slice)
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let Some(buf) = self.buf.take() {
            self.pool.0.held.fetch_sub(buf.capacity(), Relaxed);
            self.pool.put(buf);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_aligned_and_zero_padded_after_reuse() {
        let mut buf = AlignedBuf::with_capacity(10);
        buf.extend_from_slice(&[0xff; BLOCK + 5]);
        assert_eq!(buf.read_ptr() as usize % BLOCK, 0);
        buf.set_len(0);
        buf.extend_from_slice(b"abc");
        buf.pad_to_block();
        assert_eq!(buf.len(), BLOCK);
        assert_eq!(&buf.as_slice()[..3], b"abc");
        assert!(buf.as_slice()[3..].iter().all(|b| *b == 0));
    }

    #[test]
    fn lent_buffer_comes_back_when_the_last_reader_is_done() {
        let held = Arc::new(AtomicUsize::new(0));
        let pool = BufferPool::new(2, Arc::clone(&held));
        const COPY: usize = COPY_BLOCKS * BLOCK;
        let mut buf = pool.get();
        buf.extend_from_slice(&[b'x'; COPY]);
        buf.extend_from_slice(b"0123456789");
        let at = buf.read_ptr();
        let all = pool.share(buf);
        let part = Bytes::slice(&all, COPY + 2..COPY + 5);
        drop(all);
        assert_eq!(&part[..], b"234");
        assert!(held.load(Relaxed) > 0);
        drop(part);
        assert_eq!(held.load(Relaxed), 0);
        assert_eq!(pool.get().read_ptr(), at, "the same memory is used again");
    }

    #[test]
    fn small_frame_is_copied_into_as_few_blocks_as_it_takes_and_these_are_used_again() {
        let held = Arc::new(AtomicUsize::new(0));
        let pool = BufferPool::new(2, Arc::clone(&held));
        for len in [1, BLOCK, BLOCK + 1, COPY_BLOCKS * BLOCK] {
            let share = || {
                let mut buf = pool.get();
                buf.extend_from_slice(&vec![b'x'; len]);
                pool.share(buf)
            };
            let first = share();
            assert_eq!((first.len(), held.load(Relaxed)), (len, len.next_multiple_of(BLOCK)));
            let at = first.as_ptr();
            drop(first);
            assert_eq!(share().as_ptr(), at, "the same memory is used again");
            assert_eq!(held.load(Relaxed), 0);
        }
    }
}
