//! Webhooks shaped like Meta's, about invented people: bodies as they come from production, byte for byte in style.
//!
//! Bodies are pure ASCII as Meta sends them (`\u00fc`, `\/`), ids are `wamid.`-shaped, and no two
//! webhooks of one [`Mint`] share an event. Numbers come from ranges reserved for fiction where the
//! country has one. Shared by the demo, `penstock send` and the tests.

use std::fmt::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// The business account, and its number, that all made-up webhooks are about.
pub const ACCOUNT: &str = "215900000000001";
pub const NUMBER: &str = "106500000000101";
const DISPLAY_NUMBER: &str = "15550783100";

/// An end user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Person<'a> {
    pub name: &'a str,
    /// ISO 3166-1 alpha-2, as the demo knows it: not derived from the number.
    pub country: &'a str,
    /// Digits; `None` for a user with a username whose phone is withheld.
    pub phone: Option<&'a str>,
    /// Business-scoped user id.
    pub bsuid: Option<&'a str>,
}

/// Two or more from each of the demo's regions.
pub const PEOPLE: [Person<'static>; 9] = [
    Person {
        name: "J\u{fc}rgen",
        country: "DE",
        phone: Some("491713920099"),
        bsuid: Some("DE.7201004056848118"),
    },
    Person { name: "Ana", country: "BR", phone: Some("5511987650001"), bsuid: Some("BR.1502576394655843") },
    Person { name: "Priya", country: "IN", phone: Some("919876500001"), bsuid: Some("IN.9131506428720012") },
    Person {
        name: "Zo\u{eb}",
        country: "FR",
        phone: Some("33639980012"),
        bsuid: Some("FR.4410028837716205"),
    },
    Person { name: "Grace", country: "US", phone: Some("12025550143"), bsuid: Some("US.8830172645519027") },
    Person { name: "Haruto", country: "JP", phone: Some("819012345678"), bsuid: Some("JP.2290415573306618") },
    Person { name: "Tom", country: "GB", phone: Some("447700900123"), bsuid: Some("GB.6617203948820154") },
    Person { name: "Diego", country: "MX", phone: Some("5215512345678"), bsuid: Some("MX.3308816204457790") },
    Person { name: "Mei", country: "SG", phone: Some("6581234567"), bsuid: Some("SG.5524910387762043") },
];

/// Someone who shows a username and no phone number.
pub const WITHOUT_PHONE: Person<'static> =
    Person { name: "Ren", country: "JP", phone: None, bsuid: Some("JP.9043317725601182") };

/// A body, and whom each of its events is about.
#[derive(Debug, Clone)]
pub struct Webhook<'a> {
    /// What a person would call it, ASCII.
    pub label: String,
    pub body: Vec<u8>,
    /// One per event in the body's order; `None` for an event without a user.
    pub users: Vec<Option<Person<'a>>>,
}

/// Makes webhooks whose ids are never used twice.
#[derive(Debug)]
pub struct Mint {
    seed: u64,
    made: u64,
    unix_seconds: u64,
}

impl Mint {
    /// Mints of different seeds make different ids; `unix_seconds` is the time inside the webhooks.
    pub fn new(seed: u64, unix_seconds: u64) -> Self {
        Self { seed, made: 0, unix_seconds }
    }

    /// A text message from `from`.
    pub fn message<'a>(&mut self, from: Person<'a>, text: &str) -> Webhook<'a> {
        self.messages(&[(from, text)])
    }

    /// Several text messages in one webhook, as Meta sends them under load.
    pub fn messages<'a>(&mut self, sent: &[(Person<'a>, &str)]) -> Webhook<'a> {
        let mut contacts = Vec::new();
        let mut messages = Vec::new();
        for (from, text) in sent {
            let contact = contact(from);
            if !contacts.contains(&contact) {
                contacts.push(contact);
            }
            messages.push(object([
                text_member("from", from.phone),
                text_member("id", Some(&self.id(*from, Direction::Inbound))),
                format!(
                    r#""timestamp":"{}","text":{{"body":{}}},"type":"text""#,
                    self.unix_seconds,
                    quoted(text)
                ),
                text_member("from_user_id", from.bsuid),
            ]));
        }
        let label = match sent {
            [(from, _)] => format!("{} message", from.country),
            many => {
                let countries: Vec<_> = many.iter().map(|(from, _)| from.country).collect();
                format!("{} batch", countries.join("+"))
            }
        };
        let value = format!(r#""contacts":[{}],"messages":[{}]"#, contacts.join(","), messages.join(","));
        Webhook {
            label,
            body: about_number(&value),
            users: sent.iter().map(|(from, _)| Some(*from)).collect(),
        }
    }

    /// The message of one webhook once more, in a webhook with that of another.
    pub fn joined<'a>(one: &Webhook<'a>, other: &Webhook<'a>) -> Result<Webhook<'a>, serde_json::Error> {
        let (mut contacts, mut messages) = (Vec::new(), Vec::new());
        for webhook in [one, other] {
            let body: serde_json::Value = serde_json::from_slice(&webhook.body)?;
            let value = &body["entry"][0]["changes"][0]["value"];
            contacts.push(value["contacts"][0].to_string());
            messages.push(value["messages"][0].to_string());
        }
        let value = format!(r#""contacts":[{}],"messages":[{}]"#, contacts.join(","), messages.join(","));
        Ok(Webhook {
            label: format!("{} + {}", one.label, other.label),
            body: about_number(&value),
            users: [one.users.as_slice(), &other.users].concat(),
        })
    }

    /// The same JSON in other bytes: white space, escapes and the order of members.
    pub fn rewritten<'a>(webhook: &Webhook<'a>) -> Result<Webhook<'a>, serde_json::Error> {
        let body: serde_json::Value = serde_json::from_slice(&webhook.body)?;
        Ok(Webhook { body: serde_json::to_vec_pretty(&body)?, ..webhook.clone() })
    }

    /// The id of a message that the business sent to `to`: all its statuses carry it.
    pub fn sent_message(&mut self, to: Person<'_>) -> String {
        self.id(to, Direction::Outbound)
    }

    /// A status (`sent`, `delivered`, `read`, ...) of the message `id` sent to `to`.
    pub fn status<'a>(&mut self, to: Person<'a>, id: &str, status: &str) -> Webhook<'a> {
        let status_object = object([
            text_member("id", Some(id)),
            text_member("status", Some(status)),
            format!(r#""timestamp":"{}""#, self.unix_seconds),
            text_member("recipient_id", to.phone),
            text_member("recipient_user_id", to.bsuid),
            r#""pricing":{"billable":true,"pricing_model":"PMP","type":"regular","category":"utility"}"#
                .to_owned(),
        ]);
        let value = format!(r#""contacts":[{}],"statuses":[{status_object}]"#, contact(&to));
        Webhook {
            label: format!("{} status {status}", to.country),
            body: about_number(&value),
            users: vec![Some(to)],
        }
    }

    /// A change of the business account itself: nobody's conversation.
    pub fn account_change(&mut self) -> Webhook<'static> {
        self.made += 1;
        let body = format!(
            concat!(
                r#"{{"object":"whatsapp_business_account","entry":[{{"id":"{}","time":{},"changes":[{{"value":"#,
                r#"{{"event":"PARTNER_ADDED","waba_info":{{"waba_id":"{}","owner_business_id":"2329417887457253"}}}},"#,
                r#""field":"account_update"}}]}}]}}"#
            ),
            ACCOUNT,
            self.unix_seconds,
            980_198_427_658_000 + self.made,
        );
        Webhook { label: "account update".to_owned(), body: body.into_bytes(), users: vec![None] }
    }

    /// `wamid.` and the base64 of what Meta packs there: the user's digits, the direction, a unique name.
    fn id(&mut self, user: Person<'_>, direction: Direction) -> String {
        self.made += 1;
        let digits: String = match user.phone {
            Some(phone) => phone.to_owned(),
            None => user.bsuid.unwrap_or_default().chars().filter(char::is_ascii_digit).take(12).collect(),
        };
        let name = format!("{:012X}{:08X}", self.seed & 0xffff_ffff_ffff, self.made);
        // A length is one byte here; numbers have 15 digits at most, the name 20.
        let length = |text: &str| u8::try_from(text.len()).unwrap_or(u8::MAX);
        let mut bytes = vec![0x1c, 0x18, length(&digits)];
        bytes.extend_from_slice(digits.as_bytes());
        bytes.extend_from_slice(&[0x15, 0x02, 0x00, direction as u8, 0x18, length(&name)]);
        bytes.extend_from_slice(name.as_bytes());
        bytes.push(0);
        format!("wamid.{}", STANDARD.encode(bytes))
    }
}

/// The byte of a `wamid` that says who wrote the message.
#[derive(Debug, Clone, Copy)]
enum Direction {
    Outbound = 0x11,
    Inbound = 0x12,
}

fn contact(person: &Person<'_>) -> String {
    let username = person.phone.is_none().then(|| format!("@{}", person.name.to_ascii_lowercase()));
    let profile =
        object([format!(r#""name":{}"#, quoted(person.name)), text_member("username", username.as_deref())]);
    object([
        format!(r#""profile":{profile}"#),
        text_member("wa_id", person.phone),
        text_member("user_id", person.bsuid),
    ])
}

/// An object of the members that are not empty: Meta omits what it withholds.
fn object<const N: usize>(members: [String; N]) -> String {
    let present: Vec<_> = members.into_iter().filter(|member| !member.is_empty()).collect();
    format!("{{{}}}", present.join(","))
}

fn text_member(name: &str, value: Option<&str>) -> String {
    value.map(|value| format!(r#""{name}":{}"#, quoted(value))).unwrap_or_default()
}

/// The envelope of everything on the `messages` field.
fn about_number(value: &str) -> Vec<u8> {
    format!(
        concat!(
            r#"{{"object":"whatsapp_business_account","entry":[{{"id":"{}","changes":[{{"value":{{"messaging_product":"whatsapp","#,
            r#""metadata":{{"display_phone_number":"{}","phone_number_id":"{}"}},{}}},"field":"messages"}}]}}]}}"#
        ),
        ACCOUNT, DISPLAY_NUMBER, NUMBER, value
    )
    .into_bytes()
}

/// A JSON string as Meta writes it: ASCII only, `\uXXXX` in lower case with surrogate pairs, `\/`.
fn quoted(text: &str) -> String {
    let mut json = String::from("\"");
    for unit in text.encode_utf16() {
        match u8::try_from(unit) {
            Ok(byte @ (b'"' | b'\\' | b'/')) => json.extend(['\\', char::from(byte)]),
            Ok(b'\n') => json.push_str("\\n"),
            Ok(byte @ b' '..=b'~') => json.push(char::from(byte)),
            _ => {
                write!(json, "\\u{unit:04x}").ok();
            }
        }
    }
    json.push('"');
    json
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn text_is_escaped_as_meta_does_and_reads_back() {
        for text in ["hi", "caf\u{e9} a/b \"q\" \\ \u{1f600}\n\u{7f}\u{1}"] {
            let json = quoted(text);
            assert!(json.is_ascii());
            assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text);
        }
        assert_eq!(quoted("\u{e4}/\u{1f600}"), r#""\u00e4\/\ud83d\ude00""#);
    }

    #[test]
    fn ids_hold_the_number_like_real_ones_and_are_never_repeated() {
        let mut mint = Mint::new(7, 1_789_400_000);
        let mut seen = std::collections::HashSet::new();
        for _ in 0..1000 {
            assert!(seen.insert(mint.id(PEOPLE[0], Direction::Inbound)));
        }
        assert!(
            seen.iter().all(|id| id.starts_with("wamid.HBgMNDkxNzEzOTIwMDk5FQIAEhgU")),
            "{:?}",
            seen.iter().next()
        );
        assert!(!seen.contains(&Mint::new(8, 0).id(PEOPLE[0], Direction::Inbound)), "seeds differ");
    }

    #[test]
    fn repeats_hold_the_same_events() {
        use super::super::events::events_in;
        let ids = |webhook: &Webhook<'_>| -> Vec<String> {
            events_in(&webhook.body).unwrap().into_iter().map(|event| event.id).collect()
        };
        let mut mint = Mint::new(1, 1_789_400_000);
        let (one, other) = (mint.message(PEOPLE[0], "one / \u{fc}"), mint.message(PEOPLE[1], "two"));
        let rewritten = Mint::rewritten(&one).unwrap();
        assert!(ids(&rewritten) == ids(&one) && rewritten.body != one.body);
        let joined = Mint::joined(&one, &other).unwrap();
        assert_eq!(ids(&joined), [ids(&one), ids(&other)].concat());
        assert_eq!(joined.users, [Some(PEOPLE[0]), Some(PEOPLE[1])]);
    }

    #[test]
    fn bodies_have_the_members_that_meta_sends() {
        let mut mint = Mint::new(1, 1_789_400_000);
        let value = |webhook: &Webhook<'_>| -> Value {
            assert!(webhook.body.is_ascii());
            let body: Value = serde_json::from_slice(&webhook.body).unwrap();
            assert_eq!(body["object"], "whatsapp_business_account");
            assert_eq!(body["entry"][0]["id"], ACCOUNT);
            body["entry"][0]["changes"][0]["value"].clone()
        };

        let message = value(&mint.message(PEOPLE[0], "hi"));
        assert_eq!(message["messages"][0]["from"], "491713920099");
        assert_eq!(message["contacts"][0]["wa_id"], "491713920099");
        assert_eq!(message["contacts"][0]["profile"]["name"], "J\u{fc}rgen");
        assert_eq!(message["metadata"]["phone_number_id"], NUMBER);

        let hidden = value(&mint.message(WITHOUT_PHONE, "hi"));
        assert_eq!(hidden["messages"][0]["from_user_id"], WITHOUT_PHONE.bsuid.unwrap());
        assert!(hidden["messages"][0].get("from").is_none(), "withheld means omitted");
        assert!(hidden["contacts"][0].get("wa_id").is_none());

        let id = mint.sent_message(PEOPLE[1]);
        let status = value(&mint.status(PEOPLE[1], &id, "read"));
        assert_eq!(status["statuses"][0]["id"], id.as_str());
        assert_eq!(status["statuses"][0]["recipient_id"], "5511987650001");

        let batch = mint.messages(&[(PEOPLE[0], "1"), (PEOPLE[2], "2"), (PEOPLE[0], "3")]);
        assert_eq!(batch.users, [Some(PEOPLE[0]), Some(PEOPLE[2]), Some(PEOPLE[0])]);
        let batch = value(&batch);
        assert_eq!(batch["messages"].as_array().unwrap().len(), 3);
        assert_eq!(batch["contacts"].as_array().unwrap().len(), 2, "one contact per person");

        assert_eq!(value(&mint.account_change())["event"], "PARTNER_ADDED");
    }
}
