//! Ports that no other test takes, also not while nobody listens on them.
//!
//! A gateway learns its ports before it listens, and a region that refuses comes back on the port it had. So each
//! test process gives out the ports of a block of its own, and none again before all others.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::OnceLock;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

/// All blocks lie below the kernel's ephemeral range (32768 and up by default): the tests dial ports on which
/// nobody listens, and a dial to an ephemeral port can connect to itself.
const FIRST: u16 = 10_000;
const BLOCKS: u16 = 44;
const BLOCK: u16 = 500;

#[derive(Debug)]
struct Block {
    first: u16,
    /// On the first port, for as long as the process lives: who cannot have it takes another block.
    _taken: TcpListener,
    given: AtomicUsize,
}

impl Block {
    fn take() -> Self {
        // From a random one on: what an earlier process gave out is not given out again at once.
        let start = super::random_seed();
        for n in 0..u64::from(BLOCKS) {
            let first = FIRST + (start.wrapping_add(n) % u64::from(BLOCKS)) as u16 * BLOCK;
            if let Ok(taken) = TcpListener::bind((Ipv4Addr::LOCALHOST, first)) {
                return Self { first, _taken: taken, given: AtomicUsize::new(0) };
            }
        }
        panic!("all {BLOCKS} blocks of ports from {FIRST} on are taken");
    }

    fn next(&self) -> u16 {
        let others = usize::from(BLOCK) - 1;
        self.first + 1 + (self.given.fetch_add(1, Relaxed) % others) as u16
    }
}

/// A loopback port of this process alone, on which nobody listens.
pub fn free_port() -> u16 {
    static OF_THIS_PROCESS: OnceLock<Block> = OnceLock::new();
    let block = OF_THIS_PROCESS.get_or_init(Block::take);
    let ports = std::iter::repeat_with(|| block.next()).take(usize::from(BLOCK));
    // Asked by a dial: a listener, already closed here, would live on in a child that another thread starts, until
    // that child has become another program.
    let mut free = ports.filter(|port| TcpStream::connect((Ipv4Addr::LOCALHOST, *port)).is_err());
    free.next().expect("all ports of this process are in use")
}

/// Listens where this process listened before, perhaps. Children keep a closed listener for some milliseconds, see
/// [`free_port`].
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    const PATIENCE: Duration = Duration::from_secs(5);
    let since = Instant::now();
    loop {
        match TcpListener::bind(address) {
            Err(e) if e.kind() == io::ErrorKind::AddrInUse && since.elapsed() < PATIENCE => {
                std::thread::sleep(Duration::from_millis(1));
            }
            bound => return bound,
        }
    }
}
