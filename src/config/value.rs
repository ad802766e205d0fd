//! Values of a configuration: secrets, sizes, durations. Pure, but for the file of a secret.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// Bytes that are never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Vec<u8>);

impl Secret {
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self(bytes.into())
    }

    /// The secret itself. Never log it.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// Finds a secret where `text` says: `env:NAME`, `file:PATH` (below `base` if relative), or
    /// the text itself. The error says what to do.
    pub(super) fn find(
        text: &str,
        base: &Path,
        env: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Self, String> {
        let bytes = if let Some(name) = text.strip_prefix("env:") {
            env(name).ok_or_else(|| format!("Set the environment variable {name}."))?.into_vec()
        } else if let Some(path) = text.strip_prefix("file:") {
            let path = base.join(path);
            let bytes = std::fs::read(&path)
                .map_err(|e| format!("Make {} readable for this user: {e}.", path.display()))?;
            without_line_break(bytes)
        } else {
            text.as_bytes().to_vec()
        };
        if bytes.is_empty() { Err("Put the secret there: it is empty.".to_owned()) } else { Ok(Self(bytes)) }
    }

    /// True if `text` is the secret itself and no reference to it.
    pub(super) fn is_literal(text: &str) -> bool {
        !text.starts_with("env:") && !text.starts_with("file:")
    }

    /// The key bytes of a Standard Webhooks secret: `whsec_` and base64, or any other bytes as they are.
    pub(super) fn decode_signing(self) -> Result<Self, String> {
        let Some(encoded) = self.0.strip_prefix(b"whsec_") else {
            return Ok(self);
        };
        match STANDARD.decode(encoded) {
            Ok(key) if !key.is_empty() => Ok(Self(key)),
            _ => Err("Copy the secret again: what follows \"whsec_\" is not base64.".to_owned()),
        }
    }
}

/// Editors and `echo` end a file with a line break that is no part of the secret: one goes, not more.
fn without_line_break(mut bytes: Vec<u8>) -> Vec<u8> {
    if bytes.last() == Some(&b'\n') {
        bytes.pop();
        if bytes.last() == Some(&b'\r') {
            bytes.pop();
        }
    }
    bytes
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(***)")
    }
}

/// Units of a size, the longer ones first: every one of them ends in the last.
const UNITS: [(&str, u64); 9] = [
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("kB", 1_000),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("B", 1),
];

/// `"4MiB"`, `"16 KiB"`, `"3MB"`, `"4096"`: bytes.
pub(super) fn size(text: &str) -> Option<u64> {
    let (number, unit) =
        UNITS.iter().find_map(|(name, unit)| Some((text.strip_suffix(name)?, *unit))).unwrap_or((text, 1));
    // A sign would be taken by the parser and makes no sense here.
    let number = number.trim_end();
    number.bytes().all(|byte| byte.is_ascii_digit()).then(|| number.parse::<u64>().ok()?.checked_mul(unit))?
}

/// Longest duration that makes sense anywhere; far below what a clock's arithmetic can take.
pub(super) const DURATION_MAX: Duration = Duration::from_secs(366 * 24 * 60 * 60);

/// `"2ms"`, `"10s"`, `"1h 30m"`, up to a year.
pub(super) fn duration(text: &str) -> Option<Duration> {
    humantime::parse_duration(text).ok().filter(|duration| *duration <= DURATION_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn size_is_read_with_its_unit() {
        let check = |text: &str, expected: Option<u64>| assert_eq!(size(text), expected, "{text:?}");
        check("4MiB", Some(4 << 20));
        check("16 KiB", Some(16 << 10));
        check("1GiB", Some(1 << 30));
        check("3MB", Some(3_000_000));
        check("12B", Some(12));
        check("4096", Some(4096));
        check("0", Some(0));
        check("4 megabytes", None);
        check("MiB", None);
        check("-1MiB", None);
        check("+1MiB", None);
        check("1.5MiB", None);
        check("99999999999TiB", None);
        check("", None);
    }

    #[test]
    fn duration_is_read_with_its_unit_and_bounded() {
        let check = |text: &str, expected: Option<u64>| {
            assert_eq!(duration(text), expected.map(Duration::from_millis), "{text:?}");
        };
        check("2ms", Some(2));
        check("10s", Some(10_000));
        check("1m 30s", Some(90_000));
        check("0s", Some(0));
        check("10", None);
        check("soon", None);
        check("10000y", None);
    }

    #[test]
    fn secret_is_found_where_it_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("token"), "from file\n\n").unwrap();
        std::fs::write(folder.path().join("dos"), "from file\r\n").unwrap();
        std::fs::write(folder.path().join("empty"), "\n").unwrap();
        let env = |name: &str| (name == "TOKEN").then(|| OsString::from("from env"));
        let check = |text: &str, expected: Result<&str, &str>| {
            let found = Secret::find(text, folder.path(), env);
            match (found, expected) {
                (Ok(secret), Ok(expected)) => assert_eq!(secret.expose(), expected.as_bytes(), "{text}"),
                (Err(hint), Err(part)) => assert!(hint.contains(part), "{text}: {hint}"),
                (found, _) => panic!("{text}: {found:?}"),
            }
        };
        check("env:TOKEN", Ok("from env"));
        check("env:OTHER", Err("Set the environment variable OTHER"));
        check("file:token", Ok("from file\n"));
        check("file:dos", Ok("from file"));
        check("file:none", Err("none"));
        check("file:empty", Err("empty"));
        check("literal", Ok("literal"));
        check("", Err("empty"));
    }

    #[test]
    fn signing_secret_is_decoded_only_if_it_says_so() {
        let decode = |text: &str| Secret::new(text).decode_signing().map(|secret| secret.expose().to_vec());
        assert_eq!(decode("whsec_aGVsbG8="), Ok(b"hello".to_vec()));
        assert_eq!(decode("aGVsbG8="), Ok(b"aGVsbG8=".to_vec()));
        assert!(decode("whsec_%%%").is_err());
        assert!(decode("whsec_").is_err());
    }

    #[test]
    fn secret_is_never_printed() {
        assert!(!format!("{:?}", Secret::new("hush")).contains("hush"));
    }
}
