//! Memory of a connection that has sent one webhook and waits.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, ensure};

use super::parts::Found;
use super::scale::CONNECTIONS;
use crate::gateway::{Gateway, PATH, SECRET, Setup};
use crate::goal::{Missing, Row, some};
use crate::pool::Pool;
use crate::rig::Rig;
use crate::stats::Estimate;
use crate::users::Routes;

/// Gateways, one after the other: memory hardly differs from one to the next.
const ROUNDS: usize = 3;
/// Connections that send at once; each waits for the answer before the next ones do.
const AT_ONCE: usize = 64;
/// Webhooks before the memory is read for the first time, so that what grows with use has grown.
const WARM_UP: usize = 20_000;
/// For everything to come to rest.
const REST: Duration = Duration::from_secs(1);

pub fn measure(rig: &Rig<'_>) -> Found {
    let rounds: anyhow::Result<Vec<f64>> = (0..ROUNDS).map(|round| by_connection(rig, round)).collect();
    let found = rounds.map_err(Missing::from).and_then(|rounds| some(Estimate::of(rounds.into_iter())));
    let rows = vec![Row::at_most("resident KB by idle connection, after one webhook", 4.0, 1.0, found)];
    Found { rows, notes: Vec::new() }
}

/// Kilobytes.
fn by_connection(rig: &Rig<'_>, round: usize) -> anyhow::Result<f64> {
    let folder = rig.folder.join("idle");
    std::fs::create_dir_all(&folder)?;
    let routes = Routes::countries(rig.regions);
    let setup = Setup::new(rig.binary, &folder, rig.machine.server_cpu, rig.sink.address, &routes);
    let gateway = Gateway::start(&setup)?;
    let pool = Pool::new(4000 + round as u64, WARM_UP + CONNECTIONS, rig.users, PATH, SECRET);
    let mut few = connect(&gateway, AT_ONCE)?;
    for first in (0..WARM_UP).step_by(AT_ONCE) {
        turn(&mut few, &pool, first)?;
    }
    std::thread::sleep(REST);
    let before = gateway.resident_bytes()?;
    let mut many = Vec::with_capacity(CONNECTIONS);
    while many.len() < CONNECTIONS {
        let mut some = connect(&gateway, AT_ONCE.min(CONNECTIONS - many.len()))?;
        turn(&mut some, &pool, WARM_UP + many.len())?;
        many.append(&mut some);
    }
    std::thread::sleep(REST);
    let after = gateway.resident_bytes()?;
    drop(many);
    gateway.server.stop()?;
    std::fs::remove_dir_all(&folder)?;
    let kilobytes = after.saturating_sub(before) as f64 / 1e3 / CONNECTIONS as f64;
    eprintln!(
        "idle {round}: {} MB, then {} MB: {kilobytes:.2} KB each",
        before / 1_000_000,
        after / 1_000_000
    );
    Ok(kilobytes)
}

fn connect(gateway: &Gateway, count: usize) -> anyhow::Result<Vec<TcpStream>> {
    (0..count)
        .map(|_| {
            let stream = TcpStream::connect_timeout(&gateway.address, Duration::from_secs(5))
                .context("connect to the gateway")?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(Duration::from_secs(5)))?;
            Ok(stream)
        })
        .collect()
}

/// One webhook on each, all on their way at once.
fn turn(streams: &mut [TcpStream], pool: &Pool, first: usize) -> anyhow::Result<()> {
    for (at, stream) in streams.iter_mut().enumerate() {
        stream.write_all(pool.get((first + at) % pool.len()))?;
    }
    let mut answer = [0; 1024];
    for stream in streams {
        let length = stream.read(&mut answer).context("read an answer")?;
        ensure!(answer[..length].starts_with(b"HTTP/1.1 200"), "a webhook was not answered 200");
    }
    Ok(())
}
