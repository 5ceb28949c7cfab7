//! The routes about the daemon itself: what it is, what happens, how it fares.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, LazyLock};

use axum::body::{Body as Chunks, Bytes};
use axum::extract::{Json, State};
use axum::http::header;
use axum::response::sse::{Event, Sse};
use axum::response::{AppendHeaders, IntoResponse, Response};
use futures_util::{StreamExt, stream};
use serde::Deserialize;
use tokio_stream::wrappers::{BroadcastStream, ReceiverStream};
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::api::answers::{Answer, Asked, At, Daemons, Refused, answer, some_number};
use crate::api::exposition;
use crate::api::types::*;
use crate::daemon::capture::Stream as Captured;
use crate::daemon::{Daemon, clock};
use crate::topology::Refusal;

/// The description of the API, written once.
static DOCUMENT: LazyLock<Bytes> = LazyLock::new(|| {
    let document = super::document().to_json();
    Bytes::from(document.expect("the document has string keys and no number that JSON lacks"))
});

/// All of them.
pub(super) fn routes() -> OpenApiRouter<Arc<Daemon>> {
    OpenApiRouter::new()
        .routes(routes!(info))
        .routes(routes!(version))
        .routes(routes!(events))
        .routes(routes!(openapi))
        .routes(routes!(metrics))
        .routes(routes!(capture_end))
}

/// Between which times events are told.
#[derive(Deserialize, Default, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
struct Span {
    /// Also of those before, from this second since 1970 on.
    #[serde(deserialize_with = "some_number")]
    since: Option<i64>,
    /// None after this second since 1970, at which the stream ends.
    #[serde(deserialize_with = "some_number")]
    until: Option<i64>,
}

/// How much a capture keeps.
#[derive(Deserialize, Default, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
pub(super) struct Snap {
    /// Bytes of each frame; all of it for 0.
    #[serde(deserialize_with = "some_number")]
    pub snaplen: Option<u32>,
}

/// What a path names a capture by.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
struct Numbered {
    /// The number of a capture.
    id: u32,
}

/// What there is to say about the daemon itself.
#[utoipa::path(
    get,
    path = "/v1/info",
    responses((status = 200, description = "The daemon.", body = Info)),
    tag = "system"
)]
async fn info(State(daemon): Daemons) -> Json<Info> {
    Json(daemon.info().await)
}

/// Which Portolan this is, and which API.
#[utoipa::path(
    get,
    path = "/v1/version",
    responses((status = 200, description = "The versions.", body = BTreeMap<String, String>)),
    tag = "system"
)]
async fn version() -> Json<BTreeMap<&'static str, &'static str>> {
    Json(BTreeMap::from([("Version", env!("CARGO_PKG_VERSION")), ("ApiVersion", "1")]))
}

/// What happens, as server-sent events, each with an event as its data.
#[utoipa::path(
    get,
    path = "/v1/events",
    params(Span),
    responses((status = 200, description = "The stream.", body = EventMessage, content_type = "text/event-stream"), Refused),
    tag = "system"
)]
async fn events(State(daemon): Daemons, Asked(span): Asked<Span>) -> Response {
    let (mut past, live) = daemon.events.listen(span.since.or(span.until.map(|_| 0)));
    let within = move |event: &EventMessage| span.until.is_none_or(|until| event.time <= until);
    past.retain(within);
    // A listener that lags loses the oldest; it is told by the gap in the times.
    let live = BroadcastStream::new(live)
        .filter_map(move |event| std::future::ready(event.ok().filter(within)))
        .take_until(clock::until(span.until));
    let all = stream::iter(past).chain(live);
    let told = |event| Ok::<_, Infallible>(Event::default().json_data(event).unwrap_or_default());
    Sse::new(all.map(told)).into_response()
}

/// The description of this API, OpenAPI 3.1.
#[utoipa::path(
    get,
    path = "/v1/openapi.json",
    responses((status = 200, description = "The document.", body = BTreeMap<String, serde_json::Value>)),
    tag = "system"
)]
async fn openapi() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], DOCUMENT.clone()).into_response()
}

/// How the daemon, its networks and their ports fare: Prometheus's text format.
#[utoipa::path(
    get,
    path = "/metrics",
    responses((status = 200, description = "The page.", body = String, content_type = "text/plain"), Refused),
    tag = "system"
)]
async fn metrics(State(daemon): Daemons) -> Result<Response, Refusal> {
    let page = daemon.metrics().await?;
    Ok(([(header::CONTENT_TYPE, exposition::CONTENT_TYPE)], page).into_response())
}

/// Ends a capture: what it has yet to tell is told.
#[utoipa::path(
    delete,
    path = "/v1/captures/{id}",
    params(Numbered),
    responses((status = 200, description = "It ends.", body = ()), Refused),
    tag = "system"
)]
async fn capture_end(State(daemon): Daemons, At(Numbered { id }): At<Numbered>) -> Answer<()> {
    answer(daemon.end_capture(id))
}

/// A capture as an answer that goes on until it ends; its number is in the header.
pub(super) fn pcapng(stream: Captured) -> Response {
    let chunks = ReceiverStream::new(stream.chunks).map(Ok::<_, Infallible>);
    let header = [(CAPTURE_HEADER, stream.id.to_string()), ("content-type", PCAPNG.to_owned())];
    (AppendHeaders(header), Chunks::from_stream(chunks)).into_response()
}
