//! A server under test: started on its CPU, waited for, stopped.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use nix::sched::{sched_getaffinity, sched_setaffinity};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// How long a server may take to be ready, and to end once it is told to.
const PATIENCE: Duration = Duration::from_secs(20);

/// A running server. Killed when dropped, in case it was not stopped.
pub struct Server {
    child: Child,
    log: PathBuf,
}

impl Server {
    /// Starts `command` so that its threads may run on `cpus` and no other; what it prints goes to `log`.
    pub fn start(mut command: Command, cpus: &[usize], log: &Path) -> anyhow::Result<Self> {
        let out = File::create(log).with_context(|| format!("create {}", log.display()))?;
        command.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out);
        // A child gets the CPUs of the thread that starts it.
        let own = sched_getaffinity(Pid::from_raw(0)).context("read the own CPUs")?;
        crate::cpu::pin_to(cpus)?;
        let child = command.spawn();
        sched_setaffinity(Pid::from_raw(0), &own).context("take back the own CPUs")?;
        let child = child.with_context(|| format!("start {}", command.get_program().display()))?;
        Ok(Self { child, log: log.to_owned() })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until `ready` says so.
    pub fn wait_until(&mut self, ready: impl Fn() -> bool) -> anyhow::Result<()> {
        let start = Instant::now();
        while !ready() {
            if let Some(status) = self.child.try_wait()? {
                bail!("the server ended with {status} before it was ready; it said:\n{}", self.last_words());
            }
            if start.elapsed() > PATIENCE {
                bail!("the server is not ready after {PATIENCE:?}; it said:\n{}", self.last_words());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// SIGTERM, and what the server made of it. A server that does not end is killed, and that is an error.
    pub fn stop(mut self) -> anyhow::Result<()> {
        self.end(|| ()).map(drop)
    }

    /// The same of a server that another is to follow: how it ended. Calls `meanwhile` again and again until then.
    pub fn end(&mut self, mut meanwhile: impl FnMut()) -> anyhow::Result<ExitStatus> {
        let pid = Pid::from_raw(i32::try_from(self.pid()).context("process id")?);
        kill(pid, Signal::SIGTERM).context("stop the server: it has ended")?;
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            meanwhile();
            std::thread::sleep(Duration::from_millis(5));
        }
        bail!("the server did not end within {PATIENCE:?} of SIGTERM; it said:\n{}", self.last_words())
    }

    /// SIGKILL.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        self.child.kill().context("kill the server")?;
        self.child.wait().context("wait for the server's end")?;
        Ok(())
    }

    fn last_words(&self) -> String {
        let text = std::fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // All of these fail only where it has ended already, which is what is wanted.
        if matches!(self.child.try_wait(), Ok(None)) {
            let workers = crate::cpu::descendants(self.pid());
            self.child.kill().ok();
            for worker in workers.into_iter().filter_map(|pid| i32::try_from(pid).ok()) {
                kill(Pid::from_raw(worker), Signal::SIGKILL).ok();
            }
        }
        self.child.wait().ok();
    }
}

/// An address on loopback that is free now.
pub fn free_address() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr())?)
}

/// Status and body of a GET, by a client as small as can be.
pub fn get(address: SocketAddr, path: &str) -> anyhow::Result<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).context("no status line")?;
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default();
    Ok((status, body))
}
