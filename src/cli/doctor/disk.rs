//! Will the data folder keep a journal, and how long does it take to say so?

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::fcntl::{FallocateFlags, OFlag, fallocate};
use nix::sys::statvfs::{FsFlags, statvfs};

use super::Finding;
use super::machine::Machine;

/// Bytes of one timed write: the smallest that a journal makes, and what O_DIRECT wants its memory aligned to.
const BLOCK: usize = 4096;
/// Writes timed, at most, and the time they may take.
const WRITES: usize = 200;
const PATIENCE: Duration = Duration::from_secs(2);

/// Free space below which the journal has no room for a bad hour: 1 GiB refuses soon, 10 GiB is little.
const FREE_BAD: u64 = 1 << 30;
const FREE_WARN: u64 = 10 << 30;

pub(super) fn check(machine: &Machine, folder: &Path) -> Vec<Finding> {
    if !folder.is_dir() {
        return vec![Finding::bad(
            "data folder",
            format!("{} is not a folder", folder.display()),
            "a folder on a local disk",
            "make it and give it to the gateway's user: install -d -o penstock -m 0700 DIR",
        )];
    }
    let mut findings = vec![file_system(machine, folder)];
    findings.extend(space(folder));
    findings.extend(sync_time(folder));
    findings
}

fn file_system(machine: &Machine, folder: &Path) -> Finding {
    let subject = "file system";
    let path = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    let mounts = machine.text("proc/self/mountinfo").unwrap_or_default();
    let expected = "ext4 or xfs on a local disk";
    let Some(kind) = mount_type(&mounts, &path) else {
        return Finding::warn(
            subject,
            "no mount found for the data folder",
            expected,
            "look where the folder is mounted",
        );
    };
    let found = format!("{kind} at {}", path.display());
    match kind {
        "ext4" | "xfs" => Finding::ok(subject, found),
        "tmpfs" | "ramfs" => Finding::bad(
            subject,
            format!("{found}: gone after a restart"),
            expected,
            "put gateway.data_dir on a disk",
        ),
        "overlay" => Finding::warn(
            subject,
            format!("{found}: the container's own layer, gone with it"),
            expected,
            "mount a volume at gateway.data_dir",
        ),
        kind if kind.starts_with("nfs")
            || kind.starts_with("fuse")
            || matches!(kind, "cifs" | "smb3" | "9p") =>
        {
            Finding::warn(
                subject,
                format!("{found}: what its sync promises depends on the other side"),
                expected,
                "put gateway.data_dir on a local disk or a block volume",
            )
        }
        _ => Finding::warn(
            subject,
            found,
            "ext4 or xfs: the journal is measured on these",
            "prefer one of them for gateway.data_dir",
        ),
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
                "a folder that can be looked at",
                "look at its owner and mount",
            )];
        }
    };
    let mut findings = Vec::new();
    if stat.flags().contains(FsFlags::ST_RDONLY) {
        findings.push(Finding::bad(
            "data folder",
            "mounted read-only",
            "one that can be written",
            "mount it writable; the kernel log says why if it was not you",
        ));
    }
    let free = stat.blocks_available() * stat.fragment_size();
    let found = format!("{:.1} GiB", free as f64 / f64::from(1 << 30));
    findings.push(match free {
        ..FREE_BAD => Finding::bad(
            subject,
            found,
            "1 GiB at least: a full journal answers 503",
            "make room, or a larger disk",
        ),
        FREE_BAD..FREE_WARN => Finding::warn(
            subject,
            found,
            "10 GiB or more: a region that is down for hours needs room for what waits for it",
            "make room, or a larger disk",
        ),
        _ => Finding::ok(subject, found),
    });
    // File systems that make inodes as they need them report 0 of 0.
    if stat.files() > 0 && stat.files_available() < 1000 {
        findings.push(Finding::bad(
            "inodes",
            format!("{} left", stat.files_available()),
            "1,000 or more: the journal makes files",
            "delete files that are not needed",
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
            let found = format!("cannot write in it: {error}");
            return vec![Finding::bad("data folder", found, "a folder that this user can write in", remedy)];
        }
    };
    let mut findings = Vec::new();
    if !probe.direct {
        findings.push(Finding::warn(
            "direct writes",
            "O_DIRECT is refused by this file system",
            "direct writes: without them the journal goes through the page cache, slower and less honest",
            "use ext4 or xfs on a block device",
        ));
    }
    findings.extend(holes(&probe.file));
    findings.push(match time_writes(&probe.file) {
        Ok(times) => judge_times(times),
        Err(error) => {
            let found = format!("a write failed: {error}");
            Finding::bad(
                subject,
                found,
                "durable writes",
                "look into the kernel log (dmesg); replace the disk",
            )
        }
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
        "possible: without it one parcel that waits keeps a whole segment on the disk",
        "use ext4, xfs, btrfs or tmpfs",
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
            "8 us or more: memory, or a disk that ignores flushes, loses acknowledged webhooks in a power cut",
            "use a disk that keeps what it has confirmed",
        )
    } else if p50 > Duration::from_millis(10) {
        Finding::warn(
            subject,
            format!("{found}: slow"),
            "p50 up to 10 ms: an answer waits for 1.5 of these on average",
            "use a local SSD, best one with power-loss protection",
        )
    } else if p99 > Duration::from_millis(100) {
        Finding::warn(
            subject,
            format!("{found}: it stalls"),
            "p99 up to 100 ms: the provider asks for answers within 250 ms",
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
    use super::super::machine::fake;
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
    fn file_system_that_cannot_keep_a_promise_is_found() {
        let check = |kind: &str, level: Level| {
            let mounts = format!("22 1 254:0 / / rw,relatime - {kind} /dev/root rw\n");
            let (folder, machine) = fake(&[("proc/self/mountinfo", &mounts)]);
            let finding = file_system(&machine, folder.path());
            assert_eq!(finding.level, level, "{finding:?}");
            assert!(level == Level::Ok || !finding.remedy.is_empty() && !finding.expected.is_empty());
        };
        check("ext4", Level::Ok);
        check("xfs", Level::Ok);
        check("tmpfs", Level::Bad);
        check("overlay", Level::Warn);
        check("nfs4", Level::Warn);
        check("fuse.sshfs", Level::Warn);
        check("zfs", Level::Warn);
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
        let findings = check(&Machine::here(), folder.path());
        assert!(findings.iter().any(|finding| finding.subject == "sync time"), "{findings:?}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn missing_folder_is_bad() {
        assert_eq!(check(&Machine::here(), Path::new("/nowhere/at/all"))[0].level, Level::Bad);
    }
}
