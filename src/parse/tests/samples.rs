//! Sample bodies with answers that were written down by hand.

use std::collections::HashMap;

use super::reference;
use super::*;

fn sample(name: &str) -> (Parsed, Vec<Owned>) {
    let bodies = sample_bodies();
    let (_, kind, body) = bodies.iter().find(|(other, ..)| other == name).unwrap_or_else(|| panic!("{name}"));
    parse(*kind, body)
}

/// `phone/bsuid` of each event's users; a blank for none.
fn people(name: &str) -> Vec<String> {
    let show = |(phone, id): &(Option<String>, Option<String>)| {
        format!("{}/{}", phone.as_deref().unwrap_or(""), id.as_deref().unwrap_or(""))
    };
    let (_, events) = sample(name);
    events.iter().map(|event| event.users.iter().map(show).collect::<Vec<_>>().join(" ")).collect()
}

fn kinds(name: &str) -> Vec<EventKind> {
    sample(name).1.iter().map(|event| event.kind).collect()
}

#[test]
fn every_expected_event_is_found() {
    let list =
        fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/payloads/EXPECTED.csv")).unwrap();
    let bodies: HashMap<_, _> =
        sample_bodies().into_iter().map(|(name, kind, body)| (name, (kind, body))).collect();
    let mut rows = 0;
    for line in list.lines().skip(1) {
        let [file, kind, id, discriminator, phone, bsuid, ..] = line.split(',').collect::<Vec<_>>()[..]
        else {
            panic!("{line}")
        };
        let (source, body) = &bodies[file];
        let (_, events) = parse(*source, body);
        let number = events[0].number.clone();
        let expected_kind = match kind {
            "messages.message" => EventKind::Message,
            "messages.status" => EventKind::Status,
            "smb_message_echoes.echo" => EventKind::Echo,
            "calls.call" | "calls.status" | "wasender:call.received" => EventKind::Call,
            "user_preferences" => EventKind::Preference,
            "user_id_update" => EventKind::UserIdUpdate,
            "group_participants_update" => EventKind::Group,
            "wasender:unknown.custom.event" => EventKind::Session,
            _ if kind.starts_with("wasender:") => EventKind::Message,
            _ => EventKind::Account,
        };
        let status = discriminator.split('/').next().unwrap_or("");
        let participant = discriminator.split_once('/').map_or("", |(_, who)| who);
        let key = match expected_kind {
            EventKind::Message | EventKind::Echo
                if kind.starts_with("messages") || kind.starts_with("smb") =>
            {
                Some(reference::key("meta m", &number, [id, "", ""], [None, None]))
            }
            EventKind::Status => {
                Some(reference::key("meta s", &number, [id, status, participant], [None, None]))
            }
            EventKind::Call if !kind.starts_with("wasender") => {
                Some(reference::key("meta c", &number, [id, status, ""], [None, None]))
            }
            _ => None,
        };
        let found = events.iter().any(|event| {
            let who = event.users.first().cloned().unwrap_or_default();
            event.kind == expected_kind
                && key.is_none_or(|key| key == event.key)
                && who.0.as_deref().unwrap_or("") == phone
                // A contact may tell the id that the event itself does not.
                && (who.1.as_deref().unwrap_or("") == bsuid || (bsuid.is_empty() && !phone.is_empty()))
                && String::from_utf8_lossy(&body[event.range.clone()]).contains(id)
        });
        assert!(found, "{line}\n{events:#?}");
        rows += 1;
    }
    assert_eq!(rows, 73);
}

#[test]
fn people_are_found_wherever_they_stand() {
    let check = |name: &str, expected: &[&str]| assert_eq!(people(name), expected, "{name}");
    let priya = "919876500001/IN.9131506428720012";
    let tom = "447700900123/GB.6318605599547505";
    check("own-batch-two-regions.json", &[priya, tom, priya, "", "919876500001/", "447700900123/", ""]);
    let thread = "919876500001/IN.1907284648381927";
    check(
        "own-history.json",
        &[thread, thread, thread, "/IN.7777777777777777", "447700900123/", "4915112345678/"],
    );
    check("own-history-media.json", &["919876500001/", "447700900123/"]);
    check("own-history-declined.json", &[""]);
    check("own-standby.json", &["919876500001/IN.1"; 3]);
    check("own-message-echoes.json", &["/IN.1907284648381927"]);
    check("own-status-group.json", &["919876500001/", "447700900123/", "/JP.8032411520414237", ""]);
    check("own-status-old-parent.json", &["/AE.ENT.73340496985461814374", "/AE.2966729485201347"]);
    check("own-state-sync.json", &["+91 98765 00001/", tom]);
    check("own-handover.json", &["919876500001/"]);
    check("own-wrong-contact-id.json", &[priya, "447700900123/IN.9131506428720012"]);
    check("own-call-directions.json", &["919876500001/IN.1"; 3]);
    check("own-escaped-unicode.json", &["46701740609/SE.1", "46701740609/SE.1"]);
    check("wasender-own-received-lid.json", &["447700900123/"]);
    check("wasender-own-lid-only.json", &[""]);
    check("wasender-own-upsert-array.json", &["447700900123/", "12025550123/", "6281100000123/"]);
    check("wasender-own-receipts.json", &["447700900123/", "12025550123/"]);
    check("wasender-own-poll.json", &["447700900123/ 12025550123/"]);
    check("wasender-own-group-participants.json", &["447700900123/ 12025550123/"]);
    check("wasender-own-contacts.json", &["447700900123/", "", ""]);
    check("wasender-own-story.json", &["447700900123/"]);
    check("wasender-own-delete.json", &["447700900123/", "12025550123/"]);
    check("wasender-own-reaction.json", &["447700900123/"]);
}

#[test]
fn digits_that_are_no_phone_route_nobody() {
    let people = people("own-numbering-traps.json");
    let phones: Vec<&str> = people.iter().map(|who| who.split('/').next().unwrap()).collect();
    assert_eq!(phones[10], "+7 (901) 000-01-23");
    assert_eq!(phones[11..], [""; 5]);
    assert_eq!(people[13], "/US.13491208655302741918");
}

#[test]
fn kinds_follow_field_and_shape() {
    use EventKind::{
        Account, Call, Echo, Errors, Group, Handover, History, Message, Opaque, Session, StateSync, Status,
    };
    let check = |name: &str, expected: &[EventKind]| assert_eq!(kinds(name), expected, "{name}");
    check("own-batch-two-regions.json", &[Message, Message, Message, Errors, Status, Status, Account]);
    check("own-history.json", &[History; 6]);
    check("own-history-media.json", &[History; 2]);
    check("own-standby.json", &[Message, Status, Echo]);
    check("own-call-directions.json", &[Call; 3]);
    check("own-state-sync.json", &[StateSync; 2]);
    check("own-handover.json", &[Handover]);
    check("own-automatic-events.json", &[Account; 2]);
    check("own-tracking-events.json", &[Account; 2]);
    check("own-errors-only.json", &[Errors]);
    check("own-unknown-field.json", &[Account]);
    check("own-unknown-field-with-messages.json", &[Message]);
    check("own-group-lifecycle.json", &[Group]);
    check(
        "own-odd-shapes.json",
        &[Account, Account, Account, Account, Account, Account, Account, Message, Message],
    );
    check("own-unknown-object.json", &[Opaque]);
    check("own-empty-entry.json", &[Opaque]);
    check("wasender-own-session-status.json", &[Session]);
    check("wasender-own-qrcode.json", &[Session]);
    check("wasender-own-upsert-array.json", &[Message, Echo, Message]);
    check("wasender-own-update-array.json", &[Status; 3]);
}

#[test]
fn different_events_have_different_keys_and_repeats_have_the_same() {
    let mut seen: HashMap<Key, String> = HashMap::new();
    for (name, kind, body) in sample_bodies() {
        for event in parse(kind, &body).1 {
            if let Some(other) = seen.insert(event.key, name.clone()) {
                panic!("{name} and {other} share a key");
            }
        }
        assert_eq!(parse(kind, &body), parse(kind, &body));
    }
    // The number, not only the id, makes a message itself.
    let text = |number: &str| {
        let body = r#"{"object":"whatsapp_business_account","entry":[{"id":"1","changes":[{"field":"messages",
            "value":{"metadata":{"phone_number_id":"NUMBER"},"messages":[{"id":"wamid.1","from":"447700900123"}]}}]}]}"#;
        parse(SourceKind::Whatsapp, body.replace("NUMBER", number).as_bytes()).1.remove(0)
    };
    assert_ne!(text("1").key, text("2").key);
    assert_eq!((text("1").number.as_str(), text("1").account.as_str()), ("1", "1"));
}

#[test]
fn a_session_id_is_only_shown_as_a_digest() {
    let number = |body: &str| parse(SourceKind::Wasender, body.as_bytes()).1.remove(0).number;
    let session = number(r#"{"event":"x","sessionId":"your_api_key"}"#);
    assert_eq!(session.len(), 32);
    assert!(!session.contains("your_api_key"));
    assert_eq!(session, number(r#"{"event":"x","sessionId":"","data":{"session_id":"your_api_key"}}"#));
    assert_eq!(
        number(r#"{"event":"x","sessionId":77}"#),
        number(r#"{"event":"x","data":{"session_id":"77"}}"#)
    );
    assert_eq!(number(r#"{"event":"x"}"#), "");
}

#[test]
fn what_is_not_understood_is_one_event_of_the_whole_body() {
    let check = |body: &[u8], reason: Opaque| {
        let (parsed, events) = parse(SourceKind::Whatsapp, body);
        assert_eq!(parsed, Parsed::Opaque(reason), "{}", String::from_utf8_lossy(body));
        assert_eq!(events.len(), 1);
        assert_eq!(events[0].range, 0..body.len());
        assert_eq!(parse(SourceKind::Wasender, body).1.len(), 1);
    };
    let sized = |inner: &str, n: usize| {
        let list = vec![inner; n].join(",");
        format!(
            r#"{{"object":"whatsapp_business_account","entry":[{{"changes":[{{"value":{{"messages":[{list}]}}}}]}}]}}"#
        )
        .into_bytes()
    };
    check(b"", Opaque::NotJson);
    check(b" ", Opaque::NotJson);
    check(b"hello", Opaque::NotJson);
    check(b"{}{}", Opaque::NotJson);
    check(b"\xef\xbb\xbf{}", Opaque::NotJson);
    check(b"{\"a\":\"\xff\"}", Opaque::NotJson);
    check(b"{\"a\":\"\\ud800\"}", Opaque::NotJson);
    check(b"{\"a\":1e999999}", Opaque::NotJson);
    check(b"{\"a\":18446744073709551616}", Opaque::NotJson);
    check(b"{}", Opaque::OtherShape);
    check(b"null", Opaque::OtherShape);
    check(b"[]", Opaque::OtherShape);
    check(br#"{"object":"page","entry":[{"id":"1"}]}"#, Opaque::OtherShape);
    check(br#"{"object":"whatsapp_business_account"}"#, Opaque::OtherShape);
    check(br#"{"object":"whatsapp_business_account","entry":null}"#, Opaque::NoEvents);
    check(&[vec![b'['; 10_000], vec![b']'; 10_000]].concat(), Opaque::TooDeep);
    check(&vec![b'['; 1 << 20], Opaque::TooDeep);
    check(&[vec![b'['; 65], vec![b']'; 65]].concat(), Opaque::TooDeep);
    check(&[vec![b'['; 64], vec![b']'; 64]].concat(), Opaque::OtherShape);
    check(&sized("1", EVENTS_MAX + 1), Opaque::TooManyEvents);
    assert_eq!(
        parse(SourceKind::Whatsapp, &sized("{}", EVENTS_MAX)).0,
        Parsed::Understood { events: EVENTS_MAX }
    );
}

#[test]
fn hostile_bodies_take_linear_time() {
    let check = |what: &str, body: String| {
        let started = std::time::Instant::now();
        parse(SourceKind::Whatsapp, body.as_bytes());
        // Quadratic readers need minutes for these; the bound leaves room for a slow machine without optimisation.
        assert!(started.elapsed().as_secs() < 20, "{what}: {:?} for {} bytes", started.elapsed(), body.len());
    };
    let value = |inner: String| {
        format!(
            r#"{{"object":"whatsapp_business_account","entry":[{{"changes":[{{"value":{{{inner}}}}}]}}]}}"#
        )
    };
    let n = 30_000;
    let contacts: Vec<_> = (0..n).map(|i| format!(r#"{{"wa_id":"44770{i:06}"}}"#)).collect();
    let messages: Vec<_> = (0..n).map(|i| format!(r#"{{"from":"44771{i:06}"}}"#)).collect();
    let (contacts, messages) = (contacts.join(","), messages.join(","));
    check("contacts", value(format!(r#""contacts":[{contacts}],"messages":[{messages}]"#)));
    let same = vec![r#"{"wa_id":"447700900123","user_id":"GB.1"}"#; n].join(",");
    let ids = vec![r#"{"from_user_id":"GB.1"}"#; n].join(",");
    check("equal contacts", value(format!(r#""contacts":[{same}],"messages":[{ids}]"#)));
    check("doubled members", value(vec![r#""messages":[1]"#; n].join(",")));
    check("names", value((0..n).map(|i| format!(r#""n{i}":{i}"#)).collect::<Vec<_>>().join(",")));
    let lists = r#""statuses":[{}],"messages":[{}],"calls":[1,[],{}]"#;
    let changes = vec![format!(r#"{{"value":{{{lists}}}}}"#); n / 3].join(",");
    check(
        "changes",
        format!(r#"{{"object":"whatsapp_business_account","entry":[{{"changes":[{changes}]}}]}}"#),
    );
}

#[test]
fn of_a_doubled_member_the_last_counts() {
    let body = r#"{"object":"page","object":"whatsapp_business_account","entry":[{"id":"9"}],"entry":[{"id":"1",
        "changes":[{"field":"messages","value":{},"value":{"messages":[{"id":"a","from":"447700900123"}],
        "messages":[{"id":"b","from":"447700900123","from":"919876500001"}]}}]}]}"#;
    let (parsed, events) = parse(SourceKind::Whatsapp, body.as_bytes());
    assert_eq!(parsed, Parsed::Understood { events: 1 });
    assert_eq!(events[0].users, [(Some("919876500001".to_string()), None)]);
    assert_eq!(events[0].key, reference::key("meta m", "", ["b", "", ""], [None, None]));
}

#[test]
fn the_value_tells_whether_two_events_say_the_same() {
    let value = |element: &str| {
        let body = r#"{"object":"whatsapp_business_account","entry":[{"id":"1","changes":[{"field":"messages",
            "value":{"messages":[ELEMENT]}}]}]}"#;
        let (_, events) = parse(SourceKind::Whatsapp, body.replace("ELEMENT", element).as_bytes());
        assert_eq!((events.len(), events[0].kind), (1, EventKind::Message), "{element}");
        events[0].value
    };
    let check = |a: &str, b: &str, same: bool| {
        let (a, b) = (format!(r#"{{"id":"x","v":{a}}}"#), format!(r#"{{"v":{b},"id":"x"}}"#));
        assert_eq!(value(&a) == value(&b), same, "{a} {b}");
    };
    check(r#"{"a":1,"b":["x",null]}"#, "{ \"b\":[\"\\u0078\" , null],\n\"a\":1 }", true);
    check(r#"{"a":1}"#, r#"{"a":2}"#, false);
    check(r#"{"a":1}"#, r#"{"a":"1"}"#, false);
    check(r#"{"a":1}"#, r#"{"b":1}"#, false);
    check(r#"{"a":1,"b":2}"#, r#"{"a":2,"b":1}"#, false);
    check(r#"["a","b"]"#, r#"["b","a"]"#, false);
    check(r#"["ab"]"#, r#"["a","b"]"#, false);
    check("[null,null]", "[null]", false);
    check("[[],[]]", "[[[]]]", false);
    check("[]", "{}", false);
    check("true", "false", false);
    check("null", "false", false);
    check("1", "1.0", false);
    check("1", "-1", false);
    check("18446744073709551615", "-1", false);
    check("\"\"", "\"\\u0000\"", false);
    check(r#"{"a":[{}]}"#, r#"{"a":[[]]}"#, false);
    check(r#"{"a":1,"a":2}"#, r#"{"a":2}"#, true);
    check(r#"{"a":1,"a":2}"#, r#"{"a":1}"#, false);
    for count in [4, 40, 48, 49, 50, 200] {
        let members = |doubled: bool| -> String {
            let list = (0..count).map(|n| format!("\"n{n}\":{n}"));
            let early = doubled.then(|| "\"n1\":7,\"n2\":8,\"n1\":9".to_owned());
            format!("{{{}}}", early.into_iter().chain(list).collect::<Vec<_>>().join(","))
        };
        check(&members(false), &members(true), true);
        check(&members(false), &members(false).replace(":2,", ":3,"), false);
    }
    for len in 0..70 {
        let text = |at: Option<usize>| -> String {
            let letter = |n| if Some(n) == at { 'b' } else { 'a' };
            format!("\"{}\"", (0..len).map(letter).collect::<String>())
        };
        (0..len).for_each(|at| check(&text(None), &text(Some(at)), false));
    }
}

#[test]
fn values_on_disk_stay_what_they_are() {
    let body = br#"{"object":"whatsapp_business_account","entry":[{"id":"1","changes":[{"field":"messages","value":{
        "messages":[{"id":"wamid.1","from":"447700900123","n":[1,-2,2.5,true,null,{"text":"a longer text of 31 bytes"}]}]}}]}]}"#;
    assert_eq!(parse(SourceKind::Whatsapp, body).1[0].value, 11_477_388_181_461_230_071);
}

#[test]
fn names_of_kinds_stand_at_their_numbers() {
    for (at, (kind, _)) in EventKind::ALL.iter().enumerate() {
        assert_eq!(*kind as usize, at);
    }
}
