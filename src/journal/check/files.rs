//! The small files beside the segments: what is there, what it says, and what stands in for what cannot
//! be read.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::super::JournalId;
use super::super::buffer::BLOCK;
use super::super::disk::Disk;
use super::super::floor::Floor;
use super::super::folder::{floor_path, live_path};
use super::super::frame::SegmentHeader;
use super::super::live::LiveList;
use super::super::spare::segment_path;
use super::super::twin::TwinFault;
use super::rebuild::{self, Segment};
use super::{Finding, Level, Remedy};

/// What lies in a journal's folder, as far as a start would use it or should.
pub(super) struct Files {
    /// Ascending; those that the floor wants.
    pub(super) numbers: Vec<u64>,
    /// As it is, or as it would be after a repair.
    pub(super) floor: Option<Floor>,
    pub(super) lists: BTreeMap<u64, LiveList>,
}

const SETTLED_AGAIN: &str = "nothing is lost; parcels of that segment that were settled may be sent again";

pub(super) fn look(
    disk: &impl Disk,
    id: &JournalId,
    dir: &Path,
    findings: &mut Vec<Finding>,
) -> io::Result<Files> {
    let (mut numbers, mut lists) = (Vec::new(), BTreeMap::new());
    let mut has_floor = false;
    for name in disk.list(dir)? {
        let number = |stem: &str| stem.parse::<u64>().ok();
        match name.rsplit_once('.').map_or((name.as_str(), ""), |parts| parts) {
            ("floor", "") => has_floor = true,
            (stem, "seg") if number(stem).is_some() => numbers.extend(number(stem)),
            (stem, "live") if number(stem).is_some() => {
                let path = dir.join(&name);
                let bytes = disk.read(&path, 0, disk.size(&path)? as usize)?;
                number(stem).map(|number| lists.insert(number, bytes));
            }
            (_, "tmp") => findings.push(Finding {
                remedy: Some(Remedy::Away),
                ..Finding::note(
                    dir.join(&name),
                    "a file that was not finished".to_owned(),
                    "nothing: what it was to replace is still there",
                    "removes it",
                )
            }),
            _ => findings.push(Finding::note(
                dir.join(&name),
                "no file of a journal".to_owned(),
                "nothing",
                "leaves it where it is; when the journal goes, it goes too",
            )),
        }
    }
    numbers.sort_unstable();
    let read = lists.iter().map(|(number, bytes)| (*number, LiveList::decode(bytes, id, *number)));
    let read: BTreeMap<u64, Result<LiveList, TwinFault>> = read.collect();
    let mut floor = None;
    if has_floor {
        let path = floor_path(dir);
        let bytes = disk.read(&path, 0, disk.size(&path)? as usize)?;
        floor = Some((Floor::decode(&bytes, id), bytes));
    }
    let mut segments = BTreeMap::new();
    for &number in &numbers {
        let path = segment_path(dir, number);
        // Only what has to be rebuilt is looked at whole.
        let needed = !matches!(&floor, Some((Ok(floor), _)) if !floor.is_thin(number) || matches!(read.get(&number), Some(Ok(_))));
        if needed {
            segments
                .insert(number, Segment::of(number, &disk.read(&path, 0, disk.size(&path)? as usize)?, id));
        }
    }
    let floor = check_floor(id, dir, floor, &segments, &read, findings);
    if let Some(floor) = &floor {
        numbers.retain(|number| {
            let stays = floor.has(*number);
            if !stays {
                findings.push(Finding::note(
                    segment_path(dir, *number),
                    format!("segment {number} is below the floor: freeing was not finished"),
                    "nothing: all of it was settled and archived",
                    "removes it",
                ));
            }
            stays
        });
    }
    let (mut good, mut anew) = (BTreeMap::new(), BTreeMap::new());
    let mut lose = |file, found, number: u64, floor: Option<&Floor>, findings: &mut Vec<Finding>| {
        let next = numbers.iter().find(|next| **next > number);
        let next = match next {
            Some(next) => {
                SegmentHeader::decode(&disk.read(&segment_path(dir, *next), 0, 2 * BLOCK)?).ok().flatten()
            }
            None => None,
        };
        let rebuilt = segments
            .get(&number)
            .zip(floor)
            .and_then(|(segment, floor)| rebuild::list(id, segment, next.as_ref(), floor));
        let lsns = floor.and_then(|floor| floor.kept(number)).map(|kept| kept.base_lsn..kept.next_lsn);
        findings.push(lost_list(file, found, lsns, rebuilt.as_ref()));
        anew.extend(rebuilt.map(|(list, _)| (number, list)));
        io::Result::Ok(())
    };
    let thin = |number: u64| floor.as_ref().is_some_and(|floor| floor.is_thin(number));
    for (number, list) in &read {
        let path = live_path(dir, *number);
        match list {
            _ if numbers.binary_search(number).is_err() => findings.push(Finding::note(
                path,
                format!("the list of segment {number}, which is not there"),
                "nothing by itself: what the list names went with the segment",
                "removes it",
            )),
            Ok(list) => {
                if list.encode() != lists[number] {
                    findings.push(one_copy(path, list.encode()));
                }
                good.insert(*number, list.clone());
            }
            Err(fault) if !thin(*number) => findings.push(Finding {
                level: Level::Damage,
                remedy: (!matches!(fault, TwinFault::Version(_))).then_some(Remedy::Away),
                ..Finding::note(
                    path,
                    format!(
                        "the list of what waits in segment {number}: {fault}; the segment itself is whole"
                    ),
                    SETTLED_AGAIN,
                    "reads the segment instead, and says so in the log",
                )
            }),
            Err(fault) => {
                let text = format!("the list of what waits in segment {number}, which is thin: {fault}");
                // A newer version wrote it: nothing to be made anew.
                let floor = floor.as_ref().filter(|_| !matches!(fault, TwinFault::Version(_)));
                lose(path, text, *number, floor, findings)?;
            }
        }
    }
    for &number in numbers.iter().filter(|number| thin(**number) && !read.contains_key(number)) {
        let text = format!("not there, and segment {number} is thin: only this list says what waits in it");
        lose(live_path(dir, number), text, number, floor.as_ref(), findings)?;
    }
    good.append(&mut anew);
    Ok(Files { numbers, floor, lists: good })
}

fn check_floor(
    id: &JournalId,
    dir: &Path,
    floor: Option<(Result<Floor, TwinFault>, Vec<u8>)>,
    segments: &BTreeMap<u64, Segment>,
    lists: &BTreeMap<u64, Result<LiveList, TwinFault>>,
    findings: &mut Vec<Finding>,
) -> Option<Floor> {
    let path = floor_path(dir);
    match floor {
        Some((Ok(floor), bytes)) => {
            if floor.encode() != bytes {
                findings.push(one_copy(path, floor.encode()));
            }
            Some(floor)
        }
        Some((Err(fault), _)) => {
            let version = matches!(fault, TwinFault::Version(_));
            let floor = (!version).then(|| rebuild::floor(id, segments, lists)).flatten();
            findings.push(Finding {
                level: Level::Stops,
                file: path,
                at: None,
                lsns: None,
                found: format!("which segments exist and which are thin: {fault}"),
                means: "nothing is lost by that alone: the segments and their lists are where they were"
                    .to_owned(),
                start: "refuses to start".to_owned(),
                remedy: floor.as_ref().map(|floor| Remedy::Write { bytes: floor.encode() }),
            });
            floor
        }
        None => {
            let floor = rebuild::floor(id, segments, lists)?;
            let first = segments.values().find_map(|segment| segment.header.as_ref());
            let thin = floor.kept.iter().any(|kept| kept.thin);
            if !thin && first.is_none_or(|first| first.previous_segment == 0) {
                // Nothing was ever freed here.
                return None;
            }
            findings.push(Finding {
                level: Level::Damage,
                file: path,
                at: None,
                lsns: None,
                found: "not there, although segments were freed: they are gone or thin".to_owned(),
                means: "nothing is lost by that alone; without it, what was settled looks like a loss".to_owned(),
                start: "takes thin segments for damaged ones: what waits in them is lost to it, and it reports records \
                        as lost that were settled"
                    .to_owned(),
                remedy: Some(Remedy::Write { bytes: floor.encode() }),
            });
            Some(floor)
        }
    }
}

fn one_copy(file: PathBuf, bytes: Vec<u8>) -> Finding {
    Finding {
        level: Level::Damage,
        remedy: Some(Remedy::Write { bytes }),
        ..Finding::note(
            file,
            "one of the two copies in it is damaged".to_owned(),
            "nothing is lost: the other copy says it all; the disk deserves a look",
            "uses the good copy, and replaces the file when it frees something",
        )
    }
}

/// A list that a start cannot do without. `rebuilt`: what stands in for it, and how many records it lacks.
fn lost_list(
    file: PathBuf,
    found: String,
    lsns: Option<Range<u64>>,
    rebuilt: Option<&(LiveList, u64)>,
) -> Finding {
    let means = match rebuilt {
        None => "what waits in that segment was acknowledged, and cannot be found without the list; restore it from a \
                 copy"
            .to_owned(),
        Some((list, unsure)) => {
            let unsure = match unsure {
                0 => String::new(),
                more => format!("; {more} more are readable, but their numbers cannot be told: these are lost"),
            };
            format!(
                "{} records of that segment are readable and can be listed anew; among them may be some that were \
                 settled, which are then sent again and say so{unsure}",
                list.records().count()
            )
        }
    };
    Finding {
        level: Level::Stops,
        file,
        at: None,
        lsns: lsns.map(|lsns| (lsns.start, lsns.end.saturating_sub(1))),
        found,
        means,
        start: "refuses to start; with this file and the segment's moved away it goes on without what waits there"
            .to_owned(),
        remedy: rebuilt.map(|(list, _)| Remedy::Write { bytes: list.encode() }),
    }
}
