//! Moments as every webhook needs them written: to the region and to the archive. Pure.

const MS_PER_HOUR: u64 = 3_600_000;
/// The first moment of the year 10000, which RFC 3339 cannot write.
const END_MS: u64 = 253_402_300_800_000;

/// An hour of UTC, counted since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Hour(u64);

impl Hour {
    pub fn of(unix_ms: u64) -> Self {
        Self(unix_ms / MS_PER_HOUR)
    }

    /// Unix milliseconds.
    pub fn start_ms(self) -> u64 {
        self.0.saturating_mul(MS_PER_HOUR)
    }

    /// The folders of its objects in an archive: `dt=YYYY-MM-DD`, and `hour=HH` in it.
    pub fn folders(self) -> [String; 2] {
        let (year, month, day) = date(self.0 / 24);
        [format!("dt={year:04}-{month:02}-{day:02}"), format!("hour={:02}", self.0 % 24)]
    }
}

/// The moment as RFC 3339 with milliseconds, in UTC; `None` after the year 9999. Formatting through the standard
/// library takes five times as long.
pub fn rfc3339(unix_ms: u64) -> Option<[u8; 24]> {
    if unix_ms >= END_MS {
        return None;
    }
    let seconds = unix_ms / 1000;
    let (year, month, day) = date(unix_ms / (24 * MS_PER_HOUR));
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    let mut text = *b"0000-00-00T00:00:00.000Z";
    for (at, digits, value) in [
        (0, 4, year),
        (5, 2, month),
        (8, 2, day),
        (11, 2, hour),
        (14, 2, minute),
        (17, 2, second),
        (20, 3, unix_ms % 1000),
    ] {
        let mut value = value;
        for digit in text[at..at + digits].iter_mut().rev() {
            *digit = b'0' + (value % 10) as u8;
            value /= 10;
        }
    }
    Some(text)
}

/// Unix milliseconds of what [`rfc3339`] wrote; `None` of what it never writes.
pub fn unix_ms(text: &[u8; 24]) -> Option<u64> {
    let mut values = [0; 7];
    let fields = [(0, 4), (5, 2), (8, 2), (11, 2), (14, 2), (17, 2), (20, 3)];
    for (value, (at, digits)) in values.iter_mut().zip(fields) {
        for digit in &text[at..at + digits] {
            *value = *value * 10 + u64::from(digit.checked_sub(b'0').filter(|digit| *digit < 10)?);
        }
    }
    let [year, month, day, hour, minute, second, ms] = values;
    let days = days(year, month, day)?;
    let unix_ms = (((days * 24 + hour) * 60 + minute) * 60 + second) * 1000 + ms;
    // Days that no month has, and other separators, are seen by writing it again.
    rfc3339(unix_ms).filter(|written| written == text).map(|_| unix_ms)
}

/// Days since 1970, by Howard Hinnant's `days_from_civil`.
fn days(year: u64, month: u64, day: u64) -> Option<u64> {
    let year = if month <= 2 { year.checked_sub(1)? } else { year };
    let (era, of_era) = (year / 400, year % 400);
    let month_from_march = if month > 2 { month - 3 } else { month + 9 };
    let of_year = (153 * month_from_march + 2) / 5 + day;
    (era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year).checked_sub(719_468 + 1)
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
        let leap = 951_782_400_000; // 2000-02-29
        let edges = [0, 1, leap - 1, leap, leap + 86_400_000, 4_107_542_400_000, END_MS - 1];
        for ms in (0..20_000).map(|_| rng.next() % END_MS).chain(edges) {
            let text = rfc3339(ms).expect("four digits of a year");
            let moment = SystemTime::UNIX_EPOCH + Duration::from_millis(ms);
            let expected = humantime::format_rfc3339_millis(moment).to_string();
            assert_eq!(text, expected.as_bytes());
            assert_eq!(unix_ms(&text), Some(ms));
            let folders = Hour::of(ms).folders();
            assert_eq!(folders, [format!("dt={}", &expected[..10]), format!("hour={}", &expected[11..13])]);
        }
        assert_eq!((rfc3339(END_MS), rfc3339(u64::MAX)), (None, None));
        for odd in [
            "1969-12-31T23:59:59.999Z",
            "2026-02-30T00:00:00.000Z",
            "2026-13-01T00:00:00.000Z",
            "0000-00-00T00:00:00.000Z",
            "2026-09-14 12:00:00.000Z",
            "2026-09-14T24:00:00.000Z",
            "2026-09-14T12:0x:00.000Z",
        ] {
            assert_eq!(unix_ms(odd.as_bytes().try_into().unwrap()), None, "{odd}");
        }
    }
}
