//! The life of a request, on one page.
//!
//! ```text
//! admit   path > method > media type > is there a signature > can the journal take it   before the body
//! accept  verify > parse > route > journal                                              with the body
//! ticket  durable and handed over > 200                                                 after the commit
//! ```
//!
//! Verify, parse and route of a large webhook would keep its core from all others; they are done beside it ([`offload`]),
//! and its ticket has the journal's part.
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
use crate::entry::name_id;
use crate::fault;
use crate::http1::{Field, RequestHead};
use crate::journal::ground::{Ground, Ring};
use crate::journal::{Journal, Ticket};
use crate::listen::{Answer, Handler, LargeBody, Reply};
use crate::metrics::{IngestCells, WebhookOutcome};
use crate::overload::Guard;

mod judge;
pub mod offload;

use judge::{Arrival, Desk, Judge, Judged, Work};
use offload::{Finding, Offloaded, Post};

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

/// Decides about the requests of one ingest core.
pub struct Intake<G: Ground = Ring> {
    judge: Judge,
    allow_from: Vec<IpNet>,
    trusted_proxies: Vec<IpNet>,
    storing: Rc<Storing<G>>,
    guard: Rc<Guard>,
    work: RefCell<Work>,
    /// Where larger bodies go than so many bytes, if they go anywhere.
    offload: Option<(usize, Rc<Post>)>,
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
        let regions = config.regions.iter().map(|region| name_id(&region.name)).collect();
        Self {
            judge: Judge::new(config, owners),
            allow_from: config.listen.allow_from.clone(),
            trusted_proxies: config.listen.trusted_proxies.clone(),
            storing: Rc::new(Storing { journal, seq, cells, regions }),
            guard,
            work: RefCell::default(),
            offload: None,
        }
    }

    /// Has bodies of more than `large` bytes judged by `post`.
    #[must_use]
    pub fn offloading(self, large: usize, post: Rc<Post>) -> Self {
        Self { offload: Some((large, post)), ..self }
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
        let Some(at) = self.judge.desks.iter().position(|d| d.path == path) else { return Err(NOT_FOUND) };
        let desk = &self.judge.desks[at];
        let refused = |reply| Err(self.storing.answer(at, WebhookOutcome::Refused, reply));
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
            return Err(self.storing.answer(at, WebhookOutcome::BadSignature, UNSIGNED));
        }
        self.guard.count();
        if !self.storing.journal.accepting() {
            return Err(self.storing.answer(at, WebhookOutcome::Unavailable, UNAVAILABLE));
        }
        Ok(Pass { desk: at, client })
    }

    fn accept(&self, pass: Pass, head: &RequestHead<'_>, _peer: SocketAddr, body: &[u8]) -> Answer<Ack<G>> {
        fault::point("body-read");
        let Pass { desk: at, client } = pass;
        let desk = &self.judge.desks[at];
        if head.method == "GET" {
            return Answer::Now(self.handshake(desk, head));
        }
        let arrival = Arrival { desk: at, client, at_ns: now_ns() };
        let headers = |out: &mut Vec<u8>| keep_headers(head, out);
        let mut work = self.work.borrow_mut();
        let judged = self.judge.judge(arrival, signatures(desk, head), headers, body, &mut work);
        let storing = &self.storing;
        let Ok(judged) = judged else { return Answer::Now(storing.refuse_unsigned(at)) };
        let verdict = &work.verdict;
        storing.count_judged(at, &judged, verdict.opaque);
        let seq = storing.seq.fetch_add(1, Relaxed);
        let slots = verdict.regions.len() as u16;
        let write = |out: &mut crate::journal::buffer::AlignedBuf| verdict.write(out);
        match storing.journal.append(seq, slots, judged.owners, verdict.encoded_len(), write, body) {
            Ok(ticket) => {
                fault::point("queued");
                verdict.events.iter().for_each(|event| storing.count_events(at, event.kind.into(), 1));
                storing.count_parcels(&verdict.regions);
                Answer::Later(Ack { step: Step::Stored(ticket), desk: at, storing: Rc::clone(storing) })
            }
            Err(_) => Answer::Now(storing.answer(at, WebhookOutcome::Unavailable, UNAVAILABLE)),
        }
    }

    fn large(&self) -> usize {
        self.offload.as_ref().map_or(usize::MAX, |(large, _)| *large)
    }

    fn accept_large(
        &self,
        pass: Pass,
        head: &RequestHead<'_>,
        peer: SocketAddr,
        body: LargeBody,
    ) -> Answer<Ack<G>> {
        let Pass { desk: at, client } = pass;
        let desk = &self.judge.desks[at];
        let Some((_, post)) = self.offload.as_ref().filter(|_| head.method != "GET") else {
            let mut whole = Vec::new();
            body.copy_to(&mut whole);
            return self.accept(pass, head, peer, &whole);
        };
        fault::point("body-read");
        let arrival = Arrival { desk: at, client, at_ns: now_ns() };
        let signatures = signatures(desk, head).map(<[u8]>::to_vec).collect();
        let mut headers = Vec::new();
        keep_headers(head, &mut headers);
        let storing = Rc::clone(&self.storing);
        match post.send(arrival, signatures, headers, body) {
            Some(offloaded) => {
                storing.cells.sources[at].offloaded.add(1);
                Answer::Later(Ack { step: Step::Offloaded(Box::new(offloaded)), desk: at, storing })
            }
            None => Answer::Now(storing.answer(at, WebhookOutcome::Unavailable, UNAVAILABLE)),
        }
    }
}

/// Values of the headers that a source's signature is in.
fn signatures<'h>(desk: &Desk, head: &'h RequestHead<'_>) -> impl Iterator<Item = &'h [u8]> {
    let wanted = desk.verifier.header();
    head.headers.iter().filter(move |h| h.name.eq_ignore_ascii_case(wanted)).map(|h| h.value)
}

/// Unix nanoseconds.
fn now_ns() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_nanos() as u64)
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

/// Where webhooks of one core go when they are judged, and where they are counted.
struct Storing<G: Ground> {
    journal: Rc<Journal<G>>,
    seq: Arc<AtomicU64>,
    cells: Arc<IngestCells>,
    /// Id of each region.
    regions: Vec<u32>,
}

impl<G: Ground> Storing<G> {
    /// Counts what became of a webhook, and says so.
    fn answer(&self, desk: usize, outcome: WebhookOutcome, reply: Reply) -> Reply {
        self.cells.sources[desk].webhooks[outcome as usize].add(1);
        reply
    }

    fn refuse_unsigned(&self, desk: usize) -> Reply {
        self.answer(desk, WebhookOutcome::BadSignature, UNSIGNED)
    }

    fn count_judged(&self, desk: usize, judged: &Judged, opaque: bool) {
        let counted = &self.cells.sources[desk];
        counted.secret_used[judged.secret.min(counted.secret_used.len() - 1)].add(1);
        if judged.mixed > 0 {
            counted.mixed_elements.add(judged.mixed);
        }
        if opaque {
            counted.unparsed.add(1);
        }
    }

    fn count_events(&self, desk: usize, kind: usize, events: u64) {
        self.cells.sources[desk].events[kind].add(events);
    }

    fn count_parcels(&self, regions: &[u32]) {
        for id in regions {
            if let Some(region) = self.regions.iter().position(|r| r == id) {
                self.cells.parcels[region].add(1);
            }
        }
    }
}

impl<G: Ground> Storing<G>
where
    G::Raw: 'static,
{
    /// Gives a webhook that was judged elsewhere its place in the journal, or refuses it.
    fn store(&self, desk: usize, finding: Finding) -> Result<Ticket<G>, Reply> {
        self.count_judged(desk, &finding.judged, finding.opaque);
        let seq = self.seq.fetch_add(1, Relaxed);
        let Ok(ticket) = self.journal.append_encoded(seq, finding.judged.owners, finding.entry) else {
            return Err(self.answer(desk, WebhookOutcome::Unavailable, UNAVAILABLE));
        };
        fault::point("queued");
        (0..).zip(finding.kinds).for_each(|(kind, events)| self.count_events(desk, kind, events));
        self.count_parcels(&finding.regions);
        Ok(ticket)
    }
}

/// Resolves to the answer once the webhook is durable. Dropped before a large one was judged, that one is not stored.
pub struct Ack<G: Ground = Ring> {
    step: Step<G>,
    desk: usize,
    storing: Rc<Storing<G>>,
}

enum Step<G: Ground> {
    Offloaded(Box<Offloaded>),
    Stored(Ticket<G>),
}

impl<G: Ground> Future for Ack<G>
where
    G::Raw: 'static,
{
    type Output = Reply;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Reply> {
        let desk = self.desk;
        if let Step::Offloaded(offloaded) = &mut self.step {
            let finding = ready!(offloaded.poll(cx));
            let Ok(finding) = finding else { return Poll::Ready(self.storing.refuse_unsigned(desk)) };
            match self.storing.store(desk, *finding) {
                Ok(ticket) => self.step = Step::Stored(ticket),
                Err(reply) => return Poll::Ready(reply),
            }
        }
        // It is stored by now.
        let Step::Stored(ticket) = &mut self.step else { return Poll::Pending };
        let (outcome, reply) = match ready!(Pin::new(ticket).poll(cx)) {
            Ok(()) => (WebhookOutcome::Accepted, OK),
            Err(_) => (WebhookOutcome::Unavailable, UNAVAILABLE),
        };
        Poll::Ready(self.storing.answer(desk, outcome, reply))
    }
}
