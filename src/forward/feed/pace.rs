//! How a core's tasks give way to each other.

use std::future::Future;
use std::io;
use std::time::Duration;

use crate::wake::Yield;

/// How a core's tasks give way to each other; a simulation has its own way.
pub trait Pace {
    /// Lets every other task have its turn.
    fn aside(&self) -> impl Future<Output = io::Result<()>>;

    fn pause(&self, time: Duration) -> impl Future<Output = ()>;
}

impl Pace for Yield {
    async fn aside(&self) -> io::Result<()> {
        self.now().await
    }

    async fn pause(&self, time: Duration) {
        monoio::time::sleep(time).await;
    }
}

/// What a look into the channel came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// There may be more.
    More,
    /// The channel is empty, and nothing was missed.
    All,
}
