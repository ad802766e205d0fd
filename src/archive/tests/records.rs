//! What a record says.

use serde_json::Value;

use super::super::record::{RecordFault, Records};
use super::*;
use crate::config::SourceKind::{Wasender, Whatsapp};
use crate::parse::tests::style::{Style, write};
use crate::parse::tests::{Rng, parse, sample_bodies};
use base64::Engine;

const REGIONS: [&str; 3] = ["us", "in", "br"];

fn line(records: &mut Records, meta: &[u8], body: &[u8], region: usize) -> Result<String, RecordFault> {
    let mut out = b"before".to_vec();
    records.write(&webhook(7, meta, body, &BodyDigest::default()), region, &mut out)?;
    let text = String::from_utf8(out.strip_prefix(b"before").unwrap().to_vec()).unwrap();
    assert!(text.ends_with("}\n") && text.matches('\n').count() == 1, "one line: {text}");
    Ok(text)
}

/// The bytes a record has of the body.
fn body_of(json: &Value) -> Vec<u8> {
    match (&json["body"], &json["body_base64"]) {
        (Value::String(text), Value::Null) => text.as_bytes().to_vec(),
        (Value::Null, Value::String(text)) => base64::engine::general_purpose::STANDARD.decode(text).unwrap(),
        _ => panic!("one body expected in {json}"),
    }
}

#[test]
fn a_record_says_all_that_is_known_in_the_order_that_was_promised() {
    let body = br#"{"object":"whatsapp_business_account","entry":[{"id":"1","changes":[{"value":{"metadata":{"phone_number_id":"2"},"messages":[{"from":"+91 98765 00001","id":"wamid.A"}]},"field":"messages"}]}]}"#;
    let mut verdict = verdict(Whatsapp, body, NOON_NS + 5 * SECOND_NS + 678_900_000, |_| "in");
    verdict.headers.extend_from_slice(
        b"x-forwarded-for: 10.0.0.1\r\nuser-agent: \"odd\" \xff\r\nx-forwarded-for:10.0.0.2\r\n",
    );
    let key: String = verdict.events[0].key.iter().map(|byte| format!("{byte:02x}")).collect();
    let sha256 = "9a3b2e6fd71ff9ad4f9d0a32c4b2ac41";
    let text = line(&mut Records::new(&config("")), &meta_of(&verdict), body, 1).unwrap();
    let json: Value = serde_json::from_str(&text).unwrap();
    let digest = json["sha256"].as_str().unwrap();
    assert_eq!(digest.len(), 2 * sha256.len());
    let expected = format!(
        "{{\"v\":1,\"id\":\"{JOURNAL}-7\",\"gateway\":\"edge\",\"source\":\"main\",\"region\":\"in\",\"regions\":[\"in\"],\
         \"received_at\":\"2026-09-14T12:00:05.678Z\",\"remote\":\"192.0.2.7:4711\",\"headers\":{{\"content-type\":\
         \"application/json\",\"user-agent\":\"facebookexternalua, \\\"odd\\\" \u{fffd}\",\"x-forwarded-for\":\"10.0.0.1, 10.0.0.2\"}},\
         \"events\":[{{\"key\":\"{key}\",\"kind\":\"message\",\"user\":\"919876500001\"}}],\"sha256\":\"{digest}\",\"body\":{}}}\n",
        serde_json::to_string(std::str::from_utf8(body).unwrap()).unwrap()
    );
    assert_eq!(text, expected);
}

#[test]
fn whatever_came_is_read_back_byte_for_byte() {
    let mut rng = Rng::from_env();
    let mut records = Records::new(&config(""));
    let text = |rng: &mut Rng| -> Vec<u8> {
        (0..rng.below(300)).map(|_| *rng.pick(b"\"\\/\x08\x0c\n\r\t\0\x1f\x7fab")).collect()
    };
    let unicode = |rng: &mut Rng| -> Vec<u8> {
        let characters = (0..rng.below(100)).filter_map(|_| char::from_u32(rng.next() as u32 % 0x11_0000));
        characters.collect::<String>().into_bytes()
    };
    let bytes = |rng: &mut Rng| -> Vec<u8> { (0..rng.below(300)).map(|_| rng.next() as u8).collect() };
    for round in 0..3_000 {
        let body = match round % 3 {
            0 => text(&mut rng),
            1 => unicode(&mut rng),
            _ => bytes(&mut rng),
        };
        let meta = meta_of(&verdict(Whatsapp, &body, rng.next(), |_| "us"));
        let record = line(&mut records, &meta, &body, 0).unwrap();
        let json: Value = serde_json::from_str(&record).unwrap();
        assert!(body_of(&json) == body, "{record}");
        assert_eq!(json["body"].is_string(), std::str::from_utf8(&body).is_ok());
        assert_eq!(line(&mut records, &meta, &body, 0).unwrap(), record, "the same again");
    }
}

/// Any spread of any body's events over regions: each archive has its own, from where the ranges say.
#[test]
fn a_part_is_what_its_ranges_say_and_lists_its_own_events_alone() {
    let mut rng = Rng::from_env();
    let mut records = Records::new(&config(""));
    let mut whole = Records::new(&config("mixed = \"whole\""));
    let mut parts = 0;
    for (name, kind, sample) in sample_bodies() {
        for round in 0..20 {
            let value: Value = serde_json::from_slice(&sample).unwrap();
            let body =
                if round == 0 { sample.clone() } else { write(&value, Style::any(&mut rng), &mut rng) };
            let homes: Vec<&str> = parse(kind, &body).1.iter().map(|_| *rng.pick(&REGIONS)).collect();
            let verdict = verdict(kind, &body, NOON_NS, |event| homes[event]);
            let meta = meta_of(&verdict);
            let mut concerned: Vec<&str> = homes.clone();
            concerned.sort_unstable();
            concerned.dedup();
            for (region, home) in REGIONS.iter().enumerate().filter(|(_, home)| concerned.contains(home)) {
                let record = line(&mut records, &meta, &body, region).unwrap();
                let json: Value = serde_json::from_str(&record).unwrap();
                assert_eq!(json["source"], if kind == Wasender { "sessions" } else { "main" });
                let own = homes.iter().filter(|other| *other == home).count();
                let kept = body_of(&json);
                if concerned.len() == 1 {
                    assert!(kept == body && json.get("ranges").is_none(), "{name}: {record}");
                } else {
                    let ranges = json["ranges"].as_array().unwrap().iter().flat_map(|range| {
                        let [from, len] = [0, 1].map(|at| range[at].as_u64().unwrap() as usize);
                        &body[from..from + len]
                    });
                    assert!(ranges.copied().eq(kept.iter().copied()), "{name}: {record}");
                    parts += 1;
                }
                let listed: Vec<&str> = json["events"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|event| event["key"].as_str().unwrap())
                    .collect();
                let keys: Vec<String> = verdict
                    .events
                    .iter()
                    .zip(&homes)
                    .filter(|(_, other)| *other == home)
                    .map(|(event, _)| event.key.iter().map(|byte| format!("{byte:02x}")).collect())
                    .collect();
                assert_eq!(listed, keys, "{name}");
                assert_eq!(parse(kind, &kept).1.len(), own, "{name}: {record}");
                let json: Value =
                    serde_json::from_str(&line(&mut whole, &meta, &body, region).unwrap()).unwrap();
                assert!(body_of(&json) == body && json.get("ranges").is_none(), "{name}");
                assert_eq!(json["events"].as_array().unwrap().len(), homes.len());
            }
        }
    }
    assert!(parts > 200, "{parts} parts");
}

#[test]
fn users_are_those_that_the_parser_finds() {
    let mut records = Records::new(&config(""));
    for (name, kind, body) in sample_bodies() {
        let record =
            line(&mut records, &meta_of(&verdict(kind, &body, NOON_NS, |_| "us")), &body, 0).unwrap();
        let json: Value = serde_json::from_str(&record).unwrap();
        let (_, events) = parse(kind, &body);
        for (listed, event) in json["events"].as_array().unwrap().iter().zip(&events) {
            let user = event.users.first().and_then(|(phone, bsuid)| {
                let digits = |phone: &String| phone.chars().filter(char::is_ascii_digit).collect::<String>();
                phone.as_ref().map(digits).or_else(|| bsuid.clone())
            });
            assert_eq!(listed["user"].as_str(), user.as_deref(), "{name}");
            assert_eq!(listed["kind"], crate::parse::EventKind::ALL[event.kind as usize].1, "{name}");
        }
    }
}

#[test]
fn what_is_no_longer_configured_goes_where_forwarding_sends_it() {
    let body = br#"{"object":"whatsapp_business_account","entry":[{"id":"1","changes":[{"value":{"messages":[{"from":"919876500001","id":"A"},{"from":"919876500002","id":"B"},{"from":"919876500003","id":"C"}]},"field":"messages"}]}]}"#;
    let homes = ["gone", "us", "in"];
    let mut verdict = verdict(Whatsapp, body, NOON_NS, |event| homes[event]);
    verdict.source = 0x0102_0304;
    let json: Value =
        serde_json::from_str(&line(&mut Records::new(&config("")), &meta_of(&verdict), body, 0).unwrap())
            .unwrap();
    assert_eq!(json["regions"], serde_json::json!(["us", "in"]));
    assert_eq!(json["events"].as_array().unwrap().len(), 2);
    assert_eq!(parse(Whatsapp, &body_of(&json)).1.len(), 2);
    assert_eq!(json["source"], "#01020304");
}

#[test]
fn no_record_is_written_that_would_lack_the_regions_events() {
    // The entry knows of two events where this version finds one.
    let body = br#"{"object":"whatsapp_business_account","entry":[{"id":"1","changes":[{"value":{"messages":[{"id":"A"}]},"field":"messages"}]}]}"#;
    let mut verdict = verdict(Whatsapp, body, NOON_NS, |_| "us");
    let slot = verdict.slot(name_id("in"));
    verdict.push(crate::entry::EventRow { slot, ..verdict.events[0] }, &[]);
    let mut out = Vec::new();
    let meta = meta_of(&verdict);
    let fault =
        Records::new(&config("")).write(&webhook(7, &meta, body, &BodyDigest::default()), 1, &mut out);
    assert_eq!((fault, out.len()), (Err(RecordFault::NoEvents(7)), 0));
}
