//! A small fact that outlives the process: one line of JSON, one of its CRC-32C, and whatever bytes come behind.
//!
//! Written under another name, synced, renamed, and the folder synced: after a crash it is what it was before or what it
//! is now.

use std::io::{self, Read};
use std::path::Path;

use crc_fast::crc32_iscsi;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::disk::Disk;

/// What a file's name ends with until it is complete.
pub(super) const UNFINISHED: &str = "tmp";

/// How far the writing of something got, for faults to be placed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    Written,
    Synced,
    Renamed,
    Durable,
}

/// Once this returns the note is there whatever happens. `at` is called at each stage; false there leaves the sync out.
pub(super) fn save<D: Disk>(
    disk: &D,
    path: &Path,
    note: &impl Serialize,
    behind: &[u8],
    at: impl Fn(Stage) -> bool,
) -> io::Result<()> {
    let line = serde_json::to_string(note)?;
    let crc = crc32_iscsi(line.as_bytes()) ^ crc32_iscsi(behind);
    let unfinished = path.with_added_extension(UNFINISHED);
    let mut file = disk.create(&unfinished)?;
    disk.append(&mut file, format!("{line}\n{crc:08x}\n").as_bytes())?;
    if !behind.is_empty() {
        disk.append(&mut file, behind)?;
    }
    if at(Stage::Written) {
        disk.sync(&file)?;
    }
    at(Stage::Synced);
    disk.rename(&unfinished, path)?;
    if at(Stage::Renamed)
        && let Some(folder) = path.parent()
    {
        disk.sync_dir(folder)?;
    }
    at(Stage::Durable);
    Ok(())
}

/// What was saved last, and the bytes behind it; `None` if there is no such file.
pub(super) fn load<D: Disk, T: DeserializeOwned>(disk: &D, path: &Path) -> io::Result<Option<(T, Vec<u8>)>> {
    if !disk.exists(path)? {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    disk.read(path, 0)?.read_to_end(&mut bytes)?;
    let damaged =
        |what: &str| io::Error::new(io::ErrorKind::InvalidData, format!("{}: {what}", path.display()));
    let mut lines = bytes.splitn(3, |byte| *byte == b'\n');
    let (Some(line), Some(crc), Some(behind)) = (lines.next(), lines.next(), lines.next()) else {
        return Err(damaged("it is cut short"));
    };
    let crc = str::from_utf8(crc).ok().and_then(|crc| u32::from_str_radix(crc, 16).ok());
    if crc != Some(crc32_iscsi(line) ^ crc32_iscsi(behind)) {
        return Err(damaged("its checksum does not match"));
    }
    let note = serde_json::from_slice(line)
        .map_err(|error| damaged(&format!("another version wrote it ({error})")))?;
    Ok(Some((note, behind.to_vec())))
}
