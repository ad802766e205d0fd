//! The calling-code table: which country a phone's first digits belong to.
//!
//! The table (`calling-codes.csv`: prefix, ISO 3166-1 alpha-2, name) is compiled in and taken apart
//! once. A phone belongs to its *longest* row: `1242` is the Bahamas although `1` is the United
//! States. A prefix says where a number was issued, never where its owner is.

use std::sync::LazyLock;

/// One prefix of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// Digits, 1 to 7 of them.
    pub prefix: &'static str,
    /// ISO 3166-1 alpha-2, upper case; `ZZ` for codes of no country (satellite, freephone).
    pub country: &'static str,
    pub name: &'static str,
}

/// Countries without a row of their own, with the row their numbers are issued from.
/// Nobody can tell their phones from the neighbour's, but a business-scoped id can name them.
const WITHOUT_ROW: [(&str, &str, &str); 10] = [
    ("AQ", "672", "Antarctica"),
    ("BL", "590", "Saint Barthelemy"),
    ("BV", "47", "Bouvet Island"),
    ("EH", "212", "Western Sahara"),
    ("GS", "500", "South Georgia"),
    ("HM", "672", "Heard and McDonald Islands"),
    ("MF", "590", "Saint Martin"),
    ("PN", "64", "Pitcairn"),
    ("TF", "262", "French Southern Territories"),
    ("UM", "1", "U.S. Outlying Islands"),
];

/// What people write for a country and what its code is.
const NICKNAMES: [(&str, &str); 6] =
    [("UK", "GB"), ("EN", "GB"), ("USA", "US"), ("UAE", "AE"), ("EL", "GR"), ("SP", "ES")];

/// Every row, sorted by prefix as text.
pub fn rows() -> &'static [Row] {
    static ROWS: LazyLock<Vec<Row>> =
        LazyLock::new(|| include_str!("calling-codes.csv").lines().skip(1).filter_map(row).collect());
    &ROWS
}

fn row(line: &'static str) -> Option<Row> {
    let mut cells = line.splitn(3, ',');
    Some(Row {
        prefix: cells.next()?,
        country: cells.next()?,
        // A name may hold a comma and stands in quotes then.
        name: cells.next()?.trim_matches('"'),
    })
}

/// The prefixes of a country; those of the row it shares if it has none; empty if it is unknown.
pub fn prefixes(country: &str) -> impl Iterator<Item = &'static str> {
    let borrowed =
        WITHOUT_ROW.iter().filter(move |(code, ..)| *code == country).map(|(_, prefix, _)| *prefix);
    rows().iter().filter(move |row| row.country == country).map(|row| row.prefix).chain(borrowed)
}

/// Every country with its name; a country with several rows comes several times.
pub fn names() -> impl Iterator<Item = (&'static str, &'static str)> {
    rows()
        .iter()
        .map(|row| (row.country, row.name))
        .chain(WITHOUT_ROW.iter().map(|(code, _, name)| (*code, *name)))
}

/// The name of a country, if there is such a country.
pub fn name(country: &str) -> Option<&'static str> {
    names().find(|(code, _)| *code == country).map(|(_, name)| name)
}

/// The country somebody may have meant by `written`: a nickname, a misspelt code, or a name.
pub fn nearest(written: &str) -> Option<(&'static str, &'static str)> {
    let upper = written.to_ascii_uppercase();
    if let Some((_, code)) = NICKNAMES.iter().find(|(nickname, _)| *nickname == upper) {
        return name(code).map(|name| (*code, name));
    }
    let likeness = |(code, name): &(&str, &str)| match written.len() {
        0..=3 => strsim::jaro_winkler(&upper, code),
        _ => strsim::jaro_winkler(&upper, &name.to_ascii_uppercase()),
    };
    names().max_by(|a, b| likeness(a).total_cmp(&likeness(b)))
}

/// Place of an upper-case two-letter code among all 26 x 26.
pub(super) fn place(country: &[u8]) -> Option<usize> {
    match country {
        [a @ b'A'..=b'Z', b @ b'A'..=b'Z'] => Some(usize::from(a - b'A') * 26 + usize::from(b - b'A')),
        _ => None,
    }
}

/// How many places [`place`] has.
pub(super) const PLACES: usize = 26 * 26;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_is_whole_and_each_row_well_formed() {
        assert_eq!(rows().len(), include_str!("calling-codes.csv").lines().count() - 1);
        assert_eq!(rows().len(), 334);
        for row in rows() {
            assert!((1..=7).contains(&row.prefix.len()), "{row:?}");
            assert!(row.prefix.bytes().all(|digit| digit.is_ascii_digit()), "{row:?}");
            assert!(place(row.country.as_bytes()).is_some(), "{row:?}");
            assert!(!row.name.is_empty() && !row.name.contains('"'), "{row:?}");
        }
        assert!(rows().is_sorted_by(|a, b| a.prefix < b.prefix), "no prefix twice");
        assert_eq!(name("BQ"), Some("Bonaire, Sint Eustatius and Saba"));
    }

    #[test]
    fn country_without_row_borrows_a_row_that_exists() {
        for (code, prefix, _) in WITHOUT_ROW {
            assert!(rows().iter().all(|row| row.country != code), "{code} has a row of its own");
            assert!(rows().iter().any(|row| row.prefix == prefix), "{code} borrows {prefix}");
            assert_eq!(prefixes(code).collect::<Vec<_>>(), [prefix]);
        }
        assert_eq!(prefixes("JM").collect::<Vec<_>>(), ["1658", "1876"]);
        assert_eq!(prefixes("XX").count(), 0);
    }

    #[test]
    fn misspelt_country_finds_its_code() {
        let check = |written: &str, expected: &str| {
            assert_eq!(nearest(written).map(|(code, _)| code), Some(expected), "{written}");
        };
        check("UK", "GB");
        check("uk", "GB");
        check("USA", "US");
        check("Germany", "DE");
        check("brasil", "BR");
        check("DEU", "DE");
    }
}
