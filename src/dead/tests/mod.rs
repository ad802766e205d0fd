//! What the dead letters promise, on real files.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use tempfile::TempDir;

use super::{Card, Failure, Filter, Graves, Letter, LetterId, Reason, What};
use crate::entry::{EventRow, Verdict, name_id};
use crate::journal::buffer::AlignedBuf;
use crate::journal::record;
use crate::parse::User;

mod damage;
mod gaps;
mod keeper;
mod lists;
mod power;

/// The record of a webhook with one event of `user`.
pub(super) fn webhook(user: &str, text: &str) -> Bytes {
    let mut verdict = Verdict { source: name_id("main"), ..Verdict::default() };
    let slot = verdict.slot(name_id("eu"));
    verdict
        .push(EventRow { key: [1; 16], value: 1, slot, kind: 0 }, &[User { phone: Some(user), bsuid: None }]);
    verdict.finish();
    let mut buf = AlignedBuf::with_capacity(0);
    record::write_entry(&mut buf, 1, 1, |buf| verdict.write(buf), text.as_bytes());
    Bytes::copy_from_slice(buf.as_slice())
}

/// The `n`-th letter: of its own entry, conversation and moment.
pub(super) fn letter(n: u64) -> Letter {
    Letter {
        journal: [7; 16],
        lsn: n,
        slot: 0,
        part: 0,
        region: name_id("eu"),
        source: name_id("main"),
        last: Failure { reason: Reason::Refused, status: 422, attempts: 5, at_ms: 1_790_000_000_000 + n },
        first_tried_ms: 1_789_999_000_000,
        received_at_ms: 1_789_998_000_000,
        conversations: vec![n],
        events: Vec::new(),
        record: webhook(&format!("49171392{n:05}"), &format!("{{\"webhook\":{n}}}")),
    }
}

pub(super) struct Ground {
    pub(super) folder: TempDir,
    pub(super) graves: Graves,
}

impl Ground {
    pub(super) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let graves = Graves::open(folder.path(), false).unwrap();
        Self { folder, graves }
    }

    pub(super) fn with(letters: u64) -> Self {
        let mut ground = Self::new();
        for n in 1..=letters {
            ground.bury(letter(n));
        }
        ground
    }

    pub(super) fn bury(&mut self, letter: Letter) -> LetterId {
        let id = self.graves.name(letter.last.at_ms);
        self.graves.bury("eu", &[(id, &letter)]).unwrap();
        id
    }

    /// As another process finds it.
    pub(super) fn again(&mut self) {
        self.graves = Graves::open(self.folder.path(), false).unwrap();
    }

    pub(super) fn ids(&self) -> Vec<LetterId> {
        self.graves.matched(&Filter::default()).unwrap()
    }

    pub(super) fn cards(&self) -> Vec<Card> {
        self.graves.cards(&self.ids()).unwrap()
    }

    /// LSNs of the letters that are there with all that they held.
    pub(super) fn whole(&self) -> Vec<u64> {
        let good = |card: &Card| match self.graves.letter(card.id).unwrap() {
            Some((_, Ok(bytes))) => bytes == letter(card.lsn).record,
            _ => false,
        };
        self.cards().into_iter().filter(good).map(|card| card.lsn).collect()
    }

    pub(super) fn change(&mut self, what: What, id: LetterId) -> usize {
        self.graves.change(what, &[id], 1_791_000_000_000).unwrap()
    }

    pub(super) fn gaps(&self) -> Vec<(u64, u32)> {
        let mut gaps: Vec<_> =
            self.graves.gaps().map(|(_, conversation, gap)| (conversation, gap.count)).collect();
        gaps.sort_unstable();
        gaps
    }

    pub(super) fn shelf(&self) -> PathBuf {
        self.folder.path().join("dead/eu")
    }

    pub(super) fn file(&self, ending: &str) -> PathBuf {
        self.shelf().join(format!("00000001.{ending}"))
    }
}

pub(super) fn names(dir: &Path) -> Vec<String> {
    let names =
        std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}
