//! Events inside the gateway, counted from outside with `perf stat`: system calls, and calls of its allocator.
//!
//! The kernel counts, so the gateway runs as it always does, but for an allocation: that takes a trap of about a
//! microsecond. Blocks that are counted are therefore not those whose CPU is compared.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use anyhow::{Context, bail, ensure};

use crate::goal::Unavailable;

/// Every way into a ring.
pub const ENTERS: &str = "syscalls:sys_enter_io_uring_enter";
/// Where the gateway's allocator is entered: new memory, zeroed memory, more memory.
const ENTRIES: [&str; 3] = ["mi_malloc_aligned", "mi_zalloc_aligned", "mi_realloc_aligned"];
/// Of the time that was counted.
const CLOCK: &str = "duration_time";

/// Probes at the allocator's entries of one binary. They go with what is returned.
pub struct Allocator {
    group: String,
}

impl Allocator {
    pub fn probe(binary: &Path) -> anyhow::Result<Self> {
        let probes = Self { group: format!("penstock_loadtest_{}", std::process::id()) };
        for entry in ENTRIES {
            let event = format!("{}:{entry}={entry}", probes.group);
            run(Command::new("perf").arg("probe").arg("-q").arg("-x").arg(binary).arg("--add").arg(&event))
                .with_context(|| format!("probe {entry} in {}", binary.display()))?;
        }
        Ok(probes)
    }

    pub fn events(&self) -> Vec<String> {
        ENTRIES.iter().map(|entry| format!("{}:{entry}", self.group)).collect()
    }
}

impl Drop for Allocator {
    fn drop(&mut self) {
        // It fails only where there is nothing to remove.
        run(Command::new("perf").args(["probe", "-q", "-d", &format!("{}:*", self.group)])).ok();
    }
}

/// Events a second, by the kind of thread: `ingest`, `forward`, ...
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Counts(BTreeMap<(String, String), f64>);

impl Counts {
    /// Counts `events` in all threads that `pid` has now, for `time`.
    pub fn take(pid: u32, events: &[String], time: Duration) -> anyhow::Result<Self> {
        let output = run(Command::new("perf")
            .args(["stat", "--per-thread", "-x", ",", "-p", &pid.to_string()])
            .args(["-e", &events.join(","), "-e", CLOCK])
            .args(["sleep", &format!("{:.3}", time.as_secs_f64())]))?;
        Self::read(&String::from_utf8_lossy(&output.stderr))
    }

    pub fn of<'a>(&self, thread: &str, events: impl IntoIterator<Item = &'a String>) -> f64 {
        let count = |event: &String| self.0.get(&(thread.to_owned(), event.clone())).copied().unwrap_or(0.0);
        events.into_iter().map(count).sum()
    }

    /// Lines as `ingest-0-4711,9327,,syscalls:sys_enter_io_uring_enter,539005369,100.00,,`.
    fn read(text: &str) -> anyhow::Result<Self> {
        let (mut counts, mut nanoseconds) = (BTreeMap::new(), 0.0_f64);
        for line in text.lines() {
            let fields: Vec<&str> = line.split(',').collect();
            let [thread, count, _, event, ..] = fields[..] else { continue };
            // A thread that never ran has `<not counted>`.
            let count = count.parse::<f64>().unwrap_or(0.0);
            if event == CLOCK {
                nanoseconds = nanoseconds.max(count);
                continue;
            }
            let kind = thread.trim_end_matches(|c: char| c.is_ascii_digit() || c == '-');
            *counts.entry((kind.to_owned(), event.to_owned())).or_insert(0.0) += count;
        }
        ensure!(nanoseconds > 0.0 && !counts.is_empty(), "perf stat counted nothing; it said: {text}");
        counts.values_mut().for_each(|count| *count *= 1e9 / nanoseconds);
        Ok(Self(counts))
    }
}

/// Runs it to its end; the error has what it said.
fn run(command: &mut Command) -> anyhow::Result<Output> {
    let mut ended = || -> anyhow::Result<Output> {
        let output = command.stdin(Stdio::null()).output();
        let output = output.with_context(|| format!("run {}", command.get_program().display()))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!("{} ended with {}: {}", command.get_program().display(), output.status, said.trim());
        }
        Ok(output)
    };
    ended().context(Unavailable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_of_a_kind_are_added_up_by_second() {
        let text = "# started\n\ningest-0-29165,900,,s:enter,5,100.00,,\ningest-1-29166,100,,s:enter,5,100.00,,\n\
                    forward-0-29163,<not counted>,,s:enter,0,100.00,,\ningest-0-29165,2000000000,ns,duration_time,2,1,,\n";
        let counts = Counts::read(text).unwrap();
        let enter = "s:enter".to_owned();
        assert_eq!(counts.of("ingest", [&enter]), 500.0);
        assert_eq!(counts.of("forward", [&enter]), 0.0);
        assert!(Counts::read("perf: no permission\n").is_err());
    }
}
