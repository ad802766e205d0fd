//! What a region receives around a body: the head of an attempt.
//!
//! All that is the same for one source and one region is prepared once. Heads are used again: an
//! attempt only puts in the values of its moment, which are written into one buffer that they share.
//! `content-length` is not here: the encoder writes it.
//!
//! Deliberately absent: `Idempotency-Key`. Receivers that store the first answer to a key and replay
//! it would replay a 500 to every retry; `webhook-id` is what a region dedupes by.

use std::cell::RefCell;

use aws_lc_rs::{digest, hmac};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_TYPE, HOST, HeaderName, HeaderValue};
use http::{Method, Uri};
use monoio_http::common::request::RequestHead;

use crate::config::Region;
use crate::stamp::rfc3339;

pub const HUB_SIGNATURE: HeaderName = HeaderName::from_static("x-hub-signature-256");
pub const WEBHOOK_ID: HeaderName = HeaderName::from_static("webhook-id");
pub const WEBHOOK_TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
pub const WEBHOOK_SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");
pub const GATEWAY: HeaderName = HeaderName::from_static("penstock-gateway");
pub const SOURCE: HeaderName = HeaderName::from_static("penstock-source");
pub const REGION: HeaderName = HeaderName::from_static("penstock-region");
pub const RECEIVED_AT: HeaderName = HeaderName::from_static("penstock-received-at");
pub const ATTEMPT: HeaderName = HeaderName::from_static("penstock-attempt");
pub const GAP_BEFORE: HeaderName = HeaderName::from_static("penstock-gap-before");
pub const POSSIBLE_DUPLICATE: HeaderName = HeaderName::from_static("penstock-possible-duplicate");

/// Headers with a value of the moment, in the order in which the values are written.
static OF_THE_MOMENT: [HeaderName; 6] =
    [HUB_SIGNATURE, WEBHOOK_ID, WEBHOOK_TIMESTAMP, RECEIVED_AT, ATTEMPT, WEBHOOK_SIGNATURE];

/// The value of [`POSSIBLE_DUPLICATE`]; the header is left out otherwise.
pub const TRUE: HeaderValue = HeaderValue::from_static("true");

/// Before a Standard Webhooks secret, the base64 of its key.
const SECRET_PREFIX: &[u8] = b"whsec_";

/// Bytes of a `webhook-id`: `msg_` and 32 hex digits; and of a part's: `_` and up to 5 digits more.
const ID_BYTES: usize = 36;
const PART_BYTES: usize = 6;

/// Room for the values of one attempt. Longest: 71 + 42 + 20 + 24 + 10 + 47 bytes.
const VALUES_BYTES: usize = 256;

/// Bytes of the buffer that values are cut from: one allocation for some 70 attempts. A head that is
/// still in use keeps all of its buffer, so not more.
const BUFFER_BYTES: usize = 16 * 1024;

/// Identity of a parcel for its region: the same over retries, restarts and instances.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct WebhookId {
    text: [u8; ID_BYTES + PART_BYTES],
    len: usize,
}

impl WebhookId {
    pub fn as_str(&self) -> &str {
        // Written by `Envelope::id` alone, as ASCII.
        std::str::from_utf8(self.as_bytes()).unwrap_or_default()
    }

    fn as_bytes(&self) -> &[u8] {
        &self.text[..self.len]
    }
}

/// What differs from attempt to attempt.
#[derive(Debug, Clone, Copy)]
pub struct Stamp<'a> {
    pub id: &'a WebhookId,
    pub body: &'a [u8],
    /// HMAC-SHA256 of `body` with the source's secret: the provider's own where the body is unchanged.
    pub hub_signature: &'a [u8; 32],
    /// When the webhook came, Unix milliseconds.
    pub received_at_ms: u64,
    /// Now, Unix seconds.
    pub now_s: u64,
    /// 1, 2, ...
    pub attempt: u32,
    /// Parcels of its conversations that were given up before it.
    pub gap_before: u32,
    /// The region may have seen some of this before.
    pub possible_duplicate: bool,
}

/// Why no envelope can be made.
#[derive(Debug, thiserror::Error)]
pub enum EnvelopeError {
    #[error("{what} is {found:?}, expected visible ASCII characters; it is sent as a header")]
    Value { what: &'static str, found: String },
    #[error("endpoint of region {region:?} has the path {found:?}, expected a path and query of a URL")]
    Target { region: String, found: String },
    #[error(
        "signing_secret of region {region:?} starts with `whsec_`, expected base64 behind it; \
         copy the secret again, or drop the prefix if the secret is plain text"
    )]
    SigningSecret { region: String },
}

/// The heads from one source to one region.
pub struct Envelope {
    head: RequestHead,
    /// Of each header of `head`, in its order: which of [`OF_THE_MOMENT`] it is. To compare names with every
    /// attempt would take longer than to write the values.
    places: Vec<Option<usize>>,
    /// Heads that were given back. As many as were ever in use at once, so bounded by `in_flight`.
    used: RefCell<Vec<RequestHead>>,
    /// Key of the Standard Webhooks signature.
    signing: Option<hmac::Key>,
    /// What ids are digests of: source, region, and at the end the webhook's own digest, put in each time.
    id: RefCell<Vec<u8>>,
}

impl Envelope {
    pub fn new(gateway: &str, source: &str, region: &Region) -> Result<Self, EnvelopeError> {
        let value = |what, found: &str| {
            // `HeaderValue` alone would take UTF-8 too, which receivers read in different ways.
            let plain = found.bytes().all(|b| b.is_ascii_graphic() || b == b' ');
            let made = HeaderValue::from_str(found).ok().filter(|_| plain);
            made.ok_or_else(|| EnvelopeError::Value { what, found: found.to_owned() })
        };
        let target = region.endpoint.target.as_str();
        // In the order in which they are sent. The values of the moment have their place already.
        let later = HeaderValue::from_static("");
        let mut headers = vec![
            (HOST, value("the endpoint's host", &region.endpoint.authority)?),
            (CONTENT_TYPE, HeaderValue::from_static("application/json")),
            (HUB_SIGNATURE, later.clone()),
            (WEBHOOK_ID, later.clone()),
            (WEBHOOK_TIMESTAMP, later.clone()),
            (GATEWAY, value("gateway.id", gateway)?),
            (SOURCE, value("source.name", source)?),
            (REGION, value("region.name", &region.name)?),
            (RECEIVED_AT, later.clone()),
            (ATTEMPT, later.clone()),
        ];
        let signing = match &region.signing_secret {
            Some(secret) => {
                headers.push((WEBHOOK_SIGNATURE, later));
                let wrong = || EnvelopeError::SigningSecret { region: region.name.clone() };
                Some(signing_key(secret.expose()).ok_or_else(wrong)?)
            }
            None => None,
        };

        let (mut head, ()) = http::Request::new(()).into_parts();
        head.method = Method::POST;
        head.uri = target
            .parse::<Uri>()
            .ok()
            .filter(|uri| uri.scheme().is_none() && uri.path().starts_with('/'))
            .ok_or_else(|| EnvelopeError::Target { region: region.name.clone(), found: target.to_owned() })?;
        head.headers = headers.into_iter().collect();
        let place = |name: &HeaderName| OF_THE_MOMENT.iter().position(|of_the_moment| of_the_moment == name);
        let places = head.headers.keys().map(place).collect();

        // Lengths first, so that no two pairs of names read the same.
        let mut id = Vec::new();
        for part in [source, &region.name] {
            id.extend_from_slice(&(part.len() as u64).to_le_bytes());
            id.extend_from_slice(part.as_bytes());
        }
        id.extend_from_slice(&[0; digest::SHA256_OUTPUT_LEN]);
        Ok(Self { head, places, used: RefCell::default(), signing, id: RefCell::new(id) })
    }

    /// The id of this region's parcel from the webhook whose whole body has this digest, or of one `part`
    /// of that; 0: of all of it.
    pub fn id(&self, webhook: &[u8; 32], part: u16) -> WebhookId {
        let mut id = self.id.borrow_mut();
        let end = id.len() - webhook.len();
        id[end..].copy_from_slice(webhook);
        let digest = digest::digest(&digest::SHA256, &id);
        let mut text = [0; ID_BYTES + PART_BYTES];
        text[..4].copy_from_slice(b"msg_");
        write_hex(digest.as_ref(), &mut text[4..ID_BYTES]);
        let mut len = ID_BYTES;
        if part > 0 {
            let mut number = itoa::Buffer::new();
            let number = number.format(part).as_bytes();
            text[len] = b'_';
            text[len + 1..len + 1 + number.len()].copy_from_slice(number);
            len += 1 + number.len();
        }
        WebhookId { text, len }
    }

    /// The head of one attempt, to be given back afterwards. `buffer` is one for all envelopes of a
    /// core: what is free in it is used up piece by piece.
    pub fn head(&self, stamp: &Stamp<'_>, buffer: &mut BytesMut) -> RequestHead {
        let mut head = self.used.borrow_mut().pop().unwrap_or_else(|| self.head.clone());
        if buffer.capacity() < VALUES_BYTES {
            *buffer = BytesMut::with_capacity(BUFFER_BYTES);
        }
        let ends = self.write_values(stamp, buffer);
        let values = buffer.split().freeze();
        for (value, place) in head.headers.values_mut().zip(&self.places) {
            if let Some(at) = *place {
                let start = if at == 0 { 0 } else { ends[at - 1] };
                *value = header_value(values.slice(start..ends[at]));
            }
        }
        if stamp.gap_before > 0 {
            head.headers.insert(GAP_BEFORE, stamp.gap_before.into());
        }
        if stamp.possible_duplicate {
            head.headers.insert(POSSIBLE_DUPLICATE, TRUE);
        }
        head
    }

    /// Takes back a head that [`Envelope::head`] made.
    pub fn give_back(&self, mut head: RequestHead) {
        // Said of one attempt, by `head` or by the client.
        if head.headers.len() > self.head.headers.len() {
            head.headers.remove(GAP_BEFORE);
            head.headers.remove(POSSIBLE_DUPLICATE);
        }
        self.used.borrow_mut().push(head);
    }

    /// Writes the values of [`OF_THE_MOMENT`] one behind the other; says where each ends.
    fn write_values(&self, stamp: &Stamp<'_>, to: &mut BytesMut) -> [usize; OF_THE_MOMENT.len()] {
        let mut ends = [0; OF_THE_MOMENT.len()];
        let mut hub_signature = *b"sha256=................................................................";
        write_hex(stamp.hub_signature, &mut hub_signature[7..]);
        to.extend_from_slice(&hub_signature);
        ends[0] = to.len();
        to.extend_from_slice(stamp.id.as_bytes());
        ends[1] = to.len();
        let mut seconds = itoa::Buffer::new();
        let seconds = seconds.format(stamp.now_s).as_bytes();
        to.extend_from_slice(seconds);
        ends[2] = to.len();
        if let Some(moment) = rfc3339(stamp.received_at_ms) {
            to.extend_from_slice(&moment);
        }
        ends[3] = to.len();
        to.extend_from_slice(itoa::Buffer::new().format(stamp.attempt).as_bytes());
        ends[4] = to.len();
        if let Some(key) = &self.signing {
            standard_signature(key, [stamp.id.as_bytes(), seconds, stamp.body], to);
        }
        ends[5] = to.len();
        ends
    }
}

/// `v1,` and the base64 HMAC-SHA256 of `id.timestamp.body`.
fn standard_signature(key: &hmac::Key, [id, timestamp, body]: [&[u8]; 3], to: &mut BytesMut) {
    let mut signer = hmac::Context::with_key(key);
    for part in [id, b".", timestamp, b".", body] {
        signer.update(part);
    }
    // 32 bytes are 44 characters with their padding.
    let mut text = [0; 44];
    let length = BASE64.encode_slice(signer.sign(), &mut text).unwrap_or_default();
    to.extend_from_slice(b"v1,");
    to.extend_from_slice(&text[..length]);
}

/// None if the secret is `whsec_` with something that is no base64.
fn signing_key(secret: &[u8]) -> Option<hmac::Key> {
    let decoded;
    let bytes = match secret.strip_prefix(SECRET_PREFIX) {
        Some(text) => {
            decoded = BASE64.decode(text).ok()?;
            &decoded
        }
        None => secret,
    };
    Some(hmac::Key::new(hmac::HMAC_SHA256, bytes))
}

fn header_value(bytes: Bytes) -> HeaderValue {
    HeaderValue::from_maybe_shared(bytes).expect("digits, letters and punctuation only")
}

/// Two digits of `to` for each byte.
fn write_hex(bytes: &[u8], to: &mut [u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for (digits, byte) in to.chunks_exact_mut(2).zip(bytes) {
        digits.copy_from_slice(&[DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::{Endpoint, Retry, Secret};

    fn region(signing_secret: Option<&str>) -> Region {
        Region {
            name: "us-east".into(),
            endpoint: Endpoint {
                host: "us.example.com".into(),
                port: 80,
                authority: "us.example.com".into(),
                target: "/webhook?a=b".into(),
            },
            prefixes: Vec::new(),
            countries: Vec::new(),
            phone_number_ids: Vec::new(),
            accounts: Vec::new(),
            signing_secret: signing_secret.map(Secret::new),
            in_flight: 1,
            timeout: Duration::from_secs(15),
            source_address: None,
            archive: None,
            rate: 0,
            retry: Retry::default(),
        }
    }

    fn lines(head: &RequestHead) -> Vec<String> {
        let value = |v: &HeaderValue| v.to_str().unwrap().to_owned();
        head.headers.iter().map(|(name, v)| format!("{name}: {}", value(v))).collect()
    }

    #[test]
    fn head_holds_what_the_contract_lists() {
        let envelope = Envelope::new("edge-1", "main", &region(None)).unwrap();
        let id = envelope.id(&[7; 32], 0);
        let mut stamp = Stamp {
            id: &id,
            body: b"{}",
            hub_signature: &[0xA5; 32],
            received_at_ms: 1_700_000_000_123,
            now_s: 1_700_000_060,
            attempt: 1,
            gap_before: 0,
            possible_duplicate: false,
        };
        let mut buffer = BytesMut::new();
        let head = envelope.head(&stamp, &mut buffer);
        assert_eq!((head.method.as_str(), head.uri.to_string()), ("POST", "/webhook?a=b".to_owned()));
        let expected = [
            "host: us.example.com",
            "content-type: application/json",
            &format!("x-hub-signature-256: sha256={}", "a5".repeat(32)),
            &format!("webhook-id: {}", id.as_str()),
            "webhook-timestamp: 1700000060",
            "penstock-gateway: edge-1",
            "penstock-source: main",
            "penstock-region: us-east",
            "penstock-received-at: 2023-11-14T22:13:20.123Z",
            "penstock-attempt: 1",
        ];
        assert_eq!(lines(&head), expected);

        (stamp.attempt, stamp.gap_before, stamp.possible_duplicate) = (u32::MAX, 2, true);
        let lines = lines(&envelope.head(&stamp, &mut buffer));
        assert_eq!(&lines[..9], &expected[..9]);
        let last =
            ["penstock-attempt: 4294967295", "penstock-gap-before: 2", "penstock-possible-duplicate: true"];
        assert_eq!(lines[9..], last);
    }

    #[test]
    fn used_head_keeps_nothing_of_its_last_attempt() {
        let envelope = Envelope::new("edge-1", "main", &region(Some("secret"))).unwrap();
        let (first, second) = (envelope.id(&[7; 32], 0), envelope.id(&[8; 32], 0));
        let mut buffer = BytesMut::new();
        let stamp = Stamp {
            id: &first,
            body: b"{}",
            hub_signature: &[0xA5; 32],
            received_at_ms: 1_700_000_000_123,
            now_s: 1_700_000_060,
            attempt: 1,
            gap_before: 0,
            possible_duplicate: false,
        };
        let fresh = envelope.head(&stamp, &mut buffer);
        let other = Stamp {
            id: &second,
            body: b"[]",
            hub_signature: &[0x5A; 32],
            received_at_ms: 1,
            now_s: 2,
            attempt: 3,
            gap_before: 4,
            possible_duplicate: true,
        };
        envelope.give_back(envelope.head(&other, &mut buffer));
        assert_eq!(lines(&envelope.head(&stamp, &mut buffer)), lines(&fresh));
        assert!(envelope.used.borrow().is_empty(), "it was used again");
    }

    #[test]
    fn id_is_stable_and_its_own_for_each_source_region_and_body() {
        let id = |source: &str, name: &str, digest| {
            let region = Region { name: name.into(), ..region(None) };
            Envelope::new("g", source, &region).unwrap().id(&digest, 0).as_str().to_owned()
        };
        // A change here makes regions take what they have seen for new.
        assert_eq!(id("main", "us-east", [7; 32]), "msg_284b3bd230321c5c2a03cb33e93f7322");
        let mut all = vec![
            id("main", "us-east", [7; 32]),
            id("main", "us-east", [8; 32]),
            id("main", "us-eas", [7; 32]),
            id("mainu", "s-east", [7; 32]),
        ];
        let part = |part| Envelope::new("g", "main", &region(None)).unwrap().id(&[7; 32], part);
        assert_eq!(part(2).as_str(), "msg_284b3bd230321c5c2a03cb33e93f7322_2");
        all.extend([1, 2, u16::MAX].map(|number| part(number).as_str().to_owned()));
        all.sort();
        all.dedup();
        assert_eq!(all.len(), 7);
        assert!(!all[0].contains('.'), "a dot would blur what is signed");
    }

    /// The example of the Standard Webhooks specification's reference libraries.
    #[test]
    fn standard_signature_matches_the_published_example() {
        let key = signing_key(b"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let parts: [&[u8]; 3] = [b"msg_p5jXN8AQM9LWM0D4loKWxJek", b"1614265330", br#"{"test": 2432232314}"#];
        let mut text = BytesMut::new();
        standard_signature(&key, parts, &mut text);
        assert_eq!(text, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
        assert!(signing_key(b"any text").is_some());
    }

    #[test]
    fn what_cannot_be_sent_is_refused() {
        let check = |gateway: &str, change: &dyn Fn(&mut Region), expected: &str| {
            let mut region = region(Some("plain"));
            change(&mut region);
            let text = Envelope::new(gateway, "main", &region).err().unwrap().to_string();
            assert!(text.contains(expected), "{text}");
        };
        check("a\nb", &|_| {}, r#"gateway.id is "a\nb", expected visible ASCII"#);
        check("g", &|r| r.name = "s\u{e3}o".into(), "region.name");
        check("g", &|r| r.endpoint.target = "webhook".into(), "expected a path");
        check("g", &|r| r.endpoint.target = "/a b".into(), "expected a path");
        check("g", &|r| r.signing_secret = Some(Secret::new("whsec_!")), "expected base64");
    }

    #[test]
    fn values_share_buffers_and_long_dates_are_no_panic() {
        let envelope = Envelope::new("edge-1", "main", &region(Some("secret"))).unwrap();
        let id = envelope.id(&[7; 32], 0);
        let stamp = Stamp {
            id: &id,
            body: &[b'x'; 5_000],
            hub_signature: &[255; 32],
            received_at_ms: u64::MAX,
            now_s: u64::MAX,
            attempt: u32::MAX,
            gap_before: 0,
            possible_duplicate: false,
        };
        let mut buffer = BytesMut::new();
        let heads: Vec<_> = (0..200).map(|_| envelope.head(&stamp, &mut buffer)).collect();
        for head in &heads {
            assert_eq!(lines(head), lines(&heads[0]));
            assert_eq!(head.headers[RECEIVED_AT], "");
            assert_eq!(head.headers[WEBHOOK_SIGNATURE].len(), 47);
        }
    }
}
