//! The URL of a bucket, taken apart, and how it is reached. Pure, but for the secrets.

use std::fmt;
use std::net::IpAddr;

use super::resolve::secret;
use super::section::{Section, string};
use super::{Access, BucketPlace, Endpoint, Host, Keys, StoreKind};

/// Object stores take 1024 bytes; the names below the prefix need up to 250 of them.
const PREFIX_MAX: usize = 512;
/// Longest name of a bucket without dots, in every store.
const BUCKET: std::ops::RangeInclusive<usize> = 3..=63;

impl StoreKind {
    pub const ALL: [Self; 3] = [Self::S3, Self::Google, Self::Azure];

    /// As a URL begins.
    pub fn scheme(self) -> &'static str {
        match self {
            Self::S3 => "s3",
            Self::Google => "gs",
            Self::Azure => "az",
        }
    }
}

impl fmt::Display for BucketPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, bucket, prefix, .. } = self;
        let slash = if prefix.is_empty() { "" } else { "/" };
        write!(f, "{}://{bucket}{slash}{prefix}", kind.scheme())
    }
}

impl BucketPlace {
    /// Takes the URL of a bucket apart, to be reached as the environment says. The error says what to do.
    pub fn parse(url: &str) -> Result<Self, String> {
        parse(url).unwrap_or_else(|| Err("Begin with s3://, gs:// or az://.".to_owned()))
    }
}

/// Takes the URL of a bucket apart; `None`: it is not one of a bucket.
pub(super) fn parse(url: &str) -> Option<Result<BucketPlace, String>> {
    let (scheme, rest) = url.split_once("://")?;
    let kind = StoreKind::ALL.into_iter().find(|kind| kind.scheme() == scheme)?;
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    let place = check_bucket(kind, bucket).and_then(|()| check_prefix(prefix)).map(|prefix| BucketPlace {
        kind,
        bucket: bucket.to_owned(),
        prefix,
        access: Access::default(),
    });
    Some(place)
}

fn check_bucket(kind: StoreKind, bucket: &str) -> Result<(), String> {
    let edge = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let inner = |byte: u8| {
        let more = match kind {
            StoreKind::S3 => byte == b'.',
            StoreKind::Google => byte == b'.' || byte == b'_',
            StoreKind::Azure => false,
        };
        edge(byte) || byte == b'-' || more
    };
    let bytes = bucket.as_bytes();
    let (first, last) =
        (bytes.first().copied().unwrap_or_default(), bytes.last().copied().unwrap_or_default());
    let well_formed = BUCKET.contains(&bytes.len()) && edge(first) && edge(last) && bucket.bytes().all(inner);
    let doubled = bucket.contains("..") || (kind == StoreKind::Azure && bucket.contains("--"));
    if !well_formed || doubled || bucket.parse::<IpAddr>().is_ok() {
        return Err(format!(
            "Name the bucket after {}://, as it was made: 3 to 63 lower-case letters, digits and \"-\".",
            kind.scheme()
        ));
    }
    Ok(())
}

/// The prefix without slashes at its end, so that one place has one name.
fn check_prefix(prefix: &str) -> Result<String, String> {
    let prefix = prefix.trim_end_matches('/');
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'=');
    let part = |part: &str| !matches!(part, "" | "." | "..") && part.bytes().all(plain);
    if !prefix.is_empty() && !prefix.split('/').all(part) {
        return Err(
            "Write the path in the bucket with single slashes and letters, digits, \"-\", \"_\", \".\" and \
                    \"=\" between them, such as \"s3://audit-eu/whatsapp/eu\"."
                .to_owned(),
        );
    }
    if prefix.len() > PREFIX_MAX {
        return Err(format!("Choose a path of at most {PREFIX_MAX} characters."));
    }
    Ok(prefix.to_owned())
}

/// `[region.archive_store]`.
pub(super) fn access(section: &Section<'_>, kind: StoreKind, host: &Host) -> Access {
    let text = |key: &str| {
        section.read(key, "a text in quotes", |value| {
            string(value).map(|text| (!text.is_empty()).then_some(text))
        })
    };
    let endpoint =
        section.read("endpoint", "\"\" or a URL such as \"https://minio.internal:9000\"", |value| {
            match string(value)?.as_str() {
                "" => Ok(None),
                url => check_endpoint(url).map(Some),
            }
        });
    if let Some(url) = &endpoint
        && url.starts_with("http://")
        && !loopback(url)
    {
        section.warn("endpoint", "http:// is neither encrypted nor proof of who answers: use https://");
    }
    let region = text("region");
    if region.is_some() && kind != StoreKind::S3 {
        section.problem("region", "\"\" where the archive is not in s3://", "Take it out.");
    }
    let part = |key: &'static str| {
        section.read(key, "a secret that can be read", |value| match string(value)?.as_str() {
            "" => Ok(None),
            text => secret(section, key, text, host).map(Some),
        })
    };
    let keys = match (kind, part("access_key"), part("secret_key")) {
        (_, None, None) => None,
        (StoreKind::Google, None, Some(secret)) => Some(Keys { access: super::Secret::new(""), secret }),
        (StoreKind::Google, Some(_), _) => {
            let hint = "Take it out; secret_key holds the key file of the service account, as JSON.";
            section.problem("access_key", "\"\" where the archive is in gs://", hint);
            None
        }
        (_, Some(access), Some(secret)) => Some(Keys { access, secret }),
        (_, access, _) => {
            let (missing, other) =
                if access.is_some() { ("secret_key", "access_key") } else { ("access_key", "secret_key") };
            let hint = "Give both, or neither for those of the environment or the machine.";
            section.problem(missing, &format!("a secret, as {other} is given"), hint);
            None
        }
    };
    Access { endpoint, region, path_style: section.flag("path_style"), keys }
}

/// The URL of a store without a slash at its end.
fn check_endpoint(url: &str) -> Result<String, String> {
    let Some((scheme @ ("http" | "https"), rest)) = url.split_once("://") else {
        return Err("Begin with https://, such as \"https://minio.internal:9000\".".to_owned());
    };
    if url.contains('?') {
        return Err("Leave out everything from the \"?\".".to_owned());
    }
    Endpoint::parse(&format!("http://{rest}"))?;
    Ok(format!("{scheme}://{}", rest.trim_end_matches('/')))
}

/// True if what is sent there surely stays on this machine.
pub(super) fn loopback(url: &str) -> bool {
    let endpoint =
        url.split_once("://").and_then(|(_, rest)| Endpoint::parse(&format!("http://{rest}")).ok());
    endpoint.is_some_and(|endpoint| {
        endpoint.host == "localhost" || endpoint.address().is_some_and(|address| address.is_loopback())
    })
}
