//! What the dead letters count. Their thread writes it.

use super::text::Page;
use super::{Counter, Gauge};

/// Of one region.
#[derive(Debug, Default)]
pub struct DeadCells {
    /// Letters that wait for a person or are to go out again.
    pub letters: Gauge,
    /// Bytes that they and their index take on the disk.
    pub bytes: Gauge,
    /// Places in their files that were found damaged, and letters that could not be read.
    pub damaged: Counter,
}

pub(super) fn render(page: &mut Page, regions: &[String], cells: &[DeadCells]) {
    let mut family = page.gauge(
        "penstock_dead_letters",
        "Parcels given up, kept until a person replays or drops them; see penstock dead list.",
    );
    for (region, cells) in regions.iter().zip(cells) {
        family.sample(&[("region", region)], cells.letters.get());
    }
    let mut family = page.gauge("penstock_dead_letter_bytes", "Bytes that dead letters take on the disk.");
    for (region, cells) in regions.iter().zip(cells) {
        family.sample(&[("region", region)], cells.bytes.get());
    }
    let mut family = page.counter(
        "penstock_dead_letters_damaged_total",
        "Times that dead letters were found damaged on the disk, at the start or when one was read; the log says where.",
    );
    for (region, cells) in regions.iter().zip(cells) {
        family.sample(&[("region", region)], cells.damaged.get());
    }
}
