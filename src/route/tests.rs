use std::time::Duration;

use super::*;
use crate::config::{Endpoint, Retry};

/// A region with these prefixes and countries, both written with blanks between.
fn region(name: &str, prefixes: &str, countries: &str) -> Region {
    let words = |text: &str| text.split_whitespace().map(str::to_owned).collect();
    Region {
        name: name.to_owned(),
        endpoint: Endpoint {
            host: "127.0.0.1".to_owned(),
            port: 80,
            authority: "127.0.0.1".to_owned(),
            target: "/".to_owned(),
        },
        prefixes: words(prefixes),
        countries: words(countries),
        phone_number_ids: vec![],
        accounts: vec![],
        signing_secret: None,
        in_flight: 1,
        timeout: Duration::from_secs(1),
        source_address: None,
        archive: None,
        rate: 0,
        retry: Retry::default(),
    }
}

/// One region per country of the table, in the order of their names, and the default last.
fn every_country() -> (Router, Vec<Region>) {
    let mut codes: Vec<&str> = countries::names().map(|(code, _)| code).collect();
    codes.sort_unstable();
    codes.dedup();
    let mut regions: Vec<Region> = codes.iter().map(|code| region(code, "", code)).collect();
    regions.push(region("default", "", ""));
    (Router::new(&regions, regions.len() - 1), regions)
}

#[test]
fn every_row_leads_to_its_own_country() {
    let (router, regions) = every_country();
    for row in countries::rows() {
        // Zeros behind the row: the shortest phone, and the longest, that has this prefix.
        for length in [phone::DIGITS_MIN.max(row.prefix.len()), phone::DIGITS_MAX] {
            let phone = format!("{:0<length$}", row.prefix);
            let routed = router.route(Some(&phone), None, "", "");
            assert_eq!(regions[routed.region].name, row.country, "{phone}");
            assert_eq!(routed.rule, Rule::Country { row }, "{phone}");
        }
    }
}

#[test]
fn sampled_users_lead_to_their_country() {
    let (router, regions) = every_country();
    let users = include_str!("../../tests/data/users.csv");
    assert!(users.lines().count() > 30);
    for line in users.lines().skip(1) {
        let mut cells = line.split(',');
        let (phone, bsuid, country) = (cells.next().unwrap(), cells.next().unwrap(), cells.next().unwrap());
        for phone in [Some(phone).filter(|phone| !phone.is_empty()), Some(phone)] {
            let routed = router.route(phone, Some(bsuid), "", "");
            assert_eq!(regions[routed.region].name, country, "{line}");
        }
    }
}

#[test]
fn shared_codes_do_not_leak_into_the_neighbour() {
    let (router, regions) = every_country();
    let check = |phone: &str, expected: &str| {
        let routed = router.route(Some(phone), None, "", "");
        assert_eq!(regions[routed.region].name, expected, "{phone}");
    };
    check("12423221234", "BS");
    check("242066123456", "CG");
    check("12464123456", "BB");
    check("246380123456", "IO");
    check("12125550123", "US");
    check("14165550123", "CA");
    check("18765550123", "JM");
    check("77010000123", "KZ");
    check("76010000123", "KZ");
    check("79000000123", "RU");
    check("74951234567", "RU");
    check("447700900123", "GB");
    check("447911712345", "GG");
    check("447797000123", "JE");
    check("447624000123", "IM");
    check("447924000123", "GB");
    check("390669812345", "VA");
    check("390612345678", "IT");
    check("29081234567", "TA");
    check("29021234567", "SH");
    check("262269123456", "YT");
    check("262692123456", "RE");
    check("59951234567", "CW");
    check("59931234567", "BQ");
    check("+52 1 55 0000 0123", "MX");
    check("+54 (9) 11 0000-0123", "AR");
    check("870773123456", "ZZ");
}

#[test]
fn first_that_answers_decides() {
    let mut regions = vec![
        region("us", "1", "US"),
        region("ca", "", "CA"),
        region("in", "91", ""),
        region("mumbai", "9122 ", ""),
        region("ru", "", "RU"),
        region("by-number", "", ""),
        region("by-account", "", ""),
        region("default", "", ""),
        region("mx", "52155", "MX"),
        region("caribbean", "1658", ""),
    ];
    regions[5].phone_number_ids = vec!["106540352242922".to_owned()];
    regions[6].accounts = vec!["102290129340398".to_owned()];
    let router = Router::new(&regions, 7);
    let row =
        |prefix| Rule::Country { row: countries::rows().iter().find(|row| row.prefix == prefix).unwrap() };
    let check = |phone, bsuid, number, account, name: &str, rule| {
        let routed = router.route(phone, bsuid, number, account);
        let found = (regions[routed.region].name.as_str(), routed.rule);
        assert_eq!(found, (name, rule), "{phone:?} {bsuid:?} {number:?} {account:?}");
    };
    let (number, account) = ("106540352242922", "102290129340398");

    // A tie goes to the explicit prefix; a longer row beats a shorter prefix.
    check(Some("12125550123"), None, number, account, "us", Rule::Prefix { length: 1 });
    check(Some("14165550123"), None, number, account, "ca", row("1416"));
    // An unlisted country is caught by a prefix that was written, never by a listed neighbour.
    check(Some("12423221234"), None, "", "", "us", Rule::Prefix { length: 1 });
    check(Some("77010000123"), None, "", "", "default", Rule::Default);
    check(Some("79010000123"), None, "", "", "ru", row("7"));
    // The user's phone comes before the id, even if it matches nothing.
    check(Some("919876500001"), Some("CA.1"), "", "", "in", Rule::Prefix { length: 2 });
    check(Some("4915112345678"), Some("CA.1"), number, account, "by-number", Rule::Number);
    check(Some("4915112345678"), Some("CA.1"), "", account, "by-account", Rule::Account);
    check(Some("4915112345678"), Some("CA.1"), "1", "2", "default", Rule::Default);
    // Without a phone the id decides: by its country, or by who gets all its prefixes.
    check(None, Some("CA.1502576394655843"), number, account, "ca", Rule::IdCountry);
    check(None, Some("CA.ENT.118157992128868448"), "", "", "ca", Rule::IdCountry);
    check(None, Some("IN.1502576394655843"), "", "", "in", Rule::IdPrefixes);
    check(None, Some("BS.1502576394655843"), "", "", "us", Rule::IdPrefixes);
    check(None, Some("JM.1502576394655843"), "", "", "default", Rule::Default);
    check(None, Some("UM.1502576394655843"), "", "", "us", Rule::IdPrefixes);
    check(None, Some("KZ.1502576394655843"), number, account, "by-number", Rule::Number);
    // What is no phone does not count as one; it may be an id in the wrong place.
    check(Some(""), Some("CA.1"), "", "", "ca", Rule::IdCountry);
    check(Some("CA.1"), None, "", "", "ca", Rule::IdCountry);
    check(Some("CA.1"), Some("nonsense"), "", "", "ca", Rule::IdCountry);
    check(Some("120363412345678901@g.us"), None, "", account, "by-account", Rule::Account);
    check(Some("1416555012345678"), None, "", "", "default", Rule::Default);
    check(None, Some("ca.1"), "", "", "default", Rule::Default);
    check(None, Some("CA."), "", "", "default", Rule::Default);
    check(None, Some("CA.1-2"), "", "", "default", Rule::Default);
    check(None, None, "", "", "default", Rule::Default);
    // A rule meets both forms of a Mexican mobile.
    check(Some("5215500000123"), None, "", "", "mx", Rule::Prefix { length: 4 });
    check(Some("525500000123"), None, "", "", "mx", Rule::Prefix { length: 4 });
    check(Some("523300000123"), None, "", "", "mx", row("52"));
}

/// The rules read aloud, with no thought for speed.
fn by_the_book(regions: &[Region], default: usize, phone: &str) -> usize {
    let row = countries::rows()
        .iter()
        .filter(|row| phone.starts_with(row.prefix))
        .max_by_key(|row| row.prefix.len());
    let mut best: Option<(usize, bool, usize)> = None;
    for (index, region) in regions.iter().enumerate() {
        let by_prefix = region
            .prefixes
            .iter()
            .filter(|prefix| phone.starts_with(prefix.as_str()))
            .map(|prefix| (prefix.len(), true, index));
        let by_country = row
            .filter(|row| region.countries.iter().any(|code| code == row.country))
            .map(|row| (row.prefix.len(), false, index));
        best = best.max(by_prefix.chain(by_country).max());
    }
    best.map_or(default, |(_, _, index)| index)
}

#[test]
fn compiled_rules_answer_as_the_rules_read_aloud() {
    let seed = match std::env::var("ROUTE_SEED") {
        Ok(text) => text.parse().unwrap(),
        Err(_) => std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64,
    };
    println!("ROUTE_SEED={seed}");
    // Weyl sequence with a mixer (splitmix64): seeded, and good enough to pick digits.
    let mut state = seed;
    let mut below = |bound: u64| {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    };
    let rows = countries::rows();
    for _ in 0..200 {
        let mut taken = std::collections::HashSet::new();
        let mut regions: Vec<Region> = (0..8).map(|index| region(&index.to_string(), "", "")).collect();
        for _ in 0..60 {
            let at = below(8) as usize;
            let row = &rows[below(rows.len() as u64) as usize];
            if below(2) == 0 {
                if taken.insert(row.country.to_owned()) {
                    regions[at].countries.push(row.country.to_owned());
                }
                continue;
            }
            // A row, cut short or made longer, so that prefixes and rows overlap.
            let mut prefix = row.prefix.to_owned();
            prefix.truncate(1 + below(prefix.len() as u64) as usize);
            for _ in 0..below(4) {
                prefix.push(char::from(b'0' + below(10) as u8));
            }
            if phone::lookup_prefix(&prefix) == prefix && taken.insert(prefix.clone()) {
                regions[at].prefixes.push(prefix);
            }
        }
        let router = Router::new(&regions, 0);
        for _ in 0..300 {
            let mut phone = match below(2) {
                0 => rows[below(rows.len() as u64) as usize].prefix.to_owned(),
                _ => regions[below(8) as usize].prefixes.first().cloned().unwrap_or_default(),
            };
            let length = 7 + below(9) as usize;
            while phone.len() < length {
                phone.push(char::from(b'0' + below(10) as u8));
            }
            let plain = phone::lookup(&phone).unwrap();
            let expected = by_the_book(&regions, 0, plain.as_str());
            let routed = router.route(Some(&phone), None, "", "");
            assert_eq!(routed.region, expected, "{phone} with {regions:#?}, ROUTE_SEED={seed}");
        }
    }
}
