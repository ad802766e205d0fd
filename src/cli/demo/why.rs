//! Why a user's events go where they go, in words for the live table: what the gateway's own router says.

use std::sync::OnceLock;
use std::time::Duration;

use super::TERRITORIES;
use crate::config::{Endpoint, Region, Retry};
use crate::parse::User;
use crate::route::{Router, Rule, country_of};

/// The rule that decides about an event of `user` at the business number `number` of `account`.
pub fn why(user: User<'_>, number: &str, account: &str) -> String {
    static ROUTER: OnceLock<Router> = OnceLock::new();
    let router = ROUTER.get_or_init(|| Router::new(&TERRITORIES.map(|t| region(t.name, t.countries)), 0));
    let id_country = user.bsuid.and_then(country_of).unwrap_or("?");
    match router.route(user.phone, user.bsuid, number, account).rule {
        Rule::Country { row } => format!("+{} is {}", row.prefix, row.country),
        Rule::IdCountry | Rule::IdPrefixes => format!("user id: {id_country}"),
        Rule::Prefix { length } => format!("{length} digits of it"),
        Rule::Number => "business number".to_owned(),
        Rule::Account => "business account".to_owned(),
        Rule::UsersDisagree => "several regions".to_owned(),
        Rule::Default if user.phone.is_some() || user.bsuid.is_some() => "unlisted: default".to_owned(),
        Rule::Default => "no user: default".to_owned(),
    }
}

/// A region as far as routing looks at it.
fn region(name: &str, countries: &[&str]) -> Region {
    Region {
        name: name.to_owned(),
        endpoint: Endpoint::default(),
        prefixes: Vec::new(),
        countries: countries.iter().map(|country| (*country).to_owned()).collect(),
        phone_number_ids: Vec::new(),
        accounts: Vec::new(),
        signing_secret: None,
        in_flight: 1,
        timeout: Duration::ZERO,
        source_address: None,
        archive: None,
        rate: 0,
        retry: Retry::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reason_names_the_number_then_the_user_id_then_the_default() {
        let check = |phone: Option<&str>, bsuid: Option<&str>, expected: &str| {
            assert_eq!(why(User { phone, bsuid }, "", ""), expected);
            assert!(expected.len() <= 17, "wider than its column");
        };
        check(Some("491713920099"), Some("JP.1"), "+49 is DE");
        check(Some("12045550143"), None, "+1204 is CA");
        check(None, Some("JP.9043317725601182"), "user id: JP");
        check(Some("77010000123"), None, "unlisted: default");
        check(None, None, "no user: default");
    }
}
