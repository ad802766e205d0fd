//! Pseudonyms: HMAC-SHA256 over what is masked, cut to 128 bits. Pure.

use aws_lc_rs::hmac;

use super::super::json;

/// Of the key that makes pseudonyms out of the mask's key, whose other use is the digest of bodies: no body
/// can be made whose digest is a pseudonym.
const LABEL: &[u8] = b"penstock archive mask: pseudonyms";
/// Bytes of a pseudonym.
pub(super) const LEN: usize = 16;

/// What a pseudonym stands for. Pseudonyms of two kinds are never the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Phone,
    Bsuid,
    Lid,
    Group,
    Id,
    Name,
    Text,
    Media,
    Location,
    Contact,
    Session,
    Member,
    Other,
    Key,
    Signature,
}

impl Kind {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Phone => "phone",
            Self::Bsuid => "bsuid",
            Self::Lid => "lid",
            Self::Group => "group",
            Self::Id => "id",
            Self::Name => "name",
            Self::Text => "text",
            Self::Media => "media",
            Self::Location => "location",
            Self::Contact => "contact",
            Self::Session => "session",
            Self::Member => "member",
            Self::Other => "other",
            Self::Key => "key",
            Self::Signature => "signature",
        }
    }

    /// Whether equal values have equal pseudonyms in one record alone. Of what nobody joins by, how often it
    /// comes would tell what it is.
    pub(super) const fn is_of_one_record(self) -> bool {
        matches!(self, Self::Text | Self::Location)
    }
}

pub(super) struct Tokens {
    key: hmac::Key,
}

impl Tokens {
    pub(super) fn new(mask_key: &[u8]) -> Self {
        let label = hmac::Key::new(hmac::HMAC_SHA256, LABEL);
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, hmac::sign(&label, mask_key).as_ref()) }
    }

    /// Of a value; `record` is the id of the one record in which it holds, or empty.
    pub(super) fn sign(&self, kind: Kind, record: &[u8], value: &[u8]) -> [u8; LEN] {
        let mut context = hmac::Context::with_key(&self.key);
        context.update(kind.name().as_bytes());
        // Neither a kind nor a record's id has a zero byte in it.
        context.update(&[0]);
        context.update(record);
        context.update(&[0]);
        context.update(value);
        context.sign().as_ref().first_chunk().copied().unwrap_or_default()
    }

    /// Appends `kind:<hex>`.
    pub(super) fn write(&self, kind: Kind, record: &[u8], value: &[u8], out: &mut Vec<u8>) {
        let record = if kind.is_of_one_record() { record } else { &[] };
        out.extend_from_slice(kind.name().as_bytes());
        out.push(b':');
        json::hex(&self.sign(kind, record, value), out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pseudonyms_differ_by_key_kind_and_value_and_by_record_where_nobody_joins() {
        let (tokens, other) = (Tokens::new(b"key"), Tokens::new(b"yek"));
        let write = |tokens: &Tokens, kind, record: &[u8], value: &[u8]| {
            let mut out = Vec::new();
            tokens.write(kind, record, value, &mut out);
            String::from_utf8(out).unwrap()
        };
        let phone = write(&tokens, Kind::Phone, b"a-1", b"49");
        assert_eq!(phone.len(), "phone:".len() + 2 * LEN);
        assert_eq!(phone, write(&tokens, Kind::Phone, b"a-2", b"49"));
        assert_ne!(phone, write(&tokens, Kind::Phone, b"a-1", b"48"));
        assert_ne!(phone, write(&other, Kind::Phone, b"a-1", b"49"));
        let bare = |text: String| text.split_once(':').map(|(_, hex)| hex.to_owned());
        assert_ne!(bare(phone), bare(write(&tokens, Kind::Lid, b"a-1", b"49")));
        assert_ne!(write(&tokens, Kind::Text, b"a-1", b"yes"), write(&tokens, Kind::Text, b"a-2", b"yes"));
    }
}
