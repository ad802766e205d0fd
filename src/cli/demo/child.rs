//! The gateway of the demo: this very program, as a child process with a configuration of its own.
//!
//! A separate process, so that what is shown is what `penstock serve` does, and so that it can be
//! ended, and killed, like one. It is always cleaned up: dropping a [`Gateway`] ends it, dropping a
//! [`Folder`] removes what it wrote.

use std::collections::VecDeque;
use std::fs::{self, DirBuilder};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::Context;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::archives::Archives;
use super::receiver::Receiver;
use crate::cli::client::{Client, Url};
use crate::cli::{FAILED, Failure, UNAVAILABLE};

/// To be ready, and to end: `serve` may have a journal to recover and parcels to finish, on a busy disk.
const PATIENCE: Duration = Duration::from_secs(20);
/// Below the demo's folder: one archive per region.
pub const ARCHIVE: &str = "archive";
/// What is kept of the child's stderr, to be shown if it dies.
const LAST_LINES: usize = 20;
const LINE_MAX: u64 = 4 << 10;
const POLL: Duration = Duration::from_millis(20);

/// A folder that goes away with this value, unless it is kept.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    keep: bool,
}

impl Folder {
    /// A new temporary folder that only its owner can enter.
    pub fn temporary() -> anyhow::Result<Self> {
        let name = format!("penstock-demo-{:016x}", getrandom::u64().context("draw a random number")?);
        let path = std::env::temp_dir().join(name);
        DirBuilder::new().mode(0o700).create(&path).with_context(|| format!("create {}", path.display()))?;
        Ok(Self { path, keep: false })
    }

    /// A folder that stays. It must not exist: nothing in it is ever overwritten.
    pub fn kept(path: &Path) -> anyhow::Result<Self> {
        DirBuilder::new().mode(0o700).create(path).with_context(|| format!("create {}", path.display()))?;
        Ok(Self { path: path.canonicalize()?, keep: true })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if !self.keep
            && let Err(error) = fs::remove_dir_all(&self.path)
        {
            writeln!(io::stderr(), "penstock: remove {}: {error}", self.path.display()).ok();
        }
    }
}

/// One region of the demo's configuration.
#[derive(Debug, Clone, Copy)]
pub struct Territory<'a> {
    pub name: &'a str,
    pub countries: &'a [&'a str],
}

/// A running `penstock serve`.
#[derive(Debug)]
pub struct Gateway {
    child: Child,
    config: PathBuf,
    stderr: Option<JoinHandle<VecDeque<String>>>,
    webhook: Url,
    archives: Archives,
    pub address: SocketAddr,
    pub admin: SocketAddr,
}

impl Gateway {
    /// Writes a configuration into `folder`, starts the gateway and waits until it takes webhooks.
    pub fn start(
        folder: &Path,
        territories: &[Territory<'_>],
        receivers: &[Receiver],
        secret: &[u8],
    ) -> anyhow::Result<Self> {
        let (address, admin) = (free_address()?, free_address()?);
        let config = folder.join("penstock.toml");
        let names = territories.iter().map(|territory| territory.name);
        let archives = Archives::create(folder.join(ARCHIVE), names)?;
        write_private(&folder.join("app-secret"), secret)?;
        write_private(&folder.join("verify-token"), b"demo")?;
        write_private(&config, config_text(folder, address, admin, territories, receivers).as_bytes())?;

        let (child, stderr) = spawn(&config)?;
        let webhook = Url::parse(&format!("http://{address}/webhook")).map_err(anyhow::Error::msg)?;
        let mut gateway = Self { child, config, stderr, webhook, archives, address, admin };
        gateway.wait_until_ready()?;
        Ok(gateway)
    }

    /// kill -9: it learns nothing of it. Returns the number of the process that was.
    pub fn kill(&mut self) -> anyhow::Result<u32> {
        self.check()?;
        self.child.kill().context("kill the gateway")?;
        self.child.wait().context("wait for the killed gateway")?;
        Ok(self.child.id())
    }

    /// After a kill: the same configuration, folder and port. Waits until it takes webhooks.
    pub fn start_again(&mut self) -> anyhow::Result<()> {
        (self.child, self.stderr) = spawn(&self.config)?;
        self.wait_until_ready()
    }

    /// Where webhooks go.
    pub fn webhook(&self) -> &Url {
        &self.webhook
    }

    /// Where its regions' archives are.
    pub fn archives(&self) -> &Archives {
        &self.archives
    }

    /// An error with the gateway's last words if it is no longer running.
    pub fn check(&mut self) -> anyhow::Result<()> {
        match self.child.try_wait().context("ask after the gateway")? {
            None => Ok(()),
            Some(status) => Err(self.obituary(status).into()),
        }
    }

    fn wait_until_ready(&mut self) -> anyhow::Result<()> {
        let ready = Url::parse(&format!("http://{}/readyz", self.admin)).map_err(anyhow::Error::msg)?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.check()?;
            let answer = Client::new(ready.clone(), Duration::from_secs(1)).request("GET", &[], b"");
            match answer {
                Ok(answer) if answer.status == 200 => return Ok(()),
                _ if Instant::now() < deadline => nap(POLL),
                Ok(answer) => {
                    let said = format!("{} after {} s", answer.status, PATIENCE.as_secs());
                    return Err(
                        Failure::new(FAILED, format!("the gateway's /readyz still says {said}")).into()
                    );
                }
                Err(error) => {
                    return Err(Failure::new(FAILED, "the gateway did not start").because(error).into());
                }
            }
        }
    }

    /// Asks the gateway to finish and waits; an error if it does not end well.
    pub fn stop(&mut self) -> anyhow::Result<()> {
        self.check()?;
        match self.end() {
            Some(status) if status.success() => Ok(()),
            Some(status) => Err(self.obituary(status).into()),
            None => {
                Err(Failure::new(FAILED, format!("the gateway did not end within {} s", PATIENCE.as_secs()))
                    .into())
            }
        }
    }

    /// SIGTERM, and SIGKILL to what outlives its patience; `None` if it had to be killed.
    fn end(&mut self) -> Option<ExitStatus> {
        if let Ok(Some(status)) = self.child.try_wait() {
            return Some(status);
        }
        // Not waited for yet, so the number still is this child's.
        let pid = Pid::from_raw(i32::try_from(self.child.id()).ok()?);
        kill(pid, Signal::SIGTERM).ok();
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Some(status);
            }
            nap(POLL);
        }
        self.child.kill().ok();
        self.child.wait().ok();
        None
    }

    /// How it ended, and the last lines it wrote. The exit code becomes ours: it says whose fault it was.
    fn obituary(&mut self, status: ExitStatus) -> Failure {
        let lines = self.stderr.take().and_then(|thread| thread.join().ok()).unwrap_or_default();
        let mut text = format!("the gateway ended by itself ({status})");
        if lines.is_empty() {
            text.push_str(" and wrote nothing");
        }
        for line in lines {
            text.push_str("\n  | ");
            text.push_str(&line);
        }
        let code = status.code().and_then(|code| u8::try_from(code).ok()).filter(|code| *code != 0);
        Failure::new(code.unwrap_or(FAILED), text)
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.end();
    }
}

/// `penstock serve` by this very program, and the thread that keeps its last words.
fn spawn(config: &Path) -> anyhow::Result<(Child, Option<JoinHandle<VecDeque<String>>>)> {
    let program = std::env::current_exe().context("find this program's file")?;
    let mut child = Command::new(&program)
        .args(["serve".as_ref(), "--config".as_ref(), config.as_os_str()])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        // A Ctrl-C is for the demo alone: it lets the gateway finish first.
        .process_group(0)
        .spawn()
        .with_context(|| format!("start {} serve", program.display()))?;
    let stderr = child.stderr.take().map(|pipe| thread::spawn(move || last_lines(pipe)));
    Ok((child, stderr))
}

/// Reads until the pipe ends, so that the child never blocks on it; keeps the last lines.
fn last_lines(pipe: impl Read) -> VecDeque<String> {
    let mut reader = BufReader::new(pipe);
    let mut lines = VecDeque::new();
    loop {
        let mut line = Vec::new();
        match reader.by_ref().take(LINE_MAX).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return lines,
            Ok(_) => {
                if lines.len() == LAST_LINES {
                    lines.pop_front();
                }
                lines.push_back(String::from_utf8_lossy(&line).trim_end().to_owned());
            }
        }
    }
}

/// The demo's configuration: what a small one looks like.
fn config_text(
    folder: &Path,
    address: SocketAddr,
    admin: SocketAddr,
    territories: &[Territory<'_>],
    receivers: &[Receiver],
) -> String {
    let quoted = |text: String| toml::Value::String(text).to_string();
    let from = |file: &str| quoted(format!("file:{}", folder.join(file).display()));
    let (secret, token) = (from("app-secret"), from("verify-token"));
    let mut text = format!(
        "# Written by `penstock demo`. Every key there is, with its default: config/penstock.toml\n\n\
         [gateway]\nid = \"demo\"\ndata_dir = {data}\n\n\
         [cores]\ningest = 1\nforward = 1\npin = false\n\n\
         [listen]\naddress = \"{address}\"\n\n\
         [admin]\naddress = \"{admin}\"\n\n\
         [[source]]\nname = \"main\"\nkind = \"whatsapp\"\npath = \"/webhook\"\n\
         secrets = [{secret}]\nverify_tokens = [{token}]\n",
        data = quoted(folder.join("data").display().to_string()),
    );
    for (territory, receiver) in territories.iter().zip(receivers) {
        let countries: Vec<_> = territory.countries.iter().map(|country| format!("\"{country}\"")).collect();
        text += &format!(
            "\n[[region]]\nname = \"{}\"\nendpoint = \"{}\"\ncountries = [{}]\narchive = {}\n",
            territory.name,
            receiver.endpoint(),
            countries.join(", "),
            quoted(format!("file://{}", folder.join(ARCHIVE).join(territory.name).display())),
        );
    }
    let default = territories.first().map_or("", |territory| territory.name);
    text + &format!("\n[routing]\ndefault = \"{default}\"\n\n[journal]\nsegment = \"16MiB\"\n")
        + "\n# So short that files can be looked at while the demo runs.\n[archive]\nroll_after = \"2s\"\n"
}

fn write_private(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| file.write_all(bytes))
        .with_context(|| format!("write {}", path.display()))
}

/// A port that was free a moment ago, below those that the kernel hands out: while the gateway is dead nobody
/// else may get it, and a call to it must not end at the caller itself.
fn free_address() -> anyhow::Result<SocketAddr> {
    /// The kernel's begin at 32768 unless somebody has changed that.
    const PORTS: std::ops::Range<u16> = 10_000..32_000;
    for _ in 0..1000 {
        let random = getrandom::u32().context("draw a random number")?;
        let port = PORTS.start + (random % u32::from(PORTS.end - PORTS.start)) as u16;
        if let Ok(socket) = TcpListener::bind(("127.0.0.1", port)) {
            return socket.local_addr().context("find a free port");
        }
    }
    Err(Failure::new(
        UNAVAILABLE,
        format!("no port from {} to {} is free on 127.0.0.1", PORTS.start, PORTS.end),
    )
    .into())
}

#[allow(clippy::disallowed_methods, reason = "the demo's own thread, no core")]
fn nap(duration: Duration) {
    thread::sleep(duration);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folder_is_private_and_goes_away_unless_kept() {
        use std::os::unix::fs::PermissionsExt;
        let folder = Folder::temporary().unwrap();
        let path = folder.path().to_owned();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        write_private(&path.join("x"), b"y").unwrap();
        drop(folder);
        assert!(!path.exists());

        let outer = tempfile::tempdir().unwrap();
        let path = outer.path().join("kept");
        drop(Folder::kept(&path).unwrap());
        assert!(path.exists());
        assert!(Folder::kept(&path).is_err(), "an existing folder is never written into");
    }

    #[test]
    fn config_is_toml_with_every_region() {
        let (deliveries, _) = std::sync::mpsc::channel();
        let receivers = [Receiver::start("europe", b"s", deliveries).unwrap()];
        let territories = [Territory { name: "europe", countries: &["DE", "FR"] }];
        let address = SocketAddr::from(([127, 0, 0, 1], 8443));
        let text = config_text(Path::new("/tmp/a \"b\""), address, address, &territories, &receivers);
        let config: toml::Table = text.parse().unwrap();
        assert_eq!(config["gateway"]["data_dir"].as_str(), Some("/tmp/a \"b\"/data"));
        assert_eq!(config["region"][0]["countries"][1].as_str(), Some("FR"));
        assert_eq!(config["region"][0]["archive"].as_str(), Some("file:///tmp/a \"b\"/archive/europe"));
        assert_eq!(config["routing"]["default"].as_str(), Some("europe"));
    }

    #[test]
    fn last_words_are_kept_and_bounded() {
        let text: String = (0..100).map(|line| format!("line {line}\n")).collect();
        let lines = last_lines(text.as_bytes());
        assert_eq!(lines.len(), LAST_LINES);
        assert_eq!(lines.back().unwrap(), "line 99");
    }
}
