//! What all ingest cores share: the caps on connections and memory, and the word to drain. Atomics only.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize};
use std::time::Duration;

use ipnet::IpNet;

use crate::config::{self, Limits};

/// Counters of connections per peer. Two peers share one with a chance of one in a million, and then share the limit.
const PEERS: usize = 1 << 20;

/// How long the listener waits where the configuration has no say.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// For a client to take an answer.
    pub send: Duration,
    /// For a body, before it must have brought 1 KiB per second.
    pub slow_body: Duration,
    /// For a client to close after our last answer, so that a reset does not overtake that answer.
    pub linger: Duration,
    /// For requests in flight when the gateway stops.
    pub drain: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self { send: seconds(10), slow_body: seconds(5), linger: seconds(2), drain: seconds(5) }
    }
}

/// Shared by the listeners of all cores; one per process.
#[derive(Debug)]
pub struct Shared {
    pub(super) limits: Limits,
    pub(super) patience: Patience,
    allow_from: Vec<IpNet>,
    connections: AtomicUsize,
    memory: AtomicUsize,
    /// By keyed hash of the address, so that nobody can choose whom to collide with. Empty without a limit.
    peers: Box<[AtomicU32]>,
    hash: RandomState,
    draining: AtomicBool,
}

/// Why a connection is not served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turned {
    NotAllowed,
    PeerFull,
    Full,
}

impl Shared {
    pub fn new(listen: &config::Listen, patience: Patience) -> Arc<Self> {
        let peers = if listen.limits.per_peer == 0 { 0 } else { PEERS };
        Arc::new(Self {
            limits: listen.limits.clone(),
            patience,
            allow_from: listen.allow_from.clone(),
            connections: AtomicUsize::new(0),
            memory: AtomicUsize::new(0),
            peers: (0..peers).map(|_| AtomicU32::new(0)).collect(),
            hash: RandomState::new(),
            draining: AtomicBool::new(false),
        })
    }

    /// From now on nothing new is accepted; each [`super::serve`] returns when its connections are gone.
    pub fn drain(&self) {
        self.draining.store(true, Relaxed);
    }

    pub fn is_draining(&self) -> bool {
        self.draining.load(Relaxed)
    }

    /// Open connections, all cores together.
    pub fn connections(&self) -> usize {
        self.connections.load(Relaxed)
    }

    /// Bytes that all requests hold together.
    pub fn memory(&self) -> usize {
        self.memory.load(Relaxed)
    }

    /// Counts a connection in. `make_room` is asked when the total is reached; true if it closed another one.
    pub(super) fn enter(
        self: &Arc<Self>,
        peer: IpAddr,
        make_room: impl FnOnce() -> bool,
    ) -> Result<Seat, Turned> {
        let peer = peer.to_canonical();
        if !self.allow_from.is_empty() && !self.allow_from.iter().any(|net| net.contains(&peer)) {
            return Err(Turned::NotAllowed);
        }
        // The seat counts out what it counted in, also when it is turned away here.
        let slot = self.peer_slot(peer);
        let seat = Seat { shared: Arc::clone(self), slot };
        let before = self.connections.fetch_add(1, Relaxed);
        let of_peer = slot.map_or(0, |slot| self.peers[slot].fetch_add(1, Relaxed) as usize);
        if slot.is_some() && of_peer >= self.limits.per_peer {
            return Err(Turned::PeerFull);
        }
        if before >= self.limits.connections && !make_room() {
            return Err(Turned::Full);
        }
        Ok(seat)
    }

    fn peer_slot(&self, peer: IpAddr) -> Option<usize> {
        if self.peers.is_empty() {
            return None;
        }
        // One customer has a whole /64.
        let key = match peer {
            IpAddr::V4(v4) => u64::from(v4.to_bits()),
            IpAddr::V6(v6) => (v6.to_bits() >> 64) as u64,
        };
        Some(self.hash.hash_one((peer.is_ipv4(), key)) as usize % self.peers.len())
    }
}

/// One connection's place in the counts.
#[derive(Debug)]
pub(super) struct Seat {
    shared: Arc<Shared>,
    slot: Option<usize>,
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.shared.connections.fetch_sub(1, Relaxed);
        if let Some(slot) = self.slot {
            self.shared.peers[slot].fetch_sub(1, Relaxed);
        }
    }
}

/// Memory that a connection holds beyond its first buffer.
#[derive(Debug)]
pub(super) struct Grant {
    shared: Arc<Shared>,
    bytes: usize,
}

impl Grant {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, bytes: 0 }
    }

    /// Asks to hold `bytes` in all; false, and as before, if all connections together would hold too much.
    pub(super) fn resize(&mut self, bytes: usize) -> bool {
        if bytes > self.bytes {
            let more = bytes - self.bytes;
            if self.shared.memory.fetch_add(more, Relaxed) + more > self.shared.limits.memory {
                self.shared.memory.fetch_sub(more, Relaxed);
                return false;
            }
        } else if bytes < self.bytes {
            self.shared.memory.fetch_sub(self.bytes - bytes, Relaxed);
        }
        self.bytes = bytes;
        true
    }

    /// Gives `bytes` of what is held to somebody else, or all if that is less.
    pub(super) fn part(&mut self, bytes: usize) -> Self {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        Self { shared: Arc::clone(&self.shared), bytes }
    }
}

impl Drop for Grant {
    fn drop(&mut self) {
        self.resize(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shared(connections: usize, per_peer: usize, allow: &[&str]) -> Arc<Shared> {
        let second = Duration::from_secs(1);
        let limits = Limits {
            head: 1,
            body: 1,
            memory: 100,
            connections,
            per_peer,
            header_timeout: second,
            body_timeout: second,
            idle_timeout: second,
        };
        let allow_from = allow.iter().map(|net| net.parse().unwrap()).collect();
        let address = "127.0.0.1:0".parse().unwrap();
        let listen = config::Listen { address, allow_from, trusted_proxies: Vec::new(), limits };
        Shared::new(&listen, Patience::default())
    }

    fn enter(shared: &Arc<Shared>, peer: &str) -> Result<Seat, Turned> {
        shared.enter(peer.parse().unwrap(), || false)
    }

    #[test]
    fn caps_hold_and_free_what_leaves() {
        let shared = shared(2, 0, &[]);
        let first = enter(&shared, "1.1.1.1").unwrap();
        let _second = enter(&shared, "1.1.1.1").unwrap();
        assert_eq!(enter(&shared, "1.1.1.1").unwrap_err(), Turned::Full);
        assert!(shared.enter("1.1.1.1".parse().unwrap(), || true).is_ok(), "somebody made room");
        drop(first);
        assert!(enter(&shared, "1.1.1.1").is_ok());
        assert_eq!(shared.connections(), 1);
    }

    #[test]
    fn each_peer_has_its_own_cap() {
        let shared = shared(100, 1, &[]);
        let seat = enter(&shared, "1.1.1.1").unwrap();
        assert_eq!(enter(&shared, "::ffff:1.1.1.1").unwrap_err(), Turned::PeerFull);
        let _other = enter(&shared, "2001:db8::1").unwrap();
        assert_eq!(enter(&shared, "2001:db8::2").unwrap_err(), Turned::PeerFull);
        drop(seat);
        assert!(enter(&shared, "1.1.1.1").is_ok());
    }

    #[test]
    fn only_listed_networks_may_connect() {
        let shared = shared(9, 0, &["10.0.0.0/8", "2001:db8::/32"]);
        for (peer, expected) in
            [("10.1.2.3", true), ("::ffff:10.1.2.3", true), ("2001:db8::9", true), ("11.0.0.1", false)]
        {
            assert_eq!(enter(&shared, peer).is_ok(), expected, "{peer}");
        }
    }

    #[test]
    fn memory_is_granted_up_to_the_limit() {
        let shared = shared(1, 0, &[]);
        let (mut a, mut b) = (Grant::new(Arc::clone(&shared)), Grant::new(Arc::clone(&shared)));
        assert!(a.resize(60) && !b.resize(41) && b.resize(40));
        assert!(!a.resize(61) && a.resize(10) && b.resize(90));
        let part = b.part(50);
        drop(b);
        assert!(!a.resize(51) && a.resize(50), "what was given away is still held");
        drop(part);
        assert!(a.resize(100));
    }
}
