//! The dead letters of a world: a model of their store, durable before anybody is told, and read at each
//! start. The store's own files are not simulated.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use penstock::dead::desk::{Found, Order};
use penstock::dead::{Held, Letter, LetterId};
use penstock::journal::JournalId;
use penstock::journal::disk::Disk;
use penstock::journal::store::{hex, parse_id};

use super::disk::MemoryDisk;
use super::ground::Machine;
use super::truth::Truth;

const FILE: &str = "/data/dead";

fn numbers<T: ToString>(list: impl Iterator<Item = T>) -> String {
    list.map(|number| number.to_string()).collect::<Vec<_>>().join(",")
}

fn list<T: std::str::FromStr>(text: &str) -> Vec<T> {
    text.split(',').filter_map(|number| number.parse().ok()).collect()
}

fn sum(text: &str) -> u64 {
    text.bytes().fold(5, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}

/// What the store tells at a start.
pub(crate) fn load(disk: &MemoryDisk) -> io::Result<Arc<Found>> {
    let mut found = Found::default();
    if !disk.has(Path::new(FILE)) {
        return Ok(Arc::new(found));
    }
    let bytes = Disk::read(disk, Path::new(FILE), 0, usize::MAX / 2)?;
    let text = String::from_utf8_lossy(&bytes);
    let mut held: HashMap<(JournalId, u64, u16), Held> = HashMap::new();
    for line in text.split('\n') {
        let Some((line, check)) = line.rsplit_once(' ') else { continue };
        if check.parse() != Ok(sum(line)) {
            // Not written to its end.
            continue;
        }
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["letter", journal, lsn, slot, region, conversations, events] => {
                let place = (parse_id(journal).unwrap(), lsn.parse().unwrap(), slot.parse().unwrap());
                let mut events = list::<u32>(events);
                match held.entry(place).or_insert(Held::Events(Vec::new())) {
                    whole if events.is_empty() => *whole = Held::Whole,
                    Held::Events(known) => {
                        known.append(&mut events);
                        known.sort_unstable();
                        known.dedup();
                    }
                    Held::Whole => {}
                }
                for conversation in list::<u64>(conversations) {
                    *found.gaps.entry((region.parse().unwrap(), conversation)).or_default() += 1;
                }
            }
            ["told", region, conversation] => {
                found.gaps.remove(&(region.parse().unwrap(), conversation.parse().unwrap()));
            }
            _ => panic!("{line}"),
        }
    }
    found.held = held;
    Ok(Arc::new(found))
}

async fn append(machine: &Machine, line: String) {
    let line = format!("\n{line} {}\n", sum(&line));
    let (disk, path) = (&machine.disk, Path::new(FILE));
    loop {
        machine.exec.sleep(machine.latency()).await;
        let new = !disk.has(path);
        let made = if new { disk.write_zeros(path, 0) } else { Ok(()) };
        let written = made.and_then(|()| disk.append_to(path, line.as_bytes()));
        machine.exec.sleep(machine.latency()).await;
        let synced = written.and_then(|()| Disk::sync(disk, path));
        // Its name is in the folder since the first letter, or since another try.
        if synced.and_then(|()| Disk::sync_dir(disk, Path::new("/data"))).is_ok() {
            return;
        }
        machine.exec.sleep(Duration::from_millis(500)).await;
    }
}

/// Carries out what a core orders.
pub(crate) fn carry_out(order: Order, number: u64, machine: &Machine, truth: &Rc<Truth>) {
    let (machine, truth) = (machine.clone(), Rc::clone(truth));
    let exec = Rc::clone(&machine.exec);
    exec.spawn(async move {
        match order {
            Order::Bury(letter, answer) => {
                let Letter { journal, lsn, slot, region, conversations, events, record, .. } = *letter;
                let line = format!(
                    "letter {} {lsn} {slot} {region} {} {}",
                    hex(&journal),
                    numbers(conversations.iter()),
                    numbers(events.iter())
                );
                append(&machine, line).await;
                truth.dies(&record, region, &events);
                // The core stopped meanwhile.
                answer.send(LetterId(number)).ok();
            }
            Order::GapTold { region, conversation } => {
                append(&machine, format!("told {region} {conversation}")).await;
            }
            // Nobody orders a letter to go out again.
            Order::Replayed(_) | Order::FailedAgain(..) | Order::Record(..) | Order::Ask(_) => {}
        }
    });
}
