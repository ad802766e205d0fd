//! Signed webhooks made before the clock runs: Meta's shapes, and no id twice.
//!
//! 88 % statuses, 12 % messages, as a business sees them that mostly sends. Users are spread over eight country
//! prefixes, so that two regions each get about half. Everything comes from the seed: the same seed is the same
//! load, another seed shares no id with it.

use std::fmt::Write;

use aws_lc_rs::hmac;

/// Country prefix, what follows it, and how often: a few big markets and a tail.
const COUNTRIES: [(&str, usize, u64); 8] = [
    ("91", 10, 30),
    ("55", 11, 20),
    ("1", 10, 15),
    ("62", 10, 10),
    ("52", 10, 8),
    ("49", 10, 7),
    ("44", 10, 6),
    ("234", 10, 4),
];

/// The countries' prefixes, dealt to `regions` regions in turn.
pub fn prefixes(regions: usize) -> Vec<Vec<&'static str>> {
    let mut dealt = vec![Vec::new(); regions];
    for (at, (prefix, ..)) in COUNTRIES.iter().enumerate() {
        dealt[at % regions].push(*prefix);
    }
    dealt
}

/// Requests in one piece of memory, each ready to be sent.
pub struct Pool {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Pool {
    /// `count` webhooks from `users` users, posted to `path`, signed with `secret`.
    pub fn new(seed: u64, count: usize, users: u64, path: &str, secret: &str) -> Self {
        let mut random = Random(seed);
        let mut pool = Self { bytes: Vec::with_capacity(count * 900), ends: Vec::with_capacity(count) };
        let mut writer = Writer::new(users, path, secret);
        for _ in 0..count {
            let id = wamid(&mut random);
            writer.write(&mut random, &id, &mut pool.bytes);
            pool.ends.push(pool.bytes.len());
        }
        pool
    }

    pub fn len(&self) -> usize {
        self.ends.len()
    }

    pub fn get(&self, at: usize) -> &[u8] {
        let start = if at == 0 { 0 } else { self.ends[at - 1] };
        &self.bytes[start..self.ends[at]]
    }

    /// Bytes of a request on average, head and body.
    pub fn mean_bytes(&self) -> usize {
        self.bytes.len() / self.ends.len().max(1)
    }
}

/// Webhooks made while the clock runs, as many as wanted; each tells by its id which one it is.
pub struct Numbered {
    writer: Writer,
}

impl Numbered {
    pub fn new(users: u64, path: &str, secret: &str) -> Self {
        Self { writer: Writer::new(users, path, secret) }
    }

    /// Appends the webhook of that number.
    pub fn write(&mut self, number: u64, out: &mut Vec<u8>) {
        let mut random = Random(number);
        // So that two numbers have nothing in common.
        random.next();
        let id = format!("{NUMBERED}{number:016x}");
        self.writer.write(&mut random, &id, out);
    }

    /// Whose body that is.
    pub fn number(request: &[u8]) -> Option<u64> {
        let at = request.windows(NUMBERED.len()).position(|window| window == NUMBERED.as_bytes())?;
        let digits = request.get(at + NUMBERED.len()..)?.get(..16)?;
        u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
    }
}

/// What the id of a numbered webhook begins with.
const NUMBERED: &str = "wamid.HBgM";

/// Makes requests. Its memory is reused.
struct Writer {
    key: hmac::Key,
    path: String,
    users: u64,
    head: String,
    body: String,
}

impl Writer {
    fn new(users: u64, path: &str, secret: &str) -> Self {
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
        Self { key, path: path.to_owned(), users, head: String::new(), body: String::new() }
    }

    fn write(&mut self, random: &mut Random, id: &str, out: &mut Vec<u8>) {
        self.body.clear();
        write_body(&mut self.body, random, self.users, id);
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

fn write_body(out: &mut String, random: &mut Random, users: u64, id: &str) {
    let user = random.below(users);
    let phone = phone(user);
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
    if random.below(100) < 88 {
        let status = ["sent", "delivered", "read"][random.below(3) as usize];
        put(
            out,
            format_args!(
                "\"statuses\":[{{\"id\":\"{id}\",\"status\":\"{status}\",\"timestamp\":\"{time}\",\"recipient_id\":\"{phone}\",\
             \"recipient_user_id\":\"IN.{user:016}\",\"conversation\":{{\"id\":\"{:032x}\",\"origin\":{{\"type\":\"utility\"}}}},\
             \"pricing\":{{\"billable\":true,\"pricing_model\":\"PMP\",\"type\":\"regular\",\"category\":\"utility\"}}}}]",
                u128::from(user).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835)
            ),
        );
    } else {
        put(
            out,
            format_args!(
                "\"contacts\":[{{\"profile\":{{\"name\":\"User {user}\"}},\"wa_id\":\"{phone}\"}}],\
             \"messages\":[{{\"from\":\"{phone}\",\"id\":\"{id}\",\"timestamp\":\"{time}\",\"text\":{{\"body\":\""
            ),
        );
        for _ in 0..4 + random.below(36) {
            put(out, format_args!("hello "));
        }
        put(out, format_args!("\"}},\"type\":\"text\"}}]"));
    }
    put(out, format_args!("}},\"field\":\"messages\"}}]}}]}}"));
}

/// Always the same for the same user.
fn phone(user: u64) -> String {
    let mut of_user = Random(user);
    let total = COUNTRIES.iter().map(|(.., weight)| weight).sum();
    let mut at = of_user.below(total);
    for (prefix, digits, weight) in COUNTRIES {
        if at < weight {
            // No number starts with 0 after its country; the user's own number makes it unique.
            return format!("{prefix}7{:0width$}", user % 10_u64.pow(digits as u32 - 1), width = digits - 1);
        }
        at -= weight;
    }
    unreachable!("the weights add up to their sum")
}

/// 128 random bits in the shape of Meta's ids.
fn wamid(random: &mut Random) -> String {
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

/// SplitMix64: good enough for load, and the seed is the whole state.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn requests_are_whole_json_of_the_promised_mix_without_a_repeated_id() {
        let mut ids = HashSet::new();
        let (mut statuses, mut bytes) = (0, 0);
        for seed in [1, 2] {
            let pool = Pool::new(seed, 2000, 500, "/webhook", "secret");
            for at in 0..pool.len() {
                let request = pool.get(at);
                let ((), end) = crate::http::request(request).unwrap().unwrap();
                assert_eq!(end, request.len());
                let body = request.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
                let json: serde_json::Value = serde_json::from_slice(&request[body..]).unwrap();
                let value = &json["entry"][0]["changes"][0]["value"];
                let (status, message) = (&value["statuses"][0]["id"], &value["messages"][0]["id"]);
                assert!(
                    ids.insert(status.as_str().or(message.as_str()).unwrap().to_owned()),
                    "seed {seed}, {at}"
                );
                statuses += usize::from(status.is_string());
                bytes += request.len();
            }
        }
        assert!((3400..3640).contains(&statuses), "{statuses} of 4000");
        assert!((780..900).contains(&(bytes / 4000)), "{} bytes", bytes / 4000);
    }

    #[test]
    fn numbered_webhooks_tell_their_number() {
        let mut numbered = Numbered::new(100, "/webhook", "secret");
        for number in [0, 1, 77, u64::MAX] {
            let mut request = Vec::new();
            numbered.write(number, &mut request);
            assert_eq!(Numbered::number(&request), Some(number));
        }
        assert_eq!(Numbered::number(b"wamid.HBgM12"), None);
    }

    #[test]
    fn signature_is_the_hmac_of_the_body() {
        let pool = Pool::new(7, 1, 10, "/webhook", "secret");
        let request = pool.get(0);
        let signature = crate::http::header(request, "x-hub-signature-256").unwrap();
        let body = request.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
        let digest: Vec<u8> = (7..signature.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(std::str::from_utf8(&signature[at..at + 2]).unwrap(), 16).unwrap())
            .collect();
        let key = hmac::Key::new(hmac::HMAC_SHA256, b"secret");
        hmac::verify(&key, &request[body..], &digest).unwrap();
    }

    #[test]
    fn users_keep_their_phone_and_share_none() {
        let phones: HashSet<String> = (0..20_000).map(phone).collect();
        assert_eq!(phones.len(), 20_000);
        let dealt = prefixes(2);
        let of_first = phones.iter().filter(|phone| dealt[0].iter().any(|prefix| phone.starts_with(prefix)));
        assert!((8_000..14_000).contains(&of_first.count()));
    }
}
