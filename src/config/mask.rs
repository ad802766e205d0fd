//! What archives show of people only as pseudonyms, and the key of these.

use std::cell::Cell;

use super::section::{Section, nearest, string};
use super::{Host, Secret, resolve};

/// Shortest `mask_key`: 128 bits in hexadecimal digits. Phones are few enough to try them all, so the key
/// is all that stands between a pseudonym and its number.
const KEY_MIN: usize = 32;

/// Something of a person that a masked archive does not show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Masked {
    /// Phone numbers, and ids that hold one: of messages, calls, chats, groups.
    Phone,
    Name,
    Text,
    Media,
    Location,
    /// Address books and cards that users share.
    Contact,
    /// Business-scoped user ids, and the ids that WhatsApp has for users instead of phones.
    Bsuid,
}

impl Masked {
    /// As they are written, in the order in which records list them.
    pub const ALL: [(&'static str, Self); 7] = [
        ("phone", Self::Phone),
        ("name", Self::Name),
        ("text", Self::Text),
        ("media", Self::Media),
        ("location", Self::Location),
        ("contact", Self::Contact),
        ("bsuid", Self::Bsuid),
    ];

    fn parse(text: &str) -> Result<Self, String> {
        let names = || Self::ALL.iter().map(|(name, _)| *name);
        let found = Self::ALL.iter().find(|(name, _)| *name == text).map(|(_, kind)| *kind);
        found.ok_or_else(|| match nearest(text, names()) {
            Some(name) => format!("Did you mean {name:?}?"),
            None => format!("Choose of {:?}.", names().collect::<Vec<_>>()),
        })
    }
}

/// A set of [`Masked`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MaskSet(u8);

impl MaskSet {
    pub const fn of(kinds: &[Masked]) -> Self {
        let (mut set, mut at) = (0, 0);
        // An iterator cannot run in a constant.
        while at < kinds.len() {
            set |= 1 << kinds[at] as u8;
            at += 1;
        }
        Self(set)
    }

    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether both have something.
    pub const fn meets(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    pub const fn has(self, kind: Masked) -> bool {
        self.meets(Self::of(&[kind]))
    }

    pub fn names(self) -> impl Iterator<Item = &'static str> {
        Masked::ALL.iter().filter(move |(_, kind)| self.has(*kind)).map(|(name, _)| *name)
    }
}

/// `archive.mask` with `archive.mask_key`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mask {
    pub kinds: MaskSet,
    /// Of the pseudonyms and of the bodies' digests.
    pub key: Secret,
}

/// Of `[archive]`.
pub(super) fn mask(section: &Section<'_>, host: &Host) -> Option<Mask> {
    let names: Vec<&str> = Masked::ALL.iter().map(|(name, _)| *name).collect();
    let kinds = section.list("mask", &format!("one of {names:?}"), Masked::parse);
    let given = Cell::new(false);
    let key = section.read("mask_key", "a secret that can be read", |value| {
        let text = string(value)?;
        // The default is read behind a value that is wrong.
        given.set(given.get() || !text.is_empty());
        if text.is_empty() { Ok(None) } else { resolve::secret(section, "mask_key", &text, host).map(Some) }
    });
    let masks = !section.is_empty("mask");
    match &key {
        Some(_) if !masks => section.problem(
            "mask",
            "what is to be masked where there is an archive.mask_key",
            "Name it, such as [\"phone\", \"name\", \"text\"], or take archive.mask_key out.",
        ),
        Some(key) if host.read_secrets && key.expose().len() < KEY_MIN => section.problem(
            "mask_key",
            &format!("at least {KEY_MIN} characters"),
            "Make one that nobody can guess, and keep it for as long as the archive: openssl rand -hex 32",
        ),
        None if masks && !given.get() => section.problem(
            "mask_key",
            "a secret where there is an archive.mask",
            "Make one and keep it for as long as the archive: openssl rand -hex 32. Give it as \"file:PATH\".",
        ),
        _ => {}
    }
    let kinds = MaskSet::of(&kinds);
    if kinds.has(Masked::Name) && !kinds.has(Masked::Text) {
        section.warn("mask", "has \"name\" without \"text\": names that users write stay readable");
    }
    Some(Mask { kinds, key: key? }).filter(|_| masks)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::Config;
    use super::*;

    const KEY: &str = "0123456789abcdef0123456789abcdef";

    const REST: &str = "[[source]]\nname = \"main\"\nsecrets = [\"s\"]\n[[region]]\nname = \"eu\"\n\
                        endpoint = \"http://10.0.0.1/\"\n[routing]\ndefault = \"eu\"\n";

    fn resolve(archive: &str) -> Result<Option<Mask>, String> {
        let text = format!("[archive]\n{archive}\n{REST}");
        let resolved = Config::from_toml(&text, Path::new("/"));
        resolved.map(|(config, _)| config.archive.mask).map_err(|invalid| invalid.to_string())
    }

    #[test]
    fn a_mask_is_a_set_of_kinds_and_a_key() {
        let mask = resolve(&format!("mask = [\"text\", \"phone\", \"text\"]\nmask_key = \"{KEY}\""))
            .unwrap()
            .unwrap();
        assert_eq!(mask.kinds.names().collect::<Vec<_>>(), ["phone", "text"]);
        assert_eq!(mask.key.expose(), KEY.as_bytes());
        assert!(mask.kinds.has(Masked::Text) && !mask.kinds.has(Masked::Name));
        assert_eq!(resolve("").unwrap(), None);
        assert_eq!(resolve("mask = []\nmask_key = \"\"").unwrap(), None);
    }

    #[test]
    fn names_without_texts_are_taken_with_a_warning() {
        let text = |mask: &str| format!("[archive]\nmask = {mask}\nmask_key = \"{KEY}\"\n{REST}");
        let warned = |mask: &str| {
            let (_, warnings) = Config::from_toml(&text(mask), Path::new("/")).unwrap();
            warnings.iter().any(|warning| warning.key == "archive.mask")
        };
        assert!(warned("[\"name\", \"phone\"]"));
        assert!(!warned("[\"name\", \"text\"]"));
    }

    #[test]
    fn a_mask_that_would_not_mask_is_refused_with_what_to_do() {
        let check = |archive: &str, key: &str, part: &str| {
            let told = resolve(archive).expect_err(archive);
            assert_eq!(told.matches("to do").count(), 1, "{told}");
            assert!(told.starts_with(key) && told.contains(part), "{told}");
            assert!(!told.contains("hush"), "{told}");
        };
        let with_key = |mask: &str| format!("mask = {mask}\nmask_key = \"{KEY}\"");
        check("mask = [\"phone\"]", "archive.mask_key", "openssl rand -hex 32");
        check(&format!("mask_key = \"{KEY}\""), "archive.mask\n", "take archive.mask_key out");
        check("mask = [\"phone\"]\nmask_key = \"hush\"", "archive.mask_key", "at least 32 characters");
        check(
            "mask = [\"phone\"]\nmask_key = \"env:PENSTOCK_TEST_NONE\"",
            "archive.mask_key",
            "PENSTOCK_TEST_NONE",
        );
        check(&with_key("[\"phones\"]"), "archive.mask[0]", "Did you mean \"phone\"?");
        check(&with_key("[\"phone\", 7]"), "archive.mask[1]", "quotes");
        check(&with_key("[\"everything\"]"), "archive.mask[0]", "\"location\"");
        check(&with_key("\"phone\""), "archive.mask\n", "brackets");
    }
}
