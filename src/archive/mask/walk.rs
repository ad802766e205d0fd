//! Writes a body anew, value by value, as it may be shown. Pure, linear in the body.

use simd_json::{Node, StaticNode};

use super::class::{Class, Place, is_account_field, looks_right, number_looks_right};
use super::digits::{canonical, phone};
use super::names::{Member, Names};
use super::scrub::scrub;
use super::token::{Kind, Tokens};
use super::{FREE, IDS, Rules};
use crate::archive::json;
use crate::config::{MaskSet, Masked};
use crate::parse::{Value, is_bsuid};

/// Longest whole number of an unknown member that stays: one digit less than the shortest phone.
const NUMBER_MAX: u64 = 999_999;
/// Longest unknown name that stays.
const NAME_MAX: usize = 48;

pub(super) struct Walk<'a> {
    kinds: MaskSet,
    tokens: &'a Tokens,
    names: &'a Names,
    /// The record's id.
    record: &'a [u8],
    out: &'a mut Vec<u8>,
    /// A string before it is escaped.
    text: Vec<u8>,
}

impl<'a> Walk<'a> {
    pub(super) fn new(rules: &'a Rules, record: &'a [u8], out: &'a mut Vec<u8>) -> Self {
        let Rules { kinds, tokens, names } = rules;
        Self { kinds: *kinds, tokens, names, record, out, text: Vec::new() }
    }

    pub(super) fn root(mut self, root: Value<'_>) {
        self.value(root, Member::ROOT);
    }

    /// Recursion ends at the depth limit of the document.
    fn value(&mut self, value: Value<'_>, of: Member) {
        match value.node() {
            Node::Static(StaticNode::Null) => self.out.extend_from_slice(b"null"),
            Node::Static(StaticNode::Bool(true)) => self.out.extend_from_slice(b"true"),
            Node::Static(StaticNode::Bool(false)) => self.out.extend_from_slice(b"false"),
            Node::Static(StaticNode::I64(number)) => {
                self.number(&number.to_string(), number.unsigned_abs() <= NUMBER_MAX, of);
            }
            Node::Static(StaticNode::U64(number)) => {
                self.number(&number.to_string(), number <= NUMBER_MAX, of)
            }
            Node::Static(StaticNode::F64(number)) => {
                // As JSON has it, and as whole numbers are written where it is one: a phone may come as
                // 4.9e12.
                let whole = number.fract() == 0.0 && number.abs() < 1e18;
                let text = match serde_json::Number::from_f64(number) {
                    Some(_) if whole => format!("{}", number as i64),
                    Some(number) => number.to_string(),
                    None => "0".to_owned(),
                };
                self.number(&text, false, of);
            }
            Node::String(text) => {
                self.string(text, of);
                self.put_text();
            }
            Node::Array { .. } => {
                self.out.push(b'[');
                for (at, element) in value.each().enumerate() {
                    if at > 0 {
                        self.out.push(b',');
                    }
                    self.value(element, of);
                }
                self.out.push(b']');
            }
            Node::Object { .. } => self.object(value, of.place),
        }
    }

    fn object(&mut self, object: Value<'_>, place: Place) {
        let inside =
            if place == Place::Change && is_about_account(object) { Place::Account } else { Place::Known };
        self.out.push(b'{');
        for (at, (name, value)) in object.members().enumerate() {
            if at > 0 {
                self.out.push(b',');
            }
            let mut of = self.names.member(place, name);
            if place == Place::Change && name == "value" {
                of.place = inside;
            }
            self.name(name, place, of);
            self.out.push(b':');
            self.value(value, of);
        }
        self.out.push(b'}');
    }

    fn name(&mut self, name: &str, place: Place, of: Member) {
        self.text.clear();
        if of.known || place.has_provider_names() && is_programmers(name) {
            self.text.extend_from_slice(name.as_bytes());
        } else if identity(name).is_some() {
            person(self.kinds, self.tokens, name, self.kinds.meets(FREE), &mut self.text);
        } else if self.kinds.meets(FREE) {
            self.tokens.write(Kind::Member, &[], name.as_bytes(), &mut self.text);
        } else {
            scrub(self.kinds, self.tokens, name, &mut self.text);
        }
        self.put_text();
    }

    /// Writes `self.text` as a string.
    fn put_text(&mut self) {
        self.out.push(b'"');
        json::escape(&self.text, self.out);
        self.out.push(b'"');
    }

    /// Puts what may be shown of a string into `self.text`.
    fn string(&mut self, text: &str, of: Member) {
        self.text.clear();
        let Self { kinds, tokens, record, .. } = *self;
        let out = &mut self.text;
        let mut masked_by = of.masked_by;
        if of.class.stays() {
            match looks_right(of.class, text) {
                // It may hold an id in base64.
                true if matches!(of.class, Class::Word | Class::Help) => {
                    return scrub(kinds, tokens, text, out);
                }
                true => return out.extend_from_slice(text.as_bytes()),
                false => {}
            }
            masked_by = FREE;
        }
        if text.is_empty() {
            return;
        }
        if of.class.may_be_person() {
            if person(kinds, tokens, text, kinds.meets(masked_by), out) {
                return;
            }
            if of.class == Class::Person {
                // It stands where people stand, whatever it is.
                masked_by = masked_by.with(IDS).with(MaskSet::of(&[Masked::Name]));
            }
        }
        if kinds.meets(masked_by) {
            tokens.write(of.class.kind(), record, text.as_bytes(), out);
        } else {
            scrub(kinds, tokens, text, out);
        }
    }

    /// `text` is the number as JSON; `short`: no phone has so few digits.
    fn number(&mut self, text: &str, short: bool, of: Member) {
        let looks = Looks::of(text, short);
        let of = match of.class.stays() && !number_looks_right(of.class, text, short) {
            true => Member { class: Class::Unknown, masked_by: FREE, ..of },
            false => of,
        };
        let stays = match of.class {
            class if class.stays() => true,
            Class::Unknown | Class::Public | Class::Person | Class::Id if looks == Looks::Short => true,
            // What is masked by its looks alone: of a place the looks are known.
            class => {
                let phone = looks == Looks::Long || looks == Looks::Fraction && class != Class::Location;
                !(self.kinds.meets(of.masked_by) || phone && self.kinds.has(Masked::Phone))
            }
        };
        if stays {
            return self.out.extend_from_slice(text.as_bytes());
        }
        self.text.clear();
        let found = of.class.may_be_person() || !self.kinds.meets(of.masked_by);
        if !found || !person(self.kinds, self.tokens, text, true, &mut self.text) {
            self.tokens.write(of.class.kind(), self.record, text.as_bytes(), &mut self.text);
        }
        self.put_text();
    }
}

/// What a number could be.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Looks {
    /// Neither a phone nor a place.
    Short,
    Long,
    Fraction,
}

impl Looks {
    fn of(text: &str, short: bool) -> Self {
        match text.contains(['.', 'e', 'E']) {
            _ if short => Self::Short,
            true => Self::Fraction,
            false => Self::Long,
        }
    }
}

/// Whether every `field` of a change names one about the account: of doubles, either may count.
fn is_about_account(change: Value<'_>) -> bool {
    let mut fields = change.members().filter(|(name, _)| *name == "field").map(|(_, value)| value.text());
    let first = fields.next().flatten();
    first.is_some_and(is_account_field) && fields.all(|field| field.is_some_and(is_account_field))
}

/// Whether a name looks like one that a programmer gave.
fn is_programmers(name: &str) -> bool {
    let bytes = name.as_bytes();
    bytes.len() <= NAME_MAX
        && bytes.first().is_some_and(|byte| byte.is_ascii_lowercase() || *byte == b'_')
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'_')
        && bytes.iter().filter(|byte| byte.is_ascii_digit()).count() < super::digits::MIN
}

/// Who or what an identifier is, with the form of it that is always the same.
fn identity(text: &str) -> Option<(Kind, Vec<u8>)> {
    if let Some((user, server)) = text.rsplit_once('@') {
        // Behind a colon or full stop is the device.
        let user = user.split([':', '.']).next().unwrap_or_default();
        return match server {
            "s.whatsapp.net" | "c.us" => phone(user).map(|digits| (Kind::Phone, canonical(&digits))),
            "lid" | "hosted.lid" => Some((Kind::Lid, user.as_bytes().to_vec())),
            "g.us" | "newsletter" => Some((Kind::Group, text.as_bytes().to_vec())),
            _ => None,
        };
    }
    if let Some(digits) = phone(text) {
        return Some((Kind::Phone, canonical(&digits)));
    }
    is_bsuid(text).then(|| (Kind::Bsuid, text.as_bytes().to_vec()))
}

/// Appends a person's pseudonym, or the identifier itself where neither `masked` nor its kind asks for one.
/// False, and nothing is appended, if it is nobody's.
pub(super) fn person(kinds: MaskSet, tokens: &Tokens, text: &str, masked: bool, out: &mut Vec<u8>) -> bool {
    if text == "status@broadcast" {
        out.extend_from_slice(text.as_bytes());
        return true;
    }
    let Some((kind, form)) = identity(text) else { return false };
    let by_kind = match kind {
        Kind::Phone => MaskSet::of(&[Masked::Phone]),
        Kind::Bsuid => MaskSet::of(&[Masked::Bsuid]),
        _ => IDS,
    };
    if masked || kinds.meets(by_kind) {
        tokens.write(kind, &[], &form, out);
    } else {
        out.extend_from_slice(text.as_bytes());
    }
    true
}
