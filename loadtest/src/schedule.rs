//! When webhooks are due: evenly or at random (Poisson), at one rate, after a step, or in the storm that follows an
//! outage, when the provider repeats what it could not deliver.

use std::str::FromStr;
use std::time::Duration;

use crate::random::Random;

/// How the rate changes. Rates are webhooks a second.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Shape {
    /// Always `0`; at 0 every answer lets the next webhook go.
    Steady(f64),
    /// From the first to the second rate at once.
    Step { from: f64, to: f64, after: Duration },
    /// Nothing from `after` on for `outage`; then what was held back comes on top of the rate, spread over `over`.
    Storm { rate: f64, after: Duration, outage: Duration, over: Duration },
}

/// The moments of a load.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Schedule {
    pub shape: Shape,
    /// At random, each moment independent of those before; else evenly spaced.
    pub poisson: bool,
    pub seed: u64,
}

impl Schedule {
    /// Evenly spaced; 0 = as fast as answers come.
    pub fn steady(rate: u64) -> Self {
        Self { shape: Shape::Steady(rate as f64), poisson: false, seed: 0 }
    }

    /// The same with the rate `calm` from the start until `after`.
    pub fn stepping(self, calm: u64, after: Duration) -> Self {
        match self.shape {
            Shape::Steady(to) => Self { shape: Shape::Step { from: calm as f64, to, after }, ..self },
            Shape::Step { .. } | Shape::Storm { .. } => self,
        }
    }

    /// One moment after the other, from the start of the load; `None` where nothing waits for its moment.
    pub fn dues(self) -> Option<Dues> {
        if self.shape == Shape::Steady(0.0) {
            return None;
        }
        Some(Dues { schedule: self, random: Random(self.seed), at: 0.0, turn: 0 })
    }

    /// The rate at a moment, and until when there is none if it is 0.
    fn rate(&self, at: f64) -> (f64, f64) {
        match self.shape {
            Shape::Steady(rate) => (rate, 0.0),
            Shape::Step { from, to, after } => {
                let after = after.as_secs_f64();
                (if at < after { from } else { to }, after)
            }
            Shape::Storm { rate, after, outage, over } => {
                let [after, outage, over] = [after, outage, over].map(|part| part.as_secs_f64());
                let again = after + outage;
                if at < after {
                    (rate, 0.0)
                } else if at < again {
                    (0.0, again)
                } else if at < again + over {
                    (rate * (1.0 + outage / over), 0.0)
                } else {
                    (rate, 0.0)
                }
            }
        }
    }
}

/// `even`, `poisson`; with `,step=RATE@5s` or `,storm=30s@10s/60s` behind it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Arrivals {
    poisson: bool,
    change: Option<Change>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Change {
    Step { to: u64, after: Duration },
    Storm { outage: Duration, after: Duration, over: Duration },
}

impl Arrivals {
    /// At `rate` before anything changes.
    pub fn at(self, rate: u64, seed: u64) -> Schedule {
        let rate = rate as f64;
        let shape = match self.change {
            None => Shape::Steady(rate),
            Some(Change::Step { to, after }) => Shape::Step { from: rate, to: to as f64, after },
            Some(Change::Storm { outage, after, over }) => Shape::Storm { rate, after, outage, over },
        };
        Schedule { shape, poisson: self.poisson, seed }
    }
}

impl FromStr for Arrivals {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (spacing, change) = text.split_once(',').map_or((text, None), |(a, b)| (a, Some(b)));
        let poisson = match spacing {
            "even" => false,
            "poisson" => true,
            _ => return Err(format!("no arrivals {spacing}; there are: even, poisson")),
        };
        let change = change.map(|change| {
            let expected = || format!("{change}: expected step=RATE@5s or storm=30s@10s/60s");
            let (kind, rest) = change.split_once('=').ok_or_else(expected)?;
            let (what, when) = rest.split_once('@').ok_or_else(expected)?;
            match kind {
                "step" => {
                    let to = what.parse().map_err(|_| expected())?;
                    Ok(Change::Step { to, after: seconds(when)? })
                }
                "storm" => {
                    let (after, over) = when.split_once('/').ok_or_else(expected)?;
                    let over = seconds(over)?;
                    if over.is_zero() {
                        return Err(expected());
                    }
                    Ok(Change::Storm { outage: seconds(what)?, after: seconds(after)?, over })
                }
                _ => Err(expected()),
            }
        });
        Ok(Self { poisson, change: change.transpose()? })
    }
}

/// `30s`, `1.5s` or `200ms`.
pub fn seconds(text: &str) -> Result<Duration, String> {
    let (number, unit) = match text.strip_suffix("ms") {
        Some(number) => (number, 1e-3),
        None => (text.strip_suffix('s').unwrap_or(text), 1.0),
    };
    let value = number.parse::<f64>().ok().map(|value| value * unit);
    value
        .filter(|value| (0.0..1e6).contains(value))
        .map(Duration::from_secs_f64)
        .ok_or_else(|| format!("{text} is no time; expected such as 30s or 200ms"))
}

/// The moments, without end.
#[derive(Debug, Clone)]
pub struct Dues {
    schedule: Schedule,
    random: Random,
    at: f64,
    turn: u64,
}

impl Iterator for Dues {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        // Without a sum of rounded gaps: evenly spaced webhooks stay in step with whoever counts by the rate.
        if let (Shape::Steady(rate), false) = (self.schedule.shape, self.schedule.poisson) {
            let due = Duration::from_secs_f64(self.turn as f64 / rate);
            self.turn += 1;
            return Some(due);
        }
        let (mut rate, until) = self.schedule.rate(self.at);
        if rate <= 0.0 {
            // A step from nothing, or an outage; a rate that is 0 for good ends the load.
            if until <= self.at {
                return None;
            }
            self.at = until;
            rate = self.schedule.rate(until).0;
            if rate <= 0.0 {
                return None;
            }
        }
        let due = Duration::from_secs_f64(self.at);
        self.at += if self.schedule.poisson { self.random.gap() } else { 1.0 } / rate;
        Some(due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many are due in each second.
    fn by_second(text: &str, rate: u64, seconds: usize) -> Vec<usize> {
        let mut counts = vec![0; seconds];
        let dues = text.parse::<Arrivals>().unwrap().at(rate, 9).dues().unwrap();
        for due in dues.take_while(|due| due.as_secs() < seconds as u64) {
            counts[due.as_secs() as usize] += 1;
        }
        counts
    }

    #[test]
    fn even_arrivals_come_at_their_rate() {
        assert_eq!(by_second("even", 1000, 3), [1000; 3]);
        assert_eq!(Schedule::steady(0).dues().map(|_| ()), None, "no rate is a closed loop");
    }

    #[test]
    fn random_arrivals_have_the_rate_and_scatter_of_poisson() {
        let counts = by_second("poisson", 1000, 200);
        let mean = counts.iter().sum::<usize>() as f64 / 200.0;
        let variance = counts.iter().map(|n| (*n as f64 - mean).powi(2)).sum::<f64>() / 200.0;
        assert!((mean - 1000.0).abs() < 10.0, "{mean}");
        assert!((variance / mean - 1.0).abs() < 0.3, "{variance}");
        assert_eq!(by_second("poisson", 100, 5), by_second("poisson", 100, 5), "a seed is a load");
    }

    #[test]
    fn step_comes_at_once() {
        assert_eq!(by_second("even,step=3000@2s", 100, 4), [100, 100, 3000, 3000]);
        assert_eq!(by_second("even,step=50@1s", 0, 3), [0, 50, 50]);
    }

    #[test]
    fn storm_brings_what_the_outage_held_back() {
        let counts = by_second("even,storm=4s@2s/8s", 100, 20);
        assert_eq!(counts[..2], [100, 100]);
        assert_eq!(counts[2..6], [0; 4]);
        assert!(counts[6..14].iter().all(|count| (149..=151).contains(count)), "{counts:?}");
        let all: usize = counts.iter().sum();
        assert!((1995..=2005).contains(&all), "nothing is left out: {all}");
    }

    #[test]
    fn what_is_no_schedule_is_refused() {
        for text in ["odd", "even,step=5", "even,storm=1s@2s", "poisson,storm=1s@2s/0s", "even,step=x@1s"] {
            assert!(text.parse::<Arrivals>().is_err(), "{text}");
        }
        assert_eq!(seconds("200ms"), Ok(Duration::from_millis(200)));
        assert!(seconds("-1s").is_err());
    }
}
