//! One journal: its segments through recovery's eyes, and what recovery takes as given.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::path::{Path, PathBuf};

use super::super::buffer::{AlignedBuf, BLOCK};
use super::super::disk::Disk;
use super::super::folder::{self, live_path};
use super::super::frame::{FrameFault, FrameHeader, SegmentHeader};
use super::super::live::LiveList;
use super::super::marks::ParcelSet;
use super::super::record::Record;
use super::super::recover::{Part, RecoverError, Recovered, Span, recover};
use super::super::spare::segment_path;
use super::super::{JournalId, Position};
use super::files::{self, Files};
use super::{Checked, Finding, Level, Remedy, short, words};

/// What the records told.
#[derive(Default)]
struct Told {
    entries: u64,
    /// Ranges that an earlier start reported as lost.
    gaps: BTreeSet<(u64, u64)>,
    /// Sequence number and place of the entry before.
    last: Option<(u64, u64)>,
    /// LSNs of entries whose sequence number is not above that of the one before.
    unordered: Vec<(Position, u64)>,
    marks: Vec<(JournalId, ParcelSet)>,
}

pub(super) fn check(
    disk: &impl Disk,
    id: JournalId,
    dir: &Path,
    marks: &mut HashMap<JournalId, ParcelSet>,
) -> io::Result<Checked> {
    let mut findings = Vec::new();
    let mut files = files::look(disk, &id, dir, &mut findings)?;
    let (recovered, told) = read(disk, &id, dir, &mut files, &mut findings)?;
    for (journal, set) in told.marks {
        marks.entry(journal).or_default().insert_all(set);
    }
    let thin: BTreeSet<u64> =
        recovered.spans.iter().filter(|span| span.thin).map(|span| span.segment).collect();
    for lost in &recovered.lost {
        let reported = told.gaps.contains(&(lost.first_lsn, lost.last_lsn));
        let missing = files.numbers.binary_search(&lost.segment).is_err();
        findings.push(words::lost(dir, lost, reported, missing, thin.contains(&lost.segment)));
    }
    if let Some(torn) = recovered.torn {
        findings.push(words::torn(dir, torn, recovered.next_lsn));
    }
    for (at, lsn) in told.unordered {
        findings.push(Finding {
            level: Level::Damage,
            at: Some(at.offset()),
            lsns: Some((lsn, lsn)),
            ..Finding::note(
                segment_path(dir, at.segment()),
                format!("the entry with LSN {lsn} has a sequence number that is not above that of the one before it"),
                "nothing is lost; the order of deliveries around it may be another than that of arrival",
                "reads it as it is",
            )
        });
    }
    headers(disk, &id, dir, &files, &recovered, &mut findings)?;
    spares(disk, dir, &recovered, &mut findings)?;
    for list in files.lists.values().filter(|list| thin.contains(&list.segment)) {
        frames_of_thin(disk, dir, list, &mut findings)?;
    }
    let end =
        recovered.spans.last().map_or(Position::default(), |span| Position::new(span.segment, span.end));
    let first = files.floor.as_ref().map_or(0, |floor| floor.first);
    Ok(Checked {
        id,
        dir: dir.to_owned(),
        segments: recovered.spans.len() as u64,
        entries: told.entries,
        next_lsn: recovered.next_lsn,
        end: end.max(Position::new(first, 0)),
        findings,
    })
}

/// Recovers as a start would; what stops a start is noted and left out.
fn read(
    disk: &impl Disk,
    id: &JournalId,
    dir: &Path,
    files: &mut Files,
    findings: &mut Vec<Finding>,
) -> io::Result<(Recovered, Told)> {
    let lists: BTreeMap<u64, Vec<u8>> =
        files.lists.iter().map(|(number, list)| (*number, list.encode())).collect();
    // A thin segment without a list cannot be read, and its finding is there already.
    let readable = |number: &u64| {
        let thin = files.floor.as_ref().is_some_and(|floor| floor.is_thin(*number));
        !thin || lists.contains_key(number)
    };
    let mut numbers: Vec<u64> = files.numbers.iter().copied().filter(readable).collect();
    loop {
        let mut told = Told::default();
        let load = |number, part| match part {
            Part::List => lists.get(&number).cloned().ok_or_else(|| io::Error::from(io::ErrorKind::NotFound)),
            _ => folder::load(disk, dir, number, part),
        };
        let result =
            recover(&numbers, files.floor.as_ref(), load, |at, lsn, record| told.record(id, at, lsn, record));
        let error = match result {
            Ok(recovered) if recovered.journal.is_none_or(|journal| journal == *id) => {
                return Ok((recovered, told));
            }
            // All of it is of another journal.
            Ok(recovered) => {
                RecoverError::Foreign { segment: recovered.spans.first().map_or(0, |span| span.segment) }
            }
            Err(RecoverError::Io { source, .. }) => return Err(source),
            Err(error) => error,
        };
        // Another file has that name, and by right.
        let has = |number| {
            let bytes = disk.read(&segment_path(dir, number), 0, 2 * BLOCK).unwrap_or_default();
            matches!(SegmentHeader::decode(&bytes), Ok(Some(header)) if header.number == number)
        };
        let Some((finding, out)) = words::stops(dir, &error, has) else { return Ok(Default::default()) };
        findings.push(finding);
        let Some(out) = out else { return Ok((Recovered::default(), Told::default())) };
        numbers.retain(|number| *number != out);
    }
}

impl Told {
    fn record(&mut self, id: &JournalId, at: Position, lsn: u64, record: &Record<'_>) {
        match record {
            Record::Entry(entry) => {
                self.entries += 1;
                if self.last.is_some_and(|(seq, before)| entry.seq <= seq && lsn > before) {
                    self.unordered.push((at, lsn));
                }
                self.last = Some((entry.seq, lsn));
            }
            Record::Marks(marks) => {
                if self.marks.last().is_none_or(|(journal, _)| *journal != marks.journal) {
                    self.marks.push((marks.journal, ParcelSet::default()));
                }
                if let Some((_, set)) = self.marks.last_mut() {
                    marks.iter().for_each(|mark| {
                        set.insert(mark.lsn, mark.slot);
                    });
                }
            }
            Record::Gap { journal, first_lsn, last_lsn } if journal == id => {
                self.gaps.insert((*first_lsn, *last_lsn));
            }
            Record::Gap { .. } => {}
        }
    }
}

/// Both copies of the header of every segment in use.
fn headers(
    disk: &impl Disk,
    id: &JournalId,
    dir: &Path,
    files: &Files,
    recovered: &Recovered,
    findings: &mut Vec<Finding>,
) -> io::Result<()> {
    for (at, span) in recovered.spans.iter().enumerate() {
        let path = segment_path(dir, span.segment);
        let bytes = disk.read(&path, 0, 2 * BLOCK)?;
        let copies = SegmentHeader::copies(&bytes);
        let finding = |found: String, means: &str, start: &str, header: Option<&SegmentHeader>| Finding {
            level: Level::Damage,
            at: Some(0),
            remedy: header.map(|header| Remedy::Patch { bytes: encoded(header) }),
            ..Finding::note(path.clone(), found, means, start)
        };
        match &copies {
            [Ok(one), Ok(other)] if one == other => {}
            [Ok(good), _] | [_, Ok(good)] => {
                let copy = if copies[0].is_ok() { "second" } else { "first" };
                findings.push(finding(
                    format!(
                        "the {copy} copy of the segment's header is damaged or another than the other copy"
                    ),
                    "nothing is lost: the other copy says it all; the disk deserves a look",
                    "uses the good copy",
                    Some(good),
                ));
            }
            // Recovery has said so already; here comes what is to be done about it.
            _ => {
                let before = at.checked_sub(1).map(|before| &recovered.spans[before]);
                let rebuilt = rebuilt(disk, id, dir, files, span, before)?;
                findings.retain(|f| f.file != path || f.at != Some(0) || f.lsns.is_some());
                findings.push(finding(
                    "both copies of the segment's header are damaged".to_owned(),
                    "no record is lost: each frame says by itself where it belongs; but the segment cannot be freed, nor \
                     any behind it",
                    "reads the frames without it, and says so in the log",
                    rebuilt.as_ref(),
                ));
            }
        }
    }
    Ok(())
}

/// The header that a segment must have had: from its list or its first frame, and from where the one before ends.
fn rebuilt(
    disk: &impl Disk,
    id: &JournalId,
    dir: &Path,
    files: &Files,
    span: &Span,
    before: Option<&Span>,
) -> io::Result<Option<SegmentHeader>> {
    let bytes = disk.read(&segment_path(dir, span.segment), super::super::frame::FIRST_FRAME, BLOCK)?;
    let first = FrameHeader::decode(&bytes).ok();
    let list = files.lists.get(&span.segment).filter(|_| span.thin);
    let previous = before.map_or((0, 0), |before| (before.segment, before.end));
    let header = |salt, first_frame, base_lsn, chain, created_at| SegmentHeader {
        journal: *id,
        salt,
        number: span.segment,
        base_lsn,
        first_frame,
        previous: chain,
        previous_segment: previous.0,
        previous_end: previous.1,
        created_at,
    };
    Ok(match (first, list) {
        (Some(first), _) if first.first_lsn == span.lsns.start => {
            Some(header(first.salt, first.number, first.first_lsn, first.previous, first.written_at))
        }
        // Any frame that is still there has the salt; without one nobody asks for it.
        (_, Some(list)) => {
            let row = list.rows.first().map_or(0, |row| row.frame);
            let bytes = disk.read(&segment_path(dir, span.segment), row, BLOCK)?;
            let salt = FrameHeader::decode(&bytes).map(|frame| frame.salt).ok();
            salt.map(|salt| header(salt, list.first_frame, list.base_lsn, Default::default(), 0))
        }
        _ => None,
    })
}

fn encoded(header: &SegmentHeader) -> Vec<u8> {
    let mut buf = AlignedBuf::with_capacity(2 * BLOCK);
    header.encode(&mut buf);
    buf.as_slice().to_vec()
}

/// Segments made ahead, and those that were torn while they were taken into use.
fn spares(
    disk: &impl Disk,
    dir: &Path,
    recovered: &Recovered,
    findings: &mut Vec<Finding>,
) -> io::Result<()> {
    let last = recovered.spans.last().map_or(0, |span| span.segment);
    for number in recovered.spares.iter().filter(|number| **number < last) {
        findings.push(Finding {
            remedy: Some(Remedy::Away),
            level: Level::Damage,
            ..Finding::note(
                segment_path(dir, *number),
                format!("segment {number} has an empty header, and later ones are in use: it was zeroed, or is an old copy"),
                "what was in it is named as lost, if anything was",
                "removes the file",
            )
        });
    }
    for number in &recovered.void {
        let path = segment_path(dir, *number);
        let bytes = disk.read(&path, 0, disk.size(&path)? as usize)?;
        let newer = |block: &&[u8]| {
            FrameHeader::decode(block).is_ok_and(|frame| frame.number >= recovered.next_frame)
        };
        let frames = bytes.chunks(BLOCK).filter(newer).count();
        let text = format!("segment {number} has no header that can be read, and no frame behind it");
        findings.push(if frames == 0 {
            Finding::note(path, text, "nothing: no webhook was written to it", "removes it")
        } else {
            // Most likely: a file that was used before has another journal's frames, whose numbers are higher.
            Finding {
                remedy: Some(Remedy::Away),
                ..Finding::note(
                    path,
                    format!("{text}; {frames} blocks further on are frames of an earlier use, or of this one"),
                    "nothing if the gateway was only killed; if the disk is failing, records in them may have been \
                     acknowledged, and cannot be proven to belong here",
                    "removes it: if in doubt, let --repair put it aside",
                )
            }
        });
    }
    Ok(())
}

/// The blocks of a thin segment that are kept for more than their records.
fn frames_of_thin(
    disk: &impl Disk,
    dir: &Path,
    list: &LiveList,
    findings: &mut Vec<Finding>,
) -> io::Result<()> {
    let path = segment_path(dir, list.segment);
    for rows in list.rows.chunk_by(|a, b| a.frame == b.frame) {
        let row = rows[0];
        let bytes = disk.read(&path, row.frame, BLOCK)?;
        let fault = match FrameHeader::decode(&bytes) {
            Ok(header) if (header.first_lsn..header.next_lsn()).contains(&row.lsn) => continue,
            Ok(_) => FrameFault::Chain,
            Err(fault) => fault,
        };
        findings.push(Finding {
            level: Level::Damage,
            at: Some(row.frame),
            ..Finding::note(
                path.clone(),
                format!("header of a frame of a thin segment: {fault}"),
                "nothing is lost: each record there has its own checksum; only when the frame was written is unknown",
                "reads the records without it",
            )
        });
    }
    let rises =
        |pair: &[super::super::live::LiveRow]| (pair[0].lsn, pair[0].slot) < (pair[1].lsn, pair[1].slot);
    if !list.rows.windows(2).all(rises) || list.rows.iter().any(|row| row.slot >= row.slots) {
        findings.push(Finding {
            level: Level::Damage,
            ..Finding::note(
                live_path(dir, list.segment),
                format!(
                    "its checksum is right, and its rows do not rise, in journal {}: written wrong",
                    short(&list.journal)
                ),
                "parcels may be missing in it",
                "reads it as it is",
            )
        });
    }
    Ok(())
}

impl Checked {
    /// The file that says how far the journal is archived.
    pub fn archive_progress(&self, data_dir: &Path) -> PathBuf {
        data_dir.join("archive").join(format!("{}.json", super::hex(&self.id)))
    }
}
