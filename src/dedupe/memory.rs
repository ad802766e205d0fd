//! What the key log cannot tell itself: for how long it was kept, and that some of it is missing.
//!
//! One line, `window 1440 lost 17`, minutes all; `-` for nothing lost. A log that was lost, and one whose older files went
//! under a shorter window, would look whole at the second start after that.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;

use crate::fault;

const NAME: &str = "memory";

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Memory {
    /// Minutes for which keys are kept.
    pub window: u32,
    /// The newest minute of the clock of which keys are missing, as long as that is within the window.
    pub lost: Option<u32>,
}

impl Memory {
    /// What is known now: `before` was kept, keys are wanted for `window`, the newest one here is of minute `newest`,
    /// and `all_lost` says that there should be some and are none.
    pub fn now(before: Option<Self>, window: u32, newest: u32, all_lost: bool) -> Self {
        let grown = before.filter(|before| before.window < window);
        // Nothing that old was there to be kept in a log that is younger than that.
        let grown = grown.and_then(|before| newest.checked_sub(before.window.saturating_add(1)));
        let before = before.filter(|_| !fault::planted("loss-forgotten"));
        let lost = before.and_then(|before| before.lost).max(grown).max(all_lost.then_some(newest));
        // The clock may have begun anew since.
        let lost = lost.map(|lost| lost.min(newest));
        Self { window, lost: lost.filter(|lost| newest - lost <= window) }
    }

    /// `None` if there is none, or none that can be read: then nothing is known to be missing.
    pub(super) fn read(dir: &Path) -> io::Result<Option<Self>> {
        match fs::read_to_string(dir.join(NAME)) {
            Ok(text) => Ok(parse(&text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(super) fn write(
        &self,
        dir: &Path,
        sync: bool,
        sync_dir: fn(&Path) -> io::Result<()>,
    ) -> io::Result<()> {
        let lost = self.lost.map_or_else(|| "-".to_owned(), |minute| minute.to_string());
        let new = dir.join(NAME).with_extension("tmp");
        let mut file = File::create(&new)?;
        writeln!(file, "window {} lost {lost}", self.window)?;
        if sync {
            file.sync_all()?;
        }
        fs::rename(&new, dir.join(NAME))?;
        if sync { sync_dir(dir) } else { Ok(()) }
    }
}

fn parse(text: &str) -> Option<Memory> {
    let mut words = text.split_whitespace();
    let mut after = |name| words.next().filter(|word| *word == name).and_then(|_| words.next());
    let window = after("window")?.parse().ok()?;
    let lost = match after("lost")? {
        "-" => None,
        minute => Some(minute.parse().ok()?),
    };
    Some(Memory { window, lost })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_known_for_a_window_and_not_longer() {
        let kept = |window, lost| Some(Memory { window, lost });
        let lost = |before, window, newest, all| Memory::now(before, window, newest, all).lost;
        assert_eq!(lost(None, 60, 500, false), None);
        assert_eq!(lost(None, 60, 0, true), Some(0), "a log that is gone begins anew");
        assert_eq!(lost(kept(60, Some(0)), 60, 60, false), Some(0));
        assert_eq!(lost(kept(60, Some(0)), 60, 61, false), None);
        assert_eq!(lost(kept(60, None), 100, 500, false), Some(439), "those of 440 are there");
        assert_eq!(lost(kept(60, None), 100, 60, false), None, "nothing is older");
        assert_eq!(lost(kept(100, Some(439)), 100, 540, false), None);
        assert_eq!(lost(kept(100, None), 60, 500, false), None);
        assert_eq!(lost(kept(u32::MAX, Some(u32::MAX)), u32::MAX, 500, false), Some(500), "whatever it says");
        assert_eq!(lost(kept(60, Some(5000)), 60, 0, false), Some(0), "the clock began anew");
    }

    #[test]
    fn what_was_written_is_read_and_anything_else_is_as_if_there_was_nothing() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Memory::read(dir.path()).unwrap(), None);
        for memory in [Memory { window: 1, lost: None }, Memory { window: u32::MAX, lost: Some(7) }] {
            memory.write(dir.path(), true, |_| Ok(())).unwrap();
            assert_eq!(Memory::read(dir.path()).unwrap(), Some(memory));
        }
        for text in [&b""[..], b"window", b"window 1", b"window x lost -", b"window 1 lost -5", b"\xff"] {
            fs::write(dir.path().join(NAME), text).unwrap();
            assert_eq!(Memory::read(dir.path()).unwrap(), None, "{text:?}");
        }
    }
}
