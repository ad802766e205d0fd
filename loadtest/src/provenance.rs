//! Where a result comes from: command, day and host, at the head of what is saved.

use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

#[derive(Debug, Clone)]
pub struct Provenance {
    command: String,
    /// Seconds of Unix time.
    at: u64,
    host: String,
}

impl Provenance {
    pub fn now() -> Self {
        let command = std::env::args().collect::<Vec<_>>().join(" ");
        let at = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |at| at.as_secs());
        Self { command, at, host: host() }
    }

    /// `2026-11-27`, UTC.
    pub fn date(&self) -> String {
        date(self.at)
    }

    pub fn text(&self) -> String {
        format!("# {}\n# {}, {}\n", self.command, self.date(), self.host)
    }

    pub fn json(&self) -> Value {
        json!({ "command": self.command, "date": self.date(), "host": self.host })
    }
}

fn host() -> String {
    let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    let model = model.map_or("unknown CPU", |(_, name)| name.trim());
    let count = cpus.lines().filter(|line| line.starts_with("processor")).count();
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("{count} CPUs ({model}), Linux {}", kernel.trim())
}

/// The day in the Gregorian calendar, by the way of Howard Hinnant's `civil_from_days`.
fn date(at: u64) -> String {
    let days = at / 86_400 + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    format!("{:04}-{month:02}-{day:02}", era * 400 + year + next)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_those_of_the_calendar() {
        let check = |at, expected| assert_eq!(date(at), expected);
        check(0, "1970-01-01");
        check(951_782_400, "2000-02-29");
        check(1_795_823_999, "2026-11-27");
        check(1_795_824_000, "2026-11-28");
    }

    #[test]
    fn head_says_command_and_host() {
        let text = Provenance::now().text();
        assert!(text.starts_with("# ") && text.contains("Linux "), "{text}");
    }
}
