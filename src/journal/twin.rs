//! A small file whose loss would hurt: the same bytes twice, each copy with its own checksum. Pure.
//!
//! ```text
//! file:  copy | the same copy again
//! copy:  magic u64 | version u8 | 0 u24 | body length u32 | body | crc32c u32
//! ```
//!
//! Such a file is never changed in place: a new one is written beside it, synced, and renamed over it.
//! So a crash leaves the old one or the new one whole, and only a failing disk can damage it; the
//! second copy is for that.

use crc_fast::crc32_iscsi;

const VERSION: u8 = 1;
const HEAD: usize = 16;
const CRC: usize = 4;

/// Why a file has no copy that can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TwinFault {
    #[error("both copies in it are damaged")]
    Damaged,
    /// The checksum is right, so a newer version wrote it.
    #[error("written by a newer version (format {0})")]
    Version(u8),
    #[error("what it says contradicts itself or its name")]
    Content,
}

/// The file for `body`.
pub fn encode(magic: u64, body: &[u8]) -> Vec<u8> {
    let mut file = Vec::with_capacity(2 * (HEAD + body.len() + CRC));
    file.extend_from_slice(&magic.to_le_bytes());
    file.extend_from_slice(&[VERSION, 0, 0, 0]);
    // Far below 4 GiB: a list has less than a row for each 40 bytes of its segment.
    file.extend_from_slice(&u32::try_from(body.len()).unwrap_or(u32::MAX).to_le_bytes());
    file.extend_from_slice(body);
    let crc = crc32_iscsi(&file);
    file.extend_from_slice(&crc.to_le_bytes());
    file.extend_from_within(..);
    file
}

/// The body, from whichever copy verifies.
pub fn decode(magic: u64, file: &[u8]) -> Result<&[u8], TwinFault> {
    match copy(magic, file) {
        Err(TwinFault::Damaged) => copy(magic, &file[file.len() / 2..]),
        read => read,
    }
}

fn copy(magic: u64, bytes: &[u8]) -> Result<&[u8], TwinFault> {
    let Some(head) = bytes.get(..HEAD) else { return Err(TwinFault::Damaged) };
    let len = u32::from_le_bytes([head[12], head[13], head[14], head[15]]) as usize;
    let Some(crc) = bytes.get(HEAD + len..HEAD + len + CRC) else { return Err(TwinFault::Damaged) };
    let checked = &bytes[..HEAD + len];
    if head[..8] != magic.to_le_bytes() || crc32_iscsi(checked).to_le_bytes() != crc {
        return Err(TwinFault::Damaged);
    }
    if head[8] != VERSION {
        return Err(TwinFault::Version(head[8]));
    }
    Ok(&checked[HEAD..])
}

/// Takes little-endian fields off the front of a body.
pub(super) struct Fields<'a>(pub &'a [u8]);

impl Fields<'_> {
    pub(super) fn take<const N: usize>(&mut self) -> Result<[u8; N], TwinFault> {
        let (field, rest) = self.0.split_first_chunk::<N>().ok_or(TwinFault::Content)?;
        self.0 = rest;
        Ok(*field)
    }

    pub(super) fn u16(&mut self) -> Result<u16, TwinFault> {
        self.take().map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, TwinFault> {
        self.take().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, TwinFault> {
        self.take().map(u64::from_le_bytes)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Holds a format to what a file of two copies promises: a file cut at any byte and a file with any
    /// bit flipped, or any block zeroed, is read as it was written or refused, never as something else.
    pub(crate) fn never_misread<T: PartialEq + std::fmt::Debug>(
        file: &[u8],
        written: &T,
        read: impl Fn(&[u8]) -> Result<T, TwinFault>,
    ) {
        assert_eq!(read(file).as_ref(), Ok(written));
        for len in 0..file.len() {
            match read(&file[..len]) {
                Ok(found) => assert_eq!(&found, written, "cut at {len}"),
                Err(fault) => assert_eq!(fault, TwinFault::Damaged, "cut at {len}"),
            }
        }
        for bit in 0..file.len() * 8 {
            let mut bytes = file.to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(read(&bytes).as_ref(), Ok(written), "one bit ({bit}) is what the second copy is for");
            // And the same bit of the other copy.
            let other = (bit / 8 + file.len() / 2) % file.len();
            bytes[other] ^= 1 << (bit % 8);
            assert_eq!(read(&bytes), Err(TwinFault::Damaged), "bit {bit} of both copies");
        }
    }

    #[test]
    fn a_file_is_read_as_it_was_written_or_refused() {
        for body in [&b""[..], b"x", &[7; 300]] {
            never_misread(&encode(0x1122, body), &body.to_vec(), |b| decode(0x1122, b).map(<[u8]>::to_vec));
        }
        assert_eq!(decode(0x1123, &encode(0x1122, b"x")), Err(TwinFault::Damaged));
    }

    #[test]
    fn a_newer_version_is_named() {
        let mut file = encode(5, b"body");
        let half = file.len() / 2;
        file.truncate(half);
        file[8] = 9;
        let crc = crc32_iscsi(&file[..half - CRC]);
        file[half - CRC..].copy_from_slice(&crc.to_le_bytes());
        file.extend_from_within(..);
        assert_eq!(decode(5, &file), Err(TwinFault::Version(9)));
    }
}
