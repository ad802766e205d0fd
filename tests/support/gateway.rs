//! A real gateway process with a data folder of its own.

use std::ffi::OsString;
use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::http::{self, Message};
use super::metrics::Metrics;
use super::ports::free_port;
use super::settings::Settings;
use super::{eventually, loopback};

/// From the start of the process to `/readyz`, recovery of a loaded journal included.
const READY_WITHIN: Duration = Duration::from_secs(20);

#[derive(Debug)]
pub struct Gateway {
    pub settings: Settings,
    pub listen: SocketAddr,
    pub admin: SocketAddr,
    child: Child,
    data: PathBuf,
    folder: TempDir,
}

impl Gateway {
    /// Starts and waits until webhooks are taken.
    pub fn start(settings: Settings) -> Self {
        let folder = TempDir::new().unwrap();
        let data = folder.path().join("data");
        Self::start_in(settings, folder, data)
    }

    /// The same with the data folder somewhere else, e.g. on a file system made for the test.
    pub fn start_on(settings: Settings, data: &Path) -> Self {
        Self::start_in(settings, TempDir::new().unwrap(), data.to_owned())
    }

    fn start_in(settings: Settings, folder: TempDir, data: PathBuf) -> Self {
        fs::create_dir_all(&data).unwrap();
        let (listen, admin) = (free_port(), free_port());
        let config = folder.path().join("penstock.toml");
        fs::write(&config, settings.toml(&data, listen, admin)).unwrap();
        let child = spawn(&settings, &config, &folder.path().join("stderr.log"));
        let mut gateway =
            Self { settings, listen: loopback(listen), admin: loopback(admin), child, data, folder };
        gateway.wait_ready();
        gateway
    }

    /// Starts the same gateway again with another number of cores.
    pub fn restart_with(&mut self, ingest: usize, forward: usize) {
        (self.settings.ingest, self.settings.forward) = (ingest, forward);
        self.start_again();
        self.wait_ready();
    }

    /// Starts again and does not wait until webhooks are taken.
    pub fn start_again(&mut self) {
        assert!(self.child.try_wait().unwrap().is_some(), "the gateway still runs");
        let text = self.settings.toml(&self.data, self.listen.port(), self.admin.port());
        fs::write(self.config(), text).unwrap();
        self.child = spawn(&self.settings, &self.config(), &self.stderr());
    }

    pub fn restart(&mut self) {
        self.restart_with(self.settings.ingest, self.settings.forward);
    }

    /// A second process with the same data folder and other ports; its end and what it said.
    pub fn start_rival(&self) -> (ExitStatus, String) {
        let config = self.folder.path().join("rival.toml");
        let log = self.folder.path().join("rival.log");
        fs::write(&config, self.settings.toml(&self.data, free_port(), free_port())).unwrap();
        let mut rival = spawn(&self.settings, &config, &log);
        let status = wait(&mut rival, READY_WITHIN);
        if status.is_none() {
            rival.kill().unwrap();
            rival.wait().unwrap();
        }
        let said = fs::read_to_string(log).unwrap();
        (status.unwrap_or_else(|| panic!("a second process runs on the same data folder:\n{said}")), said)
    }

    /// kill -9. Returns a moment when nothing runs and what was on its way to the regions has reached
    /// them: every delivery before it is the killed process's, every one after it the next one's.
    pub fn kill9(&mut self) -> Instant {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        std::thread::sleep(Duration::from_millis(50));
        Instant::now()
    }

    /// Starts again and kills after `pause`, ready or not.
    pub fn start_and_kill_after(&mut self, pause: Duration) {
        self.child = spawn(&self.settings, &self.config(), &self.stderr());
        std::thread::sleep(pause);
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts again and asks for a clean end as soon as there is somebody to ask, ready or not.
    pub fn start_and_stop_early(&mut self) -> ExitStatus {
        self.child = spawn(&self.settings, &self.config(), &self.stderr());
        eventually("somebody answers on the admin listener", READY_WITHIN, || {
            http::get(self.admin, "/healthz").is_ok()
        });
        self.send_term();
        self.wait_exit(Duration::from_secs(10))
    }

    /// Asks for a clean end.
    pub fn send_term(&self) {
        self.signal("TERM");
    }

    pub fn signal(&self, name: &str) {
        let kill = format!("kill -{name} {}", self.child.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
    }

    /// SIGTERM; the exit code (`None` after a signal) and how long it took.
    pub fn terminate(&mut self) -> (Option<i32>, Duration) {
        let start = Instant::now();
        self.send_term();
        let status = self.wait_exit(Duration::from_secs(30));
        (status.code(), start.elapsed())
    }

    pub fn wait_exit(&mut self, limit: Duration) -> ExitStatus {
        wait(&mut self.child, limit).unwrap_or_else(|| panic!("the gateway still runs after {limit:?}"))
    }

    /// `None` if it still runs.
    pub fn try_wait_exit(&mut self, limit: Duration) -> Option<ExitStatus> {
        wait(&mut self.child, limit)
    }

    pub fn is_ready(&self) -> bool {
        http::get(self.admin, "/readyz").is_ok_and(|answer| answer.status() == 200)
    }

    pub fn admin_get(&self, target: &str) -> Message {
        http::get(self.admin, target).unwrap_or_else(|e| panic!("GET {target} on the admin listener: {e}"))
    }

    /// `None` while nobody answers.
    pub fn try_metrics(&self) -> Option<Metrics> {
        let answer = http::get(self.admin, "/metrics").ok().filter(|answer| answer.status() == 200)?;
        Some(Metrics::parse(&String::from_utf8(answer.body).unwrap()))
    }

    pub fn metrics(&self) -> Metrics {
        let answer = self.admin_get("/metrics");
        assert_eq!(answer.status(), 200);
        Metrics::parse(&String::from_utf8(answer.body).unwrap())
    }

    /// What the process wrote to stderr, all starts together.
    pub fn said(&self) -> String {
        fs::read_to_string(self.stderr()).unwrap_or_default()
    }

    pub fn wait_ready(&mut self) {
        let deadline = Instant::now() + READY_WITHIN;
        while !self.is_ready() {
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("the gateway ended with {status} before it was ready; it said:\n{}", self.said());
            }
            assert!(Instant::now() < deadline, "not ready within {READY_WITHIN:?}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// The data folder.
    pub fn data(&self) -> &Path {
        &self.data
    }

    pub fn config(&self) -> PathBuf {
        self.folder.path().join("penstock.toml")
    }

    fn stderr(&self) -> PathBuf {
        self.folder.path().join("stderr.log")
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // Already ended is fine.
        self.child.kill().ok();
        self.child.wait().ok();
        if std::thread::panicking() {
            let said = self.said();
            let lines: Vec<&str> = said.lines().collect();
            println!("--- last lines of the gateway's stderr ---");
            lines[lines.len().saturating_sub(60)..].iter().for_each(|line| println!("{line}"));
        }
    }
}

/// Runs the program to its end with `arguments`; exit code, stdout, stderr.
pub fn run(arguments: &[&str]) -> (Option<i32>, String, String) {
    let folder = TempDir::new().unwrap();
    let [stdout, stderr] = ["stdout", "stderr"].map(|name| folder.path().join(name));
    let mut child = Command::new(program())
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(File::create(&stdout).unwrap())
        .stderr(File::create(&stderr).unwrap())
        .spawn()
        .unwrap();
    let status = wait(&mut child, READY_WITHIN);
    if status.is_none() {
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let [stdout, stderr] = [stdout, stderr].map(|path| fs::read_to_string(path).unwrap());
    let status = status.unwrap_or_else(|| panic!("{arguments:?} did not end: {stdout}{stderr}"));
    (status.code(), stdout, stderr)
}

/// The program built with the tests, or the one that `PENSTOCK_BIN` names, e.g. a release build.
fn program() -> OsString {
    std::env::var_os("PENSTOCK_BIN").unwrap_or_else(|| env!("CARGO_BIN_EXE_penstock").into())
}

/// `penstock serve`, as a user starts it.
pub fn serve(config: &Path) -> Command {
    let mut command = Command::new(program());
    command.arg("serve").arg("--config").arg(config);
    command
}

fn spawn(settings: &Settings, config: &Path, log: &Path) -> Child {
    let log = File::options().create(true).append(true).open(log).unwrap();
    (settings.command)(config)
        .envs(settings.environment.iter().map(|(name, value)| (*name, value.as_str())))
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap()
}

fn wait(child: &mut Child, limit: Duration) -> Option<ExitStatus> {
    let deadline = Instant::now() + super::patience(limit);
    loop {
        match child.try_wait().unwrap() {
            None if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(5)),
            status => return status,
        }
    }
}
