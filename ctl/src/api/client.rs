//! The client side of the API.
//!
//! One request is one connection, made on a runtime of the calling thread, so that no thread outlives a call and the process
//! may fork afterwards. A daemon is started where none answers.

use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::signal::unix::{SignalKind, signal};

use crate::api::types::{
    CAPTURE_HEADER, ErrorBody, EtcFiles, EventMessage, NodeCreate, NodeCreated, NodeDetail,
};
use crate::daemon::place::Place;
use crate::daemon::uplink::Uplink;
use crate::daemon::{clock, keeper};
use crate::namespace::channel;
use crate::paths;

/// How long a daemon may take to start.
const START_MAX: Duration = Duration::from_secs(10);

/// Pause before a daemon is looked for again while another process holds its place.
const RETRY_PAUSE: Duration = Duration::from_millis(20);

/// How long a socket that accepts may take to answer before it counts as dead: a killed daemon's sockets outlive it by the time
/// the kernel needs to take its rings apart, and a restart takes less.
const PROBE_MAX: Duration = Duration::from_secs(6);

/// Why a verb failed: what the user reads, and what the process returns.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failure {
    /// One line: what failed, why, what to do.
    pub message: String,
    /// The exit code; 1 for a refusal.
    pub code: i32,
}

impl Failure {
    /// A refusal or a failed operation.
    pub fn new(message: impl Into<String>) -> Failure {
        Failure { message: message.into(), code: 1 }
    }
}

/// How long what is left of a capture may take to come.
const CAPTURE_REST_MAX: Duration = Duration::from_secs(5);

/// What is wanted of a capture next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wanted {
    /// More of it.
    More,
    /// Its end, and what is left until then.
    End,
    /// Nothing, not even that.
    Nothing,
}

/// What the daemon has under a name, an id or the start of an id.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Lookup<T> {
    /// This.
    There(T),
    /// Nothing.
    Absent,
    /// It does not say, since the word may mean several: the refusal that tells so.
    Several(Failure),
}

impl<T> Lookup<T> {
    /// The same of what is made of the thing.
    pub fn map<U>(self, make: impl FnOnce(T) -> U) -> Lookup<U> {
        match self {
            Lookup::There(thing) => Lookup::There(make(thing)),
            Lookup::Absent => Lookup::Absent,
            Lookup::Several(refusal) => Lookup::Several(refusal),
        }
    }
}

/// How a capture ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CaptureEnd {
    /// As asked.
    Asked,
    /// What was captured is not there any more.
    Over,
}

/// A daemon that answered.
#[derive(Clone, Debug)]
pub struct Client {
    api: PathBuf,
}

impl Client {
    /// The daemon at `host`, at `$PORTOLAN_HOST`, or the user's own; the last is started where none answers.
    pub fn open(host: Option<&Path>) -> Result<Client, Failure> {
        let deadline = clock::instant() + START_MAX;
        loop {
            if let Some(client) = Client::find(host)? {
                return Ok(client);
            }
            // Whoever holds the state directory is about to answer, or about to be gone.
            match start_daemon(deadline) {
                Err(failure)
                    if failure.code == i32::from(keeper::ALREADY_SERVED)
                        && clock::instant() < deadline =>
                {
                    std::thread::sleep(RETRY_PAUSE);
                }
                Err(failure) => return Err(Failure::new(failure.message)),
                Ok(()) => {}
            }
        }
    }

    /// As [`Client::open`], but starts none. A named one that does not answer is a failure, and so is one that serves others.
    pub fn find(host: Option<&Path>) -> Result<Option<Client>, Failure> {
        if paths::inside_node() {
            return Err(Failure::new(
                "this is a node: the daemon is out of its reach; run portolan on the host",
            ));
        }
        let named = host
            .map(PathBuf::from)
            .or_else(|| std::env::var_os("PORTOLAN_HOST").map(PathBuf::from));
        if let Some(api) = named {
            return match probe(&api) {
                Probed::Answers => Ok(Some(Client { api })),
                Probed::Refuses(refusal) => Err(refusal),
                Probed::Silent(why) => Err(Failure::new(format!(
                    "no daemon answers at {}: {}",
                    api.display(),
                    why.message
                ))),
            };
        }
        let written = Place::read(&paths::state_dir()).map(|place| place.socket);
        let usual =
            Some(paths::runtime_dir().join("api.sock")).filter(|api| Some(api) != written.as_ref());
        let mut refused = None;
        for api in written.into_iter().chain(usual) {
            match probe(&api) {
                Probed::Answers => return Ok(Some(Client { api })),
                Probed::Refuses(refusal) => refused = Some(refusal),
                Probed::Silent(_) => {}
            }
        }
        refused.map_or(Ok(None), Err)
    }

    /// The daemon that serves `api`, without looking whether it answers.
    pub fn at(api: &Path) -> Client {
        Client { api: api.into() }
    }

    /// The API socket.
    pub fn socket(&self) -> &Path {
        &self.api
    }

    /// `GET path`.
    pub fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        self.call(Method::GET, path, Bytes::new())
    }

    /// `GET path`; none where what it names is not there.
    pub fn get_if_there<T: DeserializeOwned>(&self, path: &str) -> Result<Option<T>, Failure> {
        match self.look_up(path)? {
            Lookup::There(found) => Ok(Some(found)),
            Lookup::Absent => Ok(None),
            Lookup::Several(refusal) => Err(refusal),
        }
    }

    /// `GET path`, whose last part is a word that names a network or a node.
    ///
    /// # Errors
    /// The daemon did not answer, or failed.
    pub fn look_up<T: DeserializeOwned>(&self, path: &str) -> Result<Lookup<T>, Failure> {
        runtime()?.block_on(async {
            let response = exchange(&self.api, Method::GET, path, Bytes::new()).await?;
            let status = response.status();
            if status == StatusCode::NOT_FOUND {
                return Ok(Lookup::Absent);
            }
            match accepted(response, path).await {
                Ok(response) => read(response, path).await.map(Lookup::There),
                Err(refusal) if status == StatusCode::BAD_REQUEST => Ok(Lookup::Several(refusal)),
                Err(failure) => Err(failure),
            }
        })
    }

    /// `POST path` with a JSON body.
    pub fn post<B: Serialize, T: DeserializeOwned>(
        &self,
        path: &str,
        body: &B,
    ) -> Result<T, Failure> {
        let body = serde_json::to_vec(body).map_err(|e| Failure::new(e.to_string()))?;
        self.call(Method::POST, path, body.into())
    }

    /// `DELETE path`.
    pub fn delete<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        self.call(Method::DELETE, path, Bytes::new())
    }

    /// Follows `GET path` as a stream of events until `each` returns false or the daemon ends.
    pub fn events(
        &self,
        path: &str,
        each: &mut dyn FnMut(EventMessage) -> bool,
    ) -> Result<(), Failure> {
        runtime()?.block_on(async {
            let mut body = send(&self.api, Method::GET, path, Bytes::new()).await?.into_body();
            let mut text = Vec::new();
            while let Some(frame) = body.frame().await {
                let frame = frame.map_err(|e| Failure::new(format!("the daemon hung up: {e}")))?;
                let Some(data) = frame.data_ref() else { continue };
                text.extend_from_slice(data);
                while let Some(end) = text.iter().position(|byte| *byte == b'\n') {
                    let line: Vec<u8> = text.drain(..=end).collect();
                    let Some(event) = line.strip_prefix(b"data:") else { continue };
                    let event = serde_json::from_slice(event);
                    if !each(event.map_err(|e| Failure::new(format!("a malformed event: {e}")))?) {
                        return Ok(());
                    }
                }
            }
            Ok(())
        })
    }

    /// Follows `GET path` as a capture. Each chunk goes to `each`, which says what is wanted next. The capture is ended when
    /// that is its end, after `duration`, or by SIGINT, SIGTERM or SIGHUP; what is left then still comes, with the final
    /// counts.
    ///
    /// # Errors
    /// What the daemon refused, or that it has ended.
    pub fn capture(
        &self,
        path: &str,
        duration: Option<Duration>,
        each: &mut dyn FnMut(&[u8]) -> Wanted,
    ) -> Result<CaptureEnd, Failure> {
        runtime()?.block_on(async {
            let caught = |kind| signal(kind).map_err(|e| Failure::new(format!("signals: {e}")));
            let mut interrupt = caught(SignalKind::interrupt())?;
            let mut terminate = caught(SignalKind::terminate())?;
            let mut hangup = caught(SignalKind::hangup())?;
            let response = send(&self.api, Method::GET, path, Bytes::new()).await?;
            let number = response.headers().get(CAPTURE_HEADER).and_then(|n| n.to_str().ok());
            let end = format!("/v1/captures/{}", number.unwrap_or_default());
            let mut body = response.into_body();
            let over = tokio::time::sleep(duration.unwrap_or(Duration::MAX));
            tokio::pin!(over);
            let mut asked = false;
            loop {
                let wanted = tokio::select! {
                    frame = body.frame() => match frame {
                        None if asked => return Ok(CaptureEnd::Asked),
                        None => return Ok(CaptureEnd::Over),
                        Some(Err(_)) => return Err(Failure::new(
                            "the daemon has ended, and the capture with it",
                        )),
                        Some(Ok(frame)) => match frame.data_ref().map(|data| each(data)) {
                            Some(Wanted::End) if asked => Wanted::More,
                            wanted => wanted.unwrap_or(Wanted::More),
                        },
                    },
                    _ = interrupt.recv() => Wanted::End,
                    _ = terminate.recv() => Wanted::End,
                    _ = hangup.recv() => Wanted::End,
                    () = &mut over => Wanted::End,
                };
                match wanted {
                    Wanted::More => continue,
                    // Whoever asks again does not want to wait for the rest.
                    Wanted::End if asked => return Ok(CaptureEnd::Asked),
                    Wanted::End => {}
                    Wanted::Nothing => return Ok(CaptureEnd::Asked),
                }
                asked = true;
                over.as_mut().reset(tokio::time::Instant::now() + CAPTURE_REST_MAX);
                // Where that fails, the stream ends or the time passes.
                let _ = send(&self.api, Method::DELETE, &end, Bytes::new()).await;
            }
        })
    }

    /// Hands a process (its pidfd), or a network namespace, to the daemon, which wires it. Returns the node, its files of
    /// /etc, and what the user should know.
    pub fn create_node(
        &self,
        spec: &NodeCreate,
        inside: BorrowedFd<'_>,
    ) -> Result<(NodeDetail, EtcFiles, Vec<String>), Failure> {
        let wires = self.api.with_file_name("wires.sock");
        let socket = connect_wires(&wires).map_err(|e| {
            Failure::new(format!("cannot reach the daemon at {}: {e}", wires.display()))
        })?;
        let lost = |e| {
            Failure::new(format!(
                "the daemon hung up: {e}; look at daemon.log in its state directory"
            ))
        };
        channel::send(socket.as_fd(), spec, &[inside]).map_err(lost)?;
        match channel::receive(socket.as_fd(), None).map_err(lost)?.0 {
            NodeCreated::Ready { node, etc, warnings } => Ok((*node, etc, warnings)),
            NodeCreated::Refused(refusal) => Err(Failure::new(refusal.message)),
        }
    }

    fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<T, Failure> {
        runtime()?.block_on(async { read(send(&self.api, method, path, body).await?, path).await })
    }
}

/// What an answer says.
async fn read<T: DeserializeOwned>(response: Response<Incoming>, path: &str) -> Result<T, Failure> {
    let body = response.into_body().collect().await;
    let body = body.map_err(|e| Failure::new(format!("the daemon hung up: {e}")))?.to_bytes();
    let body: &[u8] = if body.is_empty() { b"null" } else { &body };
    serde_json::from_slice(body)
        .map_err(|e| Failure::new(format!("a malformed answer to {path}: {e}")))
}

/// One request; the response, or what the daemon said against it.
async fn send(
    api: &Path,
    method: Method,
    path: &str,
    body: Bytes,
) -> Result<Response<Incoming>, Failure> {
    accepted(exchange(api, method, path, body).await?, path).await
}

/// One request and its response, whatever that says.
async fn exchange(
    api: &Path,
    method: Method,
    path: &str,
    body: Bytes,
) -> Result<Response<Incoming>, Failure> {
    let lost = |e: &dyn std::fmt::Display| {
        Failure::new(format!("no answer from the daemon at {}: {e}", api.display()))
    };
    let stream = tokio::net::UnixStream::connect(api).await.map_err(|e| lost(&e))?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| lost(&e))?;
    tokio::spawn(connection);
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("Host", "portolan")
        .header("Content-Type", "application/json")
        .body(Full::new(body))
        .map_err(|e| Failure::new(format!("{path}: {e}")))?;
    sender.send_request(request).await.map_err(|e| lost(&e))
}

/// The response where it is what was asked for, or what it says against it.
async fn accepted(response: Response<Incoming>, path: &str) -> Result<Response<Incoming>, Failure> {
    if response.status().is_success() {
        return Ok(response);
    }
    let status = response.status();
    let body = response.into_body().collect().await;
    let body = body.map_err(|e| Failure::new(format!("the daemon hung up: {e}")))?.to_bytes();
    match serde_json::from_slice::<ErrorBody>(&body) {
        Ok(refusal) => Err(Failure::new(refusal.message)),
        Err(_) => Err(Failure::new(format!("the daemon answered {status} to {path}"))),
    }
}

fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    let built = tokio::runtime::Builder::new_current_thread().enable_all().build();
    built.map_err(|e| Failure::new(format!("cannot start: {e}")))
}

/// What is found at a socket.
enum Probed {
    /// A daemon that answers.
    Answers,
    /// A daemon that does not serve us: why.
    Refuses(Failure),
    /// None, or one that does not answer: why.
    Silent(Failure),
}

/// Whether a daemon really answers there, not only a socket.
fn probe(api: &Path) -> Probed {
    let path = "/v1/version";
    let asked = || {
        std::os::unix::net::UnixStream::connect(api).map_err(|e| Failure::new(e.to_string()))?;
        runtime()?.block_on(async {
            let asked = async {
                let response = exchange(api, Method::GET, path, Bytes::new()).await?;
                let status = response.status();
                Ok((status, accepted(response, path).await.map(drop)))
            };
            let answer = tokio::time::timeout(PROBE_MAX, asked).await;
            answer.map_err(|_| Failure::new("it accepts, but does not answer"))?
        })
    };
    match asked() {
        Ok((_, Ok(()))) => Probed::Answers,
        Ok((StatusCode::FORBIDDEN, Err(refusal))) => Probed::Refuses(refusal),
        Ok((_, Err(why))) | Err(why) => Probed::Silent(why),
    }
}

fn connect_wires(path: &Path) -> nix::Result<OwnedFd> {
    let fd = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None)?;
    connect(std::os::fd::AsRawFd::as_raw_fd(&fd), &UnixAddr::new(path)?)?;
    Ok(fd)
}

/// Starts the user's own daemon and waits until it serves, or says why not. It outlives the caller's session.
fn start_daemon(deadline: Instant) -> Result<(), Failure> {
    let state = paths::state_dir();
    paths::private_dir(&state).map_err(Failure::new)?;
    let log = state.join("daemon.log");
    let mut command = Command::new("/proc/self/exe");
    command.arg0("portolan").arg("daemon").arg("--log").arg(&log).current_dir("/");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    // SAFETY: between fork and exec only one system call is made.
    unsafe {
        command.pre_exec(|| Ok(nix::unistd::setsid().map(drop)?));
    }
    let mut child =
        command.spawn().map_err(|e| Failure::new(format!("cannot start a daemon: {e}")))?;
    leave_cgroup(child.id());
    // Its standard error closes when it serves, or when it has said why it cannot.
    let said = child.stderr.take().map(|pipe| read_until(pipe, deadline)).unwrap_or_default();
    loop {
        if Client::find(None)?.is_some() {
            said.lines().for_each(|line| eprintln!("{line}"));
            let outside = match Uplink::kept(&state) {
                Ok(Uplink::None) => " without a way out, as was chosen with --uplink none",
                _ => "",
            };
            eprintln!(
                "portolan: no daemon answered; started one{outside} (its log: {})",
                log.display()
            );
            return Ok(());
        }
        if let Ok(Some(status)) = child.try_wait() {
            let why = said
                .lines()
                .next_back()
                .unwrap_or("the daemon ended without a word; look at its log");
            let message = why.trim_start_matches("portolan: ").into();
            return Err(Failure { message, code: status.code().unwrap_or(1) });
        }
        if clock::instant() >= deadline {
            return Err(Failure::new(format!(
                "the daemon does not answer; look at {}",
                log.display()
            )));
        }
        std::thread::sleep(RETRY_PAUSE);
    }
}

fn read_until(mut pipe: impl Read + AsFd, deadline: Instant) -> String {
    let mut said = Vec::new();
    let mut chunk = [0; 1024];
    loop {
        let left = deadline.saturating_duration_since(clock::instant());
        let mut waiting = [PollFd::new(pipe.as_fd(), PollFlags::POLLIN)];
        let left = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        if !matches!(poll(&mut waiting, left), Ok(1)) {
            break;
        }
        match pipe.read(&mut chunk) {
            Ok(0) | Err(_) => break,
            Ok(n) => said.extend_from_slice(&chunk[..n]),
        }
    }
    String::from_utf8_lossy(&said).into_owned()
}

/// Moves the daemon out of the caller's control groups, as far up as the caller may: a session's end must not take it along.
fn leave_cgroup(pid: u32) {
    let Ok(groups) = std::fs::read_to_string("/proc/self/cgroup") else { return };
    for line in groups.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
        let root = if controllers.is_empty() {
            ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"]
                .iter()
                .map(PathBuf::from)
                .find(|r| r.join("cgroup.procs").exists())
        } else {
            Some(Path::new("/sys/fs/cgroup").join(controllers.trim_start_matches("name=")))
        };
        let Some(root) = root else { continue };
        let below = Path::new(path.trim_start_matches('/'));
        let mut ancestors: Vec<&Path> = below.ancestors().skip(1).collect();
        ancestors.reverse();
        for ancestor in ancestors {
            if std::fs::write(root.join(ancestor).join("cgroup.procs"), pid.to_string()).is_ok() {
                break;
            }
        }
    }
}
