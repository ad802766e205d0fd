//! The users: which phone each has, and which region a prefix belongs to.
//!
//! Users are spread over eight country prefixes, so that two regions each get about half. A phone is always the same
//! for the same user and ends with the user's own number, so users that follow each other share long prefixes.

use std::collections::BTreeSet;

use super::random::Random;

/// Country prefix, what follows it, and how often: a few big markets and a tail.
const COUNTRIES: [(&str, usize, u64); 8] = [
    ("91", 10, 30),
    ("55", 11, 20),
    ("1", 10, 15),
    ("62", 10, 10),
    ("52", 10, 8),
    ("49", 10, 7),
    ("44", 10, 6),
    ("234", 10, 4),
];

/// Digits at the end of a phone that users of one block differ in.
const BLOCK: usize = 3;

/// Always the same for the same user.
pub fn phone(user: u64) -> String {
    let mut of_user = Random(user);
    let total = COUNTRIES.iter().map(|(.., weight)| weight).sum();
    let mut at = of_user.below(total);
    for (prefix, digits, weight) in COUNTRIES {
        if at < weight {
            // No number starts with 0 after its country; the user's own number makes it unique.
            return format!("{prefix}7{:0width$}", user % 10_u64.pow(digits as u32 - 1), width = digits - 1);
        }
        at -= weight;
    }
    unreachable!("the weights add up to their sum")
}

/// The prefixes of each region.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Routes(Vec<Vec<String>>);

impl Routes {
    /// The countries, dealt to `regions` regions in turn.
    pub fn countries(regions: usize) -> Self {
        Self::deal(COUNTRIES.iter().map(|(prefix, ..)| (*prefix).to_owned()), regions)
    }

    /// A prefix for each thousand of the first `users` users in each country, dealt in turn: so that there are enough
    /// for many regions, and every region gets about the same.
    pub fn blocks(regions: usize, users: u64) -> Self {
        let blocks: BTreeSet<String> = (0..users).map(|user| cut(&phone(user), BLOCK)).collect();
        Self::deal(blocks.into_iter(), regions)
    }

    /// As [`Self::countries`], and below them the longest prefixes of users until there are `prefixes` in all; each
    /// belongs to the region of its country, so that only their number is another.
    pub fn many(regions: usize, prefixes: usize) -> Self {
        let mut routes = Self::countries(regions);
        let (mut count, mut user) = (COUNTRIES.len(), 0);
        let mut seen = BTreeSet::new();
        while count < prefixes {
            let phone = phone(user);
            user += 1;
            let prefix = cut(&phone, 1);
            if let Some(region) = routes.region(&phone)
                && seen.insert(prefix.clone())
            {
                routes.0[region].push(prefix);
                count += 1;
            }
        }
        routes
    }

    /// All to one region.
    pub fn merged(&self) -> Self {
        Self(vec![self.0.concat()])
    }

    pub fn of_regions(&self) -> impl Iterator<Item = &[String]> {
        self.0.iter().map(Vec::as_slice)
    }

    fn deal(prefixes: impl Iterator<Item = String>, regions: usize) -> Self {
        let mut dealt = vec![Vec::new(); regions];
        for (at, prefix) in prefixes.enumerate() {
            dealt[at % regions].push(prefix);
        }
        Self(dealt)
    }

    /// By the country, which stands first.
    fn region(&self, phone: &str) -> Option<usize> {
        let (country, ..) = COUNTRIES.iter().find(|(country, ..)| phone.starts_with(*country))?;
        self.0.iter().position(|prefixes| prefixes.iter().any(|prefix| prefix == country))
    }
}

/// A phone without its last digits.
fn cut(phone: &str, digits: usize) -> String {
    phone[..phone.len() - digits].to_owned()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn of<'a>(routes: &'a Routes, phone: &str) -> Vec<(usize, &'a str)> {
        let all = routes.0.iter().enumerate();
        let mut found: Vec<_> = all
            .flat_map(|(region, prefixes)| prefixes.iter().map(move |prefix| (region, prefix.as_str())))
            .filter(|(_, prefix)| phone.starts_with(prefix))
            .collect();
        found.sort_by_key(|(_, prefix)| prefix.len());
        found
    }

    #[test]
    fn users_keep_their_phone_and_share_none() {
        let phones: HashSet<String> = (0..20_000).map(phone).collect();
        assert_eq!(phones.len(), 20_000);
        let routes = Routes::countries(2);
        let of_first = phones.iter().filter(|phone| of(&routes, phone)[0].0 == 0);
        assert!((8_000..14_000).contains(&of_first.count()));
    }

    #[test]
    fn blocks_give_every_user_one_region_and_every_region_users() {
        let routes = Routes::blocks(200, 40_000);
        let mut users = vec![0; 200];
        for user in (0..40_000).step_by(7) {
            let found = of(&routes, &phone(user));
            assert_eq!(found.len(), 1, "{user}");
            users[found[0].0] += 1;
        }
        assert!(users.iter().all(|users| *users > 0), "{users:?}");
        assert_eq!(routes.merged().of_regions().count(), 1);
    }

    #[test]
    fn many_prefixes_lead_where_the_countries_do() {
        let (few, many) = (Routes::countries(2), Routes::many(2, 1000));
        assert_eq!(many.0.iter().map(Vec::len).sum::<usize>(), 1000);
        assert_eq!(many.0.concat().iter().collect::<HashSet<_>>().len(), 1000, "no prefix twice");
        for user in 0..500 {
            let phone = phone(user);
            assert_eq!(of(&few, &phone)[0].0, of(&many, &phone).last().unwrap().0);
        }
    }
}
