//! How long a large webhook keeps its core from serving the others.
//!
//! One connection asks for the handshake's echo, the least that the ingest core can be asked for, again and again: it
//! touches neither the journal nor another core, so its latency says when the core was at something else. Meanwhile
//! another connection of the same core sends large webhooks now and then. The stall of each is the longest latency
//! until its answer, less the usual one. Forwarding has the load's CPU, so that sharing a CPU is not taken for a
//! stall, and its region is down, so that it has little to do. What the same looks like without a large webhook is
//! measured beside it: that much is the machine's own doing.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

use super::parts::Found;
use crate::child::free_address;
use crate::cpu::pin;
use crate::gateway::{Gateway, PATH, SECRET, Setup, TOKEN};
use crate::goal::{Missing, Row, Unavailable, some};
use crate::pool::{Pool, Shape};
use crate::rig::Rig;
use crate::stats::{Estimate, median};
use crate::users::Routes;

/// Large webhooks of a kind.
const LARGE: usize = 40;
/// Between two of them.
const PAUSE: Duration = Duration::from_millis(100);
/// Written at once: the kernel lets nobody else have the CPU before the end of a write.
const CHUNK: usize = 16 << 10;
const KINDS: [(&str, Shape); 2] = [
    ("3 MB", Shape { updates: 1, text: Some(3_000_000) }),
    ("1,000 updates", Shape { updates: 1000, text: None }),
];

pub fn measure(rig: &Rig<'_>) -> Found {
    let mut found = Found::default();
    for (at, (name, shape)) in KINDS.into_iter().enumerate() {
        let stalls = stalls(rig, 7000 + at as u64, shape).map_err(Missing::from);
        if let Ok(stalls) = &stalls {
            let note = format!(
                "stall    {name}: the echo usually takes {:.3} ms; spans as long without a large webhook have {:.3} ms \
                 more at worst, on the median",
                stalls.usual,
                median(stalls.without.iter().copied())
            );
            eprintln!("{note}");
            found.notes.push(note);
        }
        let estimate = stalls.and_then(|stalls| some(Estimate::of(stalls.with.into_iter())));
        found.rows.push(Row::at_most(
            &format!("core stalled by a webhook of {name}, ms"),
            1.0,
            0.25,
            estimate,
        ));
    }
    found
}

/// Milliseconds.
#[derive(Debug, PartialEq)]
struct Stalls {
    /// Median latency of the echo while nothing large is about.
    usual: f64,
    /// By how much the longest latency exceeded it, during each large webhook, and in a span as long just before.
    with: Vec<f64>,
    without: Vec<f64>,
}

type Span = (Instant, Instant);

fn stalls(rig: &Rig<'_>, seed: u64, shape: Shape) -> anyhow::Result<Stalls> {
    let folder = rig.folder.join("stall");
    std::fs::create_dir_all(&folder)?;
    let routes = Routes::countries(1);
    let setup = Setup {
        forward_cpu: rig.machine.load_cpu,
        ..Setup::new(rig.binary, &folder, rig.machine.server_cpu, free_address()?, &routes)
    };
    let gateway = Gateway::start(&setup)?;
    let pool = Pool::of(seed, LARGE, rig.users, shape, PATH, SECRET);
    let (stop, address, cpu) = (Arc::new(AtomicBool::new(false)), gateway.address, rig.machine.load_cpu);
    let told = Arc::clone(&stop);
    let probe = std::thread::Builder::new().name("probe".into()).spawn(move || probe(address, cpu, &told))?;
    let sender = std::thread::Builder::new().name("large".into()).spawn(move || send(address, cpu, &pool))?;
    let sent = sender.join().map_err(|_| anyhow::anyhow!("the sender panicked"))?;
    stop.store(true, Relaxed);
    let echoes = probe.join().map_err(|_| anyhow::anyhow!("the probe panicked"))??;
    gateway.server.stop()?;
    std::fs::remove_dir_all(&folder)?;
    Ok(judge(&echoes, &sent?))
}

/// When each echo was asked for and when it came.
fn probe(address: SocketAddr, cpu: usize, stop: &AtomicBool) -> anyhow::Result<Vec<Span>> {
    pin(cpu)?;
    let mut stream = connect(address)?;
    let request = format!(
        "GET {PATH}?hub.mode=subscribe&hub.verify_token={TOKEN}&hub.challenge=1 HTTP/1.1\r\nHost: {address}\r\n\r\n"
    );
    let (mut echoes, mut answer) = (Vec::with_capacity(1 << 20), [0; 1024]);
    while !stop.load(Relaxed) {
        let asked = Instant::now();
        stream.write_all(request.as_bytes())?;
        let length = stream.read(&mut answer)?;
        echoes.push((asked, Instant::now()));
        ensure!(answer[..length].starts_with(b"HTTP/1.1 200"), "the handshake was not answered 200");
    }
    Ok(echoes)
}

/// When each large webhook began to be sent and when its answer came.
fn send(address: SocketAddr, cpu: usize, pool: &Pool) -> anyhow::Result<Vec<Span>> {
    pin(cpu)?;
    give_way().context(Unavailable)?;
    let mut stream = connect(address)?;
    let (mut sent, mut answer) = (Vec::new(), [0; 1024]);
    for at in 0..pool.len() {
        std::thread::sleep(PAUSE);
        let begun = Instant::now();
        for chunk in pool.get(at).chunks(CHUNK) {
            stream.write_all(chunk)?;
        }
        let length = stream.read(&mut answer)?;
        sent.push((begun, Instant::now()));
        ensure!(answer[..length].starts_with(b"HTTP/1.1 200"), "a large webhook was not answered 200");
    }
    std::thread::sleep(PAUSE);
    Ok(sent)
}

/// Lets the calling thread run only while no other wants its CPU: else the probe waits for it, up to a tick of the
/// scheduler, and that looks like a stall.
fn give_way() -> anyhow::Result<()> {
    let thread = std::fs::read_link("/proc/thread-self").context("read the own thread's number")?;
    let number = thread.file_name().context("the own thread's number")?;
    let status = Command::new("chrt").args(["-i", "-p", "0"]).arg(number).status().context("run chrt")?;
    ensure!(status.success(), "chrt ended with {status}");
    Ok(())
}

fn connect(address: SocketAddr) -> anyhow::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, Duration::from_secs(5)).context("connect")?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    Ok(stream)
}

fn judge(echoes: &[Span], sent: &[Span]) -> Stalls {
    let millis = |span: &Span| (span.1 - span.0).as_secs_f64() * 1e3;
    let meet = |one: &Span, other: &Span| one.0 <= other.1 && other.0 <= one.1;
    let quiet = echoes.iter().filter(|echo| !sent.iter().any(|span| meet(echo, span)));
    let usual = median(quiet.map(millis));
    let longest = |span: &Span| {
        let within = echoes.iter().filter(|echo| meet(echo, span)).map(millis);
        (within.fold(usual, f64::max) - usual).max(0.0)
    };
    // As long, and ended before the large one began: no echo is in both.
    let before = |span: &Span| {
        let end = span.0.checked_sub(PAUSE / 4)?;
        Some(longest(&(end.checked_sub(span.1 - span.0)?, end)))
    };
    Stalls {
        usual,
        with: sent.iter().map(longest).collect(),
        without: sent.iter().filter_map(before).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stall_is_the_longest_echo_beside_a_large_webhook_less_the_usual_one() {
        let start = Instant::now() + Duration::from_secs(5);
        let at = |millis: u64| start + Duration::from_millis(millis);
        // An echo every two milliseconds that takes one; one of them takes six, in the large webhook's span.
        let mut echoes: Vec<Span> = (0..100).map(|n| (at(2 * n), at(2 * n + 1))).collect();
        echoes[50].1 = at(106);
        let stalls = judge(&echoes, &[(at(99), at(103))]);
        assert!((stalls.usual - 1.0).abs() < 1e-6, "{stalls:?}");
        assert!((stalls.with[0] - 5.0).abs() < 1e-6, "{stalls:?}");
        assert!(stalls.without[0].abs() < 1e-6, "{stalls:?}");
    }
}
