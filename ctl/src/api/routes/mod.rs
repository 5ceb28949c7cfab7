//! The routes of the API. Each is described where it is written, and the description is served with them: a route cannot be
//! added but with its description.

mod networks;
#[expect(
    unused_qualifications,
    reason = "what describes a route names the types of its parameters in full"
)]
mod nodes;
#[expect(unused_qualifications, reason = "as above")]
mod system;

use std::sync::Arc;

use axum::Router;
use utoipa::openapi::{Info, License, OpenApi, OpenApiBuilder};
use utoipa::{PartialSchema, ToSchema};
use utoipa_axum::router::OpenApiRouter;

use super::answers::refusal;
use crate::api::types::ErrorBody;
use crate::daemon::Daemon;
use crate::topology::RefusalKind;

/// All routes, without the daemon that answers, and what describes them.
fn described() -> (Router<Arc<Daemon>>, OpenApi) {
    let mut info = Info::new("Portolan", env!("CARGO_PKG_VERSION"));
    info.description = Some(
        "LANs without root. HTTP over a Unix socket of the user's own; names of fields are Docker's wherever Docker has the field."
            .to_owned(),
    );
    info.license = Some(License::new("Apache-2.0 OR MIT"));
    let mut document = OpenApiBuilder::new().info(info).build();
    let components = document.components.get_or_insert_default();
    components.schemas.insert(ErrorBody::name().into_owned(), ErrorBody::schema());
    OpenApiRouter::with_openapi(document)
        .merge(system::routes())
        .merge(networks::routes())
        .merge(nodes::routes())
        .split_for_parts()
}

/// All routes.
pub(super) fn all(daemon: Arc<Daemon>) -> Router {
    let routes = described().0.fallback(async || {
        refusal(RefusalKind::NotFound, "there is no such path in this API; see /v1/openapi.json")
    });
    routes
        .method_not_allowed_fallback(async || {
            let message = "this path has no such method in this API; see /v1/openapi.json";
            refusal(RefusalKind::NotFound, message)
        })
        .with_state(daemon)
}

/// The description of all routes.
pub fn document() -> OpenApi {
    described().1
}

#[cfg(test)]
mod tests;
