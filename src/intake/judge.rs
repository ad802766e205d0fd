//! Is it the source's, what is in it, and where does that go: verify, parse, route. Knows neither core nor journal, so
//! that it can be asked beside the cores as well.

use std::net::SocketAddr;

use crate::config::{Config, Source, SourceKind};
use crate::entry::{EventRow, Verdict, name_id};
use crate::fault;
use crate::parse::{Event, EventKind, Parsed, Parser, conversations};
use crate::route::{Routed, Router, Rule};
use crate::verify::{Refusal, Verifier};

/// Slot of an event whose region is not known yet.
const LATER: u16 = u16::MAX;

/// What intake needs of a source.
pub(super) struct Desk {
    pub(super) id: u32,
    pub(super) kind: SourceKind,
    pub(super) path: String,
    pub(super) verifier: Verifier,
}

/// Judges webhooks. It never changes: whoever asks has one, and memory for it.
pub(super) struct Judge {
    pub(super) desks: Vec<Desk>,
    router: Router,
    /// Id of each region, and the forwarding core that owns it.
    regions: Vec<(u32, u16)>,
}

/// Memory that is used anew for each webhook.
#[derive(Default)]
pub(super) struct Work {
    parser: Parser,
    pub(super) verdict: Verdict,
}

/// What was found out beside the verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Judged {
    /// Index of the secret that verified.
    pub(super) secret: usize,
    /// Forwarding cores concerned, as bits.
    pub(super) owners: u64,
    /// Elements that name users of several regions.
    pub(super) mixed: u64,
}

/// How a webhook came, beside head and body.
#[derive(Debug, Clone, Copy)]
pub(super) struct Arrival {
    pub(super) desk: usize,
    /// The provider's address, seen through trusted proxies.
    pub(super) client: SocketAddr,
    /// When it was whole, Unix nanoseconds.
    pub(super) at_ns: u64,
}

impl Judge {
    /// `owners`: the forwarding core of each region.
    pub(super) fn new(config: &Config, owners: &[u16]) -> Self {
        let desk = |source: &Source| Desk {
            id: name_id(&source.name),
            kind: source.kind,
            path: source.path.clone(),
            verifier: Verifier::new(source),
        };
        Self {
            desks: config.sources.iter().map(desk).collect(),
            router: Router::new(&config.regions, config.default_region),
            regions: config.regions.iter().zip(owners).map(|(r, owner)| (name_id(&r.name), *owner)).collect(),
        }
    }

    /// Fills the verdict of a webhook that is the source's. `signatures` are the values of all headers that the
    /// source's verifier wants; `headers` writes those that are kept.
    pub(super) fn judge<'h>(
        &self,
        arrival: Arrival,
        signatures: impl IntoIterator<Item = &'h [u8]>,
        headers: impl FnOnce(&mut Vec<u8>),
        body: &[u8],
        work: &mut Work,
    ) -> Result<Judged, Refusal> {
        let desk = &self.desks[arrival.desk];
        let verified = desk.verifier.verify(signatures, body)?;
        fault::point("verified");
        fault::poison("judge", body);
        let verdict = &mut work.verdict;
        verdict.clear();
        verdict.source = desk.id;
        verdict.wasender = desk.kind == SourceKind::Wasender;
        verdict.secret = u8::try_from(verified.secret).unwrap_or(u8::MAX);
        verdict.signature = verified.mac;
        verdict.peer = Some(arrival.client);
        verdict.received_at_ns = arrival.at_ns;
        headers(&mut verdict.headers);
        let (owners, mixed) = self.route(desk.kind, body, work);
        Ok(Judged { secret: verified.secret, owners, mixed })
    }

    /// Fills the verdict from the events of the body. Returns the forwarding cores concerned, as bits, and how many
    /// elements name users of several regions.
    fn route(&self, kind: SourceKind, body: &[u8], work: &mut Work) -> (u64, u64) {
        let Work { parser, verdict } = work;
        let (mut owners, mut mixed) = (0u64, 0);
        let mut errors_region = 0;
        let parsed = parser.parse(kind, body, &mut |event: &Event<'_>| {
            if event.kind == EventKind::Errors {
                errors_region = self.router.route_event(event).region;
                verdict.push(row(event, LATER), event.users);
                return;
            }
            let Routed { region, rule } = self.router.route_event(event);
            if rule == Rule::UsersDisagree {
                mixed += 1;
            }
            let (id, owner) = self.regions[region];
            owners |= 1 << owner;
            let slot = verdict.slot(id);
            verdict.push(row(event, slot), event.users);
            verdict.conversations.extend(conversations(event.number, event.users).map(|c| (slot, c)));
        });
        verdict.opaque = matches!(parsed, Parsed::Opaque(_));
        owners |= self.place_errors(verdict, errors_region);
        verdict.finish();
        (owners, mixed)
    }

    /// Errors of a value name nobody. If all else in the webhook is for one region they go there too,
    /// and it stays whole; otherwise to `alone`, where they go by themselves.
    fn place_errors(&self, verdict: &mut Verdict, alone: usize) -> u64 {
        if verdict.events.iter().all(|e| e.slot != LATER) {
            return 0;
        }
        let (slot, owner) = match verdict.regions.len() {
            1 => (0, 0),
            _ => {
                let (id, owner) = self.regions[alone];
                (verdict.slot(id), 1 << owner)
            }
        };
        verdict.events.iter_mut().filter(|e| e.slot == LATER).for_each(|e| e.slot = slot);
        owner
    }
}

fn row(event: &Event<'_>, slot: u16) -> EventRow {
    EventRow { key: event.key, value: event.value, slot, kind: event.kind as u8 }
}
