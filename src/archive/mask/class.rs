//! What values can be, what masks them, and how those look that stay. Pure.

use super::token::Kind;
use super::{FREE, IDS};
use crate::config::{MaskSet, Masked};

/// What strings and numbers of a member are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    /// One of a few words of the provider's: a type, a status.
    Word,
    Time,
    /// A number that counts something, or a price.
    Count,
    /// An id, name or number of the business.
    Business,
    /// A text of the business or the provider about the business.
    Public,
    /// A link to the provider's documentation.
    Help,
    /// Phone, user id, or both; a chat.
    Person,
    /// An id of a message, a call or a request.
    Id,
    Name,
    Text,
    /// Text that belongs to a medium.
    Caption,
    /// A provider's text that may quote a user.
    Notice,
    Media,
    Location,
    /// Of an address book.
    Contact,
    /// A name in one.
    ContactName,
    /// An address in one.
    ContactAddress,
    /// What gives access to an account.
    Secret,
    Unknown,
}

impl Class {
    /// Any of these masks it as a whole. A person is masked by what it turns out to be.
    pub(super) const fn masked_by(self) -> MaskSet {
        match self {
            Self::Word | Self::Time | Self::Count | Self::Business | Self::Public | Self::Help => {
                MaskSet::of(&[])
            }
            Self::Person => MaskSet::of(&[]),
            Self::Id => IDS,
            Self::Name => MaskSet::of(&[Masked::Name]),
            Self::Text => MaskSet::of(&[Masked::Text]),
            Self::Caption => MaskSet::of(&[Masked::Text, Masked::Media]),
            Self::Notice => MaskSet::of(&[Masked::Text, Masked::Name]),
            Self::Media => MaskSet::of(&[Masked::Media]),
            Self::Location => MaskSet::of(&[Masked::Location]),
            Self::Contact => MaskSet::of(&[Masked::Contact]),
            Self::ContactName => MaskSet::of(&[Masked::Contact, Masked::Name]),
            Self::ContactAddress => MaskSet::of(&[Masked::Contact, Masked::Location]),
            Self::Unknown => FREE,
            Self::Secret => FREE.with(IDS),
        }
    }

    pub(super) const fn kind(self) -> Kind {
        match self {
            Self::Person | Self::Id => Kind::Id,
            Self::Name | Self::ContactName => Kind::Name,
            Self::Text | Self::Caption | Self::Notice => Kind::Text,
            Self::Media => Kind::Media,
            Self::Location => Kind::Location,
            Self::Contact | Self::ContactAddress => Kind::Contact,
            Self::Secret => Kind::Session,
            _ => Kind::Other,
        }
    }

    /// Whether it stays as it is if it looks like what it should be.
    pub(super) const fn stays(self) -> bool {
        matches!(self, Self::Word | Self::Time | Self::Count | Self::Business | Self::Help)
    }

    /// Whether it may be an identifier, which has its own pseudonym wherever it is.
    pub(super) const fn may_be_person(self) -> bool {
        matches!(self, Self::Person | Self::Id | Self::Contact | Self::Unknown)
    }
}

/// What an object is: what the names of its members mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Of the envelope, or of something known in it.
    Known,
    Entry,
    Change,
    /// Of a webhook about the business's account.
    Account,
    Message,
    Media,
    Location,
    /// A card of an address book.
    Card,
    /// What a user said or chose.
    Said,
    /// Its values are people.
    People,
    /// A parameter of the business's or the provider's making, or a member that is not known.
    Unknown,
}

impl Place {
    /// Whether names of members are the provider's. Elsewhere users or their applications may have chosen
    /// them.
    pub(super) const fn has_provider_names(self) -> bool {
        matches!(self, Self::Known | Self::Entry | Self::Change | Self::Account | Self::Message | Self::Media)
    }
}

/// Whether a change's field says that it is about templates or accounts.
pub(super) fn is_account_field(field: &str) -> bool {
    matches!(
        field,
        "account_update"
            | "account_alerts"
            | "account_review_update"
            | "account_settings_update"
            | "business_capability_update"
            | "business_status_update"
            | "business_username_update"
            | "phone_number_name_update"
            | "phone_number_quality_update"
            | "security"
            | "message_template_status_update"
            | "message_template_quality_update"
            | "message_template_components_update"
            | "template_category_update"
            | "template_correct_category_detection"
            | "partner_solutions"
            | "payment_configuration_update"
            | "flows"
    )
}

/// Whether a text looks like what its class should be.
pub(super) fn looks_right(class: Class, text: &str) -> bool {
    let bytes = text.as_bytes();
    let digits = bytes.iter().filter(|byte| byte.is_ascii_digit()).count();
    let all = |allowed: fn(u8) -> bool| bytes.len() <= 128 && bytes.iter().all(|byte| allowed(*byte));
    match class {
        // Of a medium's type: "audio/ogg; codecs=opus".
        Class::Word => {
            bytes.len() <= 64
                && digits < super::digits::MIN
                && all(|byte| byte.is_ascii_alphanumeric() || b"_-./;= +".contains(&byte))
                && (!bytes.contains(&b' ') || bytes.contains(&b';'))
        }
        Class::Time => match text.parse() {
            Ok(number) => is_time(number),
            // As RFC 3339 or ISO 8601 has it.
            Err(_) => {
                bytes.len() <= 35
                    && text.matches('-').count() >= 2
                    && all(|byte| byte.is_ascii_digit() || b"-:.+TZ".contains(&byte))
            }
        },
        Class::Count => {
            digits < super::digits::MIN && all(|byte| byte.is_ascii_digit() || b"-.".contains(&byte))
        }
        // A phone of the business is written in many ways.
        Class::Business => all(|byte| byte.is_ascii_graphic() || byte == b' '),
        Class::Help => {
            text.starts_with("https://developers.facebook.com/") && all(|byte| byte.is_ascii_graphic())
        }
        _ => false,
    }
}

/// Whether a number stays that stands where one of that class does; `short`: no phone has so few digits.
pub(super) fn number_looks_right(class: Class, text: &str, short: bool) -> bool {
    match class {
        Class::Time => short || text.parse().is_ok_and(is_time),
        Class::Count | Class::Business => true,
        _ => short,
    }
}

/// Seconds or milliseconds since 1970, from the year 2001 to that of 2096; fewer than a phone has digits
/// pass too.
fn is_time(number: u64) -> bool {
    const SECONDS: std::ops::Range<u64> = 1_000_000_000..4_000_000_000;
    number < 1_000_000 || SECONDS.contains(&number) || SECONDS.contains(&(number / 1000))
}
