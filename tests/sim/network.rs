//! The regions, as they are: up, gone, refusing, silent, half broken, slow; with conversations that they
//! never take.

use std::cell::RefCell;
use std::collections::HashSet;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use monoio_http::common::request::RequestHead;
use penstock::forward::attempt::Hand;
use penstock::forward::client::{Attempt, Fault, Outcome};

use super::exec;
use super::ground::Machine;
use super::truth::{REGIONS, Truth};

/// Of one attempt.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(15);

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Mode {
    Up,
    /// Nobody listens.
    Gone,
    /// Answers that to everything.
    Says(u16),
    /// Of a hundred requests so many get that answer.
    Brown(u64, u16),
    /// No answer; of two it takes one.
    Silent,
    /// Answers late, some of it too late.
    Slow,
}

#[derive(Debug)]
pub(crate) struct Network {
    pub(crate) truth: Rc<Truth>,
    modes: RefCell<[Mode; REGIONS.len()]>,
    /// Regions that are up take their time: what piled up goes slowly, and traffic goes on meanwhile.
    leisurely: bool,
    /// Conversations that are refused for ever, and how.
    pub(crate) poison: RefCell<HashSet<u32>>,
    poison_status: u16,
}

impl Network {
    pub(crate) fn new(truth: Rc<Truth>, poison_status: u16, leisurely: bool) -> Self {
        Self {
            truth,
            modes: RefCell::new([Mode::Up; REGIONS.len()]),
            leisurely,
            poison: RefCell::default(),
            poison_status,
        }
    }

    pub(crate) fn set(&self, region: usize, mode: Mode) {
        self.truth.note(format_args!("region {region} {mode:?}"));
        self.modes.borrow_mut()[region] = mode;
    }
}

/// The way to one region.
pub(crate) struct Line {
    pub(crate) machine: Machine,
    pub(crate) network: Rc<Network>,
    pub(crate) region: usize,
}

const fn answered(status: u16) -> Attempt {
    Attempt { outcome: Outcome::Answered { status, retry_after: None }, sent_bytes: false, opened: 0 }
}

impl Line {
    async fn attempt(&self, id: String, flagged: bool, gap: u32, body: Bytes) -> Attempt {
        let Self { machine, network, region } = self;
        let region = *region;
        let mode = || network.modes.borrow()[region];
        if mode() == Mode::Gone {
            machine.exec.sleep(Duration::from_micros(200)).await;
            let fault = Fault::Connect(std::io::ErrorKind::ConnectionRefused);
            return Attempt { outcome: Outcome::Connection(fault), sent_bytes: false, opened: 1 };
        }
        machine.exec.sleep(Duration::from_micros(100 + machine.below(2000))).await;
        let events = super::truth::events_of(&body);
        let truth = &network.truth;
        let poisoned =
            events.iter().any(|event| network.poison.borrow().contains(&truth.event(*event).conversation));
        let take = || {
            let taken = truth.takes(region, &id, flagged, gap, &body);
            truth.note(format_args!("region {region} takes {taken:?} flagged {flagged}"));
        };
        let refuse = |status: u16| {
            truth.note(format_args!("region {region} answers {status} to {events:?}"));
            status
        };
        let late = Duration::from_micros(100 + machine.below(3000));
        match mode() {
            Mode::Gone => {
                // It went while the request was on its way.
                let fault = Fault::Connect(std::io::ErrorKind::ConnectionReset);
                return Attempt { outcome: Outcome::Connection(fault), sent_bytes: true, opened: 0 };
            }
            Mode::Silent => {
                if !poisoned && machine.one_in(2) {
                    take();
                }
                machine.exec.sleep(TIMEOUT).await;
                return Attempt { outcome: Outcome::Timeout, sent_bytes: true, opened: 0 };
            }
            Mode::Says(status) => {
                // It restarts: what a connection took that then was lost went out once more, and got this answer.
                let lost = !poisoned && status >= 500 && machine.one_in(16);
                if lost {
                    take();
                }
                machine.exec.sleep(late).await;
                return Attempt { sent_bytes: lost, ..answered(refuse(status)) };
            }
            Mode::Brown(share, status) if machine.below(100) < share => {
                machine.exec.sleep(late).await;
                return answered(refuse(status));
            }
            Mode::Slow if !poisoned => {
                take();
                if machine.one_in(4) {
                    machine.exec.sleep(TIMEOUT).await;
                    return Attempt { outcome: Outcome::Timeout, sent_bytes: true, opened: 0 };
                }
                machine.exec.sleep(Duration::from_millis(500 + machine.below(8000))).await;
            }
            _ if poisoned => {
                machine.exec.sleep(late).await;
                return answered(refuse(network.poison_status));
            }
            _ => {
                take();
                let leisure = if network.leisurely { 20 + machine.below(1000) } else { 0 };
                machine.exec.sleep(late + Duration::from_millis(leisure)).await;
            }
        }
        truth.told(&events);
        answered(200)
    }
}

impl Hand for Line {
    async fn send(&self, head: &mut RequestHead, body: Bytes, _start: Instant) -> (Attempt, Instant) {
        let text = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok());
        let id = text("webhook-id").unwrap_or_default().to_owned();
        let flagged = text("penstock-possible-duplicate") == Some("true");
        let gap = text("penstock-gap-before").map_or(0, |count| count.parse().expect("a number"));
        let attempt = self.attempt(id, flagged, gap, body).await;
        (attempt, exec::now())
    }
}
