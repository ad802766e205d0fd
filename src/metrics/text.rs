//! The Prometheus text format, version 0.0.4, written by hand: three kinds of lines and one escape rule.
//!
//! A client library would bring its own counters, locks and registry for what is sixty lines here, and
//! the fixed names of the metrics would not stand in the source as operators type them.

use std::fmt::{Display, Write};

use super::{BUCKETS, Histogram};

/// What a scrape is answered with.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Label names and values of one sample.
type Labels<'a> = &'a [(&'a str, &'a str)];

/// A page under construction. Families come in the order they are opened.
#[derive(Debug, Default)]
pub(super) struct Page {
    out: String,
}

impl Page {
    /// Opens a family of numbers that only grow; `name` ends in `_total`.
    pub(super) fn counter(&mut self, name: &'static str, help: &'static str) -> Family<'_> {
        self.family(name, "counter", help)
    }

    /// Opens a family of numbers that go up and down.
    pub(super) fn gauge(&mut self, name: &'static str, help: &'static str) -> Family<'_> {
        self.family(name, "gauge", help)
    }

    /// Opens a family of distributions; `name` ends in `_seconds`.
    pub(super) fn histogram(&mut self, name: &'static str, help: &'static str) -> Family<'_> {
        self.family(name, "histogram", help)
    }

    pub(super) fn finish(self) -> String {
        self.out
    }

    fn family(&mut self, name: &'static str, kind: &str, help: &'static str) -> Family<'_> {
        push(&mut self.out, format_args!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
        Family { out: &mut self.out, name }
    }
}

/// One metric and its samples.
#[derive(Debug)]
pub(super) struct Family<'a> {
    out: &'a mut String,
    name: &'static str,
}

impl Family<'_> {
    pub(super) fn sample(&mut self, labels: Labels<'_>, value: impl Display) {
        self.line("", labels, None, value);
    }

    /// The sum of `parts`: one distribution per core becomes one of the process.
    pub(super) fn distribution<'h>(
        &mut self,
        labels: Labels<'_>,
        parts: impl Iterator<Item = &'h Histogram>,
    ) {
        let (mut buckets, mut sum_ns) = ([0_u64; BUCKETS.len() + 1], 0_u64);
        for part in parts {
            let (counts, ns) = part.read();
            buckets.iter_mut().zip(counts).for_each(|(all, one)| *all += one);
            sum_ns = sum_ns.wrapping_add(ns);
        }
        let mut below = 0;
        for (count, bound) in buckets.iter().zip(BUCKETS) {
            below += count;
            self.line("_bucket", labels, Some(&bound), below);
        }
        let count = below + buckets[BUCKETS.len()];
        self.line("_bucket", labels, Some(&"+Inf"), count);
        self.line("_sum", labels, None, sum_ns as f64 / 1e9);
        self.line("_count", labels, None, count);
    }

    fn line(&mut self, suffix: &str, labels: Labels<'_>, le: Option<&dyn Display>, value: impl Display) {
        push(self.out, format_args!("{}{suffix}", self.name));
        let mut open = '{';
        for (name, value) in labels {
            push(self.out, format_args!("{open}{name}=\"{}\"", Escaped(value)));
            open = ',';
        }
        if let Some(bound) = le {
            push(self.out, format_args!("{open}le=\"{bound}\""));
            open = ',';
        }
        if open == ',' {
            self.out.push('}');
        }
        push(self.out, format_args!(" {value}\n"));
    }
}

/// A label value as the format wants it: names of sources and regions are the operator's, so any byte may come.
struct Escaped<'a>(&'a str);

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for c in self.0.chars() {
            match c {
                '\\' => f.write_str("\\\\")?,
                '"' => f.write_str("\\\"")?,
                '\n' => f.write_str("\\n")?,
                other => f.write_char(other)?,
            }
        }
        Ok(())
    }
}

fn push(out: &mut String, text: std::fmt::Arguments<'_>) {
    // A String takes everything; only the trait's signature knows an error.
    out.write_fmt(text).ok();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sample_line_is_what_the_format_asks_for() {
        fn check(labels: Labels<'_>, expected: &str) {
            let mut page = Page::default();
            page.counter("a_total", "Help.").sample(labels, 7);
            let text = page.finish();
            assert_eq!(text, format!("# HELP a_total Help.\n# TYPE a_total counter\n{expected}\n"));
        }
        check(&[], "a_total 7");
        check(&[("x", "1")], "a_total{x=\"1\"} 7");
        check(&[("x", "1"), ("y", "é")], "a_total{x=\"1\",y=\"é\"} 7");
        check(&[("x", "a\"b\\c\nd")], "a_total{x=\"a\\\"b\\\\c\\nd\"} 7");
    }

    #[test]
    fn distribution_adds_up_the_cores_and_cumulates() {
        let cores = [Histogram::default(), Histogram::default()];
        cores[0].observe_ns(90_000);
        cores[1].observe_ns(400_000);
        cores[1].observe_ns(60_000_000_000);
        let mut page = Page::default();
        page.histogram("t_seconds", "Help.").distribution(&[("r", "eu")], cores.iter());
        let text = page.finish();
        for line in [
            "t_seconds_bucket{r=\"eu\",le=\"0.0001\"} 1",
            "t_seconds_bucket{r=\"eu\",le=\"0.00025\"} 1",
            "t_seconds_bucket{r=\"eu\",le=\"0.0005\"} 2",
            "t_seconds_bucket{r=\"eu\",le=\"25\"} 2",
            "t_seconds_bucket{r=\"eu\",le=\"+Inf\"} 3",
            "t_seconds_sum{r=\"eu\"} 60.00049",
            "t_seconds_count{r=\"eu\"} 3",
        ] {
            assert!(text.lines().any(|found| found == line), "missing {line} in\n{text}");
        }
    }
}
