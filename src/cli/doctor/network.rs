//! Network settings: room for connections that come in bursts, and for those that go to the regions.

use socket2::{Domain, Socket, Type};

use super::machine::{Machine, number_list};
use super::{Finding, Subject};

/// Connections of a burst that wait at once: Meta's and a balancer's pools, opened anew after a restart.
const BURST: u64 = 1024;
/// Local ports for connections to regions, with those that wait two minutes after their end.
const PORTS: u64 = 16_384;

pub(super) fn check(machine: &Machine, subject: &Subject) -> Vec<Finding> {
    let mut findings = Vec::new();
    findings.extend(queue(
        machine,
        "accept backlog",
        "net.core.somaxconn",
        "a burst of connections waits for accept there",
    ));
    findings.extend(queue(
        machine,
        "SYN backlog",
        "net.ipv4.tcp_max_syn_backlog",
        "connections wait there for their handshake's end",
    ));
    findings.extend(ports(machine, subject));
    findings.extend(tracking(machine, subject.connections));
    findings.push(reuse_port());
    findings
}

fn queue(machine: &Machine, subject: &'static str, key: &str, why: &str) -> Option<Finding> {
    let room = machine.number(format!("proc/sys/{}", key.replace('.', "/")))?;
    let found = format!("{key} = {room}");
    if room >= BURST {
        return Some(Finding::ok(subject, found));
    }
    Some(Finding::warn(subject, found, format!("{BURST} or more: {why}"), format!("sysctl {key}=4096")))
}

fn ports(machine: &Machine, subject: &Subject) -> Vec<Finding> {
    let text = machine.text("proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let bounds: Vec<u64> = text.split_whitespace().filter_map(|port| port.parse().ok()).collect();
    let [first, last] = bounds[..] else { return Vec::new() };
    let count = last.saturating_sub(first) + 1;
    let found = format!("{count} to connect from ({first} to {last})");
    let mut findings = vec![if count < PORTS {
        let expected = format!("{PORTS} or more: every connection to a region needs one");
        Finding::warn("local ports", found, expected, "sysctl net.ipv4.ip_local_port_range=\"16384 65535\"")
    } else {
        Finding::ok("local ports", found)
    }];
    let reserved = machine.text("proc/sys/net/ipv4/ip_local_reserved_ports").unwrap_or_default();
    let reserved = number_list(&reserved);
    let taken = |port: u16| (first..=last).contains(&u64::from(port)) && !reserved.contains(&port.into());
    for port in subject.ports.iter().filter(|port| taken(**port)) {
        findings.push(Finding::warn(
            "own port",
            format!("{port} is one of the local ports"),
            "a port outside of them: during a restart an outgoing connection may take it, and the start fails",
            format!("sysctl net.ipv4.ip_local_reserved_ports={port}, or another port"),
        ));
    }
    findings
}

/// A firewall that remembers connections refuses new ones when its table is full.
fn tracking(machine: &Machine, connections: u64) -> Option<Finding> {
    let most = machine.number("proc/sys/net/netfilter/nf_conntrack_max")?;
    let found = format!("{most} connections");
    if most >= 2 * connections {
        return Some(Finding::ok("connection tracking", found));
    }
    let expected =
        format!("{} or more, twice listen.limits.connections: a full table drops packets", 2 * connections);
    let remedy = "exempt the listener's port (nft: notrack), or raise net.netfilter.nf_conntrack_max";
    Some(Finding::warn("connection tracking", found, expected, remedy))
}

/// Ingest cores share one address: tried rather than asked for, since sandboxes differ.
fn reuse_port() -> Finding {
    let subject = "shared address";
    let listen = |port: u16| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.set_reuse_port(true)?;
        socket.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], port)).into())?;
        socket.listen(1)?;
        std::io::Result::Ok(socket)
    };
    let port = |socket: &Socket| -> std::io::Result<u16> {
        Ok(socket.local_addr()?.as_socket().map_or(0, |address| address.port()))
    };
    let both = listen(0).and_then(|one| Ok((listen(port(&one)?)?, one)));
    match both {
        Ok(_) => Finding::ok(subject, "SO_REUSEPORT works"),
        Err(error) => Finding::bad(
            subject,
            format!("two sockets cannot listen on one address: {error}"),
            "SO_REUSEPORT: every ingest core accepts on its own",
            "run outside of the sandbox that refuses it",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::super::machine::fake;
    use super::*;

    #[test]
    fn short_queues_are_found() {
        let check = |value: &str, level: Level| {
            let (_folder, machine) = fake(&[
                ("proc/sys/net/core/somaxconn", value),
                ("proc/sys/net/ipv4/tcp_max_syn_backlog", value),
            ]);
            let findings = super::check(&machine, &Subject::default());
            let levels: Vec<_> = findings.iter().map(|finding| (finding.subject, finding.level)).collect();
            assert_eq!(levels[..2], [("accept backlog", level), ("SYN backlog", level)]);
            assert_eq!(levels[2], ("shared address", Level::Ok), "of this very machine");
        };
        check("128\n", Level::Warn);
        check("1023\n", Level::Warn);
        check("4096\n", Level::Ok);
    }

    #[test]
    fn few_local_ports_and_an_own_one_among_them_are_found() {
        let check = |range: &str, own: u16, expected: &[Level]| {
            let (_folder, machine) = fake(&[
                ("proc/sys/net/ipv4/ip_local_port_range", range),
                ("proc/sys/net/ipv4/ip_local_reserved_ports", "9090,9100-9110\n"),
            ]);
            let subject = Subject { ports: vec![own], ..Subject::default() };
            let levels: Vec<_> = ports(&machine, &subject).iter().map(|finding| finding.level).collect();
            assert_eq!(levels, expected, "{range} {own}");
        };
        check("32768\t60999\n", 8443, &[Level::Ok]);
        check("50000\t60999\n", 8443, &[Level::Warn]);
        check("1024\t60999\n", 8443, &[Level::Ok, Level::Warn]);
        check("1024\t60999\n", 9105, &[Level::Ok]);
        check("", 8443, &[]);
    }

    #[test]
    fn small_tracking_table_is_found() {
        let (_folder, machine) = fake(&[("proc/sys/net/netfilter/nf_conntrack_max", "65536\n")]);
        assert_eq!(tracking(&machine, 50_000).unwrap().level, Level::Warn);
        assert_eq!(tracking(&machine, 30_000).unwrap().level, Level::Ok);
        let (_folder, machine) = fake(&[]);
        assert!(tracking(&machine, 50_000).is_none());
    }
}
