//! `penstock sign`: the `X-Hub-Signature-256` of a body, as Meta makes it.
//!
//! The signature is over the bytes as they are: nothing is trimmed, parsed or re-encoded.

use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use aws_lc_rs::hmac;

use super::{Failure, IO, USAGE};

/// Largest body that `sign` and `send` read: twice the 3 MB that Meta sends, so that too large ones can be tried.
const BODY_MAX: u64 = 8 << 20;

#[derive(Debug, clap::Args)]
#[command(after_long_help = MANUAL)]
pub struct Args {
    /// The app secret: env:NAME, file:PATH or the secret itself
    #[arg(long, value_name = "SECRET")]
    pub secret: String,
    /// The body; - or nothing reads stdin
    #[arg(value_name = "FILE")]
    pub file: Option<PathBuf>,
}

const MANUAL: &str = "\
Prints what Meta puts into X-Hub-Signature-256: sha256= and the HMAC-SHA256 of
the body's bytes with the app secret. A newline at the end of the body counts;
one at the end of a file:PATH secret does not.

Examples:
  penstock sign --secret env:WHATSAPP_APP_SECRET body.json
  printf '{\"entry\":[]}' | penstock sign --secret file:app-secret -

  S=$(penstock sign --secret file:app-secret body.json)
  curl -H \"x-hub-signature-256: $S\" --data-binary @body.json \\
      http://127.0.0.1:8443/webhook";

pub fn run(args: &Args) -> anyhow::Result<u8> {
    let secret = read_secret(&args.secret)?;
    let body = match &args.file {
        Some(path) if path != Path::new("-") => read_file(path)?,
        _ => read_stdin()?,
    };
    writeln!(io::stdout(), "{}", signature(&secret, &body))?;
    Ok(0)
}

/// `sha256=` and 64 lower-case hex digits.
pub fn signature(secret: &[u8], body: &[u8]) -> String {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), body);
    format!("sha256={}", hex(tag.as_ref()))
}

/// True if `written` is the signature of `body`; the digits may be in any case.
pub fn verifies(secret: &[u8], body: &[u8], written: &str) -> bool {
    let Some(tag) = written.strip_prefix("sha256=").and_then(unhex) else { return false };
    hmac::verify(&hmac::Key::new(hmac::HMAC_SHA256, secret), body, &tag).is_ok()
}

/// Lower-case hex digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        write!(text, "{byte:02x}").ok();
        text
    })
}

/// The bytes that hex digits of either case stand for; `None` if it is anything else.
pub fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> =
        text.chars().map(|digit| digit.to_digit(16).and_then(|value| u8::try_from(value).ok())).collect();
    let digits = digits.filter(|digits| digits.len() == 64)?;
    Some(digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}

/// Reads a secret written as `env:NAME`, `file:PATH` or literally. Empty ones are refused: they sign nothing.
pub fn read_secret(written: &str) -> Result<Vec<u8>, Failure> {
    let secret = if let Some(name) = written.strip_prefix("env:") {
        std::env::var(name)
            .map_err(|error| Failure::new(USAGE, format!("--secret env:{name}: {error}; set {name}")))?
            .into_bytes()
    } else if let Some(path) = written.strip_prefix("file:") {
        let mut bytes = read_file(Path::new(path))?;
        while bytes.last().is_some_and(|byte| matches!(byte, b'\n' | b'\r')) {
            bytes.pop();
        }
        bytes
    } else {
        written.as_bytes().to_vec()
    };
    if secret.is_empty() {
        return Err(Failure::new(USAGE, "--secret is empty; expected env:NAME, file:PATH or the app secret"));
    }
    Ok(secret)
}

/// Reads a file of at most `BODY_MAX` bytes.
pub fn read_file(path: &Path) -> Result<Vec<u8>, Failure> {
    let failed = |error| Failure::new(IO, format!("read {}", path.display())).because(error);
    bounded(std::fs::File::open(path).map_err(failed)?, &path.display().to_string())
}

/// Reads stdin, at most `BODY_MAX` bytes.
pub fn read_stdin() -> Result<Vec<u8>, Failure> {
    bounded(io::stdin().lock(), "stdin")
}

fn bounded(from: impl Read, name: &str) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    from.take(BODY_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| Failure::new(IO, format!("read {name}")).because(error))?;
    if bytes.len() as u64 > BODY_MAX {
        return Err(Failure::new(
            USAGE,
            format!("{name} is larger than {BODY_MAX} bytes; Meta sends 3 MB at most"),
        ));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_are_those_of_the_test_vectors() {
        let check = |body: &str, digits: &str| {
            let made = signature(b"test-app-secret", body.as_bytes());
            assert_eq!(made, format!("sha256={digits}"));
            assert!(verifies(b"test-app-secret", body.as_bytes(), &made));
            assert!(verifies(
                b"test-app-secret",
                body.as_bytes(),
                &format!("sha256={}", digits.to_uppercase())
            ));
            assert!(!verifies(b"another secret", body.as_bytes(), &made));
            assert!(!verifies(b"test-app-secret", body.as_bytes(), digits), "the prefix is part of it");
            assert!(!verifies(b"test-app-secret", body.as_bytes(), &made[..70]));
        };
        check(
            r#"{"object":"whatsapp_business_account","entry":[]}"#,
            "c84a394cc475525991e78ff16e430b02e47f953877d2af0ade26956ce6f384dc",
        );
        check(
            r#"{"t":"\u00e4\u00f6\u00e5 a\/b"}"#,
            "84d526c5c15b929a2e04f40170b251db6af7ca6d657092030fc13eb4ad8c03fa",
        );
        check(r#"{"t":"äöå a/b"}"#, "76c8a147269841ed084e9adbbfe6b7baeb4c9a3623dd00fcde913b8c9e749b63");
    }

    #[test]
    fn secret_comes_from_where_it_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        std::fs::write(&path, "s3cret\n").unwrap();
        assert_eq!(read_secret(&format!("file:{}", path.display())).unwrap(), b"s3cret");
        assert_eq!(read_secret("plain").unwrap(), b"plain");
        assert_eq!(read_secret("env:PATH").unwrap(), std::env::var("PATH").unwrap().into_bytes());
        assert_eq!(read_secret("env:PENSTOCK_NO_SUCH_VARIABLE").unwrap_err().code, USAGE);
        assert_eq!(read_secret("").unwrap_err().code, USAGE);
        assert_eq!(read_secret("file:/no/such/file").unwrap_err().code, IO);
    }

    #[test]
    fn endless_input_is_refused() {
        assert_eq!(bounded(io::repeat(b'x'), "stdin").unwrap_err().code, USAGE);
    }
}
