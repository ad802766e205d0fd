//! Who an event is about, collected from the fields that hold people.

use super::document::Value;
use super::phone::{is_bsuid, is_phone};
use super::{USERS_MAX, User};

/// Reads one person from a phone field, a user id field and a parent's user id field. Each may be
/// missing or empty, the phone field may hold a user id, and none is believed without looking at it.
pub(crate) fn user<'t>(phone: Option<&'t str>, id: Option<&'t str>, parent: Option<&'t str>) -> User<'t> {
    User {
        phone: phone.filter(|text| is_phone(text)),
        bsuid: [id, phone, parent].into_iter().flatten().find(|text| is_bsuid(text)),
    }
}

/// Reads the person of an object with `wa_id`, `user_id` and `parent_user_id`: a contact, a context,
/// a participant (`input` is what the business wrote when it named one).
pub(crate) fn person<'t>(object: Value<'t>) -> User<'t> {
    let (mut phone, mut input, mut id, mut parent) = (None, None, None, None);
    for (name, value) in object.members() {
        match name {
            "wa_id" => phone = value.text(),
            "input" => input = value.text(),
            "user_id" => id = value.text(),
            "parent_user_id" => parent = value.text(),
            _ => {}
        }
    }
    user(phone.or(input), id, parent)
}

/// The people of an event that names several: the first [`USERS_MAX`], each once.
pub(crate) struct Users<'t> {
    list: [User<'t>; USERS_MAX],
    len: usize,
    /// There were more.
    pub(crate) more: bool,
}

impl<'t> Users<'t> {
    pub(crate) fn new() -> Self {
        Self { list: [User::default(); USERS_MAX], len: 0, more: false }
    }

    pub(crate) fn push(&mut self, user: User<'t>) {
        if !user.is_known() || self.as_slice().contains(&user) {
            return;
        }
        match self.list.get_mut(self.len) {
            Some(free) => {
                *free = user;
                self.len += 1;
            }
            None => self.more = true,
        }
    }

    pub(crate) fn as_slice(&self) -> &[User<'t>] {
        self.list.get(..self.len).unwrap_or(&self.list)
    }
}
