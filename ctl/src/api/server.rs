//! The server side of the API: HTTP/1.1 with JSON over a Unix socket, each route one call of the daemon.
//!
//! Whoever connects is checked before a byte is read: a guest's processes run under the user's uid on the same files, so only
//! a peer of the daemon's own user namespace is served. Requests, headers and connections are bounded in size, number and
//! time. The routes themselves are in [`super::routes`], and what they have in common in `answers`.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::UnixListener;
use tokio::sync::Semaphore;

use super::answers::refusal;
use super::routes;
use crate::daemon::Daemon;
use crate::daemon::readiness::not_accepted;
use crate::namespace::user;
use crate::topology::RefusalKind;

/// Connections served at a time; more wait to be accepted.
const CONNECTIONS_MAX: usize = 256;

/// A client has this long to send its headers.
const HEADERS_MAX: Duration = Duration::from_secs(10);

/// Largest body of a request, bytes.
const BODY_MAX: usize = 1 << 20;

/// All routes, within their limits.
pub fn router(daemon: Arc<Daemon>) -> Router {
    routes::all(daemon)
        .layer(DefaultBodyLimit::max(BODY_MAX))
        .layer(middleware::from_fn(to_its_end))
}

/// Answers on a task of its own: a client that hangs up must not stop a change half-way.
async fn to_its_end(request: Request, next: Next) -> Response {
    let answered = tokio::spawn(next.run(request)).await;
    answered.unwrap_or_else(|_| {
        refusal(RefusalKind::Internal, "the daemon has failed; look at daemon.log").into_response()
    })
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
                not_accepted("a connection", &error).await;
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
