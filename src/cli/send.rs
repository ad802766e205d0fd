//! `penstock send`: plays Meta against a gateway, for one webhook.

use std::io::{self, Write};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::client::{Client, ClientError, Url};
use super::demo::events::digest_of;
use super::demo::webhooks::{Mint, Person};
use super::sign::{hex, read_file, read_secret, read_stdin, signature};
use super::{FAILED, Failure, IO, UNAVAILABLE, USAGE};

const TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Debug, clap::Args)]
#[command(after_long_help = MANUAL)]
pub struct Args {
    /// The gateway's webhook address
    #[arg(long, value_name = "URL", required_unless_present = "print")]
    pub to: Option<String>,
    /// The app secret: env:NAME, file:PATH or the secret itself
    #[arg(long, value_name = "SECRET", required_unless_present = "print")]
    pub secret: Option<String>,
    /// Send a made-up text message
    #[arg(long, conflicts_with_all = ["status", "file"], requires = "from")]
    pub text: Option<String>,
    /// Send a made-up status: sent, delivered, read, failed
    #[arg(long, conflicts_with = "file", requires = "from")]
    pub status: Option<String>,
    /// Whom the made-up webhook is about: a phone number or a business-scoped user id
    #[arg(long, value_name = "NUMBER or BSUID", conflicts_with = "file")]
    pub from: Option<String>,
    /// Print the body instead of sending it
    #[arg(long)]
    pub print: bool,
    /// The body to send; @- or - reads stdin
    #[arg(value_name = "FILE", required_unless_present_any = ["text", "status"])]
    pub file: Option<String>,
}

const MANUAL: &str = "\
Signs a body as Meta does, posts it and prints the answer, its time and the
body's SHA-256. Ends with 0 if the gateway answered 200, 1 if it answered
anything else, 69 if it cannot be reached.

Examples:
  penstock send --to http://127.0.0.1:8443/webhook \\
      --secret env:WHATSAPP_APP_SECRET --text hi --from +491713920099
  penstock send --to http://127.0.0.1:8443/webhook \\
      --secret file:app-secret --status read --from JP.9043317725601182
  penstock send --to http://127.0.0.1:8443/webhook \\
      --secret file:app-secret body.json
  penstock send --print --text hi --from +491713920099 > body.json";

pub fn run(args: &Args) -> anyhow::Result<u8> {
    let body = body(args)?;
    let mut out = io::stdout();
    if args.print {
        out.write_all(&body)?;
        return Ok(0);
    }
    let to = args.to.as_deref().unwrap_or_default();
    let url = Url::parse(to).map_err(|error| Failure::new(USAGE, format!("--to: {error}")))?;
    let secret = read_secret(args.secret.as_deref().unwrap_or_default())?;

    let signature = signature(&secret, &body);
    let headers = [("content-type", "application/json"), ("x-hub-signature-256", signature.as_str())];
    let begun = Instant::now();
    let answer = Client::new(url, TIMEOUT).request("POST", &headers, &body).map_err(|error| {
        let code = if matches!(error, ClientError::Connect { .. }) { UNAVAILABLE } else { FAILED };
        Failure::new(code, "the webhook was not answered").because(error)
    })?;
    let took = begun.elapsed();

    writeln!(out, "{} {} in {:.1} ms", answer.status, meaning(answer.status), took.as_secs_f64() * 1e3)?;
    writeln!(out, "sha256 {} ({} bytes)", hex(&digest_of(&body)), body.len())?;
    if answer.status != 200 && !answer.body.is_empty() {
        // From outside: nothing in it may steer the terminal.
        let said = String::from_utf8_lossy(&answer.body);
        let plain: String = said.chars().filter(|letter| !letter.is_control()).take(400).collect();
        writeln!(out, "it says: {plain}")?;
    }
    Ok(if answer.status == 200 { 0 } else { FAILED })
}

fn meaning(status: u16) -> &'static str {
    match status {
        200 => "accepted",
        400 => "not understood as HTTP",
        401 => "the signature is wrong: is it this source's app secret?",
        404 => "no source has this path",
        413 => "the body is too large",
        503 => "not taken now, Meta would repeat it",
        _ => "not accepted, Meta would repeat it",
    }
}

fn body(args: &Args) -> Result<Vec<u8>, Failure> {
    match args.file.as_deref() {
        Some("-" | "@-") => read_stdin(),
        Some(file) => read_file(Path::new(file.strip_prefix('@').unwrap_or(file))),
        None => {
            let person = person(args.from.as_deref().unwrap_or_default())?;
            let mut mint = mint()?;
            Ok(match (&args.text, &args.status) {
                (_, Some(status)) => {
                    let id = mint.sent_message(person);
                    mint.status(person, &id, status).body
                }
                (text, None) => mint.message(person, text.as_deref().unwrap_or_default()).body,
            })
        }
    }
}

/// A mint of which no other run has the like.
fn mint() -> Result<Mint, Failure> {
    let seed = getrandom::u64()
        .map_err(|error| Failure::new(IO, "draw a random number").because(error.to_string()))?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Ok(Mint::new(seed, now.as_secs()))
}

/// Somebody with this number or business-scoped user id.
fn person(from: &str) -> Result<Person<'_>, Failure> {
    let nobody = Person { name: "Somebody", country: "", phone: None, bsuid: None };
    let digits = from.strip_prefix('+').unwrap_or(from);
    if (7..=15).contains(&digits.len()) && digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return Ok(Person { phone: Some(digits), ..nobody });
    }
    match from.split_once('.') {
        Some((country, rest))
            if country.len() == 2
                && country.bytes().all(|letter| letter.is_ascii_uppercase())
                && !rest.is_empty()
                && rest.bytes().all(|letter| letter.is_ascii_alphanumeric() || letter == b'.') =>
        {
            Ok(Person { bsuid: Some(from), ..nobody })
        }
        _ => Err(Failure::new(
            USAGE,
            format!(
                "--from {from:?}; expected a number of 7 to 15 digits (+491713920099) or a user id (DE.7201004056848118)"
            ),
        )),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::{Cli, Command, exit_code};
    use super::*;
    use crate::cli::demo::events::events_in;
    use crate::cli::demo::receiver::{Mode, Receiver};

    fn args(words: &[&str]) -> Args {
        let line = ["penstock", "send", "--secret", "s3cret"];
        match Cli::try_parse_from(line.iter().chain(words)).unwrap().command {
            Command::Send(args) => args,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn made_up_webhook_arrives_signed_and_decides_the_exit_code() {
        let (sender, deliveries) = std::sync::mpsc::channel();
        let gateway = Receiver::start("gateway", b"s3cret", sender).unwrap();
        let to = gateway.endpoint();
        for made_up in [["--text", "hi"], ["--status", "read"]] {
            for from in ["+491713920099", "JP.9043317725601182"] {
                let args = args(&["--to", &to, made_up[0], made_up[1], "--from", from]);
                assert_eq!(run(&args).unwrap(), 0);
                let delivery = deliveries.recv().unwrap();
                assert!(delivery.signed);
                assert_eq!(delivery.events.len(), 1);
            }
        }
        gateway.set_mode(Mode::Unavailable);
        assert_eq!(run(&args(&["--to", &to, "--text", "hi", "--from", "491713920099"])).unwrap(), FAILED);
    }

    #[test]
    fn unreachable_gateway_and_wrong_words_have_their_exit_codes() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let check = |to: &str, from: &str, code: u8| {
            let error = run(&args(&["--to", to, "--text", "hi", "--from", from])).unwrap_err();
            assert_eq!(exit_code(&error), code, "{error:#}");
        };
        check(&format!("http://{free}/webhook"), "+491713920099", UNAVAILABLE);
        check("https://gate.example/webhook", "+491713920099", USAGE);
        for from in ["", "+49", "1203634187709156180", "de.123", "DE.", "Ann"] {
            check("http://127.0.0.1:1/", from, USAGE);
        }
    }

    #[test]
    fn runs_never_make_the_same_message_twice() {
        let made = || {
            let args = args(&["--to", "http://127.0.0.1:1/", "--text", "hi", "--from", "+491713920099"]);
            events_in(&body(&args).unwrap()).unwrap().remove(0).id
        };
        assert_ne!(made(), made());
    }
}
