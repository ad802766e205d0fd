//! The scripts, and what happens to gateway and regions while one runs.

use std::time::Duration;

use anyhow::Context;

/// A file of `loadtest/k6`, and how the driver runs it.
#[derive(Debug)]
pub struct Script {
    /// Of the file, without `.js`.
    pub name: &'static str,
    /// Webhooks a second; what counts as one stands in the script.
    pub rate: u64,
    pub seconds: u64,
    /// The same in the short form, for machines that do other things meanwhile.
    pub short_rate: u64,
    pub plot: Plot,
}

/// Length of every script's short form.
pub const SHORT_SECONDS: u64 = 5;

/// What happens meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plot {
    Quiet,
    /// One region refuses, then breaks connections, and is back.
    Down,
    /// One region takes its time, and then does not any more.
    Slow,
    /// The gateway is stopped in good order and started again, a few times.
    Restarts,
    /// The gateway's memory and files are looked at.
    Watched,
}

/// One thing that happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    Refuse,
    Break,
    Delay,
    Heal,
    Restart,
    /// From here on memory may not grow much.
    Settled,
}

const fn script(name: &'static str, rate: u64, short_rate: u64, plot: Plot) -> Script {
    Script { name, rate, seconds: 60, short_rate, plot }
}

pub const SCRIPTS: [Script; 10] = [
    script("steady", 300, 300, Plot::Quiet),
    // A fifth of the step fits two CPUs that a debug build of the regions and others' programs share.
    script("campaign-step", 3300, 660, Plot::Quiet),
    script("retry-storm", 200, 200, Plot::Quiet),
    script("bad-signatures", 300, 300, Plot::Quiet),
    script("batch-1000", 3, 2, Plot::Quiet),
    script("history-3mb", 1, 1, Plot::Quiet),
    script("region-down", 300, 200, Plot::Down),
    script("slow-region", 300, 300, Plot::Slow),
    script("rolling-restart", 100, 100, Plot::Restarts),
    Script { name: "soak", rate: 300, seconds: 600, short_rate: 300, plot: Plot::Watched },
];

/// `name`, or all of them.
pub fn chosen(name: &str) -> anyhow::Result<&'static [Script]> {
    if name == "all" {
        return Ok(&SCRIPTS);
    }
    let at = SCRIPTS.iter().position(|script| script.name == name).with_context(|| {
        let names: Vec<&str> = SCRIPTS.iter().map(|script| script.name).collect();
        format!("no script {name:?}: expected \"all\" or one of {}", names.join(", "))
    })?;
    Ok(&SCRIPTS[at..=at])
}

/// Restarts are so far apart, and at least two.
const BETWEEN_RESTARTS: u64 = 15;

impl Plot {
    /// What happens when, counted from the first webhook that arrived.
    pub fn acts(self, seconds: u64) -> Vec<(Duration, Act)> {
        let at = |part: f64| Duration::from_secs(seconds).mul_f64(part);
        match self {
            Self::Quiet => Vec::new(),
            Self::Down => vec![(at(0.2), Act::Refuse), (at(0.4), Act::Break), (at(0.55), Act::Heal)],
            Self::Slow => vec![(at(0.2), Act::Delay), (at(0.55), Act::Heal)],
            Self::Restarts => {
                let times = (seconds / BETWEEN_RESTARTS).max(2);
                (0..times).map(|time| (at((time as f64 + 0.5) / times as f64), Act::Restart)).collect()
            }
            Self::Watched => vec![(at(0.25), Act::Settled)],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_is_a_script_and_every_script_a_file() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/k6");
        let mut files: Vec<String> = std::fs::read_dir(folder)
            .unwrap()
            .filter_map(|entry| {
                entry.unwrap().file_name().into_string().unwrap().strip_suffix(".js").map(str::to_owned)
            })
            .collect();
        let mut names = SCRIPTS.map(|script| script.name);
        files.sort();
        names.sort_unstable();
        assert_eq!(files, names);
    }

    #[test]
    fn names_are_found_and_unknown_ones_told() {
        assert_eq!(chosen("all").unwrap().len(), SCRIPTS.len());
        assert_eq!(chosen("soak").unwrap()[0].seconds, 600);
        assert!(
            chosen("sock")
                .unwrap_err()
                .to_string()
                .contains("expected \"all\" or one of steady, campaign-step")
        );
    }

    #[test]
    fn acts_are_in_order_within_the_time_and_end_healthy() {
        for plot in [Plot::Quiet, Plot::Down, Plot::Slow, Plot::Restarts, Plot::Watched] {
            for seconds in [SHORT_SECONDS, 60, 7200] {
                let acts = plot.acts(seconds);
                assert!(acts.is_sorted_by(|one, other| one.0 < other.0), "{plot:?}: {acts:?}");
                assert!(acts.iter().all(|(at, _)| *at < Duration::from_secs(seconds)), "{plot:?}: {acts:?}");
                let fails = acts.iter().any(|(_, act)| matches!(act, Act::Refuse | Act::Break | Act::Delay));
                assert!(!fails || acts.last().unwrap().1 == Act::Heal, "{plot:?}: {acts:?}");
            }
        }
        assert_eq!(Plot::Restarts.acts(60).len(), 4);
    }
}
