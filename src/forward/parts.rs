//! Which conversations the events of a parcel are of; and what one that was refused twice is cut into: a part
//! per conversation.
//!
//! Events that share a conversation stay together, and with them all conversations they bring along; events
//! without one are a part of their own. A part's number is its place by first event among all parts that the
//! webhook's slot has, whatever of it is a repeat by now: the same after every restart.
//!
//! The journal knows which conversations the events of a slot are of, not of which event each is. So the webhook
//! is parsed once more where that matters, which is rare: for a part, and for a parcel of which some is a
//! repeat. Pure.

use std::collections::HashMap;

use super::book::Part;
use super::item::Item;
use crate::config::SourceKind;
use crate::entry::Meta;
use crate::fault;
use crate::parse::{Event, Key, Parser, conversations};

/// The conversations of each event of a webhook; `None`: this version reads it otherwise than the one that
/// stored it.
fn read(parser: &mut Parser, body: &[u8], meta: &Meta<'_>) -> Option<Vec<Vec<u64>>> {
    let kind = if meta.wasender() { SourceKind::Wasender } else { SourceKind::Whatsapp };
    let mut found: Vec<(Key, Vec<u64>)> = Vec::with_capacity(meta.events().len());
    parser.parse(kind, body, &mut |event: &Event<'_>| {
        found.push((event.key, conversations(event.number, event.users).collect()));
    });
    let same = meta.events().len() == found.len()
        && meta.events().zip(&found).all(|(row, (key, _))| row.key == *key);
    same.then(|| found.into_iter().map(|(_, conversations)| conversations).collect())
}

/// Places of the events in the slot of `item`.
fn mine<'a>(meta: &'a Meta<'_>, item: &'a Item) -> impl Iterator<Item = u32> + 'a {
    meta.events().zip(0u32..).filter(|(row, _)| row.slot == item.slot).map(|(_, place)| place)
}

/// The conversations of those events of `item` that go out, each once, rising: it stands in no other lane.
/// `None`: as with [`parts`].
pub fn outgoing(parser: &mut Parser, body: &[u8], meta: &Meta<'_>, item: &Item) -> Option<Vec<u64>> {
    let of = read(parser, body, meta)?;
    let held = mine(meta, item).filter(|place| item.holds(*place));
    let mut conversations: Vec<u64> = held.flat_map(|place| &of[place as usize]).copied().collect();
    conversations.sort_unstable();
    conversations.dedup();
    // All of the slot's are in the journal: others would be those of another order.
    let stored: Vec<u64> = meta.conversations(item.slot).collect();
    conversations.iter().all(|conversation| stored.contains(conversation)).then_some(conversations)
}

/// The parts of `item`, at least two; `None`: it has only one, or this version reads the webhook otherwise
/// than the one that stored it.
pub fn parts(parser: &mut Parser, body: &[u8], meta: &Meta<'_>, item: &Item) -> Option<Vec<Part>> {
    let of = read(parser, body, meta)?;
    let mut groups = Groups::default();
    for place in mine(meta, item) {
        groups.join(place, &of[place as usize]);
    }
    let mut parts: Vec<(u16, Vec<u64>, Vec<u32>)> = Vec::new();
    let mut number_of: HashMap<u32, usize> = HashMap::new();
    for place in mine(meta, item) {
        let group = groups.root(place);
        let at = *number_of.entry(group).or_insert(parts.len());
        if at == parts.len() {
            parts.push((u16::try_from(at + 1).ok()?, Vec::new(), Vec::new()));
        }
        let (_, conversations, events) = &mut parts[at];
        if item.holds(place) && (events.is_empty() || !fault::planted("part-loses-an-event")) {
            conversations.extend(&of[place as usize]);
            events.push(place);
        }
    }
    parts.retain(|(_, _, events)| !events.is_empty());
    if parts.len() < 2 {
        return None;
    }
    if fault::planted("parts-numbered-anew") {
        (1..).zip(&mut parts).for_each(|(number, part)| part.0 = number);
    }
    let parts: Vec<Part> = parts
        .into_iter()
        .map(|(number, mut conversations, events)| {
            conversations.sort_unstable();
            conversations.dedup();
            Part { number, conversations, events: events.into() }
        })
        .collect();
    Some(parts)
}

/// Events that belong together: a forest in which each points to an earlier one, or to itself.
#[derive(Default)]
struct Groups {
    before: HashMap<u32, u32>,
    /// The first event of each conversation.
    first: HashMap<u64, u32>,
    /// The first event without a conversation.
    nobody: Option<u32>,
}

impl Groups {
    /// Adds an event; places must rise.
    fn join(&mut self, place: u32, conversations: &[u64]) {
        self.before.insert(place, place);
        if conversations.is_empty() {
            let first = *self.nobody.get_or_insert(place);
            self.unite(first, place);
        }
        for conversation in conversations {
            let first = *self.first.entry(*conversation).or_insert(place);
            self.unite(first, place);
        }
    }

    fn unite(&mut self, one: u32, other: u32) {
        let (one, other) = (self.root(one), self.root(other));
        self.before.insert(one.max(other), one.min(other));
    }

    /// The first event of a group; shortens the way there.
    fn root(&mut self, place: u32) -> u32 {
        let mut at = place;
        while let Some(&before) = self.before.get(&at).filter(|before| **before != at) {
            let further = self.before.get(&before).copied().unwrap_or(before);
            self.before.insert(at, further);
            at = further;
        }
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::{EventRow, Verdict};
    use crate::journal::buffer::AlignedBuf;

    /// A webhook with one event for each: of these users, or of nobody; all of slot 0 but where `other` says.
    fn webhook(events: &[&[&str]], other: &[usize]) -> (Vec<u8>, Vec<u8>) {
        let changes = events.iter().enumerate().map(|(n, users)| match users {
            [] => format!(r#"{{"field":"account_update","value":{{"event":"E{n}"}}}}"#),
            [user] => change(&format!(r#""messages":[{{"from":"{user}","id":"w{n}","type":"text"}}]"#)),
            [user, then] => change(&format!(
                r#""messages":[{{"from":"{user}","id":"w{n}","type":"system","system":{{"type":"user_changed_number","wa_id":"{then}"}}}}]"#
            )),
            _ => panic!("at most two users"),
        });
        let changes = changes.collect::<Vec<_>>().join(",");
        let body = format!(
            r#"{{"object":"whatsapp_business_account","entry":[{{"id":"2","changes":[{changes}]}}]}}"#
        );
        let mut verdict = Verdict::default();
        let (mine, others) = (verdict.slot(1), verdict.slot(2));
        let mut n = 0;
        Parser::new().parse(SourceKind::Whatsapp, body.as_bytes(), &mut |event: &Event<'_>| {
            let slot = if other.contains(&n) { others } else { mine };
            n += 1;
            let row = EventRow { key: event.key, value: event.value, slot, kind: event.kind as u8 };
            verdict.push(row, event.users);
            verdict.conversations.extend(conversations(event.number, event.users).map(|c| (slot, c)));
        });
        assert_eq!(n, events.len(), "{body}");
        verdict.finish();
        let mut meta = AlignedBuf::with_capacity(0);
        verdict.write(&mut meta);
        (body.into_bytes(), meta.as_slice().to_vec())
    }

    fn change(messages: &str) -> String {
        format!(
            r#"{{"field":"messages","value":{{"messaging_product":"whatsapp","metadata":{{"phone_number_id":"1"}},{messages}}}}}"#
        )
    }

    /// Number and events of each part.
    fn cut(events: &[&[&str]], other: &[usize], item: &Item) -> Option<Vec<(u16, Vec<u32>)>> {
        let (body, meta) = webhook(events, other);
        let meta = Meta::read(&meta).unwrap();
        let parts = parts(&mut Parser::new(), &body, &meta, item)?;
        let mut all: Vec<u64> = parts.iter().flat_map(|part| part.conversations.clone()).collect();
        all.sort_unstable();
        let lanes = outgoing(&mut Parser::new(), &body, &meta, item).unwrap();
        assert_eq!(all, lanes, "every lane is in one part");
        if item.is_whole() {
            let mut stored: Vec<u64> = meta.conversations(item.slot).collect();
            stored.sort_unstable();
            assert_eq!(lanes, stored);
        }
        Some(parts.iter().map(|part| (part.number, part.events.to_vec())).collect())
    }

    const A: &[&str] = &["15550000001"];
    const B: &[&str] = &["15550000002"];
    const C: &[&str] = &["15550000003"];

    #[test]
    fn each_conversation_is_a_part_and_so_is_what_has_none() {
        let whole = Item::default();
        let found = cut(&[B, A, &[], B, C, &[]], &[], &whole).unwrap();
        assert_eq!(found, [(1, vec![0, 3]), (2, vec![1]), (3, vec![2, 5]), (4, vec![4])]);
        assert_eq!(cut(&[A, A], &[], &whole), None, "one conversation is not cut");
        assert_eq!(cut(&[A, B, C], &[1, 2], &whole), None, "others' events are not its own");
        assert_eq!(cut(&[C, B, A], &[1], &whole).unwrap(), [(1, vec![0]), (2, vec![2])]);
    }

    #[test]
    fn numbers_stay_when_some_of_it_is_a_repeat() {
        let item = |repeats: &[u32]| Item { repeats: Some(repeats.into()), ..Item::default() };
        assert_eq!(cut(&[A, B, C, A], &[], &item(&[0, 3])).unwrap(), [(2, vec![1]), (3, vec![2])]);
        assert_eq!(cut(&[A, B, C], &[], &item(&[0, 1])), None);
    }

    #[test]
    fn webhook_that_reads_otherwise_than_when_it_was_stored_is_not_cut() {
        let (body, _) = webhook(&[A, B], &[]);
        let (_, meta) = webhook(&[A, C, B], &[]);
        let meta = Meta::read(&meta).unwrap();
        assert!(parts(&mut Parser::new(), &body, &meta, &Item::default()).is_none());
    }
}
