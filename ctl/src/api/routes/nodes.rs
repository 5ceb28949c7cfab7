//! The routes about nodes.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Json, State};
use axum::response::Response;
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::system::{Snap, pcapng};
use crate::api::answers::{
    Answer, Asked, At, Body, Daemons, Force, Named, Refused, answer, number,
};
use crate::api::types::*;
use crate::daemon::Daemon;
use crate::topology::Refusal;

/// Longest wait that `stop` may ask for, seconds.
const STOP_MAX: u64 = 3600;

/// All of them.
pub(super) fn routes() -> OpenApiRouter<Arc<Daemon>> {
    OpenApiRouter::new()
        .routes(routes!(nodes))
        .routes(routes!(node, node_remove))
        .routes(routes!(detach))
        .routes(routes!(stop))
        .routes(routes!(rename))
        .routes(routes!(exited))
        .routes(routes!(ports))
        .routes(routes!(publish))
        .routes(routes!(unpublish))
        .routes(routes!(node_stats))
        .routes(routes!(capture_node))
}

/// Which nodes.
#[derive(Deserialize, Default, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
struct Which {
    /// Also those that have ended.
    all: bool,
}

/// How long a node has to end by itself.
#[derive(Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
struct Patience {
    /// Seconds, an hour at most.
    #[serde(deserialize_with = "number")]
    t: u64,
}

impl Default for Patience {
    fn default() -> Patience {
        Patience { t: 10 }
    }
}

/// The nodes, the youngest first.
#[utoipa::path(
    get,
    path = "/v1/nodes",
    params(Which),
    responses((status = 200, description = "The nodes.", body = Vec<NodeSummary>), Refused),
    tag = "nodes"
)]
async fn nodes(State(daemon): Daemons, Asked(which): Asked<Which>) -> Answer<Vec<NodeSummary>> {
    Ok(Json(daemon.nodes(which.all).await))
}

/// One node.
#[utoipa::path(
    get,
    path = "/v1/nodes/{name}",
    params(Named),
    responses((status = 200, description = "The node.", body = NodeDetail), Refused),
    tag = "nodes"
)]
async fn node(State(daemon): Daemons, At(Named { name }): At<Named>) -> Answer<NodeDetail> {
    answer(daemon.node(&name).await)
}

/// Removes a node; by force one that runs, too.
#[utoipa::path(
    delete,
    path = "/v1/nodes/{name}",
    params(Named, Force),
    responses((status = 200, description = "It is gone.", body = ()), Refused),
    tag = "nodes"
)]
async fn node_remove(
    State(daemon): Daemons,
    At(Named { name }): At<Named>,
    Asked(how): Asked<Force>,
) -> Answer<()> {
    answer(daemon.remove_node(&name, how.force).await)
}

/// Takes a foreign namespace off its networks.
#[utoipa::path(
    post,
    path = "/v1/nodes/{name}/detach",
    params(Named),
    responses((status = 200, description = "It is off them.", body = ()), Refused),
    tag = "nodes"
)]
async fn detach(State(daemon): Daemons, At(Named { name }): At<Named>) -> Answer<()> {
    answer(daemon.detach(&name).await)
}

/// Ends the program of a node: asks it to, and kills it where it does not end in time.
#[utoipa::path(
    post,
    path = "/v1/nodes/{name}/stop",
    params(Named, Patience),
    responses((status = 200, description = "It has ended.", body = ()), Refused),
    tag = "nodes"
)]
async fn stop(
    State(daemon): Daemons,
    At(Named { name }): At<Named>,
    Asked(patience): Asked<Patience>,
) -> Answer<()> {
    let wait = Duration::from_secs(patience.t.min(STOP_MAX));
    answer(daemon.stop_node(&name, wait).await)
}

/// Gives a node another name.
#[utoipa::path(
    post,
    path = "/v1/nodes/{name}/rename",
    params(Named),
    request_body = Rename,
    responses((status = 200, description = "It has the name.", body = ()), Refused),
    tag = "nodes"
)]
async fn rename(
    State(daemon): Daemons,
    At(Named { name }): At<Named>,
    Body(to): Body<Rename>,
) -> Answer<()> {
    answer(daemon.rename(&name, &to.name).await)
}

/// Notes how the program of a node ended: told by whoever ran it.
#[utoipa::path(
    post,
    path = "/v1/nodes/{name}/exited",
    params(Named),
    request_body = NodeExited,
    responses((status = 200, description = "It is noted.", body = ()), Refused),
    tag = "nodes"
)]
async fn exited(
    State(daemon): Daemons,
    At(Named { name }): At<Named>,
    Body(how): Body<NodeExited>,
) -> Answer<()> {
    answer(daemon.exited(&name, how.exit_code).await)
}

/// The ports of the host that lead to a node.
#[utoipa::path(
    get,
    path = "/v1/nodes/{name}/port",
    params(Named),
    responses((status = 200, description = "Those that are open.", body = Vec<PortRow>), Refused),
    tag = "nodes"
)]
async fn ports(State(daemon): Daemons, At(Named { name }): At<Named>) -> Answer<Vec<PortRow>> {
    answer(daemon.ports(&name).await)
}

/// Publishes ports of a node.
#[utoipa::path(
    post,
    path = "/v1/nodes/{name}/publish",
    params(Named),
    request_body = PublishRequest,
    responses((status = 200, description = "They are open.", body = ()), Refused),
    tag = "nodes"
)]
async fn publish(
    State(daemon): Daemons,
    At(Named { name }): At<Named>,
    Body(asked): Body<PublishRequest>,
) -> Answer<()> {
    answer(daemon.publish(&name, &asked.ports).await)
}

/// Closes published ports of a node.
#[utoipa::path(
    post,
    path = "/v1/nodes/{name}/unpublish",
    params(Named),
    request_body = PublishRequest,
    responses((status = 200, description = "They are closed.", body = ()), Refused),
    tag = "nodes"
)]
async fn unpublish(
    State(daemon): Daemons,
    At(Named { name }): At<Named>,
    Body(asked): Body<PublishRequest>,
) -> Answer<()> {
    answer(daemon.unpublish(&name, &asked.ports).await)
}

/// What went through the endpoints of a node.
#[utoipa::path(
    get,
    path = "/v1/nodes/{name}/stats",
    params(Named),
    responses((status = 200, description = "The rows.", body = Vec<StatsEntry>), Refused),
    tag = "nodes"
)]
async fn node_stats(
    State(daemon): Daemons,
    At(Named { name }): At<Named>,
) -> Answer<Vec<StatsEntry>> {
    answer(daemon.node_stats(&name).await)
}

/// The frames at all ports of a node, as they come, until the capture is ended or the client hangs up.
#[utoipa::path(
    get,
    path = "/v1/nodes/{name}/capture",
    params(Named, Snap),
    responses((status = 200, description = "A file of pcapng; the header `portolan-capture` has the number of the capture.", body = Vec<u8>, content_type = "application/x-pcapng"), Refused),
    tag = "nodes"
)]
async fn capture_node(
    State(daemon): Daemons,
    At(Named { name }): At<Named>,
    Asked(snap): Asked<Snap>,
) -> Result<Response, Refusal> {
    daemon.capture_node(&name, snap.snaplen).await.map(pcapng)
}
