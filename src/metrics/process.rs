//! What the kernel says about this process, under the names that every Prometheus client uses.
//!
//! Read when scraped, from `/proc`; what cannot be read is left out rather than shown as 0.

use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage};
use nix::sys::time::TimeValLike;

use super::text::Page;

/// Clock ticks of `/proc/<pid>/stat` a second: 100 on every architecture that Linux and Rust share.
const USER_HZ: f64 = 100.0;

pub(super) fn render(page: &mut Page) {
    if let Ok(usage) = getrusage(UsageWho::RUSAGE_SELF) {
        let micros = (usage.user_time() + usage.system_time()).num_microseconds();
        page.counter("process_cpu_seconds_total", "CPU time of all threads, user and system.")
            .sample(&[], micros as f64 / 1e6);
    }
    if let Some(bytes) = status_bytes("VmRSS:") {
        page.gauge("process_resident_memory_bytes", "Memory that is in RAM.").sample(&[], bytes);
    }
    if let Some(bytes) = status_bytes("VmSize:") {
        page.gauge("process_virtual_memory_bytes", "Address space in use.").sample(&[], bytes);
    }
    if let Some(threads) = status_value("Threads:") {
        page.gauge("process_threads", "Threads, those of the kernel's rings not counted.")
            .sample(&[], threads);
    }
    if let Ok(entries) = std::fs::read_dir("/proc/self/fd") {
        // The folder that is being read is open too.
        let open = entries.count().saturating_sub(1);
        page.gauge("process_open_fds", "Open file descriptors.").sample(&[], open);
    }
    if let Ok((soft, _)) = getrlimit(Resource::RLIMIT_NOFILE) {
        page.gauge("process_max_fds", "Most file descriptors that may be open.").sample(&[], soft);
    }
    if let Some(seconds) = start_time() {
        page.gauge("process_start_time_seconds", "Start of the process, seconds since 1970.")
            .sample(&[], seconds);
    }
}

fn status_bytes(key: &str) -> Option<u64> {
    status_value(key).map(|kib| kib * 1024)
}

fn status_value(key: &str) -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(key))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Boot time plus the process's start since boot.
fn start_time() -> Option<f64> {
    let boot = std::fs::read_to_string("/proc/stat").ok()?;
    let boot: f64 = boot.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The command name is in brackets and may hold blanks; field 22 is the 20th after it.
    let ticks: f64 = stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()?;
    Some(boot + ticks / USER_HZ)
}

#[cfg(test)]
mod tests {
    use std::time::{SystemTime, UNIX_EPOCH};

    use super::*;

    #[test]
    fn process_start_lies_shortly_before_now() {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
        let age = now - start_time().unwrap();
        // A test run takes minutes at most; btime is rounded to seconds and may lag a stepped clock.
        assert!((-5.0..3600.0).contains(&age), "age {age} s");
    }

    #[test]
    fn resident_memory_is_between_a_mebibyte_and_what_is_mapped() {
        let (resident, mapped) = (status_bytes("VmRSS:").unwrap(), status_bytes("VmSize:").unwrap());
        assert!(resident > 1 << 20 && resident <= mapped, "{resident} of {mapped}");
    }
}
