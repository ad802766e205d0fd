//! Torn and damaged files: nothing panics, what is wrong is said, what is right is there.

use std::fs;
use std::io::Write;

use super::*;

/// Not `fs::write`: that begins by emptying the file, and some file systems then write it to the disk at once.
fn put(path: PathBuf, bytes: impl AsRef<[u8]>) {
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(false).open(path).unwrap();
    file.write_all(bytes.as_ref()).unwrap();
    file.set_len(bytes.as_ref().len() as u64).unwrap();
}

#[test]
fn a_letter_torn_at_any_byte_is_cut_and_all_before_it_stay() {
    for ending in ["letters", "index"] {
        let ground = Ground::with(2);
        let path = ground.file(ending);
        let before = fs::metadata(&path).unwrap().len();
        let mut ground = ground;
        ground.bury(letter(3));
        let (letters, index) =
            (fs::read(ground.file("letters")).unwrap(), fs::read(ground.file("index")).unwrap());
        let bytes = if ending == "letters" { &letters } else { &index };
        for len in before as usize..=bytes.len() {
            put(ground.file("letters"), &letters);
            // The index is written when the letters are durable, and no sooner.
            let listed =
                if ending == "letters" { &index[..index.len() - entry_len(&ground)] } else { &index[..] };
            put(ground.file("index"), listed);
            put(path.clone(), &bytes[..len]);
            ground.again();
            let expected: &[u64] =
                if ending == "letters" && len < bytes.len() { &[1, 2] } else { &[1, 2, 3] };
            assert_eq!(ground.whole(), expected, "{ending} cut at {len}");
            let torn = len != before as usize && len < bytes.len();
            assert_eq!(
                !ground.graves.damages.is_empty(),
                torn,
                "{ending} cut at {len}: {:?}",
                ground.graves.damages
            );
            // It goes on where it was cut.
            ground.bury(letter(4));
            ground.again();
            assert_eq!(ground.whole().last(), Some(&4), "{ending} cut at {len}");
            assert_eq!(ground.graves.damages, [], "{ending} cut at {len}");
        }
    }
}

/// Bytes of the last entry of the index: one conversation, one user.
fn entry_len(ground: &Ground) -> usize {
    let index = fs::metadata(ground.file("index")).unwrap().len() as usize;
    (index - crate::dead::record::HEADER) / ground.cards().len()
}

#[test]
fn zeros_where_a_letter_was_to_come_are_no_letter() {
    let mut ground = Ground::with(2);
    for ending in ["letters", "index"] {
        let mut bytes = fs::read(ground.file(ending)).unwrap();
        bytes.resize(bytes.len() + 5000, 0);
        put(ground.file(ending), bytes);
    }
    ground.again();
    assert_eq!(ground.whole(), [1, 2]);
    ground.bury(letter(3));
    ground.again();
    assert_eq!((ground.whole(), ground.graves.damages.len()), (vec![1, 2, 3], 0));
}

#[test]
fn every_flipped_bit_is_said_and_costs_one_letter_at_most() {
    let mut ground = Ground::with(3);
    let ids = ground.ids();
    ground.change(What::Dropped, ids[1]);
    let (letters, index) =
        (fs::read(ground.file("letters")).unwrap(), fs::read(ground.file("index")).unwrap());
    for ending in ["letters", "index"] {
        let good = if ending == "letters" { &letters } else { &index };
        for bit in 0..good.len() * 8 {
            let mut bytes = good.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            put(ground.file("letters"), &letters);
            put(ground.file("index"), &index);
            put(ground.file(ending), &bytes);
            ground.again();
            let whole = ground.whole();
            let unreadable = ground.ids().len() - whole.len();
            // The drop is in the index: damaged, the letter is there again.
            let lost = [1, 3].iter().filter(|lsn| !whole.contains(lsn)).count();
            let said = ground.graves.damages.len() + unreadable;
            let dropped = ending == "letters"
                && crate::dead::record::HEADER + 2 * letter_len(&letters) > bit / 8
                && bit / 8 >= crate::dead::record::HEADER + letter_len(&letters);
            assert!(said > 0 || dropped, "{ending} bit {bit}: not said");
            assert!(lost <= usize::from(ending == "letters"), "{ending} bit {bit}: {whole:?}");
        }
    }
}

fn letter_len(letters: &[u8]) -> usize {
    (letters.len() - crate::dead::record::HEADER) / 3
}

#[test]
fn an_index_that_is_gone_is_made_again_from_the_letters() {
    let mut ground = Ground::with(3);
    fs::remove_file(ground.file("index")).unwrap();
    ground.again();
    assert_eq!(ground.whole(), [1, 2, 3]);
    assert_eq!(ground.graves.damages.len(), 1, "{:?}", ground.graves.damages);
    assert_eq!(ground.gaps(), [(1, 1), (2, 1), (3, 1)]);
    ground.again();
    assert_eq!((ground.whole(), ground.graves.damages.len()), (vec![1, 2, 3], 0));
}

#[test]
fn files_of_a_newer_version_are_left_alone() {
    let mut ground = Ground::with(1);
    let mut bytes = fs::read(ground.file("index")).unwrap();
    bytes[8] = 2;
    let crc = crc_fast::crc32_iscsi(&bytes[..28]);
    bytes[28..32].copy_from_slice(&crc.to_le_bytes());
    put(ground.file("index"), &bytes);
    let error = Graves::open(ground.folder.path(), false).unwrap_err();
    assert!(error.to_string().contains("format 2"), "{error}");
    assert_eq!(fs::read(ground.file("index")).unwrap(), bytes);
    bytes[8] = 1;
    let crc = crc_fast::crc32_iscsi(&bytes[..28]);
    bytes[28..32].copy_from_slice(&crc.to_le_bytes());
    put(ground.file("index"), &bytes);
    ground.again();
    assert_eq!(ground.whole(), [1]);
}
