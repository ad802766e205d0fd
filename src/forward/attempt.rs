//! One attempt: read the parcel if need be, cut it if it must be, send it, and say what came of it.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use aws_lc_rs::digest;
use bytes::{Bytes, BytesMut};

use super::client::{Attempt, Client, Outcome};
use super::envelope::{Envelope, Stamp};
use super::region::{Item, Region, Verdict};
use super::settle::Settler;
use super::told::Told;
use crate::config::SourceKind;
use crate::cut::Cutter;
use crate::entry::{EventRow, Meta};
use crate::fault;
use crate::journal::read::RecordReader;
use crate::journal::record::{self, Record};
use crate::journal::{Mark, Settled};
use crate::metrics::{AttemptOutcome, ForwardCells};
use crate::verify::Verifier;

/// What forwarding needs of a source.
pub struct SourceDesk {
    /// `entry::name_id` of its name.
    pub id: u32,
    pub verifier: Verifier,
}

/// What a core needs to try the parcels of one region.
pub struct RegionDesk {
    pub client: Client,
    /// One per source, in the order of the sources.
    pub envelopes: Vec<Envelope>,
    pub is_default: bool,
}

/// What all attempts of a core share.
pub struct Attempts {
    pub sources: Vec<SourceDesk>,
    /// By index of the region; `None` for those of other cores.
    pub regions: Vec<Option<RegionDesk>>,
    /// By index of the journal.
    pub records: Vec<RecordReader>,
    pub settler: Rc<Settler>,
    pub cells: Arc<ForwardCells>,
    pub cutter: RefCell<Cutter>,
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

/// A worker of a region: one attempt after the other, until the core stops.
pub async fn worker(attempts: Rc<Attempts>, region: Rc<Region>) {
    while let Some((id, mut item)) = region.next().await {
        if let Some(record) = item.record.as_ref().filter(|_| fault::planted("mark-before-delivered")) {
            attempts.settle(&region, &item, record);
        }
        match attempts.attempt(&region, &mut item).await {
            Some((verdict, record, now)) => {
                fault::point("answer-read");
                if verdict == Verdict::Delivered {
                    attempts.settle(&region, &item, &record);
                }
                region.done(id, verdict, now);
            }
            None => region.put_back(id, Instant::now()),
        }
    }
}

impl Attempts {
    /// What came of it, the record, and when. `None`: the parcel could not even be made; it stays where it is.
    async fn attempt(&self, region: &Region, item: &mut Item) -> Option<(Verdict, Bytes, Instant)> {
        let desk = self.regions.get(region.index)?.as_ref()?;
        let record = match item.record.take() {
            Some(record) => record,
            None => self.read_back(region, item).await?,
        };
        let parcel = self.parcel(region, item, record, desk.is_default)?;
        let envelope = desk.envelopes.get(parcel.source)?;
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let mut head = envelope.head(
            &Stamp {
                id: &envelope.id(&parcel.webhook_digest),
                body: &parcel.body,
                hub_signature: &parcel.mac,
                received_at_ms: parcel.received_at_ms,
                now_s: now.as_secs(),
                attempt: item.attempts + 1,
                possible_duplicate: item.uncertain && !fault::planted("doubt-not-told"),
            },
            &mut self.values.borrow_mut(),
        );
        let start = Instant::now();
        let (attempt, end) = desk.client.send(&mut head, parcel.body, start).await;
        envelope.give_back(head);
        self.count(region, &attempt, end.saturating_duration_since(start));
        Some((verdict(&attempt), parcel.record, end))
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
        if item.attempts > 0 && fault::planted("id-changes-with-attempts") {
            webhook_digest[0] ^= 1;
        }
        let verifier = &self.sources[source].verifier;
        let (cut, mac) = if meta.slots() == 1 && item.repeats.is_none() {
            let mac =
                if (meta.secret() == 0 || fault::planted("signed-with-another-secret")) && !meta.wasender() {
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
            let keep = |event: usize| kept.get(event) == Some(&true);
            let report = self.cutter.borrow_mut().cut(kind, entry.body, keep, is_default, &mut out);
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
        if self.told.is_due(region.index, fault, Instant::now()) {
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

    fn settle(&self, region: &Region, item: &Item, record: &[u8]) {
        region.cells().delivered.add(1);
        let mark = Mark { lsn: item.lsn, slot: item.slot, outcome: Settled::Delivered, tag: region.id };
        // It was read before the attempt.
        if let Ok((Record::Entry(entry), _)) = record::read_known(record)
            && let Ok(meta) = Meta::read(entry.meta)
        {
            let delivered = events(&meta, item).map(|(_, event)| event);
            self.settler.settle(item.journal as usize, mark, region.id, delivered);
        }
    }
}

/// The events that a parcel delivers, with their places in the webhook.
fn events<'a>(meta: &Meta<'a>, item: &'a Item) -> impl Iterator<Item = (usize, EventRow)> + 'a {
    let repeats = item.repeats.as_deref().filter(|_| !fault::planted("repeats-left-in")).unwrap_or_default();
    let mine = meta.events().enumerate().filter(|(_, event)| event.slot == item.slot);
    mine.filter(|(at, _)| repeats.is_empty() || repeats.binary_search(&(*at as u32)).is_err())
}

fn verdict(attempt: &Attempt) -> Verdict {
    match attempt.outcome {
        Outcome::Answered { status: 300..=399, .. } if fault::planted("redirect-taken") => Verdict::Delivered,
        Outcome::Answered { status: 500..=599, .. } if fault::planted("refusal-taken") => Verdict::Delivered,
        Outcome::Answered { status: 200..=299, .. } => Verdict::Delivered,
        Outcome::Answered { status, retry_after } => Verdict::Again {
            asked: retry_after,
            overloaded: matches!(status, 429 | 503),
            uncertain: attempt.sent_bytes,
            unreachable: false,
        },
        Outcome::Timeout | Outcome::Connection(_) => Verdict::Again {
            asked: None,
            overloaded: false,
            uncertain: attempt.sent_bytes,
            unreachable: true,
        },
    }
}
