//! The result of one load, for people and for programs.

use hdrhistogram::Histogram;
use serde_json::{Value, json};

use super::ledger::Ledger;
use crate::cpu::Usage;
use crate::generator::Latencies;

pub struct Report {
    pub seconds: u64,
    /// Answered 200 within these seconds.
    pub answered: u64,
    pub latencies: Latencies,
    /// Of the server, where it is known.
    pub cpu: Option<Usage>,
    /// Connections made.
    pub opened: u64,
    pub ledger: Ledger,
}

const QUANTILES: [(&str, f64); 5] =
    [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p999", 0.999), ("most", 1.0)];

impl Report {
    fn rate(&self) -> f64 {
        self.answered as f64 / self.seconds.max(1) as f64
    }

    pub fn text(&self) -> String {
        let mut lines = vec![format!(
            "{:.0} answered 200 a second for {} s over {} connections",
            self.rate(),
            self.seconds,
            self.opened
        )];
        for (name, latency) in [("accepted", &self.latencies.accepted), ("refused", &self.latencies.refused)]
        {
            if !latency.is_empty() {
                let parts = QUANTILES.map(|(name, at)| format!("{name} {:.2}", millis(latency, at)));
                lines.push(format!("{name:8} {} ms, from when each was due", parts.join(", ")));
            }
        }
        if let Some(cpu) = &self.cpu {
            let parts: Vec<_> = cpu
                .threads
                .iter()
                .map(|(name, ns)| (name, self.micros(*ns)))
                .filter(|(_, micros)| *micros >= 0.005)
                .map(|(name, micros)| format!("{name} {micros:.2}"))
                .collect();
            lines.push(format!("cpu      {:.2} us by answer: {}", self.micros(cpu.all()), parts.join(", ")));
        }
        lines.push(self.ledger.text());
        lines.join("\n") + "\n"
    }

    pub fn json(&self) -> Value {
        let latency = |latency: &Histogram<u64>| {
            let mut value = json!({ "count": latency.len() });
            for (name, at) in QUANTILES {
                value[format!("{name}_ms")] = json!(millis(latency, at));
            }
            value
        };
        let cpu = self.cpu.as_ref().map(|cpu| {
            let threads = cpu.threads.iter().map(|(name, ns)| (name.clone(), json!(self.micros(*ns))));
            json!({ "all_us": self.micros(cpu.all()), "threads_us": threads.collect::<serde_json::Map<_, _>>() })
        });
        json!({
            "seconds": self.seconds,
            "rate": self.rate(),
            "connections_made": self.opened,
            "accepted": latency(&self.latencies.accepted),
            "refused": latency(&self.latencies.refused),
            "cpu": cpu,
            "ledger": self.ledger.json(),
        })
    }

    fn micros(&self, ns: u64) -> f64 {
        ns as f64 / 1e3 / self.answered.max(1) as f64
    }
}

fn millis(latency: &Histogram<u64>, quantile: f64) -> f64 {
    latency.value_at_quantile(quantile) as f64 / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn report_says_the_same_to_people_and_programs() {
        let mut accepted = Histogram::new_with_bounds(1, 60_000_000, 3).unwrap();
        let refused = accepted.clone();
        (1..=100).for_each(|millis| accepted.record(millis * 1000).unwrap());
        let threads = [("ingest".to_owned(), 2_000_000)].into();
        let report = Report {
            seconds: 2,
            answered: 100,
            latencies: Latencies { accepted, refused },
            cpu: Some(Usage { threads, ..Usage::default() }),
            opened: 64,
            ledger: Ledger { ok: 100, ..Ledger::default() },
        };
        let (text, json) = (report.text(), report.json());
        assert!(text.starts_with("50 answered 200 a second for 2 s over 64 connections\n"), "{text}");
        assert!(text.contains("20.00 us by answer: ingest 20.00") && !text.contains("refused"), "{text}");
        assert_eq!(json["cpu"]["threads_us"]["ingest"], 20.0);
        assert!((json["accepted"]["p99_ms"].as_f64().unwrap() - 99.0).abs() < 0.1, "{json}");
    }
}
