//! The server side of the API: HTTP/1.1 with JSON over a Unix socket, each route one call of the daemon.
//!
//! Whoever connects is checked before a byte is read: a guest's processes run under the user's uid on the same files, so only
//! a peer of the daemon's own user namespace is served. Requests, headers and connections are bounded in size, number and
//! time.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::body::Body as Chunks;
use axum::extract::{DefaultBodyLimit, Json, Path, Query, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::sse::{Event, Sse};
use axum::response::{AppendHeaders, IntoResponse, Response};
use axum::routing::{delete, get, post};
use axum::{Router, extract::FromRequest, extract::FromRequestParts};
use futures_util::{Stream, StreamExt, stream};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::net::UnixListener;
use tokio::sync::Semaphore;
use tokio_stream::wrappers::{BroadcastStream, ReceiverStream};

use crate::api::exposition;
use crate::api::types::*;
use crate::daemon::Daemon;
use crate::daemon::capture::Stream as Captured;
use crate::daemon::clock;
use crate::daemon::log::say;
use crate::namespace::user;
use crate::topology::{Refusal, RefusalKind};

/// Connections served at a time; more wait to be accepted.
const CONNECTIONS_MAX: usize = 256;

/// A client has this long to send its headers.
const HEADERS_MAX: Duration = Duration::from_secs(10);

/// And as long again to send the body.
const BODY_WAIT: Duration = Duration::from_secs(10);

/// Largest body of a request, bytes.
const BODY_MAX: usize = 1 << 20;

/// Longest wait that `stop` may ask for, seconds.
const STOP_MAX: u64 = 3600;

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = match self.kind {
            RefusalKind::Invalid => StatusCode::BAD_REQUEST,
            RefusalKind::NotFound => StatusCode::NOT_FOUND,
            RefusalKind::Conflict => StatusCode::CONFLICT,
            RefusalKind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        };
        (status, Json(ErrorBody { message: self.message })).into_response()
    }
}

impl From<JsonRejection> for Refusal {
    fn from(rejection: JsonRejection) -> Refusal {
        Refusal { kind: RefusalKind::Invalid, message: rejection.body_text() }
    }
}

impl From<QueryRejection> for Refusal {
    fn from(rejection: QueryRejection) -> Refusal {
        Refusal { kind: RefusalKind::Invalid, message: rejection.body_text() }
    }
}

/// A JSON body; a bad one is refused as everything else is.
struct Body<T>(T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, state: &S) -> Result<Body<T>, Refusal> {
        match tokio::time::timeout(BODY_WAIT, Json::from_request(request, state)).await {
            Ok(read) => Ok(Body(read?.0)),
            Err(_) => Err(refusal(RefusalKind::Invalid, "the body of the request does not come")),
        }
    }
}

/// The query part of a path; a bad one is refused as everything else is.
#[derive(FromRequestParts)]
#[from_request(via(Query), rejection(Refusal))]
struct Asked<T>(T);

type Answer<T> = Result<Json<T>, Refusal>;
type Daemons = State<Arc<Daemon>>;

#[derive(Deserialize)]
#[serde(default)]
struct Flags {
    force: bool,
    all: bool,
    t: u64,
    since: Option<i64>,
    until: Option<i64>,
}

impl Default for Flags {
    fn default() -> Flags {
        Flags { force: false, all: false, t: 10, since: None, until: None }
    }
}

/// `POST /v1/networks/prune`
#[derive(Deserialize, Serialize, Default)]
#[serde(rename_all = "PascalCase", default)]
pub struct Prune {
    /// Only networks that bear all these labels, each `K` or `K=V`.
    pub labels: Vec<String>,
}

/// Its answer.
#[derive(Deserialize, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Pruned {
    /// Names of the networks that are gone.
    pub networks_deleted: Vec<String>,
}

/// `POST /v1/nodes/{name}/rename`
#[derive(Deserialize, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Rename {
    /// The new name.
    pub name: String,
}

/// All routes.
pub fn router(daemon: Arc<Daemon>) -> Router {
    Router::new()
        .route("/v1/info", get(async |State(d): Daemons| Json(d.info().await)))
        .route("/v1/version", get(version))
        .route("/v1/events", get(events))
        .route("/v1/networks", get(networks).post(network_create))
        .route("/v1/networks/prune", post(network_prune))
        .route("/v1/networks/{name}", get(network).delete(network_remove))
        .route("/v1/networks/{name}/connect", post(connect))
        .route("/v1/networks/{name}/disconnect", post(disconnect))
        .route(
            "/v1/networks/{name}/fdb",
            get(async |State(d): Daemons, Path(n): Path<String>| answer(d.fdb(&n).await)),
        )
        .route(
            "/v1/networks/{name}/drops",
            get(async |State(d): Daemons, Path(n): Path<String>| answer(d.drops(&n).await)),
        )
        .route(
            "/v1/networks/{name}/flows",
            get(async |State(d): Daemons, Path(n): Path<String>| answer(d.flows(&n).await)),
        )
        .route(
            "/v1/networks/{name}/names",
            get(async |State(d): Daemons, Path(n): Path<String>| answer(d.names(&n).await)),
        )
        .route(
            "/v1/networks/{name}/leases",
            get(async |State(d): Daemons, Path(n): Path<String>| answer(d.leases(&n).await)),
        )
        .route(
            "/v1/networks/{name}/stats",
            get(async |State(d): Daemons, Path(n): Path<String>| answer(d.network_stats(&n).await)),
        )
        .route(
            "/v1/nodes/{name}/stats",
            get(async |State(d): Daemons, Path(n): Path<String>| answer(d.node_stats(&n).await)),
        )
        .route("/v1/networks/{name}/capture", get(capture_network))
        .route("/v1/nodes/{name}/capture", get(capture_node))
        .route("/v1/captures/{id}", delete(capture_end))
        .route("/v1/nodes", get(nodes))
        .route("/v1/nodes/{name}", get(node).delete(node_remove))
        .route("/v1/nodes/{name}/detach", post(detach))
        .route("/v1/nodes/{name}/stop", post(stop))
        .route("/v1/nodes/{name}/rename", post(rename))
        .route("/v1/nodes/{name}/exited", post(exited))
        .route(
            "/v1/nodes/{name}/port",
            get(async |State(d): Daemons, Path(n): Path<String>| answer(d.ports(&n).await)),
        )
        .route("/v1/nodes/{name}/publish", post(publish))
        .route("/v1/nodes/{name}/unpublish", post(unpublish))
        .route("/metrics", get(metrics))
        .fallback(async || {
            refusal(RefusalKind::NotFound, "there is no such path in this API; see /v1/info")
        })
        .layer(DefaultBodyLimit::max(BODY_MAX))
        .layer(middleware::from_fn(to_its_end))
        .with_state(daemon)
}

/// Answers on a task of its own: a client that hangs up must not stop a change half-way.
async fn to_its_end(request: Request, next: Next) -> Response {
    let answered = tokio::spawn(next.run(request)).await;
    answered.unwrap_or_else(|_| StatusCode::INTERNAL_SERVER_ERROR.into_response())
}

/// Serves the API until the process ends.
pub async fn serve(listener: UnixListener, daemon: Arc<Daemon>) {
    let service = TowerToHyperService::new(router(daemon));
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of descriptors, most likely: what is there must end before more can begin.
                say(format_args!("cannot accept a connection: {error}"));
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        if !user::same_user_namespace(&stream) {
            continue;
        }
        let service = service.clone();
        tokio::spawn(async move {
            let mut http = hyper::server::conn::http1::Builder::new();
            http.timer(TokioTimer::new()).header_read_timeout(HEADERS_MAX).max_buf_size(64 * 1024);
            // A connection that ends badly is the client's affair.
            let _ = http.serve_connection(TokioIo::new(stream), service).await;
            drop(place);
        });
    }
}

fn refusal(kind: RefusalKind, message: &str) -> Refusal {
    Refusal { kind, message: message.into() }
}

fn answer<T>(result: Result<T, Refusal>) -> Answer<T> {
    result.map(Json)
}

async fn version() -> Json<BTreeMap<&'static str, &'static str>> {
    Json(BTreeMap::from([("Version", env!("CARGO_PKG_VERSION")), ("ApiVersion", "1")]))
}

async fn metrics(State(daemon): Daemons) -> Result<Response, Refusal> {
    let page = daemon.metrics().await?;
    Ok(([(header::CONTENT_TYPE, exposition::CONTENT_TYPE)], page).into_response())
}

async fn networks(State(daemon): Daemons) -> Json<Vec<NetworkDetail>> {
    Json(daemon.networks().await)
}

async fn network(State(daemon): Daemons, Path(name): Path<String>) -> Answer<NetworkDetail> {
    answer(daemon.network(&name).await)
}

async fn network_create(
    State(daemon): Daemons,
    Body(spec): Body<NetworkCreate>,
) -> Result<Response, Refusal> {
    let made = daemon.create_network(&spec).await?;
    Ok((StatusCode::CREATED, Json(made)).into_response())
}

async fn network_remove(
    State(daemon): Daemons,
    Path(name): Path<String>,
    Asked(flags): Asked<Flags>,
) -> Answer<()> {
    answer(daemon.remove_network(&name, flags.force).await)
}

async fn network_prune(State(daemon): Daemons, Body(prune): Body<Prune>) -> Answer<Pruned> {
    answer(
        daemon
            .prune_networks(&prune.labels)
            .await
            .map(|networks_deleted| Pruned { networks_deleted }),
    )
}

async fn connect(
    State(daemon): Daemons,
    Path(name): Path<String>,
    Body(asked): Body<ConnectRequest>,
) -> Answer<Vec<String>> {
    answer(daemon.connect(&name, &asked.container, asked.endpoint_config).await)
}

async fn disconnect(
    State(daemon): Daemons,
    Path(name): Path<String>,
    Body(asked): Body<DisconnectRequest>,
) -> Answer<Vec<String>> {
    answer(daemon.disconnect(&name, &asked.container, asked.force).await)
}

async fn nodes(State(daemon): Daemons, Asked(flags): Asked<Flags>) -> Json<Vec<NodeSummary>> {
    Json(daemon.nodes(flags.all).await)
}

async fn node(State(daemon): Daemons, Path(name): Path<String>) -> Answer<NodeDetail> {
    answer(daemon.node(&name).await)
}

async fn node_remove(
    State(daemon): Daemons,
    Path(name): Path<String>,
    Asked(flags): Asked<Flags>,
) -> Answer<()> {
    answer(daemon.remove_node(&name, flags.force).await)
}

async fn detach(State(daemon): Daemons, Path(name): Path<String>) -> Answer<()> {
    answer(daemon.detach(&name).await)
}

async fn stop(
    State(daemon): Daemons,
    Path(name): Path<String>,
    Asked(flags): Asked<Flags>,
) -> Answer<()> {
    answer(daemon.stop_node(&name, Duration::from_secs(flags.t.min(STOP_MAX))).await)
}

async fn rename(
    State(daemon): Daemons,
    Path(name): Path<String>,
    Body(to): Body<Rename>,
) -> Answer<()> {
    answer(daemon.rename(&name, &to.name).await)
}

async fn exited(
    State(daemon): Daemons,
    Path(name): Path<String>,
    Body(how): Body<NodeExited>,
) -> Answer<()> {
    answer(daemon.exited(&name, how.exit_code).await)
}

async fn publish(
    State(daemon): Daemons,
    Path(name): Path<String>,
    Body(asked): Body<PublishRequest>,
) -> Answer<()> {
    answer(daemon.publish(&name, &asked.ports).await)
}

async fn unpublish(
    State(daemon): Daemons,
    Path(name): Path<String>,
    Body(asked): Body<PublishRequest>,
) -> Answer<()> {
    answer(daemon.unpublish(&name, &asked.ports).await)
}

/// What of each frame a capture keeps, bytes: all of it for 0.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Snap {
    snaplen: Option<u32>,
}

async fn capture_network(
    State(daemon): Daemons,
    Path(name): Path<String>,
    Asked(snap): Asked<Snap>,
) -> Result<Response, Refusal> {
    daemon.capture_network(&name, snap.snaplen).await.map(pcapng)
}

async fn capture_node(
    State(daemon): Daemons,
    Path(name): Path<String>,
    Asked(snap): Asked<Snap>,
) -> Result<Response, Refusal> {
    daemon.capture_node(&name, snap.snaplen).await.map(pcapng)
}

async fn capture_end(State(daemon): Daemons, Path(id): Path<u32>) -> Answer<()> {
    answer(daemon.end_capture(id))
}

/// A capture as an answer that goes on until it ends; its number is in the header.
fn pcapng(stream: Captured) -> Response {
    let chunks = ReceiverStream::new(stream.chunks).map(Ok::<_, Infallible>);
    let header = [(CAPTURE_HEADER, stream.id.to_string()), ("content-type", PCAPNG.to_owned())];
    (AppendHeaders(header), Chunks::from_stream(chunks)).into_response()
}

async fn events(
    State(daemon): Daemons,
    Asked(flags): Asked<Flags>,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let (mut past, live) = daemon.events.listen(flags.since.or(flags.until.map(|_| 0)));
    let within = move |event: &EventMessage| flags.until.is_none_or(|until| event.time <= until);
    past.retain(within);
    // A listener that lags loses the oldest; it is told by the gap in the times.
    let live = BroadcastStream::new(live)
        .filter_map(move |event| std::future::ready(event.ok().filter(within)))
        .take_until(clock::until(flags.until));
    let all = stream::iter(past).chain(live);
    Sse::new(all.map(|event| Ok(Event::default().json_data(event).unwrap_or_default())))
}
