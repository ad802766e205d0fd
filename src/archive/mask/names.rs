//! What a member holds, by its name and by what it stands in. Pure.
//!
//! The tables have what providers are known to send. What they do not have is [`Class::Unknown`], and masked.

use std::collections::HashMap;

use foldhash::fast::FixedState;

use super::FREE;
use super::class::{Class, Place};
use crate::config::{MaskSet, Masked};

/// A member: what it is, what masks it, what objects in it are, and whether its name is known.
#[derive(Debug, Clone, Copy)]
pub(super) struct Member {
    pub(super) class: Class,
    pub(super) masked_by: MaskSet,
    pub(super) place: Place,
    pub(super) known: bool,
}

impl Member {
    const UNKNOWN: Self = Self { known: false, ..Self::new(Class::Unknown, Place::Unknown) };

    /// A value without a name: the body itself.
    pub(super) const ROOT: Self = Self::new(Class::Unknown, Place::Known);

    const fn new(class: Class, place: Place) -> Self {
        Self { class, masked_by: class.masked_by(), place, known: true }
    }

    /// Masked by these as well.
    const fn also(self, kinds: MaskSet) -> Self {
        Self { masked_by: self.masked_by.with(kinds), ..self }
    }
}

type Row = (Class, Place, &'static str);

/// What a member is as a value, what objects in it are, and its names.
const ANYWHERE: &[Row] = &[
    // What holds other things; as a value by itself it would be something else than what is known by that
    // name.
    (Class::Unknown, Place::Entry, "entry"),
    (Class::Unknown, Place::Change, "changes"),
    (Class::Word, Place::Known, "value"),
    (
        Class::Unknown,
        Place::Known,
        "metadata contacts profile statuses calls errors error_data history threads context history_context standby \
         groups user_preferences user_id_update automatic_events events state_sync system identity reaction edit revoke \
         unsupported origin pricing referral key keys update receipt call data control_passed call_permission_reply \
         order product_items",
    ),
    (Class::Unknown, Place::Message, "messages message_echoes"),
    (Class::Notice, Place::Message, "message"),
    (
        Class::Person,
        Place::Known,
        "added_participants removed_participants sender recipient participants voters",
    ),
    (Class::Person, Place::People, "user_id"),
    (
        Class::Media,
        Place::Media,
        "image video audio document sticker imageMessage videoMessage audioMessage documentMessage stickerMessage \
         ptvMessage",
    ),
    (Class::Location, Place::Location, "location locationMessage liveLocationMessage"),
    (Class::Contact, Place::Card, "contact contactMessage contactsArrayMessage"),
    (
        Class::Text,
        Place::Said,
        "text interactive button nfm_reply button_reply list_reply pollResult welcome_message extendedTextMessage \
         conversation",
    ),
    // What is a value, or a list of them.
    (
        Class::Word,
        Place::Unknown,
        "object field messaging_product type status event event_name direction category pricing_model recipient_type \
         action decision source_type media_type mime_type mimetype currency response response_source \
         message_creation_type addressingMode initiated_by sdp_type reason quality_rating country",
    ),
    (
        Class::Time,
        Place::Unknown,
        "timestamp time date start_time end_time expiration_timestamp created_timestamp messageTimestamp t",
    ),
    (
        Class::Count,
        Place::Unknown,
        "code quantity item_price progress phase chunk_order duration error_subcode",
    ),
    (
        Class::Business,
        Place::Unknown,
        "phone_number_id display_phone_number waba_id owner_business_id solution_id solution_partner_business_ids \
         partner_app_id catalog_id product_retailer_id new_owner_app_id previous_owner_app_id source_id flow_id \
         message_template_id",
    ),
    (Class::Help, Place::Unknown, "href"),
    (
        Class::Person,
        Place::Unknown,
        "from to wa_id new_wa_id old_wa_id recipient_id recipient_participant_id participant_recipient_id input phone \
         phone_number phoneNumber participant participantPn participantLid participantAlt cleanedParticipantPn remoteJid \
         remoteJidAlt senderPn senderLid cleanedSenderPn userJid recipientJid jid lid pn author owner chatId mentionedJid \
         group_id user from_user_id from_parent_user_id to_user_id to_parent_user_id parent_user_id recipient_user_id \
         recipient_parent_user_id parent_recipient_user_id recipient_participant_user_id \
         recipient_participant_parent_user_id id",
    ),
    (Class::Id, Place::Unknown, "message_id original_message_id stanzaId request_id join_request_id call_id"),
    (
        Class::Name,
        Place::Unknown,
        "name first_name last_name full_name formatted_name username pushName notify verifiedName verifiedBizName \
         displayName subject",
    ),
    (Class::Text, Place::Unknown, "body messageBody emoji payload description headline"),
    (Class::Caption, Place::Unknown, "caption"),
    (Class::Notice, Place::Unknown, "title detail details error_message"),
    (
        Class::Media,
        Place::Unknown,
        "url link source_url image_url video_url thumbnail_url invite_link filename",
    ),
    (Class::Secret, Place::Unknown, "sessionId session_id qr"),
    // Flags.
    (
        Class::Unknown,
        Place::Unknown,
        "voice animated billable forwarded frequently_forwarded fromMe isGroup acknowledged",
    ),
];

const IN_MEDIA: &[Row] = &[
    (
        Class::Media,
        Place::Unknown,
        "id sha256 url link filename fileName directPath fileSha256 fileEncSha256 mediaKey jpegThumbnail",
    ),
    (Class::Count, Place::Unknown, "fileLength height width seconds"),
];

const IN_LOCATION: &[Row] = &[(
    Class::Location,
    Place::Location,
    "latitude longitude name address url degreesLatitude degreesLongitude",
)];

/// All of a card is somebody's.
const IN_CARD: &[Row] = &[
    (
        Class::ContactName,
        Place::Card,
        "name first_name last_name middle_name full_name formatted_name displayName prefix suffix vcard username",
    ),
    (Class::Person, Place::Card, "phones phone wa_id user_id parent_user_id phone_number"),
    (Class::ContactAddress, Place::Card, "addresses street city state zip country country_code address"),
    (
        Class::Contact,
        Place::Card,
        "emails email urls url org company department title birthday type origin ims contacts service",
    ),
];

/// Of a webhook about the account.
const IN_ACCOUNT: &[Row] = &[
    (Class::Business, Place::Account, "phone_number id username name requested_verified_name"),
    // Somebody at the business.
    (Class::Person, Place::Account, "requester"),
];

/// What people are in, whatever the webhook says that it is about.
const OF_PEOPLE: &str = "messages message_echoes statuses contacts history standby state_sync calls groups";

/// Of what users say and choose: names that are known.
const IN_SAID: &[Row] = &[
    (Class::Word, Place::Said, "type"),
    (Class::Unknown, Place::Known, "call_permission_reply"),
    // The id of a button or row is what the business put there, and may be anything.
    (Class::Text, Place::Said, "id response_json matchedText flow_token contextInfo"),
];

type Table = HashMap<&'static str, Member, FixedState>;

fn table(rows: &[Row]) -> Table {
    let members = rows.iter().flat_map(|(class, place, names)| {
        names.split_whitespace().map(|name| (name, Member::new(*class, *place)))
    });
    members.collect()
}

/// The tables, made ready to be looked up.
pub(super) struct Names {
    anywhere: Table,
    media: Table,
    location: Table,
    card: Table,
    said: Table,
    account: Table,
}

impl Names {
    pub(super) fn new() -> Self {
        Self {
            anywhere: table(ANYWHERE),
            media: table(IN_MEDIA),
            location: table(IN_LOCATION),
            card: table(IN_CARD),
            said: table(IN_SAID),
            account: table(IN_ACCOUNT),
        }
    }

    /// The member `name` of an object in `place`.
    pub(super) fn member(&self, place: Place, name: &str) -> Member {
        let anywhere = self.anywhere.get(name).copied();
        let of = |own: &Table| own.get(name).copied().or(anywhere).unwrap_or(Member::UNKNOWN);
        match place {
            Place::Known | Place::Change => anywhere.unwrap_or(Member::UNKNOWN),
            Place::Entry if name == "id" => Member::new(Class::Business, Place::Unknown),
            Place::Entry => anywhere.unwrap_or(Member::UNKNOWN),
            Place::Message if name == "contacts" => Member::new(Class::Contact, Place::Card),
            Place::Message => anywhere.unwrap_or(Member::UNKNOWN),
            Place::Media => of(&self.media),
            Place::Location => of(&self.location),
            Place::Card => {
                let found = self.card.get(name).copied();
                let unknown = Member { place: Place::Card, ..Member::UNKNOWN };
                found.unwrap_or(unknown).also(MaskSet::of(&[Masked::Contact]))
            }
            Place::People => {
                Member { known: matches!(name, "previous" | "current"), ..Member::new(Class::Person, place) }
            }
            Place::Said => self.said.get(name).copied().unwrap_or_else(|| said(anywhere)),
            Place::Account => self.account.get(name).copied().unwrap_or_else(|| account(name, anywhere)),
            Place::Unknown => unknown(anywhere.unwrap_or(Member::UNKNOWN)),
        }
    }
}

/// What users say or choose is text, but for who they are.
fn said(anywhere: Option<Member>) -> Member {
    let text = Member::new(Class::Text, Place::Said);
    match anywhere {
        Some(found) if found.class == Class::Person => Member { place: Place::Said, ..found },
        Some(_) => text,
        None => Member { known: false, ..text.also(FREE) },
    }
}

/// A webhook about templates or accounts has no user, and what it holds is the business's. What would be a
/// person elsewhere is one here too.
fn account(name: &str, anywhere: Option<Member>) -> Member {
    let public = Member::new(Class::Public, Place::Account);
    match anywhere {
        Some(found) if OF_PEOPLE.split(' ').any(|people| people == name) => found,
        Some(found)
            if found.class == Class::Person || found.class == Class::Secret || found.class.stays() =>
        {
            Member { place: Place::Account, ..found }
        }
        found => Member { known: found.is_some(), ..public },
    }
}

/// What is known elsewhere may mean anything here, so it is masked by whatever masks what is not known, too.
fn unknown(found: Member) -> Member {
    let class = if found.class.stays() { Class::Unknown } else { found.class };
    let place = match found.place {
        Place::Media | Place::Location | Place::Card | Place::Said | Place::People => found.place,
        _ => Place::Unknown,
    };
    Member { class, place, ..found }.also(FREE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_stands_twice_in_a_table() {
        for rows in [ANYWHERE, IN_MEDIA, IN_LOCATION, IN_CARD, IN_SAID, IN_ACCOUNT] {
            let names: usize = rows.iter().map(|(.., names)| names.split_whitespace().count()).sum();
            assert_eq!(table(rows).len(), names, "{rows:?}");
        }
    }

    #[test]
    fn what_a_member_is_depends_on_what_it_stands_in() {
        let names = Names::new();
        let class = |place, name| names.member(place, name).class;
        assert_eq!(class(Place::Entry, "id"), Class::Business);
        assert_eq!(class(Place::Message, "id"), Class::Person);
        assert_eq!(class(Place::Media, "id"), Class::Media);
        assert_eq!(class(Place::Said, "id"), Class::Text);
        assert_eq!(class(Place::Known, "type"), Class::Word);
        assert_eq!(class(Place::Unknown, "type"), Class::Unknown);
        assert_eq!(class(Place::Card, "type"), Class::Contact);
        assert_eq!(class(Place::Known, "novel"), Class::Unknown);
        assert_eq!(class(Place::Account, "novel"), Class::Public);
        assert_eq!(names.member(Place::Known, "contacts").place, Place::Known);
        assert_eq!(names.member(Place::Message, "contacts").place, Place::Card);
        assert_eq!(names.member(Place::Unknown, "messages").place, Place::Unknown);
        assert_eq!(names.member(Place::Account, "messages").place, Place::Message);
    }
}
