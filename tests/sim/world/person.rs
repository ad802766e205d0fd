//! Somebody looks after the dead letters.

use penstock::dead::Filter;
use penstock::dead::office::Deed;

use super::*;

impl World {
    /// Has letters go out again, takes that back, drops some; in the end all of them are to go out.
    pub(super) fn person(&mut self, life: &Life) {
        if elapsed() < self.next_order || self.truth.letters(|letters| letters.is_empty()) {
            return;
        }
        let random = &mut self.random;
        self.next_order = elapsed() + Duration::from_millis(500 + random.below(60_000));
        let region = random.one_in(2).then(|| REGIONS[random.below(REGIONS.len() as u64) as usize].0);
        let (deed, region) = match random.below(4) {
            _ if self.healing => (Deed::Replay { rate: 1000 }, None),
            0 if self.truth.letters(|letters| letters.dropping) => (Deed::Drop, region),
            1 => (Deed::Keep, region),
            2 => (Deed::Replay { rate: 1 + random.below(20) as u32 }, region),
            _ => return,
        };
        if matches!(deed, Deed::Replay { .. }) {
            self.truth.letters(|letters| letters.replaying = true);
        }
        self.truth.note(format_args!("ordered for {region:?}: {deed:?}"));
        let filter = Filter { region: region.map(str::to_owned), ..Filter::default() };
        let (office, truth) = (life.office.clone(), Rc::clone(&self.truth));
        life.exec().spawn(async move {
            let done = office.act(deed, filter, None, false).await;
            truth.note(format_args!("{deed:?} is done: {done:?}"));
        });
    }
}
