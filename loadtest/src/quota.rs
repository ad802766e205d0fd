//! A share of one CPU for a server, so that a generator on the same machine can offer more than it can do.
//!
//! By a control group: `cpu.max` of version 2, or the CFS quota of version 1. In each period the server runs until
//! its share is used up, and stands still for the rest.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use crate::goal::Unavailable;

/// Short, because the server stands still at its end: that is in every latency.
const PERIOD_US: u64 = 10_000;

/// A control group with one server in it. It goes with what is returned; the server then has all of its CPU.
pub struct Quota {
    folder: PathBuf,
    parent: PathBuf,
}

/// What limits here.
pub fn kind() -> &'static str {
    let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
    match controller(&mounts) {
        Some((_, 2)) => "cpu.max of cgroup v2",
        Some(_) => "CFS quota of cgroup v1",
        None => "no cgroup",
    }
}

impl Quota {
    /// Gives all threads of `pid` that share of a CPU together.
    pub fn set(pid: u32, share: f64) -> anyhow::Result<Self> {
        Self::make(pid, share).context(Unavailable)
    }

    fn make(pid: u32, share: f64) -> anyhow::Result<Self> {
        let mounts = fs::read_to_string("/proc/mounts").context("read /proc/mounts")?;
        let quota_us = (PERIOD_US as f64 * share) as u64;
        let Some((parent, version)) = controller(&mounts) else {
            bail!("no control groups with a CPU controller are mounted");
        };
        let folder = parent.join(format!("penstock-loadtest-{}-{pid}", std::process::id()));
        let write = |folder: &Path, file: &str, text: &str| {
            let path = folder.join(file);
            fs::write(&path, text).with_context(|| format!("write {text} to {}", path.display()))
        };
        fs::create_dir(&folder).with_context(|| format!("create {}", folder.display()))?;
        let quota = Self { folder, parent };
        if version == 2 {
            write(&quota.folder, "cpu.max", &format!("{quota_us} {PERIOD_US}"))?;
        } else {
            write(&quota.folder, "cpu.cfs_period_us", &PERIOD_US.to_string())?;
            write(&quota.folder, "cpu.cfs_quota_us", &quota_us.to_string())?;
        }
        write(&quota.folder, "cgroup.procs", &pid.to_string())?;
        Ok(quota)
    }
}

impl Drop for Quota {
    fn drop(&mut self) {
        // Whoever is still in it goes back to where all are; one that has ended cannot be moved, and need not.
        let pids = fs::read_to_string(self.folder.join("cgroup.procs")).unwrap_or_default();
        for pid in pids.lines() {
            fs::write(self.parent.join("cgroup.procs"), pid).ok();
        }
        fs::remove_dir(&self.folder).ok();
    }
}

/// Where groups with a CPU limit can be made, and of which version.
fn controller(mounts: &str) -> Option<(PathBuf, u8)> {
    let lines = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(1);
        Some((fields.next()?, fields.next()?, fields.next()?))
    });
    let mut v1 = None;
    for (folder, kind, options) in lines {
        let has = |file: &str| {
            fs::read_to_string(Path::new(folder).join(file))
                .is_ok_and(|text| text.split_whitespace().any(|controller| controller == "cpu"))
        };
        if kind == "cgroup2" && has("cgroup.controllers") && has("cgroup.subtree_control") {
            return Some((folder.into(), 2));
        }
        if kind == "cgroup" && options.split(',').any(|option| option == "cpu") {
            v1 = Some((folder.into(), 1));
        }
    }
    v1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn controller_is_found_by_its_name_alone() {
        let check = |mounts: &str, expected: Option<(&str, u8)>| {
            let found = controller(mounts);
            assert_eq!(found, expected.map(|(folder, version)| (PathBuf::from(folder), version)));
        };
        check("cgroup /nowhere/cpuset cgroup rw,cpuset 0 0\n", None);
        check("cgroup /nowhere/cpu cgroup rw,relatime,cpu 0 0\n", Some(("/nowhere/cpu", 1)));
        check("cgroup2 /nowhere/unified cgroup2 rw 0 0\n", None);
    }
}
