//! Where the acts are played: posts a webhook, waits for its parcels, keeps the books, prints the rows.
//!
//! Everything happens on one thread; what the regions tell comes in over one channel. A parcel that
//! is not taken soon gets its row as it stands, and another one when it arrives. A webhook without an
//! answer gets its row too: its sender has to repeat it.

use std::io::Write;
use std::sync::mpsc::{Receiver as Channel, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::Context;

use super::archives::Archives;
use super::events::{digest_of, events_in};
use super::ledger::{Arrived, Balance, Ledger, Posted};
use super::receiver::{Delivery, Mode, Receiver};
use super::screen::{Fate, Row, Screen};
use super::sender::{Outcome, Sender};
use super::stop::Stop;
use super::webhooks::{ACCOUNT, NUMBER, Person, Webhook};
use super::why::why;
use crate::cli::client::ClientError;
use crate::parse::User;

/// How long a row waits for its parcel: a healthy region takes it within a few milliseconds.
const PATIENCE: Duration = Duration::from_millis(250);
/// Of a webhook without an answer: every answer waits for the disk, and a busy one can take many seconds.
const REPEATS: usize = 2;
/// After the last parcel: a double would come now.
const AFTERMATH: Duration = Duration::from_millis(300);

/// The gateway's process, as far as the acts play with it.
pub trait Process {
    /// kill -9; the number of the process that was.
    fn kill(&mut self) -> anyhow::Result<u32>;
    /// The same again, until it takes webhooks.
    fn start_again(&mut self) -> anyhow::Result<()>;
    /// Lets it end by itself: then every object of the archives is closed. An error if it ends badly.
    fn stop(&mut self) -> anyhow::Result<()>;
    /// What it archives to.
    fn archives(&self) -> &Archives;
}

/// The gateway, its both sides and the books.
pub struct Stage<W, P> {
    pub gateway: P,
    pub screen: Screen<W>,
    pub stop: Stop,
    sender: Sender,
    receivers: Vec<Receiver>,
    arrivals: Channel<Delivery>,
    ledger: Ledger,
    /// Parcels under way.
    parcels: Vec<Parcel>,
    answers: Vec<Duration>,
    start: Instant,
    /// 1 = for people, less = for tests.
    pace: f64,
    home: fn(Option<Person<'_>>) -> &'static str,
    /// Labels of what arrived after its row, in the order of arrival.
    caught_up: Vec<String>,
}

/// What one region is to get from one webhook.
#[derive(Debug)]
struct Parcel {
    label: String,
    region: &'static str,
    /// The id of its first event.
    id: String,
    why: String,
    begun: Instant,
    fate: Fate,
    /// Its row is out.
    shown: bool,
}

impl<W: Write, P: Process> Stage<W, P> {
    /// With the regions comes what they tell. `home` is the demo's own word on who belongs where: the gateway
    /// is held against it.
    pub fn new(
        gateway: P,
        screen: Screen<W>,
        sender: Sender,
        (receivers, arrivals): (Vec<Receiver>, Channel<Delivery>),
        home: fn(Option<Person<'_>>) -> &'static str,
        stop: Stop,
        pace: f64,
    ) -> Self {
        let names: Vec<_> = receivers.iter().map(Receiver::name).collect();
        Self {
            ledger: Ledger::new(&names),
            gateway,
            screen,
            stop,
            sender,
            receivers,
            arrivals,
            parcels: Vec::new(),
            answers: Vec::new(),
            start: Instant::now(),
            pace,
            home,
            caught_up: Vec::new(),
        }
    }

    /// Posts a webhook as Meta does, again where no answer comes in time, and shows what becomes of it.
    pub fn send(&mut self, webhook: &Webhook<'_>) -> anyhow::Result<()> {
        let mut outcome = self.sender.post(&webhook.body);
        for _ in 0..REPEATS {
            if !matches!(outcome.error, Some(ClientError::Late { .. })) {
                break;
            }
            self.follow(webhook, outcome, true)?;
            outcome = self.sender.post(&webhook.body);
        }
        if let Some(error) = outcome.error {
            let late = matches!(error, ClientError::Late { .. });
            let why = if late { "every answer waits for the disk: is it busy?" } else { "post a webhook" };
            return Err(anyhow::Error::from(error).context(why));
        }
        self.answers.push(outcome.answered - outcome.begun);
        self.follow(webhook, outcome, true)
    }

    /// Posts a webhook that may stay without an answer: nobody is there, or not any more.
    pub fn send_into_silence(&mut self, webhook: &Webhook<'_>) -> anyhow::Result<()> {
        let outcome = self.sender.post(&webhook.body);
        self.follow(webhook, outcome, true)
    }

    /// Posts a webhook with a wrong signature.
    pub fn forge(&mut self, webhook: &Webhook<'_>) -> anyhow::Result<()> {
        let outcome = self.sender.forge(&webhook.body);
        if let Some(error) = outcome.error {
            return Err(error.into());
        }
        self.follow(webhook, outcome, false)
    }

    /// Changes how a region behaves.
    pub fn set_mode(&self, region: &str, mode: Mode) {
        for receiver in self.receivers.iter().filter(|receiver| receiver.name() == region) {
            receiver.set_mode(mode);
        }
    }

    /// Lets time pass for the reader; what arrives meanwhile is shown.
    pub fn pause(&mut self, duration: Duration) -> anyhow::Result<()> {
        let end = Instant::now() + duration.mul_f64(self.pace);
        self.watch(end, |stage| stage.stop.asked())
    }

    /// Accepted events that have not arrived.
    pub fn waiting(&self) -> usize {
        self.ledger.outstanding()
    }

    /// Labels of what arrived later than it was shown, in the order of arrival.
    pub fn caught_up(&self) -> &[String] {
        &self.caught_up
    }

    pub fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    /// Waits for what is still under way, ends the gateway, then shows the ledger.
    pub fn close(&mut self, limit: Duration) -> anyhow::Result<Balance> {
        for receiver in &self.receivers {
            receiver.set_mode(Mode::Healthy);
        }
        self.watch(Instant::now() + limit, |stage| stage.waiting() == 0 || stage.stop.urgent())?;
        self.watch(Instant::now() + AFTERMATH, |stage| stage.stop.urgent())?;
        let ended = self.gateway.stop();
        while let Ok(delivery) = self.arrivals.try_recv() {
            self.take(&delivery)?;
        }
        for record in self.gateway.archives().records()? {
            self.ledger.archive(record);
        }
        let balance = self.ledger.balance();
        self.answers.sort_unstable();
        let median = self.answers.get(self.answers.len() / 2);
        let answers = median.copied().zip(self.answers.last().copied());
        self.screen.ledger(&balance, answers)?;
        ended?;
        Ok(balance)
    }

    fn follow(&mut self, webhook: &Webhook<'_>, outcome: Outcome, genuine: bool) -> anyhow::Result<()> {
        let took = outcome.answered - outcome.begun;
        let events = events_in(&webhook.body).context("read the webhook that was just made")?;
        let homes = webhook.users.iter().map(|user| (self.home)(*user));
        let mut mine: Vec<Parcel> = Vec::new();
        for ((event, user), region) in events.iter().zip(&webhook.users).zip(homes.clone()) {
            let known = self.ledger.is_known(region, &event.id);
            let same = mine.iter_mut().find(|parcel| parcel.region == region);
            if let Some(parcel) = same {
                if !known && parcel.fate == Fate::Dropped {
                    (parcel.id, parcel.fate) = (event.id.clone(), Fate::Waits);
                }
            } else {
                let user = user.map(|person| User { phone: person.phone, bsuid: person.bsuid });
                mine.push(Parcel {
                    label: webhook.label.clone(),
                    region,
                    id: event.id.clone(),
                    why: why(user.unwrap_or_default(), NUMBER, ACCOUNT),
                    begun: outcome.begun,
                    fate: if known { Fate::Dropped } else { Fate::Waits },
                    shown: false,
                });
            }
        }
        self.ledger.post(Posted {
            events: events.into_iter().zip(homes.map(str::to_owned)).collect(),
            digest: digest_of(&webhook.body),
            genuine,
            status: outcome.status,
            begun: outcome.begun - self.start,
            answered: outcome.answered - self.start,
        });

        let answer = Some((outcome.status, took));
        if outcome.status != 200 {
            let why = match outcome.status {
                0 => "Meta sends again",
                401 => "wrong signature",
                _ => "not accepted",
            };
            let row = Row {
                what: if genuine { webhook.label.clone() } else { format!("{}, forged", webhook.label) },
                answer,
                region: "-".to_owned(),
                why: why.to_owned(),
                fate: Fate::Nothing,
            };
            self.screen.row(&row)?;
            return Ok(());
        }
        let repeats = mine.iter().any(|parcel| parcel.fate == Fate::Dropped);
        self.parcels.append(&mut mine);
        let end = Instant::now() + PATIENCE.mul_f64(self.pace);
        // What must not come is waited for as long as what must.
        self.watch(end, |stage| {
            !repeats && stage.parcels.iter().all(|parcel| parcel.shown || parcel.fate != Fate::Waits)
        })?;
        self.show(answer)
    }

    /// The rows of the webhook that was just sent: the first with the answer, the others below it.
    fn show(&mut self, mut answer: Option<(u16, Duration)>) -> anyhow::Result<()> {
        for parcel in self.parcels.iter_mut().filter(|parcel| !parcel.shown) {
            let answer = answer.take();
            self.screen.row(&Row {
                what: if answer.is_some() { parcel.label.clone() } else { String::new() },
                answer,
                region: parcel.region.to_owned(),
                why: parcel.why.clone(),
                fate: parcel.fate.clone(),
            })?;
            parcel.shown = true;
        }
        self.parcels.retain(|parcel| matches!(parcel.fate, Fate::Waits | Fate::Refused(_)));
        Ok(())
    }

    /// Takes in what the regions tell until `end` or until it is `enough`.
    fn watch(&mut self, end: Instant, enough: impl Fn(&Self) -> bool) -> anyhow::Result<()> {
        /// How soon a Ctrl-C is noticed.
        const LOOK_UP: Duration = Duration::from_millis(20);
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() || enough(self) {
                return Ok(());
            }
            match self.arrivals.recv_timeout(left.min(LOOK_UP)) {
                Ok(delivery) => self.take(&delivery)?,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => anyhow::bail!("the regions have ended"),
            }
        }
    }

    /// One attempt at a region's door.
    fn take(&mut self, delivery: &Delivery) -> anyhow::Result<()> {
        if delivery.answered == 200 {
            self.ledger.arrive(Arrived {
                region: delivery.region.clone(),
                events: delivery.events.clone(),
                digest: delivery.digest,
                signed: delivery.signed,
                announced: delivery.possible_duplicate(),
            });
        }
        let first = self.parcels.iter_mut().find(|parcel| {
            parcel.region == delivery.region && delivery.events.iter().any(|event| event.id == parcel.id)
        });
        let Some(parcel) = first else { return Ok(()) };
        if delivery.answered != 200 {
            parcel.fate = Fate::Refused(delivery.answered);
            return Ok(());
        }
        if matches!(parcel.fate, Fate::Dropped | Fate::Doubled) {
            parcel.fate = Fate::Doubled;
            return Ok(());
        }
        let after = delivery.at.saturating_duration_since(parcel.begun);
        parcel.fate = Fate::Delivered { attempt: delivery.attempt(), after };
        if parcel.shown {
            self.caught_up.push(parcel.label.clone());
            self.screen.row(&Row {
                what: parcel.label.clone(),
                answer: None,
                region: parcel.region.to_owned(),
                why: "caught up".to_owned(),
                fate: parcel.fate.clone(),
            })?;
            self.parcels.retain(|parcel| !matches!(parcel.fate, Fate::Delivered { .. }) || !parcel.shown);
        }
        Ok(())
    }
}
