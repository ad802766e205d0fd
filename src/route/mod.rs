//! Where an event goes: the regions' rules, compiled once and asked for every event.
//!
//! The first that answers decides: the user's phone; if there is none, the country of the
//! business-scoped user id; a rule on the business number; a rule on the account; the default region.
//!
//! - A phone's country is that of its longest row in the calling-code table. A region that lists
//!   the country matches with that row's length, a region's own prefixes with theirs; the longest
//!   match wins, a tie goes to the explicit prefix.
//! - A country that no region lists never falls back to a shorter row: `+7 7..` is Kazakhstan and
//!   not Russia. A region's own prefix `7` does catch it, because it was written so.
//! - A phone that matches nothing goes on to the number and the account, not to the country of the
//!   user's id: the phone has already said which country it is.
//! - An id whose country no region lists goes to the region that gets all rows of that country by
//!   its own prefixes, if it is one. A rule narrower than a row (`9180`) cannot be decided from an
//!   id and does not count.
//!
//! Asking costs no allocation and takes no lock. Imports `config` for the rules, `parse`
//! for the event, and nothing else.

use std::collections::HashMap;

use crate::config::Region;
use crate::parse::{Event, phone};

pub mod countries;
mod trie;

#[cfg(test)]
mod tests;

use countries::{PLACES, Row};
use trie::{Match, Trie};

/// Where an event goes and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Routed {
    /// Index into the regions that the router was made from.
    pub region: usize,
    pub rule: Rule,
}

/// What decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// A region's own prefix, of this many digits, matched the phone.
    Prefix { length: u8 },
    /// The region lists the country of the phone; the row of the table that named it.
    Country { row: &'static Row },
    /// The region lists the country of the business-scoped id.
    IdCountry,
    /// No region lists the country of the business-scoped id, but this one gets all its prefixes.
    IdPrefixes,
    /// The region lists the business number.
    Number,
    /// The region lists the WhatsApp business account.
    Account,
    /// The event names users of several regions: it goes to the default region, whole.
    UsersDisagree,
    /// Nothing else did.
    Default,
}

/// The rules of all regions, compiled. Immutable: a new configuration makes a new one.
#[derive(Debug)]
pub struct Router {
    trie: Trie,
    /// By country ([`countries::place`]): what a business-scoped id of it leads to.
    ids: Box<[Option<Routed>; PLACES]>,
    numbers: HashMap<String, usize>,
    accounts: HashMap<String, usize>,
    default: usize,
}

impl Router {
    /// Compiles the rules. `default` is the index of the region that gets what no rule claims.
    /// Where two regions claim the same (a checked configuration has no such case), the first has it.
    pub fn new(regions: &[Region], default: usize) -> Self {
        debug_assert!(regions.len() <= trie::REGIONS_MAX, "the configuration bounds the regions");
        // The trie keeps indices in two bytes.
        let numbered = || (0u16..).zip(regions);
        let mut listed = [None; PLACES];
        for (index, region) in numbered() {
            for place in region.countries.iter().filter_map(|code| countries::place(code.as_bytes())) {
                listed[place].get_or_insert(index);
            }
        }
        let lister = |country: &str| listed[countries::place(country.as_bytes())?];
        let trie = Trie::new(
            numbered().flat_map(|(index, region)| region.prefixes.iter().map(move |p| (p.as_str(), index))),
            lister,
        );

        let mut ids = Box::new([None; PLACES]);
        for (country, _) in countries::names() {
            let by_id = match lister(country) {
                Some(index) => Some(Routed { region: index.into(), rule: Rule::IdCountry }),
                None => owner(&trie, country).map(|region| Routed { region, rule: Rule::IdPrefixes }),
            };
            if let Some(place) = countries::place(country.as_bytes()) {
                ids[place] = by_id;
            }
        }
        Self {
            trie,
            ids,
            numbers: claims(regions, |region| &region.phone_number_ids),
            accounts: claims(regions, |region| &region.accounts),
            default,
        }
    }

    /// The region of an event. `phone` and `bsuid` are its user's, `number` is the
    /// `phone_number_id` of the business number and `account` the WhatsApp business account;
    /// what is missing is `None` or empty.
    pub fn route(&self, phone: Option<&str>, bsuid: Option<&str>, number: &str, account: &str) -> Routed {
        let by_user = match phone.and_then(phone::lookup) {
            Some(digits) => self.by_phone(&digits),
            // Some providers put the id where the phone belongs.
            None => {
                bsuid.and_then(country_of).or_else(|| phone.and_then(country_of)).and_then(|c| self.by_id(c))
            }
        };
        let listed =
            |at: &HashMap<String, usize>, id: &str, rule| at.get(id).map(|&region| Routed { region, rule });
        by_user
            .or_else(|| listed(&self.numbers, number, Rule::Number))
            .or_else(|| listed(&self.accounts, account, Rule::Account))
            .unwrap_or(Routed { region: self.default, rule: Rule::Default })
    }

    /// The region of an event: that of its users if they agree on one, else the default region.
    pub fn route_event(&self, event: &Event<'_>) -> Routed {
        let Event { number, account, .. } = event;
        let mut users = event.users.iter().map(|user| self.route(user.phone, user.bsuid, number, account));
        match users.next() {
            None => self.route(None, None, number, account),
            Some(first) if users.all(|other| other.region == first.region) => first,
            Some(_) => Routed { region: self.default, rule: Rule::UsersDisagree },
        }
    }

    fn by_phone(&self, digits: &[u8]) -> Option<Routed> {
        let (region, decided) = self.trie.find(digits)?;
        let rule = match decided {
            Match::Prefix { length } => Rule::Prefix { length },
            Match::Row(row) => Rule::Country { row: &countries::rows()[usize::from(row)] },
        };
        Some(Routed { region: region.into(), rule })
    }

    fn by_id(&self, country: &str) -> Option<Routed> {
        self.ids[countries::place(country.as_bytes())?]
    }
}

/// The country in a business-scoped user id, `CC.xxxx` or `CC.ENT.xxxx`; None if it is no such id.
pub fn country_of(bsuid: &str) -> Option<&str> {
    // Meta's bound on the part behind the country.
    const ID_MAX: usize = 128;
    let (country, rest) = bsuid.split_once('.')?;
    let id = rest.strip_prefix("ENT.").unwrap_or(rest);
    let well_formed = countries::place(country.as_bytes()).is_some()
        && (1..=ID_MAX).contains(&id.len())
        && id.bytes().all(|byte| byte.is_ascii_alphanumeric());
    well_formed.then_some(country)
}

/// The region that gets every row of a country, if one region does.
fn owner(trie: &Trie, country: &str) -> Option<usize> {
    let mut regions =
        countries::prefixes(country).map(|prefix| trie.find(prefix.as_bytes()).map(|(region, _)| region));
    let first = regions.next()??;
    regions.all(|region| region == Some(first)).then_some(first.into())
}

fn claims(regions: &[Region], of: impl Fn(&Region) -> &Vec<String>) -> HashMap<String, usize> {
    let mut claims = HashMap::new();
    for (index, region) in regions.iter().enumerate() {
        for id in of(region) {
            claims.entry(id.clone()).or_insert(index);
        }
    }
    claims
}
