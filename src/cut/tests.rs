//! What a parcel must hold and what it must never hold.

use std::collections::HashMap;

use serde_json::{Value, json};

use super::*;
use crate::parse::EventKind;
use crate::parse::tests::random::mutate;
use crate::parse::tests::style::{Style, write};
use crate::parse::tests::{Owned, Rng, parse, sample_bodies};

fn cut(
    kind: SourceKind,
    body: &[u8],
    keep: impl Fn(usize) -> bool,
    is_default: bool,
) -> (CutReport, Vec<u8>) {
    let mut out = Vec::new();
    let report = Cutter::new().cut(kind, body, keep, is_default, &mut out);
    (report, out)
}

fn cut_text(name: &str, keep: &[usize], is_default: bool) -> String {
    let bodies = sample_bodies();
    let (_, kind, body) = bodies.iter().find(|(other, ..)| other == name).unwrap();
    String::from_utf8(cut(*kind, body, |index| keep.contains(&index), is_default).1).unwrap()
}

/// The texts of the events of a body.
fn texts(kind: SourceKind, body: &[u8]) -> Vec<String> {
    let text = |event: &Owned| String::from_utf8(body[event.range.clone()].to_vec()).unwrap();
    parse(kind, body).1.iter().map(text).collect()
}

#[test]
fn a_batch_falls_apart_into_its_regions() {
    let name = "own-batch-two-regions.json";
    let india = cut_text(name, &[0, 2, 4], false);
    let expected = concat!(
        r#"{"object":"whatsapp_business_account","entry":[{"id":"215900000000001","changes":[{"value":{"messaging_product":"#,
        r#""whatsapp","metadata":{"display_phone_number":"15550783100","phone_number_id":"106500000000101"},"contacts":["#,
        r#"{"profile":{"name":"Priya Sharma"},"wa_id":"919876500001","user_id":"IN.9131506428720012"}],"messages":["#,
        r#"{"id":"wamid.B1","timestamp":"1789400020","type":"text","text":{"body":"Body B1"},"from":"919876500001","#,
        r#""from_user_id":"IN.9131506428720012"},{"id":"wamid.B3","timestamp":"1789400020","type":"text","text":"#,
        r#"{"body":"Body B3"},"from_user_id":"IN.9131506428720012"}]},"field":"messages"},{"field":"messages","value":"#,
        r#"{"messaging_product":"whatsapp","metadata":{"display_phone_number":"15550783100","phone_number_id":"#,
        r#""106500000000101"},"statuses":[{"id":"wamid.B4","status":"sent","timestamp":"1789400021","recipient_id":"#,
        r#""919876500001"}]}}]}]}"#,
    );
    assert_eq!(india, expected);
    let default = cut_text(name, &[3, 6], true);
    assert!(
        default.contains("Nobody Here") && default.contains("131000") && default.contains("ACCOUNT_DELETED")
    );
    assert!(!default.contains("9198765") && !default.contains("4477009") && !default.contains("statuses"));
    let britain = cut_text(name, &[1, 5], false);
    assert!(
        !britain.contains("Nobody Here")
            && !britain.contains("errors")
            && !britain.contains("account_update")
    );
}

#[test]
fn history_is_cut_per_thread_and_groups_per_element() {
    let history = cut_text("own-history.json", &[3], false);
    let value: Value = serde_json::from_str(&history).unwrap();
    let chunk = &value["entry"][0]["changes"][0]["value"]["history"][0];
    assert_eq!(chunk["threads"].as_array().unwrap().len(), 1);
    assert_eq!(chunk["threads"][0]["id"], "IN.7777777777777777");
    assert_eq!(chunk["metadata"]["progress"], 55);
    let group = cut_text("group-participants-update.json", &[1], false);
    let value: Value = serde_json::from_str(&group).unwrap();
    let groups = value["entry"][0]["changes"][0]["value"]["groups"].as_array().unwrap();
    assert_eq!(groups.len(), 1);
    assert_eq!(groups[0]["removed_participants"][0]["wa_id"], "12025550123");
}

#[test]
fn of_a_doubled_member_only_the_one_that_was_read_is_left() {
    let body = br#"{"object":"whatsapp_business_account","entry":[{"changes":[{"field":"messages","value":
        {"messages":[{"id":"secret"}],"contacts":[{"wa_id":"4477009001230"}],"contacts":[],
        "messages":[{"id":"a"},{"id":"b"}]}}]}]}"#;
    let (report, out) = cut(SourceKind::Whatsapp, body, |index| index == 1, false);
    assert_eq!(report.events, 1);
    let expected = r#"{"object":"whatsapp_business_account","entry":[{"changes":[{"field":"messages","value":{"contacts":[],"messages":[{"id":"b"}]}}]}]}"#;
    assert_eq!(String::from_utf8(out).unwrap(), expected);
}

#[test]
fn a_body_that_is_not_understood_goes_whole_or_not_at_all() {
    let (report, out) = cut(SourceKind::Whatsapp, b"\xff not JSON", |_| true, true);
    assert_eq!((report.events, &out[..]), (1, &b"\xff not JSON"[..]));
    let (report, out) = cut(SourceKind::Whatsapp, b"\xff not JSON", |_| false, true);
    assert_eq!((report.events, out.len()), (0, 0));
}

/// Any subset of any body's events: valid JSON with exactly these events, byte for byte.
#[test]
fn a_parcel_has_exactly_the_events_that_were_kept() {
    let mut rng = Rng::from_env();
    let bodies = sample_bodies();
    for (name, kind, body) in &bodies {
        for round in 0..60 {
            let mut value: Value = serde_json::from_slice(body).unwrap();
            if round > 30 {
                let other = serde_json::from_slice(&rng.pick(&bodies).2).unwrap();
                (0..=rng.below(3)).for_each(|_| mutate(&mut value, &other, &mut rng));
            }
            let style = Style { doubles: rng.one_in(4), ..Style::any(&mut rng) };
            let styled = if round == 0 { body.clone() } else { write(&value, style, &mut rng) };
            let all = texts(*kind, &styled);
            let flags: Vec<bool> = all.iter().map(|_| round == 0 || rng.one_in(2)).collect();
            let mut out = b"before".to_vec();
            let report = Cutter::new().cut(*kind, &styled, |index| flags[index], true, &mut out);
            let out = out.strip_prefix(b"before").unwrap();
            let mut ranges = Ranges::default();
            let again = Cutter::new().ranges(*kind, &styled, |index| flags[index], true, &mut ranges);
            assert_eq!(again, report, "{name}");
            let told = || format!("{name}\n{}\n{ranges:?}", String::from_utf8_lossy(&styled));
            assert!(ranges.of(&styled).collect::<Vec<_>>().concat() == out, "{}", told());
            let apart = |pair: &[std::ops::Range<usize>]| pair[0].end < pair[1].start;
            assert!(ranges.as_slice().windows(2).all(apart), "{}", told());
            assert!(ranges.as_slice().iter().all(|range| !range.is_empty()), "{}", told());
            let wanted: Vec<_> =
                all.iter().zip(&flags).filter(|(_, keep)| **keep).map(|(text, _)| text.clone()).collect();
            assert_eq!(report.events, wanted.len(), "{name}");
            if wanted.is_empty() {
                assert!(out.is_empty(), "{name}");
                continue;
            }
            let shown =
                || format!("{name}\n{}\n{}", String::from_utf8_lossy(&styled), String::from_utf8_lossy(out));
            if parse(*kind, &styled).1[0].kind == EventKind::Opaque {
                assert_eq!(out, styled, "{name}");
                continue;
            }
            serde_json::from_slice::<Value>(out).unwrap_or_else(|error| panic!("{error}: {}", shown()));
            assert!(wanted == texts(*kind, out), "{}", shown());
        }
    }
}

/// A random batch of many people in several regions, every one with canaries of their own.
struct Batch {
    body: Value,
    /// Region of each canary.
    canaries: Vec<(String, usize)>,
}

const REGIONS: [(&str, &str); 4] = [("919", "IN"), ("447", "GB"), ("346", "ES"), ("819", "JP")];

fn batch(rng: &mut Rng) -> Batch {
    let mut canaries = Vec::new();
    let mut entries = Vec::new();
    let mut serial = 0;
    for _ in 0..1 + rng.below(3) {
        let mut changes = Vec::new();
        for _ in 0..1 + rng.below(3) {
            let people: Vec<_> = (0..1 + rng.below(5))
                .map(|_| {
                    serial += 1;
                    let region = rng.below(REGIONS.len());
                    let (prefix, country) = REGIONS[region];
                    let phone = format!("{prefix}{:07}", 1_000_000 + serial * 7919);
                    let (id, name) = (format!("{country}.77{serial:06}"), format!("Name{serial:05}"));
                    canaries.extend([(phone.clone(), region), (id.clone(), region), (name.clone(), region)]);
                    canaries.push((format!("wamid.{serial:06}."), region));
                    (serial, phone, id, name)
                })
                .collect();
            changes.push(change(&people, rng));
        }
        entries.push(json!({"id": "215900000000001", "changes": changes}));
    }
    Batch { body: json!({"object": "whatsapp_business_account", "entry": entries}), canaries }
}

fn change(people: &[(usize, String, String, String)], rng: &mut Rng) -> Value {
    let metadata = json!({"phone_number_id": "106500000000101"});
    let mut contacts = Vec::new();
    let mut elements = Vec::new();
    let shape = rng.below(5);
    for (serial, phone, id, name) in people {
        // Each identity may be missing on either side, never both on both, never different people's.
        let (a, b) = *rng.pick(&[(true, true), (true, false), (false, true)]);
        if !rng.one_in(3) {
            let mut contact = json!({"profile": {"name": name}});
            if b || shape > 1 {
                contact["wa_id"] = json!(phone);
            }
            if a || shape > 1 {
                contact["user_id"] = json!(id);
            }
            contacts.push(contact);
        }
        for part in 0..1 + rng.below(3) {
            let message = format!("wamid.{serial:06}.{part}");
            let mut element = match shape {
                0 => json!({"id": message, "status": "sent", "recipient_id": phone, "recipient_user_id": id}),
                1 => json!({"id": message, "from": phone, "from_user_id": id, "text": {"body": name}}),
                2 => json!({"id": message, "to": phone, "to_user_id": id}),
                3 => {
                    json!({"id": phone, "context": {"user_id": id}, "messages": [{"id": message, "text": name}]})
                }
                _ => json!({"group_id": message, "added_participants": [{"wa_id": phone, "user_id": id}]}),
            };
            let map = element.as_object_mut().unwrap();
            if shape < 3 {
                map.retain(|name, _| match name.as_str() {
                    "recipient_id" | "from" | "to" => a,
                    "recipient_user_id" | "from_user_id" | "to_user_id" => b,
                    _ => true,
                });
            }
            elements.push(element);
        }
    }
    let list = ["statuses", "messages", "message_echoes", "history", "groups"][shape];
    let elements =
        if shape == 3 { json!([{"metadata": {"phase": 0}, "threads": elements}]) } else { json!(elements) };
    let mut value = json!({"messaging_product": "whatsapp", "metadata": metadata, list: elements});
    if !contacts.is_empty() {
        value["contacts"] = json!(contacts);
    }
    if rng.one_in(4) {
        value = json!({"messaging_product": "whatsapp", "metadata": metadata, "standby": value});
    }
    json!({"field": "messages", "value": value})
}

/// The region of an event's user: of the phone, else of the country.
fn region_of(event: &Owned) -> Option<usize> {
    let (phone, id) = event.users.first()?;
    REGIONS.iter().position(|(prefix, country)| match (phone, id) {
        (Some(phone), _) => phone.starts_with(prefix),
        (None, Some(id)) => id.starts_with(country),
        (None, None) => false,
    })
}

#[test]
fn a_parcel_never_tells_of_another_regions_users() {
    let mut rng = Rng::from_env();
    let rounds = if std::env::var_os("SIM_LONG").is_some() { 50_000 } else { 500 };
    for _ in 0..rounds {
        let batch = batch(&mut rng);
        let style = Style { escapes: false, ..Style::any(&mut rng) };
        let body = write(&batch.body, style, &mut rng);
        let (_, events) = parse(SourceKind::Whatsapp, &body);
        let regions: Vec<_> = events.iter().map(region_of).collect();
        let mut met: HashMap<&str, usize> = HashMap::new();
        for region in 0..REGIONS.len() {
            let (report, out) =
                cut(SourceKind::Whatsapp, &body, |index| regions[index] == Some(region), false);
            let text = String::from_utf8(out).unwrap();
            assert_eq!(report.events, regions.iter().filter(|other| **other == Some(region)).count());
            for (canary, owner) in &batch.canaries {
                let leaked = *owner != region && text.contains(canary.as_str());
                assert!(!leaked, "{canary} in region {region}:\n{text}\n{}", String::from_utf8_lossy(&body));
                *met.entry(canary).or_default() += text.matches(canary.as_str()).count();
            }
        }
        // Nothing of the events got lost either: they are in some parcel or belong to nobody.
        let lost: usize = events
            .iter()
            .zip(&regions)
            .filter(|(_, region)| region.is_none())
            .map(|(event, _)| event.range.len())
            .sum();
        if lost == 0 {
            for (canary, _) in batch.canaries.iter().filter(|(canary, _)| canary.starts_with("wamid")) {
                let inside = String::from_utf8_lossy(&body).matches(canary.as_str()).count();
                assert_eq!(met[canary.as_str()], inside, "{canary}\n{}", String::from_utf8_lossy(&body));
            }
        }
    }
}

#[test]
fn stray_contacts_go_to_the_default_region_only() {
    let bodies = sample_bodies();
    let (_, kind, body) = bodies.iter().find(|(name, ..)| name == "own-batch-two-regions.json").unwrap();
    let (report, with) = cut(*kind, body, |index| index == 0, true);
    assert_eq!(report.stray_contacts, 1);
    assert!(String::from_utf8(with).unwrap().contains("Nobody Here"));
    let (report, without) = cut(*kind, body, |index| index == 0, false);
    assert_eq!(report.stray_contacts, 1);
    assert!(!String::from_utf8(without).unwrap().contains("Nobody Here"));
}
