//! What happens to regions and to the disk.

use super::*;

impl World {
    /// A bit of a segment that others follow turns over: the very last frame would look torn, which is the
    /// journal's honest limit.
    pub(super) fn flip(&mut self) {
        let used = |path: &PathBuf| {
            let head = Disk::read(&self.disk, path, 0, 8).unwrap_or_default();
            head.iter().any(|byte| *byte != 0)
        };
        let paths: Vec<PathBuf> = self.disk.paths(".seg").into_iter().filter(used).collect();
        let followed: Vec<&PathBuf> =
            paths.windows(2).filter(|two| two[0].parent() == two[1].parent()).map(|two| &two[0]).collect();
        if followed.is_empty() {
            return;
        }
        let path = followed[self.random.below(followed.len() as u64) as usize].clone();
        let bits = Disk::size(&self.disk, &path).unwrap_or(0) * 8;
        let bit = self.random.below(bits);
        if bits > 0 {
            self.truth.damage();
            self.truth.note(format_args!("bit {bit} of {} turns over", path.display()));
            self.disk.flip(&path, bit);
            self.report.flips += 1;
        }
    }

    pub(super) fn heal(&mut self) {
        self.healing = true;
        self.truth.note(format_args!("all is well from now on"));
        self.network.poison.borrow_mut().clear();
        (0..REGIONS.len()).for_each(|region| self.network.set(region, Mode::Up));
        let mut rules = self.rules.borrow_mut();
        (rules.slow, rules.fails, rules.shorts) = (false, 0, 0);
        self.disk.set_full(false);
    }

    pub(super) fn faults(&mut self, last: bool) {
        for region in 0..REGIONS.len() {
            if self.outage_ends[region].is_some_and(|end| end <= elapsed()) {
                self.outage_ends[region] = None;
                self.network.set(region, Mode::Up);
            }
        }
        if self.full_ends.is_some_and(|end| end <= elapsed()) {
            self.full_ends = None;
            self.disk.set_full(false);
            self.truth.note(format_args!("disk has space"));
        }
        if self.healing || elapsed() < self.next_fault {
            return;
        }
        let random = &mut self.random;
        let often = match (self.calm, self.busy) {
            (true, _) => 120_000,
            (_, true) => 30_000,
            _ => 2500,
        };
        self.next_fault = elapsed() + Duration::from_millis(50 + random.below(often));
        match random.below(10) {
            0..6 => {
                let region = random.below(REGIONS.len() as u64) as usize;
                let mode = match random.below(8) {
                    0 | 1 => Mode::Gone,
                    2 => Mode::Says([500, 503, 429][random.below(3) as usize]),
                    3 => Mode::Says([401, 403, 404][random.below(3) as usize]),
                    4 => Mode::Brown(50, 500),
                    5 => Mode::Silent,
                    6 => Mode::Brown(10, 503),
                    _ => Mode::Slow,
                };
                let longest = if random.one_in(6) && !self.busy { 600_000 } else { 4000 };
                self.outage_ends[region] = Some(elapsed() + Duration::from_millis(random.below(longest)));
                self.network.set(region, mode);
                self.report.outages += 1;
            }
            6 => {
                let slow = random.one_in(2);
                self.rules.borrow_mut().slow = slow;
                self.truth.note(format_args!("disk slow: {slow}"));
            }
            7 if !last => {
                let fails = if random.one_in(3) { 1 + random.below(30) } else { 0 };
                let shorts = if random.one_in(6) { 1 + random.below(30) } else { 0 };
                let mut rules = self.rules.borrow_mut();
                (rules.fails, rules.shorts) = (fails, shorts);
                self.truth.note(format_args!("disk fails {fails}, short {shorts}"));
            }
            7 => {
                let mut rules = self.rules.borrow_mut();
                (rules.fails, rules.shorts) = (0, 0);
            }
            _ => {
                let full = random.one_in(2);
                self.disk.set_full(full);
                self.full_ends = full.then(|| elapsed() + Duration::from_millis(random.below(60_000)));
                self.truth.note(format_args!("disk full: {full}"));
            }
        }
    }
}
