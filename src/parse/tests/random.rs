//! Random bodies: whatever comes, the parser says what the reference says.

use std::collections::HashMap;

use serde_json::{Value, json};

use super::style::{Style, write};
use super::*;

/// Values by canonical form, and the other way round.
#[derive(Default)]
struct Values {
    by_form: HashMap<Vec<u8>, u64>,
    forms: HashMap<u64, Vec<u8>>,
}

impl Values {
    /// Two events have the same value if and only if their canonical forms are the same.
    fn check(&mut self, kind: SourceKind, body: &[u8]) {
        for event in parse(kind, body).1.iter().filter(|event| event.kind != EventKind::Opaque) {
            let element: Value = serde_json::from_slice(&body[event.range.clone()]).unwrap();
            let mut form = Vec::new();
            reference::canonical(&element, &mut form);
            assert_eq!(*self.by_form.entry(form.clone()).or_insert(event.value), event.value, "{element}");
            assert_eq!(*self.forms.entry(event.value).or_insert(form.clone()), form, "{element}");
        }
    }
}

/// The fast parser and the reference agree on `body`, event by event.
fn agree(kind: SourceKind, body: &[u8]) {
    let shown = || String::from_utf8_lossy(body).into_owned();
    let (parsed, mut events) = parse(kind, body);
    let mut end = 0;
    for event in &events {
        assert!(event.range.start >= end && event.range.end <= body.len(), "ranges overlap in {}", shown());
        end = event.range.end;
    }
    match reference::events(kind, body) {
        Err(_) => {
            assert!(matches!(parsed, Parsed::Opaque(_)), "should be opaque: {}", shown());
            let [only] = &events[..] else { panic!("one event expected: {}", shown()) };
            assert_eq!((only.kind, only.range.clone()), (EventKind::Opaque, 0..body.len()));
            assert!(only.users.is_empty());
        }
        Ok(mut expected) => {
            assert_eq!(parsed, Parsed::Understood { events: expected.len() }, "{}", shown());
            assert_eq!(events.len(), expected.len());
            // `serde_json` forgets the order of members, and with it the order of lists.
            events.sort_by_key(|event| (event.key, event.kind, event.number.clone(), event.users.clone()));
            for one in &mut expected {
                one.users.sort();
            }
            for one in &mut events {
                one.users.sort();
            }
            expected.sort_by_key(|event| (event.key, event.kind, event.number.clone(), event.users.clone()));
            events.sort_by_key(|event| (event.key, event.kind, event.number.clone(), event.users.clone()));
            for (event, expected) in events.iter().zip(&expected) {
                assert_eq!(event.key, expected.key, "key of {} in {}", expected.element, shown());
                assert_eq!(event.kind, expected.kind, "{}", shown());
                assert_eq!(event.number, expected.number, "{}", shown());
                assert_eq!(event.account, expected.account, "{}", shown());
                assert_eq!(event.more_users, expected.more_users, "{}", shown());
                if !event.more_users {
                    assert_eq!(event.users, expected.users, "{}", shown());
                }
            }
            let element =
                |event: &Owned| -> Value { serde_json::from_slice(&body[event.range.clone()]).unwrap() };
            let mut texts: Vec<_> = events.iter().map(|event| element(event).to_string()).collect();
            let mut wanted: Vec<_> = expected.iter().map(|event| event.element.to_string()).collect();
            texts.sort();
            wanted.sort();
            assert_eq!(texts, wanted, "ranges of {}", shown());
        }
    }
}

/// How many random bodies a run tries; a hundred times that with `SIM_LONG` set.
fn rounds() -> usize {
    if std::env::var_os("SIM_LONG").is_some() { 300_000 } else { 3_000 }
}

#[test]
fn samples_agree_with_the_reference_in_every_style() {
    let mut rng = Rng::from_env();
    let mut values = Values::default();
    for (name, kind, body) in sample_bodies() {
        println!("{name}");
        agree(kind, &body);
        values.check(kind, &body);
        let value: Value = serde_json::from_slice(&body).unwrap();
        let mut keys: Vec<Key> = parse(kind, &body).1.iter().map(|event| event.key).collect();
        keys.sort();
        for _ in 0..20 {
            let style = Style::any(&mut rng);
            let styled = write(&value, style, &mut rng);
            agree(kind, &styled);
            values.check(kind, &styled);
            let mut others: Vec<Key> = parse(kind, &styled).1.iter().map(|event| event.key).collect();
            others.sort();
            // What is not understood is known by its bytes alone.
            let opaque = parse(kind, &styled).1.iter().any(|event| event.kind == EventKind::Opaque);
            assert!(
                opaque || keys == others,
                "{name}: keys do not depend on white space, escapes, order of members"
            );
        }
    }
}

#[test]
fn mutated_structures_agree_with_the_reference() {
    let mut rng = Rng::from_env();
    let mut values = Values::default();
    let bodies = sample_bodies();
    for _ in 0..rounds() {
        let (_, kind, body) = rng.pick(&bodies);
        let (_, _, other) = rng.pick(&bodies);
        let mut value: Value = serde_json::from_slice(body).unwrap();
        let other: Value = serde_json::from_slice(other).unwrap();
        for _ in 0..=rng.below(4) {
            mutate(&mut value, &other, &mut rng);
        }
        let doubles = rng.one_in(3);
        let style = Style { doubles, ..Style::any(&mut rng) };
        let body = write(&value, style, &mut rng);
        agree(*kind, &body);
        values.check(*kind, &body);
    }
}

#[test]
fn mutated_bytes_agree_with_the_reference() {
    let mut rng = Rng::from_env();
    let bodies = sample_bodies();
    for _ in 0..rounds() {
        let (_, kind, body) = rng.pick(&bodies);
        let mut body = body.clone();
        for _ in 0..=rng.below(3) {
            let at = rng.below(body.len().max(1)).min(body.len());
            match rng.below(5) {
                0 => body.truncate(at),
                1 if at < body.len() => body[at] ^= 1 << rng.below(8),
                2 if at < body.len() => drop(body.remove(at)),
                3 => body.insert(at, *rng.pick(b"{}[]:,\"\\ 0u\x00\xff\xc3tn")),
                _ => {
                    let part = body[at..].iter().take(rng.below(40)).copied().collect::<Vec<_>>();
                    body.splice(at..at, part);
                }
            }
        }
        // `serde_json` makes `-0` a double, the parser an integer: both say zero.
        if !body.windows(2).any(|pair| pair == b"-0") {
            agree(*kind, &body);
        }
    }
}

/// One random change somewhere inside.
pub(crate) fn mutate(value: &mut Value, other: &Value, rng: &mut Rng) {
    let deeper = !rng.one_in(6);
    match value {
        Value::Object(map) if deeper && !map.is_empty() => {
            let name = map.keys().nth(rng.below(map.len())).unwrap().clone();
            return mutate(&mut map[&name], other, rng);
        }
        Value::Array(list) if deeper && !list.is_empty() => {
            let at = rng.below(list.len());
            return mutate(&mut list[at], other, rng);
        }
        _ => {}
    }
    match (rng.below(6), &mut *value) {
        (0, Value::Object(map)) if !map.is_empty() => {
            let name = map.keys().nth(rng.below(map.len())).unwrap().clone();
            map.remove(&name);
        }
        (1, Value::Object(map)) => {
            const NAMES: [&str; 14] = [
                "messages",
                "statuses",
                "message_echoes",
                "calls",
                "history",
                "groups",
                "errors",
                "standby",
                "contacts",
                "metadata",
                "type",
                "id",
                "from",
                "system",
            ];
            map.insert((*rng.pick(&NAMES)).into(), part_of(other, rng));
        }
        (2, Value::Array(list)) if !list.is_empty() => {
            let copy = rng.pick(list).clone();
            list.push(copy);
        }
        (3, Value::Array(list)) => list.push(part_of(other, rng)),
        (4, _) => *value = part_of(other, rng),
        _ => {
            let deep = (0..rng.below(70)).fold(json!(1.5), |inner, _| json!([inner]));
            let choices = [
                json!(null),
                json!(""),
                json!(5),
                json!([]),
                json!({}),
                json!("IN.12345678"),
                json!([[], 7, {}]),
                json!("+44 7700 900123"),
                json!("group"),
                json!("é😀\n\u{0}"),
                json!(true),
                json!(-3),
                deep,
                json!({"id": "919876500001", "messages": [{"id": "x", "to": "5561991230001", "type": "text"}]}),
                json!({"wa_id": "4915112345678", "user_id": "DE.ENT.5", "parent_user_id": "DE.5"}),
            ];
            *value = rng.pick(&choices).clone();
        }
    }
}

/// Some value inside `value`.
fn part_of(value: &Value, rng: &mut Rng) -> Value {
    let inner = match value {
        Value::Object(map) if !map.is_empty() => map.values().nth(rng.below(map.len())),
        Value::Array(list) if !list.is_empty() => Some(&list[rng.below(list.len())]),
        _ => None,
    };
    match inner {
        Some(inner) if !rng.one_in(4) => part_of(inner, rng),
        _ => value.clone(),
    }
}
