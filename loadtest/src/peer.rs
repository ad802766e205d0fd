//! The reference servers of `peers/`: the gateway's job as it is usually built, each started by its one command.

use std::fmt;
use std::fs::File;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::str::FromStr;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use crate::child::{Server, free_address};
use crate::gateway::SECRET;
use crate::sink::Sink;
use crate::users::Routes;

/// How long installing and compiling one may take; an engine of Bento's takes some minutes on a busy machine.
const SET_UP: Duration = Duration::from_secs(600);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    NginxLua,
    GoNethttp,
    Express,
    Bento,
}

impl Kind {
    pub const ALL: [Self; 4] = [Self::NginxLua, Self::GoNethttp, Self::Express, Self::Bento];

    /// Also its folder.
    pub fn name(self) -> &'static str {
        match self {
            Self::NginxLua => "nginx-lua",
            Self::GoNethttp => "go-nethttp",
            Self::Express => "express",
            Self::Bento => "bento",
        }
    }
}

/// A server, and what its 200 means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    pub kind: Kind,
    /// The log is on disk; else it is in the page cache.
    pub synced: bool,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.kind.name(), if self.synced { "synced" } else { "page" })
    }
}

impl FromStr for Peer {
    type Err = String;

    /// `express:synced`, `express:page`, or `express` as the goals have it.
    fn from_str(text: &str) -> Result<Self, String> {
        let (name, mode) = text.split_once(':').unwrap_or((text, ""));
        let kind = Kind::ALL.into_iter().find(|kind| kind.name() == name);
        let kind = kind.ok_or_else(|| {
            format!("no server {name}; there are: {}", Kind::ALL.map(Kind::name).join(", "))
        })?;
        let synced = match mode {
            "" => kind == Kind::GoNethttp,
            "page" => false,
            "synced" if kind != Kind::Bento => true,
            "synced" => return Err("bento cannot sync what it answers for; use bento:page".to_owned()),
            _ => return Err(format!("no mode {mode}; there are: page, synced")),
        };
        Ok(Self { kind, synced })
    }
}

/// Installs and compiles what the server needs; the error says what is missing.
pub fn set_up(peers: &Path, kind: Kind, folder: &Path) -> Result<(), String> {
    let said = folder.join(format!("{}.setup", kind.name()));
    let wait = || -> anyhow::Result<()> {
        let out = File::create(&said)?;
        let mut child = start(peers, kind)
            .arg("--setup")
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .spawn()
            .with_context(|| format!("run {}", peers.join(kind.name()).join("start").display()))?;
        let begun = Instant::now();
        loop {
            if let Some(status) = child.try_wait()? {
                let words = std::fs::read_to_string(&said).unwrap_or_default();
                let words = words.trim().replace('\n', "; ");
                if status.success() { return Ok(()) } else { bail!("{words}") }
            }
            if begun.elapsed() > SET_UP {
                child.kill()?;
                child.wait()?;
                bail!("not set up within {SET_UP:?}");
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    };
    wait().map_err(|error| format!("{error:#}"))
}

fn start(peers: &Path, kind: Kind) -> Command {
    let mut command = Command::new(peers.join(kind.name()).join("start"));
    // Beside where the program itself was built, so that nothing lands in the source.
    if let Some(target) =
        std::env::current_exe().ok().as_deref().and_then(Path::parent).and_then(Path::parent)
    {
        command.env("PEERS", target.join("peers"));
    }
    command
}

/// Where the servers' folders are: in the source that this program was built from.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("peers")
}

/// A server that takes webhooks.
pub struct Running {
    pub server: Server,
    pub address: SocketAddr,
}

impl Running {
    /// Starts it on `cpu`, with the same regions as the gateway has, and waits until it listens.
    pub fn start(
        peer: &Peer,
        folder: &Path,
        cpu: usize,
        sink: &Sink,
        regions: usize,
    ) -> anyhow::Result<Self> {
        let address = free_address()?;
        let mut command = start(&self::folder(), peer.kind);
        command
            .env("PORT", address.port().to_string())
            .env("RUN", folder.canonicalize().context("the folder of the run")?)
            .env("APP_SECRET", SECRET)
            .env("UPSTREAMS", upstreams(sink.address, regions))
            .env("SYNC", if peer.synced { "group" } else { "" });
        let mut server = Server::start(command, &[cpu], &folder.join("server.log"))?;
        server.wait_until(|| TcpStream::connect(address).is_ok())?;
        Ok(Self { server, address })
    }
}

/// `prefix=url,...,*=url`
fn upstreams(sink: SocketAddr, regions: usize) -> String {
    let url = |region: usize| format!("http://{sink}/region-{region}");
    let mut routes = Vec::new();
    for (region, prefixes) in Routes::countries(regions).of_regions().enumerate() {
        routes.extend(prefixes.iter().map(|prefix| format!("{prefix}={}", url(region))));
    }
    routes.push(format!("*={}", url(0)));
    routes.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mode_is_the_goals_unless_told() {
        let check = |text: &str, expected: &str| {
            let peer = text.parse::<Peer>().map(|peer| peer.to_string());
            assert_eq!(peer.as_deref(), Ok(expected));
        };
        check("nginx-lua", "nginx-lua:page");
        check("go-nethttp", "go-nethttp:synced");
        check("go-nethttp:page", "go-nethttp:page");
        check("express:synced", "express:synced");
        assert!("bento:synced".parse::<Peer>().is_err());
        assert_eq!("express:x".parse::<Peer>().unwrap_err(), "no mode x; there are: page, synced");
        assert!("apache".parse::<Peer>().unwrap_err().contains("nginx-lua, go-nethttp, express, bento"));
    }

    #[test]
    fn routes_are_the_gateways() {
        let routes = upstreams("127.0.0.1:9".parse().unwrap(), 2);
        assert!(routes.starts_with("91=http://127.0.0.1:9/region-0,"), "{routes}");
        assert!(routes.contains("55=http://127.0.0.1:9/region-1,"), "{routes}");
        assert!(routes.ends_with(",*=http://127.0.0.1:9/region-0"), "{routes}");
    }

    #[test]
    fn each_server_has_its_command() {
        for kind in Kind::ALL {
            assert!(folder().join(kind.name()).join("start").is_file(), "{kind:?}");
        }
    }
}
