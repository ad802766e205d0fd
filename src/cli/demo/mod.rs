//! `penstock demo`: what Penstock does, in half a minute, with no configuration and no services.
//!
//! The gateway is a child process; Meta and three regions are played in this one. The acts are on
//! this page. At the end stands the ledger: what was answered with 200 against what arrived and what
//! the archives have.
//! Receivers, webhooks and ledger know nothing of the gateway's code, and serve its tests too.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context;

use self::archives::Archives;
use self::child::{ARCHIVE, Folder, Gateway, Territory};
use self::receiver::{Mode, Receiver};
use self::screen::Screen;
use self::sender::Sender;
use self::stage::{Process, Stage};
use self::stop::Stop;
use self::webhooks::{Mint, PEOPLE, Person, WITHOUT_PHONE, Webhook};
use super::FAILED;

pub mod archives;
pub mod child;
pub mod events;
pub mod ledger;
pub mod receiver;
pub mod screen;
pub mod sender;
pub mod stage;
pub mod stop;
#[cfg(test)]
mod tests;
pub mod webhooks;
pub mod why;

#[derive(Debug, clap::Args)]
#[command(after_long_help = MANUAL)]
pub struct Args {
    /// Play the acts, print the ledger and end: 0 if it balances
    #[arg(long)]
    pub once: bool,
    /// Keep configuration, journal and archives in this new folder
    #[arg(long, value_name = "FOLDER")]
    pub keep: Option<PathBuf>,
}

const MANUAL: &str = "\
Starts a gateway and three regions on loopback, sends webhooks shaped like
Meta's, and shows where each went, why, and when. One region fails for a few
seconds, the gateway is killed and started again meanwhile. At the end the
ledger tells whether everything that was answered with 200 arrived once, in
order and unaltered, and is archived. Without --once gentle traffic goes on
until Ctrl-C. Nothing is left behind unless --keep says where.

Examples:
  penstock demo
  penstock demo --once && echo balanced
  penstock demo --once --keep ./try     then look into ./try";

/// The regions and whom they serve; the first is the default.
const TERRITORIES: [Territory<'static>; 3] = [
    Territory { name: "europe", countries: &["DE", "FR", "GB", "ES", "IT", "NL", "PL", "SE", "CH", "AT"] },
    Territory { name: "americas", countries: &["US", "CA", "BR", "MX", "AR", "CO", "CL", "PE"] },
    Territory { name: "asia", countries: &["IN", "JP", "SG", "ID", "KR", "TH", "PH", "MY", "VN"] },
];

/// `--once` must end within 30 s; the ledger is closed by then.
const ONCE_LIMIT: Duration = Duration::from_secs(22);
/// After Ctrl-C, for what is still under way.
const LAST_CALL: Duration = Duration::from_secs(10);

const SECOND: Duration = Duration::from_secs(1);

pub fn run(args: &Args) -> anyhow::Result<u8> {
    let stop = Stop::on_signals()?;
    let folder = match &args.keep {
        Some(path) => Folder::kept(path)?,
        None => Folder::temporary()?,
    };
    let secret = format!("{:016x}", getrandom::u64().context("draw a random number")?);
    let (deliveries, arrivals) = mpsc::channel();
    let receivers = TERRITORIES
        .iter()
        .map(|territory| Receiver::start(territory.name, secret.as_bytes(), deliveries.clone()))
        .collect::<Result<Vec<_>, _>>()
        .context("start the regions")?;
    let gateway = Gateway::start(folder.path(), &TERRITORIES, &receivers, secret.as_bytes())?;

    let mut screen = Screen::stdout();
    introduce(&mut screen, gateway.address, gateway.admin, folder.path())?;
    let sender = Sender::new(gateway.webhook().clone(), secret.as_bytes());
    let address = gateway.address;
    let mut stage = Stage::new(gateway, screen, sender, (receivers, arrivals), home, stop, 1.0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut mint = Mint::new(now.as_micros() as u64, now.as_secs());

    let files = match (&args.keep, args.once) {
        (Some(_), _) => Files::Kept,
        (None, false) => Files::WhileItRuns,
        (None, true) => Files::Gone,
    };
    if let Err(error) = play(&mut stage, &mut mint, args.once, files) {
        // If the gateway is gone, that is the cause.
        stage.gateway.check()?;
        return Err(error);
    }
    let limit = if args.once { ONCE_LIMIT.saturating_sub(stage.elapsed()) } else { LAST_CALL };
    let balance = stage.close(limit.max(SECOND))?;
    say_what_is_next(&mut stage.screen, address, args.keep.as_deref())?;
    Ok(if balance.is_balanced() { 0 } else { FAILED })
}

fn introduce<W: Write>(
    screen: &mut Screen<W>,
    gateway: SocketAddr,
    admin: SocketAddr,
    folder: &Path,
) -> io::Result<()> {
    screen.title(
        "Penstock: one address for Meta, every message to its region, nothing lost.",
        &[
            ("gateway", format!("http://{gateway}/webhook")),
            ("metrics", format!("http://{admin}/metrics")),
            ("regions", "europe (the default), americas, asia: small servers of the demo".to_owned()),
            ("journal", folder.join("data").display().to_string()),
            ("archives", folder.join(ARCHIVE).display().to_string()),
        ],
    )
}

fn say_what_is_next<W: Write>(
    screen: &mut Screen<W>,
    gateway: SocketAddr,
    kept: Option<&Path>,
) -> io::Result<()> {
    let Some(folder) = kept else {
        return screen.next_steps(&[(
            "The same again, leaving its configuration, journal and archives in a folder:",
            &["penstock demo --once --keep try"],
        )]);
    };
    let in_folder = |file: &str| folder.join(file).display().to_string();
    screen.next_steps(&[
        (
            "The same gateway again; its regions were the demo's, so what comes waits:",
            &[&format!("penstock serve --config {}", in_folder("penstock.toml"))],
        ),
        (
            "A signed webhook for it:",
            &[
                &format!("penstock send --to http://{gateway}/webhook \\"),
                &format!("    --secret file:{} --text hi --from +491713920099", in_folder("app-secret")),
            ],
        ),
        ("What its journal has:", &[&format!("penstock journal inspect --data-dir {}", in_folder("data"))]),
    ])
}

/// How long there is something to look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Files {
    Kept,
    WhileItRuns,
    Gone,
}

/// All acts, and what goes on until somebody ends it.
fn play<W: Write, P: Process>(
    stage: &mut Stage<W, P>,
    mint: &mut Mint,
    once: bool,
    files: Files,
) -> anyhow::Result<()> {
    let acts = [
        messages_find_their_region,
        statuses_stay_in_order,
        user_without_a_phone,
        nobodys_event,
        batch_is_cut,
        forgery_is_refused,
        repeats_are_dropped,
        region_goes_down,
        gateway_is_killed,
        region_catches_up,
    ];
    for act in acts {
        if stage.stop.asked() {
            break;
        }
        act(stage, mint)?;
        stage.pause(SECOND.mul_f64(0.8))?;
    }
    archive_is_read(stage, files)?;
    if !once && !stage.stop.asked() {
        gentle_traffic(stage, mint)?;
    }
    Ok(())
}

fn messages_find_their_region<W: Write, P: Process>(
    stage: &mut Stage<W, P>,
    mint: &mut Mint,
) -> anyhow::Result<()> {
    stage
        .screen
        .headline("1. A message from Germany goes to europe, Brazil's to americas, India's to asia")?;
    for person in &PEOPLE[..3] {
        stage.send(&mint.message(*person, "Hello! Is the blue one still there?"))?;
        stage.pause(SECOND.mul_f64(0.3))?;
    }
    Ok(())
}

fn statuses_stay_in_order<W: Write, P: Process>(
    stage: &mut Stage<W, P>,
    mint: &mut Mint,
) -> anyhow::Result<()> {
    stage
        .screen
        .headline("2. Sent, delivered, read: three events of one message, kept apart and in order")?;
    let [.., reader, _, _, _, _] = PEOPLE;
    let id = mint.sent_message(reader);
    for status in ["sent", "delivered", "read"] {
        stage.send(&mint.status(reader, &id, status))?;
        stage.pause(SECOND.mul_f64(0.2))?;
    }
    Ok(())
}

fn user_without_a_phone<W: Write, P: Process>(
    stage: &mut Stage<W, P>,
    mint: &mut Mint,
) -> anyhow::Result<()> {
    stage.screen.headline("3. A user who hides the phone number is known by the user id's country")?;
    stage.send(&mint.message(WITHOUT_PHONE, "Do you ship to Osaka?"))
}

fn nobodys_event<W: Write, P: Process>(stage: &mut Stage<W, P>, mint: &mut Mint) -> anyhow::Result<()> {
    stage.screen.headline("4. What concerns no user goes to the default region")?;
    stage.send(&mint.account_change())
}

fn batch_is_cut<W: Write, P: Process>(stage: &mut Stage<W, P>, mint: &mut Mint) -> anyhow::Result<()> {
    stage.screen.headline("5. One webhook for two regions is cut in two, and each part signed")?;
    let [jurgen, ana, ..] = PEOPLE;
    stage.send(&mint.messages(&[(jurgen, "And in green?"), (ana, "Obrigada!"), (jurgen, "Or red?")]))
}

fn forgery_is_refused<W: Write, P: Process>(stage: &mut Stage<W, P>, mint: &mut Mint) -> anyhow::Result<()> {
    stage.screen.headline("6. A forged webhook is refused and nothing of it is kept")?;
    stage.forge(&mint.message(PEOPLE[3], "Please pay to this account instead"))
}

/// Meta repeats what it has not seen answered, and may put it into another webhook.
fn repeats_are_dropped<W: Write, P: Process>(stage: &mut Stage<W, P>, mint: &mut Mint) -> anyhow::Result<()> {
    stage.screen.headline("7. What Meta sends again is answered 200 and not delivered again")?;
    let once = mint.message(PEOPLE[4], "Once is enough");
    stage.send(&once)?;
    let labelled = |webhook: Webhook<'static>, label: &str| Webhook { label: label.to_owned(), ..webhook };
    stage.send(&labelled(once.clone(), "the same bytes"))?;
    stage.send(&labelled(Mint::rewritten(&once)?, "in other bytes"))?;
    let new = mint.message(PEOPLE[0], "And this is new");
    stage.send(&labelled(Mint::joined(&once, &new)?, "with a new one"))
}

fn region_goes_down<W: Write, P: Process>(stage: &mut Stage<W, P>, mint: &mut Mint) -> anyhow::Result<()> {
    stage.screen.headline("8. asia is down (503): Meta still gets its 200, the others notice nothing")?;
    stage.set_mode("asia", Mode::Unavailable);
    let [_, _, priya, zoe, grace, haruto, tom, ..] = PEOPLE;
    let callers = [priya, haruto, zoe, priya, grace, haruto, tom, priya];
    for (number, person) in (1..).zip(callers) {
        if stage.stop.asked() {
            break;
        }
        let mut webhook = mint.message(person, &format!("Message {number}"));
        webhook.label = format!("{} message {number}", person.country);
        stage.send(&webhook)?;
        stage.pause(SECOND.mul_f64(0.2))?;
    }
    Ok(())
}

/// While asia is down, so that there is something to lose.
fn gateway_is_killed<W: Write, P: Process>(stage: &mut Stage<W, P>, mint: &mut Mint) -> anyhow::Result<()> {
    stage.screen.headline("9. The gateway is killed (kill -9): what was answered 200 is on the disk")?;
    let waiting = stage.waiting();
    let process = stage.gateway.kill()?;
    stage.screen.note(&format!("kill -9 {process}, with {waiting} events waiting for asia"))?;
    let webhook = mint.message(PEOPLE[0], "Is anybody there?");
    stage.send_into_silence(&webhook)?;
    let start = Instant::now();
    stage.gateway.start_again()?;
    let took = start.elapsed().as_secs_f64();
    stage.screen.note(&format!("started again on the same folder and port, ready after {took:.1} s"))?;
    stage.send(&webhook)
}

fn region_catches_up<W: Write, P: Process>(stage: &mut Stage<W, P>, mint: &mut Mint) -> anyhow::Result<()> {
    stage.screen.headline("10. asia is back: it gets what was kept for it, in each conversation's order")?;
    stage.set_mode("asia", Mode::Healthy);
    let others = [PEOPLE[0], PEOPLE[1], PEOPLE[3], PEOPLE[4]];
    for person in others.into_iter().cycle().take(12) {
        if stage.waiting() == 0 || stage.stop.asked() || stage.elapsed() > ONCE_LIMIT {
            break;
        }
        stage.pause(SECOND)?;
        if stage.waiting() > 0 {
            stage.send(&mint.message(person, "And meanwhile, elsewhere"))?;
        }
    }
    let order = by_conversation(stage.caught_up());
    stage.screen.note(&format!("asia got: {order}"))?;
    Ok(())
}

/// The cut webhook of act 5, as it is kept; its file was closed some seconds ago unless the machine is busy.
fn archive_is_read<W: Write, P: Process>(stage: &mut Stage<W, P>, files: Files) -> anyhow::Result<()> {
    const REGION: &str = "americas";
    stage
        .screen
        .headline("11. Archived, repeats too: americas' part of the webhook that was cut in act 5")?;
    let limit = stage.elapsed() + SECOND * 4;
    let sample = loop {
        let sample = stage.gateway.archives().oldest_part(REGION)?;
        if sample.is_some() || stage.stop.asked() || stage.elapsed() > limit {
            break sample;
        }
        stage.pause(SECOND.mul_f64(0.2))?;
    };
    let Some(sample) = sample else {
        return Ok(stage.screen.note("no file with it has been closed yet")?);
    };
    stage.screen.record(&sample.members)?;
    let folder = stage.gateway.archives().of(REGION);
    let (why, folder) = match files {
        Files::Kept => ("What reads it:", folder),
        Files::WhileItRuns => ("What reads it, as long as the demo runs:", folder),
        Files::Gone => (
            "What reads it after `penstock demo --once --keep try`:",
            Path::new("try").join(ARCHIVE).join(REGION),
        ),
    };
    let read = format!("zstdcat {}/*/*/*.zst \\", folder.display());
    // The ids of another demo are others.
    let find = match files {
        Files::Gone => "  | jq 'select(.ranges)'".to_owned(),
        Files::Kept | Files::WhileItRuns => format!("  | jq 'select(.id == \"{}\")'", sample.id),
    };
    stage.screen.command(why, &[&read, &find])?;
    Ok(())
}

/// `IN message 1`, `JP message 2`, `IN message 4` as `IN 1, 4; JP 2`: one person per country here.
fn by_conversation(labels: &[String]) -> String {
    let mut people: Vec<(&str, Vec<&str>)> = Vec::new();
    for label in labels {
        let (country, number) = label.split_once(" message ").unwrap_or((label, "?"));
        match people.iter_mut().find(|(known, _)| *known == country) {
            Some((_, numbers)) => numbers.push(number),
            None => people.push((country, vec![number])),
        }
    }
    let people: Vec<_> =
        people.iter().map(|(country, numbers)| format!("{country} {}", numbers.join(", "))).collect();
    people.join("; ")
}

fn gentle_traffic<W: Write, P: Process>(stage: &mut Stage<W, P>, mint: &mut Mint) -> anyhow::Result<()> {
    stage.screen.headline("Traffic goes on. Ctrl-C ends it and shows the ledger")?;
    for (turn, person) in PEOPLE.into_iter().cycle().enumerate() {
        let next = PEOPLE[(turn + 1) % PEOPLE.len()];
        match turn % 10 {
            4 => stage.send(&mint.messages(&[(person, "One"), (next, "Two")]))?,
            6 => {
                let id = mint.sent_message(person);
                stage.send(&mint.status(person, &id, "delivered"))?;
            }
            8 => stage.send(&mint.message(WITHOUT_PHONE, "Still there?"))?,
            9 => stage.forge(&mint.message(person, "Let me in"))?,
            _ => stage.send(&mint.message(person, "Hello again"))?,
        }
        stage.pause(SECOND.mul_f64(0.7))?;
        if stage.stop.asked() {
            break;
        }
    }
    Ok(())
}

impl Process for Gateway {
    fn kill(&mut self) -> anyhow::Result<u32> {
        Gateway::kill(self)
    }

    fn start_again(&mut self) -> anyhow::Result<()> {
        Gateway::start_again(self)
    }

    fn stop(&mut self) -> anyhow::Result<()> {
        Gateway::stop(self)
    }

    fn archives(&self) -> &Archives {
        Gateway::archives(self)
    }
}

/// The region that a person belongs to: by country, and nobody to the default.
fn home(person: Option<Person<'_>>) -> &'static str {
    let serves = |territory: &&Territory<'static>| {
        person.is_some_and(|person| territory.countries.contains(&person.country))
    };
    TERRITORIES.iter().find(serves).unwrap_or(&TERRITORIES[0]).name
}
