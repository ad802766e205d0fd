//! Where the dead letters are: with a gateway that runs, or in the files of one that does not.

use std::fs::{File, OpenOptions};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use nix::fcntl::{Flock, FlockArg};
use serde_json::{Map, Value, json};

use super::super::client::{Answer, Client, Url};
use super::super::folder::FolderArgs;
use super::super::{CONFIG, Failure, IO, UNAVAILABLE};
use crate::config::Config;
use crate::dead::office::{Deed, Done, PAGE_MAX};
use crate::dead::words::{self, Wanted};
use crate::dead::{Damage, Graves, LetterId, What};
use crate::entry::name_id;

/// A list of millions takes the gateway a second.
const PATIENCE: Duration = Duration::from_secs(60);
/// A page of the list, or one letter with the largest body there is.
const ANSWER_MAX: usize = 256 << 20;

/// The dead letters.
pub(super) enum Letters {
    /// The gateway has them.
    Remote { admin: SocketAddr, token: String },
    /// Nobody else has them as long as the lock is held.
    Local {
        graves: Box<Graves>,
        sources: Vec<String>,
        /// Names; `None`: no configuration was given.
        regions: Option<Vec<String>>,
        _lock: Flock<File>,
    },
}

impl Letters {
    pub(super) fn open(args: &FolderArgs) -> anyhow::Result<Self> {
        let (data_dir, config) = args.find()?;
        if let Some(lock) = lock(&data_dir)? {
            let graves =
                Graves::open(&data_dir, true).map_err(|error| Failure::new(IO, error.to_string()))?;
            let sources = config.iter().flat_map(|config| &config.sources).map(|source| source.name.clone());
            let sources = sources.collect();
            let names = |config: &Config| config.regions.iter().map(|region| region.name.clone()).collect();
            let regions = config.as_ref().map(names);
            return Ok(Self::Local { graves: Box::new(graves), sources, regions, _lock: lock });
        }
        let Some(path) = &args.config else {
            let text = format!(
                "data folder {} is in use; expected --config with the gateway's configuration, so that the gateway can be asked",
                data_dir.display()
            );
            return Err(Failure::new(UNAVAILABLE, text).into());
        };
        let (config, _) = Config::load(path).map_err(|invalid| Failure::new(CONFIG, invalid.to_string()))?;
        let Some(token) = config.admin.token else {
            let text = "the gateway runs and admin.token is not set; expected a token, since dead letters hold what users \
                        sent. Set admin.token and restart the gateway, or stop it: then the files are read";
            return Err(Failure::new(CONFIG, text).into());
        };
        let token = String::from_utf8_lossy(token.expose()).into_owned();
        Ok(Self::Remote { admin: reachable(config.admin.address), token })
    }

    pub(super) fn gateway_runs(&self) -> bool {
        matches!(self, Self::Remote { .. })
    }

    /// What was found damaged; a running gateway has it in its log.
    pub(super) fn damages(&self) -> &[Damage] {
        match self {
            Self::Remote { .. } => &[],
            Self::Local { graves, .. } => &graves.damages,
        }
    }

    /// Visits at most `limit` letters, oldest first; how many there are.
    pub(super) fn list(
        &mut self,
        wanted: &Wanted,
        limit: usize,
        mut visit: impl FnMut(&Value) -> io::Result<()>,
    ) -> anyhow::Result<usize> {
        match self {
            Self::Local { graves, sources, .. } => {
                let ids = matched(graves, wanted)?;
                for page in ids[..ids.len().min(limit)].chunks(PAGE_MAX) {
                    for card in graves.cards(page)? {
                        visit(&words::shown(&card, &|id| name_of(sources, id)))?;
                    }
                }
                Ok(ids.len())
            }
            Self::Remote { admin, token } => {
                let (mut wanted, mut left, mut count) = (wanted.clone(), limit, None);
                loop {
                    let page = ask(*admin, token, "GET", &query(&wanted, left.min(PAGE_MAX)), b"")?
                        .unwrap_or_default();
                    let all = page["count"].as_u64().unwrap_or_default() as usize;
                    // The first page counts all of them.
                    count.get_or_insert(all);
                    let letters = page["letters"].as_array().map(Vec::as_slice).unwrap_or_default();
                    letters.iter().try_for_each(&mut visit)?;
                    left -= letters.len().min(left);
                    match page["next"].as_str() {
                        Some(next) if left > 0 => wanted.after = Some(next.to_owned()),
                        _ => return Ok(count.unwrap_or(all)),
                    }
                }
            }
        }
    }

    /// A letter, and its webhook's body if asked for.
    pub(super) fn show(
        &mut self,
        id: LetterId,
        body: bool,
    ) -> anyhow::Result<Option<(Value, Option<Vec<u8>>)>> {
        match self {
            Self::Local { graves, sources, .. } => {
                let Some((card, record)) = graves.letter(id)? else { return Ok(None) };
                let mut letter = words::shown(&card, &|id| name_of(sources, id));
                let found = match &record {
                    Ok(record) => words::body(record).map(<[u8]>::to_vec),
                    Err(_) => None,
                };
                match record {
                    Err(damage) => letter["damage"] = json!(damage.to_string()),
                    Ok(_) if found.is_none() => {
                        letter["damage"] = json!("the journal's record in the letter is damaged")
                    }
                    Ok(_) => {}
                }
                Ok(Some((letter, found.filter(|_| body))))
            }
            Self::Remote { admin, token } => {
                let target = format!("/api/v1/dead/{}?body={body}", id.0);
                let Some(mut letter) = ask(*admin, token, "GET", &target, b"")? else { return Ok(None) };
                let text = letter.as_object_mut().and_then(|letter| letter.remove("body"));
                let coded = letter.as_object_mut().and_then(|letter| letter.remove("body_base64"));
                let text = text.and_then(|text| text.as_str().map(|text| text.as_bytes().to_vec()));
                let coded = coded.and_then(|coded| STANDARD.decode(coded.as_str()?).ok());
                Ok(Some((letter, text.or(coded))))
            }
        }
    }

    pub(super) fn act(&mut self, deed: Deed, wanted: &Wanted, dry_run: bool) -> anyhow::Result<Done> {
        match self {
            Self::Local { graves, regions, .. } => {
                let mut ids = matched(graves, wanted)?;
                let count = ids.len();
                if let (Deed::Replay { .. }, Some(regions)) = (deed, regions) {
                    let known = |region: &str| regions.iter().any(|name| name == region);
                    ids.retain(|id| graves.region(*id).is_some_and(known));
                }
                let what = match deed {
                    Deed::Replay { rate } => What::Ordered { rate },
                    Deed::Keep => What::Kept,
                    Deed::Drop => What::Dropped,
                };
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64;
                let changed = if dry_run { 0 } else { graves.change(what, &ids, now)? };
                Ok(Done { count, changed, homeless: count - ids.len() })
            }
            Self::Remote { admin, token } => {
                let (action, rate) = match deed {
                    Deed::Replay { rate } => ("replay", Some(rate)),
                    Deed::Keep => ("keep", None),
                    Deed::Drop => ("drop", None),
                };
                let mut question = words_of(wanted);
                question.insert("dry_run".to_owned(), json!(dry_run));
                question.extend(rate.map(|rate| ("rate".to_owned(), json!(rate))));
                let body = Value::Object(question).to_string();
                let said = ask(*admin, token, "POST", &format!("/api/v1/dead/{action}"), body.as_bytes())?
                    .unwrap_or_default();
                let number = |key: &str| said[key].as_u64().unwrap_or_default() as usize;
                Ok(Done {
                    count: number("count"),
                    changed: number("changed"),
                    homeless: number("region_not_configured"),
                })
            }
        }
    }
}

fn matched(graves: &Graves, wanted: &Wanted) -> anyhow::Result<Vec<LetterId>> {
    let (mut filter, user) = wanted.filter(SystemTime::now())?;
    filter.user = user.map(|user| graves.user(&user));
    Ok(graves.matched(&filter)?)
}

fn name_of(sources: &[String], id: u32) -> Option<String> {
    sources.iter().find(|name| name_id(name) == id).cloned()
}

/// The lock of the data folder; `None` if a gateway has it.
fn lock(data_dir: &Path) -> Result<Option<Flock<File>>, Failure> {
    let failed = |error: io::Error| {
        let text = format!(
            "cannot lock data folder {}; expected one that this user may write, since the gateway must not start meanwhile",
            data_dir.display()
        );
        Failure::new(IO, text).because(error)
    };
    let path = data_dir.join("lock");
    let file = OpenOptions::new().write(true).create(true).truncate(false).open(path).map_err(failed)?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok(Some(lock)),
        Err((_, nix::errno::Errno::EWOULDBLOCK)) => Ok(None),
        Err((_, error)) => Err(failed(error.into())),
    }
}

/// Where to connect to for a listener on every address.
fn reachable(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => SocketAddr::from((Ipv4Addr::LOCALHOST, address.port())),
        IpAddr::V6(ip) if ip.is_unspecified() => {
            SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, address.port()))
        }
        _ => address,
    }
}

fn words_of(wanted: &Wanted) -> Map<String, Value> {
    match serde_json::to_value(wanted) {
        Ok(Value::Object(words)) => words,
        // Texts and numbers alone.
        _ => Map::new(),
    }
}

fn query(wanted: &Wanted, limit: usize) -> String {
    let mut target = format!("/api/v1/dead?limit={limit}");
    for (key, value) in words_of(wanted) {
        let values = match value {
            Value::Array(values) => values,
            value => vec![value],
        };
        for value in values {
            target.extend(["&", &key, "="]);
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            for byte in text.bytes() {
                match byte {
                    b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => {
                        target.push(char::from(byte))
                    }
                    _ => target.push_str(&format!("%{byte:02X}")),
                }
            }
        }
    }
    target
}

/// What the gateway says; `None`: there is no such thing (404).
fn ask(
    admin: SocketAddr,
    token: &str,
    method: &str,
    target: &str,
    body: &[u8],
) -> Result<Option<Value>, Failure> {
    let url = Url { address: admin.to_string(), authority: admin.to_string(), target: target.to_owned() };
    let bearer = format!("Bearer {token}");
    let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
    let Answer { status, body } =
        Client::new(url, PATIENCE).taking(ANSWER_MAX).request(method, &headers, body).map_err(|error| {
            let text = format!(
                "the data folder is in use and nobody answers on admin.address {admin}; expected a running gateway: it may \
                 be starting, or another `penstock dead` has the folder. Try again"
            );
            Failure::new(UNAVAILABLE, text).because(error)
        })?;
    let said: Value = serde_json::from_slice(&body).unwrap_or_default();
    if status == 200 {
        return Ok(Some(said));
    }
    let error = &said["error"];
    if status == 404 && error.is_object() {
        return Ok(None);
    }
    let text = match (error["found"].as_str(), error["expected"].as_str(), error["to_do"].as_str()) {
        (Some(found), Some(expected), Some(to_do)) => {
            format!("the gateway answered {status}: {found}; expected {expected}. {to_do}")
        }
        _ => format!(
            "the gateway answered {status} and nothing about dead letters; expected a Penstock on {admin}"
        ),
    };
    Err(Failure::new(UNAVAILABLE, text))
}
