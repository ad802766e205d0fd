//! Moments as an archive writes them: UTC, from the nanoseconds of an entry. Pure.

use std::io::Write;

const NS_PER_MS: u64 = 1_000_000;
const SECONDS_PER_DAY: u64 = 86_400;

/// An hour of an object's folder, counted since 1970. No object has records of two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Hour(u64);

impl Hour {
    pub fn of(unix_ns: u64) -> Self {
        Self(unix_ns / (NS_PER_MS * 1000 * 3600))
    }

    /// The folders of its objects: `dt=YYYY-MM-DD`, and `hour=HH` in it.
    pub fn folders(self) -> [String; 2] {
        let (year, month, day) = date(self.0 / 24);
        [format!("dt={year:04}-{month:02}-{day:02}"), format!("hour={:02}", self.0 % 24)]
    }
}

/// Appends the moment as RFC 3339 with milliseconds.
pub fn write(unix_ns: u64, out: &mut Vec<u8>) {
    let ms = unix_ns / NS_PER_MS;
    let seconds = ms / 1000;
    let (year, month, day) = date(seconds / SECONDS_PER_DAY);
    let of_day = seconds % SECONDS_PER_DAY;
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    // Year 1970 to 2554: always four digits.
    let mut text = *b"0000-00-00T00:00:00.000Z";
    for (at, digits, value) in [
        (0, 4, year),
        (5, 2, month),
        (8, 2, day),
        (11, 2, hour),
        (14, 2, minute),
        (17, 2, second),
        (20, 3, ms % 1000),
    ] {
        let mut value = value;
        for digit in text[at..at + digits].iter_mut().rev() {
            *digit = b'0' + (value % 10) as u8;
            value /= 10;
        }
    }
    // A vector takes everything.
    out.write_all(&text).ok();
}

/// Year, month and day of a day since 1970, by Howard Hinnant's `civil_from_days`.
fn date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let era = days / 146_097;
    let of_era = days % 146_097;
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::parse::tests::Rng;

    #[test]
    fn moments_are_written_as_everybody_writes_them() {
        let mut rng = Rng::from_env();
        let leap = 951_782_400_000_000_000; // 2000-02-29
        let edges = [0, 1, leap - 1, leap, leap + 86_400_000_000_000, 4_107_542_400_000_000_000, u64::MAX];
        for ns in (0..20_000).map(|_| rng.next()).chain(edges) {
            let mut text = Vec::new();
            write(ns, &mut text);
            let moment = SystemTime::UNIX_EPOCH + Duration::from_millis(ns / NS_PER_MS);
            let expected = humantime::format_rfc3339_millis(moment).to_string();
            assert_eq!(String::from_utf8(text).unwrap(), expected);
            let folders = Hour::of(ns).folders();
            assert_eq!(folders, [format!("dt={}", &expected[..10]), format!("hour={}", &expected[11..13])]);
        }
    }
}
