//! A queue from which one thread takes what comes, and another one what has waited too long.
//!
//! The first runs only while nobody else wants a CPU: then it delays nobody. Where somebody always does it would never
//! come to an end; so the second takes its share of a CPU, but only of work that has waited already.

use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};

/// Longer than the first thread needs for any one thing, and far below the provider's patience.
const LATE: Duration = Duration::from_millis(100);

/// Gives out work, without waiting.
pub struct Queue<T> {
    prompt: Sender<Receiver<T>>,
    late: Sender<(Instant, Receiver<T>)>,
}

impl<T> Clone for Queue<T> {
    fn clone(&self) -> Self {
        Self { prompt: self.prompt.clone(), late: self.late.clone() }
    }
}

/// Takes what comes.
pub struct Prompt<T>(Receiver<Receiver<T>>);

/// Takes what nobody has taken in time.
pub struct Late<T>(Receiver<(Instant, Receiver<T>)>);

pub(super) fn queue<T>() -> (Queue<T>, Prompt<T>, Late<T>) {
    let (prompt, first) = crossbeam_channel::unbounded();
    let (late, second) = crossbeam_channel::unbounded();
    (Queue { prompt, late }, Prompt(first), Late(second))
}

impl<T> Queue<T> {
    /// False if nobody takes anything any more.
    pub(super) fn send(&self, work: T) -> bool {
        // Whoever receives first has it.
        let (give, take) = crossbeam_channel::bounded(1);
        give.send(work).is_ok()
            && self.prompt.send(take.clone()).is_ok()
            && self.late.send((Instant::now() + LATE, take)).is_ok()
    }
}

impl<T> Iterator for Prompt<T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        loop {
            if let Ok(work) = self.0.recv().ok()?.try_recv() {
                return Some(work);
            }
        }
    }
}

impl<T> Iterator for Late<T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        loop {
            let (due, work) = self.0.recv().ok()?;
            if !work.is_empty() {
                crossbeam_channel::at(due).recv().ok();
            }
            if let Ok(work) = work.try_recv() {
                return Some(work);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_too_long_is_taken_by_the_other_and_nothing_twice() {
        let (queue, mut prompt, mut late) = queue();
        let start = Instant::now();
        assert!((0..3).all(|work| queue.send(work)));
        assert_eq!(prompt.next(), Some(0));
        assert_eq!(late.next(), Some(1));
        assert!(start.elapsed() >= LATE);
        assert_eq!(prompt.next(), Some(2));
        drop(queue);
        assert_eq!((prompt.next(), late.next()), (None, None));
    }
}
