//! Log lines to stderr, without ever making a core wait for whoever reads them.
//!
//! A core formats its line and puts it into a bounded channel; one thread writes. When the reader of
//! stderr stands still or the log's disk is full, the channel fills and further lines are dropped and
//! counted; the next line that gets out is preceded by how many. Text with colours on a terminal, JSON
//! otherwise. What is logged is decided at the call: nothing per webhook, no bodies, no phone numbers.
//! A panic's place is logged and its text only if it is the program's own: a formatted one may quote a body.
//! Characters that a reader cannot see, or that turn a line around, come out as `\uXXXX`.

use std::any::Any;
use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::{self, IsTerminal, Write};
use std::panic::PanicHookInfo;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use anyhow::Context;
use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

/// Lines that may wait. At ~300 bytes a line that is about 1 MB: a burst of every connection's
/// refusal fits, a flood does not.
const LINES: usize = 4096;

/// How long the last lines may take when the process ends: a stuck reader must not keep it alive.
const PATIENCE: Duration = Duration::from_millis(500);

/// Keeps the log going. Dropping it writes out what waits.
#[derive(Debug, Clone)]
pub struct Log {
    lines: Lines,
}

impl Log {
    /// Installs the process's log. Call once, before anything logs. `PENSTOCK_LOG`, else `RUST_LOG`, says what is
    /// shown (`info` if neither is set; syntax: `warn,penstock::forward=debug`).
    pub fn start() -> anyhow::Result<Self> {
        let filter = filter_from(|name| std::env::var(name).ok())?;
        let terminal = io::stderr().is_terminal();
        let log = Self { lines: Lines::to(io::stderr(), LINES)? };
        let subscriber = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(log.lines.clone())
            .with_ansi(terminal);
        let installed = if terminal {
            subscriber.try_init()
        } else {
            subscriber.json().flatten_event(true).with_current_span(false).try_init()
        };
        installed.map_err(|error| anyhow::anyhow!("install the log: {error}"))?;
        let lines = log.lines.clone();
        std::panic::set_hook(Box::new(move |panic| {
            log_panic(panic);
            // The process may be about to abort.
            lines.flush();
        }));
        Ok(log)
    }

    /// Lines dropped so far; hand it to the metrics.
    pub fn dropped(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.lines.dropped)
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.lines.flush();
    }
}

/// One line for one panic, in place of the standard library's report on stderr.
fn log_panic(panic: &PanicHookInfo<'_>) {
    let place = panic.location().map(ToString::to_string).unwrap_or_default();
    let thread = std::thread::current();
    let trace = Backtrace::capture();
    let trace = (trace.status() == BacktraceStatus::Captured).then(|| trace.to_string());
    tracing::error!(
        thread = thread.name().unwrap_or_default(),
        at = place,
        why = told(panic.payload()),
        trace,
        "panic: a fault of this program; a connection's is closed, any other ends the process"
    );
}

/// What a panic says, if that is a text of the source: one that was put together may quote a body.
fn told(payload: &dyn Any) -> &'static str {
    payload.downcast_ref::<&'static str>().copied().unwrap_or("withheld, since it may hold a user's data")
}

/// The filter that the first variable that is set asks for.
fn filter_from(variable: impl Fn(&str) -> Option<String>) -> anyhow::Result<EnvFilter> {
    let set = ["PENSTOCK_LOG", "RUST_LOG"].into_iter().find_map(|name| Some((name, variable(name)?)));
    let (name, wanted) = set.unwrap_or(("", "info".into()));
    EnvFilter::builder().parse(&wanted).with_context(|| {
        format!("{name} is \"{wanted}\"; expected a level or a list such as \"warn,penstock::forward=debug\"")
    })
}

enum Message {
    Line(Vec<u8>),
    Flush(Sender<()>),
}

/// The end of the channel that cores write into.
#[derive(Debug, Clone)]
struct Lines {
    queue: Sender<Message>,
    dropped: Arc<AtomicU64>,
}

impl Lines {
    fn to(out: impl Write + Send + 'static, most: usize) -> io::Result<Self> {
        let (queue, waiting) = bounded(most);
        let dropped = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&dropped);
        std::thread::Builder::new().name("log".into()).spawn(move || write_lines(out, &waiting, &counted))?;
        Ok(Self { queue, dropped })
    }

    fn flush(&self) {
        let (done, written) = bounded(1);
        if self.queue.send_timeout(Message::Flush(done), PATIENCE).is_ok() {
            // Late or gone: there is nothing more to be done for these lines.
            written.recv_timeout(PATIENCE).ok();
        }
    }
}

/// The writer thread: ends when the last [`Lines`] is gone.
fn write_lines(mut out: impl Write, waiting: &Receiver<Message>, dropped: &AtomicU64) {
    let mut told = 0;
    for message in waiting {
        // A log that cannot be written leaves nowhere to say so; the line counts as dropped.
        match message {
            Message::Line(line) => {
                let now = dropped.load(Relaxed);
                if now > told && notice(&mut out, now - told).is_ok() {
                    told = now;
                }
                if out.write_all(&visible(line)).is_err() {
                    dropped.fetch_add(1, Relaxed);
                }
            }
            Message::Flush(done) => {
                out.flush().and_then(|()| done.send(()).map_err(io::Error::other)).ok();
            }
        }
    }
}

/// The line with what a reader cannot see in it made visible. ASCII's control characters are escaped where
/// the line is made.
fn visible(line: Vec<u8>) -> Vec<u8> {
    if line.is_ascii() && !line.contains(&0x7f) {
        return line;
    }
    let text = String::from_utf8_lossy(&line);
    let mut out = String::with_capacity(line.len());
    for c in text.chars() {
        if is_hidden(c) {
            // As JSON has it, and clear enough in a text.
            for unit in c.encode_utf16(&mut [0; 2]) {
                out.push_str(&format!("\\u{unit:04x}"));
            }
        } else {
            out.push(c);
        }
    }
    out.into_bytes()
}

/// Delete, the second control set, marks without width, line separators, changes of direction, tags.
pub(in crate::cli) fn is_hidden(c: char) -> bool {
    matches!(c,
        '\u{7f}'..='\u{9f}' | '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// Valid as a JSON line and readable as text.
fn notice(out: &mut impl Write, lines: u64) -> io::Result<()> {
    writeln!(
        out,
        "{{\"level\":\"WARN\",\"message\":\"{lines} log lines dropped: the reader of stderr was too slow\"}}"
    )
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line { lines: self }
    }
}

/// Takes one whole line, as tracing hands it over.
struct Line<'a> {
    lines: &'a Lines,
}

impl Write for Line<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        match self.lines.queue.try_send(Message::Line(line.to_vec())) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.lines.dropped.fetch_add(1, Relaxed);
            }
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    /// A reader that stands still until it is let go.
    struct Stuck {
        go: Receiver<()>,
        written: Sender<String>,
    }

    impl Write for Stuck {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.go.recv().ok();
            self.written.send(String::from_utf8(bytes.to_vec()).unwrap()).unwrap();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn stuck_reader_costs_lines_but_no_waiting() {
        let (go, gate) = bounded(100);
        let (written, output) = bounded(100);
        let lines = Lines::to(Stuck { go: gate, written }, 4).unwrap();
        let start = Instant::now();
        for n in 0..50 {
            lines.make_writer().write_all(format!("line {n}\n").as_bytes()).unwrap();
        }
        assert!(start.elapsed() < Duration::from_secs(1), "writers must not wait: {:?}", start.elapsed());
        // Four wait in the channel, one may be in the writer's hands.
        let dropped = lines.dropped.load(Relaxed);
        assert!((45..=46).contains(&dropped), "{dropped}");
        drop(go);
        lines.flush();
        lines.make_writer().write_all(b"last\n").unwrap();
        lines.flush();
        let all: String = output.try_iter().collect();
        assert!(all.ends_with("last\n"), "{all}");
        let written = all.lines().filter(|line| !line.starts_with('{')).count() as u64;
        assert_eq!(written + dropped, 51, "every line is written or counted:\n{all}");
        // One notice for each time that lines got through again.
        let notices = all.lines().filter(|line| line.starts_with('{')).map(|line| {
            let notice: serde_json::Value = serde_json::from_str(line).unwrap();
            let text = notice["message"].as_str().unwrap();
            let count = text.strip_suffix(" log lines dropped: the reader of stderr was too slow").unwrap();
            count.parse::<u64>().unwrap()
        });
        assert_eq!(notices.sum::<u64>(), dropped, "the notices say what is missing:\n{all}");
    }

    #[test]
    fn flush_gives_up_on_a_stuck_reader() {
        let (_go, gate) = bounded(1);
        let (written, _output) = bounded(1);
        let lines = Lines::to(Stuck { go: gate, written }, 2).unwrap();
        for _ in 0..9 {
            lines.make_writer().write_all(b"x\n").unwrap();
        }
        let start = Instant::now();
        lines.flush();
        assert!(start.elapsed() < PATIENCE * 4, "{:?}", start.elapsed());
    }

    /// Keeps what is written.
    #[derive(Clone)]
    struct Kept(Sender<Vec<u8>>);

    impl Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.send(bytes.to_vec()).map_err(io::Error::other)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_would_mislead_a_reader_is_escaped_and_the_line_stays_json() {
        let (written, output) = bounded(100);
        let lines = Lines::to(Kept(written), 100).unwrap();
        let subscriber =
            tracing_subscriber::fmt().with_writer(lines.clone()).json().flatten_event(true).finish();
        let hostile =
            "a\x1b[31m\r\nb\u{0}\u{7f}\u{9b}2J\u{202e}c\u{2028}d\u{200b}\u{feff}\u{e0041}\u{fc}\"\\";
        tracing::subscriber::with_default(subscriber, || tracing::info!(host = hostile, "{hostile}"));
        lines.flush();
        let all: Vec<u8> = output.try_iter().flatten().collect();
        let text = String::from_utf8(all).unwrap();
        assert_eq!(text.matches('\n').count(), 1, "one line: {text:?}");
        assert!(text.trim_end().chars().all(|c| !c.is_control()) && !text.contains('\u{202e}'), "{text:?}");
        assert!(text.contains("\\u202e") && text.contains('\u{fc}'), "{text:?}");
        let line: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!((&line["host"], &line["message"]), (&hostile.into(), &hostile.into()));
    }

    #[test]
    fn panic_text_is_told_only_if_it_stands_in_the_source() {
        let payload = |panic: fn()| std::panic::catch_unwind(panic).unwrap_err();
        assert_eq!(told(&*payload(|| panic!("the ring is gone"))), "the ring is gone");
        let body = std::hint::black_box("4917139200992");
        let quoting = || {
            let body = std::hint::black_box("4917139200992\u{fc}");
            std::hint::black_box(&body[..14]);
        };
        assert!(!told(&*payload(quoting)).contains(body));
        assert!(told(&*payload(|| panic!("{}", std::hint::black_box("4917")))).contains("withheld"));
    }

    #[test]
    fn own_variable_wins_and_a_bad_one_is_named() {
        let check = |own: Option<&str>, rust: Option<&str>, expected: Result<&str, &str>| {
            let filter =
                filter_from(|name| if name == "PENSTOCK_LOG" { own } else { rust }.map(str::to_owned));
            match (filter, expected) {
                (Ok(filter), Ok(text)) => assert_eq!(filter.to_string(), text),
                (Err(error), Err(text)) => assert!(error.to_string().contains(text), "{error}"),
                (found, expected) => panic!("{found:?}, expected {expected:?}"),
            }
        };
        check(None, None, Ok("info"));
        check(None, Some("debug"), Ok("debug"));
        check(Some("warn"), Some("debug"), Ok("warn"));
        check(Some("penstock=louder"), None, Err("PENSTOCK_LOG is \"penstock=louder\""));
    }
}
