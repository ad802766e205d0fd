//! Canaries: values of people that are planted into bodies, and a search for them by all that a reader of an
//! archive may decode.

use base64::Engine;
use base64::alphabet::{STANDARD, URL_SAFE};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde_json::{Value, json};

use crate::parse::tests::Rng;

#[derive(Debug, Clone)]
pub(super) enum Canary {
    /// Digits.
    Phone(String),
    Bsuid(String),
    Name(String),
    Text(String),
    /// A coordinate's digits behind the point.
    Fraction(String),
}

impl Canary {
    /// One of each kind, new for every body.
    pub(super) fn make(rng: &mut Rng) -> Vec<Self> {
        let digits = |rng: &mut Rng, n: usize| {
            (0..n).map(|_| char::from(b'1' + rng.below(9) as u8)).collect::<String>()
        };
        vec![
            Self::Phone(format!("49{}", digits(rng, 10))),
            Self::Bsuid(format!("IN.{}", digits(rng, 16))),
            Self::Name(format!("Zo\u{eb} Kanarienvogel{}", digits(rng, 3))),
            Self::Text(format!("tweet tweet {}", digits(rng, 3))),
            Self::Fraction(digits(rng, 7)),
        ]
    }

    /// The mask that is for it.
    pub(super) fn mask(&self) -> &'static str {
        match self {
            Self::Phone(_) => "phone",
            Self::Bsuid(_) => "bsuid",
            Self::Name(_) => "name",
            Self::Text(_) => "text",
            Self::Fraction(_) => "location",
        }
    }

    /// What a search looks for.
    fn needle(&self) -> String {
        match self {
            Self::Phone(text)
            | Self::Bsuid(text)
            | Self::Name(text)
            | Self::Text(text)
            | Self::Fraction(text) => text.replace(' ', "").to_lowercase(),
        }
    }

    fn value(&self, rng: &mut Rng) -> Value {
        match self {
            Self::Phone(digits) => phone(digits, rng),
            Self::Bsuid(id) => match rng.below(4) {
                0 => json!(format!("https://x.example/{}", percent(id))),
                1 => json!(base64(id.as_bytes())),
                2 => json!(format!("User {id} has changed.")),
                _ => json!(id),
            },
            Self::Name(text) | Self::Text(text) => match rng.below(4) {
                0 => json!({"novel": text}),
                1 => json!([text, {"novel": [text]}]),
                2 => json!(format!("{{\"first_name\":{}}}", json!(text))),
                _ => json!(text),
            },
            Self::Fraction(digits) => json!(format!("47.{digits}").parse::<f64>().unwrap()),
        }
    }

    /// A member's name that a user may have chosen.
    fn name(&self, rng: &mut Rng) -> String {
        match self {
            Self::Phone(digits) => match rng.below(3) {
                0 => format!("{digits}@s.whatsapp.net"),
                1 => format!("+{digits}"),
                _ => format!("x{digits}"),
            },
            Self::Bsuid(text) | Self::Name(text) | Self::Text(text) => text.clone(),
            Self::Fraction(_) => "novel".to_owned(),
        }
    }
}

fn phone(digits: &str, rng: &mut Rng) -> Value {
    let (a, b) = digits.split_at(4);
    let wide = |zero: u32| {
        digits.bytes().filter_map(|digit| char::from_u32(zero + u32::from(digit - b'0'))).collect::<String>()
    };
    let unescaped =
        |before: &str| digits.bytes().map(|digit| format!("{before}{digit:02x}")).collect::<String>();
    let text = match rng.below(16) {
        0 => return json!(digits.parse::<u64>().unwrap()),
        1 => return json!({"n": [digits.parse::<u64>().unwrap()]}),
        2 => format!("+{a} {b}"),
        3 => format!("call (+{a})-{b}, please"),
        4 => format!("{digits}@s.whatsapp.net"),
        5 => format!("{digits}:12@c.us"),
        6 => format!("{digits}-1612345678@g.us"),
        7 => format!("wamid.{}", base64(format!("\x1c\x18\x0c{digits}\x15\x02\0\x12\x18\x14").as_bytes())),
        8 => format!("https://wa.me/{digits}?text=a"),
        9 => format!("https://x.example/?p={}", unescaped("%")),
        10 => format!("{{\"p\":\"{}\"}}", unescaped("\\u00")),
        11 => format!("x {}", wide(0x660)),
        12 => wide(0xff10),
        13 => format!("BEGIN:VCARD\nTEL;waid={digits}:+{a} {b}\nEND:VCARD"),
        14 => format!("a%2520{}", percent(&percent(digits))),
        _ => digits.to_owned(),
    };
    json!(text)
}

fn percent(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

fn base64(bytes: &[u8]) -> String {
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

/// Members whose values are the provider's or the business's.
pub(super) fn is_structure(name: &str) -> bool {
    "object field messaging_product type status event event_name direction category pricing_model recipient_type \
     action decision source_type media_type mime_type currency response response_source message_creation_type \
     addressingMode initiated_by sdp_type reason timestamp time date start_time end_time expiration_timestamp \
     created_timestamp code quantity item_price progress phase chunk_order duration phone_number_id \
     display_phone_number waba_id owner_business_id solution_id solution_partner_business_ids catalog_id \
     product_retailer_id new_owner_app_id source_id message_template_id message_template_name value"
        .split_whitespace()
        .any(|known| known == name)
}

/// Puts canaries in place of all that is not the business's and `wanted`, and into members of their own;
/// how many.
pub(super) fn plant(
    body: &mut Value,
    canaries: &[Canary],
    rng: &mut Rng,
    wanted: &dyn Fn(&str) -> bool,
) -> usize {
    // What is about accounts has no user, and may say so in words.
    let account = ["account", "template", "security", "phone_number_", "business_"];
    let is_account = |value: &Value| {
        let field = value.get("field").and_then(Value::as_str).unwrap_or_default();
        account.iter().any(|start| field.starts_with(start)) || field.starts_with("message_template")
    };
    plant_in(body, "", "", canaries, rng, wanted, &is_account)
}

fn plant_in(
    value: &mut Value,
    name: &str,
    parent: &str,
    canaries: &[Canary],
    rng: &mut Rng,
    wanted: &dyn Fn(&str) -> bool,
    skip: &dyn Fn(&Value) -> bool,
) -> usize {
    if skip(value) {
        return 0;
    }
    match value {
        Value::Array(list) => {
            list.iter_mut().map(|value| plant_in(value, name, parent, canaries, rng, wanted, skip)).sum()
        }
        Value::Object(map) => {
            let mut planted = 0;
            for (member, value) in map.iter_mut() {
                planted += plant_in(value, member, name, canaries, rng, wanted, skip);
                // What is known stands where nobody knows it.
                match rng.below(40) {
                    0 => *value = json!({"novel": value.take()}),
                    1 => *value = json!([[value.take()]]),
                    _ => {}
                }
            }
            if rng.one_in(6) {
                let canary = rng.pick(canaries);
                map.insert("novel".to_owned(), canary.value(rng));
                planted += 1;
            }
            if rng.one_in(12) && wanted("") {
                let name = rng.pick(canaries).name(rng);
                map.insert(name, rng.pick(canaries).value(rng));
                planted += 2;
            }
            planted
        }
        Value::Null | Value::Bool(_) => 0,
        _ if is_structure(name) || name == "id" && parent == "entry" || !wanted(name) || rng.one_in(4) => 0,
        _ => {
            *value = rng.pick(canaries).value(rng);
            1
        }
    }
}

/// The first canary that can be read in a line of JSON, and where.
pub(super) fn shown_in(line: &str, canaries: &[Canary]) -> Option<String> {
    let needles: Vec<String> = canaries.iter().map(Canary::needle).collect();
    let mut texts = Vec::new();
    collect(&serde_json::from_str(line).unwrap(), &mut texts);
    texts.into_iter().find_map(|text| Some(format!("{} in {text}", shows(&text, &needles, 4)?)))
}

/// Every string, name and number.
fn collect(value: &Value, out: &mut Vec<String>) {
    match value {
        Value::String(text) => {
            if let Ok(inner) = serde_json::from_str::<Value>(text)
                && !inner.is_number()
            {
                collect(&inner, out);
            }
            out.push(text.clone());
        }
        Value::Array(list) => list.iter().for_each(|value| collect(value, out)),
        Value::Object(map) => map.iter().for_each(|(name, value)| {
            out.push(name.clone());
            collect(value, out);
        }),
        Value::Number(number) => {
            out.push(number.to_string());
            out.extend(number.as_f64().map(|number| format!("{number}")));
        }
        _ => {}
    }
}

fn shows(text: &str, needles: &[String], layers: usize) -> Option<String> {
    let plain: String = text.chars().filter_map(plain).collect::<String>().to_lowercase();
    if let Some(found) = needles.iter().find(|needle| plain.contains(*needle)) {
        return Some(found.clone());
    }
    if layers == 0 {
        return None;
    }
    let percent = unpercent(text);
    let json = text.contains("\\u").then(|| unescape(text)).flatten();
    // Nobody encodes base64 twice, and by chance it looks like it is all the time.
    let base64 = unbase64(text);
    percent
        .into_iter()
        .chain(json)
        .find_map(|text| shows(&text, needles, layers - 1))
        .or_else(|| base64.iter().find_map(|text| shows(text, needles, 0)))
}

/// Digits of any script as ASCII, without what may stand between.
fn plain(c: char) -> Option<char> {
    match c {
        '\u{660}'..='\u{669}' => char::from_u32(c as u32 - 0x660 + 0x30),
        '\u{ff10}'..='\u{ff19}' => char::from_u32(c as u32 - 0xff10 + 0x30),
        ' ' | '-' | '(' | ')' | '+' => None,
        _ => Some(c),
    }
}

fn unpercent(text: &str) -> Option<String> {
    let mut parts = text.split('%');
    let mut out = parts.next()?.as_bytes().to_vec();
    let mut changed = false;
    for part in parts {
        match part.get(..2).and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                changed = true;
                out.push(byte);
                out.extend_from_slice(&part.as_bytes()[2..]);
            }
            None => {
                out.push(b'%');
                out.extend_from_slice(part.as_bytes());
            }
        }
    }
    changed.then(|| String::from_utf8_lossy(&out).into_owned())
}

fn unescape(text: &str) -> Option<String> {
    serde_json::from_str(&format!("\"{}\"", text.replace('"', "\\\""))).ok()
}

fn unbase64(text: &str) -> Vec<String> {
    let lenient = GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true);
    let engines = [&STANDARD, &URL_SAFE].map(|alphabet| GeneralPurpose::new(alphabet, lenient));
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && !"+/_-".contains(c));
    let mut found = Vec::new();
    for word in words.filter(|word| word.len() >= 9) {
        for (offset, engine) in (0..4).flat_map(|offset| engines.iter().map(move |engine| (offset, engine))) {
            let part = &word[offset..];
            let part = if part.len() % 4 == 1 { &part[..part.len() - 1] } else { part };
            // Of characters only, since a decoded byte may be anything.
            found.extend(
                engine.decode(part).ok().map(|bytes| bytes.iter().map(|byte| char::from(*byte)).collect()),
            );
        }
    }
    found
}

#[test]
fn the_search_finds_what_it_should() {
    let canary = Canary::Phone("4917055501234".to_owned());
    let mut rng = Rng::new(7);
    for _ in 0..1_000 {
        let value = phone("4917055501234", &mut rng);
        assert!(
            shown_in(&json!({"a": [value]}).to_string(), std::slice::from_ref(&canary)).is_some(),
            "{value}"
        );
    }
    let name = Canary::Name("Zo\u{eb} K".to_owned());
    assert!(shown_in(&json!({"Zo\u{eb} K": 1}).to_string(), std::slice::from_ref(&name)).is_some());
    assert!(
        shown_in(&json!({"a": "{\"b\":\"Zo\\u00eb K\"}"}).to_string(), std::slice::from_ref(&name)).is_some()
    );
    assert!(shown_in(&json!({"a": "phone:0123"}).to_string(), std::slice::from_ref(&name)).is_none());
}
