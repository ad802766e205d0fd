//! Why a user's events go where they go, in words for the live table.

use super::TERRITORIES;
use crate::parse::User;

const CALLING_CODES: &str = include_str!("../../route/calling-codes.csv");

/// The rule that decides about an event of `user` at the business number `number` of `account`.
pub fn why(user: User<'_>, _number: &str, _account: &str) -> String {
    if let Some(phone) = user.phone {
        let rows = CALLING_CODES.lines().skip(1).filter_map(|row| row.split_once(','));
        let longest = rows
            .filter(|(prefix, _)| phone.starts_with(prefix))
            .max_by_key(|(prefix, _)| prefix.len())
            .and_then(|(prefix, rest)| Some((prefix, rest.split(',').next()?)));
        if let Some((prefix, country)) = longest {
            return format!("+{prefix} is {}", named(country));
        }
    }
    match user.bsuid.and_then(|bsuid| bsuid.split_once('.')) {
        Some((country, _)) => format!("user id: {}", named(country)),
        None => "no user: default".to_owned(),
    }
}

fn named(country: &str) -> String {
    let listed = TERRITORIES.iter().any(|territory| territory.countries.contains(&country));
    if listed { country.to_owned() } else { format!("{country}: default") }
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
        check(None, None, "no user: default");
    }
}
