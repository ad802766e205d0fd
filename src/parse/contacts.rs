//! The `contacts[]` beside events: who has which phone and which user id.
//!
//! Meta gives some events one identity and the contact the other; a batch holds several contacts, in
//! no promised order, so they are matched by identity, never by position. An event that names nobody
//! belongs to the only contact, if there is only one.

use super::User;
use super::conversation::hash;
use super::document::Value;
use super::phone::{Digits, same};
use super::users::person;

/// Up to this many contacts are simply looked through; above, they are sorted once, so that
/// a thousand messages with a thousand contacts do not cost a million comparisons.
const FEW: usize = 8;

/// Memory of the sorted contacts: hash of an identity, place of the contact.
pub(crate) type Index = Vec<(u64, usize)>;

pub(crate) struct Contacts<'t, 'i> {
    list: Option<Value<'t>>,
    index: Option<&'i Index>,
}

impl<'t, 'i> Contacts<'t, 'i> {
    pub(crate) fn new(list: Option<Value<'t>>, index: &'i mut Index) -> Self {
        let Some(list) = list else { return Self { list: None, index: None } };
        if list.each().count_left() <= FEW {
            return Self { list: Some(list), index: None };
        }
        index.clear();
        for contact in list.each() {
            // Who has one identity only cannot tell anything about another.
            if let User { phone: Some(phone), bsuid: Some(bsuid) } = person(contact) {
                index.extend(phone_hash(phone).map(|hash| (hash, contact.place())));
                index.push((id_hash(bsuid), contact.place()));
                if let Some(parent) = contact.text_of("parent_user_id").filter(|parent| *parent != bsuid) {
                    index.push((id_hash(parent), contact.place()));
                }
            }
        }
        index.sort_unstable();
        Self { list: Some(list), index: Some(index) }
    }

    /// The user with the identity that the first contact of the same person adds.
    pub(crate) fn complete(&self, user: User<'t>) -> User<'t> {
        let Some(list) = self.list else { return user };
        match user {
            User { phone: Some(_), bsuid: Some(_) } => user,
            User { phone: None, bsuid: None } => {
                let mut all = list.each();
                match (all.next(), all.next()) {
                    (Some(only), None) => person(only),
                    _ => user,
                }
            }
            User { phone: Some(phone), bsuid: None } => {
                let found = self.first(phone_hash(phone), |contact, known| {
                    known.bsuid.is_some()
                        && known.phone.is_some_and(|other| same(phone, other))
                        && contact.is_object()
                });
                User { phone: Some(phone), bsuid: found.and_then(|known| known.bsuid) }
            }
            User { phone: None, bsuid: Some(id) } => {
                let found = self.first(Some(id_hash(id)), |contact, known| {
                    known.phone.is_some()
                        && known.bsuid.is_some()
                        && (known.bsuid == Some(id) || contact.text_of("parent_user_id") == Some(id))
                });
                User { phone: found.and_then(|known| known.phone), bsuid: Some(id) }
            }
        }
    }

    fn first(&self, hash: Option<u64>, is_it: impl Fn(Value<'t>, User<'t>) -> bool) -> Option<User<'t>> {
        let list = self.list?;
        let check = |contact: Value<'t>| Some(person(contact)).filter(|known| is_it(contact, *known));
        let Some(index) = self.index else { return list.each().find_map(check) };
        let hash = hash?;
        let from = index.partition_point(|(other, _)| *other < hash);
        let same = index.get(from..)?.iter().take_while(|(other, _)| *other == hash);
        same.map(|(_, place)| list.at(*place)).find_map(check)
    }
}

fn phone_hash(phone: &str) -> Option<u64> {
    Digits::canonical(phone).map(|digits| hash(1, digits.as_bytes()))
}

fn id_hash(id: &str) -> u64 {
    hash(2, id.as_bytes())
}
