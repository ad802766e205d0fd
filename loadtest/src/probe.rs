//! What the machine itself can do, before and after: a figure is worth little if these have moved.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context;
use aws_lc_rs::digest;
use hdrhistogram::Histogram;
use serde_json::{Value, json};

/// How long each probe takes.
const TIME: Duration = Duration::from_secs(1);
/// What is synced at once: a small commit of the journal.
const COMMIT: usize = 16 << 10;
/// The probe's file, written before, so that a sync has data to keep and no new length.
const FILE: usize = 16 << 20;

#[derive(Debug, Clone)]
pub struct Probe {
    /// SHA-256, in MB a second.
    pub hash: f64,
    /// Of a write and `fdatasync`, in milliseconds.
    pub sync_p50: f64,
    pub sync_p99: f64,
    pub syncs: u64,
}

impl Probe {
    /// Takes two seconds. The hash runs on `cpu`, the file is in `folder`.
    pub fn take(folder: &Path, cpu: usize) -> anyhow::Result<Self> {
        let hash = std::thread::spawn(move || hash(cpu)).join();
        let hash = hash.map_err(|_| anyhow::anyhow!("the probe of the CPU panicked"))??;
        let syncs = syncs(folder).with_context(|| format!("probe the disk of {}", folder.display()))?;
        let millis = |quantile| syncs.value_at_quantile(quantile) as f64 / 1e6;
        Ok(Self { hash, sync_p50: millis(0.5), sync_p99: millis(0.99), syncs: syncs.len() })
    }

    pub fn json(&self) -> Value {
        json!({ "hash_mb_per_s": self.hash, "sync_p50_ms": self.sync_p50, "sync_p99_ms": self.sync_p99,
            "syncs": self.syncs })
    }

    pub fn text(&self) -> String {
        let Self { hash, sync_p50, sync_p99, syncs } = self;
        format!(
            "SHA-256 {hash:.0} MB/s, sync p50 {sync_p50:.3} ms, p99 {sync_p99:.3} ms ({syncs} of {COMMIT} bytes)"
        )
    }

    /// By how much the CPU has changed, 0.1 = a tenth either way.
    pub fn drift(&self, later: &Self) -> f64 {
        (later.hash / self.hash - 1.0).abs()
    }
}

fn hash(cpu: usize) -> anyhow::Result<f64> {
    crate::cpu::pin(cpu)?;
    let block = vec![7_u8; 64 << 10];
    let start = Instant::now();
    let mut bytes = 0_usize;
    while start.elapsed() < TIME {
        std::hint::black_box(digest::digest(&digest::SHA256, &block));
        bytes += block.len();
    }
    Ok(bytes as f64 / start.elapsed().as_secs_f64() / 1e6)
}

/// Nanoseconds.
fn syncs(folder: &Path) -> anyhow::Result<Histogram<u64>> {
    let path = folder.join("probe");
    let file = OpenOptions::new().create(true).truncate(true).write(true).open(&path)?;
    file.write_all_at(&vec![0; FILE], 0)?;
    file.sync_all()?;
    let mut times = Histogram::new_with_bounds(1, 60_000_000_000, 3)?;
    let commit = vec![1; COMMIT];
    let start = Instant::now();
    let mut at = 0;
    while start.elapsed() < TIME {
        let begun = Instant::now();
        file.write_all_at(&commit, at as u64)?;
        file.sync_data()?;
        times.saturating_record(u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX).max(1));
        at = (at + COMMIT) % FILE;
    }
    std::fs::remove_file(path)?;
    Ok(times)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probe_measures_cpu_and_disk_and_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let probe = Probe::take(folder.path(), 0).unwrap();
        assert!(probe.hash > 1.0 && probe.syncs > 0 && probe.sync_p50 <= probe.sync_p99, "{probe:?}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        let faster = Probe { hash: probe.hash * 1.2, ..probe.clone() };
        assert!((probe.drift(&faster) - 0.2).abs() < 1e-9);
    }
}
