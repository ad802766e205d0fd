//! Whether the gateway grows with time: its memory, and its folder.

use std::fmt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::Context;

use crate::gateway::Gateway;

const MIB: u64 = 1 << 20;

/// What a soak may add once it is under way, besides what is remembered of each event.
const MEMORY_SLACK: u64 = 64 * MIB;
/// Memory for a remembered event: 32 bytes, twice that while its table is being made larger.
const EVENT: u64 = 64;
/// Most that the folder may take: half a gigabyte for the one ingest core, and the keys of remembered events.
const FOLDER: u64 = 512 * MIB;

/// The gateway as it was once it had settled.
#[derive(Debug, Clone, Copy)]
pub struct Watch {
    resident: u64,
    events: u64,
}

/// How it was then and at the end.
#[derive(Debug, Clone, Copy)]
pub struct Growth {
    from: u64,
    to: u64,
    folder: u64,
    /// Remembered meanwhile, and in all.
    events: u64,
    all_events: u64,
}

impl Watch {
    pub fn begin(gateway: &Gateway, events: u64) -> anyhow::Result<Self> {
        Ok(Self { resident: gateway.resident_bytes()?, events })
    }

    pub fn end(self, gateway: &Gateway, events: u64) -> anyhow::Result<Growth> {
        Ok(Growth {
            from: self.resident,
            to: gateway.resident_bytes()?,
            folder: on_disk(&gateway.data)?,
            events: events.saturating_sub(self.events),
            all_events: events,
        })
    }
}

impl Growth {
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let most = self.from + MEMORY_SLACK + EVENT * self.events;
        if self.to > most {
            faults.push(format!(
                "resident memory: {} MiB, expected {} MiB at most",
                self.to / MIB,
                most / MIB
            ));
        }
        let most = FOLDER + EVENT * self.all_events;
        if self.folder > most {
            faults.push(format!(
                "data folder: {} MiB, expected {} MiB at most",
                self.folder / MIB,
                most / MIB
            ));
        }
        faults
    }
}

impl fmt::Display for Growth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [from, to, folder] = [self.from, self.to, self.folder].map(|bytes| bytes / MIB);
        write!(
            f,
            "resident memory {from} MiB after a quarter of the time, {to} MiB at the end; data folder {folder} MiB"
        )
    }
}

/// What the files below a folder take; holes take nothing.
fn on_disk(folder: &Path) -> anyhow::Result<u64> {
    let mut sum = 0;
    for entry in std::fs::read_dir(folder).with_context(|| format!("read {}", folder.display()))? {
        let entry = entry?;
        // A file that went away meanwhile takes nothing.
        let Ok(metadata) = entry.metadata() else { continue };
        sum += if metadata.is_dir() { on_disk(&entry.path())? } else { metadata.blocks() * 512 };
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_beyond_what_is_remembered_is_found() {
        let check = |to: u64, folder: u64, expected: usize| {
            let growth = Growth { from: 40 * MIB, to, folder, events: 1 << 20, all_events: 2 << 20 };
            assert_eq!(growth.faults().len(), expected, "{growth}");
        };
        check(40 * MIB, 100 * MIB, 0);
        check(168 * MIB, 640 * MIB, 0);
        check(168 * MIB + 1, 640 * MIB, 1);
        check(168 * MIB, 640 * MIB + 1, 1);
    }

    #[test]
    fn folder_is_counted_with_what_is_below() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("a")).unwrap();
        std::fs::write(folder.path().join("a/b"), vec![1; 1 << 20]).unwrap();
        assert!(on_disk(folder.path()).unwrap() >= 1 << 20);
    }
}
