//! The archives' part of the books: every accepted webhook once in the archive of each of its regions. Pure.
//!
//! A webhook that was accepted several times is kept as often: an archive tells what came, a region what
//! was new. One without an answer may be kept or not, since its sender could not know either.

use std::collections::HashMap;

use super::super::events::{Digest, Event};
use super::Posted;

/// One record of a region's archive.
#[derive(Debug, Clone)]
pub struct Archived {
    pub region: String,
    /// Of the whole body, as the record says.
    pub digest: Digest,
    /// Of what the record holds of the body.
    pub body: Digest,
    /// Of what the record holds of the body; empty if that is not one of Meta's.
    pub events: Vec<Event>,
}

/// What the archives have.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Kept {
    /// Records that must be there: one per accepted webhook and region.
    pub due: usize,
    pub missing: usize,
    /// Kept twice, where it does not belong, or of what nobody sent or was refused.
    pub extra: usize,
    /// Holding something else than the webhook, or than the region's events of it.
    pub altered: usize,
}

impl Kept {
    pub fn is_balanced(&self) -> bool {
        self.missing + self.extra + self.altered == 0
    }
}

/// What is due of one body in one archive.
struct Due<'a> {
    posted: &'a Posted,
    least: usize,
    most: usize,
    found: usize,
}

/// Holds the records against what was posted.
pub(super) fn audit(posted: &[Posted], records: &[Archived]) -> Kept {
    let mut due: HashMap<(Digest, &str), Due<'_>> = HashMap::new();
    for posted in posted.iter().filter(|posted| posted.genuine) {
        let mut regions: Vec<&str> = posted.events.iter().map(|(_, region)| region.as_str()).collect();
        regions.sort_unstable();
        regions.dedup();
        for region in regions {
            let due =
                due.entry((posted.digest, region)).or_insert(Due { posted, least: 0, most: 0, found: 0 });
            due.least += usize::from(posted.is_accepted());
            due.most += 1;
        }
    }
    let mut kept = Kept { due: due.values().map(|due| due.least).sum(), ..Kept::default() };
    for record in records {
        match due.get_mut(&(record.digest, record.region.as_str())) {
            Some(due) => {
                due.found += 1;
                kept.altered += usize::from(!holds(record, due.posted));
            }
            None => kept.extra += 1,
        }
    }
    for due in due.values() {
        kept.missing += due.least.saturating_sub(due.found);
        kept.extra += due.found.saturating_sub(due.most);
    }
    kept
}

/// True if the record has all the region's events and no other, and the very bytes where all are the region's.
fn holds(record: &Archived, posted: &Posted) -> bool {
    let own = posted.events.iter().filter(|(_, region)| *region == record.region);
    let whole = own.clone().count() == posted.events.len();
    own.map(|(event, _)| event).eq(&record.events) && (!whole || record.body == record.digest)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// A webhook whose body has this digest: an event in europe and, if `mixed`, one in asia.
    fn posted(digest: u8, mixed: bool) -> Posted {
        let event = |name: &str| Event { id: name.to_owned(), conversation: None, digest: [digest; 32] };
        let mut events = vec![(event("e"), "europe".to_owned())];
        events.extend(mixed.then(|| (event("a"), "asia".to_owned())));
        let (begun, answered) = (Duration::ZERO, Duration::ZERO);
        Posted { events, digest: [digest; 32], genuine: true, status: 200, begun, answered }
    }

    fn record(posted: &Posted, region: &str) -> Archived {
        let own = posted.events.iter().filter(|(_, home)| home == region);
        let events: Vec<Event> = own.map(|(event, _)| event.clone()).collect();
        let body = if events.len() == posted.events.len() { posted.digest } else { [0xee; 32] };
        Archived { region: region.to_owned(), digest: posted.digest, body, events }
    }

    /// A webhook of europe that was accepted twice and one over two regions, all kept; then what `change` does.
    fn check(change: impl FnOnce(&mut Vec<Posted>, &mut Vec<Archived>), expected: Kept) {
        let (one, two) = (posted(1, false), posted(2, true));
        let mut records = vec![record(&one, "europe"), record(&one, "europe")];
        records.extend([record(&two, "europe"), record(&two, "asia")]);
        let mut webhooks = vec![one.clone(), one, two];
        change(&mut webhooks, &mut records);
        assert_eq!(audit(&webhooks, &records), expected);
    }

    fn kept(due: usize, missing: usize, extra: usize, altered: usize) -> Kept {
        let kept = Kept { due, missing, extra, altered };
        assert_eq!(kept.is_balanced(), missing + extra + altered == 0);
        kept
    }

    #[test]
    fn repeats_and_parts_are_each_due_once() {
        check(|_, _| {}, kept(4, 0, 0, 0));
    }

    #[test]
    fn missing_record_is_noticed_and_a_repeat_s_too() {
        check(|_, records| drop(records.pop()), kept(4, 1, 0, 0));
        check(|_, records| drop(records.remove(0)), kept(4, 1, 0, 0));
        check(|_, records| records.clear(), kept(4, 4, 0, 0));
    }

    #[test]
    fn record_that_should_not_be_there_is_noticed() {
        check(|_, records| records.push(records[3].clone()), kept(4, 0, 1, 0));
        check(|_, records| records.push(record(&posted(9, false), "europe")), kept(4, 0, 1, 0));
        check(|_, records| records[3].region = "americas".to_owned(), kept(4, 1, 1, 0));
        let forged = |webhooks: &mut Vec<Posted>, records: &mut Vec<Archived>| {
            let forged = Posted { genuine: false, status: 401, ..posted(3, false) };
            records.push(record(&forged, "europe"));
            webhooks.push(forged);
        };
        check(forged, kept(4, 0, 1, 0));
    }

    #[test]
    fn record_with_another_content_is_noticed() {
        check(|_, records| records[0].body = [9; 32], kept(4, 0, 0, 1));
        check(|_, records| records[3].events[0].digest = [9; 32], kept(4, 0, 0, 1));
        check(|_, records| records[3].events.clear(), kept(4, 0, 0, 1));
    }

    #[test]
    fn webhook_without_an_answer_may_be_kept_or_not() {
        check(|webhooks, _| webhooks[1].status = 0, kept(3, 0, 0, 0));
        let not_kept = |webhooks: &mut Vec<Posted>, records: &mut Vec<Archived>| {
            webhooks[1].status = 0;
            records.remove(1);
        };
        check(not_kept, kept(3, 0, 0, 0));
    }
}
