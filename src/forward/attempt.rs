//! One attempt: read the parcel if need be, cut it if it must be, send it, and say what came of it.

use std::cell::RefCell;
use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use aws_lc_rs::digest;
use bytes::{Bytes, BytesMut};
use monoio_http::common::request::RequestHead;

use super::book::Done;
use super::client::{Attempt, Client, Outcome};
use super::envelope::{Envelope, Stamp};
use super::item::{Errand, Failed, Item, Verdict};
use super::lane::ParcelId;
use super::parts::parts;
use super::region::Region;
use super::settle::Settler;
use super::told::Told;
use crate::config::SourceKind;
use crate::cut::Cutter;
use crate::dead::Desk;
use crate::entry::{EventRow, Meta};
use crate::fault;
use crate::handling::{Step, Watch};
use crate::journal::read::{Blocks, Files, RecordReader};
use crate::journal::record::{self, Record};
use crate::journal::{JournalId, Mark, Position, Settled};
use crate::metrics::{AttemptOutcome, ForwardCells};
use crate::parse::Parser;
use crate::verify::Verifier;

/// What forwarding needs of a source.
pub struct SourceDesk {
    /// `entry::name_id` of its name.
    pub id: u32,
    pub verifier: Verifier,
}

/// Hands requests to a region: over the network, or into a simulation.
pub trait Hand {
    /// What came of it, and when. `head` can be used again afterwards.
    fn send(
        &self,
        head: &mut RequestHead,
        body: Bytes,
        start: Instant,
    ) -> impl Future<Output = (Attempt, Instant)>;
}

impl Hand for Client {
    async fn send(&self, head: &mut RequestHead, body: Bytes, start: Instant) -> (Attempt, Instant) {
        Client::send(self, head, body, start).await
    }
}

/// What a core needs to try the parcels of one region.
pub struct RegionDesk<C = Client> {
    pub client: C,
    /// One per source, in the order of the sources.
    pub envelopes: Vec<Envelope>,
    pub is_default: bool,
}

/// What all attempts of a core share.
pub struct Attempts<C = Client, B = Files> {
    pub sources: Vec<SourceDesk>,
    /// By index of the region; `None` for those of other cores.
    pub regions: Vec<Option<RegionDesk<C>>>,
    /// By index of the journal.
    pub records: Vec<RecordReader<B>>,
    /// By index of the journal: its id, and where it ended when this process began.
    pub journals: Vec<(JournalId, Position)>,
    pub settler: Rc<Settler>,
    pub dead: Desk,
    pub watch: Rc<Watch>,
    pub cells: Arc<ForwardCells>,
    pub cutter: RefCell<Cutter>,
    /// For parcels that are cut per conversation.
    pub parser: RefCell<Parser>,
    /// Header values are cut from it.
    pub values: RefCell<BytesMut>,
    pub told: Told,
}

/// A parcel as it goes out.
struct Parcel {
    source: usize,
    body: Bytes,
    /// All of the record: it tells what was delivered.
    record: Bytes,
    mac: [u8; 32],
    /// Of the whole webhook, whatever part of it this is.
    webhook_digest: [u8; 32],
    received_at_ms: u64,
}

/// How a try went.
struct Tried {
    verdict: Verdict,
    /// All of the record.
    record: Bytes,
    started: Instant,
    ended: Instant,
}

/// A worker of a region: one errand after the other, until the core stops.
pub async fn worker<C: Hand, B: Blocks>(attempts: Rc<Attempts<C, B>>, region: Rc<Region>) {
    while let Some((id, errand)) = region.next().await {
        match errand {
            Errand::Try(item) => attempts.deliver(&region, id, item).await,
            Errand::Bury(item, death) => attempts.bury(&region, id, item, death).await,
        }
    }
}

impl<C: Hand, B: Blocks> Attempts<C, B> {
    /// One try, and what follows from it.
    async fn deliver(&self, region: &Region, id: ParcelId, mut item: Item) {
        if let Some(record) = item.record.as_ref().filter(|_| fault::planted("mark-before-delivered")) {
            self.settle(region, &item, record, Some(Settled::Delivered));
        }
        if let Some(letter) = item.letter() {
            // Asked each time: somebody may have dropped it meanwhile, or taken the order back.
            item.record = self.dead.record(letter).await;
            if item.record.is_none() {
                return match fault::planted("dropped-letter-blocks") {
                    true => region.put_back(id, region.clock()),
                    false => region.let_go(id),
                };
            }
        }
        let Some(Tried { verdict, record, started, ended }) = self.attempt(region, &mut item).await else {
            return match item.letter() {
                // The core may have many others to send, and a letter holds up its conversation.
                Some(letter) => {
                    self.dead.take_back(letter);
                    region.let_go(id);
                }
                None => region.put_back(id, region.clock()),
            };
        };
        fault::point("answer-read");
        match region.done(id, verdict, started, ended) {
            Done::Delivered { mark, told } => {
                self.settle(region, &item, &record, mark);
                told.into_iter().for_each(|conversation| self.dead.gap_told(region.id, conversation));
            }
            Done::Again { cut: true } => self.cut(region, id, &item, &record),
            Done::Again { cut: false } => {}
        }
    }

    /// `None`: the parcel could not even be made; it stays where it is.
    async fn attempt(&self, region: &Region, item: &mut Item) -> Option<Tried> {
        let desk = self.regions.get(region.index)?.as_ref()?;
        let record = self.record(region, item).await?;
        let parcel = self.watch.during(Step::Cut, item.watched(), || {
            fault::poison("cut", &record);
            self.parcel(region, item, record, desk.is_default)
        })?;
        let envelope = desk.envelopes.get(parcel.source)?;
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let mut head = envelope.head(
            &Stamp {
                id: &envelope.id(
                    &parcel.webhook_digest,
                    if fault::planted("part-named-as-the-whole") { 0 } else { item.part },
                ),
                body: &parcel.body,
                hub_signature: &parcel.mac,
                received_at_ms: parcel.received_at_ms,
                now_s: now.as_secs(),
                attempt: item.attempts + 1,
                gap_before: item.gap,
                possible_duplicate: item.uncertain && !fault::planted("doubt-not-told"),
            },
            &mut self.values.borrow_mut(),
        );
        let started = region.clock();
        let (attempt, ended) = desk.client.send(&mut head, parcel.body, started).await;
        envelope.give_back(head);
        self.count(region, &attempt, ended.saturating_duration_since(started));
        Some(Tried { verdict: verdict(&attempt), record: parcel.record, started, ended })
    }

    /// Cuts a parcel that waits, if it can be cut.
    fn cut(&self, region: &Region, id: ParcelId, item: &Item, record: &Bytes) {
        // It was read before the attempt.
        if let Ok((Record::Entry(entry), _)) = record::read_known(record)
            && let Ok(meta) = Meta::read(entry.meta)
            && !self.watch.is_quarantined(Step::Split, item.watched())
            && let Some(parts) = self.watch.during(Step::Split, item.watched(), || {
                fault::poison("split", entry.body);
                parts(&mut self.parser.borrow_mut(), entry.body, &meta, item)
            })
            && region.split(id, parts, &Some(record.clone()))
        {
            region.cells().split.add(1);
        }
    }

    /// The record: as kept, or read back.
    pub(super) async fn record(&self, region: &Region, item: &mut Item) -> Option<Bytes> {
        match item.record.take() {
            Some(record) => Some(record),
            None => self.read_back(region, item).await,
        }
    }

    /// Id of the journal it is in, unless it is a dead letter.
    pub(super) fn journal(&self, item: &Item) -> Option<JournalId> {
        self.journals.get(item.journal as usize).map(|(id, _)| *id)
    }

    /// Whether this process stored it, and so with the secrets of now.
    fn is_own(&self, item: &Item) -> bool {
        self.journals.get(item.journal as usize).is_some_and(|(_, end)| item.frame >= *end)
    }

    /// The record of a parcel that was not kept.
    async fn read_back(&self, region: &Region, item: &Item) -> Option<Bytes> {
        let failed =
            |error: &dyn std::error::Error| self.tell(region, item, "cannot read a parcel back", Some(error));
        let reader = self.records.get(item.journal as usize)?;
        let record =
            reader.record(item.frame, item.offset, item.len).await.inspect_err(|e| failed(e)).ok()?;
        // Alone, without its frame, it has only its own checksum to answer for it.
        record::read(&record).inspect_err(|fault| failed(fault)).ok()?;
        Some(record)
    }

    /// The body that the region gets. Byte for byte what came if all of it is for this region.
    fn parcel(&self, region: &Region, item: &Item, record: Bytes, is_default: bool) -> Option<Parcel> {
        let (Record::Entry(entry), _) = record::read_known(&record).ok()? else { return None };
        let meta = Meta::read(entry.meta).ok()?;
        let Some(source) = self.sources.iter().position(|s| s.id == meta.source()) else {
            let fault =
                "a parcel waits for a source that is no longer configured; configure it again to deliver it";
            self.tell(region, item, fault, None);
            return None;
        };
        // The provider's signature is a digest of the body, made and stored already.
        let mut webhook_digest = meta.signature();
        if meta.wasender() {
            webhook_digest.copy_from_slice(digest::digest(&digest::SHA256, entry.body).as_ref());
        }
        // Of a region that is no more: this one may have had a parcel of its own from this webhook.
        let came_for = meta.regions().nth(usize::from(item.slot)).filter(|id| *id != region.id);
        if let Some(id) = came_for.filter(|_| !fault::planted("orphans-share-an-id")) {
            webhook_digest.iter_mut().zip(id.to_le_bytes()).for_each(|(byte, other)| *byte ^= other);
        }
        if item.attempts > 0 && fault::planted("id-changes-with-attempts") {
            webhook_digest[0] ^= 1;
        }
        let verifier = &self.sources[source].verifier;
        let (cut, mac) = if meta.slots() == 1 && item.is_whole() {
            // Which of the secrets it was says nothing any more where they may have changed.
            let first = meta.secret() == 0 && (self.is_own(item) || fault::planted("old-secret-believed"));
            let mac = if (first || fault::planted("signed-with-another-secret")) && !meta.wasender() {
                meta.signature()
            } else {
                verifier.mac(entry.body)
            };
            (None, mac)
        } else {
            let kind = if meta.wasender() { SourceKind::Wasender } else { SourceKind::Whatsapp };
            let mut kept = vec![false; meta.events().len()];
            events(&meta, item).for_each(|(at, _)| kept[at] = true);
            let mut out = Vec::with_capacity(entry.body.len());
            // Contacts of nobody go out once.
            let strays = is_default && item.part <= 1;
            let keep = |event: usize| kept.get(event) == Some(&true);
            let report = self.cutter.borrow_mut().cut(kind, entry.body, keep, strays, &mut out);
            if report.events == 0 {
                let fault = "a parcel waits: this version finds no event of it in its webhook; start the version that stored it";
                self.tell(region, item, fault, None);
                return None;
            }
            region.cells().cut.add(1);
            let mac = verifier.mac(&out);
            (Some(Bytes::from(out)), mac)
        };
        let received_at_ms = meta.received_at_ns() / 1_000_000;
        let before_body = record.len() - entry.body.len();
        // The body ends its record.
        let body = cut.unwrap_or_else(|| record.slice(before_body..));
        Some(Parcel { source, body, record, mac, webhook_digest, received_at_ms })
    }

    /// Why a parcel cannot even be made. It is tried again soon, and so are others like it.
    fn tell(&self, region: &Region, item: &Item, fault: &'static str, error: Option<&dyn std::error::Error>) {
        if self.told.is_due(region.index, fault, region.clock()) {
            let error = error.map(tracing::field::display);
            tracing::error!(region = %region.name, lsn = item.lsn, error, "{fault}");
        }
    }

    fn count(&self, region: &Region, attempt: &Attempt, took: Duration) {
        let outcome = match attempt.outcome {
            Outcome::Answered { status: 200..=299, .. } => AttemptOutcome::Delivered,
            Outcome::Answered { .. } => AttemptOutcome::Refused,
            Outcome::Timeout => AttemptOutcome::Timeout,
            Outcome::Connection(_) => AttemptOutcome::Connection,
        };
        let cells = region.cells();
        cells.attempts[outcome as usize].add(1);
        cells.attempt_seconds.observe_ns(took.as_nanos() as u64);
        self.cells.connections_opened.add(u64::from(attempt.opened));
    }

    /// Remembers what was delivered, and settles the parcel if `mark` says that all of it is.
    fn settle(&self, region: &Region, item: &Item, record: &[u8], mark: Option<Settled>) {
        if let Some(letter) = item.letter() {
            // Its keys and its mark were written when it died.
            return self.dead.replayed(letter);
        }
        // It was read before the attempt.
        if let Ok((Record::Entry(entry), _)) = record::read_known(record)
            && let Ok(meta) = Meta::read(entry.meta)
        {
            self.keep(region, item, &meta, mark);
        }
    }

    /// A parcel's keys, and its mark if all of it is settled.
    pub(super) fn keep(&self, region: &Region, item: &Item, meta: &Meta<'_>, mark: Option<Settled>) {
        let cells = region.cells();
        match mark {
            Some(Settled::Delivered) => cells.delivered.add(1),
            Some(Settled::Dead) => cells.dead.add(1),
            Some(Settled::Duplicate) | None => {}
        }
        let mark = mark.map(|outcome| Mark { lsn: item.lsn, slot: item.slot, outcome, tag: region.id });
        let events = events(meta, item).map(|(_, event)| event);
        self.settler.settle(item.journal as usize, mark, region.id, events);
    }
}

/// The events of a parcel, with their places in the webhook.
pub(super) fn events<'a>(meta: &Meta<'a>, item: &'a Item) -> impl Iterator<Item = (usize, EventRow)> + 'a {
    let mine = meta.events().enumerate().filter(|(_, event)| event.slot == item.slot);
    mine.filter(|(at, _)| item.holds(*at as u32) || fault::planted("repeats-left-in"))
}

fn verdict(attempt: &Attempt) -> Verdict {
    let (status, asked) = match attempt.outcome {
        Outcome::Answered { status: 300..=399, .. } if fault::planted("redirect-taken") => {
            return Verdict::Delivered;
        }
        Outcome::Answered { status: 500..=599, .. } if fault::planted("refusal-taken") => {
            return Verdict::Delivered;
        }
        Outcome::Answered { status: 200..=299, .. } => return Verdict::Delivered,
        Outcome::Answered { status, retry_after } => (status, retry_after),
        Outcome::Timeout | Outcome::Connection(_) => (0, None),
    };
    Verdict::Failed(Failed { status, asked, uncertain: attempt.sent_bytes })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_but_2xx_is_a_delivery() {
        for status in 200..600 {
            let attempt = Attempt {
                outcome: Outcome::Answered { status, retry_after: None },
                sent_bytes: true,
                opened: 0,
            };
            assert_eq!(matches!(verdict(&attempt), Verdict::Delivered), status < 300, "{status}");
        }
    }
}
