//! The thread that owns the dead letters while the gateway runs.

use std::io;
use std::sync::Arc;

use crossbeam_channel::Receiver;

use super::LetterId;
use super::desk::{Desk, Found, Order};

/// What the thread is started with.
pub struct Start {
    pub forward_cores: usize,
    /// The letters could not be written.
    pub failed: Box<dyn FnOnce(io::Error) + Send>,
}

/// Starts the thread `dead`; a desk per forwarding core.
pub fn start(start: Start) -> io::Result<Vec<Desk>> {
    let (give, orders) = crossbeam_channel::unbounded();
    let (found, sent, done) = (Arc::new(Found::default()), Arc::default(), Arc::default());
    let (_replays_to, replays): (Vec<_>, Vec<_>) =
        (0..start.forward_cores).map(|_| crossbeam_channel::unbounded()).unzip();
    let desk = |replays| Desk {
        orders: give.clone(),
        replays,
        found: Arc::clone(&found),
        sent: Arc::clone(&sent),
        done: Arc::clone(&done),
    };
    let desks = replays.into_iter().map(desk).collect();
    std::thread::Builder::new().name("dead".into()).spawn(move || run(&orders))?;
    Ok(desks)
}

fn run(orders: &Receiver<Order>) {
    let mut next = 1;
    while let Ok(order) = orders.recv() {
        if let Order::Bury(_, answer) = order {
            // The core stopped meanwhile.
            answer.send(LetterId(next)).ok();
            next += 1;
        }
    }
}
