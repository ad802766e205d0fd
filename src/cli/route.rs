//! `penstock route`: which region somebody or something goes to, and why.

use std::io::{Write, stderr, stdout};
use std::path::PathBuf;

use super::check;
use crate::config::Config;
use crate::parse::phone::{self, Digits};
use crate::parse::{Event, Parser, User};
use crate::route::{Router, Rule, country_of};

/// Tell which region a phone number, a user id or a webhook goes to, and which rule decides
#[derive(Debug, clap::Args)]
#[command(after_long_help = HELP)]
pub struct Args {
    /// The configuration with the rules (TOML)
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// The source that a body comes from; left out: the first of the configuration
    #[arg(long, value_name = "NAME")]
    pub source: Option<String>,
    /// A phone number, a business-scoped user id, or @ and the file of a webhook's body
    #[arg(value_name = "NUMBER|BSUID|@BODY.JSON")]
    pub what: String,
}

const HELP: &str = "\
The first rule that answers decides: the user's phone; if there is none, the
country of the business-scoped user id; a rule on the business number
(phone_number_ids); a rule on the WhatsApp business account (accounts);
routing.default. For a phone the longest match wins, over the prefixes that
regions list and the calling codes of the countries that they list. Secrets are
not looked up.

Exit codes:
  0   the region is told
  64  the text is neither a phone number nor a user id, or there is no such
      source
  74  the body cannot be read
  78  the configuration cannot be used

Examples:
  penstock route --config penstock.toml '+44 7700 900123'
  penstock route --config penstock.toml BR.1502576394655843
  penstock route --config penstock.toml @body.json";

pub fn run(args: &Args) -> anyhow::Result<u8> {
    let config = match Config::load_without_secrets(&args.config) {
        Ok((config, _)) => config,
        Err(invalid) => return Ok(check::refuse(&args.config, &invalid)?),
    };
    let router = Router::new(&config.regions, config.default_region);
    match args.what.strip_prefix('@') {
        Some(path) => route_body(args, path, &config, &router),
        None => route_user(&args.what, &config, &router),
    }
}

fn route_user(what: &str, config: &Config, router: &Router) -> anyhow::Result<u8> {
    if phone::lookup(what).is_none() && country_of(what).is_none() {
        writeln!(
            stderr(),
            "{what:?} is neither a phone number (7 to 15 digits, such as +44 7700 900123) \
             nor a user id (such as BR.1502576394655843)."
        )?;
        return Ok(super::USAGE);
    }
    // The router takes an id in the place of a phone as the id that it is.
    let user = User { phone: Some(what), bsuid: None };
    let routed = router.route(user.phone, user.bsuid, "", "");
    writeln!(stdout(), "{}: {}", config.regions[routed.region].name, why(routed.rule, Some(&user), "", ""))?;
    Ok(0)
}

fn route_body(args: &Args, path: &str, config: &Config, router: &Router) -> anyhow::Result<u8> {
    let source = match &args.source {
        None => config.sources.first(),
        Some(name) => config.sources.iter().find(|source| source.name == *name),
    };
    let Some(source) = source else {
        let names: Vec<&str> = config.sources.iter().map(|source| source.name.as_str()).collect();
        writeln!(stderr(), "There is no such source; {} has {names:?}.", args.config.display())?;
        return Ok(super::USAGE);
    };
    let body = match std::fs::read(path) {
        Ok(body) => body,
        Err(error) => {
            writeln!(stderr(), "Cannot read {path}: {error}.")?;
            return Ok(super::IO);
        }
    };
    let mut lines = String::new();
    Parser::new().parse(source.kind, &body, &mut |event| lines.push_str(&event_line(config, router, event)));
    write!(stdout(), "{lines}")?;
    Ok(0)
}

/// One line: what it is and whose, where it goes, why.
fn event_line(config: &Config, router: &Router, event: &Event<'_>) -> String {
    let Event { kind, users, number, account, .. } = event;
    let routed = router.route_event(event);
    let names: Vec<&str> = users.iter().filter_map(|user| user.phone.or(user.bsuid)).collect();
    let of = if names.is_empty() { String::new() } else { format!(" of {}", names.join(", ")) };
    let why = why(routed.rule, users.first(), number, account);
    format!("{kind:?}{of} -> {}: {why}\n", config.regions[routed.region].name)
}

/// The rule in words. The region is the subject of the sentence.
fn why(rule: Rule, user: Option<&User<'_>>, number: &str, account: &str) -> String {
    let phone = user.and_then(|user| user.phone).and_then(phone::lookup);
    let id =
        user.and_then(|user| user.bsuid.and_then(country_of).or_else(|| user.phone.and_then(country_of)));
    let digits = phone.as_ref().map_or("", Digits::as_str);
    let country = id.unwrap_or("");
    match rule {
        Rule::Prefix { length } => {
            let prefix = digits.get(..length.into()).unwrap_or("");
            format!("its prefix \"{prefix}\" is the longest match for {digits}")
        }
        Rule::Country { row } => format!(
            "it lists \"{}\", and calling code {} ({}) is the longest match for {digits}",
            row.country, row.prefix, row.name
        ),
        Rule::IdCountry => format!("it lists \"{country}\", the country of the user id"),
        Rule::IdPrefixes => {
            format!("its prefixes take every calling code of \"{country}\", the country of the user id")
        }
        Rule::Number => format!("it lists the business number {number} in phone_number_ids"),
        Rule::Account => format!("it lists the business account {account} in accounts"),
        Rule::UsersDisagree => {
            "the event names users of several regions, and it is routing.default".to_owned()
        }
        Rule::Default => "no rule claims it, and it is routing.default".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::parse::EventKind;

    const CONFIG: &str = r#"
        [[source]]
        name = "main"
        secrets = ["s"]
        verify_tokens = ["t"]
        [[region]]
        name = "us"
        endpoint = "http://10.0.0.1/"
        countries = ["US", "BR"]
        [[region]]
        name = "uk"
        endpoint = "http://10.0.0.2/"
        prefixes = ["44", "91"]
        phone_number_ids = ["106540352242922"]
        accounts = ["102290129340398"]
        [[region]]
        name = "rest"
        endpoint = "http://10.0.0.3/"
        [routing]
        default = "rest"
    "#;

    #[test]
    fn each_event_is_told_with_its_region_and_rule() {
        let (config, _) = Config::from_toml(CONFIG, Path::new("/")).unwrap();
        let router = Router::new(&config.regions, config.default_region);
        let check = |users: &[User<'_>], number: &str, account: &str, expected: &str| {
            let event = Event {
                kind: EventKind::Message,
                key: [0; 16],
                value: 0,
                users,
                more_users: false,
                number,
                account,
            };
            assert_eq!(event_line(&config, &router, &event), format!("Message{expected}\n"));
        };
        let phone = |phone| User { phone: Some(phone), bsuid: None };
        let id = |bsuid| User { phone: None, bsuid: Some(bsuid) };
        check(
            &[phone("+44 7700 900123")],
            "",
            "",
            " of +44 7700 900123 -> uk: its prefix \"44\" is the longest match for 447700900123",
        );
        check(
            &[phone("12125550123")],
            "",
            "",
            " of 12125550123 -> us: it lists \"US\", and calling code 1 (United States) is the longest match for 12125550123",
        );
        check(&[id("BR.1")], "", "", " of BR.1 -> us: it lists \"BR\", the country of the user id");
        check(
            &[id("IN.1")],
            "",
            "",
            " of IN.1 -> uk: its prefixes take every calling code of \"IN\", the country of the user id",
        );
        check(
            &[],
            "106540352242922",
            "",
            " -> uk: it lists the business number 106540352242922 in phone_number_ids",
        );
        check(
            &[],
            "",
            "102290129340398",
            " -> uk: it lists the business account 102290129340398 in accounts",
        );
        check(&[], "", "", " -> rest: no rule claims it, and it is routing.default");
        check(
            &[phone("12125550123"), id("GB.1")],
            "",
            "",
            " of 12125550123, GB.1 -> rest: the event names users of several regions, and it is routing.default",
        );
    }

    #[test]
    fn exit_code_tells_whether_the_question_made_sense() {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("penstock.toml");
        std::fs::write(&config, CONFIG).unwrap();
        let body = folder.path().join("body.json");
        std::fs::write(&body, "{}").unwrap();
        let check = |what: &str, source: Option<&str>, expected: u8| {
            let args =
                Args { config: config.clone(), source: source.map(str::to_owned), what: what.to_owned() };
            assert_eq!(run(&args).unwrap(), expected, "{what} {source:?}");
        };
        check("+44 7700 900123", None, 0);
        check("BR.1502576394655843", None, 0);
        check("hello", None, crate::cli::USAGE);
        check(&format!("@{}", body.display()), None, 0);
        check(&format!("@{}", body.display()), Some("other"), crate::cli::USAGE);
        check("@/nowhere/body.json", None, crate::cli::IO);
    }
}
