//! `/api/v1/dead`: what waits for a person, looked at and dealt with while the gateway runs.
//!
//! Everything here needs `admin.token`, lists too: they show hashes of users. Nothing changes by GET, and
//! what is done is logged, without users and bodies.

use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use aws_lc_rs::{constant_time, digest};
use axum::Router;
use axum::body::{Bytes, to_bytes};
use axum::extract::{Path, RawQuery, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::AdminState;
use crate::config::Secret;
use crate::dead::office::{Deed, PAGE_MAX};
use crate::dead::words::{self, Misworded, Wanted};
use crate::dead::{Filter, Office};
use crate::entry::name_id;

/// Letters of a list, if nothing else is asked for.
const PAGE: usize = 100;
/// Letters a second that go out to each region, if nothing else is asked for.
pub const RATE: u32 = 10;
/// More than any region takes.
pub const RATE_MAX: u32 = 100_000;
/// A question is a few hundred bytes, or a list of ids.
const QUESTION_MAX: usize = 1 << 20;

/// Who may ask, and who answers.
#[derive(Debug, Default)]
pub(super) struct Access {
    /// SHA-256 of the token.
    token: Option<[u8; 32]>,
    /// There once the dead letters have been read.
    pub(super) office: OnceLock<Office>,
}

impl Access {
    pub(super) fn new(token: Option<&Secret>) -> Self {
        Self { token: token.map(|token| sha256(token.expose())), office: OnceLock::new() }
    }

    fn office(&self, headers: &HeaderMap) -> Result<&Office, Box<Fault>> {
        let Some(token) = &self.token else {
            return Err(Fault::new(
                StatusCode::FORBIDDEN,
                "no admin.token in the configuration",
                "a token, since this shows or changes what users sent",
                "Set admin.token, such as \"file:/etc/penstock/admin.token\", made by `openssl rand -hex 32`; then restart.",
            ));
        };
        let given = headers.get(header::AUTHORIZATION).map(HeaderValue::as_bytes);
        let given = given.and_then(|value| value.strip_prefix(b"Bearer ").or(value.strip_prefix(b"bearer ")));
        // Digests are compared, so neither the content nor the length of the token shows in the time.
        let same = |given| constant_time::verify_slices_are_equal(&sha256(given), token).is_ok();
        match given {
            Some(given) if same(given) => {}
            Some(_) => return Err(Fault::unauthorized("another token")),
            None => return Err(Fault::unauthorized("no token")),
        }
        self.office.get().ok_or_else(|| {
            let (found, expected) = ("a gateway that is starting", "one that has read its dead letters");
            Fault::new(
                StatusCode::SERVICE_UNAVAILABLE,
                found,
                expected,
                "Ask again when /readyz answers 200.",
            )
        })
    }
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut sum = [0; 32];
    sum.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    sum
}

/// Why a question is not answered.
#[derive(Debug)]
struct Fault {
    status: StatusCode,
    found: String,
    expected: String,
    to_do: String,
}

impl Fault {
    fn new(status: StatusCode, found: &str, expected: &str, to_do: &str) -> Box<Self> {
        let [found, expected, to_do] = [found, expected, to_do].map(str::to_owned);
        Box::new(Self { status, found, expected, to_do })
    }

    fn unauthorized(found: &str) -> Box<Self> {
        let to_do = "Send the token of the configuration in a header: authorization: Bearer TOKEN.";
        Self::new(StatusCode::UNAUTHORIZED, found, "the value of admin.token", to_do)
    }

    fn wording(found: &str, expected: &str, to_do: &str) -> Box<Self> {
        Self::new(StatusCode::BAD_REQUEST, found, expected, to_do)
    }

    fn disk(said: &str) -> Box<Self> {
        let to_do = "Look at the disk of gateway.data_dir and at the log.";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, said, "dead letters that can be read and written", to_do)
    }
}

impl From<Misworded> for Box<Fault> {
    fn from(word: Misworded) -> Self {
        let found = format!("{} = {:?}", word.key, word.found);
        Fault::wording(&found, &word.expected, &word.hint)
    }
}

impl IntoResponse for Box<Fault> {
    fn into_response(self) -> Response {
        let error = json!({ "found": self.found, "expected": self.expected, "to_do": self.to_do });
        let mut response = (self.status, answer(&json!({ "error": error }))).into_response();
        if self.status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

fn answer(value: &Value) -> impl IntoResponse + use<> {
    ([(header::CONTENT_TYPE, "application/json")], format!("{value}\n"))
}

pub(super) fn router() -> Router<Arc<AdminState>> {
    Router::new()
        .route("/api/v1/dead", get(list))
        .route("/api/v1/dead/{id}", get(show))
        .route("/api/v1/dead/replay", post(replay))
        .route("/api/v1/dead/keep", post(keep))
        .route("/api/v1/dead/drop", post(drop_letters))
}

async fn list(
    State(state): State<Arc<AdminState>>,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Result<Response, Box<Fault>> {
    let office = state.access.office(&headers)?;
    let mut query = pairs(query.as_deref().unwrap_or_default())?;
    let limit = number(&mut query, "limit", PAGE as u64, PAGE_MAX as u64)? as usize;
    let (filter, user) = filter(query)?;
    let page = office.list(filter, user, limit).await.map_err(|said| Fault::disk(&said))?;
    let next = (page.cards.len() < page.count).then(|| page.cards.last().map(|card| card.id.0.to_string()));
    let letters: Vec<Value> =
        page.cards.iter().map(|card| words::shown(card, &|id| state.source(id))).collect();
    Ok(answer(&json!({ "count": page.count, "letters": letters, "next": next.flatten() })).into_response())
}

async fn show(
    State(state): State<Arc<AdminState>>,
    headers: HeaderMap,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
) -> Result<Response, Box<Fault>> {
    let office = state.access.office(&headers)?;
    let id = words::id("id", &id)?;
    let query = pairs(query.as_deref().unwrap_or_default())?;
    let with_body = query.get("body").is_some_and(|value| value == "true");
    let shown = office.show(id).await.map_err(|said| Fault::disk(&said))?;
    let Some(shown) = shown else {
        let to_do = "List what there is: GET /api/v1/dead.";
        return Err(Fault::new(
            StatusCode::NOT_FOUND,
            &id.0.to_string(),
            "the number of a dead letter",
            to_do,
        ));
    };
    let mut value = words::shown(&shown.card, &|id| state.source(id));
    match &shown.record {
        Err(damage) => value["damage"] = json!(damage),
        Ok(record) if with_body => match words::body(record).map(|body| (body, std::str::from_utf8(body))) {
            Some((_, Ok(text))) => value["body"] = json!(text),
            Some((body, Err(_))) => value["body_base64"] = json!(STANDARD.encode(body)),
            None => value["damage"] = json!("the journal's record in the letter is damaged"),
        },
        Ok(_) => {}
    }
    if with_body {
        tracing::info!(letter = id.0, "the body of a dead letter was shown, by the admin listener");
    }
    Ok(answer(&value).into_response())
}

async fn replay(state: State<Arc<AdminState>>, request: Request) -> Result<Response, Box<Fault>> {
    act(state, request, "replay").await
}

async fn keep(state: State<Arc<AdminState>>, request: Request) -> Result<Response, Box<Fault>> {
    act(state, request, "keep").await
}

async fn drop_letters(state: State<Arc<AdminState>>, request: Request) -> Result<Response, Box<Fault>> {
    act(state, request, "drop").await
}

async fn act(
    State(state): State<Arc<AdminState>>,
    request: Request,
    action: &'static str,
) -> Result<Response, Box<Fault>> {
    let office = state.access.office(request.headers())?;
    let body: Bytes = to_bytes(request.into_body(), QUESTION_MAX).await.map_err(|_| {
        Fault::wording(
            "a question that is too long or was cut off",
            "at most 1 MiB of JSON",
            "Name fewer ids at a time.",
        )
    })?;
    let Ok(Value::Object(mut question)) = serde_json::from_slice(&body) else {
        return Err(Fault::wording(
            "no JSON object",
            "filters and \"dry_run\"",
            "Write such as {\"region\": \"eu\", \"dry_run\": true}; \"dry_run\": false does it.",
        ));
    };
    let dry_run = match question.remove("dry_run") {
        Some(Value::Bool(dry_run)) => dry_run,
        other => {
            let found = format!("dry_run = {}", other.unwrap_or(Value::Null));
            return Err(Fault::wording(
                &found,
                "true or false",
                "Begin with \"dry_run\": true, which only counts.",
            ));
        }
    };
    let deed = match action {
        "replay" => {
            Deed::Replay { rate: number(&mut question, "rate", u64::from(RATE), u64::from(RATE_MAX))? as u32 }
        }
        "keep" => Deed::Keep,
        _ => Deed::Drop,
    };
    let mut told = question.clone();
    told.entry("user").and_modify(|user| *user = json!("(a user)"));
    told.retain(|_, value| *value != Value::Null);
    let (filter, user) = filter(question)?;
    let done = office.act(deed, filter, user, dry_run).await.map_err(|said| Fault::disk(&said))?;
    let letters = Value::Object(told).to_string();
    tracing::info!(
        action, dry_run, %letters, count = done.count, changed = done.changed,
        "dead letters: asked by the admin listener"
    );
    let answered = json!({
        "dry_run": dry_run,
        "count": done.count,
        "changed": done.changed,
        "region_not_configured": done.homeless,
    });
    Ok(answer(&answered).into_response())
}

fn filter(words: Map<String, Value>) -> Result<(Filter, Option<String>), Box<Fault>> {
    let wanted: Wanted = serde_json::from_value(Value::Object(words)).map_err(|error| {
        let expected = "id, region, source, since, until, reason, status, user, state, after";
        Fault::wording(&error.to_string(), expected, "Take out what is not among them.")
    })?;
    Ok(wanted.filter(SystemTime::now())?)
}

/// Takes a number out of the words.
fn number(
    words: &mut Map<String, Value>,
    key: &'static str,
    default: u64,
    most: u64,
) -> Result<u64, Box<Fault>> {
    let Some(value) = words.remove(key) else { return Ok(default) };
    let found = value.as_u64().or_else(|| value.as_str()?.parse().ok());
    found.filter(|number| (1..=most).contains(number)).ok_or_else(|| {
        Fault::wording(
            &format!("{key} = {value}"),
            &format!("a number from 1 to {most}"),
            "Choose one of them.",
        )
    })
}

/// The pairs of a query; `id` may come several times.
fn pairs(query: &str) -> Result<Map<String, Value>, Box<Fault>> {
    let mut pairs = Map::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let (Some(key), Some(value)) = (decoded(key), decoded(value)) else {
            return Err(Fault::wording(pair, "UTF-8, with %XX for what is special", "Encode it."));
        };
        match key.as_str() {
            "id" => {
                if let Value::Array(ids) = pairs.entry("id").or_insert_with(|| json!([])) {
                    ids.push(json!(value));
                }
            }
            "status" => {
                let number = value.parse::<u16>().map_or_else(|_| json!(value), |number| json!(number));
                pairs.insert(key, number);
            }
            _ => {
                pairs.insert(key, json!(value));
            }
        }
    }
    Ok(pairs)
}

fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, behind)) = rest.split_first() {
        rest = behind;
        bytes.push(match first {
            b'+' => b' ',
            b'%' => {
                let (hex, behind) = rest.split_at_checked(2)?;
                rest = behind;
                u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok()?
            }
            other => *other,
        });
    }
    String::from_utf8(bytes).ok()
}

impl AdminState {
    /// The name of a configured source.
    fn source(&self, id: u32) -> Option<String> {
        self.registry.sources.iter().find(|name| name_id(name) == id).cloned()
    }
}
