//! What a forwarding core asks of the dead letters.
//!
//! Orders go to the keeper's thread over a channel; what comes back is awaited on the core, or looked for
//! with each tick. Nothing here blocks or touches a file.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender};
use tokio::sync::oneshot;

use super::office::Ask;
use super::{Failure, Gap, Letter, LetterId, Replay};
use crate::fault;
use crate::journal::JournalId;

/// What a core orders.
#[derive(Debug)]
pub enum Order {
    /// Answered once it is durable.
    Bury(Box<Letter>, oneshot::Sender<LetterId>),
    /// The region has it.
    Replayed(LetterId),
    FailedAgain(LetterId, Failure),
    /// It cannot go out as things are.
    TakeBack(LetterId),
    GapTold {
        region: u32,
        conversation: u64,
    },
    /// Answered with the record; `None`: it is not to go out any more.
    Record(LetterId, oneshot::Sender<Option<Bytes>>),
    /// From the office.
    Ask(Ask),
}

/// What of a parcel is a dead letter already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Held {
    /// All of it.
    Whole,
    /// The events at these places of the webhook, rising.
    Events(Vec<u32>),
}

/// What the letters on disk told at the start.
#[derive(Debug, Default)]
pub struct Found {
    pub held: HashMap<(JournalId, u64, u16), Held>,
    /// By region and conversation.
    pub gaps: HashMap<(u32, u64), Gap>,
}

/// The dead letters, as one forwarding core sees them.
#[derive(Debug, Clone)]
pub struct Desk {
    pub(super) orders: Sender<Order>,
    pub(super) replays: Receiver<Replay>,
    pub(super) found: Arc<Found>,
    /// Orders that nobody waits for.
    pub(super) sent: Arc<AtomicU64>,
    pub(super) done: Arc<AtomicU64>,
}

impl Desk {
    /// Returns when the letter is durable; while the disk is full, that is later.
    pub async fn bury(&self, letter: Letter) -> LetterId {
        let (answer, wait) = oneshot::channel();
        self.order(Order::Bury(Box::new(letter), answer));
        match wait.await {
            Ok(id) => id,
            // The keeper failed, which ends the process: the parcel stays unsettled.
            Err(_) => std::future::pending().await,
        }
    }

    /// What of a parcel that the journal takes for unsettled is a dead letter: a crash came between the
    /// letter and its mark. It is to be settled as dead, and not tried.
    pub fn held(&self, journal: &JournalId, lsn: u64, slot: u16) -> Option<&Held> {
        self.found.held.get(&(*journal, lsn, slot)).filter(|_| !fault::planted("letter-forgotten"))
    }

    /// Conversations of `region` of which parcels were given up, and the region was not told by the start.
    pub fn gaps(&self, region: u32) -> impl Iterator<Item = (u64, Gap)> + '_ {
        let mine = self
            .found
            .gaps
            .iter()
            .filter(move |((of, _), _)| *of == region && !fault::planted("gap-forgotten"));
        mine.map(|((_, conversation), gap)| (*conversation, *gap))
    }

    /// A parcel that carried the conversation's gap was delivered.
    pub fn gap_told(&self, region: u32, conversation: u64) {
        if !fault::planted("told-gap-not-kept") {
            self.send(Order::GapTold { region, conversation });
        }
    }

    /// A letter to try again, if one is due; look with each tick. It stays a dead letter until
    /// [`Desk::replayed`]; each one ends with that, with [`Desk::failed_again`], with [`Desk::take_back`], or with
    /// [`Desk::record`] saying that it is not to be tried.
    pub fn replay(&self) -> Option<Replay> {
        self.replays.try_recv().ok()
    }

    /// The region has it: it is a letter no more.
    pub fn replayed(&self, id: LetterId) {
        self.send(Order::Replayed(id));
    }

    /// It stays a letter.
    pub fn failed_again(&self, id: LetterId, failure: Failure) {
        self.send(Order::FailedAgain(id, failure));
    }

    /// No parcel can be made of it as things are: it stays a letter, and is not ordered any more.
    pub fn take_back(&self, id: LetterId) {
        self.send(Order::TakeBack(id));
    }

    /// The journal's record in a letter; `None`: somebody dropped it or took the order back, or it cannot be
    /// read, which the keeper has told. It is not to be tried then.
    pub async fn record(&self, id: LetterId) -> Option<Bytes> {
        let (answer, wait) = oneshot::channel();
        self.order(Order::Record(id, answer));
        match wait.await {
            Ok(record) => record,
            // The keeper failed, which ends the process.
            Err(_) => std::future::pending().await,
        }
    }

    /// True if all that was said by any core is durable.
    pub fn idle(&self) -> bool {
        self.sent.load(SeqCst) == self.done.load(SeqCst)
    }

    fn send(&self, order: Order) {
        self.sent.fetch_add(1, SeqCst);
        self.order(order);
    }

    fn order(&self, order: Order) {
        // Without a keeper the process is ending, and what was ordered did not happen.
        self.orders.send(order).ok();
    }
}
