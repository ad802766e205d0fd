//! How far a command over all objects of an archive is.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

/// How often it is drawn anew.
const DRAW_EVERY: Duration = Duration::from_millis(100);

/// Drawn on stderr, if that is a terminal.
pub(super) struct Bar {
    shown: bool,
    drawn: Option<Instant>,
}

impl Bar {
    const WIDTH: u64 = 30;

    pub(super) fn new() -> Self {
        Self { shown: io::stderr().is_terminal(), drawn: None }
    }

    pub(super) fn draw(&mut self, read: u64, all: u64) {
        if !self.shown || self.drawn.is_some_and(|drawn| drawn.elapsed() < DRAW_EVERY) {
            return;
        }
        self.drawn = Some(Instant::now());
        let full = (read * Self::WIDTH / all.max(1)).min(Self::WIDTH) as usize;
        let bar = format!("{}{}", "#".repeat(full), ".".repeat(Self::WIDTH as usize - full));
        // Whoever closed it does not look.
        write!(io::stderr(), "\r[{bar}] {read} of {all} objects").ok();
    }

    pub(super) fn clear(&self) {
        if self.drawn.is_some() {
            write!(io::stderr(), "\r\x1b[K").ok();
        }
    }
}
