//! Whether a text may be among those of a frame: a Bloom filter of blocks of 32 bytes, one bit in each of a block's
//! eight words. Says yes to a few in a hundred that are not there, and never no to one that is.
//!
//! Filters are stored: hash and bits must never change without another version of the index.

/// Bytes of a block.
pub(super) const BLOCK: usize = 32;
/// Texts for a block: 8 bits each. Twice as many would make the index 5.5 % of its object instead of 3 %.
const PER_BLOCK: usize = 32;
/// Odd numbers that choose the bit of each word.
const SALTS: [u32; 8] =
    [0x47b6_137b, 0x4497_4d91, 0x8824_ad5b, 0xa2b7_289d, 0x7054_95c7, 0x2df1_424b, 0x9efc_4947, 0x5c6b_fb31];

/// Of a text as it is read, without its escapes; never 0.
pub(super) fn hash(text: &[u8]) -> u64 {
    const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
    let mix = |hash: u64, word: u64| {
        let hash = (hash ^ word).wrapping_mul(STEP);
        hash ^ hash >> 32
    };
    let (words, rest) = text.as_chunks::<8>();
    let mut hash = words.iter().fold(text.len() as u64, |hash, word| mix(hash, u64::from_le_bytes(*word)));
    let mut last = [0; 8];
    for (to, from) in last.iter_mut().zip(rest) {
        *to = *from;
    }
    hash = mix(hash, u64::from_le_bytes(last));
    mix(hash, 0xd6e8_feb8_6659_fd93).max(1)
}

/// Blocks for that many texts; none for none.
pub(super) fn blocks(texts: usize) -> usize {
    texts.div_ceil(PER_BLOCK)
}

/// Which block, and which bit of each of its words.
fn place(hash: u64, blocks: usize) -> (usize, impl Iterator<Item = u32>) {
    let block = ((hash >> 32) * blocks as u64) >> 32;
    let low = hash as u32;
    (block as usize, SALTS.iter().map(move |salt| low.wrapping_mul(*salt) >> 27))
}

/// Appends the filter of these texts.
pub(super) fn write(hashes: &[u64], out: &mut Vec<u8>) {
    let blocks = blocks(hashes.len());
    let start = out.len();
    out.resize(start + blocks * BLOCK, 0);
    let filter = out.get_mut(start..).unwrap_or_default();
    for hash in hashes {
        let (block, bits) = place(*hash, blocks);
        let Some(block) = filter.get_mut(block * BLOCK..(block + 1) * BLOCK) else { continue };
        for (word, bit) in block.chunks_exact_mut(4).zip(bits) {
            word[(bit / 8) as usize] |= 1 << (bit % 8);
        }
    }
}

/// Whether the text may be in it. An empty filter says yes to all.
pub(super) fn may_have(filter: &[u8], hash: u64) -> bool {
    let (block, mut bits) = place(hash, filter.len() / BLOCK);
    let Some(block) = filter.get(block * BLOCK..(block + 1) * BLOCK) else { return true };
    block
        .chunks_exact(4)
        .all(|word| bits.next().is_some_and(|bit| word[(bit / 8) as usize] & 1 << (bit % 8) != 0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse::tests::Rng;

    #[test]
    fn filters_have_every_text_and_hardly_another() {
        let mut rng = Rng::from_env();
        for count in [0, 1, 2, 15, 16, 17, 700, 5000] {
            let texts: Vec<String> = (0..count).map(|_| format!("wamid.{:x}", rng.next())).collect();
            let hashes: Vec<u64> = texts.iter().map(|text| hash(text.as_bytes())).collect();
            let mut filter = Vec::new();
            write(&hashes, &mut filter);
            assert_eq!(filter.len(), blocks(count) * BLOCK);
            assert!(hashes.iter().all(|hash| may_have(&filter, *hash)));
            let others =
                (0..100_000).filter(|at| may_have(&filter, hash(format!("other {at}").as_bytes()))).count();
            assert!(count < 700 || others < 6000, "{others} of 100000 others pass a filter of {count}");
        }
        assert!(may_have(&[], 7) && may_have(&[1, 2, 3], 7));
    }

    #[test]
    fn stored_filters_stay_readable() {
        assert_ne!(hash(b"a"), hash(b"a\0"));
        let mut filter = Vec::new();
        write(&[hash(b"wamid.HBgL"), hash(b"919876500001")], &mut filter);
        let told = filter.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        assert_eq!(told, "0000800000008040000001000081000000006000004400000140000000200100");
    }
}
