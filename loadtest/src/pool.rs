//! Signed webhooks made before the clock runs: Meta's shapes, and no id twice.
//!
//! 88 % statuses, 12 % messages, as a business sees them that mostly sends. Everything comes from the seed: the same
//! seed is the same load, another seed shares no id with it.

use super::random::Random;

#[path = "pool/webhook.rs"]
mod webhook;

pub use webhook::Shape;
use webhook::{Writer, wamid};

/// Requests in one piece of memory, each ready to be sent.
pub struct Pool {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Pool {
    /// `count` webhooks from `users` users, posted to `path`, signed with `secret`.
    pub fn new(seed: u64, count: usize, users: u64, path: &str, secret: &str) -> Self {
        Self::of(seed, count, users, Shape::USUAL, path, secret)
    }

    /// The same, all of that shape.
    pub fn of(seed: u64, count: usize, users: u64, shape: Shape, path: &str, secret: &str) -> Self {
        let mut random = Random(seed);
        let mut pool = Self { bytes: Vec::with_capacity(count * 900), ends: Vec::with_capacity(count) };
        let mut writer = Writer::new(users, shape, path, secret);
        for _ in 0..count {
            writer.write(&mut random, wamid, &mut pool.bytes);
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
        Self { writer: Writer::new(users, Shape::USUAL, path, secret) }
    }

    /// Appends the webhook of that number.
    pub fn write(&mut self, number: u64, out: &mut Vec<u8>) {
        let mut random = Random(number);
        // So that two numbers have nothing in common.
        random.next();
        self.writer.write(&mut random, |_| format!("{NUMBERED}{number:016x}"), out);
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

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use aws_lc_rs::hmac;

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
}
