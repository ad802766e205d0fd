//! The faults of this process, as its environment names them.

use std::io::{self, Write};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use nix::sys::signal::{Signal, raise};

use super::{GIVEN_UP, LINKED, PLANTED, POINTS, SHIPPED};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    Abort(Duration),
    Sleep(Duration),
    Error(i32),
    Short,
}

#[derive(Debug)]
struct Armed {
    name: String,
    action: Action,
    /// At which passing; with `on`, from which on.
    at: u64,
    on: bool,
    passed: AtomicU64,
}

static FAULTS: LazyLock<Vec<Armed>> = LazyLock::new(|| {
    let text = std::env::var("PENSTOCK_FAULT").unwrap_or_default();
    text.split(',').filter(|part| !part.is_empty()).map(arm).collect()
});

static MISTAKES: LazyLock<Vec<(String, AtomicBool)>> = LazyLock::new(|| {
    let text = std::env::var("PENSTOCK_PLANTED").unwrap_or_default();
    let names = text.split(',').filter(|name| !name.is_empty());
    names
        .map(|name| {
            assert!(PLANTED.contains(&name), "PENSTOCK_PLANTED: there is no mistake {name:?}");
            (name.to_owned(), AtomicBool::new(false))
        })
        .collect()
});

static MINUTE: LazyLock<Duration> = LazyLock::new(|| match std::env::var("PENSTOCK_MINUTE") {
    Ok(text) => match text.parse() {
        Ok(seconds @ 1..) => Duration::from_secs(seconds),
        _ => panic!("PENSTOCK_MINUTE: {text:?}, expected a number of seconds above 0"),
    },
    Err(_) => Duration::from_mins(1),
});

/// A wrong word must not look like a fault that never happened.
fn arm(text: &str) -> Armed {
    parse(text).unwrap_or_else(|| {
        panic!(
            "PENSTOCK_FAULT: {text:?}, expected name=action@n, such as queued=abort@3; see src/fault/mod.rs"
        )
    })
}

fn parse(text: &str) -> Option<Armed> {
    let (name, rest) = text.split_once('=')?;
    let (action, at) = rest.split_once('@').unwrap_or((rest, "1"));
    let (action, time) = action.split_once('/').map_or((action, None), |(a, t)| (a, Some(t)));
    let time: u64 = time.map_or(Some(0), |time| time.parse().ok())?;
    let action = match action {
        "abort" => Action::Abort(Duration::from_micros(time)),
        "sleep" => Action::Sleep(Duration::from_millis(time)),
        "eio" => Action::Error(nix::libc::EIO),
        "short" => Action::Short,
        "enospc" => Action::Error(nix::libc::ENOSPC),
        _ => return None,
    };
    let (at, on) = at.strip_suffix('+').map_or((at, false), |at| (at, true));
    let at = at.parse().ok()?;
    [POINTS, LINKED, GIVEN_UP, SHIPPED].iter().any(|points| points.contains(&name)).then(|| Armed {
        name: name.to_owned(),
        action,
        at,
        on,
        passed: AtomicU64::new(0),
    })
}

/// What is to happen at this passing, if anything; tells of it.
fn due(name: &str) -> Option<Action> {
    let armed = FAULTS.iter().find(|armed| armed.name == name)?;
    let passed = armed.passed.fetch_add(1, Relaxed) + 1;
    if passed != armed.at && !(armed.on && passed > armed.at) {
        return None;
    }
    if passed == armed.at {
        tell(&format!("{name} {:?}", armed.action));
    }
    Some(armed.action)
}

fn tell(what: &str) {
    // If nobody reads it the test that asked for the fault fails, which is right.
    writeln!(io::stderr(), "penstock-fault: {what}").ok();
}

fn die(after: Duration) {
    if after.is_zero() {
        raise(Signal::SIGKILL).ok();
        return;
    }
    std::thread::spawn(move || {
        wait(after);
        raise(Signal::SIGKILL)
    });
}

#[allow(clippy::disallowed_methods, reason = "a thread that stands still is the fault")]
fn wait(time: Duration) {
    std::thread::sleep(time);
}

fn act(action: Action) -> io::Result<()> {
    match action {
        Action::Abort(after) => die(after),
        Action::Sleep(time) => wait(time),
        Action::Error(code) => return Err(io::Error::from_raw_os_error(code)),
        Action::Short => {}
    }
    Ok(())
}

/// A step is reached that cannot fail.
pub fn point(name: &'static str) {
    // An error means nothing here.
    io(name).ok();
}

/// A step is reached that can fail.
pub fn io(name: &'static str) -> io::Result<()> {
    due(name).map_or(Ok(()), act)
}

/// A step of a task is reached that can fail: only the task waits, not its core.
pub async fn pause(name: &'static str) -> io::Result<()> {
    match due(name) {
        Some(Action::Sleep(time)) => monoio::time::sleep(time).await,
        Some(action) => return act(action),
        None => {}
    }
    Ok(())
}

/// Bytes are about to go out: half of them do, and then the process ends.
pub fn cut(name: &'static str, bytes: &mut Vec<u8>) {
    if due(name).is_some() {
        bytes.truncate(bytes.len() / 2);
        die(Duration::from_millis(3));
    }
}

/// A write has ended: as `written` says, or as the fault does.
pub fn end(name: &'static str, written: io::Result<usize>) -> io::Result<usize> {
    match due(name) {
        Some(Action::Short) => Ok(written? / 2),
        Some(action) => act(action).and(written),
        None => written,
    }
}

/// How long a minute of the keys' clock takes.
pub fn minute() -> Duration {
    *MINUTE
}

/// Whether to make this mistake.
pub fn planted(name: &'static str) -> bool {
    let Some((_, told)) = MISTAKES.iter().find(|(planted, _)| planted == name) else { return false };
    if !told.swap(true, Relaxed) {
        tell(&format!("planted {name}"));
    }
    true
}

static POISON: LazyLock<Option<(String, bool, Vec<u8>)>> = LazyLock::new(|| {
    let text = std::env::var("PENSTOCK_POISON").ok()?;
    let (step, text) = text.split_once(':')?;
    let (panics, text) = text.strip_prefix("panic:").map_or((false, text), |text| (true, text));
    Some((step.to_owned(), panics, text.into()))
});

/// Ends the process if `body` is the one that the environment names for this step.
pub fn poison(step: &'static str, body: &[u8]) {
    if let Some((name, panics, text)) = &*POISON
        && (name == step || name.strip_suffix('*').is_some_and(|start| step.starts_with(start)))
        && memchr::memmem::find(body, text).is_some()
    {
        tell(&format!("poison {step}"));
        assert!(!panics, "poison");
        // Nothing could end this process more surely.
        raise(Signal::SIGKILL).ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_is_read_as_it_was_written_or_refused() {
        let read = |text| parse(text).map(|armed| (armed.action, armed.at, armed.on));
        assert_eq!(read("queued=abort"), Some((Action::Abort(Duration::ZERO), 1, false)));
        assert_eq!(read("queued=abort/300@7"), Some((Action::Abort(Duration::from_micros(300)), 7, false)));
        assert_eq!(read("queued=sleep/20@2+"), Some((Action::Sleep(Duration::from_millis(20)), 2, true)));
        assert_eq!(read("queued=eio@2"), Some((Action::Error(5), 2, false)));
        for wrong in ["queued", "queued=", "queued=stop", "queued=abort@", "queued=abort/x", "nowhere=abort"]
        {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }
}
