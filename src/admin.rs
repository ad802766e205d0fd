//! The admin listener: is it alive, does it take webhooks, what does it count.
//!
//! Runs on the side thread under tokio, on an address of its own, and asks no core: it reads their
//! cells. What it says of dead letters ([`dead`]) needs a token, and nothing else does.
//!
//! A page in a browser can reach a loopback port under a name of its own (DNS rebinding), so a request
//! whose `Host` is neither an address, nor a loopback name, nor one of `AdminState::names` gets 421.

use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::json;
use tokio::net::TcpListener;

use crate::config::Secret;
use crate::dead::Office;
use crate::metrics::archive::ArchiveCells;
use crate::metrics::render::Registry;
use crate::metrics::text;

pub mod dead;

/// How long open requests may take once the listener is told to stop: a scrape needs milliseconds.
const GRACE: Duration = Duration::from_secs(2);

/// Where the process is in its life. Set by whoever starts and stops the cores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    /// Reading the journals, starting cores.
    Starting = 0,
    /// Listening.
    Serving = 1,
    /// Told to stop: finishing what is open, taking nothing new.
    Draining = 2,
}

/// What the admin listener knows.
#[derive(Debug)]
pub struct AdminState {
    registry: Arc<Registry>,
    phase: AtomicU8,
    names: Vec<String>,
    access: dead::Access,
}

impl AdminState {
    /// Starts in [`Phase::Starting`]. `names` are host names, besides loopback and addresses, under which
    /// this listener may be asked for; `token` is who may ask for dead letters.
    pub fn new(registry: Arc<Registry>, names: Vec<String>, token: Option<&Secret>) -> Self {
        let phase = AtomicU8::new(Phase::Starting as u8);
        Self { registry, phase, names, access: dead::Access::new(token) }
    }

    /// From now on dead letters can be asked for.
    pub fn open_office(&self, office: Office) {
        // There is one start in a process.
        self.access.office.set(office).ok();
    }

    pub fn set_phase(&self, phase: Phase) {
        self.phase.store(phase as u8, Relaxed);
    }

    pub fn phase(&self) -> Phase {
        match self.phase.load(Relaxed) {
            0 => Phase::Starting,
            1 => Phase::Serving,
            _ => Phase::Draining,
        }
    }

    /// `Err` with the reason unless every ingest core takes webhooks. The cores' part is read from their
    /// own cells: a shared word would let the last core that writes hide the others.
    pub fn ready(&self) -> Result<(), String> {
        match self.phase() {
            Phase::Starting => return Err("starting: the journals are being read".into()),
            Phase::Draining => return Err("draining: told to stop, takes no new webhooks".into()),
            Phase::Serving => {}
        }
        let cores = &self.registry.ingest;
        let closed = cores.iter().filter(|cells| cells.accepting.get() == 0).count();
        match closed {
            0 => Ok(()),
            _ => Err(format!(
                "{closed} of {} ingest cores take no webhooks: a journal is full or failed; \
                 free space in gateway.data_dir, the log has the cause",
                cores.len()
            )),
        }
    }
}

/// Answers until `shutdown` resolves; then open requests get two seconds.
pub async fn serve(
    listener: TcpListener,
    state: Arc<AdminState>,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let (stop, stopped) = tokio::sync::oneshot::channel();
    let server = axum::serve(listener, router(state)).with_graceful_shutdown(async move {
        shutdown.await;
        // Fails only if the server is gone already.
        stop.send(()).ok();
    });
    let overdue = async {
        match stopped.await {
            Ok(()) => tokio::time::sleep(GRACE).await,
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        ended = server => ended,
        () = overdue => Ok(()),
    }
}

fn router(state: Arc<AdminState>) -> Router {
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/api/v1/archive/heads", get(heads))
        .merge(dead::router())
        .fallback(async || {
            (
                StatusCode::NOT_FOUND,
                "not here: there are /healthz, /readyz, /metrics, /api/v1/archive/heads and /api/v1/dead\n",
            )
        })
        .layer(middleware::from_fn_with_state(Arc::clone(&state), guard))
        .with_state(state)
}

async fn readyz(State(state): State<Arc<AdminState>>) -> Response {
    match state.ready() {
        Ok(()) => "ready\n".into_response(),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")).into_response(),
    }
}

async fn metrics(State(state): State<Arc<AdminState>>) -> Response {
    ([(header::CONTENT_TYPE, text::CONTENT_TYPE)], state.registry.render()).into_response()
}

/// The newest link of every archive's chain, to be kept elsewhere: no secret, and worth nothing unless it spreads.
async fn heads(State(state): State<Arc<AdminState>>) -> Response {
    let archives = state.registry.regions.iter().zip(state.registry.archive.iter());
    let chain = |(region, cells): (&String, &ArchiveCells)| {
        cells
            .head
            .borrow()
            .as_ref()
            .map(|(number, hash)| json!({ "region": region, "number": number, "hash": hash }))
    };
    let heads = json!(archives.filter_map(chain).collect::<Vec<_>>());
    ([(header::CONTENT_TYPE, "application/json")], format!("{heads}\n")).into_response()
}

/// Refuses a foreign host and marks every answer as what its type says, and as not to be kept.
async fn guard(State(state): State<Arc<AdminState>>, request: Request, next: Next) -> Response {
    let mut response = if is_ours(&request, &state.names) {
        next.run(request).await
    } else {
        let text = "asked for under a foreign host name; use the address of the admin listener\n";
        (StatusCode::MISDIRECTED_REQUEST, text).into_response()
    };
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Every host that the request names, in its target and in its head, must be ours. A request without any
/// is no browser's.
fn is_ours(request: &Request, names: &[String]) -> bool {
    let target = request.uri().authority().map(|authority| authority.as_str());
    let heads = request.headers().get_all(header::HOST).iter();
    target.into_iter().all(|host| host_is_ours(host, names))
        && heads.map(HeaderValue::to_str).all(|host| host.is_ok_and(|host| host_is_ours(host, names)))
}

/// `authority` is `host[:port]`; the port is not looked at, since port forwarding changes it.
fn host_is_ours(authority: &str, names: &[String]) -> bool {
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    };
    let literal = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    let name = host.to_ascii_lowercase();
    let name = name.strip_suffix('.').unwrap_or(&name);
    literal.parse::<IpAddr>().is_ok()
        || name == "localhost"
        || name.ends_with(".localhost")
        || names.iter().any(|own| own.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{SocketAddr, TcpStream};

    use super::*;
    use crate::metrics::lint::lint;

    /// A listener on a thread of its own; dropping it stops it.
    struct Running {
        address: SocketAddr,
        state: Arc<AdminState>,
        stop: Option<tokio::sync::oneshot::Sender<()>>,
        thread: Option<std::thread::JoinHandle<io::Result<()>>>,
    }

    fn start() -> Running {
        let registry = Arc::new(Registry::new(vec!["main".into()], vec!["eu".into()], 2, 1, Arc::default()));
        let state = Arc::new(AdminState::new(registry, vec!["edge-1.example".into()], None));
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        socket.set_nonblocking(true).unwrap();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let shared = Arc::clone(&state);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = TcpListener::from_std(socket).unwrap();
                serve(listener, shared, async { stopped.await.unwrap_or(()) }).await
            })
        });
        Running { address, state, stop: Some(stop), thread: Some(thread) }
    }

    impl Running {
        fn ask(&self, request: &str) -> String {
            let mut stream = TcpStream::connect(self.address).unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            stream.write_all(request.as_bytes()).unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            answer
        }

        fn get(&self, path: &str) -> String {
            self.ask(&format!("GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.address))
        }
    }

    impl Drop for Running {
        fn drop(&mut self) {
            drop(self.stop.take());
            self.thread.take().unwrap().join().unwrap().unwrap();
        }
    }

    #[track_caller]
    fn starts(answer: &str, status: &str) {
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "expected {status}: {answer}");
        assert!(answer.contains("\r\nx-content-type-options: nosniff\r\n"), "{answer}");
    }

    #[test]
    fn ready_only_while_every_ingest_core_takes_webhooks() {
        let admin = start();
        let check = |status: &str, text: &str| {
            let answer = admin.get("/readyz");
            starts(&answer, status);
            assert!(answer.contains(text), "expected {text}: {answer}");
            starts(&admin.get("/healthz"), "200");
        };
        let cores = &admin.state.registry.ingest;
        check("503", "starting");
        admin.state.set_phase(Phase::Serving);
        check("503", "2 of 2");
        cores[0].accepting.set(1);
        check("503", "1 of 2");
        cores[1].accepting.set(1);
        check("200", "ready");
        admin.state.set_phase(Phase::Draining);
        check("503", "draining");
    }

    #[test]
    fn scrape_is_well_formed_and_says_its_type() {
        let answer = start().get("/metrics");
        starts(&answer, "200");
        assert!(answer.contains(&format!("\r\ncontent-type: {}\r\n", text::CONTENT_TYPE)), "{answer}");
        let samples = lint(answer.split_once("\r\n\r\n").unwrap().1).unwrap();
        assert_eq!(samples["penstock_ingest_cores"], 2.0);
    }

    #[test]
    fn head_get_and_nothing_else() {
        let admin = start();
        let check = |method: &str, path: &str, status: &str| {
            let request = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
            let answer = admin.ask(&request);
            starts(&answer, status);
            answer
        };
        let head = check("HEAD", "/metrics", "200");
        assert!(head.ends_with("\r\n\r\n"), "a HEAD has no body: {head}");
        assert!(check("POST", "/metrics", "405").contains("\r\nallow: GET,HEAD\r\n"));
        check("DELETE", "/readyz", "405");
        check("GET", "/", "404");
        check("GET", "/metrics/", "404");
    }

    #[test]
    fn foreign_host_is_misdirected() {
        let admin = start();
        let check = |request: &str, status: &str| {
            let request = request.replace('\n', "\r\n");
            starts(&admin.ask(&request), status);
        };
        check("GET /metrics HTTP/1.1\nHost: rebound.example\nConnection: close\n\n", "421");
        check("GET http://rebound.example/metrics HTTP/1.1\nHost: localhost\nConnection: close\n\n", "421");
        check("GET /metrics HTTP/1.1\nHost: localhost\nHost: rebound.example\nConnection: close\n\n", "421");
        check("GET /metrics HTTP/1.1\nHost: Edge-1.example:9090\nConnection: close\n\n", "200");
    }

    #[test]
    fn hosts_that_no_stranger_can_point_here_are_ours() {
        let check = |host: &str, ours: bool| assert_eq!(host_is_ours(host, &["gate".into()]), ours, "{host}");
        for host in [
            "localhost",
            "LOCALHOST:9090",
            "a.localhost",
            "localhost.",
            "127.0.0.1:1",
            "[::1]:9090",
            "[::1]",
            "10.1.2.3",
            "gate:80",
        ] {
            check(host, true);
        }
        for host in [
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example:80",
            "notlocalhost",
            "",
            "[evil]",
            "gate.evil",
        ] {
            check(host, false);
        }
    }

    #[test]
    fn stops_although_a_client_never_finishes_its_request() {
        let admin = start();
        let mut stuck = TcpStream::connect(admin.address).unwrap();
        stuck.write_all(b"GET /metrics HTTP/1.1\r\nHost: loc").unwrap();
        starts(&admin.get("/healthz"), "200");
        let start = std::time::Instant::now();
        drop(admin);
        assert!(start.elapsed() < GRACE * 3, "{:?}", start.elapsed());
    }
}
