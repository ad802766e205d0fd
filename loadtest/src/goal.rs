//! The goal table: what must hold, what is aimed at, what was measured.

use std::fmt::{self, Write};

use serde_json::{Value, json};

use crate::stats::Estimate;

/// On which side of its limits a value must lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    AtMost,
    AtLeast,
}

/// One line of the table.
#[derive(Debug, Clone)]
pub struct Row {
    pub name: String,
    pub side: Side,
    pub must: f64,
    pub aim: f64,
    pub measured: Result<Estimate, Missing>,
}

/// Why a row has no value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Missing {
    /// Nobody asked, or it cannot be had here.
    Unavailable(String),
    /// It went wrong, maybe because webhooks were lost: a goal that is missed.
    Failed(String),
}

impl Missing {
    pub fn why(&self) -> &str {
        match self {
            Self::Unavailable(why) | Self::Failed(why) => why,
        }
    }
}

impl From<anyhow::Error> for Missing {
    fn from(error: anyhow::Error) -> Self {
        let why = format!("{error:#}").replace('\n', "; ");
        if error.is::<Unavailable>() { Self::Unavailable(why) } else { Self::Failed(why) }
    }
}

/// Context of an error that says nothing about the gateway.
#[derive(Debug, Clone, Copy)]
pub struct Unavailable;

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not to be had on this machine")
    }
}

/// Of no values there is no estimate.
pub fn some(estimate: Option<Estimate>) -> Result<Estimate, Missing> {
    estimate.ok_or_else(|| Missing::Unavailable("no values".to_owned()))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Aim,
    Pass,
    Fail,
    NotMeasured,
}

impl Row {
    pub fn at_most(name: &str, must: f64, aim: f64, measured: Result<Estimate, Missing>) -> Self {
        Self { name: name.to_owned(), side: Side::AtMost, must, aim, measured }
    }

    pub fn at_least(name: &str, must: f64, aim: f64, measured: Result<Estimate, Missing>) -> Self {
        Self { name: name.to_owned(), side: Side::AtLeast, must, aim, measured }
    }

    pub fn verdict(&self) -> Verdict {
        match &self.measured {
            Err(Missing::Unavailable(_)) => Verdict::NotMeasured,
            Err(Missing::Failed(_)) => Verdict::Fail,
            Ok(estimate) if self.keeps(estimate.median, self.aim) => Verdict::Aim,
            Ok(estimate) if self.keeps(estimate.median, self.must) => Verdict::Pass,
            Ok(_) => Verdict::Fail,
        }
    }

    /// Whether one end of the interval would be judged otherwise: measure longer, or on a quieter machine.
    pub fn is_unsure(&self) -> bool {
        self.measured
            .as_ref()
            .is_ok_and(|estimate| self.keeps(estimate.low, self.must) != self.keeps(estimate.high, self.must))
    }

    fn keeps(&self, value: f64, limit: f64) -> bool {
        match self.side {
            Side::AtMost => value <= limit,
            Side::AtLeast => value >= limit,
        }
    }

    fn limit(&self, limit: f64) -> String {
        let sign = if self.side == Side::AtMost { "<=" } else { ">=" };
        format!("{sign} {}", number(limit))
    }

    fn result(&self) -> (String, String) {
        let verdict = match self.verdict() {
            Verdict::Aim => "aim reached",
            Verdict::Pass => "pass",
            Verdict::Fail => "FAIL",
            Verdict::NotMeasured => "not measured",
        };
        match &self.measured {
            Ok(estimate) => {
                let unsure = if self.is_unsure() { ", unsure" } else { "" };
                (estimate.text(decimals(estimate.median)), format!("{verdict}{unsure}"))
            }
            Err(missing) => ("-".to_owned(), format!("{verdict}: {}", missing.why())),
        }
    }
}

/// The table for people.
pub fn text(rows: &[Row]) -> String {
    let mut out = String::new();
    let widest = rows.iter().map(|row| row.name.chars().count()).max().unwrap_or(0).max(4);
    let mut line = |name: &str, must: &str, aim: &str, measured: &str, verdict: &str| {
        // A String takes everything.
        writeln!(out, "{name:widest$}  {must:>8}  {aim:>8}  {measured:24}  {verdict}").ok();
    };
    line("goal", "must", "aim", "measured (95 %)", "verdict");
    for row in rows {
        let (measured, verdict) = row.result();
        line(&row.name, &row.limit(row.must), &row.limit(row.aim), &measured, &verdict);
    }
    out
}

/// The same for a program.
pub fn json(rows: &[Row]) -> Value {
    let row = |row: &Row| {
        let measured = row.measured.as_ref().ok();
        json!({
            "name": row.name,
            "side": if row.side == Side::AtMost { "at most" } else { "at least" },
            "must": row.must,
            "aim": row.aim,
            "measured": measured.map(|estimate| estimate.median),
            "low": measured.map(|estimate| estimate.low),
            "high": measured.map(|estimate| estimate.high),
            "sure": measured.map(|estimate| estimate.sure),
            "values": measured.map(|estimate| estimate.values),
            "verdict": match row.verdict() {
                Verdict::Aim => "aim",
                Verdict::Pass => "pass",
                Verdict::Fail => "fail",
                Verdict::NotMeasured => "not measured",
            },
            "unsure": row.is_unsure(),
            "why_not": row.measured.as_ref().err().map(Missing::why),
        })
    };
    rows.iter().map(row).collect()
}

/// How many goals are missed.
pub fn missed(rows: &[Row]) -> usize {
    rows.iter().filter(|row| row.verdict() == Verdict::Fail).count()
}

/// Small ratios need more digits to be told apart.
fn decimals(value: f64) -> usize {
    if value < 1.0 { 3 } else { 2 }
}

fn number(value: f64) -> String {
    format!("{value:.*}", decimals(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(low: f64, median: f64, high: f64) -> Result<Estimate, Missing> {
        Ok(Estimate { median, low, high, sure: 0.99, values: 8 })
    }

    #[test]
    fn verdict_is_by_the_median_and_doubt_by_the_interval() {
        let check = |row: Row, verdict, unsure| {
            assert_eq!((row.verdict(), row.is_unsure()), (verdict, unsure), "{row:?}");
        };
        let at_most = |measured| Row::at_most("cost", 1.5, 1.35, measured);
        check(at_most(measured(1.2, 1.35, 1.4)), Verdict::Aim, false);
        check(at_most(measured(1.4, 1.45, 1.5)), Verdict::Pass, false);
        check(at_most(measured(1.4, 1.49, 1.6)), Verdict::Pass, true);
        check(at_most(measured(1.4, 1.51, 1.6)), Verdict::Fail, true);
        check(at_most(measured(1.6, 1.7, 1.8)), Verdict::Fail, false);
        let at_least = |measured| Row::at_least("size", 6.0, 7.0, measured);
        check(at_least(measured(7.0, 7.0, 7.0)), Verdict::Aim, false);
        check(at_least(measured(6.0, 6.5, 7.0)), Verdict::Pass, false);
        check(at_least(measured(5.0, 5.9, 6.1)), Verdict::Fail, true);
        check(at_least(Err(Missing::Unavailable("no archive".to_owned()))), Verdict::NotMeasured, false);
        check(at_least(Err(Missing::Failed("3 of 4".to_owned()))), Verdict::Fail, false);
    }

    #[test]
    fn what_went_wrong_is_a_miss_and_what_cannot_be_had_is_none() {
        let lost = || anyhow::anyhow!("answered 4 and delivered 3");
        let missing = Missing::from(lost().context("round 1"));
        assert_eq!(missing, Missing::Failed("round 1: answered 4 and delivered 3".to_owned()));
        let missing = Missing::from(anyhow::anyhow!("no perf").context(Unavailable).context("round 1"));
        assert_eq!(missing.why(), "round 1: not to be had on this machine: no perf");
        assert!(matches!(missing, Missing::Unavailable(_)), "{missing:?}");
    }

    #[test]
    fn what_was_not_measured_is_said_and_is_no_miss() {
        let rows = [
            Row::at_most(
                "all-in / Express",
                0.1,
                0.066,
                Err(Missing::Unavailable("npm is not here".to_owned())),
            ),
            Row::at_most("all-in / floor", 3.2, 2.7, measured(3.3, 3.4, 3.5)),
            Row::at_most("all-in / Go", 0.2, 0.12, measured(0.1, 0.111, 0.12)),
        ];
        let text = text(&rows);
        assert!(text.contains("not measured: npm is not here"), "{text}");
        assert!(text.contains("<= 3.20   <= 2.70  3.40 (3.30 to 3.50)       FAIL\n"), "{text}");
        assert!(text.contains("0.111 (0.100 to 0.120)"), "{text}");
        assert_eq!(missed(&rows), 1);
        assert_eq!(json(&rows)[0]["why_not"], "npm is not here");
        assert_eq!(json(&rows)[1]["verdict"], "fail");
    }
}
