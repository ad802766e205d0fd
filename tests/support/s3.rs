//! Real object stores on loopback, each in a folder of its own: MinIO and versitygw, which speak S3, Azurite and
//! fake-gcs-server. Where one is not installed (`.ci/run tools`) the tests that need it say so and check nothing.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::hmac::{self, HMAC_SHA256};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tempfile::TempDir;

use super::http::{Connection, Message};
use super::loopback;
use super::ports::free_port;

pub const USER: &str = "penstock-test";
pub const PASSWORD: &str = "a-password-for-tests";
pub const REGION: &str = "eu-test-1";

/// Account and key that every Azurite has.
pub const AZURITE: (&str, &str) = (
    "devstoreaccount1",
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==",
);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Minio,
    Versity,
    Azurite,
    Google,
}

impl Kind {
    /// Those that speak S3.
    pub const S3: [Self; 2] = [Self::Minio, Self::Versity];
}

/// A store that runs until this is dropped.
pub struct Server {
    pub kind: Kind,
    pub port: u16,
    child: Child,
    folder: TempDir,
}

impl Server {
    /// `None`: it is not installed here. Told, and a failure where everything must be there.
    pub fn start(kind: Kind) -> Option<Self> {
        let (port, folder) = (free_port(), tempfile::tempdir().unwrap());
        let data = folder.path().join("data");
        fs::create_dir(&data).unwrap();
        let log = File::create(folder.path().join("log")).unwrap();
        let Some(mut command) = command(kind, port, folder.path(), &data) else {
            assert!(
                std::env::var_os("PENSTOCK_STORES").is_none(),
                "{kind:?} is not installed: .ci/run tools"
            );
            println!("SKIPPED: {kind:?} is not installed here; archives in it are NOT checked");
            return None;
        };
        let child = command
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut server = Self { kind, port, child, folder };
        server.wait();
        Some(server)
    }

    fn wait(&mut self) {
        let since = Instant::now();
        while !self.is_up() {
            assert!(
                self.child.try_wait().unwrap().is_none() && since.elapsed() < Duration::from_secs(60),
                "{:?} does not start: {}",
                self.kind,
                fs::read_to_string(self.folder.path().join("log")).unwrap()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// It answers, and not only that it cannot yet.
    fn is_up(&self) -> bool {
        match self.kind {
            Kind::Minio | Kind::Versity => {
                self.ask("GET", "/", "", &[]).is_some_and(|reply| reply.status() == 200)
            }
            Kind::Azurite | Kind::Google => TcpStream::connect(loopback(self.port)).is_ok(),
        }
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub fn make_bucket(&self, name: &str) {
        let reply = self.ask("PUT", &format!("/{name}"), "", &[]).unwrap();
        assert_eq!(reply.status(), 200, "{}", String::from_utf8_lossy(&reply.body));
    }

    /// With Object Lock, and so with versions.
    pub fn make_locked_bucket(&self, name: &str) {
        let lock = [("x-amz-bucket-object-lock-enabled", "true")];
        let reply = self.ask("PUT", &format!("/{name}"), "", &lock).unwrap();
        assert_eq!(reply.status(), 200, "{}", String::from_utf8_lossy(&reply.body));
    }

    /// Of Azurite, signed by its shared key.
    pub fn make_container(&self, name: &str) {
        let (account, key) = AZURITE;
        let date = httpdate::fmt_http_date(std::time::SystemTime::now());
        let to_sign = format!(
            "PUT{}x-ms-date:{date}\nx-ms-version:2021-08-06\n/{account}/{account}/{name}\nrestype:container",
            "\n".repeat(12)
        );
        let key = hmac::Key::new(HMAC_SHA256, &STANDARD.decode(key).unwrap());
        let signature = STANDARD.encode(hmac::sign(&key, to_sign.as_bytes()));
        let head = format!(
            "PUT /{account}/{name}?restype=container HTTP/1.1\r\nhost: 127.0.0.1:{}\r\ncontent-length: 0\r\n\
             x-ms-date: {date}\r\nx-ms-version: 2021-08-06\r\nauthorization: SharedKey {account}:{signature}\r\n\r\n",
            self.port
        );
        let mut connection = Connection::open(loopback(self.port), Duration::from_secs(30)).unwrap();
        connection.send(head.as_bytes()).unwrap();
        let reply = connection.answer().unwrap();
        assert_eq!(reply.status(), 201, "{}", String::from_utf8_lossy(&reply.body));
    }

    /// Ids of all versions of a key, delete markers too.
    pub fn versions(&self, bucket: &str, key: &str) -> Vec<String> {
        let reply = self
            .ask("GET", &format!("/{bucket}"), &format!("prefix={}&versions=", encoded(key)), &[])
            .unwrap();
        assert_eq!(reply.status(), 200);
        let text = String::from_utf8(reply.body).unwrap();
        text.split("<VersionId>").skip(1).map(|rest| rest.split('<').next().unwrap().to_owned()).collect()
    }

    /// Keys with uploads that were begun and not ended. MinIO lists them for whole keys alone.
    pub fn uploads(&self, bucket: &str, key: &str) -> usize {
        let reply = self
            .ask("GET", &format!("/{bucket}"), &format!("prefix={}&uploads=", encoded(key)), &[])
            .unwrap();
        assert_eq!(reply.status(), 200);
        String::from_utf8(reply.body).unwrap().matches("<UploadId>").count()
    }

    /// A header of what stands at a path.
    pub fn head(&self, path: &str, header: &str) -> Option<String> {
        let host = format!("127.0.0.1:{}", self.port);
        let mut stream = TcpStream::connect(loopback(self.port)).unwrap();
        stream.write_all(signed("HEAD", &host, path, "", &[], b"").as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        let lines = answer.lines().filter_map(|line| line.split_once(": "));
        lines.filter(|(name, _)| name.eq_ignore_ascii_case(header)).map(|(_, value)| value.to_owned()).next()
    }

    /// All keys of a bucket.
    pub fn keys(&self, bucket: &str) -> Vec<String> {
        let (mut keys, mut more) = (Vec::new(), String::new());
        loop {
            let query = format!("{more}list-type=2");
            let reply = self.ask("GET", &format!("/{bucket}"), &query, &[]).unwrap();
            let (status, text) = (reply.status(), String::from_utf8(reply.body).unwrap());
            assert_eq!(status, 200, "{text}");
            let value = |rest: &str| rest.split('<').next().unwrap().to_owned();
            keys.extend(text.split("<Key>").skip(1).map(value));
            match text.split("<NextContinuationToken>").nth(1).map(value) {
                Some(token) => more = format!("continuation-token={}&", encoded(&token)),
                None => return keys,
            }
        }
    }

    pub fn get(&self, bucket: &str, key: &str) -> Vec<u8> {
        let path = format!("/{bucket}/{}", key.replace('=', "%3D"));
        let reply = self.ask("GET", &path, "", &[]).unwrap();
        assert_eq!(reply.status(), 200, "{key}: {}", String::from_utf8_lossy(&reply.body));
        reply.body
    }

    /// Ends it; its folder stays.
    pub fn stop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// As it was before [`Server::stop`].
    pub fn start_again(&mut self) {
        let data = self.folder.path().join("data");
        let log = File::create(self.folder.path().join("log")).unwrap();
        let mut command = command(self.kind, self.port, self.folder.path(), &data).unwrap();
        let command = command.current_dir(self.folder.path()).stdin(Stdio::null());
        self.child = command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        self.wait();
    }

    /// Of its process, e.g. "STOP": it accepts connections then and does not answer.
    pub fn signal(&self, name: &str) {
        let arguments = [format!("-{name}"), self.child.id().to_string()];
        assert!(Command::new("kill").args(arguments).status().unwrap().success());
    }

    /// Sends a request as its owner and reads the answer. `path` and `query` as they go over the wire, the query sorted.
    pub fn ask(&self, method: &str, path: &str, query: &str, headers: &[(&str, &str)]) -> Option<Message> {
        self.send(method, path, query, headers, b"")
    }

    pub fn send(
        &self,
        method: &str,
        path: &str,
        query: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Option<Message> {
        let host = format!("127.0.0.1:{}", self.port);
        let head = signed(method, &host, path, query, headers, body);
        let mut connection = Connection::open(loopback(self.port), Duration::from_secs(30)).ok()?;
        connection.send(head.as_bytes()).ok()?;
        connection.send(body).ok()?;
        connection.answer().ok()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn tool(name: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools").join(name);
    path.exists().then_some(path)
}

fn command(kind: Kind, port: u16, folder: &Path, data: &Path) -> Option<Command> {
    let address = format!("127.0.0.1:{port}");
    let port = port.to_string();
    let mut command;
    match kind {
        Kind::Minio => {
            command = Command::new(tool("bin/minio")?);
            command
                .args(["server", "--quiet", "--address", &address])
                .arg(data)
                // Else its console listens on every interface.
                .env("MINIO_BROWSER", "off")
                .env("MINIO_UPDATE", "off")
                .env("MINIO_SITE_REGION", REGION)
                .env("MINIO_ROOT_USER", USER)
                .env("MINIO_ROOT_PASSWORD", PASSWORD)
                .env("HOME", folder);
        }
        Kind::Versity => {
            command = Command::new(tool("bin/versitygw")?);
            let versions = folder.join("versions");
            fs::create_dir_all(&versions).unwrap();
            command
                .args([
                    "--port", &address, "--access", USER, "--secret", PASSWORD, "--region", REGION, "posix",
                ])
                .arg("--versioning-dir")
                .arg(versions)
                .arg(data);
        }
        Kind::Azurite => {
            command = Command::new(tool("azurite/node_modules/.bin/azurite-blob")?);
            command
                .args(["--silent", "--skipApiVersionCheck", "--disableTelemetry", "--blobHost", "127.0.0.1"])
                .args(["--blobPort", &port, "--location"])
                .arg(data);
        }
        Kind::Google => {
            command = Command::new(tool("bin/fake-gcs-server")?);
            let url = format!("http://{address}");
            command
                .args(["-scheme", "http", "-host", "127.0.0.1", "-port", &port, "-public-host", &address])
                .args(["-external-url", &url, "-backend", "filesystem", "-filesystem-root"])
                .arg(data);
        }
    }
    Some(command)
}

/// The head of a request, with AWS's signature version 4.
fn signed(
    method: &str,
    host: &str,
    path: &str,
    query: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> String {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let now = humantime::format_rfc3339_seconds(std::time::SystemTime::now()).to_string();
    let date = now.replace(['-', ':'], "");
    let day = &date[..8];
    let sum = hex(digest(&SHA256, body).as_ref());
    let mut all: Vec<(String, String)> =
        headers.iter().map(|(n, v)| (n.to_string(), v.to_string())).collect();
    for (name, value) in [("host", host), ("x-amz-content-sha256", &sum), ("x-amz-date", &date)] {
        all.push((name.to_owned(), value.to_owned()));
    }
    all.sort();
    let lines: String = all.iter().map(|(name, value)| format!("{name}:{value}\n")).collect();
    let names: Vec<&str> = all.iter().map(|(name, _)| name.as_str()).collect();
    let names = names.join(";");
    let request = format!("{method}\n{path}\n{query}\n{lines}\n{names}\n{sum}");
    let scope = format!("{day}/{REGION}/s3/aws4_request");
    let to_sign =
        format!("AWS4-HMAC-SHA256\n{date}\n{scope}\n{}", hex(digest(&SHA256, request.as_bytes()).as_ref()));
    let sign = |key: &[u8], text: &str| {
        hmac::sign(&hmac::Key::new(HMAC_SHA256, key), text.as_bytes()).as_ref().to_vec()
    };
    let key = sign(format!("AWS4{PASSWORD}").as_bytes(), day);
    let key = ["s3", "aws4_request"].iter().fold(sign(&key, REGION), |key, text| sign(&key, text));
    let signature = hex(&sign(&key, &to_sign));
    let target = if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") };
    let mut head =
        format!("{method} {target} HTTP/1.1\r\nconnection: close\r\ncontent-length: {}\r\n", body.len());
    for (name, value) in &all {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str(&format!(
        "authorization: AWS4-HMAC-SHA256 Credential={USER}/{scope}, SignedHeaders={names}, Signature={signature}\r\n\r\n"
    ));
    head
}

fn encoded(key: &str) -> String {
    key.replace('/', "%2F").replace('=', "%3D").replace('+', "%2B").replace(':', "%3A")
}
