//! What waits in the journals of the data folder, region by region.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::{Finding, Subject};
use crate::cli::journal::{DISK, journals, settled, walk};
use crate::entry::{Meta, name_id};
use crate::journal::folder::Folder;
use crate::journal::record::Record;
use crate::journal::spare::segment_path;

/// All segments are read; above this that takes minutes, and `penstock journal inspect` is the one to do it.
const READ_MOST: u64 = 8 << 30;
/// A parcel that waits this long is no longer only on its way.
const LATE: Duration = Duration::from_secs(60);

/// What was found.
#[derive(Debug, Default)]
struct Backlog {
    journals: usize,
    segments: usize,
    /// Of all segment files.
    bytes: u64,
    /// Parcels that wait, by region number.
    waiting: BTreeMap<u32, u64>,
    /// When the oldest of them came.
    oldest: Option<SystemTime>,
    /// Entries of another version.
    unreadable: u64,
    /// Ranges of records that were durable and are lost.
    lost: u64,
}

pub(super) fn check(subject: &Subject) -> Vec<Finding> {
    let root = subject.data_dir.join("journal");
    if !root.is_dir() {
        return vec![Finding::ok("journal", "none yet")];
    }
    match read(&root, READ_MOST) {
        Ok(backlog) => judge(&backlog, subject, SystemTime::now()),
        Err(error) => vec![Finding::bad(
            "journal",
            format!("cannot be read: {error:#}"),
            "a journal that this user can read and this version knows",
            "run as the gateway's user; penstock journal inspect says more",
        )],
    }
}

/// Counts what is on the disk; looks into it only if there is no more than `most` bytes of it.
fn read(root: &Path, most: u64) -> anyhow::Result<Backlog> {
    let found = journals(root)?;
    let mut backlog = Backlog { journals: found.len(), ..Backlog::default() };
    for (id, dir) in &found {
        for number in Folder::look(&DISK, dir, id)?.numbers {
            backlog.segments += 1;
            // Of a thin segment only a part is on the disk.
            backlog.bytes +=
                std::fs::metadata(segment_path(dir, number)).map_or(0, |file| file.blocks() * 512);
        }
    }
    if backlog.bytes > most {
        return Ok(backlog);
    }
    let settled = settled(&found)?;
    let mut oldest = u64::MAX;
    for (id, dir) in &found {
        let settled = settled.get(id);
        let (_, recovered) = walk(id, dir, |folder, _, lsn, record| {
            let Record::Entry(entry) = record else { return };
            let Ok(meta) = Meta::read(entry.meta) else {
                backlog.unreadable += 1;
                return;
            };
            for (slot, region) in (0..).zip(meta.regions()) {
                if folder.shows(lsn, slot) && !settled.is_some_and(|set| set.contains(lsn, slot)) {
                    *backlog.waiting.entry(region).or_default() += 1;
                    oldest = oldest.min(meta.received_at_ns());
                }
            }
        })?;
        backlog.lost += recovered.lost.iter().filter(|lost| lost.last_lsn >= lost.first_lsn).count() as u64;
    }
    if oldest < u64::MAX {
        backlog.oldest = Some(SystemTime::UNIX_EPOCH + Duration::from_nanos(oldest));
    }
    Ok(backlog)
}

fn judge(backlog: &Backlog, subject: &Subject, now: SystemTime) -> Vec<Finding> {
    let mib = backlog.bytes >> 20;
    let size = format!("journals {}, segments {}, {mib} MiB", backlog.journals, backlog.segments);
    if backlog.bytes > READ_MOST {
        return vec![
            Finding::ok("journal", format!("{size}: too much to look into here")),
            Finding::warn(
                "backlog",
                "not counted",
                "less than 8 GiB of journal while all regions take their parcels",
                "look at penstock_backlog_parcels on /metrics, or run penstock journal inspect",
            ),
        ];
    }
    let mut findings = vec![Finding::ok("journal", size)];
    if backlog.lost > 0 {
        findings.push(Finding::bad(
            "damage",
            format!("{} ranges of stored webhooks cannot be read", backlog.lost),
            "none: what was acknowledged is kept",
            "penstock journal inspect names them; replace the disk, restore the files if there is a copy",
        ));
    }
    if backlog.unreadable > 0 {
        findings.push(Finding::bad(
            "versions",
            format!("{} entries of another version", backlog.unreadable),
            "entries that this version reads",
            "run the version that wrote them until they are delivered",
        ));
    }
    findings.push(waiting(backlog, subject, now));
    findings
}

fn waiting(backlog: &Backlog, subject: &Subject, now: SystemTime) -> Finding {
    let Some(oldest) = backlog.oldest else { return Finding::ok("backlog", "nothing waits") };
    let name = |id: &u32| {
        let known = subject.regions.iter().find(|name| name_id(name) == *id);
        known.cloned().unwrap_or_else(|| format!("region number {id}"))
    };
    let counts: Vec<_> = backlog.waiting.iter().map(|(id, count)| format!("{} {count}", name(id))).collect();
    let age = now.duration_since(oldest).unwrap_or_default();
    let found = format!(
        "waiting: {}; the oldest since {}",
        counts.join(", "),
        humantime::format_rfc3339_seconds(oldest)
    );
    if age < LATE {
        return Finding::ok("backlog", found);
    }
    Finding::warn(
        "backlog",
        found,
        "parcels that leave within a minute",
        "start the gateway if it is not running, and look at these regions: penstock_attempts_total on /metrics",
    )
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::*;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn backlog_is_told_by_region_and_judged_by_its_age() {
        let subject = Subject { regions: vec!["europe".into(), "asia".into()], ..Subject::default() };
        let waiting = BTreeMap::from([(name_id("asia"), 7), (1, 2)]);
        let backlog = Backlog { waiting, oldest: Some(at(1_790_000_000)), ..Backlog::default() };
        let check = |now: u64, level: Level| {
            let finding = super::waiting(&backlog, &subject, at(now));
            assert_eq!(finding.level, level, "{finding:?}");
            assert!(
                finding.found.contains("asia 7") && finding.found.contains("region number 1 2"),
                "{finding:?}"
            );
            assert!(finding.found.contains("2026-09-21T14:13:20Z"), "{finding:?}");
        };
        check(1_790_000_010, Level::Ok);
        check(1_790_000_061, Level::Warn);
        let finding = super::waiting(&Backlog::default(), &subject, at(0));
        assert_eq!((finding.level, finding.found.as_str()), (Level::Ok, "nothing waits"));
    }

    #[test]
    fn damage_foreign_entries_and_size_are_found() {
        let check = |backlog: Backlog, subject: &str, level: Level| {
            let findings = judge(&backlog, &Subject::default(), at(0));
            let found = findings.iter().find(|finding| finding.subject == subject);
            assert_eq!(found.map(|finding| finding.level), Some(level), "{findings:?}");
        };
        check(Backlog { lost: 1, ..Backlog::default() }, "damage", Level::Bad);
        check(Backlog { unreadable: 1, ..Backlog::default() }, "versions", Level::Bad);
        check(Backlog { bytes: READ_MOST + 1, ..Backlog::default() }, "backlog", Level::Warn);
        check(Backlog::default(), "journal", Level::Ok);
    }

    #[test]
    fn folder_without_a_journal_is_well_and_rubbish_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let subject = Subject { data_dir: folder.path().to_owned(), ..Subject::default() };
        assert_eq!(check(&subject)[0].found, "none yet");
        let journal = folder.path().join("journal").join("0".repeat(32));
        std::fs::create_dir_all(journal.join("1.seg")).unwrap();
        assert_eq!(check(&subject)[0].level, Level::Bad, "a folder in place of a segment");
    }
}
