//! One webhook in Meta's shapes: a status or a message, or as many of them as wanted, signed.

use std::fmt::Write;

use aws_lc_rs::hmac;

use super::super::random::Random;
use super::super::users::phone;

/// What webhooks look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Updates of one webhook; more than one are all statuses.
    pub updates: usize,
    /// Bytes of text; every webhook is then a message with that text.
    pub text: Option<usize>,
}

impl Shape {
    /// One update each: 88 % statuses, 12 % messages of some words.
    pub const USUAL: Self = Self { updates: 1, text: None };
}

/// Makes requests. Its memory is reused.
pub struct Writer {
    key: hmac::Key,
    path: String,
    users: u64,
    shape: Shape,
    head: String,
    body: String,
}

impl Writer {
    pub fn new(users: u64, shape: Shape, path: &str, secret: &str) -> Self {
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
        Self { key, path: path.to_owned(), users, shape, head: String::new(), body: String::new() }
    }

    /// Appends a request whose updates have ids from `id`.
    pub fn write(
        &mut self,
        random: &mut Random,
        mut id: impl FnMut(&mut Random) -> String,
        out: &mut Vec<u8>,
    ) {
        self.body.clear();
        write_body(&mut self.body, random, self.users, self.shape, &mut id);
        self.head.clear();
        let signature = hmac::sign(&self.key, self.body.as_bytes());
        write_head(&mut self.head, &self.path, self.body.len(), signature.as_ref());
        out.extend_from_slice(self.head.as_bytes());
        out.extend_from_slice(self.body.as_bytes());
    }
}

/// The headers that Meta sends.
fn write_head(out: &mut String, path: &str, length: usize, signature: &[u8]) {
    put(
        out,
        format_args!(
            "POST {path} HTTP/1.1\r\nHost: gateway.example.com\r\nUser-Agent: facebookexternalua\r\n"
        ),
    );
    put(out, format_args!("Accept: */*\r\nContent-Type: application/json\r\nX-Hub-Signature-256: sha256="));
    for byte in signature {
        put(out, format_args!("{byte:02x}"));
    }
    put(out, format_args!("\r\nContent-Length: {length}\r\n\r\n"));
}

fn write_body(
    out: &mut String,
    random: &mut Random,
    users: u64,
    shape: Shape,
    id: &mut impl FnMut(&mut Random) -> String,
) {
    let first = id(random);
    let user = random.below(users);
    // A user writes with one business number, so a user is a conversation.
    let number = user % 50;
    let time = 1_790_000_000 + random.below(86_400);
    put(
        out,
        format_args!(
            "{{\"object\":\"whatsapp_business_account\",\"entry\":[{{\"id\":\"2159000000{number:05}\",\"changes\":[{{\"value\":{{\
         \"messaging_product\":\"whatsapp\",\"metadata\":{{\"display_phone_number\":\"155507{number:05}\",\
         \"phone_number_id\":\"1065000000{number:05}\"}},"
        ),
    );
    if shape.text.is_none() && (random.below(100) < 88 || shape.updates > 1) {
        out.push_str("\"statuses\":[");
        write_status(out, random, user, &first, time);
        for _ in 1..shape.updates {
            out.push(',');
            let (id, user) = (id(random), random.below(users));
            write_status(out, random, user, &id, time);
        }
        out.push(']');
    } else {
        write_message(out, random, user, &first, time, shape.text);
    }
    put(out, format_args!("}},\"field\":\"messages\"}}]}}]}}"));
}

fn write_status(out: &mut String, random: &mut Random, user: u64, id: &str, time: u64) {
    let status = ["sent", "delivered", "read"][random.below(3) as usize];
    let phone = phone(user);
    put(
        out,
        format_args!(
            "{{\"id\":\"{id}\",\"status\":\"{status}\",\"timestamp\":\"{time}\",\"recipient_id\":\"{phone}\",\
         \"recipient_user_id\":\"IN.{user:016}\",\"conversation\":{{\"id\":\"{:032x}\",\"origin\":{{\"type\":\"utility\"}}}},\
         \"pricing\":{{\"billable\":true,\"pricing_model\":\"PMP\",\"type\":\"regular\",\"category\":\"utility\"}}}}",
            u128::from(user).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835)
        ),
    );
}

fn write_message(
    out: &mut String,
    random: &mut Random,
    user: u64,
    id: &str,
    time: u64,
    bytes: Option<usize>,
) {
    const WORD: &str = "hello ";
    let phone = phone(user);
    put(
        out,
        format_args!(
            "\"contacts\":[{{\"profile\":{{\"name\":\"User {user}\"}},\"wa_id\":\"{phone}\"}}],\
         \"messages\":[{{\"from\":\"{phone}\",\"id\":\"{id}\",\"timestamp\":\"{time}\",\"text\":{{\"body\":\""
        ),
    );
    let words = bytes.map_or_else(|| 4 + random.below(36), |bytes| (bytes / WORD.len()) as u64);
    for _ in 0..words {
        out.push_str(WORD);
    }
    put(out, format_args!("\"}},\"type\":\"text\"}}]"));
}

/// 128 random bits in the shape of Meta's ids.
pub fn wamid(random: &mut Random) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut id = String::from("wamid.HBgMOTE5ODc2NTAwMDAxFQIAERgS");
    for _ in 0..2 {
        let mut bits = random.next();
        for _ in 0..11 {
            id.push(char::from(DIGITS[(bits & 63) as usize]));
            bits >>= 6;
        }
    }
    id + "AA=="
}

fn put(out: &mut String, text: std::fmt::Arguments<'_>) {
    // A String takes everything.
    out.write_fmt(text).ok();
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn value(shape: Shape) -> (usize, serde_json::Value) {
        let (mut writer, mut out) = (Writer::new(100, shape, "/webhook", "secret"), Vec::new());
        writer.write(&mut Random(5), wamid, &mut out);
        let body = out.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
        let json: serde_json::Value = serde_json::from_slice(&out[body..]).unwrap();
        (out.len() - body, json["entry"][0]["changes"][0]["value"].clone())
    }

    #[test]
    fn many_updates_are_statuses_with_an_id_each() {
        let (_, value) = value(Shape { updates: 1000, text: None });
        let statuses = value["statuses"].as_array().unwrap();
        let ids: HashSet<_> = statuses.iter().map(|status| status["id"].as_str().unwrap()).collect();
        let users: HashSet<_> = statuses.iter().map(|status| status["recipient_id"].as_str()).collect();
        assert_eq!((statuses.len(), ids.len()), (1000, 1000));
        assert!(users.len() > 50);
    }

    #[test]
    fn text_is_as_long_as_told() {
        for bytes in [60, 3 << 20] {
            let (length, value) = value(Shape { updates: 1, text: Some(bytes) });
            assert!(value["messages"][0]["text"]["body"].is_string());
            assert!((bytes..bytes + 600).contains(&length), "{length} of {bytes}");
        }
    }
}
