//! What the regions do and when: fail, break connections, take their time.

use std::str::FromStr;
use std::time::{Duration, Instant};

use crate::schedule::seconds;
use crate::sink::{Answer, region};

/// One region, or all, for some time: `3@10-20=fail`, `*@5-6=break`, `0@0-60=delay:200ms`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Act {
    /// All, if none.
    region: Option<usize>,
    from: Duration,
    to: Duration,
    answer: Answer,
}

impl FromStr for Act {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = || format!("{text}: expected REGION@FROM-TO=WHAT, such as 3@10-20=fail");
        let (region, rest) = text.split_once('@').ok_or_else(expected)?;
        let (span, what) = rest.split_once('=').ok_or_else(expected)?;
        let (from, to) = span.split_once('-').ok_or_else(expected)?;
        let region = match region {
            "*" => None,
            number => Some(number.parse().map_err(|_| expected())?),
        };
        let answer = match what.split_once(':') {
            None if what == "fail" => Answer::Refused,
            None if what == "break" => Answer::Broken,
            Some(("delay", time)) => Answer::TakenAfter(seconds(time)?),
            _ => return Err(format!("no act {what}; there are: fail, break, delay:200ms")),
        };
        Ok(Self { region, from: seconds(from)?, to: seconds(to)?, answer })
    }
}

/// Acts, and the moment that they count from.
#[derive(Debug, Clone)]
pub struct Script {
    acts: Vec<Act>,
    started: Instant,
}

impl Script {
    /// Starts now.
    pub fn new(acts: Vec<Act>) -> Self {
        Self { acts, started: Instant::now() }
    }

    /// By the first act that is on; taken at once where none is.
    pub fn answer(&self, request: &[u8], now: Instant) -> Answer {
        if self.acts.is_empty() {
            return Answer::Taken;
        }
        let (region, at) = (region(request), now.saturating_duration_since(self.started));
        let on =
            |act: &&Act| (act.region.is_none() || act.region == region) && (act.from..act.to).contains(&at);
        self.acts.iter().find(on).map_or(Answer::Taken, |act| act.answer)
    }

    /// When the last act is over.
    pub fn end(&self) -> Instant {
        self.started + self.acts.iter().map(|act| act.to).max().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_act_is_for_its_region_and_its_time() {
        let acts = ["1@2-4=fail", "*@3-5=delay:200ms", "0@9-10=break"].map(|act| act.parse().unwrap());
        let script = Script::new(acts.into());
        let check = |region: u64, second: u64, expected| {
            let request = format!("POST /region-{region} HTTP/1.1\r\n\r\n");
            let now = script.started + Duration::from_secs(second);
            assert_eq!(script.answer(request.as_bytes(), now), expected, "{region} at {second}");
        };
        let late = Answer::TakenAfter(Duration::from_millis(200));
        check(1, 1, Answer::Taken);
        check(1, 2, Answer::Refused);
        check(1, 3, Answer::Refused);
        check(0, 3, late);
        check(1, 4, late);
        check(1, 5, Answer::Taken);
        check(0, 9, Answer::Broken);
        assert_eq!(script.end() - script.started, Duration::from_secs(10));
    }

    #[test]
    fn what_is_no_act_is_refused() {
        for text in ["1@2-4", "x@2-4=fail", "1@2=fail", "1@2-4=sleep", "1@2-4=delay:x"] {
            assert!(text.parse::<Act>().is_err(), "{text}");
        }
    }
}
