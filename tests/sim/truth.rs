//! What really happened, kept apart from all that the product believes: what was sent, what was answered,
//! what a region took; and whether that is right.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::rc::Rc;
use std::time::Duration;

use super::exec::elapsed;
use super::letters::Letters;

/// Regions, with the prefix of the phones that lead there.
pub(crate) const REGIONS: [(&str, &str); 3] = [("us", "1555"), ("in", "9198"), ("br", "5511")];

/// After a delivery it may take so long until a crash can no longer cause a repeat: keys wait 40 ms for
/// their sync, marks 100 ms for theirs, and both syncs take their time.
const UNMARKED: Duration = Duration::from_millis(1500);

#[derive(Debug, Clone, Default)]
pub(crate) struct Event {
    pub(crate) conversation: u32,
    /// Steps: sent for the first time, answered 200 for the first time.
    first_sent: Option<u64>,
    acked: Option<u64>,
    since: Duration,
    pub(crate) taken: u32,
    /// Of the parcel it was taken with first.
    id: u64,
    /// Known to the gateway as delivered, since when.
    told: Option<Duration>,
    /// Two webhooks with it were under way at once: over a crash the other one may come first.
    overlap: bool,
    /// It may be taken once more.
    may_repeat: bool,
    /// In a dead letter, or dropped with one.
    pub(crate) dead: bool,
}

#[derive(Debug)]
pub(crate) struct Webhook {
    pub(crate) events: Vec<u32>,
    pub(crate) body: Rc<[u8]>,
    /// How often it was sent, and answered 200.
    pub(crate) sent: u32,
    pub(crate) acked: u32,
    last_sent: Duration,
}

#[derive(Debug, Default)]
pub(crate) struct Truth(RefCell<State>);

#[derive(Debug, Default)]
struct State {
    steps: u64,
    events: Vec<Event>,
    webhooks: Vec<Webhook>,
    /// Events in the order in which they were made.
    conversations: HashMap<u32, Vec<u32>>,
    repeats: u64,
    /// Taken again, and rightly: the window was over.
    lapsed: u64,
    takes: u64,
    violations: Vec<String>,
    /// Told in the log when asked for.
    trace: u64,
    loud: bool,
    /// Repeats that no crash explains are no violation: something of the memory was taken away.
    forgetful: bool,
    /// How long repeats are repeats, if worlds last longer.
    window: Option<Duration>,
    /// The disk is full or slow, or was last then: what is settled waits longer for being written.
    in_trouble: bool,
    last_trouble: Duration,
    /// Conversations that their region never takes.
    poison: HashSet<u32>,
    letters: Letters,
    /// Bits were flipped.
    damage: bool,
    reported_lost: u64,
}

/// What a region looks up in a body.
pub(crate) fn element(event: u32, conversation: u32) -> String {
    let phone = phone(conversation);
    format!(
        "{{\"from\":\"{phone}\",\"id\":\"wamid.{event:08}\",\"timestamp\":\"17893872{:02}\",\"type\":\"text\",\
         \"text\":{{\"body\":\"n {event} of {conversation}\"}}}}",
        event % 100
    )
}

pub(crate) fn phone(conversation: u32) -> String {
    format!("{}{conversation:07}", REGIONS[region_of(conversation)].1)
}

pub(crate) fn region_of(conversation: u32) -> usize {
    conversation as usize % REGIONS.len()
}

/// A webhook as the provider makes it: one change for each event.
fn body(number: usize, events: &[(u32, u32)], padding: usize) -> Vec<u8> {
    let mut out = format!(
        "{{\"object\":\"whatsapp_business_account\",\"entry\":[{{\"id\":\"hook.{number:08}\",\"changes\":["
    );
    for (at, (event, conversation)) in events.iter().enumerate() {
        if at > 0 {
            out.push(',');
        }
        out.push_str("{\"field\":\"messages\",\"value\":{\"messaging_product\":\"whatsapp\",\"metadata\":{\"display_phone_number\":\"15550001\",\"phone_number_id\":\"106500000000101\"},\"messages\":[");
        out.push_str(&element(*event, *conversation));
        out.push_str("]}}");
    }
    out.push_str("]}]");
    if padding > 0 {
        out.push_str(",\"padding\":\"");
        out.extend(std::iter::repeat_n('x', padding));
        out.push('"');
    }
    out.push('}');
    out.into_bytes()
}

impl Truth {
    pub(crate) fn new(loud: bool) -> Self {
        Self(RefCell::new(State { loud, trace: 0xcbf2_9ce4_8422_2325, ..State::default() }))
    }

    /// Into the trace of the run: the same from the same seed.
    pub(crate) fn note(&self, what: std::fmt::Arguments<'_>) {
        let mut state = self.0.borrow_mut();
        let text = format!("{:>12?} {what}", elapsed());
        if state.loud {
            println!("{text}");
        }
        let hash = text.bytes().fold(state.trace, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
        state.trace = hash;
    }

    pub(crate) fn trace(&self) -> u64 {
        self.0.borrow().trace
    }

    pub(crate) fn wrong(&self, what: String) {
        self.note(format_args!("VIOLATION {what}"));
        self.0.borrow_mut().violations.push(what);
    }

    pub(crate) fn violations(&self) -> Vec<String> {
        self.0.borrow().violations.clone()
    }

    /// The disk is in trouble from now on, or is not.
    pub(crate) fn trouble(&self, is: bool) {
        let mut state = self.0.borrow_mut();
        if state.in_trouble {
            state.last_trouble = elapsed();
        }
        state.in_trouble = is;
    }

    /// Bits of what was durable turn over: what recovery reports may be missing, and its marks too.
    pub(crate) fn damage(&self) {
        let mut state = self.0.borrow_mut();
        (state.damage, state.forgetful) = (true, true);
    }

    pub(crate) fn is_damaged(&self) -> bool {
        self.0.borrow().damage
    }

    /// Records that recovery called lost.
    pub(crate) fn reported_lost(&self) -> u64 {
        self.0.borrow().reported_lost
    }

    /// How long the gateway is to remember what came.
    pub(crate) fn remembers(&self, window: Duration) {
        self.0.borrow_mut().window = Some(window);
    }

    pub(crate) fn new_event(&self, conversation: u32) -> u32 {
        let mut state = self.0.borrow_mut();
        let number = state.events.len() as u32;
        state.events.push(Event { conversation, ..Event::default() });
        state.conversations.entry(conversation).or_default().push(number);
        number
    }

    pub(crate) fn new_webhook(&self, events: Vec<u32>, padding: usize) -> usize {
        let mut state = self.0.borrow_mut();
        let number = state.webhooks.len();
        let named: Vec<(u32, u32)> =
            events.iter().map(|event| (*event, state.events[*event as usize].conversation)).collect();
        let body = body(number, &named, padding).into();
        state.webhooks.push(Webhook { events, body, sent: 0, acked: 0, last_sent: Duration::ZERO });
        number
    }

    pub(crate) fn webhook<T>(&self, number: usize, read: impl FnOnce(&Webhook) -> T) -> T {
        read(&self.0.borrow().webhooks[number])
    }

    pub(crate) fn webhooks(&self) -> usize {
        self.0.borrow().webhooks.len()
    }

    pub(crate) fn event(&self, number: u32) -> Event {
        self.0.borrow().events[number as usize].clone()
    }

    /// It reached the gateway.
    pub(crate) fn sent(&self, number: usize) {
        let mut state = self.0.borrow_mut();
        state.steps += 1;
        let step = state.steps;
        let State { events, webhooks, .. } = &mut *state;
        webhooks[number].sent += 1;
        webhooks[number].last_sent = elapsed();
        for event in &webhooks[number].events {
            let event = &mut events[*event as usize];
            event.overlap |= event.first_sent.is_some() && event.acked.is_none();
            if event.first_sent.is_none() {
                (event.first_sent, event.since) = (Some(step), elapsed());
            }
        }
    }

    /// It was answered 200.
    pub(crate) fn acked(&self, number: usize) {
        let mut state = self.0.borrow_mut();
        state.steps += 1;
        let step = state.steps;
        let State { events, webhooks, .. } = &mut *state;
        webhooks[number].acked += 1;
        for event in &webhooks[number].events {
            events[*event as usize].acked.get_or_insert(step);
        }
    }

    /// A region takes a parcel: the numbers of its events, or what is wrong with it.
    pub(crate) fn takes(&self, region: usize, id: &str, flagged: bool, gap: u32, body: &[u8]) -> Vec<u32> {
        let found = events_of(body);
        // A part has the id of its parcel and a number, and after a crash the parcel is whole again.
        let parcel =
            id.rsplit_once('_').filter(|(before, _)| before.contains('_')).map_or(id, |(before, _)| before);
        let hash = parcel.bytes().fold(7u64, |h, b| h.wrapping_mul(31).wrapping_add(u64::from(b)));
        let mut wrong = Vec::new();
        {
            let mut state = self.0.borrow_mut();
            let state = &mut *state;
            state.takes += 1;
            let Some(number) = number_after(body, b"\"id\":\"hook.").map(|n| n as usize) else {
                drop(found);
                self.0.borrow_mut().violations.push("I2: a body of nobody's".to_owned());
                return Vec::new();
            };
            let Some(webhook) = state.webhooks.get(number) else { return Vec::new() };
            if found.len() == webhook.events.len() && *webhook.body != *body {
                wrong.push(format!("I2: webhook {number} was altered"));
            }
            if found.is_empty() {
                wrong.push(format!("I2: webhook {number} without events in {region}"));
            }
            let known = found.iter().filter_map(|event| state.events.get(*event as usize));
            let conversations: BTreeSet<u32> = known.map(|event| event.conversation).collect();
            let letter = state.letters.takes(number, &found);
            if letter && !state.letters.replaying && !state.forgetful {
                wrong.push(format!("I5: {found:?} are dead letters, and go out though nobody asked"));
            }
            if !letter
                && let Some(what) = state.letters.told(&conversations, gap)
                && !state.damage
            {
                wrong.push(format!("I10: {found:?}: {what}"));
            }
            let mut places = webhook.events.iter();
            for event in &found {
                if !places.any(|other| other == event) {
                    wrong.push(format!("I2: event {event} is not in webhook {number}, or not there"));
                    continue;
                }
                let truth = &state.events[*event as usize];
                let text = element(*event, truth.conversation);
                if region_of(truth.conversation) != region {
                    wrong.push(format!("I2: event {event} went to region {region}"));
                }
                if !contains(body, text.as_bytes()) {
                    wrong.push(format!("I2: event {event} was altered"));
                }
                let lapsed = state.window.is_some_and(|window| webhook.last_sent > truth.since + window);
                if truth.taken > 0 && lapsed {
                    state.lapsed += 1;
                } else if truth.taken > 0 {
                    state.repeats += 1;
                    // With a damaged record goes what it says about an unfinished delivery.
                    if !flagged && !state.damage {
                        wrong.push(format!("I5: event {event} again and not flagged"));
                    }
                    if truth.id != hash && !truth.overlap && !state.forgetful {
                        wrong.push(format!("I5: event {event} again with another id"));
                    }
                    if !truth.may_repeat && !state.forgetful {
                        wrong.push(format!("I5: event {event} again for no reason"));
                    }
                } else {
                    // Whatever was answered before it came is there already.
                    let came = truth.first_sent.unwrap_or(u64::MAX);
                    for other in &state.conversations[&truth.conversation] {
                        let before = &state.events[*other as usize];
                        let owed = before.taken == 0 && !before.dead && !state.damage;
                        if owed && before.acked.is_some_and(|acked| acked < came) && !found.contains(other) {
                            wrong.push(format!("I4: event {event} before {other} of its conversation"));
                        }
                    }
                }
                let truth = &mut state.events[*event as usize];
                truth.taken += 1;
                truth.id = hash;
                // Until the gateway knows, it may come again.
                truth.may_repeat = true;
                truth.told = None;
            }
        }
        wrong.into_iter().for_each(|what| self.wrong(what));
        found
    }

    /// The gateway has the region's answer.
    pub(crate) fn told(&self, events: &[u32]) {
        let mut state = self.0.borrow_mut();
        for event in events {
            let event = &mut state.events[*event as usize];
            event.told = Some(elapsed());
            event.may_repeat = false;
        }
    }

    /// The process ends here, and with it what it knew and had not written.
    pub(crate) fn crashed(&self) {
        let mut state = self.0.borrow_mut();
        let trouble = if state.in_trouble { elapsed() } else { state.last_trouble };
        for event in state.events.iter_mut().filter(|event| event.taken > 0) {
            event.may_repeat |=
                event.told.is_none_or(|told| elapsed() - told < UNMARKED || told < trouble + UNMARKED);
        }
    }

    /// Recovery said that records are damaged: so many webhooks may be missing from now on.
    pub(crate) fn damaged(&self, lost: &[penstock::journal::recover::Lost]) {
        let count: u64 = lost.iter().map(|lost| (lost.last_lsn + 1).saturating_sub(lost.first_lsn)).sum();
        let mut state = self.0.borrow_mut();
        state.reported_lost += count;
        if count > 0 && !state.damage {
            state.violations.push(format!("I2: {count} records called damaged, and nobody damaged them"));
        }
    }

    /// These are given up: right only if the region never takes them.
    pub(crate) fn dies(&self, events: &[u32]) {
        let mut wrong = Vec::new();
        {
            let mut state = self.0.borrow_mut();
            let state = &mut *state;
            for event in events {
                let truth = &mut state.events[*event as usize];
                truth.dead = true;
                if !state.poison.contains(&truth.conversation) {
                    wrong.push(format!("I10: event {event} was given up and is no poison"));
                }
            }
        }
        wrong.into_iter().for_each(|what| self.wrong(what));
    }

    pub(crate) fn letters<T>(&self, with: impl FnOnce(&mut Letters) -> T) -> T {
        with(&mut self.0.borrow_mut().letters)
    }

    pub(crate) fn poison(&self, conversation: u32) {
        self.0.borrow_mut().poison.insert(conversation);
    }

    /// What is still owed: answered 200 and neither taken nor given up.
    pub(crate) fn owed(&self) -> Vec<u32> {
        let state = self.0.borrow();
        let owed = |event: &&Event| event.acked.is_some() && event.taken == 0 && !event.dead;
        (0u32..).zip(&state.events).filter(|(_, event)| owed(event)).map(|(number, _)| number).collect()
    }

    pub(crate) fn counts(&self) -> (u64, u64, u64, u64) {
        let state = self.0.borrow();
        let acked = state.events.iter().filter(|event| event.acked.is_some()).count() as u64;
        (state.events.len() as u64, acked, state.takes, state.repeats)
    }
}

fn contains(body: &[u8], text: &[u8]) -> bool {
    memchr::memmem::find(body, text).is_some()
}

pub(crate) fn number_after(body: &[u8], mark: &[u8]) -> Option<u64> {
    let at = memchr::memmem::find(body, mark)? + mark.len();
    std::str::from_utf8(body.get(at..at + 8)?).ok()?.parse().ok()
}

/// The events that a body names, in its order.
pub(crate) fn events_of(body: &[u8]) -> Vec<u32> {
    const MARK: &[u8] = b"\"id\":\"wamid.";
    let mut found = Vec::new();
    let mut rest = body;
    while let Some(at) = memchr::memmem::find(rest, MARK) {
        rest = &rest[at..];
        found.extend(number_after(rest, MARK).map(|number| number as u32));
        rest = &rest[MARK.len()..];
    }
    found
}
