//! What the dead letters count. Their thread writes it.

use super::Gauge;
use super::text::Page;

/// Of one region.
#[derive(Debug, Default)]
pub struct DeadCells {
    /// Letters that wait for a person or are to go out again.
    pub letters: Gauge,
    /// Bytes that they and their index take on the disk.
    pub bytes: Gauge,
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
}
