//! What the demo prints: headlines, one row per parcel, an archived record, the ledger. For 80 columns, and for a pipe.
//!
//! Lines are only ever added, never redrawn, so that the output reads the same in a terminal, a
//! pager and a CI log. Colours are for terminals only and carry nothing that the words do not say.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use super::ledger::{Balance, Line};

const WIDTH: usize = 80;
/// Before the second and third line of a value.
const FURTHER: &str = "    ";

/// Writes to stdout, or to anything in tests.
#[derive(Debug)]
pub struct Screen<W> {
    out: W,
    colours: bool,
}

/// One parcel, as its row tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// What was sent; empty for the further parcels of one webhook.
    pub what: String,
    /// The answer and its time; `None` for a row that comes later.
    pub answer: Option<(u16, Duration)>,
    pub region: String,
    /// The rule that led there, or what there is to say instead.
    pub why: String,
    pub fate: Fate,
}

/// What has become of a parcel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// Taken by the region at this attempt, this long after it was sent.
    Delivered { attempt: u32, after: Duration },
    /// The region refused it for now.
    Refused(u16),
    /// Not tried yet, or not answered yet.
    Waits,
    /// All of it was accepted before.
    Dropped,
    /// It should have been dropped.
    Doubled,
    /// There is no parcel.
    Nothing,
}

#[derive(Clone, Copy)]
enum Paint {
    Bold,
    Dim,
    Good,
    Bad,
    Odd,
}

impl Screen<io::Stdout> {
    /// Stdout; in colours if it is a terminal that has them and nobody minds.
    pub fn stdout() -> Self {
        let out = io::stdout();
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let colours = out.is_terminal() && !dumb && !unwanted;
        Self { out, colours }
    }
}

impl<W: Write> Screen<W> {
    /// Without colours.
    pub fn plain(out: W) -> Self {
        Self { out, colours: false }
    }

    pub fn title(&mut self, title: &str, facts: &[(&str, String)]) -> io::Result<()> {
        writeln!(self.out)?;
        self.painted(Paint::Bold, title)?;
        writeln!(self.out)?;
        for (name, value) in facts {
            writeln!(self.out, "  {name:<9} {value}")?;
        }
        writeln!(self.out)?;
        self.painted(Paint::Dim, &columns("webhook", "answer", "region", "because", "delivered"))?;
        writeln!(self.out)?;
        self.rule()
    }

    /// Starts an act.
    pub fn headline(&mut self, text: &str) -> io::Result<()> {
        writeln!(self.out)?;
        self.painted(Paint::Bold, text)?;
        writeln!(self.out)
    }

    /// One parcel.
    pub fn row(&mut self, row: &Row) -> io::Result<()> {
        let answer = match row.answer {
            Some((0, _)) => "no answer".to_owned(),
            Some((status, took)) => format!("{status} {:>8}", time(took)),
            None => String::new(),
        };
        let fate = row.fate.to_string();
        let line = columns(&row.what, &answer, &row.region, &row.why, &fate);
        // The columns are padded as plain text first: escapes have no width.
        let (head, tail) = line.split_at(line.len() - fate.len());
        match row.answer {
            Some((status, _)) if status != 200 => {
                let (before, rest) = head.split_at(ANSWER_AT);
                write!(self.out, "{before}")?;
                let (status, rest) = rest.split_at(answer.len());
                self.painted(if status.starts_with('4') { Paint::Odd } else { Paint::Bad }, status)?;
                write!(self.out, "{rest}")?;
            }
            _ => write!(self.out, "{head}")?,
        }
        let paint = match row.fate {
            Fate::Delivered { .. } | Fate::Dropped => Paint::Good,
            Fate::Refused(_) | Fate::Doubled => Paint::Bad,
            Fate::Waits | Fate::Nothing => Paint::Odd,
        };
        self.painted(paint, tail)?;
        writeln!(self.out)?;
        self.out.flush()
    }

    /// An archived record as jq lays it out; a value gets two lines, the last one, which is the body, three,
    /// and what is longer loses its middle.
    pub fn record(&mut self, members: &[(String, String)]) -> io::Result<()> {
        writeln!(self.out, "{{")?;
        for (at, (name, value)) in members.iter().enumerate() {
            let (lines, comma) = if at + 1 < members.len() { (2, ",") } else { (3, "") };
            let name = format!("  \"{name}\": ");
            let first = WIDTH - 1 - name.chars().count();
            let further = WIDTH - 1 - FURTHER.len();
            let value: Vec<char> = shortened(value, first + (lines - 1) * further).chars().collect();
            let (head, rest) = value.split_at(first.min(value.len()));
            self.painted(Paint::Dim, &name)?;
            write!(self.out, "{}", String::from_iter(head))?;
            for line in rest.chunks(further) {
                write!(self.out, "\n{FURTHER}{}", String::from_iter(line))?;
            }
            writeln!(self.out, "{comma}")?;
        }
        writeln!(self.out, "}}")?;
        self.out.flush()
    }

    /// A reason and the command for it.
    pub fn command(&mut self, why: &str, command: &[&str]) -> io::Result<()> {
        writeln!(self.out, "  {why}")?;
        for line in command {
            self.painted(Paint::Bold, &format!("    {line}"))?;
            writeln!(self.out)?;
        }
        self.out.flush()
    }

    /// A remark below the rows.
    pub fn note(&mut self, text: &str) -> io::Result<()> {
        write!(self.out, "  ")?;
        self.painted(Paint::Dim, text)?;
        writeln!(self.out)?;
        self.out.flush()
    }

    /// The closed books, and whether they balance.
    pub fn ledger(&mut self, balance: &Balance, answers: Option<(Duration, Duration)>) -> io::Result<()> {
        self.headline("The ledger")?;
        let head = ["webhooks", "events", "arrived", "lost", "doubled", "disorder", "altered"];
        let head = numbers(head.map(str::to_owned));
        self.painted(Paint::Dim, &format!("  {:<9}{head}", "region"))?;
        writeln!(self.out)?;
        self.rule()?;
        for line in &balance.lines {
            let counts = numbers(counts(line).map(|count| count.to_string()));
            let paint = if line.is_balanced() { Paint::Good } else { Paint::Bad };
            write!(self.out, "  {:<9}", line.region)?;
            self.painted(paint, &counts)?;
            writeln!(self.out)?;
        }
        let mut all = sum(&balance.lines);
        all[0] = balance.accepted; // A webhook over two regions stands in both lines.
        self.rule()?;
        writeln!(self.out, "  {:<9}{}", "all", numbers(all.map(|count| count.to_string())))?;
        writeln!(self.out)?;

        let strangers: usize = balance.lines.iter().map(|line| line.strangers).sum();
        let announced: usize = balance.lines.iter().map(|line| line.announced).sum();
        let cut = balance.parcels - balance.whole;
        let (parcels, signed) = (balance.parcels, balance.signed);
        let bytes = match all[6] {
            0 => "every byte is Meta's own".to_owned(),
            altered => format!("{altered} with other bytes than were sent"),
        };
        let forged = (balance.forged, balance.forged_accepted, balance.forged_delivered);
        let facts = [
            (format!("signatures  {signed} of {parcels} parcels were signed right"), signed == parcels),
            (
                format!("bodies      {} whole webhooks, {cut} cut parcels; {bytes}", balance.whole),
                all[6] == 0,
            ),
            (
                format!("forgeries   {} sent, {} accepted, {} delivered", forged.0, forged.1, forged.2),
                forged.1 + forged.2 == 0,
            ),
            (format!("strangers   {strangers} events where they do not belong"), strangers == 0),
            (
                format!(
                    "repeats     {} events sent again, {} delivered again, {announced} announced",
                    balance.repeated, all[4]
                ),
                all[4] == 0,
            ),
            (
                format!(
                    "archives    {} records due, repeats too; {} missing, {} extra, {} altered",
                    balance.kept.due, balance.kept.missing, balance.kept.extra, balance.kept.altered
                ),
                balance.kept.is_balanced(),
            ),
        ];
        for (text, good) in facts {
            self.verdict(good, &text)?;
        }
        if let Some((median, slowest)) = answers {
            writeln!(self.out, "     answers     median {}, slowest {}", time(median), time(slowest))?;
        }
        writeln!(self.out)?;
        let good = balance.is_balanced();
        let verdict = if good {
            "The ledger balances: what was answered 200 arrived once, in order, unaltered."
        } else {
            "THE LEDGER DOES NOT BALANCE."
        };
        self.painted(if good { Paint::Good } else { Paint::Bad }, verdict)?;
        writeln!(self.out)?;
        self.out.flush()
    }

    /// What to do after the demo: a reason and its command, line by line.
    pub fn next_steps(&mut self, steps: &[(&str, &[&str])]) -> io::Result<()> {
        self.headline("Next")?;
        for (why, command) in steps {
            self.command(why, command)?;
        }
        writeln!(self.out)?;
        self.out.flush()
    }

    fn verdict(&mut self, good: bool, text: &str) -> io::Result<()> {
        let (mark, paint) = if good { ("ok", Paint::Good) } else { ("NO", Paint::Bad) };
        write!(self.out, "  ")?;
        self.painted(paint, mark)?;
        writeln!(self.out, " {text}")
    }

    fn rule(&mut self) -> io::Result<()> {
        self.painted(Paint::Dim, &"\u{2500}".repeat(WIDTH))?;
        writeln!(self.out)
    }

    fn painted(&mut self, paint: Paint, text: &str) -> io::Result<()> {
        if !self.colours {
            return write!(self.out, "{text}");
        }
        let code = match paint {
            Paint::Bold => 1,
            Paint::Dim => 2,
            Paint::Good => 32,
            Paint::Bad => 31,
            Paint::Odd => 33,
        };
        write!(self.out, "\x1b[{code}m{text}\x1b[0m")
    }
}

impl std::fmt::Display for Fate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Delivered { attempt, after } => write!(f, "try {attempt:<2}{:>8}", time(*after)),
            Self::Refused(status) => write!(f, "{status}, waits"),
            Self::Waits => f.write_str("waits"),
            Self::Dropped => f.write_str("dropped"),
            Self::Doubled => f.write_str("DOUBLED"),
            Self::Nothing => f.write_str("-"),
        }
    }
}

/// Where the answer's column begins.
const ANSWER_AT: usize = 23;

/// One row of the live table: 2 + 19 + 2 + 12 + 2 + 8 + 2 + 17 + 2 + 14 = 80 columns.
fn columns(what: &str, answer: &str, region: &str, why: &str, fate: &str) -> String {
    format!("  {what:<19}  {answer:<12}  {region:<8}  {why:<17}  {fate}")
}

/// One row of the ledger's counts: 9 more columns stand before it.
fn numbers(cells: [String; 7]) -> String {
    cells.iter().map(|cell| format!("{cell:>9}")).collect()
}

fn counts(line: &Line) -> [usize; 7] {
    [line.webhooks, line.expected, line.delivered, line.lost, line.doubled, line.disordered, line.altered]
}

fn sum(lines: &[Line]) -> [usize; 7] {
    let mut all = [0; 7];
    for line in lines {
        for (total, count) in all.iter_mut().zip(counts(line)) {
            *total += count;
        }
    }
    all
}

/// At most `width` columns; of a longer text both ends.
fn shortened(text: &str, width: usize) -> String {
    const GAP: &str = " ... ";
    let length = text.chars().count();
    if length <= width {
        return text.to_owned();
    }
    let ends = width.saturating_sub(GAP.len());
    let head: String = text.chars().take(ends - ends / 2).collect();
    let tail: String = text.chars().skip(length - ends / 2).collect();
    head + GAP + &tail
}

/// `940 us`, `1.3 ms`, `4.2 s`.
fn time(duration: Duration) -> String {
    let micros = duration.as_micros();
    match micros {
        0..1_000 => format!("{micros} us"),
        1_000..99_950 => format!("{:.1} ms", duration.as_secs_f64() * 1e3),
        99_950..999_500 => format!("{:.0} ms", duration.as_secs_f64() * 1e3),
        _ => format!("{:.1} s", duration.as_secs_f64()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::ledger::Kept;
    use super::*;

    fn shown(show: impl FnOnce(&mut Screen<&mut Vec<u8>>) -> io::Result<()>) -> String {
        let mut out = Vec::new();
        show(&mut Screen::plain(&mut out)).unwrap();
        String::from_utf8(out).unwrap()
    }

    fn longest_row() -> Row {
        Row {
            what: "MX status delivered".to_owned(),
            answer: Some((200, Duration::from_micros(999_999))),
            region: "americas".to_owned(),
            why: "MX, listed there".to_owned(),
            fate: Fate::Delivered { attempt: 12, after: Duration::from_millis(12_345) },
        }
    }

    #[test]
    fn nothing_is_wider_than_a_plain_terminal_and_pipes_get_no_escapes() {
        let line = Line { region: "americas".to_owned(), webhooks: 123_456, ..Line::default() };
        let kept = Kept { due: 123_456, ..Kept::default() };
        let balance =
            Balance { lines: vec![line], parcels: 123_456, signed: 123_456, kept, ..Balance::default() };
        let text = shown(|screen| {
            screen.title("t", &[("gateway", "http://127.0.0.1:54321/webhook".to_owned())])?;
            screen.row(&longest_row())?;
            screen
                .record(&[60, 66, 67, 1000].map(|length| ("sha256".to_owned(), "\u{fc}".repeat(length))))?;
            screen.ledger(&balance, Some((Duration::from_micros(10), Duration::from_secs(3))))
        });
        for line in text.lines() {
            assert!(line.chars().count() <= WIDTH, "{} columns: {line}", line.chars().count());
        }
        assert!(!text.contains('\x1b'));
    }

    #[test]
    fn colours_add_nothing_but_escapes() {
        let mut out = Vec::new();
        let refused =
            Row { answer: Some((401, Duration::from_micros(70))), fate: Fate::Nothing, ..longest_row() };
        let mut screen = Screen { out: &mut out, colours: true };
        screen.row(&refused).unwrap();
        let mut coloured = String::from_utf8(out).unwrap();
        for code in [33, 0] {
            coloured = coloured.replace(&format!("\x1b[{code}m"), "");
        }
        assert_eq!(coloured, shown(|screen| screen.row(&refused)));
    }

    #[test]
    fn verdict_follows_the_balance() {
        let good = Balance { parcels: 1, signed: 1, whole: 1, ..Balance::default() };
        let bad = Balance { signed: 0, ..good.clone() };
        assert!(shown(|screen| screen.ledger(&good, None)).contains("The ledger balances"));
        let text = shown(|screen| screen.ledger(&bad, None));
        assert!(text.contains("DOES NOT BALANCE") && text.contains("NO signatures  0 of 1"), "{text}");
    }

    #[test]
    fn long_values_keep_both_ends() {
        assert_eq!(shortened("short", 5), "short");
        assert_eq!(shortened("0123456789abcdef", 12), "0123 ... def");
    }

    #[test]
    fn times_are_short() {
        let check = |micros: u64, expected: &str| assert_eq!(time(Duration::from_micros(micros)), expected);
        check(940, "940 us");
        check(1_300, "1.3 ms");
        check(527_800, "528 ms");
        check(999_999, "1.0 s");
        check(4_200_000, "4.2 s");
    }
}
