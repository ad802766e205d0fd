//! Which conversations an event belongs to: the unit of order.
//!
//! A person is known by phone, by business-scoped user id, or by both, and may go from one to the
//! other; an event that names both waits for both. The numbers are written to the journal, so their
//! definition must never change. Two conversations with the same number merely wait for each other.

use super::User;
use super::phone::canonical;

/// One number for each identity of each user, at the business number `number`.
pub fn conversations<'a>(number: &str, users: &'a [User<'a>]) -> impl Iterator<Item = u64> + use<'a> {
    let seed = hash(SEED, number.as_bytes());
    users.iter().flat_map(move |user| {
        let phone = user.phone.and_then(canonical).map(|digits| hash(seed ^ PHONE, &digits));
        let bsuid = user.bsuid.map(|id| hash(seed ^ BSUID, id.as_bytes()));
        phone.into_iter().chain(bsuid)
    })
}

const SEED: u64 = 0xcbf2_9ce4_8422_2325;
const PHONE: u64 = 1;
const BSUID: u64 = 2;

/// FNV-1a over little-endian words of eight bytes, the last one padded with zeros, then the length;
/// the shift brings the high bits of each product down, the end is MurmurHash3's finaliser.
pub(crate) fn hash(seed: u64, bytes: &[u8]) -> u64 {
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    let mut state = seed;
    for chunk in bytes.chunks(8) {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        state = (state ^ u64::from_le_bytes(word)).wrapping_mul(PRIME);
        state ^= state >> 29;
    }
    state = (state ^ bytes.len() as u64).wrapping_mul(PRIME);
    state = (state ^ (state >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    state = (state ^ (state >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    state ^ (state >> 33)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(number: &str, users: &[User<'_>]) -> Vec<u64> {
        conversations(number, users).collect()
    }

    fn user<'a>(phone: &'a str, bsuid: &'a str) -> User<'a> {
        let some = |text: &'a str| (!text.is_empty()).then_some(text);
        User { phone: some(phone), bsuid: some(bsuid) }
    }

    #[test]
    fn an_event_waits_for_every_identity_of_its_users() {
        let both = all("106500000000101", &[user("919876500001", "IN.1")]);
        let phone = all("106500000000101", &[user("+91 98765 00001", "")]);
        let bsuid = all("106500000000101", &[user("", "IN.1")]);
        assert_eq!(both, [phone, bsuid].concat());
        assert!(all("106500000000101", &[]).is_empty());
        assert!(all("106500000000101", &[user("", "")]).is_empty());
    }

    #[test]
    fn one_person_at_two_business_numbers_has_two_conversations() {
        assert_ne!(all("1", &[user("919876500001", "")]), all("2", &[user("919876500001", "")]));
        assert_eq!(all("1", &[user("5215500000123", "")]), all("1", &[user("525500000123", "")]));
        assert_ne!(all("1", &[user("1234567", "")]), all("1", &[user("", "1234567")]));
    }

    #[test]
    fn numbers_on_disk_stay_what_they_are() {
        assert_eq!(
            all("106500000000101", &[user("919876500001", "IN.9131506428720012")]),
            [15_940_072_258_932_423_084, 5_831_428_480_713_948_851],
        );
    }
}
