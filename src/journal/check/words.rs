//! What recovery's verdicts mean, for a person.

use std::path::{Path, PathBuf};

use super::super::folder::live_path;
use super::super::frame::FrameFault;
use super::super::recover::{Lost, RecoverError};
use super::super::spare::segment_path;
use super::{Finding, Level, Remedy};

/// Records that were durable and are lost. `told`: an earlier start found and reported them.
pub(super) fn lost(dir: &Path, lost: &Lost, told: bool, missing: bool, thin: bool) -> Finding {
    let Lost { first_lsn, last_lsn, segment, at, fault } = lost;
    let some = last_lsn >= first_lsn;
    let found = match fault {
        _ if missing => format!("segment {segment} is not there, and should be"),
        FrameFault::Chain if *at == 0 => {
            format!(
                "what follows segment {segment} does not go on where the segments before it end: segments are missing"
            )
        }
        _ if thin => "a record that waits was damaged".to_owned(),
        FrameFault::HeaderCrc if *at == 0 => "both copies of the segment's header are damaged".to_owned(),
        FrameFault::Chain => {
            "a frame that does not follow the one before it: blocks are old, doubled or misplaced".to_owned()
        }
        FrameFault::NoFrame => "no frame where one was: a block is zero, or not of this journal".to_owned(),
        FrameFault::Salt => "a frame of an earlier use of the file, where one of this use was".to_owned(),
        fault => format!("a frame was damaged: {fault}"),
    };
    let (means, start) = match (some, told) {
        (false, _) => ("no record is lost".to_owned(), "reads what is behind it, and says so in the log".to_owned()),
        (true, true) => (
            format!("LSN {first_lsn} to {last_lsn} are lost; an earlier start has reported that"),
            "nothing more: it was reported".to_owned(),
        ),
        (true, false) => (
            format!(
                "LSN {first_lsn} to {last_lsn} are lost: webhooks among them were answered 200 and are not delivered any \
                 more, unless they were before; all records behind them are kept"
            ),
            "journal.on_damage = \"continue\": reports this range and goes on behind it; \"halt\": refuses to start"
                .to_owned(),
        ),
    };
    Finding {
        level: if told && some { Level::Note } else { Level::Damage },
        file: segment_path(dir, *segment),
        at: Some(*at),
        lsns: some.then_some((*first_lsn, *last_lsn)),
        found,
        means,
        start,
        // What is lost only a copy brings back.
        remedy: None,
    }
}

/// The journal ends in a write that was not finished.
pub(super) fn torn(dir: &Path, (segment, at): (u64, u64), next_lsn: u64) -> Finding {
    Finding {
        at: Some(at),
        ..Finding::note(
            segment_path(dir, segment),
            format!("the last write was not finished: the journal ends here, before LSN {next_lsn}"),
            "nothing: no webhook in it was answered 200 (damage to the very last frame looks the same)",
            "cuts it off and goes on in the next segment",
        )
    }
}

/// Why recovery ends before it has read all. The file that is in the way, if it can go.
pub(super) fn stops(
    dir: &Path,
    error: &RecoverError,
    has: impl Fn(u64) -> bool,
) -> Option<(Finding, Option<u64>)> {
    let finding = |file: PathBuf, found: String, means: &str, remedy| Finding {
        level: Level::Stops,
        remedy,
        ..Finding::note(file, found, means, "refuses to start")
    };
    Some(match error {
        // Lists are looked at before, and those that are missing are made anew or left out.
        RecoverError::Io { .. } | RecoverError::NoList { .. } => return None,
        RecoverError::Newer { segment, at, .. } => {
            let means = "nothing is lost: start the version that wrote it";
            let file = segment_path(dir, *segment);
            (Finding { at: Some(*at), ..finding(file, error.to_string(), means, None) }, None)
        }
        RecoverError::Foreign { segment } => {
            let found = format!("segment {segment} belongs to another journal");
            let means = "what is in it is not of this journal; the segment that had this number, if there was one, is missing";
            (finding(segment_path(dir, *segment), found, means, Some(Remedy::Away)), Some(*segment))
        }
        RecoverError::Misnamed { segment, says } => {
            let found =
                format!("this is the file of segment {says}: it was renamed, or put back under a wrong name");
            let means = "nothing is lost as long as the file is kept";
            let remedy =
                if has(*says) { Remedy::Away } else { Remedy::Rename { to: segment_path(dir, *says) } };
            (finding(segment_path(dir, *segment), found, means, Some(remedy)), Some(*segment))
        }
        // The lists that are handed to recovery were read before.
        RecoverError::List { segment, fault } => {
            let means = "nothing is lost: start the version that wrote it";
            (finding(live_path(dir, *segment), fault.to_string(), means, None), None)
        }
    })
}
