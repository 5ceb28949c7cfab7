//! The routes about networks.

use std::sync::Arc;

use axum::extract::{Json, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::system::{Snap, pcapng};
use crate::api::answers::{Answer, Asked, At, Body, Daemons, Force, Named, Refused, answer};
use crate::api::types::*;
use crate::daemon::Daemon;
use crate::topology::Refusal;

/// All of them.
pub(super) fn routes() -> OpenApiRouter<Arc<Daemon>> {
    OpenApiRouter::new()
        .routes(routes!(networks, network_create))
        .routes(routes!(network_prune))
        .routes(routes!(network, network_remove))
        .routes(routes!(connect))
        .routes(routes!(disconnect))
        .routes(routes!(fdb))
        .routes(routes!(groups))
        .routes(routes!(drops))
        .routes(routes!(flows))
        .routes(routes!(names))
        .routes(routes!(leases))
        .routes(routes!(network_stats))
        .routes(routes!(capture_network))
        .routes(routes!(explain))
}

/// All networks, in order of their names.
#[utoipa::path(
    get,
    path = "/v1/networks",
    responses((status = 200, description = "The networks.", body = Vec<NetworkDetail>)),
    tag = "networks"
)]
async fn networks(State(daemon): Daemons) -> Json<Vec<NetworkDetail>> {
    Json(daemon.networks().await)
}

/// Makes a network.
#[utoipa::path(
    post,
    path = "/v1/networks",
    request_body = NetworkCreate,
    responses((status = 201, description = "It is made.", body = NetworkCreated), Refused),
    tag = "networks"
)]
async fn network_create(
    State(daemon): Daemons,
    Body(spec): Body<NetworkCreate>,
) -> Result<Response, Refusal> {
    let made = daemon.create_network(&spec).await?;
    Ok((StatusCode::CREATED, Json(made)).into_response())
}

/// Removes the networks that nobody is on.
#[utoipa::path(
    post,
    path = "/v1/networks/prune",
    request_body = Prune,
    responses((status = 200, description = "What is gone.", body = Pruned), Refused),
    tag = "networks"
)]
async fn network_prune(State(daemon): Daemons, Body(prune): Body<Prune>) -> Answer<Pruned> {
    let gone = daemon.prune_networks(&prune.labels).await;
    answer(gone.map(|networks_deleted| Pruned { networks_deleted }))
}

/// One network.
#[utoipa::path(
    get,
    path = "/v1/networks/{name}",
    params(Named),
    responses((status = 200, description = "The network.", body = NetworkDetail), Refused),
    tag = "networks"
)]
async fn network(State(daemon): Daemons, At(Named { name }): At<Named>) -> Answer<NetworkDetail> {
    answer(daemon.network(&name).await)
}

/// Removes a network; by force its nodes are taken off it first.
#[utoipa::path(
    delete,
    path = "/v1/networks/{name}",
    params(Named, Force),
    responses((status = 200, description = "It is gone.", body = ()), Refused),
    tag = "networks"
)]
async fn network_remove(
    State(daemon): Daemons,
    At(Named { name }): At<Named>,
    Asked(how): Asked<Force>,
) -> Answer<()> {
    answer(daemon.remove_network(&name, how.force).await)
}

/// Puts a node on a network.
#[utoipa::path(
    post,
    path = "/v1/networks/{name}/connect",
    params(Named),
    request_body = ConnectRequest,
    responses((status = 200, description = "It is on it; what the user should know, a line each.", body = Vec<String>), Refused),
    tag = "networks"
)]
async fn connect(
    State(daemon): Daemons,
    At(Named { name }): At<Named>,
    Body(asked): Body<ConnectRequest>,
) -> Answer<Vec<String>> {
    answer(daemon.connect(&name, &asked.container, asked.endpoint_config).await)
}

/// Takes a node off a network.
#[utoipa::path(
    post,
    path = "/v1/networks/{name}/disconnect",
    params(Named),
    request_body = DisconnectRequest,
    responses((status = 200, description = "It is off it; what the user should know, a line each.", body = Vec<String>), Refused),
    tag = "networks"
)]
async fn disconnect(
    State(daemon): Daemons,
    At(Named { name }): At<Named>,
    Body(asked): Body<DisconnectRequest>,
) -> Answer<Vec<String>> {
    answer(daemon.disconnect(&name, &asked.container, asked.force).await)
}

/// The stations of a network.
#[utoipa::path(
    get,
    path = "/v1/networks/{name}/fdb",
    params(Named),
    responses((status = 200, description = "The rows.", body = Vec<FdbEntry>), Refused),
    tag = "networks"
)]
async fn fdb(State(daemon): Daemons, At(Named { name }): At<Named>) -> Answer<Vec<FdbEntry>> {
    answer(daemon.fdb(&name).await)
}

/// Who is sent which groups, where these are snooped.
#[utoipa::path(
    get,
    path = "/v1/networks/{name}/groups",
    params(Named),
    responses((status = 200, description = "The rows.", body = Vec<GroupEntry>), Refused),
    tag = "networks"
)]
async fn groups(State(daemon): Daemons, At(Named { name }): At<Named>) -> Answer<Vec<GroupEntry>> {
    answer(daemon.groups(&name).await)
}

/// What would become of a frame, stage by stage. Nothing is sent, and nothing changes.
#[utoipa::path(
    post,
    path = "/v1/networks/{name}/explain",
    params(Named),
    request_body = ExplainRequest,
    responses((status = 200, description = "What would happen.", body = ExplainAnswer), Refused),
    tag = "networks"
)]
async fn explain(
    State(daemon): Daemons,
    At(Named { name }): At<Named>,
    Body(request): Body<ExplainRequest>,
) -> Answer<ExplainAnswer> {
    answer(daemon.explain(&name, &request).await)
}

/// What was dropped on a network, by node and reason.
#[utoipa::path(
    get,
    path = "/v1/networks/{name}/drops",
    params(Named),
    responses((status = 200, description = "The rows.", body = Vec<DropEntry>), Refused),
    tag = "networks"
)]
async fn drops(State(daemon): Daemons, At(Named { name }): At<Named>) -> Answer<Vec<DropEntry>> {
    answer(daemon.drops(&name).await)
}

/// What goes in and out of a network by sockets of the host.
#[utoipa::path(
    get,
    path = "/v1/networks/{name}/flows",
    params(Named),
    responses((status = 200, description = "The rows.", body = Vec<FlowEntry>), Refused),
    tag = "networks"
)]
async fn flows(State(daemon): Daemons, At(Named { name }): At<Named>) -> Answer<Vec<FlowEntry>> {
    answer(daemon.flows(&name).await)
}

/// The names on a network.
#[utoipa::path(
    get,
    path = "/v1/networks/{name}/names",
    params(Named),
    responses((status = 200, description = "The rows.", body = Vec<NameEntry>), Refused),
    tag = "networks"
)]
async fn names(State(daemon): Daemons, At(Named { name }): At<Named>) -> Answer<Vec<NameEntry>> {
    answer(daemon.names(&name).await)
}

/// The addresses that DHCP gave out on a network.
#[utoipa::path(
    get,
    path = "/v1/networks/{name}/leases",
    params(Named),
    responses((status = 200, description = "The rows.", body = Vec<LeaseEntry>), Refused),
    tag = "networks"
)]
async fn leases(State(daemon): Daemons, At(Named { name }): At<Named>) -> Answer<Vec<LeaseEntry>> {
    answer(daemon.leases(&name).await)
}

/// What went through the endpoints of a network.
#[utoipa::path(
    get,
    path = "/v1/networks/{name}/stats",
    params(Named),
    responses((status = 200, description = "The rows.", body = Vec<StatsEntry>), Refused),
    tag = "networks"
)]
async fn network_stats(
    State(daemon): Daemons,
    At(Named { name }): At<Named>,
) -> Answer<Vec<StatsEntry>> {
    answer(daemon.network_stats(&name).await)
}

/// The frames at all ports of a network, as they come, until the capture is ended or the client hangs up.
#[utoipa::path(
    get,
    path = "/v1/networks/{name}/capture",
    params(Named, Snap),
    responses((status = 200, description = "A file of pcapng; the header `portolan-capture` has the number of the capture.", body = Vec<u8>, content_type = "application/x-pcapng"), Refused),
    tag = "networks"
)]
async fn capture_network(
    State(daemon): Daemons,
    At(Named { name }): At<Named>,
    Asked(snap): Asked<Snap>,
) -> Result<Response, Refusal> {
    daemon.capture_network(&name, snap.snaplen).await.map(pcapng)
}
