//! The life of a request, on one page.
//!
//! ```text
//! admit   path > method > media type > is there a signature > can the journal take it   before the body
//! accept  verify > parse > route > journal                                              with the body
//! ticket  durable and handed over > 200                                                 after the commit
//! ```
//!
//! Only here a refusal becomes a status. What verifies is stored whatever it says: a refusal would
//! only make the provider repeat it for days.

use std::borrow::Cow;
use std::cell::RefCell;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::SystemTime;

use ipnet::IpNet;

use crate::config::{Config, SourceKind};
use crate::entry::{EventRow, Verdict, name_id};
use crate::fault;
use crate::http1::{Field, RequestHead};
use crate::journal::ground::{Ground, Ring};
use crate::journal::{Journal, Ticket};
use crate::listen::{Answer, Handler, Reply};
use crate::metrics::{IngestCells, WebhookOutcome};
use crate::overload::Guard;
use crate::parse::{Event, EventKind, Parsed, Parser, conversations};
use crate::route::{Routed, Router, Rule};
use crate::verify::Verifier;

/// Headers that are kept with the webhook, in lower case: what an audit may ask for. The header of a
/// WASenderApi session is its secret and is not among them.
const KEPT_HEADERS: [&str; 5] =
    ["content-type", "user-agent", "x-forwarded-for", "x-hub-signature", "x-hub-signature-256"];
/// Longest value of a kept header.
const KEPT_VALUE_MAX: usize = 1024;

const fn reply(status: u16, body: &'static [u8], headers: &'static [(&'static str, &'static str)]) -> Reply {
    Reply { status, headers, body: Cow::Borrowed(body), close: false }
}

const fn last(status: u16, body: &'static [u8], headers: &'static [(&'static str, &'static str)]) -> Reply {
    Reply { status, headers, body: Cow::Borrowed(body), close: true }
}

const TEXT: &[(&str, &str)] = &[("content-type", "text/plain"), ("x-content-type-options", "nosniff")];
const OK: Reply = reply(200, b"", &[]);
const NOT_FOUND: Reply = reply(404, b"no source has this path\n", TEXT);
const NOT_ALLOWED: Reply = reply(403, b"this address may not call\n", TEXT);
const METHOD: Reply = reply(405, b"expected POST, or GET for the handshake\n", &[("allow", "GET, POST")]);
const METHOD_POST: Reply = reply(405, b"expected POST\n", &[("allow", "POST")]);
// Nobody who sends these is the provider: their connection is not kept.
const ENCODING: Reply =
    last(415, b"expected a body without content-encoding\n", &[("accept-encoding", "identity")]);
const MEDIA_TYPE: Reply = last(415, b"expected content-type: application/json\n", TEXT);
const UNSIGNED: Reply = last(401, b"expected one valid signature of the body\n", TEXT);
const UNAVAILABLE: Reply = reply(503, b"cannot store webhooks now; repeat later\n", &[("retry-after", "5")]);

/// Slot of an event whose region is not known yet.
const LATER: u16 = u16::MAX;

/// What intake needs of a source.
struct Desk {
    id: u32,
    kind: SourceKind,
    path: String,
    verifier: Verifier,
}

/// Decides about the requests of one ingest core.
pub struct Intake<G: Ground = Ring> {
    desks: Vec<Desk>,
    router: Router,
    /// Id of each region, and the forwarding core that owns it.
    regions: Vec<(u32, u16)>,
    allow_from: Vec<IpNet>,
    trusted_proxies: Vec<IpNet>,
    journal: Rc<Journal<G>>,
    guard: Rc<Guard>,
    seq: Arc<AtomicU64>,
    cells: Arc<IngestCells>,
    work: RefCell<Work>,
}

/// Memory that is used anew for each webhook.
#[derive(Default)]
struct Work {
    parser: Parser,
    verdict: Verdict,
}

/// What [`Handler::admit`] found out.
pub struct Pass {
    desk: usize,
    /// The provider's address, seen through trusted proxies.
    client: SocketAddr,
}

impl<G: Ground> Intake<G> {
    /// `owners`: the forwarding core of each region.
    pub fn new(
        config: &Config,
        owners: &[u16],
        journal: Rc<Journal<G>>,
        guard: Rc<Guard>,
        seq: Arc<AtomicU64>,
        cells: Arc<IngestCells>,
    ) -> Self {
        let desk = |source: &crate::config::Source| Desk {
            id: name_id(&source.name),
            kind: source.kind,
            path: source.path.clone(),
            verifier: Verifier::new(source),
        };
        Self {
            desks: config.sources.iter().map(desk).collect(),
            router: Router::new(&config.regions, config.default_region),
            regions: config.regions.iter().zip(owners).map(|(r, owner)| (name_id(&r.name), *owner)).collect(),
            allow_from: config.listen.allow_from.clone(),
            trusted_proxies: config.listen.trusted_proxies.clone(),
            journal,
            guard,
            seq,
            cells,
            work: RefCell::default(),
        }
    }

    fn count(&self, desk: usize, outcome: WebhookOutcome) {
        self.cells.sources[desk].webhooks[outcome as usize].add(1);
    }

    fn refuse(&self, desk: usize, outcome: WebhookOutcome, reply: Reply) -> Reply {
        self.count(desk, outcome);
        reply
    }

    /// Who called: the last address in `X-Forwarded-For` that is not one of our own proxies.
    fn client(&self, head: &RequestHead<'_>, peer: SocketAddr) -> SocketAddr {
        let trusted = |ip: IpAddr| self.trusted_proxies.iter().any(|net| net.contains(&ip));
        if !trusted(peer.ip()) {
            return peer;
        }
        let hops = head.headers.iter().filter(|h| h.name.eq_ignore_ascii_case("x-forwarded-for")).rev();
        for hop in hops.filter_map(|h| std::str::from_utf8(h.value).ok()).flat_map(|v| v.rsplit(',')) {
            match hop.trim().parse::<IpAddr>() {
                Ok(ip) if trusted(ip) => {}
                Ok(ip) => return SocketAddr::new(ip, 0),
                Err(_) => break,
            }
        }
        peer
    }

    fn handshake(&self, desk: &Desk, head: &RequestHead<'_>) -> Reply {
        let query = head.target.split_once('?').map_or("", |(_, query)| query);
        match desk.verifier.handshake(query) {
            Ok(challenge) => {
                Reply { status: 200, headers: TEXT, body: Cow::Owned(challenge.into_bytes()), close: false }
            }
            Err(refusal) => Reply {
                status: refusal.status(),
                headers: TEXT,
                body: Cow::Owned(format!("{refusal}\n").into_bytes()),
                close: true,
            },
        }
    }

    /// Fills the verdict from the events of the body. Returns the forwarding cores concerned, as bits.
    fn judge(&self, desk: usize, body: &[u8], work: &mut Work) -> u64 {
        let Work { parser, verdict } = work;
        let mut owners = 0u64;
        let mut errors_region = 0;
        let counted = &self.cells.sources[desk];
        let parsed = parser.parse(self.desks[desk].kind, body, &mut |event: &Event<'_>| {
            if event.kind == EventKind::Errors {
                errors_region = self.router.route_event(event).region;
                verdict.push(row(event, LATER), event.users);
                return;
            }
            let Routed { region, rule } = self.router.route_event(event);
            if rule == Rule::UsersDisagree {
                counted.mixed_elements.add(1);
            }
            let (id, owner) = self.regions[region];
            owners |= 1 << owner;
            let slot = verdict.slot(id);
            verdict.push(row(event, slot), event.users);
            verdict.conversations.extend(conversations(event.number, event.users).map(|c| (slot, c)));
        });
        verdict.opaque = matches!(parsed, Parsed::Opaque(_));
        if verdict.opaque {
            counted.unparsed.add(1);
        }
        owners |= self.place_errors(verdict, errors_region);
        verdict.finish();
        owners
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

    fn count_stored(&self, desk: usize, verdict: &Verdict) {
        for event in &verdict.events {
            self.cells.sources[desk].events[usize::from(event.kind)].add(1);
        }
        for id in &verdict.regions {
            if let Some(region) = self.regions.iter().position(|(r, _)| r == id) {
                self.cells.parcels[region].add(1);
            }
        }
    }
}

impl<G: Ground + 'static> Handler for Intake<G>
where
    G::Raw: 'static,
{
    type Pass = Pass;
    type Ticket = Ack<G>;

    fn admit(&self, head: &RequestHead<'_>, peer: SocketAddr) -> Result<Pass, Reply> {
        fault::point("head-read");
        let path = head.target.split('?').next().unwrap_or_default();
        let Some(at) = self.desks.iter().position(|d| d.path == path) else { return Err(NOT_FOUND) };
        let desk = &self.desks[at];
        let refused = |reply| Err(self.refuse(at, WebhookOutcome::Refused, reply));
        let client = self.client(head, peer);
        if client != peer
            && !self.allow_from.is_empty()
            && !self.allow_from.iter().any(|n| n.contains(&client.ip()))
        {
            return refused(NOT_ALLOWED);
        }
        match (head.method, desk.kind) {
            ("POST", _) => {}
            ("GET", SourceKind::Whatsapp) => return Ok(Pass { desk: at, client }),
            (_, SourceKind::Whatsapp) => return refused(METHOD),
            (_, SourceKind::Wasender) => return refused(METHOD_POST),
        }
        if head.header("content-encoding") != Field::Missing {
            return refused(ENCODING);
        }
        if !matches!(head.header("content-type"), Field::One(value) if is_json(value)) {
            return refused(MEDIA_TYPE);
        }
        if !matches!(head.header(desk.verifier.header()), Field::One(_)) {
            return Err(self.refuse(at, WebhookOutcome::BadSignature, UNSIGNED));
        }
        self.guard.count();
        if !self.journal.accepting() {
            return Err(self.refuse(at, WebhookOutcome::Unavailable, UNAVAILABLE));
        }
        Ok(Pass { desk: at, client })
    }

    fn accept(&self, pass: Pass, head: &RequestHead<'_>, _peer: SocketAddr, body: &[u8]) -> Answer<Ack<G>> {
        fault::point("body-read");
        let Pass { desk: at, client } = pass;
        let desk = &self.desks[at];
        if head.method == "GET" {
            return Answer::Now(self.handshake(desk, head));
        }
        let wanted = desk.verifier.header();
        let values = head.headers.iter().filter(|h| h.name.eq_ignore_ascii_case(wanted)).map(|h| h.value);
        let verified = match desk.verifier.verify(values, body) {
            Ok(verified) => verified,
            Err(_) => return Answer::Now(self.refuse(at, WebhookOutcome::BadSignature, UNSIGNED)),
        };
        fault::point("verified");
        let secrets = &self.cells.sources[at].secret_used;
        secrets[verified.secret.min(secrets.len() - 1)].add(1);

        let mut work = self.work.borrow_mut();
        let verdict = &mut work.verdict;
        verdict.clear();
        verdict.source = desk.id;
        verdict.wasender = desk.kind == SourceKind::Wasender;
        verdict.secret = u8::try_from(verified.secret).unwrap_or(u8::MAX);
        verdict.signature = verified.mac;
        verdict.peer = Some(client);
        verdict.received_at_ns =
            SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_nanos() as u64);
        keep_headers(head, &mut verdict.headers);
        let owners = self.judge(at, body, &mut work);

        let verdict = &work.verdict;
        let seq = self.seq.fetch_add(1, Relaxed);
        let slots = verdict.regions.len() as u16;
        let write = |out: &mut crate::journal::buffer::AlignedBuf| verdict.write(out);
        match self.journal.append(seq, slots, owners, verdict.encoded_len(), write, body) {
            Ok(ticket) => {
                fault::point("queued");
                self.count_stored(at, verdict);
                Answer::Later(Ack { ticket, desk: at, cells: Arc::clone(&self.cells) })
            }
            Err(_) => Answer::Now(self.refuse(at, WebhookOutcome::Unavailable, UNAVAILABLE)),
        }
    }
}

fn row(event: &Event<'_>, slot: u16) -> EventRow {
    EventRow { key: event.key, value: event.value, slot, kind: event.kind as u8 }
}

fn is_json(value: &[u8]) -> bool {
    // What the provider sends, at no cost.
    if value == b"application/json" {
        return true;
    }
    let mut parts = value.split(|b| *b == b';').map(<[u8]>::trim_ascii);
    let media_type = parts.next().unwrap_or_default();
    media_type.eq_ignore_ascii_case(b"application/json")
        && parts.filter_map(|p| p.split_at_checked(8)).all(|(name, charset)| {
            let quotes: &[u8] = b"\"";
            let charset =
                charset.strip_prefix(quotes).and_then(|c| c.strip_suffix(quotes)).unwrap_or(charset);
            !name.eq_ignore_ascii_case(b"charset=")
                || charset.eq_ignore_ascii_case(b"utf-8")
                || charset.eq_ignore_ascii_case(b"utf8")
        })
}

fn keep_headers(head: &RequestHead<'_>, out: &mut Vec<u8>) {
    for header in head.headers {
        if header.value.len() <= KEPT_VALUE_MAX
            && let Some(name) = KEPT_HEADERS.iter().find(|name| name.eq_ignore_ascii_case(header.name))
        {
            out.extend_from_slice(name.as_bytes());
            out.extend_from_slice(b": ");
            out.extend_from_slice(header.value);
            out.extend_from_slice(b"\r\n");
        }
    }
}

/// Resolves to the answer once the webhook is durable.
pub struct Ack<G: Ground = Ring> {
    ticket: Ticket<G>,
    desk: usize,
    cells: Arc<IngestCells>,
}

impl<G: Ground> Future for Ack<G> {
    type Output = Reply;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Reply> {
        let durable = ready!(Pin::new(&mut self.ticket).poll(cx));
        let (outcome, reply) = match durable {
            Ok(()) => (WebhookOutcome::Accepted, OK),
            Err(_) => (WebhookOutcome::Unavailable, UNAVAILABLE),
        };
        self.cells.sources[self.desk].webhooks[outcome as usize].add(1);
        Poll::Ready(reply)
    }
}
