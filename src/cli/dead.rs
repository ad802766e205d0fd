//! `penstock dead`: what was given up; listed, shown, sent again or dropped by a person.
//!
//! While the gateway runs it has the letters, and is asked through its admin listener; while it does not, the
//! files are read and written here. Nothing changes without `--yes`.

use std::io::{self, Write};
use std::time::SystemTime;

use serde_json::Value;

use super::folder::FolderArgs;
use super::{FAILED, Failure, USAGE};
use crate::admin::dead::{RATE, RATE_MAX};
use crate::dead::office::{Deed, Done};
use crate::dead::words::Wanted;

mod place;

use place::Letters;

const LIST: &str = "\
One line per dead letter, the oldest first: its number, when it died, region,
reason, the region's last status, tries, events, bytes of the webhook, users and
whether it waits for a person or is ordered to go out again. Users are hashes
under a key of the data folder; --user finds by phone or id. With --json each
line is a JSON object.

Reasons:
  attempts     region.retry.attempts were used up
  window       region.retry.window was over
  refused      the region answered 4xx again and again
  quarantined  it harmed whoever touched it

While the gateway runs it is asked through admin.address, which needs
admin.token and --config.

Exit codes:
  0 listed, 1 something is damaged, 64 usage, 69 the gateway does not answer,
  74 the letters cannot be read, 78 bad configuration

Examples:
  penstock dead list --config /etc/penstock/penstock.toml --region eu --since 2h
  penstock dead list --config penstock.toml --user +4917139200992 --json
  penstock dead list --data-dir /var/lib/penstock --reason refused --status 422";

const SHOW: &str = "\
What is known of one dead letter, as JSON; `places` are those of its events
among the events of the webhook, from 0 on, and empty if all that are for the
region are in it. With --body the webhook follows as it came, whole, also where
only a part of it was for this region: it shows what users wrote.

Exit codes:
  0 shown, 1 there is no such letter or it is damaged, 64 usage, 69 the gateway
  does not answer, 74 the letters cannot be read, 78 bad configuration

Examples:
  penstock dead show --config /etc/penstock/penstock.toml 7306051240099840
  penstock dead show --config penstock.toml 7306051240099840 --body";

const REPLAY: &str = "\
Sends dead letters to their regions again, each with its webhook-id of before
and penstock-possible-duplicate, behind what waits in its conversations. A
letter stays one until its region answers 2xx; if it fails again it waits for a
person again. Without --yes only the number of letters is told.

The order is kept on disk: after a stop or a crash the next start goes on with
it, and giving it twice sends nothing twice. While the gateway does not run, the
order is stored and carried out at its next start. --stop takes it back for what
has not gone out yet; see --state ordered in the list.

Exit codes:
  0 ordered (or counted), 1 something is damaged or the region of some is not
  configured: they stay letters, 64 usage, 69 the gateway does not answer,
  74 the letters cannot be read or written, 78 bad configuration

Examples:
  penstock dead replay --config /etc/penstock/penstock.toml --region eu
  penstock dead replay --config penstock.toml --region eu --rate 50/s --yes
  penstock dead replay --config penstock.toml 7306051240099840 --yes
  penstock dead replay --config penstock.toml --stop --yes";

const DROP: &str = "\
Gives dead letters up for good: their regions never get them. What is archived
stays archived. Without --yes only the number of letters is told.

Exit codes:
  0 dropped (or counted), 1 something is damaged, 64 usage, 69 the gateway does
  not answer, 74 the letters cannot be read or written, 78 bad configuration

Examples:
  penstock dead drop --config penstock.toml --region eu --until 7days
  penstock dead drop --config penstock.toml 7306051240099840 --yes";

#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// List dead letters
    #[command(after_long_help = LIST)]
    List(ListArgs),
    /// Show one dead letter
    #[command(after_long_help = SHOW)]
    Show(ShowArgs),
    /// Send dead letters to their regions again
    #[command(after_long_help = REPLAY)]
    Replay(ReplayArgs),
    /// Give dead letters up for good
    #[command(after_long_help = DROP)]
    Drop(ChoiceArgs),
}

#[derive(Debug, clap::Args)]
pub struct FilterArgs {
    /// Of this region
    #[arg(long, value_name = "NAME")]
    pub region: Option<String>,
    /// From this source
    #[arg(long, value_name = "NAME")]
    pub source: Option<String>,
    /// Died since then: how long ago, or RFC 3339
    #[arg(long, value_name = "TIME")]
    pub since: Option<String>,
    /// Died before then
    #[arg(long, value_name = "TIME")]
    pub until: Option<String>,
    /// attempts, window, refused or quarantined
    #[arg(long, value_name = "WORD")]
    pub reason: Option<String>,
    /// The region's last answer
    #[arg(long, value_name = "CODE")]
    pub status: Option<u16>,
    /// With an event of this user: a phone or an id
    #[arg(long, value_name = "USER")]
    pub user: Option<String>,
    /// waiting or ordered
    #[arg(long, value_name = "WORD")]
    pub state: Option<String>,
}

impl FilterArgs {
    fn wanted(&self, ids: &[String]) -> anyhow::Result<Wanted> {
        let wanted = Wanted {
            id: ids.to_vec(),
            region: self.region.clone(),
            source: self.source.clone(),
            since: self.since.clone(),
            until: self.until.clone(),
            reason: self.reason.clone(),
            status: self.status,
            user: self.user.clone(),
            state: self.state.clone(),
            after: None,
        };
        wanted.filter(SystemTime::now()).map_err(|word| Failure::new(USAGE, format!("--{word}")))?;
        Ok(wanted)
    }
}

/// Letters that something is done with.
#[derive(Debug, clap::Args)]
pub struct ChoiceArgs {
    #[command(flatten)]
    pub folder: FolderArgs,
    /// These letters; without one, all that the filters take
    #[arg(value_name = "ID")]
    pub ids: Vec<String>,
    #[command(flatten)]
    pub filter: FilterArgs,
    /// Do it, and do not only count
    #[arg(long)]
    pub yes: bool,
}

impl ChoiceArgs {
    fn open(&self) -> anyhow::Result<(Wanted, Letters)> {
        Ok((self.filter.wanted(&self.ids)?, Letters::open(&self.folder)?))
    }
}

#[derive(Debug, clap::Args)]
pub struct ListArgs {
    #[command(flatten)]
    pub folder: FolderArgs,
    #[command(flatten)]
    pub filter: FilterArgs,
    /// At most so many, the oldest; 0: all
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub limit: usize,
    /// JSON objects, one per line
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, clap::Args)]
pub struct ShowArgs {
    #[command(flatten)]
    pub folder: FolderArgs,
    /// Number of the letter
    #[arg(value_name = "ID")]
    pub id: String,
    /// The webhook too
    #[arg(long)]
    pub body: bool,
}

#[derive(Debug, clap::Args)]
pub struct ReplayArgs {
    #[command(flatten)]
    pub choice: ChoiceArgs,
    /// Letters a second to each region
    #[arg(long, value_name = "N/s", default_value_t = RATE, value_parser = rate)]
    pub rate: u32,
    /// Take the order back
    #[arg(long)]
    pub stop: bool,
}

fn rate(text: &str) -> Result<u32, String> {
    let number = text.strip_suffix("/s").unwrap_or(text).parse().ok();
    number
        .filter(|rate| (1..=RATE_MAX).contains(rate))
        .ok_or_else(|| format!("expected a number from 1 to {RATE_MAX}, such as 50/s"))
}

pub fn run(command: &Command) -> anyhow::Result<u8> {
    match command {
        Command::List(args) => list(args),
        Command::Show(args) => show(args),
        Command::Replay(args) => {
            let (wanted, letters) = args.choice.open()?;
            let yes = args.choice.yes;
            if args.stop {
                return act(letters, Deed::Keep, &wanted, yes, ("would not go out", "do not go out"));
            }
            let done = if letters.gateway_runs() {
                "are going out again"
            } else {
                "go out again when the gateway starts: the order is stored"
            };
            act(letters, Deed::Replay { rate: args.rate }, &wanted, yes, ("would go out again", done))
        }
        Command::Drop(args) => {
            let (wanted, letters) = args.open()?;
            act(letters, Deed::Drop, &wanted, args.yes, ("would be dropped", "were dropped"))
        }
    }
}

fn list(args: &ListArgs) -> anyhow::Result<u8> {
    let wanted = args.filter.wanted(&[])?;
    let mut letters = Letters::open(&args.folder)?;
    let mut out = io::BufWriter::new(io::stdout().lock());
    let limit = if args.limit == 0 { usize::MAX } else { args.limit };
    let (mut shown, mut line) = (0usize, String::new());
    let count = letters.list(&wanted, limit, |letter| {
        if shown == 0 && !args.json {
            writeln!(out, "{HEAD}")?;
        }
        shown += 1;
        if args.json {
            return writeln!(out, "{letter}");
        }
        line.clear();
        row(letter, &mut line);
        writeln!(out, "{line}")
    })?;
    if !args.json {
        match (shown, count) {
            (0, _) => writeln!(out, "no dead letter")?,
            (shown, count) if shown < count => {
                writeln!(out, "the oldest {shown} of {count} dead letters; --limit 0 shows all")?;
            }
            (shown, _) => writeln!(out, "{}", letters_said(shown))?,
        }
    }
    out.flush()?;
    Ok(verdict(&letters))
}

const HEAD: &str = "ID                DIED                      REGION        REASON       STATUS  TRIES  EVENTS    BYTES  STATE    USERS";

fn row(letter: &Value, line: &mut String) {
    use std::fmt::Write;
    let text = |key: &str| letter[key].as_str().unwrap_or("-");
    let number = |key: &str| letter[key].as_u64().unwrap_or_default();
    let status = letter["status"].as_u64().map_or("-".to_owned(), |status| status.to_string());
    let users = letter["users"].as_array().map(Vec::as_slice).unwrap_or_default();
    // Writing to a text cannot fail.
    write!(
        line,
        "{:<16}  {:<24}  {:<12}  {:<11}  {:>6}  {:>5}  {:>6}  {:>7}  {:<7}  ",
        text("id"),
        text("died_at"),
        text("region"),
        text("reason"),
        status,
        number("attempts"),
        number("events"),
        number("body_bytes"),
        text("state"),
    )
    .ok();
    for (at, user) in users.iter().take(USERS_SHOWN).enumerate() {
        line.push_str(if at > 0 { " " } else { "" });
        line.push_str(user.as_str().unwrap_or("-"));
    }
    if users.len() > USERS_SHOWN {
        write!(line, " and {} more", users.len() - USERS_SHOWN).ok();
    }
}

/// Users of a letter in a line; `show` has all.
const USERS_SHOWN: usize = 2;

fn show(args: &ShowArgs) -> anyhow::Result<u8> {
    let id = crate::dead::words::id("ID", &args.id).map_err(|word| Failure::new(USAGE, word.to_string()))?;
    let mut letters = Letters::open(&args.folder)?;
    let Some((letter, body)) = letters.show(id, args.body)? else {
        let text = format!("no dead letter {}; expected a number from `penstock dead list`", args.id);
        return Err(Failure::new(FAILED, text).into());
    };
    let mut out = io::stdout().lock();
    writeln!(out, "{letter:#}")?;
    if let Some(body) = body {
        writeln!(out)?;
        out.write_all(&body)?;
        writeln!(out)?;
    }
    Ok(if letter.get("damage").is_some() { FAILED } else { verdict(&letters) })
}

fn act(
    mut letters: Letters,
    deed: Deed,
    wanted: &Wanted,
    yes: bool,
    (would, did): (&str, &str),
) -> anyhow::Result<u8> {
    let mut out = io::stdout().lock();
    let Done { count, changed, homeless } = letters.act(deed, wanted, !yes)?;
    let able = count - homeless;
    if yes {
        writeln!(out, "{} {did}", letters_said(changed))?;
        if able > changed {
            writeln!(out, "{} it made no difference to: so it was already", letters_said(able - changed))?;
        }
    } else {
        writeln!(out, "{} {would}", letters_said(able))?;
        writeln!(out, "nothing was done: add --yes to do it")?;
    }
    if homeless > 0 {
        let said = letters_said(homeless);
        writeln!(
            out,
            "{said} cannot go out and stay as they are: found a region that is not in the configuration, expected one that \
             is; configure it again and restart the gateway, or drop them (`penstock dead list` names their regions)"
        )?;
    }
    let verdict = verdict(&letters);
    Ok(if homeless > 0 { FAILED } else { verdict })
}

fn letters_said(count: usize) -> String {
    format!("{count} dead letter{}", if count == 1 { "" } else { "s" })
}

/// Says what is damaged.
#[allow(clippy::print_stderr)]
fn verdict(letters: &Letters) -> u8 {
    for damage in letters.damages() {
        eprintln!("DAMAGED  {damage}");
    }
    if letters.damages().is_empty() { 0 } else { FAILED }
}
