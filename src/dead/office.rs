//! What a person asks for while the gateway runs.

use bytes::Bytes;
use crossbeam_channel::Sender;
use tokio::sync::oneshot;

use super::desk::Order;
use super::{Card, Filter, LetterId};

/// Letters that are asked for at once.
pub const PAGE_MAX: usize = 10_000;

/// What is to be done with the letters that a filter takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deed {
    /// They go out again, at so many a second to each region.
    Replay {
        rate: u32,
    },
    /// An order to go out is taken back; what is under way is not.
    Keep,
    Drop,
}

#[derive(Debug)]
pub enum Ask {
    List {
        filter: Filter,
        user: Option<String>,
        limit: usize,
        answer: oneshot::Sender<Result<Page, String>>,
    },
    Show(LetterId, oneshot::Sender<Result<Option<Shown>, String>>),
    Do {
        deed: Deed,
        filter: Filter,
        user: Option<String>,
        dry_run: bool,
        answer: oneshot::Sender<Result<Done, String>>,
    },
}

/// Some of the letters that a filter takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// How many it takes.
    pub count: usize,
    /// The oldest of them.
    pub cards: Vec<Card>,
}

/// One letter.
#[derive(Debug)]
pub struct Shown {
    pub card: Card,
    /// The journal's record, or what is wrong with it.
    pub record: Result<Bytes, String>,
}

/// What became of a [`Deed`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Done {
    /// Letters that the filter takes.
    pub count: usize,
    /// Letters for which it made a difference; 0 in a dry run.
    pub changed: usize,
    /// Letters that cannot go out: their region is not configured.
    pub homeless: usize,
}

/// The dead letters, as the admin listener sees them. What cannot be done is said in words for a person.
#[derive(Debug, Clone)]
pub struct Office(pub(super) Sender<Order>);

impl Office {
    /// At most `limit` letters. `user` is a phone or an id, as an entry of the journal has it.
    pub async fn list(&self, filter: Filter, user: Option<String>, limit: usize) -> Result<Page, String> {
        self.ask(|answer| Ask::List { filter, user, limit, answer }).await
    }

    pub async fn show(&self, id: LetterId) -> Result<Option<Shown>, String> {
        self.ask(|answer| Ask::Show(id, answer)).await
    }

    /// Durable when it returns.
    pub async fn act(
        &self,
        deed: Deed,
        filter: Filter,
        user: Option<String>,
        dry_run: bool,
    ) -> Result<Done, String> {
        self.ask(|answer| Ask::Do { deed, filter, user, dry_run, answer }).await
    }

    async fn ask<T>(&self, ask: impl FnOnce(oneshot::Sender<Result<T, String>>) -> Ask) -> Result<T, String> {
        let (answer, wait) = oneshot::channel();
        let stopping =
            || "the gateway is stopping; ask again when it runs, or when it has stopped".to_owned();
        self.0.send(Order::Ask(ask(answer))).map_err(|_| stopping())?;
        wait.await.unwrap_or_else(|_| Err(stopping()))
    }
}
