//! Lagging regions read the journals: passes over all of them, merged by sequence number.
//!
//! One pass serves lagging regions that have room and are about as far; one that
//! fills up on the way drops out with its cursor. Those that are far apart take turns: a region that
//! comes back after hours has gigabytes of other regions' webhooks to look through, and one that only
//! lost a moment must not wait for that.

use std::rc::Rc;
use std::time::Duration;

use super::head::{Head, lowest};
use super::{Feed, Pace, TURN};
use crate::forward::lag::Cursor;
use crate::forward::region::Region;
use crate::journal::read::{Blocks, JournalReader, ReadError};

/// Bytes of entries that a pass reads while other regions wait for theirs.
const SHARE: usize = 2 * 1024 * 1024;
/// Pause after a journal could not be read.
const READ_AGAIN: Duration = Duration::from_secs(1);

impl Feed {
    /// A reader for each journal.
    pub fn readers(&self) -> Vec<JournalReader> {
        self.journals.iter().map(|journal| JournalReader::new(journal, self.pool.clone())).collect()
    }

    /// Serves lagging regions until stopped.
    pub async fn catch_up<B: Blocks>(
        &self,
        mut readers: Vec<JournalReader<B>>,
        pace: &impl Pace,
    ) -> std::io::Result<()> {
        let (mut last, mut failing) = (0, false);
        while !self.stopping.get() {
            let mut takers: Vec<Rc<Region>> = self.waiting().cloned().collect();
            if takers.is_empty() {
                self.lag.notified().await;
                continue;
            }
            // Whoever stands behind the one that was served last comes first.
            let count = self.regions.len();
            let turn = |region: &Rc<Region>| {
                let at = self.regions.iter().position(|r| Rc::ptr_eq(r, region)).unwrap_or_default();
                (at + count - last - 1) % count
            };
            takers.sort_by_key(turn);
            let first = Rc::clone(&takers[0]);
            last = (last + 1 + turn(&first)) % count;
            takers.retain(|region| self.near(region, &first));
            match self.pass(takers, &mut readers, pace).await {
                Ok(()) => failing = false,
                Err(PassError::Read(error)) => {
                    if !failing {
                        tracing::error!(%error, "cannot read the journal; trying again every second");
                    }
                    failing = true;
                    pace.pause(READ_AGAIN).await;
                }
                Err(PassError::Ring(error)) => return Err(error),
            }
        }
        Ok(())
    }

    /// Lagging regions that have room.
    fn waiting(&self) -> impl Iterator<Item = &Rc<Region>> {
        self.regions.iter().filter(|r| r.lagging() && r.has_room())
    }

    /// Whether two regions got to the same segment of each journal, or to neighbours.
    fn near(&self, one: &Region, other: &Region) -> bool {
        let segment = |region: &Region, journal| region.cursor(journal).frame.segment();
        (0..self.journals.len()).all(|j| segment(one, j).abs_diff(segment(other, j)) <= 1)
    }

    async fn pass<B: Blocks>(
        &self,
        mut takers: Vec<Rc<Region>>,
        readers: &mut [JournalReader<B>],
        pace: &impl Pace,
    ) -> Result<(), PassError> {
        let mut at: Vec<Cursor> = (0..readers.len())
            .map(|j| takers.iter().map(|r| r.cursor(j)).min().unwrap_or_default())
            .collect();
        let mut heads: Vec<Option<Head>> = readers.iter().map(|_| None).collect();
        let (mut turn, mut read) = (0, 0);
        let result = loop {
            if let Err(error) = self.fill(&mut heads, &mut at, readers).await {
                break Err(PassError::Read(error));
            }
            let Some(journal) = lowest(&heads) else {
                // No await since the standing was read: these regions are where the core is.
                for region in takers.drain(..) {
                    region.caught_up();
                }
                break Ok(());
            };
            if let Some(head) = &mut heads[journal] {
                let entry = head.pop();
                read += entry.len;
                let cursor = Cursor { frame: head.frame.position, lsn: entry.lsn };
                self.offer(
                    journal,
                    head.frame.position,
                    entry.lsn,
                    &head.frame.bytes,
                    entry.start..entry.start + entry.len,
                    Some((&takers, cursor)),
                );
                at[journal] = Cursor { frame: head.frame.position, lsn: entry.lsn + 1 };
                if head.done() {
                    at[journal] = Cursor::before(head.frame.next);
                    heads[journal] = None;
                }
            }
            takers.retain(|region| {
                let stays = !region.full();
                if !stays {
                    region.lag_from(&at);
                }
                stays
            });
            turn += 1;
            if turn % TURN == 0 {
                for region in &takers {
                    region.lag_from(&at);
                    region.kick();
                }
                if let Err(error) = pace.aside().await {
                    break Err(PassError::Ring(error));
                }
            }
            let others = || self.waiting().any(|r| !takers.iter().any(|taker| Rc::ptr_eq(taker, r)));
            if takers.is_empty() || self.stopping.get() || read >= SHARE && others() {
                break Ok(());
            }
        };
        for region in &takers {
            region.lag_from(&at);
        }
        self.regions.iter().for_each(|r| r.kick());
        result
    }

    /// Reads the next frame of every journal that has none, as far as the core stands.
    async fn fill<B: Blocks>(
        &self,
        heads: &mut [Option<Head>],
        at: &mut [Cursor],
        readers: &mut [JournalReader<B>],
    ) -> Result<(), ReadError> {
        loop {
            let standing = self.standing.borrow().clone();
            let mut read = false;
            for (journal, reader) in readers.iter_mut().enumerate() {
                while heads[journal].is_none() {
                    let Some(frame) = reader.frame(at[journal].frame, standing[journal]).await? else {
                        // All that comes later lies behind that: nothing holds up what may go ahead of it.
                        at[journal] = at[journal].max(Cursor::before(standing[journal]));
                        break;
                    };
                    read = true;
                    let from = if frame.position == at[journal].frame { at[journal].lsn } else { 0 };
                    let next = Cursor::before(frame.next);
                    let head = Head::new(frame, from);
                    if head.done() {
                        at[journal] = next;
                    } else {
                        at[journal] = Cursor { frame: head.frame.position, lsn: from };
                        heads[journal] = Some(head);
                    }
                }
            }
            // While one journal was read the core may have moved on in another: only a round that
            // read nothing and ended where it began says that this is all.
            if !read && *self.standing.borrow() == standing {
                return Ok(());
            }
        }
    }
}

enum PassError {
    Read(ReadError),
    Ring(std::io::Error),
}
