//! Will the data folder keep a journal, and how long does it take to say so?

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::fcntl::{FallocateFlags, OFlag, fallocate};
use nix::sys::statvfs::{FsFlags, statvfs};

use super::Finding;

/// Bytes of one timed write: the smallest that a journal makes, and what O_DIRECT wants its memory aligned to.
const BLOCK: usize = 4096;
/// Writes timed, at most, and the time they may take.
const WRITES: usize = 200;
const PATIENCE: Duration = Duration::from_secs(2);

/// Free space below which the journal has no room for a bad hour: 1 GiB refuses soon, 10 GiB is little.
const FREE_BAD: u64 = 1 << 30;
const FREE_WARN: u64 = 10 << 30;

pub(super) fn check(folder: &Path) -> Vec<Finding> {
    if !folder.is_dir() {
        return vec![Finding::bad(
            "data folder",
            format!("{} is not a folder", folder.display()),
            "make it and give it to the gateway's user: install -d -o penstock -m 0700 DIR",
        )];
    }
    let mut findings = vec![file_system(folder)];
    findings.extend(space(folder));
    findings.extend(sync_time(folder));
    findings
}

fn file_system(folder: &Path) -> Finding {
    let subject = "file system";
    let path = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let Some(kind) = mount_type(&mounts, &path) else {
        return Finding::warn(
            subject,
            "unknown: no mount found for the data folder",
            "check where the folder is mounted",
        );
    };
    let found = format!("{kind} at {}", path.display());
    match kind {
        "ext4" | "xfs" => Finding::ok(subject, found),
        "tmpfs" | "ramfs" => {
            Finding::bad(subject, format!("{found}: gone after a restart"), "put gateway.data_dir on a disk")
        }
        "overlay" => Finding::warn(
            subject,
            format!("{found}: the container's own layer, gone with it"),
            "mount a volume at gateway.data_dir",
        ),
        kind if kind.starts_with("nfs")
            || kind.starts_with("fuse")
            || matches!(kind, "cifs" | "smb3" | "9p") =>
        {
            Finding::warn(
                subject,
                format!("{found}: what its sync promises depends on the other side"),
                "put gateway.data_dir on a local disk or a block volume with ext4 or xfs",
            )
        }
        _ => Finding::warn(subject, found, "the journal is measured on ext4 and xfs; prefer one of them"),
    }
}

/// Type of the mount that holds `path`: the longest mount point above it, the last one if several lie over each other.
fn mount_type<'m>(mountinfo: &'m str, path: &Path) -> Option<&'m str> {
    let mounts = mountinfo.lines().filter_map(|line| {
        let (mount, kind) = line.split_once(" - ")?;
        // Blanks in names are written as \040.
        let point = mount.split(' ').nth(4)?.replace("\\040", " ");
        path.starts_with(&point).then_some((point.len(), kind.split(' ').next()?))
    });
    mounts.max_by_key(|(length, _)| *length).map(|(_, kind)| kind)
}

fn space(folder: &Path) -> Vec<Finding> {
    let subject = "free space";
    let stat = match statvfs(folder) {
        Ok(stat) => stat,
        Err(error) => {
            return vec![Finding::bad(
                subject,
                format!("cannot be asked for: {error}"),
                "check the data folder",
            )];
        }
    };
    let mut findings = Vec::new();
    if stat.flags().contains(FsFlags::ST_RDONLY) {
        findings.push(Finding::bad(
            "data folder",
            "mounted read-only",
            "mount it writable; the kernel log says why if it was not you",
        ));
    }
    let free = stat.blocks_available() * stat.fragment_size();
    let found = format!("{:.1} GiB", free as f64 / f64::from(1 << 30));
    findings.push(match free {
        ..FREE_BAD => Finding::bad(subject, found, "make room: a full journal answers 503"),
        FREE_BAD..FREE_WARN => {
            Finding::warn(subject, found, "a region that is down for hours needs room for what waits for it")
        }
        _ => Finding::ok(subject, found),
    });
    // File systems that make inodes as they need them report 0 of 0.
    if stat.files() > 0 && stat.files_available() < 1000 {
        findings.push(Finding::bad(
            "inodes",
            format!("{} left", stat.files_available()),
            "delete files; none can be made soon",
        ));
    }
    findings
}

/// The temporary file; gone when dropped.
struct Probe {
    file: File,
    path: PathBuf,
    direct: bool,
}

impl Probe {
    fn make(folder: &Path) -> io::Result<Self> {
        let path = folder.join(format!(".penstock-doctor-{}", std::process::id()));
        let open = |flags: OFlag| {
            OpenOptions::new().write(true).create_new(true).mode(0o600).custom_flags(flags.bits()).open(&path)
        };
        let (file, direct) = match open(OFlag::O_DIRECT | OFlag::O_DSYNC) {
            Err(error) if error.raw_os_error() == Some(nix::libc::EINVAL) => {
                // Some kernels make the file before they refuse the flag.
                std::fs::remove_file(&path).ok();
                (open(OFlag::O_DSYNC)?, false)
            }
            opened => (opened?, true),
        };
        Ok(Self { file, path, direct })
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        std::fs::remove_file(&self.path).ok();
    }
}

fn sync_time(folder: &Path) -> Vec<Finding> {
    let subject = "sync time";
    let probe = match Probe::make(folder) {
        Ok(probe) => probe,
        Err(error) => {
            let remedy = "give the folder to the gateway's user: chown penstock DIR";
            return vec![Finding::bad("data folder", format!("cannot write in it: {error}"), remedy)];
        }
    };
    let mut findings = Vec::new();
    if !probe.direct {
        findings.push(Finding::warn(
            "direct writes",
            "O_DIRECT is refused by this file system",
            "works, with a copy through the page cache; ext4 and xfs on a block device take it",
        ));
    }
    findings.extend(holes(&probe.file));
    findings.push(match time_writes(&probe.file) {
        Ok(times) => judge_times(times),
        Err(error) => Finding::bad(subject, format!("a write failed: {error}"), "see the kernel log (dmesg)"),
    });
    findings
}

/// Whether a part of a file can be given back, as freeing does with what is settled.
fn holes(file: &File) -> Option<Finding> {
    let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    let error = fallocate(file, flags, 0, BLOCK as i64).err()?;
    Some(Finding::warn(
        "hole punching",
        format!("refused by this file system: {error}"),
        "works, but one parcel that waits keeps a whole segment on the disk; ext4, xfs, btrfs and tmpfs can do it",
    ))
}

/// Overwrites the blocks of a file that is fully written, as a journal does; the first round is not timed.
fn time_writes(file: &File) -> io::Result<Vec<Duration>> {
    const BLOCKS: usize = 256;
    let memory = vec![0x50_u8; (BLOCKS + 1) * BLOCK];
    let start = memory.as_ptr().align_offset(BLOCK);
    let aligned = &memory[start..start + BLOCKS * BLOCK];
    file.write_all_at(aligned, 0)?;
    let begun = Instant::now();
    let mut times = Vec::with_capacity(WRITES);
    while times.len() < WRITES && begun.elapsed() < PATIENCE {
        let start = Instant::now();
        file.write_all_at(&aligned[..BLOCK], (times.len() * BLOCK) as u64)?;
        times.push(start.elapsed());
    }
    Ok(times)
}

fn judge_times(mut times: Vec<Duration>) -> Finding {
    let subject = "sync time";
    times.sort_unstable();
    let [p50, p99] = [50, 99].map(|percent| times[(times.len() * percent / 100).min(times.len() - 1)]);
    let found = format!(
        "p50 {}, p99 {} for a durable 4 KiB write ({} writes)",
        millis(p50),
        millis(p99),
        times.len()
    );
    if p50 < Duration::from_micros(8) {
        // No device and no hypervisor is that fast: the fastest with protected caches take 12 us.
        Finding::warn(
            subject,
            format!("{found}: too fast to be true"),
            "memory, or a disk that ignores flushes: acked webhooks may not survive a power cut",
        )
    } else if p50 > Duration::from_millis(10) {
        Finding::warn(
            subject,
            format!("{found}: slow"),
            "every answer waits for 1.5 of these on average; use a local SSD, best with power-loss protection",
        )
    } else if p99 > Duration::from_millis(100) {
        Finding::warn(
            subject,
            format!("{found}: it stalls"),
            "look for a neighbour on the same disk, a burst credit that ran out, or discard without a queue",
        )
    } else {
        Finding::ok(subject, found)
    }
}

fn millis(time: Duration) -> String {
    format!("{:.2} ms", time.as_secs_f64() * 1e3)
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::*;

    #[test]
    fn mount_is_the_longest_point_above_the_folder() {
        let mounts = "22 1 254:0 / / rw,relatime - ext4 /dev/root rw\n\
                      30 22 0:5 / /var/lib rw shared:4 - xfs /dev/sdb rw\n\
                      31 22 0:6 / /var/lib/penstock\\040x rw - tmpfs tmpfs rw\n\
                      32 22 0:7 / /var/library rw - nfs4 host:/x rw\n";
        let check =
            |path: &str, kind: &str| assert_eq!(mount_type(mounts, Path::new(path)), Some(kind), "{path}");
        check("/home", "ext4");
        check("/var/lib/penstock", "xfs");
        check("/var/lib/penstock x/a", "tmpfs");
        check("/var/library/a", "nfs4");
    }

    #[test]
    fn times_are_judged_by_what_an_answer_can_bear() {
        let check = |micros: &[u64], level: Level, text: &str| {
            let finding = judge_times(micros.iter().map(|us| Duration::from_micros(*us)).collect());
            assert_eq!(finding.level, level, "{finding:?}");
            assert!(finding.found.contains(text), "{finding:?}");
        };
        check(&[120; 200], Level::Ok, "p50 0.12 ms, p99 0.12 ms");
        check(&[3; 200], Level::Warn, "too fast");
        check(&[20_000], Level::Warn, "slow");
        check(&[[120; 97].as_slice(), &[300_000; 3]].concat(), Level::Warn, "stalls");
    }

    #[test]
    fn probe_leaves_nothing_behind() {
        let folder = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let findings = check(folder.path());
        assert!(findings.iter().any(|finding| finding.subject == "sync time"), "{findings:?}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn missing_folder_is_bad() {
        assert_eq!(check(Path::new("/nowhere/at/all"))[0].level, Level::Bad);
    }
}
